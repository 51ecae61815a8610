//! One rank: everything joined, started in the order that safety demands, ended in reverse.
//!
//! ```text
//! claim the mount point ─▶ guardian ─▶ arena, network ─▶ engine ─▶ rendezvous: the parent answers
//!   ─▶ mount ─▶ guardian armed, status served, record written ─▶ ready
//! … until SIGTERM, SIGINT, a shutdown from the parent, an unmount from outside, or a failure …
//!   unmount ─▶ rendezvous, engine, network ─▶ guardian dismissed ─▶ claim given back
//! ```

mod controlling;
pub(crate) mod engine_thread;
mod flights;
mod link_breaker;
mod profiles;
mod progress;
pub(crate) mod refreshing;
mod report;
mod resident;
mod signals;

use std::net::{IpAddr, TcpListener};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use anyhow::{Context, anyhow};
use copper_cache::Budget;
use copper_engine::inodes::Inodes;
use copper_engine::ports::{Control, PeerAddress, Role};
use copper_engine::{EngineView, Queue, Settings as EngineSettings};
use copper_fuse::{
    Guardian, KernelFeatures, MountOptions, Mounted, PassthroughBounds, Pending,
    Settings as FuseSettings,
};
use copper_launcher::job::{own_log, own_run};
use copper_launcher::{
    Claim, Events, Instance, Instances, Job, LinkUp, Moment, Offer, PROTOCOL_VERSION, Pace, Peers,
    Process, ReadyPipe, RefreshReply, RefreshServer, Rendezvous, Secret,
    Settings as RendezvousSettings, StatusServer,
};
use copper_ofi::{Arena, Filled, Net, Network, Settings as NetworkSettings};
use copper_proto::limits::{CREDITS, MESSAGE_BYTES_MAX, RECEIVES_PER_CHILD};
use copper_proto::node::SourceUse;
use copper_proto::topology::Tree;
use copper_proto::wire::PROTOCOL_VERSION as WIRE_VERSION;
use copper_proto::{Epoch, FilePolicy, Forest, LinkId, Rank, Scope, TreeIndex};
use tracing::{info, warn};

use crate::arena::{self, RankArena};
use crate::fabric::RankFabric;
use crate::flight::Head;
use crate::profile::{Paths, Plan as ProfilePlan, Profiler};
use crate::sleeper::Sleeper;
use crate::source::{RankSource, SourceCounters, SourceSettings};
use crate::spill::{self, SpillPlan};
use controlling::{Controller, Controlling};
use engine_thread::EngineThread;
use flights::{Flights, Scribe};
use link_breaker::LinkBreaker;
use profiles::{Profiles, Snapshots};
use refreshing::Refreshing;
use report::Reporter;

/// Whether a rank may read the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum SourceAccess {
    /// As its place in each tree demands: the root always, others when no ancestor is left.
    Direct,
    /// Never: what its readers get came over the fabric.
    None,
}

/// What a rank is told.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) rank: Rank,
    pub(crate) forest: Forest,
    pub(crate) files: FilePolicy,
    pub(crate) peers: Peers,
    pub(crate) listener: TcpListener,
    pub(crate) secret: Secret,
    pub(crate) job: Job,
    pub(crate) mount: PathBuf,
    pub(crate) launch: PathBuf,
    pub(crate) roots: Vec<PathBuf>,
    pub(crate) hidden: Vec<PathBuf>,
    pub(crate) denied: Vec<PathBuf>,
    pub(crate) memory_bytes: u64,
    pub(crate) spill: Option<SpillPlan>,
    /// Profiles of the whole run, if they are wanted.
    pub(crate) profile: Option<ProfilePlan>,
    pub(crate) net: Net,
    pub(crate) bind: Option<IpAddr>,
    pub(crate) source: SourceAccess,
    pub(crate) allow_other: bool,
    pub(crate) rewrite_links: bool,
    pub(crate) features: KernelFeatures,
    pub(crate) passthrough: bool,
    pub(crate) fuse_threads: usize,
    pub(crate) spin: Duration,
    pub(crate) ready_timeout: Duration,
    pub(crate) patience: Duration,
}

/// Why a rank ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// SIGTERM or SIGINT.
    Signal,
    /// The parent said so.
    Shutdown,
    /// The launcher died before all ranks were ready.
    Abandoned,
    /// Somebody unmounted the view.
    Unmounted,
    /// A bug: the engine's thread is gone.
    EngineLost,
}

