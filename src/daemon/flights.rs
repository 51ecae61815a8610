//! The flight recorder's files: `flight/HOST-PID-NN.jsonl`, written when somebody asks, and when
//! something went wrong.

use std::io;
use std::path::PathBuf;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use copper_engine::Recorder;
use tracing::{info, warn};

use crate::flight::{Flight, Head, Line, origin_unix_s};
use crate::whole_file::write_whole;

/// Files of one rank; the next one takes the oldest's place.
const FILES_MAX: u32 = 16;

/// Files that wait to be written; more would show the same.
const WAITING_MAX: usize = 2;

/// Between two files that nobody has asked for: what goes wrong often shall not fill them all.
const PAUSE: Duration = Duration::from_secs(10);

/// Writes the files of one rank.
#[derive(Debug)]
pub(super) struct Flights {
    recorder: Arc<Recorder>,
    /// The moment that its times count from.
    origin: Arc<OnceLock<Instant>>,
    /// What all files begin with, but for the reason.
    head: Head,
    folder: PathBuf,
    /// `<host>-<pid>`.
    name: String,
    written: Mutex<Written>,
}

#[derive(Debug, Default)]
struct Written {
    files: u32,
    unasked: Option<Instant>,
}

impl Flights {
    pub(super) fn new(
        recorder: Arc<Recorder>,
        origin: Arc<OnceLock<Instant>>,
        head: Head,
        folder: PathBuf,
        name: String,
    ) -> Flights {
        Flights { recorder, origin, head, folder, name, written: Mutex::default() }
    }

    /// Writes a file that somebody has asked for.
    pub(super) fn write(&self, why: &str) {
        let number = {
            let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
            written.files += 1;
            (written.files - 1) % FILES_MAX
        };
        let origin = self.origin.get().map_or(Duration::ZERO, Instant::elapsed);
        let head =
            Head { why: why.to_owned(), origin_unix_s: origin_unix_s(origin), ..self.head.clone() };
        let lines = self.recorder.events().iter().map(Line::from).collect();
        let path = self.folder.join(format!("{}-{number:02}.jsonl", self.name));
        let made = std::fs::create_dir_all(&self.folder);
        match made.and_then(|()| write_whole(&path, &Flight { head, lines }.to_text())) {
            Ok(()) => info!(file = %path.display(), why, "wrote what happened last"),
            Err(error) => {
                let file = path.display();
                warn!(%file, %error, "cannot write what happened last: is there room?");
            }
        }
    }

    /// Writes one since something went wrong, unless one was written a moment ago.
    pub(super) fn write_unasked(&self, why: &str) {
        let now = Instant::now();
        {
            let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
            if written.unasked.is_some_and(|last| now.duration_since(last) < PAUSE) {
                return;
            }
            written.unasked = Some(now);
        }
        self.write(why);
    }
}

/// Why a file is written.
#[derive(Debug)]
enum Word {
    Asked,
    Wrong(&'static str),
}

/// Has files written by a thread of their own: for those who must not wait. Nothing happens before
/// there is one.
#[derive(Clone, Debug, Default)]
pub(super) struct Scribe(Arc<OnceLock<SyncSender<Word>>>);

impl Scribe {
    pub(super) fn start(&self, flights: Arc<Flights>) -> io::Result<()> {
        let (words, heard) = sync_channel(WAITING_MAX);
        let write = move || {
            while let Ok(word) = heard.recv() {
                match word {
                    Word::Asked => flights.write("asked for"),
                    Word::Wrong(what) => flights.write_unasked(what),
                }
            }
        };
        std::thread::Builder::new().name("flights".to_owned()).spawn(write)?;
        let _first = self.0.set(words);
        Ok(())
    }

    /// Somebody wants to see what happened.
    pub(super) fn ask(&self) {
        self.tell(Word::Asked);
    }

    /// Something went wrong.
    pub(super) fn wrong(&self, what: &'static str) {
        self.tell(Word::Wrong(what));
    }

    fn tell(&self, word: Word) {
        if let Some(thread) = self.0.get() {
            // One that waits already will show as much.
            let _ = thread.try_send(word);
        }
    }
}
