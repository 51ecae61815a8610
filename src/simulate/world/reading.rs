//! The readers of a rank, between FUSE's questions and the member: by the rules of the daemon's engine.

use copper_cache::policy::{LookedIn, LookupPlan, lookup_plan};
use copper_proto::limits::REQUEST_BOUND;
use copper_proto::{BlockIndex, Errno, Input, Key, Outcome, Tick, Ticket, ViewPath, What};

use super::{Event, World};
use crate::simulate::program::Step;

impl World<'_> {
    /// Lets a rank's processes go as far as they come without waiting.
    pub(super) fn go_on(&mut self, rank: usize) {
        let program = self.program;
        loop {
            let host = &mut self.hosts[rank];
            let readers = &mut host.readers;
            let Some(step) = program.steps.get(readers.step as usize) else { return };
            if !host.alive || readers.asked.is_some() {
                return;
            }
            let first = readers.first();
            // What the rank knows it answers without its engine; a block is shown by the engine.
            let known = match step {
                Step::Find { path, .. } => host.cache.entry(path, self.now.max(first)).is_some(),
                Step::List { folder } => {
                    let object = program.folders[*folder].object;
                    host.cache.holds(&program.objects[object as usize].key)
                }
                Step::Ioctl { .. } => true,
                Step::Read { .. } => false,
            };
            // On a machine of its own a rank may go ahead of the others, who cannot be in its way.
            if known && (first <= self.now || !self.network.is_shared()) {
                let at = self.network.shows(first, 0);
                readers.answered(at, program, &mut self.network, None);
            } else if first > self.now {
                if !std::mem::replace(&mut readers.noted, true) {
                    self.agenda.note(first, Event::Comes(rank));
                }
                return;
            } else {
                readers.asked = Some(self.now);
                self.asks(rank, step);
            }
        }
    }

    fn asks(&mut self, rank: usize, step: &Step) {
        match step {
            Step::Find { folder, path } => {
                let key = match self.plan_lookup(rank, *folder) {
                    LookupPlan::Entry => Key { path: path.clone(), what: What::Entry },
                    LookupPlan::Listing => self.listing(*folder),
                };
                self.wants(rank, key);
            }
            Step::List { folder } => self.wants(rank, self.listing(*folder)),
            Step::Ioctl { .. } => unreachable!("it is answered at once"),
            Step::Read { folder, object } => {
                let key = self.program.objects[*object as usize].key.clone();
                self.wants(rank, key.clone());
                self.fetch_ahead(rank, &key);
                self.fetch_siblings(rank, *folder, &key);
            }
        }
    }

    fn listing(&self, folder: usize) -> Key {
        self.program.objects[self.program.folders[folder].object as usize].key.clone()
    }

    fn wants(&mut self, rank: usize, key: Key) {
        let ticket = Ticket(self.hosts[rank].readers.step.into());
        let deadline = self.now + REQUEST_BOUND;
        self.hand(rank, Input::Want { ticket, key, deadline }, None);
    }

    fn plan_lookup(&mut self, rank: usize, folder: usize) -> LookupPlan {
        let described = &self.program.folders[folder];
        let host = &mut self.hosts[rank];
        // It names all that are there, without their attributes: they were too many.
        if host.cache.directory(&described.path).is_some() {
            return LookupPlan::Entry;
        }
        let above = described.above.map(|above| &self.program.folders[above].path);
        let looked_in = LookedIn {
            lookups_before: host.folders[folder].lookups,
            within_listed: above.is_some_and(|above| host.cache.directory(above).is_some()),
            size: Some(described.size),
        };
        host.folders[folder].lookups += 1;
        lookup_plan(looked_in)
    }

    fn fetch_ahead(&mut self, rank: usize, key: &Key) {
        let What::Block { index, generation } = key.what else { return };
        let ahead = self.hosts[rank].ahead.on_read(&key.path, generation, index, index);
        for index in ahead {
            let key = Key { path: key.path.clone(), what: What::Block { index, generation } };
            // The member would find the same, and then look for other work; most of a window is held.
            if !self.hosts[rank].cache.holds(&key) {
                self.hand(rank, Input::Prefetch { key }, None);
            }
        }
    }

    fn fetch_siblings(&mut self, rank: usize, folder: usize, key: &Key) {
        if !matches!(key.what, What::Block { index: BlockIndex(0), .. }) {
            return;
        }
        let host = &mut self.hosts[rank];
        let reads = &mut host.folders[folder].reads;
        let reads_before = *reads;
        *reads += 1;
        let described = &self.program.folders[folder];
        let siblings = described.siblings(reads_before);
        if siblings.is_empty() || host.cache.directory(&described.path).is_none() {
            return;
        }
        for key in siblings {
            self.hand(rank, Input::Prefetch { key: key.clone() }, None);
        }
    }

    /// A reader's question is answered: rightly, or with an error that a fault explains.
    pub(super) fn answered(&mut self, rank: usize, ticket: Ticket, result: Result<Outcome, Errno>) {
        let step = self.hosts[rank].readers.step;
        let asked = self.hosts[rank].readers.asked.filter(|_| ticket == Ticket(step.into()));
        let Some(asked) = asked else {
            return self.breaks(format!("rank {rank} answers what nobody asks: {ticket}"));
        };
        let took = self.now.since(asked);
        if took > REQUEST_BOUND {
            self.breaks(format!("rank {rank} is answered after {took:?}"));
        }
        let program = self.program;
        let step = &program.steps[step as usize];
        match result {
            Ok(outcome) => self.check_answer(rank, step, &outcome),
            Err(errno) if self.explains(errno, step) => self.errors += 1,
            Err(errno) => self.breaks(format!("rank {rank} answers {errno} without a fault")),
        }
        let bytes = match step {
            Step::Read { object, .. } => program.objects[*object as usize].len.into(),
            Step::Find { .. } | Step::List { .. } | Step::Ioctl { .. } => 0,
        };
        let at = self.network.shows_from_engine(rank, self.now, bytes);
        let waited = self.now > self.hosts[rank].readers.first();
        let waits = waited.then_some(&mut self.waits);
        self.hosts[rank].readers.answered(at, program, &mut self.network, waits);
    }

    /// Whether a fault explains an error: that ranks die, are slow or out of reach explains none.
    fn explains(&self, errno: Errno, step: &Step) -> bool {
        let asked = match step {
            Step::Read { object, .. } => *object,
            Step::Find { folder, .. } | Step::List { folder } => {
                self.program.folders[*folder].object
            }
            Step::Ioctl { .. } => return false,
        };
        errno == Errno::EIO && (self.source_failures > 0 || self.poisoned == Some(asked))
    }

    fn check_answer(&mut self, rank: usize, step: &Step, outcome: &Outcome) {
        let right = match (step, outcome) {
            (Step::Find { path, .. }, Outcome::Present(entry)) => {
                self.program.entry(path) == Some(entry)
            }
            (Step::Find { path, .. }, Outcome::Absent(until)) => {
                self.program.entry(path).is_none() && *until > self.now
            }
            (Step::Find { folder, .. } | Step::List { folder }, Outcome::Object(held)) => {
                let lies = self.hosts[rank].memory.get(held.extent.offset);
                lies == Some(self.program.folders[*folder].object)
            }
            (Step::Read { object, .. }, Outcome::Object(held)) => {
                self.hosts[rank].memory.get(held.extent.offset) == Some(*object)
            }
            (Step::List { .. } | Step::Read { .. }, Outcome::Present(_) | Outcome::Absent(_))
            | (Step::Ioctl { .. }, _)
            | (_, Outcome::Statistics(_)) => false,
        };
        if !right {
            self.breaks(format!("a reader on rank {rank} is shown something else: {step:?}"));
        }
    }

    /// Whether each process has done all its steps.
    pub(super) fn has_ended(&self, rank: usize) -> bool {
        self.hosts[rank].readers.step as usize == self.program.steps.len()
    }

    /// The path of the step that a rank's readers wait for.
    pub(super) fn waits_for(&self, rank: usize) -> ViewPath {
        match &self.program.steps[self.hosts[rank].readers.step as usize] {
            Step::Find { path, .. } => path.clone(),
            Step::List { folder } | Step::Ioctl { folder } => {
                self.program.folders[*folder].path.clone()
            }
            Step::Read { object, .. } => self.program.objects[*object as usize].key.path.clone(),
        }
    }

    /// When the first process of a rank came to the step that it waits for.
    pub(super) fn waits_since(&self, rank: usize) -> Tick {
        self.hosts[rank].readers.first()
    }
}
