//! One rank: the protocol's member, the daemon's cache, and which object lies in which extent.

use std::collections::BTreeMap;

use copper_cache::{Cache, LocalUse};
use copper_proto::limits::EXTENT_BYTES_MIN;
use copper_proto::node::SourceUse;
use copper_proto::store::{Known, Store};
use copper_proto::topology::Tree;
use copper_proto::{
    Dropped, Extent, FilePolicy, Forest, Held, Key, LinkId, Member, Rank, ReadAhead, Scope,
    Spilled, Tick, ViewPath,
};
use hashbrown::{HashMap, HashSet};

use super::Plan;
use super::program::Program;
use super::random::Random;
use super::readers::Readers;

/// One end of a link.
#[derive(Clone, Copy, Debug)]
pub(super) struct Link {
    /// Who is at the other end, and its name for the link.
    pub(super) other: usize,
    pub(super) theirs: LinkId,
    /// Messages on their way to this end, and when the last one arrives.
    pub(super) coming: u32,
    pub(super) arrived: Tick,
}

/// What has been done in one folder of the program.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct FolderUse {
    pub(super) lookups: u32,
    pub(super) reads: u32,
}

#[derive(Debug)]
pub(super) struct Host {
    pub(super) alive: bool,
    /// How often it has come back.
    pub(super) life: u32,
    pub(super) member: Member,
    pub(super) cache: Cache,
    pub(super) ahead: ReadAhead,
    pub(super) memory: Memory,
    pub(super) links: BTreeMap<LinkId, Link>,
    /// By tree.
    pub(super) parents: Vec<Option<LinkId>>,
    /// When it is looked at again without a reason.
    pub(super) wakes: Tick,
    pub(super) readers: Readers,
    pub(super) folders: Box<[FolderUse]>,
    /// Objects that it held and does not hold any more.
    pub(super) evicted: HashSet<u32>,
    /// Questions to its parents, and messages between them and it.
    pub(super) asks: u64,
    pub(super) messages: u64,
    /// Links to parents that it has opened.
    pub(super) opened: u64,
}

impl Host {
    pub(super) fn new(
        rank: usize,
        plan: &Plan,
        forest: &Forest,
        folders: usize,
        now: Tick,
        random: &mut Random,
    ) -> Host {
        let files = FilePolicy::default();
        let rank = Rank(rank as u32);
        let source_use = |tree: Tree| match tree.root() == rank {
            true => SourceUse::Root,
            false if tree.is_successor(rank) => SourceUse::Successor,
            false => SourceUse::Fallback,
        };
        let uses: Vec<SourceUse> = forest.trees().map(|(_, tree)| source_use(tree)).collect();
        Host {
            alive: true,
            life: 0,
            member: Member::new(&uses, files, now),
            cache: Cache::new(plan.arena_bytes),
            ahead: ReadAhead::new(plan.arena_bytes, files.whole_up_to),
            memory: Memory::default(),
            links: BTreeMap::new(),
            parents: vec![None; uses.len()],
            wakes: Tick::NEVER,
            readers: Readers::new(plan.processes.get(), &plan.constants, now, random),
            folders: vec![FolderUse::default(); folders].into(),
            evicted: HashSet::new(),
            asks: 0,
            messages: 0,
            opened: 0,
        }
    }

    /// Gives the member its store, and the moment's work.
    pub(super) fn with_store<T>(
        &mut self,
        program: &Program,
        act: impl FnOnce(&mut Member, &mut Shelf<'_>) -> T,
    ) -> T {
        let Host { cache, memory, evicted, .. } = self;
        let mut shelf = Shelf { cache, memory, evicted, program };
        act(&mut self.member, &mut shelf)
    }

    /// Its memory is gone with it.
    pub(super) fn dies(&mut self) {
        self.alive = false;
        self.cache = Cache::new(0);
        self.memory = Memory::default();
    }
}

/// Which object lies in which extent; the bytes themselves are nowhere.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// By the extent's first page.
    objects: HashMap<u32, u32>,
}

impl Memory {
    pub(super) fn get(&self, offset: u64) -> Option<u32> {
        self.objects.get(&page(offset)).copied()
    }

    pub(super) fn put(&mut self, offset: u64, object: u32) {
        self.objects.insert(page(offset), object);
    }

    fn clear(&mut self, offset: u64) -> Option<u32> {
        self.objects.remove(&page(offset))
    }
}

fn page(offset: u64) -> u32 {
    u32::try_from(offset / u64::from(EXTENT_BYTES_MIN)).expect("an arena of less than 16 TiB")
}

/// The cache as the member sees it.
pub(super) struct Shelf<'a> {
    cache: &'a mut Cache,
    memory: &'a mut Memory,
    evicted: &'a mut HashSet<u32>,
    program: &'a Program,
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
        let Shelf { memory, evicted, .. } = self;
        // What readers hold is in the kernel's pages: nothing that is not pinned is in use here.
        let extent = self.cache.allocate(len, |candidate| {
            evicted.extend(memory.clear(candidate.held.extent.offset));
            LocalUse::Idle
        })?;
        memory.clear(extent.offset);
        Some(extent)
    }
    fn release(&mut self, extent: Extent) {
        self.memory.clear(extent.offset);
        self.cache.release(extent);
    }
    fn drop_within(&mut self, scope: &Scope) -> Dropped {
        self.cache.drop_within(scope, |_, _| true)
    }
    fn publish(&mut self, key: &Key, held: Held) {
        let object = self.memory.get(held.extent.offset).expect("what is published has come");
        let object = self.program.objects.get(object as usize);
        if let Some(directory) = object.and_then(|object| object.directory.as_ref()) {
            self.cache.put_directory(&key.path, directory.clone());
        }
        self.cache.publish(key, held);
    }
    fn unread(&mut self, extent: Extent) {
        self.cache.unread(extent);
    }
    fn pin(&mut self, extent: Extent) {
        self.cache.pin(extent);
    }
    fn unpin(&mut self, extent: Extent) {
        self.cache.unpin(extent);
    }
    fn spilled(&self, _: &Key) -> Option<u32> {
        None
    }
    fn begin_restore(&mut self, _: &Key) -> Option<Spilled> {
        None
    }
    fn end_restore(&mut self, _: Spilled, _: bool) {
        unreachable!("there is no spill")
    }
}
