//! The arena: one anonymous mapping per daemon that is registered once, and its pieces.
//!
//! Invariant: a page of [`PAGE_BYTES`] belongs to at most one piece. A bit per page keeps it, so
//! that two pieces never overlap and a [`Filling`] may be written by its only owner. A piece goes
//! through `take` → [`Filling`] (writable, unique) → `freeze` → [`Filled`] (shared, read-only);
//! the last owner returns the pages.
//!
//! Remote peers may read any page at any time once the arena is registered. What they read of a
//! piece that is being filled is torn: leases and checksums, above this crate, keep a reader from
//! using it. The arena does not know which block lies where.

#[cfg(all(test, copper_loom))]
mod models;
mod shadow;
mod taken;

use std::fmt;
use std::io;
use std::ptr::NonNull;
use std::slice;
use std::sync::Arc;

use memmap2::{Advice, MmapMut, MmapOptions};

use crate::error::Error;
use taken::{Pages, Taken};

/// The granule of the arena. Pages of the memory itself may be larger.
pub const PAGE_BYTES: usize = 4096;

/// A memory-mapped region, shared by the engine, the frontend and the source's readers.
///
/// Memory is taken from the kernel as it is touched, in huge pages where the kernel has them; a
/// provider that wants all of it at registration gets it then.
#[derive(Clone)]
pub struct Arena {
    memory: Arc<Memory>,
}

struct Memory {
    /// Never borrowed as a slice: `base` is the one way to the bytes.
    mapping: MmapMut,
    base: NonNull<u8>,
    len: usize,
    /// One bit per page: taken.
    taken: Taken,
}

// SAFETY: Send and Sync demand that shared use from several threads is sound:
// - the bytes behind `base` are reached only through pieces, which do not overlap (`taken`);
// - everything else is read-only or atomic.
unsafe impl Send for Memory {}
// SAFETY: as for Send.
unsafe impl Sync for Memory {}

impl Arena {
    /// Maps `bytes`, rounded up to whole pages and at least one.
    ///
    /// # Errors
    /// [`Error::Map`] if the kernel does not grant that much address space.
    pub fn map(bytes: usize) -> Result<Arena, Error> {
        let failed = |source| Error::Map { bytes, source };
        let len = bytes
            .max(1)
            .checked_next_multiple_of(PAGE_BYTES)
            .ok_or_else(|| failed(io::ErrorKind::OutOfMemory.into()))?;
        let mut mapping = MmapOptions::new().len(len).map_anon().map_err(failed)?;
        // Best effort: a kernel without huge pages serves the arena in small ones.
        let _ = mapping.advise(Advice::HugePage);
        let base = NonNull::new(mapping.as_mut_ptr()).expect("a mapping does not lie at null");
        let taken = Taken::none_of(len / PAGE_BYTES);
        shadow::forbid(base, len);
        Ok(Arena { memory: Arc::new(Memory { mapping, base, len, taken }) })
    }

    /// Length in bytes.
    #[expect(clippy::len_without_is_empty, reason = "an arena has at least one page")]
    pub fn len(&self) -> usize {
        self.memory.len
    }

    /// A piece of `len` bytes at `offset`, writable and with no other owner. Its bytes are
    /// whatever the last piece there left, zeros at first.
    ///
    /// # Panics
    /// A bug of the caller: `offset` is not a multiple of [`PAGE_BYTES`], `len` is 0, the piece
    /// ends beyond the arena, or one of its pages is taken.
    pub fn take(&self, offset: usize, len: usize) -> Filling {
        assert!(offset.is_multiple_of(PAGE_BYTES), "bug: offset {offset} is not page-aligned");
        assert!(len > 0, "bug: a piece without bytes");
        let end = offset.checked_add(len).filter(|&end| end <= self.len());
        assert!(end.is_some(), "bug: {len} bytes at {offset} end beyond {}", self.len());
        let claimed = self.memory.taken.claim(Pages::of(offset, len));
        assert!(claimed, "bug: a page of {len} bytes at {offset} is taken");
        self.filling(offset, len)
    }

    /// Has pages put behind `len` bytes at `offset`, as far as they lie within the arena, so that
    /// whoever writes there first need not wait for the kernel to clear them. Changes no byte, so
    /// pieces may be read and written meanwhile; it holds the lock of the address space, so whoever
    /// maps memory or grows a heap waits. Whether it was done: not before Linux 5.14, nor when
    /// memory is short.
    pub fn prepare(&self, offset: usize, len: usize) -> bool {
        let end = offset.saturating_add(len).min(self.len());
        let start = offset - offset % PAGE_BYTES;
        start >= end
            || self.memory.mapping.advise_range(Advice::PopulateWrite, start, end - start).is_ok()
    }

    /// The piece of pages that were just claimed.
    fn filling(&self, offset: usize, len: usize) -> Filling {
        let piece = Piece { memory: Arc::clone(&self.memory), offset, len, claimed: len };
        shadow::allow(piece.start(), len);
        Filling { piece }
    }

    pub(crate) fn base(&self) -> NonNull<u8> {
        self.memory.base
    }

    /// Whether `piece` lies in this arena.
    pub(crate) fn holds(&self, piece: &Filling) -> bool {
        Arc::ptr_eq(&self.memory, &piece.piece.memory)
    }

