//! Which ranks at or below this one are ready, and when the parent is told.
//!
//! The parent hears of the first and of a complete subtree at once. Between them the news is put
//! together: the pauses grow, so that what a rank sends and hears while the job comes up depends on
//! its number of children and on the time, not on the number of ranks below.

use std::collections::HashMap;
use std::time::Duration;

use copper_proto::{LinkId, Rank, Tick, Tree};

use crate::rank_set::{RankSet, RankSlice};

/// The first pause between two messages to the parent.
const PAUSE_MIN: Duration = Duration::from_millis(20);

/// The longest: what the launcher shows of the progress is no older than this for each level.
const PAUSE_MAX: Duration = Duration::from_millis(500);

/// Ranks that are named as missing; the others are counted.
pub const MISSING_NAMED_MAX: usize = 64;

/// How far the job, or a rank's part of it, has come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Ranks that are ready, of those at or below this rank.
    pub ready: u32,
    /// Of so many.
    pub size: u32,
    /// The first of the others, in order: at most [`MISSING_NAMED_MAX`].
    pub missing: Vec<Rank>,
}

impl Progress {
    /// Whether all are ready.
    pub fn is_whole(&self) -> bool {
        self.ready == self.size
    }
}

/// What one rank knows.
#[derive(Debug)]
pub(crate) struct Readiness {
    rank: Rank,
    /// This rank and all below it.
    subtree: RankSet,
    own: bool,
    below: HashMap<LinkId, RankSet>,
    /// All that are ready, put together.
    ready: RankSet,
    told: Option<RankSet>,
    pause: Duration,
    due: Tick,
}

impl Readiness {
    pub(crate) fn new(rank: Rank, tree: &Tree) -> Readiness {
        let mut subtree = RankSet::new(tree.size());
        let mut found = vec![rank];
        while let Some(rank) = found.pop() {
            subtree.insert(rank);
            found.extend(tree.children(rank));
        }
        Readiness {
            rank,
            subtree,
            own: false,
            below: HashMap::new(),
            ready: RankSet::new(tree.size()),
            told: None,
            pause: PAUSE_MIN,
            due: Tick(0),
        }
    }

    pub(crate) fn set_own(&mut self) {
        self.own = true;
        self.ready.insert(self.rank);
    }

    /// A child says which ranks of a slice are ready.
    pub(crate) fn set_below(&mut self, link: LinkId, slice: &RankSlice) {
        let empty = || RankSet::new(self.subtree.size());
        self.below.entry(link).or_insert_with(empty).replace(slice);
        self.put_together();
    }

    pub(crate) fn forget(&mut self, link: LinkId) {
        if self.below.remove(&link).is_some() {
            self.put_together();
        }
    }

    fn put_together(&mut self) {
        let mut ready = RankSet::new(self.subtree.size());
        self.below.values().for_each(|below| ready.add(below));
        if self.own {
            ready.insert(self.rank);
        }
        // Ranks that are not below this one may have come to it: the root counts them.
        self.ready = ready;
    }

    pub(crate) fn progress(&self) -> Progress {
        let missing = self.subtree.without(&self.ready);
        let mut ready = self.ready.clone();
        ready.keep(&self.subtree);
        Progress {
            ready: ready.count(),
            size: self.subtree.count(),
            missing: missing.take(MISSING_NAMED_MAX).collect(),
        }
    }

    /// A new parent knows nothing yet.
    pub(crate) fn on_new_parent(&mut self) {
        self.told = None;
        self.pause = PAUSE_MIN;
    }

    /// What the parent is to be told at `now`. It then counts as told.
    pub(crate) fn news(&mut self, now: Tick) -> Vec<RankSlice> {
        if self.is_told() || now < self.next_due() {
            return Vec::new();
        }
        let slices = 0..self.ready.slices();
        let slices = slices.map(|index| (index, self.ready.slice(index)));
        let told = self.told.as_ref();
        let changed = slices.filter(|(index, slice)| match told {
            Some(told) => told.slice(*index) != *slice,
            None => !slice.is_empty(),
        });
        let changed = changed.map(|(_, slice)| slice).collect();
        self.told = Some(self.ready.clone());
        self.due = now + self.pause;
        self.pause = if self.is_whole() { PAUSE_MIN } else { (2 * self.pause).min(PAUSE_MAX) };
        changed
    }

