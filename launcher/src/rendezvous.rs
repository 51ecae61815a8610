//! A rank's place in the trees over TCP: it listens for its children, dials its parent in each tree
//! that it is not the root of, proves itself and has them prove themselves, and keeps each connection as the link's control channel.
//!
//! One thread owns everything (the service); it never blocks on a peer. Deciding is done by
//! pure parts: [`crate::handshake`] (who is it), the ascent (whom to dial), and
//! [`crate::control`] (is it alive). What happens is told to an [`Events`].
//!
//! A parent announces a child ([`Events::child_up`]) before it sends the welcome, so that the
//! child's first fabric message finds its address known.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixStream;
use std::sync::atomic::Ordering::AcqRel;
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use copper_proto::{Dropped, Epoch, Forest, LinkId, Rank, Scope, TreeIndex, ViewPath};

use crate::control::Pace;
use crate::counters::RendezvousCounters;
use crate::gather::{GATHER_BOUND, GatherError, GatherResult};
use crate::handshake::{FABRIC_ADDRESS_BYTES_MAX, Identity, Offer, PROVIDER_BYTES_MAX, PeerHello};
use crate::job::Job;
use crate::peers::{Peers, PeersError};
use crate::readiness::Progress;
use crate::refresh::{REFRESH_BOUND, RefreshError, RefreshResult, RunId};
use crate::refusal::HandshakeError;
use crate::secret::Secret;
use crate::service::{Command, Join, Order, Service, Shared};

/// What a rendezvous needs to know.
#[derive(Debug)]
pub struct Settings {
    /// [`crate::PROTOCOL_VERSION`], or a number that binds more than the handshake to it.
    pub version: u16,
    /// This rank.
    pub rank: Rank,
    /// The job's trees.
    pub forest: Forest,
    /// Where every rank listens.
    pub peers: Peers,
    /// Where this rank listens.
    pub listener: TcpListener,
    /// The job's secret.
    pub secret: Secret,
    /// The job.
    pub job: Job,
    /// How others reach this rank over the fabric.
    pub offer: Offer,
    /// How long the parent may take to appear at the start.
    pub ready_timeout: Duration,
    /// How often, how long.
    pub pace: Pace,
}

/// A link that is up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkUp {
    /// Its number, unlike any other in this daemon's life.
    pub link: LinkId,
    /// The other end, and the tree.
    pub peer: PeerHello,
}

/// On whom a rank hangs in one tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hanging {
    /// The tree.
    pub tree: TreeIndex,
    /// `None` while there is nobody.
    pub parent: Option<Rank>,
    /// Which parent was lost last, and why; `None` if none was.
    pub lost: Option<String>,
    /// Whether nobody has answered for so long that this rank has to do without.
    pub orphaned: bool,
}

/// Told what happens, from the rendezvous' own thread: heartbeats wait for the return, so it hands
/// the news over and comes back.
pub trait Events: Send + Sync {
    /// A child (or a rank further below whose parents are lost) has joined. If it had a link in
    /// that tree already, that was reported down before.
    fn child_up(&self, link: LinkUp);
    /// This rank has a parent in a tree, for the first time or again.
    fn parent_up(&self, link: LinkUp);
    /// A link is gone, with the reason for a log.
    fn link_down(&self, link: LinkId, reason: &str);
    /// Nobody above in a tree has answered for longer than [`Pace::orphan`], or [`Pace::takeover`] for
    /// a rank that may take the root's place; said once for each
    /// parent that is lost. The search goes on: `parent_up` ends it.
    fn orphaned(&self, tree: TreeIndex, reason: &str);
    /// A parent asks this rank to end; it has been passed on to the children. Said once.
    fn shutdown(&self);
    /// The source is to be looked at anew. The reply is to be told what comes of it, in order.
    fn refresh(&self, epoch: Epoch, scope: Scope, reply: RefreshReply);
    /// What this rank says of itself to who asks for the whole job: at most
    /// [`crate::gather::REPORT_BYTES_MAX`].
    fn report(&self) -> Vec<u8>;
}

/// Where a rank says how far it has come with a refresh. Dropped, it says nothing, and the rank
/// counts as one that has not answered.
#[derive(Debug)]
pub struct RefreshReply {
    pub(crate) shared: Arc<Shared>,
    pub(crate) run: RunId,
}

impl RefreshReply {
    /// This rank gives its children nothing any more that the refresh covers: they may be told.
    pub fn dropped(&self) {
        self.shared.order(Order::Dropped(self.run));
    }

    /// And it shows nothing of that to its readers any more.
    pub fn done(self, dropped: Dropped) {
        self.shared.order(Order::Done(self.run, dropped));
    }
}

/// A running rendezvous.
#[derive(Debug)]
pub struct Rendezvous {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
    address: SocketAddr,
    rank: Rank,
    depth: u32,
}

