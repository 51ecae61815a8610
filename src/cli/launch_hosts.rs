//! `copper launch` over several hosts.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use copper_launcher::job::host_name;
use copper_launcher::{
    Fleet, Hosts, HostsError, Instances, Job, LaunchProgress, LaunchRecord, Launcher, Life,
    Process, RemotePlan, RunFolder, Secret,
};
use copper_proto::{Forest, Rank};

use super::compatible::Usage;
use super::launch::{LaunchArguments, common_arguments, forest_of};
use super::progress::Line;
use super::size::Size;
use super::{print, say, version};

/// Where ports that are not said begin, and how many there are: above those of well-known services,
/// below those that the kernel gives out.
const PORTS: (u16, u16) = (20_000, 12_000);

/// How long a rank waits for a parent that may be missing before it tries others: as long as hosts
/// differ in starting, and a part of what all of them have.
const PATIENCE_SECONDS: u64 = 10;
const PATIENCE_SHARE: u64 = 4;

/// Ranks of which a plan is printed one by one.
const PLAN_RANKS_MAX: u32 = 64;

/// Variables of ours and of libfabric's that daemons on other hosts are to have too.
const PASSED_PREFIXES: [&str; 2] = ["FI_", "COPPER_"];
const PASSED: [&str; 2] = ["LD_LIBRARY_PATH", "RUST_BACKTRACE"];

/// Words of our own that are not passed on: the secret, and where this program was found.
const NOT_PASSED: [&str; 2] = ["COPPER_SECRET", "COPPER_ROOT"];

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum LauncherName {
    /// mpiexec of HPE's PALS, as on Aurora
    Pals,
    /// mpiexec of MPICH
    Mpich,
    /// mpiexec of Open MPI
    #[value(alias = "ompi")]
    Openmpi,
    /// Whichever mpiexec there is
    Mpiexec,
    /// srun, within a job of Slurm
    #[value(alias = "srun")]
    Slurm,
    /// clush of ClusterShell
    Clush,
    /// An ssh for each host
    Ssh,
    /// N ranks on this machine, with --local N
    Local,
}

#[derive(Debug, Args)]
pub(super) struct HostsArguments {
    /// Start one rank on each host of FILE, one host a line [default: the hosts of the PBS or Slurm
    /// job]
    #[arg(long, value_name = "FILE", conflicts_with = "local")]
    hosts: Option<PathBuf>,

    /// What starts them [default: srun within a Slurm job, mpiexec within a PBS job, else clush, else
    /// ssh]
    #[arg(long, value_enum)]
    launcher: Option<LauncherName>,

    /// Further options for that, separated by blanks
    #[arg(long, value_name = "WORDS", default_value = "", allow_hyphen_values = true)]
    launcher_args: String,

    /// Succeed with up to K ranks not ready, named in the output
    #[arg(long, value_name = "K", default_value_t = 0)]
    allow_missing: u32,

    /// The TCP port that every rank listens on [default: from the names of the job and the mount]
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1024..))]
    port: Option<u16>,

    /// The network interface for fabrics that use the Internet protocol, for example hsn0
    #[arg(long, value_name = "NAME")]
    interface: Option<String>,

    /// Print what would be done: commands, ranks, tree
    #[arg(long)]
    pub(super) dry_run: bool,
}

pub(super) fn run(arguments: &LaunchArguments) -> anyhow::Result<ExitCode> {
    let own = &arguments.over_hosts;
    let hosts = find_hosts(own).map_err(Usage::of)?;
    let (launcher, program) = find_launcher(own).map_err(Usage::of)?;
    let directory = super::mount_directory(arguments.mount.as_deref())?;
    let size = u32::try_from(hosts.len()).context("too many hosts")?;
    let forest = forest_of(arguments, size)?;
    let job = Job::from_environment()?;
    let options = shell_words::split(&own.launcher_args).context("--launcher-args");
    let options = options.map_err(Usage::of)?;
    let port = own.port.unwrap_or_else(|| default_port(&job, &directory));
    let base = arguments.log_dir.clone().unwrap_or_else(RunFolder::default_base);
    let base = super::absolute(&base)?;
    let folder = base.join(job.as_str());
    let hosts_file = folder.join("logs/node_file.txt");
    let environment = passed_environment();
    let fleet = Fleet { launcher, program, options, hosts, hosts_file };
    let command = agent_command(arguments, &fleet, &job, &directory, &folder, port, &environment)?;
    if own.dry_run {
        print_plan(&fleet, &command, &forest, port)?;
        return Ok(ExitCode::SUCCESS);
    }
    let names = fleet.hosts.names();
    let folder = RunFolder::create(&base, &job, names.iter().map(String::as_str))?;
    let instances = Instances::open()?;
    let earlier = instances.read_launch(&directory)?;
    if let Some(earlier) = &earlier {
        refuse_second(earlier, &directory)?;
    }
    let record = LaunchRecord {
        version: version::short(),
        job,
        launcher,
        program: fleet.program.clone(),
        options: fleet.options.clone(),
        hosts: names.to_vec(),
        environment,
        mount: directory.clone(),
        folder: folder.path().to_owned(),
        process: Some(Process::current().context("cannot find out about this process")?),
    };
    instances.write_launch(&record)?;
    let secret = Secret::generate()?;
    let plan = RemotePlan {
        fleet: &fleet,
        command: &command,
        secret: &secret,
        words_file: folder.logs().join(format!(
            "{}-{}-launcher.log",
            host_name(),
            std::process::id()
        )),
        ready_timeout: Duration::from_secs(arguments.ready_timeout),
        allow_missing: own.allow_missing,
    };
    let follower = arguments.compatible.follow(&folder.logs());
    let launched = plan.launch(&mut show_progress());
    drop(follower);
    if launched.is_err() {
        // All have been ended: there is nothing to stop, but what may have been there before.
        match &earlier {
            Some(earlier) => instances.write_launch(earlier)?,
            None => instances.forget_launch(&directory)?,
        }
    }
    let launched = launched?;
    instances.write_launch(&LaunchRecord { process: launched.step, ..record })?;
    for missing in &launched.missing {
        say(&format!("copper: missing: {missing}"));
    }
    print(&format!(
        "{} of {size} ranks ready after {:.2} s (by {launcher}, {} levels); {} on each host; logs in {}",
        launched.ready,
        launched.elapsed.as_secs_f64(),
        levels(&forest),
        directory.display(),
        folder.logs().display(),
    ))?;
    Ok(ExitCode::SUCCESS)
}

