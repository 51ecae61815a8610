//! What a node is told.

use crate::attributes::{Entry, Statistics};
use crate::errno::Errno;
use crate::fetch::PullFailure;
use crate::ids::{Epoch, JobId, LinkId, PullId, Rank, Ticket, TreeIndex};
use crate::key::Key;
#[cfg(doc)]
use crate::output::{Output, SourceRequest};
use crate::scope::Scope;
use crate::tick::Tick;
use crate::wire::Message;

/// What happened.
#[derive(Clone, Debug)]
pub enum Input {
    /// A local reader wants an object before its deadline.
    Want {
        /// Comes back with the answer.
        ticket: Ticket,
        /// What it wants.
        key: Key,
        /// When the answer is of no use any more.
        deadline: Tick,
    },
    /// A local reader will want an object soon: it is fetched behind what somebody waits for.
    Prefetch {
        /// What.
        key: Key,
    },
    /// A message came over a link.
    Received {
        /// From whom.
        link: LinkId,
        /// What.
        message: Message,
    },
    /// A [`Output::Pull`], [`Output::Copy`] or [`Output::Restore`] ended; the checksum has been verified where one was
    /// given, and is the bytes' own where none was.
    Pulled {
        /// Which.
        pull: PullId,
        /// The XXH3-64 of the bytes, or why there are none.
        result: Result<u64, PullFailure>,
    },
    /// A [`Output::Source`] ended.
    Source {
        /// Which.
        job: JobId,
        /// What the source said.
        result: Result<SourceAnswer, Errno>,
    },
    /// A handshake made another rank this rank's parent in a tree.
    ParentUp {
        /// Which.
        tree: TreeIndex,
        /// The new link.
        link: LinkId,
        /// Who.
        rank: Rank,
    },
    /// A handshake made another rank this rank's child in a tree.
    ChildUp {
        /// Which.
        tree: TreeIndex,
        /// The new link.
        link: LinkId,
        /// Who.
        rank: Rank,
    },
    /// A link is gone, and with it all that was outstanding on it.
    LinkDown {
        /// Which.
        link: LinkId,
    },
    /// No [candidate](crate::topology::Tree::candidates) in a tree can be reached.
    Orphaned {
        /// Which.
        tree: TreeIndex,
    },
    /// The source is to be looked at anew. Takes effect at once; [`Output::Refreshed`] says so.
    Refresh {
        /// The refresh's number.
        epoch: Epoch,
        /// What.
        scope: Scope,
    },
    /// Nothing but time.
    Time,
}

/// What a source answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceAnswer {
    /// To [`SourceRequest::Entry`]: it exists.
    Present(Entry),
    /// To [`SourceRequest::Entry`]: `ENOENT`.
    Absent,
    /// To [`SourceRequest::Encoded`]: the object has this many bytes and is held under the job's
    /// number until it is copied or the job is dropped.
    Encoded(u32),
    /// To [`SourceRequest::Block`]: the extent is filled; this is the XXH3-64 of its bytes.
    Block(u64),
    /// To [`SourceRequest::Statistics`].
    Statistics(Statistics),
}

/// When this rank reads the source itself for one tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceUse {
    /// Always: it is the root.
    Root,
    /// In the root's place when that is lost, and what [`FilePolicy::is_direct`] names: for all who
    /// come to it. What they hold is asked of them first.
    ///
    /// [`FilePolicy::is_direct`]: crate::FilePolicy::is_direct
    Successor,
    /// When no ancestor and no successor can be reached, few things at a time, and what
    /// [`FilePolicy::is_direct`] names.
    ///
    /// [`FilePolicy::is_direct`]: crate::FilePolicy::is_direct
    Fallback,
    /// Never.
    Never,
}
