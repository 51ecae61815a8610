//! What a node has counted, and what it has under way.

/// What a node has counted; see docs/OPERATIONS.md.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NodeCounters {
    /// Pulls begun.
    pub pulls: u64,
    /// Bytes of pulls that ended well.
    pub pulled_bytes: u64,
    /// Bytes of leases that children gave back: what they have pulled here.
    pub served_bytes: u64,
    /// Answers whose bytes came inside the message.
    pub inlined: u64,
    /// Fetches begun again after a failure.
    pub retries: u64,
    /// Pulls whose bytes were not those announced.
    pub checksum_failures: u64,
    /// Pulls that ran out of time, whose extents went to quarantine.
    pub quarantined: u64,
    /// Waiters answered `ETIMEDOUT`.
    pub expired: u64,
    /// Times that a fetch had to wait for an extent.
    pub starved: u64,
    /// Blocks of which a reader of this node was the first to ask: not held, nor on their way.
    pub misses: u64,
    /// Blocks fetched ahead of readers.
    pub fetched_ahead: u64,
    /// Those of them that somebody came to wait for before they were there.
    pub ahead_awaited: u64,
    /// Refreshes taken in.
    pub refreshes: u64,
    /// Answers and bytes of before a refresh that came after it, and were asked for again.
    pub outdated: u64,
    /// Bytes of blocks that were read back from the spill.
    pub restored_bytes: u64,
    /// Copies in the spill that were not as they had been written, or could not be read in time.
    pub spill_lost: u64,
    /// Links closed because of a violation.
    pub violations: u64,
    /// Links given up since nothing came over the fabric, or pull after pull failed.
    pub given_up: u64,
    /// Objects read from the source by a rank that is not the root, which is lost or out of reach.
    pub degraded_reads: u64,
    /// Objects that a child gave to its parent, which reads the source in the root's place.
    pub recalled: u64,
}

/// What is under way; see [`Node::gauges`](crate::Node::gauges).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gauges {
    /// Fetches under way.
    pub fetches: usize,
    /// Pulls under way, and objects that are being read back from the spill.
    pub pulls: usize,
    /// Extents in quarantine.
    pub quarantined: usize,
    /// Source jobs under way.
    pub jobs: usize,
    /// Leases that children hold.
    pub leases_given: usize,
    /// Leases that this node holds.
    pub leases_held: usize,
}

macro_rules! summed {
    ($name:ident: $($field:ident),*) => {
        impl std::iter::Sum for $name {
            fn sum<I: Iterator<Item = $name>>(all: I) -> $name {
                all.fold($name::default(), |sum, it| $name { $($field: sum.$field + it.$field),* })
            }
        }
    };
}

summed!(NodeCounters: pulls, pulled_bytes, served_bytes, inlined, retries, checksum_failures, quarantined,
    expired, starved, misses, fetched_ahead, ahead_awaited, refreshes, outdated, restored_bytes,
    spill_lost, violations, given_up, degraded_reads, recalled);
summed!(Gauges: fetches, pulls, quarantined, jobs, leases_given, leases_held);
