//! A rank that carries out orders until the one in command hangs up.

use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use copper_launcher::{Peers, Secret};
use copper_ofi::Net;
use copper_proto::Rank;
use rustix::time::{ClockId, clock_gettime};

use super::fetcher::{Fetcher, Prepared};
use super::member::{Driving, Member, Place};
use super::orders::{Line, Order, Reply, Timed};
use super::raw::Task;

/// How long the rank in command may take to appear.
const COMMAND_BOUND: Duration = Duration::from_secs(120);

/// How often it is looked for.
const COMMAND_POLL: Duration = Duration::from_millis(100);

/// The longest wait for a common start: an order that says more is a mistake.
const START_BOUND_NS: u64 = 10_000_000_000;

/// What a rank of a bench is told at its start.
#[derive(Debug)]
pub(crate) struct WorkerPlan {
    pub(crate) rank: Rank,
    pub(crate) peers: Peers,
    pub(crate) listener: TcpListener,
    pub(crate) secret: Secret,
    pub(crate) net: Net,
    pub(crate) bind: Option<IpAddr>,
    pub(crate) orders: SocketAddr,
}

/// The monotonic clock of this machine, the same for all of its processes.
pub(super) fn clock_ns() -> u64 {
    nanoseconds(ClockId::Monotonic)
}

fn nanoseconds(clock: ClockId) -> u64 {
    let time = clock_gettime(clock);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    seconds * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0)
}

/// Carries out orders.
///
/// # Errors
/// If nobody gives any, or who does is not of the job.
pub(crate) fn work(plan: WorkerPlan) -> anyhow::Result<()> {
    let mut line = Line::new(command(plan.orders)?)?;
    line.introduce(plan.rank.0, &plan.secret)?;
    let place = Place {
        rank: plan.rank,
        peers: plan.peers,
        listener: plan.listener,
        secret: plan.secret,
        net: plan.net,
        bind: plan.bind,
    };
    let mut worker = Worker { place, member: None, prepared: Vec::new() };
    while let Some(order) = line.hear()? {
        let reply = worker.obey(order);
        let reply = reply.unwrap_or_else(|error| Reply::Failed(format!("{error:#}")));
        line.say(&reply)?;
    }
    worker.leave();
    Ok(())
}

fn command(address: SocketAddr) -> anyhow::Result<TcpStream> {
    let until = Instant::now() + COMMAND_BOUND;
    loop {
        match TcpStream::connect_timeout(&address, COMMAND_BOUND) {
            Ok(stream) => return Ok(stream),
            Err(_) if Instant::now() < until => std::thread::sleep(COMMAND_POLL),
            Err(error) => {
                return Err(error).with_context(|| {
                    format!("nobody gives orders at {address}: is rank 0 of the bench running?")
                });
            }
        }
    }
}

struct Worker {
    place: Place,
    member: Option<Member>,
    prepared: Vec<Prepared>,
}

impl Worker {
    fn obey(&mut self, order: Order) -> anyhow::Result<Reply> {
        match order {
            Order::Join(join) => {
                self.leave();
                let member = Member::join(&self.place, join)?;
                let provider = member.provider.clone();
                self.member = Some(member);
                return Ok(Reply::Joined { provider });
            }
            Order::Leave => self.leave(),
            Order::Prepare(files) => {
                let fetcher = self.fetcher()?;
                let prepared = fetcher.prepare(files)?;
                self.prepared.push(prepared);
            }
            Order::Fetch { files, window, at_ns } => {
                let fetcher = self.fetcher()?;
                let prepared = self.prepared.iter().position(|it| it.files() == files);
                let prepared = self.prepared.swap_remove(prepared.context("not prepared")?);
                wait_until(at_ns);
                return Ok(Reply::Timed(fetcher.fetch(&prepared, window as usize)?));
            }
            Order::Read { bytes, count, window, span_bytes } => {
                let (bytes, count) = (bytes as usize, count as usize);
                let span = usize::try_from(span_bytes)?;
                let task = Task::Read { bytes, count, window: window as usize, span };
                return self.perform(task).map(Reply::Timed);
            }
            Order::PingPong { bytes, count } => {
                let task = Task::PingPong { bytes: bytes as usize, count: count as usize };
                return self.perform(task).map(Reply::Timed);
            }
            Order::Spent => {
                let cpu_ns = nanoseconds(ClockId::ProcessCPUTime);
                return Ok(Reply::Timed(Timed { cpu_ns, ..Timed::default() }));
            }
            Order::Idle { ms } => return Ok(Reply::Timed(idle(Duration::from_millis(ms)))),
        }
        Ok(Reply::Done)
    }

    fn perform(&self, task: Task) -> anyhow::Result<Timed> {
        match self.driving()? {
            Driving::Raw(thread) => thread.perform(task),
            Driving::Engine { .. } => bail!("the raw loop is not running"),
        }
    }

    fn fetcher(&self) -> anyhow::Result<Arc<Fetcher>> {
        match self.driving()? {
            Driving::Engine { fetcher, .. } => Ok(Arc::clone(fetcher)),
            Driving::Raw(_) => bail!("the engine is not running"),
        }
    }

    fn driving(&self) -> anyhow::Result<&Driving> {
        self.member.as_ref().map(|member| &member.driving).context("no tree has been formed")
    }

    fn leave(&mut self) {
        self.prepared.clear();
        if let Some(member) = self.member.take() {
            member.leave();
        }
    }
}

/// All ranks of a machine begin at once, by its clock; on other machines it says something else.
fn wait_until(at_ns: u64) {
    let wait_ns = at_ns.saturating_sub(clock_ns());
    if wait_ns < START_BOUND_NS {
        std::thread::sleep(Duration::from_nanos(wait_ns));
    }
}

fn idle(bound: Duration) -> Timed {
    let (start_ns, cpu_ns) = (clock_ns(), nanoseconds(ClockId::ProcessCPUTime));
    std::thread::sleep(bound);
    let end_ns = clock_ns();
    let cpu_ns = nanoseconds(ClockId::ProcessCPUTime) - cpu_ns;
    Timed { start_ns, end_ns, cpu_ns, ..Timed::default() }
}
