//! A process, named so that the name can never come to mean another one, and its end.

use std::fmt;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

/// After SIGKILL only a process inside an uninterruptible system call stays for longer.
const KILL_BOUND: Duration = Duration::from_secs(2);

/// A process number together with the time at which that process started: numbers are given again,
/// the two together are not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Process {
    /// Its number.
    pub pid: u32,
    /// Clock ticks from the machine's start to its own: field 22 of /proc/PID/stat, proc_pid_stat(5).
    pub pid_started: u64,
}

/// How a process came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It was gone before.
    Gone,
    /// It heeded SIGTERM.
    Terminated,
    /// It had to be killed.
    Killed,
}

impl Process {
    /// This process.
    ///
    /// # Errors
    /// Without /proc.
    pub fn current() -> io::Result<Process> {
        let missing = || io::Error::new(io::ErrorKind::NotFound, "/proc is not there");
        Process::of(std::process::id()).ok_or_else(missing)
    }

    /// The process that has this number now; `None` if none has, or it has ended already.
    pub fn of(pid: u32) -> Option<Process> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name, in parentheses, may hold anything.
        let (_, rest) = stat.rsplit_once(')')?;
        let mut fields = rest.split_ascii_whitespace();
        let state = fields.next()?;
        // The state is field 3.
        let pid_started = fields.nth(22 - 4)?.parse().ok()?;
        (!matches!(state, "Z" | "X" | "x")).then_some(Process { pid, pid_started })
    }

    /// Whether it still runs. A zombie does not.
    pub fn is_alive(&self) -> bool {
        Process::of(self.pid) == Some(*self)
    }

    /// Has a daemon write down what happened last: SIGUSR2.
    ///
    /// # Errors
    /// If it may not be signalled.
    pub fn ask_for_flight(&self) -> Result<(), ProcessError> {
        let process = *self;
        let failed = |source| ProcessError::Open { process, source };
        let Some(handle) = open(process).map_err(failed)? else { return Ok(()) };
        match pidfd_send_signal(&handle, Signal::USR2) {
            Ok(()) | Err(Errno::SRCH) => Ok(()),
            Err(source) => Err(ProcessError::Signal { process, source: source.into() }),
        }
    }

    /// Ends it: SIGTERM, and SIGKILL if it is still there after `grace`.
    ///
    /// # Errors
    /// If it may not be signalled, or does not even die of SIGKILL within 2 s.
    pub fn end(&self, grace: Duration) -> Result<Ended, ProcessError> {
        Process::end_all(&[*self], grace).pop().expect("one result for one process")
    }

    /// Waits for its end, and ends it if it has not ended within `patience`.
    ///
    /// # Errors
    /// As [`Process::end`].
    pub fn end_within(&self, patience: Duration) -> Result<(), ProcessError> {
        let until = Instant::now() + patience;
        while self.is_alive() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(20));
        }
        self.end(patience).map(drop)
    }

    /// Ends several at once, with one `grace` for all of them; results in the same order.
    pub fn end_all(processes: &[Process], grace: Duration) -> Vec<Result<Ended, ProcessError>> {
        let mut endings: Vec<Ending> = processes.iter().map(|&it| Ending::begin(it)).collect();
        wait_for(&mut endings, Instant::now() + grace, Ended::Terminated);
        for ending in &mut endings {
            ending.kill();
        }
        wait_for(&mut endings, Instant::now() + KILL_BOUND, Ended::Killed);
        endings.into_iter().map(Ending::result).collect()
    }
}

impl fmt::Display for Process {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "pid {}", self.pid)
    }
}

/// One process on its way out.
enum Ending {
    Underway { process: Process, handle: OwnedFd },
    Over(Result<Ended, ProcessError>),
}

impl Ending {
    fn begin(process: Process) -> Ending {
        let handle = match open(process) {
            Ok(Some(handle)) => handle,
            Ok(None) => return Ending::Over(Ok(Ended::Gone)),
            Err(source) => return Ending::Over(Err(ProcessError::Open { process, source })),
        };
        match pidfd_send_signal(&handle, Signal::TERM) {
            Ok(()) => Ending::Underway { process, handle },
            Err(Errno::SRCH) => Ending::Over(Ok(Ended::Gone)),
            Err(source) => {
                Ending::Over(Err(ProcessError::Signal { process, source: source.into() }))
            }
        }
    }

    fn kill(&mut self) {
        if let Ending::Underway { process, handle } = self
            && let Err(source) = pidfd_send_signal(handle, Signal::KILL)
            && source != Errno::SRCH
        {
            let error = ProcessError::Signal { process: *process, source: source.into() };
            *self = Ending::Over(Err(error));
        }
    }

