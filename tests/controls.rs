//! The ioctls of release 1.0 on any file of a view, by all three ways to ask for them.

#[path = "support/harness.rs"]
mod support;

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use support::job::copper;
use support::{Job, Options, Scratch, Tree, eventually, run};

const BOUND: Duration = Duration::from_secs(30);

fn run_folder(scratch: &Scratch) -> PathBuf {
    let mut runs = fs::read_dir(scratch.join("logs")).expect("there was a launch");
    runs.next().expect("one job").expect("readable").path()
}

fn ioctl(path: &Path, code: u32) -> io::Result<()> {
    // Python's, so that the codes go the way of a user's script.
    let script = "import fcntl, os, sys\n\
        try: fcntl.ioctl(os.open(sys.argv[1], os.O_RDONLY), int(sys.argv[2]))\n\
        except OSError as error: print(error.errno)";
    let code = code.to_string();
    let mut python = Command::new("python3");
    let printed = run(python.args(["-c", script]).arg(path).arg(code), BOUND).success();
    match printed.trim() {
        "" => Ok(()),
        errno => Err(io::Error::from_raw_os_error(errno.parse().expect("an errno"))),
    }
}

/// The tables in the run's folder: the number of the ioctl and the table's name, with its text.
fn tables(scratch: &Scratch) -> Vec<(String, String)> {
    let folder = run_folder(scratch).join("tables/ioctl-snapshot");
    let entries = fs::read_dir(&folder).into_iter().flatten();
    let table = |entry: io::Result<fs::DirEntry>| {
        let path = entry.expect("readable").path();
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        let (_, name) = name.split_once("-ioctl-snapshot-").expect("the tag");
        (name.to_owned(), fs::read_to_string(&path).expect("text"))
    };
    let mut tables: Vec<_> = entries.map(table).collect();
    tables.sort();
    tables
}

fn value(table: &str, operation: &str) -> u64 {
    let line = table.lines().find_map(|line| line.strip_prefix(&format!("{operation},")));
    line.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("{operation}: {table}"))
}

#[test]
fn each_of_the_25_codes_does_what_it_says_on_any_file_of_the_view() {
    let scratch = Scratch::new();
    let tree = Tree::new(&scratch);
    let file = tree.file("file", 20_000);
    let mut job = Job::launch_with(&scratch, 1, &Options::with(&["-A"]));
    let shown = job.view(0, &file);
    fs::read(&shown).expect("it can be read");
    assert!(fs::metadata(job.view(0, &tree.path("absent"))).is_err());
    // What logs: one table each, in turn.
    let logging = [300, 400, 500, 600, 1700, 1100, 1200, 1300, 2200, 2300, 2400, 2500, 200];
    for code in logging {
        ioctl(&shown, code).unwrap_or_else(|error| panic!("{code}: {error}"));
    }
    let written = tables(&scratch);
    let names: Vec<&str> = written.iter().map(|(name, _)| &**name).collect();
    let expected = [
        "counts.csv",
        "times_s.csv",
        "hits.csv",
        "misses.csv",
        "negatives.csv",
        "data_events.csv",
        "directory_events.csv",
        "metadata_events.csv",
        "ioctl_events.csv",
        "data_size.csv",
        "directory_size.csv",
        "metadata_size.csv",
        "cache.csv",
    ];
    let expected: Vec<String> = (1..)
        .zip(expected)
        .map(|(number, name)| format!("{number:04}-{}", name.replace("times_s", "times")))
        .collect();
    assert_eq!(names, expected);
    let text = |number: usize| &*written[number - 1].1;
    assert_eq!(value(text(1), "read"), 1);
    assert!(text(2).starts_with("operation,times_s\n"), "{}", text(2));
    assert_eq!((value(text(3), "read"), value(text(4), "read")), (0, 1));
    assert_eq!(value(text(5), "lookup"), 1);
    let path = format!("data,{},1,0,1,0,0,0,0,0", file.display());
    assert!(text(6).lines().any(|line| line == path), "{path} in {}", text(6));
    assert!(text(8).contains(&format!("metadata,{},", file.display())), "{}", text(8));
    assert_eq!(text(9).lines().count(), 1 + 9, "{}", text(9));
    assert!(text(10).starts_with("entries,bytes,left_out\n1,20000,0\n"), "{}", text(10));
    let row = format!("data,{},20000", file.display());
    assert!(text(13).lines().any(|line| line == row), "{row} in {}", text(13));
    // What clears: a column each, and no other.
    for code in [800, 900, 1800, 1000, 1400, 1500, 1600, 2100] {
        ioctl(&shown, code).unwrap_or_else(|error| panic!("{code}: {error}"));
    }
    for code in [300, 500, 600, 1700, 1100, 2200] {
        ioctl(&shown, code).unwrap_or_else(|error| panic!("{code}: {error}"));
    }
    let written = tables(&scratch);
    let text = |number: usize| &*written[number - 1].1;
    assert_eq!(value(text(14), "read"), 1, "counts were not cleared");
    assert_eq!((value(text(15), "read"), value(text(16), "read")), (0, 0));
    assert_eq!(value(text(17), "lookup"), 0);
    assert_eq!(text(18).lines().count(), 1, "{}", text(18));
    assert_eq!(text(19).lines().count(), 1 + 6, "{}", text(19));
    ioctl(&shown, 700).expect("counts are cleared");
    ioctl(&shown, 300).expect("and logged");
    let written = tables(&scratch);
    assert_eq!(value(&written[19].1, "read"), 0);
    // What a monitoring system sees was not cleared with it.
    assert_eq!(job.status().counter(0, "operations.read.calls"), 1);
    everything_and_reset(&scratch, &shown);
    job.stop();
}

