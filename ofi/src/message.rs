//! The buffers of messages, all in one mapping, so that one registration covers them.

use std::ptr::NonNull;
use std::slice;

use memmap2::{MmapMut, MmapOptions};

use crate::arena::PAGE_BYTES;
use crate::error::Error;

/// Buffers start where a cache line does.
const ALIGNMENT: usize = 64;

/// When the kernel backs the buffers with memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PhysicalPages {
    Now,
    WhenTouched,
}

/// Buffers of equal size, known by index. Which of them the provider holds is for the caller to
/// know.
pub(crate) struct Messages {
    /// Kept mapped, and never borrowed: `base` is the one way to the bytes.
    _mapping: MmapMut,
    base: NonNull<u8>,
    count: usize,
    stride: usize,
    bytes_max: usize,
}

impl Messages {
    /// With `physical_pages` behind them at once, for FI_MR_ALLOCATED.
    pub(crate) fn map(
        count: usize,
        bytes_max: usize,
        physical_pages: PhysicalPages,
    ) -> Result<Messages, Error> {
        let stride = bytes_max.next_multiple_of(ALIGNMENT);
        let bytes = stride.saturating_mul(count);
        let mut mapping = MmapOptions::new()
            .len(bytes)
            .map_anon()
            .map_err(|source| Error::Map { bytes, source })?;
        match physical_pages {
            // By hand, for any kernel: these are few.
            PhysicalPages::Now => mapping.iter_mut().step_by(PAGE_BYTES).for_each(|b| *b = 0),
            PhysicalPages::WhenTouched => {}
        }
        let base = NonNull::new(mapping.as_mut_ptr()).expect("a mapping does not lie at null");
        Ok(Messages { _mapping: mapping, base, count, stride, bytes_max })
    }

    pub(crate) fn base(&self) -> NonNull<u8> {
        self.base
    }

    pub(crate) fn len(&self) -> usize {
        self.stride * self.count
    }

    /// The most bytes of one message.
    pub(crate) fn bytes_max(&self) -> usize {
        self.bytes_max
    }

    /// Where a buffer starts.
    pub(crate) fn start(&self, index: usize) -> NonNull<u8> {
        assert!(index < self.count, "bug: no message buffer {index}");
        // SAFETY: demands that the offset lies inside of the mapping: `map` made it
        // `stride * count` long, and the index was checked.
        unsafe { self.base.add(self.stride * index) }
    }

    /// The first `len` bytes of a buffer; none if it is not that long.
    ///
    /// # Safety
    /// As long as the borrow lives the provider does not hold the buffer, and nobody writes it.
    pub(crate) unsafe fn bytes(&self, index: usize, len: usize) -> Option<&[u8]> {
        if len > self.bytes_max {
            return None;
        }
        // SAFETY: demands initialised bytes that live as long as the borrow and that nobody
        // writes: anonymous memory starts as zeros; `self` keeps the mapping; the caller.
        Some(unsafe { slice::from_raw_parts(self.start(index).as_ptr(), len) })
    }

    /// Writes the parts, one behind the other, into a buffer, and returns their length.
    ///
    /// # Safety
    /// The provider does not hold the buffer, and nobody borrows it.
    pub(crate) unsafe fn write(&self, index: usize, parts: &[&[u8]]) -> usize {
        let start = self.start(index);
        // SAFETY: demands initialised bytes that live as long as the borrow and that nobody else
        // touches: anonymous memory starts as zeros; `self` keeps the mapping; the caller.
        let buffer = unsafe { slice::from_raw_parts_mut(start.as_ptr(), self.bytes_max) };
        let mut len = 0;
        for part in parts {
            buffer[len..len + part.len()].copy_from_slice(part);
            len += part.len();
        }
        len
    }
}
