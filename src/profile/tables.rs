//! The tables of a profile, in the format of release 1.0: names and order of the columns stay.

use std::fmt::Write;

use copper_fuse::{Category, PathCounts};
use serde_json::Value;

use super::{Absences, Profile, Shown};

/// The columns of operations.csv.
pub(super) const OPERATIONS_HEADER: &str =
    "operation,total_calls,cache_hits,cache_misses,negative_results,avg_latency_us,total_latency_s";

/// The columns of aggregate.csv.
pub(super) const AGGREGATE_HEADER: &str = "metric,value";

/// The columns of top_paths.csv.
const TOP_PATHS_HEADER: &str = "category,path,total_events,cache_hits,cache_misses,\
    negative_results,ttl_stores,ttl_serves,ttl_expires,ttl_clears";

/// The category of paths that absences which hold for a time were told of.
const ABSENCES: &str = "metadata_ttl";

/// Names of absences in aggregate.csv, in the order of [`Absences`].
pub(super) const ABSENCE_METRICS: [&str; 4] = [
    "metadata_enoent_ttl_stores",
    "metadata_enoent_ttl_serves",
    "metadata_enoent_ttl_expires",
    "metadata_enoent_ttl_clears_on_success_or_non_enoent",
];

const SAVED: &str = "estimated_cache_served_operations_saved_by_copper";
const AVOIDED: &str = "estimated_repeated_metadata_lookups_avoided_by_ttl";
const LATENCY: &str = "total_measured_latency_seconds";

/// operations.csv.
pub(super) fn operations(rows: &[Shown]) -> String {
    let mut text = format!("{OPERATIONS_HEADER}\n");
    for row in rows {
        line(
            &mut text,
            format_args!(
                "{},{},{},{},{},{},{}",
                row.name,
                row.calls,
                row.hits,
                row.misses,
                row.negatives,
                average_us(row),
                seconds(row.total_ns),
            ),
        );
    }
    text
}

/// The metrics of aggregate.csv with their values.
pub(super) fn sums(rows: &[Shown], absences: Absences) -> Vec<(&'static str, String)> {
    let sum = |of: fn(&Shown) -> u64| rows.iter().map(of).sum::<u64>();
    let mut sums = vec![
        ("total_counted_fuse_operations", sum(|row| row.calls).to_string()),
        ("total_cache_hits", sum(|row| row.hits).to_string()),
        ("total_cache_misses", sum(|row| row.misses).to_string()),
        ("total_negative_results", sum(|row| row.negatives).to_string()),
        (SAVED, sum(|row| row.hits).to_string()),
    ];
    sums.extend(
        ABSENCE_METRICS.iter().zip(absences).map(|(name, value)| (*name, value.to_string())),
    );
    // An absence that was served is a look-up that nobody above was asked.
    sums.push((AVOIDED, absences[1].to_string()));
    sums.push((LATENCY, seconds(sum(|row| row.total_ns))));
    sums
}

/// aggregate.csv.
pub(super) fn aggregate(rows: &[Shown], absences: Absences) -> String {
    let mut text = format!("{AGGREGATE_HEADER}\n");
    for (metric, value) in sums(rows, absences) {
        line(&mut text, format_args!("{metric},{value}"));
    }
    text
}

/// top_paths.csv: most events first within a category.
pub(super) fn top_paths(profile: &Profile) -> String {
    let mut text = format!("{TOP_PATHS_HEADER}\n");
    for (category, rows) in &profile.paths {
        for (path, counts) in rows {
            path_line(&mut text, category.name(), path, counts);
        }
    }
    let metadata = profile.paths.iter().filter(|(category, _)| *category == Category::Metadata);
    for (path, counts) in metadata.flat_map(|(_, rows)| rows) {
        let PathCounts { ttl_stores, ttl_serves, ttl_expires, ttl_clears, .. } = *counts;
        let events = ttl_stores + ttl_serves + ttl_expires + ttl_clears;
        if events > 0 {
            let mut counts = *counts;
            (counts.events, counts.hits, counts.misses, counts.negatives) = (events, 0, 0, 0);
            path_line(&mut text, ABSENCES, path, &counts);
        }
    }
    text
}

