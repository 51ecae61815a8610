//! NICs and engines' threads: each is taken in the order in which it is asked for, and is busy for as
//! long as the bytes or the messages take. Of what goes wrong: slow ranks, and ways that are cut, where
//! nothing is lost but everything waits, as over a transport that sends again.

use std::collections::BTreeMap;
use std::time::Duration;

use copper_proto::Tick;

use super::constants::{
    LATENCY, MESSAGE_BYTES, MESSAGE_HANDLING, NIC_BYTES_PER_SECOND, VERIFYING_PICOS_PER_BYTE,
    moving,
};

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

impl Port {
    /// The engine works, as soon as it is free.
    fn works(&mut self, now: Tick, takes: Duration) {
        self.engine_free = self.engine_free.max(now) + takes * self.slowness;
    }
}

/// All ranks' hardware.
#[derive(Debug)]
pub(super) struct Network {
    ports: Vec<Port>,
    messages: u64,
    /// The most messages whose time a rank's engine was behind.
    deepest_queue: u64,
    /// Ways that are cut, from one rank to another, and until when.
    cuts: BTreeMap<(usize, usize), Tick>,
}

impl Network {
    pub(super) fn new(nodes: usize) -> Network {
        let (ports, cuts) = (vec![Port::default(); nodes], BTreeMap::new());
        Network { ports, messages: 0, deepest_queue: 0, cuts }
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

    /// A message has come: the engine looks at it as soon as it can.
    pub(super) fn received(&mut self, rank: usize, now: Tick) {
        let port = &mut self.ports[rank];
        let handling = MESSAGE_HANDLING * port.slowness;
        let behind = port.engine_free.since(now).as_nanos() / handling.as_nanos();
        self.deepest_queue = self.deepest_queue.max(behind as u64);
        port.works(now, MESSAGE_HANDLING);
    }

    /// Pulled bytes have come, and are verified.
    pub(super) fn verified(&mut self, rank: usize, now: Tick, bytes: u64) {
        let port = &mut self.ports[rank];
        let nanos = bytes * VERIFYING_PICOS_PER_BYTE / 1000;
        port.works(now, Duration::from_nanos(nanos));
    }

    /// When the engine has done all that it has to do.
    pub(super) fn engine_free(&self, rank: usize, now: Tick) -> Tick {
        self.ports[rank].engine_free.max(now)
    }

    /// A message leaves: when it arrives.
    pub(super) fn send(&mut self, from: usize, to: usize, payload: u64, now: Tick) -> Tick {
        self.messages += 1;
        let port = &mut self.ports[from];
        port.works(now, MESSAGE_HANDLING);
        let leaves = port.engine_free;
        let arrives = self.transfer(from, to, MESSAGE_BYTES + payload, leaves);
        self.passes(from, to, arrives)
    }

    /// A child reads its parent's memory: when the last byte is there.
    pub(super) fn pull(&mut self, child: usize, parent: usize, bytes: u64, now: Tick) -> Tick {
        let asks = self.engine_free(child, now) + LATENCY;
        let ends = self.transfer(parent, child, bytes, asks);
        self.passes(parent, child, self.passes(child, parent, ends))
    }

    fn transfer(&mut self, from: usize, to: usize, bytes: u64, ready: Tick) -> Tick {
        let takes = moving(bytes, NIC_BYTES_PER_SECOND);
        let sender = &mut self.ports[from];
        let begins = sender.egress_free.max(ready);
        sender.egress_free = begins + takes * sender.slowness;
        sender.egress_bytes += bytes;
        let receiver = &mut self.ports[to];
        let takes = takes * receiver.slowness;
        receiver.ingress_free = receiver.ingress_free.max(begins + LATENCY) + takes;
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
        let mut network = Network::new(4);
        let block = moving(MIB, NIC_BYTES_PER_SECOND);
        let ends: Vec<Tick> = (1..4).map(|child| network.pull(child, 0, MIB, Tick(0))).collect();
        for (turn, end) in (1..).zip(ends) {
            assert_eq!(end, Tick(0) + 2 * LATENCY + block * turn);
        }
        assert_eq!(network.hottest(), (0, 3 * MIB));
    }

    #[test]
    fn an_engine_handles_one_message_after_the_other() {
        let mut network = Network::new(2);
        (0..5).for_each(|_| network.received(1, Tick(0)));
        assert_eq!(network.engine_free(1, Tick(0)), Tick(0) + 5 * MESSAGE_HANDLING);
        assert_eq!(network.deepest_queue(), 4);
        assert_eq!(network.engine_free(1, Tick(1 << 30)), Tick(1 << 30), "it has caught up");
    }
}
