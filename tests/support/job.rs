//! A local launch, from its start to the proof that nothing is left of it.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use super::command::{Ended, run};
use super::process::{Process, guardians};
use super::user::User;
use super::{Scratch, Status, eventually, say};

/// The program under test.
pub(crate) const COPPER: &str = env!("CARGO_BIN_EXE_copper");

/// How long a launch may take: a debug build beside other tests on a small machine.
const LAUNCH_BOUND: Duration = Duration::from_secs(60);

/// How long `copper stop` may take.
const STOP_BOUND: Duration = Duration::from_secs(20);

/// How long guardians and the kernel may take after that.
const LEFTOVER_BOUND: Duration = Duration::from_secs(5);

/// Further arguments of every launch, so that tests run again in another setting: a list separated
/// by spaces.
const LAUNCH_VARIABLE: &str = "COPPER_TEST_LAUNCH";

/// How a job is launched.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) memory: &'static str,
    /// Whether ranks that are no root may read the source: `none` or `direct`.
    pub(crate) source: &'static str,
    pub(crate) log_level: &'static str,
    /// Further arguments of `copper launch`.
    pub(crate) arguments: Vec<OsString>,
    pub(crate) user: User,
}

impl Default for Options {
    fn default() -> Options {
        let further = std::env::var(LAUNCH_VARIABLE).unwrap_or_default();
        let arguments = further.split_whitespace().map(OsString::from).collect();
        Options { memory: "64MiB", source: "none", log_level: "info", arguments, user: User::Own }
    }
}

impl Options {
    pub(crate) fn with(arguments: &[&str]) -> Options {
        let mut options = Options::default();
        options.arguments.extend(arguments.iter().map(OsString::from));
        options
    }
}

/// A running job. Dropped, it is stopped, and nothing may be left of it.
#[derive(Debug)]
pub(crate) struct Job {
    scratch: PathBuf,
    pub(crate) directory: PathBuf,
    pub(crate) views: Vec<PathBuf>,
    pub(crate) daemons: Vec<Process>,
    pub(crate) guardians: Vec<Process>,
    user: User,
    stopped: bool,
}

/// `copper` for a test: with a register of its own, and no word of the environment.
pub(crate) fn copper(scratch: &Scratch) -> Command {
    copper_as(scratch.path(), &User::Own)
}

fn copper_as(scratch: &Path, user: &User) -> Command {
    let mut command = match user {
        User::Own => user.command(COPPER),
        User::Other(..) => user.command(program_for_others(scratch)),
    };
    command.env("COPPER_RUN_DIR", scratch.join("run")).env_remove("COPPER_LOG").current_dir("/");
    command
}

/// The program may have been built where only its builder can go.
fn program_for_others(scratch: &Path) -> PathBuf {
    let path = scratch.join("copper");
    if !path.exists() {
        fs::copy(COPPER, &path).expect("there is room for the program");
    }
    path
}

/// The arguments of a launch of `ranks` on `directory`.
pub(crate) fn launch_command(
    scratch: &Scratch,
    directory: &Path,
    ranks: u32,
    options: &Options,
) -> Command {
    let mut command = copper_as(scratch.path(), &options.user);
    command.args(["launch", "--source", options.source, "--net", "tcp"]);
    command.args(["-l", options.log_level]);
    command.args(["--local", &ranks.to_string(), "--memory", options.memory]);
    command.arg("-v").arg(directory).arg("-d").arg(scratch.join("logs"));
    command.args(&options.arguments);
    command
}

impl Job {
    /// Launches at `views` in the test's folder.
    #[track_caller]
    pub(crate) fn launch(scratch: &Scratch, ranks: u32) -> Job {
        Job::launch_with(scratch, ranks, &Options::default())
    }

    #[track_caller]
    pub(crate) fn launch_with(scratch: &Scratch, ranks: u32, options: &Options) -> Job {
        Job::launch_at(scratch, &scratch.join("views"), ranks, options)
    }

    #[track_caller]
    pub(crate) fn launch_at(
        scratch: &Scratch,
        directory: &Path,
        ranks: u32,
        options: &Options,
    ) -> Job {
        let mut job = Job {
            scratch: scratch.path().to_owned(),
            directory: directory.to_owned(),
            views: (0..ranks).map(|rank| directory.join(rank.to_string())).collect(),
            daemons: Vec::new(),
            guardians: Vec::new(),
            user: options.user.clone(),
            stopped: false,
        };
        let ended = run(&mut launch_command(scratch, directory, ranks, options), LAUNCH_BOUND);
        let printed = ended.success();
        assert!(printed.contains(&format!("{ranks} of {ranks} ranks ready")), "{printed}");
        let status = job.status();
        assert_eq!(status.ranks().len(), ranks as usize, "{}", status.json);
        for rank in 0..ranks {
            let pid = u32::try_from(status.counter(rank, "pid")).expect("a process number");
            job.daemons.push(Process::of(pid).expect("it runs"));
        }
        let pids: Vec<u32> = job.daemons.iter().map(|daemon| daemon.pid).collect();
        job.guardians = guardians(&pids);
        assert_eq!(job.guardians.len(), ranks as usize, "each daemon has a guardian");
        job
    }

