//! Every number that a rank tells of itself, with its kind, unit and meaning. `copper metrics` prints
//! these and no others; docs/METRICS.md has the same table, and a test compares the two.

/// Whether a number only grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// It does, as long as the daemon lives.
    Counter,
    /// It goes up and down.
    Gauge,
}

/// One number of a rank.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Metric {
    /// Where `copper status --json` has it, below a rank.
    pub(crate) pointer: &'static str,
    pub(crate) kind: Kind,
    pub(crate) unit: &'static str,
    pub(crate) help: &'static str,
}

impl Metric {
    /// As Prometheus calls it.
    pub(crate) fn name(&self) -> String {
        let path = self.pointer.trim_start_matches('/').replace('/', "_");
        match self.kind {
            Kind::Counter => format!("copper_{path}_total"),
            Kind::Gauge => format!("copper_{path}"),
        }
    }
}

macro_rules! catalogue {
    ($($kind:ident $pointer:literal $unit:literal $help:literal,)*) => {
        /// All of them, in the order of the status.
        pub(crate) const CATALOGUE: &[Metric] = &[
            $(Metric { pointer: $pointer, kind: Kind::$kind, unit: $unit, help: $help },)*
        ];
    };
}

catalogue! {
    Gauge "/uptime_s" "seconds" "Since the daemon was started",
    Gauge "/level" "count" "Links between this rank and the root of the first tree",
    Gauge "/bootstrap/registered_us" "microseconds" "From the start until the fabric was open",
    Gauge "/bootstrap/ready_us" "microseconds" "From the start until the mount answered",
    Counter "/totals/calls" "calls" "Calls of the kernel that have ended",
    Counter "/totals/hits" "calls" "Calls answered from what this node held",
    Counter "/totals/misses" "calls" "Calls answered with what had to be fetched",
    Counter "/totals/negatives" "calls" "Calls answered that there is no such thing",
    Counter "/totals/errors" "calls" "Calls answered with another errno",
    Counter "/source/opens" "files" "Regular files opened at the source",
    Counter "/source/reads" "reads" "Blocks read from the source",
    Counter "/source/bytes" "bytes" "Bytes of them",
    Counter "/source/stats" "calls" "Attributes read from the source",
    Counter "/source/listings" "directories" "Directories listed at the source",
    Counter "/source/extended_attributes" "files" "Lists of extended attributes read from the source",
    Counter "/source/data_ranges" "files" "Files searched for holes at the source",
    Counter "/source/refused" "requests" "Requests outside the allowed roots, or to a rank without a source",
    Counter "/source/degraded_reads" "objects" "Objects read from the source by a rank that is not the root, which is lost or out of reach",
    Counter "/fabric/pulls" "pulls" "Pulls begun",
    Counter "/fabric/pulled_bytes" "bytes" "Bytes of pulls that ended well",
    Counter "/fabric/served_bytes" "bytes" "Bytes of leases that children gave back: what they have pulled here",
    Counter "/fabric/inlined" "messages" "Answers whose bytes came inside the message",
    Counter "/fabric/messages_sent" "messages" "Messages sent",
    Counter "/fabric/messages_received" "messages" "Messages received over a known link",
    Counter "/fabric/messages_dropped" "messages" "Messages of no known link, or malformed",
    Counter "/fabric/retries" "fetches" "Fetches begun again after a failure",
    Counter "/fabric/checksum_failures" "pulls" "Pulls whose bytes were not those announced",
    Counter "/fabric/quarantined" "pulls" "Pulls that ran out of time",
    Counter "/fabric/expired" "waiters" "Readers and children answered ETIMEDOUT",
    Counter "/fabric/violations" "links" "Links closed because the other side broke the protocol",
    Counter "/fabric/given_up" "links" "Links given up since nothing came over the fabric, or pull after pull failed",
    Counter "/fabric/recalled" "objects" "Objects taken from a child instead of the source, in the place of a lost root",
    Counter "/fuse/lookup" "calls" "LOOKUP requests",
    Counter "/fuse/forget" "inodes" "FORGET and BATCH_FORGET requests, in inodes given back",
    Counter "/fuse/getattr" "calls" "GETATTR requests",
    Counter "/fuse/readlink" "calls" "READLINK requests",
    Counter "/fuse/open" "calls" "OPEN requests",
    Counter "/fuse/read" "calls" "READ requests",
    Counter "/fuse/release" "calls" "RELEASE requests",
    Counter "/fuse/opendir" "calls" "OPENDIR requests",
    Counter "/fuse/readdir" "calls" "READDIR requests",
    Counter "/fuse/readdirplus" "calls" "READDIRPLUS requests",
    Counter "/fuse/releasedir" "calls" "RELEASEDIR requests",
    Counter "/fuse/statfs" "calls" "STATFS requests",
    Counter "/fuse/access" "calls" "ACCESS requests",
    Counter "/fuse/getxattr" "calls" "GETXATTR requests",
    Counter "/fuse/listxattr" "calls" "LISTXATTR requests",
    Counter "/fuse/lseek" "calls" "LSEEK requests",
    Counter "/fuse/ioctl" "calls" "IOCTL requests, mostly isatty",
    Counter "/fuse/mutation" "calls" "Requests that would change the view, answered EROFS",
    Counter "/fuse/other" "calls" "Other requests",
    Counter "/fuse/negative" "calls" "Look-ups answered that there is no such file",
    Counter "/fuse/inline" "calls" "Requests answered at once by the thread that took them",
    Counter "/fuse/asked" "calls" "Requests handed to the engine",
    Counter "/fuse/errors" "calls" "Requests answered with an errno other than ENOENT",
    Counter "/fuse/expired" "calls" "Requests that only the watchdog answered",
    Counter "/fuse/invalidations" "names" "Names and directories that the kernel was told to forget",
    Counter "/fuse/stores" "ranges" "Ranges of pages put into the kernel's cache before it asked",
    Counter "/fuse/store_bytes" "bytes" "Bytes of them",
    Counter "/fuse/passthrough" "calls" "Opens handed to the kernel with a backing file",
    Counter "/fuse/backings" "files" "Backing files made",
    Counter "/fuse/backing_bytes" "bytes" "Bytes copied into them",
    Counter "/fuse/backings_failed" "files" "Backing files that could not be made",
    Counter "/fuse/read_bytes" "bytes" "Bytes of READ replies",
    Gauge "/fuse/read_request_bytes_max" "bytes" "The largest READ request so far",
    Gauge "/cache/blocks" "objects" "Objects held",
    Gauge "/cache/bytes" "bytes" "Bytes that they take",
    Gauge "/cache/limit_bytes" "bytes" "Bytes of the arena",
    Gauge "/cache/pinned_bytes" "bytes" "Bytes that may not be evicted now",
    Counter "/cache/evicted_blocks" "objects" "Objects evicted",
    Counter "/cache/refetched_bytes" "bytes" "Bytes of blocks that came again after they had been evicted",
    Gauge "/cache/directories" "directories" "Decoded directory snapshots",
    Gauge "/cache/attributes" "paths" "Paths of which something is known",
    Gauge "/cache/inodes" "inodes" "Inodes that the kernel holds",
    Counter "/cache/inodes_surplus" "names" "Names that the kernel was asked to forget, because there were too many inodes",
    Gauge "/cache/fetches" "fetches" "Fetches under way",
    Counter "/cache/misses" "blocks" "Blocks of which a reader of this node was the first to ask",
    Counter "/cache/fetched_ahead" "blocks" "Blocks fetched ahead of readers",
    Counter "/cache/fetched_ahead_read" "blocks" "Those of them that were asked for later",
    Counter "/cache/fetched_ahead_evicted" "blocks" "Those of them that were evicted before",
    Counter "/cache/starved" "fetches" "Times that a fetch had to wait for an extent",
    Counter "/absences/stored" "paths" "Absences taken in that hold for a time only",
    Counter "/absences/served" "answers" "Answers given with one, to readers and to children",
    Counter "/absences/expired" "paths" "Absences replaced by another: still absent after their time",
    Counter "/absences/cleared" "paths" "Absences replaced by what is there now",
    Counter "/spill/written_bytes" "bytes" "Bytes written to the spill file",
    Counter "/spill/restored_bytes" "bytes" "Bytes of blocks read back from it",
    Counter "/spill/dropped" "objects" "Evicted objects that it could not take",
    Counter "/spill/lost" "objects" "Copies that could not be read back as they had been written",
    Gauge "/spill/bytes" "bytes" "Bytes that copies take in it",
    Gauge "/spill/limit_bytes" "bytes" "Bytes that it may take",
    Gauge "/memory/limit_bytes" "bytes" "What --memory says",
    Gauge "/memory/resident_bytes" "bytes" "Resident memory of the daemon",
    Gauge "/memory/resident_peak_bytes" "bytes" "The most that it was",
    Gauge "/memory/anonymous_bytes" "bytes" "The part of it that no file is behind",
    Gauge "/memory/file_bytes" "bytes" "The part of it that files are behind",
    Gauge "/memory/huge_page_bytes" "bytes" "The part of it in huge pages",
    Gauge "/under_way/questions" "questions" "Questions of readers under way",
    Gauge "/under_way/fetches" "fetches" "Fetches under way",
    Gauge "/under_way/pulls" "pulls" "Pulls under way",
    Gauge "/under_way/quarantined" "extents" "Extents in quarantine",
    Gauge "/under_way/source_jobs" "jobs" "Source jobs under way",
    Gauge "/under_way/leases_given" "leases" "Leases that children hold",
    Gauge "/under_way/leases_held" "leases" "Leases that this rank holds",
    Gauge "/under_way/pinned_bytes" "bytes" "Bytes that may not be evicted now",
    Gauge "/links/children" "links" "Children linked, in all trees",
    Gauge "/links/ready_ranks" "ranks" "Ranks at or below this one that are ready",
    Counter "/links/handshakes" "links" "Connections that became links",
    Counter "/links/refused_connections" "connections" "Connections that did not",
    Counter "/links/tcp/handshakes" "links" "Connections that became links, of either side",
    Gauge "/links/tcp/handshakes_pending" "connections" "Incoming connections whose handshake is under way",
    Gauge "/links/tcp/links" "links" "Links that are up",
    Counter "/links/tcp/control_sent" "messages" "Control messages sent, without heartbeats",
    Counter "/links/tcp/control_received" "messages" "Control messages received, without heartbeats",
    Counter "/links/tcp/control_forged" "messages" "Control messages whose seal does not hold",
    Counter "/links/tcp/heartbeats_missed" "heartbeats" "Heartbeats that did not come in time",
    Counter "/links/tcp/attempts_failed" "connections" "Own attempts to reach a parent that failed",
    Counter "/links/tcp/refused_connections" "connections" "Incoming connections that did not become links",
    Counter "/links/tcp/refused_malformed" "connections" "Those that sent something else than the protocol",
    Counter "/links/tcp/refused_timed_out" "connections" "Those that took too long",
    Counter "/links/tcp/refused_closed" "connections" "Those that the other side closed",
    Counter "/links/tcp/refused_crowded" "connections" "Those that were in the way of newer ones",
    Counter "/links/tcp/refused_version" "connections" "Those of another protocol version",
    Counter "/links/tcp/refused_secret" "connections" "Those without the job's secret",
    Counter "/links/tcp/refused_job" "connections" "Those of another job",
    Counter "/links/tcp/refused_size" "connections" "Those of a job of another size",
    Counter "/links/tcp/refused_trees" "connections" "Those of a job with another number of trees",
    Counter "/links/tcp/refused_position" "connections" "Those that are not below this rank",
    Counter "/links/tcp/refused_provider" "connections" "Those with another provider",
    Counter "/links/tcp/refused_busy" "connections" "Those for which there was no room",
    Counter "/links/tcp/refused_unsaid" "connections" "Those that refused this rank, for another reason",
    Gauge "/refresh/epoch" "number" "The last refresh of this rank",
    Gauge "/refresh/entries" "paths" "Paths that it dropped",
    Gauge "/refresh/directories" "directories" "Directories that it dropped",
    Gauge "/refresh/blocks" "objects" "Objects that it dropped",
    Gauge "/refresh/bytes" "bytes" "Bytes of them",
    Counter "/refresh/taken" "refreshes" "Refreshes taken in",
    Counter "/refresh/outdated" "answers" "Answers of before a refresh that came after it",
    Gauge "/kernel/max_readahead" "bytes" "The largest read-ahead that the kernel was granted",
    Gauge "/kernel/read_request_bytes_max" "bytes" "The largest READ request so far",
    Gauge "/kernel/read_request_bytes_mean" "bytes" "Bytes of READ replies by their number",
    Gauge "/progress/ready" "ranks" "At rank 0: ranks that are ready",
    Gauge "/progress/size" "ranks" "At rank 0: ranks of the job",
    Gauge "/progress/depth" "count" "At rank 0: levels below the root of the first tree",
}

