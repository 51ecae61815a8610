//! Sections over time: what was asked when, how long it took, when ranks were ready.

use std::collections::BTreeMap;

use super::Page;
use crate::report::figure::{bytes, count, time};
use crate::report::plots::{self, Axes, Form, Series};
use crate::report::run::{Moment, Run};

/// Points of a time line.
const BINS: usize = 100;

/// Levels that have a line of their own.
const LEVELS_MAX: usize = 7;

/// Operations that have a histogram.
const HISTOGRAMS_MAX: usize = 6;

/// Requests and bytes of each level over time.
pub(super) fn time_line(page: &mut Page, run: &Run) -> anyhow::Result<()> {
    page.section("Time line");
    if !run.has_snapshots() {
        page.note(
            "The ranks were not looked at while they ran: launch with -I S, every S seconds.",
        );
        return Ok(());
    }
    let calls = rates(run, |it| it.calls);
    let axes = Axes {
        x: "seconds since the first rank was ready",
        y: "calls/s",
        y_label: |y| count(y as u64),
    };
    page.drawing(
        &plots::curves(&calls, axes, Form::Lines)?,
        &peak("Calls per second, by level", &calls, |y| count(y as u64)),
    );
    let moved = rates(run, |it| it.pulled_bytes + it.source_bytes);
    let axes = Axes { y: "bytes/s", y_label: |y| bytes(y as u64), ..axes };
    page.drawing(
        &plots::curves(&moved, axes, Form::Lines)?,
        &peak(
            "Bytes per second that each level pulled from above or read from the source",
            &moved,
            |y| bytes(y as u64),
        ),
    );
    Ok(())
}

/// A caption with the highest point.
fn peak(caption: &str, series: &[Series], unit: fn(f64) -> String) -> String {
    let points = series.iter().flat_map(|it| it.points.iter().map(move |point| (&it.name, point)));
    match points.max_by(|(_, a), (_, b)| a.1.total_cmp(&b.1)) {
        Some((name, (at, most))) => {
            format!("{caption}; most at {at:.1} s: {} at {name}", unit(*most))
        }
        None => caption.to_owned(),
    }
}

/// The rate at which a counter grew, level by level: what was counted between two looks at a rank is
/// spread evenly over the time between them.
pub(super) fn rates(run: &Run, of: fn(&Moment) -> u64) -> Vec<Series> {
    let (start, end) = run.span_ms();
    let bin_ms = ((end - start) as f64 / BINS as f64).max(1.0);
    let mut levels: BTreeMap<usize, Vec<f64>> = BTreeMap::new();
    for rank in &run.ranks {
        let level = usize::try_from(rank.level()).unwrap_or(usize::MAX).min(LEVELS_MAX - 1);
        let bins = levels.entry(level).or_insert_with(|| vec![0.0; BINS]);
        for pair in rank.moments.windows(2) {
            let grown = of(&pair[1]).saturating_sub(of(&pair[0])) as f64;
            let from = (pair[0].unix_ms - start) as f64 / bin_ms;
            let to = ((pair[1].unix_ms - start) as f64 / bin_ms).max(from + 1e-6);
            let last = (to.ceil() as usize).min(BINS);
            for (index, bin) in bins.iter_mut().enumerate().take(last).skip(from as usize) {
                let overlap = (to.min(index as f64 + 1.0) - from.max(index as f64)).max(0.0);
                *bin += grown * overlap / (to - from);
            }
        }
    }
    let name = |level: usize| match level {
        0 => "level 0 (root)".to_owned(),
        level if level + 1 == LEVELS_MAX => format!("level {level} and below"),
        level => format!("level {level}"),
    };
    let seconds = bin_ms / 1000.0;
    let points = |bins: Vec<f64>| {
        let point =
            |(index, grown): (usize, f64)| ((index as f64 + 0.5) * seconds, grown / seconds);
        bins.into_iter().enumerate().map(point).collect()
    };
    levels
        .into_iter()
        .map(|(level, bins)| Series { name: name(level), points: points(bins) })
        .collect()
}

