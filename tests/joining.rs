//! Ranks that are started one by one, as a launcher on several hosts does it.

#[path = "support/harness.rs"]
mod support;

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};
use support::job::copper;
use support::{Running, Scratch, eventually, mounts, run};

const BOUND: Duration = Duration::from_secs(60);

const SECRET: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// Ranks of one job, none of them started.
struct Crew {
    scratch: Scratch,
    peers: String,
    size: u32,
}

impl Crew {
    fn new(size: u32) -> Crew {
        let any = || TcpListener::bind("127.0.0.1:0").expect("there is a loopback interface");
        let ports: Vec<TcpListener> = (0..size).map(|_| any()).collect();
        let addresses = ports.iter().map(|port| port.local_addr().expect("bound").to_string());
        let peers = addresses.collect::<Vec<_>>().join(",");
        Crew { scratch: Scratch::new(), peers, size }
    }

    fn view(&self, rank: u32) -> PathBuf {
        self.scratch.join("views").join(rank.to_string())
    }

    /// As on a machine of its own: no rank finds another in the register.
    fn machine(&self, rank: u32) -> Command {
        let mut command = copper(&self.scratch);
        command.env("COPPER_RUN_DIR", self.scratch.join(&format!("run-{rank}")));
        command
    }

    fn serve(&self, rank: u32) -> Command {
        let mut command = self.machine(rank);
        command.args(["serve", "--net", "tcp", "--memory", "64MiB", "--job", "it", "-l", "warn"]);
        command.args(["--fanout", "2", "--peers", &self.peers]).env("COPPER_SECRET", SECRET);
        command.args(["--rank", &rank.to_string(), "--size", &self.size.to_string()]);
        command.arg("-v").arg(self.view(rank));
        command
    }

    fn start(&self, rank: u32) -> Running {
        Running::start(&mut self.serve(rank))
    }

    /// What is said on the machine of a rank.
    fn status(&self, rank: u32) -> Value {
        let mut command = self.machine(rank);
        command.args(["status", "--json", "-v"]).arg(self.scratch.join("views"));
        serde_json::from_str(&run(&mut command, BOUND).success()).expect("it is JSON")
    }

    fn await_mount(&self, rank: u32) {
        let mounted = || (!mounts::below(&self.view(rank)).is_empty()).then_some(());
        eventually(BOUND, "the view is mounted", mounted);
    }

    /// The last first, so that none is told to end.
    fn end(&self, ranks: Vec<Running>) {
        for daemon in ranks.into_iter().rev() {
            daemon.process.signal(Signal::TERM);
            let ended = daemon.finish(BOUND);
            assert!(ended.status.success(), "{}", ended.stderr());
        }
        assert_eq!(mounts::below(self.scratch.path()), Vec::<PathBuf>::new());
    }
}

#[test]
fn rank_0_says_how_far_the_job_has_come_and_who_is_missing() {
    let crew = Crew::new(4);
    let (launcher, daemon) = UnixStream::pair().expect("a pair");
    launcher.set_read_timeout(Some(BOUND)).expect("a bound");
    let stdout = Stdio::from(OwnedFd::from(daemon));
    let mut command = crew.serve(0);
    let mut ranks = vec![Running::start_saying(command.args(["--ready-fd", "1"]), stdout)];
    drop(command);
    let mut said = Vec::new();
    let mut lines = BufReader::new(launcher).lines();
    let mut hear = |missing: &[u32]| loop {
        let line = lines.next().expect("it lives").expect("in time");
        let line: Value = serde_json::from_str(&line).expect("it is JSON");
        said.push(line.clone());
        let progress = &line["progress"];
        if *progress == Value::Null {
            assert!(line["ready"] == true && line["rank"] == 0, "{line}");
        } else if progress["missing"] == json!(missing) {
            let ready = 4 - missing.len();
            let expected = json!({"ready": ready, "size": 4, "depth": 2, "missing": missing});
            return assert_eq!(*progress, expected);
        }
        assert!(said.len() < 12, "{said:?}");
    };
    hear(&[1, 2, 3]);
    let reported = || crew.status(0)["ranks"][0]["progress"].clone();
    assert_eq!(reported(), json!({"ready": 1, "size": 4, "depth": 2, "missing": [1, 2, 3]}));
    ranks.push(crew.start(1));
    hear(&[2, 3]);
    ranks.push(crew.start(2));
    hear(&[3]);
    ranks.push(crew.start(3));
    hear(&[]);
    assert_eq!(reported(), json!({"ready": 4, "size": 4, "depth": 2, "missing": []}));
    assert_eq!(crew.status(1)["ranks"][1]["progress"], Value::Null, "rank 0 counts");
    (0..4).for_each(|rank| crew.await_mount(rank));
    crew.end(ranks);
}

#[test]
fn the_status_shows_every_rank_on_any_machine_and_names_those_that_do_not_answer() {
    let crew = Crew::new(4);
    let mut ranks: Vec<Running> = (0..4).map(|rank| crew.start(rank)).collect();
    (0..4).for_each(|rank| crew.await_mount(rank));
    let states = |asked: u32| {
        let status = crew.status(asked);
        let ranks = status["ranks"].as_array().expect("a list").clone();
        let state = |rank: &Value| rank["state"].as_str().expect("text").to_owned();
        ranks.iter().map(state).collect::<Vec<_>>()
    };
    eventually(BOUND, "all are ready", || (states(0) == ["ready"; 4]).then_some(()));
    for asked in 0..4 {
        let status = crew.status(asked);
        let listed = status["ranks"].as_array().expect("a list");
        assert_eq!(listed.len(), 4, "asked on the machine of rank {asked}: {status}");
        for (rank, value) in (0_u32..).zip(listed) {
            assert_eq!(value["rank"], rank);
            assert_eq!(value["state"], "ready");
            let via = if rank == asked { Value::Null } else { Value::from(asked) };
            assert_eq!(value["via"], via, "rank {rank} asked by {asked}");
            assert_eq!(value["pid"], ranks[rank as usize].process.pid);
            assert_eq!(value["parent"], json!([null, 0, 0, 1])[rank as usize]);
            assert!(value["source"]["opens"].is_u64() && value["mount"].is_string());
        }
    }
    let table = |asked: u32| {
        let mut command = crew.machine(asked);
        let ended = run(command.args(["status", "-v"]).arg(crew.scratch.join("views")), BOUND);
        assert!(ended.status.success());
        (ended.stdout(), ended.stderr())
    };
    let (shown, said) = table(3);
    assert_eq!(shown.lines().filter(|line| line.contains(" ready ")).count(), 4, "{shown}");
    assert_eq!(said, "");
    // One that does not answer holds nobody up, and is named.
    ranks[3].process.signal(Signal::STOP);
    assert_eq!(states(2), ["ready", "ready", "ready", "no answer"]);
    ranks[3].process.signal(Signal::CONT);
    eventually(BOUND, "it answers again", || (states(2) == ["ready"; 4]).then_some(()));
    // Without the root a rank speaks for its own machine only, and says so.
    let root = ranks.remove(0);
    root.process.signal(Signal::KILL);
    let _killed = root.finish(BOUND);
    let said = eventually(BOUND, "the root is missed", || {
        let (_, said) = table(1);
        said.contains("only the ranks of this machine").then_some(said)
    });
    assert!(said.contains("rank 1") && said.lines().count() == 1, "{said}");
    assert_eq!(states(1).len(), 1);
    let missing = || mounts::below(&crew.view(0)).is_empty().then_some(());
    eventually(BOUND, "its guardian unmounts", missing);
    crew.end(ranks);
}
