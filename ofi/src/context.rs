//! Operation contexts: the memory that the provider keeps its own state of an operation in.
//!
//! Each operation has one of 64 bytes that does not move until the operation ends, so they lie in
//! a table of fixed size, and an operation is known by its place there: receives first, then
//! sends, then reads.

use std::ffi::c_void;
use std::ptr::{self, NonNull};

use libfabric_sys as sys;

const CONTEXT_BYTES: usize = size_of::<sys::fi_context2>();

// FI_CONTEXT wants half of what FI_CONTEXT2 wants; the larger serves both (man 3 fi_getinfo).
const _: () = assert!(CONTEXT_BYTES == 8 * size_of::<*mut c_void>());

/// Whose context it is, by the index among its kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Slot {
    Receive(usize),
    Send(usize),
    Read(usize),
}

/// How many operations of each kind may be under way.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Counts {
    pub(crate) receives: usize,
    pub(crate) sends: usize,
    pub(crate) reads: usize,
}

impl Counts {
    pub(crate) fn total(self) -> usize {
        self.receives + self.sends + self.reads
    }
}

/// The table. Only the provider reads or writes the contexts.
pub(crate) struct Contexts {
    /// From a box that was given up: the provider's writes would break the box's claim to be the
    /// only way to its memory.
    table: NonNull<[sys::fi_context2]>,
    counts: Counts,
}

impl Contexts {
    pub(crate) fn new(counts: Counts) -> Contexts {
        let blank = sys::fi_context2 { internal: [ptr::null_mut(); 8] };
        let table: Box<[sys::fi_context2]> = vec![blank; counts.total()].into();
        Contexts { table: NonNull::from(Box::leak(table)), counts }
    }

    /// The context of a slot.
    pub(crate) fn context(&self, slot: Slot) -> *mut c_void {
        let Counts { receives, sends, reads } = self.counts;
        let index = match slot {
            Slot::Receive(index) if index < receives => index,
            Slot::Send(index) if index < sends => receives + index,
            Slot::Read(index) if index < reads => receives + sends + index,
            slot => panic!("bug: no context for {slot:?}"),
        };
        self.table.as_ptr().cast::<sys::fi_context2>().wrapping_add(index).cast()
    }

    /// The slot of a context; none if it is not one of ours.
    pub(crate) fn slot(&self, context: *mut c_void) -> Option<Slot> {
        let Counts { receives, sends, reads } = self.counts;
        let offset = context.addr().checked_sub(self.table.as_ptr().addr())?;
        let index = (offset % CONTEXT_BYTES == 0).then_some(offset / CONTEXT_BYTES)?;
        if index < receives {
            Some(Slot::Receive(index))
        } else if index < receives + sends {
            Some(Slot::Send(index - receives))
        } else if index < receives + sends + reads {
            Some(Slot::Read(index - receives - sends))
        } else {
            None
        }
    }
}

impl Drop for Contexts {
    fn drop(&mut self) {
        // SAFETY: Box::from_raw demands what a box gave up, once, with no other user left:
        // - `new` leaked it, and only this gives it back;
        // - the provider's use ends with the endpoint, which `Network` closes before, or it keeps
        //   the table for ever.
        drop(unsafe { Box::from_raw(self.table.as_ptr()) });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_context_and_its_slot_find_each_other() {
        let contexts = Contexts::new(Counts { receives: 3, sends: 2, reads: 4 });
        let slots = (0..3)
            .map(Slot::Receive)
            .chain((0..2).map(Slot::Send))
            .chain((0..4).map(Slot::Read))
            .collect::<Vec<_>>();
        for &slot in &slots {
            assert_eq!(contexts.slot(contexts.context(slot)), Some(slot));
        }
        let distances: Vec<usize> = slots
            .windows(2)
            .map(|pair| contexts.context(pair[1]).addr() - contexts.context(pair[0]).addr())
            .collect();
        assert_eq!(distances, vec![CONTEXT_BYTES; 8]);
    }

    #[test]
    fn a_foreign_context_has_no_slot() {
        let contexts = Contexts::new(Counts { receives: 1, sends: 1, reads: 1 });
        let first = contexts.context(Slot::Receive(0));
        assert_eq!(contexts.slot(ptr::null_mut()), None);
        assert_eq!(contexts.slot(first.wrapping_byte_add(8)), None);
        assert_eq!(contexts.slot(first.wrapping_byte_add(3 * CONTEXT_BYTES)), None);
        assert_eq!(contexts.slot(first.wrapping_byte_sub(CONTEXT_BYTES)), None);
    }
}
