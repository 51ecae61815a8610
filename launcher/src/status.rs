//! A daemon's counters, for whoever asks: one line of JSON for each connection to a Unix socket in
//! the register's folder, which nobody else can enter. Who sends a line first, `job`, is told what
//! all ranks of the job say of themselves, as far as this one can ask them.

use std::error::Error;
use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use serde_json::{Value, json};

use crate::instance::Listed;

/// How long a client may take to read its answer. They are served one after the other.
const ANSWER_BOUND: Duration = Duration::from_secs(1);

/// How long a client may take to say what it wants.
const QUESTION_BOUND: Duration = Duration::from_millis(100);

/// How long the listener rests after accept(2) failed for want of descriptors or memory.
const ACCEPT_REST: Duration = Duration::from_millis(50);

/// How long a daemon may take to answer: its own bound for the clients before this one, and as much
/// again.
const QUERY_BOUND: Duration = Duration::from_secs(2);

/// The same, where it asks all ranks first.
const JOB_QUERY_BOUND: Duration = Duration::from_secs(8);

/// An answer has a few kilobytes for each rank.
const ANSWER_BYTES_MAX: u64 = 128 << 20;

/// The question for all ranks.
const JOB_QUESTION: &[u8] = b"job\n";

/// Who wants to know of all ranks at a time; others are told to come again.
const JOB_CLIENTS_MAX: usize = 4;

/// Daemons that are asked at the same time.
const QUERIES_AT_ONCE: usize = 32;

/// Answers questions about this daemon until it is dropped.
#[derive(Debug)]
pub struct StatusServer {
    socket: PathBuf,
    stop: UnixStream,
    thread: Option<JoinHandle<()>>,
}

impl StatusServer {
    /// Starts to answer at `socket` with what `answer` returns, which is called from a thread of
    /// the server and must not wait for the daemon. A socket that is there already is replaced: to
    /// be called by who holds the claim.
    ///
    /// # Errors
    /// If the socket cannot be made.
    pub fn start(
        socket: &Path,
        answer: impl Fn() -> Value + Send + 'static,
    ) -> Result<StatusServer, StatusError> {
        let alone = || json!({ "error": "this daemon knows of no job" });
        StatusServer::start_for_job(socket, answer, alone)
    }

    /// The same; who asks for the job is answered with what `of_job` returns, which is called from
    /// threads of the server and may wait.
    ///
    /// # Errors
    /// If the socket cannot be made.
    pub fn start_for_job(
        socket: &Path,
        answer: impl Fn() -> Value + Send + 'static,
        of_job: impl Fn() -> Value + Send + Sync + 'static,
    ) -> Result<StatusServer, StatusError> {
        let failed = |source| StatusError::Listen { socket: socket.to_owned(), source };
        let listener = bind(socket).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let (stop, stopped) = UnixStream::pair().map_err(failed)?;
        let thread = std::thread::Builder::new()
            .name("status".to_owned())
            .spawn(move || serve(&listener, &stopped, answer, &Arc::new(of_job)))
            .map_err(failed)?;
        Ok(StatusServer { socket: socket.to_owned(), stop, thread: Some(thread) })
    }
}