    /// Puts a physical page behind every page, which FI_MR_ALLOCATED demands. A page that was
    /// never written would be pinned as the kernel's shared page of zeros, and remote peers would
    /// read zeros for ever after.
    pub(crate) fn populate(&self) -> Result<(), Error> {
        // Linux 5.14; it changes no byte, so pieces may be written meanwhile.
        self.memory.mapping.advise(Advice::PopulateWrite).or_else(|source| {
            let is_unknown = source.kind() == io::ErrorKind::InvalidInput;
            if is_unknown && self.populate_by_hand() {
                return Ok(());
            }
            Err(Error::Populate { bytes: self.len(), source })
        })
    }

    /// For older kernels: writes to every page, unless one is taken, for then its owner may be
    /// writing.
    fn populate_by_hand(&self) -> bool {
        let len = self.len();
        if !self.memory.taken.claim(Pages::of(0, len)) {
            return false;
        }
        let mut filling = self.filling(0, len);
        filling.as_mut().iter_mut().step_by(PAGE_BYTES).for_each(|byte| *byte = 0);
        true
    }
}

impl fmt::Debug for Arena {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Arena").field("len", &self.len()).finish_non_exhaustive()
    }
}

/// Pages with one owner.
struct Piece {
    memory: Arc<Memory>,
    offset: usize,
    len: usize,
    /// The bytes whose pages are held: `len` may have been shortened.
    claimed: usize,
}

impl Piece {
    fn start(&self) -> NonNull<u8> {
        // SAFETY: demands that the offset lies inside the mapping, and that it stays mapped:
        // - `take` checked `offset + len` against the length;
        // - `memory` keeps the mapping.
        unsafe { self.memory.base.add(self.offset) }
    }

    fn bytes(&self) -> &[u8] {
        // SAFETY: demands `len` initialised bytes, mapped for the life of the borrow and not
        // written meanwhile in this process:
        // - anonymous memory starts as zeros, and `take` checked the bounds;
        // - `memory` keeps the mapping;
        // - writing takes `&mut Filling`, whose pages are this piece's alone (`claim`), and a
        //   read posted into it owns it.
        unsafe { slice::from_raw_parts(self.start().as_ptr(), self.len) }
    }

    fn give_back(&self) {
        // First, for the next owner may claim them at once.
        shadow::forbid(self.start(), self.claimed);
        self.memory.taken.release(Pages::of(self.offset, self.claimed));
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        self.give_back();
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // Whatever is mapped here next is another's.
        shadow::allow(self.base, self.len);
    }
}

/// A piece of the arena that its only owner writes. Dropping it returns its pages.
pub struct Filling {
    piece: Piece,
}

impl Filling {
    /// Where it lies in the arena.
    pub fn offset(&self) -> usize {
        self.piece.offset
    }

    /// Its length in bytes, as taken or shortened.
    #[expect(clippy::len_without_is_empty, reason = "a piece has at least one byte")]
    pub fn len(&self) -> usize {
        self.piece.len
    }

    /// Makes it shorter: a slot of fixed size holds a block that is smaller. Its pages stay with
    /// it.
    ///
    /// # Panics
    /// A bug of the caller: `len` is 0 or more than [`len`](Filling::len).
    pub fn shorten(&mut self, len: usize) {
        assert!(len > 0 && len <= self.piece.len, "bug: {} bytes shortened to {len}", self.len());
        let rest = &mut self.as_mut()[len..];
        shadow::forbid(NonNull::from(&mut *rest).cast(), rest.len());
        self.piece.len = len;
    }

    /// Ends the writing; from now on it can be shared.
    pub fn freeze(self) -> Filled {
        Filled { piece: Arc::new(self.piece) }
    }

    pub(crate) fn start(&self) -> NonNull<u8> {
        self.piece.start()
    }

    #[cfg(copper_asan)]
    pub(crate) fn planted_return(&self) {
        self.piece.give_back();
    }
}

impl AsRef<[u8]> for Filling {
    fn as_ref(&self) -> &[u8] {
        self.piece.bytes()
    }
}

impl AsMut<[u8]> for Filling {
    fn as_mut(&mut self) -> &mut [u8] {
        // SAFETY: demands `len` initialised bytes, mapped for the life of the borrow and reached
        // through nothing else in this process:
        // - anonymous memory starts as zeros, and `take` checked the bounds;
        // - the piece keeps the mapping;
        // - its pages are this piece's alone (`claim`), and the piece is borrowed mutably.
        unsafe { slice::from_raw_parts_mut(self.start().as_ptr(), self.len()) }
    }
}

impl fmt::Debug for Filling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Filling")
            .field("offset", &self.offset())
            .field("len", &self.len())
            .finish_non_exhaustive()
    }
}

/// A piece of the arena that is shared and no longer written. The last clone returns its pages.
#[derive(Clone)]
pub struct Filled {
    piece: Arc<Piece>,
}

impl Filled {
    /// Where it lies in the arena.
    pub fn offset(&self) -> usize {
        self.piece.offset
    }

    /// Its length in bytes.
    #[expect(clippy::len_without_is_empty, reason = "a piece has at least one byte")]
    pub fn len(&self) -> usize {
        self.piece.len
    }

    /// How many clones there are, this one included. Others may come and go meanwhile, unless
    /// this is the only one.
    pub fn holders(&self) -> usize {
        Arc::strong_count(&self.piece)
    }
}

impl AsRef<[u8]> for Filled {
    fn as_ref(&self) -> &[u8] {
        self.piece.bytes()
    }
}

impl fmt::Debug for Filled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Filled")
            .field("offset", &self.offset())
            .field("len", &self.len())
            .field("holders", &self.holders())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
