//! `copper bench` as a user runs it: every part in its short form, with real ranks over tcp.

#[path = "support/harness.rs"]
mod support;

use std::time::Duration;

use serde_json::Value;
use support::job::copper;
use support::{Scratch, run};

const BOUND: Duration = Duration::from_secs(120);

/// The table, and the same as JSON.
fn bench(scratch: &Scratch, arguments: &[&str]) -> (String, Value) {
    let file = scratch.join("report.json");
    let mut command = copper(scratch);
    command.args(["bench", "--short", "--net", "tcp", "--json"]).arg(&file).args(arguments);
    let table = run(&mut command, BOUND).success();
    let report = std::fs::read(&file).expect("written at the end");
    (table, serde_json::from_slice(&report).expect("JSON"))
}

fn names(report: &Value) -> Vec<&str> {
    let figures = report["figures"].as_array().expect("a list");
    figures.iter().map(|figure| figure["name"].as_str().expect("a name")).collect()
}

#[test]
fn every_part_is_measured_beside_its_rival() {
    let scratch = Scratch::new();
    let (table, report) = bench(&scratch, &["--local", "4"]);
    assert_eq!(report["ranks"], 4);
    let names = names(&report);
    for part in [
        "pull, 1 MiB, window 16",
        "answer, 4 KiB, sleeping",
        "fan-out, 1 MiB, 4 ranks by 2",
        "broadcast, 16 MiB, 4 by 2, the default",
    ] {
        assert!(names.contains(&part), "{part} is missing: {names:?}");
        assert!(table.contains(part), "{table}");
    }
    for figure in report["figures"].as_array().expect("a list") {
        let number = |name: &str| figure[name].as_f64().expect("a number");
        let idle = figure["name"].as_str().is_some_and(|name| name.starts_with("idle"));
        assert!(number("value") > 0.0 && number("ratio") > 0.0, "{figure}");
        assert!(idle || number("rival") > 0.0, "{figure}");
    }
}

#[test]
fn a_part_can_be_measured_alone() {
    let scratch = Scratch::new();
    let (_, report) = bench(&scratch, &["--local", "2", "--only", "answer"]);
    assert_eq!(names(&report), ["answer, 4 KiB, sleeping", "answer, 4 KiB, spinning"]);
}

#[test]
fn what_makes_no_sense_is_refused() {
    let scratch = Scratch::new();
    for arguments in [&["--local", "1"][..], &["--local", "2", "--rank", "0"], &[]] {
        let ended = run(copper(&scratch).arg("bench").args(arguments), BOUND);
        assert!(!ended.status.success(), "{arguments:?}");
        assert!(!ended.stderr.is_empty(), "{arguments:?} is refused without a reason");
    }
}
