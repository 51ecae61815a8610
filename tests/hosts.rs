//! Launches over hosts by ssh, and what goes wrong with them: hosts of a cluster of namespaces.

#[path = "support/harness.rs"]
mod support;

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use support::command::Ended;
use support::fleet::{VIEW, complaint, complaints, takes_root};
use support::job::COPPER;
use support::{Fleet, Running, Scratch, Status, Tree, eventually, run};

/// How long what a failure has left may stay.
const CLEAN_BOUND: Duration = Duration::from_secs(10);

const BOUND: Duration = Duration::from_secs(60);

fn status(fleet: &Fleet, host: u32) -> Status {
    let ended = run(&mut fleet.copper(host, &["status", "--json", "-v", VIEW]), BOUND);
    let json = serde_json::from_slice(&ended.stdout);
    Status { json: json.unwrap_or_else(|error| panic!("{error}: {ended:?}")) }
}

#[test]
fn every_host_shows_the_same_bytes_of_which_the_first_alone_reads_the_source() {
    if !takes_root() {
        return;
    }
    let scratch = Scratch::new();
    let tree = Tree::new(&scratch);
    let files = [tree.file("small", 5_000), tree.file("large", 3_000_000)];
    let fleet = Fleet::up(&scratch, 4, &[]);
    let said = fleet.launch(&[]);
    assert!(said.contains("4 of 4 ranks ready") && said.contains("(by ssh"), "{said}");
    for host in (0..4).rev() {
        files.iter().for_each(|file| fleet.assert_shows(host, file));
    }
    let told = status(&fleet, 2);
    assert_eq!(told.ranks().len(), 4, "{}", told.json);
    assert!(told.counter(0, "source.opens") >= 2, "{}", told.json);
    (1..4).for_each(|rank| assert_eq!(told.counter(rank, "source.opens"), 0, "{}", told.json));

    // Another one beside it, and one more on the same mount point.
    let line = complaint(&fleet.try_launch(&[]), 1);
    assert!(line.contains(VIEW) && line.contains("held by job"), "{line}");
    fleet.launch(&["-v", "/tmp/w"]);
    assert_eq!(fleet.on(3, "grep -c ' fuse' /proc/self/mounts"), "2\n");
    run(&mut fleet.copper(0, &["stop", "-v", "/tmp/w"]), BOUND).success();
    (0..4).for_each(|host| fleet.assert_shows(host, &files[0]));
    assert_eq!(fleet.on(3, "grep -c ' fuse' /proc/self/mounts"), "1\n");

    // Stopped while somebody has a file open and works in the view.
    let path = files[1].display();
    let busy = format!("cd {VIEW} && exec sleep 60 <{VIEW}{path}");
    let sleepers: Vec<Running> = [1, 3].map(|host| fleet.start_on(host, &busy)).into();
    for host in [1, 3] {
        eventually(BOUND, "it sleeps in the view", || {
            let folder = fleet.on(host, "readlink /proc/$(pgrep -x sleep)/cwd || true");
            folder.starts_with(VIEW).then_some(())
        });
    }
    let since = Instant::now();
    let said = fleet.stop();
    assert!(said.contains("4 ranks stopped"), "{said}");
    assert!(since.elapsed() < CLEAN_BOUND, "{:?}", since.elapsed());
    fleet.assert_clean(0..4, CLEAN_BOUND);
    drop(sleepers);
    let again = fleet.stop();
    assert!(again.contains("nothing was running"), "{again}");
}

