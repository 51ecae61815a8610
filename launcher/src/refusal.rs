//! Why two ranks do not come together: in words for a user, and as a frame for the other side.

use copper_proto::{Rank, TreeIndex};

use crate::frame::{Fields, Frame, FrameWriter, Malformed};
use crate::job::Job;

/// The longest explanation in a refusal.
pub const REFUSAL_TEXT_BYTES_MAX: usize = 512;

/// The type of the frame.
pub(crate) const REFUSAL: u8 = 5;

/// Why a parent says no, as it goes over the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RefusalCode {
    /// No reason is given to somebody who has not proven to hold the secret.
    Unsaid,
    /// Another protocol version.
    Version,
    /// Another secret.
    Secret,
    /// Another job.
    Job,
    /// Another number of ranks.
    Size,
    /// The rank is not below this one in the tree.
    Position,
    /// Another provider.
    Provider,
    /// Too many links already.
    Busy,
    /// Another number of trees.
    Trees,
}

impl RefusalCode {
    const ALL: [RefusalCode; 9] = [
        RefusalCode::Unsaid,
        RefusalCode::Version,
        RefusalCode::Secret,
        RefusalCode::Job,
        RefusalCode::Size,
        RefusalCode::Position,
        RefusalCode::Provider,
        RefusalCode::Busy,
        RefusalCode::Trees,
    ];

    fn byte(self) -> u8 {
        match self {
            RefusalCode::Unsaid => 0,
            RefusalCode::Version => 1,
            RefusalCode::Secret => 2,
            RefusalCode::Job => 3,
            RefusalCode::Size => 4,
            RefusalCode::Position => 5,
            RefusalCode::Provider => 6,
            RefusalCode::Busy => 7,
            RefusalCode::Trees => 8,
        }
    }
}

/// Why a handshake came to nothing. The text is for a user of either rank.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HandshakeError {
    /// Not our protocol at all.
    #[error("{0}: not a rank of copper, or the connection is damaged")]
    Malformed(Malformed),
    /// Different builds.
    #[error(
        "rank {rank} speaks protocol {theirs}, this is protocol {ours}: all ranks must run the \
         same copper"
    )]
    Version {
        /// The other rank.
        rank: Rank,
        /// Its version.
        theirs: u16,
        /// Ours.
        ours: u16,
    },
    /// The proof does not hold.
    #[error(
        "rank {rank} does not hold the secret of this job: give all ranks the same secret, or \
         another port if another job uses this one"
    )]
    Secret {
        /// Who the other side says that it is.
        rank: Rank,
    },
    /// Same secret, other job.
    #[error("rank {rank} belongs to job {theirs}, this is job {ours}")]
    Job {
        /// The other rank.
        rank: Rank,
        /// Its job.
        theirs: Job,
        /// Ours.
        ours: Job,
    },
    /// Different host lists.
    #[error(
        "rank {rank} counts {theirs} ranks, this rank counts {ours}: all ranks must be started with \
         the same list of hosts"
    )]
    Size {
        /// The other rank.
        rank: Rank,
        /// Its number of ranks.
        theirs: u32,
        /// Ours.
        ours: u32,
    },
    /// Different numbers of trees.
    #[error(
        "rank {rank} counts {theirs} trees, this rank counts {ours}: all ranks must be started with \
         the same --trees"
    )]
    Trees {
        /// The other rank.
        rank: Rank,
        /// Its number of trees.
        theirs: u32,
        /// Ours.
        ours: u32,
    },
    /// The other rank has no business here.
    #[error(
        "rank {rank} is not below rank {ours} in tree {tree}: all ranks must be started with the same \
         list of hosts and the same --fanout"
    )]
    Position {
        /// The other rank.
        rank: Rank,
        /// This one.
        ours: Rank,
        /// The tree that it named.
        tree: TreeIndex,
    },
    /// The address leads to another rank.
    #[error(
        "rank {answered} answers at the address of rank {expected}: all ranks must be started with \
         the same list of hosts"
    )]
    WrongRank {
        /// Who was called.
        expected: Rank,
        /// Who answered.
        answered: Rank,
    },
    /// The fabric addresses would mean nothing to each other.
    #[error(
        "rank {rank} uses libfabric provider {theirs:?}, this rank uses {ours:?}: set --net (or \
         FI_PROVIDER) to the same on all ranks"
    )]
    Provider {
        /// The other rank.
        rank: Rank,
        /// Its provider.
        theirs: String,
        /// Ours.
        ours: String,
    },
    /// The other side said no.
    #[error("rank {rank} refused: {text}")]
    Refused {
        /// Who refused.
        rank: Rank,
        /// Its reason.
        code: RefusalCode,
        /// Its reason in words, made safe to print.
        text: String,
    },
}

impl From<Malformed> for HandshakeError {
    fn from(malformed: Malformed) -> HandshakeError {
        HandshakeError::Malformed(malformed)
    }
}

impl HandshakeError {
    /// The reason, as the other side is told it and as it is counted; `None` for what is no message
    /// of a rank at all.
    pub fn code(&self) -> Option<RefusalCode> {
        match self {
            HandshakeError::Malformed(_) => None,
            HandshakeError::Version { .. } => Some(RefusalCode::Version),
            HandshakeError::Secret { .. } => Some(RefusalCode::Secret),
            HandshakeError::Job { .. } => Some(RefusalCode::Job),
            HandshakeError::Size { .. } => Some(RefusalCode::Size),
            HandshakeError::Trees { .. } => Some(RefusalCode::Trees),
            HandshakeError::Position { .. } | HandshakeError::WrongRank { .. } => {
                Some(RefusalCode::Position)
            }
            HandshakeError::Provider { .. } => Some(RefusalCode::Provider),
            HandshakeError::Refused { code, .. } => Some(*code),
        }
    }

    /// Whether trying again with the same rank cannot help.
    pub fn is_final(&self) -> bool {
        !matches!(self.code(), None | Some(RefusalCode::Busy | RefusalCode::Unsaid))
    }
}

/// The head of a refusal; its text is passed beside it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Refusal {
    pub(crate) version: u16,
    pub(crate) code: RefusalCode,
}

impl Refusal {
    pub(crate) fn encode(self, text: &str) -> Frame {
        let mut end = text.len().min(REFUSAL_TEXT_BYTES_MAX);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        FrameWriter::new(REFUSAL)
            .u16(self.version)
            .u8(self.code.byte())
            .bytes(&text.as_bytes()[..end])
            .finish()
    }

    pub(crate) fn decode(frame: &Frame) -> Result<(Refusal, String), Malformed> {
        let mut fields = Fields::new(frame.body(), "refusal");
        let (version, code) = (fields.u16()?, fields.u8()?);
        let text = fields.bytes(REFUSAL_TEXT_BYTES_MAX)?;
        fields.end()?;
        let code = RefusalCode::ALL.into_iter().find(|known| known.byte() == code);
        let code = code.unwrap_or(RefusalCode::Unsaid);
        Ok((Refusal { version, code }, printable(&String::from_utf8_lossy(text))))
    }
}

/// Text from outside goes to a terminal and into logs: no control characters.
pub(crate) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}
