//! Replies, each with what it takes to give it: now, or later from another thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use copper_engine::{Answer, InodeNumber, Looked as Name, Now, Piece, Provenance, View};
use copper_proto::{Attributes, DataRanges, Directory, Errno, ExtendedAttributes, Statistics};
use fuser::{
    Generation, ReplyAttr, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEntry, ReplyIoctl,
    ReplyLseek, ReplyStatfs, ReplyXattr,
};

use super::call::Call;
use super::{Context, listing, listing_plus};
use crate::attributes::{absence, file_attributes};
use crate::kernel::LONG;
use crate::listers::{self, Turn};
use crate::operations::Ended;
use crate::pending::Complete;

/// Inode numbers are never reused, so one generation will do.
pub(super) const GENERATION: Generation = Generation(0);

/// A reply that waits for a value.
pub(super) trait Outcome<V: View>: Send + 'static {
    /// What it waits for.
    type Value;

    /// The value in an engine's answer, if that answers the right question.
    fn value(answer: Answer<V::Bytes>) -> Option<Self::Value>;

    /// Replies; tells how the call ended.
    fn finish(
        self,
        context: &Arc<Context<V>>,
        call: &Call,
        outcome: Result<Self::Value, Errno>,
    ) -> Ended;
}

/// Replies, and counts the call.
pub(super) fn finish<V: View, O: Outcome<V>>(
    context: &Arc<Context<V>>,
    call: Call,
    outcome: O,
    result: Result<O::Value, Errno>,
) {
    let ended = outcome.finish(context, &call, result);
    call.ended(&context.operations, context.paths.as_deref(), ended);
}

