use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use copper_fuse::mount_point::{
    Prepared, prepare, remove_created, unmount_any_copper, unmount_dead,
};
use copper_fuse::{MountPointError, Mounted, Pending, Settings, Unmounted};

use rustix::process::Signal;

use crate::guarding::daemon;
use crate::stage::{Process, Scratch, Stage, is_mounted, untested};
use crate::tree::{ROOT, Tree};
use crate::view::TestView;

fn tree() -> Tree {
    let mut tree = Tree::new();
    tree.file(ROOT, "file", b"content");
    tree
}

fn one_line(error: &MountPointError) -> String {
    let text = error.to_string();
    assert!(!text.contains('\n') && text.len() > 20, "{text}");
    text
}

#[test]
fn a_missing_directory_is_created_and_only_that_is_removed() {
    let scratch = Scratch::new();
    let point = scratch.join("a/b/c");
    let prepared = prepare(&point).expect("created");
    let created = ["a", "a/b", "a/b/c"].map(|name| scratch.join(name)).to_vec();
    assert_eq!(prepared, Prepared { point: point.clone(), created, recovered: false });
    fs::write(scratch.join("a/mine"), b"precious").expect("written");
    remove_created(&prepared.created);
    assert!(!scratch.join("a/b").exists());
    assert_eq!(fs::read(scratch.join("a/mine")).expect("kept"), b"precious");
}

#[test]
fn an_empty_directory_is_used_as_it_is() {
    let scratch = Scratch::new();
    let point = scratch.join("empty");
    fs::create_dir(&point).expect("created");
    symlink("empty", scratch.join("link")).expect("linked");
    for way in ["empty", "empty/", "empty/.", "./empty", "link", "../empty"] {
        let way = if way.starts_with("../") { point.join(way) } else { scratch.join(way) };
        let prepared = prepare(&way).expect("empty");
        let wanted = Prepared { point: point.clone(), created: Vec::new(), recovered: false };
        assert_eq!(prepared, wanted, "{}", way.display());
    }
}

#[test]
fn what_is_no_empty_directory_is_refused_and_left_as_it_was() {
    let scratch = Scratch::new();
    fs::write(scratch.join("file"), b"precious").expect("written");
    fs::create_dir(scratch.join("full")).expect("created");
    fs::write(scratch.join("full/data"), b"precious").expect("written");
    symlink("nowhere", scratch.join("dangling")).expect("linked");

    let error = prepare(&scratch.join("file")).expect_err("a file");
    assert!(matches!(error, MountPointError::NotADirectory(_)), "{error}");
    let error = prepare(&scratch.join("file/below")).expect_err("below a file");
    assert!(matches!(error, MountPointError::NotADirectory(_)), "{error:?}");
    let error = prepare(&scratch.join("full")).expect_err("not empty");
    assert!(matches!(error, MountPointError::NotEmpty(_)), "{error}");
    assert!(one_line(&error).contains("not empty"));
    assert!(prepare(&scratch.join("dangling")).is_err());
    assert_eq!(fs::read(scratch.join("full/data")).expect("kept"), b"precious");
    assert_eq!(fs::read(scratch.join("file")).expect("kept"), b"precious");
}

#[test]
fn a_live_view_is_named_and_left_alone() {
    let stage = Stage::new(tree());
    let error = prepare(stage.mounted.point()).expect_err("busy");
    let pid = format!("copper@{}.", std::process::id());
    assert!(one_line(&error).contains(&pid), "{error}");
    assert!(matches!(&error, MountPointError::Busy { id, .. } if id == stage.mounted.id()));
    assert_eq!(fs::read(stage.path("file")).expect("read"), b"content");
}

#[test]
fn a_mount_of_something_else_is_named_and_left_alone() {
    if !rustix::process::geteuid().is_root() {
        untested("not root: nothing else can be mounted, nothing tested");
        return;
    }
    let scratch = Scratch::new();
    let point = scratch.join("other");
    fs::create_dir(&point).expect("created");
    let mut command = Command::new("mount");
    assert!(command.args(["-t", "tmpfs", "tmpfs"]).arg(&point).status().expect("runs").success());
    let result = prepare(&point);
    let unmounted = rustix::mount::unmount(&point, rustix::mount::UnmountFlags::empty());
    unmounted.expect("unmounted");
    let error = result.expect_err("a mount");
    assert!(matches!(&error, MountPointError::Foreign { kind, .. } if kind == "tmpfs"));
    assert!(one_line(&error).contains("tmpfs"));
}

#[test]
fn the_dead_mount_of_a_killed_daemon_is_removed_and_the_place_used_again() {
    let scratch = Scratch::new();
    let point = scratch.join("mnt");
    let mut first = daemon(&point);
    let mut inside = Command::new("sleep");
    let _inside = Process::start(inside.arg("60").current_dir(point.join("directory")));
    first.kill();
    first.end();
    let error = fs::metadata(point.join("never seen")).expect_err("dead");
    assert_eq!(error.kind(), io::ErrorKind::NotConnected);
    assert!(fs::metadata(&point).is_ok(), "which the kernel hides by what it keeps");
    assert!(is_mounted(&point));

    let place = point.clone();
    let stage = Stage::with(tree(), Duration::from_secs(30), |settings| {
        settings.mount_point = place;
    });
    assert!(stage.mounted.recovered());
    assert!(stage.mounted.created().is_empty(), "the directory was there before");
    assert_eq!(fs::read(point.join("file")).expect("read"), b"content");
}