    /// What a rank's view shows of an absolute path.
    #[track_caller]
    pub(crate) fn view(&self, rank: u32, path: &Path) -> PathBuf {
        self.views[rank as usize].join(path.strip_prefix("/").expect("an absolute path"))
    }

    pub(crate) fn ranks(&self) -> u32 {
        u32::try_from(self.views.len()).expect("few")
    }

    #[track_caller]
    pub(crate) fn status(&self) -> Status {
        let mut command = copper_as(&self.scratch, &self.user);
        command.args(["status", "--json", "-v"]).arg(&self.directory);
        let ended = run(&mut command, Duration::from_secs(10));
        let json = serde_json::from_slice(&ended.stdout);
        Status { json: json.unwrap_or_else(|error| panic!("{error}: {ended:?}")) }
    }

    /// `kill -9` of a daemon; its guardian removes the mount.
    pub(crate) fn kill(&self, rank: u32) {
        let daemon = &self.daemons[rank as usize];
        daemon.signal(Signal::KILL);
        assert!(daemon.wait(Duration::from_secs(5)), "it does not die");
    }

    /// `kill -9` of a daemon and its guardian: its mount stays, dead.
    pub(crate) fn kill_with_guardian(&self, rank: u32) {
        let pid = self.daemons[rank as usize].pid;
        for guardian in guardians(&[pid]) {
            guardian.signal(Signal::KILL);
            assert!(guardian.wait(Duration::from_secs(5)), "it does not die");
        }
        self.kill(rank);
    }

    /// All its daemons have died: it is left as it is.
    pub(crate) fn abandon(mut self) {
        self.stopped = true;
    }

    pub(crate) fn stop_command(&self) -> Command {
        let mut command = copper_as(&self.scratch, &self.user);
        command.arg("stop").arg("-v").arg(&self.directory);
        command
    }

    /// Stops it and checks that nothing is left.
    #[track_caller]
    pub(crate) fn stop(&mut self) -> String {
        self.stopped = true;
        let ended = self.try_stop();
        let printed = ended.success();
        self.assert_nothing_left();
        printed
    }

    fn try_stop(&self) -> Ended {
        for daemon in &self.daemons {
            daemon.signal(Signal::CONT);
        }
        run(&mut self.stop_command(), STOP_BOUND)
    }

    /// No process, no mount, no mount point, no record.
    #[track_caller]
    pub(crate) fn assert_nothing_left(&self) {
        for process in self.daemons.iter().chain(&self.guardians) {
            assert!(process.wait(LEFTOVER_BOUND), "process {} is left", process.pid);
        }
        eventually(LEFTOVER_BOUND, "no mount is left", || {
            self.user.mounts_below(&self.directory).is_empty().then_some(())
        });
        for view in &self.views {
            assert!(!view.exists(), "the mount point {} is left", view.display());
        }
        assert!(!self.directory.exists(), "the folder of the mount points is left");
        assert_eq!(register_of(&self.scratch, &self.directory), Vec::<PathBuf>::new(), "register");
    }

    /// By force, after something has failed.
    fn clean(&self) {
        let all = self.daemons.iter().chain(&self.guardians);
        all.for_each(|process| process.signal(Signal::KILL));
        for point in self.user.mounts_below(&self.directory).into_iter().rev() {
            let mut command = self.user.command("fusermount3");
            let ended = run(command.args(["-u", "-z", "--"]).arg(&point), Duration::from_secs(5));
            say(&format!("unmounted by force: {} {}", point.display(), ended.stderr()));
        }
    }

    fn logs(&self) {
        let Ok(runs) = fs::read_dir(self.scratch.join("logs")) else { return };
        for run in runs.flatten() {
            let Ok(logs) = fs::read_dir(run.path().join("logs")) else { continue };
            for log in logs.flatten().map(|log| log.path()) {
                let text = fs::read_to_string(&log).unwrap_or_default();
                let lines: Vec<&str> = text.lines().collect();
                let last = &lines[lines.len().saturating_sub(40)..];
                say(&format!("--- {}\n{}", log.display(), last.join("\n")));
            }
        }
    }
}

/// What the register has for the launch at `directory`, and what belongs to nobody.
fn register_of(scratch: &Path, directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(scratch.join("run")) else { return Vec::new() };
    let files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    let belongs_to_others = |file: &PathBuf| {
        let record = fs::read(file.with_extension("json")).ok();
        let record = record.and_then(|text| serde_json::from_slice::<Value>(&text).ok());
        let mount = record.and_then(|record| Some(PathBuf::from(record["mount"].as_str()?)));
        mount.is_some_and(|mount| !mount.starts_with(directory))
    };
    files.into_iter().filter(|file| !belongs_to_others(file)).collect()
}

impl Drop for Job {
    fn drop(&mut self) {
        if std::thread::panicking() {
            say(&format!(
                "--- the daemons' logs of the failed test ({})",
                self.directory.display()
            ));
            self.logs();
            let stop = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.try_stop()));
            if let Ok(ended) = stop {
                say(&format!("--- copper stop: {} {}", ended.status, ended.stderr()));
            }
            let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.clean()));
        } else if !self.stopped {
            let stop = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.stop()));
            if let Err(panic) = stop {
                self.logs();
                self.clean();
                std::panic::resume_unwind(panic);
            }
        }
    }
}
