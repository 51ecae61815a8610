//! Ranks that find each other over loopback: the tree, its repair, and uninvited guests.

#[path = "support/chain.rs"]
mod chain;
#[path = "support/patience.rs"]
mod patience;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::num::NonZeroU32;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use chain::chain;
use copper_launcher::control::ControlMessage;
use copper_launcher::frame::{Arrival, Frame, FrameReader};
use copper_launcher::gather::GATHER_BOUND;
use copper_launcher::handshake::{Acceptor, Dialer, Nonce, Step};
use copper_launcher::seal::Seals;
use copper_launcher::{
    Events, Identity, Job, LinkUp, Offer, PROTOCOL_VERSION, Pace, Peers, RefreshError,
    RefreshReply, Rendezvous, RendezvousCounters, RendezvousError, Secret, Settings, listen,
};
use copper_proto::{Dropped, Epoch, Forest, LinkId, Rank, Scope, TreeIndex, ViewPath};
use patience::{BOUND, until};

const SOON: Duration = Duration::from_millis(300);

#[derive(Clone, Debug, PartialEq)]
enum Event {
    ChildUp(Rank, LinkId),
    ParentUp(Rank, LinkId),
    Down(LinkId, String),
    Orphaned(String),
    Shutdown,
    Refresh(Epoch, ViewPath),
    Asked,
}

#[derive(Default)]
struct Recorder {
    events: Mutex<Vec<Event>>,
    happened: Condvar,
}

impl Recorder {
    fn push(&self, event: Event) {
        self.events.lock().expect("no test panics with it").push(event);
        self.happened.notify_all();
    }

    fn count(&self, matches: impl Fn(&Event) -> bool) -> usize {
        let events = self.events.lock().expect("no test panics with it");
        events.iter().filter(|event| matches(event)).count()
    }

    fn all(&self) -> Vec<Event> {
        self.events.lock().expect("no test panics with it").clone()
    }

    /// Waits for the `nth` event that matches.
    fn wait_for(&self, nth: usize, matches: impl Fn(&Event) -> bool) -> Event {
        let deadline = Instant::now() + BOUND;
        let mut events = self.events.lock().expect("no test panics with it");
        loop {
            if let Some(event) = events.iter().filter(|event| matches(event)).nth(nth - 1) {
                return event.clone();
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "waited in vain, had {events:?}");
            events = self.happened.wait_timeout(events, left).expect("no test panics with it").0;
        }
    }

    fn wait_for_parent(&self, nth: usize, rank: u32) {
        self.wait_for(nth, |event| matches!(event, Event::ParentUp(parent, _) if parent.0 == rank));
    }
}

impl Events for Recorder {
    fn child_up(&self, link: LinkUp) {
        self.push(Event::ChildUp(link.peer.rank, link.link));
    }
    fn parent_up(&self, link: LinkUp) {
        self.push(Event::ParentUp(link.peer.rank, link.link));
    }
    fn link_down(&self, link: LinkId, reason: &str) {
        self.push(Event::Down(link, reason.to_owned()));
    }
    fn orphaned(&self, _: TreeIndex, reason: &str) {
        self.push(Event::Orphaned(reason.to_owned()));
    }
    fn shutdown(&self) {
        self.push(Event::Shutdown);
    }
    fn report(&self) -> Vec<u8> {
        self.push(Event::Asked);
        b"here".to_vec()
    }
    fn refresh(&self, epoch: Epoch, scope: Scope, reply: RefreshReply) {
        self.push(Event::Refresh(epoch, scope.path().clone()));
        reply.dropped();
        reply.done(Dropped { entries: 1, ..Dropped::default() });
    }
}

struct Node {
    rendezvous: Rendezvous,
    recorder: Arc<Recorder>,
}

impl Node {
    fn counters(&self) -> RendezvousCounters {
        self.rendezvous.counters()
    }
}

/// A job whose ports are known and whose listeners wait to be used.
struct Ranks {
    secret: Secret,
    forest: Forest,
    peers: Peers,
    listeners: Vec<Option<TcpListener>>,
    addresses: Vec<SocketAddr>,
}

fn pace() -> Pace {
    Pace {
        heartbeat: Duration::from_millis(100),
        silence: Duration::from_secs(2),
        handshake: Duration::from_secs(1),
        attempt: Duration::from_secs(1),
        orphan: SOON,
        takeover: SOON,
        patience: Duration::MAX,
    }
}

fn offer(rank: u32) -> Offer {
    let fabric_address = rank.to_le_bytes().to_vec();
    Offer { fabric_address, provider: "tcp".to_owned(), ..Offer::default() }
}

impl Ranks {
    fn new(size: u32) -> Ranks {
        Ranks::with_trees(size, 1)
    }

