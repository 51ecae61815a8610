//! A child process that outlives the daemon for a moment, and removes the mount when the daemon
//! died without doing so: by `kill -9`, by the out-of-memory killer, by a crash. What is left
//! otherwise is a dead mount, on which every `stat` fails and which no `mkdir -p` of the next job
//! gets past.
//!
//! It blocks on a pipe from the daemon and reads lines:
//! ```text
//! guard MAJOR:MINOR SOURCE PATH   this mount is to be removed at the end; escaped as in mountinfo
//! done                            the daemon has unmounted: end without doing anything
//! ```
//! At the end of the input without `done` it removes the mount, if the mount table still shows that
//! very mount there: never somebody else's.
//!
//! The daemon starts it before anything else: before it registers memory (a fork then would be
//! dangerous), before it opens sockets, and before it has `/dev/fuse` open; a copy of that in the
//! guardian would keep the connection alive, and its clients waiting, after the daemon's death.
//!
//! It is in a process group of its own, so that ctrl-C in the daemon's terminal does not reach it.
//! A launcher that sends SIGTERM to all of a job's processes ends it; the daemon then gets the same
//! signal, and unmounts itself. Against SIGKILL to all of them nothing helps but the next
//! [`prepare`](crate::mount_point::prepare).

use std::ffi::OsStr;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::mount::{UnmountError, Unmounted, unmount_lazily};
use crate::mount_table::{MountId, escape, unescape};

/// How long the daemon waits for its guardian to end.
const END_BOUND: Duration = Duration::from_secs(2);

/// How often it looks whether the guardian has ended.
const END_POLL: Duration = Duration::from_millis(2);

/// The longest line: a source and a path of PATH_MAX bytes, every one escaped by four.
const LINE_BYTES_MAX: u64 = 2 * 4 * 4096 + 64;

/// Why there is no guardian. A mount works without one.
#[derive(Debug, thiserror::Error)]
pub enum GuardianError {
    /// It could not be started.
    #[error("the guardian {} could not be started", program.display())]
    Start {
        /// What was started.
        program: PathBuf,
        /// Why it did not start.
        source: io::Error,
    },
    /// It has ended.
    #[error("the guardian has ended: after a crash of the daemon its mount will be left")]
    Lost(#[source] io::Error),
}

/// The daemon's end of its guardian. Dropping it is like dying: the guardian removes the mount.
#[derive(Debug)]
pub struct Guardian {
    child: Child,
    input: Option<ChildStdin>,
}

impl Guardian {
    /// Starts a program whose arguments make it call [`guard`] with its standard input. Its
    /// messages go to `messages` ([`Stdio::null`], or the daemon's log).
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start<A: AsRef<OsStr>>(
        program: &Path,
        arguments: impl IntoIterator<Item = A>,
        messages: Stdio,
    ) -> Result<Guardian, GuardianError> {
        // The standard library opens everything close-on-exec, so the child has its three standard
        // descriptors and nothing else of ours, and no later child of ours has this pipe.
        let mut child = Command::new(program)
            .args(arguments)
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(messages)
            .process_group(0)
            .spawn()
            .map_err(|source| GuardianError::Start { program: program.to_owned(), source })?;
        let input = child.stdin.take();
        Ok(Guardian { child, input })
    }

    /// The guardian's process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Tells it which mount to remove.
    ///
    /// # Errors
    /// If the guardian has ended.
    pub fn arm(&mut self, point: &Path, id: &MountId) -> Result<(), GuardianError> {
        self.write(&guard_line(point, id))
    }

    /// Ends it, now that the daemon has unmounted.
    ///
    /// # Errors
    /// If the guardian had ended before.
    pub fn dismiss(mut self) -> Result<(), GuardianError> {
        self.write(b"done\n")
        // Dropping waits for it.
    }

