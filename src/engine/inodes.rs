//! The inodes that the kernel holds, with what this node can show of each without the engine.
//!
//! Numbers are sequential and never reused. A directory snapshot reserves a run of them, so that an
//! entry is shown under the same number before and after it is looked up. Files with several links
//! are one inode, found by the source's device and inode number: the dynamic loader tells libraries
//! apart so.
//!
//! A refresh (`inodes/refresh.rs`) takes their names from files, so that a file is found again under
//! another number, and what is known of them from directories.
//!
//! An inode lives as long as the kernel holds references to it. References are taken under the
//! table's read lock and an inode is removed under its write lock, when it has none. Beyond a bound
//! the kernel is asked to give some back (`inodes/surplus.rs`).

mod refresh;
mod surplus;

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock, PoisonError};

use copper_proto::limits::LINK_BYTES_MAX;
use copper_proto::{
    Attributes, BlockIndex, DataRanges, Directory, Entry, Errno, ExtendedAttributes, FileKind,
    ViewPath,
};

use crate::sync::{AtomicBool, AtomicU32, AtomicU64, RwLock, RwLockReadGuard, RwLockWriteGuard};
use crate::view::{Found, InodeNumber};
use surplus::Order;
pub(crate) use surplus::inodes_within;

/// A block that FUSE threads may read.
#[derive(Clone, Debug)]
struct Published<B> {
    bytes: B,
    len: u32,
    /// Bytes given to readers, up to `len`; cleared by the engine when it looks for something to
    /// evict.
    given: Arc<AtomicU32>,
}

/// A directory's snapshot and the numbers reserved for its entries.
#[derive(Clone, Debug)]
pub struct Listing {
    /// The snapshot.
    pub directory: Arc<Directory>,
    /// The number of the first entry; the others follow.
    first: u64,
    /// Entries that are one file with an earlier entry, and which: they share its number.
    links: Arc<HashMap<usize, usize>>,
}

impl Listing {
    fn new(directory: &Arc<Directory>, first: u64) -> Listing {
        let mut earliest = HashMap::new();
        let mut links = HashMap::new();
        for index in 0..directory.len() {
            let entry = directory.get(index).and_then(|entry| entry.entry);
            let Some(identity) = entry.as_ref().and_then(identity) else { continue };
            let earlier = *earliest.entry(identity).or_insert(index);
            if earlier != index {
                links.insert(index, earlier);
            }
        }
        Listing { directory: Arc::clone(directory), first, links: Arc::new(links) }
    }

    fn number(&self, index: usize) -> InodeNumber {
        let index = self.links.get(&index).copied().unwrap_or(index);
        InodeNumber(self.first + index as u64)
    }

    /// The numbers of entries that may be one file with one of another directory.
    fn identities(&self) -> impl Iterator<Item = ((u64, u64), InodeNumber)> {
        (0..self.directory.len()).filter_map(|index| {
            let entry = self.directory.get(index)?.entry?;
            Some((identity(&entry)?, self.number(index)))
        })
    }
}

/// One file, directory or link that the kernel knows.
#[derive(Debug)]
pub struct Inode<B> {
    /// What the kernel calls it.
    pub number: InodeNumber,
    /// Where it was found first.
    pub path: ViewPath,
    parent: InodeNumber,
    /// What it is at the source; known from the first attributes on.
    origin: OnceLock<Origin>,
    attributes: RwLock<Option<Attributes>>,
    target: OnceLock<Arc<[u8]>>,
    listing: RwLock<Option<Listing>>,
    extended_attributes: RwLock<Option<Arc<ExtendedAttributes>>>,
    data_ranges: OnceLock<Arc<DataRanges>>,
    blocks: RwLock<HashMap<BlockIndex, Published<B>>>,
    references: AtomicU64,
    /// Names of which the kernel may keep that they are not in this directory.
    absent: RwLock<HashSet<Box<[u8]>>>,
    /// Names that have been looked up in this directory before it was listed.
    pub(crate) lookups: AtomicU32,
    /// Files in this directory that have been read without being held here.
    pub(crate) reads: AtomicU32,
    /// Bytes of it have been asked for.
    pub(crate) was_read: AtomicBool,
    /// The source refuses to list this directory: its entries are asked for one by one.
    pub(crate) unlistable: AtomicBool,
}

