//! One rank of the protocol: [`Node::handle`] takes what happened, [`Node::poll`] gives what is to
//! be done about it.
//!
//! Rules for whoever drives it:
//! - after each `handle`, `poll` until `None`, applying each output before the next `poll`: an
//!   output may name an extent that a later one evicts, and [`CopyFrom::Message`] means the payload
//!   of the message that was handled last;
//! - call [`Node::handle`] with [`Input::Time`] no later than [`Node::next_due`].

use std::collections::{HashMap, VecDeque};

use crate::attributes::{Entry, Statistics};
use crate::errno::Errno;
use crate::fetch::{Due, FetchId, Fetches, Grant, Need, PullFailure, State, Waiter};
use crate::ids::{JobId, LeaseId, LinkId, PullId, Rank, RequestId, Ticket};
use crate::key::{BlockIndex, Key, What};
use crate::limits::{
    ABSENT_BOUND, ATTEMPTS_MAX, EXTENT_BYTES_MAX, FETCHES_AHEAD_MAX, ORPHAN_BOUND, PAUSE,
    PULL_BOUND, READ_AHEAD_BLOCKS, REQUEST_BOUND, SOURCE_JOBS_MAX, WHOLE_FILE_BYTES,
};
use crate::link::{Parent, bound_ms};
use crate::serve::{Children, Violation};
use crate::store::{Extent, Held, Known, Store};
use crate::tick::Tick;
use crate::wire::{Message, Reply};

/// What happened.
#[derive(Clone, Debug)]
pub enum Input {
    /// A local reader wants an object before its deadline.
    Want {
        /// Comes back with the answer.
        ticket: Ticket,
        /// What it wants.
        key: Key,
        /// When the answer is of no use any more.
        deadline: Tick,
    },
    /// A message came over a link.
    Received {
        /// From whom.
        link: LinkId,
        /// What.
        message: Message,
    },
    /// A [`Output::Pull`] or [`Output::Copy`] ended; the checksum has been verified where one was
    /// given, and is the bytes' own where none was.
    Pulled {
        /// Which.
        pull: PullId,
        /// The XXH3-64 of the bytes, or why there are none.
        result: Result<u64, PullFailure>,
    },
    /// A [`Output::Source`] ended.
    Source {
        /// Which.
        job: JobId,
        /// What the source said.
        result: Result<SourceAnswer, Errno>,
    },
    /// A handshake made another rank this node's parent.
    ParentUp {
        /// The new link.
        link: LinkId,
        /// Who.
        rank: Rank,
    },
    /// A handshake made another rank this node's child.
    ChildUp {
        /// The new link.
        link: LinkId,
        /// Who.
        rank: Rank,
    },
    /// A link is gone, and with it all that was outstanding on it.
    LinkDown {
        /// Which.
        link: LinkId,
    },
    /// No ancestor can be reached.
    Orphaned,
    /// Nothing but time.
    Time,
}

/// What a source answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceAnswer {
    /// To [`SourceRequest::Entry`]: it exists.
    Present(Entry),
    /// To [`SourceRequest::Entry`]: `ENOENT`.
    Absent,
    /// To [`SourceRequest::Directory`]: the encoded snapshot has this many bytes and is held under
    /// the job's number until it is copied or the job is dropped.
    Directory(u32),
    /// To [`SourceRequest::Block`]: the extent is filled; this is the XXH3-64 of its bytes.
    Block(u64),
    /// To [`SourceRequest::Statistics`].
    Statistics(Statistics),
}

/// What is asked of the source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceRequest {
    /// `lstat`, and `readlink` of a link.
    Entry,
    /// A snapshot.
    Directory,
    /// One block, if the file is still of the key's generation; else `ESTALE`.
    Block(Extent),
    /// `statfs`.
    Statistics,
}

/// Where bytes are copied from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyFrom {
    /// The payload of the message that was handled last.
    Message,
    /// The listing held under this job.
    Listing(JobId),
}

