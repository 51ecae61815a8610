//! The one thread's work. [`Engine::turn`] takes in what has happened since, lets the protocol
//! decide and does what it decided; whoever calls it sleeps between turns.

mod answering;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::mpsc::Receiver;

use copper_cache::{Budget, Cache};
use copper_proto::encoding::Malformed;
use copper_proto::limits::{MESSAGE_BYTES_MAX, REQUEST_BOUND};
use copper_proto::node::{Input, SourceUse};
use copper_proto::{
    CopyFrom, DataRanges, Directory, Errno, ExtendedAttributes, Extent, FilePolicy, JobId, Key,
    LinkId, Member, Message, Output, PullFailure, PullId, Rank, ReadAhead, SourceAnswer,
    SourceRequest, Tick, Ticket, TreeIndex, What,
};
use tracing::{debug, info, warn};
use twox_hash::XxHash3_64;

use crate::counters::{Counters, add, set};
use crate::first_answers::FirstAnswers;
use crate::inodes::{Inodes, inodes_within};
use crate::ports::{
    Control, Fabric, FabricEvent, Failed, Memory, PostError, Refreshed, Role, Source, SourceDone,
    SourceReply, SourceWork,
};
use crate::questions::{Questions, Step};
use crate::queue::Queue;
use crate::recorder::Recorder;
use crate::shelf::{Shelf, Slots};
use crate::spilling::{Restore, Restored, SpillSettings, Spilling};
use crate::view::{Answer, Answers, Provenance, Stale};

/// Questions taken from the queue in one turn, so that messages and completions get theirs.
const QUESTIONS_PER_TURN: usize = 64;

/// What an engine is made of.
pub struct Settings<M: Memory> {
    /// Whether this rank reads the source, by tree.
    pub source_uses: Vec<SourceUse>,
    /// How files are treated by their size.
    pub files: FilePolicy,
    /// The arena.
    pub memory: M,
    /// Its size, and that of the tables beside it.
    pub budget: Budget,
    /// What frontends see.
    pub inodes: Arc<Inodes<M::Filled>>,
    /// Where frontends ask.
    pub queue: Arc<Queue>,
    /// Where their answers go.
    pub answers: Arc<dyn Answers<M::Filled>>,
    /// Where what is evicted goes, if anywhere.
    pub spill: Option<SpillSettings<M>>,
    /// What is counted.
    pub counters: Arc<Counters>,
    /// What happens, to be looked at afterwards.
    pub recorder: Arc<Recorder>,
    /// Told of each refresh when it has taken effect here. It must not block.
    pub refreshed: Box<dyn Fn(Refreshed) + Send>,
    /// Has the kernel forget names, and drops the second when it has. It must not block.
    pub forget: Box<dyn Fn(Vec<Stale>, Forgetting) + Send>,
    /// Told of a link over which the protocol was broken, once it is not used any more: so that whoever
    /// made it closes it. It must not block.
    pub broken: Box<dyn Fn(LinkId) + Send>,
}

/// Somebody is at it for as long as this is held twice.
#[derive(Clone, Debug, Default)]
pub struct Forgetting(Arc<()>);

struct Link<P> {
    rank: Rank,
    tree: TreeIndex,
    peer: P,
    send_token: u64,
    receive_token: u64,
    arena_bytes: u64,
}

/// A pull on its way.
struct Pull {
    key: Key,
    into: Extent,
    checksum: u64,
}

/// A message that could not be posted yet.
struct Unsent {
    link: LinkId,
    bytes: Vec<u8>,
}

/// The engine of one rank.
pub struct Engine<M: Memory, F: Fabric<M::Filling>, S: Source<M::Filling>> {
    member: Member,
    ahead: ReadAhead,
    cache: Cache,
    slots: Slots<M>,
    spilling: Option<Spilling<M>>,
    memory: M,
    fabric: F,
    source: S,
    inodes: Arc<Inodes<M::Filled>>,
    queue: Arc<Queue>,
    answers: Arc<dyn Answers<M::Filled>>,
    counters: Arc<Counters>,
    recorder: Arc<Recorder>,
    refreshed: Box<dyn Fn(Refreshed) + Send>,
    forget: Box<dyn Fn(Vec<Stale>, Forgetting) + Send>,
    /// Inodes beyond which the kernel is asked to forget some.
    inodes_max: usize,
    /// Held twice while it has not done what it was asked last.
    forgetting: Forgetting,
    broken: Box<dyn Fn(LinkId) + Send>,
    controls: Receiver<Control>,
    questions: Questions<M::Filled>,
    /// The question that was taken from the queue last, until all is done for it that can be done
    /// without waiting.
    taken: Option<Ticket>,
    firsts: FirstAnswers,
    links: HashMap<LinkId, Link<F::Peer>>,
    tokens: HashMap<u64, LinkId>,
    pulls: HashMap<PullId, Pull>,
    encoded: HashMap<JobId, Vec<u8>>,
    inputs: VecDeque<Input>,
    /// Bounded by the credits of all links.
    unsent: VecDeque<Unsent>,
    unposted: VecDeque<(PullId, LinkId, u64, M::Filling)>,
    now: Tick,
}

