//! What the readers of large files will want next, told from what they have wanted.
//!
//! A rank hears of the first touch of each block, and of no other: what comes after it is answered
//! without the engine. That is enough to tell where a reader is, and nothing is fetched ahead of a
//! reader who does not read on.
//!
//! ```text
//! touch ─▶ near a stream's place ───────────────▶ the stream moves on, its window doubles
//!       ├▶ one after a recent touch ────────────▶ a sequential stream begins
//!       ├▶ the fourth of equal steps, also back ▶ a strided stream begins
//!       └▶ none of these ───────────────────────▶ remembered; nothing is fetched
//! ```
//! Within its window a sequential stream takes touches in any order: the kernel's own read-ahead and
//! the faults of a mapping do not come in order. Files that are fetched whole are not watched:
//! they are fetched whole.

use std::collections::VecDeque;

use crate::key::{BlockIndex, Generation, ViewPath};
use crate::limits::{
    AHEAD_BLOCKS_FIRST, AHEAD_BLOCKS_MAX, AHEAD_SHARE, BLOCK_BYTES, WATCHED_FILES_MAX,
    WATCHED_STREAMS_MAX, WATCHED_TOUCHES_MAX,
};

/// A stream that has not moved for so many touches does not count any more: its reader has gone.
const LIVE_TOUCHES: u64 = 64;

/// Where the readers of one rank are, and where they seem to go.
#[derive(Debug)]
pub struct ReadAhead {
    /// What all streams together may have fetched ahead, in blocks.
    blocks_max: u32,
    /// Files up to this size, in bytes, are not watched.
    whole_up_to: u64,
    /// The one that was read last is the last.
    files: VecDeque<Watched>,
    /// Touches so far.
    touches: u64,
}

#[derive(Debug)]
struct Watched {
    path: ViewPath,
    generation: Generation,
    /// Touches of no stream, the oldest first.
    recent: VecDeque<i64>,
    streams: Vec<Stream>,
}

#[derive(Debug)]
struct Stream {
    /// 1, or the steps of a strided reader, which may go back.
    step: i64,
    /// The furthest block touched.
    place: i64,
    /// Steps that are fetched ahead.
    window: u32,
    /// When it was touched last, in touches.
    touched: u64,
}

impl ReadAhead {
    /// For a rank with an arena of so many bytes, where files up to `whole_up_to` bytes are fetched
    /// whole.
    pub fn new(arena_bytes: u64, whole_up_to: u64) -> ReadAhead {
        let blocks = arena_bytes / AHEAD_SHARE / u64::from(BLOCK_BYTES);
        let blocks_max = u32::try_from(blocks).unwrap_or(u32::MAX).max(1);
        ReadAhead { blocks_max, whole_up_to, files: VecDeque::new(), touches: 0 }
    }

    /// A reader wants the blocks from `first` to `last` of a file, and they were not shown before:
    /// what is to be fetched ahead of it, nearest first. Some of it may be held already, or be on
    /// its way.
    pub fn on_read(
        &mut self,
        path: &ViewPath,
        generation: Generation,
        first: BlockIndex,
        last: BlockIndex,
    ) -> impl Iterator<Item = BlockIndex> + use<> {
        let blocks = i64::from(generation.size.div_ceil(BLOCK_BYTES.into()).min(1 << 32) as u32);
        let mut next = (0, 1, 0);
        if generation.size > self.whole_up_to {
            self.touches += 1;
            let touches = self.touches;
            let share = self.share();
            let file = self.watched(path, generation);
            if let Some(stream) = file.touched(i64::from(first.0), i64::from(last.0), touches) {
                let first = if stream.step == 1 { AHEAD_BLOCKS_FIRST } else { 1 };
                stream.window = (2 * stream.window).max(first).min(share);
                next = (stream.place, stream.step, i64::from(stream.window));
            }
        }
        let (place, step, window) = next;
        (1..=window)
            .map(move |count| place + count * step)
            .take_while(move |index| (0..blocks).contains(index))
            .filter_map(|index| u32::try_from(index).ok().map(BlockIndex))
    }

    /// The window that a stream may have beside the others that are read now.
    fn share(&self) -> u32 {
        let live = |stream: &&Stream| stream.touched + LIVE_TOUCHES > self.touches;
        let streams = self.files.iter().flat_map(|file| &file.streams).filter(live).count();
        let streams = u32::try_from(streams).unwrap_or(u32::MAX).max(1);
        (self.blocks_max / streams).clamp(1, AHEAD_BLOCKS_MAX)
    }

    fn watched(&mut self, path: &ViewPath, generation: Generation) -> &mut Watched {
        let known = |file: &Watched| file.generation == generation && file.path == *path;
        let file = match self.files.iter().rposition(known) {
            Some(index) => self.files.remove(index).expect("just found"),
            None => {
                if self.files.len() == WATCHED_FILES_MAX {
                    self.files.pop_front();
                }
                let (recent, streams) = (VecDeque::new(), Vec::new());
                Watched { path: path.clone(), generation, recent, streams }
            }
        };
        self.files.push_back(file);
        self.files.back_mut().expect("just put there")
    }
}

