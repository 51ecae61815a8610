//! Daemons that die. The daemon is this test binary again, as a process of its own.

use std::fs;
use std::io::{stdin, stdout};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use copper_fuse::{Guardian, GuardianEnd, Mounted, Pending, Settings, guardian};

use crate::stage::{Process, Scratch, is_mounted, until};
use crate::tree::{ROOT, Tree};
use crate::view::TestView;

/// Where a helper process mounts; in the ordinary run of the tests nobody sets it.
const DAEMON: &str = "COPPER_FUSE_TEST_DAEMON";
const GUARDED: &str = "COPPER_FUSE_TEST_GUARDED_DAEMON";

fn arguments(test: &str) -> [String; 4] {
    [String::from("--exact"), test.into(), "--nocapture".into(), "--test-threads=1".into()]
}

fn place(variable: &str) -> Option<PathBuf> {
    std::env::var_os(variable).map(PathBuf::from)
}

#[test]
fn helper_daemon() {
    let Some(point) = place(DAEMON) else { return };
    let _mounted = serve(&point);
    wait_for_death();
}

#[test]
fn helper_guarded_daemon() {
    let Some(point) = place(GUARDED) else { return };
    let this = std::env::current_exe().expect("a path");
    let guard = arguments("guarding::helper_guard");
    let mut guardian = Guardian::start(&this, guard, Stdio::null()).expect("a guardian");
    let mounted = serve(&point);
    guardian.arm(mounted.point(), mounted.id()).expect("it listens");
    // Tells the test which process to watch.
    let id = point.with_extension("guardian");
    fs::write(&id, guardian.id().expect("armed").to_string()).expect("written");
    if point.with_extension("orderly").exists() {
        guardian.dismiss().expect("it listens");
        return drop(mounted);
    }
    wait_for_death();
}

#[test]
fn helper_guard() {
    if place(GUARDED).is_some() {
        let end = guardian::guard(stdin(), stdout()).expect("well-formed");
        assert!(matches!(end, GuardianEnd::Dismissed | GuardianEnd::Removed(Ok(_))));
    }
}

fn serve(point: &Path) -> Mounted {
    let mut tree = Tree::new();
    tree.file(ROOT, "file", b"content");
    tree.directory(ROOT, "directory");
    let pending = Pending::new(Duration::from_secs(5));
    let view = TestView::start(tree, Arc::clone(&pending));
    Mounted::start(view, pending, &Settings::new(point)).expect("mounted")
}

/// A helper is killed by its test; if the test died, it ends by itself.
fn wait_for_death() {
    thread::sleep(Duration::from_secs(60));
}

/// A daemon that serves a mount at this place.
pub(crate) fn daemon(point: &Path) -> Process {
    start("guarding::helper_daemon", DAEMON, point)
}

fn start(test: &str, variable: &str, point: &Path) -> Process {
    let daemon = Process::helper(test, (variable, point));
    until("the daemon's mount", || is_mounted(point) && point.join("file").exists());
    daemon
}

fn has_ended(id: &str) -> bool {
    // A process whose parent has died may stay as a zombie where nobody reaps it.
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with('Z'))
}

fn guardian_of(point: &Path) -> String {
    let file = point.with_extension("guardian");
    until("the guardian's id", || fs::read_to_string(&file).is_ok_and(|id| !id.is_empty()));
    fs::read_to_string(file).expect("just read")
}

#[test]
fn the_mount_of_a_killed_daemon_is_removed() {
    let scratch = Scratch::new();
    let point = scratch.join("mount point\nwith \\ everything");
    let mut daemon = start("guarding::helper_guarded_daemon", GUARDED, &point);
    let guardian = guardian_of(&point);
    assert!(!has_ended(&guardian));
    daemon.kill();
    daemon.end();
    until("the guardian removes the mount", || !is_mounted(&point));
    until("the guardian ends", || has_ended(&guardian));
    assert_eq!(fs::read_dir(&point).expect("an ordinary directory").count(), 0);
}

#[test]
fn the_mount_of_a_killed_daemon_is_removed_while_somebody_is_in_it() {
    let scratch = Scratch::new();
    let point = scratch.join("mnt");
    let mut daemon = start("guarding::helper_guarded_daemon", GUARDED, &point);
    let guardian = guardian_of(&point);
    let mut inside = Command::new("sleep");
    let _inside = Process::start(inside.arg("60").current_dir(point.join("directory")));
    daemon.kill();
    daemon.end();
    until("the guardian removes the mount", || !is_mounted(&point));
    until("the guardian ends", || has_ended(&guardian));
}

#[test]
fn a_daemon_that_stops_in_order_dismisses_its_guardian() {
    let scratch = Scratch::new();
    let point = scratch.join("mnt");
    fs::write(point.with_extension("orderly"), b"").expect("written");
    let mut daemon = Process::helper("guarding::helper_guarded_daemon", (GUARDED, &point));
    assert!(daemon.end().success());
    assert!(has_ended(&guardian_of(&point)));
    assert!(!is_mounted(&point) && !point.exists());
}

#[test]
fn the_guardian_holds_nothing_of_the_daemon() {
    let scratch = Scratch::new();
    let point = scratch.join("mnt");
    let _daemon = start("guarding::helper_guarded_daemon", GUARDED, &point);
    let id = guardian_of(&point);
    let descriptors = fs::read_dir(format!("/proc/{id}/fd")).expect("it runs");
    let targets: Vec<PathBuf> =
        descriptors.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok()).collect();
    assert!(targets.len() >= 3, "{targets:?}");
    assert!(!targets.iter().any(|target| target.ends_with("fuse")), "{targets:?}");
    let input = fs::read_link(format!("/proc/{id}/fd/0")).expect("it runs");
    assert!(input.to_string_lossy().starts_with("pipe:"), "{input:?}");
    let ends = targets.iter().filter(|target| **target == input);
    assert_eq!(ends.count(), 1, "its standard input, not the daemon's end: {targets:?}");
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).expect("it runs");
    let fields: Vec<&str> = stat.rsplit_once(") ").expect("a name").1.split(' ').collect();
    assert_eq!(fields[2..4], [&id[..], &id[..]], "a process group and a session of its own");
    let mut parent = fields[1].to_owned();
    while parent != "0" {
        assert_ne!(parent, std::process::id().to_string(), "a descendant of the daemon's starter");
        let stat = fs::read_to_string(format!("/proc/{parent}/stat")).expect("it lives");
        parent = stat
            .rsplit_once(") ")
            .and_then(|(_, rest)| rest.split(' ').nth(1))
            .expect("it has one")
            .to_owned();
    }
}

#[test]
fn a_guardian_that_has_ended_is_noticed() {
    let mut guardian =
        Guardian::start(Path::new("true"), [""; 0], Stdio::null()).expect("it starts");
    let device = copper_fuse::DeviceId { major: 0, minor: 1 };
    let mount = copper_fuse::MountId { device, source: "x".into() };
    let error = guardian.arm(Path::new("/a"), &mount).expect_err("nobody listens");
    assert!(error.to_string().contains("guardian has ended"), "{error}");
    let program = Path::new("/nowhere");
    let mut guardian = Guardian::start(program, [""; 0], Stdio::null()).expect("a shell starts");
    assert!(guardian.arm(Path::new("/a"), &mount).is_err());
}
