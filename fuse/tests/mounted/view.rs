//! An engine that is none: it answers from a tree in memory, now, later from a thread of its own,
//! or never, and remembers what it was asked.

use std::collections::HashMap;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, Weak};
use std::thread;
use std::time::Duration;

use copper_engine::{
    Answer, Answers, Found, InodeNumber, Looked, Now, Piece, Provenance, Question, View,
};
use copper_fuse::Pending;
use copper_proto::{
    Attributes, DataRanges, DataRangesBuilder, Directory, Errno, ExtendedAttributes, Statistics,
    Ticket, ViewPath,
};

use crate::tree::{Content, NodeIndex, Tree};

/// How a question is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum How {
    /// On the spot.
    Now,
    /// By the engine's thread.
    Later,
    /// Not at all; the ticket is kept.
    Never,
    /// On the spot, with an errno.
    Fail(Errno),
    /// The engine does not take the question.
    Refuse(Errno),
}

type Choose = Box<dyn Fn(&Question) -> How + Send>;
type Bytes = Arc<[u8]>;

pub(crate) struct TestView {
    tree: Tree,
    choose: Mutex<Choose>,
    asked: Mutex<Vec<Question>>,
    unanswered: Mutex<Vec<(Ticket, Question)>>,
    references: Mutex<HashMap<u64, i64>>,
    queue: Mutex<Sender<(Ticket, Question)>>,
    pending: Arc<Pending<Bytes>>,
    /// How long absent names are kept.
    pub(crate) absent: Mutex<Duration>,
    /// Bytes of the pieces that reads are answered with.
    pub(crate) piece_bytes: Mutex<usize>,
}

impl TestView {
    pub(crate) fn start(tree: Tree, pending: Arc<Pending<Bytes>>) -> Arc<TestView> {
        let (sender, receiver) = channel();
        let view = Arc::new(TestView {
            tree,
            choose: Mutex::new(Box::new(|_| How::Now)),
            asked: Mutex::default(),
            unanswered: Mutex::default(),
            references: Mutex::default(),
            queue: Mutex::new(sender),
            pending,
            absent: Mutex::new(Duration::from_secs(1000)),
            piece_bytes: Mutex::new(usize::MAX),
        });
        let weak = Arc::downgrade(&view);
        thread::spawn(move || serve(&receiver, &weak));
        view
    }

    pub(crate) fn choose(&self, choose: impl Fn(&Question) -> How + Send + 'static) {
        *self.choose.lock().expect("lock") = Box::new(choose);
    }

    /// What arrived since the last call.
    pub(crate) fn arrived(&self) -> Vec<Question> {
        std::mem::take(&mut self.asked.lock().expect("lock"))
    }

    /// Names that were looked up since the last call.
    pub(crate) fn looked_up(&self) -> Vec<String> {
        let name = |question| match question {
            Question::Lookup { name, .. } => Some(String::from_utf8_lossy(&name).into_owned()),
            _ => None,
        };
        self.arrived().into_iter().filter_map(name).collect()
    }

    /// References that the kernel holds, over all inodes.
    pub(crate) fn references(&self) -> i64 {
        let references = self.references.lock().expect("lock");
        assert!(references.values().all(|&count| count >= 0), "more given back than counted");
        references.values().sum()
    }

    /// Answers what was never answered; too late, if the watchdog was there first.
    pub(crate) fn answer_late(&self) -> usize {
        let late = std::mem::take(&mut *self.unanswered.lock().expect("lock"));
        let count = late.len();
        for (ticket, question) in late {
            self.pending.answer(ticket, self.answer(&question), Provenance::Fetched);
        }
        count
    }

    pub(crate) fn unanswered(&self) -> usize {
        self.unanswered.lock().expect("lock").len()
    }

    /// Replies that wait for an answer.
    pub(crate) fn waiting(&self) -> usize {
        self.pending.waiting()
    }