    fn result(self) -> Result<Ended, ProcessError> {
        match self {
            Ending::Underway { process, .. } => Err(ProcessError::Immortal { process }),
            Ending::Over(result) => result,
        }
    }
}

/// A handle that stays with the process whatever becomes of its number. `None` if it is gone.
fn open(process: Process) -> io::Result<Option<OwnedFd>> {
    let number = i32::try_from(process.pid).ok().and_then(Pid::from_raw);
    let Some(number) = number else { return Ok(None) };
    let handle = match pidfd_open(number, PidfdFlags::empty()) {
        Ok(handle) => handle,
        Err(Errno::SRCH) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    // Looked at after the handle was opened: if it is our process now, it was our process then.
    Ok(process.is_alive().then_some(handle))
}

/// Marks those that end before `deadline`.
fn wait_for(endings: &mut [Ending], deadline: Instant, how: Ended) {
    loop {
        let mut fds: Vec<PollFd<'_>> = endings
            .iter()
            .filter_map(|ending| match ending {
                Ending::Underway { handle, .. } => Some(PollFd::new(handle, PollFlags::IN)),
                Ending::Over(_) => None,
            })
            .collect();
        let left = deadline.saturating_duration_since(Instant::now());
        if fds.is_empty() {
            return;
        }
        let timeout = Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(left.subsec_nanos()),
        };
        // Interrupted by a signal: nobody has ended, and the loop comes round again.
        let _ = rustix::event::poll(&mut fds, Some(&timeout));
        // A pidfd is readable once its process has ended, pidfd_open(2).
        let ended: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        let mut ended = ended.into_iter();
        for ending in endings.iter_mut() {
            if matches!(ending, Ending::Underway { .. }) && ended.next() == Some(true) {
                *ending = Ending::Over(Ok(how));
            }
        }
        if left.is_zero() {
            return;
        }
    }
}

/// Why a process is still there.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// No handle.
    #[error("cannot get hold of {process}")]
    Open {
        /// Which.
        process: Process,
        /// Why.
        source: io::Error,
    },
    /// It belongs to somebody else.
    #[error("cannot end {process}")]
    Signal {
        /// Which.
        process: Process,
        /// Why.
        source: io::Error,
    },
    /// It hangs in the kernel.
    #[error(
        "{process} does not end although it was killed: it waits inside a system call, often for a \
         file system that does not answer"
    )]
    Immortal {
        /// Which.
        process: Process,
    },
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command, Stdio};

    use super::*;

    /// A shell that says that it is set up, then waits.
    fn shell(script: &str) -> (Child, Process) {
        use std::io::Read;
        let mut child = Command::new("/bin/sh")
            .args(["-c", &format!("{script}; echo up; while :; do read line || exit; done")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a shell");
        let mut up = [0; 3];
        child.stdout.as_mut().expect("piped").read_exact(&mut up).expect("it says up");
        let process = Process::of(child.id()).expect("it runs");
        (child, process)
    }

    const GRACE: Duration = Duration::from_secs(10);

    #[test]
    fn a_process_that_heeds_is_terminated_and_then_gone() {
        let (mut child, process) = shell("true");
        assert_eq!(process.end(GRACE).expect("ours"), Ended::Terminated);
        assert!(!process.is_alive(), "a zombie is not alive");
        assert_eq!(process.end(GRACE).expect("ours"), Ended::Gone);
        child.wait().expect("a child");
        assert_eq!(process.end(GRACE).expect("ours"), Ended::Gone);
    }

    #[test]
    fn a_process_that_does_not_heed_is_killed() {
        let (mut child, process) = shell("trap '' TERM");
        let grace = Duration::from_millis(50);
        assert_eq!(process.end(grace).expect("ours"), Ended::Killed);
        child.wait().expect("a child");
    }

    #[test]
    fn a_number_that_was_given_again_is_left_alone() {
        let (mut child, process) = shell("true");
        let earlier = Process { pid_started: process.pid_started - 1, ..process };
        assert!(!earlier.is_alive());
        assert_eq!(earlier.end(GRACE).expect("nothing to do"), Ended::Gone);
        assert!(process.is_alive());
        assert_eq!(process.end(GRACE).expect("ours"), Ended::Terminated);
        child.wait().expect("a child");
    }

    #[test]
    fn this_process_is_alive() {
        assert!(Process::current().expect("/proc").is_alive());
    }
}
