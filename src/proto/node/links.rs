//! Links that are gone.

use super::{Node, Upstream};
use crate::errno::Errno;
use crate::fetch::{FetchId, Need, State};
use crate::ids::{LeaseId, LinkId};
use crate::link::{Parent, Silence};
use crate::output::Output;
use crate::planted::Bug;
use crate::serve::Violation;
use crate::store::Store;
use crate::tick::Tick;
use crate::wire::Message;

impl Node {
    pub(super) fn on_link_down(&mut self, link: LinkId, now: Tick, store: &mut impl Store) {
        if self.children.down(link, store) {
            self.fetches.forget_child(link);
        }
        if self.parent_link() == Some(link) {
            self.lose_parent(now, store);
        } else if let Some(holder) = self.holders.remove(&link) {
            self.begin_again(holder, now, store);
        }
    }

    /// Asks those who owe an answer and say nothing whether they are there, and gives up links over which
    /// nothing comes: the control channel may go another way than the fabric.
    pub(super) fn mind_silence(&mut self, now: Tick) {
        let mut given_up = Vec::new();
        for asked in Node::asked_links_mut(&mut self.upstream, &mut self.holders) {
            let link = asked.link;
            match asked.silence(now) {
                None => {}
                Some(Silence::Probe) => {
                    let message = Message::Probe;
                    self.outputs.push_back(Output::Send { link, message, payload: None });
                }
                Some(Silence::GiveUp) => given_up.push(link),
            }
        }
        given_up.extend(self.children.overdue(now));
        given_up.into_iter().for_each(|link| self.give_up(link, Violation::Silent));
    }

    /// A pull over a link has ended.
    pub(super) fn on_pull_ended(&mut self, lease: Option<(LinkId, LeaseId)>, well: bool) {
        if let Some((link, _)) = lease
            && self.asked(link).is_some_and(|asked| asked.on_pull_ended(well))
        {
            self.give_up(link, Violation::Unreachable);
        }
    }

    fn give_up(&mut self, link: LinkId, violation: Violation) {
        self.counters.given_up += 1;
        self.outputs.push_back(Output::Disconnect { link, violation });
    }

    pub(super) fn lose_parent(&mut self, now: Tick, store: &mut impl Store) {
        let lost = Upstream::Lost { since: now };
        let parent = match std::mem::replace(&mut self.upstream, lost) {
            Upstream::Parent(parent) => parent,
            // A source that is read in a parent's stead goes on with what it has begun.
            Upstream::Source | Upstream::Lost { .. } => return,
        };
        self.had_parent = true;
        self.begin_again(parent, now, store);
    }

    /// Everything that was under way over a link begins again; extents that the other end's arena may
    /// still be read into stay in quarantine until the fabric says that the read has ended.
    fn begin_again(&mut self, parent: Parent, now: Tick, store: &mut impl Store) {
        let link = parent.link;
        let mut again: Vec<FetchId> = parent.into_questions().collect();
        for (id, fetch) in self.fetches.iter() {
            match fetch.state {
                State::Starved(Need::Pull(grant)) if grant.link == link => again.push(id),
                State::Pulling { pull, extent, lease: Some((of, _)), .. } if of == link => {
                    self.pulls.remove(&pull);
                    self.quarantine.insert(pull, extent);
                    self.counters.quarantined += 1;
                    if self.planted.has(Bug::QuarantineSkipped) {
                        store.release(extent);
                    }
                    again.push(id);
                }
                State::Queued
                | State::Asked
                | State::Starved(_)
                | State::Pulling { .. }
                | State::Reading { .. }
                | State::Paused { .. } => {}
            }
        }
        again.sort_unstable();
        for id in again {
            self.retry(id, State::Queued, Errno::EIO, now, store);
        }
    }
}
