//! What the address sanitizer is told about the arena. To it a mapping is one allocation; told which
//! bytes are some piece's, it finds whoever touches others: a write behind a piece, a reader who kept
//! its bytes too long, libfabric filling a piece that was returned.
//!
//! Compiled with `--cfg copper_asan`, as `ci/sanitize.sh` does; elsewhere these functions are empty.

use std::ptr::NonNull;

#[cfg(copper_asan)]
mod sanitizer {
    use std::ffi::c_void;

    unsafe extern "C" {
        pub(super) fn __asan_poison_memory_region(start: *const c_void, len: usize);
        pub(super) fn __asan_unpoison_memory_region(start: *const c_void, len: usize);
    }
}

/// From now on nobody may touch these bytes. What is forbidden begins at a multiple of 8 bytes.
pub(super) fn forbid(start: NonNull<u8>, len: usize) {
    #[cfg(copper_asan)]
    // SAFETY: demands a range of mapped memory, to which the caller's mapping belongs.
    unsafe {
        sanitizer::__asan_poison_memory_region(start.as_ptr().cast(), len);
    }
    #[cfg(not(copper_asan))]
    let _ = (start, len);
}

/// From now on these bytes may be touched.
pub(super) fn allow(start: NonNull<u8>, len: usize) {
    #[cfg(copper_asan)]
    // SAFETY: demands a range of mapped memory, to which the caller's mapping belongs.
    unsafe {
        sanitizer::__asan_unpoison_memory_region(start.as_ptr().cast(), len);
    }
    #[cfg(not(copper_asan))]
    let _ = (start, len);
}
