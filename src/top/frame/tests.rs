//! Frames of ranks that were made up.

use std::time::Duration;

use serde_json::{Value, json};

use super::*;

const SCREEN: View = View {
    columns: 80,
    rows: Some(24),
    skipped: 0,
    order: Order::Tree,
    by_level: false,
    help: false,
    unheard_s: None,
};

const LOG: View = View { columns: 120, rows: None, ..SCREEN };

/// A report with all counters at a multiple of `n`.
fn report(rank: u32, parent: Option<u32>, n: u64) -> Value {
    json!({
        "rank": rank,
        "pid": 100 + rank,
        "host": format!("node{rank}"),
        "state": "ready",
        "parent": parent,
        "uptime_s": 3725,
        "totals": { "calls": 10 * n, "hits": 3 * n, "misses": n, "errors": 0 },
        "fabric": { "pulled_bytes": n << 20, "served_bytes": n << 21 },
        "source": { "reads": n, "bytes": n << 10 },
        "cache": { "bytes": n, "limit_bytes": 1000 },
        "under_way": { "questions": rank },
    })
}

fn snapshot(at_s: u64, reports: &[Value]) -> Snapshot {
    Snapshot::of(Duration::from_secs(at_s), reports, Vec::new())
}

fn texts(frame: &Frame) -> Vec<&str> {
    frame.lines.iter().map(|line| line.text.as_str()).collect()
}

/// The words of the row of a rank.
fn row(frame: &Frame, rank: u32) -> Vec<String> {
    let words = |line: &Line| line.text.split_whitespace().map(str::to_owned).collect();
    let rows = frame.lines.iter().skip_while(|line| line.tone != Tone::Heading).skip(1);
    let mut rows = rows.map(words).filter(|words: &Vec<String>| words.len() > 1);
    rows.find(|words| words[0] == rank.to_string()).expect("it has a row")
}

#[test]
fn rates_are_what_has_come_since_the_frame_before_by_the_time_between() {
    let before = snapshot(10, &[report(0, None, 100)]);
    let now = snapshot(14, &[report(0, None, 500)]);
    let frame = draw(Some(&before), &now, &LOG);
    let words = ["0", "ready", "1.0k", "75.0", "100M", "200M", "100K", "50.0", "0", "node0"];
    assert_eq!(row(&frame, 0), words);
    let expected = [
        "copper top   1 ranks: 1 ready   up 1:02:05   by tree",
        "calls 1.0k/s   hits 75.0%, 75.0% so far   errors 0/s   queue 0",
        "pulled 100M/s  served 200M/s  source 100K/s, 100 reads/s  cache 50.0%",
    ];
    assert_eq!(texts(&frame)[..3], expected);
    // The first frame has nothing to compare with, and neither has a process in another's place.
    assert_eq!(row(&draw(None, &now, &LOG), 0)[2..5], ["-", "75.0", "-"]);
    let mut other = report(0, None, 900);
    other["pid"] = json!(7);
    let frame = draw(Some(&before), &snapshot(14, &[other]), &LOG);
    assert_eq!(row(&frame, 0)[2..5], ["-", "75.0", "-"]);
}

#[test]
fn ranks_stand_below_those_that_they_ask() {
    let reports =
        [report(3, Some(1), 1), report(1, Some(0), 1), report(2, Some(0), 1), report(0, None, 1)];
    let frame = draw(None, &snapshot(0, &reports), &LOG);
    let at = texts(&frame).iter().position(|text| text.starts_with("RANK")).expect("headings");
    let names: Vec<&str> =
        texts(&frame)[at + 1..at + 5].iter().map(|text| text[..6].trim_end()).collect();
    assert_eq!(names, ["0", "  1", "    3", "  2"]);
}