/// Counts the ranks that are ready: the root of the first tree.
const COUNTING_ROOT: Rank = Rank(0);

/// How often a rank that waits for its parent looks whether it is to end.
const PARENT_POLL: Duration = Duration::from_millis(50);

/// How long the engine's thread may take to end.
const ENGINE_END_BOUND: Duration = Duration::from_secs(2);

/// Runs a rank until its end.
///
/// # Errors
/// Why it could not start: one line; nothing is left behind.
pub(crate) fn run(plan: Plan, ready: Option<&ReadyPipe>) -> anyhow::Result<()> {
    let rank = plan.rank;
    let (ends, ended) = sync_channel(16);
    let snapshots = Snapshots::default();
    let scribe = Scribe::default();
    let watching = signals::watch(ends.clone(), snapshots.clone(), scribe.clone());
    watching.context("cannot watch for signals")?;
    if let Some(ready) = ready {
        let ends = ends.clone();
        ready.watch(move || drop(ends.try_send(End::Abandoned)))?;
    }
    let instances = Instances::open()?;
    let claim = instances.claim(&plan.mount)?;
    // A daemon holds no directory of its starter busy, least of all one of its own view. All that
    // was given relative to it has been read or made absolute.
    std::env::set_current_dir("/").context("cannot enter /")?;
    let guardian = guardian();
    let reporter = Arc::new(Reporter::new(&plan));
    if let Some(ready) = ready
        && rank == COUNTING_ROOT
    {
        progress::tell(ready.clone(), Arc::clone(&reporter)).context("cannot start a thread")?;
    }
    let flights = Arc::new(flights(&reporter));
    scribe.start(Arc::clone(&flights)).context("cannot start a thread")?;
    let profile = plan.profile;
    let profiler = profiler(&reporter, profile);
    let mut started = start(plan, claim, guardian, &reporter, (&profiler, &scribe), ends, &ended)?;
    let interval = profile.and_then(|profile| profile.interval);
    let profiles = Profiles::start(profiler, interval, profile.is_some(), &snapshots);
    let profiles = profiles.context("cannot start a thread")?;
    if let Some(ready) = ready
        && let Err(error) = ready.ready(rank, started.mounted.point())
    {
        // The launcher has died in the meantime: as if it had asked for the end.
        started.stop(|| ())?;
        return Err(error.into());
    }
    info!(mount = %started.mounted.point().display(), "ready");
    let end = ended.recv().unwrap_or(End::EngineLost);
    info!(?end, "ending");
    reporter.set_state("stopping");
    profiles.before_end();
    started.stop(|| profiles.end())?;
    if end == End::EngineLost {
        flights.write("the engine has failed");
        Err(anyhow!("the engine has failed: see the log above"))
    } else {
        Ok(())
    }
}

/// A guardian, if one can be had: a mount works without.
fn guardian() -> Option<Guardian> {
    let started = std::env::current_exe()
        .map_err(anyhow::Error::from)
        .and_then(|exe| Ok(Guardian::start(&exe, ["guard"], Stdio::null())?));
    match started {
        Ok(guardian) => Some(guardian),
        Err(error) => {
            warn!(%error, "no guardian: after a crash of this daemon its mount will be left");
            None
        }
    }
}

/// A rank that is up.
struct Started {
    mounted: Arc<Mounted>,
    rendezvous: Arc<Rendezvous>,
    engine: Option<EngineThread>,
    guardian: Option<Guardian>,
    _status: StatusServer,
    _refreshes: RefreshServer,
    claim: Option<Claim>,
}

