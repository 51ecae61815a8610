//! The ranks of a job at one moment, of what they say of themselves.

use std::time::Duration;

use serde_json::Value;

/// All ranks, in the order of their numbers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Snapshot {
    /// When, since any moment that two snapshots share.
    pub(crate) at: Duration,
    /// Who there is.
    pub(crate) ranks: Vec<RankState>,
    /// What a user should know of how this came about.
    pub(crate) notes: Vec<String>,
}

/// What one rank has said, or what is known of one that says nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RankState {
    pub(crate) rank: u32,
    pub(crate) state: String,
    pub(crate) host: String,
    pub(crate) parent: Option<u32>,
    /// `None` for a rank that is dead or silent.
    pub(crate) told: Option<Told>,
}

/// The numbers of a rank that answers. Names as in docs/METRICS.md.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) pid: u64,
    pub(crate) level: u64,
    pub(crate) uptime_s: u64,
    pub(crate) calls: u64,
    pub(crate) hits: u64,
    pub(crate) misses: u64,
    pub(crate) errors: u64,
    pub(crate) pulled_bytes: u64,
    pub(crate) served_bytes: u64,
    pub(crate) source_reads: u64,
    pub(crate) source_bytes: u64,
    pub(crate) cache_bytes: u64,
    pub(crate) cache_limit_bytes: u64,
    /// Questions of readers under way.
    pub(crate) questions: u64,
    pub(crate) slowest_operation: Option<SlowestOperation>,
    /// `None` where paths are not counted.
    pub(crate) hottest: Option<Vec<Path>>,
    pub(crate) slowest: Vec<Path>,
}

/// The operation of which one call took longest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SlowestOperation {
    pub(crate) name: String,
    pub(crate) p99_ns: u64,
    pub(crate) max_ns: u64,
}

/// A path that leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Path {
    pub(crate) category: String,
    pub(crate) path: String,
    pub(crate) events: u64,
    pub(crate) slowest_ns: u64,
}

impl Snapshot {
    /// Of the reports of ranks. What is none is left out.
    pub(crate) fn of(at: Duration, reports: &[Value], notes: Vec<String>) -> Snapshot {
        let mut ranks: Vec<RankState> = reports.iter().filter_map(RankState::of).collect();
        ranks.sort_by_key(|rank| rank.rank);
        Snapshot { at, ranks, notes }
    }
}

impl RankState {
    fn of(report: &Value) -> Option<RankState> {
        let rank = number(report, "/rank").and_then(|rank| u32::try_from(rank).ok())?;
        Some(RankState {
            rank,
            state: text(report, "/state")?,
            host: text(report, "/host").unwrap_or_default(),
            parent: number(report, "/parent").and_then(|parent| u32::try_from(parent).ok()),
            told: Told::of(report),
        })
    }
}

impl Told {
    fn of(report: &Value) -> Option<Told> {
        let count = |pointer| number(report, pointer).unwrap_or_default();
        let paths = |pointer| {
            let list = report.pointer(pointer)?.as_array()?;
            Some(list.iter().filter_map(Path::of).collect::<Vec<_>>())
        };
        Some(Told {
            pid: number(report, "/pid")?,
            level: count("/level"),
            // Who does not answer has none.
            uptime_s: number(report, "/uptime_s")?,
            calls: count("/totals/calls"),
            hits: count("/totals/hits"),
            misses: count("/totals/misses"),
            errors: count("/totals/errors"),
            pulled_bytes: count("/fabric/pulled_bytes"),
            served_bytes: count("/fabric/served_bytes"),
            source_reads: count("/source/reads"),
            source_bytes: count("/source/bytes"),
            cache_bytes: count("/cache/bytes"),
            cache_limit_bytes: count("/cache/limit_bytes"),
            questions: count("/under_way/questions"),
            slowest_operation: SlowestOperation::of(&report["slowest_operation"]),
            hottest: paths("/leaders/hottest"),
            slowest: paths("/leaders/slowest").unwrap_or_default(),
        })
    }
}

impl SlowestOperation {
    fn of(value: &Value) -> Option<SlowestOperation> {
        let (p99_ns, max_ns) = (number(value, "/p99_ns")?, number(value, "/max_ns")?);
        Some(SlowestOperation { name: text(value, "/name")?, p99_ns, max_ns })
    }
}

impl Path {
    fn of(value: &Value) -> Option<Path> {
        Some(Path {
            category: text(value, "/category")?,
            path: text(value, "/path")?,
            events: number(value, "/events")?,
            slowest_ns: number(value, "/slowest_ns")?,
        })
    }
}

fn number(value: &Value, pointer: &str) -> Option<u64> {
    value.pointer(pointer)?.as_u64()
}

/// Nothing that a terminal would obey.
fn text(value: &Value, pointer: &str) -> Option<String> {
    let text = value.pointer(pointer)?.as_str()?;
    Some(text.chars().map(|c| if c.is_control() { '?' } else { c }).collect())
}
