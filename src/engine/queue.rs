//! The way from frontends to the engine, and the answers that need no engine.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use copper_proto::limits::LOCAL_WAITERS_MAX;
use copper_proto::{
    Attributes, BlockIndex, DataRanges, Directory, Errno, ExtendedAttributes, FileKind, Ticket,
    ViewPath,
};

use crate::inodes::{Inode, Inodes};
use crate::ports::Wake;
use crate::sync::{ArrayQueue, AtomicBool, Bug, planted};
use crate::view::{Found, InodeNumber, Looked, Now, Piece, Question, View};

/// How long an answer may be kept that only a change of the source could make wrong.
pub(crate) const KEEP: Duration = Duration::from_secs(365 * 24 * 3600);

/// Questions on their way to the engine, and whether it has to be woken for them.
pub struct Queue {
    questions: ArrayQueue<(Ticket, Question)>,
    asleep: AtomicBool,
    ended: AtomicBool,
    waker: Box<dyn Wake>,
}

impl std::fmt::Debug for Queue {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Queue({} questions)", self.questions.len())
    }
}

impl Queue {
    /// An empty queue; `waker` ends the sleep of the thread that runs the engine.
    pub fn new(waker: Box<dyn Wake>) -> Queue {
        Queue {
            questions: ArrayQueue::new(LOCAL_WAITERS_MAX),
            asleep: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            waker,
        }
    }

    pub(crate) fn ask(&self, ticket: Ticket, question: Question) -> Result<(), Errno> {
        if self.ended.load(Ordering::Acquire) {
            return Err(Errno::EIO);
        }
        if planted(Bug::WokenTooEarly) {
            self.wake();
        }
        self.questions.push((ticket, question)).map_err(|_| Errno::EAGAIN)?;
        if !planted(Bug::WokenTooEarly) {
            self.wake();
        }
        Ok(())
    }

    /// The oldest question; for the thread that runs the engine.
    pub fn pop(&self) -> Option<(Ticket, Question)> {
        self.questions.pop()
    }

    /// Wakes the engine if it sleeps. Whatever was put where it looks before this call, it sees.
    pub fn wake(&self) {
        // SeqCst: pairs with fall_asleep. Either this sees the flag, or the engine, which looks
        // once more after it has set the flag, sees what was put there before.
        if self.asleep.swap(false, Ordering::SeqCst) {
            self.waker.wake();
        }
    }

    /// The engine is about to sleep; false if there is something to do after all.
    pub fn fall_asleep(&self) -> bool {
        // A store would do, as SeqCst has one order of all. A swap, which costs x86-64 the same, needs no
        // more than that it comes after the swap of whoever woke the engine last: loom can try that.
        self.asleep.swap(true, Ordering::SeqCst);
        if planted(Bug::NoSecondLook) || self.questions.is_empty() {
            return true;
        }
        self.asleep.store(false, Ordering::SeqCst);
        false
    }

    /// The engine is awake again.
    pub fn awake(&self) {
        self.asleep.store(false, Ordering::SeqCst);
    }

    /// The engine has ended: questions are refused from now on.
    pub fn end(&self) {
        // Release: pairs with the Acquire in ask.
        self.ended.store(true, Ordering::Release);
    }
}

/// The [`View`] of an engine. `B` is its arena's filled extent.
#[derive(Debug)]
pub struct EngineView<B> {
    inodes: Arc<Inodes<B>>,
    queue: Arc<Queue>,
}

impl<B: Clone> EngineView<B> {
    /// A view of the engine that was given the same inodes and queue.
    pub fn new(inodes: Arc<Inodes<B>>, queue: Arc<Queue>) -> EngineView<B> {
        EngineView { inodes, queue }
    }

    fn inode(&self, number: InodeNumber) -> Result<Arc<Inode<B>>, Errno> {
        self.inodes.get(number).ok_or(Errno::ESTALE)
    }
}