/// The answer to a local reader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// To [`What::Entry`].
    Present(Entry),
    /// To [`What::Entry`]: it does not exist, which may be repeated until then.
    Absent(Tick),
    /// To [`What::Directory`] and [`What::Block`]: here are the bytes.
    Object(Held),
    /// To [`What::Statistics`].
    Statistics(Statistics),
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Send a message, with the bytes of `payload` behind it.
    Send {
        /// To whom.
        link: LinkId,
        /// What.
        message: Message,
        /// The payload of a [`Reply::Inline`].
        payload: Option<Extent>,
    },
    /// Read from the parent's arena, verify, and report as [`Input::Pulled`].
    Pull {
        /// To be given back.
        pull: PullId,
        /// Of which object.
        key: Key,
        /// Whose arena.
        link: LinkId,
        /// Where there, in bytes.
        offset: u64,
        /// Where to, and how many bytes.
        into: Extent,
        /// What they must add up to.
        checksum: u64,
    },
    /// Copy, verify, and report as [`Input::Pulled`] at once.
    Copy {
        /// To be given back.
        pull: PullId,
        /// Of which object.
        key: Key,
        /// Where from.
        from: CopyFrom,
        /// Where to, and how many bytes.
        into: Extent,
        /// What they must add up to, if that is known.
        checksum: Option<u64>,
    },
    /// Read the source and report as [`Input::Source`].
    Source {
        /// To be given back.
        job: JobId,
        /// Of what.
        key: Key,
        /// What.
        request: SourceRequest,
    },
    /// Answer a local reader.
    Answer {
        /// Which.
        ticket: Ticket,
        /// With what.
        result: Result<Outcome, Errno>,
    },
    /// A link broke the protocol: close it and report [`Input::LinkDown`].
    Disconnect {
        /// Which.
        link: LinkId,
        /// Why.
        violation: Violation,
    },
    /// A listing that was read is not wanted any more.
    DropListing(JobId),
}

/// When this rank reads the source itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceUse {
    /// Always: it is the root.
    Root,
    /// When no ancestor can be reached.
    Fallback,
    /// Never.
    Never,
}

/// What a node has counted; see docs/OPERATIONS.md.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NodeCounters {
    /// Pulls begun.
    pub pulls: u64,
    /// Bytes of pulls that ended well.
    pub pulled_bytes: u64,
    /// Answers whose bytes came inside the message.
    pub inlined: u64,
    /// Fetches begun again after a failure.
    pub retries: u64,
    /// Pulls whose bytes were not those announced.
    pub checksum_failures: u64,
    /// Pulls that ran out of time, whose extents went to quarantine.
    pub quarantined: u64,
    /// Waiters answered `ETIMEDOUT`.
    pub expired: u64,
    /// Times that a fetch had to wait for an extent.
    pub starved: u64,
    /// Blocks fetched ahead of readers.
    pub fetched_ahead: u64,
    /// Links closed because of a violation.
    pub violations: u64,
}

/// Where objects come from.
#[derive(Debug)]
enum Upstream {
    Parent(Parent),
    Source,
    Lost { since: Tick },
}

/// One rank.
#[derive(Debug)]
pub struct Node {
    source_use: SourceUse,
    upstream: Upstream,
    children: Children,
    fetches: Fetches,
    pulls: HashMap<PullId, FetchId>,
    quarantine: HashMap<PullId, Extent>,
    jobs: HashMap<JobId, FetchId>,
    next_pull: u32,
    next_job: u32,
    retry_starved: Option<Tick>,
    now: Tick,
    outputs: VecDeque<Output>,
    counters: NodeCounters,
}

impl Node {
    /// A node without links. A root reads the source at once; others wait for a parent.
    pub fn new(source_use: SourceUse, now: Tick) -> Node {
        let upstream = match source_use {
            SourceUse::Root => Upstream::Source,
            SourceUse::Fallback | SourceUse::Never => Upstream::Lost { since: now },
        };
        Node {
            source_use,
            upstream,
            children: Children::default(),
            fetches: Fetches::default(),
            pulls: HashMap::new(),
            quarantine: HashMap::new(),
            jobs: HashMap::new(),
            next_pull: 0,
            next_job: 0,
            retry_starved: None,
            now,
            outputs: VecDeque::new(),
            counters: NodeCounters::default(),
        }
    }

