//! Shows on standard output what daemons write into their logs, line by line, while a launch lasts.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use super::print;

/// How often the files are looked at.
const LOOK: Duration = Duration::from_millis(100);

/// What is taken of one file at a time: a line that is longer is shown in pieces.
const PIECE_BYTES: u64 = 1 << 20;

/// Follows the logs of one folder. Dropped, it shows what is still to be shown.
#[derive(Debug)]
pub(super) struct LogFollower {
    end: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// Where the follower is in each file. By inode: a log gets its name only once its daemon has a number.
#[derive(Debug)]
struct Shown {
    folder: PathBuf,
    files: HashMap<u64, u64>,
}

impl LogFollower {
    /// Shows what is written from now on; what earlier launches of the job left there is not shown.
    pub(super) fn start(folder: &Path) -> LogFollower {
        let mut shown = Shown { folder: folder.to_owned(), files: HashMap::new() };
        let old = shown.logs();
        shown.files.extend(old.iter().filter_map(|log| {
            let metadata = log.metadata().ok()?;
            Some((metadata.ino(), metadata.len()))
        }));
        let (end, ended) = channel();
        let thread = std::thread::Builder::new().name("logs".into()).spawn(move || {
            while ended.recv_timeout(LOOK) == Err(RecvTimeoutError::Timeout) {
                shown.look();
            }
            shown.look();
        });
        // Without a thread the files are all there is.
        LogFollower { end: Some(end), thread: thread.ok() }
    }
}

impl Drop for LogFollower {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            // It has nothing to say.
            let _ = thread.join();
        }
    }
}

impl Shown {
    fn logs(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let is_log = |path: &PathBuf| {
            let name = path.file_name().unwrap_or_default().as_encoded_bytes();
            // What the launcher said is not a daemon's.
            name.ends_with(b".log") && !name.ends_with(b"-launcher.log")
        };
        entries.map(|entry| entry.path()).filter(is_log).collect()
    }

    fn look(&mut self) {
        for log in self.logs() {
            // A file that cannot be read now may be at the next look.
            while self.show(&log).unwrap_or(false) {}
        }
    }

    /// Shows the next whole lines of a file; false if there is none.
    fn show(&mut self, log: &Path) -> std::io::Result<bool> {
        let mut file = File::open(log)?;
        let shown = self.files.entry(file.metadata()?.ino()).or_default();
        file.seek(SeekFrom::Start(*shown))?;
        let mut piece = Vec::new();
        let length = file.take(PIECE_BYTES).read_to_end(&mut piece)?;
        let whole = piece.iter().rposition(|&byte| byte == b'\n').map(|end| end + 1);
        let whole = whole.unwrap_or(if length as u64 == PIECE_BYTES { length } else { 0 });
        *shown += whole as u64;
        let name = log.file_stem().unwrap_or_default().to_string_lossy();
        let name = name.strip_suffix("-output").unwrap_or(&name);
        for line in String::from_utf8_lossy(&piece[..whole]).lines() {
            // Nobody listens any more: the files have it.
            let _ = print(&format!("{name}: {line}"));
        }
        Ok(whole > 0)
    }
}