impl<B> View for EngineView<B>
where
    B: AsRef<[u8]> + Clone + Send + Sync + 'static,
{
    type Bytes = B;

    fn lookup(&self, parent: InodeNumber, name: &[u8]) -> Now<Looked> {
        look_up(&self.inodes, parent, name)
    }

    fn attributes(&self, inode: InodeNumber) -> Now<Attributes> {
        match self.inode(inode).map(|inode| inode.attributes()) {
            Ok(Some(attributes)) => Now::Answered(Ok(attributes)),
            Ok(None) => Now::Ask,
            Err(errno) => Now::Answered(Err(errno)),
        }
    }

    fn path(&self, inode: InodeNumber) -> Option<ViewPath> {
        self.inodes.get(inode).map(|inode| inode.path.clone())
    }

    fn target(&self, inode: InodeNumber) -> Now<Arc<[u8]>> {
        match self.inode(inode).map(|inode| (inode.target(), inode.attributes())) {
            Ok((Some(target), _)) => Now::Answered(Ok(target)),
            Ok((None, Some(_))) => Now::Answered(Err(Errno::EINVAL)),
            Ok((None, None)) => Now::Ask,
            Err(errno) => Now::Answered(Err(errno)),
        }
    }

    fn directory(&self, inode: InodeNumber) -> Now<Arc<Directory>> {
        match self.inode(inode).map(|inode| inode.listing()) {
            Ok(Some(listing)) => Now::Answered(Ok(listing.directory)),
            Ok(None) => Now::Ask,
            Err(errno) => Now::Answered(Err(errno)),
        }
    }

    fn entry(&self, parent: InodeNumber, directory: &Directory, index: usize) -> Option<Found> {
        self.inodes.listed(parent, directory, index)
    }

    fn number(&self, parent: InodeNumber, directory: &Directory, index: usize) -> InodeNumber {
        self.inodes.number(parent, directory, index)
    }

    fn parent(&self, inode: InodeNumber) -> InodeNumber {
        self.inodes.parent(inode)
    }

    fn read(&self, inode: InodeNumber, offset: u64, len: u32) -> Now<Vec<Piece<B>>> {
        let inode = match self.inode(inode) {
            Ok(inode) => inode,
            Err(errno) => return Now::Answered(Err(errno)),
        };
        let Some(attributes) = inode.attributes() else { return Now::Ask };
        shown(&inode, &attributes, offset, len)
    }

    fn extended_attributes(&self, inode: InodeNumber) -> Now<Arc<ExtendedAttributes>> {
        match self.inode(inode).map(|inode| inode.extended_attributes()) {
            Ok(Some(attributes)) => Now::Answered(Ok(attributes)),
            Ok(None) => Now::Ask,
            Err(errno) => Now::Answered(Err(errno)),
        }
    }

    fn data_ranges(&self, inode: InodeNumber) -> Now<Arc<DataRanges>> {
        let inode = match self.inode(inode) {
            Ok(inode) => inode,
            Err(errno) => return Now::Answered(Err(errno)),
        };
        // Not even for a file whose blocks fill its size: they may hold other things than data.
        inode.data_ranges().map_or(Now::Ask, |ranges| Now::Answered(Ok(ranges)))
    }

    fn forget(&self, inode: InodeNumber, count: u64) {
        self.inodes.forget(inode, count);
    }

    fn ask(&self, ticket: Ticket, question: Question) -> Result<(), Errno> {
        self.queue.ask(ticket, question)
    }
}

/// The bytes of a read, if all of them are shown.
pub(crate) fn shown<B: Clone>(
    inode: &Inode<B>,
    attributes: &Attributes,
    offset: u64,
    len: u32,
) -> Now<Vec<Piece<B>>> {
    match spans(attributes, offset, len) {
        Err(errno) => Now::Answered(Err(errno)),
        Ok(spans) => {
            let pieces = spans.map(|span| {
                let len = u32::try_from(span.end - span.start).unwrap_or(u32::MAX);
                let extent = inode.block(span.index, len)?;
                Some(Piece::Held { extent, start: span.start, end: span.end })
            });
            pieces.collect::<Option<_>>().map_or(Now::Ask, |pieces| Now::Answered(Ok(pieces)))
        }
    }
}

/// What is known of a name without asking anybody; takes a reference if it is found.
pub(crate) fn look_up<B: Clone>(
    inodes: &Inodes<B>,
    parent: InodeNumber,
    name: &[u8],
) -> Now<Looked> {
    if let Some(found) = inodes.known(parent, name) {
        return Now::Answered(Ok(Looked::Found(found)));
    }
    let directory = match inodes.get(parent) {
        Some(inode) => inode,
        None => return Now::Answered(Err(Errno::ESTALE)),
    };
    let Some(listing) = directory.listing() else { return Now::Ask };
    let Some(index) = listing.directory.find(name) else {
        let keeps = inodes.keeps_absent(parent, name, Some(&listing.directory));
        let keep = if keeps { KEEP } else { Duration::ZERO };
        return Now::Answered(Ok(Looked::Absent { keep }));
    };
    match inodes.listed(parent, &listing.directory, index) {
        Some(found) => Now::Answered(Ok(Looked::Found(found))),
        None => Now::Ask,
    }
}

/// A part of one block.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span {
    pub(crate) index: BlockIndex,
    pub(crate) start: usize,
    pub(crate) end: usize,
}

/// The parts of blocks that a read covers, cut off at the end of the file.
pub(crate) fn spans(
    attributes: &Attributes,
    offset: u64,
    len: u32,
) -> Result<impl Iterator<Item = Span> + use<>, Errno> {
    match attributes.kind {
        FileKind::Regular => {}
        FileKind::Directory => return Err(Errno::EISDIR),
        FileKind::Link
        | FileKind::Fifo
        | FileKind::Socket
        | FileKind::CharacterDevice
        | FileKind::BlockDevice => return Err(Errno::EINVAL),
    }
    let end = attributes.size.min(offset.saturating_add(len.into()));
    let mut at = offset;
    Ok(std::iter::from_fn(move || {
        if at >= end {
            return None;
        }
        let index = BlockIndex::of(at)?;
        let start = usize::try_from(at - index.offset()).expect("within a block");
        let block_end = end.min(index.offset() + u64::from(copper_proto::limits::BLOCK_BYTES));
        let span_end = usize::try_from(block_end - index.offset()).expect("within a block");
        at = block_end;
        Some(Span { index, start, end: span_end })
    }))
}
