//! Files that the kernel reads by itself: `--passthrough`, where the kernel and the user's rights
//! allow it.

#[path = "support/harness.rs"]
mod support;

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use support::tree::BLOCK;
use support::{Job, Options, Random, Scratch, Tree, User, is_root, run, say, shell, within};

const BOUND: Duration = Duration::from_secs(60);

/// What the status says of it for each rank.
fn passthrough(job: &Job) -> Vec<String> {
    let status = job.status();
    let text =
        |rank| status.rank(rank)["kernel"]["passthrough"].as_str().expect("a text").to_owned();
    (0..job.ranks()).map(text).collect()
}

/// The line for people.
fn kernel_line(scratch: &Scratch, job: &Job) -> String {
    let mut command = support::job::copper(scratch);
    let table = run(command.arg("status").arg("-v").arg(&job.directory), BOUND).success();
    let line = table.lines().find(|line| line.starts_with("kernel of rank"));
    line.expect("there is one").to_owned()
}

#[test]
fn files_that_the_kernel_reads_by_itself_have_the_source_s_bytes() {
    let scratch = Scratch::new();
    let tree = Tree::new(&scratch);
    let sizes = [0, 1, 4096, 8193, BLOCK as usize + 1, 9_999_999, 10_000_000, 10_000_001];
    let mut files: Vec<PathBuf> =
        sizes.iter().map(|&size| tree.file(format!("size-{size}"), size)).collect();
    files.extend((0..300).map(|index| tree.file(format!("file-{index}"), 1 + index * 997)));
    let job = Job::launch_with(&scratch, 2, &Options::with(&["--passthrough"]));
    for _ in 0..2 {
        // Four processes' worth of readers on each rank, all at once, each in its own order.
        std::thread::scope(|scope| {
            for (reader, mut random) in (0..8).map(|reader| (reader, Random::seeded())) {
                let mut files = files.clone();
                let job = &job;
                scope.spawn(move || {
                    for _ in 0..=reader {
                        random.shuffle(&mut files);
                    }
                    let shown = |path: &PathBuf| job.view(reader % 2, path);
                    let pairs: Vec<_> =
                        files.iter().map(|path| (shown(path), path.clone())).collect();
                    within(BOUND, "reading", move || {
                        for (shown, source) in pairs {
                            let read = fs::read(&shown);
                            let read = read.unwrap_or_else(|e| panic!("{}: {e}", shown.display()));
                            let right = read == fs::read(&source).expect("it is ours");
                            assert!(right, "{} has other bytes", shown.display());
                        }
                    });
                });
            }
        });
    }
    let status = job.status();
    for (rank, said) in passthrough(&job).into_iter().enumerate() {
        let counter =
            |name: &str| status.counter(u32::try_from(rank).expect("few"), &format!("fuse.{name}"));
        assert_eq!(counter("expired"), 0);
        if said == "on" {
            assert!(counter("passthrough") > counter("backings"), "some were shared");
            assert!(counter("backings") >= 200, "of most small files there was one");
            assert_eq!(counter("backings_failed"), 0);
        } else {
            say(&format!("nothing is handed over here: {said}"));
            assert!(said.starts_with("off: "), "{said}");
            assert_eq!(counter("passthrough"), 0);
        }
        assert!(kernel_line(&scratch, &job).contains(&format!("passthrough: {said}")));
    }
}

#[test]
fn where_it_cannot_be_files_are_opened_as_ever_and_the_status_says_why() {
    if !is_root() {
        say("not root: the test above has shown it");
        return;
    }
    let scratch = Scratch::new();
    let tree = Tree::new(&scratch);
    let file = tree.file("file", 100_000);
    let options = Options { user: User::nobody(&scratch), ..Options::with(&["--passthrough"]) };
    let job = Job::launch_with(&scratch, 2, &options);
    let shown = job.view(1, &file);
    let script = shell(r#"cmp "$1" "$2""#, [&file, &shown]);
    let mut command = options.user.command("sh");
    run(command.args(script.get_args()), BOUND).success();
    for said in passthrough(&job) {
        assert!(said.starts_with("off: "), "{said}");
    }
    assert_eq!(job.status().counter(1, "fuse.passthrough"), 0);
}

#[test]
fn nobody_gets_it_unasked() {
    let scratch = Scratch::new();
    let tree = Tree::new(&scratch);
    let file = tree.file("file", 1000);
    let options = Options { arguments: Vec::new(), ..Options::default() };
    let job = Job::launch_with(&scratch, 1, &options);
    let mut command = Command::new("cmp");
    run(command.arg(&file).arg(job.view(0, &file)), BOUND).success();
    assert_eq!(passthrough(&job), ["off"]);
    assert!(!kernel_line(&scratch, &job).contains("passthrough"));
}
