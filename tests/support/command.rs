//! Programs with a deadline.

use std::io::Read;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::process::Signal;

use super::process::Process;

/// How a program ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
}

impl Ended {
    pub(crate) fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    pub(crate) fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }

    /// Its standard output.
    ///
    /// # Panics
    /// If it has failed.
    #[track_caller]
    pub(crate) fn success(self) -> String {
        assert!(self.status.success(), "{}: {}{}", self.status, self.stdout(), self.stderr());
        self.stdout()
    }

    /// The one line that it has written to standard error.
    ///
    /// # Panics
    /// If it has succeeded, or has written more or less than a line.
    #[track_caller]
    pub(crate) fn failure_line(&self) -> String {
        let stderr = self.stderr();
        assert!(!self.status.success(), "it should have failed: {}{stderr}", self.stdout());
        assert_eq!(stderr.lines().count(), 1, "one line was to be written, not: {stderr}");
        stderr.trim_end().to_owned()
    }
}

/// A program that runs. Dropped, it is killed.
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
    pub(crate) process: Process,
    stdout: Option<JoinHandle<Vec<u8>>>,
    stderr: Option<JoinHandle<Vec<u8>>>,
    what: String,
}

impl Running {
    /// Starts it, with nothing to read.
    pub(crate) fn start(command: &mut Command) -> Running {
        Running::start_saying(command, Stdio::piped())
    }

    /// The same, with its standard output there.
    pub(crate) fn start_saying(command: &mut Command, stdout: Stdio) -> Running {
        let what = format!("{command:?}");
        command.stdin(Stdio::null()).stdout(stdout).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{what}: {error}"));
        // It is not reaped before `finish` or the drop, so the number is its own.
        let process = Process::of(child.id()).expect("it was started above");
        let stdout = child.stdout.take().map(read_to_end);
        let stderr = child.stderr.take().map(read_to_end);
        Running { child, process, stdout, stderr, what }
    }

    /// How it ended.
    ///
    /// # Panics
    /// If it does not end in time; it is killed then.
    #[track_caller]
    pub(crate) fn finish(mut self, deadline: Duration) -> Ended {
        if !self.process.wait(deadline) {
            panic!("hung for {deadline:?}: {}", self.what);
        }
        let status = self.child.wait().expect("it has ended");
        let collect = |thread: Option<JoinHandle<Vec<u8>>>| {
            thread.map(|thread| thread.join().expect("reading does not panic")).unwrap_or_default()
        };
        let (stdout, stderr) = (collect(self.stdout.take()), collect(self.stderr.take()));
        Ended { status, stdout, stderr }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.process.is_alive() {
            self.process.signal(Signal::KILL);
        }
        // One that hangs in the kernel is left to the end of the daemon that it waits for.
        if self.process.wait(Duration::from_secs(1)) {
            let _ = self.child.wait();
        }
    }
}

fn read_to_end(mut from: impl Read + Send + 'static) -> JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        // What came until an error is what there is.
        let _ = from.read_to_end(&mut bytes);
        bytes
    })
}

/// Runs a program to its end.
#[track_caller]
pub(crate) fn run(command: &mut Command, deadline: Duration) -> Ended {
    Running::start(command).finish(deadline)
}

/// A shell script whose `$1`, `$2` … are `arguments`.
pub(crate) fn shell<A: AsRef<std::ffi::OsStr>>(
    script: &str,
    arguments: impl IntoIterator<Item = A>,
) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", script, "sh"]).args(arguments);
    command
}
