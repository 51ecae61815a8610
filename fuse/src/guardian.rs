//! A process that outlives the daemon for a moment, and removes the mount when the daemon
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
//! It is nobody's descendant, in a session of its own: the daemon starts a shell, which starts the
//! guardian and ends. So ctrl-C in the daemon's terminal does not reach
//! it, and what kills a job's processes by parent or by session, as Slurm does when `srun` is killed,
//! does not find it. Where a cgroup holds all of a job's processes it dies with them: nothing helps
//! then but the next [`prepare`](crate::mount_point::prepare).
//!
//! Its standard output leads to the daemon. It says its number there once it is on its own, and
//! closes it by its end, which is how the daemon learns of that.

use std::ffi::OsStr;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::mount::{UnmountError, Unmounted, unmount_lazily};
use crate::mount_table::{MountId, escape, unescape};

/// Much smaller than this program, of which a second start would cost each rank time.
const SHELL: &str = "/bin/sh";

/// Runs the rest of its arguments as nobody's child. What a shell runs in the background would have
/// /dev/null for its standard input, if that were not given to it by another number.
const ORPHAN: &str = r#"exec 3<&0; "$@" <&3 3<&- &"#;

/// How long a guardian may take to come up, on a busy machine.
const START_BOUND: Duration = Duration::from_secs(10);

/// What it says then, with its number.
const UP: &str = "guardian ";

/// The most that is read of what a guardian says: one line, and whatever a program says at its start.
const SAID_BYTES_MAX: usize = 4096;

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
    /// The shell, which starts the guardian and ends.
    starter: Child,
    input: Option<ChildStdin>,
    output: ChildStdout,
    id: Option<u32>,
}

impl Guardian {
    /// Starts a program whose arguments make it call [`guard`] with its standard input and output. Its
    /// messages go to `messages` ([`Stdio::null`], or the daemon's log).
    ///
    /// # Errors
    /// If the shell cannot be started. That the program could not be is noticed by [`Guardian::arm`].
    pub fn start<A: AsRef<OsStr>>(
        program: &Path,
        arguments: impl IntoIterator<Item = A>,
        messages: Stdio,
    ) -> Result<Guardian, GuardianError> {
        // The standard library opens everything close-on-exec, so the child has its three standard
        // descriptors and nothing else of ours, and no later child of ours has these pipes.
        let mut starter = Command::new(SHELL)
            .args(["-c", ORPHAN, SHELL])
            .arg(program)
            .args(arguments)
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(messages)
            .process_group(0)
            .spawn()
            .map_err(|source| GuardianError::Start { program: SHELL.into(), source })?;
        let input = starter.stdin.take();
        let output = starter.stdout.take().expect("piped above");
        Ok(Guardian { starter, input, output, id: None })
    }

    /// The guardian's process id; `None` before it is armed.
    pub fn id(&self) -> Option<u32> {
        self.id
    }

    /// Tells it which mount to remove, and waits until it is on its own.
    ///
    /// # Errors
    /// If the guardian has ended.
    pub fn arm(&mut self, point: &Path, id: &MountId) -> Result<(), GuardianError> {
        // In this order: one that is still on its way finds the line when it comes up.
        self.write(&guard_line(point, id))?;
        self.wait_until_up().map_err(GuardianError::Lost)
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

    fn wait_until_up(&mut self) -> io::Result<()> {
        let until = Instant::now() + START_BOUND;
        let mut said = Vec::new();
        while self.id.is_none() {
            let mut piece = [0; 256];
            let count = match wait_for(&self.output, until) {
                true => self.output.read(&mut piece)?,
                false => return Err(io::ErrorKind::TimedOut.into()),
            };
            said.extend_from_slice(&piece[..count]);
            if count == 0 || said.len() > SAID_BYTES_MAX {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.id = id_of(&said);
        }
        self.reap(until);
        Ok(())
    }

    /// The shell has nothing more to do, so it has ended, or is about to.
    fn reap(&mut self, until: Instant) {
        while matches!(self.starter.try_wait(), Ok(None)) && Instant::now() < until {
            thread::sleep(END_POLL);
        }
    }
}

impl Drop for Guardian {
    fn drop(&mut self) {
        drop(self.input.take());
        let until = Instant::now() + END_BOUND;
        // Bounded: a guardian that hangs in an unmount is left to itself.
        let mut piece = [0; 256];
        while wait_for(&self.output, until) && matches!(self.output.read(&mut piece), Ok(1..)) {}
        self.reap(until);
    }
}

/// Whether there is something to read, or the end, before that time.
fn wait_for(output: &ChildStdout, until: Instant) -> bool {
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let timeout = Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(left.subsec_nanos()),
        };
        match poll(&mut [PollFd::new(output, PollFlags::IN)], Some(&timeout)) {
            Ok(count) => return count > 0,
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => return false,
        }
    }
}

/// The number in the line in which a guardian says that it is up.
fn id_of(said: &[u8]) -> Option<u32> {
    let end = said.iter().rposition(|&byte| byte == b'\n')?;
    let text = std::str::from_utf8(&said[..end]).ok()?;
    text.lines().find_map(|line| line.strip_prefix(UP)?.parse().ok())
}

/// How a guardian's service ended.
#[derive(Debug)]
pub enum GuardianEnd {
    /// The daemon ended in order, or never mounted.
    Dismissed,
    /// The daemon died.
    Removed(Result<Unmounted, UnmountError>),
}

/// The guardian's whole work: leaves the daemon's session, says that it is up, reads until the daemon
/// is done or dead, and then removes what it left.
///
/// # Errors
/// If reading fails, or a line is none of the protocol.
pub fn guard(input: impl Read, mut output: impl Write) -> io::Result<GuardianEnd> {
    rustix::process::setsid()?;
    // On a line of its own, whatever this program has said before.
    writeln!(output, "\n{UP}{}", std::process::id())?;
    output.flush()?;
    watch(input)
}

fn watch(input: impl Read) -> io::Result<GuardianEnd> {
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
            assert!(matches!(watch(input.as_bytes()), Ok(GuardianEnd::Dismissed)), "{input}");
        }
    }

    #[test]
    fn a_mount_that_is_not_the_guarded_one_is_left_alone() {
        let end = watch(&b"guard 0:0 x /\n"[..]).expect("well-formed");
        assert!(matches!(end, GuardianEnd::Removed(Ok(Unmounted::Gone))), "{end:?}");
    }

    #[test]
    fn lines_that_make_no_sense_are_refused() {
        let long = "x".repeat(100_000) + "\n";
        for input in ["guard\n", "guard 0 x /a\n", "guard 0:1 /a\n", "guard 0:1 x a\n", "\n", "q\n"]
        {
            assert!(watch(input.as_bytes()).is_err(), "{input}");
        }
        assert!(matches!(watch(long.as_bytes()), Ok(GuardianEnd::Dismissed)));
    }

    #[test]
    fn a_guardian_s_number_is_found_behind_whatever_was_said_before() {
        assert_eq!(id_of(b"running 1 test\ntest guard ... \nguardian 4711\n"), Some(4711));
        assert_eq!(id_of(b"\nguardian 47"), None, "the rest is on its way");
        assert_eq!(id_of(b""), None);
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
