//! All ranks under one virtual clock: each output of a member becomes an event of another.
//!
//! A message changes the state of the rank that gets it when it arrives; what the rank does about it
//! leaves once its engine's thread has had the time for it, and for all that came before.

mod checks;
mod faults;
#[cfg(test)]
mod planted;
mod reading;

use std::collections::HashMap;
use std::time::Duration;

use copper_proto::limits::RECEIVES_PER_CHILD;
use copper_proto::{
    CopyFrom, Extent, Forest, Input, JobId, Key, LinkId, Message, Output, PullFailure, PullId,
    SourceAnswer, SourceRequest, Tick, TreeIndex, ViewPath, What,
};

use super::agenda::Agenda;
use super::direct::direct_seconds;
use super::host::{Host, Link};
use super::network::Network;
use super::program::Program;
use super::random::{Random, mixed};
use super::source_model::{SourceCost, SourceModel};
use super::waits::Waits;
use super::{Broken, Plan, Report};

/// A rank whose next timer is further away is looked at again after so long: few stale timers lie on
/// the agenda then.
const TIMER_SLACK: Duration = Duration::from_millis(100);

/// A run that is not over then will never be.
const END_BOUND: Tick = Tick(4 * 3_600 * 1_000_000_000);

#[derive(Debug)]
enum Event {
    /// A message arrives, and the object whose bytes are in it.
    Message {
        to: usize,
        link: LinkId,
        message: Message,
        payload: Option<u32>,
    },
    PullEnds {
        rank: usize,
        pull: PullId,
        link: LinkId,
        from: usize,
        offset: u64,
        object: u32,
        into: Extent,
    },
    SourceEnds {
        rank: usize,
        job: JobId,
        key: Key,
        into: Option<Extent>,
    },
    /// The first process of a rank comes to its step.
    Comes(usize),
    /// A rank looks at its timers.
    Wakes(usize),
    Dies(usize),
    /// A rank learns that one end of a link is gone.
    Down {
        rank: usize,
        link: LinkId,
    },
    /// A rank looks for a parent.
    Dials {
        rank: usize,
        tree: TreeIndex,
    },
    /// It has found none for long enough.
    Waited {
        rank: usize,
        tree: TreeIndex,
    },
}

/// See [`super::run`].
pub(super) struct World<'a> {
    plan: &'a Plan,
    program: &'a Program,
    forest: Forest,
    now: Tick,
    agenda: Agenda<Event>,
    hosts: Vec<Host>,
    network: Network,
    source: SourceModel,
    next_link: u32,
    /// How often each object was read from the source, and each name looked up there.
    object_reads: Vec<u32>,
    name_reads: HashMap<ViewPath, u32>,
    reads: u64,
    waits: Waits,
    killed: u32,
    errors: u64,
    /// What has been found to be wrong first.
    broken: Option<String>,
}

