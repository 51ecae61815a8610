//! The ranks as rows: in which order, how deep in the tree, and what has happened since the frame before.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};

use super::snapshot::{RankState, Snapshot, Told};

/// What rows are sorted by; all but the tree with the largest first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Order {
    /// Each rank below its parent.
    #[default]
    Tree,
    Calls,
    Pulled,
    Served,
    Source,
    Cache,
    Questions,
}

impl Order {
    pub(crate) fn next(self) -> Order {
        match self {
            Order::Tree => Order::Calls,
            Order::Calls => Order::Pulled,
            Order::Pulled => Order::Served,
            Order::Served => Order::Source,
            Order::Source => Order::Cache,
            Order::Cache => Order::Questions,
            Order::Questions => Order::Tree,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Order::Tree => "tree",
            Order::Calls => "calls/s",
            Order::Pulled => "pulled/s",
            Order::Served => "served/s",
            Order::Source => "source/s",
            Order::Cache => "cache",
            Order::Questions => "queue",
        }
    }
}

/// What has happened in a second, on average, between two frames.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Rates {
    pub(super) calls: f64,
    pub(super) hits: f64,
    pub(super) misses: f64,
    pub(super) errors: f64,
    pub(super) pulled_bytes: f64,
    pub(super) served_bytes: f64,
    pub(super) source_reads: f64,
    pub(super) source_bytes: f64,
}

impl Rates {
    /// `None` if the two are not of one process: its counters began anew.
    fn between(before: &Told, now: &Told, seconds: f64) -> Option<Rates> {
        if before.pid != now.pid || seconds <= 0.0 {
            return None;
        }
        let rate = |of: fn(&Told) -> u64| of(now).saturating_sub(of(before)) as f64 / seconds;
        Some(Rates {
            calls: rate(|told| told.calls),
            hits: rate(|told| told.hits),
            misses: rate(|told| told.misses),
            errors: rate(|told| told.errors),
            pulled_bytes: rate(|told| told.pulled_bytes),
            served_bytes: rate(|told| told.served_bytes),
            source_reads: rate(|told| told.source_reads),
            source_bytes: rate(|told| told.source_bytes),
        })
    }

    pub(super) fn add(&mut self, other: &Rates) {
        self.calls += other.calls;
        self.hits += other.hits;
        self.misses += other.misses;
        self.errors += other.errors;
        self.pulled_bytes += other.pulled_bytes;
        self.served_bytes += other.served_bytes;
        self.source_reads += other.source_reads;
        self.source_bytes += other.source_bytes;
    }
}

/// A rank in the table.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Row<'a> {
    pub(super) of: &'a RankState,
    /// Ranks above it; 0 where the order is not that of the tree.
    pub(super) depth: usize,
    /// `None` in a rank's first frame.
    pub(super) rates: Option<Rates>,
}

/// What is added up of ranks beside rates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sums {
    pub(super) hits: u64,
    pub(super) misses: u64,
    pub(super) cache_bytes: u64,
    pub(super) cache_limit_bytes: u64,
    pub(super) questions: u64,
}

impl Sums {
    pub(super) fn of<'a>(told: impl IntoIterator<Item = &'a Told>) -> Sums {
        let mut sums = Sums::default();
        for told in told {
            sums.hits += told.hits;
            sums.misses += told.misses;
            sums.cache_bytes += told.cache_bytes;
            sums.cache_limit_bytes += told.cache_limit_bytes;
            sums.questions += told.questions;
        }
        sums
    }
}

/// What those do together who have rates; `None` if none has.
pub(super) fn rates_of<'a>(rows: impl IntoIterator<Item = &'a Row<'a>>) -> Option<Rates> {
    let mut all: Option<Rates> = None;
    for rates in rows.into_iter().filter_map(|row| row.rates.as_ref()) {
        all.get_or_insert_default().add(rates);
    }
    all
}

/// The rows of each level, the root's first; last, those of ranks that do not say theirs.
pub(super) fn levels<'a>(rows: &'a [Row<'a>]) -> Vec<(Option<u64>, Vec<&'a Row<'a>>)> {
    let mut levels: BTreeMap<(bool, Option<u64>), Vec<&Row<'_>>> = BTreeMap::new();
    for row in rows {
        let level = row.of.told.as_ref().map(|told| told.level);
        levels.entry((level.is_none(), level)).or_default().push(row);
    }
    levels.into_iter().map(|((_, level), rows)| (level, rows)).collect()
}

/// All ranks.
pub(super) fn rows<'a>(before: Option<&Snapshot>, now: &'a Snapshot, order: Order) -> Vec<Row<'a>> {
    let seconds = before.map_or(0.0, |before| now.at.saturating_sub(before.at).as_secs_f64());
    let past: HashMap<u32, &Told> = before
        .iter()
        .flat_map(|before| &before.ranks)
        .filter_map(|rank| Some((rank.rank, rank.told.as_ref()?)))
        .collect();
    let row = |(of, depth): (&'a RankState, usize)| {
        let pair = past.get(&of.rank).copied().zip(of.told.as_ref());
        let rates = pair.and_then(|(before, now)| Rates::between(before, now, seconds));
        Row { of, depth, rates }
    };
    if order == Order::Tree {
        return along_tree(&now.ranks).into_iter().map(row).collect();
    }
    let mut rows: Vec<Row<'a>> = now.ranks.iter().map(|of| row((of, 0))).collect();
    // Stable, so that equals stay in the order of their ranks.
    rows.sort_by_key(|row| Reverse(weight(row, order)));
    rows
}

/// Whole units are enough to sort by.
fn weight(row: &Row<'_>, order: Order) -> u64 {
    let rates = row.rates.unwrap_or_default();
    let told = row.of.told.as_ref();
    match order {
        Order::Tree => 0,
        Order::Calls => rates.calls as u64,
        Order::Pulled => rates.pulled_bytes as u64,
        Order::Served => rates.served_bytes as u64,
        Order::Source => rates.source_bytes as u64,
        Order::Cache => told.map_or(0, |told| told.cache_bytes),
        Order::Questions => told.map_or(0, |told| told.questions),
    }
}

/// Each rank below its parent, with the number of ranks above it. Ranks may move while they are asked,
/// so that two seem to hang on each other: those come last.
fn along_tree(ranks: &[RankState]) -> Vec<(&RankState, usize)> {
    let known: HashMap<u32, usize> =
        ranks.iter().enumerate().map(|(at, it)| (it.rank, at)).collect();
    let mut children: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
    let mut open: Vec<(usize, usize)> = Vec::new();
    for (at, rank) in ranks.iter().enumerate() {
        match rank.parent.filter(|parent| known.contains_key(parent)) {
            Some(parent) => children.entry(parent).or_default().push(at),
            None => open.push((at, 0)),
        }
    }
    open.reverse();
    let mut shown = vec![false; ranks.len()];
    let mut rows = Vec::with_capacity(ranks.len());
    while let Some((at, depth)) = open.pop() {
        // A rank is told once, but a report is somebody else's word.
        if std::mem::replace(&mut shown[at], true) {
            continue;
        }
        rows.push((&ranks[at], depth));
        let below = children.get(&ranks[at].rank).into_iter().flatten();
        open.extend(below.rev().map(|&child| (child, depth + 1)));
    }
    rows.extend(ranks.iter().zip(&shown).filter(|(_, shown)| !**shown).map(|(it, _)| (it, 0)));
    rows
}