#[test]
fn a_dead_mount_is_removed_for_a_stop_as_well() {
    let scratch = Scratch::new();
    let point = scratch.join("mnt");
    let mut first = daemon(&point);
    assert_eq!(unmount_dead(&point).expect("alive"), Unmounted::Gone);
    first.kill();
    first.end();
    assert_eq!(unmount_dead(&point).expect("dead"), Unmounted::Lazy);
    assert!(!is_mounted(&point));
    assert_eq!(unmount_dead(&point).expect("again"), Unmounted::Gone);
}

#[test]
fn a_daemon_that_is_stuck_holds_up_nobody_for_long_and_can_be_unmounted() {
    let scratch = Scratch::new();
    let point = scratch.join("mnt");
    let daemon = daemon(&point);
    daemon.stop();
    let error = prepare(&point).expect_err("stuck");
    assert!(matches!(error, MountPointError::Stuck { .. }), "{error}");
    assert!(one_line(&error).contains("does not answer"));
    assert_eq!(unmount_dead(&point).expect("not dead"), Unmounted::Gone);
    assert!(is_mounted(&point));
    let how = unmount_any_copper(&point).expect("unmounted");
    assert_eq!(how, Unmounted::Lazy, "the questions are still in it");
    assert!(!is_mounted(&point));
    daemon.signal(Signal::CONT);
}

/// An ordinary user of every Linux system.
const NOBODY: u32 = 65_534;

/// Where a helper that runs as [`NOBODY`] works; in the ordinary run of the tests nobody sets it.
const PLACE: &str = "COPPER_FUSE_TEST_ORDINARY_USER";

/// Runs a test of this binary as an ordinary user. `None` if there is no way to.
fn as_nobody(test: &str, place: &Path) -> Option<std::process::Output> {
    if !rustix::process::geteuid().is_root() {
        untested("not root: nothing can be done as another user");
        return None;
    }
    let this = std::env::current_exe().expect("a path");
    let mut reachable = Command::new("test");
    reachable.arg("-x").arg(&this).uid(NOBODY).gid(NOBODY);
    if !reachable.status().is_ok_and(|status| status.success()) {
        untested("an ordinary user cannot reach this binary");
        return None;
    }
    let mut command = Command::new(this);
    command.args(["--exact", test, "--nocapture"]).env(PLACE, place).stdin(Stdio::null());
    Some(command.uid(NOBODY).gid(NOBODY).current_dir("/").output().expect("it runs"))
}

fn succeeded(output: &std::process::Output) {
    let said = [&output.stdout[..], &output.stderr[..]].concat();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&said));
}

#[test]
fn a_directory_of_somebody_else_is_refused_before_fusermount_does() {
    let scratch = Scratch::new();
    let point = scratch.join("roots");
    fs::create_dir(&point).expect("created");
    for mode in [0o755, 0o1777] {
        fs::set_permissions(&point, fs::Permissions::from_mode(mode)).expect("changed");
        let Some(output) = as_nobody("mount_points::helper_not_yours", &point) else { return };
        succeeded(&output);
    }
}

#[test]
fn helper_not_yours() {
    let Some(point) = std::env::var_os(PLACE) else { return };
    let error = prepare(Path::new(&point)).expect_err("not ours");
    assert!(matches!(error, MountPointError::NotYours(_)), "{error:?}");
    assert!(one_line(&error).contains("choose one of your own"));
}

#[test]
fn an_ordinary_user_mounts_and_unmounts() {
    let scratch = Scratch::new();
    let place = scratch.join("place");
    fs::create_dir(&place).expect("created");
    std::os::unix::fs::chown(&place, Some(NOBODY), Some(NOBODY)).expect("changed");
    let helper = "mount_points::helper_ordinary_user";
    let Some(output) = as_nobody(helper, &place) else { return };
    succeeded(&output);
    assert_eq!(fs::read_dir(&place).expect("listed").count(), 0, "nothing is left");
}

#[test]
fn helper_ordinary_user() {
    let Some(place) = std::env::var_os(PLACE) else { return };
    let point = Path::new(&place).join("mnt");
    let pending = Pending::new(Duration::from_secs(5));
    let view = TestView::start(tree(), Arc::clone(&pending));
    let mut settings = Settings::new(&point);
    let mounted = Mounted::start(view, pending, &settings);
    if fs::OpenOptions::new().read(true).write(true).open("/dev/fuse").is_err() {
        untested("users of this system may not mount");
        let text = mounted.expect_err("not allowed").to_string();
        assert!(text.contains("mode set to 0666") && !text.contains('\n'), "{text}");
        return assert!(!point.exists());
    }
    let mounted = mounted.expect("mounted");
    assert_eq!(fs::read(point.join("file")).expect("read"), b"content");
    // In use: only lazily.
    let file = fs::File::open(point.join("file")).expect("open");
    settings.join_bound = Duration::from_millis(100);
    let (how, _) = mounted.unmount().expect("unmounted");
    assert_eq!(how, Unmounted::Lazy);
    drop(file);
    assert!(!point.exists());

    let allowed = fs::read_to_string("/etc/fuse.conf").unwrap_or_default();
    if allowed.lines().any(|line| line.trim() == "user_allow_other") {
        return untested("this system lets users allow others");
    }
    settings.options.allow_other = true;
    let pending = Pending::new(Duration::from_secs(5));
    let view = TestView::start(tree(), Arc::clone(&pending));
    let error = Mounted::start(view, pending, &settings).expect_err("not allowed");
    let text = error.to_string();
    assert!(text.contains("user_allow_other") && text.contains("without --allow-other"), "{text}");
    assert!(!text.contains('\n') && !point.exists());
}
