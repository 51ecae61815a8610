//! `ci/cluster.sh`: hosts on one machine, on which launchers and failures are tried.

#[path = "support/harness.rs"]
mod support;

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;
use support::cluster::Cluster;
use support::{Running, Scratch, eventually, is_root, mounts, run, say};

const BOUND: Duration = Duration::from_secs(60);

/// The exit code for a command line that makes no sense.
const USAGE: i32 = 2;

fn takes_root() -> bool {
    if !is_root() {
        say("skipped: namespaces take root");
    }
    is_root()
}

/// How many processes have to do with a cluster: its folder is in their environment or command line.
fn processes_of(cluster: &Cluster) -> usize {
    let folder = cluster.folder().as_os_str().as_bytes();
    let names_it = |file: &Path| {
        let text = fs::read(file).unwrap_or_default();
        text.windows(folder.len()).any(|part| part == folder)
    };
    let entries = fs::read_dir("/proc").expect("there is a /proc").flatten();
    let is_its = |entry: &fs::DirEntry| {
        names_it(&entry.path().join("environ")) || names_it(&entry.path().join("cmdline"))
    };
    entries.filter(is_its).count()
}

#[track_caller]
fn assert_nothing_left(scratch: &Scratch, cluster: &Cluster) {
    assert_eq!(cluster.namespaces(), Vec::<String>::new());
    assert_eq!(processes_of(cluster), 0, "processes are left");
    assert_eq!(mounts::below(scratch.path()), Vec::<std::path::PathBuf>::new());
    assert!(!cluster.folder().exists(), "the folder is left");
}

#[test]
fn hosts_have_what_a_host_has_and_down_leaves_nothing() {
    if !takes_root() {
        return;
    }
    let scratch = Scratch::new();
    let cluster = Cluster::new(&scratch);
    cluster.up(2);
    assert_eq!(run(&mut cluster.command(&["hosts"]), BOUND).success(), "node0\nnode1\n");
    assert_eq!(cluster.namespaces().len(), 3, "two hosts and what joins them");
    assert!(processes_of(&cluster) > 0, "what is counted at the end can be counted");
    let there =
        cluster.shell("node0", "hostname; ssh node1 hostname; ssh node1 'ssh node0 hostname'", &[]);
    assert_eq!(there.success(), "node0\nnode1\nnode0\n");
    for place in ["/tmp", "/run", "/dev/shm"] {
        cluster.shell("node0", "echo node0 >\"$1/mine\"", &[place]).success();
        let elsewhere = cluster.shell("node1", "ls -A \"$1\"", &[place]).success();
        assert!(!elsewhere.contains("mine"), "{place} is private: {elsewhere}");
        assert!(!Path::new(place).join("mine").exists(), "{place} is not the machine's");
    }
    let devices =
        cluster.shell("node1", "ls /sys/class/net; ls -d /proc/[0-9]* | wc -l", &[]).success();
    assert!(devices.starts_with("eth0\nlo\n"), "{devices}");
    let processes: usize =
        devices.lines().last().and_then(|line| line.parse().ok()).expect("a number");
    assert!(processes < 20, "it sees the machine's processes: {processes}");
    let exit = cluster.shell("node1", "exit 7", &[]).status.code();
    assert_eq!(exit, Some(7));

    // A rank with a mount: what is private holds it, and other hosts do not see it.
    let program = env!("CARGO_BIN_EXE_copper");
    let source = scratch.join("source");
    fs::write(&source, "what all hosts share").expect("it is ours");
    let launch = "mkdir -m 700 /tmp/run && COPPER_RUN_DIR=/tmp/run \"$1\" launch --local 1 --memory 64MiB \
                  --net tcp -v /tmp/views -d /tmp/logs >&2 && cat \"/tmp/views/0$2\"";
    let path = source.to_str().expect("UTF-8");
    let read = cluster.shell("node1", launch, &[program, path]).success();
    assert_eq!(read, "what all hosts share");
    let status = run(&mut cluster.command(&["status"]), BOUND).success();
    assert!(status.contains("node1 up") && status.contains(" 1 FUSE mounts"), "{status}");
    assert!(status.contains(" 0 FUSE mounts"), "node0 has none: {status}");
    let stop =
        "COPPER_RUN_DIR=/tmp/run \"$1\" stop -v /tmp/views; grep -c ' fuse' /proc/self/mounts";
    let stopped = cluster.shell("node1", stop, &[program]).stdout();
    assert!(stopped.ends_with("\n0\n"), "{stopped}");

    // And one that nobody stops.
    let launch = "COPPER_RUN_DIR=/tmp/run \"$1\" launch --local 1 --memory 64MiB --net tcp -v /tmp/views \
                  -d /tmp/logs";
    cluster.shell("node1", launch, &[program]).success();
    cluster.down();
    assert_nothing_left(&scratch, &cluster);
    cluster.down();
    assert_nothing_left(&scratch, &cluster);
}

