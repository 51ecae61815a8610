//! The rival: a thread that does with bare libfabric what is asked for and nothing else. It waits as
//! the engine's thread does, knows its links from the same rendezvous, and its reads lie in memory
//! as the engine's do: each in another place than the one before.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use copper_engine::Queue;
use copper_engine::ports::{Control, Role};
use copper_ofi::{Arena, Event, Filling, Network, Peer, PostError, Remote};
use copper_proto::limits::MESSAGE_BYTES_MAX;

use super::orders::Timed;
use super::worker::clock_ns;
use crate::sleeper::Sleeper;

/// Completions taken in one turn.
const COMPLETIONS: usize = 64;

/// How long one task may take.
const TASK_BOUND: Duration = Duration::from_secs(180);

/// What can be asked of the thread.
#[derive(Clone, Copy)]
pub(super) enum Task {
    /// Reads out of the parent's arena, all over its first `span` bytes.
    Read { bytes: usize, count: usize, window: usize, span: usize },
    /// Messages to the parent, which sends them back.
    PingPong { bytes: usize, count: usize },
}

#[derive(Clone, Copy)]
struct Parent {
    peer: Peer,
    region_key: u64,
    region_base: u64,
}

/// A task under way.
struct Run {
    task: Task,
    posted: usize,
    begun_ns: Vec<u64>,
    each_ns: Vec<u64>,
    start_ns: u64,
}

struct Raw {
    network: Network,
    arena: Arena,
    rank: u32,
    controls: Receiver<Control>,
    tasks: Receiver<Task>,
    results: SyncSender<Result<Timed, String>>,
    parent: Option<Parent>,
    children: HashMap<u32, Peer>,
    run: Option<Run>,
    /// Messages to be sent back: whose, and how long.
    echoes: Vec<(u32, usize)>,
    message: Vec<u8>,
}

/// The thread, from outside.
pub(super) struct RawThread {
    control: SyncSender<Control>,
    tasks: SyncSender<Task>,
    results: Receiver<Result<Timed, String>>,
    queue: Arc<Queue>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl RawThread {
    pub(super) fn start(
        network: Network,
        arena: Arena,
        rank: u32,
        queue: Arc<Queue>,
        mut sleeper: Sleeper,
        spin: Duration,
    ) -> anyhow::Result<RawThread> {
        let (control, controls) = sync_channel(256);
        let (tasks, taken) = sync_channel(1);
        let (told, results) = sync_channel(1);
        let stop = Arc::new(AtomicBool::new(false));
        if let Some(descriptor) = network.wait_descriptor() {
            sleeper.watch(descriptor).context("the fabric cannot be waited for")?;
        }
        let mut message = vec![0; MESSAGE_BYTES_MAX];
        message[..4].copy_from_slice(&rank.to_le_bytes());
        let mut raw = Raw {
            network,
            arena,
            rank,
            controls,
            tasks: taken,
            results: told,
            parent: None,
            children: HashMap::new(),
            run: None,
            echoes: Vec::new(),
            message,
        };
        let run = {
            let (queue, stop) = (Arc::clone(&queue), Arc::clone(&stop));
            move || raw.turn_until(&stop, &queue, &sleeper, spin)
        };
        let thread = std::thread::Builder::new().name("raw".to_owned()).spawn(run)?;
        Ok(RawThread { control, tasks, results, queue, stop, thread })
    }

    pub(super) fn control(&self) -> SyncSender<Control> {
        self.control.clone()
    }

    pub(super) fn perform(&self, task: Task) -> anyhow::Result<Timed> {
        self.tasks.send(task).context("the raw loop has ended")?;
        self.queue.wake();
        match self.results.recv_timeout(TASK_BOUND).context("the raw loop does not end")? {
            Ok(timed) => Ok(timed),
            Err(reason) => bail!("{reason}"),
        }
    }

    pub(super) fn stop(self) {
        // Release: pairs with the Acquire in turn_until.
        self.stop.store(true, Ordering::Release);
        self.queue.wake();
        let _ = self.thread.join();
    }
}

impl Raw {
    fn turn_until(&mut self, stop: &AtomicBool, queue: &Queue, sleeper: &Sleeper, spin: Duration) {
        let mut busy_until = Instant::now();
        // Acquire: pairs with the Release in stop.
        while !stop.load(Ordering::Acquire) {
            if self.turn() {
                busy_until = Instant::now() + spin;
                continue;
            }
            if !spin.is_zero() && Instant::now() < busy_until {
                std::thread::yield_now();
                continue;
            }
            if !queue.fall_asleep() {
                continue;
            }
            if !self.turn() && !stop.load(Ordering::Acquire) && self.network.may_block() {
                sleeper.sleep(Duration::from_secs(1), 0);
            }
            queue.awake();
        }
    }

