//! Bytes that have come, from a parent or from the source.

use std::time::Duration;

use super::Node;
use crate::errno::Errno;
use crate::fetch::{FetchId, Need, PullFailure, State};
use crate::ids::{JobId, LeaseId, LinkId, PullId};
use crate::input::SourceAnswer;
use crate::jitter::jittered;
use crate::key::{Key, What};
use crate::limits::{EXTENT_BYTES_MAX, PAUSE, PULL_BOUND};
use crate::output::{Outcome, Output};
use crate::planted::Bug;
use crate::store::{Extent, Held, Known, Store};
use crate::tick::Tick;

/// How often a pause doubles: to 0.6 s.
const PAUSE_DOUBLINGS: u32 = 6;

impl Node {
    pub(super) fn pulling(
        &mut self,
        id: FetchId,
        extent: Extent,
        mut lease: Option<(LinkId, LeaseId)>,
        now: Tick,
    ) -> PullId {
        if self.planted.has(Bug::LeaseReturnedEarly) {
            self.close_lease(lease.take(), now);
        }
        let pull = PullId(self.pull_numbers.next());
        self.pulls.insert(pull, id);
        self.fetches.set(id, State::Pulling { pull, extent, lease, until: now + PULL_BOUND });
        pull
    }

    /// Gives a lease back, unless its link is gone.
    pub(super) fn close_lease(&mut self, lease: Option<(LinkId, LeaseId)>, now: Tick) {
        if let Some((link, lease)) = lease
            && let Some(asked) = self.asked(link)
        {
            asked.lease_done(lease, now);
        }
    }

    pub(super) fn on_pulled(
        &mut self,
        pull: PullId,
        result: Result<u64, PullFailure>,
        now: Tick,
        store: &mut impl Store,
    ) {
        let restored = self.end_restore(pull, result.is_ok(), store);
        if let Some(extent) = self.quarantine.remove(&pull) {
            if !self.planted.has(Bug::QuarantineSkipped) {
                store.release(extent);
            }
            return;
        }
        let id = self.pulls.remove(&pull).expect("every pull ends once");
        let fetch = self.fetches.get_mut(id).expect("a fetch stays while it is pulled");
        let State::Pulling { extent, lease, .. } = fetch.state else {
            unreachable!("{:?} is not being pulled", fetch.state)
        };
        let (key, outdated) = (fetch.key.clone(), fetch.outdated);
        let fetch_attempts = fetch.attempts;
        self.close_lease(lease, now);
        self.on_pull_ended(lease, result.is_ok());
        if lease.is_some() && result.is_ok() {
            self.counters.pulled_bytes += u64::from(extent.len);
        }
        if outdated {
            store.release(extent);
            self.ask_again(id, now, store);
            return;
        }
        let result = match result {
            Err(PullFailure::Checksum) if self.planted.has(Bug::ChecksumIgnored) => Ok(0),
            result => result,
        };
        match result {
            Ok(checksum) => {
                if restored && matches!(key.what, What::Block { .. }) {
                    self.counters.restored_bytes += u64::from(extent.len);
                }
                self.publish(id, &key, Held { extent, checksum }, now, store);
            }
            Err(PullFailure::Spill) => {
                store.release(extent);
                self.restore_failed(id);
            }
            Err(failure) => {
                store.release(extent);
                if failure == PullFailure::Checksum {
                    self.counters.checksum_failures += 1;
                }
                let paused = State::Paused { until: now + pause(id, fetch_attempts, now) };
                self.retry(id, paused, failure.errno(), now, store);
            }
        }
    }

    fn publish(&mut self, id: FetchId, key: &Key, held: Held, now: Tick, store: &mut impl Store) {
        store.publish(key, held);
        let fetch = self.fetches.get_mut(id).expect("a fetch stays until it is completed");
        match (fetch.ahead, fetch.has_waiters()) {
            (true, true) => self.counters.ahead_awaited += 1,
            (true, false) => store.unread(held.extent),
            (false, _) => {}
        }
        self.complete(id, Ok(Outcome::Object(held)), now, store);
    }

    pub(super) fn on_source(
        &mut self,
        job: JobId,
        result: Result<SourceAnswer, Errno>,
        now: Tick,
        store: &mut impl Store,
    ) {
        let id = self.jobs.remove(&job).expect("every job ends once");
        let fetch = self.fetches.get_mut(id).expect("a fetch stays while the source reads");
        let State::Reading { extent } = fetch.state else {
            unreachable!("{:?} is not being read", fetch.state)
        };
        let key = fetch.key.clone();
        if fetch.outdated {
            if let Some(extent) = extent {
                store.release(extent);
            }
            if let Ok(SourceAnswer::Encoded(_)) = result {
                self.outputs.push_back(Output::DropEncoded(job));
            }
            self.ask_again(id, now, store);
            return;
        }
        match (result, extent) {
            (Ok(SourceAnswer::Present(entry)), None) => {
                store.put_entry(&key.path, Known::Present(entry.clone()));
                self.complete(id, Ok(Outcome::Present(entry)), now, store);
            }
            (Ok(SourceAnswer::Absent), None) => {
                let until = now + self.files.absent_bound;
                store.put_entry(&key.path, Known::Absent(until));
                self.complete(id, Ok(Outcome::Absent(until)), now, store);
            }
            (Ok(SourceAnswer::Statistics(statistics)), None) => {
                self.complete(id, Ok(Outcome::Statistics(statistics)), now, store);
            }
            (Ok(SourceAnswer::Encoded(len)), None) if len <= EXTENT_BYTES_MAX => {
                self.fetches.set(id, State::Starved(Need::Fill(job, len)));
            }
            (Ok(SourceAnswer::Encoded(_)), None) => {
                self.outputs.push_back(Output::DropEncoded(job));
                self.complete(id, Err(Errno::EFBIG), now, store);
            }
            (Ok(SourceAnswer::Block(checksum)), Some(extent)) => {
                self.publish(id, &key, Held { extent, checksum }, now, store);
            }
            (Err(errno), extent) => {
                if let Some(extent) = extent {
                    store.release(extent);
                }
                if self.planted.has(Bug::ErrorCached) && key.what == What::Entry {
                    store.put_entry(&key.path, Known::Absent(Tick::NEVER));
                }
                self.complete(id, Err(errno), now, store);
            }
            (Ok(answer), extent) => {
                unreachable!("the source answered {answer:?} for {key:?} into {extent:?}")
            }
        }
    }
}

/// [`PAUSE`], doubled with each attempt; half of it by chance, as far as clocks and numbers of ranks
/// that fail together differ.
fn pause(id: FetchId, attempts: u32, now: Tick) -> Duration {
    let full = PAUSE * (1 << attempts.min(PAUSE_DOUBLINGS));
    let seed = id.number() ^ now.0.rotate_left(32);
    jittered(full, seed)
}
