//! Sections of ranks: what each level did, the tree by its load, each rank.

use std::collections::{BTreeMap, BTreeSet};

use super::Page;
use crate::report::figure::{bytes, count, percent};
use crate::report::findings;
use crate::report::plots::{self, NODES_MAX, Node};
use crate::report::run::{RankRecord, Run};

/// Rows of the table of ranks.
const ROWS_MAX: usize = 128;

/// The counters of each level, added up.
pub(super) fn levels(page: &mut Page, run: &Run) {
    page.section("Levels of the tree");
    let mut levels: BTreeMap<u64, Vec<&RankRecord>> = BTreeMap::new();
    for rank in &run.ranks {
        levels.entry(rank.level()).or_default().push(rank);
    }
    let row = |(level, ranks): (&u64, &Vec<&RankRecord>)| {
        let sum = |pointer: &str| ranks.iter().map(|rank| rank.number(pointer)).sum::<u64>();
        let (hits, misses) = (sum("/totals/hits"), sum("/totals/misses"));
        vec![
            level.to_string(),
            count(ranks.len() as u64),
            count(sum("/totals/calls")),
            percent(hits, hits + misses),
            count(misses),
            count(sum("/totals/negatives")),
            bytes(sum("/fabric/pulled_bytes")),
            bytes(sum("/fabric/served_bytes")),
            bytes(sum("/source/bytes")),
        ]
    };
    let rows: Vec<Vec<String>> = levels.iter().map(row).collect();
    let columns = [
        "level",
        "ranks",
        "calls",
        "held here",
        "fetched",
        "negative",
        "pulled",
        "served",
        "from source",
    ];
    page.table(&columns, &rows);
}

/// The first tree as it was at the start, and what became of it.
pub(super) fn tree(page: &mut Page, run: &Run) -> anyhow::Result<()> {
    page.section("The tree by its load");
    let dead: BTreeSet<u32> = findings::dead(run).iter().map(|rank| rank.rank).collect();
    let losses = findings::losses(run);
    let other_parent = |rank: u32| {
        let mut of_rank = losses.iter().filter(|(of, _, moved)| *of == rank && moved.tree == 0);
        of_rank.next_back().and_then(|(_, _, moved)| moved.parent)
    };
    // One that came back stands twice: the tree has the one that began it.
    let mut seen = BTreeSet::new();
    let mut ranks: Vec<&RankRecord> = run.ranks.iter().filter(|it| seen.insert(it.rank)).collect();
    if ranks.len() > NODES_MAX {
        ranks.sort_by_key(|rank| std::cmp::Reverse((dead.contains(&rank.rank), rank.load())));
        ranks.truncate(NODES_MAX);
        ranks.sort_by_key(|rank| rank.rank);
        page.note(&format!("Of {} ranks the {NODES_MAX} that gave most.", count(run.size())));
    }
    let most = ranks.iter().map(|rank| rank.load()).max().unwrap_or(0);
    let node = |rank: &&RankRecord| Node {
        rank: rank.rank,
        level: usize::try_from(rank.level()).unwrap_or(0),
        parent: rank.first_parent(),
        other_parent: other_parent(rank.rank),
        load: if most == 0 { 0.0 } else { rank.load() as f64 / most as f64 },
        is_dead: dead.contains(&rank.rank),
    };
    let nodes: Vec<Node> = ranks.iter().map(node).collect();
    let busiest = ranks.iter().max_by_key(|rank| rank.load());
    let mut caption = busiest.map_or(String::new(), |rank| {
        format!(
            "The darker, the more bytes a rank gave to others; most: rank {}, {}.",
            rank.rank,
            bytes(rank.load())
        )
    });
    if !dead.is_empty() {
        caption += &format!(" Crossed out: {} that ended without a word.", dead.len());
    }
    if nodes.iter().any(|node| node.other_parent.is_some()) {
        caption += " Dashed: parents that were found in place of lost ones.";
    }
    if run
        .ranks
        .first()
        .is_some_and(|it| it.status["trees"].as_array().is_some_and(|it| it.len() > 1))
    {
        caption += " This is the first of several trees; the load is that of all.";
    }
    page.drawing(&plots::tree(&nodes)?, &caption);
    Ok(())
}

/// Each rank; of many, the dead ones and those that did most.
pub(super) fn table(page: &mut Page, run: &Run) {
    page.section("Ranks");
    let dead: BTreeSet<&str> = findings::dead(run).iter().map(|rank| &*rank.name).collect();
    let mut ranks: Vec<&RankRecord> = run.ranks.iter().collect();
    if ranks.len() > ROWS_MAX {
        ranks.sort_by_key(|it| {
            std::cmp::Reverse((dead.contains(&*it.name), it.number("/totals/calls")))
        });
        ranks.truncate(ROWS_MAX);
        ranks.sort_by_key(|rank| rank.rank);
        page.note(&format!(
            "The {ROWS_MAX} of {} ranks that ended without a word or were asked most.",
            count(run.size())
        ));
    }
    let row = |rank: &&RankRecord| {
        let (hits, misses) = (rank.number("/totals/hits"), rank.number("/totals/misses"));
        let end = match dead.contains(&*rank.name) {
            true => "without a word",
            false if rank.has_ended() => "well",
            false => "unknown",
        };
        vec![
            rank.rank.to_string(),
            rank.name.clone(),
            rank.level().to_string(),
            rank.first_parent().map_or("-".to_owned(), |parent| parent.to_string()),
            count(rank.number("/totals/calls")),
            percent(hits, hits + misses),
            bytes(rank.number("/fabric/pulled_bytes")),
            bytes(rank.number("/fabric/served_bytes")),
            bytes(rank.number("/source/bytes")),
            format!(
                "{} of {}",
                bytes(rank.number("/cache/bytes")),
                bytes(rank.number("/cache/limit_bytes"))
            ),
            format!("{:.2}", rank.number("/bootstrap/ready_us") as f64 / 1e6),
            end.to_owned(),
        ]
    };
    let rows: Vec<Vec<String>> = ranks.iter().map(row).collect();
    let columns = [
        "rank",
        "host-pid|",
        "level",
        "parent",
        "calls",
        "held here",
        "pulled",
        "served",
        "from source",
        "cache",
        "ready s",
        "end|",
    ];
    page.table(&columns, &rows);
}
