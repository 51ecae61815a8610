//! Starting all ranks on this machine, with stand-ins for the daemon: shell scripts, and this test
//! program itself in another role.

#[path = "support/chain.rs"]
mod chain;
#[path = "support/patience.rs"]
mod patience;
#[path = "support/scratch.rs"]
mod scratch;

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use chain::chain;
use copper_launcher::{
    Instances, Job, Launched, LocalError, LocalPlan, Process, RankPlace, ReadyPipe, RunFolder,
    Secret, inherited_listener,
};
use patience::{BOUND, until};
use scratch::Scratch;

const ROLE: &str = "COPPER_TEST_ROLE";
const FOLDER: &str = "COPPER_TEST_FOLDER";
const RANK: &str = "COPPER_TEST_RANK";
const PEERS: &str = "COPPER_TEST_PEERS";
const SECRET: &str = "COPPER_TEST_SECRET_FILE";
const RANKS: &str = "COPPER_TEST_RANKS";

/// What every shell stand-in does first: it writes its process number down. `$1` is its rank, `$2`
/// the folder of the test, `$3` the file with the secret.
const PROLOGUE: &str = "set -u; echo $$ > $2/starting-$1; mv $2/starting-$1 $2/pid-$1;";

/// Reports, and stays.
const GOOD: &str = r#"echo '{"ready":true,"rank":'$1',"mount":"there"}'; exec sleep 600"#;

struct Bench {
    scratch: Scratch,
    script: String,
    ready_timeout: Duration,
}

impl Bench {
    fn new(script: &str) -> Bench {
        let script = format!("{PROLOGUE} {script}");
        Bench { scratch: Scratch::new(), script, ready_timeout: BOUND }
    }

    fn launch(&self, ranks: u32) -> Result<Launched, LocalError> {
        let arguments = |place: &RankPlace<'_>| -> Vec<OsString> {
            vec![
                place.rank.to_string().into(),
                self.scratch.path().into(),
                place.secret_file.into(),
            ]
        };
        let mut plan = plan(self.scratch.path(), ranks, &arguments);
        plan.exe = PathBuf::from("/bin/sh");
        plan.args_common = ["-c", &self.script, "stand-in"].map(OsString::from).into();
        plan.ready_timeout = self.ready_timeout;
        plan.launch(|_| {})
    }

    fn error(&self, ranks: u32) -> String {
        self.launch(ranks).expect_err("it fails").to_string()
    }

    /// Every stand-in that has started.
    fn pids(&self) -> Vec<u32> {
        pids(self.scratch.path())
    }

    fn nobody_is_left(&self) {
        for pid in self.pids() {
            assert_eq!(Process::of(pid), None, "a stand-in is left");
        }
        let run = fs::read_dir(self.scratch.path().join("run")).expect("there");
        assert_eq!(run.count(), 0, "the secret is left");
    }
}

fn plan<'a>(
    folder: &Path,
    ranks: u32,
    rank_args: &'a dyn Fn(&RankPlace<'_>) -> Vec<OsString>,
) -> LocalPlan<'a> {
    let instances = Instances::at(&folder.join("run")).expect("a folder of ours");
    let job = Job::parse("job-1").expect("valid");
    LocalPlan {
        exe: PathBuf::new(),
        mounts: (0..ranks).map(|rank| folder.join(rank.to_string())).collect(),
        folder: RunFolder::create(folder, &job, ["here"]).expect("ours"),
        run_directory: instances.path().to_owned(),
        secret: Secret::generate().expect("random bytes"),
        args_common: Vec::new(),
        rank_args,
        ready_timeout: BOUND,
    }
}

fn pids(folder: &Path) -> Vec<u32> {
    let names = fs::read_dir(folder).expect("there").map(|entry| entry.expect("there").path());
    names
        .filter(|path| {
            path.file_name().is_some_and(|it| it.as_encoded_bytes().starts_with(b"pid-"))
        })
        .map(|path| fs::read_to_string(path).expect("there").trim().parse().expect("a number"))
        .collect()
}

fn end(launched: &Launched) {
    let processes: Vec<Process> = launched.ranks.iter().map(|rank| rank.process).collect();
    for ended in Process::end_all(&processes, BOUND) {
        ended.expect("ours");
    }
}