    fn with_trees(size: u32, trees: u32) -> Ranks {
        let nonzero = |value| NonZeroU32::new(value).expect("not zero");
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let listeners: Vec<_> = (0..size).map(|_| listen(any).expect("any port")).collect();
        let addresses: Vec<SocketAddr> =
            listeners.iter().map(|it| it.local_addr().expect("bound")).collect();
        Ranks {
            secret: Secret::generate().expect("random bytes"),
            forest: Forest::new(nonzero(size), nonzero(2), nonzero(trees)).expect("valid"),
            peers: Peers::from_addresses(addresses.iter().copied()),
            listeners: listeners.into_iter().map(Some).collect(),
            addresses,
        }
    }

    fn settings(&mut self, rank: u32) -> Settings {
        let listener = self.listeners[rank as usize].take();
        Settings {
            version: PROTOCOL_VERSION,
            rank: Rank(rank),
            forest: self.forest,
            peers: self.peers.clone(),
            listener: listener.unwrap_or_else(|| {
                listen(self.addresses[rank as usize]).expect("its old port is free")
            }),
            secret: self.secret.clone(),
            job: Job::parse("job-1").expect("valid"),
            offer: offer(rank),
            ready_timeout: BOUND,
            pace: pace(),
        }
    }

    fn identity(&self, rank: u32) -> Identity {
        Identity {
            version: PROTOCOL_VERSION,
            job: Job::parse("job-1").expect("valid"),
            rank: Rank(rank),
            forest: self.forest,
            secret: self.secret.clone(),
            offer: offer(rank),
        }
    }

    fn start(&mut self, rank: u32) -> Node {
        start(self.settings(rank))
    }

    /// All ranks, in this order; ready in the order of ranks.
    fn start_all(&mut self, order: impl Iterator<Item = u32>) -> Vec<Node> {
        let mut nodes: Vec<(u32, Node)> = order.map(|rank| (rank, self.start(rank))).collect();
        nodes.sort_by_key(|(rank, _)| *rank);
        let nodes: Vec<Node> = nodes.into_iter().map(|(_, node)| node).collect();
        for node in &nodes {
            node.rendezvous.wait_for_parent().expect("its parent is there");
            node.rendezvous.set_ready();
        }
        nodes
    }
}

fn start(settings: Settings) -> Node {
    let recorder = Arc::new(Recorder::default());
    let events = Arc::clone(&recorder) as Arc<dyn Events>;
    let rendezvous = Rendezvous::start(settings, events).expect("the settings fit");
    Node { rendezvous, recorder }
}

fn all_ready(nodes: &[Node]) {
    let size = u32::try_from(nodes.len()).expect("small");
    until("all ranks counted", || nodes[0].rendezvous.ready_ranks() == size);
}

/// Speaks the protocol by hand.
struct ByHand {
    stream: TcpStream,
    reader: FrameReader,
    seals: Option<Seals>,
}

impl ByHand {
    fn connect(address: SocketAddr) -> ByHand {
        ByHand::from(TcpStream::connect(address).expect("it listens"))
    }

    fn from(stream: TcpStream) -> ByHand {
        stream.set_read_timeout(Some(BOUND)).expect("a bound");
        ByHand { stream, reader: FrameReader::new(), seals: None }
    }

    fn send(&mut self, frame: &Frame) {
        self.stream.write_all(frame.as_bytes()).expect("it reads");
    }

    fn receive(&mut self) -> Arrival {
        self.reader.read_from(&mut self.stream).unwrap_or(Arrival::End)
    }

    fn receive_frame(&mut self) -> Frame {
        match self.receive() {
            Arrival::Frame(frame) => frame,
            other => panic!("{other:?} in place of a frame"),
        }
    }

    /// Joins as a child.
    fn join(address: SocketAddr, identity: Identity, parent: u32) -> ByHand {
        let mut by_hand = ByHand::connect(address);
        let nonce = Nonce::random().expect("random bytes");
        let (mut dialer, hello) =
            Dialer::start(Arc::new(identity), Rank(parent), TreeIndex(0), nonce);
        by_hand.send(&hello);
        loop {
            let frame = by_hand.receive_frame();
            match dialer.on_frame(&frame).expect("accepted") {
                Step::Send(frame) => by_hand.send(&frame),
                Step::Done { seals, .. } => {
                    by_hand.seals = Some(seals);
                    return by_hand;
                }
            }
        }
    }

    /// The next control message, sealed.
    fn seal(&mut self, message: &ControlMessage) -> Frame {
        self.seals.as_mut().expect("it has joined").send.close(&message.encode())
    }

    /// Takes a child in.
    fn accept(listener: &TcpListener, identity: Identity) -> ByHand {
        let (stream, _) = listener.accept().expect("it dials");
        let mut by_hand = ByHand::from(stream);
        let nonce = Nonce::random().expect("random bytes");
        let mut acceptor = Acceptor::new(Arc::new(identity), nonce);
        loop {
            let frame = by_hand.receive_frame();
            match acceptor.on_frame(&frame).expect("a child") {
                Step::Send(frame) => by_hand.send(&frame),
                Step::Done { send, .. } => {
                    by_hand.send(&send.expect("a welcome"));
                    return by_hand;
                }
            }
        }
    }

