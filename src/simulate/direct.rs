//! The same program without Copper: every process asks the source itself.

use super::Plan;
use super::constants::{
    CLIENT_BYTES_PER_SECOND, COMPUTING, SOURCE_BYTES_PER_SECOND, SOURCE_LATENCY,
    SOURCE_OPERATIONS_PER_SECOND,
};
use super::program::Program;

/// How long it takes, in seconds: by the bounds of a closed network of queues, the larger of one
/// process's chain and what all together ask through what the source gives. A node's processes share
/// its pages, but each of them looks every name up.
pub(super) fn direct_seconds(plan: &Plan, program: &Program) -> f64 {
    let (nodes, processes) = (f64::from(plan.nodes.get()), f64::from(plan.processes.get()));
    let asked = program.direct();
    let (operations, bytes) = (asked.operations as f64, asked.bytes as f64);
    let chain = COMPUTING.as_secs_f64()
        + operations * SOURCE_LATENCY.as_secs_f64()
        + bytes / CLIENT_BYTES_PER_SECOND as f64;
    let servers = nodes * processes * operations / SOURCE_OPERATIONS_PER_SECOND as f64;
    let storage = nodes * bytes / SOURCE_BYTES_PER_SECOND as f64;
    chain.max(servers).max(storage)
}
