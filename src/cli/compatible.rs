//! Options that scripts of both generations of the C++ Copper give, as far as no other file has them.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::cpu_bind::{self, CpuBind};
use super::log_follower::LogFollower;
use super::{one_line, say};
use crate::profile::{self, Paths};

/// How long an absent name may be believed at most: a day.
const ENOENT_TTL_MS_MAX: i64 = 86_400_000;

/// Paths of a profile at most.
const PROFILE_TOP_MAX: i64 = 100_000;

/// Seconds between two profiles at most: a day.
const PROFILE_INTERVAL_MAX: i64 = 86_400;

/// A command line that this machine, rather than its form, shows to be wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct Usage(String);

/// Where the daemons' lines are shown, beside their files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum LogType {
    /// Files only
    File,
    /// Also here until all ranks are ready. The daemons live longer than this command: what they log
    /// after that is in their files, which are written in any case
    Stdout,
    /// The same
    #[value(aliases = ["stdout_and_file", "both"])]
    #[value(name = "file_and_stdout")]
    FileAndStdout,
}

/// What only a launch takes.
#[derive(Debug, Args)]
pub(super) struct CompatibleArguments {
    /// Where the daemons' lines are shown: in their files, or also here until all ranks are ready
    #[arg(long, short = 't', value_enum, value_name = "TYPE", default_value = "file")]
    log_type: LogType,

    /// Not needed: ranks find each other at run time
    #[arg(short = 'F', value_name = "FILE")]
    address_book: Option<PathBuf>,

    /// Not needed: ranks find each other at run time
    #[arg(short = 'a', value_name = "MODE")]
    address_mode: Option<String>,

    #[command(flatten)]
    daemon: DaemonArguments,
}

/// What each daemon is told.
#[derive(Debug, Args)]
pub(super) struct DaemonArguments {
    /// How long a name may be answered as absent where no complete listing proves it, in milliseconds
    #[arg(long, short = 'E', value_name = "MS", default_value_t = 2000, value_parser = clap::value_parser!(u32).range(0..=ENOENT_TTL_MS_MAX))]
    enoent_ttl: u32,

    /// Cores for each daemon, as 48-51 or 1,2,65,66; or `none` [default: 48-51 where they exist, with
    /// --local none]
    #[arg(long, short = 'b', value_name = "LIST")]
    cpu_bind: Option<CpuBind>,

    /// Write a profile of each rank
    #[arg(long, short = 'P')]
    profile: bool,

    /// With the K paths that were asked for most; implies --profile
    #[arg(long, short = 'N', value_name = "K", value_parser = clap::value_parser!(u32).range(1..=PROFILE_TOP_MAX))]
    profile_top: Option<u32>,

    /// With all paths, of each kind the 32,768 that were asked for most; implies --profile
    #[arg(long, short = 'A')]
    profile_paths: bool,

    /// A snapshot of it every S seconds; implies --profile
    #[arg(long, short = 'I', value_name = "S", value_parser = clap::value_parser!(u32).range(1..=PROFILE_INTERVAL_MAX))]
    profile_interval: Option<u32>,
}

impl Usage {
    /// What is wrong with the command line is that which failed so.
    pub(super) fn of(error: anyhow::Error) -> Usage {
        Usage(one_line(&error))
    }
}

impl CompatibleArguments {
    /// Judges what needs the machine, and says what is not needed. Only where the daemons are to run
    /// `here`: cores of other hosts are judged there.
    pub(super) fn check(&self, here: bool) -> Result<(), Usage> {
        let cores = self.daemon.cpu_bind.as_ref().filter(|_| here);
        let missing = cores.map(CpuBind::missing).unwrap_or_default();
        if let (Some(list), Some(core)) = (cores, missing.first()) {
            let text = format!("--cpu-bind {list}: this machine has no core {core}");
            return Err(Usage(text));
        }
        if self.address_book.is_some() || self.address_mode.is_some() {
            say("copper: -F and -a have no effect: ranks find each other without address books");
        }
        Ok(())
    }

    /// Shows what the daemons log below `logs` until it is dropped, if that is wanted.
    pub(super) fn follow(&self, logs: &Path) -> Option<LogFollower> {
        match self.log_type {
            LogType::File => None,
            LogType::Stdout | LogType::FileAndStdout => Some(LogFollower::start(logs)),
        }
    }

    /// The daemons' part, for the command line of a rank. Several on one machine (`crowded`) do not
    /// share the few cores that are meant for one.
    pub(super) fn words(&self, crowded: bool) -> Vec<OsString> {
        let daemon = &self.daemon;
        let unbound = (crowded && daemon.cpu_bind.is_none()).then(|| "none".to_owned());
        let values = [
            ("--enoent-ttl", Some(daemon.enoent_ttl.to_string())),
            ("--cpu-bind", daemon.cpu_bind.as_ref().map(CpuBind::to_string).or(unbound)),
            ("--profile-top", daemon.profile_top.map(|count| count.to_string())),
            ("--profile-interval", daemon.profile_interval.map(|seconds| seconds.to_string())),
        ];
        let flags = [("--profile", daemon.profile), ("--profile-paths", daemon.profile_paths)];
        let given = values.into_iter().filter_map(|(name, value)| Some((name, value?)));
        let values = given.flat_map(|(name, value)| [name.into(), value.into()]);
        values
            .chain(flags.into_iter().filter(|(_, given)| *given).map(|(name, _)| name.into()))
            .collect()
    }
}

impl DaemonArguments {
    /// Does at once what has to come before the first thread.
    pub(super) fn apply(&self) -> anyhow::Result<()> {
        cpu_bind::bind(self.cpu_bind.as_ref())
    }

    /// How long a name may be absent without a proof.
    pub(super) fn absent_bound(&self) -> Duration {
        Duration::from_millis(self.enoent_ttl.into())
    }

    /// What profiles are to show, if they are wanted. To ask for paths, for the most frequent of them
    /// or for snapshots is to want them.
    pub(super) fn profile(&self) -> Option<profile::Plan> {
        let paths = match self.profile_top {
            // Both together are the most frequent ones, by their paths.
            Some(count) => Paths::Top(count as usize),
            None if self.profile_paths => Paths::All,
            None => Paths::None,
        };
        let interval = self.profile_interval.map(|seconds| Duration::from_secs(seconds.into()));
        let wanted = self.profile || paths != Paths::None || interval.is_some();
        wanted.then_some(profile::Plan { paths, interval })
    }
}