#[test]
fn a_level_is_the_sum_of_its_ranks() {
    let at_level = |level: u64, mut report: Value| {
        report["level"] = json!(level);
        report
    };
    let reports = |n: u64| {
        [
            at_level(0, report(0, None, n)),
            at_level(1, report(1, Some(0), 2 * n)),
            at_level(1, report(2, Some(0), 4 * n)),
        ]
    };
    let dead = json!({ "rank": 3, "pid": 9, "host": "node3", "state": "dead" });
    let now = [&reports(500)[..], &[dead]].concat();
    let (before, now) = (snapshot(10, &reports(100)), snapshot(14, &now));
    let frame = draw(Some(&before), &now, &View { by_level: true, ..LOG });
    let at = texts(&frame).iter().position(|text| text.starts_with("LEVEL")).expect("headings");
    let words =
        |row: usize| texts(&frame)[at + row].split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(words(1), "0 1 ranks ready 1.0k 75.0 100M 200M 100K 50.0 0");
    assert_eq!(words(2), "1 2 ranks ready 6.0k 75.0 600M 1.2G 600K 150.0 3");
    assert_eq!(words(3), "- 1 ranks 1 not - - - - - - -");
    assert!(frame.lines[at + 4..].iter().all(|line| !line.text.contains(" ranks ")), "{frame:?}");
}

#[test]
fn ranks_that_seem_to_hang_on_each_other_are_shown_once() {
    let reports = [report(0, None, 1), report(1, Some(2), 1), report(2, Some(1), 1)];
    let frame = draw(None, &snapshot(0, &reports), &LOG);
    for rank in 0..3 {
        let starts = format!("{rank} ");
        let rows = texts(&frame).into_iter().filter(|text| text.trim_start().starts_with(&starts));
        assert_eq!(rows.count(), 1, "rank {rank}");
    }
}

#[test]
fn who_is_in_trouble_is_marked_and_counted() {
    let dead = json!({ "rank": 1, "pid": 9, "host": "node1", "state": "dead" });
    let now = snapshot(0, &[report(0, None, 1), dead]);
    let frame = draw(Some(&now), &now, &SCREEN);
    assert!(texts(&frame)[0].contains("2 ranks: 1 ready, 1 dead"), "{:?}", texts(&frame));
    let tone =
        |text: &str| frame.lines.iter().find(|line| line.text.contains(text)).map(|it| it.tone);
    assert_eq!(tone("dead      "), Some(Tone::Trouble));
    assert_eq!(tone("ready     "), Some(Tone::Plain));
    let old = draw(None, &now, &View { unheard_s: Some(9), ..SCREEN });
    assert!(texts(&old)[3].starts_with("no answer for 9 s"));
}

#[test]
fn a_frame_fills_the_screen_and_no_more_at_any_size() {
    let reports: Vec<Value> =
        (0..200).map(|rank: u32| report(rank, rank.checked_sub(1), 1)).collect();
    let mut now = snapshot(0, &reports);
    now.notes.push("a note".repeat(50));
    for (columns, rows) in [(80, 24), (1, 1), (20, 5), (0, 0), (79, 12), (300, 400)] {
        for help in [false, true] {
            let view = View { columns, rows: Some(rows), help, ..SCREEN };
            let frame = draw(None, &now, &view);
            assert_eq!(frame.lines.len(), rows, "{view:?}");
            let width = texts(&frame).iter().map(|text| text.chars().count()).max();
            assert!(width.unwrap_or(0) <= columns, "{view:?}");
        }
    }
    assert_eq!(draw(None, &now, &LOG).lines.len(), 3 + 1 + 1 + 200 + 1);
}

#[test]
fn nothing_of_a_busy_frame_or_of_the_help_is_cut_at_80_columns() {
    let reports = |n| (0..9).map(|rank| report(rank, Some(0), n)).collect::<Vec<_>>();
    let (before, now) = (snapshot(0, &reports(0)), snapshot(1, &reports(99_999)));
    for help in [false, true] {
        let frame = draw(Some(&before), &now, &View { help, ..SCREEN });
        let wide = draw(Some(&before), &now, &View { columns: 95, help, ..SCREEN });
        assert_eq!(frame.lines, wide.lines);
    }
}