/// Listens at a socket that is its owner's alone. One that is there already is replaced.
pub(crate) fn bind(socket: &Path) -> io::Result<UnixListener> {
    match fs::remove_file(socket) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let listener = UnixListener::bind(socket)?;
    // The folder keeps others out meanwhile.
    fs::set_permissions(socket, fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

impl Drop for StatusServer {
    fn drop(&mut self) {
        // The thread waits for this socket to close.
        let _ = self.stop.shutdown(std::net::Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            // A panic of the thread was reported where it happened.
            let _ = thread.join();
        }
        // Gone already, or in a folder that is gone.
        let _ = fs::remove_file(&self.socket);
    }
}

fn serve<J: Fn() -> Value + Send + Sync + 'static>(
    listener: &UnixListener,
    stopped: &UnixStream,
    answer: impl Fn() -> Value,
    of_job: &Arc<J>,
) {
    let job_clients = Arc::new(AtomicUsize::new(0));
    loop {
        let mut fds = [PollFd::new(listener, PollFlags::IN), PollFd::new(stopped, PollFlags::IN)];
        // Interrupted by a signal: nobody has come, and the loop comes round again.
        let _ = rustix::event::poll(&mut fds, None);
        if !fds[1].revents().is_empty() {
            return;
        }
        match listener.accept() {
            Ok((client, _)) => {
                if asks_for_job(&client) {
                    answer_for_job(client, &job_clients, of_job);
                } else {
                    tell(&client, &answer());
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            // Out of descriptors: it would be just as readable in the next turn.
            Err(_) => std::thread::sleep(ACCEPT_REST),
        }
    }
}

fn tell(client: &UnixStream, answer: &Value) {
    let mut text = answer.to_string();
    text.push('\n');
    // A client that does not read goes without.
    let _ = write_within(client, text.as_bytes(), ANSWER_BOUND);
}

/// A client has said what it wants before it is accepted, or at once, or it is an older one that says
/// nothing.
fn asks_for_job(mut client: &UnixStream) -> bool {
    let mut question = [0; JOB_QUESTION.len()];
    let heard = client
        .set_nonblocking(false)
        .and_then(|()| client.set_read_timeout(Some(QUESTION_BOUND)))
        .and_then(|()| client.read_exact(&mut question));
    heard.is_ok() && question == JOB_QUESTION
}

fn answer_for_job<J: Fn() -> Value + Send + Sync + 'static>(
    client: UnixStream,
    clients: &Arc<AtomicUsize>,
    of_job: &Arc<J>,
) {
    // Only this thread adds to it.
    if clients.load(Relaxed) >= JOB_CLIENTS_MAX {
        return tell(&client, &json!({ "error": "this rank answers others: try again" }));
    }
    clients.fetch_add(1, Relaxed);
    let (counted, of_job) = (Arc::clone(clients), Arc::clone(of_job));
    let attend = move || {
        tell(&client, &of_job());
        counted.fetch_sub(1, Relaxed);
    };
    if std::thread::Builder::new().name("status-job".to_owned()).spawn(attend).is_err() {
        clients.fetch_sub(1, Relaxed);
    }
}

fn write_within(mut client: &UnixStream, mut bytes: &[u8], bound: Duration) -> io::Result<()> {
    client.set_nonblocking(false)?;
    let deadline = Instant::now() + bound;
    while !bytes.is_empty() {
        client.set_write_timeout(Some(remaining(deadline)?))?;
        let written = client.write(bytes)?;
        bytes = &bytes[written..];
    }
    Ok(())
}

fn remaining(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
}

/// Asks the daemon behind `socket`.
///
/// # Errors
/// If it does not answer, or not with JSON.
pub fn query(socket: &Path) -> Result<Value, StatusError> {
    ask_within(socket, b"rank", QUERY_BOUND)
}

/// Asks the daemon behind `socket` for all ranks of its job: `{"ranks": […]}`, or `{"error": "…"}`
/// if it cannot ask them. Who does not answer it is not among them.
///
/// # Errors
/// If the daemon itself does not answer, or not with JSON.
pub fn query_job(socket: &Path) -> Result<Value, StatusError> {
    ask_within(socket, JOB_QUESTION, JOB_QUERY_BOUND)
}

fn ask_within(socket: &Path, question: &[u8], bound: Duration) -> Result<Value, StatusError> {
    let failed = |source| StatusError::Query { socket: socket.to_owned(), source };
    let text = read_answer(socket, question, bound).map_err(failed)?;
    serde_json::from_slice(&text)
        .map_err(|source| StatusError::Malformed { socket: socket.to_owned(), source })
}

fn read_answer(socket: &Path, question: &[u8], bound: Duration) -> io::Result<Vec<u8>> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let fd = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    // Without waiting: a daemon that hangs may have a full queue.
    rustix::net::connect(&fd, &SocketAddrUnix::new(socket)?)?;
    let mut stream = UnixStream::from(fd);
    // The socket of a client that has just come has room for it.
    stream.write_all(question)?;
    stream.set_nonblocking(false)?;
    let deadline = Instant::now() + bound;
    let (mut text, mut piece) = (Vec::new(), [0; 16 << 10]);
    loop {
        stream.set_read_timeout(Some(remaining(deadline)?))?;
        match stream.read(&mut piece) {
            Ok(0) => return Ok(text),
            Ok(count) => text.extend_from_slice(&piece[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Err(io::ErrorKind::TimedOut.into());
            }
            Err(error) => return Err(error),
        }
        if text.len() as u64 > ANSWER_BYTES_MAX {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
    }
}

/// Asks all of them: `{"ranks": […]}` in the order of the list. A daemon that runs stands for itself;
/// one that does not, or does not answer, is `{"rank", "pid", "host", "mount", "log", "state"}` with
/// the state `dead` or `silent`, the latter with an `error`.
pub fn collect(listed: &[Listed]) -> Value {
    let mut ranks = Vec::with_capacity(listed.len());
    for some in listed.chunks(QUERIES_AT_ONCE) {
        let answers: Vec<Value> = std::thread::scope(|scope| {
            let asked: Vec<_> = some.iter().map(|it| scope.spawn(|| ask(it))).collect();
            asked.into_iter().map(|it| it.join().expect("asking does not panic")).collect()
        });
        ranks.extend(answers);
    }
    ranks.sort_by_key(|rank| rank["rank"].as_u64());
    json!({ "ranks": ranks })
}

fn ask(listed: &Listed) -> Value {
    let instance = &listed.instance;
    let stand_in = |state: &str| {
        json!({
            "rank": instance.rank.0,
            "pid": instance.process.pid,
            "host": instance.host,
            "mount": instance.mount,
            "log": instance.log,
            "state": state,
        })
    };
    if !listed.alive {
        return stand_in("dead");
    }
    match query(&instance.socket) {
        Ok(answer) => answer,
        Err(_) if !instance.process.is_alive() => stand_in("dead"),
        Err(error) => {
            let mut value = stand_in("silent");
            value["error"] = Value::String(chain(&error));
            value
        }
    }
}

/// An error and its causes, in one line.
fn chain(error: &dyn Error) -> String {
    let causes = std::iter::successors(error.source(), |&cause| cause.source());
    causes.fold(error.to_string(), |line, cause| format!("{line}: {cause}"))
}

/// Why there is no status.
#[derive(Debug, thiserror::Error)]
pub enum StatusError {
    /// The server cannot start.
    #[error("cannot answer questions at {}", socket.display())]
    Listen {
        /// Where.
        socket: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The daemon does not answer.
    #[error("the daemon does not answer at {}", socket.display())]
    Query {
        /// Where.
        socket: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The daemon answers something else.
    #[error("the answer from {} is not a status", socket.display())]
    Malformed {
        /// Where.
        socket: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
}
