use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use copper_fuse::{SessionEnd, Unmounted, mount_point};

use crate::stage::{SOON, Stage, is_mounted};
use crate::tree::{ROOT, Tree};

const SHORT: Duration = Duration::from_millis(200);

fn tree() -> Tree {
    let mut tree = Tree::new();
    tree.file(ROOT, "file", &vec![1; 1 << 20]);
    tree
}

#[test]
fn unmounting_leaves_nothing_and_happens_once() {
    let stage = Stage::new(tree());
    let point = stage.mounted.point().to_owned();
    assert!(is_mounted(&point) && !stage.mounted.ended());
    assert_eq!(stage.mounted.created(), std::slice::from_ref(&point));
    let first = stage.mounted.unmount().expect("unmounted");
    assert_eq!(first, (Unmounted::Plain, SessionEnd::Joined));
    assert!(stage.mounted.ended() && !is_mounted(&point));
    assert!(!point.exists(), "what was created is removed");
    assert_eq!(stage.mounted.unmount().expect("again"), first);
}

#[test]
fn a_mount_point_that_was_there_before_stays() {
    let scratch = crate::stage::Scratch::new();
    let point = scratch.join("kept");
    fs::create_dir(&point).expect("created");
    let place = point.clone();
    let stage = Stage::with(tree(), SOON, |settings| settings.mount_point = place);
    assert!(stage.mounted.created().is_empty());
    drop(stage);
    assert!(point.is_dir() && !is_mounted(&point));
}

#[test]
fn a_busy_mount_is_unmounted_lazily_and_its_user_told_by_an_errno() {
    let stage = Stage::with(tree(), SOON, |settings| {
        settings.join_bound = SHORT;
        settings.connections = "/nowhere".into();
    });
    let file = File::open(stage.path("file")).expect("open");
    let (how, end) = stage.mounted.unmount().expect("unmounted");
    assert_eq!((how, end), (Unmounted::Lazy, SessionEnd::Left));
    assert!(!is_mounted(stage.mounted.point()) && !stage.mounted.ended());
    assert!(!stage.mounted.point().exists());
    drop(file);
    assert!(stage.mounted.wait(SOON), "it ends with its last user");
}

#[test]
fn a_busy_mount_is_aborted_where_that_is_permitted() {
    if !rustix::process::geteuid().is_root() {
        crate::stage::untested("not root: fusectl cannot be mounted, nothing tested");
        return;
    }
    let control = crate::stage::Scratch::new();
    let mut command = Command::new("mount");
    command.args(["-t", "fusectl", "fusectl"]).arg(control.path());
    assert!(command.status().expect("mount runs").success());
    let stage = Stage::with(tree(), SOON, |settings| {
        settings.join_bound = SHORT;
        settings.connections = control.path().to_owned();
    });
    let file = File::open(stage.path("file")).expect("open");
    let result = stage.mounted.unmount().expect("unmounted");
    let mut byte = [0];
    let read = file.read_at(&mut byte, 1 << 19);
    drop((file, stage));
    let mut command = Command::new("umount");
    assert!(command.arg(control.path()).status().expect("umount runs").success());
    assert_eq!(result, (Unmounted::Lazy, SessionEnd::Aborted));
    assert!(read.is_err(), "nobody answers any more");
}

#[test]
fn an_unmount_from_outside_ends_the_session_and_is_noticed() {
    let stage = Stage::new(tree());
    let point = stage.mounted.point().to_owned();
    let calls = Arc::new(AtomicUsize::new(0));
    let count = || {
        let calls = Arc::clone(&calls);
        move || {
            calls.fetch_add(1, Ordering::SeqCst);
        }
    };
    stage.mounted.on_end(count());
    assert!(!stage.mounted.wait(Duration::from_millis(1)));
    let mut command = Command::new("fusermount3");
    assert!(command.arg("-u").arg(&point).status().expect("it runs").success());
    assert!(stage.mounted.wait(SOON));
    stage.mounted.on_end(count());
    crate::stage::until("both calls", || calls.load(Ordering::SeqCst) == 2);
    let end = stage.mounted.unmount().expect("nothing to do");
    assert_eq!(end, (Unmounted::Gone, SessionEnd::Joined));
}

#[test]
fn somebody_elses_mount_in_our_place_is_left_alone() {
    let stage = Stage::new(tree());
    let point = stage.mounted.point().to_owned();
    let mut command = Command::new("fusermount3");
    assert!(command.arg("-u").arg(&point).status().expect("it runs").success());
    let place = point.clone();
    let other = Stage::with(tree(), SOON, |settings| settings.mount_point = place);
    let (how, _) = stage.mounted.unmount().expect("nothing to do");
    assert_eq!(how, Unmounted::Gone);
    let Stage { mounted, view: _view, scratch: _scratch } = stage;
    drop(mounted);
    assert!(is_mounted(&point));
    assert_eq!(fs::read(other.path("file")).expect("read").len(), 1 << 20);
    drop(other);
    assert!(!is_mounted(&point));
}

#[test]
fn a_daemon_that_does_not_stop_is_unmounted_by_hand() {
    let stage = Stage::new(tree());
    let point = stage.mounted.point();
    assert_eq!(mount_point::unmount_dead(point).expect("alive"), Unmounted::Gone);
    assert!(is_mounted(point));
    assert_eq!(mount_point::unmount_any_copper(point).expect("unmounted"), Unmounted::Plain);
    assert_eq!(mount_point::unmount_any_copper(point).expect("again"), Unmounted::Gone);
    assert!(stage.mounted.wait(SOON));
}
