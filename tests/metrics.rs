//! What ranks tell of themselves is what happened.

#[path = "support/harness.rs"]
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use support::command::Ended;
use support::job::copper;
use support::reader::Reader;
use support::{Job, Options, Running, Scratch, Status, Tree, eventually, run};

const BOUND: Duration = Duration::from_secs(60);

/// Calls, hits, misses, negatives, errors.
type Row = [u64; 5];

const COLUMNS: [&str; 5] = ["calls", "hits", "misses", "negatives", "errors"];

fn rows(status: &Status, rank: u32) -> BTreeMap<String, Row> {
    let operations = &status.ranks()[rank as usize]["operations"];
    let rows = operations.as_object().expect("an object").iter();
    let row = |values: &Value| COLUMNS.map(|name| values[name].as_u64().expect("a number"));
    rows.map(|(name, values)| (name.clone(), row(values))).collect()
}

/// What was counted since, of the operations that were called.
fn since(before: &BTreeMap<String, Row>, after: &BTreeMap<String, Row>) -> BTreeMap<String, Row> {
    let delta = |(name, row): (&String, &Row)| {
        let then = before[name];
        (name.clone(), std::array::from_fn(|column| row[column] - then[column]))
    };
    after.iter().map(delta).filter(|(_, row): &(String, Row)| row[0] > 0).collect()
}

fn totals(status: &Status, pointer: &str) -> u64 {
    let value = |rank: &Value| rank.pointer(pointer).and_then(Value::as_u64).expect(pointer);
    status.ranks().iter().map(value).sum()
}

fn extended_attribute(path: &Path) {
    let mut room = [0; 16];
    let got = rustix::fs::getxattr(path, "user.copper_none", &mut room);
    assert!(got.is_err(), "nobody has set it");
}

#[test]
fn a_scripted_load_is_counted_call_by_call() {
    let scratch = Scratch::new();
    let tree = Tree::new(&scratch);
    let folder = tree.directory("folder");
    let files: Vec<PathBuf> =
        (0..10).map(|n| tree.file(format!("folder/file-{n}"), 100 + n)).collect();
    tree.link("folder/link", "file-3");
    tree.file("single", 5000);
    let job = Job::launch(&scratch, 3);
    for rank in 0..job.ranks() {
        // The way there is walked first.
        fs::metadata(job.view(rank, tree.root())).expect("it is there");
    }
    for rank in (0..job.ranks()).rev() {
        let before = rows(&job.status(), rank);
        let shown = |path: &Path| job.view(rank, path);
        for n in 0..5 {
            assert!(fs::metadata(shown(&folder.join(format!("absent-{n}")))).is_err());
        }
        for file in &files {
            fs::metadata(shown(file)).expect("it is there");
        }
        assert_eq!(fs::read(shown(&files[3])).expect("it can be read").len(), 103);
        assert_eq!(fs::read(shown(&files[3])).expect("from the page cache").len(), 103);
        let target = fs::read_link(shown(&folder.join("link"))).expect("a link");
        assert_eq!(target, Path::new("file-3"));
        let file = fs::File::open(shown(&files[3])).expect("it can be opened");
        assert!(!file.is_terminal() && !file.is_terminal());
        rustix::fs::statvfs(shown(&folder)).expect("statistics");
        extended_attribute(&shown(&files[3]));
        extended_attribute(&shown(&files[3]));

        let told = eventually(BOUND, "all calls are counted", || {
            let told = since(&before, &rows(&job.status(), rank));
            (told.get("getxattr").is_some_and(|row| row[0] == 2)).then_some(told)
        });
        // The folder; an absent name, which has it listed; four more, ten files and the link by that.
        // The root, asked last, holds what the others have asked it for.
        let [lookups, once] = if rank == 0 { [0, 0] } else { [2, 1] };
        assert_eq!(told["lookup"], [17, 17 - lookups, lookups, 5, 0], "rank {rank}: {told:?}");
        assert_eq!(told["read"], [1, 1 - once, once, 0, 0], "rank {rank}: {told:?}");
        assert_eq!(told["readlink"], [1, 1, 0, 0, 0], "rank {rank}: {told:?}");
        assert_eq!(told["ioctl"], [2, 0, 0, 0, 2], "rank {rank}: {told:?}");
        assert_eq!(told["statfs"], [1, 0, 1, 0, 0], "rank {rank}: {told:?}");
        let [calls, hits, misses, negatives, errors] = told["getxattr"];
        let expected = (2, 2 - once, once, 2);
        assert_eq!((calls, hits, misses, negatives + errors), expected, "rank {rank}: {told:?}");
        assert!(!told.contains_key("mutation") && !told.contains_key("readdir"), "{told:?}");
    }
    totals_are_sums(&job.status());
}

