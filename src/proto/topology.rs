//! The shape of the trees: arithmetic from rank ids, nothing else.
//!
//! Tree *t* of *T* is the *k*-ary tree over all ranks, rotated by *t·N/T*, so that different trees
//! have different roots and mostly different inner ranks.

use std::num::NonZeroU32;

use crate::ids::{Rank, TreeIndex};
use crate::limits::{CHILDREN_MAX, SUCCESSORS_MIN, TREES_MAX};

/// The fan-out for a job of `size` ranks where none is given: the smallest that keeps a tree at four
/// levels below its root, as the C++ Copper's thresholds do, but at least 2.
pub fn default_fanout(size: u32) -> NonZeroU32 {
    let holds = |fanout: u64| (0..=4).map(|level| fanout.pow(level)).sum::<u64>();
    let widest = u64::from(CHILDREN_MAX);
    let fanout = (2..widest).find(|&fanout| holds(fanout) >= size.into()).unwrap_or(widest);
    NonZeroU32::new(u32::try_from(fanout).expect("at most CHILDREN_MAX")).expect("at least 2")
}

/// One tree over the ranks of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tree {
    size: NonZeroU32,
    fanout: NonZeroU32,
    rotation: u32,
}

impl Tree {
    /// Tree `index` of `count` over `size` ranks with at most `fanout` children each. `None` unless
    /// `index < count <= size` and `fanout` is at most [`CHILDREN_MAX`].
    pub fn new(size: NonZeroU32, fanout: NonZeroU32, index: u32, count: u32) -> Option<Tree> {
        let valid = index < count && count <= size.get() && fanout.get() <= CHILDREN_MAX;
        let rotation = (u64::from(index) * u64::from(size.get())).checked_div(u64::from(count))?;
        valid.then_some(Tree { size, fanout, rotation: u32::try_from(rotation).ok()? })
    }

    /// Number of ranks.
    pub fn size(&self) -> u32 {
        self.size.get()
    }

    /// The most children that a rank has.
    pub fn fanout(&self) -> u32 {
        self.fanout.get()
    }

    /// The rank that reads the source.
    pub fn root(&self) -> Rank {
        self.rank_at(0)
    }

    /// Who is asked by `rank`; `None` for the root.
    pub fn parent(&self, rank: Rank) -> Option<Rank> {
        let position = self.position(rank);
        (position > 0).then(|| self.rank_at((position - 1) / self.fanout.get()))
    }

    /// Who asks `rank`, in order of position.
    pub fn children(&self, rank: Rank) -> impl Iterator<Item = Rank> + '_ {
        let first = u64::from(self.position(rank)) * u64::from(self.fanout.get()) + 1;
        let end = (first + u64::from(self.fanout.get())).min(u64::from(self.size.get()));
        (first..end).map(|position| {
            self.rank_at(u32::try_from(position).expect("positions are below the size"))
        })
    }

    /// The parent, its parent, and so on to the root; empty for the root.
    pub fn ancestors(&self, rank: Rank) -> impl Iterator<Item = Rank> + '_ {
        std::iter::successors(self.parent(rank), |&ancestor| self.parent(ancestor))
    }

    /// Whether a rank takes the root's place when it and all successors before this one are lost: the
    /// ranks that follow it in position, as many as it has children, and at least
    /// [`SUCCESSORS_MIN`].
    pub fn is_successor(&self, rank: Rank) -> bool {
        (1..=self.successors_count()).contains(&self.position(rank))
    }

    /// Whom a rank may hang on, in the order in which it tries them: its ancestors, then the root's
    /// successors. All have lower positions, so that no circle can come of it, whoever is lost. Ranks
    /// that are no successors begin with different ones of these.
    pub fn candidates(&self, rank: Rank) -> impl Iterator<Item = Rank> + '_ {
        let (position, count) = (self.position(rank), self.successors_count());
        let before = position.saturating_sub(1).min(count);
        let first = if position > count { position % count } else { 0 };
        let successors = (0..before).map(move |step| self.rank_at((first + step) % before + 1));
        let is_new = move |&it: &Rank| self.ancestors(rank).all(|ancestor| ancestor != it);
        self.ancestors(rank).chain(successors.filter(is_new))
    }

    /// Whether `parent` is one of the [`Tree::candidates`] of `rank`.
    pub fn may_hang_on(&self, rank: Rank, parent: Rank) -> bool {
        let above = self.position(parent) < self.position(rank);
        let stands_in = above && self.is_successor(parent);
        stands_in || self.ancestors(rank).any(|ancestor| ancestor == parent)
    }

    fn successors_count(&self) -> u32 {
        self.fanout.get().max(SUCCESSORS_MIN).min(self.size.get() - 1)
    }

    fn position(&self, rank: Rank) -> u32 {
        assert!(rank.0 < self.size.get(), "rank {rank} is outside of {} ranks", self.size);
        let size = self.size.get();
        if rank.0 >= self.rotation { rank.0 - self.rotation } else { rank.0 + size - self.rotation }
    }

    fn rank_at(&self, position: u32) -> Rank {
        let sum = u64::from(position) + u64::from(self.rotation);
        let rank = sum % u64::from(self.size.get());
        Rank(u32::try_from(rank).expect("a remainder of a u32"))
    }
}

