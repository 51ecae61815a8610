//! The engine's memory: libfabric's registered arena.

use copper_engine::Memory;
use copper_ofi::{Arena, Filled, Filling};
use copper_proto::Extent;

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
