//! The driver of many nodes under virtual time: it applies each node's outputs with random delays
//! and checks, at each answer and at the end, what must be true.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap, HashSet};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use copper_cache::{Cache, LocalUse};
use copper_proto::limits::{
    BLOCK_BYTES, ORPHAN_BOUND, PULL_BOUND, RECEIVES_PER_CHILD, REQUEST_BOUND, TREES_MAX,
    WHOLE_FILE_BYTES,
};
use copper_proto::node::SourceUse;
use copper_proto::ownership::owner;
use copper_proto::store::{Known, Store};
use copper_proto::{
    BlockIndex, Bug, CopyFrom, Directory, Dropped, Epoch, Errno, Extent, FilePolicy, Forest,
    Gauges, Generation, Held, Input, JobId, Key, LinkId, Member, Message, Outcome, Output,
    PullFailure, PullId, Rank, ReadAhead, Scope, SourceAnswer, SourceRequest, Spilled, Tick,
    Ticket, TreeIndex, ViewPath, Violation, What, topology::Tree,
};

use crate::disk::Disk;
use crate::random::Random;
use crate::source::{Source, Version, checksum};

#[derive(Clone, Debug, Default)]
pub(crate) struct Faults {
    /// Ranks that die at random times.
    pub(crate) deaths: u64,
    pub(crate) root_dies: bool,
    /// Pairs of ranks between which the fabric, and nothing else, fails at random times: one way or both.
    pub(crate) cuts: u64,
    /// One in so many source reads fails with EIO; 0 for none.
    pub(crate) source_fails: u64,
    /// One in so many pulls takes longer than its bound; 0 for none.
    pub(crate) pulls_stall: u64,
    /// One in so many reads and writes of a spill file fails, or gives garbage, or stalls; 0 for none.
    pub(crate) spill_fails: u64,
}

#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) nodes: u32,
    pub(crate) fanout: u32,
    pub(crate) trees: u32,
    pub(crate) readers: u32,
    /// Readers of one large file, each in steps of its own from a place of its own.
    pub(crate) streams: u32,
    pub(crate) arena_bytes: u64,
    /// Of each rank's spill file; 0 for none.
    pub(crate) spill_bytes: u64,
    pub(crate) fallback: bool,
    pub(crate) files: FilePolicy,
    pub(crate) faults: Faults,
    /// Times that the source changes, and that the job is told to look at it anew.
    pub(crate) changes: u64,
    pub(crate) refreshes: u64,
    /// Ranks are told of refreshes in any order, not from the root down.
    pub(crate) disorder: bool,
    pub(crate) ignore_pins: bool,
    pub(crate) ignore_checksums: bool,
    pub(crate) ignore_epochs: bool,
    /// What is wrong with every node.
    pub(crate) planted: Option<Bug>,
    pub(crate) ignore_refreshed_copies: bool,
}

