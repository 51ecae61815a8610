//! What is to happen, in order of virtual time; of one moment, in the order in which it was noted.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use copper_proto::Tick;
use slab::Slab;

#[derive(Debug)]
pub(super) struct Agenda<E> {
    order: BinaryHeap<Reverse<(Tick, u64, usize)>>,
    events: Slab<E>,
    noted: u64,
}

impl<E> Agenda<E> {
    pub(super) fn new() -> Agenda<E> {
        Agenda { order: BinaryHeap::new(), events: Slab::new(), noted: 0 }
    }

    pub(super) fn note(&mut self, at: Tick, event: E) {
        self.noted += 1;
        let place = self.events.insert(event);
        self.order.push(Reverse((at, self.noted, place)));
    }

    pub(super) fn next(&mut self) -> Option<(Tick, E)> {
        let Reverse((at, _, place)) = self.order.pop()?;
        Some((at, self.events.remove(place)))
    }

    /// Events so far, those included that have not happened yet.
    pub(super) fn noted(&self) -> u64 {
        self.noted
    }
}
