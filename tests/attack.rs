//! Somebody without the secret knocks at every port of a running job, of the rendezvous and of the
//! fabric, with garbage, halves of greetings and silence, while files are read for the first time.
//!
//! `COPPER_ATTACK_CONNECTIONS=N`, `COPPER_ATTACK_RATE=N` a second and `COPPER_ATTACK_FILES=N` make it
//! larger, `COPPER_ATTACK_PAIRS=N` repeats it; `ci/attack.sh` sets them, and `COPPER_ATTACK_BAR`, above which the time beside the one
//! without an attack is an error.

#[path = "support/harness.rs"]
mod support;

use std::collections::HashSet;
use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use support::{Job, Random, Scratch, Tree, eventually, say, within};

const BOUND: Duration = Duration::from_secs(120);

/// Attackers knock at this rate together, so that they leave processors to whom they attack.
const RATE: u64 = 2000;

const ATTACKERS: u64 = 4;

/// What a daemon may have more after an attack than before: pages of heaps that are not given back.
const BESIDE_BYTES: u64 = 16 << 20;

/// Descriptors that come and go with what the daemons do by themselves.
const BESIDE_DESCRIPTORS: usize = 4;

fn number(variable: &str, otherwise: u64) -> u64 {
    let Ok(text) = std::env::var(variable) else { return otherwise };
    text.parse().unwrap_or_else(|error| panic!("{variable}={text}: {error}"))
}

/// The ports on which a process listens: of the rendezvous and of the fabric.
fn ports(pid: u32) -> Vec<SocketAddr> {
    let links = fs::read_dir(format!("/proc/{pid}/fd")).expect("it runs").flatten();
    let links = links.filter_map(|entry| fs::read_link(entry.path()).ok());
    let name = |link: PathBuf| link.to_string_lossy().into_owned();
    let own: HashSet<String> = links.map(name).collect();
    let table = fs::read_to_string(format!("/proc/{pid}/net/tcp")).expect("it runs");
    let listening = table.lines().skip(1).filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (port, state, inode) = (fields[1].split(':').nth(1)?, fields[3], fields[9]);
        let is_own = state == "0A" && own.contains(&format!("socket:[{inode}]"));
        is_own.then(|| u16::from_str_radix(port, 16).expect("hexadecimal"))
    });
    listening.map(|port| SocketAddr::from(([127, 0, 0, 1], port))).collect()
}

/// What a process has.
#[derive(Clone, Copy, Debug)]
struct Holdings {
    descriptors: usize,
    threads: usize,
    resident_bytes: u64,
}

impl Holdings {
    fn of(pid: u32) -> Holdings {
        let count = |name: &str| {
            fs::read_dir(format!("/proc/{pid}/{name}")).expect("it runs").flatten().count()
        };
        let statm = fs::read_to_string(format!("/proc/{pid}/statm")).expect("it runs");
        let pages = statm.split_whitespace().nth(1).expect("resident pages");
        let pages: u64 = pages.parse().expect("a number");
        Holdings { descriptors: count("fd"), threads: count("task"), resident_bytes: 4096 * pages }
    }
}

/// A connection that is no rank's.
fn knock(address: SocketAddr, random: &mut Random) -> Option<TcpStream> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(2)).ok()?;
    stream.set_write_timeout(Some(Duration::from_millis(100))).ok()?;
    let garbage: Vec<u8> = (0..random.below(600)).map(|_| random.next() as u8).collect();
    let sent = match random.below(5) {
        0 => Vec::new(),
        1 => garbage,
        // The beginning of a greeting; a frame that is too long; one that never ends.
        2 => [&[100, 0, 1][..], b"copper\r\n", &garbage[..garbage.len().min(40)]].concat(),
        3 => [&[0xFF, 0xFF, 1][..], &garbage].concat(),
        _ => [&[0, 16, 3][..], &garbage].concat(),
    };
    // It may be closed already.
    let _ = stream.write_all(&sent);
    Some(stream)
}

/// Knocks until it is told to stop, and until so many have knocked.
struct Attack {
    stop: Arc<AtomicBool>,
    made: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
}

impl Attack {
    fn start(addresses: &[SocketAddr], connections: u64) -> Attack {
        let (stop, made) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let threads = (0..ATTACKERS).map(|_| {
            let (stop, made, addresses) =
                (Arc::clone(&stop), Arc::clone(&made), addresses.to_vec());
            std::thread::spawn(move || {
                let mut random = Random::seeded();
                // Some stay for a while, so that there are always as many open.
                let pause = Duration::from_secs(ATTACKERS)
                    / u32::try_from(number("COPPER_ATTACK_RATE", RATE)).expect("small");
                let mut due = Instant::now();
                let mut held: Vec<Option<TcpStream>> = (0..32).map(|_| None).collect();
                while !stop.load(Relaxed) || made.load(Relaxed) < connections {
                    let to = random.below(addresses.len() as u64) as usize;
                    let place = random.below(held.len() as u64) as usize;
                    if let Some(old) = held[place].take() {
                        // Without it the ports of this machine are used up by connections that are
                        // over.
                        let _ = rustix::net::sockopt::set_socket_linger(&old, Some(Duration::ZERO));
                    }
                    held[place] = knock(addresses[to], &mut random);
                    made.fetch_add(1, Relaxed);
                    due += pause;
                    // A pace, not a wait for something: who is late does not rest.
                    std::thread::sleep(due.saturating_duration_since(Instant::now()));
                }
                for mut stream in held.into_iter().flatten() {
                    let _ = stream.shutdown(Shutdown::Write);
                    let _ = stream.set_read_timeout(Some(Duration::from_millis(10)));
                    let _ = stream.read(&mut [0; 64]);
                }
            })
        });
        let threads = threads.collect();
        Attack { stop, made, threads }
    }

