//! Where views are mounted: what stands in the way, what is recovered, what is left: nothing.

#[path = "support/harness.rs"]
mod support;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use support::command::Ended;
use support::job::{copper, launch_command};
use support::process::daemons_about;
use support::{Job, Options, Running, Scratch, Tree, eventually, mounts, run, shell, within};

const BOUND: Duration = Duration::from_secs(60);
const ENOTCONN: Option<i32> = Some(107);

fn try_launch(scratch: &Scratch, directory: &Path, ranks: u32) -> Ended {
    run(&mut launch_command(scratch, directory, ranks, &Options::default()), BOUND)
}

/// Nothing runs and nothing is mounted.
#[track_caller]
fn assert_nothing_runs(scratch: &Scratch) {
    eventually(Duration::from_secs(10), "no daemon runs, nothing is mounted", || {
        let none = daemons_about(scratch.path()).is_empty();
        (none && mounts::below(scratch.path()).is_empty()).then_some(())
    });
    let run = fs::read_dir(scratch.join("run")).map(|entries| entries.flatten().count());
    assert_eq!(run.unwrap_or(0), 0, "the register is empty");
}

#[track_caller]
fn assert_reads(job: &Job, rank: u32, path: &Path) {
    let (shown, path) = (job.view(rank, path), path.to_owned());
    within(BOUND, "reading", move || {
        let read = fs::read(&shown).unwrap_or_else(|error| panic!("{}: {error}", shown.display()));
        assert!(read == fs::read(path).expect("it is ours"));
    });
}

#[test]
fn a_second_launch_on_the_same_mount_point_says_who_holds_it_and_disturbs_nobody() {
    let scratch = Scratch::new();
    let tree = Tree::new(&scratch);
    let files = [tree.file("one", 100_000), tree.file("two", 100_000)];
    let job = Job::launch(&scratch, 2);
    assert_reads(&job, 1, &files[0]);
    let line = try_launch(&scratch, &job.directory, 2).failure_line();
    let named = job.daemons.iter().any(|daemon| line.contains(&daemon.pid.to_string()));
    assert!(named && line.contains("views/"), "who holds what? {line}");
    let pids: Vec<u64> = (0..2).map(|rank| job.status().counter(rank, "pid")).collect();
    let expected: Vec<u64> = job.daemons.iter().map(|daemon| daemon.pid.into()).collect();
    assert_eq!(pids, expected);
    assert_eq!(daemons_about(&job.directory).len(), 2, "the second launch has left nobody");
    assert_reads(&job, 0, &files[1]);
    assert_reads(&job, 1, &files[1]);
}

#[test]
fn a_mount_point_that_cannot_be_one_is_refused_and_left_as_it_was() {
    let scratch = Scratch::new();
    let views = scratch.join("views");
    // One rank's mount point is a file: none of the ranks is left.
    fs::create_dir(&views).expect("it is ours");
    fs::write(views.join("1"), "mine").expect("it is ours");
    let line = try_launch(&scratch, &views, 3).failure_line();
    assert!(line.contains("views/1") && line.contains("not a directory"), "{line}");
    assert_nothing_runs(&scratch);
    assert_eq!(fs::read(views.join("1")).expect("it is still there"), b"mine");
    let left: Vec<_> = fs::read_dir(&views).expect("ours").flatten().map(|it| it.path()).collect();
    assert_eq!(left, [views.join("1")]);
    // It has something in it.
    fs::remove_file(views.join("1")).expect("it is ours");
    fs::create_dir(views.join("2")).expect("it is ours");
    fs::write(views.join("2/precious"), "mine").expect("it is ours");
    let line = try_launch(&scratch, &views, 3).failure_line();
    assert!(line.contains("views/2") && line.contains("not empty"), "{line}");
    assert_nothing_runs(&scratch);
    assert_eq!(fs::read(views.join("2/precious")).expect("it is still there"), b"mine");
    let left: Vec<_> = fs::read_dir(&views).expect("ours").flatten().map(|it| it.path()).collect();
    assert_eq!(left, [views.join("2")]);
    // The folder of the mount points is a file itself.
    let file = scratch.join("file");
    fs::write(&file, "mine").expect("it is ours");
    let line = try_launch(&scratch, &file, 2).failure_line();
    assert!(line.contains("file") && line.contains("not a directory"), "{line}");
    assert_nothing_runs(&scratch);
    assert_eq!(fs::read(&file).expect("it is still there"), b"mine");
}

#[test]
fn mount_points_that_were_missing_are_made_and_removed_again() {
    let scratch = Scratch::new();
    let tree = Tree::new(&scratch);
    let file = tree.file("file", 100);
    let directory = scratch.join("not/there/yet");
    let mut job = Job::launch_at(&scratch, &directory, 2, &Options::default());
    assert_reads(&job, 1, &file);
    let printed = job.stop();
    assert!(printed.contains("2 ranks stopped"), "{printed}");
    // A second stop finds nothing, which is what was wanted.
    let ended = run(&mut job.stop_command(), BOUND).success();
    assert!(ended.contains("nothing was running"), "{ended}");
    // And once more from the beginning.
    let job = Job::launch_at(&scratch, &directory, 2, &Options::default());
    assert_reads(&job, 1, &file);
}

