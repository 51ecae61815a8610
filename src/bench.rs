//! `copper bench`: what the ranks of a job do for each other, measured without mounts. Every rank is
//! a process with the engine, the fabric and the rendezvous of a daemon; its source makes its bytes
//! up, and its readers are answered on the engine's thread, so that nothing but the data engine is
//! timed. The rival, a loop over bare libfabric, runs in the same processes: a ratio says what
//! Copper adds, on whatever machine.
//!
//! One rank gives the orders (`plan`), all carry them out (`worker`), and they talk over TCP.

mod costs;
mod fetcher;
mod fleet;
mod member;
mod orders;
mod plan;
mod raw;
mod report;
mod synthetic;
mod worker;

pub(crate) use costs::{Amount, Costs, costs};
pub(crate) use fleet::{Fleet, LocalFleet};
pub(crate) use plan::{Extent, Part, run};
pub(crate) use worker::{WorkerPlan, work};
