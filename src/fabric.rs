//! The engine's fabric: libfabric.

use std::os::fd::BorrowedFd;

use copper_engine::ports::{Fabric, FabricEvent, Failed, PeerAddress, PostError};
use copper_ofi::{Event, Filling, Network, Peer, PostError as NetworkPostError, Remote};
use copper_proto::PullId;
use tracing::{debug, error, warn};

/// Completions taken in one turn, so that questions get theirs.
const COMPLETIONS_PER_TURN: usize = 64;

/// The network of this rank.
pub(crate) struct RankFabric {
    network: Network,
}

/// How a linked rank is reached.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LinkedPeer {
    peer: Peer,
    region_key: u64,
    region_base: u64,
}

impl RankFabric {
    pub(crate) fn new(network: Network) -> RankFabric {
        RankFabric { network }
    }

    /// See [`Network::wait_descriptor`].
    pub(crate) fn wait_descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.network.wait_descriptor()
    }

    /// See [`Network::may_block`].
    pub(crate) fn may_block(&self) -> bool {
        self.network.may_block()
    }
}

impl Fabric<Filling> for RankFabric {
    type Peer = LinkedPeer;

    fn connect(&mut self, address: &PeerAddress) -> Result<LinkedPeer, Failed> {
        match self.network.insert_peer(&address.endpoint) {
            Ok(peer) => Ok(LinkedPeer {
                peer,
                region_key: address.region_key,
                region_base: address.region_base,
            }),
            Err(error) => {
                warn!(error = &error as &dyn std::error::Error, "a peer's address is refused");
                Err(Failed)
            }
        }
    }

    fn disconnect(&mut self, peer: LinkedPeer) {
        if let Err(error) = self.network.remove_peer(peer.peer) {
            debug!(error = &error as &dyn std::error::Error, "a lost peer is not removed");
        }
    }

    fn send(&mut self, peer: LinkedPeer, parts: &[&[u8]]) -> Result<(), PostError> {
        self.network.send(peer.peer, 0, parts).map_err(post_error)
    }

    fn read(
        &mut self,
        peer: LinkedPeer,
        pull: PullId,
        offset: u64,
        into: Filling,
    ) -> Result<(), (PostError, Filling)> {
        let remote = Remote { key: peer.region_key, address: peer.region_base + offset };
        let posted = self.network.read(peer.peer, pull.0.into(), remote, into);
        posted.map_err(|(error, into)| (post_error(error), into))
    }

    fn poll(&mut self, report: &mut dyn FnMut(FabricEvent<'_, Filling>)) -> usize {
        let polled = self.network.poll(COMPLETIONS_PER_TURN, |event| match event {
            Event::Received { bytes } => report(FabricEvent::Received(bytes)),
            Event::Sent { result: Ok(()), .. } => {}
            Event::Sent { result: Err(error), .. } => {
                debug!(error = &error as &dyn std::error::Error, "a message was not delivered");
                report(FabricEvent::SendFailed);
            }
            Event::Read { token, into, result } => {
                let pull = PullId(u32::try_from(token).expect("tokens are pull numbers"));
                let arrived = result.map_err(|error| {
                    debug!(error = &error as &dyn std::error::Error, "a pull failed");
                    Failed
                });
                report(FabricEvent::Read { pull, into, arrived });
            }
        });
        polled.unwrap_or_else(|error| {
            error!(error = &error as &dyn std::error::Error, "the completion queue fails");
            0
        })
    }
}

fn post_error(error: NetworkPostError) -> PostError {
    match error {
        NetworkPostError::Busy => PostError::Busy,
        NetworkPostError::TooLong { .. } | NetworkPostError::Refused(_) => {
            debug!(error = &error as &dyn std::error::Error, "not posted");
            PostError::Lost
        }
    }
}
