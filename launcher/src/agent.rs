//! What a launcher runs on each host: starts the host's daemon, says how that goes, and sees to it
//! that the daemon does not outlive a launch that fails.
//!
//! ```text
//! head ──▶ launcher ──▶ agent ──▶ daemon        lines of crate::said, back to the head
//!      ─ orders ──────────▶ (standard input; Detached only: secret, hosts)
//!      ─ "released" ──────▶ (Detached: the agent goes, the daemon stays; Step: both stay)
//!      ─ end of input ────▶ (before that: the head is gone, the daemon is ended)
//! ```
//! In a step the standard input leads to rank 0 alone; the launcher ends the others when that one
//! gives up.

use std::ffi::OsString;
use std::io::{self, BufRead, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError, channel};
use std::time::{Duration, Instant};

use copper_proto::Rank;
use rustix::process::{Signal, kill_process};

use crate::daemons::{Birth, Daemons};
use crate::hosts::{Hosts, told_rank};
use crate::job::{RunFolder, host_name};
use crate::orders::Orders;
use crate::peers::Peers;
use crate::ready::READY_FD;
use crate::release::Release;
use crate::said::{Line, Said, one_line};
use crate::secret::Secret;
use crate::starter::Life;

/// What the head writes when the launch is complete.
pub(crate) const RELEASED: &str = "released\n";

/// How long the orders may take to come.
const ORDERS_BOUND: Duration = Duration::from_secs(30);

/// How long rank 0 waits for the end of a launch that has failed.
const END_BOUND: Duration = Duration::from_secs(5);

/// How long the others have to unmount before rank 0 has the launcher end the step.
const UNMOUNT_BOUND: Duration = Duration::from_secs(1);

/// What an agent is started for.
#[derive(Debug)]
pub struct AgentPlan {
    /// The program.
    pub exe: PathBuf,
    /// What the head's program calls itself; [`AgentPlan::version`] has to be the same.
    pub expected: String,
    /// What this program calls itself.
    pub version: String,
    /// How long this process is to live.
    pub life: Life,
    /// Whether the launcher hands its standard input on to all, and not to rank 0 alone.
    pub all_hear: bool,
    /// This host's rank, if the head knows.
    pub rank: Option<Rank>,
    /// The list of hosts; `None` if it comes with the orders.
    pub hosts_file: Option<PathBuf>,
    /// Where everybody listens.
    pub port: u16,
    /// Where the view is to appear.
    pub mount: PathBuf,
    /// The run's folder.
    pub folder: PathBuf,
    /// What the daemon is started with, but for its place in the job.
    pub daemon: Vec<OsString>,
    /// How long it may take.
    pub ready_timeout: Duration,
}

/// How often the head's words are looked for.
const LOOK: Duration = Duration::from_millis(20);

/// Between two looks at a daemon that has nothing to tell: its end is told at once.
const A_WHILE: Duration = Duration::from_secs(3600);

/// How an agent ends.
enum End {
    /// The daemon is on its own, or has ended in its time.
    Done,
    /// The daemon has not come up.
    Failed,
    /// The head is gone: so is the daemon.
    Abandoned,
}

/// Something happens while the daemon runs.
enum Event {
    Released,
    /// The head is gone, or wants no more of this.
    Abandoned,
}

/// Who speaks.
struct Speaker {
    host: String,
    rank: Option<u32>,
}

impl Speaker {
    fn say(&self, said: Said) {
        let line = Line { host: self.host.clone(), rank: self.rank, said };
        let mut out = io::stdout().lock();
        // Nobody may be listening any more.
        let _ = writeln!(out, "{}", line.print()).and_then(|()| out.flush());
    }
}

impl AgentPlan {
    /// Runs until the daemon is on its own, has ended, or will not come up.
    pub fn run(&self) -> ExitCode {
        let rank = self.rank.map(|rank| rank.0);
        let mut speaker = Speaker { host: host_name(), rank };
        match self.try_run(&mut speaker) {
            Ok(End::Done) => ExitCode::SUCCESS,
            Ok(End::Failed) => self.failure(speaker.rank),
            Ok(End::Abandoned) => self.abandoned(speaker.rank),
            Err(reason) => {
                speaker.say(Said::Failed { reason });
                self.failure(speaker.rank)
            }
        }
    }

