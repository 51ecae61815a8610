//! Daemons between their start and the end of the launch, as their launcher or agent sees them.

use std::ffi::OsString;
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use copper_proto::Rank;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tracing::debug;

use crate::job::{RunFolder, host_name};
use crate::local::{Launched, LaunchedRank};
use crate::process::Process;
use crate::ready::{ProgressReport, Report};
use crate::release::Release;
use crate::secret::SECRET_VARIABLE;

/// How long a daemon has to unmount and end before it is killed.
const END_GRACE: Duration = Duration::from_secs(3);

/// How long the launcher listens for further reasons once one rank has failed: ranks fail together
/// where FUSE or the provider is missing.
const FAILURE_SETTLE: Duration = Duration::from_millis(200);

/// How often it is asked whether the launch is still wanted.
const LOOK: Duration = Duration::from_millis(100);

/// What a daemon may say before its report.
const REPORT_BYTES_MAX: usize = 64 << 10;

/// How much of the end of a log is read to find its last line.
const LOG_TAIL_BYTES: u64 = 4096;

/// A daemon to be started.
pub(crate) struct Birth<'a> {
    pub(crate) exe: &'a Path,
    pub(crate) arguments: Vec<OsString>,
    pub(crate) rank: Rank,
    pub(crate) mount: &'a Path,
    /// Its standard input.
    pub(crate) input: OwnedFd,
    pub(crate) folder: &'a RunFolder,
    pub(crate) release: &'a Release,
}

impl Birth<'_> {
    fn spawn(self) -> Result<Daemon, SpawnError> {
        let rank = self.rank;
        let failed = |source| SpawnError::Spawn { rank, exe: self.exe.to_owned(), source };
        let host = host_name();
        // The name that it is to have holds a process number that is not known yet.
        let starting = format!("{host}-launch{}-rank{rank}.starting.log", std::process::id());
        let starting = self.folder.logs().join(starting);
        let log_failed = |source| SpawnError::Log { rank, path: starting.clone(), source };
        let mut options = OpenOptions::new();
        options.append(true).create(true).mode(0o644);
        let log_file = options.open(&starting).map_err(log_failed)?;
        let (ready, ready_theirs) = UnixStream::pair().map_err(failed)?;
        ready.set_nonblocking(true).map_err(failed)?;
        self.release.hand_over(&ready).map_err(failed)?;
        let mut command = Command::new(self.exe);
        command
            .args(&self.arguments)
            .env_remove(SECRET_VARIABLE)
            .stdin(Stdio::from(self.input))
            .stdout(Stdio::from(OwnedFd::from(ready_theirs)))
            .stderr(Stdio::from(log_file))
            // Ctrl-C at the launcher is for the launcher; the daemon notices that it is gone.
            .process_group(0);
        let child = match command.spawn() {
            Ok(child) => child,
            Err(error) => {
                // Empty, and in nobody's way.
                let _ = fs::remove_file(&starting);
                return Err(failed(error));
            }
        };
        let log = self.folder.log(&host, child.id());
        let mut daemon = Daemon::new(rank, self.mount.to_owned(), child, ready, log.clone());
        // From here on the daemon is ended with the others if anything fails.
        if let Err(source) = fs::rename(&starting, &log) {
            daemon.state = State::Failed(Failure::Log { path: log, source });
        }
        Ok(daemon)
    }
}

/// A daemon between its start and the end of the launch.
struct Daemon {
    rank: Rank,
    mount: PathBuf,
    child: Child,
    /// `None` if the process was gone before it could be looked at: then `ended` comes at once.
    handle: Option<OwnedFd>,
    process: Option<Process>,
    ready: Option<UnixStream>,
    heard: Vec<u8>,
    log: PathBuf,
    state: State,
    /// What rank 0 has last said of the whole job, until somebody takes it.
    counted: Option<ProgressReport>,
}

#[derive(Debug)]
enum State {
    Waiting,
    Ready(Duration),
    Failed(Failure),
}

/// The daemons of one launch. Dropped before they are released, they are ended.
#[derive(Default)]
pub(crate) struct Daemons {
    all: Vec<Daemon>,
}

impl Daemon {
    fn new(rank: Rank, mount: PathBuf, child: Child, ready: UnixStream, log: PathBuf) -> Daemon {
        // Not reaped before `wait`, so the number is its own until then.
        let process = Process::of(child.id());
        let handle = pidfd_open(Pid::from_child(&child), PidfdFlags::empty()).ok();
        let (ready, heard, state) = (Some(ready), Vec::new(), State::Waiting);
        Daemon { rank, mount, child, handle, process, ready, heard, log, state, counted: None }
    }

