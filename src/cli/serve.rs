//! `copper serve`: one rank.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::num::NonZeroU32;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use copper_launcher::secret::HandedOn;
use copper_launcher::{Job, Orders, Peers, ReadyPipe, Secret, inherited_listener, listen};
use copper_ofi::{Net, environment};
use copper_proto::Rank;

use super::compatible::DaemonArguments;
use super::environment::{MEMORY_MIN, default_memory};
use super::interface;
use super::kernel_cache::KernelCache;
use super::logging::{self, Level};
use super::size::Size;
use super::trees::TreesArguments;
use crate::daemon::{self, Plan, SourceAccess};
use crate::resource_limits::{Load, Need};
use crate::spill::{self, SpillPlan};

/// Where a rank listens if its port is not said.
pub(super) const PORT: u16 = 7911;

/// The most memory that can be asked for: extents are numbered in pages of 4 KiB by 32 bits.
const MEMORY_MAX: u64 = 1 << 43;

/// The size of the spill file, in memories, if it is not said.
const SPILL_TIMES: u64 = 4;

/// Bounds of the spill file: it takes several blocks, and its table of free ranges stays small.
const SPILL_MIN: u64 = 16 << 20;
const SPILL_MAX: u64 = 1 << 43;

#[derive(Debug, Args)]
pub(super) struct ServeArguments {
    /// This rank's number, from 0
    #[arg(long, default_value_t = 0)]
    rank: u32,

    /// Number of ranks of the job
    #[arg(long, default_value = "1")]
    size: NonZeroU32,

    /// Every rank's HOST:PORT, in order of rank, separated by commas
    #[arg(long, value_name = "LIST", conflicts_with = "hosts")]
    peers: Option<String>,

    /// A file with every rank's host, one a line, in order of rank
    #[arg(long, value_name = "FILE")]
    hosts: Option<PathBuf>,

    /// The port that every host of --hosts listens on
    #[arg(long, default_value_t = PORT)]
    port: u16,

    /// Where to listen, if it is not where the others find this rank
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<SocketAddr>,

    /// Take over a listening socket from the launcher
    #[arg(long, hide = true)]
    listen_fd: Option<u32>,

    /// Where the view of `/` appears
    #[arg(long, short = 'v', value_name = "DIR")]
    mount: Option<PathBuf>,

    /// Show only what is below DIR, and the way to it; may be given several times
    #[arg(long, value_name = "DIR", default_value = "/")]
    root: Vec<PathBuf>,

    /// Show nothing below DIR, and refuse it to other ranks; may be given several times
    #[arg(long, value_name = "DIR")]
    deny: Vec<PathBuf>,

    /// The same for a view of this launch, which nobody may touch
    #[arg(long, value_name = "DIR", hide = true)]
    hide: Vec<PathBuf>,

    #[command(flatten)]
    trees: TreesArguments,

    #[command(flatten)]
    daemon: DaemonArguments,

    /// The cache's size, for example 2GiB [default: an eighth of the memory, at most 16GiB]
    #[arg(long, value_name = "SIZE")]
    memory: Option<Size>,

    /// Keep what is evicted in a nameless file in DIR, on a local disk or in memory
    #[arg(long, value_name = "DIR")]
    spill: Option<PathBuf>,

    /// How large that file may become [default: four times --memory]
    #[arg(long, value_name = "SIZE", requires = "spill")]
    spill_size: Option<Size>,

    /// The fabric: auto, tcp, shm, cxi, cxi0 …, cxi://cxi1; of cxi0,cxi1 the first that is there
    #[arg(long, short = 'n', default_value = "auto")]
    net: Net,

    /// The local address for fabrics that use the Internet protocol
    #[arg(long, value_name = "ADDRESS")]
    fabric_address: Option<IpAddr>,

    /// The network interface for such fabrics, for example hsn0 or eth1
    #[arg(long, value_name = "NAME", conflicts_with = "fabric_address")]
    interface: Option<String>,

    /// Whether this rank may read the files' own file system
    #[arg(long, value_enum, default_value = "direct")]
    source: SourceAccess,

    /// With --source none: the root of a tree reads it all the same
    #[arg(long, hide = true)]
    roots_read: bool,

    /// Let other users in, as far as the files' permissions do
    #[arg(long)]
    allow_other: bool,

    /// Show absolute links as leading into the view, rather than as they are
    #[arg(long)]
    rewrite_links: bool,

    /// Do without one of the kernel's caches, or without `all`; may be given several times
    #[arg(long, value_name = "NAME")]
    no_kernel_cache: Vec<KernelCache>,

    /// Hand opened files to the kernel, so that their reads do not come here: takes root, and memory
    #[arg(long)]
    passthrough: bool,

    /// The file with the job's secret, mode 0600 [default: $COPPER_SECRET]
    #[arg(long, value_name = "FILE")]
    secret_file: Option<PathBuf>,

    /// The job's name, the same for all ranks [default: from the scheduler]
    #[arg(long)]
    job: Option<String>,

    /// How much to log
    #[arg(long, short = 'l', value_enum, default_value = "info")]
    log_level: Level,

