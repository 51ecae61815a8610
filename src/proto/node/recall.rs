//! What the children of a lost root hold is not read again from the source: the rank that takes the
//! root's place asks them first, one after the other.
//!
//! A child that has had another parent says so ([`Message::Holds`]). Asked by its parent, it answers
//! from what it holds and asks nobody. Such a link carries questions, grants and leases both ways, with
//! numbers of their own each way.

use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Unbounded};

use super::{Node, SourceUse, Upstream, known};
use crate::errno::Errno;
use crate::fetch::{FetchId, State, Waiter};
use crate::ids::{LeaseId, LinkId, RequestId};
use crate::key::{Key, What};
use crate::limits::RECALL_CREDITS;
use crate::link::{Parent, bound_ms};
use crate::output::Output;
use crate::serve::Violation;
use crate::store::Store;
use crate::tick::Tick;
use crate::wire::Message;

/// What asking the children came to.
pub(super) enum Recall {
    /// One has been asked.
    Asked,
    /// The next one has enough to answer: later.
    NoCredit,
    /// There is nobody left to ask.
    NotHeld,
}

impl Node {
    /// Asks the next child that may hold an object, where this rank stands in for the root.
    pub(super) fn recall(&mut self, id: FetchId, key: &Key, deadline: Tick, now: Tick) -> Recall {
        let stands_in = self.place.source_use == SourceUse::Successor;
        if !stands_in || key.what == What::Statistics {
            return Recall::NotHeld;
        }
        let fetch = self.fetches.get_mut(id).expect("the caller has looked it up");
        let after = fetch.recalled.map_or(Unbounded, Excluded);
        let Some((&link, holder)) = self.holders.range_mut((after, Unbounded)).next() else {
            return Recall::NotHeld;
        };
        if holder.credits_used() >= RECALL_CREDITS {
            return Recall::NoCredit;
        }
        fetch.recalled = Some(link);
        let message = Message::Ask {
            request: holder.ask(id, now),
            epoch: self.epoch,
            key: key.clone(),
            bound_ms: bound_ms(deadline.since(now)),
            done: holder.take_done(),
        };
        self.fetches.set(id, State::Asked);
        self.outputs.push_back(Output::Send { link, message, payload: None });
        Recall::Asked
    }

    /// The parent asks for what is held here.
    pub(super) fn on_recall(
        &mut self,
        link: LinkId,
        request: RequestId,
        key: &Key,
        done: &[LeaseId],
        now: Tick,
        store: &mut impl Store,
    ) -> Result<(), Violation> {
        let rank = self.parent().expect("it is the parent's link");
        self.children.answer_parent(link, rank);
        self.children.on_done(link, done, store)?;
        self.children.on_ask(link, request)?;
        let result = known(key, now, store).ok_or(Errno::ENODATA);
        self.answer(Waiter::Child(link, request), result, now, store);
        Ok(())
    }

    /// A child has had another parent before.
    pub(super) fn on_holds(&mut self, link: LinkId) -> Result<(), Violation> {
        let rank = self.children.rank_of(link).filter(|_| self.parent_link() != Some(link));
        let rank = rank.ok_or(Violation::WrongDirection)?;
        self.holders.entry(link).or_insert_with(|| Parent::new(link, rank));
        Ok(())
    }

    /// What this rank has asked over a link, if it may ask there.
    pub(super) fn asked(&mut self, link: LinkId) -> Option<&mut Parent> {
        match &mut self.upstream {
            Upstream::Parent(parent) if parent.link == link => Some(parent),
            Upstream::Parent(_) | Upstream::Source | Upstream::Lost { .. } => {
                self.holders.get_mut(&link)
            }
        }
    }

    /// All links over which this rank may have asked.
    pub(super) fn asked_links(&self) -> impl Iterator<Item = &Parent> {
        let parent = match &self.upstream {
            Upstream::Parent(parent) => Some(parent),
            Upstream::Source | Upstream::Lost { .. } => None,
        };
        parent.into_iter().chain(self.holders.values())
    }

    /// The same, to change them while something else of the node is changed.
    pub(super) fn asked_links_mut<'a>(
        upstream: &'a mut Upstream,
        holders: &'a mut BTreeMap<LinkId, Parent>,
    ) -> impl Iterator<Item = &'a mut Parent> {
        let parent = match upstream {
            Upstream::Parent(parent) => Some(parent),
            Upstream::Source | Upstream::Lost { .. } => None,
        };
        parent.into_iter().chain(holders.values_mut())
    }

    pub(super) fn parent_link(&self) -> Option<LinkId> {
        match &self.upstream {
            Upstream::Parent(parent) => Some(parent.link),
            Upstream::Source | Upstream::Lost { .. } => None,
        }
    }

    /// When leases are to be given back to children without a question to go along with, or some link
    /// has been silent, or a lease been open, for too long.
    pub(super) fn links_due(&self) -> Option<Tick> {
        let done = self.holders.values().filter_map(Parent::done_due);
        let silence = self.asked_links().filter_map(Parent::silence_due);
        done.chain(silence).chain(self.children.look_due()).min()
    }
}
