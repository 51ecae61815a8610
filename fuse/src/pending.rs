//! Replies that wait for an answer. A FUSE request that is never answered leaves its client
//! unkillable, and with it whoever touches that name or its directory. So every reply that is not
//! given at once is put away here, where the engine, the watchdog and the shutdown compete for it:
//! whoever takes it first answers, the others find nothing.
//!
//! ```text
//!          put                  take (answer, expire, close)
//!  free ─────────▶ waiting ───────────────────────────────────▶ free, next generation
//! ```
//!
//! A ticket names a slot and its generation, so an answer that comes after the slot went to another
//! request finds nothing. Invariants: a reply leaves its slot at most once; after
//! [`Pending::close`] nothing waits. Nothing is answered under the lock.

use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock};
use std::time::{Duration, Instant};

use copper_engine::{Answer, Answers, InodeNumber, Looked, Provenance};
use copper_proto::limits::REQUEST_BOUND;
use copper_proto::{Errno, Ticket};

use crate::counters::Counters;

/// Replies that may wait at once. The kernel has one request per waiting thread and 128 in the
/// background: a full table means thousands of blocked threads on one node.
pub const PENDING_MAX: usize = 16_384;

/// How long a reply may wait: longer than the engine's own bound, so that the engine, which knows
/// why, answers first.
pub const DEADLINE: Duration = Duration::from_secs(35);

const _: () = assert!(DEADLINE.as_secs() > REQUEST_BOUND.as_secs());

/// The errno of a request that nobody answered. Not EIO, which says that data was lost or wrong:
/// this says that nobody answered, and a user can tell the two apart. (Of a READ into the page
/// cache the kernel makes EIO of both.)
pub const EXPIRED: Errno = Errno::ETIMEDOUT;

/// The errno of a request that the end of the daemon leaves without an answer.
pub const CLOSED: Errno = Errno::EIO;

/// How a waiting request is answered.
pub(crate) type Complete<B> = Box<dyn FnOnce(Result<Answer<B>, Errno>, Provenance) + Send>;

/// What to do with a reference that the kernel never got.
type GiveBack = Box<dyn Fn(InodeNumber) + Send + Sync>;

/// The replies of one mount that wait. Made before the engine, which answers into it, and the
/// mount, which puts into it.
pub struct Pending<B> {
    table: Mutex<Table<B>>,
    /// Wakes the watchdog: something waits after a long time without, or the table was closed.
    wake: Condvar,
    deadline: Duration,
    counters: Arc<Counters>,
    give_back: OnceLock<GiveBack>,
}

struct Table<B> {
    slots: Vec<Slot<B>>,
    free: Vec<u32>,
    waiting: usize,
    closed: bool,
    /// The watchdog sleeps until it is woken.
    parked: bool,
}

struct Slot<B> {
    generation: u32,
    waiting: Option<Waiting<B>>,
}

struct Waiting<B> {
    until: Instant,
    complete: Complete<B>,
}

/// What the watchdog should do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Watch {
    /// Look again then.
    Until(Instant),
    /// Nothing waits.
    Idle,
    /// Nothing will ever wait again.
    Closed,
}

