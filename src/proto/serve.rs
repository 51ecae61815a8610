//! A rank's side as a parent: children, what they wait for, and the leases that they hold.

use hashbrown::HashMap;

use crate::ids::{LeaseId, LinkId, Rank, RequestId};
use crate::limits::{CHILDREN_MAX, INLINE_BYTES_MAX, LEASE_BOUND, LEASE_LOOK};
use crate::link::Child;
use crate::planted::{Bug, Planted};
use crate::store::{Extent, Held, Store};
use crate::tick::Tick;
use crate::wire::Reply;

/// A message that a rank which keeps to the protocol does not send.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// Only a parent is asked, only a child is answered.
    #[error("a message from a rank that is neither parent nor child")]
    WrongDirection,
    /// More questions and leases than the credits allow.
    #[error("more outstanding than the credits allow")]
    Credits,
    /// The same question twice.
    #[error("a request number that is in use")]
    RequestInUse,
    /// A lease that was never given, or is given back already.
    #[error("a lease that is not open")]
    Lease,
    /// An answer to a question that was not asked.
    #[error("an answer to no question")]
    NoQuestion,
    /// An answer of a kind or size that the question does not have.
    #[error("an answer that does not fit its question")]
    WrongAnswer,
    /// A question for an object that belongs to another tree than the link.
    #[error("a question that belongs to another tree")]
    WrongTree,
    /// No fault of the protocol: over the fabric nothing comes, not even that somebody is there.
    #[error("no word over the fabric for too long")]
    Silent,
    /// No fault of the protocol: what is pulled does not arrive, or not as it was announced.
    #[error("pull after pull over the fabric has failed")]
    Unreachable,
    /// More children than the tree gives a rank, or than any rank may have.
    #[error("too many children")]
    Children,
}

impl Planted {
    fn unpin(self, extent: Extent, store: &mut impl Store) {
        if !self.has(Bug::LeaseIgnored) {
            store.unpin(extent);
        }
    }
}

/// All children of a node.
#[derive(Debug, Default)]
pub(crate) struct Children {
    children: HashMap<LinkId, Child>,
    /// When leases are looked at next.
    look: Option<Tick>,
    pub(crate) planted: Planted,
}

impl Children {
    pub(crate) fn up(&mut self, link: LinkId, rank: Rank) -> Result<(), Violation> {
        // A child that lost its parent may come to any ancestor: the root may have to take many.
        if self.children.len() >= 4 * CHILDREN_MAX as usize {
            return Err(Violation::Children);
        }
        self.children.insert(link, Child::new(rank));
        Ok(())
    }

    /// Takes a child away and its pins back. Whether it was one.
    pub(crate) fn down(&mut self, link: LinkId, store: &mut impl Store) -> bool {
        let Some(child) = self.children.remove(&link) else { return false };
        for (extent, _) in child.leases.into_values() {
            self.planted.unpin(extent, store);
        }
        true
    }

    pub(crate) fn ranks(&self) -> impl Iterator<Item = (LinkId, Rank)> {
        self.children.iter().map(|(&link, child)| (link, child.rank))
    }

    pub(crate) fn rank_of(&self, link: LinkId) -> Option<Rank> {
        self.children.get(&link).map(|child| child.rank)
    }

    /// A parent asks what this rank holds: it is answered as a child is.
    pub(crate) fn answer_parent(&mut self, link: LinkId, rank: Rank) {
        self.children.entry(link).or_insert_with(|| Child::new(rank));
    }

    pub(crate) fn leases_open(&self) -> usize {
        self.children.values().map(|child| child.leases.len()).sum()
    }

    /// When [`Children::overdue`] is to be asked next.
    pub(crate) fn look_due(&self) -> Option<Tick> {
        self.look
    }

    /// Children that hold a lease for longer than they can need it.
    pub(crate) fn overdue(&mut self, now: Tick) -> Vec<LinkId> {
        if self.look.is_none_or(|look| look > now) {
            return Vec::new();
        }
        let is_over =
            |child: &Child| child.leases.values().any(|&(_, since)| since + LEASE_BOUND <= now);
        let over = self.children.iter().filter(|(_, child)| is_over(child));
        let mut over: Vec<LinkId> = over.map(|(&link, _)| link).collect();
        over.sort_unstable();
        let open = self.children.values().any(|child| !child.leases.is_empty());
        self.look = open.then_some(now + LEASE_LOOK);
        over
    }

    /// A child is done with leases, of so many bytes.
    pub(crate) fn on_done(
        &mut self,
        link: LinkId,
        leases: &[LeaseId],
        store: &mut impl Store,
    ) -> Result<u64, Violation> {
        let child = self.children.get_mut(&link).ok_or(Violation::WrongDirection)?;
        let mut bytes = 0;
        for lease in leases {
            let (extent, _) = child.leases.remove(lease).ok_or(Violation::Lease)?;
            bytes += u64::from(extent.len);
            self.planted.unpin(extent, store);
        }
        Ok(bytes)
    }

    /// A child asks.
    pub(crate) fn on_ask(&mut self, link: LinkId, request: RequestId) -> Result<(), Violation> {
        let child = self.children.get_mut(&link).ok_or(Violation::WrongDirection)?;
        if !child.has_credit() {
            return Err(Violation::Credits);
        }
        if child.questions.insert(request) { Ok(()) } else { Err(Violation::RequestInUse) }
    }

    /// Closes a child's question; false if the child, and so the question, is gone.
    pub(crate) fn answered(&mut self, link: LinkId, request: RequestId) -> bool {
        let child = self.children.get_mut(&link);
        child.is_some_and(|child| child.questions.remove(&request))
    }

    /// How a held object is handed to a child: inside the answer if it is small, else on lease.
    pub(crate) fn offer(
        &mut self,
        link: LinkId,
        held: Held,
        now: Tick,
        store: &mut impl Store,
    ) -> Reply {
        let Held { extent, checksum } = held;
        if extent.len <= INLINE_BYTES_MAX {
            return Reply::Inline { len: extent.len, checksum };
        }
        if !self.planted.has(Bug::LeaseIgnored) {
            store.pin(extent);
        }
        let child = self.children.get_mut(&link).expect("the caller has closed its question");
        let lease = child.lease(extent, now);
        self.look.get_or_insert(now + LEASE_LOOK);
        Reply::Grant { lease, offset: extent.offset, len: extent.len, checksum }
    }
}