#[test]
fn what_a_killed_up_has_made_is_gone_after_down_and_after_the_next_up() {
    if !takes_root() {
        return;
    }
    let scratch = Scratch::new();
    let cluster = Cluster::new(&scratch);
    // Namespaces of a cluster of four: the bridge's, then one for each host.
    for made in [1, 3, 5] {
        let up = Running::start(&mut cluster.up_command(4));
        eventually(BOUND, "some of it is there", || {
            (cluster.namespaces().len() >= made).then_some(())
        });
        up.process.signal(Signal::KILL);
        up.finish(BOUND);
        if made == 3 {
            cluster.up(1);
            assert_eq!(cluster.namespaces().len(), 2, "it has cleaned first");
        }
        cluster.down();
        assert_nothing_left(&scratch, &cluster);
    }
}

#[test]
fn an_up_that_is_told_to_end_leaves_nothing() {
    if !takes_root() {
        return;
    }
    let scratch = Scratch::new();
    let cluster = Cluster::new(&scratch);
    let up = Running::start(&mut cluster.up_command(4));
    eventually(BOUND, "some of it is there", || (!cluster.namespaces().is_empty()).then_some(()));
    up.process.signal(Signal::TERM);
    assert_eq!(up.finish(BOUND).status.code(), Some(143));
    assert_nothing_left(&scratch, &cluster);
}

#[test]
fn two_clusters_stand_side_by_side_and_a_host_can_fail() {
    if !takes_root() {
        return;
    }
    let scratches = [Scratch::new(), Scratch::new()];
    let clusters = scratches.each_ref().map(Cluster::new);
    clusters[0].up(2);
    clusters[1].up(1);
    let again = run(&mut clusters[0].up_command(1), BOUND);
    assert!(again.failure_line().contains("already"), "{}", again.stderr());
    clusters[1].down();
    assert_nothing_left(&scratches[1], &clusters[1]);
    let alive = clusters[0].shell("node0", "ssh -o ConnectTimeout=1 node1 echo alive", &[]);
    assert_eq!(alive.success(), "alive\n");
    run(&mut clusters[0].command(&["kill", "node1"]), BOUND).success();
    let dead = clusters[0].shell("node0", "ssh -o ConnectTimeout=1 node1 echo alive", &[]);
    assert!(!dead.status.success(), "{}", dead.stdout());
    let status = run(&mut clusters[0].command(&["status"]), BOUND);
    assert_eq!(status.status.code(), Some(1));
    assert!(status.stdout().contains("node1 down"), "{}", status.stdout());
}

#[test]
fn what_makes_no_sense_is_said_in_one_line_and_starts_nothing() {
    if !takes_root() {
        return;
    }
    let scratch = Scratch::new();
    let cluster = Cluster::new(&scratch);
    let bad: [&[&str]; 9] = [
        &[],
        &["sideways"],
        &["up"],
        &["up", "0"],
        &["up", "1", "2"],
        &["up", "2", "--rate", "fast"],
        &["up", "2", "--share", "/nowhere"],
        &["exec", "node0"],
        &["down", "node0"],
    ];
    for words in bad {
        let ended = run(&mut cluster.command(words), BOUND);
        assert_eq!(ended.status.code(), Some(USAGE), "{words:?}: {}", ended.failure_line());
        ended.failure_line();
    }
    let nowhere = run(&mut cluster.command(&["exec", "node0", "true"]), BOUND);
    assert!(nowhere.failure_line().contains("not up"), "{}", nowhere.stderr());
    // A folder that somebody uses for something else.
    fs::create_dir(cluster.folder()).expect("it is ours");
    fs::write(cluster.folder().join("thesis.txt"), "precious").expect("it is ours");
    let up = run(&mut cluster.up_command(1), BOUND);
    assert!(up.failure_line().contains("not a cluster's"), "{}", up.stderr());
    let down = run(&mut cluster.command(&["down"]), BOUND);
    assert!(down.failure_line().contains("not a cluster's"), "{}", down.stderr());
    fs::remove_dir_all(cluster.folder()).expect("it is there, with what was in it");
}