    /// Takes in what happened.
    pub fn handle(&mut self, now: Tick, input: Input, store: &mut impl Store) {
        assert!(self.outputs.is_empty(), "every output is applied before the next input");
        self.now = now;
        match input {
            Input::Want { ticket, key, deadline } => {
                self.want(&key, Waiter::Local(ticket), deadline, now, store);
                self.fetch_ahead(&key, store);
            }
            Input::Received { link, message } => self.on_message(link, message, now, store),
            Input::Pulled { pull, result } => self.on_pulled(pull, result, now, store),
            Input::Source { job, result } => self.on_source(job, result, now, store),
            Input::ParentUp { link, rank } => {
                self.lose_parent(now, store);
                self.upstream = Upstream::Parent(Parent::new(link, rank));
            }
            Input::ChildUp { link, rank } => {
                if let Err(violation) = self.children.up(link, rank) {
                    self.disconnect(link, violation);
                }
            }
            Input::LinkDown { link } => self.on_link_down(link, now, store),
            Input::Orphaned => match (&self.upstream, self.source_use) {
                (Upstream::Lost { .. }, SourceUse::Fallback) => self.upstream = Upstream::Source,
                (Upstream::Lost { .. }, SourceUse::Root | SourceUse::Never)
                | (Upstream::Parent(_) | Upstream::Source, _) => {}
            },
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
        self.feed_starved(now, store);
        self.start_queued(now, store);
        self.report_done(now);
        self.outputs.pop_front()
    }

    /// When `handle` with [`Input::Time`] is due at the latest; [`Tick::NEVER`] if never.
    pub fn next_due(&self) -> Tick {
        let upstream = match &self.upstream {
            Upstream::Parent(parent) => parent.done_due(),
            Upstream::Lost { since } => {
                Some(*since + ORPHAN_BOUND).filter(|&bound| bound > self.now)
            }
            Upstream::Source => None,
        };
        let due = [self.fetches.next_due(), upstream, self.retry_starved];
        due.into_iter().flatten().min().unwrap_or(Tick::NEVER)
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
        self.children.ranks()
    }

    /// What is under way. All zero once every reader is answered and every link is idle.
    pub fn gauges(&self) -> Gauges {
        Gauges {
            fetches: self.fetches.len(),
            pulls: self.pulls.len(),
            quarantined: self.quarantine.len(),
            jobs: self.jobs.len(),
            leases_given: self.children.leases_open(),
            leases_held: match &self.upstream {
                Upstream::Parent(parent) => parent.leases_open() as usize,
                Upstream::Source | Upstream::Lost { .. } => 0,
            },
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
        } else if self.is_orphan(now) {
            self.answer(waiter, Err(Errno::EIO), now, store);
        } else {
            self.fetches.want(key, Some((waiter, deadline)));
        }
    }

    fn is_orphan(&self, now: Tick) -> bool {
        matches!(self.upstream, Upstream::Lost { since } if since + ORPHAN_BOUND <= now)
    }

    /// Fetches what a reader of this block will want next: the rest of a small file, or some blocks
    /// more if the one before is here.
    fn fetch_ahead(&mut self, key: &Key, store: &mut impl Store) {
        let What::Block { index, generation } = key.what else { return };
        let blocks = match generation.size.checked_sub(1).and_then(BlockIndex::of) {
            Some(last) => last.0 + 1,
            None => return,
        };
        let block = |index| Key {
            path: key.path.clone(),
            what: What::Block { index: BlockIndex(index), generation },
        };
        let range = if generation.size <= WHOLE_FILE_BYTES {
            0..blocks
        } else if index.0 > 0 && store.object(&block(index.0 - 1)).is_some() {
            index.0 + 1..blocks.min(index.0 + 1 + READ_AHEAD_BLOCKS)
        } else {
            return;
        };
        for key in range.map(block) {
            if self.fetches.len() >= FETCHES_AHEAD_MAX {
                return;
            }
            if !self.fetches.contains(&key) && store.object(&key).is_none() {
                self.counters.fetched_ahead += 1;
                self.fetches.want(&key, None);
            }
        }
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
                let reply = self.children.offer(link, held, store);
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
        if fetch.attempts >= ATTEMPTS_MAX || !fetch.has_waiters() {
            self.complete(id, Err(errno), now, store);
        } else {
            self.counters.retries += 1;
            self.fetches.set(id, state);
        }
    }

    // --- messages

    fn on_message(&mut self, link: LinkId, message: Message, now: Tick, store: &mut impl Store) {
        let result = match message {
            Message::Ask { request, key, bound_ms, done } => {
                let taken = self.children.on_done(link, &done, store);
                let taken = taken.and_then(|()| self.children.on_ask(link, request));
                taken.map(|()| {
                    let bound = std::time::Duration::from_millis(bound_ms.into());
                    let deadline = now + bound.min(REQUEST_BOUND);
                    self.want(&key, Waiter::Child(link, request), deadline, now, store);
                })
            }
            Message::Done { leases } => self.children.on_done(link, &leases, store),
            Message::Answer { request, reply } => self.on_reply(link, request, reply, now, store),
        };
        if let Err(violation) = result {
            self.disconnect(link, violation);
        }
    }

    fn disconnect(&mut self, link: LinkId, violation: Violation) {
        self.counters.violations += 1;
        self.outputs.push_back(Output::Disconnect { link, violation });
    }

    fn on_reply(
        &mut self,
        link: LinkId,
        request: RequestId,
        reply: Reply,
        now: Tick,
        store: &mut impl Store,
    ) -> Result<(), Violation> {
        let parent = match &mut self.upstream {
            Upstream::Parent(parent) if parent.link == link => parent,
            Upstream::Parent(_) | Upstream::Source | Upstream::Lost { .. } => {
                return Err(Violation::WrongDirection);
            }
        };
        let id = parent.answered(request).ok_or(Violation::NoQuestion)?;
        let fetch = self.fetches.get_mut(id).expect("a fetch stays while it is asked");
        let key = fetch.key.clone();
        // From here on a wrong answer must leave the fetch in a state: the link goes down.
        self.fetches.set(id, State::Queued);
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
            (What::Directory | What::Block { .. }, Reply::Inline { len, checksum })
                if fits(key.what, len) =>
            {
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
                What::Directory | What::Block { .. },
                Reply::Grant { lease, offset, len, checksum },
            ) => {
                let Upstream::Parent(parent) = &mut self.upstream else {
                    unreachable!("the parent has just been looked up")
                };
                parent.lease_opened();
                if !fits(key.what, len) {
                    return Err(Violation::WrongAnswer);
                }
                let grant = Grant { link, lease, offset, len, checksum };
                self.fetches.set(id, State::Starved(Need::Pull(grant)));
            }
            (_, Reply::Failed(errno)) => self.complete(id, Err(errno), now, store),
            (
                What::Entry | What::Directory | What::Block { .. } | What::Statistics,
                Reply::Present(_)
                | Reply::Absent { .. }
                | Reply::Statistics(_)
                | Reply::Inline { .. }
                | Reply::Grant { .. },
            ) => return Err(Violation::WrongAnswer),
        }
        Ok(())
    }

