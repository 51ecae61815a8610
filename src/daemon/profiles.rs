//! When the profiles of a rank are written: from one thread, so that nobody who asks waits for a file
//! system.

use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::profile::{Profiler, Tag};

/// Snapshots that wait to be written; more are not told apart.
const WAITING_MAX: usize = 4;

/// What the thread is told.
#[derive(Debug)]
enum Word {
    Snapshot,
    End,
}

/// Asks for a snapshot now, from whatever thread; nothing happens before there is anything to show.
#[derive(Clone, Debug, Default)]
pub(super) struct Snapshots(Arc<OnceLock<SyncSender<Word>>>);

impl Snapshots {
    pub(super) fn ask(&self) {
        if let Some(thread) = self.0.get() {
            // One that waits already will show as much.
            let _ = thread.try_send(Word::Snapshot);
        }
    }
}

/// The profiles of a rank that runs.
pub(super) struct Profiles {
    profiler: Arc<Profiler>,
    /// Whether anybody wants them at the end, and not only when he asks.
    wanted: bool,
    words: SyncSender<Word>,
    thread: Option<JoinHandle<()>>,
}

impl Profiles {
    pub(super) fn start(
        profiler: Arc<Profiler>,
        interval: Option<Duration>,
        wanted: bool,
        snapshots: &Snapshots,
    ) -> io::Result<Profiles> {
        let (words, heard) = sync_channel(WAITING_MAX);
        let own = Arc::clone(&profiler);
        let run = move || {
            if wanted {
                own.write_ready();
            }
            run(&own, interval, &heard);
        };
        let thread = std::thread::Builder::new().name("profiles".to_owned()).spawn(run)?;
        let _first = snapshots.0.set(words.clone());
        Ok(Profiles { profiler, wanted, words, thread: Some(thread) })
    }

    /// The mount is about to end.
    pub(super) fn before_end(&self) {
        if self.wanted {
            self.profiler.write(Tag::PreDestroy);
        }
    }

    /// It has ended, and so has the rank.
    pub(super) fn end(mut self) {
        self.stop();
        if self.wanted {
            self.profiler.write(Tag::Final);
        }
    }

    fn stop(&mut self) {
        if let Some(thread) = self.thread.take() {
            // The thread takes all words; if it is gone, there is nothing to end. A panic of it was
            // reported where it happened.
            let _ = self.words.send(Word::End);
            let _ = thread.join();
        }
    }
}

impl Drop for Profiles {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Writes a snapshot whenever one is asked for or its time has come.
fn run(profiler: &Profiler, interval: Option<Duration>, heard: &Receiver<Word>) {
    let mut due = interval.map(|interval| Instant::now() + interval);
    loop {
        let word = match due {
            Some(due) => heard.recv_timeout(due.saturating_duration_since(Instant::now())),
            None => heard.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        match word {
            Ok(Word::Snapshot) => profiler.write(Tag::RuntimeSnapshot),
            Err(RecvTimeoutError::Timeout) => {
                profiler.write(Tag::RuntimeSnapshot);
                due = interval.map(|interval| Instant::now() + interval);
            }
            Ok(Word::End) | Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}