    fn end(self) -> u64 {
        self.stop.store(true, Relaxed);
        for thread in self.threads {
            thread.join().expect("an attacker does not panic");
        }
        self.made.load(Relaxed)
    }
}

/// How long it takes to read them through the last rank, compared with the source.
fn read(job: &Job, files: &[PathBuf]) -> Duration {
    let last = job.ranks() - 1;
    let pairs: Vec<(PathBuf, PathBuf)> =
        files.iter().map(|file| (job.view(last, file), file.clone())).collect();
    within(BOUND, "reading", move || {
        let start = Instant::now();
        let shown: Vec<Vec<u8>> =
            pairs.iter().map(|(shown, _)| fs::read(shown).expect("it is there")).collect();
        let took = start.elapsed();
        for (shown, (_, file)) in shown.iter().zip(&pairs) {
            assert!(*shown == fs::read(file).expect("it is ours"), "{}", file.display());
        }
        took
    })
}

#[test]
fn an_attack_on_every_port_disturbs_nobody_and_leaves_nothing() {
    let connections = number("COPPER_ATTACK_CONNECTIONS", 2000);
    let (count, pairs) = (number("COPPER_ATTACK_FILES", 100), number("COPPER_ATTACK_PAIRS", 1));
    let bar: Option<f64> =
        std::env::var("COPPER_ATTACK_BAR").ok().map(|it| it.parse().expect("a number"));
    let scratch = Scratch::new();
    let tree = Tree::new(&scratch);
    let sets = (0..2 * pairs).map(|set| {
        tree.directory(format!("{set}"));
        (0..count)
            .map(|i| tree.file(format!("{set}/{i}"), 6000 + i as usize))
            .collect::<Vec<PathBuf>>()
    });
    let sets: Vec<Vec<PathBuf>> = sets.collect();
    let job = Job::launch(&scratch, 4);
    let pids: Vec<u32> = job.daemons.iter().map(|daemon| daemon.pid).collect();
    let addresses: Vec<SocketAddr> = pids.iter().flat_map(|&pid| ports(pid)).collect();
    assert_eq!(addresses.len(), 8, "of each rank one for ranks and one for the fabric");
    let before: Vec<Holdings> = pids.iter().map(|&pid| Holdings::of(pid)).collect();
    let mut ratios = Vec::new();
    for (pair, sets) in sets.chunks(2).enumerate() {
        // In turns, so that what comes second is not always the same.
        let (quiet, attacked) = if pair % 2 == 0 { (0, 1) } else { (1, 0) };
        let mut took = [Duration::ZERO; 2];
        let mut made = 0;
        for side in 0..2 {
            let attack = (side == attacked).then(|| Attack::start(&addresses, connections / pairs));
            // What is measured is an attack that is under way.
            let is_under_way = || attack.as_ref().is_none_or(|it| it.made.load(Relaxed) > 100);
            eventually(BOUND, "the attack has begun", || is_under_way().then_some(()));
            took[side] = read(&job, &sets[side]);
            made += attack.map_or(0, Attack::end);
        }
        let ratio = took[attacked].as_secs_f64() / took[quiet].as_secs_f64();
        say(&format!(
            "{count} files: {:.3} s, and {:.3} s while {made} connections were made: {ratio:.2} x",
            took[quiet].as_secs_f64(),
            took[attacked].as_secs_f64(),
        ));
        ratios.push(ratio);
    }
    for (&pid, before) in pids.iter().zip(&before) {
        let after = eventually(BOUND, "what strangers held is given back", || {
            let after = Holdings::of(pid);
            let given_back = after.descriptors <= before.descriptors + BESIDE_DESCRIPTORS
                && after.threads <= before.threads;
            given_back.then_some(after)
        });
        say(&format!("{pid}: {before:?} before, {after:?} after"));
        // The cache has been filled meanwhile: what was read, in extents of 8 KiB at least.
        let cached = 2 * pairs * count * (8 << 10);
        let bound = before.resident_bytes + cached + BESIDE_BYTES;
        assert!(after.resident_bytes <= bound, "{after:?} after, {before:?} before");
    }
    let status = job.status();
    for rank in 0..4 {
        assert_eq!(status.rank(rank)["state"], "ready");
        assert_eq!(status.counter(rank, "fabric.violations"), 0);
        assert_eq!(status.counter(rank, "links.tcp.handshakes_pending"), 0);
        let refused = status.counter(rank, "links.refused_connections");
        assert!(refused > connections / 32, "rank {rank} has refused {refused}");
    }
    if let Some(bar) = bar {
        ratios.sort_by(f64::total_cmp);
        let median = ratios[ratios.len() / 2];
        assert!(median <= bar, "{median:.2} x, more than {bar}: {ratios:.2?}");
    }
}
