//! Which tree an object belongs to: every rank comes to the same answer, from the key alone.
//!
//! A name's entry belongs with the listing that also holds it, so that whoever has the one need not
//! ask the source for the other. The stripes of a file go round the trees, beginning with its path's.

use std::num::NonZeroU32;

use twox_hash::XxHash3_64;

use crate::ids::{JobId, PullId, TreeIndex};
use crate::key::{Key, ViewPath, What};
use crate::limits::{STRIPE_BLOCKS, TREES_MAX};

/// The tree, of so many, that an object belongs to.
pub fn owner(key: &Key, trees: NonZeroU32) -> TreeIndex {
    if trees == NonZeroU32::MIN {
        return TreeIndex(0);
    }
    let (hash, stripe) = match key.what {
        What::Entry => match key.path.split() {
            Some((directory, _)) => (hash(&directory), 0),
            None => (hash(&key.path), 0),
        },
        What::Block { index, .. } => (hash(&key.path), index.0 / STRIPE_BLOCKS),
        What::Directory | What::ExtendedAttributes | What::DataRanges { .. } | What::Statistics => {
            (hash(&key.path), 0)
        }
    };
    let trees = u64::from(trees.get());
    let tree = (hash % trees + u64::from(stripe)) % trees;
    TreeIndex(u32::try_from(tree).expect("a remainder of a u32"))
}

/// XXH3-64, whose results are the same on every machine and in every version since 0.8.
fn hash(path: &ViewPath) -> u64 {
    XxHash3_64::oneshot(path.as_bytes())
}

/// Bits that number the pulls or jobs of one tree. They come round after 268 million, when the first
/// ones have long ended.
const NUMBER_BITS: u32 = 28;

const _: () = assert!(TREES_MAX <= 1 << (u32::BITS - NUMBER_BITS));

/// Numbers that those of another tree are unlike: the tree is in their high bits.
#[derive(Debug)]
pub(crate) struct Numbers {
    tree: TreeIndex,
    count: u32,
}

impl Numbers {
    pub(crate) fn of(tree: TreeIndex) -> Numbers {
        Numbers { tree, count: 0 }
    }

    pub(crate) fn next(&mut self) -> u32 {
        let number = self.count;
        self.count = (self.count + 1) % (1 << NUMBER_BITS);
        self.tree.0 << NUMBER_BITS | number
    }
}

/// The tree that a pull was begun for.
pub(crate) fn tree_of_pull(pull: PullId) -> TreeIndex {
    TreeIndex(pull.0 >> NUMBER_BITS)
}

/// The tree that the source is read for.
pub(crate) fn tree_of_job(job: JobId) -> TreeIndex {
    TreeIndex(job.0 >> NUMBER_BITS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::{BlockIndex, Generation};

    fn path(text: &str) -> ViewPath {
        ViewPath::parse(text.as_bytes()).expect("a well-formed path")
    }

    fn trees(count: u32) -> NonZeroU32 {
        NonZeroU32::new(count).expect("not zero")
    }

    fn block(path: &ViewPath, index: u32) -> Key {
        let generation = Generation { size: 1 << 40, ..Generation::default() };
        let what = What::Block { index: BlockIndex(index), generation };
        Key { path: path.clone(), what }
    }

    #[test]
    fn the_owner_is_the_same_on_every_machine_and_in_every_build() {
        let owners = ["", "usr", "usr/lib/libc.so.6", "home/u/data"].map(|text| {
            let key = Key { path: path(text), what: What::Directory };
            owner(&key, trees(16)).0
        });
        // XXH3-64 of no bytes is 0x2d06800538d394c2, by the test vectors of its specification.
        assert_eq!(owners, [2, 7, 11, 2]);
    }

    #[test]
    fn an_entry_belongs_with_the_listing_that_holds_it() {
        for name in ["a", "b", "libfoo.so"] {
            let directory = path("opt/lib");
            let entry =
                Key { path: directory.join(name.as_bytes()).expect("short"), what: What::Entry };
            let listing = Key { path: directory, what: What::Directory };
            assert_eq!(owner(&entry, trees(7)), owner(&listing, trees(7)));
        }
    }

    #[test]
    fn the_stripes_of_a_file_go_round_all_trees() {
        for count in [1, 2, 3, 16] {
            let file = path("data/large");
            let mut blocks = vec![0; count as usize];
            for index in 0..count * STRIPE_BLOCKS * 10 {
                let tree = owner(&block(&file, index), trees(count));
                assert_eq!(tree, owner(&block(&file, index - index % STRIPE_BLOCKS), trees(count)));
                blocks[tree.0 as usize] += 1;
            }
            assert!(blocks.iter().all(|&blocks| blocks == 10 * STRIPE_BLOCKS), "{blocks:?}");
        }
    }

    #[test]
    fn small_files_spread_over_all_trees() {
        let mut files = [0_u32; 4];
        for index in 0..4000 {
            files[owner(&block(&path(&format!("p/m{index}.py")), 0), trees(4)).0 as usize] += 1;
        }
        assert!(files.iter().all(|files| (850..1150).contains(files)), "{files:?}");
    }

    #[test]
    fn numbers_name_their_tree_and_come_round() {
        let tree = TreeIndex(TREES_MAX - 1);
        let mut numbers = Numbers { tree, count: (1 << NUMBER_BITS) - 1 };
        let (last, first) = (numbers.next(), numbers.next());
        assert_eq!((tree_of_pull(PullId(last)), tree_of_job(JobId(first))), (tree, tree));
        assert_eq!(first, Numbers::of(tree).next());
    }
}