    // --- pulls and the source

    fn pulling(
        &mut self,
        id: FetchId,
        extent: Extent,
        lease: Option<(LinkId, LeaseId)>,
        now: Tick,
    ) -> PullId {
        let pull = PullId(self.next_pull);
        self.next_pull = self.next_pull.wrapping_add(1);
        self.pulls.insert(pull, id);
        self.fetches.set(id, State::Pulling { pull, extent, lease, until: now + PULL_BOUND });
        pull
    }

    /// Gives a lease back, unless its link is gone.
    fn close_lease(&mut self, lease: Option<(LinkId, LeaseId)>, now: Tick) {
        if let (Some((link, lease)), Upstream::Parent(parent)) = (lease, &mut self.upstream)
            && parent.link == link
        {
            parent.lease_done(lease, now);
        }
    }

    fn on_pulled(
        &mut self,
        pull: PullId,
        result: Result<u64, PullFailure>,
        now: Tick,
        store: &mut impl Store,
    ) {
        if let Some(extent) = self.quarantine.remove(&pull) {
            store.release(extent);
            return;
        }
        let id = self.pulls.remove(&pull).expect("every pull ends once");
        let fetch = self.fetches.get_mut(id).expect("a fetch stays while it is pulled");
        let State::Pulling { extent, lease, .. } = fetch.state else {
            unreachable!("{:?} is not being pulled", fetch.state)
        };
        let key = fetch.key.clone();
        self.close_lease(lease, now);
        match result {
            Ok(checksum) => {
                if lease.is_some() {
                    self.counters.pulled_bytes += u64::from(extent.len);
                }
                let held = Held { extent, checksum };
                store.publish(&key, held);
                self.complete(id, Ok(Outcome::Object(held)), now, store);
            }
            Err(failure) => {
                store.release(extent);
                if failure == PullFailure::Checksum {
                    self.counters.checksum_failures += 1;
                }
                let paused = State::Paused { until: now + PAUSE };
                self.retry(id, paused, failure.errno(), now, store);
            }
        }
    }