fn start(
    mut plan: Plan,
    mut claim: Claim,
    mut guardian: Option<Guardian>,
    reporter: &Arc<Reporter>,
    (profiler, scribe): (&Arc<Profiler>, &Scribe),
    ends: SyncSender<End>,
    ended: &Receiver<End>,
) -> anyhow::Result<Started> {
    let mut budget = Budget::of(plan.memory_bytes);
    if plan.spill.is_some() {
        budget = budget.with_spill();
    }
    let arena = Arena::map(usize::try_from(budget.arena).context("--memory is too large")?)?;
    let preparing = arena::prepare(&arena);
    let children = plan.forest.children_count(plan.rank);
    let trees = plan.forest.count().get() as usize;
    let settings = network_settings(plan.net.clone(), plan.bind, children, trees);
    let network = Network::open(&settings, &arena)?;
    let provider = network.provider().to_owned();
    info!(provider, domain = network.domain_name(), children, "the fabric is open");
    reporter.set_fabric(network.provider(), network.domain_name());
    let offer = Offer {
        fabric_address: network.address().to_vec(),
        provider,
        region_key: network.region_key(),
        region_base: network.region_base(),
        arena_bytes: budget.arena,
    };

    let sleeper = Sleeper::new().context("cannot make the engine's descriptors")?;
    let queue = Arc::new(Queue::new(Box::new(sleeper.bell())));
    let mut inodes = Inodes::<Filled>::default();
    if plan.rewrite_links {
        inodes = inodes.with_links_below(plan.mount.as_os_str().as_bytes());
    }
    let inodes = Arc::new(inodes);
    let pending = Pending::new(copper_fuse::pending::DEADLINE);
    let breaker = LinkBreaker::default();
    let engine_settings = EngineSettings {
        source_uses: source_uses(&plan),
        files: plan.files,
        memory: RankArena(arena),
        budget,
        inodes: Arc::clone(&inodes),
        queue: Arc::clone(&queue),
        answers: Arc::clone(&pending) as _,
        spill: plan.spill.take().map(|plan| spill::start(plan, &queue)).transpose()?,
        counters: Arc::clone(&reporter.engine),
        recorder: Arc::clone(&reporter.recorder),
        refreshed: {
            let refreshing = Arc::clone(&reporter.refreshing);
            Box::new(move |refreshed| refreshing.dropped(refreshed))
        },
        forget: {
            let refreshing = Arc::clone(&reporter.refreshing);
            Box::new(move |stale, forgetting| refreshing.forget(stale, forgetting))
        },
        broken: {
            let (breaker, scribe) = (breaker.clone(), scribe.clone());
            Box::new(move |link| {
                scribe.wrong("a link was given up");
                breaker.break_link(link);
            })
        },
    };
    let source = source(&plan, &reporter.source, &queue)?;
    let engine = EngineThread::start(
        engine_settings,
        RankFabric::new(network),
        source,
        sleeper,
        plan.spin,
        ends.clone(),
    )?;

    let _first = reporter.origin.set(engine.origin());
    let links = Links {
        control: engine.control(),
        queue: Arc::clone(&queue),
        ends: ends.clone(),
        refreshing: Arc::clone(&reporter.refreshing),
        report: {
            let reporter = Arc::clone(reporter);
            Box::new(move || reporter.short_report().to_string().into_bytes())
        },
    };
    let rendezvous = RendezvousSettings {
        version: rendezvous_version(),
        rank: plan.rank,
        forest: plan.forest,
        peers: plan.peers,
        listener: plan.listener,
        secret: plan.secret,
        job: plan.job.clone(),
        offer,
        ready_timeout: plan.ready_timeout,
        pace: Pace { patience: plan.patience, ..Pace::default() },
    };
    let rendezvous = Arc::new(Rendezvous::start(rendezvous, Arc::new(links))?);
    breaker.set_rendezvous(&rendezvous);
    reporter.set_rendezvous(&rendezvous);
    while !rendezvous.has_parent_within(PARENT_POLL)? {
        if let Ok(end) = ended.try_recv() {
            return Err(anyhow!("ended before it was ready ({end:?})"));
        }
    }

    let mut settings = FuseSettings::new(&plan.mount);
    settings.options = MountOptions { allow_other: plan.allow_other, ..MountOptions::default() };
    settings.features = plan.features;
    settings.passthrough = plan.passthrough.then(|| PassthroughBounds::of(plan.memory_bytes));
    settings.threads = plan.fuse_threads;
    settings.operations = Arc::clone(&reporter.operations);
    settings.paths.clone_from(&reporter.paths);
    let controlling = Arc::new(Controlling::default());
    settings.controls = Some(Arc::clone(&controlling) as _);
    controlling.start(Controller {
        profiler: Arc::clone(profiler),
        pending: Arc::clone(&pending),
        engine: engine.control(),
        queue: Arc::clone(&queue),
        folder: own_run(&reporter.job).join("tables"),
        name: file_name(reporter),
    })?;
    let view = Arc::new(EngineView::new(inodes, queue));
    let mounted = Arc::new(Mounted::start(view, pending, &settings)?);
    reporter.refreshing.set_mounted(&mounted);
    mounted.on_end(move || drop(ends.try_send(End::Unmounted)));
    if let Some(guard) = &mut guardian
        && let Err(error) = guard.arm(mounted.point(), mounted.id())
    {
        warn!(%error, "the guardian is not there");
    }
    reporter.set_mounted(&mounted);
    let status = {
        let (reporter, rendezvous) = (Arc::clone(reporter), Arc::downgrade(&rendezvous));
        let of_job = move || report::of_job(&rendezvous);
        StatusServer::start_for_job(claim.socket(), move || reporter.report(), of_job)?
    };
    let refreshes = {
        let (rendezvous, roots) = (Arc::downgrade(&rendezvous), plan.roots);
        RefreshServer::start(claim.refresh_socket(), move |path| {
            refreshing::refresh(&rendezvous, &roots, path)
        })?
    };
    if let Some(thread) = preparing {
        // It has nothing to say.
        let _ = thread.join();
    }
    claim.record(&record(reporter, &plan.launch, &mounted, &claim)?)?;
    reporter.set_state("ready");
    rendezvous.set_ready();
    Ok(Started {
        mounted,
        rendezvous,
        engine: Some(engine),
        guardian,
        _status: status,
        _refreshes: refreshes,
        claim: Some(claim),
    })
}

