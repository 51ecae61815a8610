//! The ways to the parents: dialling, proving, and heeding what the parent says.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use copper_proto::{Rank, Tick};
use tracing::{debug, info, warn};

use super::{COUNTING_TREE, Join, Order, Service, Uplink, Way};
use crate::ascent::{Loss, Turn};
use crate::channel::Channel;
use crate::connection::Connection;
use crate::control::{ControlMessage, Pulse};
use crate::frame::Arrival;
use crate::handshake::{Dialer, Nonce, PeerHello, Step};
use crate::link::{LinkEnd, Reason, hear, keep_alive};
use crate::rendezvous::{LinkUp, RendezvousError};

impl Service {
    pub(super) fn attend_uplink(&mut self, way: usize, now: Tick) -> Tick {
        let (pace, shared) = (self.pace, Arc::clone(&self.shared));
        match &mut self.ways[way].uplink {
            Uplink::None => {}
            Uplink::Connecting { rank, deadline, .. } | Uplink::Greeting { rank, deadline, .. } => {
                if now < *deadline {
                    return *deadline;
                }
                let rank = *rank;
                self.attempt_failed(way, rank, Reason::Silent, now);
            }
            Uplink::Up { channel, pulse, .. } => {
                match keep_alive(channel, pulse, &pace, &shared.counters, now) {
                    Ok(due) => return due,
                    Err(end) => self.parent_down(way, &end, now),
                }
            }
        }
        loop {
            match self.ways[way].ascent.turn(now) {
                Turn::Rest => return Tick::NEVER,
                Turn::Wait(until) => return until,
                Turn::GiveUp => self.give_up(way),
                Turn::Try(rank) => {
                    if let Some(deadline) = self.dial(way, rank, now) {
                        return deadline;
                    }
                }
            }
        }
    }

    fn dial(&mut self, way: usize, rank: Rank, now: Tick) -> Option<Tick> {
        let bound = if self.ways[way].ascent.is_joining() {
            self.pace.handshake
        } else {
            self.pace.attempt
        };
        let deadline = (now + bound).min(self.ways[way].ascent.deadline());
        if self.ways[way].ascent.is_barred(rank, now) {
            self.attempt_failed(way, rank, Reason::Barred, now);
            return None;
        }
        let Some(&address) = self.addresses.get(&rank) else {
            self.attempt_failed(way, rank, Reason::NotLookedUp, now);
            return None;
        };
        match Connection::dial(address) {
            Ok(connection) => {
                self.ways[way].uplink = Uplink::Connecting { rank, connection, deadline };
                Some(deadline)
            }
            Err(error) => {
                self.attempt_failed(way, rank, Reason::Io(error), now);
                None
            }
        }
    }

    pub(super) fn serve_uplink(&mut self, way: usize, now: Tick) {
        match std::mem::replace(&mut self.ways[way].uplink, Uplink::None) {
            Uplink::None => {}
            Uplink::Connecting { rank, connection, deadline } => {
                if let Err(reason) = self.greet(way, rank, connection, deadline) {
                    self.attempt_failed(way, rank, reason, now);
                }
            }
            Uplink::Greeting { rank, connection, dialer, deadline } => {
                let greeted = self.go_on_greeting(way, rank, connection, dialer, deadline, now);
                if let Err(reason) = greeted {
                    self.attempt_failed(way, rank, reason, now);
                }
            }
            Uplink::Up { rank, link, mut channel, mut pulse } => {
                let heard = hear(&mut channel, &mut pulse, now);
                self.ways[way].uplink = Uplink::Up { rank, link, channel, pulse };
                self.heed_parent(way, heard, now);
            }
        }
    }

    fn greet(
        &mut self,
        way: usize,
        rank: Rank,
        mut connection: Connection,
        by: Tick,
    ) -> Result<(), Reason> {
        connection.outcome()?;
        let tree = self.ways[way].tree;
        let (dialer, hello) =
            Dialer::start(Arc::clone(&self.identity), rank, tree, Nonce::random()?);
        connection.send(&hello)?;
        let dialer = Box::new(dialer);
        self.ways[way].uplink = Uplink::Greeting { rank, connection, dialer, deadline: by };
        Ok(())
    }

