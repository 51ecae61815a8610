//! Which evicted object lies where in the spill file.
//!
//! A copy is there from the moment that its object is evicted: until it has been written, whoever writes
//! it has its bytes. First in, first out; one that is being written or read stays where it is until
//! that has ended, whatever becomes of its key. An object that is evicted again is not written again.
//!
//! A range that could not be written is not used again: on a file system that is full the file becomes
//! as large as it can be, and its oldest copies make room.

use std::collections::BTreeMap;

use copper_proto::{Held, Key, Scope, Spilled};
use hashbrown::HashMap;

use crate::buddy::Buddy;
use crate::budget::SPILLED_BYTES;

/// Copies make room for a new one until they have taken so many times its space: in a file that is cut
/// up, the next one finds the rest.
const ROOM_TIMES: u64 = 16;

/// What the spill holds, and what could not be kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SpillCounters {
    /// Bytes of the file that copies take, rounding included.
    pub bytes: u64,
    /// Bytes of the file that can be written.
    pub limit_bytes: u64,
    /// Bytes written so far.
    pub written_bytes: u64,
    /// Evicted objects that were not kept so far: there was no room, or they could not be written.
    pub dropped: u64,
}

#[derive(Debug)]
struct Copy {
    key: Key,
    len: u32,
    checksum: u64,
    /// Its place in the order of going.
    turn: u64,
    /// It could not be written.
    bad: bool,
    /// Reads under way, and the write.
    pins: u32,
    /// Nobody finds it any more: it goes when nothing is under way.
    forgotten: bool,
}

/// The copies in one spill file.
#[derive(Debug)]
pub struct Spill {
    buddy: Buddy,
    /// By offset.
    copies: HashMap<u64, Copy>,
    by_key: HashMap<Key, u64>,
    order: BTreeMap<u64, u64>,
    next_turn: u64,
    table_bytes: u64,
    table_bytes_max: u64,
    bad_bytes: u64,
    written_bytes: u64,
    dropped: u64,
}

impl Spill {
    /// An empty file that may become `file_bytes` long, and a table of at most `table_bytes`.
    pub fn new(file_bytes: u64, table_bytes: u64) -> Spill {
        Spill {
            buddy: Buddy::new(file_bytes),
            copies: HashMap::new(),
            by_key: HashMap::new(),
            order: BTreeMap::new(),
            next_turn: 0,
            table_bytes: 0,
            table_bytes_max: table_bytes,
            bad_bytes: 0,
            written_bytes: 0,
            dropped: 0,
        }
    }

    /// Counters and gauges.
    pub fn counters(&self) -> SpillCounters {
        let capacity = self.buddy.capacity_bytes();
        SpillCounters {
            bytes: capacity - self.buddy.free_bytes() - self.bad_bytes,
            limit_bytes: capacity - self.bad_bytes,
            written_bytes: self.written_bytes,
            dropped: self.dropped,
        }
    }

    /// Whether there is a copy of exactly this object. Another one under the same key is
    /// older, and forgotten.
    pub fn has_kept(&mut self, key: &Key, held: Held) -> bool {
        let Some(&offset) = self.by_key.get(key) else { return false };
        let copy = &self.copies[&offset];
        let same = copy.len == held.extent.len && copy.checksum == held.checksum;
        if !same {
            self.forget(key);
        }
        same
    }

    /// A place for an evicted object, of which there is no copy; it is to be written, and
    /// [`Spill::written`] to be told. `None` if there is no room.
    pub fn keep(&mut self, key: &Key, held: Held) -> Option<Spilled> {
        assert!(!self.by_key.contains_key(key), "an object has one copy");
        let weight = weight(key);
        let Some(offset) = self.allocate(held.extent.len, weight) else {
            self.dropped += 1;
            return None;
        };
        let turn = self.next_turn;
        self.next_turn += 1;
        self.order.insert(turn, offset);
        self.by_key.insert(key.clone(), offset);
        self.table_bytes += weight;
        let Held { extent, checksum } = held;
        let (key, len) = (key.clone(), extent.len);
        let copy = Copy { key, len, checksum, turn, bad: false, pins: 1, forgotten: false };
        self.copies.insert(offset, copy);
        Some(Spilled { offset, len, checksum })
    }

