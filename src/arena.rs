//! The engine's memory: libfabric's registered arena.

use std::thread::{self, JoinHandle};

use copper_engine::Memory;
use copper_ofi::{Arena, Filled, Filling};
use copper_proto::Extent;
use tracing::debug;

/// How much of the arena has pages before the rank is ready, in bytes: what an import of numpy,
/// scipy and pandas takes.
const PREPARED_BYTES_MAX: usize = 96 << 20;

/// The share of the arena that has pages before the rank is ready.
const PREPARED_SHARE: usize = 4;

/// What is prepared in one go, in bytes: a huge page. Whoever starts a thread or grows a heap
/// meanwhile waits for no more than that.
const STEP_BYTES: usize = 2 << 20;

/// Has pages put behind the part of the arena that is used first, while the rank comes up: extents
/// are given out from low offsets up. Else the kernel clears them in the first import, on the thread
/// that everybody waits for. Join the thread before the rank says that it is ready, so that it takes
/// nothing from those who use the view.
pub(crate) fn prepare(arena: &Arena) -> Option<JoinHandle<()>> {
    let bytes = (arena.len() / PREPARED_SHARE).min(PREPARED_BYTES_MAX);
    let arena = arena.clone();
    let prepare = move || {
        let prepared = (0..bytes)
            .step_by(STEP_BYTES)
            .all(|offset| arena.prepare(offset, STEP_BYTES.min(bytes - offset)));
        if !prepared {
            debug!("the kernel prepares no pages: they are cleared as they are used");
        }
    };
    match thread::Builder::new().name("pages".to_owned()).spawn(prepare) {
        Ok(thread) => Some(thread),
        Err(error) => {
            debug!(%error, "no thread to prepare pages: they are cleared as they are used");
            None
        }
    }
}

/// The arena of this rank.
#[derive(Clone, Debug)]
pub(crate) struct RankArena(pub(crate) Arena);

impl Memory for RankArena {
    type Filling = Filling;
    type Filled = Filled;

    fn take(&self, extent: Extent) -> Filling {
        let offset = usize::try_from(extent.offset).expect("the arena is mapped");
        let page = copper_ofi::PAGE_BYTES;
        let space = (extent.len as usize).next_multiple_of(page);
        let mut filling = self.0.take(offset, space);
        filling.shorten(extent.len as usize);
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
