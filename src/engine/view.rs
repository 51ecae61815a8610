//! What a frontend sees of an engine: questions that are answered on the spot from what this node
//! holds, and a queue for those that are not.
//!
//! A frontend thread first asks for the answer now ([`Now::Answered`]); on [`Now::Ask`] it puts its
//! reply away under a [`Ticket`], calls [`View::ask`], and goes on. The engine answers through
//! [`Answers`] from its own thread, exactly once per ticket, or never if it dies: the frontend's
//! watchdog covers that.

use std::sync::Arc;
use std::time::Duration;

use copper_proto::{
    Attributes, DataRanges, Directory, Errno, ExtendedAttributes, Statistics, Ticket, ViewPath,
};

/// A number that the frontend shows for a file: sequential, never reused; 1 is the view's root.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InodeNumber(pub u64);

impl InodeNumber {
    /// The view's root, as the kernel numbers it (`FUSE_ROOT_ID`).
    pub const ROOT: InodeNumber = InodeNumber(1);
}

/// A name that exists. The kernel now holds one more reference to the inode, until it forgets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// Which file.
    pub inode: InodeNumber,
    /// Its attributes at the source.
    pub attributes: Attributes,
}

/// What a name turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Looked {
    /// It exists.
    Found(Found),
    /// The source said that it does not exist; the answer may be kept for this long.
    Absent {
        /// How long; a year where a complete listing proves it.
        keep: Duration,
    },
}

/// An answer, if this node has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Now<T> {
    /// Here it is.
    Answered(Result<T, Errno>),
    /// It has to be asked for.
    Ask,
}

/// Something of before a refresh that the kernel may still hold. In the order in which they are
/// given: names first, so that nobody is looking up an old one when inodes follow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stale {
    /// That there is, or is not, this name in a directory. The name may be one that cannot be: then
    /// it is waited for those who are looking up others.
    Name {
        /// The directory.
        parent: InodeNumber,
        /// The name.
        name: Box<[u8]>,
    },
    /// A directory's attributes and listing.
    Directory(InodeNumber),
}

/// A run of a file's bytes that stays as it is while this is held.
#[derive(Clone, Debug)]
pub enum Piece<B> {
    /// In its place.
    Held {
        /// The extent that holds the bytes.
        extent: B,
        /// First byte within the extent.
        start: usize,
        /// End within the extent.
        end: usize,
    },
    /// Of a read that had to wait for others of its pieces.
    Copied(Arc<[u8]>),
}

impl<B: AsRef<[u8]>> Piece<B> {
    /// Bytes that keep no extent from being used for something else.
    pub(crate) fn copied(self) -> Piece<B> {
        Piece::Copied(self.as_ref().into())
    }
}

impl<B: AsRef<[u8]>> AsRef<[u8]> for Piece<B> {
    fn as_ref(&self) -> &[u8] {
        match self {
            Piece::Held { extent, start, end } => &extent.as_ref()[*start..*end],
            Piece::Copied(bytes) => bytes,
        }
    }
}

/// What is put on the queue. Inodes are ones that the frontend holds a reference to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// Answered by [`Answer::Looked`].
    Lookup {
        /// The directory.
        parent: InodeNumber,
        /// The name in it.
        name: Box<[u8]>,
    },
    /// Answered by [`Answer::Attributes`].
    Attributes(InodeNumber),
    /// Answered by [`Answer::Target`].
    Target(InodeNumber),
    /// Answered by [`Answer::Directory`].
    Directory(InodeNumber),
    /// Answered by [`Answer::Data`].
    Read {
        /// The file.
        inode: InodeNumber,
        /// First byte.
        offset: u64,
        /// Bytes asked for; fewer come only at the end of the file.
        len: u32,
    },
    /// Answered by [`Answer::ExtendedAttributes`].
    ExtendedAttributes(InodeNumber),
    /// Answered by [`Answer::DataRanges`].
    DataRanges(InodeNumber),
    /// Answered by [`Answer::Statistics`].
    Statistics(InodeNumber),
}

