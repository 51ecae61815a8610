//! The thread of a rendezvous: one loop over poll(2) that owns every connection.
//!
//! Strangers cost little: at most 64 of them are listened to at a time, each for a
//! bounded time, with a fixed buffer each. A newcomer to a full house displaces the one that has
//! been there longest, because a rank of ours is through within two round trips.

mod downward;
mod gathering;
mod refreshing;
mod upward;

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixStream;
use std::sync::atomic::AtomicU8;
use std::sync::atomic::Ordering::{AcqRel, Relaxed};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use copper_proto::{Dropped, LinkId, Rank, Tick, TreeIndex, ViewPath};
use rustix::event::{PollFd, PollFlags, Timespec};

use crate::ascent::Ascent;
use crate::channel::Channel;
use crate::connection::Connection;
use crate::control::{ControlMessage, Pace, Pulse};
use crate::counters::{Counters, Refused};
use crate::gather::{GatherResult, Gathers};
use crate::handshake::{Acceptor, Dialer, Identity};
use crate::link::{LinkEnd, keep_alive};
use crate::peers::Peers;
use crate::readiness::{Progress, Readiness};
use crate::refresh::{RefreshResult, Refreshes, RunId};
use crate::rendezvous::{Events, Hanging, RendezvousError};

/// What other threads ask for: bits, so that nothing queues.
#[derive(Clone, Copy)]
pub(crate) struct Command(pub(crate) u8);

impl Command {
    pub(crate) const SET_READY: Command = Command(1);
    pub(crate) const SHUTDOWN_CHILDREN: Command = Command(2);
    pub(crate) const STOP: Command = Command(4);

    fn among(self, commands: u8) -> bool {
        commands & self.0 != 0
    }
}

/// What other threads have to say of refreshes and of links.
#[derive(Debug)]
pub(crate) enum Order {
    /// See [`crate::Rendezvous::break_link`].
    Break(LinkId),
    /// Where a rank listens that may be needed now.
    Found(Rank, SocketAddr),
    /// Somebody on this machine wants one.
    Refresh(ViewPath, SyncSender<RefreshResult>),
    /// Somebody on this machine wants to know how all ranks are.
    Status(SyncSender<GatherResult>),
    /// See [`crate::RefreshReply::dropped`].
    Dropped(RunId),
    /// See [`crate::RefreshReply::done`].
    Done(RunId, Dropped),
}

/// How far the first way to a parent has come.
#[derive(Debug)]
pub(crate) enum Join {
    Pending,
    Joined,
    Failed(Box<RendezvousError>),
    Stopped,
}

/// What the thread and the handle share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) commands: AtomicU8,
    pub(crate) orders: Mutex<Vec<Order>>,
    pub(crate) progress: Mutex<Progress>,
    pub(crate) hangs_on: Mutex<Vec<Hanging>>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) join: Mutex<Join>,
    pub(crate) joined: Condvar,
    waker: UnixStream,
}

impl Shared {
    pub(crate) fn new(waker: UnixStream) -> Shared {
        Shared {
            commands: AtomicU8::new(0),
            orders: Mutex::new(Vec::new()),
            progress: Mutex::default(),
            hangs_on: Mutex::default(),
            counters: Arc::default(),
            join: Mutex::new(Join::Pending),
            joined: Condvar::new(),
            waker,
        }
    }

    pub(crate) fn wake(&self) {
        // If the socket is full, the thread has been woken often enough.
        let _ = (&self.waker).write(&[0]);
    }

    fn settle(&self, outcome: Join) {
        let mut join = self.join.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(*join, Join::Pending) {
            *join = outcome;
        }
        self.joined.notify_all();
    }
}

/// Somebody who has not proven anything yet.
struct Newcomer {
    connection: Connection,
    acceptor: Box<Acceptor>,
    deadline: Tick,
}

/// A link to a rank below.
struct Child {
    channel: Channel,
    rank: Rank,
    tree: TreeIndex,
    link: LinkId,
    pulse: Pulse,
}

