//! Pauses that differ, so that those who failed together do not try again together.

use std::time::Duration;

/// A pause of at least half of `full` and less than all of it, by `seed`.
pub fn jittered(full: Duration, seed: u64) -> Duration {
    // Fibonacci hashing: the high bits of the product are spread evenly.
    let spread = u32::try_from(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56).expect("8 bits");
    full / 2 + full / 2 * spread / 256
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_spread_over_the_upper_half() {
        let full = Duration::from_millis(100);
        let pauses: Vec<Duration> = (0..1000).map(|seed| jittered(full, seed)).collect();
        assert!(pauses.iter().all(|&pause| pause >= full / 2 && pause < full));
        let late = pauses.iter().filter(|&&pause| pause > full * 3 / 4).count();
        assert!((400..600).contains(&late), "{late} of 1000");
    }
}
