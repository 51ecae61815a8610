//! A rank's side as a child: one fetch per wanted object, whoever and how many wait for it.
//!
//! ```text
//!            ┌────────────── link lost, pull failed, pause over ──────────────┐
//!            ▼                                                                │
//! want ─▶ Queued ─▶ Asked ─▶ Present, Absent, Failed ─▶ completed             │
//!            │        ├─ Inline ─────────────────────▶ Pulling ─▶ completed   │
//!            │        └─ Grant ─▶ (Starved) ─────────▶ Pulling ───────────────┤
//!            │                                            └ bound over: the extent goes to
//!            │                                              quarantine, the fetch ┘ back
//!            ├─ spilled ─▶ Starved ─▶ Pulling ─▶ completed, or Queued again without the copy
//!            └─ source ─▶ (Starved) ─▶ Reading ─▶ completed
//!                            └ directory: Reading ─▶ (Starved) ─▶ Pulling ─▶ completed
//! ```
//! `Starved` waits for an extent, in order; a grant is given back after a while and asked for again. A waiter whose deadline comes is answered `ETIMEDOUT`
//! and forgotten; its fetch goes on, so that credits, leases and extents are accounted for.

use std::collections::{BTreeSet, VecDeque};

use hashbrown::HashMap;

use crate::errno::Errno;
use crate::ids::{JobId, LeaseId, LinkId, PullId, RequestId, Ticket};
use crate::key::Key;
use crate::scope::Scope;
use crate::store::Extent;
use crate::tick::Tick;

/// A fetch's number within its node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct FetchId(u64);

impl FetchId {
    pub(crate) fn number(self) -> u64 {
        self.0
    }
}

/// Who waits for a fetch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Waiter {
    /// A reader of this node.
    Local(Ticket),
    /// A child.
    Child(LinkId, RequestId),
}

/// What a parent granted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Grant {
    pub(crate) link: LinkId,
    pub(crate) lease: LeaseId,
    pub(crate) offset: u64,
    pub(crate) len: u32,
    pub(crate) checksum: u64,
    /// How long it may wait for an extent: the parent could be waiting for the extents of this rank,
    /// as its child in another tree.
    pub(crate) until: Tick,
}

/// What an extent is needed for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Need {
    /// To pull a grant into it.
    Pull(Grant),
    /// To read a block from the source into it.
    Read,
    /// To copy a listing of this many bytes into it.
    Fill(JobId, u32),
    /// To read this many bytes back into it that were evicted.
    Restore(u32),
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum State {
    /// Waits for a parent, a credit or a source job.
    Queued,
    /// The parent, or a child that may hold it, has been asked; the question's number is in the link.
    Asked,
    /// Waits for an extent.
    Starved(Need),
    /// Bytes are on their way into an extent.
    Pulling { pull: PullId, extent: Extent, lease: Option<(LinkId, LeaseId)>, until: Tick },
    /// The source is reading, into the extent if it is a block.
    Reading { extent: Option<Extent> },
    /// Will be queued again.
    Paused { until: Tick },
}

#[derive(Debug)]
pub(crate) struct Fetch {
    pub(crate) key: Key,
    pub(crate) state: State,
    pub(crate) attempts: u32,
    /// Begun ahead of readers.
    pub(crate) ahead: bool,
    /// What is under way was asked for before a refresh that covers it.
    pub(crate) outdated: bool,
    /// Grants that were given back for want of an extent.
    pub(crate) given_back: u32,
    /// The last child that was asked whether it holds this; all before it were too.
    pub(crate) recalled: Option<LinkId>,
    waiters: Vec<(Waiter, Tick)>,
    /// Its place among the timers; `NEVER` if it has none.
    timer: Tick,
}

