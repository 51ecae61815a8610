//! Directories: large ones, names that are not there, names that come later, and the views' own.

#[path = "support/harness.rs"]
mod support;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use support::{
    Job, Options, Scratch, Status, Tree, User, eventually, is_root, run, say, shell, within,
};

/// For everything that is not to hang; a debug build looks 100,000 names up in 40 s.
const BOUND: Duration = Duration::from_secs(200);
const ENOENT: Option<i32> = Some(2);

/// Beyond the two seconds for which an absent name may be remembered.
const ABSENT_BOUND: Duration = Duration::from_secs(10);

/// The errno of `lstat`, if it fails.
fn errno_of(path: &Path) -> Option<i32> {
    let path = path.to_owned();
    within(BOUND, "lstat", move || match path.symlink_metadata() {
        Ok(_) => None,
        Err(error) => error.raw_os_error(),
    })
}

fn delta(before: &Status, after: &Status, rank: u32, name: &str) -> u64 {
    after.counter(rank, name) - before.counter(rank, name)
}

#[test]
fn a_directory_of_100_000_files_is_listed_right_and_a_missing_name_in_it_is_cheap() {
    const FILES: usize = 100_000;
    let scratch = Scratch::new();
    let tree = Tree::new(&scratch);
    let large = tree.directory("large");
    for index in 0..FILES {
        let file = File::create_new(large.join(format!("file-{index:06}"))).expect("it is ours");
        if index % 1000 == 7 {
            file.set_len(index as u64).expect("it is ours");
        }
    }
    let job = Job::launch(&scratch, 2);
    let shown = job.view(1, &large);
    assert_eq!(errno_of(&shown), None);

    let start = job.status();
    assert_eq!(errno_of(&shown.join("missing-1")), ENOENT);
    let first = job.status();
    assert!(delta(&start, &first, 0, "source.stats") <= 5);
    assert!(delta(&start, &first, 0, "source.listings") <= 1, "the proof that it is missing");
    assert_eq!(errno_of(&shown.join("missing-2")), ENOENT);
    let second = job.status();
    assert!(delta(&first, &second, 0, "source.stats") <= 5, "names are listed without attributes");
    assert!(delta(&first, &second, 0, "source.listings") <= 1);
    for index in 3..20 {
        assert_eq!(errno_of(&shown.join(format!("missing-{index}"))), ENOENT);
    }
    let third = job.status();
    for name in ["source.stats", "source.listings"] {
        assert_eq!(delta(&second, &third, 0, name), 0, "{name}: the snapshot answers");
    }
    assert_eq!(delta(&second, &third, 1, "fabric.messages_sent"), 0, "the snapshot is here");

    let list = |path: &Path, script: &str| {
        let mut command = shell(script, [path]);
        run(command.env("LC_ALL", "C").env("TZ", "UTC"), BOUND).success()
    };
    for rank in 0..job.ranks() {
        let shown = job.view(rank, &large);
        let count = list(&shown, r#"ls -f "$1" | wc -l"#);
        assert_eq!(count.trim(), (FILES + 2).to_string(), "with . and ..");
        let script = r#"ls -f "$1" | sha256sum"#;
        assert_eq!(list(&shown, script), list(&large, script), "the order is the source's");
    }
    let script = r#"cd "$1" && ls -l --time-style=full-iso | sha256sum"#;
    assert_eq!(list(&shown, script), list(&large, script), "ls -l shows the same");
    let count = list(&shown, r#"ls -l "$1" | wc -l"#);
    assert_eq!(count.trim(), (FILES + 1).to_string(), "with the line of the total");
    assert_eq!(job.status().counter(1, "fuse.expired"), 0);
}

#[test]
fn a_name_that_comes_later_into_a_directory_that_cannot_be_listed_is_seen_soon() {
    if !is_root() {
        say("skipped: it takes root to become another user");
        return;
    }
    use std::os::unix::fs::PermissionsExt;
    let scratch = Scratch::new();
    let tree = Tree::new(&scratch);
    let user = User::nobody(&scratch);
    let waiting = tree.directory("waiting");
    // The daemons are the user's: they may search the directory and not list it.
    fs::set_permissions(&waiting, fs::Permissions::from_mode(0o711)).expect("it is ours");
    let late = tree.path("waiting/late");
    let options = Options { user: user.clone(), ..Options::default() };
    let job = Job::launch_with(&scratch, 3, &options);
    let is_there = |rank: u32| {
        let mut command = user.command("sh");
        let script = r#"if test -e "$1"; then echo yes; else echo no; fi"#;
        let command = command.args(["-c", script, "sh"]).arg(job.view(rank, &late));
        run(command, BOUND).success().trim() == "yes"
    };
    for rank in [2, 0, 1] {
        assert!(!is_there(rank));
    }
    fs::write(&late, "here").expect("it is ours");
    for rank in [1, 2, 0] {
        eventually(ABSENT_BOUND, "the new file is seen", || is_there(rank).then_some(()));
    }
}

/// Beyond the time for which a name may be absent without a proof.
const LOOK: Duration = Duration::from_millis(2500);

#[test]
fn an_absent_name_costs_one_listing_and_stays_absent() {
    let scratch = Scratch::new();
    let tree = Tree::new(&scratch);
    tree.directory("waiting");
    let job = Job::launch(&scratch, 2);
    let late = tree.path("waiting/late");
    assert_eq!(errno_of(&job.view(1, &late)), ENOENT);
    let before = job.status();
    let started = Instant::now();
    eventually(2 * LOOK, "time goes by", || (started.elapsed() > LOOK).then_some(()));
    fs::write(&late, "too late for this job").expect("it is ours");
    assert_eq!(errno_of(&job.view(1, &late)), ENOENT, "the listing has proven it");
    assert_eq!(errno_of(&job.view(1, &tree.path("waiting/other"))), ENOENT);
    let after = job.status();
    for counter in ["source.listings", "source.stats"] {
        assert_eq!(after.counter(0, counter), before.counter(0, counter), "{counter}");
    }
    assert_eq!(after.counter(1, "fuse.asked"), before.counter(1, "fuse.asked"));
}

#[test]
fn an_error_is_not_remembered() {
    if !is_root() {
        say("skipped: it takes root to become another user");
        return;
    }
    use std::os::unix::fs::PermissionsExt;
    let scratch = Scratch::new();
    let tree = Tree::new(&scratch);
    let user = User::nobody(&scratch);
    let closed = tree.directory("closed");
    tree.file("closed/file", 1000);
    tree.file("closed/other", 1000);
    let mode = |mode: u32| {
        fs::set_permissions(&closed, fs::Permissions::from_mode(mode)).expect("it is ours");
    };
    let options = Options { user: user.clone(), ..Options::default() };
    let job = Job::launch_with(&scratch, 2, &options);
    for rank in [1, 0] {
        let shown = job.view(rank, &closed);
        let as_nobody = |script: &str| {
            let mut command = user.command("sh");
            run(command.env("LC_ALL", "C").args(["-c", script, "sh"]).arg(&shown), BOUND)
        };
        // The kernel has the directory's mode of now, which lets everybody in.
        as_nobody(r#"test -d "$1""#).success();
        mode(0o000);
        let refused = as_nobody(r#"cat "$1/file""#);
        let said = refused.stderr();
        if rank == 1 {
            assert!(said.contains("Permission denied"), "{said}");
        }
        mode(0o755);
        let read = as_nobody(r#"wc -c < "$1/file""#).success();
        assert_eq!(read.trim(), "1000", "the errno was of that moment");
        assert_eq!(as_nobody(r#"ls "$1""#).success(), "file\nother\n");
    }
}

#[test]
fn a_view_shows_no_view() {
    let scratch = Scratch::new();
    let tree = Tree::new(&scratch);
    tree.file("file", 10);
    let beside = scratch.join("views_data");
    fs::create_dir(&beside).expect("it is ours");
    fs::write(beside.join("file"), "seen").expect("it is ours");
    // With one thread each: whoever came back to himself would wait for ever.
    let options = Options::with(&["--fuse-threads", "1"]);
    let job = Job::launch_with(&scratch, 3, &options);
    let other = Job::launch_at(&scratch, &scratch.join("other"), 1, &options);
    for rank in 0..job.ranks() {
        let shown = job.view(rank, scratch.path());
        let find = |path: &Path| run(Command::new("find").arg(path), BOUND).success();
        assert_eq!(find(&shown.join("views")).lines().count(), 4, "three empty folders in one");
        assert_eq!(find(&shown.join("other")).lines().count(), 2, "an empty folder in one");
        assert!(find(&shown).lines().count() < 60, "the end is near");
        for index in 0..3 {
            let view = shown.join("views").join(index.to_string());
            assert!(view.is_dir() && errno_of(&view.join("tmp")) == ENOENT);
        }
        // Paths are compared by components: what only begins alike is shown.
        let read = within(BOUND, "reading", move || fs::read(shown.join("views_data/file")));
        assert_eq!(read.expect("it is there"), b"seen");
    }
    let shown = other.view(0, &scratch.join("views"));
    assert_eq!(run(Command::new("find").arg(shown), BOUND).success().lines().count(), 4);
}

#[test]
fn views_inside_each_other_answer_with_one_thread_each() {
    let scratch = Scratch::new();
    let tree = Tree::new(&scratch);
    let file = tree.file("file", 100_000);
    let expected = fs::read(&file).expect("it is ours");
    let options = Options::with(&["--fuse-threads", "1"]);
    let mut outer = Job::launch_with(&scratch, 2, &options);
    // The inner view's mount point lies in the outer view, as a folder of the source.
    fs::create_dir_all(scratch.join("inner/0")).expect("it is ours");
    let inner = outer.view(0, &scratch.join("inner"));
    let inner_launch = |command| run(command, BOUND).success();
    inner_launch(&mut support::job::launch_command(&scratch, &inner, 1, &options));
    let below = |view: &Path, path: &Path| view.join(path.strip_prefix("/").expect("absolute"));
    let inner_view = inner.join("0");
    let read = |path: PathBuf| within(BOUND, "reading", move || fs::read(path)).expect("readable");
    for _ in 0..2 {
        assert!(read(below(&inner_view, &file)) == expected);
        assert!(read(outer.view(1, &file)) == expected);
    }
    // Each shows an empty folder where the other, or it itself, is.
    let names = |path: PathBuf| run(Command::new("ls").arg(path), BOUND).success();
    for hidden in [outer.views[0].clone(), outer.views[1].clone(), scratch.join("inner/0")] {
        assert_eq!(names(below(&inner_view, &hidden)), "", "{}", hidden.display());
    }
    assert_eq!(names(outer.view(1, &outer.views[0])), "");
    let walked = run(Command::new("find").arg(below(&inner_view, scratch.path())), BOUND).success();
    assert!(walked.lines().count() < 60, "the end is near: {walked}");
    let mut stop = support::job::copper(&scratch);
    run(stop.arg("stop").arg("-v").arg(&inner), BOUND).success();
    outer.stop();
}