    /// How long the parent may take to answer at the start, in seconds
    #[arg(long, short = 's', value_name = "SECONDS", default_value_t = 120)]
    ready_timeout: u64,

    /// Ranks may be missing: how long to wait for the parent alone, in seconds
    #[arg(long, hide = true)]
    patience: Option<u64>,

    /// Threads that answer the kernel
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=64))]
    fuse_threads: u16,

    /// How long the engine spins for more work before it sleeps, in microseconds
    #[arg(long, value_name = "US", default_value_t = 0)]
    spin_us: u32,

    /// Tell the launcher when the mount answers
    #[arg(long, hide = true)]
    ready_fd: Option<u32>,

    /// The secret and the hosts come through standard input
    #[arg(long, hide = true, conflicts_with_all = ["hosts", "peers", "secret_file"])]
    orders: bool,

    /// What was launched together
    #[arg(long, hide = true)]
    launch: Option<PathBuf>,
}

pub(super) fn run(arguments: ServeArguments) -> anyhow::Result<ExitCode> {
    logging::start(arguments.log_level);
    abort_on_panic();
    with_environment(&arguments.net);
    let ready = arguments.ready_fd.map(ReadyPipe::from_fd).transpose()?;
    let rank = arguments.rank;
    let applied = arguments.daemon.apply();
    let result = applied.and_then(|()| plan(arguments)).and_then(|plan| {
        secure_limits(&plan);
        daemon::run(plan, ready.as_ref())
    });
    match result {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(error) => {
            if let Some(ready) = ready {
                ready.failed(&super::one_line(&error));
            }
            Err(error.context(format!("rank {rank}")))
        }
    }
}

fn plan(arguments: ServeArguments) -> anyhow::Result<Plan> {
    let absolute = |path: PathBuf| super::absolute(&path);
    let mount = super::mount_directory(arguments.mount.as_deref())?;
    let roots = arguments.root.into_iter().map(absolute).collect::<Result<Vec<_>, _>>()?;
    let hidden = arguments.hide.into_iter().map(absolute).collect::<Result<Vec<_>, _>>()?;
    // A launcher has looked where they lead.
    let denied = denied(&arguments.deny, arguments.launch.is_none())?;

    let (rank, size) = (Rank(arguments.rank), arguments.size);
    if rank.0 >= size.get() {
        bail!("--rank {rank} is not one of {size} ranks: they are numbered from 0");
    }
    let forest = arguments.trees.forest(size)?;
    let source = match arguments.source {
        SourceAccess::None if arguments.roots_read && forest.has_root(rank) => SourceAccess::Direct,
        source => source,
    };
    if source == SourceAccess::None && forest.has_root(rank) {
        bail!("--source none: rank {rank} is the root of a tree, which has to read the source");
    }
    let mut files = arguments.trees.files(arguments.source)?;
    files.absent_bound = arguments.daemon.absent_bound();
    let memory = arguments.memory.map_or_else(|| default_memory(1), |Size(bytes)| bytes);
    if !(MEMORY_MIN..=MEMORY_MAX).contains(&memory) {
        bail!("--memory {}: give at least {}", Size(memory), Size(MEMORY_MIN));
    }

    let spill = spill_plan(arguments.spill.as_deref(), arguments.spill_size, memory)?;
    let single = size.get() == 1;
    let orders = match arguments.orders {
        true => Some(Orders::read(&mut std::io::BufReader::new(std::io::stdin()))?),
        false => None,
    };
    let peers = match (&arguments.peers, &arguments.hosts) {
        (None, None) if let Some(orders) = &orders => {
            Peers::from_hosts(orders.hosts.names(), arguments.port)
        }
        (Some(list), _) => Peers::parse(list)?,
        (None, Some(file)) => Peers::from_hosts_file(file, arguments.port)?,
        (None, None) if single => Peers::from_addresses([anywhere()]),
        (None, None) => bail!("{size} ranks need --peers or --hosts to find each other"),
    };
    let listener = match (arguments.listen_fd, arguments.listen) {
        (Some(number), _) => inherited_listener(number)?,
        (None, Some(address)) => listen(address)?,
        (None, None) if single => TcpListener::bind(anywhere())?,
        (None, None) => listen(peers.resolve(rank)?)?,
    };
    let secret = match (&arguments.secret_file, Secret::from_environment()?) {
        (None, _) if let Some(orders) = orders => orders.secret,
        (Some(file), _) => Secret::from_file(file)?,
        (None, Some(secret)) => secret,
        (None, None) if single => Secret::generate()?,
        (None, None) => bail!(
            "the ranks of a job share a secret: give --secret-file, or COPPER_SECRET in the environment"
        ),
    };
    let job = match arguments.job {
        Some(name) => Job::parse(&name)?,
        None => Job::from_environment()?,
    };
    let bind = match (arguments.fabric_address, &arguments.interface) {
        (Some(address), _) => Some(address),
        (None, Some(name)) => Some(interface::address(name)?),
        (None, None) => interface::towards(&peers, rank),
    };
    Ok(Plan {
        rank,
        forest,
        files,
        peers,
        listener,
        secret,
        job,
        launch: arguments.launch.unwrap_or_else(|| mount.clone()),
        mount,
        roots,
        hidden,
        denied,
        // So that each share of it is whole pages.
        memory_bytes: memory & !((1 << 16) - 1),
        spill,
        profile: arguments.daemon.profile(),
        net: arguments.net,
        bind,
        source,
        allow_other: arguments.allow_other,
        rewrite_links: arguments.rewrite_links,
        features: KernelCache::features(&arguments.no_kernel_cache),
        passthrough: arguments.passthrough,
        fuse_threads: arguments.fuse_threads.into(),
        spin: Duration::from_micros(arguments.spin_us.into()),
        ready_timeout: Duration::from_secs(arguments.ready_timeout),
        patience: arguments.patience.map_or(Duration::MAX, Duration::from_secs),
    })
}