impl Fetch {
    /// The first moment at which something is to be done about this fetch.
    fn due(&self) -> Tick {
        let waiters = self.waiters.iter().map(|&(_, deadline)| deadline).min();
        let state = match self.state {
            State::Pulling { until, .. }
            | State::Paused { until }
            | State::Starved(Need::Pull(Grant { until, .. })) => until,
            State::Queued | State::Asked | State::Starved(_) | State::Reading { .. } => Tick::NEVER,
        };
        state.min(waiters.unwrap_or(Tick::NEVER))
    }

    pub(crate) fn deadline(&self) -> Option<Tick> {
        self.waiters.iter().map(|&(_, deadline)| deadline).max()
    }

    pub(crate) fn has_waiters(&self) -> bool {
        !self.waiters.is_empty()
    }
}

/// All fetches of a node, their queues and their timers.
#[derive(Debug, Default)]
pub(crate) struct Fetches {
    fetches: HashMap<FetchId, Fetch>,
    by_key: HashMap<Key, FetchId>,
    next: u64,
    /// Fetches that somebody waits for, in order; may hold ones that are not `Queued` any more.
    demanded: VecDeque<FetchId>,
    /// The same for those that nobody waits for yet.
    ahead: VecDeque<FetchId>,
    pub(crate) starved: VecDeque<FetchId>,
    /// One for each fetch that waits for a moment.
    timers: BTreeSet<(Tick, FetchId)>,
}

impl Fetches {
    pub(crate) fn len(&self) -> usize {
        self.fetches.len()
    }

    pub(crate) fn contains(&self, key: &Key) -> bool {
        self.by_key.contains_key(key)
    }