/// The way to a parent in one tree.
struct Way {
    tree: TreeIndex,
    /// Parent first; see [`copper_proto::topology::Tree::candidates`].
    candidates: Vec<Rank>,
    ascent: Ascent,
    last_reason: String,
    /// Which parent was lost last, and why.
    lost: Option<String>,
    uplink: Uplink,
}

/// How far it has come.
enum Uplink {
    None,
    Connecting { rank: Rank, connection: Connection, deadline: Tick },
    Greeting { rank: Rank, connection: Connection, dialer: Box<Dialer>, deadline: Tick },
    Up { rank: Rank, link: LinkId, channel: Channel, pulse: Pulse },
}

impl Drop for Service {
    /// However the thread ends, nobody waits for a parent that it will not find.
    fn drop(&mut self) {
        self.shared.settle(Join::Stopped);
    }
}

/// Who has something for us.
struct Signs {
    listener: bool,
    /// By way, as those below by what they are of.
    uplinks: Vec<bool>,
    children: Vec<bool>,
    newcomers: Vec<bool>,
}

pub(crate) struct Service {
    identity: Arc<Identity>,
    listener: TcpListener,
    wake: UnixStream,
    shared: Arc<Shared>,
    events: Arc<dyn Events>,
    pace: Pace,
    origin: Instant,
    ready_timeout: Duration,
    addresses: HashMap<Rank, SocketAddr>,
    peers: Peers,
    /// The others are being looked up, or have been.
    looking_up: bool,
    ways: Vec<Way>,
    children: Vec<Child>,
    /// Oldest first.
    newcomers: Vec<Newcomer>,
    readiness: Readiness,
    refreshes: Refreshes,
    gathers: Gathers,
    links_given: u32,
    accept_after: Tick,
    /// A parent has asked this rank to end. Below each other in different trees, ranks would tell
    /// one another so for ever.
    told_to_end: bool,
    /// The children have been told to end: a link that closes from now on is no loss.
    ending: bool,
}

/// The tree whose links carry the count of ranks that are ready, and refreshes: each rank is reached
/// and counted once.
const COUNTING_TREE: TreeIndex = TreeIndex(0);

impl Service {
    #[expect(clippy::too_many_arguments, reason = "called once, with what it will own")]
    pub(crate) fn new(
        identity: Arc<Identity>,
        listener: TcpListener,
        wake: UnixStream,
        shared: Arc<Shared>,
        events: Arc<dyn Events>,
        pace: Pace,
        (addresses, peers): (HashMap<Rank, SocketAddr>, Peers),
        ways: Vec<(TreeIndex, Vec<Rank>, usize)>,
        ready_timeout: Duration,
    ) -> Service {
        let start = Tick(0);
        let ways = ways.into_iter().map(|(tree, candidates, ancestors)| {
            let (above, successors) = candidates.split_at(ancestors);
            let of_tree = identity.forest.tree(tree).expect("one of the job's");
            let stands_in = of_tree.is_successor(identity.rank);
            Way {
                tree,
                ascent: Ascent::new(identity.rank, above.to_vec(), start, start + ready_timeout)
                    .with_successors(successors)
                    .with_orphan_bound(if stands_in { pace.takeover } else { pace.orphan })
                    .with_patience(start + pace.patience),
                candidates,
                last_reason: "not tried yet".to_owned(),
                lost: None,
                uplink: Uplink::None,
            }
        });
        let ways = ways.collect();
        let counting = identity.forest.tree(COUNTING_TREE).expect("every job has this one");
        let readiness = Readiness::new(identity.rank, &counting);
        Service {
            identity,
            listener,
            wake,
            shared,
            events,
            pace,
            origin: Instant::now(),
            ready_timeout,
            addresses,
            peers,
            looking_up: false,
            ways,
            children: Vec::new(),
            newcomers: Vec::new(),
            readiness,
            refreshes: Refreshes::default(),
            gathers: Gathers::new(counting.size()),
            links_given: 0,
            accept_after: start,
            told_to_end: false,
            ending: false,
        }
    }