impl Plan {
    pub(crate) fn random(random: &mut Random) -> Plan {
        let nodes_max = if random.once_in(4) { 64 } else { 12 };
        let nodes = 2 + random.below(nodes_max - 1) as u32;
        let several = 1 + random.below(nodes.min(TREES_MAX).into()) as u32;
        let mut plan = Plan {
            nodes,
            trees: if random.once_in(3) { 1 } else { several },
            fanout: 1 + random.below(6) as u32,
            readers: 1 + random.below(200) as u32,
            streams: random.below(2) as u32,
            arena_bytes: *random.pick(&[8 << 20, 32 << 20, 256 << 20]),
            fallback: random.once_in(2),
            files: FilePolicy {
                whole_up_to: *random.pick(&[WHOLE_FILE_BYTES, WHOLE_FILE_BYTES, 0, 32 << 20]),
                ..FilePolicy::default()
            },
            faults: Faults {
                deaths: random.below(4),
                root_dies: random.once_in(3),
                cuts: 0,
                source_fails: *random.pick(&[0, 0, 20]),
                pulls_stall: *random.pick(&[0, 0, 10]),
                spill_fails: 0,
            },
            spill_bytes: 0,
            changes: 0,
            refreshes: 0,
            disorder: false,
            ignore_pins: false,
            ignore_checksums: false,
            ignore_epochs: false,
            planted: None,
            ignore_refreshed_copies: false,
        };
        plan.spill_bytes = *random.pick(&[0, 0, 0, 0, 8 << 20, 64 << 20]);
        plan.faults.spill_fails = *random.pick(&[0, 10]);
        plan
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Report {
    pub(crate) answers: u64,
    pub(crate) errors: u64,
    pub(crate) deaths: u64,
    pub(crate) checksum_failures: u64,
    pub(crate) quarantined: u64,
    pub(crate) evictions: u64,
    /// Bytes that were read back from spill files, and copies that were lost there.
    pub(crate) restored_bytes: u64,
    pub(crate) spill_lost: u64,
    /// Blocks of which readers were the first to ask.
    pub(crate) misses: u64,
    /// Different blocks of the large file that its readers touched, and that the source was asked for.
    pub(crate) touched: u64,
    pub(crate) fetched: u64,
    /// Objects that refreshes have dropped, and answers that came too late for one.
    pub(crate) dropped: u64,
    pub(crate) outdated: u64,
    /// The most often that one object was read well from the source.
    pub(crate) source_reads_max: u64,
    /// Ranks that have read the source.
    pub(crate) source_readers: usize,
    /// Reads of the source by ranks that are no root of the object's tree.
    pub(crate) reads_elsewhere: u64,
    /// Reads of the source for what a child of the reading rank held at that moment, and objects that
    /// were taken from such a child instead.
    pub(crate) held_below: u64,
    pub(crate) recalled: u64,
    /// Links over whose fabric nothing came.
    pub(crate) given_up: u64,
    /// When the last reader was answered.
    pub(crate) end: Tick,
}

#[derive(Debug)]
enum Event {
    Want {
        rank: usize,
        key: Key,
    },
    /// A reader of the large file comes to a block, and goes on from there.
    Reads {
        rank: usize,
        block: u32,
        step: u32,
        left: u32,
    },
    Message {
        to: usize,
        link: LinkId,
        message: Message,
        payload: Option<Bytes>,
    },
    PullEnds {
        rank: usize,
        pull: PullId,
        from: usize,
        link: LinkId,
        offset: u64,
        key: Key,
        into: Extent,
        checksum: u64,
    },
    SourceEnds {
        rank: usize,
        job: JobId,
        key: Key,
        request: SourceRequest,
    },
    SpillWritten {
        rank: usize,
        copy: Spilled,
        bytes: Bytes,
    },
    RestoreEnds {
        rank: usize,
        pull: PullId,
        key: Key,
        from: Spilled,
        into: Extent,
    },
    Changes,
    /// Somebody wants the source to be looked at anew.
    WantsRefresh,
    /// A rank is told to.
    Refresh {
        rank: usize,
        epoch: Epoch,
        scope: Scope,
    },
    Dies(usize),
    Down {
        rank: usize,
        link: LinkId,
    },
    Dials {
        rank: usize,
        tree: TreeIndex,
        candidates: Vec<usize>,
    },
    Wakes(usize),
}

/// What an extent holds.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Bytes {
    Garbage,
    Block(u64),
    Listing(Arc<Vec<u8>>),
}

impl Bytes {
    fn checksum(&self) -> u64 {
        match self {
            Bytes::Garbage => u64::MAX,
            Bytes::Block(checksum) => *checksum,
            Bytes::Listing(bytes) => bytes.iter().fold(14_695_981_039_346_656_037, |hash, byte| {
                (hash ^ u64::from(*byte)).wrapping_mul(1_099_511_628_211)
            }),
        }
    }
}

/// The cache as the node sees it, with the bug that may be planted.
struct Shelf<'a> {
    cache: &'a mut Cache,
    random: &'a mut Random,
    decoded: &'a mut HashMap<u64, Arc<Directory>>,
    memory: &'a HashMap<u64, Bytes>,
    disk: Option<&'a mut Disk>,
    ignore_pins: bool,
    ignore_refreshed_copies: bool,
}

impl Store for Shelf<'_> {
    fn entry(&mut self, path: &ViewPath, now: Tick) -> Option<Known> {
        self.cache.entry(path, now)
    }
    fn object(&mut self, key: &Key) -> Option<Held> {
        self.cache.object(key)
    }
    fn holds(&self, key: &Key) -> bool {
        self.cache.holds(key)
    }
    fn put_entry(&mut self, path: &ViewPath, known: Known) {
        self.cache.put_entry(path, known);
    }
    fn can_hold(&self, len: u32) -> bool {
        self.cache.can_hold(len)
    }
    fn allocate(&mut self, len: u32) -> Option<Extent> {
        let Shelf { cache, random, memory, disk, .. } = self;
        cache.allocate(len, |candidate| match random.below(8) {
            0 => LocalUse::InUse,
            1 => LocalUse::Touched,
            _ => {
                if let Some(disk) = disk {
                    disk.keep(candidate, memory);
                }
                LocalUse::Idle
            }
        })
    }
    fn release(&mut self, extent: Extent) {
        self.decoded.remove(&extent.offset);
        self.cache.release(extent);
    }
    fn drop_within(&mut self, scope: &Scope) -> Dropped {
        if let Some(disk) = &mut self.disk
            && !self.ignore_refreshed_copies
        {
            disk.index.drop_within(scope);
        }
        let random = &mut *self.random;
        self.cache.drop_within(scope, |_, _| !random.once_in(4))
    }
    fn publish(&mut self, key: &Key, held: Held) {
        if let Some(directory) = self.decoded.remove(&held.extent.offset) {
            self.cache.put_directory(&key.path, directory);
        }
        self.cache.publish(key, held);
    }
    fn unread(&mut self, extent: Extent) {
        self.cache.unread(extent);
    }
    fn pin(&mut self, extent: Extent) {
        if !self.ignore_pins {
            self.cache.pin(extent);
        }
    }
    fn unpin(&mut self, extent: Extent) {
        if !self.ignore_pins {
            self.cache.unpin(extent);
        }
    }
    fn spilled(&self, key: &Key) -> Option<u32> {
        self.disk.as_ref()?.index.spilled(key)
    }
    fn begin_restore(&mut self, key: &Key) -> Option<Spilled> {
        self.disk.as_mut()?.index.begin_read(key)
    }
    fn end_restore(&mut self, spilled: Spilled, well: bool) {
        self.disk.as_mut().expect("it was begun").index.end_read(spilled, well);
    }
}