#[test]
fn a_daemon_that_is_told_to_end_removes_what_it_has_made() {
    let scratch = Scratch::new();
    let job = Job::launch(&scratch, 2);
    for daemon in job.daemons.iter().rev() {
        daemon.signal(Signal::TERM);
    }
    for daemon in &job.daemons {
        assert!(daemon.wait(Duration::from_secs(10)), "it does not end");
    }
    assert_nothing_runs(&scratch);
    assert!(job.views.iter().all(|view| !view.exists()));
    assert!(job.guardians.iter().all(|guardian| guardian.wait(Duration::from_secs(5))));
    let ended = run(&mut job.stop_command(), BOUND).success();
    assert!(ended.contains("nothing was running"), "{ended}");
    job.abandon();
}

#[test]
fn the_dead_mounts_of_an_earlier_crash_are_recovered_by_a_launch_or_a_stop() {
    let scratch = Scratch::new();
    let tree = Tree::new(&scratch);
    let file = tree.file("file", 100_000);
    let crash = || {
        let job = Job::launch(&scratch, 2);
        (0..2).for_each(|rank| job.kill_with_guardian(rank));
        let view = job.views[0].clone();
        let errno = within(BOUND, "a dead mount", move || fs::read_dir(view).map(drop));
        assert_eq!(errno.expect_err("it is dead").raw_os_error(), ENOTCONN);
        assert_eq!(mounts::below(&job.directory).len(), 2);
        job
    };
    crash().abandon();
    let job = Job::launch(&scratch, 2);
    assert_eq!(mounts::below(&job.directory).len(), 2, "none is mounted over another");
    assert_reads(&job, 0, &file);
    assert_reads(&job, 1, &file);
    drop(job);
    let mut dead = crash();
    let printed = dead.stop();
    assert!(printed.contains("2 dead ones cleaned up"), "{printed}");
}

#[test]
fn a_launcher_that_is_killed_leaves_nothing_or_all_whenever_it_is_killed() {
    let scratch = Scratch::new();
    let views = scratch.join("views");
    // At its first daemon, at all of them, at the first mount.
    let mounted = |count: usize| mounts::below(&views).len() >= count;
    let moments: [(&str, &dyn Fn() -> bool); 7] = [
        ("the launcher runs", &|| !daemons_about(&views).is_empty()),
        ("a daemon runs", &|| daemons_about(&views).len() > 1),
        ("all daemons run", &|| daemons_about(&views).len() > 4),
        ("a view is mounted", &|| mounted(1)),
        ("two views are mounted", &|| mounted(2)),
        ("a view is mounted, again", &|| mounted(1)),
        ("three views are mounted", &|| mounted(3)),
    ];
    for (what, is_now) in moments {
        let command = &mut launch_command(&scratch, &views, 4, &Options::default());
        let launcher = Running::start(command);
        eventually(BOUND, what, || (is_now() || !launcher.process.is_alive()).then_some(()));
        launcher.process.signal(Signal::KILL);
        launcher.finish(BOUND);
        // It may have been complete, whether or not its launcher lived to say so. Who ends may
        // still look ready: so two looks, with time to end in between.
        let nothing = || daemons_about(&views).is_empty() && mounts::below(&views).is_empty();
        let whole = eventually(Duration::from_secs(15), "nothing is left, or all of it", || {
            if nothing() {
                return Some(false);
            }
            let ready = || ready_ranks(&scratch, &views) == 4;
            let was_ready = ready();
            thread::sleep(Duration::from_secs(1));
            (was_ready && ready()).then_some(true)
        });
        if whole {
            let mut stop = copper(&scratch);
            run(stop.arg("stop").arg("-v").arg(&views), BOUND).success();
            assert!(nothing(), "killed when {what}: a stop leaves something");
        }
        eventually(Duration::from_secs(5), "no mount point is left", || {
            (0..4).all(|rank| !views.join(rank.to_string()).exists()).then_some(())
        });
        // The launcher's own files are in nobody's way, but no daemon is left written down.
        let run = fs::read_dir(scratch.join("run"));
        let records: Vec<_> = run
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
            .map(|path| fs::read_to_string(path).unwrap_or_default())
            .collect();
        assert!(records.is_empty(), "killed when {what}: left in the register: {records:?}");
        drop(Job::launch(&scratch, 1));
    }
}

fn ready_ranks(scratch: &Scratch, views: &Path) -> usize {
    let ended = run(copper(scratch).args(["status", "--json", "-v"]).arg(views), BOUND);
    let status: serde_json::Value = serde_json::from_slice(&ended.stdout).unwrap_or_default();
    let ranks = status["ranks"].as_array().into_iter().flatten();
    ranks.filter(|rank| rank["state"] == "ready").count()
}

