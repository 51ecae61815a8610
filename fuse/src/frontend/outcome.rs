//! Replies, each with what it takes to give it: now, or later from another thread.

use std::sync::Arc;
use std::time::Duration;

use copper_engine::{Answer, InodeNumber, Looked as Name, Piece, View};
use copper_proto::{Attributes, Directory, Errno, Statistics};
use fuser::{
    Generation, ReplyAttr, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEntry, ReplyStatfs,
};

use super::call::Call;
use super::{Context, listing, listing_plus};
use crate::attributes::{absence, file_attributes, kernel_errno};
use crate::kernel::LONG;

/// Inode numbers are never reused, so one generation will do.
pub(super) const GENERATION: Generation = Generation(0);

/// A reply that waits for a value.
pub(super) trait Outcome<V: View>: Send + 'static {
    /// What it waits for.
    type Value;

    /// The value in an engine's answer, if that answers the right question.
    fn value(answer: Answer<V::Bytes>) -> Option<Self::Value>;

    /// Replies.
    fn finish(self, context: &Context<V>, call: Call, outcome: Result<Self::Value, Errno>);
}

/// LOOKUP.
pub(super) struct Looked {
    pub(super) reply: ReplyEntry,
}

impl<V: View> Outcome<V> for Looked {
    type Value = Name;

    fn value(answer: Answer<V::Bytes>) -> Option<Name> {
        if let Answer::Looked(looked) = answer { Some(looked) } else { None }
    }

    fn finish(self, context: &Context<V>, call: Call, outcome: Result<Name, Errno>) {
        let policy = context.policy();
        match outcome {
            Ok(Name::Found(found)) => {
                let attributes = file_attributes(found.inode, &found.attributes);
                self.reply.entry(&policy.keep, &attributes, GENERATION);
            }
            Ok(Name::Absent { keep }) => {
                context.counters.negative.count();
                if policy.negatives && !keep.is_zero() {
                    let keep = keep.min(LONG);
                    let none = Duration::ZERO;
                    self.reply.entry_with_ttls(&none, &keep, &absence(), GENERATION);
                } else {
                    self.reply.error(fuser::Errno::ENOENT);
                }
            }
            Err(errno) => {
                if errno == Errno::ENOENT {
                    context.counters.negative.count();
                }
                call.failed(&context.counters, errno);
                self.reply.error(kernel_errno(errno));
            }
        }
    }
}

/// GETATTR.
pub(super) struct Attributed {
    pub(super) inode: InodeNumber,
    pub(super) reply: ReplyAttr,
}

impl<V: View> Outcome<V> for Attributed {
    type Value = Attributes;

    fn value(answer: Answer<V::Bytes>) -> Option<Attributes> {
        if let Answer::Attributes(attributes) = answer { Some(attributes) } else { None }
    }

    fn finish(self, context: &Context<V>, call: Call, outcome: Result<Attributes, Errno>) {
        match outcome {
            Ok(attributes) => {
                let attributes = file_attributes(self.inode, &attributes);
                self.reply.attr(&context.policy().keep, &attributes);
            }
            Err(errno) => {
                call.failed(&context.counters, errno);
                self.reply.error(kernel_errno(errno));
            }
        }
    }
}

/// READLINK.
pub(super) struct Pointed {
    pub(super) reply: ReplyData,
}

impl<V: View> Outcome<V> for Pointed {
    type Value = Arc<[u8]>;

    fn value(answer: Answer<V::Bytes>) -> Option<Arc<[u8]>> {
        if let Answer::Target(target) = answer { Some(target) } else { None }
    }

    fn finish(self, context: &Context<V>, call: Call, outcome: Result<Arc<[u8]>, Errno>) {
        match outcome {
            Ok(target) => self.reply.data(&target),
            Err(errno) => {
                call.failed(&context.counters, errno);
                self.reply.error(kernel_errno(errno));
            }
        }
    }
}

