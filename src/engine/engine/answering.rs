//! From a frontend's question to what the protocol is asked, and from its outcome to the answer.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use copper_cache::policy::{LookedIn, LookupPlan, lookup_plan, siblings};
use copper_proto::{
    Attributes, BlockIndex, DataRanges, Directory, Entry, Errno, ExtendedAttributes, FileKind,
    Generation, Held, Input, Key, Outcome, Tick, Ticket, ViewPath, What,
};

use super::Engine;
use crate::inodes::Inode;
use crate::ports::{Fabric, Memory, Source};
use crate::questions::Step;
use crate::queue::{KEEP, look_up, shown, spans};
use crate::view::{Answer, InodeNumber, Looked, Now, Piece, Question};

impl<M: Memory, F: Fabric<M::Filling>, S: Source<M::Filling>> Engine<M, F, S> {
    pub(super) fn on_question(&mut self, question: Ticket, what: Question) {
        let number = match &what {
            Question::Lookup { parent, .. } => *parent,
            Question::Read { inode, .. } => *inode,
            Question::Attributes(inode)
            | Question::Target(inode)
            | Question::Directory(inode)
            | Question::ExtendedAttributes(inode)
            | Question::DataRanges(inode)
            | Question::Statistics(inode) => *inode,
        };
        let Some(inode) = self.inodes.get(number) else {
            self.answer(question, Err(Errno::ESTALE));
            return;
        };
        let key = |what| Key { path: inode.path.clone(), what };
        match what {
            Question::Lookup { name, .. } => self.look_up(question, inode, name),
            Question::Attributes(_) => {
                let key = key(What::Entry);
                self.want(Step::Attributes { question, inode }, key);
            }
            Question::Target(_) => {
                let key = key(What::Entry);
                self.want(Step::Target { question, inode }, key);
            }
            Question::Directory(_) => {
                let key = key(What::Directory);
                self.want(Step::Directory { question, inode }, key);
            }
            Question::Statistics(_) => {
                let key = key(What::Statistics);
                self.want(Step::Statistics { question }, key);
            }
            Question::ExtendedAttributes(_) => {
                let key = key(What::ExtendedAttributes);
                self.want(Step::ExtendedAttributes { question, inode }, key);
            }
            Question::Read { .. } | Question::DataRanges(_) => match inode.attributes() {
                Some(attributes) => self.on_content(question, inode, &attributes, &what),
                None => {
                    let key = key(What::Entry);
                    self.want(Step::Size { question, inode, then: what }, key);
                }
            },
        }
    }

    /// A question that needs the file's attributes: its size, its generation.
    fn on_content(
        &mut self,
        question: Ticket,
        inode: Arc<Inode<M::Filled>>,
        attributes: &Attributes,
        what: &Question,
    ) {
        if let Question::Read { offset, len, .. } = *what {
            self.read(question, &inode, attributes, offset, len);
        } else if attributes.kind == FileKind::Regular {
            let what = What::DataRanges { generation: attributes.generation() };
            let key = Key { path: inode.path.clone(), what };
            self.want(Step::DataRanges { question, inode, size: attributes.size }, key);
        } else {
            self.answer(question, Err(Errno::EINVAL));
        }
    }

    /// An entry has come that this rank did not hold and, if it has a parent, did not read itself.
    fn on_fetched_entry(&mut self, step: &Step<M::Filled>) {
        let (question, path) = match step {
            Step::Entry { question, parent, name } => (*question, parent.path.join(name)),
            Step::Attributes { question, inode }
            | Step::Target { question, inode }
            | Step::Size { question, inode, .. } => (*question, Some(inode.path.clone())),
            Step::Listing { .. }
            | Step::Proof { .. }
            | Step::Directory { .. }
            | Step::ExtendedAttributes { .. }
            | Step::DataRanges { .. }
            | Step::Block { .. }
            | Step::Statistics { .. } => return,
        };
        let has_parent = self.member.nodes().iter().any(|node| node.parent().is_some());
        if let Some(path) = path.filter(|_| has_parent && self.taken != Some(question)) {
            self.firsts.on_entry(&path, self.now);
        }
    }