#[track_caller]
fn totals_are_sums(status: &Status) {
    for rank in 0..status.ranks().len() {
        let rows = rows(status, u32::try_from(rank).expect("few"));
        for (column, name) in COLUMNS.iter().enumerate() {
            let sum: u64 = rows.values().map(|row| row[column]).sum();
            assert_eq!(status.ranks()[rank]["totals"][name], sum, "rank {rank}: {name}");
        }
        let latency = &status.ranks()[rank]["operations"]["lookup"]["latency"];
        let time = |name: &str| latency[name].as_u64().expect("a number");
        assert!(0 < time("p50_ns") && time("p50_ns") <= time("p90_ns"), "{latency}");
        assert!(time("p90_ns") <= time("p99_ns") && time("p99_ns") <= time("max_ns"), "{latency}");
        let buckets = latency["buckets"].as_array().expect("a list").iter();
        let calls: u64 = buckets.map(|pair| pair[1].as_u64().expect("a number")).sum();
        assert_eq!(calls, rows["lookup"][0]);
    }
}

/// Every rank reads all of the files.
fn read_everywhere(job: &Job, files: &[PathBuf]) {
    let readers: Vec<Reader> = (0..job.ranks())
        .map(|rank| {
            let pair = |path: &PathBuf| {
                (job.view(rank, path), Arc::new(fs::read(path).expect("it is ours")))
            };
            Reader::start(format!("rank {rank}"), files.iter().map(pair).collect())
        })
        .collect();
    for reader in readers {
        let tally = reader.finish(BOUND);
        assert!(tally.wrong.is_empty() && tally.failed.is_empty(), "{tally:?}");
    }
}

#[test]
fn what_is_pulled_is_what_is_served() {
    let scratch = Scratch::new();
    let tree = Tree::new(&scratch);
    let sizes = [9_000, 70_000, 1 << 20, 3_000_000, 20 << 20];
    let files = sizes.map(|size| tree.file(format!("file-{size}"), size));
    let distinct: u64 = sizes.iter().map(|size| *size as u64).sum();
    let job = Job::launch_with(&scratch, 5, &Options::with(&["-T", "2"]));
    read_everywhere(&job, &files);
    let status = eventually(BOUND, "all leases are given back", || {
        let status = job.status();
        let open = totals(&status, "/under_way/leases_given");
        (open == 0 && totals(&status, "/under_way/pulls") == 0).then_some(status)
    });
    let (pulled, served) =
        (totals(&status, "/fabric/pulled_bytes"), totals(&status, "/fabric/served_bytes"));
    assert_eq!(totals(&status, "/fabric/retries"), 0, "nothing failed");
    assert_eq!(pulled, served);
    assert!(pulled >= 4 * distinct, "{pulled} bytes of {distinct}");
    let levels = status.json["levels"].as_array().expect("a list");
    let sum = |name: &str| levels.iter().filter_map(|level| level[name].as_u64()).sum::<u64>();
    assert_eq!((sum("ranks"), sum("fabric_pulled_bytes")), (5, pulled));
    assert_eq!(sum("calls"), totals(&status, "/totals/calls"));
}

/// What strace has seen of a process: the bytes of reads of files below a folder.
fn bytes_read(trace: &str, folder: &Path) -> u64 {
    let of = format!("<{}/", folder.display());
    let mut begun = BTreeSet::new();
    let mut sum = 0;
    for line in trace.lines() {
        let Some((thread, call)) = line.split_once(' ') else { continue };
        let ours = call.contains(&of) || (call.contains("resumed>") && begun.remove(thread));
        if ours && call.contains("<unfinished ...>") {
            begun.insert(thread);
        } else if ours && let Some((_, bytes)) = call.rsplit_once(" = ") {
            sum += bytes.trim().parse::<u64>().unwrap_or_else(|error| panic!("{error}: {line}"));
        }
    }
    sum
}