    /// Whether the other side has closed the connection, having sent nothing but frames.
    fn is_closed(&mut self) -> bool {
        loop {
            match self.receive() {
                Arrival::Frame(_) => {}
                Arrival::End => return true,
                Arrival::Nothing | Arrival::Malformed(_) => return false,
            }
        }
    }
}

#[test]
fn a_tree_comes_up_in_any_order_and_the_root_counts_everybody() {
    let orders: [[u32; 8]; 3] =
        [[0, 1, 2, 3, 4, 5, 6, 7], [7, 6, 5, 4, 3, 2, 1, 0], [5, 0, 7, 2, 3, 6, 1, 4]];
    for order in orders {
        let mut job = Ranks::new(8);
        let nodes = job.start_all(order.into_iter());
        all_ready(&nodes);
        assert_eq!(nodes[1].rendezvous.ready_ranks(), 4, "1, 3, 4 and 7");
        for (rank, node) in (0..).map(Rank).zip(&nodes) {
            let tree = job.forest.tree(TreeIndex(0)).expect("the only one");
            let children: Vec<Rank> = tree.children(rank).collect();
            let counters = node.counters();
            let links = children.len() as u64 + u64::from(rank.0 > 0);
            assert_eq!((counters.links, counters.handshakes), (links, links), "rank {rank}");
            assert_eq!(counters.refused_connections, 0);
            for child in children {
                node.recorder.wait_for(1, |it| matches!(it, Event::ChildUp(it, _) if *it == child));
            }
        }
    }
}

/// Control messages that a rank has sent and received.
fn told_and_heard(node: &Node) -> (u64, u64) {
    let counters = node.counters();
    (counters.control_sent, counters.control_received)
}

#[test]
fn what_a_rank_sends_while_the_job_comes_up_does_not_depend_on_the_number_of_ranks() {
    for size in [8, 64] {
        let mut job = Ranks::new(size);
        let start_time = Instant::now();
        // The last first: who is above has children that wait.
        let nodes = job.start_all((0..size).rev());
        all_ready(&nodes);
        // To each parent: that it has joined, the first news, the last, and what the pauses let
        // through, 20 ms to begin with, then 40 ms and so on to half a second.
        let pauses = 5 + 2 * start_time.elapsed().as_millis() as u64 / 1000;
        let bound = 3 + pauses;
        for (rank, node) in nodes.iter().enumerate() {
            let (told, heard) = told_and_heard(node);
            let (above, below) = (u64::from(rank > 0), node.counters().links);
            assert!(told <= above * bound, "rank {rank} of {size} has sent {told}");
            assert!(heard <= below * bound, "rank {rank} of {size} has heard {heard}");
            assert_eq!(node.counters().handshakes, below, "rank {rank} of {size}");
        }
        assert_eq!(nodes[0].rendezvous.depth(), size.ilog2(), "a binary tree");
    }
}

#[test]
fn the_root_names_the_ranks_that_are_not_ready() {
    let mut job = Ranks::new(8);
    let nodes: Vec<Node> = (0..8).map(|rank| job.start(rank)).collect();
    for (rank, node) in nodes.iter().enumerate() {
        node.rendezvous.wait_for_parent().expect("its parent is there");
        if ![0, 3, 6].contains(&rank) {
            node.rendezvous.set_ready();
        }
    }
    let missing = |expected: &[u32]| {
        let expected: Vec<Rank> = expected.iter().copied().map(Rank).collect();
        until("the missing are named", || nodes[0].rendezvous.missing() == expected);
    };
    missing(&[0, 3, 6]);
    assert_eq!(nodes[0].rendezvous.ready_ranks(), 5);
    for rank in [0, 3, 6] {
        nodes[rank].rendezvous.set_ready();
    }
    missing(&[]);
    // 3 and 7 go with 3's end; 7 finds another way.
    nodes[3].rendezvous.stop();
    missing(&[3]);
}

#[test]
fn a_child_that_is_earlier_than_its_parent_s_port_waits_for_it() {
    let mut job = Ranks::new(2);
    drop(job.listeners[0].take());
    let child = job.start(1);
    until("some attempts", || child.counters().attempts_failed > 2);
    let root = job.start(0);
    child.rendezvous.wait_for_parent().expect("it is there now");
    root.recorder.wait_for(1, |event| matches!(event, Event::ChildUp(Rank(1), _)));
}

#[test]
fn a_parent_that_never_comes_is_named_with_the_reason() {
    let mut job = Ranks::new(4);
    drop(job.listeners[1].take());
    let settings = Settings { ready_timeout: SOON, ..job.settings(3) };
    let start_time = Instant::now();
    let child = start(settings);
    let error = child.rendezvous.wait_for_parent().expect_err("nobody is there");
    assert!(start_time.elapsed() >= SOON);
    let address = job.addresses[1];
    let expected = format!(
        "rank 3: parent rank 1 at {address} does not answer (connection refused) within 0.3 s: look \
         at the log of rank 1"
    );
    assert_eq!(error.to_string(), expected);
    assert!(matches!(child.rendezvous.wait_for_parent(), Err(RendezvousError::Stopped)));
}

