//! How a daemon tells the launcher that it is up, and learns that the launch is complete.
//!
//! ```text
//! daemon                                        launcher
//!   {"ready":true,"rank":2,"mount":"/m/2"} ──▶
//!   {"progress":{"ready":5,"size":8,…}}    ──▶   (rank 0, until all are ready)
//!   or {"error":"…"}                       ──▶
//! ```
//! Until the launch is complete ([`crate::release`]) the daemon hangs on the launcher: if that dies
//! first, the daemon ends itself. So a launch is either complete or leaves nothing, whatever happens
//! to the launcher.

use std::io::{self, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};

use copper_proto::Rank;
use serde::{Deserialize, Serialize};

use crate::inherited::Stream;
use crate::release::Released;

/// The number under which a local launcher leaves the channel to a rank: standard output.
pub const READY_FD: u32 = 1;

/// The longest reason. The rest is cut off.
const ERROR_BYTES_MAX: usize = 16 << 10;

/// A daemon's channel to its launcher. Its clones lead to the same.
#[derive(Clone, Debug)]
pub struct ReadyPipe {
    stream: Arc<UnixStream>,
    /// A line at a time.
    turn: Arc<Mutex<()>>,
    /// The daemon is on its way out and does not want to hear that the launcher is gone.
    settled: Arc<AtomicBool>,
}

/// One line to the launcher.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum Report {
    Ready { ready: bool, rank: u32, mount: String },
    Failed { error: String },
    Progress { progress: ProgressReport },
}

/// How far the job has come, as rank 0 tells the launcher.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProgressReport {
    /// Ranks that are ready.
    pub ready: u32,
    /// Ranks of the job.
    pub size: u32,
    /// Links between rank 0 and the rank that is furthest from it.
    pub depth: u32,
    /// The first of those that are not ready, in order.
    pub missing: Vec<u32>,
}

impl ReadyPipe {
    /// Takes over the channel that the launcher left as descriptor `number`. To be called once and
    /// first: what is printed before goes to the launcher, which ignores it; later to the log.
    ///
    /// # Errors
    /// If there is none.
    pub fn from_fd(number: u32) -> Result<ReadyPipe, ReadyError> {
        let stream = Stream::from_number(number).ok_or(ReadyError::Number { number })?;
        let fd = stream.take().map_err(|source| ReadyError::Inherited { number, source })?;
        let is_socket = rustix::net::sockopt::socket_type(&fd).is_ok();
        if is_socket { Ok(UnixStream::from(fd).into()) } else { Err(ReadyError::Kind { number }) }
    }

    /// Calls `on_abandoned`, from a thread of its own, if the launcher ends before the launch is
    /// complete. The daemon then ends itself as if it had been asked to.
    ///
    /// # Errors
    /// If there is no thread to be had.
    pub fn watch(&self, on_abandoned: impl FnOnce() + Send + 'static) -> Result<(), ReadyError> {
        let stream = self.stream.try_clone().map_err(ReadyError::Watch)?;
        let settled = Arc::clone(&self.settled);
        let watch = move || {
            let released = match Released::take(&stream) {
                Ok(released) => released.is_some_and(|released| released.wait()),
                Err(_) => false,
            };
            // Whatever has come of it, nobody listens any more.
            if !settled.swap(true, SeqCst) && !released {
                on_abandoned();
            }
        };
        let builder = std::thread::Builder::new().name("launcher-watch".to_owned());
        builder.spawn(watch).map_err(ReadyError::Watch)?;
        Ok(())
    }

    /// The mount answers. Whether the launch is complete is up to the others: the watch goes on.
    ///
    /// # Errors
    /// If the launcher is gone.
    pub fn ready(&self, rank: Rank, mount: &Path) -> Result<(), ReadyError> {
        let mount = mount.to_string_lossy().into_owned();
        self.send(&Report::Ready { ready: true, rank: rank.0, mount })
    }

    /// The job has come so far. False if nobody listens any more: the launch is complete, or over.
    pub fn progress(&self, progress: ProgressReport) -> bool {
        !self.is_settled() && self.send(&Report::Progress { progress }).is_ok()
    }

    /// Whether the launch is complete, or over.
    pub fn is_settled(&self) -> bool {
        self.settled.load(SeqCst)
    }

