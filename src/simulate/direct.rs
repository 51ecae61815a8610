//! The same program without Copper: every process asks the source itself.

use super::Plan;
use super::program::Program;

/// How long it takes, in seconds: by the bounds of a closed network of queues, the larger of one
/// process's chain and what all together ask through what the source gives. A node's processes share
/// its pages, but each of them looks every name up.
pub(super) fn direct_seconds(plan: &Plan, program: &Program) -> f64 {
    let (nodes, processes) = (f64::from(plan.nodes.get()), f64::from(plan.processes.get()));
    let constants = &plan.constants;
    let asked = program.direct();
    let (operations, bytes) = (asked.operations as f64, asked.bytes as f64);
    let chain = program.computing(constants).as_secs_f64()
        + operations * constants.source_latency.as_secs_f64()
        + bytes / constants.client_bytes_per_second as f64;
    let servers = nodes * processes * operations / constants.source_operations_per_second as f64;
    let storage = nodes * bytes / constants.source_bytes_per_second as f64;
    chain.max(servers).max(storage)
}
