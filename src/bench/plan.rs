//! What is measured, in which order. Copper and its rival run in turns, close together, and the
//! median of the rounds' ratios counts.

use std::num::NonZeroU32;

use anyhow::{Context, bail};
use copper_proto::topology::default_fanout;

use super::fleet::Fleet;
use super::orders::{Driver, Files, Join, Order, Reply, Timed};
use super::report::{Bar, Figure, Report, median};

const KIB: u32 = 1 << 10;
const MIB: u32 = 1 << 20;

/// What a parent and its child are asked for: small answers, a block's part, whole blocks.
const SIZES: [u32; 3] = [4 * KIB, 64 * KIB, MIB];

/// How many at once.
const WINDOWS: [u32; 2] = [1, 16];

/// Blocks at once in a broadcast.
const BROADCAST_WINDOW: u32 = 16;

/// How long a waiting thread may spin where that is measured: more than a round trip.
const SPIN_US: u32 = 200;

/// Which part of a pull goes before it, unmeasured.
const WARM_SHARE: u32 = 4;

/// What a rank holds beside the bytes that are measured.
const MEMORY_SPARE: u64 = 64 << 20;

/// Pull of whole blocks, window 16, to a raw loop.
const PULL_BAR: f64 = 0.95;

/// A 4 KiB answer of a parent that has it, to a ping-pong of 4 KiB.
const ANSWER_BAR: f64 = 1.7;

/// Percent of a core.
const IDLE_BAR: f64 = 0.1;

/// One kind of measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Part {
    /// Blocks out of a parent that has them: GB/s, by size and window
    Pull,
    /// A small answer of a parent that has it: the median time
    Answer,
    /// One block from a cold root to every rank, by ranks and fan-out
    Fanout,
    /// A file that the root has, to every rank
    Broadcast,
    /// Nothing: percent of a core
    Idle,
}

/// How much is measured.
#[derive(Clone, Debug)]
pub(crate) struct Extent {
    pub(crate) parts: Vec<Part>,
    pub(crate) rounds: u32,
    /// Bytes of each pull.
    pub(crate) pull_bytes: u64,
    /// Answers of each round.
    pub(crate) answers: u32,
    /// Blocks of each fan-out.
    pub(crate) blocks: u32,
    pub(crate) broadcast_bytes: u64,
    pub(crate) broadcast_ranks: u32,
    pub(crate) idle_ms: u64,
    pub(crate) spin_us: u32,
}

/// Measures all that the extent names, as far as there are ranks for it; tells of each part as it begins.
///
/// # Errors
/// If a rank fails, or wrong bytes came.
pub(crate) fn run(
    fleet: &mut Fleet,
    extent: &Extent,
    told: &mut dyn FnMut(Part),
) -> anyhow::Result<Report> {
    let (major, minor) = copper_ofi::versions().runtime;
    let report = Report {
        libfabric: format!("{major}.{minor}"),
        ranks: fleet.ranks(),
        rounds: extent.rounds,
        ..Report::default()
    };
    if fleet.ranks() < 2 {
        bail!("a bench takes two ranks at least");
    }
    let mut bench = Bench { fleet, extent, report, trees: 0, sets: 0 };
    for part in &extent.parts {
        told(*part);
        match part {
            Part::Pull => bench.pulls()?,
            Part::Answer => bench.answers()?,
            Part::Fanout => bench.fanouts()?,
            Part::Broadcast => bench.broadcast()?,
            Part::Idle => bench.idle()?,
        }
    }
    Ok(bench.report)
}

struct Bench<'a> {
    fleet: &'a mut Fleet,
    extent: &'a Extent,
    report: Report,
    trees: u32,
    sets: u32,
}

/// A tree to be formed.
#[derive(Clone, Copy)]
struct Shape {
    ranks: u32,
    fanout: u32,
    memory_bytes: u64,
    spin_us: u32,
}

