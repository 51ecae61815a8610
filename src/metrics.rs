//! What ranks tell of themselves, for monitoring systems: the numbers of `copper status --json` as text
//! in the exposition format of Prometheus.

mod catalogue;

use std::fmt::Write;

use serde_json::Value;

use catalogue::{CATALOGUE, Kind, LATENCY, OF_OPERATIONS};

/// Bounds of the histogram's buckets, in nanoseconds: those where a bucket of a rank's ends, 128 ns
/// times the powers of four, up to the half minute that a request may take.
const BOUNDS: [u64; 15] = {
    let mut bounds = [0; 15];
    let mut index = 0;
    while index < bounds.len() {
        bounds[index] = 128 << (2 * index);
        index += 1;
    }
    bounds
};

/// The ranks of a status as text.
pub(crate) fn text(status: &Value) -> String {
    let ranks: Vec<(&Value, String)> = status["ranks"]
        .as_array()
        .into_iter()
        .flatten()
        // One that is dead or silent tells nothing.
        .filter(|rank| rank["totals"].is_object())
        .map(|rank| (rank, labels(rank)))
        .collect();
    let mut text = String::new();
    up(&mut text, status);
    for metric in CATALOGUE {
        let values = ranks.iter().filter_map(|(rank, labels)| {
            Some(format!("{{{labels}}} {}", rank.pointer(metric.pointer)?.as_u64()?))
        });
        let help = format!("{} ({})", metric.help, metric.unit);
        family(&mut text, &metric.name(), metric.kind, &help, values);
    }
    for (name, help) in OF_OPERATIONS {
        let values = ranks.iter().flat_map(|(rank, labels)| {
            let of = move |(operation, values): (&String, &Value)| {
                let value = values[name].as_u64()?;
                Some(format!("{{{labels},operation=\"{operation}\"}} {value}"))
            };
            operations(rank).filter_map(of)
        });
        family(&mut text, &format!("copper_operation_{name}_total"), Kind::Counter, help, values);
    }
    latencies(&mut text, &ranks);
    text
}

fn family(
    text: &mut String,
    name: &str,
    kind: Kind,
    help: &str,
    values: impl Iterator<Item = String>,
) {
    let kind = match kind {
        Kind::Counter => "counter",
        Kind::Gauge => "gauge",
    };
    let mut values = values.peekable();
    if values.peek().is_none() {
        return;
    }
    line(text, format_args!("# HELP {name} {help}"));
    line(text, format_args!("# TYPE {name} {kind}"));
    for value in values {
        line(text, format_args!("{name}{value}"));
    }
}

/// Each rank that was asked, whether it answered or not.
fn up(text: &mut String, status: &Value) {
    let values = status["ranks"].as_array().into_iter().flatten().map(|rank| {
        let state = escaped(rank["state"].as_str().unwrap_or("unknown"));
        let up = u8::from(state == "ready");
        format!("{{{},state=\"{state}\"}} {up}", labels(rank))
    });
    family(text, "copper_up", Kind::Gauge, "Whether the rank is ready", values);
}

fn latencies(text: &mut String, ranks: &[(&Value, String)]) {
    let (name, help) = LATENCY;
    let ranks = ranks.iter().flat_map(|(rank, labels)| {
        operations(rank).map(move |(operation, values)| (labels, operation, &values["latency"]))
    });
    let mut ranks = ranks.peekable();
    if ranks.peek().is_none() {
        return;
    }
    line(text, format_args!("# HELP {name} {help}"));
    line(text, format_args!("# TYPE {name} histogram"));
    for (labels, operation, latency) in ranks {
        let labels = format!("{labels},operation=\"{operation}\"");
        let calls_within = |bound: u64| {
            let buckets = latency["buckets"].as_array().into_iter().flatten();
            let pairs = buckets.filter_map(|pair| Some((pair[0].as_u64()?, pair[1].as_u64()?)));
            pairs.filter(|(end_ns, _)| *end_ns <= bound).map(|(_, calls)| calls).sum::<u64>()
        };
        for bound in BOUNDS {
            let calls = calls_within(bound);
            let le = seconds(bound);
            line(text, format_args!("{name}_bucket{{{labels},le=\"{le}\"}} {calls}"));
        }
        let calls = calls_within(u64::MAX);
        let total = seconds(latency["total_ns"].as_u64().unwrap_or_default());
        line(text, format_args!("{name}_bucket{{{labels},le=\"+Inf\"}} {calls}"));
        line(text, format_args!("{name}_sum{{{labels}}} {total}"));
        line(text, format_args!("{name}_count{{{labels}}} {calls}"));
    }
}

/// Exactly, whatever the size.
fn seconds(time_ns: u64) -> String {
    format!("{}.{:09}", time_ns / 1_000_000_000, time_ns % 1_000_000_000)
}

fn operations(rank: &Value) -> impl Iterator<Item = (&String, &Value)> {
    rank["operations"].as_object().into_iter().flatten()
}

fn labels(rank: &Value) -> String {
    let text = |name: &str| escaped(rank[name].as_str().unwrap_or_default());
    let number = |name: &str| rank[name].as_u64().map(|n| n.to_string()).unwrap_or_default();
    format!(
        "job=\"{}\",host=\"{}\",rank=\"{}\",level=\"{}\"",
        text("job"),
        text("host"),
        number("rank"),
        number("level"),
    )
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

fn line(text: &mut String, line: std::fmt::Arguments<'_>) {
    text.write_fmt(line).expect("a string takes everything");
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn rank() -> Value {
        json!({
            "rank": 3, "level": 1, "host": "node-\"3\"", "job": "42", "state": "ready",
            "totals": { "calls": 7 },
            "operations": { "read": {
                "calls": 7, "hits": 5, "misses": 2, "negatives": 0, "errors": 0,
                "latency": { "total_ns": 1_000_000_001, "buckets": [[512, 5], [2048, 1], [9_000, 1]] },
            } },
        })
    }

    #[test]
    fn a_rank_is_told_as_prometheus_wants_it() {
        let text = text(&json!({ "ranks": [rank(), { "rank": 4, "state": "dead" }] }));
        let has = |line: &str| assert!(text.lines().any(|it| it == line), "{line} in\n{text}");
        let own = r#"job="42",host="node-\"3\"",rank="3",level="1""#;
        has(&format!("copper_totals_calls_total{{{own}}} 7"));
        has(&format!("copper_operation_hits_total{{{own},operation=\"read\"}} 5"));
        has(&format!("copper_up{{{own},state=\"ready\"}} 1"));
        has(r#"copper_up{job="",host="",rank="4",level="",state="dead"} 0"#);
        let name = "copper_operation_latency_seconds";
        let read = format!("{own},operation=\"read\"");
        has(&format!("{name}_bucket{{{read},le=\"0.000000128\"}} 0"));
        has(&format!("{name}_bucket{{{read},le=\"0.000002048\"}} 6"));
        has(&format!("{name}_bucket{{{read},le=\"+Inf\"}} 7"));
        has(&format!("{name}_sum{{{read}}} 1.000000001"));
        has(&format!("{name}_count{{{read}}} 7"));
        assert_eq!(text.matches("# TYPE copper_totals_calls_total counter\n").count(), 1);
    }

    #[test]
    fn nobody_is_no_text() {
        assert_eq!(text(&json!({ "ranks": [] })), "");
    }
}