    /// In a step, one that fails is not to take the others with it: the head decides. Without rank
    /// 0 there is nothing to decide.
    fn failure(&self, rank: Option<u32>) -> ExitCode {
        match (self.life, rank) {
            (Life::Step, Some(1..)) => ExitCode::SUCCESS,
            (Life::Step, Some(0) | None) | (Life::Detached, _) => ExitCode::FAILURE,
        }
    }

    /// Without a head it is rank 0 that ends the others of a step. For an exit code MPICH lets them be,
    /// but every launcher ends a step of which one is killed.
    fn abandoned(&self, rank: Option<u32>) -> ExitCode {
        if self.life == Life::Detached {
            return ExitCode::FAILURE;
        }
        if rank != Some(0) {
            return ExitCode::SUCCESS;
        }
        if self.all_hear {
            // They are unmounting, and are killed as soon as this process is.
            std::thread::sleep(UNMOUNT_BOUND);
        }
        // Nothing is left to be done in order.
        let _ = kill_process(rustix::process::getpid(), Signal::KILL);
        ExitCode::FAILURE
    }

    fn try_run(&self, speaker: &mut Speaker) -> Result<End, String> {
        if self.expected != self.version {
            return Err(format!(
                "{} on this host is copper {}, but the launch is by copper {}: install the same one everywhere",
                self.exe.display(),
                self.version,
                self.expected
            ));
        }
        let told = told_rank(|name| std::env::var(name).ok());
        let mut input = None;
        let orders = match &self.hosts_file {
            Some(file) => {
                let secret = Secret::from_environment().map_err(line)?.ok_or(
                    "the launcher has not handed on COPPER_SECRET: let it export the environment",
                )?;
                Orders { secret, hosts: Hosts::from_file(file).map_err(line)? }
            }
            None => {
                let (events, orders) = read_orders()?;
                input = Some(events);
                orders
            }
        };
        let rank = match self.rank {
            Some(rank) => rank,
            None => orders.hosts.own_rank(&speaker.host, told).map_err(line)?,
        };
        speaker.rank = Some(rank.0);
        let events = match (input, self.life) {
            (Some(events), _) => Some(events),
            // Which ranks of a step have the head's words is up to the launcher; rank 0 has.
            (None, Life::Step) if rank.0 == 0 || self.all_hear => {
                Some(watch(io::BufReader::new(io::stdin())))
            }
            (None, _) => None,
        };
        self.with_daemon(speaker, rank, &orders, events)
    }

    fn with_daemon(
        &self,
        speaker: &Speaker,
        rank: Rank,
        orders: &Orders,
        events: Option<Receiver<Event>>,
    ) -> Result<End, String> {
        let started = Instant::now();
        let folder = RunFolder::at(&self.folder).map_err(line)?;
        let release = Release::new().map_err(line)?;
        let mut daemons = Daemons::default();
        daemons
            .spawn(Birth {
                exe: &self.exe,
                arguments: self.arguments(rank, &orders.hosts),
                rank,
                mount: &self.mount,
                input: orders.file().map_err(line)?,
                folder: &folder,
                release: &release,
            })
            .map_err(line)?;
        if let Some((pid, log)) = daemons.first() {
            let log = log.display().to_string();
            speaker.say(Said::Started { pid, log });
        }
        let deadline = started + self.ready_timeout;
        let mut abandoned = || {
            events.as_ref().is_some_and(|events| matches!(events.try_recv(), Ok(Event::Abandoned)))
        };
        let failures = daemons.wait_unless(
            started,
            deadline,
            &mut |_| speaker.say(Said::Ready),
            &mut abandoned,
        );
        let Some(failures) = failures else { return Ok(End::Abandoned) };
        if let Some(failure) = failures.first() {
            speaker.say(Said::Failed { reason: failure.to_string() });
            // Ended before this process says so by its own end.
            drop(daemons);
            if self.life == Life::Step && rank.0 == 0 {
                await_end(events);
                return Ok(End::Abandoned);
            }
            return Ok(End::Failed);
        }
        match (attend(&mut daemons, speaker, events.as_ref()), self.life) {
            (Some(Event::Released), Life::Detached) => {
                release.release().map_err(line)?;
                daemons.released();
                Ok(End::Done)
            }
            (Some(Event::Released), Life::Step) => {
                // A daemon that dies alone is not the end of the job.
                while !daemons.ended_within(A_WHILE) {}
                Ok(End::Done)
            }
            (Some(Event::Abandoned), _) => Ok(End::Abandoned),
            (None, Life::Step) => Ok(End::Done),
            (None, Life::Detached) => Err(format!("rank {rank} has ended before all were ready")),
        }
    }