#[test]
fn a_parent_that_hangs_is_named_as_one_that_does_not_answer() {
    let mut job = Ranks::new(4);
    // The kernel takes the connection, nobody ever looks at it.
    let child = start(Settings { ready_timeout: SOON, ..job.settings(3) });
    let error = child.rendezvous.wait_for_parent().expect_err("nobody looks").to_string();
    assert!(error.contains("does not answer (it does not answer in time)"), "{error}");
}

#[test]
fn children_of_a_lost_rank_go_to_its_parent() {
    let mut job = Ranks::new(8);
    let mut nodes = job.start_all(0..8);
    all_ready(&nodes);
    let lost = nodes.remove(1);
    let lost_at = Instant::now();
    lost.rendezvous.stop();
    // Now at 2 and 3: ranks 3 and 4.
    for orphan in [&nodes[2], &nodes[3]] {
        orphan.recorder.wait_for_parent(1, 0);
        let events = orphan.recorder.all();
        let is = |event: &Event, wanted: fn(&Event) -> bool| wanted(event);
        let down = events.iter().position(|it| is(it, |it| matches!(it, Event::Down(..))));
        let up = events.iter().rposition(|it| is(it, |it| matches!(it, Event::ParentUp(..))));
        assert!(down < up && down.is_some(), "{events:?}");
        assert_eq!(orphan.recorder.count(|event| matches!(event, Event::Orphaned(_))), 0);
    }
    assert!(lost_at.elapsed() < Duration::from_secs(5), "{:?}", lost_at.elapsed());
    until("seven ranks counted", || nodes[0].rendezvous.ready_ranks() == 7);
    // Rank 7 is below rank 3 and has noticed nothing.
    assert_eq!(nodes[6].recorder.count(|event| matches!(event, Event::Down(..))), 0);
}

#[test]
fn a_lost_root_is_replaced_by_the_next_rank_until_it_is_back() {
    let mut job = Ranks::new(3);
    let mut nodes = job.start_all(0..3);
    all_ready(&nodes);
    nodes.remove(0).rendezvous.stop();
    let [next, other] = &nodes[..] else { panic!("there are two") };
    let event = next.recorder.wait_for(1, |event| matches!(event, Event::Orphaned(_)));
    let Event::Orphaned(reason) = event else { panic!("{event:?}") };
    assert_eq!(reason, "rank 0: connection refused");
    other.recorder.wait_for_parent(1, 1);
    let hanging = |node: &Node| node.rendezvous.hangs_on().remove(0);
    assert_eq!((hanging(next).parent, hanging(next).orphaned), (None, true));
    assert_eq!((hanging(other).parent, hanging(other).orphaned), (Some(Rank(1)), false));
    assert_eq!(hanging(other).lost.as_deref(), Some("rank 0: it has ended"));
    assert_eq!(other.rendezvous.gather().expect("rank 1 asks all").len(), 2);
    let root = job.start(0);
    root.rendezvous.set_ready();
    next.recorder.wait_for_parent(2, 0);
    let orphans = |node: &Node| node.recorder.count(|event| matches!(event, Event::Orphaned(_)));
    assert_eq!((orphans(next), orphans(other)), (1, 0));
    until("three ranks counted", || root.rendezvous.ready_ranks() == 3);
}

#[test]
fn a_silent_parent_is_left_for_the_next_ancestor() {
    let mut job = Ranks::new(4);
    let root = job.start(0);
    let hanging = job.listeners[1].take().expect("not used yet");
    let child = job.start(3);
    let _held = ByHand::accept(&hanging, job.identity(1));
    child.recorder.wait_for_parent(1, 1);
    let event = child.recorder.wait_for(1, |event| matches!(event, Event::Down(..)));
    let Event::Down(_, reason) = event else { panic!("{event:?}") };
    assert_eq!(reason, "it has been silent for 2 s");
    child.recorder.wait_for_parent(1, 0);
    assert!(child.counters().heartbeats_missed > 10);
    root.recorder.wait_for(1, |event| matches!(event, Event::ChildUp(Rank(3), _)));
}

