//! What is given out in order: time, extents, credits, source jobs.

use super::recall::Recall;
use super::{Node, SourceUse, Upstream, known};
use crate::errno::Errno;
use crate::fetch::{Due, FetchId, Grant, Need, State};
use crate::ids::JobId;
use crate::key::{Key, What};
use crate::limits::{
    AHEAD_CREDITS, AHEAD_SOURCE_JOBS, CREDITS, DEGRADED_PAUSE, DEGRADED_SOURCE_JOBS, PAUSE,
    REQUEST_BOUND, RESTORES_MAX, SOURCE_JOBS_MAX,
};
use crate::link::bound_ms;
use crate::output::{CopyFrom, Output, SourceRequest};
use crate::planted::Bug;
use crate::store::{Extent, Store};
use crate::tick::Tick;
use crate::wire::Message;

/// How often the pause before a grant is asked for again doubles: to 0.6 s.
const GIVEN_BACK_DOUBLINGS: u32 = 6;

impl Node {
    pub(super) fn on_time(&mut self, now: Tick, store: &mut impl Store) {
        while let Some(Due { id, expired, state_over }) = self.fetches.due(now) {
            for waiter in expired {
                self.counters.expired += 1;
                self.answer(waiter, Err(Errno::ETIMEDOUT), now, store);
            }
            if !state_over {
                continue;
            }
            let fetch = self.fetches.get_mut(id).expect("it has just been due");
            match fetch.state {
                State::Pulling { pull, extent, lease, .. } => {
                    self.pulls.remove(&pull);
                    self.quarantine.insert(pull, extent);
                    self.counters.quarantined += 1;
                    if self.planted.has(Bug::QuarantineSkipped) {
                        store.release(extent);
                    }
                    if !self.planted.has(Bug::CreditLeaked) {
                        self.close_lease(lease, now);
                    }
                    self.on_pull_ended(lease, false);
                    if self.restores.contains_key(&pull) {
                        self.restore_failed(id);
                    } else {
                        self.retry(id, State::Queued, Errno::EIO, now, store);
                    }
                }
                State::Starved(Need::Pull(grant)) => {
                    // Each time for longer: where many want more than there is, some get through.
                    let pause = PAUSE * (1 << fetch.given_back.min(GIVEN_BACK_DOUBLINGS));
                    fetch.given_back += 1;
                    self.close_lease(Some((grant.link, grant.lease)), now);
                    self.fetches.set(id, State::Paused { until: now + pause });
                }
                State::Paused { .. } => self.fetches.set(id, State::Queued),
                State::Queued | State::Asked | State::Starved(_) | State::Reading { .. } => {}
            }
        }
    }

    /// Gives extents to those that wait for one, in order.
    pub(super) fn feed_starved(&mut self, now: Tick, store: &mut impl Store) {
        self.retry_starved = None;
        while let Some(&id) = self.fetches.starved.front() {
            let fetch = self.fetches.get_mut(id);
            let Some((need, what, wanted, outdated)) = fetch.and_then(|fetch| match fetch.state {
                State::Starved(need) => {
                    Some((need, fetch.key.what, fetch.has_waiters(), fetch.outdated))
                }
                State::Queued
                | State::Asked
                | State::Pulling { .. }
                | State::Reading { .. }
                | State::Paused { .. } => None,
            }) else {
                self.fetches.starved.pop_front();
                continue;
            };
            if outdated {
                self.give_up_need(need, now);
                self.ask_again(id, now, store);
                continue;
            }
            let len = match (need, what) {
                (Need::Pull(grant), _) => grant.len,
                (Need::Fill(_, len) | Need::Restore(len), _) => len,
                (Need::Read, What::Block { index, generation }) => index.len(generation.size),
                (
                    Need::Read,
                    What::Entry
                    | What::Directory
                    | What::ExtendedAttributes
                    | What::DataRanges { .. }
                    | What::Statistics,
                ) => {
                    unreachable!("only blocks are read into an extent")
                }
            };
            let Some(into) = store.allocate(len) else {
                if !store.can_hold(len) {
                    self.abandon(id, need, Errno::EFBIG, now, store);
                    continue;
                }
                if !wanted {
                    // Whoever waits behind it shall not.
                    self.abandon(id, need, Errno::ENOMEM, now, store);
                    continue;
                }
                self.counters.starved += 1;
                self.retry_starved = Some(now + PAUSE);
                return;
            };
            self.fetches.starved.pop_front();
            self.fill(id, need, into, now, store);
        }
    }

    /// Ends a fetch that gets no extent.
    pub(super) fn abandon(
        &mut self,
        id: FetchId,
        need: Need,
        errno: Errno,
        now: Tick,
        store: &mut impl Store,
    ) {
        self.give_up_need(need, now);
        self.complete(id, Err(errno), now, store);
    }

    fn give_up_need(&mut self, need: Need, now: Tick) {
        match need {
            Need::Pull(grant) => self.close_lease(Some((grant.link, grant.lease)), now),
            Need::Fill(job, _) => self.outputs.push_back(Output::DropEncoded(job)),
            Need::Read | Need::Restore(_) => {}
        }
    }

    pub(super) fn key_of(&mut self, id: FetchId) -> Key {
        self.fetches.get_mut(id).expect("the caller has looked it up").key.clone()
    }