#[test]
fn a_host_that_cannot_take_part_is_named_with_the_reason_and_the_others_are_left_clean() {
    if !takes_root() {
        return;
    }
    let scratch = Scratch::new();
    let fleet = Fleet::up(&scratch, 4, &[]);
    let fails = |rank: u32, reasons: &[&str]| {
        let line = complaint(&fleet.try_launch(&["-s", "20"]), 1);
        assert!(line.contains(&format!("rank {rank} on node{rank}: ")), "{line}");
        reasons.iter().for_each(|reason| assert!(line.contains(reason), "{reason}? {line}"));
        let others = (0..4).filter(|other| *other != rank);
        others.for_each(|other| assert!(!line.contains(&format!("node{other}")), "{line}"));
        fleet.assert_clean(0..4, CLEAN_BOUND);
    };
    fleet.on(2, "mount --bind /dev/null /dev/fuse");
    fails(2, &["/dev/fuse"]);
    fleet.on(2, "umount /dev/fuse");

    // Not even the root of the tree.
    fleet.on(0, "mount --bind /dev/null /dev/fuse");
    fails(0, &["/dev/fuse"]);
    fleet.on(0, "umount /dev/fuse");

    let full = "mkdir -m 700 -p /tmp/copper-run-0 && mount -t tmpfs -o size=4k,mode=700 full /tmp/copper-run-0 && \
                head -c 4096 /dev/zero >/tmp/full && cp /tmp/full /tmp/copper-run-0/full.launch";
    fleet.on(1, full);
    fails(1, &["/tmp/copper-run-0", "No space left on device"]);
    fleet.on(1, "umount /tmp/copper-run-0");

    fleet.replace_program(&scratch, 3, "echo 'no such library' >&2; exit 127");
    fails(3, &["no such library"]);
    fleet.restore_program(3);
    let real = scratch.join("copper-real");
    fs::copy(COPPER, &real).expect("there is room");
    let older = format!("shift 3; exec {} agent --expect 0.0.9 \"$@\"", real.display());
    fleet.replace_program(&scratch, 3, &older);
    fails(3, &["0.0.9", "install the same one everywhere"]);
    fleet.restore_program(3);
}

#[test]
fn a_host_that_does_not_answer_is_named_in_time_and_the_others_are_left_clean() {
    if !takes_root() {
        return;
    }
    let scratch = Scratch::new();
    let fleet = Fleet::up(&scratch, 4, &[]);
    // It says nothing at all, for as long as it is listened to.
    fleet.replace_program(&scratch, 3, "exec cat >/dev/null");
    let line = complaint(&fleet.try_launch(&["-s", "2"]), 1);
    assert!(line.contains("rank 3 on node3: no word from this host within 2 s"), "{line}");
    fleet.assert_clean(0..4, CLEAN_BOUND);
    fleet.restore_program(3);

    let hosts = scratch.join("other-hosts");
    let other = hosts.to_str().expect("UTF-8");
    fs::write(&hosts, "node0\nnode1\nnowhere\n").expect("it is ours");
    let line = complaint(&fleet.try_launch(&["--hosts", other]), 1);
    assert!(line.contains("rank 2 on nowhere: ") && line.contains("resolve"), "{line}");
    fleet.assert_clean(0..4, CLEAN_BOUND);
    fs::write(&hosts, "node0\nnode1\nnode0\n").expect("it is ours");
    let line = complaint(&fleet.try_launch(&["--hosts", other]), 2);
    assert!(line.contains("node0 stands twice"), "{line}");
    fleet.assert_clean(0..4, CLEAN_BOUND);

    run(&mut fleet.cluster.command(&["kill", "node2"]), BOUND).success();
    // Else ssh would wait for its own bound of 10 s.
    fleet.on(0, "ip neigh flush dev eth0");
    let since = Instant::now();
    let line = complaint(&fleet.try_launch(&["-s", "20"]), 1);
    assert!(line.contains("rank 2 on node2: "), "{line}");
    assert!(line.contains("No route to host") || line.contains("timed out"), "{line}");
    assert!(since.elapsed() < Duration::from_secs(20), "{:?}", since.elapsed());
    fleet.assert_clean([0, 1, 3], CLEAN_BOUND);
}

