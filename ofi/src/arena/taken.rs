//! Which pages of an arena have an owner: a bit per page. What one owner did with its pages comes
//! before what the next one does (`models` tries every order with loom).

use std::sync::atomic::Ordering;

use crate::arena::PAGE_BYTES;
use crate::sync::{AtomicU64, Bug, planted};

pub(super) const BITS: usize = u64::BITS as usize;

/// Page indices, end excluded.
#[derive(Clone, Copy)]
pub(super) struct Pages {
    pub(super) start: usize,
    pub(super) end: usize,
}

impl Pages {
    pub(super) fn of(offset: usize, len: usize) -> Pages {
        Pages { start: offset / PAGE_BYTES, end: (offset + len).div_ceil(PAGE_BYTES) }
    }

    /// The words of the bitmap that these pages touch, each with its mask.
    pub(super) fn words(self) -> impl Iterator<Item = (usize, u64)> {
        (self.start / BITS..self.end.div_ceil(BITS)).map(move |word| {
            let first = self.start.max(word * BITS) - word * BITS;
            let count = self.end.min((word + 1) * BITS) - word * BITS - first;
            let ones = if count == BITS { u64::MAX } else { (1 << count) - 1 };
            (word, ones << first)
        })
    }
}

/// The bitmap.
pub(super) struct Taken {
    words: Box<[AtomicU64]>,
}

impl Taken {
    /// All of so many pages are free.
    pub(super) fn none_of(pages: usize) -> Taken {
        Taken { words: (0..pages.div_ceil(BITS)).map(|_| AtomicU64::new(0)).collect() }
    }

    /// Takes all of `pages`, or none.
    pub(super) fn claim(&self, pages: Pages) -> bool {
        for (word, mask) in pages.words() {
            // Acquire: pairs with the Release in `release`, so that the last owner's accesses
            // come before the new owner's.
            let before = self.words[word].fetch_or(mask, Ordering::Acquire);
            if before & mask != 0 {
                let kept = if planted(Bug::OthersCleared) { 0 } else { before };
                self.words[word].fetch_and(kept | !mask, Ordering::Release);
                for (undo, mask) in pages.words().take_while(|&(index, _)| index < word) {
                    self.words[undo].fetch_and(!mask, Ordering::Release);
                }
                return false;
            }
        }
        true
    }

    pub(super) fn release(&self, pages: Pages) {
        // Release: pairs with the Acquire in `claim`.
        let order =
            if planted(Bug::RelaxedRelease) { Ordering::Relaxed } else { Ordering::Release };
        for (word, mask) in pages.words() {
            self.words[word].fetch_and(!mask, order);
        }
    }
}
