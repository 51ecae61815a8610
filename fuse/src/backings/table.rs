//! Which file is open in which way, and which backing files there are. Pure: replies and backing
//! files are values to it.
//!
//! ```text
//!              open, may be passed            built             last release
//!   (none) ──────────────────────▶ Building ────────▶ Passed ─────────────────▶ Idle ─▶ (none)
//!    │  ▲                             │                  ▲                       │  evicted, forgotten
//!    │  │    last release             │ failed           └───────── open ────────┘
//!    │  └──────────────── Plain ◀─────┘
//!    └── open, not to be passed ─▲
//! ```
//!
//! The kernel wants all opens of a file at one time to be of one kind, and those that are passed to
//! have the same backing file; another open fails with EIO (fs/fuse/iomode.c). It counts an open when
//! it gets the reply, and takes it back before it sends RELEASE. Here an open counts from before the
//! reply until RELEASE: what is open there is open here, in the same way.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use copper_engine::InodeNumber;
use copper_proto::limits::EXTENT_BYTES_MIN;

use crate::passthrough::{PASSED_BYTES_MAX, PassthroughBounds};
use crate::pending::PENDING_MAX;

/// All files that are open, and all that have a backing file: `B` is one, `W` who waits for one.
#[derive(Debug)]
pub(super) struct Table<B, W> {
    files: HashMap<InodeNumber, File<B, W>>,
    /// The idle ones in the order in which they became so.
    idle: BTreeMap<u64, InodeNumber>,
    idle_next: u64,
    idle_bytes: u64,
    /// Bytes of all backing files, those that are being built included.
    total_bytes: u64,
    /// What those that are being built hold in place.
    held_bytes: u64,
    /// How many wait beside the first of each file.
    waiting: usize,
    /// What has left the table, for somebody to drop.
    left: Vec<Arc<B>>,
    /// Whether more may be built.
    building: bool,
    bounds: PassthroughBounds,
}

#[derive(Debug)]
enum File<B, W> {
    /// Its content is on the way, held by the first who opened it; these came later.
    Building { bytes: u64, others: Vec<W> },
    /// Open through the page cache.
    Plain { opens: u64 },
    /// Open through its backing file.
    Passed { backing: Arc<B>, bytes: u64, opens: u64 },
    /// Not open; its backing file is kept for the next one.
    Idle { backing: Arc<B>, bytes: u64, since: u64 },
}

/// What to do with somebody who opens a file.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Opened<B, W> {
    /// Open it plainly.
    Plainly(W),
    /// Open it with this backing file.
    Passed(W, Arc<B>),
    /// Get the content, and then say [`Table::built`] or [`Table::failed`].
    First(W),
    /// Nothing: whoever was first goes on for this one too.
    Waits,
    /// Refuse: too many wait.
    Full(W),
}

impl<B, W> Table<B, W> {
    pub(super) fn new(bounds: PassthroughBounds) -> Table<B, W> {
        Table {
            files: HashMap::new(),
            idle: BTreeMap::new(),
            idle_next: 0,
            idle_bytes: 0,
            total_bytes: 0,
            held_bytes: 0,
            waiting: 0,
            left: Vec::new(),
            building: true,
            bounds,
        }
    }

    /// Somebody opens a file of this size.
    pub(super) fn open(&mut self, inode: InodeNumber, size: u64, who: W) -> Opened<B, W> {
        match self.files.get_mut(&inode) {
            Some(File::Building { others, .. }) => {
                if self.waiting == PENDING_MAX {
                    return Opened::Full(who);
                }
                self.waiting += 1;
                others.push(who);
                Opened::Waits
            }
            Some(File::Plain { opens }) => {
                *opens += 1;
                Opened::Plainly(who)
            }
            Some(File::Passed { backing, opens, .. }) => {
                *opens += 1;
                Opened::Passed(who, Arc::clone(backing))
            }
            Some(File::Idle { backing, bytes, since }) => {
                let (bytes, backing) = (*bytes, Arc::clone(backing));
                self.idle.remove(since);
                self.idle_bytes -= bytes;
                let passed = File::Passed { backing: Arc::clone(&backing), bytes, opens: 1 };
                self.files.insert(inode, passed);
                Opened::Passed(who, backing)
            }
            None => self.open_first(inode, size, who),
        }
    }

