//! `copper simulate` as a user runs it: what its runs find, and that they are what they say.

use std::process::{Command, Output};

use serde_json::Value;

fn simulate(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_copper"));
    command.arg("simulate").args(arguments).output().expect("it has been built")
}

/// Each run of a simulation that must find nothing wrong.
fn runs(arguments: &[&str]) -> Vec<Value> {
    let output = simulate(&[arguments, &["--json"]].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let value: Value = serde_json::from_slice(&output.stdout).expect("it is JSON");
    assert!(value["assumptions"].as_array().is_some_and(|lines| !lines.is_empty()));
    value["runs"].as_array().expect("a list").clone()
}

fn number(run: &Value, name: &str) -> f64 {
    run[name].as_f64().unwrap_or_else(|| panic!("{name} is in {run}"))
}

#[test]
fn a_larger_job_asks_the_source_no_more_and_takes_hardly_longer() {
    let runs = runs(&["--nodes", "4,64"]);
    for run in &runs {
        assert_eq!(run["source_bytes"], run["distinct_bytes"]);
        assert_eq!((&run["source_readers"], &run["errors"]), (&1.into(), &0.into()));
        assert!(number(run, "messages_per_object") <= 3.0, "{run}");
        assert!(number(run, "seconds") > number(run, "computing_seconds"), "{run}");
    }
    let grows = |name| number(&runs[1], name) / number(&runs[0], name);
    assert!((0.99..1.01).contains(&grows("source_operations")), "{runs:?}");
    assert!(grows("seconds") < 1.2, "{runs:?}");
    assert!((20.0..22.0).contains(&grows("messages")), "63 links to 3: {runs:?}");
}

#[test]
fn without_copper_a_large_job_waits_for_the_source() {
    let run = &runs(&["--nodes", "30", "--processes", "1", "--seed", "2"])[0];
    let few = number(run, "direct_seconds");
    let run = &runs(&["--nodes", "30", "--processes", "1000", "--seed", "2"])[0];
    assert!(number(run, "direct_seconds") > 10.0 * few);
    assert!(number(run, "seconds") < few);
}

#[test]
fn several_trees_have_several_readers_of_the_source_and_read_each_block_once() {
    let run = &runs(&["--nodes", "16", "--trees", "4"])[0];
    assert_eq!(run["source_bytes"], run["distinct_bytes"]);
    assert_eq!(run["source_readers"], 4);
}

#[test]
fn ranks_that_die_cost_the_others_no_error_and_little_time() {
    let well = number(&runs(&["--nodes", "40"])[0], "seconds");
    for seed in ["1", "2", "3", "4"] {
        let run = &runs(&["--nodes", "40", "--kill", "20", "--seed", seed])[0];
        assert_eq!((&run["killed"], &run["errors"]), (&8.into(), &0.into()), "{run}");
        assert!(number(run, "source_readers") >= 2.0, "the root was one of them: {run}");
        assert!(number(run, "seconds") <= 2.0 * well, "{run}");
    }
}

#[test]
fn small_arenas_evict_and_every_reader_still_ends() {
    let run = &runs(&["--nodes", "12", "--memory", "32MiB"])[0];
    assert!(number(run, "evictions") > 0.0, "{run}");
    assert_eq!(run["errors"], 0);
}

#[test]
fn slow_late_and_cut_off_ranks_and_those_that_come_back_cost_nobody_an_error() {
    let faults =
        ["--slow", "20", "--cut", "30", "--jitter", "500", "--kill", "20", "--comeback", "50"];
    let run = |seed| {
        let job = ["--program", "small", "--nodes", "30", "--trees", "2", "--seed", seed];
        runs(&[&job[..], &faults].concat()).remove(0)
    };
    let mut happened = [0.0; 3];
    for seed in ["1", "2", "3", "4"] {
        let run = run(seed);
        assert_eq!(run["errors"], 0, "{run}");
        for (sum, name) in happened.iter_mut().zip(["killed", "returned", "cut"]) {
            *sum += number(&run, name);
        }
    }
    assert!(happened.iter().all(|sum| *sum > 0.0), "{happened:?}");
    assert_eq!(run("5"), run("5"));
}

#[test]
fn drawn_jobs_break_nothing() {
    let output = simulate(&["--seeds", "500", "--seed", "1"]);
    let text = String::from_utf8(output.stderr).expect("UTF-8");
    assert!(output.status.success() && text.contains("500 jobs, no invariant broken"), "{text}");
}

#[test]
fn the_same_seed_gives_the_same_run_and_another_seed_another() {
    let run = |seed| runs(&["--nodes", "20", "--kill", "10", "--seed", seed]).remove(0);
    assert_eq!(run("7"), run("7"));
    assert_ne!(run("7")["seconds"], run("8")["seconds"]);
}

#[test]
fn the_table_has_a_line_for_each_size_and_says_what_is_assumed() {
    let output = simulate(&["--nodes", "1,3"]);
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let first: Vec<_> = text.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert_eq!(first[..3], ["nodes", "1", "3"], "{text}");
    assert!(text.contains("\nassumed: ") && text.contains("\nfitted: "), "{text}");
}

#[test]
fn what_makes_no_sense_is_refused_in_one_line() {
    let bad: [(&str, &[&str]); 9] = [
        ("--seeds", &["--seeds", "2", "--nodes", "3"]),
        ("--cut", &["--cut", "101"]),
        ("--nodes", &["--nodes", "0"]),
        ("--nodes", &["--nodes", "4000000"]),
        ("--trees", &["--nodes", "3", "--trees", "4"]),
        ("--fanout", &["--fanout", "65"]),
        ("--memory", &["--memory", "1MiB"]),
        ("--kill", &["--kill", "51"]),
        ("--kill", &["--nodes", "1", "--kill", "1"]),
    ];
    for (named, arguments) in bad {
        let output = simulate(arguments);
        let text = String::from_utf8(output.stderr).expect("UTF-8");
        assert!(!output.status.success(), "{arguments:?}");
        assert!(text.lines().count() == 1 && text.contains(named), "{arguments:?}: {text}");
    }
}