/// A reply that is put away until its answer comes.
pub(super) fn complete<V: View, O: Outcome<V>>(
    context: &Arc<Context<V>>,
    mut call: Call,
    outcome: O,
) -> Complete<V::Bytes> {
    let context = Arc::clone(context);
    Box::new(move |answer, provenance| {
        // An answer of the wrong kind is a bug of the engine, and one file's problem.
        let right = |answer| O::value(answer).ok_or(Errno::EPROTO);
        // Of a reply that was put away twice, as ListedPlus may be, the farther one.
        call.provenance = call.provenance.max(provenance);
        finish(&context, call, outcome, answer.and_then(right));
    })
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

    fn finish(self, context: &Arc<Context<V>>, call: &Call, outcome: Result<Name, Errno>) -> Ended {
        let policy = context.policy();
        match outcome {
            Ok(Name::Found(found)) => {
                let attributes = file_attributes(found.inode, &found.attributes);
                self.reply.entry(&policy.keep, &attributes, GENERATION);
                Ended::Well
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
                if keep < LONG { Ended::NegativeForNow } else { Ended::Negative }
            }
            Err(errno) => {
                if errno == Errno::ENOENT {
                    context.counters.negative.count();
                }
                call.fail(&context.counters, errno, |errno| self.reply.error(errno))
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

    fn finish(
        self,
        context: &Arc<Context<V>>,
        call: &Call,
        outcome: Result<Attributes, Errno>,
    ) -> Ended {
        match outcome {
            Ok(attributes) => {
                let attributes = file_attributes(self.inode, &attributes);
                self.reply.attr(&context.policy().keep, &attributes);
                Ended::Well
            }
            Err(errno) => call.fail(&context.counters, errno, |errno| self.reply.error(errno)),
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

    fn finish(
        self,
        context: &Arc<Context<V>>,
        call: &Call,
        outcome: Result<Arc<[u8]>, Errno>,
    ) -> Ended {
        match outcome {
            Ok(target) => {
                self.reply.data(&target);
                Ended::Well
            }
            Err(errno) => call.fail(&context.counters, errno, |errno| self.reply.error(errno)),
        }
    }
}

/// READ.
pub(super) struct Read {
    pub(super) inode: InodeNumber,
    pub(super) offset: u64,
    pub(super) len: u32,
    pub(super) reply: ReplyData,
}

impl<V: View> Outcome<V> for Read {
    type Value = Vec<Piece<V::Bytes>>;

    fn value(answer: Answer<V::Bytes>) -> Option<Self::Value> {
        if let Answer::Data(pieces) = answer { Some(pieces) } else { None }
    }

    fn finish(
        self,
        context: &Arc<Context<V>>,
        call: &Call,
        outcome: Result<Self::Value, Errno>,
    ) -> Ended {
        let pieces = match outcome {
            Ok(pieces) => pieces,
            Err(errno) => {
                return call.fail(&context.counters, errno, |errno| self.reply.error(errno));
            }
        };
        let bytes: usize = pieces.iter().map(|piece| piece.as_ref().len()).sum();
        assert!(bytes <= self.len as usize, "a view gives at most what was asked for");
        context.counters.read_bytes.add(bytes as u64);
        // One reply is one slice: only what crosses a block's end has to be copied together.
        match &pieces[..] {
            [] => self.reply.data(&[]),
            [piece] => {
                self.reply.data(piece.as_ref());
                // After the reply: nobody waits for it.
                if context.policy().store_libraries {
                    let Read { inode, offset, len, .. } = self;
                    context.stores.answered(&*context.view, inode, offset, len, piece.as_ref());
                }
            }
            _ => {
                let mut joined = Vec::with_capacity(bytes);
                pieces.iter().for_each(|piece| joined.extend_from_slice(piece.as_ref()));
                self.reply.data(&joined);
            }
        }
        Ended::Well
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

    fn finish(
        self,
        context: &Arc<Context<V>>,
        call: &Call,
        outcome: Result<Arc<Directory>, Errno>,
    ) -> Ended {
        match outcome {
            Ok(directory) => {
                listing::reply(&*context.view, self.inode, &directory, self.offset, self.reply);
                Ended::Well
            }
            Err(errno) => call.fail(&context.counters, errno, |errno| self.reply.error(errno)),
        }
    }
}

/// READDIRPLUS.
pub(super) struct ListedPlus {
    /// If it has waited for somebody who listed the same directory: whether the kernel keeps the
    /// listing now.
    pub(super) waited: Option<Arc<AtomicBool>>,
    pub(super) inode: InodeNumber,
    pub(super) offset: u64,
    pub(super) reply: ReplyDirectoryPlus,
}

impl<V: View> Outcome<V> for ListedPlus {
    type Value = Arc<Directory>;

    fn value(answer: Answer<V::Bytes>) -> Option<Arc<Directory>> {
        <Listed as Outcome<V>>::value(answer)
    }

    fn finish(
        self,
        context: &Arc<Context<V>>,
        call: &Call,
        outcome: Result<Arc<Directory>, Errno>,
    ) -> Ended {
        match outcome {
            Ok(directory) if context.policy().cache_directories => {
                self.in_turn(context, call, &directory)
            }
            Ok(directory) => {
                let range = self.offset..u64::MAX;
                listing_plus::reply(context, call, self.inode, &directory, range, self.reply);
                Ended::Well
            }
            Err(errno) => call.fail(&context.counters, errno, |errno| self.reply.error(errno)),
        }
    }
}

impl ListedPlus {
    /// Replies, but not while somebody else is reading the same listing to its end.
    fn in_turn<V: View>(
        self,
        context: &Arc<Context<V>>,
        call: &Call,
        directory: &Arc<Directory>,
    ) -> Ended {
        let (inode, offset) = (self.inode, self.offset);
        if offset == 0 && self.waited.is_none() {
            match context.listers.turn(inode, directory, Instant::now()) {
                Turn::Now(overdue) => listers::answer(&context.pending, overdue, directory),
                Turn::Later(kept) => {
                    self.wait(context, call.clone(), kept);
                    return Ended::Later;
                }
            }
        }
        let is_kept = self.waited.is_some_and(|kept| kept.load(Ordering::Acquire));
        let end = if is_kept { directory.len() as u64 + 1 } else { u64::MAX };
        listing_plus::reply(context, call, inode, directory, offset..end, self.reply);
        if offset >= directory.len() as u64 + 2 {
            context.listers.end(inode, Instant::now());
        }
        Ended::Well
    }

    fn wait<V: View>(self, context: &Arc<Context<V>>, call: Call, kept: Arc<AtomicBool>) {
        let inode = self.inode;
        let complete = complete(context, call, ListedPlus { waited: Some(kept), ..self });
        match context.pending.put(complete, Instant::now()) {
            Ok(ticket) if context.listers.wait(inode, ticket) => {}
            Ok(ticket) => {
                if let Some(complete) = context.pending.take(ticket) {
                    let directory = match context.view.directory(inode) {
                        Now::Answered(directory) => directory.map(Answer::Directory),
                        Now::Ask => Err(Errno::EIO),
                    };
                    complete(directory, Provenance::Held);
                }
            }
            Err((complete, errno)) => complete(Err(errno), Provenance::Held),
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

    fn finish(
        self,
        context: &Arc<Context<V>>,
        call: &Call,
        outcome: Result<Statistics, Errno>,
    ) -> Ended {
        match outcome {
            Ok(statistics) => {
                self.reply.statfs(
                    statistics.blocks,
                    statistics.blocks_free,
                    statistics.blocks_available,
                    statistics.files,
                    statistics.files_free,
                    statistics.block_bytes,
                    statistics.name_bytes_max,
                    statistics.fragment_bytes,
                );
                Ended::Well
            }
            Err(errno) => call.fail(&context.counters, errno, |errno| self.reply.error(errno)),
        }
    }
}

/// Where LSEEK looks from, and what for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Seeking {
    /// `SEEK_DATA`.
    Data(u64),
    /// `SEEK_HOLE`.
    Hole(u64),
}

/// LSEEK.
pub(super) struct Sought {
    pub(super) seeking: Seeking,
    pub(super) reply: ReplyLseek,
}

impl<V: View> Outcome<V> for Sought {
    type Value = Arc<DataRanges>;

    fn value(answer: Answer<V::Bytes>) -> Option<Arc<DataRanges>> {
        if let Answer::DataRanges(ranges) = answer { Some(ranges) } else { None }
    }

    fn finish(
        self,
        context: &Arc<Context<V>>,
        call: &Call,
        outcome: Result<Arc<DataRanges>, Errno>,
    ) -> Ended {
        let offset = outcome.and_then(|ranges| {
            let offset = match self.seeking {
                Seeking::Data(offset) => ranges.data_from(offset),
                Seeking::Hole(offset) => ranges.hole_from(offset),
            };
            offset.and_then(|offset| i64::try_from(offset).ok()).ok_or(Errno::ENXIO)
        });
        match offset {
            Ok(offset) => {
                self.reply.offset(offset);
                Ended::Well
            }
            Err(errno) => call.fail(&context.counters, errno, |errno| self.reply.error(errno)),
        }
    }
}

/// IOCTL that the daemon knows.
pub(super) struct Controlled {
    pub(super) reply: ReplyIoctl,
}

impl<V: View> Outcome<V> for Controlled {
    type Value = ();

    fn value(answer: Answer<V::Bytes>) -> Option<()> {
        matches!(answer, Answer::Done).then_some(())
    }

    fn finish(self, context: &Arc<Context<V>>, call: &Call, outcome: Result<(), Errno>) -> Ended {
        match outcome {
            Ok(()) => {
                self.reply.ioctl(0, &[]);
                Ended::Well
            }
            Err(errno) => call.fail(&context.counters, errno, |errno| self.reply.error(errno)),
        }
    }
}

/// GETXATTR of a name, or LISTXATTR.
pub(super) struct Extended {
    pub(super) name: Option<Box<[u8]>>,
    /// Room for the answer in bytes; 0 asks for its size.
    pub(super) room: u32,
    pub(super) reply: ReplyXattr,
}

impl Extended {
    fn bytes(&self, attributes: &ExtendedAttributes, access_lists: bool) -> Result<Vec<u8>, Errno> {
        let bytes = match &self.name {
            None if attributes.is_supported() => {
                let names = attributes.names().filter(|name| access_lists || !is_access_list(name));
                names.flat_map(|name| [name, b"\0"].concat()).collect()
            }
            None => return Err(Errno::EOPNOTSUPP),
            Some(name) => match attributes.get(name) {
                Some(value) => value.to_vec(),
                None if attributes.is_supported() && can_be_absent(name) => {
                    return Err(Errno::ENODATA);
                }
                None => return Err(Errno::EOPNOTSUPP),
            },
        };
        if self.room > 0 && bytes.len() > self.room as usize {
            return Err(Errno::ERANGE);
        }
        Ok(bytes)
    }
}

/// Whether it is a POSIX ACL: what a mount for oneself does not know.
pub(super) fn is_access_list(name: &[u8]) -> bool {
    [&b"system.posix_acl_access"[..], b"system.posix_acl_default"].contains(&name)
}

/// Whether a file may be without an attribute of this name on a file system that knows it; others
/// are not supported. A label of SELinux is not: `ls -l` asks for it file by file, twice as many
/// questions as there are files, until it hears that there are no labels.
fn can_be_absent(name: &[u8]) -> bool {
    let space = [&b"user."[..], b"trusted.", b"security."];
    is_access_list(name)
        || (space.iter().any(|space| name.starts_with(space)) && name != b"security.selinux")
}

impl<V: View> Outcome<V> for Extended {
    type Value = Arc<ExtendedAttributes>;

    fn value(answer: Answer<V::Bytes>) -> Option<Arc<ExtendedAttributes>> {
        if let Answer::ExtendedAttributes(attributes) = answer { Some(attributes) } else { None }
    }

    fn finish(
        self,
        context: &Arc<Context<V>>,
        call: &Call,
        outcome: Result<Arc<ExtendedAttributes>, Errno>,
    ) -> Ended {
        let access_lists = context.access_lists;
        match outcome.and_then(|attributes| self.bytes(&attributes, access_lists)) {
            Ok(bytes) if self.room == 0 => {
                self.reply.size(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
                Ended::Well
            }
            Ok(bytes) => {
                self.reply.data(&bytes);
                Ended::Well
            }
            Err(errno) => call.fail(&context.counters, errno, |errno| self.reply.error(errno)),
        }
    }
}