    fn on_source(
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
        match (result, extent) {
            (Ok(SourceAnswer::Present(entry)), None) => {
                store.put_entry(&key.path, Known::Present(entry.clone()));
                self.complete(id, Ok(Outcome::Present(entry)), now, store);
            }
            (Ok(SourceAnswer::Absent), None) => {
                let until = now + ABSENT_BOUND;
                store.put_entry(&key.path, Known::Absent(until));
                self.complete(id, Ok(Outcome::Absent(until)), now, store);
            }
            (Ok(SourceAnswer::Statistics(statistics)), None) => {
                self.complete(id, Ok(Outcome::Statistics(statistics)), now, store);
            }
            (Ok(SourceAnswer::Directory(len)), None) if len <= EXTENT_BYTES_MAX => {
                self.fetches.set(id, State::Starved(Need::Fill(job, len)));
            }
            (Ok(SourceAnswer::Directory(_)), None) => {
                self.outputs.push_back(Output::DropListing(job));
                self.complete(id, Err(Errno::EFBIG), now, store);
            }
            (Ok(SourceAnswer::Block(checksum)), Some(extent)) => {
                let held = Held { extent, checksum };
                store.publish(&key, held);
                self.complete(id, Ok(Outcome::Object(held)), now, store);
            }
            (Err(errno), extent) => {
                if let Some(extent) = extent {
                    store.release(extent);
                }
                self.complete(id, Err(errno), now, store);
            }
            (Ok(answer), extent) => {
                unreachable!("the source answered {answer:?} for {key:?} into {extent:?}")
            }
        }
    }

    // --- links

    fn on_link_down(&mut self, link: LinkId, now: Tick, store: &mut impl Store) {
        if matches!(&self.upstream, Upstream::Parent(parent) if parent.link == link) {
            self.lose_parent(now, store);
        } else if self.children.down(link, store) {
            self.fetches.forget_child(link);
        }
    }

