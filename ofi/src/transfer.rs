//! Posting messages and reads, and reaping what became of them.
//!
//! A buffer is posted, or ours. A receive buffer is in `unposted` while it is ours; the buffer of a
//! send is ours while its slab entry is vacant; a read owns its piece of the arena from the post
//! to the reaping of its completion. Nothing here waits.

use libfabric_sys as sys;
use tracing::warn;

use crate::arena::Filling;
use crate::completion::{BATCH, Failure, Reaped, blank};
use crate::context::Slot;
use crate::endpoint::{Buffer, Remote};
use crate::error::{Errno, Error, PostError};
use crate::network::Network;
use crate::peers::{Peer, Started};

/// What became of something.
#[derive(Debug)]
pub enum Event<'a> {
    /// A message came. Its buffer is posted again when the call returns.
    Received {
        /// The message.
        bytes: &'a [u8],
    },
    /// A message was sent, or not.
    Sent {
        /// As given to [`Network::send`].
        token: u64,
        /// `Ok` says that its buffer is free, not that the peer has read the message.
        result: Result<(), Error>,
    },
    /// A read has ended.
    Read {
        /// As given to [`Network::read`].
        token: u64,
        /// As given to [`Network::read`]; with an error, its bytes are undetermined.
        into: Filling,
        /// Whether the bytes came.
        result: Result<(), Error>,
    },
}

pub(crate) struct PostedSend {
    token: u64,
    peer: Started,
}

pub(crate) struct PostedRead {
    token: u64,
    peer: Started,
    into: Filling,
}

impl Network {
    /// Sends the parts as one message, copied into a buffer of this network.
    /// [`Event::Sent`] with `token` tells when it is done.
    ///
    /// # Errors
    /// [`PostError::Busy`] when all buffers are under way or the provider wants progress first:
    /// [`poll`](Network::poll), then try again.
    pub fn send(&mut self, peer: Peer, token: u64, parts: &[&[u8]]) -> Result<(), PostError> {
        let len = parts.iter().map(|part| part.len()).sum();
        let max = self.messages.bytes_max();
        if len > max {
            return Err(PostError::TooLong { len, max });
        }
        if self.sends.len() == self.counts.sends {
            return Err(PostError::Busy);
        }
        let peer = self.start(peer)?;
        let address = peer.raw();
        let key = self.sends.insert(PostedSend { token, peer });
        let index = self.counts.receives + key;
        // SAFETY: demands that the provider does not hold the buffer and that nobody borrows it:
        // the entry was vacant until now, and borrows of messages end with `poll`.
        let len = unsafe { self.messages.write(index, parts) };
        let start = self.messages.start(index);
        let buffer = Buffer { start, len, descriptor: self.message_descriptor() };
        let context = self.contexts.context(Slot::Send(key));
        // SAFETY: demands a peer that stays, and buffer and context left alone until the end:
        // - the entry holds `Started`;
        // - both are the entry's, which `complete` removes, and nothing else reaches them;
        // - neither moves: mapped, and in a table of fixed size; `Drop` closes the endpoint first.
        let posted = unsafe { self.endpoint.send(address, buffer, context) };
        posted.map_err(|errno| {
            let send = self.sends.remove(key);
            self.peers.end(send.peer);
            self.refusal("fi_send", errno)
        })
    }

    /// Reads a peer's memory from `remote` into `into`, as many bytes as that is long. The
    /// operation owns `into` until [`Event::Read`] with `token` returns it, or this network is
    /// dropped. That the peer's memory is there, and is what it was, is for the caller to know.
    ///
    /// # Errors
    /// With `into`, which was not touched. [`PostError::Busy`] when as many reads are under way
    /// as there may be, or the provider wants progress first: [`poll`](Network::poll), then try
    /// again.
    ///
    /// # Panics
    /// A bug of the caller: `into` is not of the arena that this network was opened with.
    pub fn read(
        &mut self,
        peer: Peer,
        token: u64,
        remote: Remote,
        into: Filling,
    ) -> Result<(), (PostError, Filling)> {
        assert!(self.arena.holds(&into), "bug: a read into another arena");
        let (start, len) = (into.start(), into.len());
        if len > self.operation_bytes_max {
            return Err((PostError::TooLong { len, max: self.operation_bytes_max }, into));
        }
        if self.reads.len() == self.counts.reads {
            return Err((PostError::Busy, into));
        }
        let peer = match self.start(peer) {
            Ok(peer) => peer,
            Err(error) => return Err((error, into)),
        };
        let address = peer.raw();
        let key = self.reads.insert(PostedRead { token, peer, into });
        let buffer = Buffer { start, len, descriptor: self.arena_descriptor() };
        let context = self.contexts.context(Slot::Read(key));
        // SAFETY: demands a peer that stays, and buffer and context left alone until the end:
        // - the entry holds `Started`;
        // - the entry owns the piece, of which there is one owner, and only `complete` removes it;
        // - neither moves: mapped, and in a table of fixed size; `Drop` closes the endpoint first.
        let posted = unsafe { self.endpoint.read(address, remote, buffer, context) };
        posted.map_err(|errno| {
            let read = self.reads.remove(key);
            self.peers.end(read.peer);
            (self.refusal("fi_read", errno), read.into)
        })
    }