    fn turn(&mut self) -> bool {
        let mut worked = self.take_news();
        worked |= self.reap();
        for (rank, len) in std::mem::take(&mut self.echoes) {
            if let Some(&peer) = self.children.get(&rank) {
                let sent =
                    self.network.send(peer, 0, &[&rank.to_le_bytes(), &self.message[4..len]]);
                if matches!(sent, Err(PostError::Busy)) {
                    self.echoes.push((rank, len));
                }
            }
        }
        self.post();
        let over = self.run.as_ref().is_some_and(|run| run.each_ns.len() == run.count());
        if over && let Some(run) = self.run.take() {
            let _ = self.results.send(Ok(run.timed()));
        }
        worked
    }

    fn take_news(&mut self) -> bool {
        let mut worked = false;
        while let Ok(control) = self.controls.try_recv() {
            worked = true;
            let Control::LinkUp { rank, role, address, .. } = control else { continue };
            let Ok(peer) = self.network.insert_peer(&address.endpoint) else { continue };
            let (region_key, region_base) = (address.region_key, address.region_base);
            match role {
                Role::Parent => self.parent = Some(Parent { peer, region_key, region_base }),
                Role::Child => drop(self.children.insert(rank.0, peer)),
            }
        }
        if self.run.is_none()
            && let Ok(task) = self.tasks.try_recv()
        {
            worked = true;
            self.run = Some(Run::new(task));
        }
        worked
    }

    fn reap(&mut self) -> bool {
        let (run, echoes, own) = (&mut self.run, &mut self.echoes, self.rank);
        let mut failed = None;
        let polled = self.network.poll(COMPLETIONS, |event| match event {
            Event::Received { bytes } => {
                let rank = bytes.first_chunk().map_or(own, |first| u32::from_le_bytes(*first));
                if rank != own {
                    echoes.push((rank, bytes.len()));
                } else if let Some(run) = run {
                    run.ended(0);
                }
            }
            Event::Read { token, result: Ok(()), .. } => {
                if let Some(run) = run {
                    run.ended(usize::try_from(token).unwrap_or(0));
                }
            }
            Event::Sent { result: Ok(()), .. } => {}
            Event::Read { result: Err(error), .. } | Event::Sent { result: Err(error), .. } => {
                failed = Some(error.to_string());
            }
        });
        if let Some(reason) = polled.as_ref().err().map(ToString::to_string).or(failed) {
            self.give_up(reason);
        }
        polled.is_ok_and(|count| count > 0)
    }

    fn give_up(&mut self, reason: String) {
        if self.run.take().is_some() {
            let _ = self.results.send(Err(reason));
        }
    }

    /// Keeps as much under way as is asked for.
    fn post(&mut self) {
        while let Some(run) = &mut self.run {
            if run.posted == run.count() || run.posted - run.each_ns.len() == run.window() {
                return;
            }
            let Some(parent) = self.parent else {
                return self.give_up("this rank has no parent to read from".to_owned());
            };
            let now_ns = clock_ns();
            let posted = match run.task {
                Task::Read { bytes, span, .. } => {
                    let offset = run.posted * bytes % span;
                    let into = piece(&self.arena, offset, bytes);
                    let address = parent.region_base + offset as u64;
                    let remote = Remote { key: parent.region_key, address };
                    let posted = self.network.read(parent.peer, run.posted as u64, remote, into);
                    posted.map_err(|(error, _)| error)
                }
                Task::PingPong { bytes, .. } => {
                    self.network.send(parent.peer, 0, &[&self.message[..bytes]])
                }
            };
            match posted {
                Ok(()) => run.begun(now_ns),
                Err(PostError::Busy) => return,
                Err(error) => return self.give_up(error.to_string()),
            }
        }
    }
}

fn piece(arena: &Arena, offset: usize, bytes: usize) -> Filling {
    let mut piece = arena.take(offset, bytes.next_multiple_of(copper_ofi::PAGE_BYTES));
    piece.shorten(bytes);
    piece
}

impl Run {
    fn new(task: Task) -> Run {
        let (begun_ns, each_ns) = (Vec::new(), Vec::new());
        let mut run = Run { task, posted: 0, begun_ns, each_ns, start_ns: clock_ns() };
        run.begun_ns.reserve(run.count());
        run.each_ns.reserve(run.count());
        run
    }

    fn count(&self) -> usize {
        match self.task {
            Task::Read { count, .. } | Task::PingPong { count, .. } => count,
        }
    }

    fn window(&self) -> usize {
        match self.task {
            Task::Read { window, .. } => window,
            Task::PingPong { .. } => 1,
        }
    }

    fn begun(&mut self, now_ns: u64) {
        self.posted += 1;
        self.begun_ns.push(now_ns);
    }

    /// The read with this number, or for ping-pong the only message under way.
    fn ended(&mut self, number: usize) {
        let number = match self.task {
            Task::Read { .. } => number,
            Task::PingPong { .. } => self.posted.saturating_sub(1),
        };
        let begun_ns = self.begun_ns.get(number).copied().unwrap_or(self.start_ns);
        self.each_ns.push(clock_ns() - begun_ns);
    }

    fn timed(self) -> Timed {
        let bytes = match self.task {
            Task::Read { bytes, count, .. } | Task::PingPong { bytes, count } => bytes * count,
        };
        Timed::of(self.start_ns, clock_ns(), bytes as u64, self.each_ns)
    }
}