#[test]
fn a_rank_that_may_be_missing_is_named_and_costs_its_children_nothing() {
    if !takes_root() {
        return;
    }
    let scratch = Scratch::new();
    let tree = Tree::new(&scratch);
    let file = tree.file("file", 2_000_000);
    let fleet = Fleet::up(&scratch, 4, &[]);
    fleet.on(2, "mount --bind /dev/null /dev/fuse");
    // A chain: rank 3 is the missing one's child.
    let words = ["--fanout", "1", "--allow-missing", "1", "-s", "20"];
    let ended = fleet.try_launch(&words);
    let lines = complaints(&ended);
    let said = ended.success();
    assert!(said.contains("3 of 4 ranks ready"), "{said}");
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].contains("missing: rank 2 on node2: ") && lines[0].contains("/dev/fuse"));
    [3, 1, 0].iter().for_each(|&host| fleet.assert_shows(host, &file));
    let told = status(&fleet, 0);
    assert_eq!(told.counter(3, "source.opens"), 0, "{}", told.json);
    let said = fleet.stop();
    assert!(said.contains("3 ranks stopped"), "{said}");
    fleet.assert_clean(0..4, CLEAN_BOUND);
}

#[test]
fn a_head_that_is_killed_leaves_nothing_whenever_it_is_killed() {
    if !takes_root() {
        return;
    }
    let scratch = Scratch::new();
    let fleet = Fleet::up(&scratch, 3, &[]);
    // The last one says nothing, so no launch becomes complete.
    fleet.replace_program(&scratch, 2, "exec cat >/dev/null");
    let moments = [
        (0, "ls /tmp/copper-run-0/*.launch"),
        (0, "pgrep -x ssh"),
        (1, "pgrep -f '^[^ ]*copper agent '"),
        (1, "pgrep -f '^[^ ]*copper serve '"),
        (1, "grep ' fuse' /proc/self/mounts"),
        (1, "ls /tmp/copper-run-0/*.json"),
    ];
    for (host, moment) in moments {
        fleet.on(0, "rm -rf /tmp/copper-run-0");
        let head = fleet.start_head(&[]);
        eventually(BOUND, moment, || {
            let found = fleet.on(host, &format!("{moment} 2>/dev/null || true"));
            (!found.is_empty()).then_some(())
        });
        fleet.kill_head(head);
        // First those that may still start something.
        eventually(CLEAN_BOUND, moment, || {
            fleet.on(0, "pgrep -ax ssh || true").is_empty().then_some(())
        });
        fleet.assert_clean(0..3, CLEAN_BOUND);
    }
    // What the last one has written down is no obstacle, for a stop or for a launch.
    fleet.restore_program(2);
    let said = fleet.stop();
    assert!(said.contains("nothing was running"), "{said}");
    fleet.launch(&[]);
    fleet.stop();
    fleet.assert_clean(0..3, CLEAN_BOUND);
}

#[test]
fn a_stop_copes_with_dead_daemons_and_names_dead_hosts() {
    if !takes_root() {
        return;
    }
    let scratch = Scratch::new();
    let fleet = Fleet::up(&scratch, 4, &[]);
    fleet.launch(&[]);
    let pid = fleet.daemon(1);
    fleet.on(1, &format!("kill -KILL {pid}"));
    eventually(CLEAN_BOUND, "its guardian removes the mount", || {
        (fleet.on(1, "grep -c ' fuse' /proc/self/mounts || true") == "0\n").then_some(())
    });
    let said = fleet.stop();
    assert!(said.contains("3 ranks stopped, 1 dead ones cleaned up"), "{said}");
    fleet.assert_clean(0..4, CLEAN_BOUND);

    fleet.launch(&[]);
    run(&mut fleet.cluster.command(&["kill", "node2"]), BOUND).success();
    let since = Instant::now();
    let ended: Ended = fleet.try_stop();
    assert!(since.elapsed() < CLEAN_BOUND, "{:?}", since.elapsed());
    let line = complaint(&ended, 1);
    assert!(line.contains("rank 2 on node2"), "{line}");
    assert!(ended.stdout().contains("3 ranks stopped"), "{}", ended.stdout());
    fleet.assert_clean([0, 1, 3], CLEAN_BOUND);
}

