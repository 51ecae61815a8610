//! Every number of the model, with its source. What nobody has measured says "assumed".

use std::time::Duration;

/// What one NIC moves each way. HPE Slingshot 11: 200 Gbit/s. A node of Aurora has eight, of which a
/// daemon uses one.
pub(super) const NIC_BYTES_PER_SECOND: u64 = 25_000_000_000;

/// From one NIC to another. Assumed; of the order of published half round trips over Slingshot.
pub(super) const LATENCY: Duration = Duration::from_micros(2);

/// What the engine's thread spends on one message, on either side. Measured: an answer of 4 KiB takes
/// 5.8 µs longer than over bare libfabric (`benches/record`, spinning), for two messages on two sides.
pub(super) const MESSAGE_HANDLING: Duration = Duration::from_nanos(1_500);

/// What the engine's thread spends on each byte that is pulled, mostly its checksum, in picoseconds.
/// Measured: a pull of 1 MiB takes 89 µs longer than over bare libfabric (`benches/record`).
pub(super) const VERIFYING_PICOS_PER_BYTE: u64 = 85;

/// A message without its payload. Measured: a path of 80 bytes, and what `wire` puts around it.
pub(super) const MESSAGE_BYTES: u64 = 160;

/// A request of the kernel to the daemon, there and back. Measured in ADR 9, on one processor.
pub(super) const FUSE_REQUEST: Duration = Duration::from_nanos(7_400);

/// Handing a request to the engine's thread. Measured in ADR 6, on one processor.
pub(super) const ENGINE_HANDOFF: Duration = Duration::from_nanos(3_300);

/// What the kernel answers by itself. Assumed.
pub(super) const KERNEL_ANSWER: Duration = Duration::from_nanos(1_000);

/// What each process computes, over its whole program. Assumed: `import torch` from a warm local disk.
pub(super) const COMPUTING: Duration = Duration::from_secs(3);

/// The processes of a node, and the nodes, begin within so long. Assumed.
pub(super) const START_SPREAD: Duration = Duration::from_millis(50);

/// One operation of the source, there and back, while it is not busy. Assumed; DESIGN has "Lustre
/// answers in milliseconds".
pub(super) const SOURCE_LATENCY: Duration = Duration::from_millis(1);

/// Each further entry of a listing with attributes, which Lustre fetches ahead. Assumed.
pub(super) const SOURCE_ENTRY: Duration = Duration::from_micros(20);

/// Metadata operations that the source takes from all nodes together. Fitted: 98,304 processes (8,192
/// nodes of the published measurement) then take its 17 minutes for this program.
pub(super) const SOURCE_OPERATIONS_PER_SECOND: u64 = 505_000;

/// What the source gives all nodes together. Published for Aurora's Flare: 650 GB/s.
pub(super) const SOURCE_BYTES_PER_SECOND: u64 = 650_000_000_000;

/// What the source gives one node. Assumed.
pub(super) const CLIENT_BYTES_PER_SECOND: u64 = 5_000_000_000;

/// Source reads that one rank has under way at once: the daemon's threads (`src/source.rs`).
pub(super) const SOURCE_THREADS: usize = 16;

/// How long until a rank knows that another has died. Assumed: its kernel closes its connections.
pub(super) const DEATH_SEEN: Duration = Duration::from_millis(1);

/// How long a side of a link that hears nothing waits before it closes it: the launcher's `Pace`.
pub(super) const SILENCE: Duration = Duration::from_secs(5);

/// What it takes to connect to another rank and prove oneself. Assumed.
pub(super) const DIALLING: Duration = Duration::from_millis(1);

/// How long a rank that reaches nobody above waits before it reads the source: one that takes the root's
/// place, and any other. The daemon's (`launcher/src/control.rs`).
pub(super) const TAKEOVER: Duration = Duration::from_millis(500);
pub(super) const ORPHANED: Duration = Duration::from_secs(2);

/// What a reader of the figures must know, one line each.
pub(crate) fn assumptions() -> Vec<String> {
    let gigabytes = |bytes: u64| bytes as f64 / 1e9;
    vec![
        format!(
            "assumed: {LATENCY:?} between NICs of {} GB/s; {COMPUTING:?} of computing in each process; \
             a source that answers in {SOURCE_LATENCY:?} and gives one node {} GB/s",
            gigabytes(NIC_BYTES_PER_SECOND),
            gigabytes(CLIENT_BYTES_PER_SECOND)
        ),
        format!(
            "fitted: {SOURCE_OPERATIONS_PER_SECOND} metadata operations a second of the source, to the \
             17 minutes published for 8,192 nodes without Copper"
        ),
        format!(
            "measured on one machine over tcp: {MESSAGE_HANDLING:?} for each message on either side, \
             {VERIFYING_PICOS_PER_BYTE} ps for each byte, {FUSE_REQUEST:?} for each request of the kernel"
        ),
        "readers are modelled as questions to the protocol, by the look-up, sibling and read-ahead \
         rules of the daemon; FUSE and the kernel are not simulated"
            .to_owned(),
        "without Copper: the larger of one process's chain and of what all ask of the source, through \
         what it can give"
            .to_owned(),
    ]
}

/// How long so many bytes take at this rate.
pub(super) fn moving(bytes: u64, bytes_per_second: u64) -> Duration {
    Duration::from_nanos((u128::from(bytes) * 1_000_000_000 / u128::from(bytes_per_second)) as u64)
}