#[test]
fn the_sources_bytes_are_those_that_strace_sees_at_the_root() {
    let scratch = Scratch::new();
    let tree = Tree::new(&scratch);
    let files = [5_000, 100_000, (1 << 20) + 7, 12 << 20]
        .map(|size| tree.file(format!("file-{size}"), size));
    let job = Job::launch(&scratch, 3);
    let before = job.status().counter(0, "source.bytes");
    let output = scratch.join("trace");
    let mut strace = Command::new("strace");
    strace.args(["-f", "-y", "-q", "-e", "trace=pread64,preadv,preadv2,read"]);
    strace.arg("-o").arg(&output).args(["-p", &job.daemons[0].pid.to_string()]);
    let tracing = Running::start(&mut strace);
    // ci/setup.sh installs it.
    eventually(BOUND, "strace holds every thread of the root (is it installed?)", || {
        let tasks = fs::read_dir(format!("/proc/{}/task", job.daemons[0].pid)).expect("it runs");
        let traced = |task: fs::DirEntry| {
            let status = fs::read_to_string(task.path().join("status")).unwrap_or_default();
            status.contains(&format!("TracerPid:\t{}", tracing.process.pid))
        };
        tasks.flatten().all(traced).then_some(())
    });
    read_everywhere(&job, &files);
    let counted = job.status().counter(0, "source.bytes") - before;
    tracing.process.signal(rustix::process::Signal::TERM);
    let _ended: Ended = tracing.finish(BOUND);
    let trace = fs::read_to_string(&output).expect("strace has written");
    let seen = bytes_read(&trace, tree.root());
    let distinct: u64 = files.iter().map(|file| file.metadata().expect("ours").len()).sum();
    assert_eq!((counted, seen), (distinct, distinct));
}

/// The places of the numbers below a value.
fn numbers(value: &Value, at: &str, found: &mut Vec<String>) {
    match value {
        Value::Number(_) => found.push(at.to_owned()),
        Value::Object(fields) => {
            fields.iter().for_each(|(name, value)| numbers(value, &format!("{at}/{name}"), found));
        }
        Value::Array(_) | Value::Null | Value::Bool(_) | Value::String(_) => {}
    }
}

#[test]
fn every_number_of_a_rank_is_documented_and_every_documented_one_is_there() {
    // Who it is, not what it does.
    const NAMES: [&str; 5] = ["/rank", "/size", "/pid", "/parent", "/fanout"];
    let documented: Vec<&str> = include_str!("../docs/METRICS.md")
        .lines()
        .filter_map(|line| line.strip_prefix("| `/")?.split_once('`').map(|(place, _)| place))
        .collect();
    let scratch = Scratch::new();
    let tree = Tree::new(&scratch);
    let file = tree.file("file", 100_000);
    let job = Job::launch(&scratch, 2);
    read_everywhere(&job, &[file]);
    let status = job.status();
    let mut found = Vec::new();
    numbers(&status.ranks()[0], "", &mut found);
    for place in found.iter().filter(|place| !place.starts_with("/operations/")) {
        let known = documented.contains(&&place[1..]) || NAMES.contains(&place.as_str());
        assert!(known, "{place} is not in docs/METRICS.md");
    }
    for place in &documented {
        let place = format!("/{place}");
        assert!(found.contains(&place), "{place} is not in the status: {}", status.ranks()[0]);
    }
    let text = run(copper(&scratch).arg("metrics").arg("-v").arg(&job.directory), BOUND).success();
    for place in &documented {
        let name = format!("copper_{}", place.replace('/', "_"));
        assert!(text.contains(&format!("\n# HELP {name}")), "{name} in {text}");
    }
}

#[test]
fn prometheus_reads_the_metrics_and_a_text_file_is_replaced_whole() {
    let scratch = Scratch::new();
    let tree = Tree::new(&scratch);
    let file = tree.file("file", 100_000);
    let mut job = Job::launch(&scratch, 2);
    read_everywhere(&job, &[file]);
    let textfile = scratch.join("copper.prom");
    fs::write(&textfile, "old").expect("it is ours");
    let write = || {
        let mut command = copper(&scratch);
        command.arg("metrics").arg("-v").arg(scratch.join("views"));
        run(command.arg("--textfile").arg(&textfile), BOUND)
    };
    assert_eq!(write().success(), "");
    let text = fs::read_to_string(&textfile).expect("it is there");
    let read = job.status().ranks()[1]["operations"]["read"]["calls"].as_u64().expect("a number");
    let line = text.lines().find(|line| {
        line.starts_with("copper_operation_calls_total{")
            && line.contains("rank=\"1\",level=\"1\",operation=\"read\"")
    });
    assert_eq!(line.and_then(|line| line.rsplit(' ').next()), Some(&*read.to_string()), "{text}");
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (name, value) = line.rsplit_once(' ').expect("a name and a value");
        assert!(name.starts_with("copper_") && name.ends_with('}'), "{line}");
        assert!(value.parse::<f64>().is_ok(), "{line}");
    }
    job.stop();
    // Nobody is there: the file says so by saying nothing.
    assert!(!write().status.success());
    assert_eq!(fs::read_to_string(&textfile).expect("it is there"), "");
    let left: Vec<_> = fs::read_dir(scratch.path()).expect("ours").flatten().collect();
    let is_temporary = |name: &fs::DirEntry| name.file_name().to_string_lossy().starts_with('.');
    assert!(!left.iter().any(is_temporary), "{left:?}");
}