#[test]
fn a_parent_that_breaks_the_fabric_s_protocol_is_left_for_the_next_ancestor() {
    let mut job = Ranks::new(4);
    let nodes = job.start_all(0..4);
    let (parent, child) = (&nodes[1], &nodes[3]);
    let up = child.recorder.wait_for(1, |event| matches!(event, Event::ParentUp(Rank(1), _)));
    let Event::ParentUp(_, link) = up else { panic!("{up:?}") };
    child.rendezvous.break_link(link);
    // Late news of the same.
    child.rendezvous.break_link(link);
    child.recorder.wait_for_parent(1, 0);
    let Event::ChildUp(_, below) =
        parent.recorder.wait_for(1, |event| matches!(event, Event::ChildUp(Rank(3), _)))
    else {
        unreachable!("it was asked for")
    };
    parent.recorder.wait_for(1, |event| matches!(event, Event::Down(down, _) if *down == below));
    assert_eq!(child.recorder.count(|event| matches!(event, Event::Down(..))), 1);
    all_ready(&nodes);
}

#[test]
fn a_child_that_breaks_the_fabric_s_protocol_joins_anew() {
    let mut job = Ranks::new(2);
    let nodes = job.start_all(0..2);
    let up = nodes[0].recorder.wait_for(1, |event| matches!(event, Event::ChildUp(Rank(1), _)));
    let Event::ChildUp(_, link) = up else { panic!("{up:?}") };
    nodes[0].rendezvous.break_link(link);
    nodes[0].recorder.wait_for(1, |event| matches!(event, Event::Down(down, _) if *down == link));
    nodes[1].recorder.wait_for_parent(2, 0);
    all_ready(&nodes);
}

#[test]
fn a_rank_has_a_parent_in_each_tree_and_finds_another_in_each_that_it_loses() {
    // Two trees over four ranks: 0 → 1 → 3 and 0 → 2, rotated by two 2 → 3 → 1 and 2 → 0.
    let mut job = Ranks::with_trees(4, 2);
    let mut nodes = job.start_all(0..4);
    all_ready(&nodes);
    for (rank, parents) in [(0, vec![2]), (1, vec![0, 3]), (2, vec![0]), (3, vec![1, 2])] {
        for parent in parents {
            nodes[rank as usize].recorder.wait_for_parent(1, parent);
        }
        assert_eq!(nodes[rank as usize].recorder.count(|it| matches!(it, Event::Down(..))), 0);
    }
    assert_eq!(nodes[0].counters().links, 3, "children 1 and 2, and 2 as a parent");
    // Rank 3 was the parent of rank 1 in the second tree, and its child in the first.
    let gone = nodes.remove(3);
    gone.rendezvous.stop();
    nodes[1].recorder.wait_for_parent(1, 2);
    let (down, up) = (
        |it: &Event| matches!(it, Event::Down(..)),
        |it: &Event| matches!(it, Event::ParentUp(Rank(0), _)),
    );
    assert_eq!(nodes[1].recorder.count(down), 2, "both links to rank 3");
    assert_eq!(nodes[1].recorder.count(up), 1, "the parent in the first tree stays");
}

#[test]
fn a_shutdown_goes_through_all_trees_and_ends() {
    let mut job = Ranks::with_trees(6, 3);
    let nodes = job.start_all(0..6);
    nodes[0].rendezvous.shutdown_children();
    for node in &nodes {
        // Rank 0 is below others in their trees.
        node.recorder.wait_for(1, |event| *event == Event::Shutdown);
    }
    all_ready(&nodes);
    for node in &nodes {
        assert_eq!(node.recorder.count(|event| *event == Event::Shutdown), 1);
    }
}

#[test]
fn a_shutdown_reaches_every_rank_below() {
    let mut job = Ranks::new(8);
    let nodes = job.start_all(0..8);
    nodes[0].rendezvous.shutdown_children();
    // At once: what was commanded before is done before.
    nodes[0].rendezvous.stop();
    for node in &nodes[1..] {
        node.recorder.wait_for(1, |event| *event == Event::Shutdown);
    }
    assert_eq!(nodes[0].recorder.count(|event| *event == Event::Shutdown), 0);
}

#[test]
fn a_refresh_that_a_leaf_wants_reaches_every_rank_once_and_is_answered_by_all() {
    let mut job = Ranks::new(8);
    let mut nodes = job.start_all(0..8);
    all_ready(&nodes);
    let path = ViewPath::parse(b"some/folder").expect("valid");
    let refresh = |node: &Node| node.rendezvous.refresh(path.clone()).expect("the root is there");
    let (epoch, tally) = refresh(&nodes[7]);
    assert_eq!((epoch, tally.ranks, tally.dropped.entries), (Epoch(1), 8, 8));
    assert!(tally.is_whole(), "{tally:?}");
    let reached = Event::Refresh(Epoch(1), path.clone());
    for node in &nodes {
        assert_eq!(node.recorder.count(|event| *event == reached), 1);
    }
    nodes.remove(4).rendezvous.stop();
    until("seven ranks counted", || nodes[0].rendezvous.ready_ranks() == 7);
    let (epoch, tally) = refresh(&nodes[0]);
    assert_eq!((epoch, tally.ranks, &tally.missing[..]), (Epoch(2), 7, &[Rank(4)][..]));
}