    pub(super) fn on_outcome(&mut self, step: Step<M::Filled>, outcome: Result<Outcome, Errno>) {
        if matches!(outcome, Ok(Outcome::Present(_))) && !self.firsts.has_entry() {
            self.on_fetched_entry(&step);
        }
        match step {
            Step::Listing { question, parent, name } => {
                match outcome {
                    Ok(outcome) => {
                        self.list(&parent, outcome);
                    }
                    // A failure of the moment is the look-up's too; else the directory cannot be
                    // listed (it may be searched all the same), and the name is asked for itself.
                    Err(errno) if is_passing(errno) => {
                        self.answer(question, Err(errno));
                        return;
                    }
                    Err(_) => parent.unlistable.store(true, Ordering::Relaxed),
                }
                match look_up(&self.inodes, parent.number, &name) {
                    Now::Answered(looked) => {
                        self.answer(question, looked.map(Answer::Looked));
                    }
                    Now::Ask => self.look_up_entry(question, parent, name),
                }
            }
            Step::Entry { question, parent, name } => {
                let looked = outcome.map(|outcome| self.looked(&parent, &name, outcome));
                match looked {
                    Ok(Looked::Absent { keep }) if keep < KEEP && may_list(&parent) => {
                        let key = Key { path: parent.path.clone(), what: What::Directory };
                        self.want(Step::Proof { question, parent, name }, key);
                    }
                    looked => self.answer(question, looked.map(Answer::Looked)),
                }
            }
            Step::Proof { question, parent, name } => {
                if outcome.as_ref().is_err_and(|errno| !is_passing(*errno)) {
                    parent.unlistable.store(true, Ordering::Relaxed);
                }
                let listed = outcome.map(|outcome| self.list(&parent, outcome));
                // The source may have been looked at anew since it said so: not to be kept.
                let absent = Looked::Absent { keep: Duration::ZERO };
                let looked = match (listed, look_up(&self.inodes, parent.number, &name)) {
                    (Ok(_), Now::Answered(looked)) => looked,
                    // Not proven, or there by now: what the source said is the answer.
                    (Ok(_), Now::Ask) | (Err(_), _) => Ok(absent),
                };
                self.answer(question, looked.map(Answer::Looked));
            }
            Step::Attributes { question, inode } => {
                let entry = self.still(&inode, outcome);
                let attributes =
                    entry.map(|_| Answer::Attributes(inode.attributes().expect("just learnt")));
                self.answer(question, attributes);
            }
            Step::Target { question, inode } => {
                let target = self
                    .still(&inode, outcome)
                    .and_then(|_| inode.target().map(Answer::Target).ok_or(Errno::EINVAL));
                self.answer(question, target);
            }
            Step::Directory { question, inode } => {
                let directory = outcome.map(|outcome| self.list(&inode, outcome));
                self.answer(question, directory.map(Answer::Directory));
            }
            Step::Size { question, inode, then } => match self.still(&inode, outcome) {
                Ok(entry) => {
                    self.on_content(question, inode, &entry.attributes, &then);
                }
                Err(errno) => self.answer(question, Err(errno)),
            },
            Step::ExtendedAttributes { question, inode } => {
                let attributes = outcome.map(|outcome| {
                    let bytes = self.slots.bytes(object(outcome).extent).as_ref();
                    let decoded = ExtendedAttributes::decode(bytes);
                    let decoded = decoded.expect("it was checked when it came");
                    Answer::ExtendedAttributes(inode.learn_extended_attributes(decoded))
                });
                self.answer(question, attributes);
            }
            Step::DataRanges { question, inode, size } => {
                let ranges = outcome.map(|outcome| {
                    let bytes = self.slots.bytes(object(outcome).extent).as_ref();
                    let decoded = DataRanges::decode(bytes, size);
                    let decoded = decoded.expect("it was checked when it came");
                    Answer::DataRanges(inode.learn_data_ranges(decoded))
                });
                self.answer(question, ranges);
            }
            Step::Block { read, part, span, inode } => {
                let piece = outcome.map(|outcome| {
                    let Held { extent, .. } = object(outcome);
                    self.slots.show(&self.inodes, inode.number, span.index, extent);
                    let extent = self.slots.bytes(extent).clone();
                    Piece::Held { extent, start: span.start, end: span.end }
                });
                if let Some((question, pieces)) = self.questions.part(read, part, piece) {
                    self.answer(question, pieces.map(Answer::Data));
                }
            }
            Step::Statistics { question } => {
                let statistics = outcome.map(|outcome| match outcome {
                    Outcome::Statistics(statistics) => Answer::Statistics(statistics),
                    Outcome::Present(_) | Outcome::Absent(_) | Outcome::Object(_) => {
                        unreachable!("statistics were asked for")
                    }
                });
                self.answer(question, statistics);
            }
        }
    }

