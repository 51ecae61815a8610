use std::fs;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use copper_engine::Question;
use copper_fuse::{Feature, KernelFeatures, SessionEnd, Unmounted};
use copper_proto::Errno;

use crate::stage::{Process, Stage, is_mounted, until};
use crate::tree::{ROOT, Tree};
use crate::view::{How, TestView};

const SHORT: Duration = Duration::from_millis(400);

fn tree() -> Tree {
    let mut tree = Tree::new();
    tree.file(ROOT, "good", b"good");
    tree.file(ROOT, "stuck", b"stuck");
    tree.file(ROOT, "late", b"late");
    tree
}

fn stick(view: &TestView, names: &'static [&'static [u8]]) {
    view.choose(move |question| match question {
        Question::Lookup { name, .. } if names.contains(&&**name) => How::Never,
        _ => How::Now,
    });
}

/// A client of its own, since one that waits for ever would take the test with it.
fn stat(stage: &Stage, name: &str) -> Process {
    let mut command = Command::new("stat");
    command.arg(stage.path(name)).stdout(Stdio::null()).stderr(Stdio::null());
    Process::start(&mut command)
}

#[test]
fn a_request_without_an_answer_ends_at_its_deadline_and_holds_up_nobody_else() {
    let stage = Stage::with(tree(), SHORT, |_| {});
    stick(&stage.view, &[b"stuck"]);
    let began = Instant::now();
    let mut client = stat(&stage, "stuck");
    until("the question", || stage.view.unanswered() == 1);
    assert_eq!(fs::read(stage.path("good")).expect("read"), b"good");
    assert!(!client.end().success());
    assert!(began.elapsed() >= SHORT, "not before its deadline");
    let counters = stage.mounted.counters();
    assert_eq!((counters.expired, counters.errors), (1, 1));
    // What was not answered is not taken for absent.
    let error = fs::metadata(stage.path("stuck")).expect_err("again no answer");
    assert_eq!(error.raw_os_error(), Some(Errno::ETIMEDOUT.0));
    stage.view.choose(|_| How::Now);
    assert_eq!(fs::read(stage.path("stuck")).expect("read"), b"stuck");
}

#[test]
fn a_client_that_waits_can_be_killed_by_the_deadline() {
    let stage = Stage::with(tree(), SHORT, |_| {});
    stick(&stage.view, &[b"stuck"]);
    let mut client = stat(&stage, "stuck");
    until("the question", || stage.view.unanswered() == 1);
    client.kill();
    client.end();
    assert_eq!(fs::read(stage.path("good")).expect("read"), b"good");
}

#[test]
fn an_answer_after_the_deadline_gives_its_reference_back() {
    let stage = Stage::with(tree(), SHORT, |_| {});
    stick(&stage.view, &[b"late"]);
    assert!(fs::metadata(stage.path("late")).is_err());
    assert_eq!((stage.view.answer_late(), stage.view.references()), (1, 0));
    stage.view.choose(|_| How::Now);
    assert_eq!(fs::read(stage.path("late")).expect("read"), b"late");
    assert_eq!(stage.view.references(), 1);
}

#[test]
fn many_requests_wait_side_by_side() {
    let mut tree = Tree::new();
    for at in 0..40 {
        tree.file(ROOT, &format!("file-{at}"), b"x");
    }
    let stage = Stage::with(tree, Duration::from_secs(30), |settings| settings.threads = 2);
    stage.view.choose(|_| How::Never);
    let clients: Vec<Process> = (0..40).map(|at| stat(&stage, &format!("file-{at}"))).collect();
    until("all questions", || stage.view.unanswered() == 40);
    stage.view.choose(|_| How::Now);
    assert_eq!(stage.view.answer_late(), 40);
    for mut client in clients {
        assert!(client.end().success());
    }
    assert_eq!(stage.mounted.counters().expired, 0);
}

#[test]
fn unmounting_answers_whoever_waits() {
    let stage = Stage::new(tree());
    stick(&stage.view, &[b"stuck", b"late"]);
    let mut clients = [stat(&stage, "stuck"), stat(&stage, "late")];
    until("the questions", || stage.view.unanswered() == 2);
    assert!(clients.iter_mut().all(Process::is_running));
    let began = Instant::now();
    let (how, end) = stage.mounted.unmount().expect("unmounted");
    assert_eq!((how, end), (Unmounted::Lazy, SessionEnd::Joined));
    assert!(began.elapsed() < Duration::from_secs(10));
    for client in &mut clients {
        assert!(!client.end().success());
    }
    assert!(!is_mounted(stage.mounted.point()));
    assert_eq!(stage.mounted.counters().expired, 0);
}

/// The next number of a sequence (xorshift); a seed makes a test's choices repeatable.
fn next(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

#[test]
fn many_readers_get_the_right_bytes_whoever_answers_and_nothing_is_left_over() {
    const FILES: u64 = 40;
    let content = |file: u64| -> Vec<u8> {
        (0..file * 9973).map(|at| (at * (file + 1) % 253) as u8).collect()
    };
    let mut tree = Tree::new();
    let directory = tree.directory(ROOT, "directory");
    for file in 0..FILES {
        tree.file(directory, &format!("{file}"), &content(file));
    }
    // Without what the kernel keeps every round comes to the view.
    let stage = Stage::with(tree, Duration::from_secs(30), |settings| {
        settings.features = KernelFeatures::none().with(Feature::ParallelDirops);
    });
    *stage.view.piece_bytes.lock().expect("lock") = 10_000;
    let turn = AtomicU64::new(0);
    stage.view.choose(move |_| match turn.fetch_add(1, Ordering::Relaxed) % 3 {
        0 => How::Now,
        _ => How::Later,
    });
    thread::scope(|scope| {
        for seed in 1..=8u64 {
            let stage = &stage;
            scope.spawn(move || {
                let mut state = seed;
                for round in 0..60 {
                    let file = next(&mut state) % (FILES + 4);
                    let read = fs::read(stage.path(&format!("directory/{file}")));
                    match read {
                        Ok(bytes) => assert!(bytes == content(file), "seed {seed}, round {round}"),
                        Err(error) => assert!(file >= FILES, "seed {seed}, {round}: {error}"),
                    }
                    if round % 16 == 0 {
                        let listed = fs::read_dir(stage.path("directory")).expect("listed");
                        assert_eq!(listed.count() as u64, FILES, "seed {seed}, round {round}");
                    }
                }
            });
        }
    });
    let counters = stage.mounted.counters();
    assert!(counters.asked > 400 && counters.inline > 200, "{counters:?}");
    assert_eq!((counters.expired, counters.errors), (0, 0));
    assert_eq!(stage.view.waiting(), 0);
}