#[test]
fn whoever_is_asked_hears_of_every_rank_once_and_not_of_those_that_do_not_answer() {
    let mut job = Ranks::new(8);
    let mut nodes = job.start_all(0..8);
    all_ready(&nodes);
    let everybody: Vec<Rank> = (0..8).map(Rank).collect();
    for asked in [0, 1, 7] {
        let reports = nodes[asked].rendezvous.gather().expect("the root answers");
        assert_eq!(reports.keys().copied().collect::<Vec<_>>(), everybody, "asked by {asked}");
        assert!(reports.values().all(|report| report == b"here"));
    }
    assert!(nodes.iter().all(|node| node.recorder.count(|it| *it == Event::Asked) == 3));
    // 3 is lost, 7 comes to 1: whoever is there is heard.
    drop(nodes.remove(3));
    nodes[6].recorder.wait_for_parent(1, 1);
    let others: Vec<Rank> = everybody.into_iter().filter(|rank| rank.0 != 3).collect();
    until("the others are heard", || {
        let reports = nodes[4].rendezvous.gather().expect("the root answers");
        reports.keys().copied().collect::<Vec<_>>() == others
    });
    // A child that takes part in all but this holds nobody up for longer than the bound.
    let _silent = ByHand::join(job.addresses[1], job.identity(3), 1);
    let start_time = Instant::now();
    let reports = nodes[2].rendezvous.gather().expect("the root answers");
    assert!(start_time.elapsed() < 2 * GATHER_BOUND, "{:?}", start_time.elapsed());
    assert!(reports.len() >= 7 && !reports.contains_key(&Rank(3)), "{reports:?}");
    // Without the root nobody else is asked.
    drop(nodes.remove(0));
    until("the root is missed", || nodes[0].rendezvous.gather().is_err());
}

#[test]
fn a_root_s_successor_and_the_root_that_comes_back_go_on_with_the_numbers_of_refreshes() {
    let mut job = Ranks::new(3);
    let mut nodes = job.start_all(0..3);
    all_ready(&nodes);
    let refresh = |node: &Node| node.rendezvous.refresh(ViewPath::root());
    assert_eq!(refresh(&nodes[1]).expect("the root is there").0, Epoch(1));
    nodes.remove(0).rendezvous.stop();
    let failed = refresh(&nodes[0]).expect_err("there is no root yet");
    assert!(matches!(failed, RefreshError::NoParent { rank: Rank(1) }), "{failed}");
    nodes[0].recorder.wait_for(1, |event| matches!(event, Event::Orphaned(_)));
    nodes[1].recorder.wait_for_parent(1, 1);
    let (epoch, tally) = refresh(&nodes[1]).expect("rank 1 is in its place");
    assert_eq!((epoch, tally.missing), (Epoch(2), vec![Rank(0)]));
    let root = job.start(0);
    root.rendezvous.set_ready();
    until("three ranks counted", || root.rendezvous.ready_ranks() == 3);
    let (epoch, tally) = refresh(&nodes[1]).expect("the root is there");
    assert_eq!((epoch, tally.is_whole()), (Epoch(3), true), "{tally:?}");
}

#[test]
fn a_rank_that_connects_anew_replaces_its_old_link() {
    let mut job = Ranks::new(2);
    let root = job.start(0);
    let mut old = ByHand::join(job.addresses[0], job.identity(1), 0);
    let Event::ChildUp(_, old_link) =
        root.recorder.wait_for(1, |event| matches!(event, Event::ChildUp(..)))
    else {
        panic!("waited for it")
    };
    let _new = ByHand::join(job.addresses[0], job.identity(1), 0);
    let down = root.recorder.wait_for(1, |event| matches!(event, Event::Down(..)));
    assert_eq!(down, Event::Down(old_link, "rank 1 has connected anew".to_owned()));
    let Event::ChildUp(_, new_link) =
        root.recorder.wait_for(2, |event| matches!(event, Event::ChildUp(..)))
    else {
        panic!("waited for it")
    };
    assert_ne!(old_link, new_link);
    assert!(old.is_closed());
    assert_eq!(root.counters().links, 1);
}

