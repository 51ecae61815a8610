//! Refreshes that somebody on this machine asks for: a Unix socket in the register's folder, beside
//! that of the status. The question is the path in the view, up to the end of what is sent; the
//! answer is one line of JSON.

use std::fs;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use copper_proto::ViewPath;
use copper_proto::limits::PATH_BYTES_MAX;
use serde_json::{Value, json};

use crate::refresh::{PATIENCE, REFRESH_BOUND, REFRESHES_MAX, RefreshResult};
use crate::status::bind;

/// How long a client may take to ask, and to read its answer.
const CLIENT_BOUND: Duration = Duration::from_secs(1);

/// How long the listener rests after accept(2) failed for want of descriptors or memory.
const ACCEPT_REST: Duration = Duration::from_millis(50);

/// An answer names few ranks.
const ANSWER_BYTES_MAX: u64 = 64 << 10;

/// What a rank does about a path in its view.
type Refresh = dyn Fn(ViewPath) -> Result<RefreshResult, String> + Send + Sync;

/// Takes refreshes until it is dropped.
#[derive(Debug)]
pub struct RefreshServer {
    socket: PathBuf,
    stopped: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl RefreshServer {
    /// Starts to take refreshes at `socket`; `refresh` is called from threads of the server, and may
    /// refuse a path with a reason. A socket that is there already is replaced: to be called by who
    /// holds the claim.
    ///
    /// # Errors
    /// If the socket cannot be made.
    pub fn start(
        socket: &Path,
        refresh: impl Fn(ViewPath) -> Result<RefreshResult, String> + Send + Sync + 'static,
    ) -> Result<RefreshServer, RefreshServerError> {
        let failed = |source| RefreshServerError::Listen { socket: socket.to_owned(), source };
        let listener = bind(socket).map_err(failed)?;
        let stopped = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&stopped);
        let thread = std::thread::Builder::new()
            .name("refreshes".to_owned())
            .spawn(move || serve(&listener, &stop, Arc::new(refresh)))
            .map_err(failed)?;
        Ok(RefreshServer { socket: socket.to_owned(), stopped, thread: Some(thread) })
    }
}

impl Drop for RefreshServer {
    fn drop(&mut self) {
        // Release: pairs with the Acquire in `serve`, which looks after each client: this is one.
        self.stopped.store(true, Ordering::Release);
        let woken = UnixStream::connect(&self.socket).is_ok();
        if let Some(thread) = self.thread.take()
            && woken
        {
            // A panic of the thread was reported where it happened.
            let _ = thread.join();
        }
        // Gone already, or in a folder that is gone.
        let _ = fs::remove_file(&self.socket);
    }
}

fn serve(listener: &UnixListener, stopped: &AtomicBool, refresh: Arc<Refresh>) {
    let under_way = Arc::new(AtomicUsize::new(0));
    loop {
        let client = match listener.accept() {
            Ok((client, _)) => client,
            Err(_) => {
                std::thread::sleep(ACCEPT_REST);
                continue;
            }
        };
        // Acquire: pairs with the Release of the drop.
        if stopped.load(Ordering::Acquire) {
            return;
        }
        if under_way.fetch_add(1, Ordering::Relaxed) >= REFRESHES_MAX {
            under_way.fetch_sub(1, Ordering::Relaxed);
            let error = "this rank has other refreshes under way: try again";
            let _ = answer(&client, &json!({ "error": error }));
            continue;
        }
        let (counted, refresh) = (Arc::clone(&under_way), Arc::clone(&refresh));
        let attend = move || {
            // Whoever goes away does not hear the answer.
            let _ = attend(&client, &*refresh);
            counted.fetch_sub(1, Ordering::Relaxed);
        };
        if std::thread::Builder::new().name("refresh".to_owned()).spawn(attend).is_err() {
            under_way.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

fn attend(client: &UnixStream, refresh: &Refresh) -> io::Result<()> {
    client.set_read_timeout(Some(CLIENT_BOUND))?;
    let mut path = Vec::new();
    client.take(PATH_BYTES_MAX as u64 + 1).read_to_end(&mut path)?;
    let error = |text: String| json!({ "error": text });
    let report = match ViewPath::parse(&path) {
        None => error("that is no path in a view".to_owned()),
        Some(path) => match refresh(path) {
            Err(refused) => error(refused),
            Ok(Err(failed)) => error(failed.to_string()),
            Ok(Ok((epoch, tally))) => json!({
                "epoch": epoch.0,
                "ranks": tally.ranks,
                "missing": tally.missing.iter().map(|rank| rank.0).collect::<Vec<_>>(),
                "missing_more": tally.missing_more,
                "dropped": {
                    "entries": tally.dropped.entries,
                    "directories": tally.dropped.directories,
                    "blocks": tally.dropped.blocks,
                    "bytes": tally.dropped.bytes,
                },
            }),
        },
    };
    answer(client, &report)
}

fn answer(mut client: &UnixStream, report: &Value) -> io::Result<()> {
    client.set_write_timeout(Some(CLIENT_BOUND))?;
    client.write_all(format!("{report}\n").as_bytes())
}

/// Asks the daemon behind `socket` for a refresh of its whole job, and waits for the end.
///
/// # Errors
/// If the daemon does not answer.
pub fn ask_refresh(socket: &Path, path: &ViewPath) -> Result<Value, RefreshServerError> {
    let failed = |source| RefreshServerError::Ask { socket: socket.to_owned(), source };
    let ask = || {
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(REFRESH_BOUND + PATIENCE + CLIENT_BOUND))?;
        stream.set_write_timeout(Some(CLIENT_BOUND))?;
        stream.write_all(path.as_bytes())?;
        stream.shutdown(Shutdown::Write)?;
        let mut text = Vec::new();
        stream.take(ANSWER_BYTES_MAX).read_to_end(&mut text)?;
        serde_json::from_slice(&text).map_err(io::Error::from)
    };
    ask().map_err(failed)
}

/// Why a refresh cannot be asked for.
#[derive(Debug, thiserror::Error)]
pub enum RefreshServerError {
    /// The server cannot start.
    #[error("cannot take refreshes at {}", socket.display())]
    Listen {
        /// Where.
        socket: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The daemon does not answer.
    #[error("the daemon does not answer at {}", socket.display())]
    Ask {
        /// Where.
        socket: PathBuf,
        /// Why.
        source: io::Error,
    },
}