    fn go_on_greeting(
        &mut self,
        way: usize,
        rank: Rank,
        mut connection: Connection,
        mut dialer: Box<Dialer>,
        deadline: Tick,
        now: Tick,
    ) -> Result<(), Reason> {
        connection.flush()?;
        loop {
            let frame = match connection.receive()? {
                Arrival::Frame(frame) => frame,
                Arrival::Nothing => {
                    self.ways[way].uplink = Uplink::Greeting { rank, connection, dialer, deadline };
                    return Ok(());
                }
                Arrival::End => return Err(Reason::HungUp),
                Arrival::Malformed(malformed) => {
                    return Err(Reason::Handshake(malformed.into()));
                }
            };
            match dialer.on_frame(&frame) {
                Ok(Step::Send(frame)) => connection.send(&frame)?,
                Ok(Step::Done { send: _, peer, seals }) => {
                    let channel = Channel::new(connection, seals, &self.shared.counters);
                    self.parent_up(way, channel, peer, now);
                    return Ok(());
                }
                Err(failed) => {
                    if let Some(reply) = &failed.reply {
                        // Best effort: it lets the other side count the reason.
                        let _ = connection.send(reply);
                    }
                    return Err(Reason::Handshake(failed.error));
                }
            }
        }
    }

    fn attempt_failed(&mut self, way: usize, parent: Rank, reason: Reason, now: Tick) {
        self.ways[way].uplink = Uplink::None;
        self.shared.counters.attempts_failed.fetch_add(1, Relaxed);
        self.ways[way].last_reason = reason.to_string();
        debug!(%parent, reason = self.ways[way].last_reason, "no parent yet");
        if let Reason::Handshake(source) = reason
            && source.is_final()
            && self.ways[way].ascent.is_joining()
        {
            let (rank, address) = (self.identity.rank, self.addresses[&parent]);
            self.ways[way].ascent.give_up();
            let error = RendezvousError::Refused { rank, parent, address, source };
            self.shared.settle(Join::Failed(Box::new(error)));
        }
        if self.ways[way].ascent.on_failed(now) {
            self.note_ways();
            let Way { tree, last_reason, .. } = &self.ways[way];
            warn!(%tree, last = %parent, reason = last_reason, "no ancestor answers");
            self.events.orphaned(*tree, &format!("rank {parent}: {last_reason}"));
        }
    }

    fn give_up(&mut self, way: usize) {
        self.ways[way].ascent.give_up();
        let parent = self.ways[way].candidates[0];
        let address = self.addresses[&parent];
        let error = RendezvousError::NoParent {
            rank: self.identity.rank,
            parent,
            address,
            reason: self.ways[way].last_reason.clone(),
            waited: self.ready_timeout,
        };
        self.shared.settle(Join::Failed(Box::new(error)));
    }

    fn parent_up(&mut self, way: usize, channel: Channel, peer: PeerHello, now: Tick) {
        let (rank, link) = (peer.rank, self.next_link());
        info!(%link, parent = %rank, tree = %peer.tree, "joined a parent");
        self.ways[way].ascent.on_joined(now);
        let pulse = Pulse::new(&self.pace, now);
        self.ways[way].uplink = Uplink::Up { rank, link, channel, pulse };
        self.link_counted();
        self.note_ways();
        self.events.parent_up(LinkUp { link, peer });
        if self.ways[way].tree == COUNTING_TREE {
            self.readiness.on_new_parent();
            let epoch = self.refreshes.epoch();
            self.tell_parent(&ControlMessage::Joined { epoch });
        }
        if self.ways.iter().all(|way| !way.ascent.is_joining()) {
            self.shared.settle(Join::Joined);
        }
    }