impl<B: Clone> Inode<B> {
    fn new(number: InodeNumber, path: ViewPath, parent: InodeNumber) -> Inode<B> {
        Inode {
            number,
            path,
            parent,
            origin: OnceLock::new(),
            attributes: RwLock::new(None),
            target: OnceLock::new(),
            listing: RwLock::new(None),
            extended_attributes: RwLock::new(None),
            data_ranges: OnceLock::new(),
            blocks: RwLock::new(HashMap::new()),
            references: AtomicU64::new(0),
            absent: RwLock::new(HashSet::new()),
            lookups: AtomicU32::new(0),
            reads: AtomicU32::new(0),
            was_read: AtomicBool::new(false),
            unlistable: AtomicBool::new(false),
        }
    }

    /// The attributes, if they are known.
    pub fn attributes(&self) -> Option<Attributes> {
        *read(&self.attributes)
    }

    /// Where the link points, if it is one and that is known.
    pub fn target(&self) -> Option<Arc<[u8]>> {
        self.target.get().cloned()
    }

    /// The snapshot, if there is one.
    pub fn listing(&self) -> Option<Listing> {
        read(&self.listing).clone()
    }

    /// The extended attributes, if they are known.
    pub fn extended_attributes(&self) -> Option<Arc<ExtendedAttributes>> {
        read(&self.extended_attributes).clone()
    }

    /// Where the file has data, if that is known.
    pub fn data_ranges(&self) -> Option<Arc<DataRanges>> {
        self.data_ranges.get().cloned()
    }

    /// The bytes of a block, if they may be read here; the caller takes so many of them.
    pub fn block(&self, index: BlockIndex, taken: u32) -> Option<B> {
        let blocks = read(&self.blocks);
        let block = blocks.get(&index)?;
        // Two readers at once may count as one: it is no more than a hint.
        let given = block.given.load(Ordering::Relaxed);
        if given < block.len {
            block.given.store(given.saturating_add(taken).min(block.len), Ordering::Relaxed);
        }
        Some(block.bytes.clone())
    }

    /// What is shown of it.
    ///
    /// # Errors
    /// `ESTALE` if something else is at its path by now: it is shown under another number.
    fn learn(&self, entry: &Entry) -> Result<(), Errno> {
        let origin = Origin::of(&entry.attributes);
        if *self.origin.get_or_init(|| origin) != origin && self.number != InodeNumber::ROOT {
            return Err(Errno::ESTALE);
        }
        *write(&self.attributes) = Some(entry.attributes);
        if let Some(target) = &entry.target {
            let _ = self.target.set(Arc::clone(target));
        }
        Ok(())
    }

    /// The first ones that came stay.
    pub(crate) fn learn_extended_attributes(
        &self,
        attributes: ExtendedAttributes,
    ) -> Arc<ExtendedAttributes> {
        let mut known = write(&self.extended_attributes);
        Arc::clone(known.get_or_insert_with(|| Arc::new(attributes)))
    }

    /// The first ones that came stay.
    pub(crate) fn learn_data_ranges(&self, ranges: DataRanges) -> Arc<DataRanges> {
        Arc::clone(self.data_ranges.get_or_init(|| Arc::new(ranges)))
    }

    /// Lets readers have a block, of `len` bytes, of which one reader has been given a part.
    pub(crate) fn publish(&self, index: BlockIndex, bytes: B, len: u32) {
        let published = Published { bytes, len, given: Arc::new(AtomicU32::new(0)) };
        self.was_read.store(true, Ordering::Relaxed);
        write(&self.blocks).insert(index, published);
    }