    /// Everything that was under way with the parent begins again; extents that its arena may still
    /// be read into stay in quarantine until the fabric says that the read has ended.
    fn lose_parent(&mut self, now: Tick, store: &mut impl Store) {
        let lost = Upstream::Lost { since: now };
        let parent = match std::mem::replace(&mut self.upstream, lost) {
            Upstream::Parent(parent) => parent,
            // A source that is read in a parent's stead goes on with what it has begun.
            Upstream::Source | Upstream::Lost { .. } => return,
        };
        let link = parent.link;
        let mut again: Vec<FetchId> = parent.into_questions().collect();
        for (id, fetch) in self.fetches.iter() {
            match fetch.state {
                State::Starved(Need::Pull(grant)) if grant.link == link => again.push(id),
                State::Pulling { pull, extent, lease: Some((of, _)), .. } if of == link => {
                    self.pulls.remove(&pull);
                    self.quarantine.insert(pull, extent);
                    self.counters.quarantined += 1;
                    again.push(id);
                }
                State::Queued
                | State::Asked
                | State::Starved(_)
                | State::Pulling { .. }
                | State::Reading { .. }
                | State::Paused { .. } => {}
            }
        }
        again.sort_unstable();
        for id in again {
            self.retry(id, State::Queued, Errno::EIO, now, store);
        }
    }

    // --- time and resources

    fn on_time(&mut self, now: Tick, store: &mut impl Store) {
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
                    self.close_lease(lease, now);
                    self.retry(id, State::Queued, Errno::EIO, now, store);
                }
                State::Paused { .. } => self.fetches.set(id, State::Queued),
                State::Queued | State::Asked | State::Starved(_) | State::Reading { .. } => {}
            }
        }
    }

    /// Gives extents to those that wait for one, in order.
    fn feed_starved(&mut self, now: Tick, store: &mut impl Store) {
        self.retry_starved = None;
        while let Some(&id) = self.fetches.starved.front() {
            let fetch = self.fetches.get_mut(id);
            let Some((need, what)) = fetch.and_then(|fetch| match fetch.state {
                State::Starved(need) => Some((need, fetch.key.what)),
                State::Queued
                | State::Asked
                | State::Pulling { .. }
                | State::Reading { .. }
                | State::Paused { .. } => None,
            }) else {
                self.fetches.starved.pop_front();
                continue;
            };
            let len = match (need, what) {
                (Need::Pull(grant), _) => grant.len,
                (Need::Fill(_, len), _) => len,
                (Need::Read, What::Block { index, generation }) => index.len(generation.size),
                (Need::Read, What::Entry | What::Directory | What::Statistics) => {
                    unreachable!("only blocks are read into an extent")
                }
            };
            let wanted = self.fetches.get_mut(id).is_some_and(|fetch| fetch.has_waiters());
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
            self.fill(id, need, into, now);
        }
    }

    /// Ends a fetch that gets no extent.
    fn abandon(
        &mut self,
        id: FetchId,
        need: Need,
        errno: Errno,
        now: Tick,
        store: &mut impl Store,
    ) {
        match need {
            Need::Pull(grant) => self.close_lease(Some((grant.link, grant.lease)), now),
            Need::Fill(job, _) => self.outputs.push_back(Output::DropListing(job)),
            Need::Read => {}
        }
        self.complete(id, Err(errno), now, store);
    }

    fn key_of(&mut self, id: FetchId) -> Key {
        self.fetches.get_mut(id).expect("the caller has looked it up").key.clone()
    }

    fn fill(&mut self, id: FetchId, need: Need, into: Extent, now: Tick) {
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
                let (key, from) = (self.key_of(id), CopyFrom::Listing(job));
                self.outputs.push_back(Output::Copy { pull, key, from, into, checksum: None });
            }
            Need::Read => self.read_source(id, Some(into)),
        }
    }

    fn read_source(&mut self, id: FetchId, extent: Option<Extent>) {
        let job = JobId(self.next_job);
        self.next_job = self.next_job.wrapping_add(1);
        self.jobs.insert(job, id);
        let key = self.key_of(id);
        self.fetches.set(id, State::Reading { extent });
        let request = match (key.what, extent) {
            (What::Block { .. }, Some(extent)) => SourceRequest::Block(extent),
            (What::Entry, None) => SourceRequest::Entry,
            (What::Directory, None) => SourceRequest::Directory,
            (What::Statistics, None) => SourceRequest::Statistics,
            (What::Block { .. }, None)
            | (What::Entry | What::Directory | What::Statistics, Some(_)) => {
                unreachable!("blocks, and only blocks, are read into an extent")
            }
        };
        self.outputs.push_back(Output::Source { job, key, request });
    }

    /// Starts fetches as long as the upstream takes them.
    fn start_queued(&mut self, now: Tick, store: &mut impl Store) {
        let orphan = self.is_orphan(now);
        while let Some(id) = self.fetches.next_queued() {
            let fetch = self.fetches.get_mut(id).expect("next_queued names existing fetches");
            let key = fetch.key.clone();
            let deadline = fetch.deadline().unwrap_or(now + REQUEST_BOUND);
            if let Some(outcome) = known(&key, now, store) {
                self.complete(id, Ok(outcome), now, store);
                if self.outputs.is_empty() {
                    continue;
                }
                // An output may name an extent: nothing is allocated before it is applied.
                return;
            }
            match &mut self.upstream {
                Upstream::Lost { .. } if orphan || !fetch.has_waiters() => {
                    self.complete(id, Err(Errno::EIO), now, store);
                }
                Upstream::Lost { .. } => return,
                Upstream::Source if self.jobs.len() >= SOURCE_JOBS_MAX => return,
                Upstream::Source => match key.what {
                    What::Block { .. } => {
                        // The extent comes first; it is given out in order, by the next poll.
                        self.fetches.set(id, State::Starved(Need::Read));
                        self.feed_starved(now, store);
                    }
                    What::Entry | What::Directory | What::Statistics => self.read_source(id, None),
                },
                Upstream::Parent(parent) if parent.has_credit() => {
                    let request = parent.ask(id);
                    let (link, done) = (parent.link, parent.take_done());
                    self.fetches.set(id, State::Asked);
                    let bound_ms = bound_ms(deadline.since(now));
                    let message = Message::Ask { request, key, bound_ms, done };
                    self.outputs.push_back(Output::Send { link, message, payload: None });
                }
                Upstream::Parent(_) => return,
            }
        }
    }

    /// Reports leases that are done when no question takes the report along: when it has waited
    /// long enough, or at once when credits are what the queue waits for.
    fn report_done(&mut self, now: Tick) {
        let waiting = self.fetches.next_queued().is_some();
        let Upstream::Parent(parent) = &mut self.upstream else { return };
        let due = parent.done_due().is_some_and(|due| due <= now);
        if parent.has_done() && (due || waiting) {
            let (link, leases) = (parent.link, parent.take_done());
            let message = Message::Done { leases };
            self.outputs.push_back(Output::Send { link, message, payload: None });
        }
    }
}