    /// The daemon cannot come up, for this reason, and ends now.
    pub fn failed(&self, reason: &str) {
        self.settled.store(true, SeqCst);
        let mut end = reason.len().min(ERROR_BYTES_MAX);
        while !reason.is_char_boundary(end) {
            end -= 1;
        }
        // Without a launcher the reason stands in the log only.
        let _ = self.send(&Report::Failed { error: reason[..end].to_owned() });
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    fn send(&self, report: &Report) -> Result<(), ReadyError> {
        let mut line = serde_json::to_vec(report).expect("numbers and text");
        line.push(b'\n');
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        (&*self.stream).write_all(&line).map_err(ReadyError::Gone)
    }
}

impl From<UnixStream> for ReadyPipe {
    fn from(stream: UnixStream) -> ReadyPipe {
        ReadyPipe { stream: Arc::new(stream), turn: Arc::default(), settled: Arc::default() }
    }
}

/// Why a daemon cannot talk to its launcher.
#[derive(Debug, thiserror::Error)]
pub enum ReadyError {
    /// Only the standard streams can be handed down.
    #[error("descriptor {number} cannot be taken over: 0 and 1 can")]
    Number {
        /// Which.
        number: u32,
    },
    /// Taking it over failed.
    #[error("cannot take over descriptor {number} from the launcher")]
    Inherited {
        /// Which.
        number: u32,
        /// Why.
        source: io::Error,
    },
    /// It is something else.
    #[error("descriptor {number} does not lead to a launcher: only a launcher sets it")]
    Kind {
        /// Which.
        number: u32,
    },
    /// No thread.
    #[error("cannot watch over the launcher")]
    Watch(#[source] io::Error),
    /// The launcher has ended.
    #[error("the launcher is gone")]
    Gone(#[source] io::Error),
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;
    use crate::release::Release;

    const BOUND: Duration = Duration::from_secs(10);

    fn watched() -> (Release, UnixStream, ReadyPipe, mpsc::Receiver<()>) {
        let (launcher, daemon) = UnixStream::pair().expect("a pair");
        let release = Release::new().expect("a pipe");
        release.hand_over(&launcher).expect("the channel is empty");
        let pipe = ReadyPipe::from(daemon);
        let (sender, abandoned) = mpsc::channel();
        // The sender goes with the closure: a watch that ends quietly closes the channel.
        pipe.watch(move || sender.send(()).expect("the test waits")).expect("a thread");
        (release, launcher, pipe, abandoned)
    }

    #[test]
    fn a_daemon_learns_that_its_launcher_is_gone_even_after_it_was_ready() {
        let (release, launcher, pipe, abandoned) = watched();
        pipe.ready(Rank(1), Path::new("/m")).expect("the launcher is there");
        drop((release, launcher));
        assert_eq!(abandoned.recv_timeout(BOUND), Ok(()));
        assert!(matches!(pipe.ready(Rank(1), Path::new("/m")), Err(ReadyError::Gone(_))));
    }

    #[test]
    fn a_released_daemon_does_not_mind_the_launcher_s_end() {
        let (release, launcher, pipe, abandoned) = watched();
        release.release().expect("the daemon is there");
        drop(launcher);
        assert_eq!(abandoned.recv_timeout(BOUND), Err(mpsc::RecvTimeoutError::Disconnected));
        drop(pipe);
    }

    #[test]
    fn progress_is_told_until_the_launch_is_complete() {
        let (release, mut launcher, pipe, abandoned) = watched();
        let progress = ProgressReport { ready: 5, size: 8, depth: 2, missing: vec![3, 6, 7] };
        assert!(pipe.progress(progress.clone()));
        release.release().expect("the daemon is there");
        assert_eq!(abandoned.recv_timeout(BOUND), Err(mpsc::RecvTimeoutError::Disconnected));
        assert!(!pipe.progress(progress), "nobody listens any more");
        drop(pipe);
        let mut line = String::new();
        launcher.read_to_string(&mut line).expect("a line");
        let expected = r#"{"progress":{"ready":5,"size":8,"depth":2,"missing":[3,6,7]}}"#;
        assert_eq!(line, format!("{expected}\n"));
    }

    #[test]
    fn a_failed_daemon_says_why_and_does_not_mind_either() {
        let (release, mut launcher, pipe, abandoned) = watched();
        pipe.failed("no /dev/fuse\nhere");
        let mut line = String::new();
        launcher.read_to_string(&mut line).expect("a line");
        assert_eq!(line, "{\"error\":\"no /dev/fuse\\nhere\"}\n");
        drop((release, launcher));
        assert_eq!(abandoned.recv_timeout(BOUND), Err(mpsc::RecvTimeoutError::Disconnected));
    }
}