    fn look_up(&mut self, question: Ticket, parent: Arc<Inode<M::Filled>>, name: Box<[u8]>) {
        // It may have been answered since it was asked.
        if let Now::Answered(looked) = look_up(&self.inodes, parent.number, &name) {
            self.answer(question, looked.map(Answer::Looked));
            return;
        }
        let above = self.inodes.get(self.inodes.parent(parent.number));
        let looked_in = LookedIn {
            lookups_before: parent.lookups.fetch_add(1, Ordering::Relaxed),
            within_listed: above.is_some_and(|above| above.listing().is_some()),
            size: parent.attributes().map(|attributes| attributes.size),
        };
        match lookup_plan(looked_in) {
            LookupPlan::Listing if may_list(&parent) => {
                let key = Key { path: parent.path.clone(), what: What::Directory };
                self.want(Step::Listing { question, parent, name }, key);
            }
            LookupPlan::Listing | LookupPlan::Entry => self.look_up_entry(question, parent, name),
        }
    }

    fn look_up_entry(&mut self, question: Ticket, parent: Arc<Inode<M::Filled>>, name: Box<[u8]>) {
        match path_of(&parent, &name) {
            Ok(path) => {
                let key = Key { path, what: What::Entry };
                self.want(Step::Entry { question, parent, name }, key);
            }
            Err(errno) => self.answer(question, Err(errno)),
        }
    }

    fn looked(&mut self, parent: &Inode<M::Filled>, name: &[u8], outcome: Outcome) -> Looked {
        match outcome {
            Outcome::Present(entry) => match self.inodes.found(parent.number, name, &entry) {
                Some(found) => Looked::Found(found),
                // The kernel has let the directory go in the meantime, and nobody waits any more.
                None => Looked::Absent { keep: Duration::ZERO },
            },
            Outcome::Absent(_) if !self.inodes.keeps_absent(parent.number, name, None) => {
                Looked::Absent { keep: Duration::ZERO }
            }
            Outcome::Absent(Tick::NEVER) => Looked::Absent { keep: KEEP },
            Outcome::Absent(until) => Looked::Absent { keep: until.since(self.now) },
            Outcome::Object(_) | Outcome::Statistics(_) => {
                unreachable!("an entry was asked for")
            }
        }
    }

    /// What is at the path of an inode that the kernel holds, which has learnt it then; `ESTALE` if
    /// that is nothing any more, or something else.
    fn still(
        &mut self,
        inode: &Inode<M::Filled>,
        outcome: Result<Outcome, Errno>,
    ) -> Result<Entry, Errno> {
        match outcome? {
            Outcome::Present(entry) => self.inodes.learn(inode, &entry).map(|()| entry),
            Outcome::Absent(_) => {
                self.inodes.gone(inode);
                Err(Errno::ESTALE)
            }
            Outcome::Object(_) | Outcome::Statistics(_) => unreachable!("an entry was asked for"),
        }
    }