    /// Whether the block was read again since this was asked last: as many bytes as it has were
    /// given out after the first part. Whoever reads it once, part by part in whatever order, does
    /// not get so far; a scan would otherwise look like use.
    pub(crate) fn take_touched(&self, index: BlockIndex) -> bool {
        let blocks = read(&self.blocks);
        let Some(block) = blocks.get(&index) else { return false };
        block.given.load(Ordering::Relaxed) >= block.len && {
            block.given.store(0, Ordering::Relaxed);
            true
        }
    }

    pub(crate) fn withdraw(&self, index: BlockIndex) {
        write(&self.blocks).remove(&index);
    }
}

/// What makes a path the same file, directory or link as before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Origin {
    kind: FileKind,
    device: u64,
    inode: u64,
}

impl Origin {
    fn of(attributes: &Attributes) -> Origin {
        let Attributes { kind, device, inode, .. } = *attributes;
        Origin { kind, device, inode }
    }
}

/// Names of one directory of which the kernel may keep that they are absent. Each has to be named to
/// it when that is no longer so; the names beyond cost a question each time.
const ABSENT_NAMES_MAX: usize = 16_384;

/// A directory and a name in it.
type Place = (InodeNumber, Box<[u8]>);

#[derive(Debug)]
struct Tables<B> {
    by_number: HashMap<InodeNumber, Arc<Inode<B>>>,
    children: HashMap<InodeNumber, HashMap<Box<[u8]>, InodeNumber>>,
    /// The names of each inode but the root: usually one.
    names: HashMap<InodeNumber, Vec<Place>>,
    by_identity: HashMap<(u64, u64), InodeNumber>,
    /// The same of files that were listed and may not have been looked up yet.
    reserved: HashMap<(u64, u64), InodeNumber>,
    order: Order,
}

impl<B> Tables<B> {
    /// The number of a file that is known, or was listed, under another name.
    fn linked(&self, identity: (u64, u64)) -> Option<InodeNumber> {
        self.by_identity.get(&identity).or_else(|| self.reserved.get(&identity)).copied()
    }
}

/// All inodes of a mount. `B` holds the bytes of a block in place.
#[derive(Debug)]
pub struct Inodes<B> {
    tables: RwLock<Tables<B>>,
    next: AtomicU64,
    /// What absolute link targets are shown below, if not as they are.
    links_below: Option<Box<[u8]>>,
}

impl<B: Clone> Default for Inodes<B> {
    fn default() -> Inodes<B> {
        let root = Inode::new(InodeNumber::ROOT, ViewPath::root(), InodeNumber::ROOT);
        root.references.store(1, Ordering::Relaxed);
        let tables = Tables {
            by_number: HashMap::from([(InodeNumber::ROOT, Arc::new(root))]),
            children: HashMap::new(),
            names: HashMap::new(),
            by_identity: HashMap::new(),
            reserved: HashMap::new(),
            order: Order::default(),
        };
        Inodes {
            tables: RwLock::new(tables),
            next: AtomicU64::new(InodeNumber::ROOT.0 + 1),
            links_below: None,
        }
    }
}

impl<B: Clone> Inodes<B> {
    /// The same, showing each absolute link target as below `mount_point`, an absolute path without
    /// a slash at its end: links then lead on within the view.
    #[must_use]
    pub fn with_links_below(mut self, mount_point: &[u8]) -> Inodes<B> {
        self.links_below = Some(mount_point.into());
        self
    }

    /// What the source says of an inode.
    ///
    /// # Errors
    /// `ESTALE` if something else is at its path by now; it has no names any more then.
    pub(crate) fn learn(&self, inode: &Inode<B>, entry: &Entry) -> Result<(), Errno> {
        let learnt = inode.learn(&self.shown(entry));
        if learnt.is_err() {
            self.gone(inode);
        }
        learnt
    }

    /// The source has nothing at an inode's path any more, or something else.
    pub(crate) fn gone(&self, inode: &Inode<B>) {
        write(&self.tables).unname(inode.number);
    }

