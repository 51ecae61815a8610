//! One connection to another rank: what is outstanding on it.

use std::time::Duration;

use hashbrown::{HashMap, HashSet};

use crate::fetch::FetchId;
use crate::ids::{LeaseId, LinkId, Rank, RequestId};
use crate::limits::{CREDITS, DONE_DELAY, PROBE_AFTER, PULL_FAILURES_MAX, SILENCE_BOUND};
use crate::store::Extent;
use crate::tick::Tick;

/// The link to the parent.
///
/// Questions without an answer, leases in use and leases not yet reported as done each hold one of
/// [`CREDITS`] credits.
#[derive(Debug)]
pub(crate) struct Parent {
    pub(crate) link: LinkId,
    pub(crate) rank: Rank,
    questions: HashMap<RequestId, FetchId>,
    next_request: u32,
    leases: u32,
    done: Vec<LeaseId>,
    done_since: Option<Tick>,
    /// Since when an answer is owed and nothing at all has come.
    silent_since: Option<Tick>,
    probed: bool,
    /// Pulls that have failed in a row.
    failures: u32,
}

/// What is to be done about a silent link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Silence {
    Probe,
    GiveUp,
}

impl Parent {
    pub(crate) fn new(link: LinkId, rank: Rank) -> Parent {
        Parent {
            link,
            rank,
            questions: HashMap::new(),
            next_request: 0,
            leases: 0,
            done: Vec::new(),
            done_since: None,
            silent_since: None,
            probed: false,
            failures: 0,
        }
    }

    /// How many of [`CREDITS`] are taken.
    pub(crate) fn credits_used(&self) -> u32 {
        u32::try_from(self.questions.len() + self.done.len()).unwrap_or(u32::MAX) + self.leases
    }

    /// Takes a credit for a question.
    pub(crate) fn ask(&mut self, fetch: FetchId, now: Tick) -> RequestId {
        self.silent_since.get_or_insert(now);
        assert!(self.credits_used() < CREDITS, "the caller asked for one");
        let request = RequestId(self.next_request);
        self.next_request = self.next_request.wrapping_add(1);
        self.questions.insert(request, fetch);
        request
    }

    /// The question that an answer is for; its credit is free again.
    pub(crate) fn answered(&mut self, request: RequestId) -> Option<FetchId> {
        self.questions.remove(&request)
    }

    /// Something has come; called once an answer's question is closed.
    pub(crate) fn on_heard(&mut self, now: Tick) {
        self.silent_since = Some(now).filter(|_| !self.questions.is_empty());
        self.probed = false;
    }

    /// What is due at `now`; it then counts as done.
    pub(crate) fn silence(&mut self, now: Tick) -> Option<Silence> {
        let since = self.silent_since?;
        if since + SILENCE_BOUND <= now {
            self.silent_since = None;
            return Some(Silence::GiveUp);
        }
        let probe = !self.probed && since + PROBE_AFTER <= now;
        self.probed |= probe;
        probe.then_some(Silence::Probe)
    }

    /// When [`Parent::silence`] has something to say.
    pub(crate) fn silence_due(&self) -> Option<Tick> {
        self.silent_since.map(|since| since + if self.probed { SILENCE_BOUND } else { PROBE_AFTER })
    }

    /// A pull has ended. Whether it was one too many that failed.
    pub(crate) fn on_pull_ended(&mut self, well: bool) -> bool {
        self.failures = if well { 0 } else { self.failures + 1 };
        self.failures == PULL_FAILURES_MAX
    }

    /// The answer to a question was a grant: its credit goes on to the lease.
    pub(crate) fn lease_opened(&mut self) {
        self.leases += 1;
    }

    pub(crate) fn lease_done(&mut self, lease: LeaseId, now: Tick) {
        assert!(self.leases > 0, "every lease is closed once");
        self.leases -= 1;
        self.done.push(lease);
        self.done_since.get_or_insert(now);
    }

    /// Leases to report along with the next message.
    pub(crate) fn take_done(&mut self) -> Vec<LeaseId> {
        self.done_since = None;
        std::mem::take(&mut self.done)
    }

    pub(crate) fn has_done(&self) -> bool {
        !self.done.is_empty()
    }

    /// When the leases must be reported without a question to go along with.
    pub(crate) fn done_due(&self) -> Option<Tick> {
        self.done_since.map(|since| since + DONE_DELAY)
    }

    pub(crate) fn leases_open(&self) -> u32 {
        self.leases
    }

    /// The questions that will not be answered any more.
    pub(crate) fn into_questions(self) -> impl Iterator<Item = FetchId> {
        self.questions.into_values()
    }
}

/// The link to one child.
#[derive(Debug)]
pub(crate) struct Child {
    pub(crate) rank: Rank,
    pub(crate) questions: HashSet<RequestId>,
    pub(crate) leases: HashMap<LeaseId, (Extent, Tick)>,
    next_lease: u32,
}

impl Child {
    pub(crate) fn new(rank: Rank) -> Child {
        Child { rank, questions: HashSet::new(), leases: HashMap::new(), next_lease: 0 }
    }

    /// Twice the credits: a question may overtake the note that the lease before it is done.
    pub(crate) fn has_credit(&self) -> bool {
        self.questions.len() + self.leases.len() < 2 * CREDITS as usize
    }

    pub(crate) fn lease(&mut self, extent: Extent, now: Tick) -> LeaseId {
        let lease = LeaseId(self.next_lease);
        self.next_lease = self.next_lease.wrapping_add(1);
        self.leases.insert(lease, (extent, now));
        lease
    }
}

/// A bound as it travels, in milliseconds, rounded down so that a parent gives up first.
pub(crate) fn bound_ms(bound: Duration) -> u32 {
    u32::try_from(bound.as_millis()).unwrap_or(u32::MAX)
}
