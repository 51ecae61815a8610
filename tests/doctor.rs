//! `copper doctor`, on this machine as it is, and with faults planted in a mount or network namespace.

#[path = "support/harness.rs"]
mod support;

use std::fs;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use support::command::Ended;
use support::job::{COPPER, copper};
use support::{Job, Scratch, eventually, is_root, mounts, run};

const BOUND: Duration = Duration::from_secs(30);

/// The doctor's findings about one thing.
fn about<'a>(report: &'a Value, check: &str) -> Vec<&'a Value> {
    let findings = report["findings"].as_array().expect("a list");
    findings.iter().filter(|finding| finding["check"] == check).collect()
}

/// Its report, and whether it found that a launch may begin.
#[track_caller]
fn report(ended: &Ended) -> Value {
    let report: Value = serde_json::from_slice(&ended.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}{}", ended.stdout(), ended.stderr()));
    assert_eq!(report["ok"], ended.status.success(), "{report}");
    for finding in report["findings"].as_array().expect("a list") {
        let well = finding["verdict"] == "OK";
        assert_eq!(finding["do"].is_null(), well, "what to do about {finding}");
    }
    report
}

fn doctor(scratch: &Scratch) -> Command {
    let mut command = copper(scratch);
    command.args(["doctor", "--json", "-n", "tcp", "--memory", "64MiB"]);
    command.arg("-v").arg(scratch.join("view")).arg("-d").arg(scratch.join("logs"));
    command
}

#[test]
fn where_copper_works_everything_is_ok_and_nothing_is_left() {
    let scratch = Scratch::new();
    let report = report(&run(&mut doctor(&scratch), BOUND));
    for check in ["kernel", "FUSE device", "fusermount3", "FUSE mount", "mount point", "libfabric"]
    {
        assert_eq!(about(&report, check).len(), 1, "{check}: {report}");
    }
    for check in ["providers", "network", "limits", "memory", "log folder", "clock", "register"] {
        assert_eq!(about(&report, check).len(), 1, "{check}: {report}");
    }
    assert_eq!(report["ok"], true, "{report}");
    assert_eq!(mounts::below(scratch.path()).len(), 0);
    let left = fs::read_dir(scratch.path()).expect("it is ours").flatten();
    let left: Vec<_> = left.map(|entry| entry.file_name()).collect();
    assert_eq!(left, ["run"], "the register alone");

    let mut lines = copper(&scratch);
    lines.args(["doctor", "-n", "tcp", "--memory", "64MiB", "-d"]).arg(scratch.path());
    let printed = run(lines.arg("-v").arg(scratch.join("view")), BOUND).success();
    let verdict = |line: &str| line.starts_with("OK      ") || line.starts_with("warning ");
    assert!(printed.lines().count() > 10 && printed.lines().all(verdict), "{printed}");
}

/// A fault: what plants it in a mount namespace (`$D` is the test's folder), which check sees it, and
/// words of what is found and what is to be done.
const FAULTS: [(&str, &str, &str, &str); 9] = [
    ("touch $D/empty; mount --bind $D/empty /dev/fuse", "FUSE device", "is no device", "modprobe"),
    ("PATH=$D", "fusermount3", "no program fusermount3 in PATH", "install fuse3"),
    (
        "mkdir $D/logs; mount -t tmpfs -o size=64k none $D/logs; head -c 1M /dev/zero >$D/logs/x",
        "log folder",
        "No space left",
        "-d",
    ),
    ("mkdir $D/logs; mount -t tmpfs -o ro none $D/logs", "log folder", "Read-only", "-d"),
    ("mkdir $D/view; mount -t tmpfs none $D/view", "mount point", "something else mounted", "-v"),
    ("mkdir $D/view; touch $D/view/file", "mount point", "is not empty", "-v"),
    (
        // A daemon of another program that has died.
        "mkdir $D/view; exec 3<>/dev/fuse; o=fd=3,rootmode=40000,user_id=0,group_id=0; \
         mount -i -t fuse.other -o $o other $D/view; exec 3>&-",
        "mount point",
        "dead mount of another program",
        "fusermount3 -u -z",
    ),
    ("export FI_PROVIDER=nonsense", "network", "-n tcp", "-n"),
    (
        "mkdir $D/register; export COPPER_RUN_DIR=$D/register/no/where",
        "register",
        "register",
        "COPPER_RUN_DIR",
    ),
];

