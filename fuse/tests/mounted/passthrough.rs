//! Files that the kernel reads by itself. Where it cannot do that, or this user may not have it, all
//! that is tested is that it says so and that files are right all the same.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;

use copper_engine::Question;
use copper_fuse::passthrough::PASSED_BYTES_MAX;
use copper_fuse::{
    Feature, Mounted, Passthrough, PassthroughBounds, Pending, Refusal, SessionEnd, Settings,
    Unmounted,
};
use copper_proto::Errno;
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use rustix::thread::{CapabilitySet, capabilities, set_capabilities};

use crate::stage::{Process, SOON, Stage, is_mounted, untested, until};
use crate::tree::{ROOT, Tree};
use crate::view::{How, TestView};

const BOUNDS: PassthroughBounds =
    PassthroughBounds { held_bytes: 64 << 20, idle_bytes: 64 << 20, total_bytes: 1 << 30 };

/// The errno of a read whose content the engine cannot get.
const ERRNO: Errno = Errno::ESTALE;

fn bytes(len: usize, seed: usize) -> Vec<u8> {
    (0..len).map(|at| (at * 31 + at / 251 + at / 4096 + seed * 7) as u8).collect()
}

/// Files of these names and sizes.
fn tree(files: &[(&str, usize)]) -> Tree {
    let mut tree = Tree::new();
    for &(name, len) in files {
        tree.file(ROOT, name, &bytes(len, len));
    }
    tree
}

fn stage(tree: Tree) -> Stage {
    with(tree, BOUNDS)
}

fn with(tree: Tree, bounds: PassthroughBounds) -> Stage {
    Stage::with(tree, SOON, |settings| settings.passthrough = Some(bounds))
}

fn open(stage: &Stage, name: &str) -> File {
    File::open(stage.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Reads and checks a file that somebody has open.
#[track_caller]
fn check(file: &File, len: usize) {
    let mut all = vec![0; len + 1];
    let got =
        file.read_at(&mut all[..len], 0).unwrap_or_else(|error| panic!("{len} bytes: {error}"));
    let rest = file.read_at(&mut all[got..], got as u64).expect("read");
    assert!(got + rest == len && all[..len] == bytes(len, len), "{got} + {rest} of {len} bytes");
}

/// Opens, reads and closes a file, and waits until the close is known.
#[track_caller]
fn use_once(stage: &Stage, name: &str, len: usize) {
    check(&open(stage, name), len);
    // Else the kernel opens and closes alone.
    if is_on(&stage.mounted) {
        until("the last close", || {
            let counters = stage.mounted.counters();
            counters.open == counters.release
        });
    }
}

/// Whether files are handed over here; else why not has to be true.
#[track_caller]
fn is_on(mounted: &Mounted) -> bool {
    match mounted.passthrough() {
        Passthrough::On => true,
        Passthrough::NotAsked => panic!("it was asked for"),
        Passthrough::Off(refusal) => {
            let flags = capabilities(None).expect("of this thread").effective;
            assert_eq!(refusal == Refusal::Rights, !flags.contains(CapabilitySet::SYS_ADMIN));
            assert_eq!(mounted.counters().backings, 0);
            untested(&format!("nothing is handed over: {refusal}"));
            false
        }
    }
}

/// Backing files made, and opens that got one.
fn made_and_passed(stage: &Stage) -> (u64, u64) {
    let counters = stage.mounted.counters();
    assert_eq!(counters.backings_failed, 0);
    (counters.backings, counters.passthrough)
}

#[test]
fn a_file_that_is_open_is_read_without_the_daemon_and_its_bytes_are_right() {
    let sizes = [1, 4095, 4096, 4097, 1 << 20, (3 << 20) + 5, PASSED_BYTES_MAX as usize];
    let names = sizes.map(|size| size.to_string());
    let files: Vec<(&str, usize)> = names.iter().map(String::as_str).zip(sizes).collect();
    for how in [How::Now, How::Later] {
        let stage = stage(tree(&files));
        *stage.view.piece_bytes.lock().expect("lock") = 1 << 20;
        let choose = move |question: &Question| match question {
            Question::Read { .. } => how,
            _ => How::Now,
        };
        stage.view.choose(choose);
        for &(name, len) in &files {
            let mut file = open(&stage, name);
            // Whoever has it open depends on nobody.
            stage.view.choose(|_| How::Fail(ERRNO));
            if is_on(&stage.mounted) {
                check(&file, len);
                let mut all = Vec::new();
                file.read_to_end(&mut all).expect("read");
                assert!(all == bytes(len, len), "{name}");
                let mut end = [0; 10];
                let at = len.saturating_sub(3);
                let got = file.read_at(&mut end, at as u64).expect("read");
                assert_eq!(end[..got], bytes(len, len)[at..]);
            }
            stage.view.choose(choose);
            check(&file, len);
        }
        let counters = stage.mounted.counters();
        if is_on(&stage.mounted) {
            assert_eq!((counters.read, counters.backings_failed), (0, 0));
            assert_eq!((counters.backings, counters.passthrough), (7, 7));
            assert_eq!(counters.backing_bytes, sizes.iter().sum::<usize>() as u64);
        }
    }
}

#[test]
fn programs_run_from_their_backing_files_and_other_programs_map_them() {
    let program = fs::read("/bin/true").expect("every system has it");
    let mut tree = tree(&[("data", 300_000)]);
    let file = tree.file(ROOT, "true", &program);
    tree.nodes[file].attributes.permissions = 0o755;
    let script = tree.file(ROOT, "script", b"#!/bin/sh\nexit 7\n");
    tree.nodes[script].attributes.permissions = 0o755;
    let stage = stage(tree);
    let status = |name| Command::new(stage.path(name)).status().expect("it runs");
    assert!(status("true").success());
    assert_eq!(status("script").code(), Some(7));
    let map = "import mmap, sys; f = open(sys.argv[1], 'rb'); \
               m = mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ); sys.stdout.buffer.write(m[:])";
    let mut python = Command::new("python3");
    let output = python.args(["-c", map]).arg(stage.path("data")).output().expect("it runs");
    assert!(output.stdout == bytes(300_000, 300_000), "{output:?}");
    if is_on(&stage.mounted) {
        assert_eq!(stage.mounted.counters().read, 0);
        assert_eq!(made_and_passed(&stage).0, 3);
    }
}

#[test]
fn many_who_open_the_same_files_for_the_first_time_at_once_share_one_backing_each() {
    const FILES: usize = 100;
    const THREADS: usize = 16;
    let name = |index: usize| format!("file-{index}");
    let len = |index: usize| 1 + index * 777;
    let mut tree = Tree::new();
    for index in 0..FILES {
        tree.file(ROOT, &name(index), &bytes(len(index), len(index)));
    }
    let stage = stage(tree);
    stage.view.choose(|question| match question {
        Question::Read { inode, .. } if inode.0 % 2 == 0 => How::Later,
        _ => How::Now,
    });
    let start = Barrier::new(THREADS);
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let (stage, start) = (&stage, &start);
            scope.spawn(move || {
                start.wait();
                let mut held = Vec::new();
                for index in (0..FILES).map(|index| (index + thread / 4) % FILES) {
                    let file = open(stage, &name(index));
                    check(&file, len(index));
                    // Some are held until the end, some closed at once.
                    held.extend((thread % 2 == 0).then_some(file));
                }
            });
        }
    });
    if is_on(&stage.mounted) {
        assert_eq!(made_and_passed(&stage), (FILES as u64, (FILES * THREADS) as u64));
        assert_eq!(stage.mounted.counters().read, 0);
    }
}

