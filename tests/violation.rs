//! A rank that breaks the protocol of the fabric: those below it leave it, and read on.

#[path = "support/harness.rs"]
mod support;

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use copper_launcher::{
    Events, Job, LinkUp, Offer, Pace, Peers, RefreshReply, Rendezvous, Secret, Settings, listen,
};
use copper_ofi::{Arena, Event, Net, Network, Settings as NetworkSettings, environment};
use copper_proto::limits::MESSAGE_BYTES_MAX;
use copper_proto::wire::{Message, PROTOCOL_VERSION as WIRE_VERSION, Reply};
use copper_proto::{Epoch, Forest, LinkId, Rank, RequestId, Scope, TreeIndex};
use rustix::process::Signal;
use support::job::copper;
use support::{Running, Scratch, Status, Tree, eventually, mounts, run};

const BOUND: Duration = Duration::from_secs(20);

/// Rank 1 is the parent of rank 2, and the root of rank 1.
const RANKS: u32 = 3;
const FANOUT: u32 = 1;

/// Passes on who has joined below.
struct Joined(Sender<LinkUp>);

impl Events for Joined {
    fn child_up(&self, link: LinkUp) {
        // The receiver ends with the test.
        let _ = self.0.send(link);
    }
    fn parent_up(&self, _: LinkUp) {}
    fn link_down(&self, _: LinkId, _: &str) {}
    fn orphaned(&self, _: TreeIndex, _: &str) {}
    fn shutdown(&self) {}
    fn refresh(&self, _: Epoch, _: Scope, _: RefreshReply) {}
    fn report(&self) -> Vec<u8> {
        Vec::new()
    }
}

/// A rank with the job's secret, and no good intentions.
struct Rogue {
    network: Network,
    _rendezvous: Rendezvous,
    children: Receiver<LinkUp>,
}

impl Rogue {
    fn join(rank: u32, peers: &[SocketAddr], secret: &Secret) -> Rogue {
        let arena = Arena::map(1 << 20).expect("there is memory");
        let settings = NetworkSettings {
            net: "tcp".parse::<Net>().expect("a fabric"),
            receives: 64,
            sends: 16,
            reads: 4,
            message_bytes_max: MESSAGE_BYTES_MAX,
            bind: Some(std::net::Ipv4Addr::LOCALHOST.into()),
        };
        let network = Network::open(&settings, &arena).expect("tcp is there");
        let offer = Offer {
            fabric_address: network.address().to_vec(),
            provider: network.provider().to_owned(),
            region_key: network.region_key(),
            region_base: network.region_base(),
            arena_bytes: arena.len() as u64,
        };
        let (sender, children) = channel();
        let nonzero = |value| NonZeroU32::new(value).expect("not zero");
        let forest = Forest::new(nonzero(RANKS), nonzero(FANOUT), NonZeroU32::MIN);
        let wire = u16::try_from(WIRE_VERSION).expect("small");
        let settings = Settings {
            version: copper_launcher::PROTOCOL_VERSION ^ (wire << 8),
            rank: Rank(rank),
            forest: forest.expect("valid"),
            peers: Peers::from_addresses(peers.iter().copied()),
            listener: listen(peers[rank as usize]).expect("the port is free"),
            secret: secret.clone(),
            job: Job::parse("it").expect("valid"),
            offer,
            ready_timeout: BOUND,
            pace: Pace::default(),
        };
        let rendezvous = Rendezvous::start(settings, Arc::new(Joined(sender))).expect("valid");
        Rogue { network, _rendezvous: rendezvous, children }
    }

    /// Waits for a child that asks something, and answers what it has not asked.
    fn answer_wrongly(&mut self) {
        let child = self.children.recv_timeout(BOUND).expect("a child joins").peer;
        let peer = self.network.insert_peer(&child.offer.fabric_address).expect("an address");
        let mut asked = false;
        self.until("the child asks", |network| {
            let polled = network.poll(64, |event| asked |= matches!(event, Event::Received { .. }));
            let _events = polled.expect("the network works");
            asked
        });
        let reply = Reply::Absent { keep_ms: 60_000 };
        let answer = Message::Answer { request: RequestId(u32::MAX), reply };
        let mut bytes = Vec::new();
        answer.encode(child.send_token.0, &mut bytes);
        let mut sent = false;
        self.until("the answer has left", |network| {
            sent = sent || network.send(peer, 0, &[&bytes]).is_ok();
            let _events = network.poll(64, |_| {}).expect("the network works");
            sent && network.outstanding_sends() == 0
        });
    }

