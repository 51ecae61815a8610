//! The way to a parent: dialling, proving, and heeding what the parent says.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use copper_proto::{Rank, Tick};
use tracing::{debug, info, warn};

use super::{Join, Service, Uplink};
use crate::ascent::Turn;
use crate::connection::Connection;
use crate::control::{ControlMessage, Pulse};
use crate::frame::Arrival;
use crate::handshake::{Dialer, Nonce, PeerHello, Step};
use crate::link::{LinkEnd, Reason, hear, keep_alive};
use crate::rendezvous::{LinkUp, RendezvousError};

impl Service {
    pub(super) fn attend_uplink(&mut self, now: Tick) -> Tick {
        let (pace, shared) = (self.pace, Arc::clone(&self.shared));
        match &mut self.uplink {
            Uplink::None => {}
            Uplink::Connecting { rank, deadline, .. } | Uplink::Greeting { rank, deadline, .. } => {
                if now < *deadline {
                    return *deadline;
                }
                let rank = *rank;
                self.attempt_failed(rank, Reason::Silent, now);
            }
            Uplink::Up { connection, pulse, .. } => {
                match keep_alive(connection, pulse, &pace, &shared.counters, now) {
                    Ok(due) => return due,
                    Err(end) => self.parent_down(&end, now),
                }
            }
        }
        loop {
            match self.ascent.turn(now) {
                Turn::Rest => return Tick::NEVER,
                Turn::Wait(until) => return until,
                Turn::GiveUp => self.give_up(),
                Turn::Try(rank) => {
                    if let Some(deadline) = self.dial(rank, now) {
                        return deadline;
                    }
                }
            }
        }
    }

    fn dial(&mut self, rank: Rank, now: Tick) -> Option<Tick> {
        let bound = if self.ascent.is_joining() { self.pace.handshake } else { self.pace.attempt };
        let deadline = (now + bound).min(self.ascent.deadline());
        match Connection::dial(self.address_of(rank)) {
            Ok(connection) => {
                self.uplink = Uplink::Connecting { rank, connection, deadline };
                Some(deadline)
            }
            Err(error) => {
                self.attempt_failed(rank, Reason::Io(error), now);
                None
            }
        }
    }

    fn address_of(&self, rank: Rank) -> SocketAddr {
        let found = self.ancestors.iter().find(|(ancestor, _)| *ancestor == rank);
        found.expect("only ancestors are dialled").1
    }

    pub(super) fn serve_uplink(&mut self, now: Tick) {
        match std::mem::replace(&mut self.uplink, Uplink::None) {
            Uplink::None => {}
            Uplink::Connecting { rank, connection, deadline } => {
                if let Err(reason) = self.greet(rank, connection, deadline) {
                    self.attempt_failed(rank, reason, now);
                }
            }
            Uplink::Greeting { rank, connection, dialer, deadline } => {
                if let Err(reason) = self.go_on_greeting(rank, connection, dialer, deadline, now) {
                    self.attempt_failed(rank, reason, now);
                }
            }
            Uplink::Up { rank, link, mut connection, mut pulse, told } => {
                let heard = hear(&mut connection, &mut pulse, now);
                self.uplink = Uplink::Up { rank, link, connection, pulse, told };
                self.heed_parent(heard, now);
            }
        }
    }

    fn greet(&mut self, rank: Rank, mut connection: Connection, by: Tick) -> Result<(), Reason> {
        connection.outcome()?;
        let (dialer, hello) = Dialer::start(Arc::clone(&self.identity), rank, Nonce::random()?);
        connection.send(&hello)?;
        let dialer = Box::new(dialer);
        self.uplink = Uplink::Greeting { rank, connection, dialer, deadline: by };
        Ok(())
    }

    fn go_on_greeting(
        &mut self,
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
                    self.uplink = Uplink::Greeting { rank, connection, dialer, deadline };
                    return Ok(());
                }
                Arrival::End => return Err(Reason::HungUp),
                Arrival::Malformed(malformed) => {
                    return Err(Reason::Handshake(malformed.into()));
                }
            };
            match dialer.on_frame(&frame) {
                Ok(Step::Send(frame)) => connection.send(&frame)?,
                Ok(Step::Done { send: _, peer }) => {
                    self.parent_up(connection, peer, now);
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

    fn attempt_failed(&mut self, parent: Rank, reason: Reason, now: Tick) {
        self.uplink = Uplink::None;
        self.shared.counters.attempts_failed.fetch_add(1, Relaxed);
        self.last_reason = reason.to_string();
        debug!(%parent, reason = self.last_reason, "no parent yet");
        if let Reason::Handshake(source) = reason
            && source.is_final()
            && self.ascent.is_joining()
        {
            let (rank, address) = (self.identity.rank, self.address_of(parent));
            self.ascent.give_up();
            let error = RendezvousError::Refused { rank, parent, address, source };
            self.shared.settle(Join::Failed(Box::new(error)));
        }
        if self.ascent.on_failed(now) {
            warn!(last = %parent, reason = self.last_reason, "no ancestor answers");
            self.events.orphaned(&format!("rank {parent}: {}", self.last_reason));
        }
    }

    fn give_up(&mut self) {
        self.ascent.give_up();
        let (parent, address) = self.ancestors[0];
        let error = RendezvousError::NoParent {
            rank: self.identity.rank,
            parent,
            address,
            reason: self.last_reason.clone(),
            waited: self.ready_timeout,
        };
        self.shared.settle(Join::Failed(Box::new(error)));
    }

    fn parent_up(&mut self, connection: Connection, peer: PeerHello, now: Tick) {
        let (rank, link) = (peer.rank, self.next_link());
        info!(%link, parent = %rank, "joined a parent");
        self.ascent.on_joined(now);
        let pulse = Pulse::new(&self.pace, now);
        self.uplink = Uplink::Up { rank, link, connection, pulse, told: 0 };
        self.link_counted();
        self.events.parent_up(LinkUp { link, peer });
        let epoch = self.refreshes.epoch();
        self.tell_parent(&ControlMessage::Joined { epoch });
        self.shared.settle(Join::Joined);
    }

    fn heed_parent(&mut self, (messages, end): (Vec<ControlMessage>, Option<LinkEnd>), now: Tick) {
        let mut end = end;
        for message in messages {
            match message {
                ControlMessage::Heartbeat => {}
                ControlMessage::Refresh { epoch, bound_ms, path } => {
                    self.follow_refresh(epoch, bound_ms, path, now);
                }
                ControlMessage::RefreshEnded { request, result } => {
                    if let Some(requester) = self.refreshes.on_ended(request) {
                        self.answer_refresh(requester, result);
                    }
                }
                ControlMessage::Ready { .. }
                | ControlMessage::Joined { .. }
                | ControlMessage::WantRefresh { .. }
                | ControlMessage::Refreshed { .. } => end = Some(LinkEnd::nonsense()),
                ControlMessage::Shutdown => {
                    info!("the parent asks to end");
                    self.shut_children_down();
                    self.events.shutdown();
                }
            }
        }
        if let Some(end) = end {
            self.parent_down(&end, now);
        }
    }

    fn parent_down(&mut self, end: &LinkEnd, now: Tick) {
        let uplink = std::mem::replace(&mut self.uplink, Uplink::None);
        let Uplink::Up { rank, link, .. } = uplink else { return };
        warn!(%link, parent = %rank, reason = end.reason, "lost the parent");
        self.shared.counters.links.fetch_sub(1, Relaxed);
        self.ascent.on_lost(rank, end.loss, now);
        self.refreshes_unheard(true, now);
        self.events.link_down(link, &end.reason);
    }
}