impl Started {
    /// Ends all; `quiet` is called when nothing is counted any more, and the rank still has its name.
    fn stop(&mut self, quiet: impl FnOnce()) -> anyhow::Result<()> {
        let unmounted = self.mounted.unmount();
        self.rendezvous.stop();
        if let Some(engine) = self.engine.take() {
            engine.stop(ENGINE_END_BOUND);
        }
        quiet();
        unmounted.context("the view could not be unmounted")?;
        if let Some(guardian) = self.guardian.take()
            && let Err(error) = guardian.dismiss()
        {
            warn!(%error, "the guardian had ended before");
        }
        if let Some(claim) = self.claim.take() {
            claim.release()?;
        }
        Ok(())
    }
}

/// What the files of a rank are called, as those of release 1.0.
fn file_name(reporter: &Reporter) -> String {
    format!("{}-{}", reporter.host, std::process::id())
}

/// What writes down what happened last.
fn flights(reporter: &Reporter) -> Flights {
    let head = Head {
        rank: reporter.rank.0,
        size: reporter.size,
        host: reporter.host.clone(),
        pid: std::process::id(),
        job: reporter.job.as_str().to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        why: String::new(),
        origin_unix_s: 0.0,
    };
    let folder = own_run(&reporter.job).join("flight");
    let (recorder, origin) = (Arc::clone(&reporter.recorder), Arc::clone(&reporter.origin));
    Flights::new(recorder, origin, head, folder, file_name(reporter))
}

/// What writes the profiles of a rank: of those that are wanted, or of those that a signal asks for.
fn profiler(reporter: &Arc<Reporter>, plan: Option<ProfilePlan>) -> Arc<Profiler> {
    let (engine, status) = (Arc::clone(&reporter.engine), Arc::clone(reporter));
    let absences = move || {
        let counters = [
            &engine.absences_stored,
            &engine.absences_served,
            &engine.absences_expired,
            &engine.absences_cleared,
        ];
        counters.map(|counter| counter.load(Ordering::Relaxed))
    };
    Arc::new(Profiler::new(
        &own_run(&reporter.job).join("profiling"),
        file_name(reporter),
        plan.map_or(Paths::None, |plan| plan.paths),
        Arc::clone(&reporter.operations),
        reporter.paths.clone(),
        absences,
        move || status.report(),
    ))
}

/// Links of a rank with so many children in so many trees.
pub(crate) fn links_max(children: usize, trees: usize) -> usize {
    // A rank that lost its parent may come to any ancestor: room for as many again, and for the
    // answers of this rank's own parent in each tree.
    (2 * children).max(4) + trees
}

/// What a rank with so many children in so many trees opens.
pub(crate) fn network_settings(
    net: Net,
    bind: Option<IpAddr>,
    children: usize,
    trees: usize,
) -> NetworkSettings {
    let links = links_max(children, trees);
    let messages = links * RECEIVES_PER_CHILD as usize;
    NetworkSettings {
        net,
        receives: messages,
        sends: messages,
        reads: 2 * CREDITS as usize,
        message_bytes_max: MESSAGE_BYTES_MAX,
        bind,
    }
}

