//! Which objects have ever been evicted, so that what eviction costs can be counted.
//!
//! Sixteen bytes each, up to a bound; beyond it new ones are not noted, and the count is too low. Two
//! objects of one hash would count as one: with a million noted, one in 2^44 does.

use std::hash::BuildHasher;

use copper_proto::Key;
use hashbrown::{DefaultHashBuilder, HashSet};

#[derive(Debug)]
pub(crate) struct Past {
    hashes: HashSet<u64>,
    hasher: DefaultHashBuilder,
    count_max: usize,
}

impl Past {
    pub(crate) fn new(count_max: usize) -> Past {
        Past { hashes: HashSet::new(), hasher: DefaultHashBuilder::default(), count_max }
    }

    pub(crate) fn note(&mut self, key: &Key) {
        if self.hashes.len() < self.count_max {
            self.hashes.insert(self.hasher.hash_one(key));
        }
    }

    pub(crate) fn has(&self, key: &Key) -> bool {
        self.hashes.contains(&self.hasher.hash_one(key))
    }
}