#[test]
fn all_ranks_come_up_and_stay() {
    let bench = Bench::new(&format!("echo from $1 >&2; cp $3 $2/secret-$1; {GOOD}"));
    let launched = bench.launch(3).expect("all are good");
    assert_eq!(launched.ranks.len(), 3);
    for (index, rank) in launched.ranks.iter().enumerate() {
        assert_eq!(rank.rank.0 as usize, index);
        assert_eq!(rank.mount, bench.scratch.path().join(index.to_string()));
        assert!(rank.process.is_alive());
        assert_eq!(fs::read_to_string(&rank.log).expect("a log"), format!("from {index}\n"));
        let name = rank.log.file_name().expect("a name").to_string_lossy().into_owned();
        assert!(name.ends_with(&format!("-{}-output.log", rank.process.pid)), "{name}");
        let copy = bench.scratch.path().join(format!("secret-{index}"));
        Secret::from_file(&copy).expect("each could read the secret");
    }
    let logs = fs::read_dir(bench.scratch.path().join("job-1/logs")).expect("there");
    assert_eq!(logs.count(), 4, "three logs and node_file.txt");
    end(&launched);
    bench.nobody_is_left();
}

#[test]
fn a_rank_s_own_reason_is_given_and_the_others_are_ended() {
    let bench = Bench::new(&format!(
        r#"if [ $1 = 1 ]; then echo '{{"error":"rank 1: no /dev/fuse here"}}'; exit 1; fi; {GOOD}"#
    ));
    assert_eq!(bench.error(3), "rank 1: no /dev/fuse here");
    assert_eq!(bench.pids().len(), 3);
    bench.nobody_is_left();
}

