//! The simulated spill file of one node.

use std::collections::HashMap;

use copper_cache::{Candidate, Spill};
use copper_proto::{Extent, PullFailure, Spilled};

use crate::world::Bytes;

#[derive(Debug)]
pub(crate) struct Disk {
    pub(crate) index: Spill,
    bytes: HashMap<u64, Bytes>,
    /// What is being written.
    staged: HashMap<u64, Bytes>,
    /// Writes that are to begin.
    pub(crate) leaving: Vec<(Spilled, Bytes)>,
}

impl Disk {
    /// None if there is to be none.
    pub(crate) fn of(file_bytes: u64) -> Option<Disk> {
        let index = (file_bytes > 0).then(|| Spill::new(file_bytes, 1 << 20))?;
        Some(Disk { index, bytes: HashMap::new(), staged: HashMap::new(), leaving: Vec::new() })
    }

    pub(crate) fn keep(&mut self, candidate: Candidate<'_>, memory: &HashMap<u64, Bytes>) {
        let Candidate { key, held, dropped } = candidate;
        if dropped || self.index.has_kept(key, held) {
            return;
        }
        if let Some(copy) = self.index.keep(key, held) {
            let bytes = memory[&held.extent.offset].clone();
            self.bytes.insert(copy.offset, Bytes::Garbage);
            self.staged.insert(copy.offset, bytes.clone());
            self.leaving.push((copy, bytes));
        }
    }

    /// A write ends; one that fails leaves garbage.
    pub(crate) fn written(&mut self, copy: Spilled, bytes: Bytes, well: bool) {
        if well {
            self.bytes.insert(copy.offset, bytes);
        }
        self.staged.remove(&copy.offset);
        self.index.written(copy, well);
    }

    /// What can be had without a read.
    pub(crate) fn staged(&self, from: Spilled) -> Option<Bytes> {
        self.staged.get(&from.offset).cloned()
    }

    /// What a read finds.
    pub(crate) fn read(&self, from: Spilled, into: Extent) -> Result<Bytes, PullFailure> {
        assert_eq!(from.len, into.len);
        self.bytes.get(&from.offset).cloned().ok_or(PullFailure::Spill)
    }
}
