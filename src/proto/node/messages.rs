//! What other ranks say.

use super::Node;
use crate::errno::Errno;
use crate::fetch::{Grant, Need, State, Waiter};
use crate::ids::{LeaseId, LinkId, RequestId};
use crate::key::What;
use crate::limits::{EXTENT_BYTES_MAX, GRANT_BOUND, PAUSE, REQUEST_BOUND};
use crate::output::{CopyFrom, Outcome, Output};
use crate::serve::Violation;
use crate::store::{Known, Store};
use crate::tick::Tick;
use crate::wire::{Message, Reply};

impl Node {
    pub(super) fn on_message(
        &mut self,
        link: LinkId,
        message: Message,
        now: Tick,
        store: &mut impl Store,
    ) {
        let result = match message {
            Message::Probe => {
                let message = Message::Alive;
                self.outputs.push_back(Output::Send { link, message, payload: None });
                Ok(())
            }
            Message::Alive => Ok(()),
            Message::Ask { key, .. } if !self.owns(&key) => Err(Violation::WrongTree),
            Message::Ask { request, key, done, .. } if self.parent_link() == Some(link) => {
                self.on_recall(link, request, &key, &done, now, store)
            }
            Message::Holds => self.on_holds(link),
            // The member has caught up with the child's epoch.
            Message::Ask { request, epoch: _, key, bound_ms, done } => {
                let taken = self.on_done(link, &done, store);
                let taken = taken.and_then(|()| self.children.on_ask(link, request));
                taken.map(|()| {
                    let bound = std::time::Duration::from_millis(bound_ms.into());
                    let deadline = now + bound.min(REQUEST_BOUND);
                    self.want(&key, Waiter::Child(link, request), deadline, now, store);
                })
            }
            Message::Done { leases } => self.on_done(link, &leases, store),
            Message::Answer { request, reply } => self.on_reply(link, request, reply, now, store),
        };
        match result {
            Ok(()) => {
                if let Some(asked) = self.asked(link) {
                    asked.on_heard(now);
                }
            }
            Err(violation) => self.disconnect(link, violation),
        }
    }

    fn on_done(
        &mut self,
        link: LinkId,
        leases: &[LeaseId],
        store: &mut impl Store,
    ) -> Result<(), Violation> {
        self.counters.served_bytes += self.children.on_done(link, leases, store)?;
        Ok(())
    }

    pub(super) fn disconnect(&mut self, link: LinkId, violation: Violation) {
        self.counters.violations += 1;
        self.outputs.push_back(Output::Disconnect { link, violation });
    }

    pub(super) fn on_reply(
        &mut self,
        link: LinkId,
        request: RequestId,
        reply: Reply,
        now: Tick,
        store: &mut impl Store,
    ) -> Result<(), Violation> {
        let asked = self.asked(link).ok_or(Violation::WrongDirection)?;
        let id = asked.answered(request).ok_or(Violation::NoQuestion)?;
        let fetch = self.fetches.get_mut(id).expect("a fetch stays while it is asked");
        let (key, outdated) = (fetch.key.clone(), fetch.outdated);
        // From here on a wrong answer must leave the fetch in a state: the link goes down.
        self.fetches.set(id, State::Queued);
        if outdated {
            return self.on_outdated_reply(link, id, reply, now, store);
        }
        if self.holders.contains_key(&link) {
            if let Reply::Failed(_) = reply {
                // It holds it no more, or never has: the next one is asked, or the source.
                return Ok(());
            }
            self.counters.recalled += 1;
        }
        match (key.what, reply) {
            (What::Entry, Reply::Present(entry)) => {
                store.put_entry(&key.path, Known::Present(entry.clone()));
                self.complete(id, Ok(Outcome::Present(entry)), now, store);
            }
            (What::Entry, Reply::Absent { keep_ms }) => {
                let until = keep_until(keep_ms, now);
                store.put_entry(&key.path, Known::Absent(until));
                self.complete(id, Ok(Outcome::Absent(until)), now, store);
            }
            (What::Statistics, Reply::Statistics(statistics)) => {
                self.complete(id, Ok(Outcome::Statistics(statistics)), now, store);
            }
            (
                What::Directory
                | What::Block { .. }
                | What::ExtendedAttributes
                | What::DataRanges { .. },
                Reply::Inline { len, checksum },
            ) if fits(key.what, len) => {
                self.counters.inlined += 1;
                match store.allocate(len) {
                    Some(into) => {
                        let pull = self.pulling(id, into, None, now);
                        let from = CopyFrom::Message;
                        let checksum = Some(checksum);
                        self.outputs.push_back(Output::Copy { pull, key, from, into, checksum });
                    }
                    None if !store.can_hold(len) => {
                        self.complete(id, Err(Errno::EFBIG), now, store);
                    }
                    None => {
                        self.counters.starved += 1;
                        self.fetches.set(id, State::Paused { until: now + PAUSE });
                    }
                }
            }
            (
                What::Directory
                | What::Block { .. }
                | What::ExtendedAttributes
                | What::DataRanges { .. },
                Reply::Grant { lease, offset, len, checksum },
            ) => {
                let asked = self.asked(link).expect("it has just been looked up");
                asked.lease_opened();
                if !fits(key.what, len) {
                    return Err(Violation::WrongAnswer);
                }
                let until = now + GRANT_BOUND;
                let grant = Grant { link, lease, offset, len, checksum, until };
                self.fetches.set(id, State::Starved(Need::Pull(grant)));
            }
            (_, Reply::Failed(errno)) => self.complete(id, Err(errno), now, store),
            (
                What::Entry
                | What::Directory
                | What::Block { .. }
                | What::ExtendedAttributes
                | What::DataRanges { .. }
                | What::Statistics,
                Reply::Present(_)
                | Reply::Absent { .. }
                | Reply::Statistics(_)
                | Reply::Inline { .. }
                | Reply::Grant { .. },
            ) => return Err(Violation::WrongAnswer),
        }
        Ok(())
    }
}

/// Whether an object of this kind can have this many bytes.
fn fits(what: What, len: u32) -> bool {
    match what {
        What::Directory | What::ExtendedAttributes | What::DataRanges { .. } => {
            len > 0 && len <= EXTENT_BYTES_MAX
        }
        What::Block { index, generation } => len == index.len(generation.size),
        What::Entry | What::Statistics => false,
    }
}

fn keep_until(keep_ms: u32, now: Tick) -> Tick {
    if keep_ms == u32::MAX {
        Tick::NEVER
    } else {
        now + std::time::Duration::from_millis(keep_ms.into())
    }
}