/// How long calls took, at all ranks together.
pub(super) fn latencies(page: &mut Page, run: &Run) -> anyhow::Result<()> {
    page.section("How long calls took");
    let mut operations: BTreeMap<&str, BTreeMap<u64, u64>> = BTreeMap::new();
    for rank in &run.ranks {
        for (name, values) in rank.status["operations"].as_object().into_iter().flatten() {
            let buckets = values["latency"]["buckets"].as_array().into_iter().flatten();
            for pair in buckets.filter_map(|pair| Some((pair[0].as_u64()?, pair[1].as_u64()?))) {
                *operations.entry(name).or_default().entry(pair.0).or_default() += pair.1;
            }
        }
    }
    if operations.is_empty() {
        page.note("No call was counted.");
        return Ok(());
    }
    let total = |name: &str| run.sum(&format!("/operations/{name}/latency/total_ns"));
    let mut order: Vec<&str> = operations.keys().copied().collect();
    order.sort_by_key(|name| std::cmp::Reverse(total(name)));
    page.raw("<div class=\"grid\">");
    for (index, name) in order.iter().take(HISTOGRAMS_MAX).enumerate() {
        let buckets: Vec<(u64, u64)> =
            operations[name].iter().map(|(end, calls)| (*end, *calls)).collect();
        let caption = format!(
            "{name}: calls by their time; half took at most {}",
            time(quantile(&buckets, 0.5))
        );
        page.drawing(&plots::histogram(&buckets, index)?, &caption);
    }
    page.raw("</div>");
    let rows: Vec<Vec<String>> = order
        .iter()
        .map(|name| {
            let buckets: Vec<(u64, u64)> =
                operations[name].iter().map(|(end, calls)| (*end, *calls)).collect();
            let sum = |field: &str| count(run.sum(&format!("/operations/{name}/{field}")));
            let mut row = vec![(*name).to_owned()];
            row.extend(["calls", "hits", "misses", "negatives", "errors"].map(sum));
            row.push(time(total(name)));
            row.extend([0.5, 0.9, 0.99].map(|part| time(quantile(&buckets, part))));
            let most =
                run.ranks.iter().map(|it| it.number(&format!("/operations/{name}/latency/max_ns")));
            row.push(time(most.max().unwrap_or(0)));
            row
        })
        .collect();
    let columns = [
        "operation",
        "calls",
        "hits",
        "misses",
        "negative",
        "errors",
        "together",
        "p50",
        "p90",
        "p99",
        "most",
    ];
    page.table(&columns, &rows);
    Ok(())
}

/// The end of the bucket that has it.
pub(super) fn quantile(buckets: &[(u64, u64)], part: f64) -> u64 {
    let all: u64 = buckets.iter().map(|(_, calls)| calls).sum();
    let wanted = (all as f64 * part).ceil() as u64;
    let mut seen = 0;
    let holds = |(_, calls): &&(u64, u64)| {
        seen += calls;
        seen >= wanted
    };
    buckets.iter().find(holds).map_or(0, |(end_ns, _)| *end_ns)
}

/// When each rank was ready.
pub(super) fn readiness(page: &mut Page, run: &Run) -> anyhow::Result<()> {
    page.section("When ranks were ready");
    let of = |name: &str, pointer: &str| {
        let point = |rank: &crate::report::run::RankRecord| {
            let at_us = rank.status.pointer(pointer)?.as_u64()?;
            Some((f64::from(rank.rank), at_us as f64 / 1e6))
        };
        Series { name: name.to_owned(), points: run.ranks.iter().filter_map(point).collect() }
    };
    let series =
        [of("ready", "/bootstrap/ready_us"), of("network open", "/bootstrap/registered_us")];
    let slowest = series[0].points.iter().max_by(|a, b| a.1.total_cmp(&b.1));
    let Some((rank, at)) = slowest else {
        page.note("No rank said so.");
        return Ok(());
    };
    let axes = Axes { x: "rank", y: "seconds", y_label: |y| format!("{y:.2}") };
    let caption =
        format!("Seconds from the start of each daemon; the last was rank {rank} after {at:.2} s");
    page.drawing(&plots::curves(&series, axes, Form::Points)?, &caption);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::run::RankRecord;
    use serde_json::json;

    #[test]
    fn what_was_counted_between_two_looks_is_spread_over_the_time_between() {
        let moment = |unix_ms, calls| Moment { unix_ms, calls, ..Moment::default() };
        let moments = vec![moment(0, 0), moment(5_000, 100), moment(10_000, 100)];
        let status = json!({ "level": 1 });
        let rank =
            RankRecord { rank: 0, name: String::new(), host: String::new(), status, moments };
        let rates = rates(&Run { ranks: vec![rank], ..Run::default() }, |it| it.calls);
        assert_eq!((rates.len(), &*rates[0].name, rates[0].points.len()), (1, "level 1", BINS));
        let rate = |index: usize| rates[0].points[index].1.round();
        assert_eq!((rate(0), rate(49), rate(50), rate(99)), (20.0, 20.0, 0.0, 0.0));
    }

    #[test]
    fn quantiles_are_ends_of_buckets() {
        let buckets = [(10, 1), (20, 8), (40, 1)];
        assert_eq!([0.1, 0.5, 0.9, 0.99].map(|part| quantile(&buckets, part)), [10, 20, 20, 40]);
        assert_eq!(quantile(&[], 0.5), 0);
    }
}
