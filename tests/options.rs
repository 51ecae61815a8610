//! The options of both generations of the C++ Copper: what they take, and what they do.

#[path = "support/harness.rs"]
mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use support::job::{COPPER, copper};
use support::{Job, Options, Scratch, Tree, User, eventually, is_root, run, shell};

const BOUND: Duration = Duration::from_secs(60);

/// The exit code for a command line that makes no sense.
const USAGE: i32 = 2;

/// The launch script, which finds the program under test.
fn script(scratch: &Scratch) -> Command {
    let root = scratch.join("root");
    fs::create_dir_all(root.join("bin")).expect("it is ours");
    let program = root.join("bin/copper");
    if !program.exists() {
        std::os::unix::fs::symlink(COPPER, program).expect("it is new");
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("launcher/launch_copper.sh");
    let mut command = Command::new(path);
    command.env("COPPER_ROOT", root).env("COPPER_RUN_DIR", scratch.join("run"));
    command.env_remove("COPPER_LOG").current_dir("/");
    command
}

#[test]
fn every_option_refuses_a_bad_value_in_one_line_and_starts_nothing() {
    let scratch = Scratch::new();
    let bad: [(&str, &[&str]); 20] = [
        ("-l", &["7", "loud", "-1"]),
        ("-t", &["terminal", "file,stdout"]),
        ("-T", &["0", "17", "some"]),
        ("-M", &["some", "-1"]),
        ("-E", &["-1", "2s", "86400001"]),
        ("-s", &["0", "soon"]),
        ("-b", &["", "4-1", "one", "1,", "1000", "99999"]),
        ("-N", &["0", "ten"]),
        ("-I", &["0", "1.5"]),
        ("-n", &["", "a/b", "cxi0,", "tcp,shm"]),
        ("--log-type", &["terminal"]),
        ("--trees", &["0"]),
        ("--enoent-ttl", &["never"]),
        ("--cpu-bind", &["1-"]),
        ("--profile-top", &["0"]),
        ("--profile-interval", &["0"]),
        ("--profile", &["yes"]),
        ("-P", &["yes"]),
        ("-A", &["yes"]),
        ("--no-such-option", &["1"]),
    ];
    for (option, values) in bad {
        for value in values {
            let mut command = script(&scratch);
            command.args(["--local", "1", "-d"]).arg(scratch.join("logs"));
            let ended =
                run(command.arg("-v").arg(scratch.join("views")).args([option, value]), BOUND);
            let line = ended.failure_line();
            assert_eq!(ended.status.code(), Some(USAGE), "{option} {value}: {line}");
            assert!(ended.stdout.is_empty(), "{option} {value}: {}", ended.stdout());
        }
    }
    for option in
        ["-l", "-t", "-d", "-T", "-M", "-E", "-s", "-b", "-N", "-I", "-n", "-F", "-a", "-v"]
    {
        let ended = run(script(&scratch).args(["--local", "1", option]), BOUND);
        assert_eq!(ended.status.code(), Some(USAGE), "{option}: {}", ended.failure_line());
    }
    for left in ["logs", "views", "run"] {
        assert!(!scratch.join(left).exists(), "{left} was begun");
    }
}

#[test]
fn the_documented_command_works_and_shows_the_logs_here_too() {
    let scratch = Scratch::new();
    let tree = Tree::new(&scratch);
    let file = tree.file_with("file", b"bytes");
    let (views, logs) = (scratch.join("views"), scratch.join("logs"));
    let mut command = script(&scratch);
    command.args(["-l", "2", "-t", "stdout_and_file", "-T", "2", "-s", "40", "--local", "2"]);
    command.args(["--memory", "64MiB", "-n", "tcp", "-b", "0", "-E", "500", "-P", "-N", "5", "-A"]);
    command.args(["-I", "60", "-F", "books", "-a", "rw", "-v"]).arg(&views).arg("-d").arg(&logs);
    let ended = run(&mut command, BOUND);
    let one_line = ended.stderr();
    assert!(one_line.lines().count() == 1 && one_line.contains("-F and -a"), "{one_line}");
    let printed = ended.success();
    let seen = views.join("1").join(file.strip_prefix("/").expect("absolute"));
    let bytes = fs::read(seen);
    let status =
        run(copper(&scratch).args(["status", "--json", "-v"]).arg(&views), BOUND).success();
    run(copper(&scratch).arg("stop").arg("-v").arg(&views), BOUND).success();

    assert_eq!(bytes.expect("the view shows it"), b"bytes");
    assert!(status.contains("\"trees\""), "{status}");
    assert!(printed.contains("2 of 2 ranks ready"), "{printed}");
    let said = |text: &str| printed.lines().filter(|line| line.contains(text)).count();
    assert_eq!(said("the fabric is open"), 2, "of each rank: {printed}");
    assert_eq!(said("bound cores=\"0\""), 2, "of each rank: {printed}");
    let is_log = |path: &PathBuf| path.extension().is_some_and(|it| it == "log");
    let run_folder = fs::read_dir(&logs).expect("it is there").next().expect("one job");
    let files = fs::read_dir(run_folder.expect("readable").path().join("logs"));
    let files: Vec<PathBuf> =
        files.expect("it is there").map(|it| it.expect("readable").path()).collect();
    assert_eq!(files.iter().filter(|path| is_log(path)).count(), 2, "{files:?}");
    for log in files.iter().filter(|path| is_log(path)) {
        let text = fs::read_to_string(log).expect("text");
        assert!(text.contains("the fabric is open"), "the file is written too: {text}");
    }
}

#[test]
fn a_daemon_runs_on_the_cores_that_were_asked_for_and_says_which_are_not_there() {
    let scratch = Scratch::new();
    let mut job = Job::launch_with(&scratch, 1, &Options::with(&["-b", "0"]));
    let tasks = fs::read_dir(format!("/proc/{}/task", job.daemons[0].pid)).expect("it runs");
    for task in tasks {
        let status = task.expect("readable").path().join("status");
        // A thread may have ended since.
        let Ok(status) = fs::read_to_string(status) else { continue };
        let cores = status.lines().find(|line| line.starts_with("Cpus_allowed_list:"));
        assert_eq!(cores, Some("Cpus_allowed_list:\t0"), "{status}");
    }
    job.stop();
    let mut serve = copper(&scratch);
    serve.args(["serve", "--net", "tcp", "--memory", "64MiB", "-b", "0,1000", "-v"]);
    let line = run(serve.arg(scratch.join("view")), BOUND).failure_line();
    assert!(line.contains("rank 0: --cpu-bind 0,1000: core 1000 is not there"), "{line}");
}

/// How long after it came into a directory that cannot be listed a file is seen that was absent.
fn seen_after(milliseconds: &str) -> Duration {
    let scratch = Scratch::new();
    let tree = Tree::new(&scratch);
    let user = User::nobody(&scratch);
    let waiting = tree.directory("waiting");
    fs::set_permissions(&waiting, fs::Permissions::from_mode(0o711)).expect("it is ours");
    let late = tree.path("waiting/late");
    let mut options = Options::with(&["-E", milliseconds]);
    options.user = user.clone();
    let job = Job::launch_with(&scratch, 2, &options);
    let is_there = || {
        let mut command = user.command("test");
        run(command.arg("-e").arg(job.view(1, &late)), BOUND).status.success()
    };
    let asked = Instant::now();
    assert!(!is_there());
    fs::write(&late, "here").expect("it is ours");
    eventually(BOUND, "the new file is seen", || is_there().then_some(()));
    asked.elapsed()
}

#[test]
fn an_absence_without_a_proof_is_believed_as_long_as_was_asked_for() {
    if !is_root() {
        return;
    }
    assert!(seen_after("0") < Duration::from_millis(1500), "the default of 2 s was in use");
    assert!(seen_after("5000") >= Duration::from_millis(4900), "it was asked for earlier");
}

/// A launch of one rank under limits that a shell has set, its daemon's limits by their names as
/// /proc has them (soft, hard), and what it logged.
fn launched_under(limits: &str) -> (Vec<(String, String, String)>, String) {
    let scratch = Scratch::new();
    let views = scratch.join("views");
    let mut command = shell(&format!("{limits}; exec \"$@\""), [COPPER]);
    command.args(["launch", "--local", "1", "--memory", "64MiB", "-n", "tcp", "-l", "warn"]);
    command.args(["-t", "stdout", "-v"]).arg(&views).arg("-d").arg(scratch.join("logs"));
    command.env("COPPER_RUN_DIR", scratch.join("run")).env_remove("COPPER_LOG");
    let printed = run(&mut command, BOUND).success();
    let pid = printed.split("(pid ").nth(1).and_then(|rest| rest.split(')').next());
    let limits = fs::read_to_string(format!("/proc/{}/limits", pid.expect("a ready rank")));
    run(copper(&scratch).arg("stop").arg("-v").arg(&views), BOUND).success();
    let limits = limits.expect("it runs");
    let row = |line: &str| {
        let (name, values) = line.split_at(26);
        let mut values = values.split_whitespace().map(str::to_owned);
        Some((name.trim().to_owned(), values.next()?, values.next()?))
    };
    (limits.lines().skip(1).filter_map(row).collect(), printed)
}

fn limit<'a>(limits: &'a [(String, String, String)], name: &str) -> (&'a str, &'a str) {
    let found = limits.iter().find(|(own, _, _)| own == name);
    let (_, soft, hard) = found.expect("a limit of Linux");
    (soft, hard)
}