impl Watched {
    /// Takes in a touch: the stream that it has moved on or begun.
    fn touched(&mut self, first: i64, last: i64, now: u64) -> Option<&mut Stream> {
        let near =
            self.streams.iter().enumerate().filter(|(_, stream)| stream.reaches(first, last));
        if let Some((index, _)) = near.min_by_key(|(_, stream)| stream.place.abs_diff(first)) {
            let stream = &mut self.streams[index];
            stream.touched = now;
            let moves = if stream.step == 1 { last > stream.place } else { first != stream.place };
            return moves.then(|| {
                stream.place = last;
                stream
            });
        }
        if self.recent.contains(&last) {
            return None;
        }
        let step = self.step(first);
        if self.recent.len() == WATCHED_TOUCHES_MAX {
            self.recent.pop_front();
        }
        self.recent.push_back(last);
        let step = step?;
        if self.streams.len() == WATCHED_STREAMS_MAX {
            let oldest = (0..self.streams.len()).min_by_key(|&index| self.streams[index].touched);
            self.streams.swap_remove(oldest.expect("there are some"));
        }
        self.streams.push(Stream { step, place: last, window: 0, touched: now });
        self.streams.last_mut()
    }

    /// The step by which a reader has come here, if its last touches say so.
    fn step(&self, to: i64) -> Option<i64> {
        if self.recent.contains(&(to - 1)) {
            return Some(1);
        }
        // Interleaved readers, and random ones: all recent touches are looked at, in their order.
        let before = |end: usize, wanted: i64| (0..end).rev().find(|&at| self.recent[at] == wanted);
        (0..self.recent.len()).rev().find_map(|third| {
            let step = to - self.recent[third];
            let second = before(third, to - 2 * step)?;
            before(second, to - 3 * step).map(|_| step)
        })
    }
}