    fn until(&mut self, what: &str, mut done: impl FnMut(&mut Network) -> bool) {
        let until = Instant::now() + BOUND;
        while !done(&mut self.network) {
            assert!(Instant::now() < until, "waited in vain until {what}");
            std::thread::yield_now();
        }
    }
}

fn serve(scratch: &Scratch, rank: u32, view: &Path, peers: &[SocketAddr]) -> Running {
    let list: Vec<String> = peers.iter().map(ToString::to_string).collect();
    let mut command = copper(scratch);
    command.args(["serve", "--net", "tcp", "--memory", "64MiB", "--job", "it", "-l", "warn"]);
    command.args(["--size", &RANKS.to_string(), "--fanout", &FANOUT.to_string()]);
    command.args(["--rank", &rank.to_string(), "--peers", &list.join(",")]);
    // What rank 2 shows it has from another rank.
    command.args(["--source", if rank == 0 { "direct" } else { "none" }]);
    command.arg("-v").arg(view).arg("--secret-file").arg(scratch.join("secret"));
    Running::start(&mut command)
}

fn await_mount(daemon: &Running, view: &Path) {
    eventually(BOUND, "the view is mounted", || {
        assert!(daemon.process.is_alive(), "the daemon has ended");
        (!mounts::below(view).is_empty()).then_some(())
    });
}

fn status(scratch: &Scratch, view: &Path) -> Status {
    let mut command: Command = copper(scratch);
    let ended = run(command.args(["status", "--json", "-v"]).arg(view), BOUND);
    Status { json: serde_json::from_slice(&ended.stdout).expect("JSON") }
}

/// libfabric's words for its parts have to be the same in all processes that talk to each other, and
/// stand in the environment before it is loaded: for the rogue, that of this process. Returns whether
/// this is it; else it has been, and has succeeded.
fn has_environment(test: &str) -> bool {
    let words = environment(&"tcp".parse().expect("a fabric"));
    if words.iter().all(|(name, value)| std::env::var(name).is_ok_and(|it| it == *value)) {
        return true;
    }
    let mut again = Command::new(std::env::current_exe().expect("it runs"));
    again.envs(words).args([test, "--exact", "--nocapture", "--test-threads=1"]);
    support::say(&run(&mut again, 4 * BOUND).success());
    false
}

#[test]
fn a_parent_that_breaks_the_protocol_is_left_for_the_next_ancestor() {
    if !has_environment("a_parent_that_breaks_the_protocol_is_left_for_the_next_ancestor") {
        return;
    }
    let scratch = Scratch::new();
    let tree = Tree::new(&scratch);
    let file = tree.file("file", 3 << 20);
    let secret = Secret::generate().expect("random bytes");
    secret.write_new(&scratch.join("secret")).expect("it is ours");
    let ports: Vec<TcpListener> =
        (0..RANKS).map(|_| TcpListener::bind("127.0.0.1:0").expect("loopback")).collect();
    let peers: Vec<SocketAddr> =
        ports.iter().map(|port| port.local_addr().expect("bound")).collect();
    drop(ports);
    let views: Vec<PathBuf> =
        (0..RANKS).map(|rank| scratch.join(&format!("view-{rank}"))).collect();
    let root = serve(&scratch, 0, &views[0], &peers);
    let mut rogue = Rogue::join(1, &peers, &secret);
    let child = serve(&scratch, 2, &views[2], &peers);
    await_mount(&root, &views[0]);
    await_mount(&child, &views[2]);
    let shown = views[2].join(file.strip_prefix("/").expect("absolute"));
    let (sender, read) = channel();
    std::thread::spawn(move || sender.send(fs::read(shown)));
    rogue.answer_wrongly();
    let read = read.recv_timeout(BOUND).expect("within the bound").expect("the root has it");
    assert!(read == fs::read(&file).expect("it is ours"));
    let status = status(&scratch, &views[2]);
    assert_eq!(status.counter(2, "fabric.violations"), 1);
    assert_eq!(status.rank(2)["parent"], 0);
    for daemon in [child, root] {
        daemon.process.signal(Signal::TERM);
        assert!(daemon.finish(BOUND).status.success());
    }
    assert_eq!(mounts::below(scratch.path()), Vec::<PathBuf>::new());
}
