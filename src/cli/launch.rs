//! `copper launch`: all ranks of a job, or none.

use std::ffi::OsString;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use copper_launcher::job::host_name;
use copper_launcher::{Instances, Job, LocalPlan, RankPlace, RunFolder, Secret};
use copper_ofi::Net;
use copper_proto::Forest;

use super::compatible::CompatibleArguments;
use super::environment::default_memory;
use super::kernel_cache::KernelCache;
use super::launch_hosts::{self, HostsArguments};
use super::logging::Level;
use super::print;
use super::serve::denied;
use super::size::Size;
use super::trees::TreesArguments;
use crate::daemon::SourceAccess;

/// The most ranks that make sense on one machine.
const LOCAL_MAX: u32 = 256;

#[derive(Debug, Args)]
pub(super) struct LaunchArguments {
    /// Start N ranks on this machine, mounted at DIR/0 … DIR/N-1
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(LOCAL_MAX)))]
    local: Option<u32>,

    #[command(flatten)]
    pub(super) over_hosts: HostsArguments,

    /// Where the views of `/` appear [default: /tmp/$USER/copper]
    #[arg(long, short = 'v', value_name = "DIR")]
    pub(super) mount: Option<PathBuf>,

    /// Logs go to DIR/JOB [default: ~/copper-logs]
    #[arg(long, short = 'd', value_name = "DIR")]
    pub(super) log_dir: Option<PathBuf>,

    /// How much to log: off … trace, or 6 (nothing; 0 too) … 1 (most)
    #[arg(long, short = 'l', value_enum, default_value = "off")]
    log_level: Level,

    /// The longest time to wait for all mounts, in seconds
    #[arg(long, short = 's', value_name = "SECONDS", default_value_t = 120, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub(super) ready_timeout: u64,

    /// The fabric: auto, tcp, shm, cxi, cxi0 …, cxi://cxi1; of cxi0,cxi1 the first that is there
    #[arg(long, short = 'n', default_value = "auto")]
    net: Net,

    /// Show only what is below DIR, and the way to it; may be given several times
    #[arg(long, value_name = "DIR", default_value = "/")]
    root: Vec<PathBuf>,

    /// Show nothing below DIR, and refuse it to every rank; may be given several times
    #[arg(long, value_name = "DIR")]
    deny: Vec<PathBuf>,

    #[command(flatten)]
    trees: TreesArguments,

    #[command(flatten)]
    pub(super) compatible: CompatibleArguments,

    /// Each rank's cache, for example 2GiB [default: an eighth of the memory by all ranks]
    #[arg(long, value_name = "SIZE")]
    pub(super) memory: Option<Size>,

    /// Keep what each rank evicts in a nameless file in DIR, on a local disk or in memory
    #[arg(long, value_name = "DIR")]
    spill: Option<PathBuf>,

    /// How large each rank's file may become [default: four times --memory]
    #[arg(long, value_name = "SIZE", requires = "spill")]
    spill_size: Option<Size>,

    /// Whether ranks other than the roots may read the files' own file system
    #[arg(long, value_enum, default_value = "direct")]
    source: SourceAccess,

    /// Let other users in, as far as the files' permissions do
    #[arg(long)]
    allow_other: bool,

    /// Show absolute links as leading into the view, rather than as they are
    #[arg(long)]
    rewrite_links: bool,

    /// Do without one of the kernel's caches, or without `all`; may be given several times
    #[arg(long, value_name = "NAME")]
    no_kernel_cache: Vec<KernelCache>,

    /// Threads of each rank that answer the kernel
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=64))]
    fuse_threads: u16,

    /// Hand opened files to the kernel, so that their reads do not come here: takes root, and memory
    #[arg(long)]
    passthrough: bool,

    /// How long each engine spins for more work before it sleeps, in microseconds
    #[arg(long, value_name = "US", default_value_t = 0)]
    spin_us: u32,
}

pub(super) fn run(arguments: &LaunchArguments) -> anyhow::Result<ExitCode> {
    arguments.compatible.check(arguments.local.is_some())?;
    match arguments.local {
        Some(ranks) => run_local(arguments, ranks),
        None => launch_hosts::run(arguments),
    }
}

