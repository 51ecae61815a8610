//! What an engine has counted, for whoever wants to look without disturbing it.

use std::sync::atomic::{AtomicU64, Ordering};

use copper_proto::limits::TREES_MAX;

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Counters and gauges of one engine. Written by its thread alone, read by anybody, with
        /// no order among them.
        #[derive(Debug, Default)]
        pub struct Counters {
            $($(#[$doc])* pub $name: AtomicU64,)*
            /// This rank's part in each tree; those behind the job's last one are not used.
            pub trees: [TreeCounters; TREES_MAX as usize],
        }
    };
}

counters! {
    /// Pulls begun.
    pulls,
    /// Bytes of pulls that ended well.
    pulled_bytes,
    /// Bytes of leases that children gave back: what they have pulled here.
    served_bytes,
    /// Answers whose bytes came inside the message.
    inlined,
    /// Messages sent.
    messages_sent,
    /// Messages received that were of a known link.
    messages_received,
    /// Messages received that were not, or were malformed: dropped.
    messages_dropped,
    /// Fetches begun again after a failure.
    retries,
    /// Pulls whose bytes were not those announced.
    checksum_failures,
    /// Pulls that ran out of time.
    quarantined,
    /// Readers and children answered `ETIMEDOUT`.
    expired,
    /// Times that a fetch had to wait for an extent.
    starved,
    /// Blocks of which a reader of this node was the first to ask: not held, nor on their way.
    misses,
    /// Blocks fetched ahead of readers.
    fetched_ahead,
    /// Those of them that were asked for later.
    fetched_ahead_read,
    /// Those of them that were evicted before.
    fetched_ahead_evicted,
    /// Refreshes taken in.
    refreshes,
    /// Answers and bytes of before a refresh that came after it, and were asked for again.
    outdated,
    /// Links closed because the other side broke the protocol.
    violations,
    /// Links given up since nothing came over the fabric, or pull after pull failed.
    given_up,
    /// Objects read from the source by a rank that is not the root, which is lost or out of reach.
    degraded_reads,
    /// Objects taken from a child instead, in the root's place.
    recalled,
    /// Objects held.
    blocks,
    /// Bytes that they take.
    bytes,
    /// Bytes of the arena.
    limit_bytes,
    /// Bytes that may not be evicted now.
    pinned_bytes,
    /// Objects evicted.
    evicted_blocks,
    /// Bytes of blocks that came again after they had been evicted.
    refetched_bytes,
    /// Bytes written to the spill file.
    spill_written_bytes,
    /// Bytes of blocks read back from it.
    spill_restored_bytes,
    /// Evicted objects that it could not take.
    spill_dropped,
    /// Copies that could not be read back as they had been written.
    spill_lost,
    /// Bytes that copies take in it.
    spill_bytes,
    /// Bytes that it may take.
    spill_limit_bytes,
    /// Absences taken in that hold for a time only.
    absences_stored,
    /// Answers with one.
    absences_served,
    /// Those whose time had passed when the path was asked for again.
    absences_expired,
    /// Those that ended because something is there now.
    absences_cleared,
    /// Decoded directory snapshots.
    directories,
    /// Paths of which something is known.
    attributes,
    /// Inodes that the kernel holds.
    inodes,
    /// Names that the kernel was asked to forget, because there were too many inodes.
    inodes_surplus,
    /// Questions of frontends under way.
    questions,
    /// Fetches under way.
    fetches,
    /// Pulls under way.
    pulls_now,
    /// Extents in quarantine.
    quarantined_now,
    /// Source jobs under way.
    source_jobs,
    /// Leases that children hold.
    leases_given,
    /// Leases that this rank holds.
    leases_held,
    /// Children linked, in all trees.
    children,
}

/// A rank's part in one tree.
#[derive(Debug, Default)]
pub struct TreeCounters {
    /// The parent's rank plus one; 0 without one.
    pub parent_plus_one: AtomicU64,
    /// 1 if this rank reads the source itself.
    pub reads_source: AtomicU64,
}

/// Sets a value that only the engine's thread writes.
pub(crate) fn set(counter: &AtomicU64, value: u64) {
    counter.store(value, Ordering::Relaxed);
}

/// Adds to a value that only the engine's thread writes.
pub(crate) fn add(counter: &AtomicU64, value: u64) {
    set(counter, counter.load(Ordering::Relaxed) + value);
}
