//! One frame: the text of a whole screen, or of a log.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use super::snapshot::{Path, Snapshot, Told};
use super::table::{Order, Rates, Row, rows};

/// Up to here a level is indented; below it the rank's number still has room.
const DEPTH_SHOWN_MAX: usize = 5;

/// From so many columns on a rank's host is shown.
const COLUMNS_WITH_HOST: usize = 96;

/// From so many rows on there is room for [`PATHS_MAX`] paths of each kind, below for one.
const ROWS_WITH_PATHS: usize = 24;
const PATHS_MAX: usize = 3;

/// Below so many rows nothing but the table is shown.
const ROWS_WITH_MORE: usize = 12;

/// Notes that are shown at a time.
const NOTES_MAX: usize = 2;

const HEADINGS: &str =
    "RANK           STATE      CALLS/S  HIT% PULLED/S SERVED/S SOURCE/S CACHE% QUEUE";

const HELP: [&str; 16] = [
    "RANK      below the rank that it asks; STATE as in docs/OPERATIONS.md",
    "CALLS/S   what the kernel asks of it; HIT% of all so far it could answer itself",
    "PULLED/S  bytes out of its parent's memory; SERVED/S bytes that others pull here",
    "SOURCE/S  bytes that it reads from the source",
    "CACHE%    of its memory for objects; QUEUE readers' questions under way",
    "K, M, G are powers of 1024 for bytes, k, m, g powers of 1000 for the rest.",
    "",
    "slowest   the operation and the paths of which one call took longest",
    "hottest   the paths that were asked for most, added up over ranks (with -P -N K)",
    "",
    "arrows, PgUp, PgDn, Home, End   scroll",
    "s         sort by tree, calls, pulled, served, source, cache, queue",
    "?         this page, and back",
    "q         quit",
    "",
    "press any key",
];

/// What is shown of it, and how much.
#[derive(Clone, Copy, Debug)]
pub(crate) struct View {
    pub(crate) columns: usize,
    /// `None`: as many as there are, for a log.
    pub(crate) rows: Option<usize>,
    /// Rows of the table that are scrolled past.
    pub(crate) skipped: usize,
    pub(crate) order: Order,
    pub(crate) help: bool,
    /// Seconds since the ranks were heard, if that is longer than it should be.
    pub(crate) unheard_s: Option<u64>,
}

/// How a line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tone {
    Plain,
    Heading,
    Trouble,
    Faint,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) tone: Tone,
    pub(crate) text: String,
}

/// The text, and how far one may scroll.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    pub(crate) lines: Vec<Line>,
    /// What of [`View::skipped`] there was to skip.
    pub(crate) skipped: usize,
    /// Ranks on a page.
    pub(crate) page: usize,
}

/// Draws `now`, with the rates since `before`.
pub(crate) fn draw(before: Option<&Snapshot>, now: &Snapshot, view: &View) -> Frame {
    let table = rows(before, now, view.order);
    let mut lines = head(now, &table, view);
    let small = view.rows.is_some_and(|rows| rows < ROWS_WITH_MORE);
    if small {
        lines.truncate(1);
    }
    let tail = if small || view.help { Vec::new() } else { leaders(now, view) };
    let used = lines.len() + 1 + tail.len() + usize::from(view.rows.is_some());
    let page = view.rows.map_or(table.len(), |rows| rows.saturating_sub(used)).max(1);
    let skipped = view.skipped.min(table.len().saturating_sub(page));
    if view.help {
        lines.extend(HELP.iter().map(|text| line(Tone::Plain, *text)));
    } else {
        let host = if view.columns < COLUMNS_WITH_HOST { "" } else { "  HOST" };
        lines.push(line(Tone::Heading, format!("{HEADINGS}{host}")));
        lines.extend(table.iter().skip(skipped).take(page).map(|row| rank_line(row, view)));
    }
    if let Some(rows) = view.rows {
        // What is about all ranks stays at the lower edge.
        lines.resize(rows.saturating_sub(tail.len() + 1), line(Tone::Plain, ""));
        lines.extend(tail);
        lines.push(foot(skipped, page, table.len()));
        lines.truncate(rows);
    } else {
        lines.extend(tail);
    }
    for line in &mut lines {
        line.text = cut(line.text.trim_end(), view.columns);
    }
    Frame { lines, skipped, page }
}

fn line(tone: Tone, text: impl Into<String>) -> Line {
    Line { tone, text: text.into() }
}

