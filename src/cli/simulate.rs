//! `copper simulate`: jobs of any size under virtual time.

use std::num::NonZeroU32;
use std::process::ExitCode;

use anyhow::{Context, bail, ensure};
use clap::Args;
use copper_proto::Forest;
use copper_proto::limits::TREES_MAX;
use copper_proto::topology::default_fanout;
use serde_json::json;

use super::size::Size;
use super::{print, say};
use crate::simulate::{Plan, assumptions, run as simulate, table};

/// More ranks than any machine has nodes.
const NODES_MAX: u32 = 200_000;

/// Less would not hold one directory and the blocks of one level.
const MEMORY_MIN: u64 = 32 << 20;

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

    /// Ranks that die at random times, the root of the first tree among them
    #[arg(long, value_name = "PERCENT", default_value_t = 0.0)]
    kill: f64,

    /// Print everything as JSON
    #[arg(long)]
    json: bool,
}

impl SimulateArguments {
    fn plan(&self, nodes: NonZeroU32) -> anyhow::Result<Plan> {
        ensure!(nodes.get() <= NODES_MAX, "--nodes {nodes} is more than {NODES_MAX}");
        let Size(arena_bytes) = self.memory;
        if arena_bytes < MEMORY_MIN {
            bail!("--memory {} is less than {}", self.memory, Size(MEMORY_MIN));
        }
        ensure!((0.0..=50.0).contains(&self.kill), "--kill {} is not from 0 to 50", self.kill);
        ensure!(self.kill == 0.0 || nodes.get() > 1, "--kill: somebody must live, of 1 rank");
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
            killed_permille: (self.kill * 10.0).ceil() as u32,
        })
    }
}

pub(super) fn run(arguments: &SimulateArguments) -> anyhow::Result<ExitCode> {
    let plans = arguments.nodes.iter().map(|&nodes| arguments.plan(nodes));
    let plans: Vec<Plan> = plans.collect::<anyhow::Result<_>>()?;
    // Before anything can go wrong: an assertion of the protocol names no seed.
    say(&format!("copper: simulating with --seed {}", arguments.seed));
    let mut reports = Vec::new();
    for plan in &plans {
        let report = simulate(plan)?;
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