fn everything_and_reset(scratch: &Scratch, shown: &Path) {
    let before = tables(scratch).len();
    ioctl(shown, 2000).expect("everything");
    let written = tables(scratch);
    assert_eq!(written.len() - before, 13, "all tables");
    let profiles = |tag: &str| -> BTreeSet<String> {
        let folder = run_folder(scratch).join("profiling").join(tag);
        let entries = fs::read_dir(folder).into_iter().flatten();
        entries.map(|it| it.expect("readable").file_name().into_string().expect("text")).collect()
    };
    assert_eq!(profiles("ioctl-snapshot").len(), 4);
    ioctl(shown, 1900).expect("a reset");
    let before_reset = profiles("pre-reset");
    assert_eq!(before_reset.len(), 4);
    assert!(before_reset.iter().all(|name| name.contains("-pre-reset-0001-profiling_")));
    ioctl(shown, 300).expect("counts");
    let last = tables(scratch).pop().expect("one").1;
    assert_eq!(value(&last, "lookup"), 0);
}

#[test]
fn an_unknown_code_is_no_terminal_and_others_than_the_owner_are_refused() {
    let scratch = Scratch::new();
    let tree = Tree::new(&scratch);
    let file = tree.file("file", 100);
    let job = Job::launch_with(&scratch, 1, &Options::with(&["--allow-other"]));
    let shown = job.view(0, &file);
    for code in [0x5401, 50, 2600, 101] {
        let errno = ioctl(&shown, code).expect_err("unknown").raw_os_error();
        assert_eq!(errno, Some(rustix::io::Errno::NOTTY.raw_os_error()), "{code}");
    }
    let script = format!(
        "import fcntl, os\nos.setuid(65534)\n\
         try: fcntl.ioctl(os.open({:?}, os.O_RDONLY), 1900)\n\
         except OSError as error: print(error.errno)",
        shown.display().to_string()
    );
    let printed = run(Command::new("python3").args(["-c", &script]), BOUND).success();
    assert_eq!(printed.trim(), rustix::io::Errno::PERM.raw_os_error().to_string());
    assert!(tables(&scratch).is_empty());
}

#[test]
fn a_cleared_cache_is_empty_and_fills_again_from_the_parent() {
    let scratch = Scratch::new();
    let tree = Tree::new(&scratch);
    let file = tree.file("file", 200_000);
    let job = Job::launch(&scratch, 2);
    let shown = job.view(1, &file);
    let bytes = fs::read(&file).expect("ours");
    assert_eq!(fs::read(&shown).expect("readable"), bytes);
    let before = job.status();
    assert!(before.counter(1, "cache.bytes") > 0);
    ioctl(&job.views[1], 100).expect("the cache is cleared");
    assert_eq!(job.status().counter(1, "cache.bytes"), 0);
    eventually(BOUND, "the kernel has forgotten the file too", || {
        assert_eq!(fs::read(&shown).expect("readable"), bytes);
        let pulled = job.status().counter(1, "fabric.pulled_bytes");
        (pulled >= before.counter(1, "fabric.pulled_bytes") + 200_000).then_some(())
    });
    let after = job.status();
    assert_eq!(after.counter(0, "source.bytes"), before.counter(0, "source.bytes"));
}

#[test]
fn codes_and_names_go_to_all_views_by_the_command_and_to_one_by_the_python_helper() {
    let scratch = Scratch::new();
    let job = Job::launch(&scratch, 3);
    let ctl = |words: &[&str]| {
        run(copper(&scratch).arg("ctl").args(words).arg("-v").arg(&job.directory), BOUND)
    };
    let printed = ctl(&["log-counts"]).success();
    assert_eq!(printed.lines().count(), 3, "{printed}");
    assert_eq!(tables(&scratch).len(), 3);
    ctl(&["300"]).success();
    assert_eq!(tables(&scratch).len(), 6);
    let line = ctl(&["log-nothing"]).failure_line();
    assert!(line.contains("log-nothing is no code"), "{line}");
    let listed = run(copper(&scratch).arg("ctl"), BOUND).success();
    let helper = Path::new(env!("CARGO_MANIFEST_DIR")).join("launcher/copper_ctl.py");
    let script = "import sys; sys.path.insert(0, sys.argv[1]); import copper_ctl\n\
        for name, code in copper_ctl.CODES.items(): print(f'{code:>5} {name}')";
    let mut python = Command::new("python3");
    python.args(["-B", "-c", script]).arg(helper.parent().expect("a folder"));
    assert_eq!(run(&mut python, BOUND).success(), listed, "the helper has the same codes");
    let help = |path: &Path, word: &str| {
        run(Command::new("python3").arg(&helper).arg(path).arg(word), BOUND)
    };
    help(&job.views[2], "log-hits").success();
    assert_eq!(tables(&scratch).len(), 7);
    let line = help(scratch.path(), "log-hits").failure_line();
    assert!(line.contains("is it in a view?"), "{line}");
}
