//! `copper bench`: what the ranks do for each other, beside bare libfabric.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use copper_launcher::{Peers, Secret, inherited_listener, listen};
use copper_ofi::Net;
use copper_proto::Rank;

use super::logging::{self, Level};
use super::print;
use super::progress::Stage;
use super::serve::{PORT, with_environment};
use super::size::Size;
use crate::bench::{self, Extent, Fleet, LocalFleet, Part, WorkerPlan};

/// The most processes that make sense on one machine.
const LOCAL_MAX: i64 = 256;

/// All parts, in the order in which they run.
const PARTS: [Part; 5] = [Part::Pull, Part::Answer, Part::Fanout, Part::Broadcast, Part::Idle];

#[derive(Debug, Args)]
pub(super) struct BenchArguments {
    /// Measure N ranks on this machine
    #[arg(long, value_name = "N", conflicts_with_all = ["rank", "size", "peers", "hosts"],
          value_parser = clap::value_parser!(u32).range(2..=LOCAL_MAX))]
    local: Option<u32>,

    /// This rank's number, from 0; rank 0 prints what was found
    #[arg(long, requires = "size")]
    rank: Option<u32>,

    /// Number of ranks of the job
    #[arg(long)]
    size: Option<NonZeroU32>,

    /// Every rank's HOST:PORT, in order of rank, separated by commas
    #[arg(long, value_name = "LIST", conflicts_with = "hosts")]
    peers: Option<String>,

    /// A file with every rank's host, one a line, in order of rank
    #[arg(long, value_name = "FILE")]
    hosts: Option<PathBuf>,

    /// The port that every host of --hosts listens on; rank 0 gives orders on the one after its own
    #[arg(long, default_value_t = PORT)]
    port: u16,

    /// Take over a listening socket from the rank in command
    #[arg(long, hide = true)]
    listen_fd: Option<u32>,

    /// Where orders come from (started by `bench --local`)
    #[arg(long, hide = true)]
    orders: Option<SocketAddr>,

    /// The fabric: auto, tcp, shm, cxi, cxi0 …
    #[arg(long, short = 'n', default_value = "auto")]
    net: Net,

    /// The local address for fabrics that use the Internet protocol
    #[arg(long, value_name = "ADDRESS")]
    fabric_address: Option<IpAddr>,

    /// The file with the job's secret, mode 0600 [default: $COPPER_SECRET]
    #[arg(long, value_name = "FILE")]
    secret_file: Option<PathBuf>,

    /// Measure only this; may be given several times
    #[arg(long, value_enum, value_name = "PART")]
    only: Vec<Part>,

    /// Seconds instead of minutes: to see that it runs
    #[arg(long)]
    short: bool,

    /// How often each pair is measured [default: 5]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=99))]
    rounds: Option<u32>,

    /// The size of the file that is broadcast [default: 1GiB]
    #[arg(long, value_name = "SIZE")]
    broadcast: Option<Size>,

    /// The ranks that it is broadcast to, the root among them
    #[arg(long, value_name = "N", default_value_t = 8)]
    broadcast_ranks: u32,

    /// How long each engine spins for more work before it sleeps, in microseconds
    #[arg(long, value_name = "US", default_value_t = 0)]
    spin_us: u32,

    /// Write what was found to FILE too, as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    /// How much to log
    #[arg(long, short = 'l', value_enum, default_value = "error")]
    log_level: Level,
}

pub(super) fn run(arguments: &BenchArguments) -> anyhow::Result<ExitCode> {
    logging::start(arguments.log_level);
    with_environment(&arguments.net);
    if let Some(ranks) = arguments.local {
        let log = arguments.log_level.name();
        let mut local = LocalFleet::start(ranks, &arguments.net, log)?;
        return show(&mut local.fleet, arguments);
    }
    let Some(rank) = arguments.rank else {
        bail!("give --local N, or --rank, --size and --peers or --hosts on every rank");
    };
    let plan = worker(arguments, rank)?;
    if rank > 0 || arguments.orders.is_some() {
        bench::work(plan)?;
        return Ok(ExitCode::SUCCESS);
    }
    // Rank 0 gives orders, and obeys them in a thread.
    let orders = plan.orders;
    let listener = TcpListener::bind(orders)
        .with_context(|| format!("cannot listen on {orders}, where orders are given"))?;
    let (secret, ranks) = (plan.secret.clone(), arguments.size.map_or(1, NonZeroU32::get));
    let working = std::thread::spawn(move || bench::work(plan));
    let mut fleet = Fleet::gather(&listener, ranks, &secret, || {
        working.is_finished().then(|| "rank 0 could not take part".to_owned())
    })?;
    show(&mut fleet, arguments)
}