impl<M: Memory, F: Fabric<M::Filling>, S: Source<M::Filling>> Engine<M, F, S> {
    /// An engine without links, at `now`. The news of a link come through `controls` before the
    /// other side can send anything over it; whoever puts some there wakes the queue.
    pub fn new(
        settings: Settings<M>,
        controls: Receiver<Control>,
        fabric: F,
        source: S,
        now: Tick,
    ) -> Engine<M, F, S> {
        let engine = Engine {
            member: Member::new(&settings.source_uses, settings.files, now),
            ahead: ReadAhead::new(settings.budget.arena, settings.files.whole_up_to),
            cache: Cache::within(&settings.budget),
            slots: Slots::default(),
            spilling: settings.spill.map(|spill| Spilling::new(spill, &settings.budget)),
            memory: settings.memory,
            fabric,
            source,
            inodes: settings.inodes,
            queue: settings.queue,
            answers: settings.answers,
            counters: settings.counters,
            recorder: settings.recorder,
            refreshed: settings.refreshed,
            forget: settings.forget,
            inodes_max: inodes_within(settings.budget.inodes),
            forgetting: Forgetting::default(),
            broken: settings.broken,
            controls,
            questions: Questions::default(),
            taken: None,
            firsts: FirstAnswers::default(),
            links: HashMap::new(),
            tokens: HashMap::new(),
            pulls: HashMap::new(),
            encoded: HashMap::new(),
            inputs: VecDeque::new(),
            unsent: VecDeque::new(),
            unposted: VecDeque::new(),
            now,
        };
        engine.publish_counters();
        engine
    }

    /// Does all there is to do at `now`; whether there was anything.
    pub fn turn(&mut self, now: Tick) -> bool {
        self.now = now;
        let mut worked = self.take_messages();
        while let Some(done) = self.source.poll() {
            worked = true;
            self.on_source(done);
        }
        worked |= self.take_spilled();
        for _ in 0..QUESTIONS_PER_TURN {
            let Some((ticket, question)) = self.queue.pop() else { break };
            worked = true;
            self.taken = Some(ticket);
            self.on_question(ticket, question);
            self.work();
            self.taken = None;
        }
        worked |= self.post_again();
        if self.member.next_due() <= now {
            self.inputs.push_back(Input::Time);
        }
        worked |= self.work();
        if worked {
            self.bound_inodes();
            self.publish_counters();
        }
        worked
    }

    /// Has the kernel give back inodes beyond the memory for them, a batch at a time.
    fn bound_inodes(&self) {
        if Arc::strong_count(&self.forgetting.0) > 1 {
            return;
        }
        let surplus = self.inodes.surplus(self.inodes_max);
        if !surplus.is_empty() {
            add(&self.counters.inodes_surplus, surplus.len() as u64);
            (self.forget)(surplus, self.forgetting.clone());
        }
    }

    /// When [`Engine::turn`] has something to do even if nothing happens; [`Tick::NEVER`] if never.
    pub fn next_due(&self) -> Tick {
        let retry = !self.unsent.is_empty() || !self.unposted.is_empty();
        let soon = self.now + std::time::Duration::from_millis(1);
        self.member.next_due().min(if retry { soon } else { Tick::NEVER })
    }

    /// The fabric, for its wait descriptor.
    pub fn fabric(&self) -> &F {
        &self.fabric
    }

    /// Takes the news of links.
    fn take_controls(&mut self) -> bool {
        let mut worked = false;
        while let Ok(control) = self.controls.try_recv() {
            worked = true;
            self.control(control);
        }
        worked
    }

