//! What stands out at a rank: its slowest operation, and the paths that lead.

use copper_fuse::{HotPaths, Leader, OperationValues};
use copper_launcher::gather;
use serde_json::{Value, json};

/// Paths of each kind in a short report, and how much of each: a report has a bound
/// (`REPORT_BYTES_MAX`), a character up to four bytes.
const LEADERS_MAX: usize = 3;
const PATH_CHARS_MAX: usize = 64;

const _: () =
    assert!(2 * LEADERS_MAX * (4 * PATH_CHARS_MAX + 100) + 1900 <= gather::REPORT_BYTES_MAX);

/// The operation of which one call took longest.
pub(super) fn slowest_operation(operations: &[OperationValues]) -> Option<Value> {
    let slowest = operations.iter().max_by_key(|row| row.latency.max_ns())?;
    (slowest.calls() > 0).then(|| {
        json!({
            "name": slowest.operation.name(),
            "p99_ns": slowest.latency.quantile_ns(0.99),
            "max_ns": slowest.latency.max_ns(),
        })
    })
}

/// The paths that were asked for most, and those whose calls took longest.
pub(super) fn report(paths: &HotPaths) -> Value {
    let row = |(category, path, counts): &Leader| {
        json!({
            "category": category.name(),
            "path": shown(path),
            "events": counts.events,
            "slowest_ns": counts.slowest_ns,
        })
    };
    let leaders = paths.leaders(LEADERS_MAX);
    let rows = |of: &[Leader]| of.iter().map(row).collect::<Vec<_>>();
    json!({ "hottest": rows(&leaders.hottest), "slowest": rows(&leaders.slowest) })
}

/// A path for people: its end if it is long, nothing that a terminal would obey.
fn shown(path: &[u8]) -> String {
    let text = String::from_utf8_lossy(path);
    let clean = text.chars().map(|c| if c.is_control() { '?' } else { c });
    let skipped = text.chars().count().saturating_sub(PATH_CHARS_MAX);
    let mark = if skipped > 0 { "…" } else { "" };
    mark.chars().chain(clean.skip(skipped)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_cut_to_its_end_and_has_nothing_that_a_terminal_would_obey() {
        assert_eq!(shown(b"a/\x1b[2Jb"), "a/?[2Jb");
        let long = shown("ä".repeat(100).as_bytes());
        assert_eq!(long, format!("…{}", "ä".repeat(PATH_CHARS_MAX)));
    }
}