    fn how(&self, question: &Question) -> How {
        (self.choose.lock().expect("lock"))(question)
    }

    fn now<T>(&self, question: Question, answer: impl FnOnce() -> Result<T, Errno>) -> Now<T> {
        let how = self.how(&question);
        self.asked.lock().expect("lock").push(question);
        match how {
            How::Now => Now::Answered(answer()),
            How::Fail(errno) => Now::Answered(Err(errno)),
            How::Later | How::Never | How::Refuse(_) => Now::Ask,
        }
    }

    fn count(&self, node: NodeIndex) -> Found {
        let inode = inode_of(node);
        *self.references.lock().expect("lock").entry(inode.0).or_default() += 1;
        Found { inode, attributes: self.tree.nodes[node].attributes }
    }

    fn look(&self, parent: InodeNumber, name: &[u8]) -> Result<Looked, Errno> {
        let folder = self.tree.folder(node_of(parent)).ok_or(Errno::ENOTDIR)?;
        Ok(match folder.find(name) {
            Some(node) => Looked::Found(self.count(node)),
            None => Looked::Absent { keep: *self.absent.lock().expect("lock") },
        })
    }

    fn stat(&self, inode: InodeNumber) -> Result<Attributes, Errno> {
        self.tree.nodes.get(node_of(inode)).map(|node| node.attributes).ok_or(Errno::ENOENT)
    }

    fn point(&self, inode: InodeNumber) -> Result<Arc<[u8]>, Errno> {
        match &self.tree.nodes[node_of(inode)].content {
            Content::Link(target) => Ok(Arc::clone(target)),
            Content::Directory(_) | Content::File(_) | Content::Special => Err(Errno::EINVAL),
        }
    }

    fn list(&self, inode: InodeNumber) -> Result<Arc<Directory>, Errno> {
        self.tree.snapshot(node_of(inode)).ok_or(Errno::ENOTDIR)
    }

    fn data(&self, inode: InodeNumber, offset: u64, len: u32) -> Result<Vec<Piece<Bytes>>, Errno> {
        let bytes = match &self.tree.nodes[node_of(inode)].content {
            Content::File(bytes) => bytes,
            Content::Directory(_) => return Err(Errno::EISDIR),
            Content::Link(_) | Content::Special => return Err(Errno::EINVAL),
        };
        let start = bytes.len().min(offset as usize);
        let end = bytes.len().min(start + len as usize);
        let piece_bytes = *self.piece_bytes.lock().expect("lock");
        let pieces = bytes[start..end].chunks(piece_bytes.min(bytes.len().max(1)));
        // Each piece lies within a larger extent, as it does in an arena.
        Ok(pieces
            .map(|piece| {
                let extent: Bytes = [b"<<", piece, b">>"].concat().into();
                Piece::Held { extent, start: 2, end: 2 + piece.len() }
            })
            .collect())
    }

    /// Of every file the first page is data, and the third.
    fn ranges(&self, inode: InodeNumber) -> Result<Arc<DataRanges>, Errno> {
        let mut builder = DataRangesBuilder::new(self.stat(inode)?.size);
        builder.push(0, 4096);
        builder.push(8192, 12_288);
        Ok(Arc::new(builder.finish()))
    }

    fn answer(&self, question: &Question) -> Result<Answer<Bytes>, Errno> {
        match question {
            Question::Lookup { parent, name } => self.look(*parent, name).map(Answer::Looked),
            Question::Attributes(inode) => self.stat(*inode).map(Answer::Attributes),
            Question::Target(inode) => self.point(*inode).map(Answer::Target),
            Question::Directory(inode) => self.list(*inode).map(Answer::Directory),
            Question::Read { inode, offset, len } => {
                self.data(*inode, *offset, *len).map(Answer::Data)
            }
            Question::ExtendedAttributes(_) => Ok(Answer::ExtendedAttributes(extended())),
            Question::DataRanges(inode) => self.ranges(*inode).map(Answer::DataRanges),
            Question::Statistics(_) => Ok(Answer::Statistics(STATISTICS)),
        }
    }
}

