//! The profiling files of a run: what they are called, what stands in them, and that they add up.

#[path = "support/harness.rs"]
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;
use support::command::Ended;
use support::job::copper;
use support::{Job, Options, Scratch, Tree, eventually, run};

const BOUND: Duration = Duration::from_secs(60);

// The format of release 1.0: scripts of others read it.

const KINDS: [&str; 4] = ["summary.md", "operations.csv", "aggregate.csv", "top_paths.csv"];

const OPERATIONS: &str =
    "operation,total_calls,cache_hits,cache_misses,negative_results,avg_latency_us,total_latency_s";

const TOP_PATHS: &str = "category,path,total_events,cache_hits,cache_misses,negative_results,\
                         ttl_stores,ttl_serves,ttl_expires,ttl_clears";

const METRICS: [&str; 11] = [
    "total_counted_fuse_operations",
    "total_cache_hits",
    "total_cache_misses",
    "total_negative_results",
    "estimated_cache_served_operations_saved_by_copper",
    "metadata_enoent_ttl_stores",
    "metadata_enoent_ttl_serves",
    "metadata_enoent_ttl_expires",
    "metadata_enoent_ttl_clears_on_success_or_non_enoent",
    "estimated_repeated_metadata_lookups_avoided_by_ttl",
    "total_measured_latency_seconds",
];

const CATEGORIES: [&str; 4] = ["metadata", "data", "tree", "metadata_ttl"];

/// `DIR/<job>` of the only run of a test.
fn run_folder(scratch: &Scratch) -> PathBuf {
    let mut runs = fs::read_dir(scratch.join("logs")).expect("there was a launch");
    runs.next().expect("one job").expect("readable").path()
}

/// The names in a folder; none if it is not there.
fn names(folder: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    entries.map(|it| it.expect("readable").file_name().into_string().expect("text")).collect()
}

fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The rows below the header, which has to be this one, each with as many fields.
fn rows(path: &Path, header: &str) -> Vec<Vec<String>> {
    let text = text(path);
    let mut lines = text.lines();
    assert_eq!(lines.next(), Some(header), "{}", path.display());
    let columns = header.split(',').count();
    let row = |line: &str| {
        let fields: Vec<String> = line.split(',').map(str::to_owned).collect();
        assert_eq!(fields.len(), columns, "{}: {line}", path.display());
        fields
    };
    lines.map(row).collect()
}

/// operations.csv by name: calls, hits, misses, negatives.
fn operations(path: &Path) -> BTreeMap<String, [u64; 4]> {
    let number = |field: &String| field.parse::<u64>().expect("a number");
    let row = |fields: Vec<String>| {
        assert!(fields[5].parse::<f64>().is_ok() && fields[6].parse::<f64>().is_ok(), "{fields:?}");
        (fields[0].clone(), std::array::from_fn(|column| number(&fields[column + 1])))
    };
    rows(path, OPERATIONS).into_iter().map(row).collect()
}

/// aggregate.csv, which has to have these metrics in this order.
fn aggregate(path: &Path) -> BTreeMap<String, f64> {
    let rows = rows(path, "metric,value");
    let names: Vec<&str> = rows.iter().map(|fields| &*fields[0]).collect();
    assert_eq!(names, METRICS, "{}", path.display());
    rows.iter().map(|fields| (fields[0].clone(), fields[1].parse().expect("a number"))).collect()
}

/// All four files with this beginning are there and have their form.
#[track_caller]
fn assert_whole(folder: &Path, prefix: &str) {
    let of = |kind: &str| folder.join(format!("{prefix}-profiling_{kind}"));
    let operations = operations(&of("operations.csv"));
    let aggregate = aggregate(&of("aggregate.csv"));
    let sum = |column: usize| operations.values().map(|row| row[column]).sum::<u64>() as f64;
    for (column, metric) in METRICS[..4].iter().enumerate() {
        assert_eq!(aggregate[*metric], sum(column), "{prefix}: {metric}");
    }
    for fields in rows(&of("top_paths.csv"), TOP_PATHS) {
        assert!(CATEGORIES.contains(&&*fields[0]) && fields[1].starts_with('/'), "{fields:?}");
        assert!(fields[2..].iter().all(|field| field.parse::<u64>().is_ok()), "{fields:?}");
    }
    assert!(text(&of("summary.md")).starts_with("# Copper profile: rank "), "{prefix}");
}

fn report(scratch: &Scratch, folder: &Path) -> Ended {
    run(copper(scratch).arg("report").arg("--aggregate").arg(folder), BOUND)
}