    /// Shows a directory's snapshot that the protocol has brought.
    fn list(&mut self, inode: &Inode<M::Filled>, outcome: Outcome) -> Arc<Directory> {
        let held = object(outcome);
        let directory = self.cache.directory(&inode.path).unwrap_or_else(|| {
            // Its decoded form has been forgotten before its bytes were.
            let bytes = self.slots.bytes(held.extent).as_ref();
            let decoded = Directory::decode(bytes).expect("it was decoded when it came");
            let directory = Arc::new(decoded);
            self.cache.put_directory(&inode.path, Arc::clone(&directory));
            directory
        });
        self.inodes.list(inode, &directory)
    }

    /// A file is read from its start that was not held: whoever reads it may want the others of its
    /// directory next.
    fn fetch_siblings(&mut self, inode: &Inode<M::Filled>) {
        let Some(directory) = self.inodes.get(self.inodes.parent(inode.number)) else { return };
        let reads_before = directory.reads.fetch_add(1, Ordering::Relaxed);
        let Some(listing) = directory.listing() else { return };
        for (name, attributes) in siblings(&listing.directory, reads_before) {
            let generation = attributes.generation();
            let what = What::Block { index: BlockIndex(0), generation };
            if let Some(path) = directory.path.join(name) {
                self.inputs.push_back(Input::Prefetch { key: Key { path, what } });
            }
        }
    }

    fn read(
        &mut self,
        question: Ticket,
        inode: &Arc<Inode<M::Filled>>,
        attributes: &Attributes,
        offset: u64,
        len: u32,
    ) {
        inode.was_read.store(true, Ordering::Relaxed);
        // Shown since it was asked, by the question before: no second use of the block.
        if let Now::Answered(pieces) = shown(inode, attributes, offset, len) {
            return self.answer(question, pieces.map(Answer::Data));
        }
        let spans: Vec<_> = match spans(attributes, offset, len) {
            Ok(spans) => spans.collect(),
            Err(errno) => return self.answer(question, Err(errno)),
        };
        let [first, ..] = spans[..] else {
            return self.answer(question, Ok(Answer::Data(Vec::new())));
        };
        let (first, last) = (first.index, spans[spans.len() - 1].index);
        let generation = attributes.generation();
        let read = self.questions.begin_read(question, spans.len());
        for (part, span) in spans.into_iter().enumerate() {
            let what = What::Block { index: span.index, generation };
            let key = Key { path: inode.path.clone(), what };
            let of = Arc::clone(inode);
            self.want(Step::Block { read, part, span, inode: of }, key);
        }
        self.fetch_ahead(inode, generation, first, last);
        if offset == 0 {
            self.fetch_siblings(inode);
        }
    }

    /// What this reader will want next, behind what somebody waits for.
    fn fetch_ahead(
        &mut self,
        inode: &Inode<M::Filled>,
        generation: Generation,
        first: BlockIndex,
        last: BlockIndex,
    ) {
        for index in self.ahead.on_read(&inode.path, generation, first, last) {
            let what = What::Block { index, generation };
            self.inputs.push_back(Input::Prefetch { key: Key { path: inode.path.clone(), what } });
        }
    }
}

/// Whether an error is one of the moment, and says nothing of the object.
fn is_passing(errno: Errno) -> bool {
    matches!(errno, Errno::EIO | Errno::ETIMEDOUT)
}

/// Whether a directory's snapshot is not here and can be had.
fn may_list<B: Clone>(directory: &Inode<B>) -> bool {
    directory.listing().is_none() && !directory.unlistable.load(Ordering::Relaxed)
}

fn path_of<B: Clone>(parent: &Inode<B>, name: &[u8]) -> Result<ViewPath, Errno> {
    if parent.number == InodeNumber::ROOT && name.is_empty() {
        return Err(Errno::ENOENT);
    }
    parent.path.join(name).ok_or(Errno::ENAMETOOLONG)
}

fn object(outcome: Outcome) -> Held {
    match outcome {
        Outcome::Object(held) => held,
        Outcome::Present(_) | Outcome::Absent(_) | Outcome::Statistics(_) => {
            unreachable!("an object was asked for")
        }
    }
}
