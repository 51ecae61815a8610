//! Real commands, recorded and replayed: the program from outside.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// For everything that is not to hang.
const BOUND: Duration = Duration::from_secs(30);

/// A folder that goes with its test.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let folder =
            std::env::temp_dir().join(format!("copper-replay-{name}-{}", std::process::id()));
        fs::create_dir(&folder).expect("no other test has this name");
        Self(folder)
    }

    /// A folder with what a listing can show.
    fn tree(&self) -> PathBuf {
        let tree = self.0.join("tree");
        fs::create_dir_all(tree.join("folder/in a folder")).expect("scratch");
        fs::write(tree.join("a"), vec![7; 300_000]).expect("scratch");
        fs::write(tree.join("folder/b"), "bytes").expect("scratch");
        fs::write(tree.join(OsStr::from_bytes(b"o\xffdd \"\\\n")), "odd").expect("scratch");
        std::os::unix::fs::symlink("a", tree.join("link")).expect("scratch");
        tree
    }

    /// Another folder with the same content.
    fn copy(&self, tree: &Path) -> PathBuf {
        let copy = self.0.join("copy");
        let copied = Command::new("cp").arg("-a").arg(tree).arg(&copy).status();
        assert!(copied.expect("cp is there").success());
        copy
    }

    /// Records a shell's command on a tree.
    fn record(&self, tree: &Path, script: &str) -> PathBuf {
        let found = Command::new("strace").arg("-V").output();
        assert!(
            found.is_ok(),
            "strace is missing, and nothing can be recorded without: install it"
        );
        let trace = self.0.join("trace");
        let mut command = replay();
        command.arg("record").arg(&trace).arg("--below").arg(tree).args(["--", "sh", "-c", script]);
        let output = command.current_dir(tree).output().expect("it starts");
        assert!(output.status.success(), "{}", said(&output));
        trace
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn replay() -> Command {
    Command::new(env!("CARGO_BIN_EXE_copper-replay"))
}

fn run(trace: &Path, at: &Path, options: &[&str]) -> Output {
    replay().arg("run").arg(trace).arg("--at").arg(at).args(options).output().expect("it starts")
}

/// All that a command has said, for people.
fn said(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

fn lines_of<'a>(trace: &'a str, kind: &str) -> Vec<&'a str> {
    trace.lines().filter(|line| line.split(' ').next() == Some(kind)).collect()
}

