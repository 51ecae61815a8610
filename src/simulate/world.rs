//! All ranks under one virtual clock: each output of a member becomes an event of another.
//!
//! A message changes the state of the rank that gets it when it arrives; what the rank does about it
//! leaves once its engine's thread has had the time for it, and for all that came before.

mod checks;
mod disturbances;
mod faults;
#[cfg(test)]
mod planted;
mod pulls;
mod reading;
mod source;

use std::time::Duration;

use copper_proto::limits::RECEIVES_PER_CHILD;
use copper_proto::{
    CopyFrom, Extent, Forest, Input, JobId, Key, LinkId, Message, Output, PullFailure, Reply, Tick,
    TreeIndex, ViewPath,
};
use hashbrown::HashMap;

use super::agenda::Agenda;
use super::direct::direct_seconds;
use super::host::{Host, Link};
use super::network::Network;
use super::program::Program;
use super::random::{Random, mixed};
use super::source_model::SourceModel;
use super::waits::Waits;
use super::{Broken, Plan, Progress, Report};
use disturbances::Cut;
use pulls::Pull;
use source::{Reads, Rereads};

/// A rank whose next timer is further away is looked at again after so long: few stale timers lie on
/// the agenda then.
const TIMER_SLACK: Duration = Duration::from_millis(100);

/// Whoever watches is told about the run after so many events.
const TOLD_EVENTS: u64 = 1 << 18;