#[test]
fn a_run_of_eight_ranks_leaves_the_files_of_release_1_and_they_add_up() {
    let scratch = Scratch::new();
    let tree = Tree::new(&scratch);
    let files: Vec<PathBuf> = (0..6).map(|n| tree.file(format!("file-{n}"), 10_000 * n)).collect();
    let mut job = Job::launch_with(&scratch, 8, &Options::with(&["-P", "-N", "3"]));
    for rank in 0..job.ranks() {
        for file in &files {
            assert_eq!(fs::read(job.view(rank, file)).ok(), fs::read(file).ok());
        }
        assert!(fs::metadata(job.view(rank, &tree.path("absent"))).is_err());
    }
    let reads: u64 = {
        let status = job.status();
        (0..job.ranks()).map(|rank| status.counter(rank, "fuse.read")).sum()
    };
    let pids: Vec<u32> = job.daemons.iter().map(|daemon| daemon.pid).collect();
    job.stop();

    let host = copper_host();
    let profiling = run_folder(&scratch).join("profiling");
    assert_eq!(names(&profiling), ["final", "pre-destroy"].map(str::to_owned).into());
    let expected = |tag: &str| -> BTreeSet<String> {
        let of = |pid: &u32| KINDS.map(|kind| format!("{host}-{pid}{tag}-profiling_{kind}"));
        pids.iter().flat_map(of).collect()
    };
    assert_eq!(names(&profiling.join("final")), expected(""));
    assert_eq!(names(&profiling.join("pre-destroy")), expected("-pre-destroy"));
    let mut sums: BTreeMap<String, [u64; 4]> = BTreeMap::new();
    for pid in &pids {
        assert_whole(&profiling.join("final"), &format!("{host}-{pid}"));
        assert_whole(&profiling.join("pre-destroy"), &format!("{host}-{pid}-pre-destroy"));
        let final_of =
            |kind: &str| profiling.join("final").join(format!("{host}-{pid}-profiling_{kind}"));
        for (name, row) in operations(&final_of("operations.csv")) {
            let sum = sums.entry(name).or_default();
            (0..4).for_each(|column| sum[column] += row[column]);
        }
        let paths = rows(&final_of("top_paths.csv"), TOP_PATHS);
        let data: Vec<_> = paths.iter().filter(|fields| fields[0] == "data").collect();
        assert_eq!(data.len(), 3, "-N 3: {data:?}");
        let of_source = |fields: &&Vec<String>| fields[1].contains("/source/file-");
        assert!(data.iter().all(of_source), "{data:?}");
    }
    assert_eq!(sums["read"][0], reads);
    assert_eq!((sums["init"][0], sums["destroy"][0]), (8, 8));

    // The same under a name with dashes, as many sites have them.
    for (folder, name) in [("as-is", host.clone()), ("dashed", "x1000c0-s0b0-n0".to_owned())] {
        let copy = scratch.join(folder);
        fs::create_dir_all(copy.join("profiling/final")).expect("ours");
        for file in names(&profiling.join("final")) {
            let renamed = file.replacen(&host, &name, 1);
            fs::copy(
                profiling.join("final").join(&file),
                copy.join("profiling/final").join(renamed),
            )
            .expect("ours");
        }
        let printed = report(&scratch, &copy).success();
        assert!(printed.starts_with("8 ranks added up in "), "{printed}");
        let cluster = copy.join("profiling/cluster");
        let kinds = ["aggregate.csv", "operations.csv", "summary.md"];
        let expected = kinds.map(|kind| format!("cluster-profiling_{kind}"));
        assert_eq!(names(&cluster), expected.into());
        assert_eq!(operations(&cluster.join("cluster-profiling_operations.csv")), sums);
        let aggregate = aggregate(&cluster.join("cluster-profiling_aggregate.csv"));
        let calls: u64 = sums.values().map(|row| row[0]).sum();
        assert_eq!(aggregate["total_counted_fuse_operations"], calls as f64);
    }
    let line = report(&scratch, scratch.path()).failure_line();
    assert!(line.contains("give the folder of a run"), "{line}");
}

#[test]
fn snapshots_come_in_time_and_by_signal_and_none_is_overwritten() {
    let scratch = Scratch::new();
    let tree = Tree::new(&scratch);
    let file = tree.file("file", 5000);
    let mut job = Job::launch_with(&scratch, 2, &Options::with(&["-I", "1"]));
    let (host, pid) = (copper_host(), job.daemons[1].pid);
    let folder = run_folder(&scratch).join("profiling/runtime-snapshot");
    let prefix = |number: u32| format!("{host}-{pid}-runtime-snapshot-{number:04}");
    let written = |number: u32| {
        names(&folder).contains(&format!("{}-profiling_top_paths.csv", prefix(number)))
    };
    let reads = |number: u32| {
        let path = folder.join(format!("{}-profiling_operations.csv", prefix(number)));
        operations(&path)["read"][0]
    };
    eventually(BOUND, "two snapshots in time", || written(2).then_some(()));
    assert_eq!(reads(1), 0);
    let first = text(&folder.join(format!("{}-profiling_operations.csv", prefix(1))));
    fs::read(job.view(1, &file)).expect("it can be read");
    let next = (3..).find(|number| !written(*number)).expect("there is an end");
    eventually(BOUND, "another that has the read", || {
        (written(next + 1) && reads(next + 1) == 1).then_some(())
    });
    assert_eq!(text(&folder.join(format!("{}-profiling_operations.csv", prefix(1)))), first);
    assert_whole(&folder, &prefix(next));
    job.stop();
}

#[test]
fn who_asks_for_no_profile_gets_one_by_signal_alone() {
    let scratch = Scratch::new();
    let mut job = Job::launch(&scratch, 1);
    let folder = run_folder(&scratch).join("profiling");
    let (host, pid) = (copper_host(), job.daemons[0].pid);
    let prefix = format!("{host}-{pid}-runtime-snapshot-0001");
    job.daemons[0].signal(Signal::USR1);
    eventually(BOUND, "a snapshot", || {
        let last = format!("{prefix}-profiling_top_paths.csv");
        names(&folder.join("runtime-snapshot")).contains(&last).then_some(())
    });
    assert_whole(&folder.join("runtime-snapshot"), &prefix);
    job.stop();
    assert_eq!(names(&folder), ["runtime-snapshot".to_owned()].into());
}

/// This machine's name, as files have it.
fn copper_host() -> String {
    let name = rustix::system::uname();
    name.nodename().to_str().expect("text").to_owned()
}
