//! `copper simulate`: jobs of any size under virtual time.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::num::{NonZeroU32, NonZeroU64};
use std::os::unix::process::CommandExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Command, ExitCode};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail, ensure};
use clap::Args;
use copper_proto::Forest;
use copper_proto::limits::TREES_MAX;
use copper_proto::topology::default_fanout;
use serde_json::json;

use super::size::Size;
use super::{print, say};
use crate::simulate::{Faults, Plan, ProgramName, Progress, assumptions, run as simulate, table};

/// More ranks than any machine has nodes.
const NODES_MAX: u32 = 200_000;

/// Less would not hold one directory and the blocks of one level.
const MEMORY_MIN: u64 = 32 << 20;

/// How much slower a slow rank is.
const SLOWNESS: u32 = 30;

/// From so many nodes on, the memory of a run is larger than what a processor finds without looking.
const HUGE_PAGES_NODES: u32 = 512;

/// Where the C library looks for its settings.
const TUNABLES: &str = "GLIBC_TUNABLES";

/// Whoever waits at a terminal is told so often how far a run has come.
const TOLD_EVERY: Duration = Duration::from_secs(3);

#[derive(Debug, Args)]
pub(super) struct SimulateArguments {
    /// Sizes of jobs, separated by commas
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "64")]
    nodes: Vec<NonZeroU32>,

    /// Processes of each node that run the program
    #[arg(long, value_name = "N", default_value_t = NonZeroU32::new(12).expect("not zero"))]
    processes: NonZeroU32,

    /// Trees of the job
    #[arg(long, short = 'T', value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=i64::from(TREES_MAX)))]
    trees: u32,

    /// Children of each rank in a tree [default: as for `copper launch`]
    #[arg(long, value_name = "K")]
    fanout: Option<NonZeroU32>,

    /// What everything random is drawn from
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,

    /// Each rank's arena
    #[arg(long, value_name = "SIZE", default_value_t = Size(2 << 30))]
    memory: Size,

    /// What each process does
    #[arg(long, value_name = "NAME", value_enum, default_value_t = ProgramName::Torch)]
    program: ProgramName,

    #[command(flatten)]
    faults: FaultArguments,

    /// Instead of all that: so many jobs with faults of all kinds, drawn from this seed and those after it
    #[arg(long, value_name = "N", conflicts_with_all = ["nodes", "processes", "trees", "fanout", "memory", "program", "kill", "comeback", "slow", "cut", "jitter", "json"])]
    seeds: Option<NonZeroU64>,

    /// Print everything as JSON
    #[arg(long)]
    json: bool,
}