/// What comes back for a ticket.
#[derive(Clone, Debug)]
pub enum Answer<B> {
    /// To [`Question::Lookup`].
    Looked(Looked),
    /// To [`Question::Attributes`].
    Attributes(Attributes),
    /// To [`Question::Target`].
    Target(Arc<[u8]>),
    /// To [`Question::Directory`].
    Directory(Arc<Directory>),
    /// To [`Question::Read`]: runs that follow each other; more than one where a block ends inside.
    Data(Vec<Piece<B>>),
    /// To [`Question::ExtendedAttributes`].
    ExtendedAttributes(Arc<ExtendedAttributes>),
    /// To [`Question::DataRanges`].
    DataRanges(Arc<DataRanges>),
    /// To [`Question::Statistics`].
    Statistics(Statistics),
    /// To no question: of a frontend's own, that something is done.
    Done,
}

/// Where an answer came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Provenance {
    /// This node held it.
    Held,
    /// Somebody had to be waited for: a parent, the source, the spill, or whoever asked before.
    Fetched,
}

/// Where a frontend's answers go. Called from the engine's thread: it must not block.
pub trait Answers<B>: Send + Sync + 'static {
    /// Hands over the answer to a ticket. A ticket that is no longer known was answered by the
    /// watchdog: the answer is dropped.
    fn answer(&self, ticket: Ticket, answer: Result<Answer<B>, Errno>, provenance: Provenance);
}

/// An engine, seen from a frontend. All methods may be called from any thread and never block on
/// the source or the fabric.
pub trait View: Send + Sync + 'static {
    /// Holds bytes of the arena in place.
    type Bytes: AsRef<[u8]> + Clone + Send + Sync + 'static;

    /// Looks a name up in a directory. `Found` counts as one reference of the kernel.
    fn lookup(&self, parent: InodeNumber, name: &[u8]) -> Now<Looked>;

    /// The attributes of an inode that the kernel holds.
    fn attributes(&self, inode: InodeNumber) -> Now<Attributes>;

    /// Where a link points.
    fn target(&self, inode: InodeNumber) -> Now<Arc<[u8]>>;

    /// The snapshot of a directory. It stays the same as long as the kernel holds the inode, so
    /// that positions in it can serve as offsets.
    fn directory(&self, inode: InodeNumber) -> Now<Arc<Directory>>;

    /// The file behind an entry of a directory snapshot, if its attributes are known here.
    /// Counts as one reference of the kernel.
    fn entry(&self, parent: InodeNumber, directory: &Directory, index: usize) -> Option<Found>;

    /// The number shown for an entry of a directory without a reference to it.
    fn number(&self, parent: InodeNumber, directory: &Directory, index: usize) -> InodeNumber;

    /// The directory that holds this one; the root's is the root.
    fn parent(&self, inode: InodeNumber) -> InodeNumber;

    /// Bytes of a regular file from `offset`, if this node holds all of the `len` asked for (less
    /// at the end of the file).
    fn read(&self, inode: InodeNumber, offset: u64, len: u32) -> Now<Vec<Piece<Self::Bytes>>>;

    /// The extended attributes of an inode.
    fn extended_attributes(&self, inode: InodeNumber) -> Now<Arc<ExtendedAttributes>>;

    /// Where a regular file has data and where holes.
    fn data_ranges(&self, inode: InodeNumber) -> Now<Arc<DataRanges>>;

    /// The path of an inode that the kernel holds, below the view and without a slash before it.
    fn path(&self, inode: InodeNumber) -> Option<ViewPath>;

    /// The kernel gives `count` references back.
    fn forget(&self, inode: InodeNumber, count: u64);

    /// Queues a question.
    ///
    /// # Errors
    /// `EAGAIN` if the queue is full, `EIO` if the engine has ended: nothing was queued.
    fn ask(&self, ticket: Ticket, question: Question) -> Result<(), Errno>;
}
