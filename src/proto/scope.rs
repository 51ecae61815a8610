//! What a refresh covers, and what it has dropped.

use std::ops::AddAssign;

use crate::key::{Key, ViewPath, What};

/// A path that is refreshed: all that is known at and below it, and what is known of the
/// directories on the way to it, which may say that it does not exist or what it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    path: ViewPath,
}

impl Scope {
    /// The refresh of a path; the view's root stands for everything.
    pub fn new(path: ViewPath) -> Scope {
        Scope { path }
    }

    /// The path.
    pub fn path(&self) -> &ViewPath {
        &self.path
    }

    /// Whether a path is refreshed itself.
    pub fn holds(&self, path: &ViewPath) -> bool {
        path.is_within(&self.path)
    }

    /// Whether a path is a directory on the way to the refreshed one.
    pub fn is_above(&self, path: &ViewPath) -> bool {
        self.path.is_within(path)
    }

    /// Whether an object may not be shown any more.
    pub fn covers(&self, key: &Key) -> bool {
        match key.what {
            What::Entry | What::Directory => self.holds(&key.path) || self.is_above(&key.path),
            What::Block { .. }
            | What::Statistics
            | What::ExtendedAttributes
            | What::DataRanges { .. } => self.holds(&key.path),
        }
    }
}

/// What a refresh has dropped, at one rank or at many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dropped {
    /// Attributes, absent names, extended attributes, maps of holes.
    pub entries: u64,
    /// Directory snapshots.
    pub directories: u64,
    /// Blocks of files.
    pub blocks: u64,
    /// Bytes of all of these that lay in the arena.
    pub bytes: u64,
}

impl AddAssign for Dropped {
    fn add_assign(&mut self, more: Dropped) {
        self.entries = self.entries.saturating_add(more.entries);
        self.directories = self.directories.saturating_add(more.directories);
        self.blocks = self.blocks.saturating_add(more.blocks);
        self.bytes = self.bytes.saturating_add(more.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refresh_covers_what_is_below_and_the_way_to_it() {
        let key = |path: &[u8], what| Key { path: ViewPath::parse(path).expect("valid"), what };
        let scope = Scope::new(ViewPath::parse(b"a/b").expect("valid"));
        let covered = |path: &[u8], what| scope.covers(&key(path, what));
        for what in [What::Entry, What::Directory] {
            for path in [&b""[..], b"a", b"a/b", b"a/b/c"] {
                assert!(covered(path, what), "{path:?}");
            }
            assert!(!covered(b"a/bc", what) && !covered(b"a/c", what) && !covered(b"b", what));
        }
        assert!(covered(b"a/b/c", What::ExtendedAttributes));
        assert!(!covered(b"a", What::ExtendedAttributes));
        let everything = Scope::new(ViewPath::root());
        assert!(everything.covers(&key(b"x/y", What::Entry)));
    }
}
