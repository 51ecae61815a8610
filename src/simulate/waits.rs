//! How long readers waited: a histogram whose buckets are an eighth of an octave wide.

/// Buckets of an octave.
const PARTS: u64 = 8;

#[derive(Debug)]
pub(super) struct Waits {
    counts: [u64; 64 * PARTS as usize],
    total: u64,
}

impl Waits {
    pub(super) fn new() -> Waits {
        Waits { counts: [0; 64 * PARTS as usize], total: 0 }
    }

    pub(super) fn add(&mut self, nanos: u64) {
        self.counts[bucket(nanos)] += 1;
        self.total += 1;
    }

    /// So many of a hundred waited no longer, in seconds; the upper end of the bucket.
    pub(super) fn percentile(&self, percent: u64) -> f64 {
        let wanted = (self.total * percent).div_ceil(100);
        let mut seen = 0;
        for (index, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= wanted && seen > 0 {
                return upper_end(index) / 1e9;
            }
        }
        0.0
    }
}

fn bucket(nanos: u64) -> usize {
    let value = nanos.max(PARTS);
    let octave = u64::from(value.ilog2());
    let part = (value >> (octave - 3)) & (PARTS - 1);
    (octave * PARTS + part) as usize
}

fn upper_end(bucket: usize) -> f64 {
    let (octave, part) = (bucket as u64 / PARTS, bucket as u64 % PARTS);
    2f64.powi(octave as i32) * (1.0 + (part + 1) as f64 / PARTS as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_within_an_eighth_of_the_wait() {
        let mut waits = Waits::new();
        (1..=1000).for_each(|micros| waits.add(micros * 1000));
        for (percent, right) in [(50, 500e-6), (99, 990e-6)] {
            let found = waits.percentile(percent);
            assert!(found >= right && found <= right * 1.13, "{percent}: {found}");
        }
        assert_eq!(Waits::new().percentile(50), 0.0);
    }
}