#[test]
fn a_copy_does_not_differ() {
    let scratch = Scratch::new("same");
    let tree = scratch.tree();
    let script = "cat a folder/b; cat <a >/dev/null; ls -lR .; find . -name x; readlink link; [ -r none ]; true";
    let trace = scratch.record(&tree, script);
    let text = fs::read_to_string(&trace).expect("a trace is text");
    for kind in ["open", "close", "stat", "fstat", "access", "readlink", "getdents", "read"] {
        assert!(!lines_of(&text, kind).is_empty(), "no {kind} in\n{text}");
    }
    assert!(text.contains("stat nofollow 0/o\\377dd\\040\"\\134\\012 ok"), "{text}");
    assert!(text.contains("access r 0/none ENOENT"), "{text}");
    // What the shell has opened for cat.
    assert_eq!(
        lines_of(&text, "read").iter().filter(|line| line.ends_with(" 0")).count(),
        3,
        "{text}"
    );

    let copy = scratch.copy(&tree);
    let json = scratch.0.join("json");
    let output = run(
        &trace,
        &copy,
        &["--processes", "2", "--rounds", "3", "--json", &json.to_string_lossy()],
    );
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(said(&output).matches("\nround ").count(), 3, "{}", said(&output));
    let json = fs::read_to_string(json).expect("it was written");
    assert_eq!(json.matches("\"wall_ns\":").count(), 2 * 3, "{json}");

    fs::remove_file(copy.join("folder/b")).expect("it is there");
    let output = run(&trace, &copy, &["--processes", "2"]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    let missing =
        format!("open {}: recorded ok, now ENOENT (2 times)", copy.join("folder/b").display());
    assert!(said(&output).contains(&missing), "{}", said(&output));
}

#[test]
fn a_changed_copy_differs() {
    let scratch = Scratch::new("changed");
    let tree = scratch.tree();
    let trace = scratch.record(&tree, "cat a >/dev/null; ls -l none 2>/dev/null; true");
    let copy = scratch.copy(&tree);
    fs::write(copy.join("a"), "shorter").expect("scratch");
    fs::write(copy.join("none"), "there").expect("scratch");
    let output = run(&trace, &copy, &[]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    for what in ["copy/a: recorded 131072, now 7 (1 times)", "copy/none: recorded ENOENT, now ok"] {
        assert!(said(&output).contains(what), "{}", said(&output));
    }
}

#[test]
fn pages_of_mapped_files_are_touched() {
    let scratch = Scratch::new("mapped");
    let tree = scratch.tree();
    let maps = fs::read_to_string("/proc/self/maps").expect("every process has some");
    let libc = maps.split_whitespace().find(|word| word.ends_with("/libc.so.6"));
    let libc = libc.expect("this test is linked to the C library");
    fs::copy(libc, tree.join("libc.so.6")).expect("scratch");
    // Each is to be seen at its exit, else the recording fails.
    let script = "for i in 1 2 3 4 5; do LD_LIBRARY_PATH=. cat a >/dev/null; done";
    let trace = scratch.record(&tree, script);
    let text = fs::read_to_string(&trace).expect("a trace is text");
    assert!(lines_of(&text, "mmap").len() >= 4, "{text}");
    let touches = lines_of(&text, "touch").len();
    let size = fs::metadata(libc).expect("it is there").len();
    let windows = usize::try_from(size / (64 << 10)).expect("small");
    // The linker reads its tables, cat uses some of the code: neither nothing nor all.
    assert!((5 * 4..5 * windows).contains(&touches), "{touches} of 5 * {windows}:\n{text}");

    let copy = scratch.copy(&tree);
    let output = run(&trace, &copy, &["--processes", "2", "--rounds", "2"]);
    assert!(output.status.success(), "{}", said(&output));

    // Reading a page behind the end would end a process; here it is a difference.
    fs::File::create(copy.join("libc.so.6")).expect("scratch");
    let output = run(&trace, &copy, &[]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(said(&output).contains("touch"), "{}", said(&output));
    fs::remove_file(copy.join("libc.so.6")).expect("it is there");
    let output = run(&trace, &copy, &[]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(said(&output).contains("libc.so.6: recorded ok, now ENOENT"), "{}", said(&output));
}

#[test]
fn the_ioctls_can_be_left_out() {
    let scratch = Scratch::new("ioctls");
    let tree = scratch.tree();
    fs::write(tree.join("script"), "exit\n").expect("scratch");
    let trace = scratch.record(&tree, "bash script");
    let output = run(&trace, &tree, &["--cpu", "0"]);
    assert!(output.status.success() && said(&output).contains("isatty 1"), "{}", said(&output));
    let output = run(&trace, &tree, &["--no-isatty"]);
    assert!(output.status.success() && !said(&output).contains("isatty"), "{}", said(&output));
}

#[test]
fn show_counts() {
    let scratch = Scratch::new("show");
    let trace = scratch.record(&scratch.tree(), "cat a >/dev/null");
    let output = replay().arg("show").arg(&trace).output().expect("it starts");
    assert!(output.status.success(), "{}", said(&output));
    assert!(said(&output).contains("bytes read      300000\n"), "{}", said(&output));
}

#[test]
fn what_cannot_be_recorded_is_told_in_a_line() {
    let scratch = Scratch::new("unrecorded");
    let trace = scratch.0.join("trace");
    let record = |below: &Path, command: &[&str]| {
        let mut replay = replay();
        replay.arg("record").arg(&trace).arg("--below").arg(below).arg("--").args(command);
        replay
    };
    let mut without = record(&scratch.0, &["true"]);
    let output = without.env("PATH", "").output().expect("it starts");
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("strace does not start"), "{}", said(&output));

    let output = record(&scratch.0.join("none"), &["true"]).output().expect("it starts");
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("none: No such file"), "{}", said(&output));

    let output = record(&scratch.0, &["true"]).output().expect("it starts");
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("the command called nothing below"), "{}", said(&output));

    let output = record(&scratch.0, &["no-such-command"]).output().expect("it starts");
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("strace failed with exit status: 1"), "{}", said(&output));
    assert_eq!(fs::read_dir(&scratch.0).expect("scratch").count(), 0, "nothing is left");

    let output =
        record(&scratch.0, &["ls", "none"]).current_dir(&scratch.0).output().expect("it starts");
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("the command failed with exit status: 2"), "{}", said(&output));
}