#[test]
fn a_rank_that_does_not_belong_is_told_why_at_once() {
    type Change = fn(&mut Settings);
    type Counter = fn(&RendezvousCounters) -> u64;
    let cases: [(Change, Counter, &str); 7] = [
        (
            |it| it.secret = Secret::generate().expect("random bytes"),
            |it| it.refused_secret,
            "rank 0 does not hold the secret of this job",
        ),
        (
            |it| it.job = Job::parse("other").expect("valid"),
            |it| it.refused_job,
            "rank 0 refused: rank 1 belongs to job other, this is job job-1",
        ),
        (
            |it| it.version = 1,
            |it| it.refused_version,
            "rank 0 speaks protocol 5, this is protocol 1: all ranks must run the same copper",
        ),
        (
            |it| it.offer.provider = "shm".to_owned(),
            |it| it.refused_provider,
            "rank 0 refused: rank 1 uses libfabric provider \"shm\", this rank uses \"tcp\"",
        ),
        (
            |it| {
                let addresses = [it.peers.resolve(Rank(0)), it.peers.resolve(Rank(1))];
                let mut addresses: Vec<SocketAddr> =
                    addresses.into_iter().map(|it| it.expect("an address")).collect();
                addresses.push(SocketAddr::from(([127, 0, 0, 1], 9)));
                it.peers = Peers::from_addresses(addresses);
                let size = NonZeroU32::new(3).expect("not zero");
                it.forest = Forest::new(size, size, NonZeroU32::MIN).expect("valid");
            },
            |it| it.refused_size,
            "rank 0 refused: rank 1 counts 3 ranks, this rank counts 2",
        ),
        (
            |it| {
                let size = NonZeroU32::new(2).expect("not zero");
                it.forest = Forest::new(size, size, size).expect("valid");
            },
            |it| it.refused_trees,
            "rank 0 refused: rank 1 counts 2 trees, this rank counts 1",
        ),
        (
            |it| {
                // In the second tree rank 0 is the child and dials rank 1, which is rank 0's own
                // address here.
                let size = NonZeroU32::new(2).expect("not zero");
                it.forest = Forest::new(size, size, size).expect("valid");
                it.rank = Rank(0);
                let zero = it.peers.resolve(Rank(0)).expect("an address");
                it.peers = Peers::from_addresses([zero, zero]);
            },
            |_| 0,
            "rank 0 answers at the address of rank 1",
        ),
    ];
    for (change, counter, words) in cases {
        let mut job = Ranks::new(2);
        let root = job.start(0);
        let mut settings = job.settings(1);
        change(&mut settings);
        let child = start(settings);
        let error = child.rendezvous.wait_for_parent().expect_err(words);
        assert!(matches!(error, RendezvousError::Refused { .. }), "{error}");
        let error = chain(&error);
        assert!(error.contains(words), "{error}");
        let expected = u64::from(!words.contains("answers at"));
        until("the refusal is counted", || counter(&root.counters()) == expected);
        until("and the connection", || root.counters().refused_connections == 1);
        assert_eq!(root.counters().links, 0);
    }
}

#[test]
fn garbage_and_oversized_frames_are_closed_and_counted_and_nothing_else() {
    let mut job = Ranks::new(2);
    let root = job.start(0);
    let guests: [&[u8]; 5] = [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2p1 Debian\r\n",
        &[0, 0, 0, 0],
        &[0xFF; 2000],
        // A heartbeat, of which nobody has earned the right.
        &[1, 0, 16],
    ];
    for (count, guest) in (1..).zip(guests) {
        let mut by_hand = ByHand::connect(job.addresses[0]);
        by_hand.stream.write_all(guest).expect("it is read or reset");
        let mut answer = Vec::new();
        // A reset is as good as an end.
        let _ = by_hand.stream.read_to_end(&mut answer);
        assert!(answer.is_empty());
        until("it is counted", || root.counters().refused_malformed == count);
    }
    drop(TcpStream::connect(job.addresses[0]).expect("it listens"));
    until("one who hangs up is counted", || root.counters().refused_closed == 1);
    let child = job.start(1);
    child.rendezvous.wait_for_parent().expect("the service is undisturbed");
    assert_eq!(root.recorder.count(|event| !matches!(event, Event::ChildUp(..))), 0);
}

#[test]
fn garbage_from_a_child_takes_down_that_link_only() {
    let mut job = Ranks::new(3);
    let root = job.start(0);
    let other = job.start(2);
    other.rendezvous.wait_for_parent().expect("the root is there");
    for (round, nonsense) in (1..).zip([&[1, 0, 99][..], &[1, 0, 18], &[0xFF; 64]]) {
        let mut child = ByHand::join(job.addresses[0], job.identity(1), 0);
        child.stream.write_all(nonsense).expect("it reads");
        assert!(child.is_closed());
        let down = root.recorder.wait_for(round, |event| matches!(event, Event::Down(..)));
        let Event::Down(_, reason) = down else { panic!("{down:?}") };
        assert_eq!(reason, "it sent something that is not a control message");
    }
    assert_eq!(other.recorder.all().len(), 1, "only that it has a parent");
}

#[test]
fn a_control_message_that_is_forged_altered_or_sent_twice_ends_its_link_and_is_not_heeded() {
    let mut job = Ranks::new(2);
    let root = job.start(0);
    let want = ControlMessage::WantRefresh { request: 1, path: ViewPath::root() };
    let refreshes = || root.recorder.count(|event| matches!(event, Event::Refresh(..)));
    let join = || ByHand::join(job.addresses[0], job.identity(1), 0);
    // As somebody could who has taken over the connection.
    let mut child = join();
    child.send(&want.encode());
    assert!(child.is_closed());
    let mut child = join();
    let mut altered = child.seal(&ControlMessage::Shutdown).as_bytes().to_vec();
    altered[2] = want.encode().kind();
    child.stream.write_all(&altered).expect("it reads");
    assert!(child.is_closed());
    let (mut child, mut other) = (join(), None);
    let sealed = child.seal(&want);
    child.send(&sealed);
    until("it is heeded", || refreshes() == 1);
    // The same once more, on the same link and on another.
    child.send(&sealed);
    assert!(child.is_closed());
    other.insert(join()).send(&sealed);
    assert!(other.expect("it has joined").is_closed());
    assert_eq!((refreshes(), root.counters().control_forged), (1, 4));
}

