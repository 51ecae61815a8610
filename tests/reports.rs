//! `copper report`: what the page of a run and the advice say of a real one.

#[path = "support/harness.rs"]
mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use support::job::copper;
use support::{Job, Options, Scratch, Tree, eventually, run, say};

const BOUND: Duration = Duration::from_secs(60);

/// Programs that show a page without a screen.
const BROWSERS: [&str; 4] =
    ["chromium-headless-shell", "chromium", "chromium-browser", "google-chrome"];

/// `DIR/<job>` of the only run of a test.
fn run_folder(scratch: &Scratch) -> PathBuf {
    let mut runs = fs::read_dir(scratch.join("logs")).expect("there was a launch");
    runs.next().expect("one job").expect("readable").path()
}

fn page(scratch: &Scratch) -> String {
    let folder = run_folder(scratch);
    let printed = run(copper(scratch).arg("report").arg(&folder), BOUND).success();
    assert_eq!(printed.trim_end(), folder.join("report.html").to_str().expect("text"));
    fs::read_to_string(folder.join("report.html")).expect("it was written")
}

/// Nothing is fetched, nothing runs, every element that is opened is closed.
#[track_caller]
fn assert_self_contained(page: &str) {
    assert!(page.starts_with("<!DOCTYPE html>") && page.trim_end().ends_with("</html>"));
    for foreign in ["<script", "src=", "@import", "url("] {
        assert!(!page.contains(foreign), "{foreign}");
    }
    for element in ["svg", "table", "figure", "div", "ul", "li", "pre", "body"] {
        let opened = page.matches(&format!("<{element} ")).count()
            + page.matches(&format!("<{element}>")).count();
        assert_eq!(opened, page.matches(&format!("</{element}>")).count(), "{element}");
    }
}

/// The page as a browser has it, if there is one here.
fn in_browser(scratch: &Scratch, window: &str) -> Option<String> {
    let is_there = |name: &&&str| Command::new(name).arg("--version").output().is_ok();
    let Some(browser) = BROWSERS.iter().find(is_there) else {
        say("skipped: no Chromium here to open the page in");
        return None;
    };
    let file = run_folder(scratch).join("report.html");
    let mut command = Command::new(browser);
    command.args(["--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr"]);
    command.arg(format!("--window-size={window}"));
    command.arg(format!("--user-data-dir={}", scratch.join("browser").display()));
    command.arg("--dump-dom").arg(format!("file://{}", file.display()));
    let ended = run(&mut command, BOUND);
    assert!(!ended.stderr().contains("CONSOLE"), "{}", ended.stderr());
    Some(ended.success())
}

#[test]
fn the_page_of_a_run_with_a_killed_parent_names_it_and_who_lost_it() {
    let scratch = Scratch::new();
    let tree = Tree::new(&scratch);
    let files: Vec<PathBuf> = (0..6).map(|n| tree.file(format!("file-{n}"), 100_000)).collect();
    let options = Options::with(&["-A", "-I", "1", "--fanout", "2"]);
    let mut job = Job::launch_with(&scratch, 8, &options);
    let read_all = |job: &Job, ranks: &[u32]| {
        for &rank in ranks {
            for file in &files {
                assert_eq!(fs::read(job.view(rank, file)).ok(), fs::read(file).ok());
            }
        }
    };
    read_all(&job, &[0, 1, 3, 7]);
    job.kill(1);
    eventually(BOUND, "the children of rank 1 hang on another", || {
        let status = job.status();
        let parent = |rank: u32| status.rank(rank)["parent"].as_u64();
        [3, 4].into_iter().all(|rank| parent(rank) == Some(0)).then_some(())
    });
    read_all(&job, &[2, 4, 5, 6]);
    let host = rustix::system::uname().nodename().to_str().expect("text").to_owned();
    let dead = format!("{host}-{}", job.daemons[1].pid);
    let root = format!("{host}-{}-moments.jsonl", job.daemons[0].pid);
    eventually(BOUND, "a time line has more than its beginning", || {
        let moments = fs::read_to_string(run_folder(&scratch).join("ranks").join(&root)).ok()?;
        (moments.lines().count() >= 3).then_some(())
    });
    job.stop();

    let page = page(&scratch);
    assert_self_contained(&page);
    let has = |text: &str| assert!(page.contains(text), "{text} in\n{page}");
    has(&format!("Rank 1 ({dead}) ended without a word"));
    has("Rank 3 lost its parent in tree 0 (rank 1: ");
    has("Rank 4 lost its parent in tree 0 (rank 1: ");
    has("it hangs on rank 0 instead");
    assert_eq!(page.matches("ended without a word;").count(), 1, "nobody else died:\n{page}");
    assert!(!page.contains("Rank 5 lost") && !page.contains("Rank 7 lost"), "{page}");
    has("lost the parent");
    has("/source/file-0");
    has("Calls per second, by level");
    for window in ["1280,900", "420,800"] {
        if let Some(dom) = in_browser(&scratch, window) {
            assert!(dom.contains(&format!("Rank 1 ({dead}) ended without a word")), "{dom}");
            let drawings = page.matches("<svg").count();
            assert_eq!(dom.matches("<svg").count(), drawings, "the browser has all drawings");
        }
    }
}