impl Rendezvous {
    /// Starts listening and dialling, in a thread of its own, and returns at once. `events` is
    /// called from that thread only.
    ///
    /// # Errors
    /// If the settings do not fit each other, or the host of an ancestor is unknown.
    pub fn start(
        settings: Settings,
        events: Arc<dyn Events>,
    ) -> Result<Rendezvous, RendezvousError> {
        let (rank, size) = (settings.rank, settings.forest.size());
        if rank.0 >= size {
            return Err(RendezvousError::NotAMember { rank, size });
        }
        if settings.peers.len() != size as usize {
            return Err(RendezvousError::PeersCount { peers: settings.peers.len(), size });
        }
        if settings.offer.fabric_address.len() > FABRIC_ADDRESS_BYTES_MAX
            || settings.offer.provider.len() > PROVIDER_BYTES_MAX
        {
            return Err(RendezvousError::Offer);
        }
        let depth = depth_of(&settings.forest);
        let mut addresses = HashMap::new();
        let mut ways = Vec::new();
        for (index, tree) in settings.forest.trees() {
            let candidates: Vec<Rank> = tree.candidates(rank).collect();
            let ancestors = tree.ancestors(rank).count();
            // The others are needed where a root is lost: most never are.
            for &ancestor in &candidates[..ancestors] {
                if let Entry::Vacant(vacant) = addresses.entry(ancestor) {
                    vacant.insert(settings.peers.resolve(ancestor)?);
                }
            }
            if !candidates.is_empty() {
                ways.push((index, candidates, ancestors));
            }
        }
        let failed = |source| RendezvousError::System { rank, source };
        let address = settings.listener.local_addr().map_err(failed)?;
        settings.listener.set_nonblocking(true).map_err(failed)?;
        let (waker, wake) = UnixStream::pair().map_err(failed)?;
        waker.set_nonblocking(true).map_err(failed)?;
        wake.set_nonblocking(true).map_err(failed)?;
        let shared = Arc::new(Shared::new(waker));
        let identity = Identity {
            version: settings.version,
            job: settings.job,
            rank,
            forest: settings.forest,
            secret: settings.secret,
            offer: settings.offer,
        };
        let service = Service::new(
            Arc::new(identity),
            settings.listener,
            wake,
            Arc::clone(&shared),
            events,
            settings.pace,
            (addresses, settings.peers),
            ways,
            settings.ready_timeout,
        );
        let thread = std::thread::Builder::new()
            .name("rendezvous".to_owned())
            .spawn(move || service.run())
            .map_err(failed)?;
        Ok(Rendezvous { shared, thread: Mutex::new(Some(thread)), address, rank, depth })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits until this rank has its parent in each tree that it is not the root of. Returns within the
    /// `ready_timeout` of the settings, or when another thread calls [`Rendezvous::stop`].
    ///
    /// # Errors
    /// Why it could not join: the last reason before the time was up, or the first that cannot go
    /// away by waiting. A second call after an error says [`RendezvousError::Stopped`].
    pub fn wait_for_parent(&self) -> Result<(), RendezvousError> {
        while !self.has_parent_within(Duration::from_secs(60))? {}
        Ok(())
    }

    /// The same, for `bound` at most: false if it was not decided by then. For a daemon that has
    /// other reasons to end meanwhile.
    ///
    /// # Errors
    /// As [`Rendezvous::wait_for_parent`].
    pub fn has_parent_within(&self, bound: Duration) -> Result<bool, RendezvousError> {
        let pending = |join: &mut Join| matches!(join, Join::Pending);
        let join = self.shared.join.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.shared.joined.wait_timeout_while(join, bound, pending);
        let (mut join, _) = waited.unwrap_or_else(PoisonError::into_inner);
        match &*join {
            Join::Pending => Ok(false),
            Join::Joined => Ok(true),
            Join::Failed(_) | Join::Stopped => match std::mem::replace(&mut *join, Join::Stopped) {
                Join::Failed(error) => Err(*error),
                Join::Pending | Join::Joined | Join::Stopped => Err(RendezvousError::Stopped),
            },
        }
    }

    /// This rank's mount answers: counted here and all the way up.
    pub fn set_ready(&self) {
        self.shared.command(Command::SET_READY);
    }

    /// Ranks at or below this one in the first tree that are ready; at its root, of the whole job.
    pub fn ready_ranks(&self) -> u32 {
        self.progress().ready
    }

    /// How far this rank and all below it in the first tree have come; at its root, the whole job.
    pub fn progress(&self) -> Progress {
        self.shared.progress.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Ranks at or below this one that are not ready, in order: as many as are named.
    pub fn missing(&self) -> Vec<Rank> {
        self.progress().missing
    }

    /// Links between the root of the first tree and the rank that is furthest from it.
    pub fn depth(&self) -> u32 {
        self.depth
    }

    /// On whom this rank hangs, in each tree that it is not the root of.
    pub fn hangs_on(&self) -> Vec<Hanging> {
        self.shared.hangs_on.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Has every rank of the job look at the source anew, at and below a path; waits until all have
    /// answered, or for the bound of a refresh.
    ///
    /// # Errors
    /// If the root cannot be told.
    pub fn refresh(&self, path: ViewPath) -> RefreshResult {
        let (sender, receiver) = sync_channel(1);
        self.shared.order(Order::Refresh(path, sender));
        // The thread answers within the bound; if it has ended, nobody is there to be told.
        let unheard = RefreshError::Unheard { rank: self.rank };
        receiver.recv_timeout(2 * REFRESH_BOUND).unwrap_or(Err(unheard))
    }

    /// How every rank of the job is, as far as they answer in time.
    ///
    /// # Errors
    /// If the root cannot be asked.
    pub fn gather(&self) -> GatherResult {
        let (sender, receiver) = sync_channel(1);
        self.shared.order(Order::Status(sender));
        // As above.
        let unheard = GatherError::Unheard { rank: self.rank };
        receiver.recv_timeout(2 * GATHER_BOUND).unwrap_or(Err(unheard))
    }

    /// What came over a link's fabric broke the protocol: its control channel is closed, so that both
    /// sides know that it is gone. If it led to a parent, other ancestors are tried first. A link that
    /// is gone already is no matter.
    pub fn break_link(&self, link: LinkId) {
        self.shared.order(Order::Break(link));
    }

    /// Asks everybody below to end. Nobody answers: whoever is not reached is ended by other means.
    pub fn shutdown_children(&self) {
        self.shared.command(Command::SHUTDOWN_CHILDREN);
    }

    /// The counters as of now.
    pub fn counters(&self) -> RendezvousCounters {
        self.shared.counters.read()
    }

    /// Closes every connection and ends the thread; no event comes after it. What was commanded
    /// before is done before. Called by an event, it does not wait for the thread, which is the
    /// caller.
    pub fn stop(&self) {
        self.shared.command(Command::STOP);
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(thread) = thread else { return };
        if thread.thread().id() != std::thread::current().id() {
            // A panic of the thread was reported where it happened.
            let _ = thread.join();
        }
    }
}

fn depth_of(forest: &Forest) -> u32 {
    let tree = forest.tree(TreeIndex(0)).expect("every job has this one");
    // Ranks are numbered from the root of the first tree on, level by level.
    let above = tree.ancestors(Rank(forest.size() - 1)).count();
    u32::try_from(above).expect("fewer than ranks")
}

impl Drop for Rendezvous {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    fn command(&self, command: Command) {
        // Release: pairs with the Acquire in `Service::obey`.
        self.commands.fetch_or(command.0, AcqRel);
        self.wake();
    }

    /// For the service's thread, in order. Bounded by the refreshes that may be under way, and by the
    /// links, of which each is broken once.
    pub(crate) fn order(&self, order: Order) {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner).push(order);
        self.wake();
    }
}

/// Why a rank is not part of the tree.
#[derive(Debug, thiserror::Error)]
pub enum RendezvousError {
    /// The rank is too large.
    #[error("rank {rank} is not one of {size} ranks, which are numbered from 0")]
    NotAMember {
        /// This rank.
        rank: Rank,
        /// Number of ranks.
        size: u32,
    },
    /// The list of hosts does not fit.
    #[error("there are addresses for {peers} ranks, but the job has {size} ranks")]
    PeersCount {
        /// Addresses.
        peers: usize,
        /// Ranks.
        size: u32,
    },
    /// The fabric's own names are too long for a handshake.
    #[error(
        "the fabric address or the provider's name is longer than {FABRIC_ADDRESS_BYTES_MAX} or \
         {PROVIDER_BYTES_MAX} bytes, the most that ranks can tell each other"
    )]
    Offer,
    /// An ancestor cannot be found.
    #[error(transparent)]
    Peers(#[from] PeersError),
    /// The operating system refused something that it always grants.
    #[error("rank {rank}: cannot start listening for other ranks")]
    System {
        /// This rank.
        rank: Rank,
        /// Why.
        source: io::Error,
    },
    /// Nobody there.
    #[error(
        "rank {rank}: parent rank {parent} at {address} does not answer ({reason}) within {} s: \
         look at the log of rank {parent}",
        waited.as_secs_f32()
    )]
    NoParent {
        /// This rank.
        rank: Rank,
        /// Its parent.
        parent: Rank,
        /// Where that should be.
        address: SocketAddr,
        /// How the last attempt failed.
        reason: String,
        /// How long it was tried.
        waited: Duration,
    },
    /// Somebody there, but not for us.
    #[error("rank {rank}: cannot join parent rank {parent} at {address}")]
    Refused {
        /// This rank.
        rank: Rank,
        /// Its parent.
        parent: Rank,
        /// Where that is.
        address: SocketAddr,
        /// Why.
        source: HandshakeError,
    },
    /// The rendezvous was stopped first.
    #[error("the rendezvous was stopped before this rank had a parent")]
    Stopped,
}
