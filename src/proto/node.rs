//! One rank in one tree of the protocol: [`Node::handle`] takes what happened, [`Node::poll`] gives
//! what is to be done about it.
//!
//! Rules for whoever drives it:
//! - after each `handle`, `poll` until `None`, applying each output before the next `poll`: an
//!   output may name an extent that a later one evicts, and [`CopyFrom::Message`] means the payload
//!   of the message that was handled last;
//! - call [`Node::handle`] with [`Input::Time`] no later than [`Node::next_due`].

mod links;
mod messages;
mod recall;
mod refresh;
mod resources;
mod restores;
mod transfers;

use std::collections::{BTreeMap, VecDeque};
use std::num::NonZeroU32;

use hashbrown::HashMap;

use crate::errno::Errno;
use crate::fetch::{FetchId, Fetches, State, Waiter};
use crate::file_policy::FilePolicy;
pub use crate::gauges::{Gauges, NodeCounters};
use crate::ids::{Epoch, JobId, LinkId, PullId, Rank, TreeIndex};
pub use crate::input::{Input, SourceAnswer, SourceUse};
use crate::key::{BlockIndex, Key, ViewPath, What};
use crate::limits::{ATTEMPTS_MAX, FETCHES_AHEAD_MAX, ORPHAN_BOUND};
use crate::link::{Parent, bound_ms};
pub use crate::output::{CopyFrom, Outcome, Output, SourceRequest};
use crate::ownership::{Numbers, owner};
use crate::planted::{Bug, Planted};
use crate::serve::Children;
use crate::store::{Extent, Known, Spilled, Store};
use crate::tick::Tick;
use crate::wire::{Message, Reply};

/// Where objects come from.
#[derive(Debug)]
enum Upstream {
    Parent(Parent),
    Source,
    Lost { since: Tick },
}

/// A rank's place in one tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Which tree.
    pub tree: TreeIndex,
    /// Of how many.
    pub trees: NonZeroU32,
    /// Whether the source is read here for it.
    pub source_use: SourceUse,
}

/// One rank in one tree.
#[derive(Debug)]
pub struct Node {
    place: Place,
    files: FilePolicy,
    upstream: Upstream,
    pub(crate) children: Children,
    /// Children that hold what came by a parent that is lost, as parents of a kind: they can be asked.
    holders: BTreeMap<LinkId, Parent>,
    /// Whether this rank has had a parent: it may hold what a new one has never had.
    had_parent: bool,
    /// A rank that is degraded begins its next read of the source then.
    degraded_next: Tick,
    fetches: Fetches,
    pulls: HashMap<PullId, FetchId>,
    quarantine: HashMap<PullId, Extent>,
    restores: HashMap<PullId, Spilled>,
    jobs: HashMap<JobId, FetchId>,
    pull_numbers: Numbers,
    job_numbers: Numbers,
    /// What is to be fetched ahead and belongs to other trees.
    elsewhere: Vec<Key>,
    retry_starved: Option<Tick>,
    epoch: Epoch,
    now: Tick,
    outputs: VecDeque<Output>,
    counters: NodeCounters,
    pub(crate) planted: Planted,
}

impl Node {
    /// A node without links. A root reads the source at once; others wait for a parent.
    pub fn new(place: Place, files: FilePolicy, now: Tick) -> Node {
        let upstream = match place.source_use {
            SourceUse::Root => Upstream::Source,
            SourceUse::Successor | SourceUse::Fallback | SourceUse::Never => {
                Upstream::Lost { since: now }
            }
        };
        Node {
            place,
            files,
            upstream,
            children: Children::default(),
            holders: BTreeMap::new(),
            had_parent: false,
            degraded_next: Tick(0),
            fetches: Fetches::default(),
            pulls: HashMap::new(),
            quarantine: HashMap::new(),
            restores: HashMap::new(),
            jobs: HashMap::new(),
            pull_numbers: Numbers::of(place.tree),
            job_numbers: Numbers::of(place.tree),
            elsewhere: Vec::new(),
            retry_starved: None,
            epoch: Epoch(0),
            now,
            outputs: VecDeque::new(),
            counters: NodeCounters::default(),
            planted: Planted::default(),
        }
    }