/// See [`Node::gauges`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gauges {
    /// Fetches under way.
    pub fetches: usize,
    /// Pulls under way.
    pub pulls: usize,
    /// Extents in quarantine.
    pub quarantined: usize,
    /// Source jobs under way.
    pub jobs: usize,
    /// Leases that children hold.
    pub leases_given: usize,
    /// Leases that this node holds.
    pub leases_held: usize,
}

/// The answer, if the store has it.
fn known(key: &Key, now: Tick, store: &mut impl Store) -> Option<Outcome> {
    match key.what {
        What::Entry => store.entry(&key.path, now).map(|known| match known {
            Known::Present(entry) => Outcome::Present(entry),
            Known::Absent(until) => Outcome::Absent(until),
        }),
        What::Directory | What::Block { .. } => store.object(key).map(Outcome::Object),
        What::Statistics => None,
    }
}

/// Whether an object of this kind can have this many bytes.
fn fits(what: What, len: u32) -> bool {
    match what {
        What::Directory => len > 0 && len <= EXTENT_BYTES_MAX,
        What::Block { index, generation } => len == index.len(generation.size),
        What::Entry | What::Statistics => false,
    }
}

fn keep_ms(until: Tick, now: Tick) -> u32 {
    if until == Tick::NEVER { u32::MAX } else { bound_ms(until.since(now)).min(u32::MAX - 1) }
}

fn keep_until(keep_ms: u32, now: Tick) -> Tick {
    if keep_ms == u32::MAX {
        Tick::NEVER
    } else {
        now + std::time::Duration::from_millis(keep_ms.into())
    }
}
