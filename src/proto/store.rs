//! What a node needs of its cache. `copper-cache` has the rules; the engine adds what only it can
//! know: whether somebody is reading an extent right now.

use crate::attributes::Entry;
use crate::key::{Key, ViewPath};
use crate::scope::{Dropped, Scope};
use crate::tick::Tick;

/// A run of bytes in this node's arena.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Extent {
    /// First byte, a multiple of [`crate::limits::EXTENT_BYTES_MIN`].
    pub offset: u64,
    /// Bytes in use, at least 1; the space behind it is rounded up.
    pub len: u32,
}

/// A filled extent that other ranks and local readers may be shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// Where the bytes are.
    pub extent: Extent,
    /// XXH3-64 of the bytes.
    pub checksum: u64,
}

/// A copy of an evicted object in the spill file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spilled {
    /// Its first byte in the file.
    pub offset: u64,
    /// Bytes of the object.
    pub len: u32,
    /// XXH3-64 of the bytes.
    pub checksum: u64,
}

/// What is known of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Known {
    /// It exists.
    Present(Entry),
    /// The source said that it does not, and that may be repeated until then.
    Absent(Tick),
}

/// A node's cache.
///
/// Every extent is in one of three states: free, *reserved* (allocated and being filled, known to
/// the node alone) or *published* under a key. Published ones may be evicted unless pinned. The store
/// may keep a copy of what it evicts elsewhere, from where a node reads it back if it is wanted again.
pub trait Store {
    /// What is known of a path at `now`, from its own entry or from its directory's snapshot.
    fn entry(&mut self, path: &ViewPath, now: Tick) -> Option<Known>;

    /// The extent that holds a directory snapshot or a block.
    fn object(&mut self, key: &Key) -> Option<Held>;

    /// Whether there is such an extent; unlike [`Store::object`] no use of it.
    fn holds(&self, key: &Key) -> bool;

    /// Remembers what a path is.
    fn put_entry(&mut self, path: &ViewPath, known: Known);

    /// Whether an extent of so many bytes could be had if nothing else were held.
    fn can_hold(&self, len: u32) -> bool;

    /// Reserves an extent, evicting what may go; `None` if not enough may go now.
    fn allocate(&mut self, len: u32) -> Option<Extent>;

    /// Gives a reserved extent back.
    fn release(&mut self, extent: Extent);

    /// Publishes a reserved extent.
    fn publish(&mut self, key: &Key, held: Held);

    /// A published extent was fetched ahead, and nobody has asked for it yet.
    fn unread(&mut self, extent: Extent);

    /// Forgets everything that a refresh covers. Extents that are pinned or read go when they can;
    /// nobody finds them any more.
    fn drop_within(&mut self, scope: &Scope) -> Dropped;

    /// Keeps a published extent from eviction; counted.
    fn pin(&mut self, extent: Extent);

    /// Takes one pin back.
    fn unpin(&mut self, extent: Extent);

    /// The length of an evicted object of which there is a copy that can be read back.
    fn spilled(&self, key: &Key) -> Option<u32>;

    /// The copy of an object is about to be read: it stays until [`Store::end_restore`]. `None` if it
    /// has gone.
    fn begin_restore(&mut self, key: &Key) -> Option<Spilled>;

    /// The reading of a copy has ended; one that was not read well is of no use.
    fn end_restore(&mut self, spilled: Spilled, well: bool);
}
