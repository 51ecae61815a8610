//! The ranks of a bench, from the one in command.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use copper_launcher::Secret;
use copper_launcher::listener::LISTEN_FD;
use copper_launcher::secret::SECRET_VARIABLE;
use copper_ofi::Net;
use tracing::warn;

use super::orders::{Line, Order, Reply, Timed};
use super::worker::clock_ns;

/// How long all ranks may take to report.
const GATHER_BOUND: Duration = Duration::from_secs(120);

/// How long a rank may take to introduce itself.
const HELLO_BOUND: Duration = Duration::from_secs(5);

/// How long a rank may take for one order: longer than the longest batch of questions.
const ORDER_BOUND: Duration = Duration::from_secs(240);

const POLL: Duration = Duration::from_millis(5);

/// Until ranks that are told to start together do.
const COMMON_START: Duration = Duration::from_millis(5);

/// All ranks of a bench, in order.
pub(crate) struct Fleet {
    lines: Vec<Line>,
    /// Whether all ranks have one clock.
    one_machine: bool,
}

impl Fleet {
    /// Waits for `ranks` ranks that know the secret; `lost` says why it is no use to wait longer.
    pub(crate) fn gather(
        listener: &TcpListener,
        ranks: u32,
        secret: &Secret,
        mut lost: impl FnMut() -> Option<String>,
    ) -> anyhow::Result<Fleet> {
        let until = Instant::now() + GATHER_BOUND;
        let mut lines: Vec<Option<Line>> = (0..ranks).map(|_| None).collect();
        let mut one_machine = true;
        listener.set_nonblocking(true)?;
        while lines.iter().any(Option::is_none) {
            if let Some(reason) = lost() {
                bail!("{reason}");
            }
            if Instant::now() > until {
                let missing: Vec<_> =
                    (0..ranks).filter(|&it| lines[it as usize].is_none()).collect();
                bail!("ranks {missing:?} of the bench have not reported");
            }
            let (stream, from) = match listener.accept() {
                Ok(accepted) => accepted,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    std::thread::sleep(POLL);
                    continue;
                }
                Err(error) => return Err(error).context("cannot listen for the ranks"),
            };
            stream.set_nonblocking(false)?;
            stream.set_read_timeout(Some(HELLO_BOUND))?;
            let mut line = Line::new(stream)?;
            match line.admit(secret) {
                Ok(rank) if rank < ranks => {
                    line.stream().set_read_timeout(Some(ORDER_BOUND))?;
                    one_machine &= from.ip().is_loopback();
                    lines[rank as usize] = Some(line);
                }
                Ok(rank) => warn!(rank, "a rank that the bench does not have"),
                Err(error) => warn!(%error, %from, "not taken part"),
            }
        }
        Ok(Fleet { lines: lines.into_iter().flatten().collect(), one_machine })
    }

    /// How many there are.
    pub(super) fn ranks(&self) -> u32 {
        u32::try_from(self.lines.len()).expect("counted by 32 bits")
    }

    /// When ranks that are told now begin.
    pub(super) fn common_start_ns(&self) -> u64 {
        let later = u64::try_from(COMMON_START.as_nanos()).expect("milliseconds");
        if self.one_machine { clock_ns() + later } else { 0 }
    }

    /// Tells some at once, and waits for all.
    pub(super) fn tell_all(
        &mut self,
        ranks: std::ops::Range<u32>,
        order: Order,
    ) -> anyhow::Result<Vec<Reply>> {
        for rank in ranks.clone() {
            self.lines[rank as usize].say(&order)?;
        }
        let mut replies = Vec::new();
        let mut failed = None;
        for rank in ranks {
            match self.lines[rank as usize].hear()? {
                Some(Reply::Failed(reason)) => {
                    failed.get_or_insert(anyhow!("rank {rank} of the bench: {reason}"));
                }
                Some(reply) => replies.push(reply),
                None => bail!("rank {rank} of the bench has ended"),
            }
        }
        failed.map_or(Ok(replies), Err)
    }

    /// Has one rank do something that takes time.
    pub(super) fn time(&mut self, rank: u32, order: Order) -> anyhow::Result<Timed> {
        self.time_all(rank..rank + 1, order).map(|times| times[0])
    }

    /// The same with several.
    pub(super) fn time_all(
        &mut self,
        ranks: std::ops::Range<u32>,
        order: Order,
    ) -> anyhow::Result<Vec<Timed>> {
        let timed = |reply| match reply {
            Reply::Timed(timed) => Ok(timed),
            Reply::Done | Reply::Joined { .. } | Reply::Failed(_) => Err(anyhow!("no time came")),
        };
        self.tell_all(ranks, order)?.into_iter().map(timed).collect()
    }

    /// From the first rank's start to the last one's end; across machines, whose clocks differ, the
    /// slowest rank's own time.
    pub(super) fn span_s(&self, times: &[Timed]) -> f64 {
        if !self.one_machine {
            return times.iter().map(Timed::seconds).fold(0.0, f64::max);
        }
        let start_ns = times.iter().map(|timed| timed.start_ns).min().unwrap_or(0);
        let end_ns = times.iter().map(|timed| timed.end_ns).max().unwrap_or(0);
        Timed { start_ns, end_ns, ..Timed::default() }.seconds()
    }
}

/// Ranks that this process has started.
pub(crate) struct LocalFleet {
    /// Closed first: ranks end when nobody gives orders.
    pub(crate) fleet: Fleet,
    _processes: Processes,
}

struct Processes(Vec<Child>);

impl Drop for Processes {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl LocalFleet {
    /// Starts `ranks` processes of this program, with the same further arguments.
    pub(crate) fn start(ranks: u32, net: &Net, log: &str) -> anyhow::Result<LocalFleet> {
        let anywhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let secret = Secret::generate()?;
        let orders = TcpListener::bind(anywhere).context("cannot listen on the loopback")?;
        let listeners: Vec<_> =
            (0..ranks).map(|_| TcpListener::bind(anywhere)).collect::<Result<_, _>>()?;
        let addresses = listeners.iter().map(|it| it.local_addr().map(|at| at.to_string()));
        let peers = addresses.collect::<Result<Vec<_>, _>>()?.join(",");
        let exe = std::env::current_exe().context("cannot find this program")?;
        let mut processes = Processes(Vec::new());
        for (rank, listener) in listeners.into_iter().enumerate() {
            let child = Command::new(&exe)
                .arg("bench")
                .args(["--rank", &rank.to_string(), "--size", &ranks.to_string()])
                .args(["--peers", &peers, "--listen-fd", &LISTEN_FD.to_string()])
                .args(["--orders", &orders.local_addr()?.to_string()])
                .args(["--net", &net.to_string(), "--log-level", log])
                .env(SECRET_VARIABLE, secret.hex())
                .stdin(Stdio::from(OwnedFd::from(listener)))
                .stdout(Stdio::null())
                .spawn()
                .context("cannot start a rank")?;
            processes.0.push(child);
        }
        let fleet = Fleet::gather(&orders, ranks, &secret, || {
            let ended = processes.0.iter_mut().enumerate().find_map(|(rank, child)| {
                child.try_wait().ok().flatten().map(|status| (rank, status))
            });
            ended.map(|(rank, status)| format!("rank {rank} of the bench ended: {status}"))
        })?;
        Ok(LocalFleet { fleet, _processes: processes })
    }
}
