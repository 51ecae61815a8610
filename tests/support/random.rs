//! Random numbers, seeded from the clock or from `COPPER_SEED`; the seed is printed.

use std::time::{SystemTime, UNIX_EPOCH};

#[path = "split_mix.rs"]
mod split_mix;

pub(crate) use split_mix::Random;

impl Random {
    pub(crate) fn seeded() -> Random {
        let given = std::env::var("COPPER_SEED").ok().and_then(|seed| seed.parse().ok());
        let clock = || {
            let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            since.as_nanos() as u64
        };
        let seed = given.unwrap_or_else(clock);
        super::say(&format!("COPPER_SEED={seed}"));
        Random::new(seed)
    }

    pub(crate) fn shuffle<T>(&mut self, items: &mut [T]) {
        for index in (1..items.len()).rev() {
            items.swap(index, self.below(index as u64 + 1) as usize);
        }
    }
}