    fn open_first(&mut self, inode: InodeNumber, size: u64, who: W) -> Opened<B, W> {
        if self.has_room(size) {
            self.total_bytes += size;
            self.held_bytes += held(size);
            self.files.insert(inode, File::Building { bytes: size, others: Vec::new() });
            Opened::First(who)
        } else {
            self.files.insert(inode, File::Plain { opens: 1 });
            Opened::Plainly(who)
        }
    }

    /// Whether a file may be handed over, if need be in the place of idle ones.
    fn has_room(&mut self, size: u64) -> bool {
        let may_be = self.building && (1..=PASSED_BYTES_MAX).contains(&size);
        if !may_be
            || self.held_bytes + held(size) > self.bounds.held_bytes
            || self.total_bytes - self.idle_bytes + size > self.bounds.total_bytes
        {
            return false;
        }
        while self.total_bytes + size > self.bounds.total_bytes {
            self.evict_oldest();
        }
        true
    }

    /// A backing file is there: everybody who waits beside the first is to get it too.
    pub(super) fn built(&mut self, inode: InodeNumber, backing: B) -> (Arc<B>, Vec<W>) {
        let (bytes, others) = self.end_building(inode);
        let backing = Arc::new(backing);
        let opens = 1 + others.len() as u64;
        self.files.insert(inode, File::Passed { backing: Arc::clone(&backing), bytes, opens });
        (backing, others)
    }

    /// There will be none: everybody who waits beside the first is to be opened plainly too.
    pub(super) fn failed(&mut self, inode: InodeNumber) -> Vec<W> {
        let (bytes, others) = self.end_building(inode);
        self.total_bytes -= bytes;
        self.files.insert(inode, File::Plain { opens: 1 + others.len() as u64 });
        others
    }

    fn end_building(&mut self, inode: InodeNumber) -> (u64, Vec<W>) {
        let Some(File::Building { bytes, others }) = self.files.remove(&inode) else {
            panic!("a file is being built from Opened::First until this is said");
        };
        self.held_bytes -= held(bytes);
        self.waiting -= others.len();
        (bytes, others)
    }

    /// An open file was closed.
    pub(super) fn release(&mut self, inode: InodeNumber) {
        match self.files.get_mut(&inode) {
            Some(File::Plain { opens } | File::Passed { opens, .. }) if *opens > 1 => *opens -= 1,
            Some(File::Plain { .. }) => {
                self.files.remove(&inode);
            }
            Some(File::Passed { backing, bytes, .. }) => {
                let (backing, bytes, since) = (Arc::clone(backing), *bytes, self.idle_next);
                self.idle_next += 1;
                self.files.insert(inode, File::Idle { backing, bytes, since });
                self.idle.insert(since, inode);
                self.idle_bytes += bytes;
                while self.idle_bytes > self.bounds.idle_bytes {
                    self.evict_oldest();
                }
            }
            // The kernel closes what it has opened.
            Some(File::Building { .. } | File::Idle { .. }) | None => {}
        }
    }

    /// The kernel does not know the file any more, nor will it again under this number.
    pub(super) fn forget(&mut self, inode: InodeNumber) {
        if matches!(self.files.get(&inode), Some(File::Idle { .. })) {
            self.evict(inode);
        }
    }

    /// Builds no more, and keeps nothing that is not open.
    pub(super) fn stop(&mut self) {
        self.building = false;
        self.bounds.idle_bytes = 0;
        while !self.idle.is_empty() {
            self.evict_oldest();
        }
    }

    /// What is to be dropped, which takes a while: not under a lock.
    pub(super) fn take_left(&mut self) -> Vec<Arc<B>> {
        std::mem::take(&mut self.left)
    }

    /// Whether there is something to be dropped.
    pub(super) fn has_left(&self) -> bool {
        !self.left.is_empty()
    }

    fn evict_oldest(&mut self) {
        let oldest = self.idle.first_key_value().map(|(_, &inode)| inode);
        self.evict(oldest.expect("bytes are idle, so something is"));
    }

    fn evict(&mut self, inode: InodeNumber) {
        let Some(File::Idle { backing, bytes, since }) = self.files.remove(&inode) else {
            panic!("only what is idle is evicted");
        };
        self.idle.remove(&since);
        self.idle_bytes -= bytes;
        self.total_bytes -= bytes;
        self.left.push(backing);
    }
}

/// What a content of this size holds in place: no extent is smaller than a page.
fn held(size: u64) -> u64 {
    size.max(EXTENT_BYTES_MIN.into())
}

#[cfg(test)]
mod tests;