    fn control(&mut self, control: Control) {
        match control {
            Control::LinkUp { link, tree, rank, role, address, send_token, receive_token } => {
                let peer = match self.fabric.connect(&address) {
                    Ok(peer) => peer,
                    Err(Failed) => {
                        warn!(%rank, "the fabric cannot reach this rank: the link is not used");
                        return;
                    }
                };
                let arena_bytes = address.arena_bytes;
                let made = Link { rank, tree, peer, send_token, receive_token, arena_bytes };
                self.links.insert(link, made);
                self.tokens.insert(receive_token, link);
                debug!(%rank, %tree, ?role, "linked");
                self.inputs.push_back(match role {
                    Role::Parent => Input::ParentUp { tree, link, rank },
                    Role::Child => Input::ChildUp { tree, link, rank },
                });
            }
            Control::LinkDown(link) => self.link_down(link),
            Control::Orphaned(tree) => self.inputs.push_back(Input::Orphaned { tree }),
            Control::Refresh { epoch, scope } => {
                self.inputs.push_back(Input::Refresh { epoch, scope });
            }
            Control::List { rows_max, reply } => {
                let _ = reply.try_send(self.cache.contents(rows_max));
            }
        }
        self.work();
    }

    /// The engine ends: whatever is still open is answered `EIO`.
    pub fn end(&mut self) {
        self.queue.end();
        let asked = std::iter::from_fn(|| self.queue.pop().map(|(ticket, _)| ticket));
        let open: Vec<Ticket> = asked.chain(self.questions.drain()).collect();
        for ticket in open {
            self.answers.answer(ticket, Err(Errno::EIO), Provenance::Fetched);
        }
    }

    fn link_down(&mut self, link: LinkId) {
        let Some(gone) = self.links.remove(&link) else { return };
        self.tokens.remove(&gone.receive_token);
        self.unsent.retain(|unsent| unsent.link != link);
        for (pull, of, offset, into) in std::mem::take(&mut self.unposted) {
            if of == link {
                drop(into);
                self.pull_failed(pull);
            } else {
                self.unposted.push_back((pull, of, offset, into));
            }
        }
        self.fabric.disconnect(gone.peer);
        self.inputs.push_front(Input::LinkDown { link });
    }

    // --- what happened

    fn take_messages(&mut self) -> bool {
        let mut messages = Vec::new();
        let mut reads = Vec::new();
        let mut failures = 0;
        let count = self.fabric.poll(&mut |event| match event {
            FabricEvent::Received(bytes) => messages.push(bytes.to_vec()),
            FabricEvent::Read { pull, into, arrived } => reads.push((pull, into, arrived)),
            FabricEvent::SendFailed => failures += 1,
        });
        if failures > 0 {
            debug!(failures, "messages were not delivered; their links will be found lost");
        }
        // After the messages were taken and before they are looked at: the news of the link that a
        // message came over are then known, or it would be dropped as nobody's.
        let news = self.take_controls();
        for (pull, into, arrived) in reads {
            self.on_read(pull, into, arrived);
            self.work();
        }
        for bytes in messages {
            self.on_message(&bytes);
        }
        news || count > 0
    }

    fn on_message(&mut self, bytes: &[u8]) {
        let (link, message, payload) = match Message::decode(bytes) {
            Ok((token, message, payload)) => match self.tokens.get(&token) {
                Some(&link) => (link, message, payload),
                None => {
                    add(&self.counters.messages_dropped, 1);
                    debug!("a message from nobody that we are linked to was dropped");
                    return;
                }
            },
            Err(malformed) => {
                add(&self.counters.messages_dropped, 1);
                warn!(%malformed, len = bytes.len(), "a message was dropped");
                return;
            }
        };
        add(&self.counters.messages_received, 1);
        self.inputs.push_back(Input::Received { link, message });
        self.work_with(payload);
    }

    fn on_read(&mut self, pull: PullId, into: M::Filling, arrived: Result<(), Failed>) {
        let Some(Pull { key, into: extent, checksum }) = self.pulls.remove(&pull) else {
            unreachable!("the fabric reports each read once")
        };
        let result = match arrived {
            Ok(()) => {
                self.firsts.on_object(&key, self.now);
                self.filled(&key, extent, into, Some(checksum))
            }
            Err(Failed) => {
                drop(into);
                Err(PullFailure::Fabric)
            }
        };
        self.inputs.push_back(Input::Pulled { pull, result });
    }

    fn pull_failed(&mut self, pull: PullId) {
        self.pulls.remove(&pull);
        self.inputs.push_back(Input::Pulled { pull, result: Err(PullFailure::Fabric) });
    }