/// Names of what each operation has, with its kind and meaning; the label `operation` says which. As
/// pointers: `/operations/OPERATION/…`.
pub(crate) const OF_OPERATIONS: &[(&str, &str)] = &[
    ("calls", "Calls that have ended"),
    ("hits", "Calls answered from what this node held"),
    ("misses", "Calls answered with what had to be fetched"),
    ("negatives", "Calls answered that there is no such thing"),
    ("errors", "Calls answered with another errno"),
];

/// The histogram of an operation's latency.
pub(crate) const LATENCY: (&str, &str) =
    ("copper_operation_latency_seconds", "From the arrival of a call to the end of its reply");

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(text: &str) -> Vec<Vec<&str>> {
        let rows = text.lines().filter(|line| line.starts_with("| `/"));
        rows.map(|row| row.trim_matches('|').split('|').map(str::trim).collect()).collect()
    }

    #[test]
    fn the_document_has_the_same_metrics() {
        let documented = rows(include_str!("../../docs/METRICS.md"));
        let expected = CATALOGUE.iter().map(|metric| {
            let kind = format!("{:?}", metric.kind).to_lowercase();
            let (pointer, name) = (format!("`{}`", metric.pointer), format!("`{}`", metric.name()));
            [pointer, name, kind, metric.unit.to_owned(), metric.help.to_owned()]
        });
        let expected: Vec<_> = expected.collect();
        let text: Vec<String> =
            expected.iter().map(|cells| format!("| {} |", cells.join(" | "))).collect();
        assert_eq!(documented.len(), expected.len(), "it should say:\n{}", text.join("\n"));
        for (row, cells) in documented.iter().zip(&expected) {
            assert_eq!(row, cells, "docs/METRICS.md differs");
        }
        let whole = include_str!("../../docs/METRICS.md");
        for (name, help) in OF_OPERATIONS {
            let row = format!("| `copper_operation_{name}_total` | {help} |");
            assert!(whole.contains(&row), "{row}");
        }
        assert!(whole.contains(&format!("| `{}` | {} |", LATENCY.0, LATENCY.1)));
    }

    #[test]
    fn names_are_unique_and_of_the_form_that_prometheus_wants() {
        let names: Vec<String> = CATALOGUE.iter().map(Metric::name).collect();
        let distinct: std::collections::HashSet<_> = names.iter().collect();
        assert_eq!(distinct.len(), names.len());
        for name in names {
            let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
            assert!(name.chars().all(fits), "{name}");
        }
    }
}
