//! Pages of shared libraries that are put into the kernel's cache before they are asked for.
//!
//! The dynamic loader reads a library's header, for which the kernel asks for 16 KiB, and then maps
//! it and touches most of what follows, each stretch for a request of its own. So when the header
//! has been answered and what follows is held here, it is given to the kernel at once. Measured
//! with `import numpy, scipy.linalg, pandas`: of the first 256 KiB of 75 libraries 96 % is used, and
//! 132 of 908 READs are not made; see docs/adr/0007.
//!
//! A thread of its own does it, one page range at a time: the kernel locks each page, and waits for
//! one that is just being read, so that a thread which answers requests could wait for itself.
//! Nothing depends on it: when it has not caught up, or the kernel refuses, the pages are read.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use copper_engine::{InodeNumber, Now, Piece, View};
use fuser::{INodeNo, Notifier};
use tracing::debug;

use crate::counters::Counters;

/// What a shared library and a program begin with.
const MAGIC: &[u8] = b"\x7fELF";

/// Up to where a library is stored, in bytes.
const STORED_BYTES: u32 = 256 << 10;

/// Stores that may wait, each holding an extent in place.
const WAITING_MAX: usize = 8;

/// Bytes of a file that the kernel is to have.
struct Store<B> {
    inode: InodeNumber,
    offset: u64,
    piece: Piece<B>,
}

/// Where requests leave what is to be stored.
pub(crate) struct Stores<B> {
    waiting: SyncSender<Store<B>>,
}

/// The other end of [`Stores`], for the thread.
pub(crate) struct Storing<B> {
    waiting: Receiver<Store<B>>,
}

/// The two ends of the way to the thread.
pub(crate) fn stores<B>() -> (Stores<B>, Storing<B>) {
    let (sender, receiver) = sync_channel(WAITING_MAX);
    (Stores { waiting: sender }, Storing { waiting: receiver })
}

impl<B: AsRef<[u8]> + Clone + Send + Sync + 'static> Stores<B> {
    /// A READ of `len` bytes from `offset` has been answered with bytes that begin so: leaves what
    /// follows to be stored, if it is a library's header.
    pub(crate) fn answered<V: View<Bytes = B>>(
        &self,
        view: &V,
        inode: InodeNumber,
        offset: u64,
        len: u32,
        head: &[u8],
    ) {
        // A shorter answer ends with the file.
        let whole = head.len() < len as usize;
        if offset != 0 || whole || len >= STORED_BYTES || !head.starts_with(MAGIC) {
            return;
        }
        let offset = u64::from(len);
        if let Now::Answered(Ok(pieces)) = view.read(inode, offset, STORED_BYTES - len)
            && let Some(piece) = pieces.into_iter().next()
        {
            // When the thread has enough to do, the pages are read as others are.
            let _ = self.waiting.try_send(Store { inode, offset, piece });
        }
    }
}

impl<B: AsRef<[u8]> + Send + 'static> Storing<B> {
    /// Starts the thread; it ends with the last [`Stores`].
    ///
    /// # Errors
    /// If there is no thread to be had.
    pub(crate) fn start(self, notifier: Notifier, counters: Arc<Counters>) -> io::Result<()> {
        let store = move || {
            for Store { inode, offset, piece } in self.waiting {
                let bytes = piece.as_ref();
                match notifier.store(INodeNo(inode.0), offset, bytes) {
                    Ok(()) => {
                        counters.stores.count();
                        counters.store_bytes.add(bytes.len() as u64);
                    }
                    // The kernel has forgotten the file, or the mount is gone.
                    Err(error) => debug!(inode = inode.0, %error, "pages were not stored"),
                }
            }
        };
        thread::Builder::new().name("fuse-stores".to_owned()).spawn(store)?;
        Ok(())
    }
}