    /// Verifies bytes that have come into an extent, and decodes them if they are a directory.
    fn filled(
        &mut self,
        key: &Key,
        extent: Extent,
        bytes: M::Filling,
        expected: Option<u64>,
    ) -> Result<u64, PullFailure> {
        let checksum = XxHash3_64::oneshot(bytes.as_ref());
        if expected.is_some_and(|expected| expected != checksum) {
            warn!(key = ?key, "bytes came that were not announced: they are asked for again");
            return Err(PullFailure::Checksum);
        }
        self.verified(key, extent, bytes)?;
        Ok(checksum)
    }

    fn verified(
        &mut self,
        key: &Key,
        extent: Extent,
        bytes: M::Filling,
    ) -> Result<(), PullFailure> {
        let directory = check(key, bytes.as_ref()).map_err(|_| PullFailure::Malformed)?;
        self.slots.filled(extent, M::freeze(bytes), directory);
        Ok(())
    }

    /// Takes in what the spill has finished.
    fn take_spilled(&mut self) -> bool {
        let mut worked = false;
        while let Some(done) = self.spilling.as_mut().and_then(Spilling::poll) {
            worked = true;
            self.restored(done);
            self.work();
        }
        worked
    }

    fn restored(&mut self, restored: Restored<M::Filling>) {
        let Some((Restore { pull, key, into, checksum }, bytes)) = restored else { return };
        let verified = match bytes {
            Ok(bytes) => self.verified(&key, into, bytes).is_ok(),
            Err(Failed) => false,
        };
        let result = if verified { Ok(checksum) } else { Err(PullFailure::Spill) };
        self.inputs.push_back(Input::Pulled { pull, result });
    }

    fn on_source(&mut self, done: SourceDone<M::Filling>) {
        let SourceDone { job, result } = done;
        let result = result.map(|reply| match reply {
            SourceReply::Present(entry) => SourceAnswer::Present(entry),
            SourceReply::Absent => SourceAnswer::Absent,
            SourceReply::Statistics(statistics) => SourceAnswer::Statistics(statistics),
            SourceReply::Encoded(bytes) => {
                let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
                self.encoded.insert(job, bytes);
                SourceAnswer::Encoded(len)
            }
            SourceReply::Block(bytes, checksum) => {
                let extent = M::extent(&bytes);
                self.slots.filled(extent, M::freeze(bytes), None);
                SourceAnswer::Block(checksum)
            }
        });
        self.inputs.push_back(Input::Source { job, result });
        self.work();
    }

    // --- what is decided, and done about it

    fn work(&mut self) -> bool {
        self.work_with(&[])
    }

    /// Feeds the inputs to the protocol and applies its outputs until both are empty. `payload` is
    /// that of the message among the inputs.
    fn work_with(&mut self, payload: &[u8]) -> bool {
        let mut worked = false;
        while let Some(input) = self.inputs.pop_front() {
            worked = true;
            let now = self.now;
            self.recorder.told(now, &input, |link| self.peer(link));
            let (member, mut shelf) = self.member_and_shelf();
            member.handle(now, input, &mut shelf);
            loop {
                let (member, mut shelf) = self.member_and_shelf();
                let Some(output) = member.poll(now, &mut shelf) else { break };
                self.apply(output, payload);
            }
        }
        worked
    }

    fn member_and_shelf(&mut self) -> (&mut Member, Shelf<'_, M>) {
        let shelf = Shelf {
            cache: &mut self.cache,
            slots: &mut self.slots,
            inodes: &self.inodes,
            spilling: self.spilling.as_mut(),
        };
        (&mut self.member, shelf)
    }

    /// Who is at a link's other end, and in which tree.
    fn peer(&self, link: LinkId) -> Option<(Rank, TreeIndex)> {
        self.links.get(&link).map(|link| (link.rank, link.tree))
    }