    /// Makes progress and reaps what has ended, up to `max` of it, telling `f`. Returns how many.
    ///
    /// Peers' reads of our arena progress in here too on tcp: while there may be any, call it.
    ///
    /// # Errors
    /// When the queue itself fails; what failed on an operation is told by its event.
    pub fn poll(&mut self, max: usize, mut f: impl FnMut(Event<'_>)) -> Result<usize, Error> {
        self.post_receives()?;
        let mut reaped = 0;
        while reaped < max {
            let mut batch = [blank(); BATCH];
            let room = BATCH.min(max - reaped);
            match self.completion.read(&mut batch[..room])? {
                Reaped::Nothing => break,
                Reaped::Entries(count) => {
                    // All of the batch, for what is taken off the queue is told nowhere else.
                    let mut outcome = Ok(());
                    for entry in &batch[..count] {
                        outcome = outcome.and(self.complete(entry, &mut f));
                    }
                    outcome?;
                    reaped += count;
                }
                Reaped::Failed(failure) => {
                    self.fail(failure, &mut f);
                    reaped += 1;
                }
            }
        }
        Ok(reaped)
    }

    /// Posts the receive buffers that are ours, until the provider wants no more for now.
    pub(crate) fn post_receives(&mut self) -> Result<(), Error> {
        while let Some(&index) = self.unposted.front() {
            let start = self.messages.start(index);
            let len = self.messages.bytes_max();
            let buffer = Buffer { start, len, descriptor: self.message_descriptor() };
            let context = self.contexts.context(Slot::Receive(index));
            // SAFETY: demands that buffer and context are left alone until the end:
            // - an index in `unposted` is ours, and leaves it when the post succeeds;
            // - it returns only by `complete` or `fail`, so nothing else reaches them;
            // - neither moves; `Drop` closes the endpoint first.
            match unsafe { self.endpoint.receive(buffer, context) } {
                Ok(()) => drop(self.unposted.pop_front()),
                Err(Errno::AGAIN) => break,
                Err(errno) => return Err(self.fabric.failed("fi_recv")(errno)),
            }
        }
        Ok(())
    }

    fn complete(
        &mut self,
        entry: &sys::fi_cq_msg_entry,
        f: &mut impl FnMut(Event<'_>),
    ) -> Result<(), Error> {
        match self.contexts.slot(entry.op_context) {
            Some(Slot::Receive(index)) => {
                // First, so that a panic in `f` does not lose the buffer.
                self.unposted.push_back(index);
                // SAFETY: demands that the provider does not hold the buffer and nobody writes it
                // while it is borrowed: its receive has ended, and it is posted again below.
                let bytes = unsafe { self.messages.bytes(index, entry.len) };
                let bytes = bytes.ok_or_else(|| Error::Foreign { on: self.fabric.name() })?;
                f(Event::Received { bytes });
                self.post_receives()?;
            }
            Some(Slot::Send(key)) if self.sends.contains(key) => self.end_send(key, Ok(()), f),
            Some(Slot::Read(key)) if self.reads.contains(key) => self.end_read(key, Ok(()), f),
            Some(Slot::Send(_) | Slot::Read(_)) | None => {
                return Err(Error::Foreign { on: self.fabric.name() });
            }
        }
        Ok(())
    }

    fn fail(&mut self, failure: Failure, f: &mut impl FnMut(Event<'_>)) {
        let slot = self.contexts.slot(failure.context);
        let errno = failure.errno;
        let error = |operation| Error::Operation {
            operation,
            on: self.fabric.name(),
            detail: failure.detail,
            source: errno,
        };
        match slot {
            Some(Slot::Receive(index)) => {
                warn!(error = %error("receive"), %errno, "a message was lost");
                self.receives_failed += 1;
                self.unposted.push_back(index);
            }
            Some(Slot::Send(key)) if self.sends.contains(key) => {
                let result = Err(error("send"));
                self.end_send(key, result, f);
            }
            Some(Slot::Read(key)) if self.reads.contains(key) => {
                let result = Err(error("read"));
                self.end_read(key, result, f);
            }
            // Some providers report a lost connection so.
            Some(Slot::Send(_) | Slot::Read(_)) | None => {
                warn!(error = %error("an operation of the provider"), %errno, "not ours");
            }
        }
    }

    fn end_send(&mut self, key: usize, result: Result<(), Error>, f: &mut impl FnMut(Event<'_>)) {
        let PostedSend { token, peer } = self.sends.remove(key);
        self.peers.end(peer);
        f(Event::Sent { token, result });
    }

    fn end_read(&mut self, key: usize, result: Result<(), Error>, f: &mut impl FnMut(Event<'_>)) {
        let PostedRead { token, peer, into } = self.reads.remove(key);
        self.peers.end(peer);
        f(Event::Read { token, into, result });
    }

    fn start(&mut self, peer: Peer) -> Result<Started, PostError> {
        let unknown = || PostError::Refused(self.fabric.failed("post")(Errno::INVALID));
        self.peers.start(peer).ok_or_else(unknown)
    }

    fn refusal(&self, call: &'static str, errno: Errno) -> PostError {
        match errno {
            Errno::AGAIN => PostError::Busy,
            errno => PostError::Refused(self.fabric.failed(call)(errno)),
        }
    }
}