#[test]
fn all_reasons_that_come_together_are_given() {
    let bench = Bench::new(r#"echo '{"error":"no /dev/fuse here"}'; read word <&1"#);
    assert_eq!(bench.error(2), "rank 0: no /dev/fuse here; rank 1: no /dev/fuse here");
    bench.nobody_is_left();
}

#[test]
fn a_rank_that_dies_without_a_word_is_given_with_its_status_and_last_line() {
    let bench = Bench::new(&format!(
        "if [ $1 = 2 ]; then echo first >&2; echo last words >&2; echo >&2; exit 3; fi; {GOOD}"
    ));
    let error = bench.error(3);
    assert!(error.starts_with("rank 2 ended (exit status: 3) without a reason; the"), "{error}");
    assert!(error.ends_with("-output.log is: last words"), "{error}");
    bench.nobody_is_left();
}

#[test]
fn a_rank_that_dies_after_it_was_ready_fails_the_launch() {
    let bench = Bench::new(&format!(
        r#"if [ $1 = 0 ]; then echo '{{"ready":true,"rank":0,"mount":"there"}}'; kill -9 $$; fi;
        if [ $1 = 1 ]; then read word <&1; exit; fi; {GOOD}"#
    ));
    let error = bench.error(2);
    assert!(error.starts_with("rank 0 ended (signal: 9 (SIGKILL)) without a reason"), "{error}");
    assert!(error.ends_with("is empty"), "{error}");
    bench.nobody_is_left();
}

#[test]
fn a_rank_that_hangs_is_named_when_the_time_is_up_and_killed() {
    let mut bench = Bench::new(&format!(
        "if [ $1 = 1 ]; then trap '' TERM; echo waiting for the source >&2; : > $2/trapped; \
         exec sleep 600; fi; while ! [ -e $2/trapped ]; do sleep 0.01; done; {GOOD}"
    ));
    bench.ready_timeout = Duration::from_millis(1500);
    let start = Instant::now();
    let error = bench.error(2);
    assert!(error.starts_with("rank 1 was not ready within 1.5 s; the last line of"), "{error}");
    assert!(error.ends_with("is: waiting for the source"), "{error}");
    assert!(start.elapsed() >= Duration::from_secs(4), "3 s of grace");
    bench.nobody_is_left();
}

#[test]
fn a_report_of_another_rank_and_chatter_are_no_report() {
    let mut bench = Bench::new(
        r#"echo 'hello'; echo '{"ready":true,"rank":7,"mount":"x"}'; echo '{"ready":false,"rank":0,"mount":"x"}';
        read word <&1"#,
    );
    bench.ready_timeout = Duration::from_millis(300);
    assert!(bench.error(1).starts_with("rank 0 was not ready within 0.3 s"));
    bench.nobody_is_left();
}

#[test]
fn a_program_that_is_not_there_is_named() {
    let scratch = Scratch::new();
    let arguments = |_: &RankPlace<'_>| Vec::new();
    let mut plan = plan(scratch.path(), 2, &arguments);
    plan.exe = scratch.path().join("copper");
    let error = chain(&plan.launch(|_| {}).expect_err("no such program"));
    let expected = format!("cannot start rank 0 as {}: No such file", plan.exe.display());
    assert!(error.starts_with(&expected), "{error}");
    plan.mounts.clear();
    assert!(matches!(plan.launch(|_| {}), Err(LocalError::NoRanks)));
    let logs = fs::read_dir(scratch.path().join("job-1/logs")).expect("there").count();
    assert_eq!(logs, 1, "node_file.txt alone");
}

#[test]
fn what_a_killed_launcher_left_of_its_secret_is_removed_by_the_next() {
    let bench = Bench::new(GOOD);
    let instances = Instances::at(&bench.scratch.path().join("run")).expect("ours");
    let secret = |process: Process| {
        let name = format!("{}-{}-0.secret", process.pid, process.pid_started);
        instances.path().join(name)
    };
    let current = Process::current().expect("/proc");
    let dead = secret(Process { pid_started: current.pid_started - 1, ..current });
    let alive = secret(Process::of(1).expect("there is always one"));
    fs::write(&dead, "").expect("ours");
    fs::write(&alive, "").expect("ours");
    end(&bench.launch(1).expect("good"));
    assert!(!dead.exists() && alive.exists());
}

/// Not a test: this program in the role that the environment gives to it.
#[test]
fn in_another_role() {
    match std::env::var(ROLE).as_deref() {
        Ok("daemon") => daemon(),
        Ok("launcher") => launcher(),
        Ok(_) | Err(_) => {}
    }
}

fn variable(name: &str) -> String {
    std::env::var(name).expect(name)
}

/// As `copper serve` does it.
fn daemon() {
    let folder = PathBuf::from(variable(FOLDER));
    let rank: u32 = variable(RANK).parse().expect("a number");
    let pipe = ReadyPipe::from_fd(1).expect("a launcher");
    pipe.watch(|| std::process::exit(7)).expect("a thread");
    let listener = inherited_listener(0).expect("a socket");
    let peers = copper_launcher::Peers::parse(&variable(PEERS)).expect("a list");
    let address = peers.resolve(copper_proto::Rank(rank)).expect("an address");
    assert_eq!(listener.local_addr().expect("bound"), address);
    Secret::from_file(Path::new(&variable(SECRET))).expect("a secret");
    let log_name = format!("-{}-output.log", std::process::id());
    until("the log has its name", || {
        let log = copper_launcher::job::own_log().expect("standard error is a file");
        log.to_string_lossy().ends_with(&log_name)
    });
    let pid = format!("{}\n", std::process::id());
    fs::write(folder.join(format!("starting-{rank}")), pid).expect("ours");
    if rank == 0 {
        pipe.ready(copper_proto::Rank(0), &folder).expect("the launcher is there");
    }
    fs::rename(folder.join(format!("starting-{rank}")), folder.join(format!("pid-{rank}")))
        .expect("ours");
    loop {
        std::thread::park();
    }
}

/// Starts daemons of which only the first ever reports.
fn launcher() {
    let _ = launch_daemons(Path::new(&variable(FOLDER)), variable(RANKS).parse().expect("number"));
}

fn launch_daemons(folder: &Path, ranks: u32) -> Result<Launched, LocalError> {
    let exe = std::env::current_exe().expect("/proc");
    let set = |name: &str, value: &str| OsString::from(format!("{name}={value}"));
    let arguments = |place: &RankPlace<'_>| -> Vec<OsString> {
        assert_eq!((place.listen_fd, place.ready_fd), (0, 1));
        vec![
            set(ROLE, "daemon"),
            set(FOLDER, folder.to_str().expect("text")),
            set(RANK, &place.rank.to_string()),
            set(PEERS, &place.peers.to_string()),
            set(SECRET, place.secret_file.to_str().expect("text")),
            exe.clone().into(),
            "--exact".into(),
            "in_another_role".into(),
            "--nocapture".into(),
        ]
    };
    let mut plan = plan(folder, ranks, &arguments);
    plan.exe = PathBuf::from("/usr/bin/env");
    plan.launch(|_| {})
}

#[test]
fn a_daemon_takes_its_socket_and_its_channel_over_and_outlives_the_launcher() {
    let scratch = Scratch::new();
    let launched = launch_daemons(scratch.path(), 1).expect("rank 0 reports");
    until("it is up", || pids(scratch.path()).len() == 1);
    // Were it not released, the end of the launch would end it now.
    std::thread::sleep(Duration::from_millis(300));
    assert!(launched.ranks[0].process.is_alive());
    end(&launched);
}

#[test]
fn a_killed_launcher_leaves_nothing_not_even_ranks_that_were_ready() {
    let scratch = Scratch::new();
    let mut launcher = Command::new(std::env::current_exe().expect("/proc"))
        .args(["--exact", "in_another_role", "--nocapture"])
        .env(ROLE, "launcher")
        .env(FOLDER, scratch.path())
        .env(RANKS, "3")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("this program");
    until("three daemons are up", || pids(scratch.path()).len() == 3);
    let daemons: Vec<Process> = pids(scratch.path()).into_iter().filter_map(Process::of).collect();
    assert_eq!(daemons.len(), 3);
    launcher.kill().expect("a child");
    launcher.wait().expect("a child");
    until("the daemons are gone", || !daemons.iter().any(Process::is_alive));
}
