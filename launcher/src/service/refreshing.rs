//! Refreshes, over the links: see [`crate::refresh`] for the rules.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use copper_proto::{Epoch, Scope, Tick, ViewPath};
use tracing::{info, warn};

use super::{COUNTING_TREE, Child, Order, Service, Uplink, Way};
use crate::control::ControlMessage;
use crate::gather::{Asker, JobReports};
use crate::refresh::{
    Over, REFRESH_BOUND, RefreshError, RefreshResult, Requester, RunId, bound_below,
};
use crate::rendezvous::RefreshReply;

impl Service {
    pub(super) fn obey_orders(&mut self, now: Tick) {
        let mut orders = self.shared.orders.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = std::mem::take(&mut *orders);
        drop(orders);
        for order in taken {
            match order {
                Order::Break(link) => self.break_link(link, now),
                Order::Found(rank, address) => {
                    self.addresses.insert(rank, address);
                }
                Order::Refresh(path, answer) => {
                    let wanted = self.want_refresh(path, Requester::Local(answer), now);
                    if let Err((requester, error)) = wanted {
                        self.answer_refresh(requester, Err(error));
                    }
                }
                Order::Status(answer) => {
                    self.want_status(Asker::Local(answer, JobReports::new()), now);
                }
                Order::Dropped(run) => self.tell_children(run, now),
                Order::Done(run, dropped) => self.refreshes.on_done(run, dropped),
            }
        }
    }

    /// Answers what is over. Returns when something is due next.
    pub(super) fn attend_refreshes(&mut self, now: Tick) -> Tick {
        let tree = self.identity.forest.tree(COUNTING_TREE).expect("every job has this one");
        let over = self.refreshes.over(self.identity.rank, &tree, now);
        for Over { epoch, tally, requester } in over {
            if !tally.is_whole() {
                warn!(%epoch, missing = ?tally.missing, "not all ranks have answered a refresh");
            }
            match requester {
                Some(requester) => self.answer_refresh(requester, Ok((epoch, tally))),
                None => self.tell_parent(&ControlMessage::Refreshed { epoch, tally }),
            }
        }
        self.refreshes_unheard(false, now);
        self.refreshes.next_due()
    }

    pub(super) fn refreshes_unheard(&mut self, parent_lost: bool, now: Tick) {
        let error = RefreshError::Unheard { rank: self.identity.rank };
        for requester in self.refreshes.unheard(parent_lost, now) {
            self.answer_refresh(requester, Err(error));
        }
    }

    /// Begins a refresh at the top; elsewhere the parent is asked for it. Or says why not.
    pub(super) fn want_refresh(
        &mut self,
        path: ViewPath,
        requester: Requester,
        now: Tick,
    ) -> Result<(), (Requester, RefreshError)> {
        let rank = self.identity.rank;
        if self.is_at_the_top() {
            let busy = |requester| (requester, RefreshError::Busy { rank });
            let issued = self.refreshes.issue(path.clone(), requester, now);
            let (run, epoch) = issued.map_err(busy)?;
            self.begin_refresh(run, epoch, path);
            return Ok(());
        }
        if !self.way_up().is_some_and(|way| matches!(way.uplink, Uplink::Up { .. })) {
            return Err((requester, RefreshError::NoParent { rank }));
        }
        if !self.refreshes.may_ask() {
            return Err((requester, RefreshError::Busy { rank }));
        }
        let request = self.refreshes.ask(requester, now);
        self.tell_parent(&ControlMessage::WantRefresh { request, path });
        Ok(())
    }

    pub(super) fn follow_refresh(
        &mut self,
        epoch: Epoch,
        bound_ms: u32,
        path: ViewPath,
        now: Tick,
    ) {
        let deadline = now + Duration::from_millis(bound_ms.into());
        let run = self.refreshes.follow(epoch, path.clone(), deadline);
        self.begin_refresh(run, epoch, path);
    }

    fn begin_refresh(&mut self, run: RunId, epoch: Epoch, path: ViewPath) {
        info!(%epoch, %path, "a refresh begins");
        let reply = RefreshReply { shared: Arc::clone(&self.shared), run };
        self.events.refresh(epoch, Scope::new(path), reply);
    }

    fn tell_children(&mut self, run: RunId, now: Tick) {
        let children = self.children.iter().filter(|child| child.tree == COUNTING_TREE);
        let children = children.map(|child| (child.link, child.rank));
        let Some(run) = self.refreshes.on_dropped(run, children) else { return };
        let bound_ms = bound_below(run.deadline, now);
        let message =
            ControlMessage::Refresh { epoch: run.epoch, bound_ms, path: run.path.clone() };
        for child in self.children.iter_mut().filter(|child| child.tree == COUNTING_TREE) {
            // A failure shows itself again at the next heartbeat, which takes the link down.
            let _ = child.channel.send(&message);
        }
    }

    /// A new child says what it knows: what it has missed may be anything.
    pub(super) fn on_joined(&mut self, child: &mut Child, epoch: Epoch, now: Tick) {
        self.refreshes.hear_of(epoch);
        let known = self.refreshes.epoch();
        if epoch >= known {
            return;
        }
        info!(child = %child.rank, %epoch, %known, "a child has missed refreshes");
        self.refreshes.on_late(child.link, child.rank);
        let bound_ms = bound_below(self.refreshes.next_due().min(now + REFRESH_BOUND), now);
        let path = ViewPath::root();
        // As above.
        let _ = child.channel.send(&ControlMessage::Refresh { epoch: known, bound_ms, path });
    }

    pub(super) fn answer_refresh(&mut self, requester: Requester, result: RefreshResult) {
        match requester {
            // Whoever does not wait any more does not hear it.
            Requester::Local(answer) => drop(answer.try_send(result)),
            Requester::Child(link, request) => {
                if let Some(child) = self.children.iter_mut().find(|child| child.link == link) {
                    let message = ControlMessage::RefreshEnded { request, result };
                    let _ = child.channel.send(&message);
                }
            }
        }
    }

    /// The way to the parent that counts, unless this rank is the root there.
    pub(super) fn way_up(&mut self) -> Option<&mut Way> {
        self.ways.iter_mut().find(|way| way.tree == COUNTING_TREE)
    }

    pub(super) fn tell_parent(&mut self, message: &ControlMessage) {
        if let Some(Way { uplink: Uplink::Up { channel, .. }, .. }) = self.way_up() {
            // A failure shows itself again at the next heartbeat, which takes the link down.
            let _ = channel.send(message);
        }
    }
}

/// For a child that is just being served.
pub(super) fn refuse_refresh(child: &mut Child, request: u32, error: RefreshError) {
    let message = ControlMessage::RefreshEnded { request, result: Err(error) };
    let _ = child.channel.send(&message);
}
