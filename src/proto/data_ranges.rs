//! Where a file has data and where holes, in one generation, as one object: what `SEEK_DATA` and
//! `SEEK_HOLE` answer.
//!
//! ```text
//! count u32 | start u64, end u64 …     little-endian, ascending, apart
//! ```

use crate::encoding::{Fields, Malformed, put_u32, put_u64};
use crate::limits::DATA_RANGES_MAX;

/// The runs of data of a file; everything between them, and up to the file's end, is a hole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataRanges {
    ranges: Vec<(u64, u64)>,
    size: u64,
}

/// Collects runs at the source.
#[derive(Debug)]
pub struct DataRangesBuilder {
    ranges: Vec<(u64, u64)>,
    size: u64,
}

impl DataRangesBuilder {
    /// None yet, of a file of `size` bytes.
    pub fn new(size: u64) -> DataRangesBuilder {
        DataRangesBuilder { ranges: Vec::new(), size }
    }

    /// Appends the run from `start` to `end`, which begins behind the one before. Whether there is
    /// room for more: the last one goes on to the file's end, since a hole may be called data.
    pub fn push(&mut self, start: u64, end: u64) -> bool {
        let full = self.ranges.len() + 1 >= DATA_RANGES_MAX;
        let end = if full { self.size } else { end.min(self.size) };
        if start < end {
            self.ranges.push((start, end));
        }
        !full
    }

    /// The object.
    pub fn finish(self) -> DataRanges {
        DataRanges { ranges: self.ranges, size: self.size }
    }
}

impl DataRanges {
    /// A file without holes.
    pub fn whole(size: u64) -> DataRanges {
        let mut builder = DataRangesBuilder::new(size);
        builder.push(0, size);
        builder.finish()
    }

    /// The first byte of data at or behind `offset`; `None` if there is none.
    pub fn data_from(&self, offset: u64) -> Option<u64> {
        let next = self.ranges.partition_point(|&(_, end)| end <= offset);
        self.ranges.get(next).map(|&(start, _)| start.max(offset))
    }

    /// The first byte of a hole at or behind `offset`, the end of the file if there is none;
    /// `None` if `offset` is not within the file.
    pub fn hole_from(&self, offset: u64) -> Option<u64> {
        if offset >= self.size {
            return None;
        }
        let mut at = offset;
        let next = self.ranges.partition_point(|&(_, end)| end <= offset);
        for &(start, end) in &self.ranges[next..] {
            if start > at {
                break;
            }
            at = end;
        }
        Some(at)
    }

    /// The encoded object; never empty.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(4 + 16 * self.ranges.len());
        put_u32(&mut out, u32::try_from(self.ranges.len()).expect("bounded by DATA_RANGES_MAX"));
        for &(start, end) in &self.ranges {
            put_u64(&mut out, start);
            put_u64(&mut out, end);
        }
        out
    }

    /// Takes an encoded object that came from outside, of a file of `size` bytes.
    ///
    /// # Errors
    /// If it is not one.
    pub fn decode(bytes: &[u8], size: u64) -> Result<DataRanges, Malformed> {
        let mut fields = Fields::new(bytes, "data ranges");
        let count = fields.u32()? as usize;
        if count > DATA_RANGES_MAX {
            return Err(fields.malformed());
        }
        let mut ranges: Vec<(u64, u64)> = Vec::new();
        for _ in 0..count {
            let (start, end) = (fields.u64()?, fields.u64()?);
            let behind = ranges.last().is_none_or(|&(_, before)| before <= start);
            if !behind || start >= end || end > size {
                return Err(fields.malformed());
            }
            ranges.push((start, end));
        }
        fields.end()?;
        Ok(DataRanges { ranges, size })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranges(size: u64, list: &[(u64, u64)]) -> DataRanges {
        let mut builder = DataRangesBuilder::new(size);
        for &(start, end) in list {
            assert!(builder.push(start, end));
        }
        builder.finish()
    }

    #[test]
    fn seeking_finds_what_lseek_finds() {
        let file = ranges(100, &[(10, 20), (20, 30), (50, 200)]);
        let data: Vec<_> = [0, 10, 15, 29, 30, 99, 100].map(|at| file.data_from(at)).into();
        assert_eq!(data, [Some(10), Some(10), Some(15), Some(29), Some(50), Some(99), None]);
        let hole: Vec<_> = [0, 10, 29, 30, 50, 99, 100].map(|at| file.hole_from(at)).into();
        assert_eq!(hole, [Some(0), Some(30), Some(30), Some(30), Some(100), Some(100), None]);
        let empty = DataRanges::whole(0);
        assert_eq!((empty.data_from(0), empty.hole_from(0)), (None, None));
        let hole = ranges(10, &[]);
        assert_eq!((hole.data_from(0), hole.hole_from(3)), (None, Some(3)));
    }

    #[test]
    fn what_is_encoded_is_decoded_and_damage_is_refused() {
        let file = ranges(100, &[(0, 5), (50, 60)]);
        let bytes = file.encode();
        assert_eq!(DataRanges::decode(&bytes, 100), Ok(file));
        assert!(DataRanges::decode(&bytes, 59).is_err(), "beyond the end");
        for len in 0..bytes.len() {
            assert!(DataRanges::decode(&bytes[..len], 100).is_err());
        }
        let backwards = [&2_u32.to_le_bytes()[..], &bytes[20..36], &bytes[4..20]].concat();
        assert!(DataRanges::decode(&backwards, 100).is_err());
    }

    #[test]
    fn of_too_many_runs_the_last_goes_on_to_the_end() {
        let mut builder = DataRangesBuilder::new(u64::MAX);
        let more = (0..).take_while(|&index| builder.push(2 * index, 2 * index + 1)).count();
        let file = builder.finish();
        assert_eq!(more + 1, DATA_RANGES_MAX);
        assert_eq!(file.hole_from(2 * more as u64), Some(u64::MAX));
    }
}