/// Who there is, and what all ranks together do.
fn head(now: &Snapshot, table: &[Row<'_>], view: &View) -> Vec<Line> {
    let mut states: BTreeMap<&str, usize> = BTreeMap::new();
    for rank in &now.ranks {
        *states.entry(&rank.state).or_default() += 1;
    }
    let ready = states.remove("ready").unwrap_or(0);
    let others = states.iter().map(|(state, count)| format!(", {count} {state}"));
    let told = || now.ranks.iter().filter_map(|rank| rank.told.as_ref());
    let up = told().map(|told| told.uptime_s).max().unwrap_or(0);
    let title = format!(
        "copper top   {} ranks: {ready} ready{}   up {}:{:02}:{:02}   by {}",
        now.ranks.len(),
        others.collect::<String>(),
        up / 3600,
        up / 60 % 60,
        up % 60,
        view.order.name(),
    );
    let tone = if ready == now.ranks.len() { Tone::Plain } else { Tone::Trouble };
    let mut lines = vec![line(tone, title)];
    lines.extend(sums(now, table).map(|text| line(Tone::Plain, text)));
    if let Some(seconds) = view.unheard_s {
        lines
            .push(line(Tone::Trouble, format!("no answer for {seconds} s: these are old numbers")));
    }
    lines.extend(now.notes.iter().take(NOTES_MAX).map(|note| line(Tone::Trouble, note.as_str())));
    lines
}

fn sums(now: &Snapshot, table: &[Row<'_>]) -> [String; 2] {
    let told = || now.ranks.iter().filter_map(|rank| rank.told.as_ref());
    let sum = |of: fn(&Told) -> u64| told().map(of).sum::<u64>();
    let mut rates: Option<Rates> = None;
    for row in table.iter().filter_map(|row| row.rates.as_ref()) {
        rates.get_or_insert_default().add(row);
    }
    let count =
        |of: fn(&Rates) -> f64| rates.as_ref().map_or("-".to_owned(), |it| short(of(it), 1000));
    let bytes =
        |of: fn(&Rates) -> f64| rates.as_ref().map_or("-".to_owned(), |it| short(of(it), 1024));
    let now_hits = rates.map_or("-".to_owned(), |it| percent(it.hits, it.hits + it.misses));
    let (hits, limit) = (sum(|told| told.hits) as f64, sum(|told| told.cache_limit_bytes) as f64);
    [
        format!(
            "calls {}/s   hits {now_hits}%, {}% so far   errors {}/s   queue {}",
            count(|rates| rates.calls),
            percent(hits, hits + sum(|told| told.misses) as f64),
            count(|rates| rates.errors),
            sum(|told| told.questions),
        ),
        format!(
            "pulled {}/s  served {}/s  source {}/s, {} reads/s  cache {}%",
            bytes(|rates| rates.pulled_bytes),
            bytes(|rates| rates.served_bytes),
            bytes(|rates| rates.source_bytes),
            count(|rates| rates.source_reads),
            percent(sum(|told| told.cache_bytes) as f64, limit),
        ),
    ]
}

fn rank_line(row: &Row<'_>, view: &View) -> Line {
    let indent = " ".repeat(2 * row.depth.min(DEPTH_SHOWN_MAX));
    let name = format!("{indent}{}", row.of.rank);
    let dash = || "-".to_owned();
    let rate = |of: fn(&Rates) -> f64, unit| row.rates.map_or_else(dash, |it| short(of(&it), unit));
    let told = row.of.told.as_ref();
    let hits = told.map_or_else(dash, |it| percent(it.hits as f64, (it.hits + it.misses) as f64));
    let cache = told
        .map_or_else(dash, |told| percent(told.cache_bytes as f64, told.cache_limit_bytes as f64));
    let mut text = format!(
        "{name:<15}{:<10}{:>8}{hits:>6}{:>9}{:>9}{:>9}{cache:>7}{:>6}",
        row.of.state,
        rate(|rates| rates.calls, 1000),
        rate(|rates| rates.pulled_bytes, 1024),
        rate(|rates| rates.served_bytes, 1024),
        rate(|rates| rates.source_bytes, 1024),
        told.map_or_else(dash, |told| told.questions.to_string()),
    );
    if view.columns >= COLUMNS_WITH_HOST {
        text.push_str("  ");
        text.push_str(&row.of.host);
    }
    line(if row.of.state == "ready" { Tone::Plain } else { Tone::Trouble }, text)
}

/// What is slow, and what is asked for most.
fn leaders(now: &Snapshot, view: &View) -> Vec<Line> {
    let count = if view.rows.is_none_or(|rows| rows > ROWS_WITH_PATHS) { PATHS_MAX } else { 1 };
    let mut lines = Vec::new();
    let told = || now.ranks.iter().filter_map(|it| Some((it.rank, it.told.as_ref()?)));
    let operations =
        told().filter_map(|(rank, told)| Some((rank, told.slowest_operation.as_ref()?)));
    if let Some((rank, slowest)) = operations.max_by_key(|(_, it)| it.max_ns) {
        let (name, within) = (&slowest.name, time(slowest.p99_ns));
        let rank = format!("rank {rank}");
        let took = time(slowest.max_ns);
        let text = format!("slowest {took:>8}  {rank:<11} {name}, 99% of them within {within}");
        lines.push(line(Tone::Plain, text));
    }
    let mut slowest: Vec<(u32, &Path)> =
        told().flat_map(|(rank, told)| told.slowest.iter().map(move |it| (rank, it))).collect();
    slowest.sort_by_key(|(_, path)| std::cmp::Reverse(path.slowest_ns));
    for (rank, Path { category, path, slowest_ns, .. }) in slowest.into_iter().take(count) {
        let (rank, took) = (format!("rank {rank}"), time(*slowest_ns));
        let text = format!("slowest {took:>8}  {rank:<11} {category:<8} ");
        lines.push(line(Tone::Plain, with_end(text, path, view)));
    }
    if told().all(|(_, told)| told.hottest.is_none()) {
        lines.push(line(Tone::Faint, "paths are not counted: launch with -P -N K to see which"));
    }
    let mut hottest: BTreeMap<(&str, &str), (u64, u64)> = BTreeMap::new();
    for path in told().flat_map(|(_, told)| told.hottest.iter().flatten()) {
        let (events, ranks) = hottest.entry((&path.category, &path.path)).or_default();
        *events += path.events;
        *ranks += 1;
    }
    let mut hottest: Vec<_> = hottest.into_iter().collect();
    hottest.sort_by_key(|(_, (events, _))| std::cmp::Reverse(*events));
    for ((category, path), (events, ranks)) in hottest.into_iter().take(count) {
        let (events, ranks) = (
            short(events as f64, 1000),
            format!("{ranks} rank{}", if ranks == 1 { "" } else { "s" }),
        );
        let text = format!("hottest {events:>8}  {ranks:<11} {category:<8} ");
        lines.push(line(Tone::Plain, with_end(text, path, view)));
    }
    lines
}

/// With a path behind it, of which the end is shown where there is no room for all.
fn with_end(mut text: String, path: &str, view: &View) -> String {
    let room = view.columns.saturating_sub(text.chars().count());
    let beyond = path.chars().count().saturating_sub(room);
    if beyond > 0 {
        text.push('~');
    }
    text.extend(path.chars().skip(if beyond > 0 { beyond + 1 } else { 0 }));
    text
}

fn foot(skipped: usize, page: usize, ranks: usize) -> Line {
    let last = (skipped + page).min(ranks);
    let shown = format!("{}-{last} of {ranks}", (skipped + 1).min(ranks));
    line(Tone::Faint, format!("q quit   s sort   arrows PgUp PgDn scroll   ? help   {shown}"))
}

/// In at most five characters, with `k`, `m`, `g` for powers of 1000 and `K`, `M`, `G`, `T` of 1024.
fn short(value: f64, unit: u32) -> String {
    let names = if unit == 1024 { ["", "K", "M", "G", "T"] } else { ["", "k", "m", "g", "t"] };
    let mut value = value;
    let mut names = names.into_iter().peekable();
    let mut name = names.next().unwrap_or_default();
    // What would be rounded up to four digits is the next unit's.
    while value >= 999.5 && names.peek().is_some() {
        value /= f64::from(unit);
        name = names.next().unwrap_or_default();
    }
    if value >= 99.95 || (name.is_empty() && value.fract() == 0.0) {
        format!("{value:.0}{name}")
    } else {
        format!("{value:.1}{name}")
    }
}

fn percent(part: f64, whole: f64) -> String {
    if whole <= 0.0 { "-".to_owned() } else { format!("{:.1}", 100.0 * part / whole) }
}

fn time(ns: u64) -> String {
    let ns = ns as f64;
    match ns {
        ns if ns >= 1e9 => format!("{:.1}s", ns / 1e9),
        ns if ns >= 1e6 => format!("{:.1}ms", ns / 1e6),
        ns => format!("{:.0}us", ns / 1e3),
    }
}

/// At most so many characters.
fn cut(text: &str, columns: usize) -> String {
    text.chars().take(columns).collect()
}