/// What goes wrong; when and to whom is drawn from the seed.
#[derive(Debug, Args)]
struct FaultArguments {
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
    fn faults(&self, nodes: NonZeroU32) -> anyhow::Result<Faults> {
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

impl SimulateArguments {
    fn plan(&self, nodes: NonZeroU32) -> anyhow::Result<Plan> {
        ensure!(nodes.get() <= NODES_MAX, "--nodes {nodes} is more than {NODES_MAX}");
        let Size(arena_bytes) = self.memory;
        if arena_bytes < MEMORY_MIN {
            bail!("--memory {} is less than {}", self.memory, Size(MEMORY_MIN));
        }
        let fanout = self.fanout.unwrap_or_else(|| default_fanout(nodes.get()));
        let trees = NonZeroU32::new(self.trees).context("--trees 0: a job has one at least")?;
        Forest::new(nodes, fanout, trees).with_context(|| {
            format!("--trees {trees} --fanout {fanout}: no trees of {nodes} ranks can be so")
        })?;
        Ok(Plan {
            nodes,
            processes: self.processes,
            trees,
            fanout,
            seed: self.seed,
            arena_bytes,
            program: self.program,
            faults: self.faults.faults(nodes)?,
        })
    }
}

pub(super) fn run(arguments: &SimulateArguments) -> anyhow::Result<ExitCode> {
    if let Some(count) = arguments.seeds {
        return run_seeds(arguments.seed, count.get());
    }
    let plans = arguments.nodes.iter().map(|&nodes| arguments.plan(nodes));
    let plans: Vec<Plan> = plans.collect::<anyhow::Result<_>>()?;
    if plans.iter().any(|plan| plan.nodes.get() >= HUGE_PAGES_NODES) {
        begin_again_with_huge_pages();
    }
    // Before anything can go wrong: an assertion of the protocol names no seed.
    say(&format!("copper: simulating with --seed {}", arguments.seed));
    let mut reports = Vec::new();
    for plan in &plans {
        let report = simulate(plan, &mut teller()).map_err(|broken| {
            let (nodes, seed) = (plan.nodes, plan.seed);
            anyhow!("{broken}: replay it with the same options, --nodes {nodes} --seed {seed}")
        })?;
        say(&format!("copper: {} nodes took {:.2} s", report.nodes, report.seconds));
        reports.push(report);
    }
    if arguments.json {
        let all = json!({ "assumptions": assumptions(), "runs": reports });
        print(&serde_json::to_string_pretty(&all)?)?;
    } else {
        print(&table(&reports))?;
        for line in assumptions() {
            print(&line)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The C library takes huge pages only if it is told so as a program begins. A large job goes from rank to
/// rank, each with a memory of its own: a quarter of the time is for finding pages (ADR 21).
fn begin_again_with_huge_pages() {
    if std::env::var_os(TUNABLES).is_none()
        && let Ok(program) = std::env::current_exe()
    {
        let mut again = Command::new(program);
        again.args(std::env::args_os().skip(1)).env(TUNABLES, "glibc.malloc.hugetlb=1");
        // It returns only if it has failed, and then the small pages will do.
        drop(again.exec());
    }
}

/// Says now and then, at a terminal, how far a run has come.
fn teller() -> impl FnMut(Progress) {
    let is_watched = std::io::stderr().is_terminal();
    let mut told = Instant::now();
    move |Progress { seconds, events, done }| {
        if is_watched && told.elapsed() >= TOLD_EVERY {
            told = Instant::now();
            let (percent, millions) = (done * 100.0, events / 1_000_000);
            say(&format!("copper: {percent:.0} % after {seconds:.3} s, {millions} million events"));
        }
    }
}

/// Runs one drawn job after the other, on each processor, and stops at the first that breaks something.
fn run_seeds(first: u64, count: u64) -> anyhow::Result<ExitCode> {
    if count == 1 {
        say(&format!("copper: {:?}", Plan::drawn(first)));
    }
    let next = AtomicU64::new(0);
    let broken = Mutex::new(BTreeMap::new());
    let work = || {
        while broken.lock().expect("no panic while it is held").is_empty() {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= count {
                return;
            }
            let seed = first.wrapping_add(index);
            // An assertion of the protocol names no seed.
            let run = || simulate(&Plan::drawn(seed), &mut |_| ());
            let why = match catch_unwind(AssertUnwindSafe(run)) {
                Ok(Ok(_)) => continue,
                Ok(Err(broken)) => broken.to_string(),
                Err(_) => "it has panicked, see above".to_owned(),
            };
            broken.lock().expect("no panic while it is held").insert(seed, why);
        }
    };
    std::thread::scope(|scope| {
        (0..std::thread::available_parallelism().map_or(1, usize::from)).for_each(|_| {
            scope.spawn(work);
        });
    });
    match broken.into_inner().expect("no panic while it is held").pop_first() {
        None => {
            let last = first.wrapping_add(count - 1);
            say(&format!("copper: {count} jobs, no invariant broken; the last seed was {last}"));
            Ok(ExitCode::SUCCESS)
        }
        Some((seed, why)) => {
            bail!("seed {seed}: {why}; replay it with: copper simulate --seeds 1 --seed {seed}")
        }
    }
}