pub(crate) const STATISTICS: Statistics = Statistics {
    blocks: 1000,
    blocks_free: 500,
    blocks_available: 400,
    files: 77,
    files_free: 33,
    block_bytes: 1 << 20,
    fragment_bytes: 4096,
    name_bytes_max: 255,
};

/// What every file has.
fn extended() -> Arc<ExtendedAttributes> {
    let pair = |name: &[u8], value: &[u8]| (name.into(), value.into());
    Arc::new(ExtendedAttributes::new(vec![pair(b"user.x", b"value"), pair(b"user.empty", b"")]))
}

fn inode_of(node: NodeIndex) -> InodeNumber {
    InodeNumber(node as u64 + 1)
}

fn node_of(inode: InodeNumber) -> NodeIndex {
    inode.0 as NodeIndex - 1
}

fn serve(queue: &Receiver<(Ticket, Question)>, view: &Weak<TestView>) {
    while let Ok((ticket, question)) = queue.recv() {
        let Some(view) = view.upgrade() else { return };
        view.pending.answer(ticket, view.answer(&question), Provenance::Fetched);
    }
}

impl View for TestView {
    type Bytes = Bytes;

    fn lookup(&self, parent: InodeNumber, name: &[u8]) -> Now<Looked> {
        let question = Question::Lookup { parent, name: name.into() };
        self.now(question, || self.look(parent, name))
    }

    fn attributes(&self, inode: InodeNumber) -> Now<Attributes> {
        self.now(Question::Attributes(inode), || self.stat(inode))
    }

    fn target(&self, inode: InodeNumber) -> Now<Arc<[u8]>> {
        self.now(Question::Target(inode), || self.point(inode))
    }

    fn directory(&self, inode: InodeNumber) -> Now<Arc<Directory>> {
        self.now(Question::Directory(inode), || self.list(inode))
    }

    fn entry(&self, parent: InodeNumber, directory: &Directory, index: usize) -> Option<Found> {
        directory.get(index)?.entry?;
        Some(self.count(self.tree.child(node_of(parent), index)))
    }

    fn number(&self, parent: InodeNumber, _: &Directory, index: usize) -> InodeNumber {
        inode_of(self.tree.child(node_of(parent), index))
    }

    fn parent(&self, inode: InodeNumber) -> InodeNumber {
        inode_of(self.tree.nodes[node_of(inode)].parent)
    }

    fn read(&self, inode: InodeNumber, offset: u64, len: u32) -> Now<Vec<Piece<Bytes>>> {
        let question = Question::Read { inode, offset, len };
        self.now(question, || self.data(inode, offset, len))
    }

    fn extended_attributes(&self, inode: InodeNumber) -> Now<Arc<ExtendedAttributes>> {
        self.now(Question::ExtendedAttributes(inode), || Ok(extended()))
    }

    fn data_ranges(&self, inode: InodeNumber) -> Now<Arc<DataRanges>> {
        self.now(Question::DataRanges(inode), || self.ranges(inode))
    }

    fn path(&self, _: InodeNumber) -> Option<ViewPath> {
        None
    }

    fn forget(&self, inode: InodeNumber, count: u64) {
        let mut references = self.references.lock().expect("lock");
        *references.entry(inode.0).or_default() -= count as i64;
    }

    fn ask(&self, ticket: Ticket, question: Question) -> Result<(), Errno> {
        match self.how(&question) {
            How::Refuse(errno) => return Err(errno),
            How::Never => self.unanswered.lock().expect("lock").push((ticket, question)),
            How::Now | How::Later | How::Fail(_) => {
                let queue = self.queue.lock().expect("lock");
                queue.send((ticket, question)).map_err(|_| Errno::EIO)?;
            }
        }
        Ok(())
    }
}
