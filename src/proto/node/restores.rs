//! Reading back what was evicted, before anybody else is asked.
//!
//! A copy that fails costs its fetch nothing: it is forgotten, and the fetch goes on as if there had
//! been none. One that does not come within its bound tells that the disk hangs: until it has come,
//! the spill is not asked for anything else.

use super::Node;
use crate::fetch::{FetchId, Need, State};
use crate::ids::PullId;
use crate::key::Key;
use crate::output::Output;
use crate::store::{Extent, Store};
use crate::tick::Tick;

impl Node {
    /// Whether an object is to be read back rather than asked for.
    pub(super) fn can_restore(&self, key: &Key, store: &impl Store) -> bool {
        store.spilled(key).is_some()
            && !self.restores.keys().any(|pull| self.quarantine.contains_key(pull))
    }

    /// The extent comes first; extents are given out in order.
    pub(super) fn starve_for_restore(
        &mut self,
        id: FetchId,
        key: &Key,
        now: Tick,
        store: &mut impl Store,
    ) {
        let len = store.spilled(key).expect("the caller has just asked");
        self.fetches.set(id, State::Starved(Need::Restore(len)));
        self.feed_starved(now, store);
    }

    pub(super) fn restore(&mut self, id: FetchId, into: Extent, now: Tick, store: &mut impl Store) {
        let key = self.key_of(id);
        // While the fetch waited the copy may have gone, or another one may have come.
        match store.begin_restore(&key) {
            Some(from) if from.len == into.len => {
                let pull = self.pulling(id, into, None, now);
                self.restores.insert(pull, from);
                self.outputs.push_back(Output::Restore { pull, key, from, into });
            }
            gone => {
                if let Some(other) = gone {
                    store.end_restore(other, true);
                }
                store.release(into);
                self.fetches.set(id, State::Queued);
            }
        }
    }

    /// Whether a pull that has ended was of a copy, which is given back.
    pub(super) fn end_restore(&mut self, pull: PullId, well: bool, store: &mut impl Store) -> bool {
        let Some(spilled) = self.restores.remove(&pull) else { return false };
        store.end_restore(spilled, well);
        true
    }

    /// The fetch goes on without the copy.
    pub(super) fn restore_failed(&mut self, id: FetchId) {
        self.counters.spill_lost += 1;
        self.fetches.set(id, State::Queued);
    }
}
