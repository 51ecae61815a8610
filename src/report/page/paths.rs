//! Sections of paths: the hottest, the slowest, names that are looked for in vain.

use std::collections::BTreeMap;

use super::Page;
use crate::report::advice::{self, Class};
use crate::report::figure::{count, time};
use crate::report::run::{PathTotals, Run};

/// Rows of a table.
const ROWS: usize = 20;

const BRINGS: &str =
    "No path was counted: launch with -N K for the K that are asked for most, or with -A for all.";

pub(super) fn sections(page: &mut Page, run: &Run) {
    page.section("Paths");
    if run.paths.is_empty() {
        page.note(BRINGS);
        return;
    }
    if run.floor() > 0 {
        page.note(&format!(
            "The tables were full: calls of a path may be too few by {}.",
            count(run.floor())
        ));
    }
    let titles = [
        ("data", "Files that were read most"),
        ("metadata", "Names that were asked for most"),
        ("tree", "Folders that were listed most"),
    ];
    for (category, title) in titles {
        hottest(page, run, category, title);
    }
    slowest(page, run);
    in_vain(page, run);
}

fn hottest(page: &mut Page, run: &Run, category: &str, title: &str) {
    let mut rows: Vec<(&str, PathTotals)> = run
        .paths
        .iter()
        .filter(|((of, _), _)| of == category)
        .map(|((_, path), totals)| (&**path, *totals))
        .collect();
    if rows.is_empty() {
        return;
    }
    rows.sort_by_key(|(path, totals)| (std::cmp::Reverse(totals.events), *path));
    page.raw(format_args!("<h3>{title}</h3>"));
    let row = |(path, totals): &(&str, PathTotals)| {
        let PathTotals { events, misses, negatives } = *totals;
        vec![(*path).to_owned(), count(events), count(misses), count(negatives)]
    };
    let rows: Vec<Vec<String>> = rows.iter().take(ROWS).map(row).collect();
    page.table(&["path/", "calls", "fetched", "negative"], &rows);
}

/// Those whose calls took longest together, of what the ranks have noted.
fn slowest(page: &mut Page, run: &Run) {
    let mut paths: BTreeMap<(&str, &str), [u64; 3]> = BTreeMap::new();
    for rank in &run.ranks {
        let noted = rank.status.pointer("/paths/slowest").and_then(|it| it.as_array());
        for path in noted.into_iter().flatten() {
            let text = |name: &str| path[name].as_str().unwrap_or_default();
            let number = |name: &str| path[name].as_u64().unwrap_or(0);
            let sums = paths.entry((text("category"), text("path"))).or_default();
            sums[0] += number("calls");
            sums[1] += number("total_ns");
            sums[2] = sums[2].max(number("max_ns"));
        }
    }
    let mut rows: Vec<_> = paths.into_iter().collect();
    rows.sort_by_key(|(path, [_, total, _])| (std::cmp::Reverse(*total), *path));
    let row = |((category, path), [calls, total, most]): &((&str, &str), [u64; 3])| {
        vec![(*path).to_owned(), (*category).to_owned(), count(*calls), time(*total), time(*most)]
    };
    let rows: Vec<Vec<String>> = rows.iter().take(ROWS).map(row).collect();
    page.raw("<h3>Paths that took longest</h3>");
    page.table(&["path/", "what|", "calls", "together", "most"], &rows);
}

fn in_vain(page: &mut Page, run: &Run) {
    page.raw("<h3>Names that several folders do not have</h3>");
    let names = advice::wandering(&run.paths);
    if names.is_empty() {
        page.note("None among the paths that were counted.");
    } else {
        page.note("As they come of PATH, LD_LIBRARY_PATH and PYTHONPATH: each folder before the right one costs a question.");
        let row = |it: &advice::Wandering| {
            let found = it.found_in.clone().unwrap_or_else(|| "nowhere".to_owned());
            vec![it.name.clone(), count(it.absent_in), count(it.probes), found]
        };
        let rows: Vec<Vec<String>> = names.iter().take(ROWS).map(row).collect();
        page.table(&["name/", "folders", "questions", "found in/"], &rows);
    }
    let classes = advice::absent(&run.paths);
    if classes.is_empty() {
        return;
    }
    page.raw("<h3>Absent names by class</h3>");
    let row = |(class, absent): (&Class, &advice::Absent)| {
        let example = absent.examples.first().cloned().unwrap_or_default();
        vec![
            class.name().to_owned(),
            count(absent.names),
            count(absent.probes),
            example,
            class.advice().to_owned(),
        ]
    };
    let rows: Vec<Vec<String>> = classes.iter().map(row).collect();
    page.table(&["class|", "names", "questions", "for example/", "what to try/"], &rows);
    page.note("copper report --advice DIR judges search paths too, and files that nobody touches.");
}
