//! Which open file a descriptor means, and how many descriptors mean it.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use crate::trace::Slot;

/// What a descriptor's number means.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Descriptor {
    pub(crate) slot: Slot,
    pub(crate) close_on_exec: bool,
}

/// The descriptors of one process that are followed, by number.
#[derive(Clone, Debug, Default)]
pub(crate) struct Descriptors(BTreeMap<u64, Descriptor>);

impl Descriptors {
    pub(crate) fn set(&mut self, number: u64, descriptor: Descriptor) {
        self.0.insert(number, descriptor);
    }

    pub(crate) fn slot(&self, number: u64) -> Option<Slot> {
        self.0.get(&number).map(|descriptor| descriptor.slot)
    }

    pub(crate) fn remove(&mut self, number: u64) -> Option<Slot> {
        self.0.remove(&number).map(|descriptor| descriptor.slot)
    }

    pub(crate) fn remove_range(&mut self, numbers: RangeInclusive<u64>) -> Vec<Slot> {
        self.remove_if(|number, _| numbers.contains(&number))
    }

    pub(crate) fn mark(&mut self, number: u64, close_on_exec: bool) {
        if let Some(descriptor) = self.0.get_mut(&number) {
            descriptor.close_on_exec = close_on_exec;
        }
    }

    pub(crate) fn close_on_exec(&mut self, numbers: RangeInclusive<u64>) {
        for (_, descriptor) in self.0.range_mut(numbers) {
            descriptor.close_on_exec = true;
        }
    }

    /// Another program runs: gives what that closes.
    pub(crate) fn exec(&mut self) -> Vec<Slot> {
        self.remove_if(|_, descriptor| descriptor.close_on_exec)
    }

    pub(crate) fn slots(&self) -> Vec<Slot> {
        self.0.values().map(|descriptor| descriptor.slot).collect()
    }

    fn remove_if(&mut self, wanted: impl Fn(u64, &Descriptor) -> bool) -> Vec<Slot> {
        let (removed, kept) = std::mem::take(&mut self.0)
            .into_iter()
            .partition(|(number, descriptor)| wanted(*number, descriptor));
        self.0 = kept;
        BTreeMap::into_values(removed).map(|descriptor| descriptor.slot).collect()
    }
}

/// The slots of a recording, and how many descriptors mean each.
#[derive(Debug, Default)]
pub(crate) struct Slots {
    counts: Vec<u32>,
    free: BTreeSet<u32>,
    listed: BTreeSet<Slot>,
}

impl Slots {
    /// The lowest that is free, with one descriptor.
    pub(crate) fn take(&mut self) -> Slot {
        let slot = match self.free.pop_first() {
            Some(index) => Slot(index),
            None => {
                self.counts.push(0);
                Slot(u32::try_from(self.counts.len() - 1).expect("fewer files than 2^32 are open"))
            }
        };
        self.listed.remove(&slot);
        self.counts[slot.0 as usize] = 1;
        slot
    }

    pub(crate) fn share(&mut self, slot: Slot) {
        self.counts[slot.0 as usize] += 1;
    }

    /// One descriptor less: whether it was the last.
    pub(crate) fn release(&mut self, slot: Slot) -> bool {
        let count = &mut self.counts[slot.0 as usize];
        assert!(*count > 0, "{slot:?} is released once too often");
        *count -= 1;
        *count == 0 && self.free.insert(slot.0)
    }

    pub(crate) fn on_listed(&mut self, slot: Slot) {
        self.listed.insert(slot);
    }

    pub(crate) fn was_listed(&self, slot: Slot) -> bool {
        self.listed.contains(&slot)
    }
}
