//! The filled extents of this node, and the cache as the protocol sees it.

use std::collections::HashMap;

use std::sync::Arc;

use copper_cache::{Cache, LocalUse};
use copper_proto::store::{Known, Store};
use copper_proto::{
    BlockIndex, Directory, Dropped, Extent, Held, Key, Scope, Spilled, Tick, ViewPath, What,
};

use crate::inodes::Inodes;
use crate::ports::Memory;
use crate::spilling::Spilling;
use crate::sync::{Bug, planted};
use crate::view::InodeNumber;

/// A published extent, and the inode that shows it, if one does.
struct Slot<B> {
    bytes: B,
    shown: Option<(InodeNumber, BlockIndex)>,
}

/// The extents that this node holds, by offset.
pub(crate) struct Slots<M: Memory> {
    published: HashMap<u64, Slot<M::Filled>>,
    /// Filled, and not yet published by the protocol; with the snapshot, if it is a directory's.
    ready: HashMap<u64, (M::Filled, Option<Arc<Directory>>)>,
}

impl<M: Memory> Default for Slots<M> {
    fn default() -> Slots<M> {
        Slots { published: HashMap::new(), ready: HashMap::new() }
    }
}

impl<M: Memory> Slots<M> {
    pub(crate) fn filled(
        &mut self,
        extent: Extent,
        bytes: M::Filled,
        directory: Option<Arc<Directory>>,
    ) {
        self.ready.insert(extent.offset, (bytes, directory));
    }

    /// A filled extent is one that may be shown; the directory that it holds, if it does.
    pub(crate) fn publish(&mut self, held: Held) -> Option<Arc<Directory>> {
        let ready = self.ready.remove(&held.extent.offset);
        let (bytes, directory) = ready.expect("an extent is filled before it is published");
        self.published.insert(held.extent.offset, Slot { bytes, shown: None });
        directory
    }

    /// The bytes of a published extent.
    pub(crate) fn bytes(&self, extent: Extent) -> &M::Filled {
        &self.published.get(&extent.offset).expect("the protocol names published extents").bytes
    }

    /// Lets FUSE threads read a block of an inode, and of no other: a file that was forgotten and
    /// found again is another inode.
    pub(crate) fn show(
        &mut self,
        inodes: &Inodes<M::Filled>,
        number: InodeNumber,
        index: BlockIndex,
        extent: Extent,
    ) {
        let slot = self.published.get_mut(&extent.offset);
        let slot = slot.expect("the protocol names published extents");
        if let Some((before, index)) = slot.shown.take()
            && before != number
            && let Some(inode) = inodes.get(before)
        {
            inode.withdraw(index);
        }
        if let Some(inode) = inodes.get(number) {
            inode.publish(index, slot.bytes.clone(), extent.len);
            slot.shown = Some((number, index));
        }
    }

    /// Takes an extent that a refresh covers from the readers to come. Whether it may go; if it may,
    /// it is gone from here when this returns.
    fn drop_now(&mut self, inodes: &Inodes<M::Filled>, extent: Extent) -> bool {
        let slot = self.published.get_mut(&extent.offset);
        let slot = slot.expect("the cache names published extents");
        if let Some((number, index)) = slot.shown.take()
            && let Some(inode) = inodes.get(number)
        {
            inode.withdraw(index);
        }
        let may_go = M::holders(&slot.bytes) == 1;
        if may_go {
            self.published.remove(&extent.offset);
        }
        may_go
    }

    /// Whether an extent may go; if it may, no reader to come finds it.
    pub(crate) fn local_use(&mut self, inodes: &Inodes<M::Filled>, extent: Extent) -> LocalUse {
        let slot = self.published.get_mut(&extent.offset);
        let slot = slot.expect("the cache names published extents");
        let too_early = planted(Bug::CountedBeforeWithdrawn)
            && M::holders(&slot.bytes) == 1 + usize::from(slot.shown.is_some());
        if let Some((number, index)) = slot.shown {
            if let Some(inode) = inodes.get(number) {
                if inode.take_touched(index) {
                    return LocalUse::Touched;
                }
                inode.withdraw(index);
            }
            slot.shown = None;
        }
        if M::holders(&slot.bytes) > 1 && !too_early {
            return LocalUse::InUse;
        }
        LocalUse::Idle
    }

    /// Lets an extent go.
    pub(crate) fn remove(&mut self, extent: Extent) -> M::Filled {
        self.published.remove(&extent.offset).expect("the cache names published extents").bytes
    }
}

/// The cache with its extents: what a node is given as its store.
pub(crate) struct Shelf<'a, M: Memory> {
    pub(crate) cache: &'a mut Cache,
    pub(crate) slots: &'a mut Slots<M>,
    pub(crate) inodes: &'a Inodes<M::Filled>,
    pub(crate) spilling: Option<&'a mut Spilling<M>>,
}

impl<M: Memory> Store for Shelf<'_, M> {
    fn entry(&mut self, path: &ViewPath, now: Tick) -> Option<Known> {
        self.cache.entry(path, now)
    }

    fn object(&mut self, key: &Key) -> Option<Held> {
        self.cache.object(key)
    }

    fn holds(&self, key: &Key) -> bool {
        self.cache.holds(key)
    }

    fn put_entry(&mut self, path: &ViewPath, known: Known) {
        self.cache.put_entry(path, known);
    }

    fn can_hold(&self, len: u32) -> bool {
        self.cache.can_hold(len)
    }

    fn allocate(&mut self, len: u32) -> Option<Extent> {
        let Shelf { cache, slots, inodes, spilling } = self;
        cache.allocate(len, |candidate| {
            let extent = candidate.held.extent;
            let local_use = slots.local_use(inodes, extent);
            if local_use == LocalUse::Idle {
                let bytes = slots.remove(extent);
                if let Some(spilling) = spilling
                    && !candidate.dropped
                {
                    spilling.keep(candidate.key, candidate.held, bytes.as_ref());
                }
            }
            local_use
        })
    }

    fn release(&mut self, extent: Extent) {
        self.slots.ready.remove(&extent.offset);
        self.cache.release(extent);
    }

    fn publish(&mut self, key: &Key, held: Held) {
        debug_assert!(!matches!(key.what, What::Entry | What::Statistics));
        if let Some(directory) = self.slots.publish(held) {
            self.cache.put_directory(&key.path, directory);
        }
        self.cache.publish(key, held);
    }

    fn unread(&mut self, extent: Extent) {
        self.cache.unread(extent);
    }

    fn drop_within(&mut self, scope: &Scope) -> Dropped {
        let Shelf { cache, slots, inodes, spilling } = self;
        if let Some(spilling) = spilling {
            spilling.index.drop_within(scope);
        }
        cache.drop_within(scope, |_, extent| slots.drop_now(inodes, extent))
    }

    fn pin(&mut self, extent: Extent) {
        self.cache.pin(extent);
    }

    fn unpin(&mut self, extent: Extent) {
        self.cache.unpin(extent);
    }

    fn spilled(&self, key: &Key) -> Option<u32> {
        self.spilling.as_ref()?.index.spilled(key)
    }

    fn begin_restore(&mut self, key: &Key) -> Option<Spilled> {
        self.spilling.as_mut()?.index.begin_read(key)
    }

    fn end_restore(&mut self, spilled: Spilled, well: bool) {
        let spilling = self.spilling.as_mut().expect("only what was begun ends");
        spilling.index.end_read(spilled, well);
    }
}