    /// When [`Readiness::news`] has something to say next, as far as is known.
    pub(crate) fn next_due(&self) -> Tick {
        match &self.told {
            _ if self.is_told() => Tick::NEVER,
            Some(_) if !self.is_whole() => self.due,
            None | Some(_) => Tick(0),
        }
    }

    fn is_whole(&self) -> bool {
        self.subtree.without(&self.ready).next().is_none()
    }

    fn is_told(&self) -> bool {
        match &self.told {
            Some(told) => *told == self.ready,
            None => self.ready.count() == 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use copper_proto::TreeIndex;

    use super::*;
    use copper_proto::Forest;

    fn tree(size: u32) -> Tree {
        let nonzero = |value| NonZeroU32::new(value).expect("not zero");
        let forest = Forest::new(nonzero(size), nonzero(2), nonzero(1)).expect("valid");
        forest.tree(TreeIndex(0)).expect("the only one")
    }

    fn only(size: u32, ranks: &[u32]) -> RankSlice {
        let mut set = RankSet::new(size);
        ranks.iter().for_each(|&rank| set.insert(Rank(rank)));
        set.slice(0)
    }

    fn missing(readiness: &Readiness) -> Vec<u32> {
        readiness.progress().missing.iter().map(|rank| rank.0).collect()
    }

    #[test]
    fn ranks_are_counted_once_and_go_with_the_link_that_told_of_them() {
        // 0 has 1 and 2; 1 has 3 and 4; 2 has 5 and 6; 3 has 7.
        let mut readiness = Readiness::new(Rank(1), &tree(8));
        assert_eq!((readiness.progress().size, missing(&readiness)), (4, vec![1, 3, 4, 7]));
        readiness.set_below(LinkId(1), &only(8, &[3, 7]));
        readiness.set_own();
        // Rank 7 has lost its parent and comes to rank 1 itself; 6 is not below it.
        readiness.set_below(LinkId(2), &only(8, &[6, 7]));
        assert_eq!((readiness.progress().ready, missing(&readiness)), (3, vec![4]));
        readiness.forget(LinkId(1));
        assert_eq!((readiness.progress().ready, missing(&readiness)), (2, vec![3, 4]));
        readiness.set_below(LinkId(1), &only(8, &[3, 4]));
        assert!(readiness.progress().is_whole());
    }

    #[test]
    fn the_first_and_the_last_news_are_told_at_once_and_others_together() {
        let mut readiness = Readiness::new(Rank(0), &tree(1000));
        assert_eq!((readiness.news(Tick(5)), readiness.next_due()), (vec![], Tick::NEVER));
        readiness.set_own();
        assert_eq!(readiness.news(Tick(5)).len(), 1);
        assert!(readiness.news(Tick(6)).is_empty(), "it is told");
        let (mut now, mut messages) = (Tick(0), 0);
        for rank in 1..999 {
            now = now + Duration::from_millis(10);
            let known: Vec<u32> = (1..=rank).collect();
            readiness.set_below(LinkId(1), &only(1000, &known));
            messages += readiness.news(now).len();
        }
        // 10 s: 5 while the pauses grow, then two a second.
        assert!((20..=26).contains(&messages), "{messages}");
        readiness.set_below(LinkId(2), &only(1000, &[999]));
        assert_eq!(readiness.next_due(), Tick(0));
        assert_eq!(readiness.news(now), [only(1000, &(0..1000).collect::<Vec<_>>())]);
        assert_eq!(readiness.next_due(), Tick::NEVER);
    }

    #[test]
    fn a_new_parent_is_told_everything() {
        let mut readiness = Readiness::new(Rank(3), &tree(8));
        readiness.set_own();
        assert_eq!(readiness.news(Tick(0)).len(), 1);
        readiness.on_new_parent();
        assert_eq!(readiness.news(Tick(1)), [only(8, &[3])]);
    }

    #[test]
    fn of_many_missing_ranks_the_first_are_named() {
        let mut readiness = Readiness::new(Rank(0), &tree(1000));
        readiness.set_own();
        let progress = readiness.progress();
        assert_eq!((progress.ready, progress.size), (1, 1000));
        assert_eq!(progress.missing, (1..=64).map(Rank).collect::<Vec<_>>());
    }
}
