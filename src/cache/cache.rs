//! The cache of one node.
//!
//! Eviction is S3-FIFO (Yang et al., SOSP 2023), which a scan cannot flush: a new object enters a
//! small queue; what is used again before its turn comes moves on to the main queue, the rest goes,
//! remembered by a ghost so that its return enters the main queue at once. The main queue gives
//! what was used since another round. Pinned objects, and those that somebody reads, are passed over.
//!
//! The number of objects is bounded too: their bookkeeping has its share of the memory, and many
//! small files would take more than that.

mod contents;

use std::collections::VecDeque;
use std::hash::BuildHasher;
use std::sync::Arc;

use copper_proto::store::Known;
use copper_proto::{Directory, Dropped, Extent, Held, Key, Scope, Tick, ViewPath, What};
use hashbrown::{DefaultHashBuilder, HashMap, HashSet, HashTable};

use crate::absences::Absences;
use crate::buddy::Buddy;
use crate::budget::{Budget, ENTRY_BYTES, OBJECT_BYTES, OBJECTS_MIN};
use crate::clock_map::ClockMap;
use crate::past::Past;

pub use contents::Contents;

/// The small queue's share of the arena: the paper's 10 %.
const SMALL_SHARE: u64 = 10;

/// Uses that are counted, as in the paper.
const USES_MAX: u8 = 3;

/// How a published extent is being used by readers that the cache cannot see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LocalUse {
    /// Not at all since it was last asked about.
    Idle,
    /// It has been read since, but nobody holds it now.
    Touched,
    /// Somebody holds it: it cannot go.
    InUse,
}

/// A published extent that may be the next to go.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    /// What lies there.
    pub key: &'a Key,
    /// Where, and its checksum.
    pub held: Held,
    /// A refresh has dropped it: it is nothing to keep elsewhere.
    pub dropped: bool,
}

/// What the cache has counted and what it holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheCounters {
    /// Published objects.
    pub blocks: u64,
    /// Bytes that extents take, rounding included.
    pub bytes: u64,
    /// Bytes of the arena.
    pub limit_bytes: u64,
    /// Bytes of pinned extents, rounding included.
    pub pinned_bytes: u64,
    /// Objects evicted so far.
    pub evicted_blocks: u64,
    /// Bytes of blocks that were published again after they had been evicted.
    pub refetched_bytes: u64,
    /// Objects that were fetched ahead and used later, so far.
    pub ahead_read: u64,
    /// Objects that were fetched ahead and evicted before they were used, so far.
    pub ahead_evicted: u64,
    /// Absences that hold for a time.
    pub absences: Absences,
    /// Decoded directory snapshots.
    pub directories: u64,
    /// Paths of which something is known.
    pub attributes: u64,
}

#[derive(Debug)]
struct Object {
    key: Key,
    held: Held,
    pins: u32,
    uses: u8,
    /// Fetched ahead, and not used yet.
    unread: bool,
    /// Dropped by a refresh while it could not go: nobody finds it any more.
    dropped: bool,
}

/// What one node holds.
#[derive(Debug)]
pub struct Cache {
    buddy: Buddy,
    /// By offset: what the queues and the pins name.
    objects: HashMap<u64, Object>,
    /// Of what may be found, the offsets, by their keys: the keys stand in `objects` alone.
    by_key: HashTable<u64>,
    hasher: DefaultHashBuilder,
    small: VecDeque<u64>,
    small_bytes: u64,
    main: VecDeque<u64>,
    objects_max: usize,
    ghosts: ClockMap<Key, ()>,
    past: Past,
    entries: ClockMap<ViewPath, Known>,
    absences: Absences,
    directories: ClockMap<ViewPath, Arc<Directory>>,
    pinned_bytes: u64,
    evicted: u64,
    refetched_bytes: u64,
    ahead_read: u64,
    ahead_evicted: u64,
}

impl Cache {
    /// A cache over an empty arena of `arena_bytes`, with all the tables that it can use.
    pub fn new(arena_bytes: u64) -> Cache {
        Cache::within(&Budget::around(arena_bytes))
    }