impl<B: Send + 'static> Pending<B> {
    /// An empty table whose replies may wait this long; [`DEADLINE`] but for tests.
    pub fn new(deadline: Duration) -> Arc<Pending<B>> {
        let table =
            Table { slots: Vec::new(), free: Vec::new(), waiting: 0, closed: false, parked: false };
        Arc::new(Pending {
            table: Mutex::new(table),
            wake: Condvar::new(),
            deadline,
            counters: Arc::new(Counters::default()),
            give_back: OnceLock::new(),
        })
    }

    /// The counters of the mount that this belongs to.
    pub fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    /// Replies that wait now.
    pub fn waiting(&self) -> usize {
        self.table().waiting
    }

    /// Answers everything with [`CLOSED`], now and from now on.
    pub fn close(&self) {
        let left: Vec<Complete<B>> = {
            let mut table = self.table();
            table.closed = true;
            (0..table.slots.len()).filter_map(|index| table.take_slot(index)).collect()
        };
        self.wake.notify_all();
        for complete in left {
            complete(Err(CLOSED), Provenance::Fetched);
        }
    }

    /// Where references go back to that an answer counted, but that came too late for the kernel
    /// to get them. Only the first call has an effect.
    pub(crate) fn on_late_reference(
        &self,
        give_back: impl Fn(InodeNumber) + Send + Sync + 'static,
    ) {
        let _first = self.give_back.set(Box::new(give_back));
    }

    /// Puts a reply away.
    ///
    /// # Errors
    /// Gives it back, with the errno to answer it with, if the table is full or closed.
    pub(crate) fn put(
        &self,
        complete: Complete<B>,
        now: Instant,
    ) -> Result<Ticket, (Complete<B>, Errno)> {
        let mut table = self.table();
        if table.closed {
            return Err((complete, CLOSED));
        }
        let index = match table.free.pop() {
            Some(index) => index as usize,
            None if table.slots.len() < PENDING_MAX => {
                table.slots.push(Slot { generation: 0, waiting: None });
                table.slots.len() - 1
            }
            None => return Err((complete, Errno::EAGAIN)),
        };
        let slot = &mut table.slots[index];
        assert!(slot.waiting.is_none(), "a free slot is empty");
        slot.waiting = Some(Waiting { until: now + self.deadline, complete });
        let ticket = ticket(slot.generation, index);
        table.waiting += 1;
        let wake = std::mem::take(&mut table.parked);
        drop(table);
        if wake {
            self.wake.notify_one();
        }
        Ok(ticket)
    }

    /// Takes a reply out, if it still waits.
    pub(crate) fn take(&self, ticket: Ticket) -> Option<Complete<B>> {
        let (generation, index) = (ticket.0 >> 32, (ticket.0 & u64::from(u32::MAX)) as usize);
        let mut table = self.table();
        let slot = table.slots.get(index)?;
        if u64::from(slot.generation) != generation {
            return None;
        }
        table.take_slot(index)
    }

    /// Answers what has waited for too long.
    pub(crate) fn expire(&self, now: Instant) -> Watch {
        let (expired, watch) = {
            let mut table = self.table();
            let is_due = |slot: &Slot<B>| slot.waiting.as_ref().is_some_and(|w| w.until <= now);
            let due: Vec<usize> =
                (0..table.slots.len()).filter(|&index| is_due(&table.slots[index])).collect();
            let expired: Vec<Complete<B>> =
                due.into_iter().filter_map(|index| table.take_slot(index)).collect();
            let next =
                table.slots.iter().filter_map(|slot| Some(slot.waiting.as_ref()?.until)).min();
            let watch = match next {
                _ if table.closed => Watch::Closed,
                Some(until) => Watch::Until(until),
                None => Watch::Idle,
            };
            (expired, watch)
        };
        for complete in expired {
            self.counters.expired.count();
            complete(Err(EXPIRED), Provenance::Fetched);
        }
        watch
    }

    /// How long a reply may wait.
    pub(crate) fn deadline(&self) -> Duration {
        self.deadline
    }

    /// Sleeps for this long, or until the table is closed.
    pub(crate) fn sleep(&self, duration: Duration) {
        let table = self.table();
        if !table.closed {
            let _table = self.wake.wait_timeout(table, duration).expect(NOT_POISONED);
        }
    }

    /// Sleeps until something waits, or the table is closed.
    pub(crate) fn park(&self) {
        let mut table = self.table();
        table.parked = table.waiting == 0 && !table.closed;
        while table.parked && !table.closed {
            table = self.wake.wait(table).expect(NOT_POISONED);
        }
    }

    fn table(&self) -> MutexGuard<'_, Table<B>> {
        self.table.lock().expect(NOT_POISONED)
    }
}

const NOT_POISONED: &str = "no code of others runs under the lock";

impl<B> Table<B> {
    fn take_slot(&mut self, index: usize) -> Option<Complete<B>> {
        let slot = &mut self.slots[index];
        let waiting = slot.waiting.take()?;
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(u32::try_from(index).expect("PENDING_MAX is below 2^32"));
        self.waiting -= 1;
        Some(waiting.complete)
    }
}

fn ticket(generation: u32, index: usize) -> Ticket {
    Ticket(u64::from(generation) << 32 | index as u64)
}

impl<B: Send + 'static> Answers<B> for Pending<B> {
    fn answer(&self, ticket: Ticket, answer: Result<Answer<B>, Errno>, provenance: Provenance) {
        if let Some(complete) = self.take(ticket) {
            complete(answer, provenance);
        } else if let (Ok(Answer::Looked(Looked::Found(found))), Some(give_back)) =
            (answer, self.give_back.get())
        {
            give_back(found.inode);
        }
    }
}

impl<B> fmt::Debug for Pending<B> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Pending").field("deadline", &self.deadline).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
