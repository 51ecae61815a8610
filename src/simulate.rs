//! `copper simulate`: a whole job under virtual time. Every rank is the protocol's [`Member`] over
//! the cache of a daemon, line for line; what is modelled is around them: the network, the source,
//! the processes that read (`constants` has every number and where it is from).
//!
//! No bytes of blocks exist: an extent remembers which object was put into it, and a pull brings
//! what lies in the parent's extent when it ends. What must be true of every run is checked while it
//! goes on and at its end; a run that breaks it ends with [`Broken`].
//!
//! [`Member`]: copper_proto::Member

mod agenda;
mod constants;
mod direct;
mod drawn;
mod faults;
mod host;
mod network;
mod program;
mod random;
mod readers;
mod report;
mod source_model;
mod waits;
mod world;

use std::num::NonZeroU32;

use program::Program;
use world::World;

pub(crate) use constants::assumptions;
pub(crate) use faults::Faults;
pub(crate) use report::{Report, table};

/// What is simulated.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    /// Ranks, one a node.
    pub(crate) nodes: NonZeroU32,
    /// Processes of each node; all run the same program.
    pub(crate) processes: NonZeroU32,
    /// Trees of the job.
    pub(crate) trees: NonZeroU32,
    /// Children of a rank in one tree.
    pub(crate) fanout: NonZeroU32,
    /// What everything random is drawn from.
    pub(crate) seed: u64,
    /// Each rank's arena, in bytes.
    pub(crate) arena_bytes: u64,
    /// What each process does.
    pub(crate) program: ProgramName,
    /// What goes wrong.
    pub(crate) faults: Faults,
}

/// The programs that can be run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum ProgramName {
    /// The shape of `import torch`.
    Torch,
    /// Some of everything, for thousands of runs.
    Small,
}

/// How far a run has come.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Progress {
    /// Virtual time.
    pub(crate) seconds: f64,
    pub(crate) events: u64,
    /// The share of all ranks' steps that is done.
    pub(crate) done: f64,
}

/// A run in which something was not as it must be.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{what}, at {nodes} nodes after {seconds:.6} s")]
pub(crate) struct Broken {
    what: String,
    nodes: u32,
    seconds: f64,
}

/// Runs one job from its first request to its last, and says now and then how far it has come.
pub(crate) fn run(plan: &Plan, told: &mut dyn FnMut(Progress)) -> Result<Report, Broken> {
    let program = match plan.program {
        ProgramName::Torch => Program::torch(),
        ProgramName::Small => Program::small(),
    };
    World::new(plan, &program).run(told)
}