    fn heed_parent(
        &mut self,
        way: usize,
        (messages, end): (Vec<ControlMessage>, Option<LinkEnd>),
        now: Tick,
    ) {
        let mut end = end;
        for message in messages {
            match message {
                ControlMessage::Heartbeat => {}
                ControlMessage::Leaving => end = Some(LinkEnd::left()),
                ControlMessage::Shutdown if self.told_to_end => {}
                ControlMessage::Refresh { .. }
                | ControlMessage::RefreshEnded { .. }
                | ControlMessage::Gather { .. }
                | ControlMessage::StatusPart { .. }
                | ControlMessage::StatusEnd { .. }
                    if self.ways[way].tree != COUNTING_TREE =>
                {
                    end = Some(LinkEnd::nonsense());
                }
                ControlMessage::Refresh { epoch, bound_ms, path } => {
                    self.follow_refresh(epoch, bound_ms, path, now);
                }
                ControlMessage::RefreshEnded { request, result } => {
                    if let Some(requester) = self.refreshes.on_ended(request) {
                        self.answer_refresh(requester, result);
                    }
                }
                ControlMessage::Gather { run, bound_ms } => self.follow_gather(run, bound_ms, now),
                ControlMessage::StatusPart { number, rank, report } => {
                    self.part_from_parent(number, rank, report);
                }
                ControlMessage::StatusEnd { number, error } => self.end_from_parent(number, error),
                ControlMessage::WantStatus { .. }
                | ControlMessage::Ready { .. }
                | ControlMessage::Joined { .. }
                | ControlMessage::WantRefresh { .. }
                | ControlMessage::Refreshed { .. } => end = Some(LinkEnd::nonsense()),
                ControlMessage::Shutdown => {
                    self.told_to_end = true;
                    info!("the parent asks to end");
                    self.shut_children_down();
                    self.events.shutdown();
                }
            }
        }
        if let Some(end) = end {
            self.parent_down(way, &end, now);
        }
    }

    /// Looks up where those listen who may be needed if more is lost. Names may take long to look up,
    /// and nobody waits for that here.
    fn look_up_successors(&mut self) {
        if std::mem::replace(&mut self.looking_up, true) {
            return;
        }
        let candidates = self.ways.iter().flat_map(|way| &way.candidates);
        let mut unknown: Vec<Rank> = candidates.copied().collect();
        unknown.retain(|rank| !self.addresses.contains_key(rank));
        let (peers, shared) = (self.peers.clone(), Arc::clone(&self.shared));
        let look_up = move || {
            for rank in unknown {
                match peers.resolve(rank) {
                    Ok(address) => shared.order(Order::Found(rank, address)),
                    Err(error) => warn!(%error, "a rank that may be needed is not found"),
                }
            }
        };
        let thread = std::thread::Builder::new().name("look-up".to_owned()).spawn(look_up);
        if let Err(error) = thread {
            warn!(%error, "cannot look up where other ranks listen");
            self.looking_up = false;
        }
    }

    pub(super) fn parent_down(&mut self, way: usize, end: &LinkEnd, now: Tick) {
        let uplink = std::mem::replace(&mut self.ways[way].uplink, Uplink::None);
        let Uplink::Up { rank, link, .. } = uplink else { return };
        let tree = self.ways[way].tree;
        let reason = end.reason.as_str();
        match end.loss {
            _ if self.ending => {
                debug!(%link, parent = %rank, %tree, reason, "the parent has ended")
            }
            Loss::Left => info!(%link, parent = %rank, %tree, "the parent has ended"),
            _ => warn!(%link, parent = %rank, %tree, reason, "lost the parent"),
        }
        self.shared.counters.links.fetch_sub(1, Relaxed);
        self.ways[way].ascent.on_lost(rank, end.loss, now);
        self.ways[way].lost = Some(format!("rank {rank}: {}", end.reason));
        self.note_ways();
        self.look_up_successors();
        if tree == COUNTING_TREE {
            self.refreshes_unheard(true, now);
            self.gathers_unheard(true, now);
        }
        self.events.link_down(link, &end.reason);
    }
}