    fn apply(&mut self, output: Output, payload: &[u8]) {
        self.recorder.does(self.now, &output, |link| self.peer(link));
        match output {
            Output::Send { link, message, payload } => self.send(link, &message, payload),
            Output::Pull { pull, key, link, offset, into, checksum } => {
                self.pull(pull, key, link, offset, into, checksum);
            }
            Output::Copy { pull, key, from, into, checksum } => {
                let mut bytes = self.memory.take(into);
                let object;
                let source: &[u8] = match from {
                    CopyFrom::Message => {
                        self.firsts.on_object(&key, self.now);
                        payload
                    }
                    CopyFrom::Source(job) => {
                        object = self.encoded.remove(&job).expect("held until it is copied");
                        &object
                    }
                };
                bytes.as_mut().copy_from_slice(source);
                let result = self.filled(&key, into, bytes, checksum);
                self.inputs.push_back(Input::Pulled { pull, result });
            }
            Output::Restore { pull, key, from, into } => {
                let spilling = self.spilling.as_mut().expect("nothing else has copies");
                let restore = Restore { pull, key, into, checksum: from.checksum };
                let restored = spilling.restore(restore, from, self.memory.take(into));
                self.restored(restored);
            }
            Output::Source { job, key, request } => {
                let work = match request {
                    SourceRequest::Entry => SourceWork::Entry,
                    SourceRequest::Encoded => SourceWork::Encoded,
                    SourceRequest::Block(extent) => SourceWork::Block(self.memory.take(extent)),
                    SourceRequest::Statistics => SourceWork::Statistics,
                };
                self.source.submit(job, &key, work);
            }
            Output::Answer { ticket, result } => {
                let step = self.questions.take(ticket);
                self.on_outcome(step, result);
            }
            Output::Disconnect { link, violation } => {
                let rank = self.links.get(&link).map(|link| link.rank.0);
                warn!(rank, %violation, "a link is not used any more");
                self.link_down(link);
                (self.broken)(link);
            }
            Output::Refreshed { epoch, scope, dropped } => {
                info!(%epoch, path = %scope.path(), ?dropped, "refreshed");
                let stale = self.inodes.refresh(&scope);
                (self.refreshed)(Refreshed { epoch, dropped, stale });
            }
            Output::DropEncoded(job) => {
                self.encoded.remove(&job);
            }
        }
    }

    fn send(&mut self, link: LinkId, message: &Message, payload: Option<Extent>) {
        let Some(Link { peer, send_token, .. }) = self.links.get(&link) else { return };
        let mut header = Vec::with_capacity(256);
        message.encode(*send_token, &mut header);
        let payload: &[u8] = match payload {
            Some(extent) => self.slots.bytes(extent).as_ref(),
            None => &[],
        };
        assert!(header.len() + payload.len() <= MESSAGE_BYTES_MAX, "limits bound every message");
        let posted = if self.unsent.is_empty() {
            self.fabric.send(*peer, &[&header, payload])
        } else {
            Err(PostError::Busy)
        };
        match posted {
            Ok(()) => add(&self.counters.messages_sent, 1),
            Err(PostError::Busy) => {
                header.extend_from_slice(payload);
                self.unsent.push_back(Unsent { link, bytes: header });
            }
            Err(PostError::Lost) => debug!("a message to a lost rank was dropped"),
        }
    }

    fn pull(
        &mut self,
        pull: PullId,
        key: Key,
        link: LinkId,
        offset: u64,
        into: Extent,
        checksum: u64,
    ) {
        let arena_bytes = self.links.get(&link).map_or(0, |link| link.arena_bytes);
        self.pulls.insert(pull, Pull { key, into, checksum });
        let end = offset.checked_add(into.len.into());
        if end.is_none_or(|end| end > arena_bytes) {
            // The link is gone, or the parent names what it does not have.
            self.pull_failed(pull);
            return;
        }
        let bytes = self.memory.take(into);
        self.unposted.push_back((pull, link, offset, bytes));
        self.post_pulls();
    }

    /// Posts what was busy before; whether anything could be.
    fn post_again(&mut self) -> bool {
        let before = self.unsent.len() + self.unposted.len();
        if before == 0 {
            return false;
        }
        while let Some(Unsent { link, bytes }) = self.unsent.pop_front() {
            let Some(Link { peer, .. }) = self.links.get(&link) else { continue };
            match self.fabric.send(*peer, &[&bytes]) {
                Ok(()) => add(&self.counters.messages_sent, 1),
                Err(PostError::Lost) => {}
                Err(PostError::Busy) => {
                    self.unsent.push_front(Unsent { link, bytes });
                    break;
                }
            }
        }
        self.post_pulls();
        self.unsent.len() + self.unposted.len() < before
    }

    fn post_pulls(&mut self) {
        while let Some((pull, link, offset, into)) = self.unposted.pop_front() {
            let Some(Link { peer, .. }) = self.links.get(&link) else {
                drop(into);
                self.pull_failed(pull);
                continue;
            };
            match self.fabric.read(*peer, pull, offset, into) {
                Ok(()) => {}
                Err((PostError::Busy, into)) => {
                    self.unposted.push_front((pull, link, offset, into));
                    return;
                }
                Err((PostError::Lost, into)) => {
                    drop(into);
                    self.pull_failed(pull);
                }
            }
        }
    }