#[test]
fn limits_that_are_too_low_are_raised_or_complained_of_and_core_files_are_left_alone() {
    let (limits, logged) = launched_under("ulimit -Sn 100; ulimit -Hn 5000; ulimit -Sc 3");
    let (soft, hard) = limit(&limits, "Max open files");
    let soft: u64 = soft.parse().expect("a number");
    assert!((200..5000).contains(&soft) && hard == "5000", "{limits:?}");
    let (soft, _) = limit(&limits, "Max core file size");
    assert!(["1536", "3072"].contains(&soft), "as the shell has set it: {limits:?}");
    assert!(!logged.contains("a limit is too low"), "{logged}");

    let (limits, logged) = launched_under("ulimit -n 150; ulimit -c 0");
    assert_eq!(limit(&limits, "Max open files"), ("150", "150"));
    assert_eq!(limit(&limits, "Max core file size"), ("0", "0"));
    let line = logged.lines().find(|line| line.contains("a limit is too low"));
    let line = line.unwrap_or_else(|| panic!("no advice: {logged}"));
    assert!(line.contains("150 files may be open") && line.contains("ulimit -n"), "{line}");
}

/// The lines of all logs of a test's only run, by rank.
fn log_lines(scratch: &Scratch) -> Vec<Vec<String>> {
    let mut runs = fs::read_dir(scratch.join("logs")).expect("there was a launch");
    let logs = runs.next().expect("one job").expect("readable").path().join("logs");
    let files = fs::read_dir(logs).expect("it is there").map(|it| it.expect("readable").path());
    files
        .filter(|path| path.extension().is_some_and(|it| it == "log"))
        .map(|path| fs::read_to_string(path).expect("text").lines().map(str::to_owned).collect())
        .collect()
}

