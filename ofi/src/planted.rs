//! Bugs for the address sanitizer to find (`ci/sanitize.sh`, `ofi/tests/planted.rs`): compiled with
//! `--cfg copper_asan` alone, which links only together with the sanitizer.

use crate::arena::{Filled, Filling};

/// Writes one byte behind the end of a piece.
pub fn write_behind(piece: &mut Filling) {
    // SAFETY: none: this is the bug. The byte is mapped, in the piece's last page.
    let behind = unsafe { piece.start().add(piece.len()) };
    // SAFETY: as above.
    unsafe { behind.write(1) };
}

/// Returns the pages of a piece that goes on to be used.
pub fn return_early(piece: &Filling) {
    piece.planted_return();
}

/// The bytes of a piece without its borrow.
pub fn keep_bytes(piece: &Filled) -> &'static [u8] {
    let bytes = piece.as_ref();
    // SAFETY: none: this is the bug. The bytes stay mapped as long as the arena.
    unsafe { std::slice::from_raw_parts(bytes.as_ptr(), bytes.len()) }
}