/// Raises the limits that are too low. What stays too low may still do: it is said, not refused.
fn secure_limits(plan: &Plan) {
    let load = Load {
        children: plan.forest.children_count(plan.rank),
        trees: plan.forest.count().get() as usize,
        passthrough: plan.passthrough,
        memory_bytes: plan.memory_bytes,
        net: &plan.net,
    };
    for shortage in Need::of(load).secure() {
        tracing::warn!("a limit is too low: {shortage}");
    }
}

/// The folders that are not shown: as they are named and, where symbolic links lead elsewhere, what
/// they lead to, since a view follows its links by itself.
pub(super) fn denied(folders: &[PathBuf], follow: bool) -> anyhow::Result<Vec<PathBuf>> {
    let mut denied = Vec::new();
    for folder in folders {
        let absolute = std::path::absolute(folder)
            .with_context(|| format!("--deny {}: that is no path", folder.display()))?;
        if follow {
            let resolved = absolute.canonicalize().with_context(|| {
                format!("--deny {}: it is to be there before it is denied", folder.display())
            })?;
            denied.push(resolved);
        }
        denied.push(absolute);
    }
    denied.dedup();
    Ok(denied)
}

/// A thread that panics takes the daemon with it: without its FUSE threads or its engine, every
/// client would hang. The guardian then removes the mount.
fn abort_on_panic() {
    std::panic::set_hook(Box::new(|panic| {
        tracing::error!(%panic, "a bug: this daemon ends");
        std::process::abort();
    }));
}

fn anywhere() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 0))
}

/// The C library's allocator, which libfabric and we share: few heaps, for what one of them holds
/// free the others do not get; and large pieces go back to the kernel at once, where it would else
/// learn to keep up to 32 MiB of them.
const ALLOCATOR: [(&str, &str); 3] = [
    ("MALLOC_ARENA_MAX", "2"),
    ("MALLOC_MMAP_THRESHOLD_", "131072"),
    ("MALLOC_TRIM_THRESHOLD_", "1048576"),
];

/// The file that takes what is evicted, made here so that a folder that cannot be used ends the rank
/// before anything else is there.
fn spill_plan(
    folder: Option<&Path>,
    size: Option<Size>,
    memory: u64,
) -> anyhow::Result<Option<SpillPlan>> {
    let Some(folder) = folder else { return Ok(None) };
    let bytes = size.map_or((memory * SPILL_TIMES).min(SPILL_MAX), |Size(bytes)| bytes);
    if !(SPILL_MIN..=SPILL_MAX).contains(&bytes) {
        let (bytes, min, max) = (Size(bytes), Size(SPILL_MIN), Size(SPILL_MAX));
        bail!("--spill-size {bytes}: give at least {min} and at most {max}");
    }
    let file = spill::open(folder)?;
    Ok(Some(SpillPlan { file, bytes }))
}

/// Providers and the C library read some of their settings from the environment only, when they are
/// loaded: where some are missing, this program starts itself again with them. What the user has set
/// stays, but for the job's secret, which goes on through a pipe: what a process has in its environment
/// is to be read there as long as it runs.
pub(super) fn with_environment(net: &Net) {
    let unset = |name: &&str| std::env::var_os(name).is_none();
    let wanted = environment(net).into_iter().chain(ALLOCATOR);
    let missing: Vec<_> = wanted.filter(|(name, _)| unset(name)).collect();
    let secret = match HandedOn::take() {
        Ok(secret) => secret,
        Err(error) => {
            tracing::warn!(%error, "the job's secret stays in the environment");
            None
        }
    };
    if missing.is_empty() && secret.is_none() {
        return;
    }
    let again = std::env::current_exe().map(|exe| {
        let mut arguments = std::env::args_os();
        let mut command = std::process::Command::new(exe);
        command.arg0(arguments.next().unwrap_or_default()).args(arguments).envs(missing);
        if let Some(secret) = &secret {
            secret.leave(&mut command);
        }
        // Returns only if it fails.
        command.exec()
    });
    let error = again.unwrap_or_else(|error| error);
    tracing::warn!(%error, "cannot set what the fabric and the allocator want in the environment");
}
