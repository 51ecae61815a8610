//! Starting all ranks of a job on this machine: all of them, or none.
//!
//! Ports cannot be lost to others: the launcher binds one listening socket for each rank and leaves
//! it to the daemon as its standard input ([`LISTEN_FD`]). The channel over which the daemon reports
//! is its standard output ([`READY_FD`]), its log is its standard error. Whatever the ending, no
//! daemon outlives a launch that is not complete: see [`crate::ready`].

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use copper_proto::Rank;

use crate::daemons::{Birth, Daemons, RankFailure, SpawnError};
use crate::handed::{HandedError, HandedFile};
use crate::job::RunFolder;
use crate::listener::LISTEN_FD;
use crate::peers::Peers;
use crate::process::Process;
use crate::ready::READY_FD;
use crate::release::Release;
use crate::secret::Secret;

/// Ranks to start on this machine.
pub struct LocalPlan<'a> {
    /// The program.
    pub exe: PathBuf,
    /// Where each rank is to be mounted; as many as there are ranks.
    pub mounts: Vec<PathBuf>,
    /// Where logs go.
    pub folder: RunFolder,
    /// Where the secret is left for the daemons to read: [`crate::Instances::path`].
    pub run_directory: PathBuf,
    /// The job's secret.
    pub secret: Secret,
    /// What every rank is started with, first.
    pub args_common: Vec<OsString>,
    /// What one rank is started with, after that.
    pub rank_args: &'a dyn Fn(&RankPlace<'_>) -> Vec<OsString>,
    /// How long all of them may take.
    pub ready_timeout: Duration,
}

/// What a rank has to be told.
#[derive(Clone, Copy, Debug)]
pub struct RankPlace<'a> {
    /// Its rank.
    pub rank: Rank,
    /// Number of ranks.
    pub size: u32,
    /// Where it is to be mounted.
    pub mount: &'a Path,
    /// Where everybody listens; [`Peers`] prints itself in the form that it parses.
    pub peers: &'a Peers,
    /// Which descriptor is its listening socket: for [`crate::inherited_listener`].
    pub listen_fd: u32,
    /// Which descriptor leads to the launcher: for [`crate::ReadyPipe::from_fd`].
    pub ready_fd: u32,
    /// The file with the job's secret, for [`Secret::from_file`]. It is there until the rank has
    /// reported.
    pub secret_file: &'a Path,
}

/// A launch that is complete.
#[derive(Clone, Debug)]
pub struct Launched {
    /// In order of rank.
    pub ranks: Vec<LaunchedRank>,
}

/// A daemon that is up.
#[derive(Clone, Debug)]
pub struct LaunchedRank {
    /// Its rank.
    pub rank: Rank,
    /// Itself.
    pub process: Process,
    /// Where it is mounted.
    pub mount: PathBuf,
    /// Its log.
    pub log: PathBuf,
    /// From the start of the launch to its report.
    pub ready_after: Duration,
}

impl fmt::Debug for LocalPlan<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("LocalPlan")
            .field("exe", &self.exe)
            .field("mounts", &self.mounts)
            .field("args_common", &self.args_common)
            .finish_non_exhaustive()
    }
}

impl LocalPlan<'_> {
    /// Starts all ranks and waits until all are ready; `on_ready` hears of each. If one fails, all
    /// are ended before this returns.
    ///
    /// # Errors
    /// Which rank failed and why.
    pub fn launch(&self, mut on_ready: impl FnMut(&LaunchedRank)) -> Result<Launched, LocalError> {
        let started = Instant::now();
        let size = u32::try_from(self.mounts.len()).unwrap_or(u32::MAX);
        if size == 0 {
            return Err(LocalError::NoRanks);
        }
        let secret_file = HandedFile::secret(&self.run_directory, &self.secret)?;
        let (listeners, peers) = bind(size).map_err(LocalError::Ports)?;
        let release = Release::new().map_err(LocalError::Launcher)?;
        let mut daemons = Daemons::default();
        for (listener, mount, rank) in
            listeners.into_iter().zip(&self.mounts).zip(0..).map(|((a, b), c)| (a, b, Rank(c)))
        {
            let place = RankPlace {
                rank,
                size,
                mount,
                peers: &peers,
                listen_fd: LISTEN_FD,
                ready_fd: READY_FD,
                secret_file: secret_file.path(),
            };
            let arguments = self.args_common.iter().cloned().chain((self.rank_args)(&place));
            daemons.spawn(Birth {
                exe: &self.exe,
                arguments: arguments.collect(),
                rank,
                mount,
                input: listener.into(),
                folder: &self.folder,
                release: &release,
            })?;
        }
        let failures = daemons.wait(started, self.ready_timeout, &mut on_ready);
        if !failures.is_empty() {
            return Err(LocalError::Ranks { failures });
        }
        release.release().map_err(LocalError::Launcher)?;
        Ok(daemons.released())
    }
}

/// One listening socket for each rank, all bound before the first is told.
fn bind(size: u32) -> io::Result<(Vec<TcpListener>, Peers)> {
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let listeners = (0..size).map(|_| TcpListener::bind(any)).collect::<io::Result<Vec<_>>>()?;
    let addresses =
        listeners.iter().map(TcpListener::local_addr).collect::<io::Result<Vec<_>>>()?;
    Ok((listeners, Peers::from_addresses(addresses)))
}

/// Why nothing was started.
#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    /// An empty plan.
    #[error("there is no rank to start: --local takes a number from 1 on")]
    NoRanks,
    /// The launcher's own process is unreadable.
    #[error("the launcher cannot find out about itself")]
    Launcher(#[source] io::Error),
    /// What daemons need cannot be left for them.
    #[error(transparent)]
    Handed(#[from] HandedError),
    /// No ports.
    #[error("cannot get ports on 127.0.0.1 for the ranks")]
    Ports(#[source] io::Error),
    /// A daemon cannot be started.
    #[error(transparent)]
    Spawn(#[from] SpawnError),
    /// Ranks did not come up; the others have been ended.
    #[error("{}", failures.iter().map(RankFailure::to_string).collect::<Vec<_>>().join("; "))]
    Ranks {
        /// Each with its reason.
        failures: Vec<RankFailure>,
    },
}