    fn write(&mut self, line: &[u8]) -> Result<(), GuardianError> {
        let input = self.input.as_mut().expect("open until dropped");
        input.write_all(line).map_err(GuardianError::Lost)
    }
}

impl Drop for Guardian {
    fn drop(&mut self) {
        drop(self.input.take());
        let until = Instant::now() + END_BOUND;
        // Bounded: a guardian that hangs in an unmount is left to itself.
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < until {
            thread::sleep(END_POLL);
        }
    }
}

/// How a guardian's service ended.
#[derive(Debug)]
pub enum GuardianEnd {
    /// The daemon ended in order, or never mounted.
    Dismissed,
    /// The daemon died.
    Removed(Result<Unmounted, UnmountError>),
}

/// The guardian's whole work: reads until the daemon is done or dead, and then removes what it
/// left.
///
/// # Errors
/// If reading fails, or a line is none of the protocol.
pub fn guard(input: impl Read) -> io::Result<GuardianEnd> {
    let mut input = BufReader::new(input);
    let mut guarded = None;
    loop {
        let mut line = Vec::new();
        input.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line)?;
        // A line without an end is one that the daemon did not live to finish.
        let Some(line) = line.strip_suffix(b"\n") else { break };
        match parse(line) {
            Some(Line::Guard { id, point }) => guarded = Some((point, id)),
            Some(Line::Done) => return Ok(GuardianEnd::Dismissed),
            None => return Err(io::Error::new(io::ErrorKind::InvalidData, "unknown line")),
        }
    }
    Ok(match guarded {
        Some((point, id)) => GuardianEnd::Removed(unmount_lazily(&point, &id)),
        None => GuardianEnd::Dismissed,
    })
}

/// What the daemon says.
#[derive(Debug, PartialEq, Eq)]
enum Line {
    Guard { id: MountId, point: PathBuf },
    Done,
}

fn guard_line(point: &Path, id: &MountId) -> Vec<u8> {
    let device = id.device.to_string().into_bytes();
    let words = [b"guard".to_vec(), device, escape(&id.source), escape(point.as_os_str())];
    let mut line = words.join(&b' ');
    line.push(b'\n');
    line
}

fn parse(line: &[u8]) -> Option<Line> {
    if line == b"done" {
        return Some(Line::Done);
    }
    let mut words = line.strip_prefix(b"guard ")?.split(|&byte| byte == b' ');
    let device = OsStr::from_bytes(words.next()?).to_str()?.parse().ok()?;
    let source = unescape(words.next()?);
    let point = PathBuf::from(unescape(words.next()?));
    let well_formed = words.next().is_none() && point.is_absolute();
    well_formed.then_some(Line::Guard { id: MountId { device, source }, point })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mount_table::DeviceId;

    #[test]
    fn an_orderly_end_and_a_daemon_that_never_mounted_leave_everything_alone() {
        for input in ["", "done\n", "guard 0:1 x /a\ndone\n", "guard 0:1 x /unfini"] {
            assert!(matches!(guard(input.as_bytes()), Ok(GuardianEnd::Dismissed)), "{input}");
        }
    }

    #[test]
    fn a_mount_that_is_not_the_guarded_one_is_left_alone() {
        let end = guard(&b"guard 0:0 x /\n"[..]).expect("well-formed");
        assert!(matches!(end, GuardianEnd::Removed(Ok(Unmounted::Gone))), "{end:?}");
    }

    #[test]
    fn lines_that_make_no_sense_are_refused() {
        let long = "x".repeat(100_000) + "\n";
        for input in ["guard\n", "guard 0 x /a\n", "guard 0:1 /a\n", "guard 0:1 x a\n", "\n", "q\n"]
        {
            assert!(guard(input.as_bytes()).is_err(), "{input}");
        }
        assert!(matches!(guard(long.as_bytes()), Ok(GuardianEnd::Dismissed)));
    }

    #[test]
    fn paths_with_spaces_and_newlines_survive_the_pipe() {
        let point = Path::new("/a b/c\nd\\e");
        let device = DeviceId { major: 0, minor: 77 };
        let id = MountId { device, source: "copper of\ta\\b@1.2".into() };
        let line = guard_line(point, &id);
        let line = line.strip_suffix(b"\n").expect("a line");
        assert!(!line.contains(&b'\n'));
        assert_eq!(parse(line), Some(Line::Guard { id, point: point.to_owned() }));
    }
}
