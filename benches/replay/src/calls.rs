//! The calls that need unsafe code: TCGETS, and mapping files.
//!
//! Mapped memory is never read from here: pages are touched by `MADV_POPULATE_READ`, which takes the
//! same way through the kernel as a read of the page, and answers an error where a read would end the
//! process with SIGBUS. Linux has it since 5.14.

use std::ffi::c_void;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::ptr::null_mut;

use rustix::io::Errno;
use rustix::mm::{Advice, MapFlags, ProtFlags};

/// `TCGETS` of asm-generic/ioctls.h. rustix's `tcgetattr` calls `TCGETS2` first.
const TCGETS: u32 = 0x5401;

/// Asks whether a file is a terminal, as libc's isatty does.
pub(crate) fn isatty(file: &OwnedFd) -> Result<(), Errno> {
    // SAFETY: for TCGETS the kernel writes a struct termios of asm-generic/termbits.h, 36 bytes: the
    // output has room for it, and may hold anything.
    let request = unsafe { rustix::ioctl::Getter::<TCGETS, MaybeUninit<[u8; 64]>>::new() };
    // SAFETY: the request is a valid `Ioctl`, which `new` was promised above.
    unsafe { rustix::ioctl::ioctl(file, request) }.map(|_| ())
}

/// Addresses that are kept for mapping files into: nothing else of this process comes to lie there.
#[derive(Debug)]
pub(crate) struct Reservation {
    base: *mut c_void,
    length: usize,
}

/// A part of a reservation: an offset into it, and a length. Whole pages.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Part {
    pub(crate) start: usize,
    pub(crate) length: usize,
}

/// How a file is mapped.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mapping {
    pub(crate) offset: u64,
    pub(crate) protection: ProtFlags,
    pub(crate) flags: MapFlags,
}

impl Reservation {
    /// Keeps `length` bytes, whole pages and at least one. They cost no memory.
    pub(crate) fn new(length: usize) -> Result<Self, Errno> {
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        // SAFETY: no address is asked for, so the kernel takes one where nothing is.
        let base =
            unsafe { rustix::mm::mmap_anonymous(null_mut(), length, ProtFlags::empty(), flags) }?;
        Ok(Self { base, length })
    }

    /// The first address.
    pub(crate) fn address(&self) -> usize {
        self.base.addr()
    }

    /// Maps a file over a part.
    pub(crate) fn map(&mut self, part: Part, file: &OwnedFd, how: Mapping) -> Result<(), Errno> {
        let at = self.start_of(part);
        let flags = how.flags | MapFlags::FIXED;
        // SAFETY: the range is ours to replace: `start_of` has checked that it lies in the reservation,
        // to whose memory there is no reference.
        unsafe { rustix::mm::mmap(at, part.length, how.protection, flags, file, how.offset) }
            .map(|_| ())
    }

    /// Takes away what is mapped over a part, and keeps its addresses.
    pub(crate) fn clear(&mut self, part: Part) -> Result<(), Errno> {
        let at = self.start_of(part);
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE | MapFlags::FIXED;
        // SAFETY: the range is ours to replace, as in `map`.
        unsafe { rustix::mm::mmap_anonymous(at, part.length, ProtFlags::empty(), flags) }
            .map(|_| ())
    }

    /// Has the kernel fault a part in, as reading it would.
    pub(crate) fn touch(&self, part: Part) -> Result<(), Errno> {
        let at = self.start_of(part);
        // SAFETY: the range lies in the reservation, and this advice changes no content.
        unsafe { rustix::mm::madvise(at, part.length, Advice::LinuxPopulateRead) }
    }

    fn start_of(&self, part: Part) -> *mut c_void {
        let end = part.start.checked_add(part.length);
        assert!(end.is_some_and(|end| end <= self.length), "{part:?} lies in {self:?}");
        self.base.wrapping_byte_add(part.start)
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        // SAFETY: the whole range was mapped by `new`, and no reference to its memory was ever made.
        let unmapped = unsafe { rustix::mm::munmap(self.base, self.length) };
        unmapped.expect("the reservation is mapped");
    }
}