#[test]
fn what_happened_last_is_collected_from_all_hosts_and_those_that_are_silent_are_named() {
    if !takes_root() {
        return;
    }
    let scratch = Scratch::new();
    let tree = Tree::new(&scratch);
    let file = tree.file("file", 5_000);
    let fleet = Fleet::up(&scratch, 4, &[]);
    fleet.launch(&[]);
    (0..4).for_each(|host| fleet.assert_shows(host, &file));
    let collect = |host: u32, name: &str| {
        let archive = scratch.join(name);
        let words = ["collect", "-v", VIEW, "-o", archive.to_str().expect("UTF-8")];
        let ended = run(&mut fleet.copper(host, &words), BOUND);
        let listed = run(Command::new("tar").arg("-tzf").arg(&archive), BOUND).success();
        let flights =
            listed.lines().filter(|it| it.starts_with("flight/") && it.ends_with(".jsonl"));
        let hosts: BTreeSet<String> = flights
            .map(|it| it["flight/".len()..].split('-').next().expect("one").to_owned())
            .collect();
        (ended, hosts.into_iter().collect::<Vec<_>>().join(" "))
    };
    // One that has not launched it asks its own ranks alone.
    let (ended, hosts) = collect(1, "one.tar.gz");
    assert!(ended.stderr().contains("only the ranks of this machine were asked"), "{ended:?}");
    assert_eq!((ended.status.code(), hosts.as_str()), (Some(0), "node1"));
    let (ended, hosts) = collect(0, "all.tar.gz");
    assert_eq!((ended.stderr().as_str(), hosts.as_str()), ("", "node0 node1 node2 node3"));
    run(&mut fleet.cluster.command(&["kill", "node2"]), BOUND).success();
    let (ended, _) = collect(0, "three.tar.gz");
    assert!(ended.stderr().contains("not asked: rank 2 on node2"), "{}", ended.stderr());
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    let stopped = fleet.try_stop();
    assert!(stopped.stdout().contains("3 ranks stopped"), "{stopped:?}");
}

#[test]
fn the_secret_is_on_no_command_line_in_no_environment_and_in_no_file() {
    if !takes_root() {
        return;
    }
    let scratch = Scratch::new();
    let fleet = Fleet::up(&scratch, 3, &[]);
    fleet.replace_program(&scratch, 2, "exec cat >/dev/null");
    let head = fleet.start_head(&["-l", "trace"]);
    // In the middle of the launch, when everybody is there. A daemon has it in memory alone, to which
    // its standard input leads.
    let pids = [fleet.daemon(0), fleet.daemon(1)];
    let orders = eventually(BOUND, "the orders", || {
        let orders = fleet.on(1, &format!("cat /proc/{}/fd/0", pids[1]));
        (!orders.is_empty()).then_some(orders)
    });
    let orders: serde_json::Value = serde_json::from_str(&orders).expect("JSON");
    let secret = orders["secret"].as_str().expect("a text");
    assert_eq!(secret.len(), 64);
    for host in 0..3 {
        let holders = fleet.holders(host, secret);
        assert_eq!(holders, [""; 0], "on node{host}");
    }
    fleet.kill_head(head);
    fleet.assert_clean(0..3, CLEAN_BOUND);
    let mut logs: Vec<PathBuf> = vec![fleet.logs().to_owned()];
    let mut bytes = 0;
    while let Some(path) = logs.pop() {
        if path.is_dir() {
            logs.extend(fs::read_dir(&path).expect("ours").flatten().map(|entry| entry.path()));
        } else {
            let text = fs::read_to_string(&path).unwrap_or_default();
            bytes += text.len();
            assert!(!text.contains(secret), "{}", path.display());
        }
    }
    assert!(bytes > 1000, "there are logs");
}