/// Says how many are ready: over and over on one line of a terminal, else once in a while.
fn show_progress() -> impl FnMut(LaunchProgress) {
    let mut shown = Line::new();
    let mut next = Duration::from_secs(2);
    move |progress| {
        let LaunchProgress { ready, failed, size, elapsed } = progress;
        let failures = if failed > 0 { format!(", {failed} failed") } else { String::new() };
        let line =
            format!("{ready} of {size} ranks ready{failures}, {:.1} s", elapsed.as_secs_f64());
        if !shown.show(&line) && elapsed >= next {
            next = elapsed + Duration::from_secs(5);
            say(&line);
        }
    }
}

fn refuse_second(other: &LaunchRecord, directory: &Path) -> anyhow::Result<()> {
    let lives = other.process.is_some_and(|process| process.is_alive());
    let instances = Instances::open()?;
    let running = instances.under(directory)?.into_iter().any(|listed| listed.alive);
    if lives || running {
        bail!(
            "the mount point {} is held by job {} on {} hosts: stop that one first (stop_copper.sh -v {}), \
             or choose another with -v",
            directory.display(),
            other.job,
            other.hosts.len(),
            directory.display()
        );
    }
    Ok(())
}

fn find_hosts(arguments: &HostsArguments) -> anyhow::Result<Hosts> {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    if let Some(file) = &arguments.hosts {
        return Ok(Hosts::from_file(file)?);
    }
    if arguments.launcher == Some(LauncherName::Local) {
        bail!("--launcher local: give --local N, the number of ranks on this machine");
    }
    if let Some(file) = variable("PBS_NODEFILE") {
        let path = PathBuf::from(&file);
        return Hosts::from_pbs(&path)
            .with_context(|| format!("PBS_NODEFILE is {}", path.display()));
    }
    match variable("SLURM_JOB_NODELIST") {
        Some(list) => Ok(Hosts::from_slurm(&list)?),
        None => Err(HostsError::NoList.into()),
    }
}

fn find_launcher(arguments: &HostsArguments) -> anyhow::Result<(Launcher, PathBuf)> {
    let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let wanted =
        match arguments.launcher {
            Some(LauncherName::Pals) => Some(Launcher::Pals),
            Some(LauncherName::Mpich) => Some(Launcher::Mpich),
            Some(LauncherName::Openmpi) => Some(Launcher::OpenMpi),
            Some(LauncherName::Slurm) => Some(Launcher::Slurm),
            Some(LauncherName::Clush) => Some(Launcher::Clush),
            Some(LauncherName::Ssh) => Some(Launcher::Ssh),
            Some(LauncherName::Mpiexec) => Some(Launcher::of_mpiexec().context(
                "--launcher mpiexec: `mpiexec --version` names no MPI that is known here",
            )?),
            Some(LauncherName::Local) => bail!("--launcher local: give --local N, and no --hosts"),
            None if set("SLURM_JOB_ID") => Some(Launcher::Slurm),
            None if set("PBS_NODEFILE") => Launcher::of_mpiexec(),
            None => None,
        };
    let candidates = match wanted {
        Some(launcher) => vec![launcher],
        None => vec![Launcher::Clush, Launcher::Ssh],
    };
    let found = candidates.iter().find_map(|&launcher| Some((launcher, launcher.program()?)));
    found.with_context(|| {
        let names: Vec<_> = candidates.iter().map(|launcher| launcher.name()).collect();
        format!(
            "the launcher {} is not installed here, or not in PATH; choose with --launcher",
            names.join(" or ")
        )
    })
}

