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
mod calibration;
mod constants;
mod direct;
mod drawn;
mod faults;
mod host;
mod network;
mod plot;
mod processors;
mod program;
mod random;
mod readers;
mod report;
mod source_model;
mod waits;
mod world;

use std::num::NonZeroU32;
use std::time::Duration;

use world::World;

pub(crate) use calibration::{Calibration, calibrate};
pub(crate) use constants::Constants;
pub(crate) use faults::Faults;
pub(crate) use plot::plot;
pub(crate) use program::Program;
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
    /// What goes wrong.
    pub(crate) faults: Faults,
    /// Processors that all ranks share; `None`: each rank has a machine of its own.
    pub(crate) processors: Option<NonZeroU32>,
    /// What machines, network and source are taken for.
    pub(crate) constants: Constants,
}

/// Work that all ranks' processes have before them when a daemon wants a processor lasts no longer, or
/// the model's daemons would fall silent where a scheduler lets them in between.
const HELD_UP_MAX: Duration = Duration::from_secs(1);

impl Plan {
    /// Whether the model can run it: `processors` takes pieces of work whole, and they must be short.
    pub(crate) fn check(&self, program: &Program) -> Result<(), String> {
        let Some(processors) = self.processors else { return Ok(()) };
        let piece = program.computing_between_steps(&self.constants);
        let pieces = u64::from(self.nodes.get()) * u64::from(self.processes.get());
        let held_up = piece.as_secs_f64() * pieces as f64 / f64::from(processors.get());
        if held_up <= HELD_UP_MAX.as_secs_f64() {
            return Ok(());
        }
        Err(format!(
            "--processors {processors}: {pieces} processes that each compute {piece:?} between two steps \
             keep the daemons waiting for {held_up:.1} s: give less computing_ns in --constants, or fewer \
             processes"
        ))
    }
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

/// Runs one job, each of whose processes runs `program`, from its first request to its last, and says now
/// and then how far it has come.
pub(crate) fn run(
    plan: &Plan,
    program: &Program,
    told: &mut dyn FnMut(Progress),
) -> Result<Report, Broken> {
    World::new(plan, program).run(told)
}
