//! One rank of a tree that a bench has formed: what a daemon joins, without the mount.

use std::net::{IpAddr, TcpListener};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use copper_cache::Budget;
use copper_engine::inodes::Inodes;
use copper_engine::{EngineView, Queue, Settings as EngineSettings};
use copper_launcher::{
    Job, Offer, Pace, Peers, Rendezvous, Secret, Settings as RendezvousSettings,
};
use copper_ofi::{Arena, Filled, Filling, Net, Network};
use copper_proto::node::SourceUse;
use copper_proto::{FilePolicy, Forest, Rank};

use super::fetcher::Fetcher;
use super::orders::{Driver, Join};
use super::raw::RawThread;
use super::synthetic::Synthetic;
use crate::arena::RankArena;
use crate::daemon::engine_thread::EngineThread;
use crate::daemon::{End, Links, network_settings, rendezvous_version};
use crate::fabric::RankFabric;
use crate::sleeper::Sleeper;

/// How long the parent may take to answer.
const READY_BOUND: Duration = Duration::from_secs(60);

/// How often a rank that waits for it looks.
const PARENT_POLL: Duration = Duration::from_millis(20);

/// How long the engine's thread may take to end.
const END_BOUND: Duration = Duration::from_secs(5);

/// What a member is made of, the same for all trees of a bench.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) rank: Rank,
    pub(super) peers: Peers,
    pub(super) listener: TcpListener,
    pub(super) secret: Secret,
    pub(super) net: Net,
    pub(super) bind: Option<IpAddr>,
}

/// What drives the fabric.
pub(super) enum Driving {
    Engine { thread: EngineThread, fetcher: Arc<Fetcher> },
    Raw(RawThread),
}

/// A rank that has its parent.
pub(super) struct Member {
    pub(super) driving: Driving,
    pub(super) provider: String,
    rendezvous: Rendezvous,
    _ended: Receiver<End>,
}

impl Member {
    /// Joins the tree; returns when the parent has answered.
    pub(super) fn join(place: &Place, join: Join) -> anyhow::Result<Member> {
        let size = NonZeroU32::new(join.ranks).context("a tree has a rank")?;
        let fanout = NonZeroU32::new(join.fanout).context("a tree has children")?;
        let forest =
            Forest::new(size, fanout, NonZeroU32::MIN).context("the fan-out is too large")?;
        let arena = Arena::map(usize::try_from(join.memory_bytes)?)?;
        // All pages now: what the kernel takes to clear them is not what is measured.
        arena.prepare(0, arena.len());
        if join.driver == Driver::Raw {
            arena.take(0, arena.len()).as_mut().fill(1);
        }
        let children = forest.children_count(place.rank);
        let settings = network_settings(place.net.clone(), place.bind, children, 1);
        let network = Network::open(&settings, &arena)?;
        let provider = network.provider().to_owned();
        let offer = Offer {
            fabric_address: network.address().to_vec(),
            provider: provider.clone(),
            region_key: network.region_key(),
            region_base: network.region_base(),
            arena_bytes: join.memory_bytes,
        };
        let sleeper = Sleeper::new().context("cannot make the engine's descriptors")?;
        let queue = Arc::new(Queue::new(Box::new(sleeper.bell())));
        let spin = Duration::from_micros(join.spin_us.into());
        let (ends, ended) = sync_channel(16);
        let (driving, control) = match join.driver {
            Driver::Engine => {
                let (settings, fetcher) = engine(arena, &forest, place.rank, &queue);
                let (fabric, source) = (RankFabric::new(network), Synthetic::<Filling>::default());
                let thread =
                    EngineThread::start(settings, fabric, source, sleeper, spin, ends.clone())?;
                let control = thread.control();
                (Driving::Engine { thread, fetcher }, control)
            }
            Driver::Raw => {
                let queue = Arc::clone(&queue);
                let rank = place.rank.0;
                let thread = RawThread::start(network, arena, rank, queue, sleeper, spin)?;
                let control = thread.control();
                (Driving::Raw(thread), control)
            }
        };
        // Nobody refreshes a bench: what is begun here is not told to anybody.
        let links =
            Links { control, queue, ends, refreshing: Arc::default(), report: Box::new(Vec::new) };
        let rendezvous = meet(place, join, forest, offer, links)?;
        let member = Member { driving, provider, rendezvous, _ended: ended };
        member.wait_for_parent()?;
        Ok(member)
    }

    fn wait_for_parent(&self) -> anyhow::Result<()> {
        let until = Instant::now() + READY_BOUND;
        while !self.rendezvous.has_parent_within(PARENT_POLL)? {
            if Instant::now() > until {
                bail!("the parent does not answer");
            }
        }
        self.rendezvous.set_ready();
        Ok(())
    }

    pub(super) fn leave(self) {
        self.rendezvous.stop();
        match self.driving {
            Driving::Engine { thread, .. } => thread.stop(END_BOUND),
            Driving::Raw(thread) => thread.stop(),
        }
    }
}

fn engine(
    arena: Arena,
    forest: &Forest,
    rank: Rank,
    queue: &Arc<Queue>,
) -> (EngineSettings<RankArena>, Arc<Fetcher>) {
    let inodes = Arc::new(Inodes::<Filled>::default());
    let fetcher = Arc::new(Fetcher::default());
    fetcher.set_view(EngineView::new(Arc::clone(&inodes), Arc::clone(queue)));
    let source_use = if forest.has_root(rank) { SourceUse::Root } else { SourceUse::Never };
    let settings = EngineSettings {
        source_uses: vec![source_use],
        files: FilePolicy::default(),
        budget: Budget::around(arena.len() as u64),
        memory: RankArena(arena),
        inodes,
        queue: Arc::clone(queue),
        answers: Arc::clone(&fetcher) as _,
        spill: None,
        counters: Arc::default(),
        recorder: Arc::default(),
        refreshed: Box::new(|_| {}),
        // No kernel holds any.
        forget: Box::new(|_, _| {}),
        // A link that is lost fails the bench, by its bound.
        broken: Box::new(|_| {}),
    };
    (settings, fetcher)
}

fn meet(
    place: &Place,
    join: Join,
    forest: Forest,
    offer: Offer,
    links: Links,
) -> anyhow::Result<Rendezvous> {
    let peers = (0..join.ranks).map(|rank| place.peers.resolve(Rank(rank)));
    let settings = RendezvousSettings {
        version: rendezvous_version(),
        rank: place.rank,
        forest,
        peers: Peers::from_addresses(peers.collect::<Result<Vec<_>, _>>()?),
        listener: place.listener.try_clone()?,
        secret: place.secret.clone(),
        // A late call from the tree before is refused.
        job: Job::parse(&format!("bench-{}", join.number))?,
        offer,
        ready_timeout: READY_BOUND,
        pace: Pace::default(),
    };
    Ok(Rendezvous::start(settings, Arc::new(links))?)
}
