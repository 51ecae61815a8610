//! What a simulation draws: a whole run from one printed number.

use std::time::Duration;

#[path = "../support/split_mix.rs"]
mod split_mix;

pub(crate) use split_mix::Random;

impl Random {
    /// True once in `in_all`.
    pub(crate) fn once_in(&mut self, in_all: u64) -> bool {
        self.below(in_all) == 0
    }

    pub(crate) fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len() as u64) as usize]
    }

    /// Mostly near `usual`, now and then a hundred times that.
    pub(crate) fn delay(&mut self, usual: Duration) -> Duration {
        let factor = if self.once_in(50) { 100 } else { 1 };
        let nanos = usual.as_nanos() as u64 * factor;
        Duration::from_nanos(nanos / 2 + self.below(nanos + 1))
    }
}
