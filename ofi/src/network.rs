//! Everything of the fabric that one engine thread owns, opened in order and closed in order.
//!
//! Opening: fabric, domain, queue and vector, endpoint enabled, then regions, then receives.
//! Closing: a region bound to the endpoint before it (else EBUSY), the endpoint, other regions,
//! then what the endpoint was bound to; buffers of operations that were still under way return
//! only when the endpoint is closed and the provider can no longer touch them.

use std::cell::Cell;
use std::collections::VecDeque;
use std::ffi::{c_int, c_void};
use std::marker::PhantomData;
use std::mem;
use std::net::IpAddr;
use std::os::fd::BorrowedFd;
use std::ptr;
use std::rc::Rc;

use slab::Slab;
use tracing::{debug, warn};

use crate::address_vector::AddressVector;
use crate::arena::Arena;
use crate::completion::CompletionQueue;
use crate::context::{Contexts, Counts};
use crate::domain::Domain;
use crate::endpoint::Endpoint;
use crate::error::{Errno, Error};
use crate::fabric::Fabric;
use crate::hints::{self, Depth};
use crate::message::{Messages, PhysicalPages};
use crate::mode::Mode;
use crate::net::{Net, environment};
use crate::peers::{Peer, Peers};
use crate::region::{self, Memory, Region};
use crate::transfer::{PostedRead, PostedSend};

/// What to open. Every count bounds operations under way at once.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Which provider and domain.
    pub net: Net,
    /// Receive buffers that stay posted: at least as many as all peers together may have
    /// messages under way to us, for CXI does not forgive unexpected ones.
    pub receives: usize,
    /// Sends under way.
    pub sends: usize,
    /// Reads under way.
    pub reads: usize,
    /// The longest message. Below CXI's rendezvous threshold (16 KiB by default), so that a
    /// message needs no second round.
    pub message_bytes_max: usize,
    /// The local address to use, for providers with Internet addresses; the provider chooses when
    /// there is none. Others ignore it.
    pub bind: Option<IpAddr>,
}

/// An open network: peers, messages both ways, and reads of peers' arenas. One thread owns it; it
/// can be moved to another, not shared.
pub struct Network {
    pub(crate) endpoint: Endpoint,
    region: Option<Region>,
    message_region: Option<Region>,
    pub(crate) completion: Rc<CompletionQueue>,
    pub(crate) peers: Peers,
    pub(crate) fabric: Rc<Fabric>,
    mode: Mode,
    address: Vec<u8>,
    has_text_addresses: bool,
    pub(crate) region_key: u64,
    pub(crate) operation_bytes_max: usize,
    pub(crate) counts: Counts,
    pub(crate) contexts: Rc<Contexts>,
    pub(crate) messages: Rc<Messages>,
    /// Receive buffers that we hold: to be posted (again).
    pub(crate) unposted: VecDeque<usize>,
    pub(crate) receives_failed: u64,
    pub(crate) sends: Slab<PostedSend>,
    pub(crate) reads: Slab<PostedRead>,
    pub(crate) arena: Arena,
    /// FI_THREAD_DOMAIN: `&Network` makes calls too (`may_block`), so it is not for two threads.
    _unshared: PhantomData<Cell<()>>,
}

// SAFETY: Send demands that the owner may change threads:
// - libfabric's objects are not tied to threads; FI_THREAD_DOMAIN demands that one thread at a
//   time calls, and calls take the network, which one thread at a time owns (it is not Sync);
// - each `Rc` here has all of its clones in this very value, and moves with them: none is handed
//   out.
unsafe impl Send for Network {}

impl Network {
    /// Opens the network, registers `arena` for peers to read, and posts the receives.
    ///
    /// Where the provider wants physical pages at registration (CXI), all of the arena gets them
    /// now; on kernels before 5.14 no piece of it may be taken then.
    ///
    /// # Errors
    /// What is not there or not possible, and what to do about it.
    pub fn open(settings: &Settings, arena: &Arena) -> Result<Network, Error> {
        Network::open_demanding(settings, arena, 0)
    }

    /// Obeys `more` bits of `mr_mode` besides the provider's own.
    fn open_demanding(settings: &Settings, arena: &Arena, more: c_int) -> Result<Network, Error> {
        let counts = settings.counts()?;
        let depth = Depth { transmit: counts.sends + counts.reads, receive: counts.receives };
        let mut info = hints::find(&settings.net, settings.bind, depth)?;
        let mode = info.mode(more)?;
        let operation_bytes_max = info.operation_bytes_max();
        if settings.message_bytes_max > operation_bytes_max {
            return Err(Error::TooMany {
                provider: info.provider(),
                what: "message_bytes_max",
                asked: settings.message_bytes_max,
                most: operation_bytes_max,
            });
        }
        let fabric = Fabric::open(&mut info)?;
        warn_of_environment(&fabric);
        let domain = Domain::open(&fabric, &info)?;
        let completion = CompletionQueue::open(&domain, counts.total())?;
        let vector = AddressVector::open(&domain, &info)?;
        let endpoint = Endpoint::open(&domain, &info, &completion, &vector)?;
        let address = endpoint.address()?;

        let buffers = counts.receives + counts.sends;
        let pages = if mode.physical_pages {
            arena.populate()?;
            PhysicalPages::Now
        } else {
            PhysicalPages::WhenTouched
        };
        let messages = Rc::new(Messages::map(buffers, settings.message_bytes_max, pages)?);
        let key = region::key_wish(info.key_bytes());
        let register = |memory, key| Region::register(&domain, &endpoint, mode, memory, key);
        let region = register(Memory::Arena(arena.clone()), key)?;
        let message_region = mode
            .local_descriptors
            .then(|| register(Memory::Messages(Rc::clone(&messages)), key + 1))
            .transpose()?;

        let mut network = Network {
            endpoint,
            region_key: region.key(),
            region: Some(region),
            message_region,
            completion,
            peers: Peers::new(vector),
            mode,
            address,
            has_text_addresses: info.has_text_addresses(),
            operation_bytes_max,
            counts,
            contexts: Rc::new(Contexts::new(counts)),
            messages,
            unposted: (0..counts.receives).collect(),
            receives_failed: 0,
            sends: Slab::with_capacity(counts.sends),
            reads: Slab::with_capacity(counts.reads),
            arena: arena.clone(),
            fabric,
            _unshared: PhantomData,
        };
        network.post_receives()?;
        debug!(
            provider = network.provider(),
            domain = network.domain_name(),
            ?mode,
            waits = network.wait_descriptor().is_some(),
            "network open"
        );
        Ok(network)
    }

