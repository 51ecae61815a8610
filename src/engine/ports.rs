//! What the engine needs of the world, as traits: an arena, a fabric, a source, a spill file, a way to
//! be woken.

use std::sync::mpsc::SyncSender;

use copper_cache::Contents;
use copper_proto::{
    Dropped, Entry, Epoch, Errno, Extent, JobId, Key, LinkId, PullId, Rank, Scope, Statistics,
    TreeIndex,
};

use crate::view::Stale;

/// An arena of which extents are handed out.
pub trait Memory: Send + Sync + 'static {
    /// One extent, writable by its only owner.
    type Filling: AsRef<[u8]> + AsMut<[u8]> + Send + 'static;
    /// One extent, readable by everybody who holds a clone.
    type Filled: AsRef<[u8]> + Clone + Send + Sync + 'static;

    /// Takes an extent that nobody holds. Panics if somebody does: that is a bug.
    fn take(&self, extent: Extent) -> Self::Filling;

    /// Ends the writing.
    fn freeze(filling: Self::Filling) -> Self::Filled;

    /// Where a filling lies.
    fn extent(filling: &Self::Filling) -> Extent;

    /// How many clones there are, the one asked included.
    fn holders(filled: &Self::Filled) -> usize;
}

/// Why an operation could not be posted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PostError {
    /// Not now: the queues are full, or the connection is still being made.
    Busy,
    /// Not at all: the peer is gone.
    Lost,
}

/// How a peer is reached; opaque here, made by the handshake.
#[derive(Clone, Debug)]
pub struct PeerAddress {
    /// The endpoint's name.
    pub endpoint: Vec<u8>,
    /// The key of its region.
    pub region_key: u64,
    /// What is added to an offset in its arena.
    pub region_base: u64,
    /// The size of its arena, in bytes.
    pub arena_bytes: u64,
}

/// What a fabric reports.
#[derive(Debug)]
pub enum FabricEvent<'a, F> {
    /// A message from whoever knows our address.
    Received(&'a [u8]),
    /// A read has ended, one way or the other.
    Read {
        /// Which.
        pull: PullId,
        /// Its extent.
        into: F,
        /// Whether the bytes are there.
        arrived: Result<(), Failed>,
    },
    /// A message could not be delivered.
    SendFailed,
}

/// An operation failed; the fabric has logged why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failed;

/// Messages and remote reads. `F` is a [`Memory::Filling`].
pub trait Fabric<F> {
    /// A reachable peer.
    type Peer: Copy;

    /// Makes a peer reachable.
    ///
    /// # Errors
    /// If the address makes no sense to this provider.
    fn connect(&mut self, address: &PeerAddress) -> Result<Self::Peer, Failed>;

    /// The peer is gone.
    fn disconnect(&mut self, peer: Self::Peer);

    /// Sends a message of at most `MESSAGE_BYTES_MAX`; the parts are copied before it returns.
    ///
    /// # Errors
    /// [`PostError`]; nothing was sent.
    fn send(&mut self, peer: Self::Peer, parts: &[&[u8]]) -> Result<(), PostError>;

    /// Reads from `offset` of the peer's arena into all of `into`, which comes back in
    /// [`FabricEvent::Read`].
    ///
    /// # Errors
    /// [`PostError`], with `into`.
    fn read(
        &mut self,
        peer: Self::Peer,
        pull: PullId,
        offset: u64,
        into: F,
    ) -> Result<(), (PostError, F)>;

