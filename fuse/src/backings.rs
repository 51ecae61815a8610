//! Files that the kernel reads by itself: the content of a file that is opened is copied into an
//! anonymous file (a memfd), and the open file is bound to that (`FOPEN_PASSTHROUGH`, Linux 6.9).
//!
//! Not the source's own file: only the root of the tree may open that.
//!
//! A thread of its own copies; the first who opens a file waits in [`Pending`](crate::Pending) for
//! the content and then in the queue here, the others in the [`table`]. Invariant: every file that is
//! being built is either in `Pending`, in the queue, or in the thread's hands, so each of its openers
//! is answered, and at the end plainly. The kernel names the registered file by a number, which has
//! to stay until its last user has closed it: the table counts them.

mod table;

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, Once, OnceLock};
use std::thread;

use copper_engine::{InodeNumber, Piece};
use copper_proto::Errno;
use fuser::{BackingId, FileHandle, FopenFlags, ReplyOpen};
use rustix::fs::{MemfdFlags, memfd_create};
use tracing::{debug, warn};

use crate::attributes::kernel_errno;
use crate::counters::Counters;
use crate::passthrough::{PassthroughBounds, Refusal};
use table::{Opened, Table};

/// The handle of an open file that is counted here.
pub(crate) const COUNTED: FileHandle = FileHandle(1);

/// Somebody who waits for a file to be opened.
#[derive(Debug)]
pub(crate) struct Opener {
    pub(crate) reply: ReplyOpen,
    /// How it is opened if it is not handed over.
    pub(crate) plain: FopenFlags,
}

impl Opener {
    fn open_plainly(self) {
        self.reply.opened(COUNTED, self.plain);
    }

    fn pass(self, backing: &BackingId, counters: &Counters) {
        counters.passthrough.count();
        // Any other flag but those of direct writes makes the kernel refuse it
        // (FOPEN_PASSTHROUGH_MASK in fs/fuse/iomode.c).
        self.reply.opened_passthrough(COUNTED, FopenFlags::empty(), backing);
    }
}

/// A content to copy. The queue's bound is that of the bytes held in place.
struct Job<B> {
    inode: InodeNumber,
    pieces: Vec<Piece<B>>,
    first: Opener,
}

struct Shared<B> {
    table: Table<BackingId, Opener>,
    jobs: VecDeque<Job<B>>,
    closed: bool,
}

/// The backing files of one mount.
pub(crate) struct Backings<B> {
    shared: Mutex<Shared<B>>,
    /// Wakes the thread: there is something to copy or to drop, or it is to end.
    work: Condvar,
    counters: Arc<Counters>,
    denied: Arc<OnceLock<Refusal>>,
    warned: Once,
}

