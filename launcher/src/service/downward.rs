//! Those who come to this rank: strangers until they have proven themselves, then children.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use copper_proto::Tick;
use copper_proto::limits::CHILDREN_MAX;
use tracing::{debug, info, warn};

use super::refreshing::refuse_refresh;
use super::{COUNTING_TREE, Child, Newcomer, Service};
use crate::ascent::Loss;
use crate::channel::Channel;
use crate::connection::Connection;
use crate::control::{ControlMessage, Pulse};
use crate::counters::Refused;
use crate::frame::{Arrival, Frame};
use crate::handshake::{Acceptor, Nonce, PeerHello, Step};
use crate::link::{LinkEnd, hear};
use crate::refresh::Requester;
use crate::refusal::{HandshakeError, RefusalCode};
use crate::rendezvous::LinkUp;
use crate::seal::Seals;

/// Handshakes of strangers under way at a time, for each tree: as many as a rank may have children,
/// all of which may come at once.
const HANDSHAKES_MAX: usize = CHILDREN_MAX as usize;

/// Links to ranks below, for each tree: the children, and orphans of lost inner ranks, until their own subtree
/// would be larger than any that this rank was meant to serve.
const LINKS_MAX: usize = 4 * CHILDREN_MAX as usize;

/// Connections accepted in one turn of the loop, so that those who are already in get their turn
/// during a flood.
const ACCEPTS_PER_TURN: usize = 16;

/// How long the listener rests after accept(2) failed for want of descriptors or memory.
const ACCEPT_REST: Duration = Duration::from_millis(50);

/// Refusals of one kind that are worth a warning; later ones are counted only, so that a stranger
/// cannot fill the log.
const WARNINGS_MAX: u64 = 10;

impl Service {
    fn trees(&self) -> usize {
        self.identity.forest.count().get() as usize
    }