    fn arguments(&self, rank: Rank, hosts: &Hosts) -> Vec<OsString> {
        let peers = Peers::from_hosts(hosts.names(), self.port);
        // All interfaces: hosts often know themselves by an address of their own loopback.
        let is_v6 = peers.resolve(rank).is_ok_and(|address| address.is_ipv6());
        let any: IpAddr =
            if is_v6 { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
        let mut arguments = self.daemon.clone();
        let mut add = |name: &str, value: OsString| arguments.extend([name.into(), value]);
        add("--rank", rank.to_string().into());
        add("--size", hosts.len().to_string().into());
        add("--mount", self.mount.clone().into());
        add("--port", self.port.to_string().into());
        add("--listen", SocketAddr::from((any, self.port)).to_string().into());
        add("--ready-fd", READY_FD.to_string().into());
        add("--ready-timeout", self.ready_timeout.as_secs().max(1).to_string().into());
        arguments.push("--orders".into());
        arguments
    }
}

/// Passes on what rank 0 counts until the launch is complete, or will not be; `None` if the daemon
/// ends first. Without `events` it is somebody else's to know.
fn attend(
    daemons: &mut Daemons,
    speaker: &Speaker,
    events: Option<&Receiver<Event>>,
) -> Option<Event> {
    let Some(events) = events else { return Some(Event::Released) };
    loop {
        if let Some(counted) = daemons.counted() {
            speaker.say(Said::Counted(counted));
        }
        match events.try_recv() {
            Ok(event) => return Some(event),
            Err(TryRecvError::Disconnected) => return Some(Event::Abandoned),
            Err(TryRecvError::Empty) => {}
        }
        if daemons.ended_within(LOOK) {
            return None;
        }
    }
}

/// Some launchers end a step as soon as its first process has failed. The head first wants to hear
/// what the others have to say.
fn await_end(events: Option<Receiver<Event>>) {
    // Whatever comes, or nothing: the launch will not become complete.
    let _ = events.map(|events| events.recv_timeout(END_BOUND));
}

fn line(error: impl std::error::Error + 'static) -> String {
    one_line(&error)
}

/// The orders, and what comes after them.
fn read_orders() -> Result<(Receiver<Event>, Orders), String> {
    let (sender, receiver) = channel();
    let read = move || {
        let mut input = io::BufReader::new(io::stdin());
        let orders = Orders::read(&mut input).map_err(line);
        let _ = sender.send(orders.map(|orders| (watch(input), orders)));
    };
    let _reader = std::thread::spawn(read);
    match receiver.recv_timeout(ORDERS_BOUND) {
        Ok(orders) => orders,
        Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => Err(format!(
            "the head's orders did not come within {} s: the launcher does not hand on standard input",
            ORDERS_BOUND.as_secs()
        )),
    }
}

/// What the head says from now on.
fn watch(mut input: impl BufRead + Send + 'static) -> Receiver<Event> {
    let (sender, receiver) = channel();
    let watch = move || {
        let mut text = String::new();
        let event = loop {
            text.clear();
            match input.read_line(&mut text) {
                Ok(0) | Err(_) => break Event::Abandoned,
                Ok(_) if text == RELEASED => break Event::Released,
                Ok(_) => {}
            }
        };
        // The daemon may have ended before.
        let _ = sender.send(event);
    };
    let _watcher = std::thread::spawn(watch);
    receiver
}
