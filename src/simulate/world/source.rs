//! What the source is asked, and why it is asked for something again.

use std::collections::BTreeMap;

use copper_proto::ownership::owner;
use copper_proto::{Errno, Extent, Input, JobId, Key, Rank, SourceAnswer, SourceRequest, What};

use super::{Event, GARBAGE, World, checksum};
use crate::simulate::source_model::SourceCost;

/// How often one object was read from the source, and by whom last.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Reads {
    pub(super) count: u32,
    /// The rank, and which of its lives.
    last: Option<(usize, u32)>,
}

/// Why objects were read from the source that had been read before, and how many for each reason.
pub(super) type Rereads = BTreeMap<&'static str, u64>;

impl World<'_> {
    pub(super) fn read_source(
        &mut self,
        rank: usize,
        job: JobId,
        key: Key,
        request: &SourceRequest,
    ) {
        let (cost, into) = match request {
            SourceRequest::Entry => (SourceCost { operations: 1, ..SourceCost::default() }, None),
            SourceRequest::Encoded => {
                (self.program.objects[self.program.number(&key) as usize].cost, None)
            }
            SourceRequest::Block(into) => {
                (self.program.objects[self.program.number(&key) as usize].cost, Some(*into))
            }
            SourceRequest::Statistics => unreachable!("no step asks for them"),
        };
        let begins = self.network.engine_free(rank, self.now);
        let ends = self.source.read(rank, cost, begins);
        let ends = self.network.source_works(begins, ends);
        let life = self.hosts[rank].life;
        self.agenda.note(ends, Event::SourceEnds { rank, life, job, key, into });
    }

    pub(super) fn source_ends(&mut self, rank: usize, job: JobId, key: &Key, into: Option<Extent>) {
        let fails = self.random.once_in(self.plan.faults.source_fails);
        let result = if fails {
            self.source_failures += 1;
            if let Some(extent) = into {
                self.hosts[rank].memory.put(extent.offset, GARBAGE);
            }
            Err(Errno::EIO)
        } else {
            Ok(self.source_answers(rank, key, into))
        };
        self.handle(rank, Input::Source { job, result }, None);
    }

    fn source_answers(&mut self, rank: usize, key: &Key, into: Option<Extent>) -> SourceAnswer {
        if key.what == What::Entry {
            *self.name_reads.entry(key.path.clone()).or_default() += 1;
            return match self.program.entry(&key.path) {
                Some(entry) => SourceAnswer::Present(entry.clone()),
                None => SourceAnswer::Absent,
            };
        }
        let object = self.program.number(key);
        self.count_read(rank, object);
        match into {
            Some(extent) => {
                self.reads += 1;
                self.hosts[rank].memory.put(extent.offset, object);
                SourceAnswer::Block(checksum(object))
            }
            None => SourceAnswer::Encoded(self.program.objects[object as usize].len),
        }
    }

    /// An object has been read: once, or there must be a reason.
    fn count_read(&mut self, rank: usize, object: u32) {
        let host = &mut self.hosts[rank];
        let evicted = host.evicted.remove(&object);
        let reader = (rank, host.life);
        let reads = &mut self.object_reads[object as usize];
        reads.count += 1;
        let Some(before) = reads.last.replace(reader) else { return };
        match self.reason(reader, before, evicted, object) {
            Some(reason) => *self.rereads.entry(reason).or_default() += 1,
            None => {
                let key = &self.program.objects[object as usize].key;
                let (last, _) = before;
                self.breaks(format!(
                    "rank {rank} reads {key:?} from the source, as rank {last} did before, without a reason"
                ));
            }
        }
    }

    /// Why `reader` reads again what was read `before`.
    fn reason(
        &self,
        reader: (usize, u32),
        before: (usize, u32),
        evicted: bool,
        object: u32,
    ) -> Option<&'static str> {
        let (rank, _) = reader;
        let (last, life) = before;
        let key = &self.program.objects[object as usize].key;
        let tree = self.forest.tree(owner(key, self.plan.trees)).expect("one of them");
        let is_root = |rank: usize| tree.root() == Rank(rank as u32);
        let lives = self.hosts[last].alive && self.hosts[last].life == life;
        if evicted {
            Some("evicted")
        } else if !lives {
            Some("died")
        } else if (!is_root(rank) || !is_root(last)) && self.out_of_reach > 0 {
            Some("out of reach")
        } else if self.hosts[rank].member.counters().starved > 0 {
            Some("no room")
        } else {
            None
        }
    }
}
