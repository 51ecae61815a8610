//! The source of a root rank: the file system that is shown, read on a bounded pool of threads.

mod boundary;
mod file_system;
mod open_files;

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;

use copper_engine::ports::{Source, SourceDone, SourceReply, SourceWork};
use copper_engine::{Memory, Queue};
use copper_proto::limits::{SOURCE_JOBS_MAX, TREES_MAX};
use copper_proto::{Errno, JobId, Key, What};
use twox_hash::XxHash3_64;

use boundary::Boundary;
use file_system::FileSystem;
pub(crate) use file_system::attributes;

/// Threads that read. Lustre answers in milliseconds: this many are in flight.
const THREADS: usize = 16;

/// Jobs that may wait: a rank that has lost its parents may read for all trees.
const JOBS_MAX: usize = SOURCE_JOBS_MAX * TREES_MAX as usize;

/// What a source has done, for `copper status`.
#[derive(Debug, Default)]
pub(crate) struct SourceCounters {
    /// Regular files opened.
    pub(crate) opens: AtomicU64,
    /// Reads of blocks.
    pub(crate) reads: AtomicU64,
    /// Bytes of them.
    pub(crate) bytes: AtomicU64,
    /// Attributes read.
    pub(crate) stats: AtomicU64,
    /// Directories listed.
    pub(crate) listings: AtomicU64,
    /// Lists of extended attributes read.
    pub(crate) extended_attributes: AtomicU64,
    /// Files searched for holes.
    pub(crate) data_ranges: AtomicU64,
    /// Requests that the allowed roots refuse, or that a rank without a source got.
    pub(crate) refused: AtomicU64,
}

pub(crate) fn count(counter: &AtomicU64, more: u64) {
    counter.fetch_add(more, Ordering::Relaxed);
}

/// Which part of the file system may be shown.
#[derive(Clone, Debug)]
pub(crate) struct SourceSettings {
    /// The allowed roots; what lies outside is refused, the way to them is shown.
    pub(crate) roots: Vec<PathBuf>,
    /// Mount points of views of this job, which no view shows.
    pub(crate) hidden: Vec<PathBuf>,
    /// Some of these are to be kept from others, not only out of the way.
    pub(crate) is_restricted: bool,
}

struct Work<F> {
    job: JobId,
    key: Key,
    work: SourceWork<F>,
}

struct Shared<F> {
    jobs: Mutex<Jobs<F>>,
    ready: Condvar,
    done: Mutex<VecDeque<SourceDone<F>>>,
    queue: Arc<Queue>,
    file_system: FileSystem,
}

struct Jobs<F> {
    waiting: VecDeque<Work<F>>,
    ended: bool,
}

/// A source that reads, or one that refuses everything.
pub(crate) enum RankSource<M: Memory> {
    /// Reads the file system.
    Reading(Pool<M>),
    /// `--source none`: answers `EACCES` without a system call on the source.
    Refusing { counters: Arc<SourceCounters>, refused: VecDeque<JobId> },
}

/// The threads that read.
pub(crate) struct Pool<M: Memory> {
    shared: Arc<Shared<M::Filling>>,
    threads: Vec<JoinHandle<()>>,
}

impl<M: Memory> RankSource<M> {
    /// Starts the threads; each finished job wakes the engine through its queue.
    pub(crate) fn reading(
        settings: SourceSettings,
        counters: Arc<SourceCounters>,
        queue: Arc<Queue>,
    ) -> std::io::Result<RankSource<M>> {
        let boundary = Boundary::new(settings)?;
        let shared = Arc::new(Shared {
            jobs: Mutex::new(Jobs { waiting: VecDeque::new(), ended: false }),
            ready: Condvar::new(),
            done: Mutex::new(VecDeque::new()),
            queue,
            file_system: FileSystem::new(boundary, counters),
        });
        let threads = (0..THREADS).map(|index| {
            let shared = Arc::clone(&shared);
            let thread = std::thread::Builder::new().name(format!("source-{index}"));
            thread.spawn(move || run(&shared))
        });
        let threads = threads.collect::<Result<_, _>>()?;
        Ok(RankSource::Reading(Pool { shared, threads }))
    }