    pub(crate) fn get_mut(&mut self, id: FetchId) -> Option<&mut Fetch> {
        self.fetches.get_mut(&id)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (FetchId, &Fetch)> {
        self.fetches.iter().map(|(&id, fetch)| (id, fetch))
    }

    /// Adds a waiter (none for a fetch ahead of readers), starting a fetch if there is none.
    pub(crate) fn want(&mut self, key: &Key, waiter: Option<(Waiter, Tick)>) {
        let id = match self.by_key.get(key) {
            Some(&id) => id,
            None => {
                let id = FetchId(self.next);
                self.next += 1;
                let fetch = Fetch {
                    key: key.clone(),
                    state: State::Queued,
                    attempts: 0,
                    ahead: waiter.is_none(),
                    outdated: false,
                    given_back: 0,
                    recalled: None,
                    waiters: Vec::new(),
                    timer: Tick::NEVER,
                };
                self.fetches.insert(id, fetch);
                self.by_key.insert(key.clone(), id);
                if waiter.is_none() {
                    self.ahead.push_back(id);
                }
                id
            }
        };
        let Some(waiter) = waiter else { return };
        let fetch = self.fetches.get_mut(&id).expect("by_key names existing fetches");
        if fetch.waiters.is_empty() && matches!(fetch.state, State::Queued) {
            self.demanded.push_back(id);
        }
        fetch.waiters.push(waiter);
        self.set_timer(id);
    }

    fn set_timer(&mut self, id: FetchId) {
        let fetch = self.fetches.get_mut(&id).expect("the caller has looked it up");
        let due = fetch.due();
        if due == fetch.timer {
            return;
        }
        let before = std::mem::replace(&mut fetch.timer, due);
        self.timers.remove(&(before, id));
        if due != Tick::NEVER {
            self.timers.insert((due, id));
        }
    }

    /// The next fetch that waits to be started; it stays at the front until its state changes.
    pub(crate) fn next_queued(&mut self) -> Option<FetchId> {
        for queue in [&mut self.demanded, &mut self.ahead] {
            while let Some(&id) = queue.front() {
                let queued = self.fetches.get(&id).map(|fetch| fetch.state);
                if matches!(queued, Some(State::Queued)) {
                    return Some(id);
                }
                queue.pop_front();
            }
        }
        None
    }

    /// Moves a fetch on and sets its timer.
    pub(crate) fn set(&mut self, id: FetchId, state: State) {
        let fetch = self.fetches.get_mut(&id).expect("the caller has looked it up");
        fetch.state = state;
        if matches!(state, State::Queued | State::Paused { .. }) {
            fetch.outdated = false;
        }
        match state {
            State::Queued if fetch.waiters.is_empty() => self.ahead.push_back(id),
            State::Queued => self.demanded.push_back(id),
            State::Starved(_) => self.starved.push_back(id),
            State::Pulling { .. } | State::Paused { .. } | State::Asked | State::Reading { .. } => {
            }
        }
        self.set_timer(id);
    }

    /// Whatever comes of what is under way now, and is covered by a refresh, is not to be used.
    pub(crate) fn outdate(&mut self, scope: &Scope) {
        for fetch in self.fetches.values_mut() {
            fetch.outdated |= match fetch.state {
                // Nobody has been asked, or will be asked again.
                State::Queued
                | State::Paused { .. }
                | State::Starved(Need::Read | Need::Restore(_)) => false,
                State::Asked
                | State::Starved(Need::Pull(_) | Need::Fill(..))
                | State::Pulling { .. }
                | State::Reading { .. } => scope.covers(&fetch.key),
            };
        }
    }

    /// Ends a fetch: who waited for it.
    pub(crate) fn remove(&mut self, id: FetchId) -> (Key, impl Iterator<Item = Waiter> + use<>) {
        let fetch = self.fetches.remove(&id).expect("the caller has looked it up");
        self.by_key.remove(&fetch.key);
        self.timers.remove(&(fetch.timer, id));
        (fetch.key, fetch.waiters.into_iter().map(|(waiter, _)| waiter))
    }

    /// Forgets the waiters of a lost child.
    pub(crate) fn forget_child(&mut self, link: LinkId) {
        // Their timers stay: at worst one finds nobody left.
        for fetch in self.fetches.values_mut() {
            fetch.waiters.retain(|(waiter, _)| match waiter {
                Waiter::Child(of, _) => *of != link,
                Waiter::Local(_) => true,
            });
        }
    }

    /// When [`Fetches::due`] is to be called next.
    pub(crate) fn next_due(&self) -> Option<Tick> {
        self.timers.first().map(|&(tick, _)| tick)
    }

    /// A fetch whose time has come: the waiters whose deadline is over, and whether its state's
    /// time is over too.
    pub(crate) fn due(&mut self, now: Tick) -> Option<Due> {
        let &(tick, id) = self.timers.first()?;
        if tick > now {
            return None;
        }
        let fetch = self.fetches.get_mut(&id).expect("only fetches that exist have a timer");
        let expired = fetch.waiters.extract_if(.., |(_, deadline)| *deadline <= now);
        let expired = expired.map(|(waiter, _)| waiter).collect();
        let state_over = match fetch.state {
            State::Pulling { until, .. }
            | State::Paused { until }
            | State::Starved(Need::Pull(Grant { until, .. })) => until <= now,
            State::Queued | State::Asked | State::Starved(_) | State::Reading { .. } => false,
        };
        if state_over {
            // The caller moves it on; until then it is not due again.
            fetch.timer = Tick::NEVER;
            self.timers.remove(&(tick, id));
        } else {
            self.set_timer(id);
        }
        Some(Due { id, expired, state_over })
    }
}

/// See [`Fetches::due`].
#[derive(Debug)]
pub(crate) struct Due {
    pub(crate) id: FetchId,
    pub(crate) expired: Vec<Waiter>,
    pub(crate) state_over: bool,
}

/// Why bytes did not arrive as they should.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PullFailure {
    /// The fabric could not move them.
    Fabric,
    /// They are not the bytes that were announced.
    Checksum,
    /// They are not what the object's kind demands.
    Malformed,
    /// The copy in the spill is not as it was written, or cannot be read.
    Spill,
}

impl PullFailure {
    /// What readers get when every attempt has ended so.
    pub fn errno(self) -> Errno {
        match self {
            PullFailure::Fabric | PullFailure::Checksum | PullFailure::Spill => Errno::EIO,
            PullFailure::Malformed => Errno::EPROTO,
        }
    }
}
