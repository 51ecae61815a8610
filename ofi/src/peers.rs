//! The peers that can be named: each in the address vector until its last operation has ended.
//!
//! libfabric trusts the peer that it is given, and removing one with operations under way is
//! undefined behaviour. So this table knows which peers are in the vector, counts their
//! operations, and puts a removal off until the count is zero.

use std::collections::HashMap;
use std::rc::Rc;

use libfabric_sys as sys;
use tracing::warn;

use crate::address_vector::AddressVector;
use crate::error::Error;

/// A peer of one [`Network`](crate::Network). To another network it means nothing, or another
/// peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Peer(sys::fi_addr_t);

pub(crate) struct Peers {
    vector: Rc<AddressVector>,
    known: HashMap<sys::fi_addr_t, Known>,
}

#[derive(Default)]
struct Known {
    /// Insertions less removals: the same address may be inserted again.
    claims: usize,
    /// Removals put off.
    due: usize,
    operations: usize,
}

/// That a peer is in the vector and stays there until the operation is [ended](Peers::end).
pub(crate) struct Started {
    peer: Peer,
}

impl Started {
    pub(crate) fn raw(&self) -> sys::fi_addr_t {
        self.peer.0
    }
}

impl Peers {
    pub(crate) fn new(vector: Rc<AddressVector>) -> Peers {
        Peers { vector, known: HashMap::new() }
    }

    pub(crate) fn insert(&mut self, address: &[u8]) -> Result<Peer, Error> {
        let peer = self.vector.insert(address)?;
        self.known.entry(peer).or_default().claims += 1;
        Ok(Peer(peer))
    }

    /// Takes the peer out, at once or when its last operation has ended. False if it is not in.
    pub(crate) fn remove(&mut self, peer: Peer) -> Result<bool, Error> {
        let Some(known) = self.known.get_mut(&peer.0).filter(|known| known.claims > 0) else {
            return Ok(false);
        };
        known.claims -= 1;
        if known.operations > 0 {
            known.due += 1;
            return Ok(true);
        }
        if known.claims == 0 {
            self.known.remove(&peer.0);
        }
        // SAFETY: demands a claim that is not removed yet, and no operation: both just checked.
        unsafe { self.vector.remove(peer.0) }.map(|()| true)
    }

    /// Counts an operation, unless the peer is not in the vector, or leaving it.
    pub(crate) fn start(&mut self, peer: Peer) -> Option<Started> {
        let known = self.known.get_mut(&peer.0).filter(|known| known.claims > 0)?;
        known.operations += 1;
        Some(Started { peer })
    }

    /// The operation has ended, or was not posted.
    pub(crate) fn end(&mut self, started: Started) {
        let peer = started.peer;
        let known = self.known.get_mut(&peer.0).expect("an operation keeps its peer known");
        known.operations -= 1;
        if known.operations > 0 {
            return;
        }
        let due = std::mem::take(&mut known.due);
        if known.claims == 0 {
            self.known.remove(&peer.0);
        }
        for _ in 0..due {
            // SAFETY: demands a claim that is not removed yet, and no operation: `remove` put it
            // off, once per claim, and the last operation has ended.
            if let Err(error) = unsafe { self.vector.remove(peer.0) } {
                warn!(%error, "a peer stays in the address vector");
            }
        }
    }
}