struct Host {
    alive: bool,
    member: Member,
    ahead: ReadAhead,
    cache: Cache,
    memory: HashMap<u64, Bytes>,
    disk: Option<Disk>,
    listings: HashMap<JobId, Arc<Vec<u8>>>,
    /// Of directories that have come and are not published yet, by offset.
    decoded: HashMap<u64, Arc<Directory>>,
    /// The last refresh that it has taken in.
    epoch: Epoch,
    /// Link, other rank; the other's name for the link.
    links: BTreeMap<LinkId, (usize, LinkId)>,
    /// By tree.
    parents: Vec<Option<LinkId>>,
    wakes: Tick,
}

struct Reader {
    rank: usize,
    key: Key,
    /// What it is shown was the source's at this version or later.
    floor: Version,
    deadline: Tick,
    answered: bool,
}

pub(crate) struct World {
    plan: Plan,
    random: Random,
    source: Source,
    forest: Forest,
    now: Tick,
    members: Vec<Host>,
    events: BinaryHeap<Reverse<(Tick, u64)>>,
    pending: HashMap<u64, Event>,
    sequence: u64,
    next_link: u32,
    readers: HashMap<Ticket, Reader>,
    /// Messages on their way per receiver's link: their number, and when the last one arrives.
    wires: HashMap<(usize, LinkId), (u32, Tick)>,
    source_reads: HashMap<Key, u64>,
    /// Blocks of the large file that were read.
    touched: HashSet<u32>,
    /// Every refresh: what is older than this version, when the root took it in, and of this scope
    /// is shown by nobody who has taken it in, or a later one.
    refreshed: BTreeMap<Epoch, (Scope, Version)>,
    source_readers: HashSet<usize>,
    /// Who does not try whom, until when.
    barred: HashMap<(usize, usize), Tick>,
    /// Between whom the fabric moves nothing from some time on.
    cut: HashMap<(usize, usize), Tick>,
    report: Report,
}

/// A file that is too large to be fetched whole, and no part of the random tree.
const LARGE: &[u8] = b"large";
const LARGE_BLOCKS: u32 = 400;

fn large(index: BlockIndex) -> Key {
    let size = u64::from(LARGE_BLOCKS) * u64::from(BLOCK_BYTES);
    let generation = Generation { size, ..Generation::default() };
    let path = ViewPath::parse(LARGE).expect("well-formed");
    Key { path, what: What::Block { index, generation } }
}

const LATENCY: Duration = Duration::from_micros(5);
const TRANSFER: Duration = Duration::from_micros(80);
const SOURCE: Duration = Duration::from_millis(2);
/// For how long a rank is not tried whose fabric has failed; the launcher's.
const BARRED: Duration = Duration::from_secs(30);
const DISK: Duration = Duration::from_micros(500);

impl World {
    pub(crate) fn new(seed: u64, plan: Plan) -> World {
        let mut random = Random::new(seed ^ 0x5eed);
        let nonzero = |value| NonZeroU32::new(value).expect("not zero");
        let forest = Forest::new(nonzero(plan.nodes), nonzero(plan.fanout), nonzero(plan.trees));
        let forest = forest.expect("no more trees than nodes");
        let source_use = |rank: u32, tree: Tree| match (Rank(rank) == tree.root(), plan.fallback) {
            (true, _) => SourceUse::Root,
            (false, true) if tree.is_successor(Rank(rank)) => SourceUse::Successor,
            (false, true) => SourceUse::Fallback,
            (false, false) => SourceUse::Never,
        };
        let source_uses = |rank: u32| -> Vec<SourceUse> {
            forest.trees().map(|(_, tree)| source_use(rank, tree)).collect()
        };
        let members = (0..plan.nodes).map(|rank| Host {
            alive: true,
            member: Member::new(&source_uses(rank), plan.files, Tick(0)),
            ahead: ReadAhead::new(plan.arena_bytes, plan.files.whole_up_to),
            cache: Cache::new(plan.arena_bytes),
            memory: HashMap::new(),
            disk: Disk::of(plan.spill_bytes),
            listings: HashMap::new(),
            decoded: HashMap::new(),
            epoch: Epoch(0),
            links: BTreeMap::new(),
            parents: vec![None; plan.trees as usize],
            wakes: Tick::NEVER,
        });
        let mut source = Source::random(&mut random);
        let large = large(BlockIndex(0));
        let What::Block { generation, .. } = large.what else { unreachable!("it is a block") };
        source.put(large.path, generation.size, &mut random);
        let mut world = World {
            members: members.collect(),
            source,
            random,
            forest,
            plan,
            now: Tick(0),
            events: BinaryHeap::new(),
            pending: HashMap::new(),
            sequence: 0,
            next_link: 0,
            readers: HashMap::new(),
            wires: HashMap::new(),
            source_reads: HashMap::new(),
            touched: HashSet::new(),
            refreshed: BTreeMap::new(),
            source_readers: HashSet::new(),
            barred: HashMap::new(),
            cut: HashMap::new(),
            report: Report::default(),
        };
        if let Some(bug) = world.plan.planted {
            world.members.iter_mut().for_each(|host| host.member.plant(bug));
        }
        world.set_up();
        world
    }

