//! What a run has found, as a row of a table and as JSON.

use std::collections::BTreeMap;

use serde::Serialize;

/// One run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Report {
    pub(crate) nodes: u32,
    pub(crate) processes: u32,
    pub(crate) trees: u32,
    pub(crate) fanout: u32,
    pub(crate) seed: u64,
    /// Until the last process of the last node that lives has ended.
    pub(crate) seconds: f64,
    /// The same without Copper.
    pub(crate) direct_seconds: f64,
    /// Of both, what each process computes.
    pub(crate) computing_seconds: f64,
    /// Metadata operations and reads.
    pub(crate) source_operations: u64,
    /// Bytes of blocks that were read from the source, each time.
    pub(crate) source_bytes: u64,
    /// The same, each block once.
    pub(crate) distinct_bytes: u64,
    /// Ranks that have read the source.
    pub(crate) source_readers: usize,
    pub(crate) hottest_rank: usize,
    /// What that rank's NIC has sent.
    pub(crate) hottest_egress_bytes: u64,
    /// How long a process waited for what was not on its node.
    pub(crate) wait_p50_seconds: f64,
    pub(crate) wait_p99_seconds: f64,
    /// The most messages that one rank's engine was behind.
    pub(crate) deepest_queue: u64,
    pub(crate) messages: u64,
    /// Messages for each object that went over a link to a parent.
    pub(crate) messages_per_object: f64,
    /// Ranks that died.
    pub(crate) killed: u32,
    /// Of them, those that came back with an empty cache.
    pub(crate) returned: u32,
    /// Ranks that were cut off from a parent for a while.
    pub(crate) cut: u32,
    /// Objects that were read from the source again, by the reason for it: evicted there, held by a
    /// rank that died, its root out of reach, no room for it.
    pub(crate) rereads: BTreeMap<&'static str, u64>,
    /// Reads that ended with an error, of processes whose rank lived.
    pub(crate) errors: u64,
    pub(crate) evictions: u64,
    /// What the machine needed to simulate it.
    pub(crate) events: u64,
}

const HEADINGS: [&str; 12] = [
    "nodes",
    "seconds",
    "without",
    "source ops",
    "bytes/distinct",
    "readers",
    "hottest egress",
    "wait p50",
    "wait p99",
    "queue",
    "msgs/object",
    "killed/errors",
];

/// All runs, one a line.
pub(crate) fn table(reports: &[Report]) -> String {
    let mut rows = vec![HEADINGS.map(str::to_owned)];
    rows.extend(reports.iter().map(row));
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths: Vec<usize> = (0..HEADINGS.len()).map(|it| width(it).unwrap_or(0)).collect();
    let line = |row: &[String; HEADINGS.len()]| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:>width$}"));
        cells.collect::<Vec<_>>().join("  ")
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

fn row(report: &Report) -> [String; HEADINGS.len()] {
    let ratio = report.source_bytes as f64 / report.distinct_bytes.max(1) as f64;
    let gib = report.hottest_egress_bytes as f64 / f64::from(1 << 30);
    [
        report.nodes.to_string(),
        format!("{:.2}", report.seconds),
        format!("{:.1}", report.direct_seconds),
        report.source_operations.to_string(),
        format!("{ratio:.3}"),
        report.source_readers.to_string(),
        format!("{gib:.2} GiB"),
        format!("{:.2} ms", report.wait_p50_seconds * 1e3),
        format!("{:.2} ms", report.wait_p99_seconds * 1e3),
        report.deepest_queue.to_string(),
        format!("{:.2}", report.messages_per_object),
        format!("{}/{}", report.killed, report.errors),
    ]
}
