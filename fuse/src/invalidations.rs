//! What the kernel holds and has to forget, when the source is looked at anew.
//!
//! A thread of its own tells it. The kernel waits, for a name, until nobody looks up another one in
//! the same directory (`fuse_reverse_inval_entry` takes its lock, fs/fuse/dir.c), and for a listing,
//! until nobody reads its pages: a thread that answers requests could wait for itself. An answer of
//! before that is still on its way is then in the cache, from where it is removed; attributes that
//! were asked for before are not kept (`attr_version`, fs/fuse/inode.c).

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use copper_engine::Stale;
use fuser::{INodeNo, Notifier};
use tracing::debug;

use crate::counters::Counters;

/// One refresh's list, and whom to tell when the kernel holds nothing of it any more.
struct Batch {
    stale: Vec<Stale>,
    done: Box<dyn FnOnce() + Send>,
}

/// Where lists are left.
#[derive(Clone)]
pub(crate) struct Invalidations {
    /// Not bounded here: a job has few refreshes under way, each with one list.
    waiting: Sender<Batch>,
}

impl std::fmt::Debug for Invalidations {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Invalidations")
    }
}

/// The other end, for the thread.
pub(crate) struct Invalidating {
    waiting: Receiver<Batch>,
}

/// The two ends of the way to the thread.
pub(crate) fn invalidations() -> (Invalidations, Invalidating) {
    let (sender, receiver) = channel();
    (Invalidations { waiting: sender }, Invalidating { waiting: receiver })
}

impl Invalidations {
    /// Never blocks. `done` is dropped without a call if the mount is gone.
    pub(crate) fn tell(&self, stale: Vec<Stale>, done: Box<dyn FnOnce() + Send>) {
        let _ = self.waiting.send(Batch { stale, done });
    }
}

impl Invalidating {
    /// Starts the thread; it ends with the last [`Invalidations`].
    ///
    /// # Errors
    /// If there is no thread to be had.
    pub(crate) fn start(self, notifier: Notifier, counters: Arc<Counters>) -> io::Result<()> {
        let tell = move || {
            for Batch { stale, done } in self.waiting {
                for one in stale {
                    counters.invalidations.count();
                    forget(&notifier, &one);
                }
                done();
            }
        };
        thread::Builder::new().name("fuse-stale".to_owned()).spawn(tell)?;
        Ok(())
    }
}

fn forget(notifier: &Notifier, stale: &Stale) {
    let told = match stale {
        Stale::Name { parent, name } => {
            notifier.inval_entry(INodeNo(parent.0), OsStr::from_bytes(name))
        }
        // All of it: attributes, and the pages that hold its listing.
        Stale::Directory(inode) => notifier.inval_inode(INodeNo(inode.0), 0, 0),
    };
    match told {
        Ok(()) => {}
        // The kernel does not hold it (any more).
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => debug!(?stale, %error, "the kernel was not told"),
    }
}
