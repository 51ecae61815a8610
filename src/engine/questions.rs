//! What frontends have asked and not been answered yet: each question is one or more wants of the
//! protocol, one after the other or at once.

use std::collections::HashMap;
use std::sync::Arc;

use copper_proto::{Errno, Ticket};
use slab::Slab;

use crate::inodes::Inode;
use crate::queue::Span;
use crate::view::{Piece, Question};

/// What a want of the protocol is for.
pub(crate) enum Step<B> {
    /// A look-up waits for the directory's snapshot.
    Listing { question: Ticket, parent: Arc<Inode<B>>, name: Box<[u8]> },
    /// The source has said that the name is absent, and the directory's snapshot is to prove it, so
    /// that the kernel may keep that for long.
    Proof { question: Ticket, parent: Arc<Inode<B>>, name: Box<[u8]> },
    /// A look-up waits for the name's own entry.
    Entry { question: Ticket, parent: Arc<Inode<B>>, name: Box<[u8]> },
    /// For an inode's attributes.
    Attributes { question: Ticket, inode: Arc<Inode<B>> },
    /// For a link's target.
    Target { question: Ticket, inode: Arc<Inode<B>> },
    /// For a directory.
    Directory { question: Ticket, inode: Arc<Inode<B>> },
    /// For a file's attributes, to ask again then what needs them.
    Size { question: Ticket, inode: Arc<Inode<B>>, then: Question },
    /// For extended attributes.
    ExtendedAttributes { question: Ticket, inode: Arc<Inode<B>> },
    /// For the runs of data of a file of this size.
    DataRanges { question: Ticket, inode: Arc<Inode<B>>, size: u64 },
    /// For one block of a read.
    Block { read: usize, part: usize, span: Span, inode: Arc<Inode<B>> },
    /// For a file system's statistics.
    Statistics { question: Ticket },
}

/// A read over one or more blocks.
struct Read<B> {
    question: Ticket,
    parts: Vec<Option<Piece<B>>>,
    missing: usize,
    failed: Option<Errno>,
}

/// What a read's pieces came to.
pub(crate) type Pieces<B> = Result<Vec<Piece<B>>, Errno>;

/// All steps under way.
pub(crate) struct Questions<B> {
    steps: HashMap<Ticket, Step<B>>,
    reads: Slab<Read<B>>,
    next: u64,
}

impl<B> Default for Questions<B> {
    fn default() -> Questions<B> {
        Questions { steps: HashMap::new(), reads: Slab::new(), next: 0 }
    }
}

impl<B: AsRef<[u8]>> Questions<B> {
    pub(crate) fn len(&self) -> usize {
        self.steps.len()
    }

    /// The ticket under which the protocol is asked.
    pub(crate) fn begin(&mut self, step: Step<B>) -> Ticket {
        let ticket = Ticket(self.next);
        self.next += 1;
        self.steps.insert(ticket, step);
        ticket
    }

    pub(crate) fn take(&mut self, ticket: Ticket) -> Step<B> {
        self.steps.remove(&ticket).expect("the protocol answers each ticket once")
    }

    pub(crate) fn begin_read(&mut self, question: Ticket, parts: usize) -> usize {
        let parts = (0..parts).map(|_| None).collect::<Vec<_>>();
        let missing = parts.len();
        self.reads.insert(Read { question, parts, missing, failed: None })
    }

    /// One part of a read has come or failed; the read's answer once all have. What waits for other
    /// parts is a copy: a dozen such reads that kept their extents could keep a small arena from ever
    /// having room for the parts that they wait for.
    pub(crate) fn part(
        &mut self,
        read: usize,
        part: usize,
        result: Result<Piece<B>, Errno>,
    ) -> Option<(Ticket, Pieces<B>)> {
        let entry = self.reads.get_mut(read).expect("a read stays until all its parts have come");
        match result {
            Ok(piece) if entry.missing > 1 => entry.parts[part] = Some(piece.copied()),
            Ok(piece) => entry.parts[part] = Some(piece),
            Err(errno) => entry.failed = entry.failed.or(Some(errno)),
        }
        entry.missing -= 1;
        if entry.missing > 0 {
            return None;
        }
        let read = self.reads.remove(read);
        let pieces = match read.failed {
            Some(errno) => Err(errno),
            None => Ok(read.parts.into_iter().flatten().collect()),
        };
        Some((read.question, pieces))
    }

    /// The questions that are still open, when the engine ends.
    pub(crate) fn drain(&mut self) -> impl Iterator<Item = Ticket> {
        let reads: Vec<Ticket> = self.reads.drain().map(|read| read.question).collect();
        let steps = std::mem::take(&mut self.steps).into_values();
        let questions = steps.filter_map(|step| match step {
            Step::Listing { question, .. }
            | Step::Proof { question, .. }
            | Step::Entry { question, .. }
            | Step::Attributes { question, .. }
            | Step::Target { question, .. }
            | Step::Directory { question, .. }
            | Step::Size { question, .. }
            | Step::ExtendedAttributes { question, .. }
            | Step::DataRanges { question, .. }
            | Step::Statistics { question } => Some(question),
            Step::Block { .. } => None,
        });
        reads.into_iter().chain(questions)
    }
}
