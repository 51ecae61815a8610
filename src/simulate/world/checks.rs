//! What must be true when nothing is left to happen.

use copper_proto::limits::{
    CHILDREN_MAX, CREDITS, EXTENT_BYTES_MIN, FETCHES_AHEAD_MAX, INLINE_BYTES_MAX,
    LOCAL_WAITERS_MAX, PATH_BYTES_MAX, RECALL_CREDITS, REQUEST_BOUND, SOURCE_JOBS_MAX,
};
use copper_proto::{Extent, Gauges, Message, Tick};

use super::World;

/// A question, its answer, and at most one note that the lease is done.
const MESSAGES_PER_OBJECT: u64 = 3;

/// In larger jobs than this, bounds are looked at now and then: it costs as much as what is looked at.
const ALWAYS_LOOKED_AT_MAX: usize = 1_000;
const LOOKED_AT_EVERY: u64 = 16;

impl World<'_> {
    pub(super) fn check_the_end(&mut self) {
        for rank in 0..self.hosts.len() {
            if !self.hosts[rank].alive {
                continue;
            }
            if let Some(what) = self.fault_of(rank) {
                return self.breaks(what);
            }
        }
        let evictions = self.sum(|host| host.cache.counters().evicted_blocks);
        if self.plan.faults.is_none() && evictions == 0 {
            self.check_that_nothing_is_done_twice();
        }
    }

    fn fault_of(&self, rank: usize) -> Option<String> {
        let host = &self.hosts[rank];
        if !self.has_ended(rank) {
            let (path, since) = (self.waits_for(rank), self.waits_since(rank));
            return Some(format!("a reader on rank {rank} waits for {path} since {} ns", since.0));
        }
        let gauges = host.member.gauges();
        if gauges != Gauges::default() {
            return Some(format!("rank {rank} is not idle: {gauges:?}"));
        }
        let counters = host.cache.counters();
        if counters.pinned_bytes != 0 {
            return Some(format!("rank {rank} has {} bytes pinned", counters.pinned_bytes));
        }
        if counters.bytes > counters.limit_bytes {
            return Some(format!("rank {rank} holds more than its arena"));
        }
        if host.member.next_due() != Tick::NEVER {
            return Some(format!("rank {rank} has a timer left, and nothing to do"));
        }
        // To each new parent it may send an empty note.
        if host.messages > MESSAGES_PER_OBJECT * host.asks + host.opened {
            let (asks, messages) = (host.asks, host.messages);
            return Some(format!("rank {rank}: {messages} messages for {asks} questions"));
        }
        let failed = host.member.counters().checksum_failures;
        let none = self.plan.faults.is_none() && failed > 0;
        none.then(|| format!("rank {rank} has pulled {failed} times what was not granted"))
    }

    /// What one rank has under way is within the bounds of `limits`, whatever happens.
    pub(super) fn check_bounds(&mut self, rank: usize) {
        self.looked += 1;
        let large = self.hosts.len() > ALWAYS_LOOKED_AT_MAX;
        if large && !self.looked.is_multiple_of(LOOKED_AT_EVERY) {
            return;
        }
        let trees = self.plan.trees.get() as usize;
        let host = &self.hosts[rank];
        let Gauges { fetches, pulls, quarantined, jobs, leases_given, leases_held } =
            host.member.gauges();
        let children = host.member.children().count();
        let credits = CREDITS as usize;
        let cache = host.cache.counters();
        let bounds = [
            ("children", children, trees * 4 * CHILDREN_MAX as usize),
            ("leases held", leases_held, trees * credits + children * RECALL_CREDITS as usize),
            ("leases given", leases_given, 2 * credits * (children + trees)),
            ("source jobs", jobs, trees * SOURCE_JOBS_MAX),
            (
                "fetches",
                fetches,
                LOCAL_WAITERS_MAX + trees * FETCHES_AHEAD_MAX + 2 * credits * (children + trees),
            ),
            ("pulls", pulls, fetches),
            ("bytes in quarantine", quarantined * EXTENT_BYTES_MIN as usize, cache.bytes as usize),
            ("bytes", cache.bytes as usize, cache.limit_bytes as usize),
            ("pinned bytes", cache.pinned_bytes as usize, cache.bytes as usize),
        ];
        for (what, found, most) in bounds {
            if found > most {
                self.breaks(format!("rank {rank} has {found} {what}, and may have {most}"));
            }
        }
    }

    /// A message keeps to the bounds that its receiver counts on.
    pub(super) fn check_message(
        &mut self,
        rank: usize,
        message: &Message,
        payload: Option<Extent>,
    ) {
        let keeps = match message {
            Message::Ask { key, bound_ms, done, .. } => {
                key.path.as_bytes().len() <= PATH_BYTES_MAX
                    && u128::from(*bound_ms) <= REQUEST_BOUND.as_millis()
                    && done.len() <= CREDITS as usize
            }
            Message::Holds | Message::Probe | Message::Alive => true,
            Message::Done { leases } => leases.len() <= CREDITS as usize,
            Message::Answer { .. } => payload.is_none_or(|extent| extent.len <= INLINE_BYTES_MAX),
        };
        if !keeps {
            self.breaks(format!("rank {rank} sends what is beyond the bounds: {message:?}"));
        }
    }

    /// Without faults and evictions.
    fn check_that_nothing_is_done_twice(&mut self) {
        let twice = self.object_reads.iter().position(|reads| reads.count > 1);
        if let Some(object) = twice {
            let (key, reads) = (&self.program.objects[object].key, self.object_reads[object].count);
            return self.breaks(format!("{key:?} was read {reads} times from the source"));
        }
        if let Some((path, reads)) = self.name_reads.iter().find(|(_, reads)| **reads > 1) {
            return self.breaks(format!("{path} was looked up {reads} times at the source"));
        }
        let trees = self.plan.trees.get() as usize;
        if self.source.readers() > trees {
            let readers = self.source.readers();
            return self.breaks(format!("{readers} ranks have read the source, for {trees} trees"));
        }
        let objects = (self.program.objects.len() + self.program.steps.len()) as u64;
        for rank in 0..self.hosts.len() {
            let host = &self.hosts[rank];
            if host.asks > objects {
                let asks = host.asks;
                return self.breaks(format!("rank {rank} asks {asks} times for {objects} objects"));
            }
        }
    }
}