/// All trees over the ranks of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forest {
    size: NonZeroU32,
    fanout: NonZeroU32,
    trees: NonZeroU32,
}

impl Forest {
    /// `None` unless there are at most [`TREES_MAX`] trees, no more than ranks, and `fanout` is at
    /// most [`CHILDREN_MAX`].
    pub fn new(size: NonZeroU32, fanout: NonZeroU32, trees: NonZeroU32) -> Option<Forest> {
        let valid = trees.get() <= TREES_MAX.min(size.get()) && fanout.get() <= CHILDREN_MAX;
        valid.then_some(Forest { size, fanout, trees })
    }

    /// Number of ranks.
    pub fn size(&self) -> u32 {
        self.size.get()
    }

    /// The most children that a rank has in one tree.
    pub fn fanout(&self) -> u32 {
        self.fanout.get()
    }

    /// Number of trees.
    pub fn count(&self) -> NonZeroU32 {
        self.trees
    }

    /// One tree; `None` if there are not so many.
    pub fn tree(&self, index: TreeIndex) -> Option<Tree> {
        Tree::new(self.size, self.fanout, index.0, self.trees.get())
    }

    /// All trees, in order.
    pub fn trees(&self) -> impl Iterator<Item = (TreeIndex, Tree)> + '_ {
        let all = (0..self.trees.get()).map(TreeIndex);
        all.map(|index| (index, self.tree(index).expect("it is one of them")))
    }

    /// Whether a rank is the root of a tree.
    pub fn has_root(&self, rank: Rank) -> bool {
        self.trees().any(|(_, tree)| tree.root() == rank)
    }

    /// The children of a rank in all trees.
    pub fn children_count(&self, rank: Rank) -> usize {
        self.trees().map(|(_, tree)| tree.children(rank).count()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(size: u32, fanout: u32, index: u32, count: u32) -> Tree {
        let nonzero = |value| NonZeroU32::new(value).expect("not zero");
        Tree::new(nonzero(size), nonzero(fanout), index, count).expect("valid")
    }

    #[test]
    fn parent_and_children_agree_and_everybody_reaches_the_root() {
        for (size, fanout, count) in [(1, 1, 1), (4, 2, 1), (7, 3, 2), (64, 8, 5), (10_624, 8, 3)] {
            for index in 0..count {
                let tree = tree(size, fanout, index, count);
                let mut children = 0;
                for rank in (0..size).map(Rank) {
                    for child in tree.children(rank) {
                        assert_eq!(tree.parent(child), Some(rank));
                        children += 1;
                    }
                    let top = tree.ancestors(rank).last().unwrap_or(rank);
                    assert_eq!(top, tree.root());
                }
                assert_eq!(children, size - 1, "everybody but the root is somebody's child");
            }
        }
    }

    #[test]
    fn candidates_are_the_ancestors_then_the_successors_and_all_lie_above() {
        for (size, fanout, count) in [(1, 1, 1), (2, 1, 2), (8, 2, 1), (40, 3, 4), (300, 12, 2)] {
            for index in 0..count {
                let tree = tree(size, fanout, index, count);
                for rank in (0..size).map(Rank) {
                    let candidates: Vec<Rank> = tree.candidates(rank).collect();
                    let ancestors: Vec<Rank> = tree.ancestors(rank).collect();
                    assert_eq!(candidates[..ancestors.len()], ancestors);
                    let mut once = candidates.clone();
                    once.sort_unstable();
                    once.dedup();
                    assert_eq!(once.len(), candidates.len(), "{candidates:?}");
                    for other in (0..size).map(Rank) {
                        assert_eq!(candidates.contains(&other), tree.may_hang_on(rank, other));
                        let circle = tree.may_hang_on(rank, other) && tree.may_hang_on(other, rank);
                        assert!(!circle, "{rank} and {other}");
                    }
                    assert!(!candidates.contains(&rank));
                    let nobody = candidates.is_empty();
                    assert_eq!(nobody, rank == tree.root());
                }
            }
        }
    }

    #[test]
    fn the_first_that_lives_takes_the_place_of_a_lost_root() {
        let tree = tree(12, 2, 0, 1);
        let candidates = |rank| tree.candidates(Rank(rank)).map(|it| it.0).collect::<Vec<_>>();
        assert_eq!(candidates(1), [0]);
        assert_eq!(candidates(2), [0, 1]);
        assert_eq!(candidates(5), [2, 0, 1, 3, 4]);
        // No successors, of which there are eight.
        assert_eq!(candidates(9), [4, 1, 0, 2, 3, 5, 6, 7, 8]);
        assert_eq!(candidates(11), [5, 2, 0, 4, 6, 7, 8, 1, 3]);
        assert!((1..=8).map(Rank).all(|rank| tree.is_successor(rank)));
        assert!([0, 9, 11].map(Rank).iter().all(|&rank| !tree.is_successor(rank)));
    }

    #[test]
    fn trees_have_different_roots() {
        let roots: std::collections::HashSet<Rank> =
            (0..4).map(|index| tree(10, 2, index, 4).root()).collect();
        assert_eq!(roots.len(), 4);
    }

    #[test]
    fn the_default_tree_is_at_most_four_levels_deep() {
        for size in [1, 2, 4, 31, 32, 121, 1000, 10_624] {
            let tree = tree(size, default_fanout(size).get(), 0, 1);
            let deepest = (0..size).map(|rank| tree.ancestors(Rank(rank)).count()).max();
            assert!(deepest <= Some(4), "{size} ranks: {deepest:?}");
        }
        assert_eq!((default_fanout(4).get(), default_fanout(31).get()), (2, 2));
    }

    #[test]
    fn nonsense_is_refused() {
        let one = NonZeroU32::MIN;
        assert_eq!(Tree::new(one, one, 1, 1), None);
        assert_eq!(Tree::new(one, one, 0, 2), None);
        assert_eq!(Tree::new(one, one, 0, 0), None);
        let wide = NonZeroU32::new(CHILDREN_MAX + 1).expect("not zero");
        assert_eq!(Tree::new(one, wide, 0, 1), None);
        let nonzero = |value| NonZeroU32::new(value).expect("not zero");
        assert_eq!(Forest::new(nonzero(3), one, nonzero(4)), None, "more trees than ranks");
        assert_eq!(Forest::new(nonzero(100), one, nonzero(TREES_MAX + 1)), None);
        assert_eq!(Forest::new(nonzero(100), wide, one), None);
    }
}