#[test]
fn what_cannot_be_replayed_is_told_in_a_line() {
    let scratch = Scratch::new("unreplayed");
    let trace = scratch.0.join("trace");
    let cases: [(&str, &[&str], i32, &str); 6] = [
        ("copper-replay trace 1\nbelow /a\nclose 0\n", &[], 1, "trace:3: slot 0 is not open"),
        ("something else\n", &[], 1, "trace:1: this is no trace"),
        ("copper-replay trace 1\n", &[], 2, "the trace is of 0 folders"),
        ("copper-replay trace 1\nbelow /a\n", &["--cpu", "1023"], 2, "CPU 1023 is none"),
        ("copper-replay trace 1\nbelow /a\n", &["--processes", "0"], 2, "--processes is 1 to 1024"),
        ("copper-replay trace 1\nbelow /a\n", &["--json", "/no/such"], 1, "/no/such: No such file"),
    ];
    for (text, options, code, what) in cases {
        fs::write(&trace, text).expect("scratch");
        let output = run(&trace, &scratch.0, options);
        assert_eq!(output.status.code(), Some(code), "{}", said(&output));
        assert!(said(&output).contains(what), "{what}: {}", said(&output));
    }
    for at in ["none", "trace"] {
        let output = run(&trace, &scratch.0.join(at), &[]);
        assert_eq!(output.status.code(), Some(1));
        assert!(
            said(&output).contains(at) && said(&output).lines().count() == 1,
            "{}",
            said(&output)
        );
    }
    let output = run(&scratch.0.join("none"), &scratch.0, &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("none: No such file"), "{}", said(&output));
}

/// A run that goes on until it is ended, and its processes.
fn endless(scratch: &Scratch) -> (Child, Vec<u32>) {
    let trace = scratch.record(&scratch.tree(), "cat a >/dev/null");
    let mut command = replay();
    command.arg("run").arg(&trace).arg("--at").arg(scratch.0.join("tree"));
    command.args(["--processes", "2", "--rounds", "1000000"]);
    let child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("it starts");
    let children = format!("/proc/{0}/task/{0}/children", child.id());
    let mut workers = Vec::new();
    within("it has two processes", || {
        let text = fs::read_to_string(&children).unwrap_or_default();
        workers = text.split_whitespace().map(|pid| pid.parse().expect("a number")).collect();
        workers.len() == 2
    });
    (child, workers)
}

fn within(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < BOUND, "not within {BOUND:?}: {what}");
        std::thread::yield_now();
    }
}

fn kill(pid: u32) {
    let killed = Command::new("sh").args(["-c", &format!("kill -KILL {pid}")]).status();
    assert!(killed.expect("sh is there").success());
}

#[test]
fn no_process_outlives_its_run() {
    let scratch = Scratch::new("outlive");
    let (mut child, workers) = endless(&scratch);
    child.kill().expect("it runs");
    child.wait().expect("it is ours");
    for pid in workers {
        // Gone, or waiting for whoever takes in orphans.
        within("the process is gone", || {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            stat.is_empty() || stat.contains(") Z ")
        });
    }
}

#[test]
fn a_process_that_dies_ends_the_run() {
    let scratch = Scratch::new("dies");
    let (child, workers) = endless(&scratch);
    kill(workers[1]);
    let output = child.wait_with_output().expect("it is ours");
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(said(&output).contains("process 1 was ended by signal 9"), "{}", said(&output));
    assert!(!Path::new(&format!("/proc/{}", workers[0])).exists(), "the other is waited for");
}