    /// Reads what it has said.
    fn listen(&mut self, since: Instant) {
        let mut piece = [0; 4096];
        while let Some(ready) = &mut self.ready {
            match ready.read(&mut piece) {
                Ok(0) => self.ready = None,
                Ok(count) => self.heard.extend_from_slice(&piece[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => self.ready = None,
            }
            while let Some(end) = self.heard.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = self.heard.drain(..=end).collect();
                self.on_line(&line, since);
            }
            if self.heard.len() > REPORT_BYTES_MAX {
                self.ready = None;
            }
        }
    }

    fn on_line(&mut self, line: &[u8], since: Instant) {
        match (serde_json::from_slice(line), &self.state) {
            (Ok(Report::Ready { ready: true, rank, .. }), State::Waiting)
                if rank == self.rank.0 =>
            {
                self.state = State::Ready(since.elapsed());
            }
            (Ok(Report::Failed { error }), State::Waiting | State::Ready(_)) => {
                self.state = State::Failed(Failure::Said(error));
            }
            (Ok(Report::Progress { progress }), _) => self.counted = Some(progress),
            // Said before it took the channel over, or after its end was known.
            (Ok(Report::Ready { .. } | Report::Failed { .. }) | Err(_), _) => {
                debug!(rank = %self.rank, "a line that is no report");
            }
        }
    }

    /// Looks whether it has ended.
    fn look(&mut self, since: Instant) {
        if let Ok(Some(status)) = self.child.try_wait() {
            self.listen(since);
            self.handle = None;
            self.process = None;
            self.ready = None;
            if !matches!(self.state, State::Failed(_)) {
                self.state = State::Failed(Failure::Ended { status, last: last_line(&self.log) });
            }
        }
    }

    fn launched(&self, ready_after: Duration) -> Option<LaunchedRank> {
        let (mount, log) = (self.mount.clone(), self.log.clone());
        Some(LaunchedRank { rank: self.rank, process: self.process?, mount, log, ready_after })
    }
}

impl Daemons {
    pub(crate) fn spawn(&mut self, birth: Birth<'_>) -> Result<(), SpawnError> {
        self.all.push(birth.spawn()?);
        Ok(())
    }

    /// Until all are ready, one has failed, or the time is up; what has failed.
    pub(crate) fn wait(
        &mut self,
        started: Instant,
        bound: Duration,
        on_ready: &mut dyn FnMut(&LaunchedRank),
    ) -> Vec<RankFailure> {
        let failures = self.wait_unless(started, started + bound, on_ready, &mut || false);
        failures.unwrap_or_default()
    }

    /// The first daemon's process and log.
    pub(crate) fn first(&self) -> Option<(u32, &Path)> {
        self.all.first().map(|daemon| (daemon.child.id(), daemon.log.as_path()))
    }

    /// What the first daemon has said of the whole job since this was last asked.
    pub(crate) fn counted(&mut self) -> Option<ProgressReport> {
        self.all.first_mut()?.counted.take()
    }

    /// Whether the first daemon ends within `bound`.
    pub(crate) fn ended_within(&mut self, bound: Duration) -> bool {
        self.rest(bound);
        self.all.first_mut().is_none_or(|daemon| {
            daemon.listen(Instant::now());
            daemon.look(Instant::now());
            matches!(daemon.state, State::Failed(_))
        })
    }