#[test]
fn a_file_that_is_opened_while_it_is_open_or_too_large_is_right() {
    let large = PASSED_BYTES_MAX as usize + 1;
    let stage = stage(tree(&[("small", 50_000), ("large", large), ("empty", 0)]));
    let (first, long) = (open(&stage, "small"), open(&stage, "large"));
    let second = open(&stage, "small");
    drop(first);
    check(&open(&stage, "empty"), 0);
    check(&second, 50_000);
    check(&long, large);
    check(&open(&stage, "large"), large);
    check(&open(&stage, "small"), 50_000);
    if is_on(&stage.mounted) {
        assert_eq!(made_and_passed(&stage), (1, 3));
        assert!(stage.mounted.counters().read > 0);
    }
}

#[test]
fn a_file_that_is_open_plainly_is_opened_plainly_by_others_too() {
    let stage = stage(tree(&[("file", 70_000)]));
    let is_first = AtomicBool::new(true);
    stage.view.choose(move |question| match question {
        Question::Read { .. } if is_first.swap(false, Ordering::SeqCst) => How::Fail(ERRNO),
        _ => How::Now,
    });
    let held = open(&stage, "file");
    for _ in 0..3 {
        check(&open(&stage, "file"), 70_000);
    }
    check(&held, 70_000);
    assert_eq!(made_and_passed(&stage), (0, 0));
    drop(held);
    use_once(&stage, "file", 70_000);
    if is_on(&stage.mounted) {
        let before = stage.mounted.counters().read;
        use_once(&stage, "file", 70_000);
        assert!(before > 0 && stage.mounted.counters().read == before);
        assert_eq!(made_and_passed(&stage).0, 1);
    }
}