/// What lies in an extent whose bytes are nobody's.
const GARBAGE: u32 = u32::MAX;

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
    PullEnds(Pull),
    SourceEnds {
        rank: usize,
        life: u32,
        job: JobId,
        key: Key,
        into: Option<Extent>,
    },
    /// The first process of a rank comes to its step.
    Comes(usize),
    /// A rank looks at its timers.
    Wakes(usize),
    Dies(usize),
    /// A rank that was dead begins again with nothing.
    Returns(usize),
    /// The way between a rank and its parent is cut.
    Cuts {
        rank: usize,
        tree: TreeIndex,
        cut: Cut,
        until: Tick,
    },
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
    object_reads: Vec<Reads>,
    rereads: Rereads,
    name_reads: HashMap<ViewPath, u32>,
    reads: u64,
    waits: Waits,
    /// What is drawn while it goes on.
    random: Random,
    killed: u32,
    returned: u32,
    cut: u32,
    /// Who does not try whom, until when.
    barred: HashMap<(usize, usize), Tick>,
    /// From then on nothing that is broken will be mended.
    mended: Tick,
    /// Times that a rank has lost its parent, or found none.
    out_of_reach: u64,
    source_failures: u64,
    /// The object whose bytes never come right.
    poisoned: Option<u32>,
    /// How often a rank has failed to get an object since it got it last.
    failures: HashMap<(usize, u32), u32>,
    /// Times that a rank was to be looked at.
    looked: u64,
    errors: u64,
    #[cfg(test)]
    planted: Option<copper_proto::Bug>,
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
        let host = |rank| Host::new(rank, plan, &forest, folders, Tick(0), &mut random);
        let hosts = (0..nodes).map(host).collect();
        let mut world = World {
            plan,
            program,
            forest,
            now: Tick(0),
            agenda: Agenda::new(),
            hosts,
            network: Network::new(nodes, plan.constants, plan.processors),
            source: SourceModel::new(plan.constants),
            next_link: 0,
            object_reads: vec![Reads::default(); program.objects.len()],
            rereads: Rereads::new(),
            name_reads: HashMap::new(),
            reads: 0,
            waits: Waits::new(),
            random: Random::new(mixed(plan.seed)),
            killed: 0,
            returned: 0,
            cut: 0,
            barred: HashMap::new(),
            mended: Tick(0),
            out_of_reach: 0,
            source_failures: 0,
            poisoned: None,
            failures: HashMap::new(),
            looked: 0,
            errors: 0,
            #[cfg(test)]
            planted: None,
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
        world.plan_disturbances(&mut random);
        world
    }

    /// Runs until nothing is left to happen.
    pub(super) fn run(mut self, told: &mut dyn FnMut(Progress)) -> Result<Report, Broken> {
        let mut events = 0u64;
        while self.broken.is_none()
            && let Some((tick, event)) = self.agenda.next()
        {
            self.now = tick;
            events += 1;
            if events.is_multiple_of(TOLD_EVENTS) {
                let ended = self.hosts.iter().map(|host| u64::from(host.readers.step)).sum::<u64>();
                let all = (self.hosts.len() * self.program.steps.len()) as u64;
                let done = ended as f64 / all as f64;
                told(Progress { seconds: tick.0 as f64 / 1e9, events, done });
            }
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
            Some(what) => {
                Err(Broken { what, nodes: self.plan.nodes.get(), seconds: self.now.0 as f64 / 1e9 })
            }
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
            Event::PullEnds(pull) => self.pull_ends(pull),
            Event::SourceEnds { rank, life, job, key, into } => {
                if self.hosts[rank].alive && self.hosts[rank].life == life {
                    self.source_ends(rank, job, &key, into);
                }
            }
            Event::Comes(rank) => {
                self.hosts[rank].readers.noted = false;
                self.go_on(rank);
            }
            Event::Wakes(rank) => self.wakes(rank),
            Event::Dies(rank) => self.dies(rank),
            Event::Returns(rank) => self.returns(rank),
            Event::Cuts { rank, tree, cut, until } => self.cuts(rank, tree, cut, until),
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
        self.check_bounds(rank);
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
                self.pulls(rank, pull, &key, link, offset, into);
            }
            Output::Copy { pull, key, from, into, checksum: _ } => {
                let object = self.program.number(&key);
                let found = match from {
                    CopyFrom::Message if self.is_corrupted(object) => GARBAGE,
                    CopyFrom::Message => payload.expect("an answer with bytes has them"),
                    CopyFrom::Source(_) => object,
                };
                self.hosts[rank].memory.put(into.offset, found);
                let result =
                    if found == object { Ok(checksum(object)) } else { Err(PullFailure::Checksum) };
                self.count_failures(rank, object, result.is_err());
                copied.insert(0, Input::Pulled { pull, result });
            }
            Output::Source { job, key, request } => self.read_source(rank, job, key, &request),
            Output::Answer { ticket, result } => {
                self.gives_up(rank, result.is_err());
                self.answered(rank, ticket, result);
            }
            Output::Disconnect { link, violation } if self.excuses(violation) => {
                self.parts(rank, link);
            }
            Output::Disconnect { link, violation } => {
                self.breaks(format!("rank {rank} closes link {link}: {violation}"));
            }
            Output::Restore { .. } => unreachable!("there is no spill"),
            Output::Refreshed { .. } | Output::DropEncoded(_) => {}
        }
    }

    fn send(&mut self, rank: usize, link: LinkId, message: Message, payload: Option<Extent>) {
        let Some(&Link { other, theirs, .. }) = self.hosts[rank].links.get(&link) else { return };
        self.check_message(rank, &message, payload);
        self.gives_up(rank, matches!(message, Message::Answer { reply: Reply::Failed(_), .. }));
        let bytes = payload.map_or(0, |extent| extent.len.into());
        let payload = payload.and_then(|extent| self.hosts[rank].memory.get(extent.offset));
        let child = if matches!(message, Message::Answer { .. }) { other } else { rank };
        let counts = !matches!(message, Message::Probe | Message::Alive);
        self.hosts[child].messages += u64::from(counts);
        self.hosts[child].asks += u64::from(matches!(message, Message::Ask { .. }));
        let mut arrives = self.network.send(rank, other, bytes, self.now) + self.late();
        if let Some(end) = self.hosts[other].links.get_mut(&theirs) {
            arrives = arrives.max(end.arrived);
            end.arrived = arrives;
            end.coming += 1;
            if end.coming > RECEIVES_PER_CHILD {
                self.breaks(format!("rank {other} has more messages coming than receives posted"));
            }
        }
        self.agenda.note(arrives, Event::Message { to: other, link: theirs, message, payload });
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
            computing_seconds: self.program.computing(&self.plan.constants).as_secs_f64(),
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
            returned: self.returned,
            cut: self.cut,
            rereads: self.rereads.clone(),
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
        let read = self
            .program
            .objects
            .iter()
            .zip(&self.object_reads)
            .filter(|(_, reads)| reads.count > 0);
        read.map(|(object, _)| object.cost.bytes).sum()
    }
}

/// What stands for the XXH3-64 of an object's bytes.
fn checksum(object: u32) -> u64 {
    mixed(u64::from(object) + 1)
}