impl Stream {
    /// Whether a touch of these blocks is this stream's.
    fn reaches(&self, first: i64, last: i64) -> bool {
        if self.step == 1 {
            let window = i64::from(self.window.max(1));
            last >= self.place - window && first <= self.place + window
        } else {
            first == self.place + self.step || first == self.place
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::WHOLE_FILE_BYTES;
    use std::collections::BTreeSet;

    const MIB: u64 = 1 << 20;
    const FILE_BLOCKS: u32 = 1000;

    struct Rank {
        ahead: ReadAhead,
        fetched: BTreeSet<u32>,
    }

    impl Rank {
        fn new(arena_bytes: u64) -> Rank {
            Rank { ahead: ReadAhead::new(arena_bytes, WHOLE_FILE_BYTES), fetched: BTreeSet::new() }
        }

        /// What a touch of one block brings.
        fn read(&mut self, name: &str, block: u32) -> Vec<u32> {
            self.read_some(name, block, block)
        }

        fn read_some(&mut self, name: &str, first: u32, last: u32) -> Vec<u32> {
            let path = ViewPath::parse(name.as_bytes()).expect("well-formed");
            let size = u64::from(FILE_BLOCKS) * MIB;
            let generation = Generation { size, ..Generation::default() };
            let next = self.ahead.on_read(&path, generation, BlockIndex(first), BlockIndex(last));
            let next: Vec<u32> = next.map(|index| index.0).collect();
            self.fetched.extend(&next);
            next
        }

        fn reads(&mut self, blocks: impl IntoIterator<Item = u32>) -> Vec<u32> {
            blocks.into_iter().flat_map(|block| self.read("file", block)).collect()
        }
    }

    #[test]
    fn a_sequential_reader_s_window_grows_to_its_bound() {
        let mut rank = Rank::new(1 << 30);
        assert_eq!(rank.read("file", 0), []);
        assert_eq!(rank.read("file", 1), [2, 3]);
        assert_eq!(rank.read("file", 2), [3, 4, 5, 6]);
        assert_eq!(rank.read("file", 3).len(), 8);
        assert_eq!(rank.read("file", 4).len(), 16);
        assert_eq!(rank.read("file", 5), (6..22).collect::<Vec<_>>());
        assert_eq!(rank.read("file", 5), [], "who does not read on gets nothing more");
    }

    #[test]
    fn a_small_arena_bounds_the_window_and_readers_share_it() {
        let mut rank = Rank::new(64 * MIB);
        for block in 0..10 {
            assert!(rank.read("one", block).len() <= 4);
        }
        for block in 0..10 {
            rank.read("one", 10 + block);
            assert!(block < 2 || rank.read("two", block).len() <= 2);
        }
        for block in 20..200 {
            rank.read("two", block - 10);
        }
        assert_eq!(rank.read("two", 190).len(), 4, "the other has gone");
    }

    #[test]
    fn a_window_ends_with_the_file() {
        let mut rank = Rank::new(1 << 30);
        rank.reads(FILE_BLOCKS - 10..FILE_BLOCKS);
        assert_eq!(rank.fetched.last(), Some(&(FILE_BLOCKS - 1)));
        assert_eq!(rank.reads([9, 6, 3, 0]), [], "nothing lies before the first");
    }

    #[test]
    fn a_strided_reader_is_known_by_its_fourth_touch_in_either_direction() {
        let mut rank = Rank::new(1 << 30);
        assert_eq!(rank.reads([0, 7, 14]), []);
        assert_eq!(rank.read("file", 21), [28]);
        assert_eq!(rank.read("file", 28), [35, 42]);
        assert_eq!(rank.reads([900, 897, 894]), []);
        assert_eq!(rank.read("file", 891), [888]);
        assert_eq!(rank.read("file", 888), [885, 882]);
        assert_eq!(rank.reads([500, 499, 498]), []);
        assert_eq!(rank.read("file", 497), [496], "backwards");
    }

    #[test]
    fn interleaved_readers_of_one_file_are_told_apart() {
        let mut rank = Rank::new(1 << 30);
        for turn in 0..20 {
            for (start, step) in [(0, 1), (300, 1), (500, 5), (700, 1)] {
                rank.read("file", start + step * turn);
            }
        }
        for (start, step) in [(0, 1), (300, 1), (500, 5), (700, 1)] {
            assert!((5..20).all(|turn| rank.fetched.contains(&(start + step * turn))));
        }
        let strided = rank.fetched.range(500..600).filter(|&&block| block % 5 != 0).count();
        assert_eq!(strided, 0, "{:?}", rank.fetched);
    }

    #[test]
    fn faults_out_of_order_are_one_stream() {
        let mut rank = Rank::new(1 << 30);
        rank.reads([1, 0, 2, 4, 3, 5, 7, 6, 9, 8, 12, 10, 11]);
        assert!((3..=28).all(|block| rank.fetched.contains(&block)), "{:?}", rank.fetched);
        assert_eq!(rank.fetched.last(), Some(&28));
    }

    #[test]
    fn one_read_over_a_block_s_end_is_not_a_stream() {
        let mut rank = Rank::new(1 << 30);
        assert_eq!(rank.read_some("file", 4, 5), []);
        assert_eq!(rank.read_some("file", 70, 71), []);
        assert_eq!(rank.read_some("file", 72, 73), [74, 75]);
    }

    #[test]
    fn files_that_are_fetched_whole_are_not_watched() {
        let mut ahead = ReadAhead::new(1 << 30, WHOLE_FILE_BYTES);
        let path = ViewPath::parse(b"small").expect("well-formed");
        let generation = Generation { size: WHOLE_FILE_BYTES, ..Generation::default() };
        for index in (0..9).map(BlockIndex) {
            assert_eq!(ahead.on_read(&path, generation, index, index).count(), 0);
        }
        assert!(ahead.files.is_empty());
    }

    fn random(state: &mut u64, below: u32) -> u32 {
        // Knuth's MMIX generator; its high bits are good.
        *state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((*state >> 33) % u64::from(below)) as u32
    }

    #[test]
    fn random_readers_get_little_and_every_bound_holds() {
        for seed in 0..50 {
            let mut state = seed;
            let arena = [16 * MIB, 64 * MIB, 1 << 30][random(&mut state, 3) as usize];
            let mut rank = Rank::new(arena);
            let mut brought = 0;
            for _ in 0..2000 {
                let name = format!("file-{}", random(&mut state, 40));
                let block = random(&mut state, FILE_BLOCKS);
                let next = rank.read(&name, block);
                assert!(next.len() as u64 <= (arena / AHEAD_SHARE / MIB).clamp(1, 16));
                assert!(next.iter().all(|&index| index < FILE_BLOCKS && index != block));
                brought += next.len();
                assert!(rank.ahead.files.len() <= WATCHED_FILES_MAX);
                for file in &rank.ahead.files {
                    assert!(file.streams.len() <= WATCHED_STREAMS_MAX);
                    assert!(file.recent.len() <= WATCHED_TOUCHES_MAX);
                }
            }
            assert!(brought < 2000 / 20, "seed {seed}: {brought} blocks for 2000 random reads");
        }
    }

    #[test]
    fn a_reader_beside_random_ones_misses_little_and_gets_one_window_beyond_its_last_block() {
        for seed in 0..200 {
            let mut state = seed;
            let mut rank = Rank::new(1 << 30);
            let step = 1 + random(&mut state, 6);
            let start = random(&mut state, 100);
            let touches = 5 + random(&mut state, 100);
            let mut missed = 0;
            let mut brought = BTreeSet::new();
            for turn in 0..touches {
                let block = start + step * turn;
                missed += usize::from(!brought.contains(&block));
                brought.extend(rank.read("file", block));
                if random(&mut state, 4) == 0 {
                    rank.read("other", random(&mut state, FILE_BLOCKS));
                    // Several reads of one block come before it does.
                    brought.extend(rank.read("file", block));
                }
            }
            assert!(missed <= 4, "seed {seed}: {missed} touches, step {step}");
            let last = start + step * (touches - 1);
            let beyond = brought.range(last + 1..).count();
            assert!(beyond <= AHEAD_BLOCKS_MAX as usize, "seed {seed}: {beyond} beyond the last");
            let astray =
                brought.iter().filter(|&&block| !(block - start).is_multiple_of(step)).count();
            assert_eq!(astray, 0, "seed {seed}: step {step}");
        }
    }
}