fn path_line(text: &mut String, category: &str, path: &[u8], counts: &PathCounts) {
    line(
        text,
        format_args!(
            "{category},{},{},{},{},{},{},{},{},{}",
            quoted(&format!("/{}", String::from_utf8_lossy(path))),
            counts.events,
            counts.hits,
            counts.misses,
            counts.negatives,
            counts.ttl_stores,
            counts.ttl_serves,
            counts.ttl_expires,
            counts.ttl_clears,
        ),
    );
}

/// As RFC 4180 has it, where it has to be.
pub(crate) fn quoted(field: &str) -> String {
    if field.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", field.replace('"', "\"\""))
    } else {
        field.to_owned()
    }
}

/// summary.md: the same for people, and where the rank stood.
pub(super) fn summary(profile: &Profile, tag: &str, status: &Value) -> String {
    let text_of = |name: &str| match &status[name] {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let mut text = format!(
        "# Copper profile: rank {} on {}, {tag}\n\njob {}, pid {}, level {}, mount {}, after {} s\n",
        text_of("rank"),
        text_of("host"),
        text_of("job"),
        text_of("pid"),
        text_of("level"),
        text_of("mount"),
        text_of("uptime_s"),
    );
    summary_tables(&mut text, &profile.operations, profile.absences);
    if profile.floor > 0 {
        line(
            &mut text,
            format_args!(
                "\nThere were more paths than the tables hold: events of a path may be too low by {}.",
                profile.floor
            ),
        );
    }
    text
}

/// The same for several ranks, whose quantiles cannot be added up.
pub(super) fn cluster_tables(text: &mut String, rows: &[Shown], absences: Absences) {
    sums_table(text, rows, absences);
    text.push_str(
        "\n| operation | calls | hits | misses | negative | mean us |\n|--|--|--|--|--|--|\n",
    );
    for row in rows.iter().filter(|row| row.calls > 0) {
        let Shown { name, calls, hits, misses, negatives, .. } = row;
        let mean = average_us(row);
        line(text, format_args!("| {name} | {calls} | {hits} | {misses} | {negatives} | {mean} |"));
    }
}

fn sums_table(text: &mut String, rows: &[Shown], absences: Absences) {
    text.push_str("\n| metric | value |\n|--|--|\n");
    for (metric, value) in sums(rows, absences) {
        line(text, format_args!("| {metric} | {value} |"));
    }
}

/// The tables of a summary.
fn summary_tables(text: &mut String, rows: &[Shown], absences: Absences) {
    sums_table(text, rows, absences);
    text.push_str(
        "\n| operation | calls | hits | misses | negative | mean us | p50 us | p90 us | p99 us | max us |\n\
         |--|--|--|--|--|--|--|--|--|--|\n",
    );
    for row in rows.iter().filter(|row| row.calls > 0 || row.timed > 0) {
        let quantiles = row.quantiles_ns.map(microseconds).join(" | ");
        line(
            text,
            format_args!(
                "| {} | {} | {} | {} | {} | {} | {quantiles} |",
                row.name,
                row.calls,
                row.hits,
                row.misses,
                row.negatives,
                average_us(row),
            ),
        );
    }
}

pub(super) fn average_us(row: &Shown) -> String {
    microseconds(row.total_ns.checked_div(row.timed).unwrap_or(0))
}

fn microseconds(time_ns: u64) -> String {
    format!("{}.{:03}", time_ns / 1000, time_ns % 1000)
}

pub(super) fn seconds(time_ns: u64) -> String {
    format!("{}.{:09}", time_ns / 1_000_000_000, time_ns % 1_000_000_000)
}

fn line(text: &mut String, line: std::fmt::Arguments<'_>) {
    text.write_fmt(line).expect("a string takes everything");
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_with_commas_and_quotes_is_one_field() {
        assert_eq!(quoted("/a b"), "/a b");
        assert_eq!(quoted("/a,\"b\""), "\"/a,\"\"b\"\"\"");
    }

    #[test]
    fn times_are_exact() {
        assert_eq!(
            (microseconds(1_234_567), seconds(12)),
            ("1234.567".into(), "0.000000012".into())
        );
        let row = Shown { total_ns: 3000, timed: 2, ..Shown::default() };
        assert_eq!(average_us(&row), "1.500");
    }
}
