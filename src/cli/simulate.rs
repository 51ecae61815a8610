//! `copper simulate`: jobs of any size under virtual time.

mod calibration;
mod faults;
mod seeds;

use std::num::{NonZeroU32, NonZeroU64};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail, ensure};
use clap::{Args, ValueEnum};
use copper_proto::Forest;
use copper_proto::limits::TREES_MAX;
use copper_proto::topology::default_fanout;
use serde_json::json;

use self::calibration::CalibrationArguments;
use self::faults::FaultArguments;
use super::progress::Line;
use super::size::Size;
use super::{print, say};
use crate::simulate::{Constants, Plan, Program, Progress, plot, run as simulate, table};

/// More ranks than any machine has nodes.
const NODES_MAX: u32 = 200_000;

/// Less would not hold one directory and the blocks of one level.
const MEMORY_MIN: u64 = 32 << 20;

/// From so many nodes on, the memory of a run is larger than what a processor finds without looking.
const HUGE_PAGES_NODES: u32 = 512;

/// Where the C library looks for its settings.
const TUNABLES: &str = "GLIBC_TUNABLES";

/// Whoever waits at a terminal is told so often how far a run has come.
const TOLD_EVERY: Duration = Duration::from_secs(2);

/// The programs that can be run without a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ProgramName {
    /// The shape of `import torch`
    Torch,
    /// Some of everything, for thousands of runs
    Small,
}

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
    #[arg(long, value_name = "NAME", value_enum, default_value_t = ProgramName::Torch, conflicts_with = "trace")]
    program: ProgramName,

    #[command(flatten)]
    faults: FaultArguments,

    /// Instead of all that: so many jobs with faults of all kinds, drawn from this seed and those after it
    #[arg(long, value_name = "N", conflicts_with_all = ["nodes", "processes", "trees", "fanout", "memory", "program", "kill", "comeback", "slow", "cut", "jitter", "trace", "processors", "constants", "calibrate", "plot", "json"])]
    seeds: Option<NonZeroU64>,

    /// What each process does instead: the calls that ci/replay.sh has recorded in FILE
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,

    /// Where the folders of the trace are, in its order [default: where they were recorded]
    #[arg(long, value_name = "DIR", requires = "trace")]
    at: Vec<PathBuf>,

    /// Processors that all ranks share [default: each rank has a machine of its own]
    #[arg(long, value_name = "N")]
    processors: Option<NonZeroU32>,

    /// Take the numbers of the model from FILE, as far as they are there
    #[arg(long, value_name = "FILE")]
    constants: Option<PathBuf>,

    #[command(flatten)]
    calibration: CalibrationArguments,

    /// Draw time over nodes into FILE, an SVG, beside what has been published
    #[arg(long, value_name = "FILE", conflicts_with = "calibrate")]
    plot: Option<PathBuf>,

    /// Print everything as JSON
    #[arg(long)]
    json: bool,
}

impl SimulateArguments {
    fn program(&self) -> anyhow::Result<Program> {
        match (&self.trace, self.program) {
            (Some(trace), _) => Program::recorded(trace, &self.at),
            (None, ProgramName::Torch) => Ok(Program::torch()),
            (None, ProgramName::Small) => Ok(Program::small()),
        }
    }

    fn constants(&self) -> anyhow::Result<Constants> {
        let Some(file) = &self.constants else { return Ok(Constants::default()) };
        let name = file.display();
        let text = std::fs::read(file).with_context(|| format!("cannot read {name}"))?;
        let constants: Constants = serde_json::from_slice(&text)
            .with_context(|| format!("--constants {name}: not understood"))?;
        constants.check().map_err(|what| anyhow!("--constants {name}: {what}"))?;
        Ok(constants)
    }

    fn plan(&self, nodes: NonZeroU32, constants: Constants) -> anyhow::Result<Plan> {
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
            faults: self.faults.faults(nodes)?,
            processors: self.processors,
            constants,
        })
    }
}

pub(super) fn run(arguments: &SimulateArguments) -> anyhow::Result<ExitCode> {
    if let Some(count) = arguments.seeds {
        return seeds::run(arguments.seed, count.get());
    }
    if arguments.calibration.calibrate {
        return arguments.calibration.run();
    }
    let constants = arguments.constants()?;
    let plans = arguments.nodes.iter().map(|&nodes| arguments.plan(nodes, constants));
    let plans: Vec<Plan> = plans.collect::<anyhow::Result<_>>()?;
    if plans.iter().any(|plan| plan.nodes.get() >= HUGE_PAGES_NODES) {
        begin_again_with_huge_pages();
    }
    let program = arguments.program()?;
    plans.iter().try_for_each(|plan| plan.check(&program)).map_err(anyhow::Error::msg)?;
    // Before anything can go wrong: an assertion of the protocol names no seed.
    say(&format!("copper: simulating with --seed {}", arguments.seed));
    let mut reports = Vec::new();
    for plan in &plans {
        let report = simulate(plan, &program, &mut teller(plan.nodes)).map_err(|broken| {
            let (nodes, seed) = (plan.nodes, plan.seed);
            anyhow!("{broken}: replay it with the same options, --nodes {nodes} --seed {seed}")
        })?;
        say(&format!("copper: {} nodes took {:.2} s", report.nodes, report.seconds));
        reports.push(report);
    }
    if let Some(file) = &arguments.plot {
        std::fs::write(file, plot(&reports)?)
            .with_context(|| format!("cannot write {}", file.display()))?;
    }
    if arguments.json {
        let all = json!({ "assumptions": constants.assumptions(&program), "runs": reports });
        print(&serde_json::to_string_pretty(&all)?)?;
    } else {
        print(&table(&reports))?;
        for line in constants.assumptions(&program) {
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

/// Shows at a terminal how far a run has come.
fn teller(nodes: NonZeroU32) -> impl FnMut(Progress) {
    let mut line = Line::new();
    let mut told = Instant::now();
    move |Progress { seconds, events, done }| {
        if line.is_watched() && told.elapsed() >= TOLD_EVERY {
            told = Instant::now();
            let (percent, millions) = (done * 100.0, events / 1_000_000);
            line.show(&format!(
                "copper: {nodes} nodes: {percent:.0} % after {seconds:.3} s, {millions} million events"
            ));
        }
    }
}