#[test]
fn what_there_is_no_room_for_is_opened_plainly() {
    let bounds = PassthroughBounds { held_bytes: 8192, ..BOUNDS };
    let stage = with(tree(&[("small", 8192), ("large", 8193)]), bounds);
    let (small, large) = (open(&stage, "small"), open(&stage, "large"));
    check(&small, 8192);
    check(&large, 8193);
    if is_on(&stage.mounted) {
        assert_eq!(made_and_passed(&stage), (1, 1));
    }
}

#[test]
fn who_opens_a_file_again_gets_the_backing_file_of_before() {
    let stage = stage(tree(&[("file", 100_000)]));
    let is_read = |question: &Question| matches!(question, Question::Read { .. });
    for _ in 0..5 {
        use_once(&stage, "file", 100_000);
    }
    if is_on(&stage.mounted) {
        assert_eq!(made_and_passed(&stage), (1, 5));
        assert_eq!(stage.view.arrived().iter().filter(|&it| is_read(it)).count(), 1);
    }
}

#[test]
fn of_the_files_that_nobody_has_open_only_the_last_ones_are_kept() {
    let bounds = PassthroughBounds { idle_bytes: 1_000_000, ..BOUNDS };
    let files = [("a", 400_000), ("b", 400_001), ("c", 400_002)];
    let stage = with(tree(&files), bounds);
    for (name, len) in files {
        use_once(&stage, name, len);
    }
    if is_on(&stage.mounted) {
        assert_eq!(made_and_passed(&stage), (3, 3));
        use_once(&stage, "c", 400_002);
        use_once(&stage, "b", 400_001);
        assert_eq!(made_and_passed(&stage).0, 3, "they were kept");
        use_once(&stage, "a", 400_000);
        assert_eq!(made_and_passed(&stage).0, 4, "it was the oldest");
    }
}

/// A shared library that this process has loaded.
fn library() -> Vec<u8> {
    let maps = fs::read_to_string("/proc/self/maps").expect("/proc is mounted");
    let mut paths = maps.lines().filter_map(|line| line.split_whitespace().nth(5));
    let path = paths.find(|path| path.contains("libgcc_s"));
    fs::read(path.expect("unwinding is done by it")).expect("it is loaded")
}

#[test]
fn a_library_that_is_closed_while_it_is_mapped_stays_what_it_is() {
    let mut tree = Tree::new();
    let file = tree.file(ROOT, "library.so", &library());
    tree.nodes[file].attributes.permissions = 0o755;
    // Nothing is kept of what is closed.
    let stage = with(tree, PassthroughBounds { idle_bytes: 0, ..BOUNDS });
    let start = || {
        let mut command = Command::new("cat");
        command.env("LD_PRELOAD", stage.path("library.so"));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it starts")
    };
    let echo = |cat: &mut std::process::Child| {
        let mut line = String::new();
        cat.stdin.as_mut().expect("piped").write_all(b"line\n").expect("it reads");
        let mut output = BufReader::new(cat.stdout.as_mut().expect("piped"));
        output.read_line(&mut line).expect("it writes");
        let maps = fs::read_to_string(format!("/proc/{}/maps", cat.id())).expect("it runs");
        assert!(maps.contains("/library.so"), "{line}: {maps}");
        assert_eq!(line, "line\n");
    };
    let mut cats = [start(), start()];
    cats.iter_mut().for_each(echo);
    if is_on(&stage.mounted) {
        until("the close", || stage.mounted.counters().release == stage.mounted.counters().open);
        assert!(made_and_passed(&stage).0 >= 1);
    }
    // Each has its own backing file now, which nobody else knows.
    cats.iter_mut().for_each(echo);
    for mut cat in cats {
        drop(cat.stdin.take());
        assert!(cat.wait().expect("it ran").success());
    }
    assert_eq!(fs::read(stage.path("library.so")).expect("read"), library());
}

#[test]
fn what_is_open_when_the_view_is_unmounted_is_read_to_its_end() {
    let stage = Stage::with(tree(&[("file", 3_000_000)]), SOON, |settings| {
        settings.passthrough = Some(BOUNDS);
        settings.join_bound = Duration::from_millis(200);
        settings.connections = "/nowhere".into();
    });
    let file = open(&stage, "file");
    let (how, end) = stage.mounted.unmount().expect("unmounted");
    assert_eq!((how, end), (Unmounted::Lazy, SessionEnd::Left));
    assert!(!is_mounted(stage.mounted.point()));
    if is_on(&stage.mounted) {
        check(&file, 3_000_000);
    }
    drop(file);
    assert!(stage.mounted.wait(SOON), "it ends with its last user");
}

#[test]
fn a_content_that_cannot_be_had_is_an_errno_of_the_read_and_not_of_the_open() {
    for how in [How::Fail(ERRNO), How::Refuse(ERRNO)] {
        let stage = stage(tree(&[("file", 5000)]));
        stage.view.choose(move |question| match question {
            Question::Read { .. } => how,
            _ => How::Now,
        });
        let mut file = open(&stage, "file");
        assert!(file.read(&mut [0; 10]).is_err());
        stage.view.choose(|_| How::Now);
        check(&file, 5000);
        assert_eq!(made_and_passed(&stage), (0, 0));
    }
}

