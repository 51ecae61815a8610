//! The processors that all ranks share when they run on one machine. Ranks with a machine each have
//! what they need, and this is not used.
//!
//! A piece of work runs to its end on the processor that leaves the shortest gap before it; pieces are
//! short ([`super::Plan::check`]), so that the order in which a real scheduler takes turns hardly matters.

use std::num::NonZeroU32;
use std::time::Duration;

use copper_proto::Tick;

#[derive(Debug)]
pub(super) struct Processors {
    /// When each has done what it has been given.
    free: Box<[Tick]>,
}

impl Processors {
    pub(super) fn new(count: NonZeroU32) -> Processors {
        Processors { free: vec![Tick(0); count.get() as usize].into() }
    }

    /// Has work done that may begin at `ready`: when it is over.
    pub(super) fn take(&mut self, ready: Tick, takes: Duration) -> Tick {
        let waiting = self.free.iter_mut().filter(|free| **free <= ready).max();
        let processor = match waiting {
            Some(processor) => processor,
            None => self.free.iter_mut().min().expect("there is at least one"),
        };
        *processor = (*processor).max(ready) + takes;
        *processor
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_processors_do_four_pieces_of_work_in_the_time_of_two() {
        let mut processors = Processors::new(NonZeroU32::new(2).expect("not zero"));
        let takes = Duration::from_nanos(10);
        let ends: Vec<u64> = (0..4).map(|_| processors.take(Tick(100), takes).0).collect();
        assert_eq!(ends, [110, 110, 120, 120]);
        // The one that has waited for a shorter time is taken, and the other stays free for what is
        // ready earlier.
        assert_eq!(processors.take(Tick(125), takes), Tick(135));
        assert_eq!(processors.take(Tick(120), takes), Tick(130));
    }
}