    pub(crate) fn run(mut self) {
        if self.ways.is_empty() {
            self.shared.settle(Join::Joined);
        }
        while self.obey() {
            self.obey_orders(self.now());
            let rest = self.attend(self.now());
            let rest = rest.min(self.attend_refreshes(self.now()));
            let rest = rest.min(self.attend_gathers(self.now()));
            let pending = self.newcomers.len() as u64;
            self.shared.counters.handshakes_pending.store(pending, Relaxed);
            let rest = rest.min(self.tell_readiness(self.now()));
            let signs = self.wait(rest);
            let now = self.now();
            for (way, _) in signs.uplinks.iter().enumerate().filter(|(_, sign)| **sign) {
                self.serve_uplink(way, now);
            }
            self.serve_children(&signs.children, now);
            self.serve_newcomers(&signs.newcomers, now);
            if signs.listener {
                self.admit(now);
            }
        }
    }

    fn now(&self) -> Tick {
        Tick(0) + self.origin.elapsed()
    }

    /// Does what other threads asked for; false if that is to stop.
    fn obey(&mut self) -> bool {
        // Acquire: pairs with the Release in `Shared::command`.
        let commands = self.shared.commands.swap(0, AcqRel);
        if Command::SET_READY.among(commands) {
            self.readiness.set_own();
            self.tell_readiness(self.now());
        }
        if Command::SHUTDOWN_CHILDREN.among(commands) {
            self.shut_children_down();
        }
        let stops = Command::STOP.among(commands);
        if stops {
            self.take_leave();
        }
        !stops
    }

    /// Tells the neighbours that this rank ends, so that they take it for no failure.
    fn take_leave(&mut self) {
        let above = self.ways.iter_mut().filter_map(|way| match &mut way.uplink {
            Uplink::Up { channel, .. } => Some(channel),
            Uplink::None | Uplink::Connecting { .. } | Uplink::Greeting { .. } => None,
        });
        for channel in above.chain(self.children.iter_mut().map(|child| &mut child.channel)) {
            // Best effort: who is not told sees the connection close.
            let _ = channel.send(&ControlMessage::Leaving);
        }
    }

