//! A process, held so that its number can never come to mean another one.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    handle: OwnedFd,
}

impl Process {
    /// The process that has this number now.
    pub(crate) fn of(pid: u32) -> io::Result<Process> {
        let number = i32::try_from(pid).ok().and_then(Pid::from_raw);
        let number = number.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(Process { pid, handle: pidfd_open(number, PidfdFlags::empty())? })
    }

    pub(crate) fn signal(&self, signal: Signal) {
        // One that has ended needs no signal.
        let _ = pidfd_send_signal(&self.handle, signal);
    }

    pub(crate) fn is_alive(&self) -> bool {
        !self.wait(Duration::ZERO)
    }

    /// Whether it ends in time.
    pub(crate) fn wait(&self, bound: Duration) -> bool {
        let until = Instant::now() + bound;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let timeout = Timespec {
                tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: i64::from(left.subsec_nanos()),
            };
            let mut fds = [PollFd::new(&self.handle, PollFlags::IN)];
            match rustix::event::poll(&mut fds, Some(&timeout)) {
                Ok(ready) => return ready > 0,
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => panic!("poll: {error}"),
            }
        }
    }

    /// Processor time that it has used, in clock ticks.
    pub(crate) fn ticks(&self) -> u64 {
        let fields = stat_fields(self.pid).expect("it runs");
        // utime and stime are fields 14 and 15 of proc_pid_stat(5); the first here is field 3.
        fields[11..13].iter().map(|field| field.parse::<u64>().expect("a number")).sum()
    }
}

/// The guardians of these daemons: nobody's children, they hold the other end of a pipe of theirs.
pub(crate) fn guardians(of: &[u32]) -> Vec<Process> {
    let pipe = |path: PathBuf| {
        let target = fs::read_link(path).ok()?.into_os_string().into_string().ok()?;
        target.starts_with("pipe:").then_some(target)
    };
    let descriptors = |pid: &u32| fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten();
    let paths = of.iter().flat_map(descriptors).flatten().map(|entry| entry.path());
    let pipes: HashSet<String> = paths.filter_map(pipe).collect();
    let entries = fs::read_dir("/proc").expect("there is a /proc");
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let is_guardian = |pid: &u32| {
        let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let input = pipe(format!("/proc/{pid}/fd/0").into());
        command.split(|&byte| byte == 0).nth(1) == Some(b"guard")
            && input.is_some_and(|pipe| pipes.contains(&pipe))
    };
    pids.filter(is_guardian).filter_map(|pid| Process::of(pid).ok()).collect()
}

/// The daemons of copper that have to do with a path.
pub(crate) fn daemons_about(path: &Path) -> Vec<Process> {
    let entries = fs::read_dir("/proc").expect("there is a /proc");
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let is_ours = |pid: &u32| {
        let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let mut words = command.split(|&byte| byte == 0);
        let program = words.next().is_some_and(|program| program.ends_with(b"copper"));
        let path = path.as_os_str().as_bytes();
        program && words.any(|word| word.windows(path.len()).any(|part| part == path))
    };
    pids.filter(is_ours).filter_map(|pid| Process::of(pid).ok()).collect()
}

/// From the state on.
fn stat_fields(pid: u32) -> Option<Vec<String>> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may hold anything.
    let (_, rest) = stat.rsplit_once(')')?;
    Some(rest.split_ascii_whitespace().map(str::to_owned).collect())
}
