//! Readers that look at every byte, and at the time that each call takes.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// What came of reading a list of files once.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) right: usize,
    /// Files with other bytes than the source's, or too few.
    pub(crate) wrong: Vec<PathBuf>,
    /// Files that could not be read, with the errno.
    pub(crate) failed: Vec<(PathBuf, i32)>,
    /// The longest that one file has taken.
    pub(crate) longest: Duration,
}

/// A file in a view and what it has to hold.
pub(crate) type Expected = (PathBuf, Arc<Vec<u8>>);

/// Reads each file once, in a thread of its own.
#[derive(Debug)]
pub(crate) struct Reader {
    progress: Arc<AtomicUsize>,
    thread: JoinHandle<Tally>,
    what: String,
}

impl Reader {
    pub(crate) fn start(what: impl Into<String>, files: Vec<Expected>) -> Reader {
        let progress = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&progress);
        let thread = thread::spawn(move || {
            let mut tally = Tally::default();
            for (path, expected) in files {
                let started = Instant::now();
                let result = read(&path);
                tally.longest = tally.longest.max(started.elapsed());
                match result {
                    Ok(bytes) if bytes == **expected => tally.right += 1,
                    Ok(_) => tally.wrong.push(path),
                    Err(error) => {
                        let errno = error.raw_os_error().expect("an error of the kernel");
                        tally.failed.push((path, errno));
                    }
                }
                counted.fetch_add(1, Ordering::Relaxed);
            }
            tally
        });
        Reader { progress, thread, what: what.into() }
    }

    /// Files done.
    pub(crate) fn progress(&self) -> usize {
        self.progress.load(Ordering::Relaxed)
    }

    /// # Panics
    /// If it does not end in time.
    #[track_caller]
    pub(crate) fn finish(self, deadline: Duration) -> Tally {
        let what = format!("{} ends, after {} files", self.what, self.progress());
        super::eventually(deadline, &what, || self.thread.is_finished().then_some(()));
        self.thread.join().expect("reading does not panic")
    }
}

/// The whole file, in calls of 128 KiB at most.
pub(crate) fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}
