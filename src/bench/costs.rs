//! What a message and a pulled byte cost the processors of the ranks, and how long they are on their
//! way: the numbers that `copper simulate` wants, from the same ranks that a bench measures.
//!
//! Processor time is measured, of whole processes, since nobody else's work is in it; what is left of
//! the time that passes is the way.

use super::fleet::Fleet;
use super::orders::{Driver, Files, Join, Order, Timed};

const SMALL_BYTES: u64 = 4 << 10;
/// The smallest that is pulled by much more than what an answer carries.
const PULLED_BYTES: u64 = 16 << 10;
const BLOCK_BYTES: u64 = 1 << 20;

/// Children of each rank: with three ranks or more there is one that only pulls.
const FANOUT: u32 = 2;

/// A question and its answer, each handled on both sides.
const HANDLINGS: f64 = 4.0;

/// How much is asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Amount {
    /// Small files, each an answer with its bytes.
    pub(crate) answers: u32,
    /// Blocks, each pulled.
    pub(crate) blocks: u32,
}

/// What was found.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Costs {
    /// Processor time of one message on one side, in nanoseconds.
    pub(crate) message_ns: f64,
    /// Processor time of the rank that pulls, for each pull, in nanoseconds.
    pub(crate) pulling_ns: f64,
    /// The same of the rank whose memory is read.
    pub(crate) serving_ns: f64,
    /// Processor time of the rank that pulls, for each byte, in nanoseconds.
    pub(crate) pulling_ns_per_byte: f64,
    /// The same of the rank whose memory is read.
    pub(crate) serving_ns_per_byte: f64,
    /// From one rank to the other beyond that, in nanoseconds.
    pub(crate) latency_ns: f64,
    /// Bytes in a nanosecond beyond that; infinite if nothing is left.
    pub(crate) bytes_per_ns: f64,
}

/// Measures with all ranks of a fleet, of which there are two at least.
///
/// # Errors
/// If a rank fails, or wrong bytes came.
pub(crate) fn costs(fleet: &mut Fleet, amount: Amount) -> anyhow::Result<Costs> {
    let ranks = fleet.ranks();
    let small = 4 * u64::from(amount.answers) * PULLED_BYTES;
    let bytes = 4 * u64::from(amount.blocks) * BLOCK_BYTES + small + (64 << 20);
    let (number, fanout, driver) = (1, FANOUT, Driver::Engine);
    let join = Join { number, ranks, fanout, driver, spin_us: 0, memory_bytes: bytes };
    fleet.tell_all(0..ranks, Order::Join(join))?;
    let mut measuring = Measuring { fleet, ranks, sets: 0 };
    // A connection finds its pace first.
    measuring.fetch(1..ranks, amount.answers / 4 + 1, SMALL_BYTES)?;
    let small = measuring.fetch(1..ranks, amount.answers, SMALL_BYTES)?;
    let pulled = measuring.fetch(1..ranks, amount.answers, PULLED_BYTES)?;
    let large = measuring.fetch(1..ranks, amount.blocks, BLOCK_BYTES)?;
    let alone_small = measuring.fetch(1..2, amount.answers, SMALL_BYTES)?;
    let alone_large = measuring.fetch(1..2, amount.blocks, BLOCK_BYTES)?;
    measuring.fleet.tell_all(0..ranks, Order::Leave)?;

    let links = f64::from(ranks - 1);
    // Of one file on one link: in all, and of the last rank, which has no child.
    let each = |fetched: &Fetched, count: u32| {
        let (all, leaf) = (fetched.all_cpu_ns() / links, fetched.cpu_ns[ranks as usize - 1]);
        (all / f64::from(count), leaf / f64::from(count))
    };
    let (small_all, small_leaf) = each(&small, amount.answers);
    let (pulled_all, pulled_leaf) = each(&pulled, amount.answers);
    let (large_all, large_leaf) = each(&large, amount.blocks);
    let per_byte =
        |large: f64, pulled: f64| ((large - pulled) / (BLOCK_BYTES - PULLED_BYTES) as f64).max(0.0);
    let per_pull = |pulled: f64, small: f64, each_byte: f64| {
        (pulled - small - each_byte * PULLED_BYTES as f64).max(0.0)
    };
    let pulling_byte = per_byte(large_leaf, pulled_leaf);
    let serving_byte = per_byte(large_all - large_leaf, pulled_all - pulled_leaf);
    // Alone both ranks are less busy: what a message costs then is measured with it.
    let handling = |fetched: &Fetched, count: u32| fetched.all_cpu_ns() / f64::from(count);
    let way = |fetched: &Fetched, count| fetched.p50_ns - handling(fetched, count);
    let latency_ns = (way(&alone_small, amount.answers) / 2.0).max(1.0);
    let moving_ns = way(&alone_large, amount.blocks) - 2.0 * latency_ns;
    Ok(Costs {
        message_ns: small_all / HANDLINGS,
        pulling_ns: per_pull(pulled_leaf, small_leaf, pulling_byte),
        serving_ns: per_pull(pulled_all - pulled_leaf, small_all - small_leaf, serving_byte),
        pulling_ns_per_byte: pulling_byte,
        serving_ns_per_byte: serving_byte,
        latency_ns,
        bytes_per_ns: BLOCK_BYTES as f64 / moving_ns.max(0.0),
    })
}

struct Measuring<'a> {
    fleet: &'a mut Fleet,
    ranks: u32,
    sets: u32,
}

/// What a fetch took.
struct Fetched {
    /// By rank.
    cpu_ns: Vec<f64>,
    /// Of the first rank that fetched.
    p50_ns: f64,
}

impl Fetched {
    fn all_cpu_ns(&self) -> f64 {
        self.cpu_ns.iter().sum()
    }
}

impl Measuring<'_> {
    /// Has some ranks read new files, which the root holds, one after the other.
    fn fetch(
        &mut self,
        by: std::ops::Range<u32>,
        count: u32,
        bytes: u64,
    ) -> anyhow::Result<Fetched> {
        self.sets += 1;
        let files = Files { set: self.sets, count, bytes };
        self.fleet.tell_all(0..self.ranks, Order::Prepare(files))?;
        self.fleet.time(0, Order::Fetch { files, window: 16, at_ns: 0 })?;
        let before = self.spent()?;
        let at_ns = self.fleet.common_start_ns();
        let times = self.fleet.time_all(by, Order::Fetch { files, window: 1, at_ns })?;
        let after = self.spent()?;
        let cpu_ns = after.iter().zip(&before).map(|(after, before)| after - before).collect();
        Ok(Fetched { cpu_ns, p50_ns: times[0].p50_ns as f64 })
    }

    fn spent(&mut self) -> anyhow::Result<Vec<f64>> {
        let spent = self.fleet.time_all(0..self.ranks, Order::Spent)?;
        Ok(spent.iter().map(|timed: &Timed| timed.cpu_ns as f64).collect())
    }
}