    fn allocate(&mut self, len: u32, weight: u64) -> Option<u64> {
        let mut oldest = 0;
        let mut room = ROOM_TIMES * Buddy::space(len);
        loop {
            if self.table_bytes + weight <= self.table_bytes_max
                && let Some(offset) = self.buddy.allocate(len)
            {
                return Some(offset);
            }
            // What is being written or read keeps its turn, and is passed over.
            let (turn, offset) = loop {
                let (&turn, &offset) = self.order.range(oldest..).next()?;
                if self.copies[&offset].pins == 0 {
                    break (turn, offset);
                }
                oldest = turn + 1;
            };
            oldest = turn + 1;
            let copy = &self.copies[&offset];
            room = room.checked_sub(Buddy::space(copy.len))?;
            let key = copy.key.clone();
            self.forget(&key);
        }
    }

    /// An evicted object was not kept: nothing could take its bytes.
    pub fn drop_one(&mut self) {
        self.dropped += 1;
    }

    /// The writing of a copy has ended.
    pub fn written(&mut self, spilled: Spilled, well: bool) {
        let copy = self.copies.get_mut(&spilled.offset).expect("a copy stays while it is written");
        copy.bad = !well;
        if well {
            self.written_bytes += u64::from(spilled.len);
        } else {
            self.dropped += 1;
            self.forget_at(spilled.offset);
        }
        self.unpin(spilled.offset);
    }

    /// The length of the copy of an object that can be read back.
    pub fn spilled(&self, key: &Key) -> Option<u32> {
        Some(self.copies[self.by_key.get(key)?].len)
    }

    /// The copy of an object is about to be read: it stays until [`Spill::end_read`].
    pub fn begin_read(&mut self, key: &Key) -> Option<Spilled> {
        let &offset = self.by_key.get(key)?;
        let copy = self.copies.get_mut(&offset).expect("by_key names copies");
        copy.pins += 1;
        Some(Spilled { offset, len: copy.len, checksum: copy.checksum })
    }

    /// The reading of a copy has ended; one that was not read well is forgotten.
    pub fn end_read(&mut self, spilled: Spilled, well: bool) {
        if !well {
            self.forget_at(spilled.offset);
        }
        self.unpin(spilled.offset);
    }

    /// Forgets everything that a refresh covers.
    pub fn drop_within(&mut self, scope: &Scope) {
        let covered = self.by_key.keys().filter(|key| scope.covers(key));
        for key in covered.cloned().collect::<Vec<_>>() {
            self.forget(&key);
        }
    }

    fn forget(&mut self, key: &Key) {
        let offset = self.by_key[key];
        self.forget_at(offset);
        if self.copies[&offset].pins == 0 {
            self.free(offset);
        }
    }

    /// Nobody finds it any more.
    fn forget_at(&mut self, offset: u64) {
        let copy = self.copies.get_mut(&offset).expect("the caller has looked it up");
        if !std::mem::replace(&mut copy.forgotten, true) {
            self.by_key.remove(&copy.key);
            self.order.remove(&copy.turn);
        }
    }

    fn unpin(&mut self, offset: u64) {
        let copy = self.copies.get_mut(&offset).expect("the caller has looked it up");
        copy.pins = copy.pins.checked_sub(1).expect("every pin is taken back once");
        if copy.pins == 0 && copy.forgotten {
            self.free(offset);
        }
    }

    fn free(&mut self, offset: u64) {
        let copy = self.copies.remove(&offset).expect("the caller has looked it up");
        self.table_bytes -= weight(&copy.key);
        if copy.bad {
            self.bad_bytes += Buddy::space(copy.len);
        } else {
            self.buddy.free(offset, copy.len);
        }
    }
}

