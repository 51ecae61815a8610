//! How long calls took, as counts in buckets whose width grows with the time: eight to each doubling,
//! so that a quantile is known to within an eighth. Fixed in size, and written by any thread with
//! three relaxed additions: a number may be one behind another that it belongs to.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Buckets to each doubling, as a power of two.
const SPLIT_BITS: u32 = 3;
const SPLIT: u64 = 1 << SPLIT_BITS;

/// Times are counted in units of 2^7 ns: what takes less is not told apart, since a clock reading is
/// a good part of it.
const UNIT_BITS: u32 = 7;

/// Doublings above the units: up to 2^39 ns, nine minutes, and no reply waits for as long.
const DOUBLINGS: u32 = 29;

/// Buckets of a histogram: one for each of the first units, then eight for each doubling.
pub const BUCKETS: usize = (SPLIT as usize) * (DOUBLINGS as usize + 1);

/// Counts of calls by how long they took.
#[derive(Debug)]
pub(crate) struct Histogram {
    buckets: [AtomicU64; BUCKETS],
    total_ns: AtomicU64,
    max_ns: AtomicU64,
}

impl Default for Histogram {
    fn default() -> Histogram {
        Histogram {
            buckets: [const { AtomicU64::new(0) }; BUCKETS],
            total_ns: AtomicU64::new(0),
            max_ns: AtomicU64::new(0),
        }
    }
}

impl Histogram {
    pub(crate) fn record(&self, took: Duration) {
        let took_ns = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.buckets[bucket_of(took_ns)].fetch_add(1, Relaxed);
        self.total_ns.fetch_add(took_ns, Relaxed);
        // Mostly it is as large already, and nobody else's cache line has to be taken.
        if self.max_ns.load(Relaxed) < took_ns {
            self.max_ns.fetch_max(took_ns, Relaxed);
        }
    }

    pub(crate) fn snapshot(&self) -> Latency {
        Latency {
            buckets: self.buckets.iter().map(|bucket| bucket.load(Relaxed)).collect(),
            total_ns: self.total_ns.load(Relaxed),
            max_ns: self.max_ns.load(Relaxed),
        }
    }
}

/// A histogram at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Latency {
    buckets: Vec<u64>,
    total_ns: u64,
    max_ns: u64,
}

impl Default for Latency {
    fn default() -> Latency {
        Latency { buckets: vec![0; BUCKETS], total_ns: 0, max_ns: 0 }
    }
}

impl Latency {
    /// Calls counted.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// The time that all of them took, in nanoseconds.
    pub fn total_ns(&self) -> u64 {
        self.total_ns
    }

    /// The longest, in nanoseconds.
    pub fn max_ns(&self) -> u64 {
        self.max_ns
    }

    /// The time within which this share of the calls was answered (0.5 for the median), in
    /// nanoseconds: the end of its bucket, or the longest. 0 without calls.
    pub fn quantile_ns(&self, share: f64) -> u64 {
        let count = self.count();
        if count == 0 {
            return 0;
        }
        #[expect(clippy::cast_precision_loss, reason = "a share of 2^53 calls may be one off")]
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "within count")]
        let rank = ((count as f64 * share).ceil() as u64).clamp(1, count);
        let mut seen = 0;
        for (index, calls) in self.buckets.iter().enumerate() {
            seen += calls;
            if seen >= rank {
                return end_ns(index).min(self.max_ns);
            }
        }
        0
    }

    /// The buckets that are not empty: where each ends, in nanoseconds, and its calls.
    pub fn filled(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        let ends = (0..BUCKETS).map(end_ns);
        ends.zip(self.buckets.iter().copied()).filter(|(_, calls)| *calls > 0)
    }

    /// What came after an `earlier` snapshot of the same histogram. Of the longest is known only that
    /// it is in the last bucket, if it is that of before.
    #[must_use]
    pub fn since(&self, earlier: &Latency) -> Latency {
        let pairs = self.buckets.iter().zip(&earlier.buckets);
        let buckets: Vec<u64> = pairs.map(|(now, then)| now.saturating_sub(*then)).collect();
        let last = buckets.iter().rposition(|calls| *calls > 0);
        Latency {
            max_ns: last.map_or(0, |index| end_ns(index).min(self.max_ns)),
            buckets,
            total_ns: self.total_ns.saturating_sub(earlier.total_ns),
        }
    }
}

fn bucket_of(time_ns: u64) -> usize {
    let units = time_ns >> UNIT_BITS;
    let index = if units < SPLIT {
        units
    } else {
        let doubling = units.ilog2() - SPLIT_BITS;
        u64::from(doubling) * SPLIT + (units >> doubling)
    };
    usize::try_from(index).unwrap_or(BUCKETS).min(BUCKETS - 1)
}

/// The first time that is beyond a bucket.
fn end_ns(index: usize) -> u64 {
    let next = index as u64 + 1;
    let (doubling, within) = match next / SPLIT {
        0 | 1 => (0, next),
        doublings => (doublings - 1, SPLIT + next % SPLIT),
    };
    within << doubling << UNIT_BITS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_time_is_in_the_bucket_that_ends_next() {
        assert_eq!((bucket_of(0), bucket_of(127), bucket_of(128)), (0, 0, 1));
        for bits in 0..39 {
            for time in [1 << bits, (1 << bits) + (1 << bits) / 3, (2 << bits) - 1] {
                let index = bucket_of(time);
                let begin = index.checked_sub(1).map_or(0, end_ns);
                assert!((begin..end_ns(index)).contains(&time), "{time} in {index}");
                assert!(end_ns(index) - begin <= begin / 8 + 128, "{index}: within an eighth");
            }
        }
        assert_eq!(bucket_of(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn quantiles_are_those_of_the_sorted_times_to_within_an_eighth() {
        let histogram = Histogram::default();
        let times: Vec<u64> = (1..=1000).map(|n| n * n * 100).collect();
        for time in &times {
            histogram.record(Duration::from_nanos(*time));
        }
        let latency = histogram.snapshot();
        assert_eq!((latency.count(), latency.max_ns()), (1000, 100_000_000));
        assert_eq!(latency.total_ns(), times.iter().sum::<u64>());
        for (share, nth) in [(0.5, 499), (0.9, 899), (0.99, 989), (1.0, 999)] {
            let (exact, found) = (times[nth], latency.quantile_ns(share));
            assert!(found >= exact && found <= exact + exact / 8 + 128, "{share}: {found} {exact}");
        }
        assert_eq!(Latency::default().quantile_ns(0.5), 0);
    }

    #[test]
    fn what_came_since_is_the_difference() {
        let histogram = Histogram::default();
        histogram.record(Duration::from_millis(7));
        let before = histogram.snapshot();
        histogram.record(Duration::from_micros(3));
        histogram.record(Duration::from_micros(5));
        let since = histogram.snapshot().since(&before);
        assert_eq!((since.count(), since.total_ns()), (2, 8_000));
        assert!((5_000..5_700).contains(&since.max_ns()), "{}", since.max_ns());
        assert_eq!(before.since(&before), Latency::default());
    }
}
