//! Pulls out of a parent's memory: what they bring, and when.

use std::time::Duration;

use copper_proto::limits::{ATTEMPTS_MAX, EXTENT_BYTES_MAX, PULL_BOUND};
use copper_proto::{Extent, Input, Key, LinkId, PullFailure, PullId, Tick};

use super::{Event, GARBAGE, World, checksum};
use crate::simulate::host::Link;

/// Times that one rank may fail to get one object before it gets it or says that it does not: the
/// attempts of some fetches, since one that nobody waits for ends without a word.
const FAILURES_MAX: u32 = 8 * ATTEMPTS_MAX;

/// A pull that is under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pull {
    rank: usize,
    life: u32,
    pull: PullId,
    object: u32,
    into: Extent,
    begun: Tick,
    /// The link, the parent, and its name for the link: `None` if the link was gone at once.
    from: Option<(LinkId, usize, LinkId)>,
    offset: u64,
}

impl World<'_> {
    pub(super) fn pulls(
        &mut self,
        rank: usize,
        pull: PullId,
        key: &Key,
        link: LinkId,
        offset: u64,
        into: Extent,
    ) {
        if into.len > EXTENT_BYTES_MAX {
            self.breaks(format!("rank {rank} pulls {} bytes", into.len));
        }
        let object = self.program.number(key);
        let end = self.hosts[rank].links.get(&link);
        let from = end.map(|&Link { other, theirs, .. }| (link, other, theirs));
        let ends = match from {
            Some((_, parent, _)) => {
                let ends = self.network.pull(rank, parent, into.len.into(), self.now);
                ends + self.late() + self.stall()
            }
            None => self.now,
        };
        let (life, begun) = (self.hosts[rank].life, self.now);
        let pull = Pull { rank, life, pull, object, into, begun, from, offset };
        self.agenda.note(ends, Event::PullEnds(pull));
    }

    /// By how much a message or a pull is late.
    pub(super) fn late(&mut self) -> Duration {
        match self.plan.faults.jitter.as_nanos() as u64 {
            0 => Duration::ZERO,
            most => Duration::from_nanos(self.random.below(most)),
        }
    }

    fn stall(&mut self) -> Duration {
        match self.random.once_in(self.plan.faults.pulls_stall) {
            true => PULL_BOUND + Duration::from_millis(self.random.below(3000)),
            false => Duration::ZERO,
        }
    }

    /// Whether the bytes of an object come as others.
    pub(super) fn is_corrupted(&mut self, object: u32) -> bool {
        self.poisoned == Some(object) || self.random.once_in(self.plan.faults.pulls_corrupt)
    }

    pub(super) fn pull_ends(&mut self, ended: Pull) {
        let Pull { rank, life, pull, object, into, begun, from, offset } = ended;
        if !self.hosts[rank].alive || self.hosts[rank].life != life {
            return;
        }
        let lies = from.and_then(|(link, parent, theirs)| {
            let is_there = self.hosts[parent].alive && self.hosts[rank].links.contains_key(&link);
            is_there.then(|| (self.hosts[parent].memory.get(offset), parent, theirs))
        });
        let result = match lies {
            None => Err(PullFailure::Fabric),
            Some((found, parent, theirs)) => {
                // A lease lasts until the pull ends, its bound is over, or the parent knows that the
                // child is gone; no rank lies here.
                let leased = self.hosts[parent].links.contains_key(&theirs)
                    && self.now.since(begun) < PULL_BOUND;
                if leased && found != Some(object) {
                    let what = "pulled something else than was granted, from rank";
                    self.breaks(format!("rank {rank} {what} {parent}"));
                }
                self.network.verified(rank, self.now, into.len.into());
                let corrupted = self.is_corrupted(object);
                let found = found.filter(|_| !corrupted).unwrap_or(GARBAGE);
                self.hosts[rank].memory.put(into.offset, found);
                if found == object { Ok(checksum(object)) } else { Err(PullFailure::Checksum) }
            }
        };
        self.count_failures(rank, object, result.is_err());
        self.handle(rank, Input::Pulled { pull, result }, None);
    }

    /// A rank has told somebody that there was an error.
    pub(super) fn gives_up(&mut self, rank: usize, failed: bool) {
        if failed && !self.failures.is_empty() {
            self.failures.retain(|&(of, _), _| of != rank);
        }
    }

    pub(super) fn count_failures(&mut self, rank: usize, object: u32, failed: bool) {
        if !failed {
            if !self.failures.is_empty() {
                self.failures.remove(&(rank, object));
            }
            return;
        }
        let failures = self.failures.entry((rank, object)).or_default();
        *failures += 1;
        if *failures > FAILURES_MAX {
            let key = &self.program.objects[object as usize].key;
            let what = format!("rank {rank} has failed {failures} times in a row to get {key:?}");
            self.breaks(what);
        }
    }
}