    /// A rank that must not touch the source.
    pub(crate) fn refusing(counters: Arc<SourceCounters>) -> RankSource<M> {
        RankSource::Refusing { counters, refused: VecDeque::new() }
    }
}

impl<M: Memory> Source<M::Filling> for RankSource<M> {
    fn submit(&mut self, job: JobId, key: &Key, work: SourceWork<M::Filling>) {
        match self {
            RankSource::Reading(pool) => {
                let mut jobs = pool.shared.jobs.lock().unwrap_or_else(PoisonError::into_inner);
                jobs.waiting.push_back(Work { job, key: key.clone(), work });
                assert!(jobs.waiting.len() <= JOBS_MAX, "the protocol bounds the jobs");
                pool.shared.ready.notify_one();
            }
            RankSource::Refusing { counters, refused } => {
                count(&counters.refused, 1);
                drop(work);
                refused.push_back(job);
            }
        }
    }

    fn poll(&mut self) -> Option<SourceDone<M::Filling>> {
        match self {
            RankSource::Reading(pool) => {
                pool.shared.done.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
            }
            RankSource::Refusing { refused, .. } => {
                let job = refused.pop_front()?;
                Some(SourceDone { job, result: Err(Errno::EACCES) })
            }
        }
    }
}

impl<M: Memory> Drop for Pool<M> {
    fn drop(&mut self) {
        self.shared.jobs.lock().unwrap_or_else(PoisonError::into_inner).ended = true;
        self.shared.ready.notify_all();
        for thread in self.threads.drain(..) {
            // A thread may hang in a dead file system: it is not waited for. Its result goes
            // nowhere, and the process ends.
            if thread.is_finished() {
                let _ = thread.join();
            }
        }
    }
}

fn run<F: AsRef<[u8]> + AsMut<[u8]> + Send>(shared: &Shared<F>) {
    loop {
        let mut jobs = shared.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        let work = loop {
            if jobs.ended {
                return;
            }
            match jobs.waiting.pop_front() {
                Some(work) => break work,
                None => jobs = shared.ready.wait(jobs).unwrap_or_else(PoisonError::into_inner),
            }
        };
        drop(jobs);
        let job = work.job;
        let result = perform(&shared.file_system, work);
        let done = SourceDone { job, result };
        shared.done.lock().unwrap_or_else(PoisonError::into_inner).push_back(done);
        shared.queue.wake();
    }
}

fn perform<F: AsRef<[u8]> + AsMut<[u8]>>(
    file_system: &FileSystem,
    work: Work<F>,
) -> Result<SourceReply<F>, Errno> {
    let Work { key, work, .. } = work;
    match (work, key.what) {
        (SourceWork::Entry, _) => match file_system.entry(&key.path)? {
            Some(entry) => Ok(SourceReply::Present(entry)),
            None => Ok(SourceReply::Absent),
        },
        (SourceWork::Encoded, What::Directory) => {
            file_system.directory(&key.path).map(SourceReply::Encoded)
        }
        (SourceWork::Encoded, What::ExtendedAttributes) => {
            let attributes = file_system.extended_attributes(&key.path)?;
            Ok(SourceReply::Encoded(attributes.encode()))
        }
        (SourceWork::Encoded, What::DataRanges { generation }) => {
            let ranges = file_system.data_ranges(&key.path, generation)?;
            Ok(SourceReply::Encoded(ranges.encode()))
        }
        (SourceWork::Statistics, _) => {
            file_system.statistics(&key.path).map(SourceReply::Statistics)
        }
        (SourceWork::Block(mut extent), What::Block { index, generation }) => {
            file_system.block(&key.path, index, generation, extent.as_mut())?;
            let checksum = XxHash3_64::oneshot(extent.as_ref());
            Ok(SourceReply::Block(extent, checksum))
        }
        (SourceWork::Block(_) | SourceWork::Encoded, _) => {
            unreachable!("the protocol asks for each object as what it is")
        }
    }
}