fn show(fleet: &mut Fleet, arguments: &BenchArguments) -> anyhow::Result<ExitCode> {
    let extent = extent(arguments);
    let (parts, mut begun, mut stage) = (extent.parts.len(), 0, None);
    let mut told = |part: Part| {
        begun += 1;
        // The one before ends first.
        drop(stage.take());
        stage = Some(Stage::begin(format!("measuring {}, part {begun} of {parts}", name(part))));
    };
    let report = bench::run(fleet, &extent, &mut told)?;
    drop(stage);
    print(report.table().trim_end())?;
    if let Some(file) = &arguments.json {
        std::fs::write(file, report.json()? + "\n")
            .with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn name(part: Part) -> String {
    part.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
}

fn extent(arguments: &BenchArguments) -> Extent {
    let parts = if arguments.only.is_empty() { PARTS.to_vec() } else { arguments.only.clone() };
    let broadcast_ranks = arguments.broadcast_ranks.max(2);
    let spin_us = arguments.spin_us;
    let broadcast = arguments.broadcast.map(|Size(bytes)| bytes);
    if arguments.short {
        Extent {
            parts,
            rounds: arguments.rounds.unwrap_or(1),
            pull_bytes: 16 << 20,
            answers: 50,
            blocks: 2,
            broadcast_bytes: broadcast.unwrap_or(16 << 20),
            broadcast_ranks,
            idle_ms: 500,
            spin_us,
        }
    } else {
        Extent {
            parts,
            rounds: arguments.rounds.unwrap_or(5),
            pull_bytes: 512 << 20,
            answers: 2000,
            blocks: 15,
            broadcast_bytes: broadcast.unwrap_or(1 << 30),
            broadcast_ranks,
            idle_ms: 60_000,
            spin_us,
        }
    }
}

fn worker(arguments: &BenchArguments, rank: u32) -> anyhow::Result<WorkerPlan> {
    let rank = Rank(rank);
    let peers = match (&arguments.peers, &arguments.hosts) {
        (Some(list), _) => Peers::parse(list)?,
        (None, Some(file)) => Peers::from_hosts_file(file, arguments.port)?,
        (None, None) => bail!("the ranks need --peers or --hosts to find each other"),
    };
    let size = arguments.size.map_or(1, NonZeroU32::get);
    if peers.len() != size as usize {
        bail!("--size {size}, but {} ranks are listed", peers.len());
    }
    let listener = match arguments.listen_fd {
        Some(number) => inherited_listener(number)?,
        None => listen(peers.resolve(rank)?)?,
    };
    let secret = match (&arguments.secret_file, Secret::from_environment()?) {
        (Some(file), _) => Secret::from_file(file)?,
        (None, Some(secret)) => secret,
        (None, None) => bail!("give --secret-file, or COPPER_SECRET in the environment"),
    };
    let orders = match arguments.orders {
        Some(orders) => orders,
        None => {
            let mut first = peers.resolve(Rank(0))?;
            let after = first.port().checked_add(1);
            first.set_port(after.context("rank 0 gives orders on the port after its own")?);
            first
        }
    };
    let own = peers.resolve(rank).ok().map(|address| address.ip());
    let bind = arguments.fabric_address.or(own.filter(|it| *it != Ipv4Addr::UNSPECIFIED));
    let net = arguments.net.clone();
    Ok(WorkerPlan { rank, peers, listener, secret, net, bind, orders })
}
