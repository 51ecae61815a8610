//! One frame: the text of a whole screen, or of a log.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use super::snapshot::{Path, Snapshot};
use super::table::{Order, Rates, Row, Sums, levels, rates_of, rows};

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

const HEADINGS: &str = "STATE      CALLS/S  HIT% PULLED/S SERVED/S SOURCE/S CACHE% QUEUE";

const HELP: [&str; 17] = [
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
    "l         one row for each level of the tree, or for each rank",
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
    /// One row for each level of the tree.
    pub(crate) by_level: bool,
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
    /// Rows of the table on a page.
    pub(crate) page: usize,
}

/// Draws `now`, with the rates since `before`.
pub(crate) fn draw(before: Option<&Snapshot>, now: &Snapshot, view: &View) -> Frame {
    let table = rows(before, now, view.order);
    let cells: Vec<Cells> = match view.by_level {
        true => {
            levels(&table).into_iter().map(|(level, rows)| Cells::of_level(level, &rows)).collect()
        }
        false => table.iter().map(Cells::of_rank).collect(),
    };
    let mut lines = head(now, &table, view);
    let small = view.rows.is_some_and(|rows| rows < ROWS_WITH_MORE);
    if small {
        lines.truncate(1);
    }
    let tail = if small || view.help { Vec::new() } else { leaders(now, view) };
    let used = lines.len() + 1 + tail.len() + usize::from(view.rows.is_some());
    let page = view.rows.map_or(cells.len(), |rows| rows.saturating_sub(used)).max(1);
    let skipped = view.skipped.min(cells.len().saturating_sub(page));
    if view.help {
        lines.extend(HELP.iter().map(|text| line(Tone::Plain, *text)));
    } else {
        let host = if view.columns < COLUMNS_WITH_HOST { "" } else { "  HOST" };
        let first = if view.by_level { "LEVEL" } else { "RANK" };
        lines.push(line(Tone::Heading, format!("{first:<15}{HEADINGS}{host}")));
        lines.extend(cells.iter().skip(skipped).take(page).map(|cells| cells.line(view)));
    }
    if let Some(rows) = view.rows {
        // What is about all ranks stays at the lower edge.
        lines.resize(rows.saturating_sub(tail.len() + 1), line(Tone::Plain, ""));
        lines.extend(tail);
        lines.push(foot(skipped, page, cells.len()));
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
    let sums = Sums::of(now.ranks.iter().filter_map(|rank| rank.told.as_ref()));
    let rates = rates_of(table);
    let count =
        |of: fn(&Rates) -> f64| rates.as_ref().map_or("-".to_owned(), |it| short(of(it), 1000));
    let bytes =
        |of: fn(&Rates) -> f64| rates.as_ref().map_or("-".to_owned(), |it| short(of(it), 1024));
    let now_hits = rates.map_or("-".to_owned(), |it| percent(it.hits, it.hits + it.misses));
    [
        format!(
            "calls {}/s   hits {now_hits}%, {}% so far   errors {}/s   queue {}",
            count(|rates| rates.calls),
            hit_percent(&sums),
            count(|rates| rates.errors),
            sums.questions,
        ),
        format!(
            "pulled {}/s  served {}/s  source {}/s, {} reads/s  cache {}%",
            bytes(|rates| rates.pulled_bytes),
            bytes(|rates| rates.served_bytes),
            bytes(|rates| rates.source_bytes),
            count(|rates| rates.source_reads),
            cache_percent(&sums),
        ),
    ]
}

fn hit_percent(sums: &Sums) -> String {
    percent(sums.hits as f64, (sums.hits + sums.misses) as f64)
}

fn cache_percent(sums: &Sums) -> String {
    percent(sums.cache_bytes as f64, sums.cache_limit_bytes as f64)
}

/// A row of the table, of one rank or of several.
struct Cells {
    name: String,
    state: String,
    is_ready: bool,
    rates: Option<Rates>,
    /// `None` if nobody has told anything.
    sums: Option<Sums>,
    host: String,
}

impl Cells {
    fn of_rank(row: &Row<'_>) -> Cells {
        let indent = " ".repeat(2 * row.depth.min(DEPTH_SHOWN_MAX));
        Cells {
            name: format!("{indent}{}", row.of.rank),
            state: row.of.state.clone(),
            is_ready: row.of.state == "ready",
            rates: row.rates,
            sums: row.of.told.as_ref().map(|told| Sums::of([told])),
            host: row.of.host.clone(),
        }
    }

    fn of_level(level: Option<u64>, rows: &[&Row<'_>]) -> Cells {
        let told = || rows.iter().filter_map(|row| row.of.told.as_ref());
        let level = level.map_or_else(|| "-".to_owned(), |level| level.to_string());
        let others = rows.iter().filter(|row| row.of.state != "ready").count();
        Cells {
            name: format!("{level:<3}{:>5} ranks", rows.len()),
            state: if others == 0 { "ready".to_owned() } else { format!("{others} not") },
            is_ready: others == 0,
            rates: rates_of(rows.iter().copied()),
            sums: told().next().is_some().then(|| Sums::of(told())),
            host: String::new(),
        }
    }

    fn line(&self, view: &View) -> Line {
        let Cells { name, state, rates, sums, host, .. } = self;
        let dash = || "-".to_owned();
        let rate = |of: fn(&Rates) -> f64, unit| rates.map_or_else(dash, |it| short(of(&it), unit));
        let mut text = format!(
            "{name:<15}{state:<10}{:>8}{:>6}{:>9}{:>9}{:>9}{:>7}{:>6}",
            rate(|rates| rates.calls, 1000),
            sums.as_ref().map_or_else(dash, hit_percent),
            rate(|rates| rates.pulled_bytes, 1024),
            rate(|rates| rates.served_bytes, 1024),
            rate(|rates| rates.source_bytes, 1024),
            sums.as_ref().map_or_else(dash, cache_percent),
            sums.map_or_else(dash, |sums| sums.questions.to_string()),
        );
        if view.columns >= COLUMNS_WITH_HOST {
            text.push_str("  ");
            text.push_str(host);
        }
        line(if self.is_ready { Tone::Plain } else { Tone::Trouble }, text)
    }
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

fn foot(skipped: usize, page: usize, rows: usize) -> Line {
    let last = (skipped + page).min(rows);
    let shown = format!("{}-{last} of {rows}", (skipped + 1).min(rows));
    line(Tone::Faint, format!("q quit   s sort   l levels   arrows scroll   ? help   {shown}"))
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
