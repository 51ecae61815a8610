//! `copper simulate` as a user runs it: what its runs find, and that they are what they say.

use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::{self, Command, Output};
use std::{env, fs};

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
fn ranks_of_one_machine_share_its_processors() {
    let seconds = |processors| {
        let run = &runs(&["--nodes", "8", "--processes", "1", "--processors", processors])[0];
        assert_eq!(run["source_bytes"], run["distinct_bytes"]);
        number(run, "seconds")
    };
    // Each computes for 3 s.
    let (two, eight) = (seconds("2"), seconds("8"));
    assert!(two > 12.0 && two < 18.0, "{two}");
    assert!(eight > 3.0 && eight < two / 2.0, "{eight} and {two}");
}

/// A folder with what a trace is of, and the trace; removed when this goes.
struct Recorded(PathBuf);

impl Recorded {
    fn new(name: &str) -> Recorded {
        let folder = env::temp_dir().join(format!("copper-simulate-{name}-{}", process::id()));
        fs::create_dir_all(folder.join("tree/package")).expect("scratch");
        fs::write(folder.join("tree/package/whole"), vec![1; 3 << 20]).expect("scratch");
        fs::write(folder.join("tree/package/untouched"), vec![1; 1 << 20]).expect("scratch");
        let large = fs::File::create(folder.join("tree/large")).expect("scratch");
        large.set_len(64 << 20).expect("scratch");
        symlink("package/whole", folder.join("tree/link")).expect("scratch");
        fs::write(folder.join("trace"), TRACE).expect("scratch");
        Recorded(folder)
    }

    fn run(&self, more: &[&str]) -> Value {
        let (trace, tree) = (self.0.join("trace"), self.0.join("tree"));
        let [trace, tree] = [&trace, &tree].map(|path| path.to_str().expect("UTF-8"));
        runs(&[&["--nodes", "5", "--trace", trace, "--at", tree], more].concat()).remove(0)
    }
}

impl Drop for Recorded {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

const TRACE: &str = "\
copper-replay trace 1
below /recorded/elsewhere
open 0 - 0/link ok
read 0 100 100
read 0 100 100
isatty 0 ENOTTY
close 0
stat follow 0/package/absent ENOENT
open 0 directory 0/package ok
getdents 0 32768 more
close 0
open 0 - 0/large ok
mmap 0 0 0 67108864 0 r private ok
close 0
touch 0 41943040
touch 0 41947136
";

#[test]
fn a_recorded_program_asks_for_what_its_calls_touch() {
    let recorded = Recorded::new("touches");
    let run = recorded.run(&[]);
    assert_eq!(run["source_bytes"], run["distinct_bytes"]);
    // The small file whole, of the large one the block and what is fetched around it.
    let bytes = number(&run, "source_bytes") / f64::from(1 << 20);
    assert!((4.0..40.0).contains(&bytes), "{bytes} MiB: {run}");
    assert_eq!((&run["source_readers"], &run["errors"]), (&1.into(), &0.into()));

    let large = fs::OpenOptions::new().write(true).open(recorded.0.join("tree/large"));
    large.expect("scratch").set_len(10 << 20).expect("scratch");
    let shorter = number(&recorded.run(&[]), "source_bytes") / f64::from(1 << 20);
    assert_eq!(shorter, 3.0, "what was touched is behind the end now");
}

#[test]
fn a_recorded_program_on_one_machine_survives_slow_late_cut_off_and_dead_ranks() {
    let recorded = Recorded::new("faults");
    let faults = ["--slow", "30", "--cut", "30", "--jitter", "500", "--kill", "20"];
    let constants = recorded.0.join("constants");
    let machine = ["--processors", "2", "--constants", constants.to_str().expect("UTF-8")];
    fs::write(&constants, r#"{"computing_ns": 30000000}"#).expect("scratch");
    let well = recorded.run(&machine);
    let mut happened = [0.0; 2];
    for seed in ["1", "2", "3", "4", "5", "6"] {
        let run = recorded.run(&[&machine[..], &faults, &["--seed", seed]].concat());
        assert_eq!(run["errors"], 0, "{run}");
        assert_eq!(run["distinct_bytes"], well["distinct_bytes"], "{run}");
        for (sum, name) in happened.iter_mut().zip(["killed", "cut"]) {
            *sum += number(&run, name);
        }
    }
    assert!(happened.iter().all(|sum| *sum > 0.0), "{happened:?}");
}

#[test]
fn what_is_measured_here_replaces_the_usual_numbers() {
    let file = env::temp_dir().join(format!("copper-constants-{}", process::id()));
    let name = file.to_str().expect("UTF-8");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/src/simulate");
    let output = simulate(&["--calibrate", "--write", name, "--source", source]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let groups = said.lines().filter(|line| line.starts_with("measured ")).count();
    assert!(groups == 3 && said.contains("\nassumed: "), "{said}");
    let text = fs::read_to_string(&file).expect("it has been written");
    let constants: Value = serde_json::from_str(&text).expect("it is JSON");
    // No machine handles a message in a nanosecond, and none takes a millisecond of work for it.
    for name in ["message_handling_ns", "fuse_request_ns", "engine_handoff_ns"] {
        assert!((100.0..1e6).contains(&number(&constants, name)), "{name}: {constants}");
    }
    let run = &runs(&["--nodes", "3", "--constants", name])[0];
    assert_eq!(run["source_bytes"], run["distinct_bytes"]);
    let output = simulate(&["--nodes", "3", "--constants", name]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains("--constants"), "{said}");
    let _ = fs::remove_file(&file);
}

#[test]
fn a_plot_has_what_was_simulated_and_what_was_published() {
    let file = env::temp_dir().join(format!("copper-plot-{}.svg", process::id()));
    let output = simulate(&["--nodes", "1,4", "--plot", file.to_str().expect("UTF-8")]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let svg = fs::read_to_string(&file).expect("it has been drawn");
    assert!(svg.starts_with("<svg "), "{svg}");
    let named = ["Copper, simulated", "without Copper, modelled", "without Copper, published"];
    assert!(named.iter().all(|name| svg.contains(name)), "{svg}");
    // Eight published points and two, two simulated ones and two, and a legend with two.
    assert_eq!(svg.matches("<circle").count(), 16, "{svg}");
    let _ = fs::remove_file(&file);
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
    let wrong = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
    let bad: [(&str, &[&str]); 17] = [
        ("computing_ns", &["--processors", "1", "--processes", "4000"]),
        ("Cargo.toml:1: this is no trace", &["--trace", wrong]),
        ("Cargo.toml: not understood", &["--constants", wrong]),
        ("cannot read /no/such", &["--trace", "/no/such"]),
        ("--calibrate", &["--source", "/tmp"]),
        ("--seeds", &["--seeds", "2", "--nodes", "3"]),
        ("--seeds", &["--seeds", "2", "--constants", wrong]),
        ("--seeds", &["--seeds", "2", "--calibrate"]),
        ("--program", &["--program", "small", "--trace", wrong]),
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