#[test]
fn an_open_whose_content_never_comes_is_answered_at_its_deadline_and_at_the_end() {
    let deadline = Duration::from_millis(300);
    let stage = Stage::with(tree(&[("a", 5000), ("b", 5000)]), deadline, |settings| {
        settings.passthrough = Some(BOUNDS);
    });
    if !is_on(&stage.mounted) {
        return;
    }
    let never = |question: &Question| match question {
        Question::Read { .. } => How::Never,
        _ => How::Now,
    };
    stage.view.choose(never);
    let files: Vec<File> = thread::scope(|scope| {
        let opens: Vec<_> = (0..4).map(|_| scope.spawn(|| open(&stage, "a"))).collect();
        opens.into_iter().map(|it| it.join().expect("it opens")).collect()
    });
    assert_eq!((stage.mounted.counters().expired, stage.view.waiting()), (1, 0));
    // What comes too late is nobody's.
    assert_eq!(stage.view.answer_late(), 1);
    stage.view.choose(|_| How::Now);
    files.iter().for_each(|file| check(file, 5000));
    assert_eq!(made_and_passed(&stage), (0, 0));
    drop(files);

    stage.view.choose(never);
    let mut cat = Command::new("cat");
    cat.arg(stage.path("b")).stdout(Stdio::null()).stderr(Stdio::null());
    let mut cat = Process::start(&mut cat);
    until("the question", || stage.view.unanswered() == 1);
    stage.mounted.unmount().expect("unmounted");
    cat.end();
}

#[test]
fn without_the_right_nothing_is_handed_over_and_the_reason_is_said() {
    let stage = thread::spawn(|| {
        let mut sets = capabilities(None).expect("of this thread");
        sets.effective.remove(CapabilitySet::SYS_ADMIN);
        set_capabilities(None, sets).expect("a right can be put away");
        stage(tree(&[("file", 5000)]))
    });
    let stage = stage.join().expect("mounted");
    match stage.mounted.passthrough() {
        Passthrough::Off(Refusal::Rights | Refusal::Kernel) => {}
        other => panic!("{other}"),
    }
    for _ in 0..3 {
        check(&open(&stage, "file"), 5000);
    }
    assert!(stage.mounted.negotiated().granted.has(Feature::NoOpen), "as if nobody had asked");
    assert_eq!(stage.mounted.counters().open, 1);
    assert_eq!(made_and_passed(&stage), (0, 0));
}

/// Where a helper process mounts; in the ordinary run of the tests nobody sets it.
const DAEMON: &str = "COPPER_FUSE_TEST_PASSTHROUGH_DAEMON";

/// Until a file `report` comes, and then writes the counters down.
#[test]
fn helper_daemon() {
    let Some(point) = std::env::var_os(DAEMON).map(std::path::PathBuf::from) else { return };
    let pending = Pending::new(Duration::from_secs(5));
    let view = TestView::start(tree(&[("a", 5000), ("b", 5000)]), Arc::clone(&pending));
    let settings = Settings { passthrough: Some(BOUNDS), ..Settings::new(&point) };
    let mounted = Mounted::start(view, pending, &settings).expect("mounted");
    fs::write(point.with_extension("ready"), "").expect("written");
    until("the end", || point.with_extension("report").exists());
    let counters = mounted.counters();
    let numbers = format!("{} {}", counters.backings_failed, counters.backings);
    fs::write(point.with_extension("numbers"), numbers).expect("written");
}

fn set_files_max(process: &Process, files: Option<u64>) {
    let pid = Pid::from_raw(process.id()).expect("a number");
    let limit =
        prlimit(Some(pid), Resource::Nofile, Rlimit { current: files, maximum: Some(1024) });
    limit.expect("it is ours");
}

#[test]
fn a_backing_file_that_cannot_be_made_is_done_without() {
    let scratch = crate::stage::Scratch::new();
    let point = scratch.join("mnt");
    let mut daemon = Process::helper("passthrough::helper_daemon", (DAEMON, Path::new(&point)));
    until("the mount", || point.with_extension("ready").exists());
    let read = |name: &str| check(&File::open(point.join(name)).expect("open"), 5000);
    set_files_max(&daemon, Some(0));
    read("a");
    read("a");
    set_files_max(&daemon, Some(1024));
    read("b");
    fs::write(point.with_extension("report"), "").expect("ours");
    assert!(daemon.end().success());
    let numbers = fs::read_to_string(point.with_extension("numbers")).expect("written");
    assert!(["2 1", "1 1", "0 0"].contains(&numbers.as_str()), "{numbers}");
}