    fn set_up(&mut self) {
        for tree in (0..self.plan.trees).map(TreeIndex) {
            for rank in 0..self.plan.nodes as usize {
                let candidates = self.candidates(rank, tree);
                if !candidates.is_empty() {
                    let at = self.random.delay(Duration::from_millis(1));
                    self.at(at, Event::Dials { rank, tree, candidates });
                }
            }
        }
        // Readers come in crowds, so that many want the same at once.
        for _ in 0..self.plan.readers {
            let key = self.random.pick(&self.source.keys).clone();
            let start = Duration::from_micros(self.random.below(60_000));
            for rank in 0..self.plan.nodes as usize {
                for _ in 0..self.random.below(3) {
                    let at = start + self.random.delay(Duration::from_micros(20));
                    self.at(at, Event::Want { rank, key: key.clone() });
                }
            }
        }
        for _ in 0..self.plan.streams {
            let rank = self.random.below(self.plan.nodes.into()) as usize;
            let step = *self.random.pick(&[1, 1, 1, 5, 9]);
            let block = self.random.below(u64::from(LARGE_BLOCKS)) as u32;
            let start = Duration::from_micros(self.random.below(20_000));
            self.at(start, Event::Reads { rank, block, step, left: 40 });
        }
        for (count, event) in [
            (self.plan.changes, (|| Event::Changes) as fn() -> Event),
            (self.plan.refreshes, || Event::WantsRefresh),
        ] {
            for _ in 0..count {
                let at = Duration::from_micros(self.random.below(80_000));
                self.at(at, event());
            }
        }
        for _ in 0..self.plan.faults.cuts {
            let from = self.random.below(self.plan.nodes.into()) as usize;
            let to = self.random.below(self.plan.nodes.into()) as usize;
            let at = Tick(0) + Duration::from_micros(self.random.below(80_000));
            self.cut.insert((from, to), at);
            if self.random.once_in(2) {
                self.cut.insert((to, from), at);
            }
        }
        for _ in 0..self.plan.faults.deaths {
            let rank = self.random.below(self.plan.nodes.into()) as usize;
            let is_root = self.forest.has_root(Rank(rank as u32));
            let spared = is_root && !self.plan.faults.root_dies;
            if !spared {
                let at = Duration::from_micros(self.random.below(80_000));
                self.at(at, Event::Dies(rank));
            }
        }
    }

    fn candidates(&self, rank: usize, tree: TreeIndex) -> Vec<usize> {
        let tree = self.forest.tree(tree).expect("one of them");
        tree.candidates(Rank(rank as u32)).map(|candidate| candidate.0 as usize).collect()
    }

    fn at(&mut self, delay: Duration, event: Event) {
        self.sequence += 1;
        self.events.push(Reverse((self.now + delay, self.sequence)));
        self.pending.insert(self.sequence, event);
    }