    /// Makes progress and reports what ended; how many events there were.
    fn poll(&mut self, report: &mut dyn FnMut(FabricEvent<'_, F>)) -> usize;
}

/// What is to be read from the source.
#[derive(Debug)]
pub enum SourceWork<F> {
    /// `lstat`, and `readlink` of a link.
    Entry,
    /// The object that the key names: a directory's snapshot, extended attributes, data ranges.
    Encoded,
    /// A block into an extent.
    Block(F),
    /// `statfs`.
    Statistics,
}

/// What the source said.
#[derive(Debug)]
pub enum SourceReply<F> {
    /// To [`SourceWork::Entry`]: it exists.
    Present(Entry),
    /// To [`SourceWork::Entry`]: it does not.
    Absent,
    /// To [`SourceWork::Encoded`]: the object.
    Encoded(Vec<u8>),
    /// To [`SourceWork::Block`]: the filled extent and its XXH3-64.
    Block(F, u64),
    /// To [`SourceWork::Statistics`].
    Statistics(Statistics),
}

/// One job of the source that has ended. An extent that was not filled has been dropped before.
#[derive(Debug)]
pub struct SourceDone<F> {
    /// Which.
    pub job: JobId,
    /// What came of it.
    pub result: Result<SourceReply<F>, Errno>,
}

/// The file system that is shown: reads on threads of its own.
pub trait Source<F> {
    /// Queues a job. The protocol keeps their number below `SOURCE_JOBS_MAX` for each tree.
    fn submit(&mut self, job: JobId, key: &Key, work: SourceWork<F>);

    /// A job that has ended.
    fn poll(&mut self) -> Option<SourceDone<F>>;
}

/// The number of a read or write of the spill file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SpillJob(pub u64);

/// A read or write of the spill file that has ended. `F` is a [`Memory::Filling`].
#[derive(Debug)]
pub enum SpillDone<F> {
    /// A write; its bytes have been dropped before.
    Written {
        /// Which.
        job: SpillJob,
        /// Whether all of them are in the file.
        result: Result<(), Failed>,
    },
    /// A read.
    Read {
        /// Which.
        job: SpillJob,
        /// The filled extent, or that the bytes are not those that were written; the extent has been
        /// dropped before then.
        result: Result<F, Failed>,
    },
}

/// The file that takes what is evicted: read and written on threads of its own. Ranges under way at
/// once do not overlap, but for reads.
pub trait SpillFile<M: Memory>: Send {
    /// Queues a write of `bytes` at `offset`.
    fn write(&mut self, job: SpillJob, offset: u64, bytes: M::Filled);

    /// Queues a read from `offset` into all of `into`; the bytes are to have this XXH3-64.
    fn read(&mut self, job: SpillJob, offset: u64, into: M::Filling, checksum: u64);

    /// A job that has ended.
    fn poll(&mut self) -> Option<SpillDone<M::Filling>>;
}

/// Ends the engine's sleep. Called from any thread.
pub trait Wake: Send + Sync + 'static {
    /// Now.
    fn wake(&self);
}

/// What other threads tell the engine.
#[derive(Debug)]
pub enum Control {
    /// A handshake made another rank this one's parent or child.
    LinkUp {
        /// The new link.
        link: LinkId,
        /// In which tree.
        tree: TreeIndex,
        /// Who.
        rank: Rank,
        /// Which of the two.
        role: Role,
        /// How it is reached.
        address: PeerAddress,
        /// What our messages to it begin with.
        send_token: u64,
        /// What its messages to us begin with.
        receive_token: u64,
    },
    /// A link is gone.
    LinkDown(LinkId),
    /// No ancestor in this tree can be reached.
    Orphaned(TreeIndex),
    /// The source is to be looked at anew.
    Refresh {
        /// The refresh's number.
        epoch: Epoch,
        /// What.
        scope: Scope,
    },
    /// Somebody wants to see what is held. It is dropped if he does not wait.
    List {
        /// Objects, and paths, at most.
        rows_max: usize,
        /// Who.
        reply: SyncSender<Contents>,
    },
}

/// What the other side of a link is to this rank.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It is asked.
    Parent,
    /// It asks.
    Child,
}

/// A refresh that has taken effect: nobody who asks this rank is answered from before it.
#[derive(Debug)]
pub struct Refreshed {
    /// Its number.
    pub epoch: Epoch,
    /// What was held.
    pub dropped: Dropped,
    /// What the kernel may still hold.
    pub stale: Vec<Stale>,
}
