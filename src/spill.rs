//! The spill file of a rank: it has no name, so that nothing is left of it however the rank ends, and
//! threads of its own read and write it.

use std::collections::VecDeque;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context;
use copper_engine::ports::{Failed, SpillDone, SpillFile, SpillJob};
use copper_engine::{Queue, SpillSettings};
use copper_ofi::{Arena, Filled, Filling};
use nix::sys::signal::{SigSet, Signal};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use tracing::{debug, warn};
use twox_hash::XxHash3_64;

use crate::arena::RankArena;

/// Threads that read and write. A local disk answers in less than a millisecond.
const THREADS: usize = 4;

/// Evicted bytes that may wait to be written, beside `--memory`: eight blocks.
const STAGING_BYTES: u64 = 8 << 20;

/// Where a rank's evicted objects go.
#[derive(Debug)]
pub(crate) struct SpillPlan {
    pub(crate) file: File,
    pub(crate) bytes: u64,
}

/// Makes a file without a name.
///
/// # Errors
/// If the folder is not there or cannot be written to: one line.
pub(crate) fn open(folder: &Path) -> anyhow::Result<File> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::EXCL;
    let mode = Mode::from_raw_mode(0o600);
    let made = match rustix::fs::open(folder, flags | OFlags::TMPFILE, mode) {
        // Not every file system can: one is made with a name, which is removed at once.
        Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL) => {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            let name = format!(".copper-spill-{}-{}", std::process::id(), now.as_nanos());
            let path = folder.join(name);
            rustix::fs::open(&path, flags | OFlags::CREATE | OFlags::NOFOLLOW, mode)
                .and_then(|file| rustix::fs::unlink(&path).map(|()| file))
        }
        made => made,
    };
    let made = made.with_context(|| {
        format!("--spill {}: give a folder that can be written to", folder.display())
    });
    made.map(File::from)
}

/// Starts the threads; each job that has ended wakes the engine through its queue.
pub(crate) fn start(
    plan: SpillPlan,
    queue: &Arc<Queue>,
) -> anyhow::Result<SpillSettings<RankArena>> {
    let staging = Arena::map(usize::try_from(STAGING_BYTES).expect("small"))?;
    let pool = Pool::start(plan.file, Arc::clone(queue))
        .context("the threads of the spill cannot be started")?;
    Ok(SpillSettings {
        file: Box::new(pool),
        file_bytes: plan.bytes,
        staging: RankArena(staging),
        staging_bytes: STAGING_BYTES,
    })
}

enum Work {
    Write { job: SpillJob, offset: u64, bytes: Filled },
    Read { job: SpillJob, offset: u64, into: Filling, checksum: u64 },
}

/// Bounded by the staging memory and by the protocol's bound on restores.
struct Jobs {
    /// Somebody waits for them: they go first.
    reads: VecDeque<Work>,
    writes: VecDeque<Work>,
    ended: bool,
}

struct Shared {
    file: File,
    jobs: Mutex<Jobs>,
    ready: Condvar,
    done: Mutex<VecDeque<SpillDone<Filling>>>,
    queue: Arc<Queue>,
}

/// The threads of a spill file. They are not waited for: one may hang in a dead disk.
struct Pool {
    shared: Arc<Shared>,
}

impl Pool {
    fn start(file: File, queue: Arc<Queue>) -> std::io::Result<Pool> {
        let jobs = Jobs { reads: VecDeque::new(), writes: VecDeque::new(), ended: false };
        let pool = Pool {
            shared: Arc::new(Shared {
                file,
                jobs: Mutex::new(jobs),
                ready: Condvar::new(),
                done: Mutex::new(VecDeque::new()),
                queue,
            }),
        };
        for index in 0..THREADS {
            let shared = Arc::clone(&pool.shared);
            let thread = std::thread::Builder::new().name(format!("spill-{index}"));
            thread.spawn(move || run(&shared))?;
        }
        Ok(pool)
    }

    fn submit(&self, put: impl FnOnce(&mut Jobs)) {
        put(&mut self.shared.jobs.lock().unwrap_or_else(PoisonError::into_inner));
        self.shared.ready.notify_one();
    }
}

impl SpillFile<RankArena> for Pool {
    fn write(&mut self, job: SpillJob, offset: u64, bytes: Filled) {
        self.submit(|jobs| jobs.writes.push_back(Work::Write { job, offset, bytes }));
    }

    fn read(&mut self, job: SpillJob, offset: u64, into: Filling, checksum: u64) {
        self.submit(|jobs| jobs.reads.push_back(Work::Read { job, offset, into, checksum }));
    }

    fn poll(&mut self) -> Option<SpillDone<Filling>> {
        self.shared.done.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.submit(|jobs| jobs.ended = true);
        self.shared.ready.notify_all();
    }
}

fn run(shared: &Shared) {
    // A file that outgrows the user's limit is an error like others, not the end of the process.
    let mut outgrown = SigSet::empty();
    outgrown.add(Signal::SIGXFSZ);
    if let Err(error) = outgrown.thread_block() {
        warn!(%error, "a limit on the size of files would end this rank");
    }
    loop {
        let mut jobs = shared.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        let work = loop {
            if jobs.ended {
                return;
            }
            match jobs.reads.pop_front().or_else(|| jobs.writes.pop_front()) {
                Some(work) => break work,
                None => jobs = shared.ready.wait(jobs).unwrap_or_else(PoisonError::into_inner),
            }
        };
        drop(jobs);
        let done = perform(&shared.file, work);
        shared.done.lock().unwrap_or_else(PoisonError::into_inner).push_back(done);
        shared.queue.wake();
    }
}

fn perform(file: &File, work: Work) -> SpillDone<Filling> {
    match work {
        Work::Write { job, offset, bytes } => {
            let result = file.write_all_at(bytes.as_ref(), offset).map_err(|error| {
                debug!(%error, offset, "the spill file could not be written");
                Failed
            });
            // Its room is given to the next one when the engine hears of the end.
            drop(bytes);
            SpillDone::Written { job, result }
        }
        Work::Read { job, offset, mut into, checksum } => {
            let result = match file.read_exact_at(into.as_mut(), offset) {
                Ok(()) if XxHash3_64::oneshot(into.as_ref()) == checksum => Ok(into),
                Ok(()) => Err(Failed),
                Err(error) => {
                    debug!(%error, offset, "the spill file could not be read");
                    Err(Failed)
                }
            };
            SpillDone::Read { job, result }
        }
    }
}