    pub(super) fn admit(&mut self, now: Tick) {
        for _ in 0..ACCEPTS_PER_TURN {
            let stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // The connection was gone before it was accepted.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
                Err(error) => {
                    debug!(%error, "cannot accept a connection");
                    self.accept_after = now + ACCEPT_REST;
                    return;
                }
            };
            if self.newcomers.len() >= self.trees() * HANDSHAKES_MAX {
                let oldest = self.newcomers.remove(0);
                self.refuse(oldest, Refused::Crowded);
            }
            let (Ok(connection), Ok(nonce)) = (Connection::new(stream), Nonce::random()) else {
                self.shared.counters.on_refused(Refused::Closed);
                continue;
            };
            let acceptor = Box::new(Acceptor::new(Arc::clone(&self.identity), nonce));
            let deadline = now + self.pace.handshake;
            self.newcomers.push(Newcomer { connection, acceptor, deadline });
        }
    }

    pub(super) fn serve_newcomers(&mut self, signs: &[bool], now: Tick) {
        for (newcomer, &sign) in std::mem::take(&mut self.newcomers).into_iter().zip(signs) {
            if !sign {
                self.newcomers.push(newcomer);
            } else if let Some(newcomer) = self.serve_newcomer(newcomer, now) {
                self.newcomers.push(newcomer);
            }
        }
    }

    /// Gives it back if its handshake goes on.
    fn serve_newcomer(&mut self, mut newcomer: Newcomer, now: Tick) -> Option<Newcomer> {
        if newcomer.connection.flush().is_err() {
            return self.refuse(newcomer, Refused::Closed);
        }
        loop {
            let frame = match newcomer.connection.receive() {
                Ok(Arrival::Frame(frame)) => frame,
                Ok(Arrival::Nothing) => return Some(newcomer),
                Ok(Arrival::End) | Err(_) => return self.refuse(newcomer, Refused::Closed),
                Ok(Arrival::Malformed(_)) => return self.refuse(newcomer, Refused::Malformed),
            };
            match newcomer.acceptor.on_frame(&frame) {
                Ok(Step::Send(frame)) => {
                    if newcomer.connection.send(&frame).is_err() {
                        return self.refuse(newcomer, Refused::Closed);
                    }
                }
                Ok(Step::Done { send, peer, seals }) => {
                    self.child_up(newcomer, send.as_ref(), (peer, seals), now);
                    return None;
                }
                Err(failed) => {
                    if let Some(reply) = &failed.reply {
                        // Best effort: whoever does not listen does not learn the reason.
                        let _ = newcomer.connection.send(reply);
                    }
                    return self.turn_away(newcomer, &failed.error);
                }
            }
        }
    }

    /// Closes a connection that cannot become a link.
    pub(super) fn refuse(&self, newcomer: Newcomer, refused: Refused) -> Option<Newcomer> {
        self.shared.counters.on_refused(refused);
        debug!(?refused, "closed a connection");
        drop(newcomer);
        None
    }

    /// The same, for a reason that somebody should read.
    fn turn_away(&self, newcomer: Newcomer, error: &HandshakeError) -> Option<Newcomer> {
        let Some(code) = error.code() else { return self.refuse(newcomer, Refused::Malformed) };
        if self.shared.counters.on_refused(Refused::Said(code)) <= WARNINGS_MAX {
            warn!(%error, "refused a rank");
        }
        None
    }

    fn child_up(
        &mut self,
        mut newcomer: Newcomer,
        welcome: Option<&Frame>,
        (peer, seals): (PeerHello, Seals),
        now: Tick,
    ) {
        let (rank, tree) = (peer.rank, peer.tree);
        let same = |child: &Child| child.rank == rank && child.tree == tree;
        if let Some(index) = self.children.iter().position(same) {
            let old = self.children.remove(index);
            self.child_down(&old, &LinkEnd::closed(format!("rank {rank} has connected anew")));
        }
        if self.children.len() >= self.trees() * LINKS_MAX {
            let _ = newcomer.connection.send(&newcomer.acceptor.busy());
            self.refuse(newcomer, Refused::Said(RefusalCode::Busy));
            return;
        }
        let link = self.next_link();
        info!(%link, child = %rank, %tree, "a child has joined");
        self.link_counted();
        self.events.child_up(LinkUp { link, peer });
        let pulse = Pulse::new(&self.pace, now);
        let welcomed = welcome.map_or(Ok(()), |welcome| newcomer.connection.send(welcome));
        let channel = Channel::new(newcomer.connection, seals, &self.shared.counters);
        let child = Child { channel, rank, tree, link, pulse };
        match welcomed {
            Ok(()) => self.children.push(child),
            Err(error) => self.child_down(&child, &LinkEnd::closed(error.to_string())),
        }
    }

    pub(super) fn serve_children(&mut self, signs: &[bool], now: Tick) {
        let mut gathers = Vec::new();
        for (mut child, &sign) in std::mem::take(&mut self.children).into_iter().zip(signs) {
            if !sign {
                self.children.push(child);
                continue;
            }
            let (messages, mut end) = hear(&mut child.channel, &mut child.pulse, now);
            for message in messages {
                match message {
                    ControlMessage::Heartbeat => {}
                    ControlMessage::Leaving => end = Some(LinkEnd::left()),
                    // The other trees' links carry heartbeats only.
                    _ if child.tree != COUNTING_TREE => end = Some(LinkEnd::nonsense()),
                    ControlMessage::Ready { ranks } => {
                        self.readiness.set_below(child.link, &ranks);
                    }
                    ControlMessage::Joined { epoch } => self.on_joined(&mut child, epoch, now),
                    ControlMessage::WantRefresh { request, path } => {
                        // Refused at once, it is answered before the child is back in its place.
                        let requester = Requester::Child(child.link, request);
                        if let Err((_, error)) = self.want_refresh(path, requester, now) {
                            refuse_refresh(&mut child, request, error);
                        }
                    }
                    ControlMessage::Refreshed { epoch, tally } => {
                        self.refreshes.on_answer(child.link, epoch, &tally);
                    }
                    // They are for all children, who are not all in their places.
                    message @ (ControlMessage::WantStatus { .. }
                    | ControlMessage::StatusPart { .. }
                    | ControlMessage::StatusEnd { .. }) => gathers.push((child.link, message)),
                    ControlMessage::Gather { .. }
                    | ControlMessage::Shutdown
                    | ControlMessage::Refresh { .. }
                    | ControlMessage::RefreshEnded { .. } => end = Some(LinkEnd::nonsense()),
                }
            }
            match end {
                None => self.children.push(child),
                Some(end) => self.child_down(&child, &end),
            }
        }
        for (link, message) in gathers {
            self.gather_from_child(link, message, now);
        }
    }

    pub(super) fn child_down(&mut self, child: &Child, end: &LinkEnd) {
        let Child { link, rank, tree, .. } = *child;
        let reason = end.reason.as_str();
        match end.loss {
            _ if self.ending => debug!(%link, child = %rank, %tree, reason, "a child has ended"),
            Loss::Left => info!(%link, child = %rank, %tree, "a child has ended"),
            _ => warn!(%link, child = %rank, %tree, reason, "lost a child"),
        }
        self.shared.counters.links.fetch_sub(1, Relaxed);
        self.readiness.forget(child.link);
        self.refreshes.on_child_down(child.link);
        self.gathers.on_child_down(child.link);
        self.events.link_down(child.link, reason);
    }

    /// Tells the children that the job ends: whoever leaves from now on is no loss.
    pub(super) fn shut_children_down(&mut self) {
        self.ending = true;
        for child in &mut self.children {
            // Best effort: a child that cannot be told will lose its parent and be ended otherwise.
            let _ = child.channel.send(&ControlMessage::Shutdown);
        }
    }
}
