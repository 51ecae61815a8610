//! NICs and engines' threads: each is taken in the order in which it is asked for, and is busy for as
//! long as the bytes or the messages take. Of what goes wrong: slow ranks, and ways that are cut, where
//! nothing is lost but everything waits, as over a transport that sends again.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::time::Duration;

use copper_proto::Tick;

use super::constants::{Constants, moving, treating};
use super::processors::Processors;
use super::program::Program;

/// What one rank's hardware is busy with.
#[derive(Clone, Copy, Debug)]
struct Port {
    /// Everything takes so many times as long.
    slowness: u32,
    engine_free: Tick,
    egress_free: Tick,
    ingress_free: Tick,
    egress_bytes: u64,
}

impl Default for Port {
    fn default() -> Port {
        let zero = Tick(0);
        let (engine_free, egress_free, ingress_free) = (zero, zero, zero);
        Port { slowness: 1, engine_free, egress_free, ingress_free, egress_bytes: 0 }
    }
}

/// All ranks' hardware.
#[derive(Debug)]
pub(super) struct Network {
    constants: Constants,
    /// What all ranks share, if they run on one machine.
    processors: Option<Processors>,
    ports: Vec<Port>,
    messages: u64,
    /// The most messages whose time a rank's engine was behind.
    deepest_queue: u64,
    /// Ways that are cut, from one rank to another, and until when.
    cuts: BTreeMap<(usize, usize), Tick>,
}

impl Network {
    pub(super) fn new(
        nodes: usize,
        constants: Constants,
        processors: Option<NonZeroU32>,
    ) -> Network {
        let processors = processors.map(Processors::new);
        let (ports, cuts) = (vec![Port::default(); nodes], BTreeMap::new());
        Network { constants, processors, ports, messages: 0, deepest_queue: 0, cuts }
    }

    /// From now on a rank is so many times slower.
    pub(super) fn slow_down(&mut self, rank: usize, slowness: u32) {
        self.ports[rank].slowness = slowness.max(1);
    }

    /// Nothing comes from one rank to the other until then.
    pub(super) fn cut(&mut self, from: usize, to: usize, until: Tick) {
        let before = self.cuts.entry((from, to)).or_default();
        *before = (*before).max(until);
    }

    /// When what would arrive at a moment arrives.
    pub(super) fn passes(&self, from: usize, to: usize, at: Tick) -> Tick {
        self.cuts.get(&(from, to)).map_or(at, |&until| at.max(until))
    }

    /// Whether all ranks run on one machine.
    pub(super) fn is_shared(&self) -> bool {
        self.processors.is_some()
    }

    /// Work that no engine does: when it is over.
    pub(super) fn works(&mut self, ready: Tick, takes: Duration) -> Tick {
        match &mut self.processors {
            Some(processors) => processors.take(ready, takes),
            None => ready + takes,
        }
    }

    /// Work of a rank's engine, after all that it had to do before: when it is over.
    fn engine_works(&mut self, rank: usize, ready: Tick, takes: Duration) -> Tick {
        let takes = takes * self.ports[rank].slowness;
        let ends = self.works(self.engine_free(rank, ready), takes);
        self.ports[rank].engine_free = ends;
        ends
    }

    /// The kernel asks a daemon, which answers from what it holds: when the reader has the answer.
    pub(super) fn shows(&mut self, ready: Tick, bytes: u64) -> Tick {
        let constants = &self.constants;
        let takes = constants.fuse_request + treating(bytes, constants.fuse_picos_per_byte);
        self.works(ready, takes)
    }

    /// The same with what the engine gives it.
    pub(super) fn shows_from_engine(&mut self, rank: usize, now: Tick, bytes: u64) -> Tick {
        let ready = self.engine_free(rank, now);
        let woken = self.works(ready, self.constants.engine_handoff);
        self.shows(woken, bytes)
    }

    /// The source's part in a read that takes it so long: on one machine that is work too.
    pub(super) fn source_works(&mut self, ready: Tick, ends: Tick) -> Tick {
        if self.is_shared() { self.works(ready, ends.since(ready)) } else { ends }
    }

    /// For how long a process works by itself between two steps.
    pub(super) fn between_steps(&self, program: &Program) -> Duration {
        self.constants.kernel_answer + program.computing_between_steps(&self.constants)
    }

    /// A message has come: the engine looks at it as soon as it can.
    pub(super) fn received(&mut self, rank: usize, now: Tick) {
        let handling = self.constants.message_handling;
        let takes = handling * self.ports[rank].slowness;
        let behind = self.ports[rank].engine_free.since(now).as_nanos() / takes.as_nanos();
        self.deepest_queue = self.deepest_queue.max(behind as u64);
        self.engine_works(rank, now, handling);
    }

    /// Pulled bytes have come, and are verified.
    pub(super) fn verified(&mut self, rank: usize, now: Tick, bytes: u64) {
        let takes = treating(bytes, self.constants.verifying_picos_per_byte);
        self.engine_works(rank, now, takes);
    }

    /// When the engine has done all that it has to do.
    pub(super) fn engine_free(&self, rank: usize, now: Tick) -> Tick {
        self.ports[rank].engine_free.max(now)
    }

