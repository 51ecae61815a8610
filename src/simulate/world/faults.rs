//! Ranks that die: what the launcher's rendezvous does about it, in its order.

use copper_proto::{Input, LinkId, Rank, Tick, TreeIndex};

use super::{Event, World};
use crate::simulate::constants::{ORPHANED, TAKEOVER};
use crate::simulate::host::Link;
use crate::simulate::random::Random;

impl World<'_> {
    /// Chooses who dies, and when: while everybody still computes, so that nobody dies too late.
    pub(super) fn plan_deaths(&mut self, random: &mut Random) {
        let nodes = u64::from(self.plan.nodes.get());
        let faults = self.plan.faults;
        let permille = u64::from(faults.killed_permille);
        if permille == 0 {
            return;
        }
        let count = (nodes * permille).div_ceil(1000).clamp(1, nodes - 1);
        let mut victims: Vec<usize> = (0..nodes as usize).collect();
        let first = self.forest.trees().next().map_or(Rank(0), |(_, tree)| tree.root()).0;
        victims.swap(0, first as usize);
        for index in 1..count as usize {
            let other = index + random.below(nodes - index as u64) as usize;
            victims.swap(index, other);
        }
        for &victim in &victims[usize::from(faults.root_lives)..count as usize] {
            let at = self.now + self.moment(random);
            self.agenda.note(at, Event::Dies(victim));
            self.plan_return(victim, at, random);
        }
    }

    pub(super) fn dies(&mut self, rank: usize) {
        self.killed += 1;
        self.hosts[rank].dies();
        for (_, link) in std::mem::take(&mut self.hosts[rank].links) {
            let event = Event::Down { rank: link.other, link: link.theirs };
            self.agenda.note(self.now + self.plan.constants.death_seen, event);
        }
    }

    pub(super) fn down(&mut self, rank: usize, link: LinkId) {
        let host = &mut self.hosts[rank];
        if !host.alive || host.links.remove(&link).is_none() {
            return;
        }
        if let Some(tree) = host.parents.iter().position(|parent| *parent == Some(link)) {
            host.parents[tree] = None;
            self.out_of_reach += 1;
            let tree = TreeIndex(tree as u32);
            self.agenda.note(self.now + self.plan.constants.dialling, Event::Dials { rank, tree });
        }
        self.handle(rank, Input::LinkDown { link }, None);
    }

    /// Nobody above has answered for long enough.
    pub(super) fn waited(&mut self, rank: usize, tree: TreeIndex) {
        let host = &self.hosts[rank];
        if host.alive && host.parents[tree.0 as usize].is_none() {
            self.handle(rank, Input::Orphaned { tree }, None);
        }
    }

    /// Connects a rank to the first of those above it that lives.
    pub(super) fn dials(&mut self, rank: usize, tree: TreeIndex) {
        let of_tree = self.forest.tree(tree).expect("one of them");
        if !self.hosts[rank].alive || self.has_parent(rank, tree) {
            return;
        }
        let mut candidates = of_tree.candidates(Rank(rank as u32)).map(|rank| rank.0 as usize);
        let Some(parent) = candidates.find(|&candidate| self.can_link(rank, candidate)) else {
            let stands_in = of_tree.is_successor(Rank(rank as u32));
            let patience = if stands_in { TAKEOVER } else { ORPHANED };
            self.agenda.note(self.now + patience, Event::Waited { rank, tree });
            self.out_of_reach += 1;
            self.dials_again(rank, tree);
            return;
        };
        let (up, down) = (LinkId(self.next_link), LinkId(self.next_link + 1));
        self.next_link += 2;
        self.hosts[rank].opened += 1;
        let end = |other, theirs| Link { other, theirs, coming: 0, arrived: Tick(0) };
        self.hosts[rank].links.insert(up, end(parent, down));
        self.hosts[rank].parents[tree.0 as usize] = Some(up);
        self.hosts[parent].links.insert(down, end(rank, up));
        let child = Rank(rank as u32);
        self.hand(parent, Input::ChildUp { tree, link: down, rank: child }, None);
        let parent = Rank(parent as u32);
        self.hand(rank, Input::ParentUp { tree, link: up, rank: parent }, None);
    }
}
