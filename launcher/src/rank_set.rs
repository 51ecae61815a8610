//! A set of the ranks of one job, as a bitmap: 1,328 bytes for 10,624 ranks.
//!
//! Over the wire it goes in slices of [`RANKS_PER_SLICE`] ranks, so that a frame's size is bounded
//! whatever the job's. A slice leaves out the zeros before and behind: a leaf's own set takes a byte.

use copper_proto::Rank;

use crate::frame::{Fields, FrameWriter, Malformed};

/// Ranks of which one message tells: a bitmap of 4,096 bytes, which fits a frame.
pub const RANKS_PER_SLICE: u32 = 8 * SLICE_BYTES as u32;

const SLICE_BYTES: usize = 4096;

const _: () = assert!(SLICE_BYTES + 16 <= crate::frame::FRAME_BYTES_MAX);

/// Some of the ranks `0..size`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RankSet {
    bits: Vec<u8>,
    size: u32,
}

impl RankSet {
    /// None of `size` ranks.
    pub fn new(size: u32) -> RankSet {
        RankSet { bits: vec![0; size.div_ceil(8) as usize], size }
    }

    /// Adds a rank; one that the job does not have is left out.
    pub fn insert(&mut self, rank: Rank) {
        if rank.0 < self.size {
            self.bits[rank.0 as usize / 8] |= 1 << (rank.0 % 8);
        }
    }

    /// Whether the rank is among them.
    pub fn contains(&self, rank: Rank) -> bool {
        let byte = self.bits.get(rank.0 as usize / 8);
        byte.is_some_and(|byte| byte & (1 << (rank.0 % 8)) != 0)
    }

    /// Adds all of another set of the same job.
    pub fn add(&mut self, other: &RankSet) {
        for (own, other) in self.bits.iter_mut().zip(&other.bits) {
            *own |= other;
        }
    }

    /// Only those that are in the other set too.
    pub fn keep(&mut self, other: &RankSet) {
        for (own, other) in self.bits.iter_mut().zip(&other.bits) {
            *own &= other;
        }
    }

    /// Ranks of the job.
    pub fn size(&self) -> u32 {
        self.size
    }

    /// How many.
    pub fn count(&self) -> u32 {
        self.bits.iter().map(|byte| byte.count_ones()).sum()
    }

    /// Those that are not in the other set, in order.
    pub fn without<'a>(&'a self, other: &'a RankSet) -> impl Iterator<Item = Rank> + 'a {
        let pairs = self.bits.iter().zip(&other.bits);
        let left = (0_u32..).zip(pairs).filter(|(_, (own, other))| *own & !*other != 0);
        left.flat_map(|(at, (own, other))| {
            let rest = own & !other;
            (0..8).filter(move |bit| rest & (1 << bit) != 0).map(move |bit| Rank(8 * at + bit))
        })
    }

    /// Number of slices of every set of this job.
    pub fn slices(&self) -> u32 {
        self.size.div_ceil(RANKS_PER_SLICE)
    }

    /// One slice, for the wire.
    pub fn slice(&self, index: u32) -> RankSlice {
        let bytes = self.bits.chunks(SLICE_BYTES).nth(index as usize).unwrap_or_default();
        let set = |byte: &u8| *byte != 0;
        let skip = bytes.iter().position(set).unwrap_or(bytes.len());
        let end = bytes.iter().rposition(set).map_or(skip, |last| last + 1);
        let skipped = u16::try_from(skip).expect("a slice is short");
        RankSlice { index, skipped, bits: bytes[skip..end].to_vec() }
    }

    /// Puts a slice in the place of what was there. What it says of ranks beyond the job's is left
    /// out.
    pub fn replace(&mut self, slice: &RankSlice) {
        let Some(bytes) = self.bits.chunks_mut(SLICE_BYTES).nth(slice.index as usize) else {
            return;
        };
        bytes.fill(0);
        let places = bytes.iter_mut().skip(slice.skipped.into());
        for (place, bits) in places.zip(&slice.bits) {
            *place = *bits;
        }
        let beyond = self.size % 8;
        if beyond != 0
            && let Some(last) = self.bits.last_mut()
        {
            *last &= (1 << beyond) - 1;
        }
    }
}

/// Which of [`RANKS_PER_SLICE`] ranks are in a set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RankSlice {
    index: u32,
    /// Bytes of zeros before.
    skipped: u16,
    bits: Vec<u8>,
}

impl RankSlice {
    pub(crate) fn is_empty(&self) -> bool {
        self.bits.is_empty()
    }

    pub(crate) fn encode(&self, frame: FrameWriter) -> FrameWriter {
        frame.u32(self.index).u16(self.skipped).bytes(&self.bits)
    }

    pub(crate) fn decode(fields: &mut Fields<'_>) -> Result<RankSlice, Malformed> {
        let (index, skipped) = (fields.u32()?, fields.u16()?);
        let bits = fields.bytes(SLICE_BYTES)?.to_vec();
        if usize::from(skipped) + bits.len() > SLICE_BYTES {
            return Err(fields.malformed());
        }
        Ok(RankSlice { index, skipped, bits })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(size: u32, ranks: &[u32]) -> RankSet {
        let mut set = RankSet::new(size);
        ranks.iter().for_each(|&rank| set.insert(Rank(rank)));
        set
    }

    #[test]
    fn a_set_counts_and_names_its_ranks_and_no_others() {
        let all = set(11, &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 4000]);
        assert_eq!(all.count(), 11);
        let mut some = set(11, &[0, 9]);
        some.add(&set(11, &[3]));
        let missing: Vec<u32> = all.without(&some).map(|rank| rank.0).collect();
        assert_eq!(missing, [1, 2, 4, 5, 6, 7, 8, 10]);
        assert!(some.contains(Rank(3)) && !some.contains(Rank(11)) && !some.contains(Rank(80)));
        some.keep(&set(11, &[3, 4]));
        assert_eq!(some, set(11, &[3]));
    }

    #[test]
    fn slices_carry_a_set_of_any_size_and_replace_what_was_there() {
        let size = 2 * RANKS_PER_SLICE + 3;
        let told = set(size, &[5, RANKS_PER_SLICE - 1, RANKS_PER_SLICE, size - 1]);
        let mut heard = set(size, &[4, 77, RANKS_PER_SLICE + 9]);
        assert_eq!(told.slices(), 3);
        for index in 0..told.slices() {
            heard.replace(&told.slice(index));
        }
        assert_eq!(heard, told);
        let beyond = RankSlice { index: 2, skipped: 0, bits: vec![0xff; 9] };
        heard.replace(&beyond);
        heard.replace(&RankSlice { index: 3, ..beyond });
        assert_eq!(heard.count(), 3 + 3, "three more in the job, none beyond it");
    }

    #[test]
    fn a_leaf_tells_of_itself_in_a_byte() {
        let slice = set(10_624, &[10_000]).slice(0);
        assert_eq!((slice.skipped, slice.bits.len()), (1250, 1));
    }
}