    /// A message leaves: when it arrives.
    pub(super) fn send(&mut self, from: usize, to: usize, payload: u64, now: Tick) -> Tick {
        self.messages += 1;
        let leaves = self.engine_works(from, now, self.constants.message_handling);
        let bytes = self.constants.message_bytes + payload;
        let arrives = self.transfer(from, to, bytes, leaves);
        self.passes(from, to, arrives)
    }

    /// A child reads its parent's memory: when the last byte is there.
    pub(super) fn pull(&mut self, child: usize, parent: usize, bytes: u64, now: Tick) -> Tick {
        let mut asked =
            self.engine_works(child, now, self.constants.pulling) + self.constants.latency;
        let takes = self.constants.serving + treating(bytes, self.constants.serving_picos_per_byte);
        if !takes.is_zero() {
            asked = self.engine_works(parent, asked, takes);
        }
        let ends = self.transfer(parent, child, bytes, asked);
        self.passes(parent, child, self.passes(child, parent, ends))
    }

    fn transfer(&mut self, from: usize, to: usize, bytes: u64, ready: Tick) -> Tick {
        let takes = moving(bytes, self.constants.nic_bytes_per_second);
        let sender = &mut self.ports[from];
        let begins = sender.egress_free.max(ready);
        sender.egress_free = begins + takes * sender.slowness;
        sender.egress_bytes += bytes;
        let receiver = &mut self.ports[to];
        let takes = takes * receiver.slowness;
        receiver.ingress_free = receiver.ingress_free.max(begins + self.constants.latency) + takes;
        receiver.ingress_free
    }

    pub(super) fn messages(&self) -> u64 {
        self.messages
    }

    pub(super) fn deepest_queue(&self) -> u64 {
        self.deepest_queue
    }

    /// The rank that has sent most, and how much, in bytes.
    pub(super) fn hottest(&self) -> (usize, u64) {
        let sent = self.ports.iter().map(|port| port.egress_bytes).enumerate();
        sent.max_by_key(|&(rank, bytes)| (bytes, std::cmp::Reverse(rank))).unwrap_or((0, 0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn the_children_of_one_rank_share_what_its_nic_sends() {
        let constants = Constants::default();
        let mut network = Network::new(4, constants, None);
        let block = moving(MIB, constants.nic_bytes_per_second);
        let ends: Vec<Tick> = (1..4).map(|child| network.pull(child, 0, MIB, Tick(0))).collect();
        for (turn, end) in (1..).zip(ends) {
            assert_eq!(end, Tick(0) + constants.pulling + 2 * constants.latency + block * turn);
        }
        assert_eq!(network.hottest(), (0, 3 * MIB));
    }

    #[test]
    fn an_engine_handles_one_message_after_the_other() {
        let handling = Constants::default().message_handling;
        let mut network = Network::new(2, Constants::default(), None);
        (0..5).for_each(|_| network.received(1, Tick(0)));
        assert_eq!(network.engine_free(1, Tick(0)), Tick(0) + 5 * handling);
        assert_eq!(network.deepest_queue(), 4);
        assert_eq!(network.engine_free(1, Tick(1 << 30)), Tick(1 << 30), "it has caught up");
    }

    #[test]
    fn ranks_of_one_machine_wait_for_its_processor() {
        let handling = Constants::default().message_handling;
        let mut network = Network::new(3, Constants::default(), NonZeroU32::new(1));
        (0..3).for_each(|rank| network.received(rank, Tick(0)));
        assert_eq!(network.engine_free(2, Tick(0)), Tick(0) + 3 * handling);
    }

    #[test]
    fn a_slow_parent_serves_its_children_late_and_its_machine_too() {
        let serving = Duration::from_micros(3);
        let constants = Constants { serving, ..Constants::default() };
        let ends = |slowness, processors| {
            let mut network = Network::new(3, constants, NonZeroU32::new(processors));
            network.slow_down(0, slowness);
            network.pull(1, 0, 1, Tick(0));
            // Rank 2 waits for the processor, if it is the only one.
            network.received(2, Tick(0));
            [0, 2].map(|rank| network.engine_free(rank, Tick(0)).0)
        };
        let asked = Tick(0) + constants.pulling + constants.latency;
        let handling = constants.message_handling;
        let message = (Tick(0) + handling).0;
        assert_eq!(ends(1, 0), [(asked + serving).0, message]);
        assert_eq!(ends(30, 0), [(asked + serving * 30).0, message]);
        assert_eq!(ends(30, 1), [(asked + serving * 30).0, (asked + serving * 30 + handling).0]);
    }

    #[test]
    fn what_is_pulled_over_a_way_that_is_cut_comes_when_it_is_mended() {
        let until = Tick(1 << 40);
        let pulls = |from, to| {
            let mut network = Network::new(3, Constants::default(), None);
            network.cut(from, to, until);
            [1, 2].map(|child| network.pull(child, 0, MIB, Tick(0)) == until)
        };
        assert_eq!(pulls(0, 1), [true, false]);
        assert_eq!(pulls(1, 0), [true, false]);
        assert_eq!(pulls(1, 2), [false, false]);
    }
}