#[test]
fn a_stop_does_not_wait_for_those_who_sit_in_a_view() {
    let scratch = Scratch::new();
    let tree = Tree::new(&scratch);
    let file = tree.file("file", 100_000);
    tree.directory("folder");
    let mut job = Job::launch(&scratch, 2);
    let script = r#"cd "$1" && exec 3< "$2" && echo sits > "$3" && exec sleep 1000"#;
    let sits = scratch.join("sits");
    let (folder, shown) = (job.view(1, &tree.path("folder")), job.view(1, &file));
    let sitter = Running::start(&mut shell(script, [&folder, &shown, &sits]));
    eventually(BOUND, "it sits in the view", || sits.exists().then_some(()));
    let started = Instant::now();
    job.stop();
    let took = started.elapsed();
    assert!(took < Duration::from_secs(5), "the stop took {took:?}");
    assert!(sitter.process.is_alive(), "who sits there is none of our business");
}

#[test]
fn a_stop_touches_nothing_but_its_own_launch() {
    let scratch = Scratch::new();
    let tree = Tree::new(&scratch);
    let file = tree.file("file", 100_000);
    let mut one = Job::launch(&scratch, 1);
    let other = Job::launch_at(&scratch, &scratch.join("views2"), 1, &Options::default());
    one.stop();
    assert_reads(&other, 0, &file);
    assert_eq!(other.status().rank(0)["state"], "ready");
}

#[test]
fn an_unmount_from_outside_ends_the_daemon() {
    let scratch = Scratch::new();
    let mut job = Job::launch(&scratch, 2);
    let before = scratch.path().metadata().expect("it is ours").dev();
    run(Command::new("fusermount3").args(["-u", "--"]).arg(&job.views[1]), BOUND).success();
    assert!(job.daemons[1].wait(Duration::from_secs(10)), "a daemon without a mount goes on");
    assert_eq!(scratch.path().metadata().expect("it is ours").dev(), before);
    assert_eq!(job.status().ranks().len(), 1, "it has taken its leave");
    job.stop();
}

#[test]
fn a_mount_point_that_was_there_before_is_there_afterwards() {
    let scratch = Scratch::new();
    let views = scratch.join("views");
    (0..2).for_each(|rank| {
        fs::create_dir_all(views.join(rank.to_string())).expect("it is ours");
    });
    let job = Job::launch(&scratch, 2);
    run(&mut job.stop_command(), BOUND).success();
    assert_nothing_runs(&scratch);
    job.abandon();
    for rank in 0..2 {
        assert!(views.join(rank.to_string()).is_dir(), "{rank} was not made by the launch");
    }
}

#[test]
fn a_daemon_that_does_not_answer_is_shown_as_silent_and_is_stopped_all_the_same() {
    let scratch = Scratch::new();
    let mut job = Job::launch(&scratch, 2);
    job.daemons[1].signal(Signal::STOP);
    let status = job.status();
    assert_eq!(status.rank(1)["state"], "silent");
    assert_eq!(status.rank(0)["rank"], 0);
    let started = Instant::now();
    run(&mut job.stop_command(), BOUND).success();
    let took = started.elapsed();
    assert!(took < Duration::from_secs(10), "the stop took {took:?}");
    job.assert_nothing_left();
    job.stop();
}

#[test]
fn of_two_launches_at_once_on_the_same_mount_point_at_most_one_succeeds_and_is_whole() {
    let scratch = Scratch::new();
    let tree = Tree::new(&scratch);
    let file = tree.file("file", 100_000);
    let views = scratch.join("views");
    for _ in 0..3 {
        let start =
            || Running::start(&mut launch_command(&scratch, &views, 2, &Options::default()));
        let launches = [start(), start()];
        let ended = launches.map(|launch| launch.finish(BOUND));
        let good = ended.iter().filter(|ended| ended.status.success()).count();
        for failed in ended.iter().filter(|ended| !ended.status.success()) {
            failed.failure_line();
        }
        assert!(good <= 1, "{ended:?}");
        eventually(BOUND, "the loser is gone", || {
            (daemons_about(&views).len() == 2 * good).then_some(())
        });
        assert_eq!(mounts::below(&views).len(), 2 * good);
        for rank in 0..2 * good {
            let shown =
                views.join(rank.to_string()).join(file.strip_prefix("/").expect("absolute"));
            let read = within(BOUND, "reading", move || fs::read(shown)).expect("it is there");
            assert!(read == fs::read(&file).expect("it is ours"));
        }
        let mut stop = copper(&scratch);
        run(stop.arg("stop").arg("-v").arg(&views), BOUND).success();
        assert_nothing_runs(&scratch);
    }
}

#[test]
fn a_stop_that_does_not_know_the_daemon_does_not_say_that_it_has_cleaned_up() {
    let scratch = Scratch::new();
    let tree = Tree::new(&scratch);
    let file = tree.file("file", 100_000);
    let job = Job::launch(&scratch, 1);
    // Somebody with another register: what they see is a mount that is alive.
    let mut stop = job.stop_command();
    let ended = run(stop.env("COPPER_RUN_DIR", scratch.join("another-run")), BOUND);
    assert_reads(&job, 0, &file);
    let printed = ended.stdout();
    assert!(!printed.contains("cleaned up"), "nothing was: {printed}");
}