#[test]
fn scrolling_ends_at_the_last_rank() {
    let reports: Vec<Value> = (0..64).map(|rank| report(rank, None, 1)).collect();
    let now = snapshot(0, &reports);
    let first = draw(None, &now, &SCREEN);
    assert_eq!(first.skipped, 0);
    let last = draw(None, &now, &View { skipped: 999, ..SCREEN });
    assert_eq!(last.skipped + last.page, 64);
    assert_eq!(row(&last, 63)[1], "ready");
    let foot = format!("{}-64 of 64", last.skipped + 1);
    assert!(texts(&last)[23].ends_with(&foot), "{:?}", texts(&last)[23]);
}

#[test]
fn each_order_has_its_largest_first() {
    let before = snapshot(0, &(0..5).map(|rank| report(rank, None, 0)).collect::<Vec<_>>());
    let now = snapshot(1, &(0..5).map(|rank| report(rank, None, rank.into())).collect::<Vec<_>>());
    let mut order = Order::Tree.next();
    let mut names = vec![Order::Tree.name()];
    while order != Order::Tree {
        let frame = draw(Some(&before), &now, &View { order, ..LOG });
        let at = texts(&frame).iter().position(|text| text.starts_with("RANK")).expect("headings");
        assert!(texts(&frame)[at + 1].starts_with("4 "), "{order:?}: {:?}", texts(&frame));
        assert!(!names.contains(&order.name()), "twice");
        names.push(order.name());
        order = order.next();
    }
    assert_eq!(names.len(), 7);
}

#[test]
fn the_slowest_and_the_hottest_of_all_ranks_are_named() {
    let with = |rank: u32, slowest_ns: u64| {
        let mut report = report(rank, None, 1);
        report["slowest_operation"] =
            json!({ "name": "read", "p99_ns": 1000, "max_ns": slowest_ns });
        let path = |path: &str, events: u64| json!({ "category": "data", "path": path, "events": events, "slowest_ns": slowest_ns });
        let own = path(&format!("own{rank}"), 5);
        report["leaders"] = json!({ "hottest": [path("shared", 4), own], "slowest": [own] });
        report
    };
    let now = snapshot(0, &[with(0, 2_500_000), with(1, 1_200_000_000)]);
    let frame = draw(None, &now, &SCREEN);
    let expected = [
        "slowest     1.2s  rank 1      read, 99% of them within 1us",
        "slowest     1.2s  rank 1      data     own1",
        "hottest        8  2 ranks     data     shared",
    ];
    assert_eq!(texts(&frame)[20..23], expected);
    let mut far = with(0, 1);
    far["leaders"]["hottest"][0]["path"] = format!("{}/end", "folder/".repeat(20)).into();
    far["leaders"]["hottest"][0]["events"] = 9.into();
    let frame = draw(None, &snapshot(0, &[far]), &SCREEN);
    let shown = texts(&frame);
    let hottest = shown.iter().find(|text| text.starts_with("hottest")).expect("it is shown");
    assert!(hottest.chars().count() <= SCREEN.columns && hottest.ends_with("/end"), "{hottest}");
    let frame = draw(None, &snapshot(0, &[report(0, None, 1)]), &SCREEN);
    assert!(texts(&frame)[22].starts_with("paths are not counted"));
}

#[test]
fn numbers_have_at_most_five_characters() {
    for (value, unit, text) in [
        (0.0, 1000, "0"),
        (0.25, 1000, "0.2"),
        (12.0, 1000, "12"),
        (999.0, 1000, "999"),
        (999.6, 1000, "1.0k"),
        (1023.0, 1024, "1.0K"),
        (99_999.0, 1000, "100k"),
        (1_572_864.0, 1024, "1.5M"),
        (9e13, 1024, "81.9T"),
    ] {
        assert_eq!(short(value, unit), text);
    }
    assert_eq!(
        (time(900), time(1_500_000), time(61_000_000_000)),
        ("1us".into(), "1.5ms".into(), "61.0s".into())
    );
    assert_eq!((percent(1.0, 8.0), percent(0.0, 0.0)), ("12.5".into(), "-".into()));
}

#[test]
fn what_a_terminal_would_obey_is_not_shown() {
    let mut bad = report(0, None, 1);
    bad["host"] = json!("\u{1b}[2Jnode");
    let frame = draw(None, &snapshot(0, &[bad]), &LOG);
    assert_eq!(row(&frame, 0)[9], "?[2Jnode");
}