    /// Runs until nothing is left to happen.
    pub(crate) fn run(mut self) -> Report {
        let mut steps = 0_u64;
        while let Some(Reverse((tick, sequence))) = self.events.pop() {
            assert!(tick >= self.now, "time goes forward");
            self.now = tick;
            let event = self.pending.remove(&sequence).expect("each event happens once");
            self.happen(event);
            steps += 1;
            assert!(steps < 20_000_000, "the nodes talk without end");
        }
        self.check_the_end();
        self.report
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Want { rank, key } => {
                if self.members[rank].alive {
                    // Most readers have just asked for the attributes.
                    let key = if self.random.once_in(4) { key } else { self.source.current(key) };
                    self.want(rank, key);
                    if self.random.below(4) == 0 {
                        let key = self.random.pick(&self.source.keys).clone();
                        self.handle(rank, Input::Prefetch { key }, None);
                    }
                }
            }
            Event::Reads { rank, block, step, left } => self.reads(rank, block, step, left),
            Event::Message { to, link, message, payload } => {
                self.wires.get_mut(&(to, link)).expect("it was sent").0 -= 1;
                if self.members[to].alive && self.members[to].links.contains_key(&link) {
                    self.handle(to, Input::Received { link, message }, payload);
                }
            }
            Event::PullEnds { rank, pull, from, link, offset, key, into, checksum } => {
                if self.members[rank].alive {
                    self.pull_ends(rank, pull, from, link, offset, &key, into, checksum);
                }
            }
            Event::SourceEnds { rank, job, key, request } => {
                if self.members[rank].alive {
                    self.source_ends(rank, job, &key, &request);
                }
            }
            Event::SpillWritten { rank, copy, bytes } => {
                let well = !self.spill_fails();
                if let Some(disk) = &mut self.members[rank].disk {
                    disk.written(copy, bytes, well);
                }
            }
            Event::RestoreEnds { rank, pull, key, from, into } => {
                if self.members[rank].alive {
                    self.restore_ends(rank, pull, &key, from, into);
                }
            }
            Event::Changes => self.source.change(&mut self.random),
            Event::WantsRefresh => self.wants_refresh(),
            Event::Refresh { rank, epoch, scope } => {
                if self.members[rank].alive {
                    self.handle(rank, Input::Refresh { epoch, scope: scope.clone() }, None);
                    self.tell_children(rank, epoch, &scope);
                }
            }
            Event::Dies(rank) => self.dies(rank),
            Event::Down { rank, link } => self.down(rank, link),
            Event::Dials { rank, tree, candidates } => self.dials(rank, tree, candidates),
            Event::Wakes(rank) => {
                if self.members[rank].alive && self.members[rank].wakes <= self.now {
                    self.members[rank].wakes = Tick::NEVER;
                    self.handle(rank, Input::Time, None);
                }
            }
        }
    }

    fn want(&mut self, rank: usize, key: Key) {
        let ticket = Ticket(self.readers.len() as u64);
        let deadline = self.now + REQUEST_BOUND;
        let taken = self.refreshed.range(..=self.members[rank].epoch);
        let covering = taken.filter(|(_, (scope, _))| scope.covers(&key));
        let floor = covering.map(|(_, (_, floor))| *floor).max().unwrap_or_default();
        let reader = Reader { rank, key: key.clone(), floor, deadline, answered: false };
        self.readers.insert(ticket, reader);
        self.handle(rank, Input::Want { ticket, key, deadline }, None);
    }

    fn reads(&mut self, rank: usize, block: u32, step: u32, left: u32) {
        if left == 0 || block >= LARGE_BLOCKS || !self.members[rank].alive {
            return;
        }
        let key = large(BlockIndex(block));
        let What::Block { index, generation } = key.what else { unreachable!("it is a block") };
        self.touched.insert(block);
        self.want(rank, key.clone());
        let next = self.members[rank].ahead.on_read(&key.path, generation, index, index);
        for index in next {
            self.handle(rank, Input::Prefetch { key: large(index) }, None);
        }
        let delay = self.random.delay(Duration::from_millis(1));
        self.at(delay, Event::Reads { rank, block: block + step, step, left: left - 1 });
    }

    fn handle(&mut self, rank: usize, input: Input, payload: Option<Bytes>) {
        let mut inputs = vec![input];
        while let Some(input) = inputs.pop() {
            let now = self.now;
            self.with_store(rank, |member, store| member.handle(now, input, store));
            while let Some(output) = self.with_store(rank, |member, store| member.poll(now, store))
            {
                // Copies end at once, but only after all that was to be done before.
                if let Some(ended) = self.apply(rank, output, payload.as_ref()) {
                    inputs.insert(0, ended);
                }
            }
        }
        let due = self.members[rank].member.next_due();
        if due < self.members[rank].wakes {
            self.members[rank].wakes = due;
            let delay = due.since(self.now);
            self.at(delay, Event::Wakes(rank));
        }
    }

    fn with_store<T>(
        &mut self,
        rank: usize,
        act: impl FnOnce(&mut Member, &mut Shelf<'_>) -> T,
    ) -> T {
        let host = &mut self.members[rank];
        let before = host.cache.counters().evicted_blocks;
        let Plan { ignore_pins, ignore_refreshed_copies, .. } = self.plan;
        let mut shelf = Shelf {
            cache: &mut host.cache,
            random: &mut self.random,
            decoded: &mut host.decoded,
            memory: &host.memory,
            disk: host.disk.as_mut(),
            ignore_pins,
            ignore_refreshed_copies,
        };
        let result = act(&mut host.member, &mut shelf);
        self.report.evictions += host.cache.counters().evicted_blocks - before;
        let leaving = host.disk.as_mut().map(|disk| std::mem::take(&mut disk.leaving));
        for (copy, bytes) in leaving.unwrap_or_default() {
            let delay = self.random.delay(DISK);
            self.at(delay, Event::SpillWritten { rank, copy, bytes });
        }
        result
    }

    /// Whether a child of a rank holds an object.
    fn is_held_below(&self, rank: usize, key: &Key) -> bool {
        let host = &self.members[rank];
        let children = host.links.iter().filter(|(link, _)| !host.parents.contains(&Some(**link)));
        let mut children = children.map(|(_, &(child, _))| &self.members[child]);
        children.any(|child| child.alive && child.cache.holds(key))
    }

    fn spill_fails(&mut self) -> bool {
        let fails = self.plan.faults.spill_fails;
        fails > 0 && self.random.once_in(fails)
    }

    /// A copy is read back: as it was written, or garbage, or not at all.
    fn restore_ends(&mut self, rank: usize, pull: PullId, key: &Key, from: Spilled, into: Extent) {
        let disk = self.members[rank].disk.as_ref().expect("it was asked");
        let mut bytes = disk.read(from, into);
        if self.spill_fails() {
            let garbage = self.random.once_in(2);
            bytes = if garbage { Ok(Bytes::Garbage) } else { Err(PullFailure::Spill) };
        }
        let result = bytes.and_then(|bytes| {
            let arrived = self.arrived(rank, key, into, bytes, Some(from.checksum));
            arrived.map_err(|_| PullFailure::Spill)
        });
        self.handle(rank, Input::Pulled { pull, result }, None);
    }

    /// Applies one output; a copy's end is returned.
    fn apply(&mut self, rank: usize, output: Output, payload: Option<&Bytes>) -> Option<Input> {
        match output {
            Output::Send { link, message, payload } => {
                let bytes = payload.map(|extent| self.members[rank].memory[&extent.offset].clone());
                if let Some(&(to, their_link)) = self.members[rank].links.get(&link)
                    && !self.is_cut(rank, to)
                {
                    self.send(to, their_link, message, bytes);
                }
            }
            Output::Pull { pull, key, link, offset, into, checksum } => {
                self.members[rank].memory.insert(into.offset, Bytes::Garbage);
                let mut from =
                    self.members[rank].links.get(&link).map_or(usize::MAX, |&(to, _)| to);
                if self.is_cut(rank, from) || self.is_cut(from, rank) {
                    from = usize::MAX;
                }
                let stalls = self.plan.faults.pulls_stall;
                let delay = if stalls > 0 && self.random.once_in(stalls) {
                    PULL_BOUND + Duration::from_millis(self.random.below(5000))
                } else {
                    self.random.delay(TRANSFER)
                };
                self.at(
                    delay,
                    Event::PullEnds { rank, pull, from, link, offset, key, into, checksum },
                );
            }
            Output::Copy { pull, key, from, into, checksum } => {
                let bytes = match from {
                    CopyFrom::Message => payload.expect("the message had one").clone(),
                    CopyFrom::Source(job) => {
                        Bytes::Listing(self.members[rank].listings.remove(&job).expect("listed"))
                    }
                };
                let result = self.arrived(rank, &key, into, bytes, checksum);
                return Some(Input::Pulled { pull, result });
            }
            Output::Restore { pull, key, from, into } => {
                self.members[rank].memory.insert(into.offset, Bytes::Garbage);
                let disk = self.members[rank].disk.as_ref().expect("nothing else has copies");
                if let Some(bytes) = disk.staged(from) {
                    let result = self.arrived(rank, &key, into, bytes, Some(from.checksum));
                    return Some(Input::Pulled { pull, result });
                }
                let stalls = self.spill_fails() && self.random.once_in(4);
                let stall = if stalls { PULL_BOUND } else { Duration::ZERO };
                let delay = stall + self.random.delay(DISK);
                self.at(delay, Event::RestoreEnds { rank, pull, key, from, into });
            }
            Output::Source { job, key, request } => {
                if let SourceRequest::Block(into) = &request {
                    self.members[rank].memory.insert(into.offset, Bytes::Garbage);
                }
                self.report.held_below += u64::from(self.is_held_below(rank, &key));
                let delay = self.random.delay(SOURCE);
                self.at(delay, Event::SourceEnds { rank, job, key, request });
            }
            Output::Answer { ticket, result } => self.check_answer(rank, ticket, result),
            Output::Disconnect {
                link,
                violation: violation @ (Violation::Silent | Violation::Unreachable),
            } => {
                let excused = self.plan.faults.cuts > 0 || violation == Violation::Unreachable;
                assert!(
                    excused,
                    "rank {rank}: link {link} is silent, or a lease open for too long"
                );
                self.report.given_up += 1;
                self.parts(rank, link);
            }
            Output::Disconnect { link, violation } => {
                panic!("rank {rank} accuses link {link}: {violation}")
            }
            Output::Refreshed { epoch, scope: _, dropped } => {
                let taken = &mut self.members[rank].epoch;
                *taken = epoch.max(*taken);
                self.report.dropped += dropped.entries + dropped.directories + dropped.blocks;
            }
            Output::DropEncoded(job) => {
                self.members[rank].listings.remove(&job);
            }
        }
        None
    }

    fn send(&mut self, to: usize, link: LinkId, mut message: Message, payload: Option<Bytes>) {
        if let Message::Ask { epoch, .. } = &mut message
            && self.plan.ignore_epochs
        {
            *epoch = Epoch(0);
        }
        let arrives = self.now + self.random.delay(LATENCY);
        let wire = self.wires.entry((to, link)).or_default();
        wire.0 += 1;
        assert!(wire.0 <= RECEIVES_PER_CHILD, "more messages on a link than receives are posted");
        wire.1 = wire.1.max(arrives);
        let delay = wire.1.since(self.now);
        self.at(delay, Event::Message { to, link, message, payload });
    }

    /// Bytes have come into an extent: verified, and decoded if they are a directory.
    fn arrived(
        &mut self,
        rank: usize,
        key: &Key,
        into: Extent,
        bytes: Bytes,
        expected: Option<u64>,
    ) -> Result<u64, PullFailure> {
        let checksum = bytes.checksum();
        self.members[rank].memory.insert(into.offset, bytes.clone());
        if expected.is_some_and(|expected| expected != checksum) && !self.plan.ignore_checksums {
            return Err(PullFailure::Checksum);
        }
        if key.what == What::Directory {
            let Bytes::Listing(bytes) = bytes else { return Err(PullFailure::Malformed) };
            let directory = Directory::decode(&bytes).map_err(|_| PullFailure::Malformed)?;
            self.members[rank].decoded.insert(into.offset, Arc::new(directory));
        }
        Ok(expected.unwrap_or(checksum))
    }

    #[allow(clippy::too_many_arguments)]
    fn pull_ends(
        &mut self,
        rank: usize,
        pull: PullId,
        from: usize,
        link: LinkId,
        offset: u64,
        key: &Key,
        into: Extent,
        checksum: u64,
    ) {
        // The bytes are what the parent's memory holds when the transfer ends, whatever that is.
        let lost = from == usize::MAX || !self.members[from].alive;
        let unlinked = !self.members[rank].links.contains_key(&link);
        let result = if lost || unlinked {
            Err(PullFailure::Fabric)
        } else {
            let bytes = self.members[from].memory[&offset].clone();
            self.arrived(rank, key, into, bytes, Some(checksum))
        };
        self.handle(rank, Input::Pulled { pull, result }, None);
    }

    fn source_ends(&mut self, rank: usize, job: JobId, key: &Key, request: &SourceRequest) {
        let fails = self.plan.faults.source_fails;
        let result = if fails > 0 && self.random.once_in(fails) {
            Err(Errno::EIO)
        } else {
            *self.source_reads.entry(key.clone()).or_default() += 1;
            self.source_readers.insert(rank);
            let tree = self.forest.tree(owner(key, self.forest.count())).expect("one of them");
            self.report.reads_elsewhere += u64::from(tree.root() != Rank(rank as u32));
            self.source_answers(rank, job, key, request)
        };
        self.handle(rank, Input::Source { job, result }, None);
    }

    fn source_answers(
        &mut self,
        rank: usize,
        job: JobId,
        key: &Key,
        request: &SourceRequest,
    ) -> Result<SourceAnswer, Errno> {
        Ok(match request {
            SourceRequest::Entry => match self.source.entry(&key.path) {
                Some(entry) => SourceAnswer::Present(entry.clone()),
                None => SourceAnswer::Absent,
            },
            SourceRequest::Encoded => {
                let listing = self.source.listing(&key.path);
                let len = listing.len() as u32;
                self.members[rank].listings.insert(job, listing);
                SourceAnswer::Encoded(len)
            }
            SourceRequest::Block(into) => {
                if self.source.current(key.clone()) != *key {
                    return Err(Errno::ESTALE);
                }
                let bytes = Bytes::Block(checksum(key));
                let checksum = bytes.checksum();
                self.members[rank].memory.insert(into.offset, bytes);
                SourceAnswer::Block(checksum)
            }
            SourceRequest::Statistics => unreachable!("not wanted here"),
        })
    }

    // --- refreshes

    /// The root, if it lives, takes a refresh in and tells the others.
    fn wants_refresh(&mut self) {
        let tree = self.forest.tree(TreeIndex(0)).expect("every job has this one");
        let root = tree.root().0 as usize;
        if !self.members[root].alive {
            return;
        }
        let epoch = Epoch(self.refreshed.len() as u64 + 1);
        let path = self.random.pick(&self.source.keys).path.clone();
        let whole = self.random.once_in(3);
        let scope = Scope::new(if whole { ViewPath::root() } else { path });
        self.refreshed.insert(epoch, (scope.clone(), self.source.version()));
        self.handle(root, Input::Refresh { epoch, scope: scope.clone() }, None);
        if self.plan.disorder {
            for rank in (0..self.members.len()).filter(|&rank| rank != root) {
                let delay = Duration::from_micros(self.random.below(10_000));
                self.at(delay, Event::Refresh { rank, epoch, scope: scope.clone() });
            }
        } else {
            self.tell_children(root, epoch, &scope);
        }
    }

    fn tell_children(&mut self, rank: usize, epoch: Epoch, scope: &Scope) {
        let links = self.members[rank].links.values();
        let is_child =
            |&&(other, link): &&(usize, LinkId)| self.members[other].parents[0] == Some(link);
        let children: Vec<usize> = links.filter(is_child).map(|&(child, _)| child).collect();
        if self.plan.disorder {
            return;
        }
        for rank in children {
            let delay = self.random.delay(LATENCY);
            self.at(delay, Event::Refresh { rank, epoch, scope: scope.clone() });
        }
    }

    // --- faults

    fn is_cut(&self, from: usize, to: usize) -> bool {
        self.cut.get(&(from, to)).is_some_and(|&since| since <= self.now)
    }

    fn dies(&mut self, rank: usize) {
        if !std::mem::replace(&mut self.members[rank].alive, false) {
            return;
        }
        self.report.deaths += 1;
        for (_, (other, link)) in std::mem::take(&mut self.members[rank].links) {
            let delay = self.random.delay(LATENCY);
            self.at(delay, Event::Down { rank: other, link });
        }
    }

    /// A link is closed: at once here, a little later there.
    fn parts(&mut self, rank: usize, link: LinkId) {
        let Some(&(other, theirs)) = self.members[rank].links.get(&link) else { return };
        self.barred.insert((rank, other), self.now + BARRED);
        self.at(Duration::ZERO, Event::Down { rank, link });
        let delay = self.random.delay(LATENCY);
        self.at(delay, Event::Down { rank: other, link: theirs });
    }

    fn down(&mut self, rank: usize, link: LinkId) {
        if !self.members[rank].alive || self.members[rank].links.remove(&link).is_none() {
            return;
        }
        let lost = self.members[rank].parents.iter().position(|parent| *parent == Some(link));
        if let Some(lost) = lost {
            self.members[rank].parents[lost] = None;
            let tree = TreeIndex(lost as u32);
            let candidates = self.candidates(rank, tree);
            let delay = self.random.delay(Duration::from_millis(1));
            self.at(delay, Event::Dials { rank, tree, candidates });
        }
        self.handle(rank, Input::LinkDown { link }, None);
    }

    fn dials(&mut self, rank: usize, tree: TreeIndex, candidates: Vec<usize>) {
        if !self.members[rank].alive {
            return;
        }
        let barred =
            |to: usize| self.barred.get(&(rank, to)).is_some_and(|&until| self.now < until);
        let may_be = |to: usize| self.members[to].alive && !barred(to);
        let Some(&parent) = candidates.iter().find(|&&to| may_be(to)) else {
            self.handle(rank, Input::Orphaned { tree }, None);
            return;
        };
        let (up, down) = (LinkId(self.next_link), LinkId(self.next_link + 1));
        self.next_link += 2;
        self.members[rank].links.insert(up, (parent, down));
        self.members[rank].parents[tree.0 as usize] = Some(up);
        self.members[parent].links.insert(down, (rank, up));
        self.handle(parent, Input::ChildUp { tree, link: down, rank: Rank(rank as u32) }, None);
        self.handle(rank, Input::ParentUp { tree, link: up, rank: Rank(parent as u32) }, None);
        // What the child has missed, it is told by its new parent.
        let epoch = self.members[parent].member.epoch();
        if tree == TreeIndex(0) && self.members[rank].member.epoch() < epoch {
            let scope = Scope::new(ViewPath::root());
            let delay = self.random.delay(LATENCY);
            self.at(delay, Event::Refresh { rank, epoch, scope });
        }
    }

    // --- checks

    fn check_answer(&mut self, rank: usize, ticket: Ticket, result: Result<Outcome, Errno>) {
        let now = self.now;
        let reader = self.readers.get_mut(&ticket).expect("nobody else is answered");
        assert_eq!(reader.rank, rank);
        assert!(!std::mem::replace(&mut reader.answered, true), "{ticket} is answered twice");
        assert!(now <= reader.deadline, "{ticket} is answered after its deadline");
        let (key, floor) = (&reader.key, reader.floor);
        self.report.answers += 1;
        self.report.end = now;
        match result {
            Ok(Outcome::Present(entry)) => {
                assert!(self.source.was(&key.path, Some(&entry), floor), "{key:?} is too old");
            }
            Ok(Outcome::Absent(until)) => {
                assert!(self.source.was(&key.path, None, floor), "{key:?} exists");
                assert!(until > now, "the answer may be repeated for a while");
            }
            Ok(Outcome::Object(held)) => {
                let bytes = &self.members[rank].memory[&held.extent.offset];
                match (key.what, bytes) {
                    (What::Directory, Bytes::Listing(bytes)) => {
                        let listed = self.source.listed(&key.path, bytes, floor);
                        assert!(listed, "a listing of {key:?} is too old");
                    }
                    _ => {
                        assert_eq!(*bytes, Bytes::Block(checksum(key)), "wrong bytes of {key:?}");
                        assert!(self.source.had(key, floor), "bytes of {key:?} are too old");
                    }
                }
            }
            Ok(Outcome::Statistics(_)) => panic!("nobody asked for statistics"),
            Err(errno) => {
                if errno == Errno::ESTALE {
                    let current = self.source.current(key.clone());
                    assert_ne!(current, *key, "{key:?} has not changed");
                    return;
                }
                if errno == Errno::ENOENT && key.what == What::Directory {
                    return;
                }
                let faults = &self.plan.faults;
                let excused = faults.deaths + faults.pulls_stall + faults.source_fails > 0;
                let excused =
                    excused || self.plan.ignore_pins || self.plan.arena_bytes < BLOCK_BYTES.into();
                assert!(excused, "{key:?}: {errno} without a fault");
                let too_large = self.plan.arena_bytes < u64::from(BLOCK_BYTES);
                assert!(
                    matches!(errno, Errno::EIO | Errno::ETIMEDOUT)
                        || (errno == Errno::EFBIG && too_large),
                    "{key:?}: {errno} is nobody's error"
                );
                self.report.errors += 1;
            }
        }
    }

    /// Whatever a rank still holds is what the source has, or had: late bytes have spoiled nothing.
    fn check_what_is_held(&mut self) {
        for (rank, member) in self.members.iter_mut().enumerate().filter(|(_, member)| member.alive)
        {
            for key in self.source_reads.keys() {
                if let Some(held) = member.cache.object(key) {
                    let bytes = &member.memory[&held.extent.offset];
                    let right = match (key.what, bytes) {
                        (What::Directory, Bytes::Listing(bytes)) => {
                            self.source.listed(&key.path, bytes, Version::default())
                        }
                        _ => *bytes == Bytes::Block(checksum(key)),
                    };
                    assert!(right, "rank {rank} holds wrong bytes of {key:?}");
                }
            }
        }
    }

    fn check_the_end(&mut self) {
        self.check_what_is_held();
        for (ticket, reader) in &self.readers {
            let excused = reader.answered || !self.members[reader.rank].alive;
            assert!(
                excused,
                "{ticket} on rank {} never got an answer: {:?}",
                reader.rank, reader.key
            );
        }
        for (rank, host) in self.members.iter().enumerate().filter(|(_, host)| host.alive) {
            assert_eq!(host.member.gauges(), Gauges::default(), "rank {rank} is not idle");
            let counters = host.cache.counters();
            assert_eq!(counters.pinned_bytes, 0, "rank {rank} has pins left");
            assert!(counters.bytes <= counters.limit_bytes);
            assert!(host.listings.is_empty(), "rank {rank} keeps listings");
            let counters = host.member.counters();
            self.report.checksum_failures += counters.checksum_failures;
            self.report.quarantined += counters.quarantined;
            self.report.restored_bytes += counters.restored_bytes;
            self.report.spill_lost += counters.spill_lost;
            self.report.misses += counters.misses;
            self.report.recalled += counters.recalled;
            self.report.outdated += counters.outdated;
            assert!(host.decoded.is_empty(), "rank {rank} keeps decoded directories");
        }
        let of_large = |key: &&Key| key.path.as_bytes() == LARGE;
        self.report.fetched = self.source_reads.keys().filter(of_large).count() as u64;
        self.report.touched = self.touched.len() as u64;
        self.report.source_readers = self.source_readers.len();
        self.report.source_reads_max = self.source_reads.values().copied().max().unwrap_or(0);
        // Readers are answered by their deadlines; what was fetched ahead of them may begin late.
        let bound = Tick(0) + 4 * REQUEST_BOUND + ORPHAN_BOUND;
        assert!(self.now < bound, "it took until {:?}", self.now);
        const { assert!(BLOCK_BYTES == 1 << 20, "the plans' arenas are meant for this") };
    }
}
