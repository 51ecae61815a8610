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

pub(crate) use constants::assumptions;
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
    /// Ranks, of a thousand, that die at random times; the root of the first tree is one of them.
    pub(crate) killed_permille: u32,
}

/// A run in which something was not as it must be.
#[derive(Clone, Debug, thiserror::Error)]
#[error(
    "{what}, at {nodes} nodes after {seconds:.6} s: replay it with --nodes {nodes} --seed {seed}"
)]
pub(crate) struct Broken {
    what: String,
    nodes: u32,
    seconds: f64,
    seed: u64,
}

/// Runs one job from its first request to its last.
pub(crate) fn run(plan: &Plan) -> Result<Report, Broken> {
    let program = program::Program::torch();
    world::World::new(plan, &program).run()
}
