//! What is asked for: a path below the view, and which of its objects.

use std::fmt;
use std::sync::Arc;

use crate::limits::{BLOCK_BYTES, NAME_BYTES_MAX, PATH_BYTES_MAX};

/// A path relative to the view: bytes, not UTF-8; no leading, trailing or double slash, no `.` or
/// `..` component; empty for the view's root. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ViewPath(Arc<[u8]>);

impl ViewPath {
    /// The view's root.
    pub fn root() -> ViewPath {
        ViewPath(Arc::from(&b""[..]))
    }

    /// Takes bytes that came from outside; `None` unless they have the form above and fit
    /// [`PATH_BYTES_MAX`] with names of at most [`NAME_BYTES_MAX`].
    pub fn parse(bytes: &[u8]) -> Option<ViewPath> {
        if bytes.is_empty() {
            return Some(ViewPath::root());
        }
        if bytes.len() > PATH_BYTES_MAX {
            return None;
        }
        bytes.split(|&byte| byte == b'/').all(is_name).then(|| ViewPath(Arc::from(bytes)))
    }

    /// The path of `name` in this directory; `None` if `name` cannot be a name or the path would be
    /// too long.
    pub fn join(&self, name: &[u8]) -> Option<ViewPath> {
        if !is_name(name) {
            return None;
        }
        if self.0.is_empty() {
            return Some(ViewPath(Arc::from(name)));
        }
        let len = self.0.len() + 1 + name.len();
        if len > PATH_BYTES_MAX {
            return None;
        }
        let mut path = Vec::with_capacity(len);
        path.extend_from_slice(&self.0);
        path.push(b'/');
        path.extend_from_slice(name);
        Some(ViewPath(Arc::from(path)))
    }

    /// The directory that holds this path, and its name there; `None` at the root.
    pub fn split(&self) -> Option<(ViewPath, &[u8])> {
        if self.0.is_empty() {
            return None;
        }
        match self.0.iter().rposition(|&byte| byte == b'/') {
            Some(slash) => Some((ViewPath(Arc::from(&self.0[..slash])), &self.0[slash + 1..])),
            None => Some((ViewPath::root(), &self.0)),
        }
    }

    /// The bytes, without a leading slash.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether this is the view's root.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether this path is `ancestor` or lies below it; components are compared, not prefixes.
    pub fn is_within(&self, ancestor: &ViewPath) -> bool {
        match self.0.strip_prefix(&*ancestor.0) {
            Some(rest) => ancestor.0.is_empty() || rest.is_empty() || rest[0] == b'/',
            None => false,
        }
    }
}

impl std::borrow::Borrow<[u8]> for ViewPath {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

fn is_name(name: &[u8]) -> bool {
    !name.is_empty()
        && name.len() <= NAME_BYTES_MAX
        && name != b"."
        && name != b".."
        && !name.iter().any(|&byte| byte == b'/' || byte == 0)
}

impl fmt::Debug for ViewPath {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "/{}", self.0.escape_ascii())
    }
}

impl fmt::Display for ViewPath {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, formatter)
    }
}

/// One state of a file's content at the source. A reader never gets blocks of two generations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Generation {
    /// Modification time at the source, in nanoseconds since the epoch.
    pub mtime_ns: i64,
    /// Change time at the source, in nanoseconds since the epoch.
    pub ctime_ns: i64,
    /// Size in bytes.
    pub size: u64,
    /// Inode number at the source.
    pub inode: u64,
}

/// The position of a block in a file, in units of [`BLOCK_BYTES`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BlockIndex(pub u32);

impl BlockIndex {
    /// The block that holds byte `offset`; `None` past 2^52.
    pub fn of(offset: u64) -> Option<BlockIndex> {
        u32::try_from(offset / u64::from(BLOCK_BYTES)).ok().map(BlockIndex)
    }

    /// The block's first byte.
    pub fn offset(self) -> u64 {
        u64::from(self.0) * u64::from(BLOCK_BYTES)
    }

    /// Bytes of this block in a file of `size` bytes; 0 past its end.
    pub fn len(self, size: u64) -> u32 {
        let rest = size.saturating_sub(self.offset());
        u32::try_from(rest).map_or(BLOCK_BYTES, |rest| rest.min(BLOCK_BYTES))
    }
}

/// Which of a path's objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum What {
    /// Attributes, and the target if it is a link; or that it does not exist.
    Entry,
    /// The names, types and (up to a size) attributes of a directory's entries.
    Directory,
    /// One block of a regular file's content in one generation.
    Block {
        /// Which block.
        index: BlockIndex,
        /// Of which content.
        generation: Generation,
    },
    /// The extended attributes of a file, directory or link.
    ExtendedAttributes,
    /// Where a regular file has data and where holes, in one generation.
    DataRanges {
        /// Of which content.
        generation: Generation,
    },
    /// What `statfs` answers for the file system that holds the path; never kept.
    Statistics,
}

/// One object.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// Where.
    pub path: ViewPath,
    /// What of it.
    pub what: What,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> ViewPath {
        ViewPath::parse(text.as_bytes()).expect("a well-formed path")
    }

    #[test]
    fn only_well_formed_paths_are_taken() {
        for bad in ["/", "/a", "a/", "a//b", ".", "a/../b", "a/./b", "a\0b"] {
            assert_eq!(ViewPath::parse(bad.as_bytes()), None, "{bad:?}");
        }
        let long_name = vec![b'x'; NAME_BYTES_MAX + 1];
        assert_eq!(ViewPath::parse(&long_name), None);
        let long_path = vec![b"x".as_slice(); PATH_BYTES_MAX].join(&b'/');
        assert_eq!(ViewPath::parse(&long_path), None);
        assert_eq!(path("a/b").as_bytes(), b"a/b");
        assert!(ViewPath::parse(b"\xff\xfe").is_some());
    }

    #[test]
    fn within_compares_components() {
        assert!(path("tmp/u/copper").is_within(&path("tmp/u/copper")));
        assert!(path("tmp/u/copper/x").is_within(&path("tmp/u/copper")));
        assert!(!path("tmp/u/copper_data").is_within(&path("tmp/u/copper")));
        assert!(path("tmp").is_within(&ViewPath::root()));
        assert!(!ViewPath::root().is_within(&path("tmp")));
    }

    #[test]
    fn join_and_split_are_inverse() {
        let joined = path("a/b").join(b"c").expect("short");
        let (parent, name) = joined.split().expect("not the root");
        assert_eq!((parent, name), (path("a/b"), &b"c"[..]));
        assert_eq!(path("a").split(), Some((ViewPath::root(), &b"a"[..])));
        assert_eq!(ViewPath::root().split(), None);
        assert_eq!(ViewPath::root().join(b".."), None);
    }

    #[test]
    fn a_block_ends_with_its_file() {
        let block = u64::from(BLOCK_BYTES);
        assert_eq!(BlockIndex(0).len(0), 0);
        assert_eq!(BlockIndex(0).len(5), 5);
        assert_eq!(BlockIndex(1).len(block + 7), 7);
        assert_eq!(BlockIndex(1).len(block), 0);
        assert_eq!(BlockIndex(0).len(u64::MAX), BLOCK_BYTES);
        assert_eq!(BlockIndex::of(block), Some(BlockIndex(1)));
        assert_eq!(BlockIndex::of(u64::MAX), None);
    }
}