    pub(super) fn fill(
        &mut self,
        id: FetchId,
        need: Need,
        into: Extent,
        now: Tick,
        store: &mut impl Store,
    ) {
        match need {
            Need::Pull(grant) => {
                let pull = self.pulling(id, into, Some((grant.link, grant.lease)), now);
                self.counters.pulls += 1;
                let Grant { link, offset, checksum, .. } = grant;
                let key = self.key_of(id);
                self.outputs.push_back(Output::Pull { pull, key, link, offset, into, checksum });
            }
            Need::Fill(job, _) => {
                let pull = self.pulling(id, into, None, now);
                let (key, from) = (self.key_of(id), CopyFrom::Source(job));
                self.outputs.push_back(Output::Copy { pull, key, from, into, checksum: None });
            }
            Need::Read => self.read_source(id, Some(into)),
            Need::Restore(_) => self.restore(id, into, now, store),
        }
    }

    pub(super) fn read_source(&mut self, id: FetchId, extent: Option<Extent>) {
        let job = JobId(self.job_numbers.next());
        self.jobs.insert(job, id);
        if self.reads_source() && self.place.source_use != SourceUse::Root {
            self.counters.degraded_reads += 1;
        }
        if self.is_degraded() {
            self.degraded_next = self.now + DEGRADED_PAUSE;
        }
        let key = self.key_of(id);
        self.fetches.set(id, State::Reading { extent });
        let request = match (key.what, extent) {
            (What::Block { .. }, Some(extent)) => SourceRequest::Block(extent),
            (What::Entry, None) => SourceRequest::Entry,
            (What::Directory | What::ExtendedAttributes | What::DataRanges { .. }, None) => {
                SourceRequest::Encoded
            }
            (What::Statistics, None) => SourceRequest::Statistics,
            (What::Block { .. }, None)
            | (
                What::Entry
                | What::Directory
                | What::ExtendedAttributes
                | What::DataRanges { .. }
                | What::Statistics,
                Some(_),
            ) => {
                unreachable!("blocks, and only blocks, are read into an extent")
            }
        };
        self.outputs.push_back(Output::Source { job, key, request });
    }

    /// Starts fetches as long as the upstream takes them.
    pub(super) fn start_queued(&mut self, now: Tick, store: &mut impl Store) {
        let orphan = self.is_orphan(now);
        while let Some(id) = self.fetches.next_queued() {
            let fetch = self.fetches.get_mut(id).expect("next_queued names existing fetches");
            let key = fetch.key.clone();
            let deadline = fetch.deadline().unwrap_or(now + REQUEST_BOUND);
            let wanted = fetch.has_waiters();
            let (credits, jobs) = match wanted {
                true => (CREDITS, SOURCE_JOBS_MAX),
                false => (AHEAD_CREDITS, AHEAD_SOURCE_JOBS),
            };
            if let Some(outcome) = known(&key, now, store) {
                self.complete(id, Ok(outcome), now, store);
                if self.outputs.is_empty() {
                    continue;
                }
                // An output may name an extent: nothing is allocated before it is applied.
                return;
            }
            if self.can_restore(&key, store) {
                if self.restores.len() >= RESTORES_MAX {
                    return;
                }
                self.starve_for_restore(id, &key, now, store);
                continue;
            }
            let from_source = self.reads_source() || self.is_direct(&key);
            if self.reads_source() {
                match self.recall(id, &key, deadline, now) {
                    Recall::Asked => continue,
                    Recall::NoCredit => return,
                    Recall::NotHeld if self.is_degraded() && self.degraded_next > now => return,
                    Recall::NotHeld => {}
                }
            }
            let jobs = if self.is_degraded() { jobs.min(DEGRADED_SOURCE_JOBS) } else { jobs };
            match &mut self.upstream {
                _ if from_source && self.jobs.len() >= jobs => return,
                _ if from_source => match key.what {
                    What::Block { .. } => {
                        // The extent comes first; extents are given out in order.
                        self.fetches.set(id, State::Starved(Need::Read));
                        self.feed_starved(now, store);
                    }
                    What::Entry
                    | What::Directory
                    | What::ExtendedAttributes
                    | What::DataRanges { .. }
                    | What::Statistics => self.read_source(id, None),
                },
                Upstream::Source => unreachable!("it is read from"),
                Upstream::Lost { .. } if orphan || !wanted => {
                    self.complete(id, Err(Errno::EIO), now, store);
                }
                Upstream::Lost { .. } => return,
                Upstream::Parent(parent) if parent.credits_used() < credits => {
                    let request = parent.ask(id, now);
                    let (link, done) = (parent.link, parent.take_done());
                    self.fetches.set(id, State::Asked);
                    let bound_ms = bound_ms(deadline.since(now));
                    let epoch = self.epoch;
                    let message = Message::Ask { request, epoch, key, bound_ms, done };
                    self.outputs.push_back(Output::Send { link, message, payload: None });
                }
                Upstream::Parent(_) => return,
            }
        }
    }

    /// Reports leases that are done when no question takes the report along: when it has waited
    /// long enough, or at once when credits are what the queue waits for.
    pub(super) fn report_done(&mut self, now: Tick) {
        let waiting = self.fetches.next_queued().is_some();
        for asked in Node::asked_links_mut(&mut self.upstream, &mut self.holders) {
            let due = asked.done_due().is_some_and(|due| due <= now);
            if asked.has_done() && (due || waiting) {
                let (link, leases) = (asked.link, asked.take_done());
                let message = Message::Done { leases };
                self.outputs.push_back(Output::Send { link, message, payload: None });
            }
        }
    }
}
