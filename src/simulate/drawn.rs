//! A job and its faults from one number, for runs by the thousand.

use std::num::NonZeroU32;
use std::time::Duration;

use copper_proto::limits::TREES_MAX;

use super::random::{Random, mixed};
use super::{Constants, Faults, Plan};

impl Plan {
    /// The job of a seed, for [`super::Program::small`]: most are small, and half of them have two faults or more.
    pub(crate) fn drawn(seed: u64) -> Plan {
        let mut random = Random::new(mixed(seed));
        let nonzero = |value: u64| NonZeroU32::new(value as u32).expect("at least 1");
        let most = *random.pick(&[6, 6, 12, 12, 40]);
        let nodes = 2 + random.below(most);
        let trees = match random.below(2) {
            0 => 1,
            _ => 1 + random.below(nodes.min(TREES_MAX.into()).min(4)),
        };
        Plan {
            nodes: nonzero(nodes),
            processes: nonzero(*random.pick(&[1, 2, 12])),
            trees: nonzero(trees),
            // In long chains, stalls add up to more than a request may take.
            fanout: nonzero(if nodes > 12 { 2 } else { 1 } + random.below(5)),
            seed,
            arena_bytes: *random.pick(&[8 << 20, 16 << 20, 64 << 20, 256 << 20]),
            faults: Faults::drawn(&mut random),
            processors: None,
            constants: Constants::default(),
        }
    }
}

impl Faults {
    fn drawn(random: &mut Random) -> Faults {
        let permille = [0, 0, 0, 100, 400];
        Faults {
            killed_permille: *random.pick(&permille),
            root_lives: random.below(2) == 0,
            returned_permille: *random.pick(&[0, 500, 1000]),
            slow_permille: *random.pick(&permille),
            slowness: *random.pick(&[3, 30, 300]),
            cut_permille: *random.pick(&permille),
            jitter: *random.pick(&[
                Duration::ZERO,
                Duration::ZERO,
                Duration::from_micros(50),
                Duration::from_millis(5),
                Duration::from_millis(200),
            ]),
            pulls_stall: *random.pick(&[0, 0, 0, 100, 100]),
            pulls_corrupt: *random.pick(&[0, 0, 0, 10, 100]),
            source_fails: *random.pick(&[0, 0, 0, 20]),
            poisoned: random.below(8) == 0,
        }
    }
}