#[test]
fn the_page_of_an_import_by_eight_ranks_has_no_fault_and_opens_in_a_browser() {
    const IMPORT: &str = "import asyncio, email, http.client, json, unittest, xml.dom.minidom";
    let scratch = Scratch::new();
    let options = Options::with(&["-A", "-I", "1", "--fanout", "2"]);
    let mut job = Job::launch_with(&scratch, 8, &options);
    let mut python = Command::new("python3");
    python.args(["-c", "import sysconfig; print(sysconfig.get_path('stdlib'))"]);
    let library = PathBuf::from(run(&mut python, BOUND).success().trim());
    for rank in 0..8 {
        let mut python = Command::new("python3");
        python.args(["-S", "-c", &format!("{IMPORT}; print(json.__file__)")]);
        python.env("PYTHONPATH", job.view(rank, &library)).env("PYTHONDONTWRITEBYTECODE", "1");
        let file = run(&mut python, BOUND).success();
        assert!(Path::new(file.trim()).starts_with(job.view(rank, &library)), "{file}");
    }
    job.stop();

    let page = page(&scratch);
    assert_self_contained(&page);
    let has = |text: &str| assert!(page.contains(text), "{text} in\n{page}");
    has("Nothing that these files know of.");
    has("asyncio/__init__");
    has("Calls per second, by level");
    assert!(!page.contains("ended without a word") && !page.contains("lost its parent"), "{page}");
    for window in ["1280,900", "420,800"] {
        if let Some(dom) = in_browser(&scratch, window) {
            assert_eq!(dom.matches("<svg").count(), page.matches("<svg").count());
            assert!(dom.contains("asyncio/__init__"), "{dom}");
        }
    }
}

#[test]
fn a_run_with_profiles_alone_says_which_option_brings_the_rest() {
    let scratch = Scratch::new();
    let tree = Tree::new(&scratch);
    let file = tree.file("file", 5000);
    let mut job = Job::launch_with(&scratch, 2, &Options::with(&["-P"]));
    assert_eq!(fs::read(job.view(1, &file)).ok(), fs::read(&file).ok());
    job.stop();
    let page = page(&scratch);
    assert_self_contained(&page);
    assert!(page.contains("Nothing that these files know of."), "{page}");
    assert!(page.contains("launch with -I S") && page.contains("launch with -N K"), "{page}");
    let advice =
        run(copper(&scratch).args(["report", "--advice"]).arg(run_folder(&scratch)), BOUND);
    let line = advice.failure_line();
    assert!(line.contains("launch the job with -A"), "{line}");
    let line = run(copper(&scratch).arg("report").arg(scratch.path()), BOUND).failure_line();
    assert!(line.contains("give the folder of a run"), "{line}");
}

#[test]
fn advice_names_what_was_touched_what_never_and_what_is_looked_for_in_vain() {
    let scratch = Scratch::new();
    let tree = Tree::new(&scratch);
    for folder in ["env", "env/lib", "env/never", "env/vain"] {
        tree.directory(folder);
    }
    let used = tree.file("env/lib/libused.so", 5000);
    let unused = tree.file("env/lib/libunused.so", 70_000);
    tree.file("env/never/a", 300_000);
    tree.file("env/vain/other", 10);
    let mut job = Job::launch_with(&scratch, 2, &Options::with(&["-A"]));
    let environment = tree.path("env");
    for rank in 0..2 {
        // As a loader looks along LD_LIBRARY_PATH.
        for folder in ["gone", "vain", "lib"] {
            let path = environment.join(folder).join("libused.so");
            assert_eq!(fs::read(job.view(rank, &path)).is_ok(), path.exists());
        }
    }
    job.stop();
    let in_view = |folder: &str| job.view(1, &environment.join(folder)).display().to_string();
    let list = scratch.join("allowed");
    let mut command = copper(&scratch);
    command.args(["report", "--advice"]).arg(run_folder(&scratch));
    command.arg("--environment").arg(&environment).arg("--allow-list").arg(&list);
    let folders = ["gone", "vain", "lib"].map(in_view).join(":");
    command.env("LD_LIBRARY_PATH", folders).env_remove("PATH").env_remove("PYTHONPATH");
    let text = run(&mut command, BOUND).success();
    let has = |line: &str| assert!(text.lines().any(|it| it.trim() == line), "{line} in\n{text}");
    let of = |folder: &str| format!("LD_LIBRARY_PATH {}", environment.join(folder).display());
    has(&format!("{}: 2 probes in vain, is not there: leave it out", of("gone")));
    has(&format!("{}: 2 probes in vain, gives nothing: leave it out", of("vain")));
    has(&format!("{}: 0 probes in vain, gives", of("lib")));
    has("missing library            1 names         2 probes");
    has(&format!(
        "Of 4 files (366.2 KiB) below {} were touched 1 (4.9 KiB)",
        environment.display()
    ));
    let never = |path: &Path| {
        let name = path.to_str().expect("text");
        assert!(text.lines().any(|it| it.ends_with(name)), "{name} in\n{text}");
    };
    [environment.join("never"), environment.join("vain"), unused].iter().for_each(|it| never(it));
    let kept = fs::read_to_string(&list).expect("it was written");
    assert_eq!(kept, format!("{}\n", used.display()));
}
