//! The flight recorder: what happened last can be written down, followed through the tree, and taken
//! along.

#[path = "support/harness.rs"]
mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use support::command::run;
use support::job::copper;
use support::{Job, Options, Scratch, Tree, eventually};

const BOUND: Duration = Duration::from_secs(30);

struct World {
    job: Job,
    file: PathBuf,
    scratch: Scratch,
}

impl World {
    /// Rank 3 hangs on 1, and that on the root.
    fn new() -> World {
        let scratch = Scratch::new();
        let tree = Tree::new(&scratch);
        tree.directory("data");
        let file = tree.file("data/file", 3 << 20);
        let job = Job::launch_with(&scratch, 4, &Options::with(&["--fanout", "2"]));
        World { job, file, scratch }
    }

    fn read(&self, rank: u32) {
        let bytes = fs::read(self.job.view(rank, &self.file)).expect("it is there");
        assert_eq!(bytes, fs::read(&self.file).expect("it is ours"));
    }

    fn flights(&self) -> Vec<PathBuf> {
        let logs = fs::read_dir(self.scratch.path().join("logs")).expect("the runs' folder");
        let runs = logs.map(|run| run.expect("it is ours").path().join("flight"));
        let files = runs.filter_map(|folder| fs::read_dir(folder).ok()).flatten();
        let files = files.map(|file| file.expect("it is ours").path());
        files.filter(|file| file.extension().is_some_and(|it| it == "jsonl")).collect()
    }
}

fn events(file: &Path) -> Vec<Value> {
    let text = fs::read_to_string(file).expect("it is whole");
    text.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
}

#[test]
fn a_request_is_followed_from_its_reader_to_the_source_and_back() {
    let world = World::new();
    world.read(3);
    let mut trace = copper(&world.scratch);
    let trace = trace.args(["trace", "--follow", "3", "-v"]).arg(&world.job.directory);
    let path = world.file.to_str().expect("UTF-8");
    let traced = run(trace.args(["--path", path]), BOUND);
    let said = traced.stdout();
    assert!(traced.status.success(), "{said}{}", traced.stderr());
    let step = |words: &str| {
        said.lines()
            .position(|line| line.contains(words))
            .unwrap_or_else(|| panic!("{words}: {said}"))
    };
    let order = ["rank 3: want", "rank 1: asked rank 3", "rank 0: asked rank 1", "rank 3: answer"];
    assert!(order.map(step).is_sorted(), "{said}");
    let nothing = run(
        copper(&world.scratch)
            .args(["trace", "--follow", "3", "--path", "/no/such", "-v"])
            .arg(&world.job.directory),
        BOUND,
    );
    assert!(
        !nothing.status.success() && nothing.stderr().contains("no such request"),
        "{}",
        nothing.stderr()
    );
    let folder = world.flights().pop().expect("it was written");
    let mut again = copper(&world.scratch);
    again.args(["trace", "--follow", "3", "--from"]).arg(folder.parent().expect("a folder"));
    assert!(run(&mut again, BOUND).status.success());
}

#[test]
fn a_signal_has_a_rank_write_down_what_happened_last() {
    let world = World::new();
    world.read(1);
    world.job.daemons[1].signal(Signal::USR2);
    let file = eventually(BOUND, "the file is there", || world.flights().pop());
    let lines = events(&file);
    assert_eq!((&lines[0]["rank"], &lines[0]["why"]), (&1.into(), &"asked for".into()));
    let said = |what: &str| lines.iter().filter(|line| line["what"] == what).count();
    assert!(said("link-up") >= 2, "{lines:?}");
    assert_eq!(said("pull"), said("pulled"), "all have ended: {lines:?}");
    assert!(said("pull") >= 3 && said("want") >= 1, "{lines:?}");
}

#[test]
fn everything_of_a_run_is_collected_but_secrets() {
    let world = World::new();
    world.read(2);
    let archive = world.scratch.path().join("all.tar.gz");
    let mut collect = copper(&world.scratch);
    collect.args(["collect", "-v"]).arg(&world.job.directory).arg("-o").arg(&archive);
    collect.env("SLURM_SECRET", "do-not-show").env("SLURM_JOB_ID", "17");
    let collected = run(&mut collect, BOUND);
    assert!(collected.status.success(), "{}", collected.stderr());
    let unpacked = world.scratch.path().join("unpacked");
    fs::create_dir(&unpacked).expect("it is ours");
    let mut tar = std::process::Command::new("tar");
    assert!(run(tar.arg("-xzf").arg(&archive).arg("-C").arg(&unpacked), BOUND).status.success());
    let read = |name: &str| fs::read_to_string(unpacked.join(name)).expect(name);
    let status: Value = serde_json::from_str(&read("status.json")).expect("JSON");
    assert_eq!(status["ranks"].as_array().map(Vec::len), Some(4));
    assert!(read("versions.txt").starts_with("copper "));
    let environment = read("environment.txt");
    assert!(environment.contains("SLURM_JOB_ID=17\n") && !environment.contains("do-not-show"));
    let count = |name: &str| fs::read_dir(unpacked.join(name)).expect(name).count();
    assert!(count("logs") >= 4 && count("flight") == 4);
    // What it made beside the run's files is gone again.
    let run_folder =
        world.flights()[0].parent().and_then(Path::parent).expect("the run").to_owned();
    let left =
        fs::read_dir(run_folder).expect("it is ours").map(|it| it.expect("it is ours").file_name());
    assert!(left.into_iter().all(|name| !name.to_string_lossy().starts_with("collected")));
    let nobody = run(
        copper(&world.scratch).args(["collect", "-v"]).arg(world.scratch.path().join("x")),
        BOUND,
    );
    assert!(
        !nobody.status.success() && nobody.stderr().lines().count() == 1,
        "{}",
        nobody.stderr()
    );
}
