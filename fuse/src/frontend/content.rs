//! OPEN of a file that is handed to the kernel: its whole content is wanted first.

use std::sync::Arc;

use copper_engine::{Answer, InodeNumber, Now, Piece, Question, View};
use copper_proto::{Errno, FileKind};
use fuser::{FopenFlags, ReplyOpen};
use tracing::debug;

use super::call::Call;
use super::outcome::{Outcome, Read};
use super::{Context, Frontend};
use crate::backings::Opener;
use crate::operations::Ended;

/// A file's whole content, for whoever was the first to open it.
struct Content {
    inode: InodeNumber,
    /// All of it, in bytes.
    size: u64,
    first: Opener,
}

impl<V: View> Frontend<V> {
    /// Opens a file with a backing file if it can have one, else with the flags `plain`.
    pub(super) fn pass(&self, call: Call, inode: InodeNumber, plain: FopenFlags, reply: ReplyOpen) {
        let size = match self.view().attributes(inode) {
            Now::Answered(Ok(attributes)) if attributes.kind == FileKind::Regular => {
                attributes.size
            }
            // As if it were empty: whoever reads will see.
            Now::Answered(_) | Now::Ask => 0,
        };
        let first = Opener { reply, plain };
        let Some(first) = self.context.backings.open(inode, size, first) else {
            return call.ended(&self.context.operations, None, Ended::Well);
        };
        let len = u32::try_from(size).expect("what is handed over is far smaller");
        let now = self.view().read(inode, 0, len);
        let question = Question::Read { inode, offset: 0, len };
        self.answer(call, now, Content { inode, size, first }, question);
    }
}

impl<V: View> Outcome<V> for Content {
    type Value = Vec<Piece<V::Bytes>>;

    fn value(answer: Answer<V::Bytes>) -> Option<Self::Value> {
        <Read as Outcome<V>>::value(answer)
    }

    fn finish(
        self,
        context: &Arc<Context<V>>,
        _: &Call,
        outcome: Result<Self::Value, Errno>,
    ) -> Ended {
        let Content { inode, size, first } = self;
        match outcome {
            Ok(pieces) => context.backings.content(inode, size, pieces, first),
            Err(errno) => {
                // Whoever reads gets an errno; to open it is no failure.
                debug!(inode = inode.0, %errno, "the content of an opened file was not to be had");
                context.backings.no_content(inode, first);
            }
        }
        Ended::Well
    }
}