    /// Answers a question: from what this node holds if nobody had to be waited for.
    fn answer(&self, question: Ticket, answer: Result<Answer<M::Filled>, Errno>) {
        let held = self.taken == Some(question);
        let provenance = if held { Provenance::Held } else { Provenance::Fetched };
        self.answers.answer(question, answer, provenance);
    }

    fn want(&mut self, step: Step<M::Filled>, key: Key) {
        let ticket = self.questions.begin(step);
        let deadline = self.now + REQUEST_BOUND;
        self.inputs.push_back(Input::Want { ticket, key, deadline });
    }

    fn publish_counters(&self) {
        let counters = &*self.counters;
        let node = self.member.counters();
        set(&counters.pulls, node.pulls);
        set(&counters.pulled_bytes, node.pulled_bytes);
        set(&counters.served_bytes, node.served_bytes);
        set(&counters.inlined, node.inlined);
        set(&counters.retries, node.retries);
        set(&counters.checksum_failures, node.checksum_failures);
        set(&counters.quarantined, node.quarantined);
        set(&counters.expired, node.expired);
        set(&counters.starved, node.starved);
        set(&counters.misses, node.misses);
        set(&counters.fetched_ahead, node.fetched_ahead);
        set(&counters.refreshes, node.refreshes);
        set(&counters.outdated, node.outdated);
        set(&counters.violations, node.violations);
        set(&counters.given_up, node.given_up);
        set(&counters.degraded_reads, node.degraded_reads);
        set(&counters.recalled, node.recalled);
        let cache = self.cache.counters();
        set(&counters.blocks, cache.blocks);
        set(&counters.bytes, cache.bytes);
        set(&counters.limit_bytes, cache.limit_bytes);
        set(&counters.pinned_bytes, cache.pinned_bytes);
        set(&counters.evicted_blocks, cache.evicted_blocks);
        set(&counters.refetched_bytes, cache.refetched_bytes);
        set(&counters.fetched_ahead_read, node.ahead_awaited + cache.ahead_read);
        set(&counters.fetched_ahead_evicted, cache.ahead_evicted);
        if let Some(spilling) = &self.spilling {
            let spill = spilling.index.counters();
            set(&counters.spill_written_bytes, spill.written_bytes);
            set(&counters.spill_restored_bytes, node.restored_bytes);
            set(&counters.spill_dropped, spill.dropped);
            set(&counters.spill_lost, node.spill_lost);
            set(&counters.spill_bytes, spill.bytes);
            set(&counters.spill_limit_bytes, spill.limit_bytes);
        }
        set(&counters.absences_stored, cache.absences.stored);
        set(&counters.absences_served, cache.absences.served);
        set(&counters.absences_expired, cache.absences.expired);
        set(&counters.absences_cleared, cache.absences.cleared);
        set(&counters.directories, cache.directories);
        set(&counters.attributes, cache.attributes);
        set(&counters.inodes, self.inodes.len() as u64);
        set(&counters.questions, self.questions.len() as u64);
        let gauges = self.member.gauges();
        set(&counters.fetches, gauges.fetches as u64);
        set(&counters.pulls_now, gauges.pulls as u64);
        set(&counters.quarantined_now, gauges.quarantined as u64);
        set(&counters.source_jobs, gauges.jobs as u64);
        set(&counters.leases_given, gauges.leases_given as u64);
        set(&counters.leases_held, gauges.leases_held as u64);
        set(&counters.children, self.member.children().count() as u64);
        for (tree, node) in counters.trees.iter().zip(self.member.nodes()) {
            set(&tree.parent_plus_one, node.parent().map_or(0, |rank| u64::from(rank.0) + 1));
            set(&tree.reads_source, u64::from(node.reads_source()));
        }
    }
}

/// That an object has the form of its kind; a directory's decoded form.
fn check(key: &Key, bytes: &[u8]) -> Result<Option<Arc<Directory>>, Malformed> {
    match key.what {
        What::Directory => return Directory::decode(bytes).map(|it| Some(Arc::new(it))),
        What::ExtendedAttributes => drop(ExtendedAttributes::decode(bytes)?),
        What::DataRanges { generation } => drop(DataRanges::decode(bytes, generation.size)?),
        What::Block { .. } | What::Entry | What::Statistics => {}
    }
    Ok(None)
}
