//! Links that are gone.

use super::{Node, Upstream};
use crate::errno::Errno;
use crate::fetch::{FetchId, Need, State};
use crate::ids::LinkId;
use crate::link::Parent;
use crate::planted::Bug;
use crate::store::Store;
use crate::tick::Tick;

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