/// Binds the messages of the fabric to the handshake.
pub(crate) fn rendezvous_version() -> u16 {
    PROTOCOL_VERSION ^ (u16::try_from(WIRE_VERSION).unwrap_or(u16::MAX) << 8)
}

fn source_uses(plan: &Plan) -> Vec<SourceUse> {
    let source_use = |tree: Tree| match plan.source {
        _ if tree.root() == plan.rank => SourceUse::Root,
        SourceAccess::Direct if tree.is_successor(plan.rank) => SourceUse::Successor,
        SourceAccess::Direct => SourceUse::Fallback,
        SourceAccess::None => SourceUse::Never,
    };
    plan.forest.trees().map(|(_, tree)| source_use(tree)).collect()
}

fn source(
    plan: &Plan,
    counters: &Arc<SourceCounters>,
    queue: &Arc<Queue>,
) -> anyhow::Result<RankSource<RankArena>> {
    let counters = Arc::clone(counters);
    match plan.source {
        SourceAccess::None => Ok(RankSource::refusing(counters)),
        SourceAccess::Direct => {
            let mut hidden = plan.hidden.clone();
            hidden.push(plan.mount.clone());
            hidden.extend_from_slice(&plan.denied);
            let settings = SourceSettings {
                roots: plan.roots.clone(),
                hidden,
                is_restricted: !plan.denied.is_empty(),
            };
            RankSource::reading(settings, counters, Arc::clone(queue))
                .context("the source's threads cannot be started")
        }
    }
}

fn record(
    reporter: &Reporter,
    launch: &Path,
    mounted: &Mounted,
    claim: &Claim,
) -> anyhow::Result<Instance> {
    let device = mounted.device();
    Ok(Instance {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        job: reporter.job.clone(),
        rank: reporter.rank,
        size: reporter.size,
        host: reporter.host.clone(),
        process: Process::current().context("cannot find out about this process")?,
        since: Moment::now(),
        mount: claim.mount().to_owned(),
        device: Some(rustix::fs::makedev(device.major, device.minor)),
        mount_point_created: !mounted.created().is_empty()
            || claim.predecessor().is_some_and(|dead| dead.mount_point_created),
        socket: claim.socket().to_owned(),
        log: own_log(),
        launch: launch.to_owned(),
    })
}

/// Takes the rendezvous' news to the engine.
pub(crate) struct Links {
    pub(crate) control: SyncSender<Control>,
    pub(crate) queue: Arc<Queue>,
    pub(crate) ends: SyncSender<End>,
    pub(crate) refreshing: Arc<Refreshing>,
    /// What this rank says of itself.
    pub(crate) report: Box<dyn Fn() -> Vec<u8> + Send + Sync>,
}

impl Links {
    fn tell(&self, control: Control) {
        // The engine takes news at every turn. If it is gone, so is this rank.
        if self.control.send(control).is_ok() {
            self.queue.wake();
        }
    }

    fn up(&self, up: LinkUp, role: Role) {
        let LinkUp { link, peer } = up;
        self.tell(Control::LinkUp {
            link,
            tree: peer.tree,
            rank: peer.rank,
            role,
            address: PeerAddress {
                endpoint: peer.offer.fabric_address,
                region_key: peer.offer.region_key,
                region_base: peer.offer.region_base,
                arena_bytes: peer.offer.arena_bytes,
            },
            send_token: peer.send_token.0,
            receive_token: peer.receive_token.0,
        });
    }
}

impl Events for Links {
    fn child_up(&self, link: LinkUp) {
        self.up(link, Role::Child);
    }

    fn parent_up(&self, link: LinkUp) {
        self.up(link, Role::Parent);
    }

    fn link_down(&self, link: LinkId, reason: &str) {
        info!(%link, reason, "link down");
        self.tell(Control::LinkDown(link));
    }

    fn orphaned(&self, tree: TreeIndex, reason: &str) {
        warn!(%tree, reason, "nobody above answers");
        self.tell(Control::Orphaned(tree));
    }

    fn refresh(&self, epoch: Epoch, scope: Scope, reply: RefreshReply) {
        self.refreshing.begin(epoch, scope, reply, &self.control, &self.queue);
    }

    fn report(&self) -> Vec<u8> {
        (self.report)()
    }

    fn shutdown(&self) {
        let _ = self.ends.try_send(End::Shutdown);
    }
}