    /// Notes that the kernel will keep that a name is absent; false if it is not to keep that.
    /// `proof` is the snapshot that says so, which may have gone since it was looked at: `None` of
    /// what the source has just said.
    pub(crate) fn keeps_absent(
        &self,
        parent: InodeNumber,
        name: &[u8],
        proof: Option<&Directory>,
    ) -> bool {
        let tables = read(&self.tables);
        let Some(inode) = tables.by_number.get(&parent) else { return false };
        if proof.is_some_and(|proof| !inode.shows(proof)) {
            return false;
        }
        let mut absent = write(&inode.absent);
        absent.contains(name) || (absent.len() < ABSENT_NAMES_MAX && absent.insert(name.into()))
    }

    /// An entry as it is shown. A target that is in the view already, or would become too long,
    /// stays as it is.
    fn shown<'a>(&self, entry: &'a Entry) -> Cow<'a, Entry> {
        let (Some(below), Some(target)) = (&self.links_below, &entry.target) else {
            return Cow::Borrowed(entry);
        };
        let within = target.strip_prefix(&**below);
        let is_within = within.is_some_and(|rest| rest.is_empty() || rest[0] == b'/');
        if target.first() != Some(&b'/')
            || is_within
            || below.len() + target.len() >= LINK_BYTES_MAX
        {
            return Cow::Borrowed(entry);
        }
        let target: Arc<[u8]> = [below, &**target].concat().into();
        let attributes = Attributes { size: target.len() as u64, ..entry.attributes };
        Cow::Owned(Entry { attributes, target: Some(target) })
    }

    /// The inode with this number.
    pub fn get(&self, number: InodeNumber) -> Option<Arc<Inode<B>>> {
        read(&self.tables).by_number.get(&number).cloned()
    }

    /// How many inodes there are, the root included.
    pub fn len(&self) -> usize {
        read(&self.tables).by_number.len()
    }

    /// Never: there is always the root.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// The directory in which the inode was found.
    pub fn parent(&self, number: InodeNumber) -> InodeNumber {
        self.get(number).map_or(InodeNumber::ROOT, |inode| inode.parent)
    }

    /// A name that has been looked up before and is still held; takes a reference.
    pub fn known(&self, parent: InodeNumber, name: &[u8]) -> Option<Found> {
        let tables = read(&self.tables);
        let number = *tables.children.get(&parent)?.get(name)?;
        let inode = tables.by_number.get(&number)?;
        let attributes = inode.attributes()?;
        inode.references.fetch_add(1, Ordering::Relaxed);
        Some(Found { inode: number, attributes })
    }

    /// The number under which an entry of a snapshot is or will be shown.
    pub fn number(&self, parent: InodeNumber, directory: &Directory, index: usize) -> InodeNumber {
        let tables = read(&self.tables);
        let entry = directory.get(index);
        let known = entry.as_ref().and_then(|entry| tables.children.get(&parent)?.get(entry.name));
        let identity = entry.as_ref().and_then(|entry| entry.entry.as_ref()).and_then(identity);
        let linked = identity.and_then(|identity| tables.linked(identity));
        if let Some(number) = known.copied().or(linked) {
            return number;
        }
        let listing = tables.by_number.get(&parent).and_then(|inode| inode.listing());
        match listing {
            Some(listing) => listing.number(index),
            None => InodeNumber(self.next.fetch_add(1, Ordering::Relaxed)),
        }
    }

    /// The same of an entry of a directory's snapshot; also `None` if that is not shown any more.
    pub fn listed(&self, parent: InodeNumber, from: &Directory, index: usize) -> Option<Found> {
        let entry = from.get(index)?;
        self.find(parent, entry.name, &entry.entry?, Some(from))
    }

    /// Finds or makes the inode of a name that exists; takes a reference. `None` if the directory
    /// is not held any more or the path is too long.
    pub fn found(&self, parent: InodeNumber, name: &[u8], entry: &Entry) -> Option<Found> {
        self.find(parent, name, entry, None)
    }

    fn find(
        &self,
        parent: InodeNumber,
        name: &[u8],
        entry: &Entry,
        from: Option<&Directory>,
    ) -> Option<Found> {
        if let Some(found) = self.known(parent, name) {
            return Some(found);
        }
        let mut tables = write(&self.tables);
        let directory = tables.by_number.get(&parent)?.clone();
        if from.is_some_and(|from| !directory.shows(from)) {
            return None;
        }
        if let Some(&known) = tables.children.get(&parent).and_then(|names| names.get(name))
            && let Some(inode) = tables.by_number.get(&known)
            && inode.attributes().is_none()
            && inode.learn(&self.shown(entry)).is_err()
        {
            tables.unname(known);
        }
        let known = tables.children.get(&parent).and_then(|children| children.get(name)).copied();
        let identity = identity(entry);
        let linked = identity.and_then(|identity| tables.linked(identity));
        let shown = known.or(linked).filter(|number| tables.by_number.contains_key(number));
        let number = match shown {
            Some(number) => number,
            None => {
                let number = linked.unwrap_or_else(|| self.fresh_number(&directory, name));
                let path = directory.path.join(name)?;
                let inode = Arc::new(Inode::new(number, path, parent));
                let Tables { by_number, order, .. } = &mut *tables;
                by_number.insert(number, inode);
                order.push(number, |number| by_number.contains_key(&number), by_number.len());
                if let Some(identity) = identity {
                    tables.by_identity.insert(identity, number);
                }
                number
            }
        };
        if known.is_none() {
            tables.children.entry(parent).or_default().insert(name.into(), number);
            tables.names.entry(number).or_default().push((parent, name.into()));
        }
        let inode = tables.by_number.get(&number).expect("found or made above");
        if inode.attributes().is_none() {
            inode.learn(&self.shown(entry)).ok()?;
        }
        inode.references.fetch_add(1, Ordering::Relaxed);
        let attributes = inode.attributes().expect("learnt above");
        Some(Found { inode: number, attributes })
    }

    fn fresh_number(&self, directory: &Inode<B>, name: &[u8]) -> InodeNumber {
        let listing = directory.listing();
        let reserved = listing.and_then(|listing| {
            let index = listing.directory.find(name)?;
            Some(listing.number(index))
        });
        reserved.unwrap_or_else(|| InodeNumber(self.next.fetch_add(1, Ordering::Relaxed)))
    }

    /// Shows a directory's snapshot. The first one stays as long as the inode does: positions in it
    /// are the kernel's offsets.
    pub(crate) fn list(&self, inode: &Inode<B>, directory: &Arc<Directory>) -> Arc<Directory> {
        if let Some(listing) = inode.listing() {
            return listing.directory;
        }
        let first = self.next.fetch_add(directory.len() as u64, Ordering::Relaxed);
        let made = Listing::new(directory, first);
        let identities: Vec<_> = made.identities().collect();
        // In the order of all others: the table's lock, then an inode's.
        let mut tables = write(&self.tables);
        let mut listing = write(&inode.listing);
        // What is reserved goes with the directory, which may have gone already.
        if listing.is_none() && tables.by_number.contains_key(&inode.number) {
            for (identity, number) in identities {
                tables.reserved.entry(identity).or_insert(number);
            }
        }
        let listing = listing.get_or_insert(made);
        Arc::clone(&listing.directory)
    }

    /// The kernel gives references back. More than it got count as all.
    pub fn forget(&self, number: InodeNumber, count: u64) {
        if number == InodeNumber::ROOT {
            return;
        }
        {
            let tables = read(&self.tables);
            let Some(inode) = tables.by_number.get(&number) else { return };
            let less = |references: u64| Some(references.saturating_sub(count));
            let before = inode.references.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
            if before.is_ok_and(|before| before > count) {
                return;
            }
        }
        let mut tables = write(&self.tables);
        let Some(inode) = tables.by_number.get(&number).cloned() else { return };
        if inode.references.load(Ordering::Relaxed) > 0 {
            return;
        }
        if let Some(attributes) = inode.attributes() {
            let identity = (attributes.device, attributes.inode);
            if tables.by_identity.get(&identity) == Some(&number) {
                tables.by_identity.remove(&identity);
            }
        }
        let listing = inode.listing();
        for (identity, number) in listing.iter().flat_map(Listing::identities) {
            if tables.reserved.get(&identity) == Some(&number) {
                tables.reserved.remove(&identity);
            }
        }
        tables.by_number.remove(&number);
        tables.children.remove(&number);
        for (parent, name) in tables.names.remove(&number).unwrap_or_default() {
            if let Some(children) = tables.children.get_mut(&parent) {
                children.remove(&name);
            }
        }
    }
}