    /// A cache over an empty arena that keeps to `budget`, but for bounds without which it could not
    /// work.
    pub fn within(budget: &Budget) -> Cache {
        let bytes = |share: u64| usize::try_from(share).unwrap_or(usize::MAX);
        let arena = bytes(budget.arena);
        let buddy = Buddy::new(budget.arena);
        Cache {
            buddy,
            objects: HashMap::new(),
            by_key: HashTable::new(),
            hasher: DefaultHashBuilder::default(),
            small: VecDeque::new(),
            small_bytes: 0,
            main: VecDeque::new(),
            objects_max: bytes((budget.objects / OBJECT_BYTES).max(OBJECTS_MIN)),
            ghosts: ClockMap::new((arena / (64 << 10)).clamp(256, 65_536)),
            past: Past::new((arena / (2 << 10)).clamp(4096, 1 << 20)),
            entries: ClockMap::new(bytes(budget.entries.max(2 << 20))),
            absences: Absences::default(),
            directories: ClockMap::new(bytes(budget.directories.max(1 << 20))),
            pinned_bytes: 0,
            evicted: 0,
            refetched_bytes: 0,
            ahead_read: 0,
            ahead_evicted: 0,
        }
    }

    /// Counters and gauges.
    pub fn counters(&self) -> CacheCounters {
        CacheCounters {
            blocks: self.by_key.len() as u64,
            bytes: self.buddy.capacity_bytes() - self.buddy.free_bytes(),
            limit_bytes: self.buddy.capacity_bytes(),
            pinned_bytes: self.pinned_bytes,
            evicted_blocks: self.evicted,
            refetched_bytes: self.refetched_bytes,
            ahead_read: self.ahead_read,
            ahead_evicted: self.ahead_evicted,
            absences: self.absences,
            directories: self.directories.len() as u64,
            attributes: self.entries.len() as u64,
        }
    }

    /// What is known of a path, from its own entry or from its directory's snapshot.
    pub fn entry(&mut self, path: &ViewPath, now: Tick) -> Option<Known> {
        match self.entries.get(path.as_bytes()) {
            Some(Known::Present(entry)) => return Some(Known::Present(entry.clone())),
            Some(&Known::Absent(until)) if until > now => {
                self.absences.serve(until);
                return Some(Known::Absent(until));
            }
            Some(Known::Absent(_)) | None => {}
        }
        let bytes = path.as_bytes();
        let slash = bytes.iter().rposition(|&byte| byte == b'/');
        let (parent, name) = match slash {
            Some(slash) => (&bytes[..slash], &bytes[slash + 1..]),
            None => (&b""[..], bytes),
        };
        if name.is_empty() {
            return None;
        }
        let directory = self.directories.get(parent)?;
        match directory.find(name) {
            None => Some(Known::Absent(Tick::NEVER)),
            Some(index) => directory.get(index).and_then(|entry| entry.entry).map(Known::Present),
        }
    }

    /// Remembers what a path is.
    pub fn put_entry(&mut self, path: &ViewPath, known: Known) {
        let target = match &known {
            Known::Present(entry) => entry.target.as_ref().map_or(0, |target| target.len()),
            Known::Absent(_) => 0,
        };
        let weight = ENTRY_BYTES + path.as_bytes().len() + target;
        self.absences.learn(self.entries.get(path.as_bytes()), &known);
        self.entries.insert(path.clone(), known, weight);
    }

    /// The decoded snapshot of a directory.
    pub fn directory(&mut self, path: &ViewPath) -> Option<Arc<Directory>> {
        self.directories.get(path.as_bytes()).cloned()
    }

    /// Keeps a decoded snapshot.
    pub fn put_directory(&mut self, path: &ViewPath, directory: Arc<Directory>) {
        let weight = directory.memory_bytes() + path.as_bytes().len() + 128;
        self.directories.insert(path.clone(), directory, weight);
    }

    /// The extent that holds an object; counts as a use.
    pub fn object(&mut self, key: &Key) -> Option<Held> {
        let offset = self.offset(key)?;
        let object = self.objects.get_mut(&offset).expect("by_key names published objects");
        object.uses = (object.uses + 1).min(USES_MAX);
        self.ahead_read += u64::from(std::mem::take(&mut object.unread));
        Some(object.held)
    }

    /// Whether an object is held; no use of it.
    pub fn holds(&self, key: &Key) -> bool {
        self.offset(key).is_some()
    }

    fn offset(&self, key: &Key) -> Option<u64> {
        let is_it = |offset: &u64| self.objects[offset].key == *key;
        self.by_key.find(self.hasher.hash_one(key), is_it).copied()
    }

    /// A published extent was fetched ahead, and has no use yet.
    pub fn unread(&mut self, extent: Extent) {
        let object = self.objects.get_mut(&extent.offset).expect("it has just been published");
        object.unread = true;
    }

