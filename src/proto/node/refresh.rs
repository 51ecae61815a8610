//! Refreshes: the source has changed, and what was read before is not to be shown any more.
//!
//! The root takes a refresh in first, then its children, and so on. What is under way at that moment
//! may carry what the source said before: it ends as it would, is thrown away, and begins again.
//!
//! Each question carries the number of refreshes that the child has taken in. A parent that has
//! missed one of them (it had stopped, and its children have come from a parent that had not; or in
//! another tree it is told later than they) cannot know what it was about, and forgets everything
//! before it answers. So no order in which ranks are told can show what is older than a refresh to
//! somebody who asks after it. All of it is one for all trees of a rank: see
//! [`Member`](crate::Member).

use super::Node;
use crate::errno::Errno;
use crate::fetch::{FetchId, State};
use crate::ids::{Epoch, LinkId};
use crate::scope::Scope;
use crate::serve::Violation;
use crate::store::Store;
use crate::tick::Tick;
use crate::wire::Reply;

impl Node {
    /// A refresh takes effect: what is under way and covered has been asked for too early.
    pub(crate) fn refresh(&mut self, epoch: Epoch, scope: &Scope) {
        self.epoch = self.epoch.max(epoch);
        self.fetches.outdate(scope);
    }

    /// What has come for a fetch is older than a refresh.
    pub(super) fn ask_again(&mut self, id: FetchId, now: Tick, store: &mut impl Store) {
        self.counters.outdated += 1;
        let fetch = self.fetches.get_mut(id).expect("the caller has looked it up");
        if fetch.has_waiters() {
            self.fetches.set(id, State::Queued);
        } else {
            self.complete(id, Err(Errno::ESTALE), now, store);
        }
    }

    /// What was asked before a refresh has been answered.
    pub(super) fn on_outdated_reply(
        &mut self,
        link: LinkId,
        id: FetchId,
        reply: Reply,
        now: Tick,
        store: &mut impl Store,
    ) -> Result<(), Violation> {
        if let Reply::Grant { lease, .. } = reply
            && let Some(asked) = self.asked(link)
        {
            asked.lease_opened();
            asked.lease_done(lease, now);
        }
        self.ask_again(id, now, store);
        Ok(())
    }
}