/// What makes two names one file: only files with several links have it.
fn identity(entry: &Entry) -> Option<(u64, u64)> {
    let attributes = &entry.attributes;
    let several = attributes.links > 1 && attributes.kind != FileKind::Directory;
    several.then_some((attributes.device, attributes.inode))
}

// A panic while a lock is held is a bug that ends the daemon; the tables are not looked at again.
fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use copper_proto::{DirectoryBuilder, FileKind, Timestamp};

    pub(super) fn entry(inode: u64, links: u32) -> Entry {
        let time = Timestamp::default();
        let attributes = Attributes {
            kind: FileKind::Regular,
            permissions: 0o644,
            links,
            uid: 0,
            gid: 0,
            device_number: 0,
            size: 1,
            sectors: 1,
            io_bytes: 4096,
            accessed: time,
            modified: time,
            changed: time,
            device: 9,
            inode,
        };
        Entry { attributes, target: None }
    }

    #[test]
    fn an_entry_is_shown_under_one_number_before_and_after_it_is_looked_up() {
        let inodes = Inodes::<Vec<u8>>::default();
        let early = inodes.found(InodeNumber::ROOT, b"b", &entry(2, 1)).expect("root is held");
        let mut builder = DirectoryBuilder::default();
        for (name, inode) in [(b"a", 1), (b"b", 2), (b"c", 3)] {
            builder.push(name, FileKind::Regular, inode, None);
        }
        let directory = Arc::new(Directory::decode(&builder.finish()).expect("well-formed"));
        let root = inodes.get(InodeNumber::ROOT).expect("always there");
        inodes.list(&root, &directory);
        assert_eq!(inodes.number(InodeNumber::ROOT, &directory, 1), early.inode);
        let before = inodes.number(InodeNumber::ROOT, &directory, 2);
        let found = inodes.found(InodeNumber::ROOT, b"c", &entry(3, 1)).expect("root is held");
        assert_eq!(found.inode, before);
        assert_ne!(found.inode, early.inode);
    }

    #[test]
    fn a_block_that_is_read_once_part_by_part_is_not_in_use_and_one_that_is_read_again_is() {
        let inodes = Inodes::<Vec<u8>>::default();
        let root = inodes.get(InodeNumber::ROOT).expect("always there");
        let block = BlockIndex(3);
        root.publish(block, vec![1; 8], 8);
        // The first two bytes came with the engine's answer.
        for _ in 0..3 {
            assert!(root.block(block, 2).is_some() && !root.take_touched(block));
        }
        assert!(root.block(block, 2).is_some() && root.take_touched(block));
        assert!(!root.take_touched(block), "not since");
        for _ in 0..4 {
            assert!(root.block(block, u32::MAX).is_some() && root.take_touched(block));
        }
        assert!(!root.take_touched(BlockIndex(4)), "nothing is shown there");
    }

    #[test]
    fn absolute_links_are_shown_below_the_mount_point_if_asked_for() {
        let inodes = Inodes::<Vec<u8>>::default().with_links_below(b"/tmp/view");
        let long = [b"/".as_slice(), &[b'x'; LINK_BYTES_MAX - 2]].concat();
        let cases: [(&[u8], &[u8]); 6] = [
            (b"/usr/lib", b"/tmp/view/usr/lib"),
            (b"/", b"/tmp/view/"),
            (b"../lib", b"../lib"),
            (b"/tmp/view/lib", b"/tmp/view/lib"),
            (b"/tmp/viewer", b"/tmp/view/tmp/viewer"),
            (&long, &long),
        ];
        for (index, (target, shown)) in cases.into_iter().enumerate() {
            let mut link = entry(index as u64, 1);
            link.attributes.kind = FileKind::Link;
            link.target = Some(target.into());
            let name = index.to_string();
            let found = inodes.found(InodeNumber::ROOT, name.as_bytes(), &link).expect("held");
            let inode = inodes.get(found.inode).expect("just found");
            assert_eq!(inode.target().as_deref(), Some(shown));
            assert!(target == shown || found.attributes.size == shown.len() as u64);
        }
    }

    #[test]
    fn links_to_one_file_are_listed_under_one_number_whichever_is_looked_up_first() {
        let inodes = Inodes::<Vec<u8>>::default();
        let mut builder = DirectoryBuilder::default();
        for (name, inode, links) in [(b"a", 1, 2), (b"b", 2, 1), (b"c", 1, 2)] {
            builder.push(name, FileKind::Regular, inode, Some(&entry(inode, links)));
        }
        let directory = Arc::new(Directory::decode(&builder.finish()).expect("well-formed"));
        let root = inodes.get(InodeNumber::ROOT).expect("always there");
        inodes.list(&root, &directory);
        let listed = [0, 1, 2].map(|index| inodes.number(InodeNumber::ROOT, &directory, index));
        assert_eq!(listed[0], listed[2]);
        assert_ne!(listed[0], listed[1]);
        let last = inodes.found(InodeNumber::ROOT, b"c", &entry(1, 2)).expect("held");
        let first = inodes.found(InodeNumber::ROOT, b"a", &entry(1, 2)).expect("held");
        assert_eq!((last.inode, first.inode), (listed[2], listed[0]));
    }

    #[test]
    fn links_to_one_file_are_listed_under_one_number_in_two_directories() {
        let inodes = Inodes::<Vec<u8>>::default();
        let listed = [b"one", b"two"].map(|name| {
            let mut below = entry(8, 2);
            below.attributes.kind = FileKind::Directory;
            let found = inodes.found(InodeNumber::ROOT, name, &below).expect("held");
            let mut builder = DirectoryBuilder::default();
            builder.push(b"a", FileKind::Regular, 1, Some(&entry(1, 2)));
            let directory = Arc::new(Directory::decode(&builder.finish()).expect("well-formed"));
            inodes.list(&inodes.get(found.inode).expect("held"), &directory);
            (found.inode, inodes.number(found.inode, &directory, 0))
        });
        assert_eq!(listed[0].1, listed[1].1);
        let last = inodes.found(listed[1].0, b"a", &entry(1, 2)).expect("held");
        assert_eq!(last.inode, listed[0].1, "looked up where it was listed last");
        inodes.forget(last.inode, 1);
        inodes.forget(listed[0].0, 1);
        let late = inodes.get(listed[1].0).expect("held");
        let directory = late.listing().expect("listed above").directory;
        inodes.forget(listed[1].0, 1);
        *write(&late.listing) = None;
        inodes.list(&late, &directory);
        assert_eq!(read(&inodes.tables).reserved.len(), 0, "nothing is kept of what has gone");
    }

    #[test]
    fn links_to_one_file_are_one_inode_until_all_references_are_gone() {
        let inodes = Inodes::<Vec<u8>>::default();
        let one = inodes.found(InodeNumber::ROOT, b"one", &entry(5, 2)).expect("held");
        let two = inodes.found(InodeNumber::ROOT, b"two", &entry(5, 2)).expect("held");
        assert_eq!(one.inode, two.inode);
        assert_eq!(inodes.known(InodeNumber::ROOT, b"two").map(|f| f.inode), Some(one.inode));
        inodes.forget(one.inode, 2);
        assert!(inodes.get(one.inode).is_some());
        inodes.forget(one.inode, 1);
        assert!(inodes.get(one.inode).is_none());
        assert_eq!(inodes.known(InodeNumber::ROOT, b"one"), None);
        assert_eq!(inodes.known(InodeNumber::ROOT, b"two"), None);
        assert_eq!(inodes.len(), 1);
        let again = inodes.found(InodeNumber::ROOT, b"one", &entry(5, 2)).expect("held");
        assert_ne!(again.inode, one.inode, "numbers are never reused");
    }
}