    /// Whether an extent of so many bytes could be had if nothing else were held.
    pub fn can_hold(&self, len: u32) -> bool {
        self.buddy.can_hold(len)
    }

    /// Reserves an extent. `local_use` says of a published extent whether it may go; when it
    /// answers `Idle` the extent is evicted, and the caller must forget it.
    pub fn allocate(
        &mut self,
        len: u32,
        mut local_use: impl FnMut(Candidate<'_>) -> LocalUse,
    ) -> Option<Extent> {
        // Each object is looked at no more often than its uses, its move and its last turn demand.
        let mut turns = self.objects.len() * (usize::from(USES_MAX) + 3);
        loop {
            if self.objects.len() < self.objects_max
                && let Some(offset) = self.buddy.allocate(len)
            {
                return Some(Extent { offset, len });
            }
            loop {
                turns = turns.checked_sub(1)?;
                if self.evict_next(&mut local_use)? {
                    break;
                }
            }
        }
    }

    /// Gives the next candidate its turn: whether it was evicted; `None` if nothing is held.
    fn evict_next(
        &mut self,
        local_use: &mut impl FnMut(Candidate<'_>) -> LocalUse,
    ) -> Option<bool> {
        let small_max = self.buddy.capacity_bytes() / SMALL_SHARE;
        let from_small =
            self.main.is_empty() || (self.small_bytes > small_max && !self.small.is_empty());
        let queue = if from_small { &mut self.small } else { &mut self.main };
        let offset = queue.pop_front()?;
        let object = self.objects.get_mut(&offset).expect("the queues name published objects");
        let space = Buddy::space(object.held.extent.len);
        if object.pins == 0 && object.uses <= u8::from(from_small) {
            let Object { key, held, dropped, .. } = object;
            match local_use(Candidate { key, held: *held, dropped: *dropped }) {
                LocalUse::Idle => {
                    if from_small {
                        self.small_bytes -= space;
                    }
                    self.evict(offset);
                    return Some(true);
                }
                LocalUse::Touched => object.uses = USES_MAX.min(object.uses + 2),
                LocalUse::InUse => {}
            }
        }
        if from_small && object.uses > 1 {
            object.uses = 0;
            self.small_bytes -= space;
            self.main.push_back(offset);
        } else {
            if !from_small {
                object.uses = object.uses.saturating_sub(1);
            }
            let queue = if from_small { &mut self.small } else { &mut self.main };
            queue.push_back(offset);
        }
        Some(false)
    }

    fn evict(&mut self, offset: u64) {
        let object = self.objects.remove(&offset).expect("the caller has looked it up");
        self.buddy.free(offset, object.held.extent.len);
        if object.dropped {
            // What is held under its key now is something else, and it is not missed.
            return;
        }
        let hash = self.hasher.hash_one(&object.key);
        let found = self.by_key.find_entry(hash, |other| *other == offset);
        found.expect("what is not dropped can be found").remove();
        self.past.note(&object.key);
        self.ghosts.insert(object.key, (), 1);
        self.evicted += 1;
        self.ahead_evicted += u64::from(object.unread);
    }

    /// Gives a reserved extent back.
    pub fn release(&mut self, extent: Extent) {
        assert!(!self.objects.contains_key(&extent.offset), "a published extent is not released");
        self.buddy.free(extent.offset, extent.len);
    }

    /// Publishes a reserved extent.
    pub fn publish(&mut self, key: &Key, held: Held) {
        let offset = held.extent.offset;
        assert!(!self.holds(key), "an object is held once");
        let object =
            Object { key: key.clone(), held, pins: 0, uses: 0, unread: false, dropped: false };
        let before = self.objects.insert(offset, object);
        assert!(before.is_none(), "an extent is published once");
        let (objects, hasher) = (&self.objects, &self.hasher);
        let hash = |offset: &u64| hasher.hash_one(&objects[offset].key);
        self.by_key.insert_unique(hash(&offset), offset, hash);
        if matches!(key.what, What::Block { .. }) && self.past.has(key) {
            self.refetched_bytes += u64::from(held.extent.len);
        }
        if self.ghosts.get(key).is_some() {
            self.main.push_back(offset);
        } else {
            self.small_bytes += Buddy::space(held.extent.len);
            self.small.push_back(offset);
        }
    }

    /// Forgets everything that a refresh covers. `may_go` says of a published extent that nobody has
    /// on lease whether it may go now, and the caller must forget it then; the others go by eviction,
    /// once they can.
    pub fn drop_within(
        &mut self,
        scope: &Scope,
        mut may_go: impl FnMut(&Key, Extent) -> bool,
    ) -> Dropped {
        let mut dropped = Dropped::default();
        self.entries.retain(|path, _| {
            let kept = !scope.holds(path) && !scope.is_above(path);
            dropped.entries += u64::from(!kept);
            kept
        });
        let mut directories: HashSet<ViewPath> = HashSet::new();
        self.directories.retain(|path, _| {
            let kept = !scope.holds(path) && !scope.is_above(path);
            if !kept {
                directories.insert(path.clone());
            }
            kept
        });
        let objects = &self.objects;
        let covered = |offset: &mut u64| scope.covers(&objects[offset].key);
        let covered: Vec<u64> = self.by_key.extract_if(covered).collect();
        let mut gone = HashSet::new();
        for offset in covered {
            let object = self.objects.get_mut(&offset).expect("by_key names published objects");
            let key = &object.key;
            let extent = object.held.extent;
            dropped.bytes += u64::from(extent.len);
            match key.what {
                What::Block { .. } => dropped.blocks += 1,
                What::Directory => drop(directories.insert(key.path.clone())),
                What::Entry
                | What::Statistics
                | What::ExtendedAttributes
                | What::DataRanges { .. } => dropped.entries += 1,
            }
            object.dropped = true;
            object.uses = 0;
            if object.pins == 0 && may_go(key, extent) {
                gone.insert(offset);
            }
        }
        dropped.directories = directories.len() as u64;
        self.free_dropped(&gone);
        dropped
    }

    fn free_dropped(&mut self, gone: &HashSet<u64>) {
        self.main.retain(|offset| !gone.contains(offset));
        for &offset in self.small.iter().filter(|offset| gone.contains(*offset)) {
            self.small_bytes -= Buddy::space(self.objects[&offset].held.extent.len);
        }
        self.small.retain(|offset| !gone.contains(offset));
        for &offset in gone {
            self.evict(offset);
        }
    }

    /// Keeps a published extent from eviction; counted.
    pub fn pin(&mut self, extent: Extent) {
        let object =
            self.objects.get_mut(&extent.offset).expect("only published extents are pinned");
        object.pins += 1;
        if object.pins == 1 {
            self.pinned_bytes += Buddy::space(extent.len);
        }
    }

    /// Takes one pin back.
    pub fn unpin(&mut self, extent: Extent) {
        let object = self.objects.get_mut(&extent.offset).expect("a pinned extent stays published");
        object.pins = object.pins.checked_sub(1).expect("every pin is taken back once");
        if object.pins == 0 {
            self.pinned_bytes -= Buddy::space(extent.len);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use copper_proto::{BlockIndex, Generation};

    const BLOCK: u32 = 1 << 20;

    fn key(index: u32) -> Key {
        let generation = Generation { size: u64::MAX, ..Generation::default() };
        let what = What::Block { index: BlockIndex(index), generation };
        Key { path: ViewPath::parse(b"file").expect("well-formed"), what }
    }

    fn put(cache: &mut Cache, index: u32) -> Option<Extent> {
        let extent = cache.allocate(BLOCK, |_| LocalUse::Idle)?;
        cache.publish(&key(index), Held { extent, checksum: 0 });
        Some(extent)
    }

    #[test]
    fn a_scan_does_not_flush_what_is_used() {
        let mut cache = Cache::new(20 * u64::from(BLOCK));
        for index in 0..10 {
            put(&mut cache, index).expect("room");
        }
        for _ in 0..2 {
            for index in 0..10 {
                assert!(cache.object(&key(index)).is_some());
            }
        }
        for index in 100..1000 {
            put(&mut cache, index).expect("the scan evicts itself");
        }
        let kept = (0..10).filter(|&index| cache.object(&key(index)).is_some()).count();
        assert_eq!(kept, 10);
    }

    #[test]
    fn pinned_and_held_extents_stay_and_the_rest_goes() {
        let mut cache = Cache::new(4 * u64::from(BLOCK));
        let extents: Vec<Extent> =
            (0..4).map(|index| put(&mut cache, index).expect("room")).collect();
        cache.pin(extents[0]);
        cache.pin(extents[0]);
        let held = extents[1];
        let use_of = |candidate: Candidate<'_>| {
            if candidate.held.extent == held { LocalUse::InUse } else { LocalUse::Idle }
        };
        assert!(cache.allocate(BLOCK, use_of).is_some());
        assert!(cache.allocate(BLOCK, use_of).is_some());
        assert_eq!(cache.allocate(BLOCK, use_of), None, "one is pinned, one is held");
        cache.unpin(extents[0]);
        assert_eq!(cache.allocate(BLOCK, use_of), None);
        assert_eq!(cache.counters().pinned_bytes, u64::from(BLOCK));
        cache.unpin(extents[0]);
        assert!(cache.allocate(BLOCK, use_of).is_some());
        assert_eq!((cache.counters().pinned_bytes, cache.counters().blocks), (0, 1));
    }

    #[test]
    fn what_a_refresh_drops_is_not_found_and_goes_when_nobody_has_it_on_lease() {
        let mut cache = Cache::new(4 * u64::from(BLOCK));
        let extents: Vec<Extent> =
            (0..4).map(|index| put(&mut cache, index).expect("room")).collect();
        cache.pin(extents[0]);
        let path = ViewPath::parse(b"file").expect("well-formed");
        cache.put_entry(&path, Known::Absent(Tick::NEVER));
        let read = extents[1];
        let dropped = cache.drop_within(&Scope::new(path.clone()), |_, extent| extent != read);
        let bytes = 4 * u64::from(BLOCK);
        assert_eq!(dropped, Dropped { entries: 1, directories: 0, blocks: 4, bytes });
        assert_eq!(cache.entry(&path, Tick(0)), None);
        assert!((0..4).all(|index| cache.object(&key(index)).is_none()));
        assert_eq!(cache.counters().bytes, 2 * u64::from(BLOCK), "two could not go");
        // The same keys again, in the room that is free, and in that of what could not go then.
        put(&mut cache, 0).expect("room");
        put(&mut cache, 1).expect("room");
        assert!(cache.object(&key(0)).is_some());
        cache.unpin(extents[0]);
        put(&mut cache, 2).expect("room");
        put(&mut cache, 3).expect("room");
        assert!((0..4).all(|index| cache.object(&key(index)).is_some()));
        let elsewhere = Scope::new(ViewPath::parse(b"fil").expect("well-formed"));
        assert_eq!(cache.drop_within(&elsewhere, |_, _| true), Dropped::default());
    }

    #[test]
    fn what_was_read_since_gets_another_round() {
        let mut cache = Cache::new(2 * u64::from(BLOCK));
        put(&mut cache, 0).expect("room");
        put(&mut cache, 1).expect("room");
        let mut asked = 0;
        let extent = cache.allocate(BLOCK, |candidate| {
            asked += 1;
            if candidate.held.extent.offset == 0 && asked == 1 {
                LocalUse::Touched
            } else {
                LocalUse::Idle
            }
        });
        assert!(extent.is_some());
        assert!(cache.object(&key(0)).is_some() && cache.object(&key(1)).is_none());
    }

    #[test]
    fn the_number_of_objects_is_bounded_and_the_oldest_make_room() {
        let mut cache = Cache::new(48 << 20);
        for index in 0..12_000 {
            let extent = cache.allocate(100, |_| LocalUse::Idle).expect("room");
            cache.publish(&key(index), Held { extent, checksum: 0 });
        }
        let counters = cache.counters();
        assert_eq!(counters.blocks, OBJECTS_MIN, "12,000 extents would fit");
        assert_eq!(counters.evicted_blocks, 12_000 - OBJECTS_MIN);
    }

    #[test]
    fn what_comes_again_after_it_has_gone_is_counted_and_nothing_else() {
        let mut cache = Cache::new(2 * u64::from(BLOCK));
        for index in [0, 1, 2, 3] {
            put(&mut cache, index).expect("room");
        }
        assert_eq!(cache.counters().refetched_bytes, 0);
        let before = cache.counters().evicted_blocks;
        let gone = (0..4).find(|&index| cache.object(&key(index)).is_none()).expect("two are");
        put(&mut cache, gone).expect("room");
        assert_eq!(cache.counters().refetched_bytes, u64::from(BLOCK));
        assert_eq!(cache.counters().evicted_blocks, before + 1);
    }

    #[test]
    fn small_files_make_room_for_a_block() {
        let mut cache = Cache::new(2 * u64::from(BLOCK));
        for index in 0..512 {
            let extent = cache.allocate(3000, |_| LocalUse::Idle).expect("room");
            cache.publish(&key(index), Held { extent, checksum: 0 });
        }
        assert!(put(&mut cache, 1000).is_some());
        assert!(cache.counters().blocks >= 257, "no more went than needed");
    }
}
