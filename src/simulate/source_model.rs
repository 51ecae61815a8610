//! The source: operations a second and bytes a second for all ranks together, and what it gives one.

use std::collections::BTreeMap;

use copper_proto::Tick;

use super::constants::{Constants, SOURCE_THREADS, moving};

/// What one read costs the source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct SourceCost {
    /// Metadata operations, which the servers' rate is made of.
    pub(super) operations: u64,
    /// Bytes of data.
    pub(super) bytes: u64,
    /// Entries of a listing, whose attributes take time beyond the latency of one operation.
    pub(super) entries: u32,
}

/// A rank that reads the source.
#[derive(Debug)]
struct Client {
    threads_free: [Tick; SOURCE_THREADS],
    bytes_free: Tick,
}

#[derive(Debug)]
pub(super) struct SourceModel {
    constants: Constants,
    operations_free: Tick,
    bytes_free: Tick,
    clients: BTreeMap<usize, Client>,
    pub(super) operations: u64,
    pub(super) bytes: u64,
}

impl SourceModel {
    pub(super) fn new(constants: Constants) -> SourceModel {
        SourceModel {
            constants,
            operations_free: Tick(0),
            bytes_free: Tick(0),
            clients: BTreeMap::new(),
            operations: 0,
            bytes: 0,
        }
    }

    /// A rank reads: when it has the answer.
    pub(super) fn read(&mut self, rank: usize, cost: SourceCost, now: Tick) -> Tick {
        let constants = &self.constants;
        self.operations += cost.operations;
        self.bytes += cost.bytes;
        let client = self.clients.entry(rank).or_insert_with(|| Client {
            threads_free: [Tick(0); SOURCE_THREADS],
            bytes_free: Tick(0),
        });
        let thread = client.threads_free.iter_mut().min().expect("there are some");
        let begins = (*thread).max(now);
        self.operations_free = self.operations_free.max(begins)
            + moving(cost.operations, constants.source_operations_per_second);
        self.bytes_free =
            self.bytes_free.max(begins) + moving(cost.bytes, constants.source_bytes_per_second);
        client.bytes_free =
            client.bytes_free.max(begins) + moving(cost.bytes, constants.client_bytes_per_second);
        let served = self.operations_free.max(self.bytes_free).max(client.bytes_free);
        let ends = served + constants.source_latency + constants.source_entry * cost.entries;
        *thread = ends;
        ends
    }

    /// Ranks that have read it.
    pub(super) fn readers(&self) -> usize {
        self.clients.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rank_s_threads_and_the_servers_rate_bound_what_it_gets() {
        let one = SourceCost { operations: 1, ..SourceCost::default() };
        let constants = Constants::default();
        let mut source = SourceModel::new(constants);
        let ends: Vec<Tick> =
            (0..2 * SOURCE_THREADS).map(|_| source.read(0, one, Tick(0))).collect();
        assert!(
            ends[SOURCE_THREADS] >= ends[0] + constants.source_latency,
            "a thread does one after the other"
        );
        let operations = constants.source_operations_per_second;
        let many = SourceCost { operations, ..SourceCost::default() };
        assert!(source.read(1, many, Tick(0)) >= Tick(1_000_000_000));
        assert_eq!(source.readers(), 2);
    }
}