impl Bench<'_> {
    // --- trees and files

    fn join(&mut self, shape: Shape, driver: Driver) -> anyhow::Result<()> {
        self.trees += 1;
        let Shape { ranks, fanout, memory_bytes, spin_us } = shape;
        let join = Join { number: self.trees, ranks, fanout, driver, spin_us, memory_bytes };
        let replies = self.fleet.tell_all(0..ranks, Order::Join(join))?;
        if let Some(Reply::Joined { provider }) = replies.into_iter().next() {
            self.report.provider = provider;
        }
        Ok(())
    }

    fn leave(&mut self, ranks: u32) -> anyhow::Result<()> {
        self.fleet.tell_all(0..ranks, Order::Leave).map(drop)
    }

    /// New files, that `ranks` ranks have looked up.
    fn files(&mut self, ranks: u32, count: u32, bytes: u64) -> anyhow::Result<Files> {
        self.sets += 1;
        let files = Files { set: self.sets, count, bytes };
        self.fleet.tell_all(0..ranks, Order::Prepare(files))?;
        Ok(files)
    }

    fn warm_root(&mut self, files: Files) -> anyhow::Result<()> {
        let order = Order::Fetch { files, window: BROADCAST_WINDOW, at_ns: 0 };
        self.fleet.time(0, order).map(drop)
    }

    fn fetch(&mut self, rank: u32, files: Files, window: u32) -> anyhow::Result<Timed> {
        self.fleet.time(rank, Order::Fetch { files, window, at_ns: 0 })
    }

    fn figure(&mut self, name: String, unit: &'static str, pairs: &[(f64, f64)], bar: Option<Bar>) {
        let ratio = median(pairs.iter().map(|(value, rival)| value / rival).collect());
        let value = median(pairs.iter().map(|(value, _)| *value).collect());
        let rival = median(pairs.iter().map(|(_, rival)| *rival).collect());
        self.report.figures.push(Figure { name, value, rival, unit, ratio, bar });
    }

    // --- a parent and a child

    fn pulls(&mut self) -> anyhow::Result<()> {
        let cases = WINDOWS.iter().flat_map(|&window| SIZES.map(|bytes| (bytes, window)));
        let cases: Vec<(u32, u32)> = cases.collect();
        let mut pairs = vec![Vec::new(); cases.len()];
        for round in 0..self.extent.rounds {
            let (engine, raw) =
                self.in_turn(round, |bench, driver| bench.pull_all(driver, &cases))?;
            for (index, pair) in engine.into_iter().zip(raw).enumerate() {
                pairs[index].push(pair);
            }
        }
        for ((bytes, window), pairs) in cases.into_iter().zip(pairs) {
            let whole = bytes == MIB && window == 16;
            let bar = whole.then_some(Bar::AtLeast(PULL_BAR));
            let name = format!("pull, {}, window {window}", size(bytes));
            self.figure(name, "GB/s", &pairs, bar);
        }
        Ok(())
    }

    /// Copper's and the rival's, the first of which changes by round.
    fn in_turn<T>(
        &mut self,
        round: u32,
        mut measure: impl FnMut(&mut Self, Driver) -> anyhow::Result<T>,
    ) -> anyhow::Result<(T, T)> {
        if round.is_multiple_of(2) {
            let engine = measure(self, Driver::Engine)?;
            Ok((engine, measure(self, Driver::Raw)?))
        } else {
            let raw = measure(self, Driver::Raw)?;
            Ok((measure(self, Driver::Engine)?, raw))
        }
    }

    fn pull_all(&mut self, driver: Driver, cases: &[(u32, u32)]) -> anyhow::Result<Vec<f64>> {
        let span_bytes = self.extent.pull_bytes;
        let memory_bytes = span_bytes + span_bytes / u64::from(WARM_SHARE) + MEMORY_SPARE;
        let shape = Shape { ranks: 2, fanout: 1, memory_bytes, spin_us: self.extent.spin_us };
        let mut rates = Vec::new();
        for &(bytes, window) in cases {
            // A tree of its own: the bare loop never evicts what an earlier case left.
            self.join(shape, driver)?;
            // As many small ones would take long and say no more.
            let most = self.extent.answers * (1 + window / 4);
            let count = u32::try_from(span_bytes / u64::from(bytes))?.clamp(1, most);
            // A connection finds its pace first, whoever uses it.
            let warm = (count / WARM_SHARE).max(1);
            self.pull(driver, bytes, warm, window)?;
            let timed = self.pull(driver, bytes, count, window)?;
            rates.push(timed.bytes as f64 / 1e9 / timed.seconds());
            self.leave(2)?;
        }
        Ok(rates)
    }

    fn pull(
        &mut self,
        driver: Driver,
        bytes: u32,
        count: u32,
        window: u32,
    ) -> anyhow::Result<Timed> {
        match driver {
            Driver::Engine => {
                let files = self.files(2, count, bytes.into())?;
                self.warm_root(files)?;
                self.fetch(1, files, window)
            }
            Driver::Raw => {
                let span_bytes = self.extent.pull_bytes;
                self.fleet.time(1, Order::Read { bytes, count, window, span_bytes })
            }
        }
    }

    fn answers(&mut self) -> anyhow::Result<()> {
        for (how, spin_us) in [("sleeping", 0), ("spinning", SPIN_US)] {
            let mut pairs = Vec::new();
            for round in 0..self.extent.rounds {
                pairs.push(self.in_turn(round, |bench, driver| bench.answer(driver, spin_us))?);
            }
            let name = format!("answer, 4 KiB, {how}");
            self.figure(name, "us", &pairs, Some(Bar::AtMost(ANSWER_BAR)));
        }
        Ok(())
    }

    /// The median in microseconds.
    fn answer(&mut self, driver: Driver, spin_us: u32) -> anyhow::Result<f64> {
        let (count, bytes) = (self.extent.answers, 4 * KIB);
        let memory_bytes = u64::from(count) * u64::from(bytes) + MEMORY_SPARE;
        self.join(Shape { ranks: 2, fanout: 1, memory_bytes, spin_us }, driver)?;
        let timed = match driver {
            Driver::Engine => {
                let files = self.files(2, count, bytes.into())?;
                self.warm_root(files)?;
                self.fetch(1, files, 1)?
            }
            Driver::Raw => self.fleet.time(1, Order::PingPong { bytes, count })?,
        };
        self.leave(2)?;
        Ok(timed.p50_ns as f64 / 1e3)
    }

    // --- a tree

    fn fanouts(&mut self) -> anyhow::Result<()> {
        let raw_us = self.raw_reads_us()?;
        let all = self.fleet.ranks();
        for ranks in [2, 4, 8, 16, 32].into_iter().filter(|&ranks| ranks <= all) {
            for fanout in [2, 4, 8].into_iter().filter(|&fanout| fanout == 2 || fanout < ranks) {
                let memory_bytes = u64::from(self.extent.blocks + 1) * 2 * u64::from(MIB);
                let memory_bytes = memory_bytes + MEMORY_SPARE / 4;
                let shape = Shape { ranks, fanout, memory_bytes, spin_us: self.extent.spin_us };
                self.join(shape, Driver::Engine)?;
                for (bytes, raw_us) in SIZES.into_iter().zip(&raw_us) {
                    let mut pairs = Vec::new();
                    for _ in 0..self.extent.blocks {
                        let files = self.files(ranks, 1, bytes.into())?;
                        let at_ns = self.fleet.common_start_ns();
                        let order = Order::Fetch { files, window: 1, at_ns };
                        let times = self.fleet.time_all(1..ranks, order)?;
                        pairs.push((self.fleet.span_s(&times) * 1e6, *raw_us));
                    }
                    let name = format!("fan-out, {}, {ranks} ranks by {fanout}", size(bytes));
                    self.figure(name, "us", &pairs, None);
                }
                self.leave(ranks)?;
            }
        }
        Ok(())
    }

    /// One read at a time of a rank's parent, by size.
    fn raw_reads_us(&mut self) -> anyhow::Result<Vec<f64>> {
        let span_bytes = u64::from(64 * MIB);
        let spin_us = self.extent.spin_us;
        let shape = Shape { ranks: 2, fanout: 1, memory_bytes: span_bytes, spin_us };
        self.join(shape, Driver::Raw)?;
        let reads = SIZES.into_iter().map(|bytes| {
            let order = Order::Read { bytes, count: self.extent.answers, window: 1, span_bytes };
            self.fleet.time(1, order).map(|timed| timed.p50_ns as f64 / 1e3)
        });
        let reads = reads.collect::<anyhow::Result<_>>()?;
        self.leave(2)?;
        Ok(reads)
    }

    fn broadcast(&mut self) -> anyhow::Result<()> {
        let ranks = self.extent.broadcast_ranks.min(self.fleet.ranks());
        let bytes = self.extent.broadcast_bytes;
        let usual = default_fanout(ranks).get();
        let mut fanouts = vec![1, 2, 4, usual];
        fanouts.retain(|&fanout| fanout < ranks);
        fanouts.sort_unstable();
        fanouts.dedup();
        let mut pairs = vec![Vec::new(); fanouts.len()];
        for _ in 0..self.extent.rounds {
            let rival_s = self.raw_copy_s(bytes)?;
            for (&fanout, pairs) in fanouts.iter().zip(&mut pairs) {
                pairs.push((self.broadcast_s(ranks, fanout, bytes)?, rival_s));
            }
        }
        for (fanout, pairs) in fanouts.into_iter().zip(pairs) {
            let mark = if fanout == usual { ", the default" } else { "" };
            let mib = bytes / u64::from(MIB);
            let name = format!("broadcast, {mib} MiB, {ranks} by {fanout}{mark}");
            self.figure(name, "s", &pairs, None);
        }
        Ok(())
    }

    fn broadcast_s(&mut self, ranks: u32, fanout: u32, bytes: u64) -> anyhow::Result<f64> {
        NonZeroU32::new(fanout).context("a tree has children")?;
        let memory_bytes = bytes + MEMORY_SPARE;
        let shape = Shape { ranks, fanout, memory_bytes, spin_us: self.extent.spin_us };
        self.join(shape, Driver::Engine)?;
        let files = self.files(ranks, 1, bytes)?;
        self.warm_root(files)?;
        let at_ns = self.fleet.common_start_ns();
        let order = Order::Fetch { files, window: BROADCAST_WINDOW, at_ns };
        let times = self.fleet.time_all(1..ranks, order)?;
        self.leave(ranks)?;
        Ok(self.fleet.span_s(&times))
    }

    /// How long one child takes for as many bytes with a raw loop.
    fn raw_copy_s(&mut self, bytes: u64) -> anyhow::Result<f64> {
        let span_bytes = bytes.min(u64::from(256 * MIB));
        let spin_us = self.extent.spin_us;
        self.join(Shape { ranks: 2, fanout: 1, memory_bytes: span_bytes, spin_us }, Driver::Raw)?;
        let count = u32::try_from(bytes / u64::from(MIB))?.max(1);
        let order = Order::Read { bytes: MIB, count, window: BROADCAST_WINDOW, span_bytes };
        let timed = self.fleet.time(1, order)?;
        self.leave(2)?;
        Ok(timed.seconds())
    }

    fn idle(&mut self) -> anyhow::Result<()> {
        let shape = Shape { ranks: 2, fanout: 1, memory_bytes: MEMORY_SPARE, spin_us: 0 };
        self.join(shape, Driver::Engine)?;
        let times = self.fleet.time_all(0..2, Order::Idle { ms: self.extent.idle_ms })?;
        self.leave(2)?;
        let percent = |timed: &Timed| timed.cpu_ns as f64 / 1e9 / timed.seconds() * 100.0;
        let worst = times.iter().map(percent).fold(0.0, f64::max);
        let name = format!("idle, {:.0} s", self.extent.idle_ms as f64 / 1e3);
        let bar = Some(Bar::AtMost(IDLE_BAR));
        let figure = Figure { name, value: worst, rival: 0.0, unit: "%", ratio: worst, bar };
        self.report.figures.push(figure);
        Ok(())
    }
}

fn size(bytes: u32) -> String {
    if bytes.is_multiple_of(MIB) {
        format!("{} MiB", bytes / MIB)
    } else {
        format!("{} KiB", bytes / KIB)
    }
}