fn weight(key: &Key) -> u64 {
    SPILLED_BYTES + key.path.as_bytes().len() as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use copper_proto::{BlockIndex, Extent, Generation, ViewPath, What};

    const BLOCK: u32 = 1 << 20;

    fn key(index: u32) -> Key {
        let generation = Generation { size: u64::MAX, ..Generation::default() };
        let what = What::Block { index: BlockIndex(index), generation };
        Key { path: ViewPath::parse(b"file").expect("well-formed"), what }
    }

    fn held(checksum: u64) -> Held {
        Held { extent: Extent { offset: 0, len: BLOCK }, checksum }
    }

    fn put(spill: &mut Spill, index: u32) -> Option<Spilled> {
        let spilled = spill.keep(&key(index), held(index.into()))?;
        spill.written(spilled, true);
        Some(spilled)
    }

    fn of(blocks: u64) -> Spill {
        Spill::new(blocks * u64::from(BLOCK), 1 << 20)
    }

    fn there(spill: &Spill, count: u32) -> Vec<u32> {
        (0..count).filter(|&index| spill.spilled(&key(index)).is_some()).collect()
    }

    #[test]
    fn the_oldest_goes_first_but_for_what_is_being_written_or_read() {
        let mut spill = of(4);
        let writing = spill.keep(&key(0), held(0)).expect("room");
        for index in 1..4 {
            put(&mut spill, index).expect("room");
        }
        let reading = spill.begin_read(&key(1)).expect("there");
        for index in 4..6 {
            put(&mut spill, index).expect("the oldest that can go makes room");
        }
        assert_eq!(there(&spill, 6), [0, 1, 4, 5], "2 and 3 made room");
        spill.written(writing, true);
        spill.end_read(reading, true);
        put(&mut spill, 6).expect("room");
        put(&mut spill, 7).expect("room");
        assert_eq!(there(&spill, 8), [4, 5, 6, 7]);
        let counters = spill.counters();
        let bytes = 4 * u64::from(BLOCK);
        assert_eq!((counters.bytes, counters.limit_bytes, counters.dropped), (bytes, bytes, 0));
        assert_eq!(counters.written_bytes, 2 * bytes);
    }

    #[test]
    fn nothing_is_kept_when_all_that_is_there_is_being_read() {
        let mut spill = of(2);
        for index in 0..2 {
            put(&mut spill, index).expect("room");
        }
        let reads = [0, 1].map(|index| spill.begin_read(&key(index)).expect("there"));
        assert_eq!(put(&mut spill, 2), None);
        assert_eq!(spill.counters().dropped, 1);
        for read in reads {
            spill.end_read(read, true);
        }
        assert!(put(&mut spill, 2).is_some());
        assert_eq!(there(&spill, 3), [1, 2]);
    }

    #[test]
    fn a_copy_is_written_once_and_again_only_if_the_object_is_another() {
        let mut spill = of(4);
        let first = spill.keep(&key(0), held(7)).expect("room");
        assert!(spill.has_kept(&key(0), held(7)));
        assert_eq!(spill.spilled(&key(0)), Some(BLOCK), "although it is being written");
        assert!(!spill.has_kept(&key(0), held(8)), "that is another object");
        let second = spill.keep(&key(0), held(8)).expect("room");
        assert_ne!(first.offset, second.offset, "the first is still being written");
        spill.written(second, true);
        spill.written(first, true);
        assert_eq!(spill.begin_read(&key(0)), Some(second));
        assert_eq!(spill.counters().bytes, u64::from(BLOCK), "the first is gone");
    }

    #[test]
    fn a_copy_that_is_bad_or_was_refreshed_is_not_found_again() {
        let mut spill = of(4);
        for index in 0..4 {
            put(&mut spill, index).expect("room");
        }
        let read = spill.begin_read(&key(0)).expect("there");
        spill.end_read(read, false);
        assert_eq!(there(&spill, 4), [1, 2, 3]);
        let read = spill.begin_read(&key(1)).expect("there");
        spill.drop_within(&Scope::new(ViewPath::parse(b"elsewhere").expect("well-formed")));
        assert_eq!(there(&spill, 4), [1, 2, 3]);
        spill.drop_within(&Scope::new(ViewPath::root()));
        assert_eq!(there(&spill, 4), []);
        assert_eq!(spill.counters().bytes, u64::from(BLOCK), "one is still being read");
        spill.end_read(read, true);
        assert_eq!(spill.counters().bytes, 0);
        assert_eq!(there(&spill, 4), []);
    }

    #[test]
    fn a_range_that_cannot_be_written_is_not_used_again() {
        let mut spill = of(4);
        put(&mut spill, 0).expect("room");
        for index in 1..4 {
            let spilled = spill.keep(&key(index), held(0)).expect("room");
            spill.written(spilled, false);
        }
        let counters = spill.counters();
        let block = u64::from(BLOCK);
        assert_eq!((counters.bytes, counters.limit_bytes, counters.dropped), (block, block, 3));
        put(&mut spill, 4).expect("the oldest makes room in what can be written");
        assert_eq!(there(&spill, 5), [4]);
    }

    #[test]
    fn the_table_is_bounded_too() {
        let mut spill = Spill::new(1 << 30, 10 * weight(&key(0)));
        for index in 0..100 {
            put(&mut spill, index).expect("the oldest makes room");
        }
        assert_eq!(there(&spill, 100), (90..100).collect::<Vec<_>>());
    }
}