impl<B: AsRef<[u8]> + Send + 'static> Backings<B> {
    /// None yet. `denied` gets the reason if the kernel refuses for good.
    pub(crate) fn new(
        bounds: PassthroughBounds,
        counters: Arc<Counters>,
        denied: Arc<OnceLock<Refusal>>,
    ) -> Arc<Backings<B>> {
        let shared = Shared { table: Table::new(bounds), jobs: VecDeque::new(), closed: false };
        Arc::new(Backings {
            shared: Mutex::new(shared),
            work: Condvar::new(),
            counters,
            denied,
            warned: Once::new(),
        })
    }

    /// Starts the thread that copies; it ends with [`Backings::close`].
    ///
    /// # Errors
    /// If there is no thread to be had.
    pub(crate) fn start(self: &Arc<Self>) -> io::Result<()> {
        let backings = Arc::clone(self);
        thread::Builder::new().name("fuse-backings".to_owned()).spawn(move || backings.run())?;
        Ok(())
    }

    /// Opens a file of this size, now or later. If somebody is given back, the whole content is to
    /// be got, and then to be told by [`Backings::content`] or [`Backings::no_content`].
    #[must_use]
    pub(crate) fn open(&self, inode: InodeNumber, size: u64, who: Opener) -> Option<Opener> {
        let opened = self.change(|table| table.open(inode, size, who));
        match opened {
            Opened::First(who) => return Some(who),
            Opened::Plainly(who) => who.open_plainly(),
            Opened::Passed(who, backing) => who.pass(&backing, &self.counters),
            Opened::Waits => {}
            Opened::Full(who) => who.reply.error(kernel_errno(Errno::EAGAIN)),
        }
        None
    }

    /// The content of a file, all of it if these are `size` bytes.
    pub(crate) fn content(
        &self,
        inode: InodeNumber,
        size: u64,
        pieces: Vec<Piece<B>>,
        first: Opener,
    ) {
        let bytes: usize = pieces.iter().map(|piece| piece.as_ref().len()).sum();
        let mut shared = self.shared();
        if bytes as u64 != size || shared.closed {
            drop(shared);
            return self.no_content(inode, first);
        }
        shared.jobs.push_back(Job { inode, pieces, first });
        drop(shared);
        self.work.notify_one();
    }

    /// The content of a file cannot be had, or not be handed over: whoever reads will see.
    pub(crate) fn no_content(&self, inode: InodeNumber, first: Opener) {
        let others = self.change(|table| table.failed(inode));
        first.open_plainly();
        others.into_iter().for_each(Opener::open_plainly);
    }

    /// An open file with the handle [`COUNTED`] was closed.
    pub(crate) fn release(&self, inode: InodeNumber) {
        self.change(|table| table.release(inode));
    }

    /// The kernel has forgotten a file.
    pub(crate) fn forget(&self, inode: InodeNumber) {
        self.change(|table| table.forget(inode));
    }

    /// Answers everybody who waits for a copy, and makes none from now on. What is open stays.
    pub(crate) fn close(&self) {
        let jobs = {
            let mut shared = self.shared();
            shared.closed = true;
            shared.table.stop();
            std::mem::take(&mut shared.jobs)
        };
        self.work.notify_one();
        for Job { inode, first, .. } in jobs {
            self.no_content(inode, first);
        }
    }

    fn shared(&self) -> MutexGuard<'_, Shared<B>> {
        self.shared.lock().expect("no code of others runs under the lock")
    }

    /// Changes the table; what leaves it is dropped by the thread.
    fn change<T>(&self, change: impl FnOnce(&mut Table<BackingId, Opener>) -> T) -> T {
        let mut shared = self.shared();
        let result = change(&mut shared.table);
        let wake = shared.table.has_left();
        drop(shared);
        if wake {
            self.work.notify_one();
        }
        result
    }

    fn run(&self) {
        loop {
            let (left, job) = {
                let mut shared = self.shared();
                loop {
                    let (left, job) = (shared.table.take_left(), shared.jobs.pop_front());
                    if !left.is_empty() || job.is_some() {
                        break (left, job);
                    }
                    if shared.closed {
                        return;
                    }
                    let waited = self.work.wait(shared);
                    shared = waited.expect("no code of others runs under the lock");
                }
            };
            // Gives their memory back.
            drop(left);
            if let Some(job) = job {
                self.build(job);
            }
        }
    }

    fn build(&self, job: Job<B>) {
        let Job { inode, pieces, first } = job;
        let built = copy(&pieces).and_then(|(file, bytes)| {
            // The kernel keeps the file; ours is closed.
            Ok((first.reply.open_backing(file)?, bytes))
        });
        drop(pieces);
        match built {
            Ok((backing, bytes)) => {
                self.counters.backings.count();
                self.counters.backing_bytes.add(bytes);
                let (backing, others) = self.change(|table| table.built(inode, backing));
                for opener in std::iter::once(first).chain(others) {
                    opener.pass(&backing, &self.counters);
                }
            }
            Err(error) => {
                self.refused(&error);
                self.no_content(inode, first);
            }
        }
    }

    fn refused(&self, error: &io::Error) {
        self.counters.backings_failed.count();
        if error.kind() == io::ErrorKind::PermissionDenied {
            let _first = self.denied.set(Refusal::Denied);
            self.change(Table::stop);
        }
        self.warned.call_once(|| {
            warn!(%error, "a file was not handed to the kernel, and opened plainly; said once");
        });
        debug!(%error, "a file was not handed to the kernel");
    }
}

/// An anonymous file with these bytes.
fn copy<B: AsRef<[u8]>>(pieces: &[Piece<B>]) -> io::Result<(File, u64)> {
    // Without the permission to be executed as a file, which the view's own mode gives or does not,
    // and which a system may forbid to all of these (vm.memfd_noexec).
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::NOEXEC_SEAL;
    let mut file = File::from(memfd_create("copper", flags)?);
    let mut bytes = 0;
    for piece in pieces {
        file.write_all(piece.as_ref())?;
        bytes += piece.as_ref().len() as u64;
    }
    Ok((file, bytes))
}