    /// Takes in what happened.
    pub fn handle(&mut self, now: Tick, input: Input, store: &mut impl Store) {
        assert!(self.outputs.is_empty(), "every output is applied before the next input");
        self.now = now;
        match input {
            Input::Want { ticket, key, deadline } => {
                self.want(&key, Waiter::Local(ticket), deadline, now, store);
                self.fetch_whole(&key, store);
            }
            Input::Prefetch { key } => {
                self.prefetch(&key, store);
            }
            Input::Received { link, message } => self.on_message(link, message, now, store),
            Input::Pulled { pull, result } => self.on_pulled(pull, result, now, store),
            Input::Source { job, result } => self.on_source(job, result, now, store),
            Input::ParentUp { link, rank, tree: _ } => {
                self.lose_parent(now, store);
                self.upstream = Upstream::Parent(Parent::new(link, rank));
                self.greet(now, store);
            }
            Input::ChildUp { link, rank, tree: _ } => {
                if let Err(violation) = self.children.up(link, rank) {
                    self.disconnect(link, violation);
                }
            }
            Input::LinkDown { link } => self.on_link_down(link, now, store),
            Input::Orphaned { tree: _ } => match (&self.upstream, self.place.source_use) {
                (Upstream::Lost { .. }, SourceUse::Successor | SourceUse::Fallback) => {
                    self.upstream = Upstream::Source;
                }
                (Upstream::Lost { .. }, SourceUse::Root | SourceUse::Never)
                | (Upstream::Parent(_) | Upstream::Source, _) => {}
            },
            Input::Refresh { .. } => unreachable!("the member takes refreshes in"),
            Input::Time => {}
        }
    }

    /// What is to be done next; `None` when all is done for now.
    pub fn poll(&mut self, now: Tick, store: &mut impl Store) -> Option<Output> {
        if let Some(output) = self.outputs.pop_front() {
            return Some(output);
        }
        self.now = now;
        self.on_time(now, store);
        self.mind_silence(now);
        self.feed_starved(now, store);
        self.start_queued(now, store);
        self.report_done(now);
        self.outputs.pop_front()
    }

    /// When `handle` with [`Input::Time`] is due at the latest; [`Tick::NEVER`] if never.
    pub fn next_due(&self) -> Tick {
        let later = |tick: Tick| Some(tick).filter(|&tick| tick > self.now);
        let upstream = match &self.upstream {
            Upstream::Parent(parent) => parent.done_due(),
            Upstream::Lost { since } => later(*since + ORPHAN_BOUND),
            Upstream::Source => later(self.degraded_next),
        };
        let due = [self.fetches.next_due(), upstream, self.retry_starved, self.links_due()];
        due.into_iter().flatten().min().unwrap_or(Tick::NEVER)
    }

    /// What the last input makes worth fetching ahead that belongs to other trees.
    pub(crate) fn take_elsewhere(&mut self) -> Vec<Key> {
        std::mem::take(&mut self.elsewhere)
    }

    /// What has been counted so far.
    pub fn counters(&self) -> NodeCounters {
        self.counters
    }

    /// The parent, if there is one.
    pub fn parent(&self) -> Option<Rank> {
        match &self.upstream {
            Upstream::Parent(parent) => Some(parent.rank),
            Upstream::Source | Upstream::Lost { .. } => None,
        }
    }

    /// Whether objects are read from the source by this rank.
    pub fn reads_source(&self) -> bool {
        matches!(self.upstream, Upstream::Source)
    }

    /// The children.
    pub fn children(&self) -> impl Iterator<Item = Rank> {
        let parent = self.parent_link();
        self.children.ranks().filter(move |&(link, _)| Some(link) != parent).map(|(_, rank)| rank)
    }

    /// What is under way. All zero once every reader is answered and every link is idle.
    pub fn gauges(&self) -> Gauges {
        Gauges {
            fetches: self.fetches.len(),
            pulls: self.pulls.len(),
            quarantined: self.quarantine.len(),
            jobs: self.jobs.len(),
            leases_given: self.children.leases_open(),
            leases_held: self.asked_links().map(|link| link.leases_open() as usize).sum(),
        }
    }

    // --- wanting and completing

    fn want(
        &mut self,
        key: &Key,
        waiter: Waiter,
        deadline: Tick,
        now: Tick,
        store: &mut impl Store,
    ) {
        if let Some(outcome) = known(key, now, store) {
            self.answer(waiter, Ok(outcome), now, store);
        } else if self.is_orphan(now) && !self.is_direct(key) && !self.can_restore(key, store) {
            self.answer(waiter, Err(Errno::EIO), now, store);
        } else {
            let missed = matches!((waiter, key.what), (Waiter::Local(_), What::Block { .. }));
            self.counters.misses += u64::from(missed && !self.fetches.contains(key));
            self.fetches.want(key, Some((waiter, deadline)));
        }
    }

    fn is_orphan(&self, now: Tick) -> bool {
        matches!(self.upstream, Upstream::Lost { since } if since + ORPHAN_BOUND <= now)
    }

    /// Whether it reads the source for itself only, since nobody who could do it for more is reached.
    fn is_degraded(&self) -> bool {
        self.reads_source() && self.place.source_use == SourceUse::Fallback
    }

    /// Whether an object belongs to this tree.
    fn owns(&self, key: &Key) -> bool {
        owner(key, self.place.trees) == self.place.tree
    }

    /// Whether this rank reads an object from the source without asking anybody.
    fn is_direct(&self, key: &Key) -> bool {
        self.place.source_use != SourceUse::Never && self.files.is_direct(key)
    }

