//! The faults of `copper simulate`, as its options name them.

use std::num::NonZeroU32;
use std::time::Duration;

use anyhow::ensure;
use clap::Args;

use crate::simulate::Faults;

/// How much slower a slow rank is.
const SLOWNESS: u32 = 30;

/// What goes wrong; when and to whom is drawn from the seed.
#[derive(Debug, Args)]
pub(super) struct FaultArguments {
    /// Ranks that die at random times, the root of the first tree among them
    #[arg(long, value_name = "PERCENT", default_value_t = 0.0)]
    kill: f64,

    /// Those of them that come back within a second, with an empty cache
    #[arg(long, value_name = "PERCENT", default_value_t = 0.0)]
    comeback: f64,

    /// Ranks whose NIC and engine are 30 times slower
    #[arg(long, value_name = "PERCENT", default_value_t = 0.0)]
    slow: f64,

    /// Ranks that are cut off from a parent for up to 10 s, in one direction or both
    #[arg(long, value_name = "PERCENT", default_value_t = 0.0)]
    cut: f64,

    /// The most that a message or a pull may be late; they overtake each other
    #[arg(long, value_name = "MICROSECONDS", default_value_t = 0)]
    jitter: u32,
}

impl FaultArguments {
    /// All of them, in a job of so many ranks.
    pub(super) fn faults(&self, nodes: NonZeroU32) -> anyhow::Result<Faults> {
        let shares = [
            ("kill", self.kill, 50.0),
            ("comeback", self.comeback, 100.0),
            ("slow", self.slow, 100.0),
            ("cut", self.cut, 100.0),
        ];
        for (name, share, most) in shares {
            ensure!((0.0..=most).contains(&share), "--{name} {share} is not from 0 to {most}");
        }
        ensure!(self.kill == 0.0 || nodes.get() > 1, "--kill: somebody must live, of 1 rank");
        let permille = |percent: f64| (percent * 10.0).ceil() as u32;
        Ok(Faults {
            killed_permille: permille(self.kill),
            returned_permille: permille(self.comeback),
            slow_permille: permille(self.slow),
            slowness: SLOWNESS,
            cut_permille: permille(self.cut),
            jitter: Duration::from_micros(self.jitter.into()),
            ..Faults::default()
        })
    }
}
