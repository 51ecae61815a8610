//! The engine's way back to the rendezvous, which is started after it and tells it of all links.

use std::sync::{Arc, OnceLock, Weak};

use copper_launcher::Rendezvous;
use copper_proto::LinkId;

/// Closes links that the engine does not want any more.
#[derive(Clone, Debug, Default)]
pub(super) struct LinkBreaker {
    rendezvous: Arc<OnceLock<Weak<Rendezvous>>>,
}

impl LinkBreaker {
    /// Says who has made the links.
    pub(super) fn set_rendezvous(&self, rendezvous: &Arc<Rendezvous>) {
        let _first = self.rendezvous.set(Arc::downgrade(rendezvous));
    }

    /// Has it close one. Between its first link and the moment that it is known here there is no more
    /// than its constructor's return: that is waited for.
    pub(super) fn break_link(&self, link: LinkId) {
        if let Some(rendezvous) = self.rendezvous.wait().upgrade() {
            rendezvous.break_link(link);
        }
    }
}