    fn wait(&mut self, until: Tick) -> Signs {
        let now = self.now();
        let rest = until.since(now);
        let timeout = (until != Tick::NEVER).then(|| Timespec {
            tv_sec: i64::try_from(rest.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(rest.subsec_nanos()),
        });
        let accepting = if now >= self.accept_after { PollFlags::IN } else { PollFlags::empty() };
        let mut fds =
            vec![PollFd::new(&self.wake, PollFlags::IN), PollFd::new(&self.listener, accepting)];
        fds.extend(self.ways.iter().filter_map(|way| match &way.uplink {
            Uplink::None => None,
            Uplink::Connecting { connection, .. } => Some(PollFd::new(connection, PollFlags::OUT)),
            Uplink::Greeting { connection, .. } => {
                Some(PollFd::new(connection, connection.interest()))
            }
            Uplink::Up { channel, .. } => Some(PollFd::new(channel, channel.interest())),
        }));
        let below = self.children.iter().map(|child| &child.channel);
        fds.extend(below.map(|it| PollFd::new(it, it.interest())));
        let strangers = self.newcomers.iter().map(|newcomer| &newcomer.connection);
        fds.extend(strangers.map(|it| PollFd::new(it, it.interest())));
        // Interrupted by a signal: nobody has a sign, and the loop comes round again.
        let _ = rustix::event::poll(&mut fds, timeout.as_ref());
        let mut signs = fds.iter().map(|fd| !fd.revents().is_empty());
        let mut next = || signs.next().unwrap_or(false);
        let (woken, listener) = (next(), next());
        let uplinks = self.ways.iter().map(|way| !matches!(way.uplink, Uplink::None) && next());
        let uplinks = uplinks.collect();
        let children = self.children.iter().map(|_| next()).collect();
        let newcomers = self.newcomers.iter().map(|_| next()).collect();
        drop(signs);
        drop(fds);
        if woken {
            // What is left wakes the next turn.
            let _ = self.wake.read(&mut [0; 64]);
        }
        Signs { listener, uplinks, children, newcomers }
    }

    /// Everything that is due at `now`. Returns when something is due next.
    fn attend(&mut self, now: Tick) -> Tick {
        let mut next = if now < self.accept_after { self.accept_after } else { Tick::NEVER };
        for mut child in std::mem::take(&mut self.children) {
            match keep_alive(
                &mut child.channel,
                &mut child.pulse,
                &self.pace,
                &self.shared.counters,
                now,
            ) {
                Ok(due) => {
                    next = next.min(due);
                    self.children.push(child);
                }
                Err(end) => self.child_down(&child, &end),
            }
        }
        let overdue = self.newcomers.iter().filter(|newcomer| now >= newcomer.deadline).count();
        for _ in 0..overdue {
            // All have the same time, so the oldest are the ones.
            let newcomer = self.newcomers.remove(0);
            self.refuse(newcomer, Refused::TimedOut);
        }
        next = self.newcomers.first().map_or(next, |oldest| next.min(oldest.deadline));
        for way in 0..self.ways.len() {
            next = next.min(self.attend_uplink(way, now));
        }
        next
    }

    /// Closes a link of either kind; one that is gone already is no matter.
    fn break_link(&mut self, broken: LinkId, now: Tick) {
        let is_it = |way: &Way| matches!(way.uplink, Uplink::Up { link, .. } if link == broken);
        if let Some(way) = self.ways.iter().position(is_it) {
            self.parent_down(way, &LinkEnd::broken(), now);
        } else if let Some(index) = self.children.iter().position(|child| child.link == broken) {
            let child = self.children.remove(index);
            self.child_down(&child, &LinkEnd::broken());
        }
    }

    fn next_link(&mut self) -> LinkId {
        self.links_given += 1;
        LinkId(self.links_given)
    }

    fn link_counted(&self) {
        self.shared.counters.handshakes.fetch_add(1, Relaxed);
        self.shared.counters.links.fetch_add(1, Relaxed);
    }

    /// Whether this rank numbers refreshes and asks all ranks for their status: as the root of the
    /// first tree, or in its place.
    fn is_at_the_top(&self) -> bool {
        let way = self.ways.iter().find(|way| way.tree == COUNTING_TREE);
        let counting = self.identity.forest.tree(COUNTING_TREE).expect("every job has this one");
        way.is_none_or(|way| counting.is_successor(self.identity.rank) && way.ascent.is_orphaned())
    }

    /// For whoever asks on whom this rank hangs.
    fn note_ways(&self) {
        let ways = self.ways.iter().map(|way| Hanging {
            tree: way.tree,
            parent: match way.uplink {
                Uplink::Up { rank, .. } => Some(rank),
                Uplink::None | Uplink::Connecting { .. } | Uplink::Greeting { .. } => None,
            },
            lost: way.lost.clone(),
            orphaned: way.ascent.is_orphaned(),
        });
        let mut noted = self.shared.hangs_on.lock().unwrap_or_else(PoisonError::into_inner);
        *noted = ways.collect();
    }

    /// Returns when there is something to tell next.
    fn tell_readiness(&mut self, now: Tick) -> Tick {
        let progress = self.readiness.progress();
        *self.shared.progress.lock().unwrap_or_else(PoisonError::into_inner) = progress;
        let way = self.ways.iter().find(|way| way.tree == COUNTING_TREE);
        if !way.is_some_and(|way| matches!(way.uplink, Uplink::Up { .. })) {
            return Tick::NEVER;
        }
        for ranks in self.readiness.news(now) {
            self.tell_parent(&ControlMessage::Ready { ranks });
        }
        self.readiness.next_due()
    }
}
