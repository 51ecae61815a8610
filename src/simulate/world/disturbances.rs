//! Slow ranks, ways that are cut for a while, and ranks that come back after their death.

use std::time::Duration;

use copper_proto::{LinkId, Rank, Tick, TreeIndex, Violation};

use super::{Event, World};
use crate::simulate::constants::SILENCE;
use crate::simulate::host::{Host, Link};
use crate::simulate::random::Random;

/// The longest that a way is cut: longer than it takes to be noticed.
const CUT_MAX: Duration = Duration::from_secs(10);

/// How long a rank is dead before it is back.
const RETURN_MIN: Duration = Duration::from_millis(10);
const RETURN_SPREAD: Duration = Duration::from_secs(1);

/// For how long a rank is not tried whose fabric has failed; the launcher's.
const BARRED: Duration = Duration::from_secs(30);

/// A rank that reaches nobody tries again so often.
const DIALS_AGAIN: Duration = Duration::from_millis(200);

/// Which way is cut between a rank and its parent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cut {
    Up,
    Down,
    Both,
}

impl World<'_> {
    pub(super) fn plan_disturbances(&mut self, random: &mut Random) {
        let faults = self.plan.faults;
        for rank in 0..self.hosts.len() {
            let mut hit = |permille: u32| permille > 0 && random.below(1000) < permille.into();
            if hit(faults.slow_permille) {
                self.network.slow_down(rank, faults.slowness);
            }
            if hit(faults.cut_permille) {
                let tree = TreeIndex(random.below(self.plan.trees.get().into()) as u32);
                let cut = *random.pick(&[Cut::Up, Cut::Down, Cut::Both]);
                let at = self.now + self.moment(random);
                // Half of them are short.
                let most = *random.pick(&[Duration::from_millis(100), CUT_MAX]);
                let until = at + Duration::from_nanos(random.below(most.as_nanos() as u64));
                self.agenda.note(at, Event::Cuts { rank, tree, cut, until });
                self.mended = self.mended.max(until);
            }
        }
        if faults.poisoned {
            self.poisoned = Some(random.below(self.program.objects.len() as u64) as u32);
        }
    }

    /// Some moment while everybody is still at it.
    pub(super) fn moment(&self, random: &mut Random) -> Duration {
        Duration::from_nanos(
            random.below(self.program.window(&self.plan.constants).as_nanos() as u64),
        )
    }

    /// A rank dies at that moment: whether, and when, it comes back.
    pub(super) fn plan_return(&mut self, rank: usize, dies: Tick, random: &mut Random) {
        let permille = self.plan.faults.returned_permille;
        if permille > 0 && random.below(1000) < permille.into() {
            let spread = random.below(RETURN_SPREAD.as_nanos() as u64);
            let back = dies + RETURN_MIN + Duration::from_nanos(spread);
            self.agenda.note(back, Event::Returns(rank));
            self.mended = self.mended.max(back);
        }
    }

    /// A rank is back, with nothing of what it had; its processes begin again.
    pub(super) fn returns(&mut self, rank: usize) {
        self.returned += 1;
        let life = self.hosts[rank].life + 1;
        let folders = self.program.folders.len();
        let (now, plan) = (self.now, self.plan);
        let mut host = Host::new(rank, plan, &self.forest, folders, now, &mut self.random);
        host.life = life;
        #[cfg(test)]
        if let Some(bug) = self.planted {
            host.member.plant(bug);
        }
        self.hosts[rank] = host;
        let trees: Vec<TreeIndex> = self.forest.trees().map(|(tree, _)| tree).collect();
        for tree in trees {
            self.dials(rank, tree);
        }
        self.go_on(rank);
    }

    /// The way between a rank and its parent is cut. Whoever hears nothing for too long closes the
    /// link, and the other learns of that at once, or hears nothing either.
    pub(super) fn cuts(&mut self, rank: usize, tree: TreeIndex, cut: Cut, until: Tick) {
        let host = &self.hosts[rank];
        let Some(link) = host.parents[tree.0 as usize].filter(|_| host.alive) else { return };
        let Link { other, theirs, .. } = host.links[&link];
        self.cut += 1;
        if cut != Cut::Down {
            self.network.cut(rank, other, until);
        }
        if cut != Cut::Up {
            self.network.cut(other, rank, until);
        }
        let silent = self.now + SILENCE;
        if until > silent {
            let seen = silent + self.plan.constants.death_seen;
            let (up, down) = if cut == Cut::Up { (seen, silent) } else { (silent, seen) };
            self.agenda.note(up, Event::Down { rank, link });
            self.agenda.note(down, Event::Down { rank: other, link: theirs });
        }
    }

    /// Whether a fault explains that a member gives a link up: only on a way that is cut is there no word.
    pub(super) fn excuses(&self, violation: Violation) -> bool {
        match violation {
            Violation::Silent => self.plan.faults.cut_permille > 0,
            Violation::Unreachable => !self.plan.faults.is_none(),
            Violation::WrongDirection
            | Violation::Credits
            | Violation::RequestInUse
            | Violation::Lease
            | Violation::NoQuestion
            | Violation::WrongAnswer
            | Violation::WrongTree
            | Violation::Children => false,
        }
    }

    /// A member gives a link up, over whose fabric nothing comes as it should: at once here, a little
    /// later there.
    pub(super) fn parts(&mut self, rank: usize, link: LinkId) {
        let Some(&Link { other, theirs, .. }) = self.hosts[rank].links.get(&link) else { return };
        let until = self.now + BARRED;
        self.barred.insert((rank, other), until);
        self.mended = self.mended.max(until);
        self.agenda.note(self.now, Event::Down { rank, link });
        let seen = self.now + self.plan.constants.death_seen;
        self.agenda.note(seen, Event::Down { rank: other, link: theirs });
    }

    /// Whether two ranks could open a link now.
    pub(super) fn can_link(&self, rank: usize, other: usize) -> bool {
        let passes = |from, to| self.network.passes(from, to, self.now) == self.now;
        let barred = self.barred.get(&(rank, other)).is_some_and(|&until| self.now < until);
        self.hosts[other].alive && !barred && passes(rank, other) && passes(other, rank)
    }

    /// A rank that has reached nobody tries again, as long as there is something to hope for.
    pub(super) fn dials_again(&mut self, rank: usize, tree: TreeIndex) {
        if self.mended > self.now {
            self.agenda.note(self.now + DIALS_AGAIN, Event::Dials { rank, tree });
        }
    }

    /// Whether a rank has a parent in a tree, or needs none.
    pub(super) fn has_parent(&self, rank: usize, tree: TreeIndex) -> bool {
        let root = self.forest.tree(tree).map(|tree| tree.root());
        let parent: Option<LinkId> = self.hosts[rank].parents[tree.0 as usize];
        parent.is_some() || root == Some(Rank(rank as u32))
    }
}
