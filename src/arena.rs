//! The engine's memory: libfabric's registered arena, and pages behind it in time.
//!
//! The first write to a page makes the kernel clear it: for each of the 80 MiB of a cold import, on
//! the thread that everybody waits for. So a thread of its own has pages put behind the part that
//! will be used next: extents are given out from low offsets up.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};

use copper_engine::Memory;
use copper_ofi::{Arena, Filled, Filling};
use copper_proto::Extent;
use tracing::debug;

/// How far ahead of the highest extent in use pages are prepared at most, in bytes: more than an
/// import of numpy, scipy and pandas takes.
const AHEAD_BYTES_MAX: usize = 128 << 20;

/// The share of the arena that is prepared ahead.
const AHEAD_SHARE: usize = 4;

/// The nice value of whoever runs only when nobody else wants to.
const LOWEST_PRIORITY: i32 = 19;

/// What is prepared in one go, in bytes.
const STEP_BYTES: usize = 4 << 20;

/// The arena of this rank.
#[derive(Clone, Debug)]
pub(crate) struct RankArena {
    arena: Arena,
    pages: Arc<Pages>,
}

/// How far the arena is used and prepared, as offsets in bytes.
#[derive(Debug)]
struct Pages {
    used: AtomicUsize,
    prepared: AtomicUsize,
    ahead: usize,
    /// Wakes the thread; gone if there is none.
    wake: Option<SyncSender<()>>,
}

impl RankArena {
    /// Starts the thread that prepares pages; it ends with the last clone.
    pub(crate) fn new(arena: Arena) -> RankArena {
        let (wake, woken) = sync_channel(1);
        let pages = Arc::new(Pages::new(&arena, Some(wake)));
        let (of, weak) = (arena.clone(), Arc::downgrade(&pages));
        let prepare = move || {
            // Of this thread alone, as Linux has it. Where there is other work, pages are cleared as
            // they are used: preparing those that nobody will use must not take its time.
            if let Err(error) = rustix::process::setpriority_process(None, LOWEST_PRIORITY) {
                debug!(%error, "pages are prepared at the usual priority");
            }
            while let Ok(()) = woken.recv() {
                let Some(pages) = weak.upgrade() else { return };
                if !pages.prepare(&of) {
                    debug!("the kernel prepares no pages: they are cleared as they are used");
                    return;
                }
            }
        };
        if let Err(error) = std::thread::Builder::new().name("pages".to_owned()).spawn(prepare) {
            debug!(%error, "no thread to prepare pages");
        }
        RankArena { arena, pages }
    }

    /// Has the first pages prepared.
    pub(crate) fn warm(&self) {
        self.pages.use_up_to(0);
    }
}

impl Pages {
    fn new(arena: &Arena, wake: Option<SyncSender<()>>) -> Pages {
        let ahead = (arena.len() / AHEAD_SHARE).min(AHEAD_BYTES_MAX);
        Pages { used: AtomicUsize::new(0), prepared: AtomicUsize::new(0), ahead, wake }
    }

    fn use_up_to(&self, end: usize) {
        let used = self.used.fetch_max(end, Ordering::Relaxed).max(end);
        // A quarter of it is left when the thread begins.
        if used + self.ahead / 4 > self.prepared.load(Ordering::Relaxed)
            && let Some(wake) = &self.wake
        {
            // It is awake already, or there is none.
            let _ = wake.try_send(());
        }
    }

    /// Prepares what is to come; false if the kernel does not do that.
    fn prepare(&self, arena: &Arena) -> bool {
        loop {
            let prepared = self.prepared.load(Ordering::Relaxed);
            if prepared >= arena.len() {
                self.prepared.store(usize::MAX, Ordering::Relaxed);
                return true;
            }
            if prepared >= self.used.load(Ordering::Relaxed) + self.ahead {
                return true;
            }
            if !arena.prepare(prepared, STEP_BYTES) {
                self.prepared.store(usize::MAX, Ordering::Relaxed);
                return false;
            }
            self.prepared.store(prepared + STEP_BYTES, Ordering::Relaxed);
        }
    }
}

impl Memory for RankArena {
    type Filling = Filling;
    type Filled = Filled;

    fn take(&self, extent: Extent) -> Filling {
        let offset = usize::try_from(extent.offset).expect("the arena is mapped");
        let page = copper_ofi::PAGE_BYTES;
        let space = (extent.len as usize).next_multiple_of(page);
        let mut filling = self.arena.take(offset, space);
        filling.shorten(extent.len as usize);
        self.pages.use_up_to(offset + space);
        filling
    }

    fn freeze(filling: Filling) -> Filled {
        filling.freeze()
    }

    fn extent(filling: &Filling) -> Extent {
        let len = u32::try_from(filling.len()).expect("extents are bounded by limits");
        Extent { offset: filling.offset() as u64, len }
    }

    fn holders(filled: &Filled) -> usize {
        filled.holders()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_prepared_ahead_of_what_is_used_and_no_further() {
        let (arena, ahead) = (Arena::map(64 << 20).expect("address space"), 16 << 20);
        let pages = Pages::new(&arena, None);
        assert!(pages.prepare(&arena));
        assert_eq!(pages.prepared.load(Ordering::Relaxed), ahead);
        pages.use_up_to(ahead);
        pages.use_up_to(10);
        assert!(pages.prepare(&arena));
        assert_eq!(pages.prepared.load(Ordering::Relaxed), 2 * ahead);
        pages.use_up_to(4 * ahead);
        assert!(pages.prepare(&arena));
        assert_eq!(pages.prepared.load(Ordering::Relaxed), usize::MAX, "all of it");
    }

    #[test]
    fn a_whole_arena_smaller_than_a_step_is_prepared() {
        let arena = Arena::map(3 << 20).expect("address space");
        let pages = Pages::new(&arena, None);
        pages.use_up_to(3 << 20);
        assert!(pages.prepare(&arena) && pages.prepare(&arena));
        let mut piece = arena.take(1 << 20, 4096);
        piece.as_mut().fill(7);
        assert!(arena.prepare(0, 3 << 20));
        assert!(piece.as_ref().iter().all(|&byte| byte == 7), "no byte is changed");
    }
}