#[test]
fn a_guest_that_sends_a_byte_now_and_then_is_dropped_when_its_time_is_up() {
    let mut job = Ranks::new(2);
    let mut settings = job.settings(0);
    settings.pace.handshake = SOON;
    let root = start(settings);
    let mut guest = TcpStream::connect(job.addresses[0]).expect("it listens");
    let start_time = Instant::now();
    // The beginning of a greeting of 100 bytes, slowly.
    let mut bytes = [&[100, 0, 1][..], b"copper\r\n", &[1; 90]].concat().into_iter();
    until("it is dropped", || {
        if let Some(byte) = bytes.next() {
            // Fails once it is dropped.
            let _ = guest.write_all(&[byte]);
            std::thread::sleep(Duration::from_millis(5));
        }
        root.counters().refused_timed_out == 1
    });
    assert!(start_time.elapsed() >= SOON);
    assert_eq!(root.counters().handshakes_pending, 0);
}

#[test]
fn a_flood_of_idle_guests_keeps_nobody_out() {
    let mut job = Ranks::new(2);
    let mut settings = job.settings(0);
    settings.pace.handshake = BOUND;
    let root = start(settings);
    let guests: Vec<TcpStream> =
        (0..500).map(|_| TcpStream::connect(job.addresses[0]).expect("it listens")).collect();
    until("all are in or out", || {
        let counters = root.counters();
        counters.handshakes_pending + counters.refused_connections == 500
    });
    assert!(root.counters().refused_crowded >= 500 - 64);
    let start_time = Instant::now();
    let child = job.start(1);
    child.rendezvous.wait_for_parent().expect("the service goes on");
    assert!(start_time.elapsed() < Duration::from_secs(5));
    drop(guests);
    until("nobody is left", || root.counters().handshakes_pending == 0);
    assert_eq!(root.counters().links, 1);
}

#[test]
fn a_flood_that_goes_on_keeps_nobody_out() {
    let mut job = Ranks::new(2);
    let root = job.start(0);
    let address = job.addresses[0];
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let flood = std::thread::spawn(move || {
        let mut guests = std::collections::VecDeque::new();
        let mut count = 0_u32;
        while stopped.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {
            guests.extend(TcpStream::connect(address).ok());
            count += 1;
            if guests.len() > 200 {
                guests.pop_front();
            }
        }
        count
    });
    until("the flood is on", || root.counters().refused_crowded > 1000);
    let child = job.start(1);
    child.rendezvous.wait_for_parent().expect("it gets through");
    drop(stop);
    assert!(flood.join().expect("no panic") > 1000);
}

#[test]
fn stopping_takes_no_time_whatever_is_under_way() {
    let mut job = Ranks::new(4);
    let root = job.start(0);
    let searching = job.start(3);
    let _idle = TcpStream::connect(job.addresses[0]).expect("it listens");
    let start_time = Instant::now();
    searching.rendezvous.stop();
    root.rendezvous.stop();
    root.rendezvous.stop();
    assert!(start_time.elapsed() < Duration::from_secs(2));
    let error = searching.rendezvous.wait_for_parent().expect_err("stopped first");
    assert!(matches!(error, RendezvousError::Stopped));
    assert!(TcpStream::connect(job.addresses[0]).is_err(), "nobody listens any more");
}

#[test]
fn settings_that_do_not_fit_are_refused() {
    let mut job = Ranks::new(2);
    let events = || Arc::new(Recorder::default()) as Arc<dyn Events>;
    let settings = Settings { rank: Rank(2), ..job.settings(0) };
    let error = Rendezvous::start(settings, events()).expect_err("no such rank");
    assert_eq!(error.to_string(), "rank 2 is not one of 2 ranks, which are numbered from 0");
    let one = Peers::from_addresses([job.addresses[0]]);
    let settings = Settings { peers: one, ..job.settings(1) };
    let error = Rendezvous::start(settings, events()).expect_err("one address for two ranks");
    assert!(matches!(error, RendezvousError::PeersCount { peers: 1, size: 2 }));
    let peers =
        Peers::parse("no-such-host.invalid:1,127.0.0.1:2").expect("names are not looked up");
    let settings = Settings { peers, ..job.settings(1) };
    let error = Rendezvous::start(settings, events()).expect_err("unknown").to_string();
    assert!(error.contains("the host \"no-such-host.invalid\" of rank 0"), "{error}");
}