/// READ.
pub(super) struct Read {
    pub(super) len: u32,
    pub(super) reply: ReplyData,
}

impl<V: View> Outcome<V> for Read {
    type Value = Vec<Piece<V::Bytes>>;

    fn value(answer: Answer<V::Bytes>) -> Option<Self::Value> {
        if let Answer::Data(pieces) = answer { Some(pieces) } else { None }
    }

    fn finish(self, context: &Context<V>, call: Call, outcome: Result<Self::Value, Errno>) {
        let pieces = match outcome {
            Ok(pieces) => pieces,
            Err(errno) => {
                call.failed(&context.counters, errno);
                return self.reply.error(kernel_errno(errno));
            }
        };
        let bytes: usize = pieces.iter().map(|piece| piece.as_ref().len()).sum();
        assert!(bytes <= self.len as usize, "a view gives at most what was asked for");
        context.counters.read_bytes.add(bytes as u64);
        // One reply is one slice: only what crosses a block's end has to be copied together.
        match &pieces[..] {
            [] => self.reply.data(&[]),
            [piece] => self.reply.data(piece.as_ref()),
            _ => {
                let mut joined = Vec::with_capacity(bytes);
                pieces.iter().for_each(|piece| joined.extend_from_slice(piece.as_ref()));
                self.reply.data(&joined);
            }
        }
    }
}

/// READDIR.
pub(super) struct Listed {
    pub(super) inode: InodeNumber,
    pub(super) offset: u64,
    pub(super) reply: ReplyDirectory,
}

impl<V: View> Outcome<V> for Listed {
    type Value = Arc<Directory>;

    fn value(answer: Answer<V::Bytes>) -> Option<Arc<Directory>> {
        if let Answer::Directory(directory) = answer { Some(directory) } else { None }
    }

    fn finish(self, context: &Context<V>, call: Call, outcome: Result<Arc<Directory>, Errno>) {
        match outcome {
            Ok(directory) => {
                listing::reply(&*context.view, self.inode, &directory, self.offset, self.reply);
            }
            Err(errno) => {
                call.failed(&context.counters, errno);
                self.reply.error(kernel_errno(errno));
            }
        }
    }
}

/// READDIRPLUS.
pub(super) struct ListedPlus {
    pub(super) inode: InodeNumber,
    pub(super) offset: u64,
    pub(super) reply: ReplyDirectoryPlus,
}

impl<V: View> Outcome<V> for ListedPlus {
    type Value = Arc<Directory>;

    fn value(answer: Answer<V::Bytes>) -> Option<Arc<Directory>> {
        <Listed as Outcome<V>>::value(answer)
    }

    fn finish(self, context: &Context<V>, call: Call, outcome: Result<Arc<Directory>, Errno>) {
        match outcome {
            Ok(directory) => {
                listing_plus::reply(context, call, self.inode, &directory, self.offset, self.reply);
            }
            Err(errno) => {
                call.failed(&context.counters, errno);
                self.reply.error(kernel_errno(errno));
            }
        }
    }
}

/// STATFS.
pub(super) struct Measured {
    pub(super) reply: ReplyStatfs,
}

impl<V: View> Outcome<V> for Measured {
    type Value = Statistics;

    fn value(answer: Answer<V::Bytes>) -> Option<Statistics> {
        if let Answer::Statistics(statistics) = answer { Some(statistics) } else { None }
    }

    fn finish(self, context: &Context<V>, call: Call, outcome: Result<Statistics, Errno>) {
        match outcome {
            Ok(statistics) => self.reply.statfs(
                statistics.blocks,
                statistics.blocks_free,
                statistics.blocks_available,
                statistics.files,
                statistics.files_free,
                statistics.block_bytes,
                statistics.name_bytes_max,
                statistics.fragment_bytes,
            ),
            Err(errno) => {
                call.failed(&context.counters, errno);
                self.reply.error(kernel_errno(errno));
            }
        }
    }
}