impl<'a> World<'a> {
    pub(super) fn new(plan: &'a Plan, program: &'a Program) -> World<'a> {
        let mut random = Random::new(plan.seed);
        let forest = Forest::new(plan.nodes, plan.fanout, plan.trees);
        let forest = forest.expect("the command line has made sure of it");
        let nodes = plan.nodes.get() as usize;
        let folders = program.folders.len();
        let host = |rank| Host::new(rank, plan, &forest, folders, &mut random);
        let hosts = (0..nodes).map(host).collect();
        let mut world = World {
            plan,
            program,
            forest,
            now: Tick(0),
            agenda: Agenda::new(),
            hosts,
            network: Network::new(nodes),
            source: SourceModel::default(),
            next_link: 0,
            object_reads: vec![0; program.objects.len()],
            name_reads: HashMap::new(),
            reads: 0,
            waits: Waits::new(),
            killed: 0,
            errors: 0,
            broken: None,
        };
        for (tree, _) in forest.trees() {
            for rank in 0..nodes {
                world.dials(rank, tree);
            }
        }
        for rank in 0..nodes {
            world.go_on(rank);
        }
        world.plan_deaths(&mut random);
        world
    }

    /// Runs until nothing is left to happen.
    pub(super) fn run(mut self) -> Result<Report, Broken> {
        while self.broken.is_none()
            && let Some((tick, event)) = self.agenda.next()
        {
            self.now = tick;
            if tick > END_BOUND {
                self.breaks("it does not end".to_owned());
            }
            self.happens(event);
        }
        if self.broken.is_none() {
            self.check_the_end();
        }
        match self.broken.take() {
            None => Ok(self.report()),
            Some(what) => Err(Broken {
                what,
                nodes: self.plan.nodes.get(),
                seconds: self.now.0 as f64 / 1e9,
                seed: self.plan.seed,
            }),
        }
    }

    fn happens(&mut self, event: Event) {
        match event {
            Event::Message { to, link, message, payload } => {
                let host = &mut self.hosts[to];
                let Some(end) = host.links.get_mut(&link) else { return };
                end.coming -= 1;
                if host.alive {
                    self.network.received(to, self.now);
                    self.handle(to, Input::Received { link, message }, payload);
                }
            }
            Event::PullEnds { rank, pull, link, from, offset, object, into } => {
                if self.hosts[rank].alive {
                    self.pull_ends(rank, pull, link, from, offset, object, into);
                }
            }
            Event::SourceEnds { rank, job, key, into } => {
                if self.hosts[rank].alive {
                    let answer = self.source_answers(rank, &key, into);
                    self.handle(rank, Input::Source { job, result: Ok(answer) }, None);
                }
            }
            Event::Comes(rank) => {
                self.hosts[rank].readers.noted = false;
                self.go_on(rank);
            }
            Event::Wakes(rank) => self.wakes(rank),
            Event::Dies(rank) => self.dies(rank),
            Event::Down { rank, link } => self.down(rank, link),
            Event::Dials { rank, tree } => self.dials(rank, tree),
            Event::Waited { rank, tree } => self.waited(rank, tree),
        }
    }

    fn wakes(&mut self, rank: usize) {
        let host = &mut self.hosts[rank];
        if !host.alive || host.wakes != self.now {
            return;
        }
        host.wakes = Tick::NEVER;
        if host.member.next_due() <= self.now {
            self.handle(rank, Input::Time, None);
        } else {
            self.set_timer(rank);
        }
    }

    /// Hands a member what happened, does what it wants done, and lets its readers go on.
    fn handle(&mut self, rank: usize, input: Input, payload: Option<u32>) {
        self.hand(rank, input, payload);
        self.go_on(rank);
    }

    fn hand(&mut self, rank: usize, input: Input, payload: Option<u32>) {
        let (now, program) = (self.now, self.program);
        let mut next = Some(input);
        let mut copied = Vec::new();
        while let Some(input) = next {
            self.hosts[rank].with_store(program, |member, store| member.handle(now, input, store));
            while let Some(output) =
                self.hosts[rank].with_store(program, |member, store| member.poll(now, store))
            {
                self.apply(rank, output, payload, &mut copied);
            }
            next = copied.pop();
        }
        self.set_timer(rank);
    }

    fn set_timer(&mut self, rank: usize) {
        let host = &mut self.hosts[rank];
        let due = host.member.next_due();
        let looks = due.min(self.now + TIMER_SLACK).max(self.now);
        if due != Tick::NEVER && looks < host.wakes {
            host.wakes = looks;
            self.agenda.note(looks, Event::Wakes(rank));
        }
    }

    /// Does what a member wants done; a copy's end is handed to it after all that comes before.
    fn apply(
        &mut self,
        rank: usize,
        output: Output,
        payload: Option<u32>,
        copied: &mut Vec<Input>,
    ) {
        match output {
            Output::Send { link, message, payload } => self.send(rank, link, message, payload),
            Output::Pull { pull, key, link, offset, into, checksum: _ } => {
                let object = self.program.number(&key);
                let from = self.hosts[rank].links.get(&link).map(|link| link.other);
                let ends = match from {
                    Some(parent) => self.network.pull(rank, parent, into.len.into(), self.now),
                    None => self.now,
                };
                let from = from.unwrap_or(rank);
                let event = Event::PullEnds { rank, pull, link, from, offset, object, into };
                self.agenda.note(ends, event);
            }
            Output::Copy { pull, key, from, into, checksum: _ } => {
                let object = match from {
                    CopyFrom::Message => payload.expect("an answer with bytes has them"),
                    CopyFrom::Source(_) => self.program.number(&key),
                };
                self.hosts[rank].memory.put(into.offset, object);
                let result = Ok(checksum(object));
                copied.insert(0, Input::Pulled { pull, result });
            }
            Output::Source { job, key, request } => self.read_source(rank, job, key, &request),
            Output::Answer { ticket, result } => self.answered(rank, ticket, result),
            Output::Disconnect { link, violation } => {
                self.breaks(format!("rank {rank} closes link {link}: {violation}"));
            }
            Output::Restore { .. } => unreachable!("there is no spill"),
            Output::Refreshed { .. } | Output::DropEncoded(_) => {}
        }
    }

    fn send(&mut self, rank: usize, link: LinkId, message: Message, payload: Option<Extent>) {
        let Some(&Link { other, theirs, .. }) = self.hosts[rank].links.get(&link) else { return };
        let bytes = payload.map_or(0, |extent| extent.len.into());
        let payload = payload.and_then(|extent| self.hosts[rank].memory.get(extent.offset));
        let child = if matches!(message, Message::Answer { .. }) { other } else { rank };
        self.hosts[child].messages += 1;
        self.hosts[child].asks += u64::from(matches!(message, Message::Ask { .. }));
        let arrives = self.network.send(rank, other, bytes, self.now);
        if let Some(end) = self.hosts[other].links.get_mut(&theirs) {
            end.coming += 1;
            if end.coming > RECEIVES_PER_CHILD {
                self.breaks(format!("rank {other} has more messages coming than receives posted"));
            }
        }
        self.agenda.note(arrives, Event::Message { to: other, link: theirs, message, payload });
    }

    #[allow(clippy::too_many_arguments, reason = "the fields of one event")]
    fn pull_ends(
        &mut self,
        rank: usize,
        pull: PullId,
        link: LinkId,
        from: usize,
        offset: u64,
        object: u32,
        into: Extent,
    ) {
        let cut = !self.hosts[from].alive || !self.hosts[rank].links.contains_key(&link);
        let result = if cut {
            Err(PullFailure::Fabric)
        } else if self.hosts[from].memory.get(offset) != Some(object) {
            // No rank lies here, and no extent may be recycled under a lease.
            self.breaks(format!("rank {rank} pulled other bytes than rank {from} granted"));
            Err(PullFailure::Checksum)
        } else {
            self.network.verified(rank, self.now, into.len.into());
            self.hosts[rank].memory.put(into.offset, object);
            Ok(checksum(object))
        };
        self.handle(rank, Input::Pulled { pull, result }, None);
    }

    fn read_source(&mut self, rank: usize, job: JobId, key: Key, request: &SourceRequest) {
        let (cost, into) = match request {
            SourceRequest::Entry => (SourceCost { operations: 1, ..SourceCost::default() }, None),
            SourceRequest::Encoded => {
                (self.program.objects[self.program.number(&key) as usize].cost, None)
            }
            SourceRequest::Block(into) => {
                (self.program.objects[self.program.number(&key) as usize].cost, Some(*into))
            }
            SourceRequest::Statistics => unreachable!("no step asks for them"),
        };
        let begins = self.network.engine_free(rank, self.now);
        let ends = self.source.read(rank, cost, begins);
        self.agenda.note(ends, Event::SourceEnds { rank, job, key, into });
    }

    fn source_answers(&mut self, rank: usize, key: &Key, into: Option<Extent>) -> SourceAnswer {
        if key.what == What::Entry {
            *self.name_reads.entry(key.path.clone()).or_default() += 1;
            return match self.program.entry(&key.path) {
                Some(entry) => SourceAnswer::Present(entry.clone()),
                None => SourceAnswer::Absent,
            };
        }
        let object = self.program.number(key);
        self.object_reads[object as usize] += 1;
        match into {
            Some(extent) => {
                self.reads += 1;
                self.hosts[rank].memory.put(extent.offset, object);
                SourceAnswer::Block(checksum(object))
            }
            None => SourceAnswer::Encoded(self.program.objects[object as usize].len),
        }
    }

    fn breaks(&mut self, what: String) {
        self.broken.get_or_insert(what);
    }

    fn report(&self) -> Report {
        let (hottest_rank, hottest_egress_bytes) = self.network.hottest();
        let (asks, messages) = (self.sum(|host| host.asks), self.sum(|host| host.messages));
        Report {
            nodes: self.plan.nodes.get(),
            processes: self.plan.processes.get(),
            trees: self.plan.trees.get(),
            fanout: self.plan.fanout.get(),
            seed: self.plan.seed,
            seconds: self.end().0 as f64 / 1e9,
            direct_seconds: direct_seconds(self.plan, self.program),
            computing_seconds: super::constants::COMPUTING.as_secs_f64(),
            source_operations: self.source.operations + self.reads,
            source_bytes: self.source.bytes,
            distinct_bytes: self.distinct_bytes(),
            source_readers: self.source.readers(),
            hottest_rank,
            hottest_egress_bytes,
            wait_p50_seconds: self.waits.percentile(50),
            wait_p99_seconds: self.waits.percentile(99),
            deepest_queue: self.network.deepest_queue(),
            messages: self.network.messages(),
            messages_per_object: messages as f64 / asks.max(1) as f64,
            killed: self.killed,
            errors: self.errors,
            evictions: self.sum(|host| host.cache.counters().evicted_blocks),
            events: self.agenda.noted(),
        }
    }

    fn sum(&self, of: impl Fn(&Host) -> u64) -> u64 {
        self.hosts.iter().map(of).sum()
    }

    /// When the last process of a rank that lives has ended.
    fn end(&self) -> Tick {
        let lives = self.hosts.iter().filter(|host| host.alive);
        lives.map(|host| host.readers.last()).max().unwrap_or_default()
    }

    fn distinct_bytes(&self) -> u64 {
        let read =
            self.program.objects.iter().zip(&self.object_reads).filter(|(_, reads)| **reads > 0);
        read.map(|(object, _)| object.cost.bytes).sum()
    }
}

/// What stands for the XXH3-64 of an object's bytes.
fn checksum(object: u32) -> u64 {
    mixed(u64::from(object) + 1)
}
