//! What must be true when nothing is left to happen.

use copper_proto::Gauges;

use super::World;

/// A question, its answer, and at most one note that the lease is done.
const MESSAGES_PER_OBJECT: u64 = 3;

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
        if self.plan.killed_permille == 0 && evictions == 0 {
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
        let failed = host.member.counters().checksum_failures;
        (failed > 0).then(|| format!("rank {rank} has pulled {failed} times what was not granted"))
    }

    /// Without faults and evictions.
    fn check_that_nothing_is_done_twice(&mut self) {
        let twice = self.object_reads.iter().position(|reads| *reads > 1);
        if let Some(object) = twice {
            let (key, reads) = (&self.program.objects[object].key, self.object_reads[object]);
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
            if host.asks > objects || host.messages > MESSAGES_PER_OBJECT * host.asks {
                let (asks, messages) = (host.asks, host.messages);
                return self
                    .breaks(format!("rank {rank}: {messages} messages for {asks} questions"));
            }
        }
    }
}