/// A life of eight ranks who all read a file and look for one that is not there.
fn lives(scratch: &Scratch, log_level: &'static str) {
    let tree = Tree::new(scratch);
    let file = tree.file("file", 100_000);
    let mut job = Job::launch_with(scratch, 8, &Options { log_level, ..Options::default() });
    for rank in 0..job.ranks() {
        assert_eq!(fs::read(job.view(rank, &file)).ok(), fs::read(&file).ok());
        assert!(fs::metadata(job.view(rank, &tree.path("absent"))).is_err());
    }
    job.stop();
}

#[test]
fn a_rank_logs_few_lines_at_info_and_none_about_errors_that_were_not() {
    const LINES_MAX: usize = 20;
    let scratch = Scratch::new();
    lives(&scratch, "3");
    let logs = log_lines(&scratch);
    assert_eq!(logs.len(), 8);
    let lines: usize = logs.iter().map(Vec::len).sum();
    assert!(lines <= 8 * LINES_MAX, "{lines} lines: {logs:#?}");
    let with = |text: &str| {
        logs.iter().filter(|lines| lines.iter().filter(|it| it.contains(text)).count() == 1).count()
    };
    assert_eq!(with("provider registration completed after "), 8, "{logs:#?}");
    for kind in ["lstat", "readfile"] {
        let text = format!("first successful parent rpc_{kind} completed after ");
        assert_eq!(with(&text), 7, "all but the root: {logs:#?}");
    }
    for level in ["warn", "error", "off"] {
        let scratch = Scratch::new();
        lives(&scratch, level);
        assert!(
            log_lines(&scratch).iter().all(Vec::is_empty),
            "{level}: {:?}",
            log_lines(&scratch)
        );
    }
}
