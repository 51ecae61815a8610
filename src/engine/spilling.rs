//! What is evicted goes to the spill file, and what is wanted again comes back.
//!
//! Bytes that leave are copied, since their extent is needed now, into a small staging memory from
//! which the file's threads write them; who wants them again meanwhile gets them from there. When it
//! is full the disk is slower than eviction: the object is dropped, and nobody waits.

use std::collections::HashMap;

use copper_cache::{Buddy, Budget, Spill};
use copper_proto::{Extent, Held, Key, PullId, Spilled};
use tracing::{debug, warn};

use crate::ports::{Failed, Memory, SpillDone, SpillFile, SpillJob};

/// What a spill is made of.
pub struct SpillSettings<M: Memory> {
    /// The file.
    pub file: Box<dyn SpillFile<M>>,
    /// How long it may become, in bytes.
    pub file_bytes: u64,
    /// Where bytes wait to be written, and its size.
    pub staging: M,
    /// Its size in bytes.
    pub staging_bytes: u64,
}

/// An object on its way back.
pub(crate) struct Restore {
    pub(crate) pull: PullId,
    pub(crate) key: Key,
    pub(crate) into: Extent,
    pub(crate) checksum: u64,
}

/// What is under way in the file.
enum Job {
    Write { copy: Spilled, from: Extent },
    Read(Restore),
}

/// A restore that has ended, if one has.
pub(crate) type Restored<F> = Option<(Restore, Result<F, Failed>)>;

/// The spill of one rank.
pub(crate) struct Spilling<M: Memory> {
    pub(crate) index: Spill,
    file: Box<dyn SpillFile<M>>,
    staging: M,
    free: Buddy,
    /// What is being written, by its place in the file.
    staged: HashMap<u64, M::Filled>,
    jobs: HashMap<SpillJob, Job>,
    next_job: u64,
    /// So that a file system that is full is one line in the log.
    has_failed: bool,
}

impl<M: Memory> Spilling<M> {
    pub(crate) fn new(settings: SpillSettings<M>, budget: &Budget) -> Spilling<M> {
        Spilling {
            index: Spill::new(settings.file_bytes, budget.spill),
            file: settings.file,
            staging: settings.staging,
            free: Buddy::new(settings.staging_bytes),
            staged: HashMap::new(),
            jobs: HashMap::new(),
            next_job: 0,
            has_failed: false,
        }
    }

    fn job(&mut self, job: Job) -> SpillJob {
        let number = SpillJob(self.next_job);
        self.next_job += 1;
        self.jobs.insert(number, job);
        number
    }

    /// An object leaves the arena.
    pub(crate) fn keep(&mut self, key: &Key, held: Held, bytes: &[u8]) {
        if self.index.has_kept(key, held) {
            return;
        }
        let len = held.extent.len;
        let fits = self.free.can_hold(len);
        let Some(offset) = fits.then(|| self.free.allocate(len)).flatten() else {
            self.index.drop_one();
            return;
        };
        let from = Extent { offset, len };
        let Some(copy) = self.index.keep(key, held) else {
            self.free.free(offset, len);
            return;
        };
        let mut staged = self.staging.take(from);
        staged.as_mut().copy_from_slice(bytes);
        let staged = M::freeze(staged);
        self.staged.insert(copy.offset, staged.clone());
        let job = self.job(Job::Write { copy, from });
        self.file.write(job, copy.offset, staged);
    }

    /// Reads a copy back; at once if it is still here.
    pub(crate) fn restore(
        &mut self,
        restore: Restore,
        from: Spilled,
        mut into: M::Filling,
    ) -> Restored<M::Filling> {
        if let Some(staged) = self.staged.get(&from.offset) {
            into.as_mut().copy_from_slice(staged.as_ref());
            return Some((restore, Ok(into)));
        }
        let job = self.job(Job::Read(restore));
        self.file.read(job, from.offset, into, from.checksum);
        None
    }

    /// Something that has ended.
    pub(crate) fn poll(&mut self) -> Option<Restored<M::Filling>> {
        let (job, result) = match self.file.poll()? {
            SpillDone::Written { job, result } => (job, result.map(|()| None)),
            SpillDone::Read { job, result } => (job, result.map(Some)),
        };
        let restored = match self.jobs.remove(&job).expect("each job ends once") {
            Job::Write { copy, from } => {
                self.staged.remove(&copy.offset);
                self.free.free(from.offset, from.len);
                self.index.written(copy, result.is_ok());
                if result.is_err() && !std::mem::replace(&mut self.has_failed, true) {
                    warn!("the spill file cannot take all that it may: it stays smaller");
                }
                None
            }
            Job::Read(restore) => {
                if result.is_err() {
                    debug!(key = ?restore.key, "a spilled copy is lost: it is asked for again");
                }
                let bytes = result.map(|bytes| bytes.expect("a read ends with its extent"));
                Some((restore, bytes))
            }
        };
        Some(restored)
    }
}