#[test]
fn each_planted_fault_is_named_with_what_to_do() {
    if !is_root() {
        return;
    }
    for (plant, check, found, advice) in FAULTS {
        let scratch = Scratch::new();
        let plain = doctor(&scratch);
        let script = format!("D={}; {plant}; exec \"$@\"", scratch.path().display());
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", &script, "sh", COPPER]).args(plain.get_args());
        command.env("COPPER_RUN_DIR", scratch.join("run"));
        let report = report(&run(&mut command, BOUND));
        let fails = |finding: &&&Value| finding["verdict"] == "FAIL";
        let about = about(&report, check);
        let failed = about.iter().find(fails).unwrap_or_else(|| panic!("{plant}: {report:#}"));
        let said = |key: &str, word: &str| failed[key].as_str().is_some_and(|it| it.contains(word));
        assert!(said("found", found) && said("do", advice), "{plant}: {failed}");
        assert_eq!(report["ok"], false);
    }
}

#[test]
fn views_at_the_mount_point_are_told_alive_from_dead() {
    let scratch = Scratch::new();
    let job = Job::launch(&scratch, 2);
    let look = || {
        let mut command = copper(&scratch);
        command.args(["doctor", "--json", "-n", "tcp", "--memory", "64MiB", "-v"]);
        report(&run(command.arg(&job.directory).arg("-d").arg(scratch.path()), BOUND))
    };
    let says = |report: &Value, word: &str| {
        let points = about(report, "mount point");
        points.iter().filter(|it| it["found"].as_str().is_some_and(|it| it.contains(word))).count()
    };
    let alive = look();
    assert_eq!(says(&alive, "is a view that is alive"), 2, "{alive:#}");
    job.kill_with_guardian(1);
    eventually(BOUND, "the dead view is seen", || {
        let report = look();
        let (alive, dead) = (says(&report, "alive"), says(&report, "whose daemon is gone"));
        (alive == 1 && dead == 1).then_some(())
    });
}

#[test]
fn hosts_that_are_unknown_silent_or_named_twice_are_named() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new();
    let hosts = scratch.join("hosts");
    let list = "127.0.0.1 # this one\n\n192.0.2.1\nnowhere.invalid\n127.0.0.1\n";
    fs::write(&hosts, list).expect("it is ours");
    // A network of its own: nothing but the loopback interface.
    let script = "ip link set lo up; exec \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["--net", "sh", "-c", script, "sh", COPPER]).args(doctor(&scratch).get_args());
    command.arg("--hosts").arg(&hosts).env("COPPER_RUN_DIR", scratch.join("run"));
    let report = report(&run(&mut command, BOUND));
    let twice = about(&report, "list of hosts")[0]["found"].to_string();
    assert!(twice.contains("127.0.0.1 (lines 1, 5)"), "{report:#}");
    let answers = about(&report, "hosts");
    let found = |verdict: &str, words: [&str; 2]| {
        answers.iter().any(|finding| {
            let text = finding["found"].as_str().unwrap_or_default();
            finding["verdict"] == verdict && words.iter().all(|word| text.contains(word))
        })
    };
    assert!(found("FAIL", ["have no address", "nowhere.invalid"]), "{report:#}");
    assert!(found("FAIL", ["do not answer", "192.0.2.1"]), "{report:#}");
    assert!(found("warning", ["nobody at port 22", "127.0.0.1"]), "{report:#}");
    assert_eq!(answers.len(), 3, "{report:#}");
    assert_eq!(about(&report, "own host").len(), 0, "127.0.0.1 is here: {report:#}");

    fs::write(&hosts, "two names\n").expect("it is ours");
    let report = report_of(&scratch, &hosts);
    let list = about(&report, "list of hosts");
    assert!(list.iter().any(|it| it["verdict"] == "FAIL"), "as a launch would: {report:#}");
}

#[track_caller]
fn report_of(scratch: &Scratch, hosts: &std::path::Path) -> Value {
    report(&run(doctor(scratch).arg("--hosts").arg(hosts), BOUND))
}