/// The same on all hosts, and mostly another one for another job or mount point of this machine.
fn default_port(job: &Job, directory: &Path) -> u16 {
    let user = rustix::process::geteuid().as_raw();
    let name = format!("{job}\n{}\n{user}", directory.display());
    let hash = twox_hash::XxHash3_64::oneshot(name.as_bytes());
    PORTS.0 + u16::try_from(hash % u64::from(PORTS.1)).expect("below 12,000")
}

fn passed_environment() -> Vec<(String, String)> {
    let is_passed = |name: &str| {
        let ours = PASSED_PREFIXES.iter().any(|prefix| name.starts_with(prefix));
        (ours || PASSED.contains(&name)) && !NOT_PASSED.contains(&name)
    };
    // What is no text is not passed: it could not be written down either.
    let text = |(name, value): (OsString, OsString)| {
        Some((name.into_string().ok()?, value.into_string().ok()?))
    };
    std::env::vars_os().filter_map(text).filter(|(name, _)| is_passed(name)).collect()
}

/// What each host is to run, and in which environment.
pub(super) fn on_host(environment: &[(String, String)]) -> anyhow::Result<Vec<OsString>> {
    let exe = std::env::current_exe().context("cannot find this program")?;
    let mut command: Vec<OsString> = Vec::new();
    if !environment.is_empty() {
        command.push("env".into());
        command.extend(environment.iter().map(|(name, value)| format!("{name}={value}").into()));
    }
    command.push(exe.into());
    Ok(command)
}

fn agent_command(
    arguments: &LaunchArguments,
    fleet: &Fleet,
    job: &Job,
    directory: &Path,
    folder: &Path,
    port: u16,
    environment: &[(String, String)],
) -> anyhow::Result<Vec<OsString>> {
    let own = &arguments.over_hosts;
    let life = fleet.launcher.life();
    // The processes of a step have our environment; to a host of its own it has to be said.
    let mut command = on_host(if life == Life::Detached { environment } else { &[] })?;
    let mut add = |words: &[&str]| command.extend(words.iter().map(OsString::from));
    add(&["agent", "--expect", &version::short(), "--port", &port.to_string()]);
    add(&["--ready-timeout", &arguments.ready_timeout.to_string()]);
    command.extend(["--mount".into(), directory.into(), "--folder".into(), folder.into()]);
    if life == Life::Step {
        command.extend(["--step".into(), "--hosts".into(), fleet.hosts_file.clone().into()]);
    }
    if fleet.launcher == Launcher::Slurm {
        command.push("--all-hear".into());
    }
    let mut daemon = common_arguments(arguments, job, directory)?;
    if let Some(Size(bytes)) = arguments.memory {
        daemon.extend(["--memory".into(), bytes.to_string().into()]);
    }
    if let Some(interface) = &own.interface {
        daemon.extend(["--interface".into(), interface.into()]);
    }
    if own.allow_missing > 0 {
        let patience = (arguments.ready_timeout / PATIENCE_SHARE).min(PATIENCE_SECONDS);
        daemon.extend(["--patience".into(), patience.to_string().into()]);
    }
    // Where a rank's number is added, it has to come before what the daemon is started with.
    command.push("--daemon".into());
    command.push(shell_words::join(daemon.iter().map(|word| word.to_string_lossy())).into());
    Ok(command)
}

fn levels(forest: &Forest) -> usize {
    let (_, tree) = forest.trees().next().expect("a job has a tree");
    let size = forest.size();
    (0..size).map(|rank| tree.ancestors(Rank(rank)).count()).max().unwrap_or(0)
}

fn print_plan(
    fleet: &Fleet,
    command: &[OsString],
    forest: &Forest,
    port: u16,
) -> anyhow::Result<()> {
    for start in fleet.starts(command) {
        let words: Vec<_> = start.words.iter().map(|word| word.to_string_lossy()).collect();
        print(&shell_words::join(words))?;
    }
    let secret = match fleet.launcher.life() {
        Life::Step => "the launcher's environment",
        Life::Detached => "standard input",
    };
    print(&format!("the job's secret goes by {secret}; every rank listens on TCP port {port}"))?;
    print_tree(forest, |rank| fleet.hosts.names()[rank.0 as usize].clone())
}

/// Who is whose parent.
pub(super) fn print_tree(forest: &Forest, place: impl Fn(Rank) -> String) -> anyhow::Result<()> {
    let size = forest.size();
    print(&format!(
        "{size} ranks, {} levels below the root in each of {} trees",
        levels(forest),
        forest.count()
    ))?;
    for rank in (0..size.min(PLAN_RANKS_MAX)).map(Rank) {
        let parents: Vec<String> = forest
            .trees()
            .map(|(_, tree)| {
                tree.parent(rank).map_or("root".to_owned(), |parent| parent.to_string())
            })
            .collect();
        print(&format!("rank {rank:<5} parent {:<12} {}", parents.join(" "), place(rank)))?;
    }
    if size > PLAN_RANKS_MAX {
        print(&format!("… and {} more", size - PLAN_RANKS_MAX))?;
    }
    Ok(())
}