    /// Asks a new parent for what everybody wants first, the view's root: a fabric makes its
    /// connections, one each way, with the first messages, and nobody waits for these. In a tree
    /// that does not have the root an empty note makes one of the two.
    fn greet(&mut self, now: Tick, store: &mut impl Store) {
        let key = Key { path: ViewPath::root(), what: What::Entry };
        if let Upstream::Parent(parent) = &self.upstream
            && self.had_parent
        {
            let (link, message) = (parent.link, Message::Holds);
            self.outputs.push_back(Output::Send { link, message, payload: None });
        } else if let Upstream::Parent(parent) = &self.upstream
            && !self.owns(&key)
        {
            let (link, message) = (parent.link, Message::Done { leases: Vec::new() });
            self.outputs.push_back(Output::Send { link, message, payload: None });
        } else if store.entry(&key.path, now).is_none() {
            self.fetches.want(&key, None);
        }
    }

    /// Fetches the rest of the file of which this block is read, if that is little. What readers of
    /// larger files will want is for [`ReadAhead`](crate::ReadAhead) to say.
    fn fetch_whole(&mut self, key: &Key, store: &mut impl Store) {
        let What::Block { index, generation } = key.what else { return };
        if generation.size > self.files.whole_up_to {
            return;
        }
        let blocks = (0..).map(BlockIndex).take_while(|other| other.len(generation.size) > 0);
        for other in blocks.filter(|&other| other != index) {
            let what = What::Block { index: other, generation };
            if !self.prefetch(&Key { path: key.path.clone(), what }, store) {
                return;
            }
        }
    }

    /// Fetches an object that nobody waits for; false if that is enough of them.
    fn prefetch(&mut self, key: &Key, store: &mut impl Store) -> bool {
        if !self.owns(key) {
            if store.object(key).is_none() {
                self.elsewhere.push(key.clone());
            }
            return true;
        }
        if self.fetches.len() >= FETCHES_AHEAD_MAX {
            return false;
        }
        if !self.fetches.contains(key) && !store.holds(key) {
            self.counters.fetched_ahead += 1;
            self.fetches.want(key, None);
        }
        true
    }

    fn answer(
        &mut self,
        waiter: Waiter,
        result: Result<Outcome, Errno>,
        now: Tick,
        store: &mut impl Store,
    ) {
        let (link, request) = match waiter {
            Waiter::Local(ticket) => {
                self.outputs.push_back(Output::Answer { ticket, result });
                return;
            }
            Waiter::Child(link, request) => (link, request),
        };
        if !self.children.answered(link, request) {
            return;
        }
        let mut payload = None;
        let reply = match result {
            Ok(Outcome::Present(entry)) => Reply::Present(entry),
            Ok(Outcome::Absent(until)) => Reply::Absent { keep_ms: keep_ms(until, now) },
            Ok(Outcome::Statistics(statistics)) => Reply::Statistics(statistics),
            Ok(Outcome::Object(held)) => {
                let reply = self.children.offer(link, held, now, store);
                payload = matches!(reply, Reply::Inline { .. }).then_some(held.extent);
                reply
            }
            Err(errno) => Reply::Failed(errno),
        };
        self.outputs.push_back(Output::Send {
            link,
            message: Message::Answer { request, reply },
            payload,
        });
    }

    fn complete(
        &mut self,
        id: FetchId,
        result: Result<Outcome, Errno>,
        now: Tick,
        store: &mut impl Store,
    ) {
        let (_, waiters) = self.fetches.remove(id);
        for waiter in waiters {
            self.answer(waiter, result.clone(), now, store);
        }
    }

    /// Begins a fetch again, or gives it up after too many attempts or when nobody waits for it.
    fn retry(
        &mut self,
        id: FetchId,
        state: State,
        errno: Errno,
        now: Tick,
        store: &mut impl Store,
    ) {
        let fetch = self.fetches.get_mut(id).expect("the caller has looked it up");
        fetch.attempts += 1;
        let enough = fetch.attempts >= ATTEMPTS_MAX || !fetch.has_waiters();
        if enough && !self.planted.has(Bug::RetriedForEver) {
            self.complete(id, Err(errno), now, store);
        } else {
            self.counters.retries += 1;
            self.fetches.set(id, state);
        }
    }
}

/// The answer, if the store has it.
fn known(key: &Key, now: Tick, store: &mut impl Store) -> Option<Outcome> {
    match key.what {
        What::Entry => store.entry(&key.path, now).map(|known| match known {
            Known::Present(entry) => Outcome::Present(entry),
            Known::Absent(until) => Outcome::Absent(until),
        }),
        What::Directory
        | What::Block { .. }
        | What::ExtendedAttributes
        | What::DataRanges { .. } => store.object(key).map(Outcome::Object),
        What::Statistics => None,
    }
}

fn keep_ms(until: Tick, now: Tick) -> u32 {
    if until == Tick::NEVER { u32::MAX } else { bound_ms(until.since(now)).min(u32::MAX - 1) }
}
