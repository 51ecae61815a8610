//! What a node wants done.

use crate::attributes::{Entry, Statistics};
use crate::errno::Errno;
use crate::ids::{Epoch, JobId, LinkId, PullId, Ticket};
#[cfg(doc)]
use crate::input::Input;
use crate::key::Key;
#[cfg(doc)]
use crate::key::What;
use crate::scope::{Dropped, Scope};
use crate::serve::Violation;
use crate::store::{Extent, Held, Spilled};
use crate::tick::Tick;
use crate::wire::Message;
#[cfg(doc)]
use crate::wire::Reply;

/// What is asked of the source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceRequest {
    /// `lstat`, and `readlink` of a link.
    Entry,
    /// What the key names and the source encodes: a directory's snapshot, extended attributes,
    /// data ranges (`ESTALE` if the file is not of the key's generation).
    Encoded,
    /// One block, if the file is still of the key's generation; else `ESTALE`.
    Block(Extent),
    /// `statfs`.
    Statistics,
}

/// Where bytes are copied from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyFrom {
    /// The payload of the message that was handled last.
    Message,
    /// The encoded object that is held under this job.
    Source(JobId),
}

/// The answer to a local reader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// To [`What::Entry`].
    Present(Entry),
    /// To [`What::Entry`]: it does not exist, which may be repeated until then.
    Absent(Tick),
    /// To [`What::Directory`], [`What::Block`], [`What::ExtendedAttributes`] and
    /// [`What::DataRanges`]: here are the bytes.
    Object(Held),
    /// To [`What::Statistics`].
    Statistics(Statistics),
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Send a message, with the bytes of `payload` behind it.
    Send {
        /// To whom.
        link: LinkId,
        /// What.
        message: Message,
        /// The payload of a [`Reply::Inline`].
        payload: Option<Extent>,
    },
    /// Read from the parent's arena, verify, and report as [`Input::Pulled`].
    Pull {
        /// To be given back.
        pull: PullId,
        /// Of which object.
        key: Key,
        /// Whose arena.
        link: LinkId,
        /// Where there, in bytes.
        offset: u64,
        /// Where to, and how many bytes.
        into: Extent,
        /// What they must add up to.
        checksum: u64,
    },
    /// Read back what was evicted, verify, and report as [`Input::Pulled`].
    Restore {
        /// To be given back.
        pull: PullId,
        /// Of which object.
        key: Key,
        /// Where from.
        from: Spilled,
        /// Where to, as many bytes.
        into: Extent,
    },
    /// Copy, verify, and report as [`Input::Pulled`] at once.
    Copy {
        /// To be given back.
        pull: PullId,
        /// Of which object.
        key: Key,
        /// Where from.
        from: CopyFrom,
        /// Where to, and how many bytes.
        into: Extent,
        /// What they must add up to, if that is known.
        checksum: Option<u64>,
    },
    /// Read the source and report as [`Input::Source`].
    Source {
        /// To be given back.
        job: JobId,
        /// Of what.
        key: Key,
        /// What.
        request: SourceRequest,
    },
    /// Answer a local reader.
    Answer {
        /// Which.
        ticket: Ticket,
        /// With what.
        result: Result<Outcome, Errno>,
    },
    /// A link broke the protocol, or nothing comes over it: close it and report [`Input::LinkDown`].
    Disconnect {
        /// Which.
        link: LinkId,
        /// Why.
        violation: Violation,
    },
    /// Everything in the scope has been forgotten here: readers are not to be shown it any more,
    /// and children may be told.
    Refreshed {
        /// The refresh's number.
        epoch: Epoch,
        /// What.
        scope: Scope,
        /// What was held of it.
        dropped: Dropped,
    },
    /// What the source encoded is not wanted any more.
    DropEncoded(JobId),
}