    /// The provider in use.
    pub fn provider(&self) -> &str {
        self.fabric.provider()
    }

    /// The domain in use.
    pub fn domain_name(&self) -> &str {
        self.fabric.domain_name()
    }

    /// What a peer [inserts](Network::insert_peer) to reach this network. Opaque; some 8 to 100
    /// bytes.
    pub fn address(&self) -> &[u8] {
        &self.address
    }

    /// What a peer names in [`Remote::key`](crate::Remote) to read the arena.
    pub fn region_key(&self) -> u64 {
        self.region_key
    }

    /// What a peer adds to an offset into the arena to get
    /// [`Remote::address`](crate::Remote): 0, or with FI_MR_VIRT_ADDR the virtual address.
    pub fn region_base(&self) -> u64 {
        if self.mode.virtual_addresses { self.arena.base().as_ptr().addr() as u64 } else { 0 }
    }

    /// Makes a peer known by its [`address`](Network::address).
    ///
    /// # Errors
    /// [`Error::Address`] for what cannot be an address of this provider; [`Error::Call`] for
    /// what the provider refuses.
    pub fn insert_peer(&mut self, address: &[u8]) -> Result<Peer, Error> {
        let expected = self.address.len();
        if address.is_empty() || (!self.has_text_addresses && address.len() != expected) {
            let on = self.fabric.name();
            return Err(Error::Address { on, len: address.len(), expected });
        }
        self.peers.insert(address)
    }

    /// Forgets a peer. Operations under way to it go on, and it leaves libfabric's table when the
    /// last one has ended; new ones are refused.
    ///
    /// # Errors
    /// [`Error::Call`] if it is not there, or the provider refuses.
    pub fn remove_peer(&mut self, peer: Peer) -> Result<(), Error> {
        if self.peers.remove(peer)? {
            Ok(())
        } else {
            Err(self.fabric.failed("fi_av_remove")(Errno::INVALID))
        }
    }

    /// A descriptor that is readable when there may be something to [`poll`](Network::poll), if
    /// the provider has one (shm has not): for epoll, after [`may_block`](Network::may_block)
    /// said yes, and with a time-out of at most 100 ms, for a wake-up may be missed. Without one
    /// the caller polls by the clock.
    pub fn wait_descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.completion.descriptor()
    }

    /// Whether it is safe to block on the descriptor now (fi_trywait): nothing is waiting that it
    /// would not tell of. To be asked before each wait.
    pub fn may_block(&self) -> bool {
        self.unposted.is_empty() && self.completion.may_wait()
    }

    /// Reads that were posted and whose completion was not reaped.
    pub fn outstanding_reads(&self) -> usize {
        self.reads.len()
    }

    /// Sends that were posted and whose completion was not reaped.
    pub fn outstanding_sends(&self) -> usize {
        self.sends.len()
    }

    /// Receives that ended in an error, such as a message longer than the buffer. Each was logged
    /// and its buffer posted again.
    pub fn receives_failed(&self) -> u64 {
        self.receives_failed
    }

    /// The region's descriptor, for reads that end in the arena.
    pub(crate) fn arena_descriptor(&self) -> *mut c_void {
        self.region.as_ref().map_or(ptr::null_mut(), Region::descriptor)
    }

    /// The message buffers' descriptor.
    pub(crate) fn message_descriptor(&self) -> *mut c_void {
        self.message_region.as_ref().map_or(ptr::null_mut(), Region::descriptor)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        if self.mode.bound_to_endpoint {
            self.region = None;
            self.message_region = None;
        }
        if self.endpoint.close().is_err() {
            // The provider may still touch what was posted: it keeps all of that for ever.
            mem::forget(mem::take(&mut self.reads));
            mem::forget(Rc::clone(&self.contexts));
            mem::forget(Rc::clone(&self.messages));
        }
        self.region = None;
        self.message_region = None;
        // Vector, queue, domain and fabric close as their last holders drop.
    }
}

impl Settings {
    fn counts(&self) -> Result<Counts, Error> {
        for (what, value) in [
            ("receives", self.receives),
            ("sends", self.sends),
            ("reads", self.reads),
            ("message_bytes_max", self.message_bytes_max),
        ] {
            if value == 0 {
                return Err(Error::Zero { what });
            }
        }
        Ok(Counts { receives: self.receives, sends: self.sends, reads: self.reads })
    }
}

/// libfabric read these when it was loaded; setting them now would do nothing.
fn warn_of_environment(fabric: &Fabric) {
    if fabric.provider() != "cxi" {
        return;
    }
    for (name, value) in environment(&"cxi".parse().expect("a provider's name")) {
        if std::env::var_os(name).is_none() {
            warn!(name, wanted = value, "not set in the environment of a daemon on cxi");
        }
    }
}

#[cfg(test)]
mod tests;