    /// As [`Daemons::wait`]; `None` as soon as nobody wants it any more.
    pub(crate) fn wait_unless(
        &mut self,
        started: Instant,
        mut deadline: Instant,
        on_ready: &mut dyn FnMut(&LaunchedRank),
        abandoned: &mut dyn FnMut() -> bool,
    ) -> Option<Vec<RankFailure>> {
        let bound = deadline.saturating_duration_since(started);
        let mut any_failed = false;
        loop {
            if abandoned() {
                return None;
            }
            for daemon in &mut self.all {
                let waited = matches!(daemon.state, State::Waiting);
                daemon.listen(started);
                daemon.look(started);
                if let (true, State::Ready(after)) = (waited, &daemon.state)
                    && let Some(launched) = daemon.launched(*after)
                {
                    on_ready(&launched);
                }
            }
            let failed = |daemon: &Daemon| matches!(daemon.state, State::Failed(_));
            let waiting = |daemon: &Daemon| matches!(daemon.state, State::Waiting);
            if !any_failed && self.all.iter().any(failed) {
                any_failed = true;
                deadline = deadline.min(Instant::now() + FAILURE_SETTLE);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if !self.all.iter().any(waiting) || left.is_zero() {
                break;
            }
            self.rest(left.min(LOOK));
        }
        let late = |daemon: &Daemon| Failure::Late { bound, last: last_line(&daemon.log) };
        let failures = self
            .all
            .iter_mut()
            .filter_map(|daemon| {
                let failure = match std::mem::replace(&mut daemon.state, State::Waiting) {
                    State::Failed(failure) => failure,
                    State::Waiting if !any_failed => late(daemon),
                    kept @ (State::Waiting | State::Ready(_)) => {
                        daemon.state = kept;
                        return None;
                    }
                };
                Some(RankFailure { rank: daemon.rank, log: daemon.log.clone(), failure })
            })
            .collect();
        Some(failures)
    }

    /// Until somebody says something or ends.
    fn rest(&self, bound: Duration) {
        let ready = self.all.iter().filter_map(|daemon| daemon.ready.as_ref());
        let handles = self.all.iter().filter_map(|daemon| daemon.handle.as_ref());
        let mut fds: Vec<PollFd<'_>> = ready.map(|it| PollFd::new(it, PollFlags::IN)).collect();
        fds.extend(handles.map(|it| PollFd::new(it, PollFlags::IN)));
        let blind = self.all.iter().any(|daemon| daemon.handle.is_none());
        // Without a handle there is nothing that wakes us at its end: look again soon.
        let bound = if blind { bound.min(FAILURE_SETTLE) } else { bound };
        let timeout = Timespec {
            tv_sec: i64::try_from(bound.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(bound.subsec_nanos()),
        };
        // Interrupted by a signal: the caller looks at everybody anyway.
        let _ = rustix::event::poll(&mut fds, Some(&timeout));
    }

    /// They live without us.
    pub(crate) fn released(mut self) -> Launched {
        let all = std::mem::take(&mut self.all);
        let ranks = all.iter().filter_map(|daemon| match daemon.state {
            State::Ready(after) => daemon.launched(after),
            State::Waiting | State::Failed(_) => None,
        });
        Launched { ranks: ranks.collect() }
    }
}

impl Drop for Daemons {
    fn drop(&mut self) {
        let still: Vec<Process> = self.all.iter().filter_map(|daemon| daemon.process).collect();
        for (process, ended) in still.iter().zip(Process::end_all(&still, END_GRACE)) {
            match ended {
                Ok(_) => {
                    for daemon in self.all.iter_mut().filter(|it| it.process == Some(*process)) {
                        // It has ended: nothing to wait for.
                        let _ = daemon.child.wait();
                    }
                }
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::error!(error, "a daemon of a failed launch is left");
                }
            }
        }
    }
}

/// The last line of a log that says something.
pub(crate) fn last_line(path: &Path) -> Option<String> {
    let mut file = File::open(path).ok()?;
    let length = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(LOG_TAIL_BYTES))).ok()?;
    let mut tail = Vec::new();
    file.take(LOG_TAIL_BYTES).read_to_end(&mut tail).ok()?;
    let tail = String::from_utf8_lossy(&tail);
    let line = tail.lines().rev().find(|line| !line.trim().is_empty())?;
    Some(line.trim().chars().filter(|c| !c.is_control()).collect())
}

/// Why a rank did not come up.
#[derive(Debug)]
pub struct RankFailure {
    /// Which.
    pub rank: Rank,
    /// Where it logs.
    pub log: PathBuf,
    failure: Failure,
}

#[derive(Debug)]
enum Failure {
    Said(String),
    Ended { status: ExitStatus, last: Option<String> },
    Late { bound: Duration, last: Option<String> },
    Log { path: PathBuf, source: io::Error },
}

impl fmt::Display for RankFailure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (rank, log) = (self.rank, self.log.display());
        let last = |last: &Option<String>| match last {
            Some(line) => format!("the last line of {log} is: {line}"),
            None => format!("its log {log} is empty"),
        };
        match &self.failure {
            Failure::Said(reason) => {
                let own = format!("rank {rank}: ");
                write!(formatter, "{own}{}", reason.strip_prefix(&own).unwrap_or(reason))
            }
            Failure::Ended { status, last: line } => {
                write!(formatter, "rank {rank} ended ({status}) without a reason; {}", last(line))
            }
            Failure::Late { bound, last: line } => {
                let seconds = bound.as_secs_f32();
                write!(formatter, "rank {rank} was not ready within {seconds} s; {}", last(line))
            }
            Failure::Log { path, source } => {
                write!(formatter, "rank {rank}: cannot name its log {}: {source}", path.display())
            }
        }
    }
}

/// Why a daemon cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// A log cannot be written.
    #[error("cannot write the log of rank {rank} to {}; choose another place with -d", path.display())]
    Log {
        /// Which rank.
        rank: Rank,
        /// The log.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// No process.
    #[error("cannot start rank {rank} as {}", exe.display())]
    Spawn {
        /// Which rank.
        rank: Rank,
        /// The program.
        exe: PathBuf,
        /// Why.
        source: io::Error,
    },
}