fn run_local(arguments: &LaunchArguments, ranks: u32) -> anyhow::Result<ExitCode> {
    let directory = super::mount_directory(arguments.mount.as_deref())?;
    let mounts: Vec<PathBuf> = (0..ranks).map(|rank| directory.join(rank.to_string())).collect();
    let forest = forest_of(arguments, ranks)?;
    if arguments.over_hosts.dry_run {
        launch_hosts::print_tree(&forest, |rank| mounts[rank.0 as usize].display().to_string())?;
        return Ok(ExitCode::SUCCESS);
    }
    let job = Job::from_environment()?;
    let base = arguments.log_dir.clone().unwrap_or_else(RunFolder::default_base);
    let host = host_name();
    let folder = RunFolder::create(&base, &job, std::iter::repeat_n(host.as_str(), mounts.len()))?;
    let instances = Instances::open()?;

    let memory = arguments.memory.map_or_else(|| default_memory(ranks.into()), |Size(bytes)| bytes);
    let mut common = common_arguments(arguments, &job, &directory)?;
    common.extend(["--memory".into(), memory.to_string().into()]);
    common.extend(["--ready-timeout".into(), arguments.ready_timeout.to_string().into()]);
    common.extend(mounts.iter().flat_map(|mount| [OsString::from("--hide"), mount.into()]));
    let plan = LocalPlan {
        exe: std::env::current_exe().context("cannot find this program")?,
        mounts,
        folder,
        run_directory: instances.path().to_owned(),
        secret: Secret::generate()?,
        args_common: common,
        rank_args: &rank_arguments,
        ready_timeout: Duration::from_secs(arguments.ready_timeout),
    };
    let logs = plan.folder.logs();
    let following = arguments.compatible.follow(&logs);
    let launched = plan.launch(|rank| {
        let line = format!(
            "rank {} ready after {:.2} s: {} (pid {})",
            rank.rank,
            rank.ready_after.as_secs_f64(),
            rank.mount.display(),
            rank.process.pid
        );
        let _ = print(&line);
    })?;
    drop(following);
    let count = launched.ranks.len();
    print(&format!("{count} of {count} ranks ready; logs in {}", logs.display()))?;
    Ok(ExitCode::SUCCESS)
}

/// What every rank is started with.
///
/// # Errors
/// If a folder that is not to be shown is not there.
pub(super) fn common_arguments(
    arguments: &LaunchArguments,
    job: &Job,
    directory: &std::path::Path,
) -> anyhow::Result<Vec<OsString>> {
    let denied = denied(&arguments.deny, true)?;
    let mut common: Vec<OsString> = vec![
        "serve".into(),
        "--job".into(),
        job.as_str().into(),
        "--launch".into(),
        directory.into(),
        "--log-level".into(),
        arguments.log_level.name().into(),
        "--net".into(),
        arguments.net.to_string().into(),
        "--spin-us".into(),
        arguments.spin_us.to_string().into(),
        "--fuse-threads".into(),
        arguments.fuse_threads.to_string().into(),
    ];
    common.extend(arguments.trees.words());
    common.extend(arguments.compatible.words(arguments.local.is_some_and(|ranks| ranks > 1)));
    // Daemons on other hosts start in another folder.
    let absolute = |path: &PathBuf| std::path::absolute(path).unwrap_or_else(|_| path.clone());
    let flag = |name: &str, path: &PathBuf| [OsString::from(name), absolute(path).into()];
    common.extend(arguments.root.iter().flat_map(|root| flag("--root", root)));
    common.extend(denied.iter().flat_map(|folder| flag("--deny", folder)));
    if arguments.source == SourceAccess::None {
        common.extend(["--source".into(), "none".into(), "--roots-read".into()]);
    }
    common.extend(arguments.spill.iter().flat_map(|folder| flag("--spill", folder)));
    if let Some(Size(bytes)) = arguments.spill_size {
        common.extend(["--spill-size".into(), bytes.to_string().into()]);
    }
    for cache in &arguments.no_kernel_cache {
        common.extend(["--no-kernel-cache".into(), cache.to_string().into()]);
    }
    if arguments.allow_other {
        common.push("--allow-other".into());
    }
    if arguments.rewrite_links {
        common.push("--rewrite-links".into());
    }
    if arguments.passthrough {
        common.push("--passthrough".into());
    }
    Ok(common)
}

/// The trees of a job of so many ranks, judged before anything is started.
pub(super) fn forest_of(arguments: &LaunchArguments, ranks: u32) -> anyhow::Result<Forest> {
    let size = NonZeroU32::new(ranks).context("a job has a rank")?;
    arguments.trees.files(arguments.source)?;
    arguments.trees.forest(size)
}

fn rank_arguments(place: &RankPlace<'_>) -> Vec<OsString> {
    vec![
        "--rank".into(),
        place.rank.to_string().into(),
        "--size".into(),
        place.size.to_string().into(),
        "--mount".into(),
        place.mount.into(),
        "--peers".into(),
        place.peers.to_string().into(),
        "--listen-fd".into(),
        place.listen_fd.to_string().into(),
        "--ready-fd".into(),
        place.ready_fd.to_string().into(),
        "--secret-file".into(),
        place.secret_file.into(),
    ]
}
