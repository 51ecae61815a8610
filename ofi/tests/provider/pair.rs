//! Two networks in one process, driven in turn by the test.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr};
use std::thread;
use std::time::{Duration, Instant};

use copper_ofi::{Arena, Error, Event, Filling, Network, Peer, PostError, Remote, Settings};

/// Long enough for a loaded machine; a test that is right never waits so long.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

pub(crate) const ARENA_BYTES: usize = 8 << 20;
pub(crate) const MESSAGE_BYTES_MAX: usize = 4096;

/// What an event was, owned.
#[derive(Debug)]
pub(crate) enum Got {
    Received(Vec<u8>),
    Sent(u64, Result<(), Error>),
    Read(u64, Filling, Result<(), Error>),
}

/// A network, its arena, and what it has told.
pub(crate) struct Side {
    pub(crate) network: Network,
    pub(crate) arena: Arena,
    pub(crate) got: VecDeque<Got>,
}

pub(crate) struct Pair {
    pub(crate) a: Side,
    pub(crate) b: Side,
    pub(crate) a_to_b: Peer,
    pub(crate) b_to_a: Peer,
}

/// Says why something is not tested here.
#[expect(clippy::print_stderr, reason = "for whoever runs the tests")]
pub(crate) fn excluded(provider: &str, reason: &str) {
    eprintln!("not tested over {provider}: {reason}");
}

/// Few buffers, so that tests run out of them.
pub(crate) fn settings(provider: &str) -> Settings {
    Settings {
        net: provider.parse().expect("a provider's name"),
        receives: 8,
        sends: 4,
        reads: 32,
        message_bytes_max: MESSAGE_BYTES_MAX,
        bind: Some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
    }
}

/// Whether the provider can be tested here, having said so if not.
pub(crate) fn is_here(provider: &str) -> bool {
    let there = copper_ofi::versions().providers;
    let here = there.iter().any(|name| name.split(';').next() == Some(provider));
    assert!(here || provider != "tcp", "tcp is everywhere, but here are only {there:?}");
    if !here {
        excluded(provider, "this machine's libfabric does not have it");
    }
    here
}

impl Side {
    pub(crate) fn open(settings: &Settings) -> Side {
        let arena = Arena::map(ARENA_BYTES).expect("a small arena");
        let network = Network::open(settings, &arena).unwrap_or_else(|error| {
            panic!("{error}: {:?}", error.errno());
        });
        Side { network, arena, got: VecDeque::new() }
    }

    pub(crate) fn poll(&mut self) -> usize {
        let got = &mut self.got;
        let polled = self.network.poll(64, |event| {
            got.push_back(match event {
                Event::Received { bytes } => Got::Received(bytes.to_vec()),
                Event::Sent { token, result } => Got::Sent(token, result),
                Event::Read { token, into, result } => Got::Read(token, into, result),
            });
        });
        polled.expect("a queue that works")
    }

    /// The next message, if one came.
    pub(crate) fn received(&mut self) -> Option<Vec<u8>> {
        let index = self.got.iter().position(|got| matches!(got, Got::Received(_)))?;
        match self.got.remove(index) {
            Some(Got::Received(bytes)) => Some(bytes),
            _ => unreachable!("just found"),
        }
    }

    /// The next read that ended, if one did.
    pub(crate) fn read_ended(&mut self) -> Option<(u64, Filling, Result<(), Error>)> {
        let index = self.got.iter().position(|got| matches!(got, Got::Read(..)))?;
        match self.got.remove(index) {
            Some(Got::Read(token, into, result)) => Some((token, into, result)),
            _ => unreachable!("just found"),
        }
    }

    /// Where a peer reads `offset` of this side's arena.
    pub(crate) fn remote(&self, offset: usize) -> Remote {
        Remote {
            key: self.network.region_key(),
            address: self.network.region_base() + offset as u64,
        }
    }
}

impl Pair {
    /// None, with the reason told, where the provider is not.
    pub(crate) fn open(provider: &str) -> Option<Pair> {
        if !is_here(provider) {
            return None;
        }
        let settings = settings(provider);
        let (mut a, mut b) = (Side::open(&settings), Side::open(&settings));
        let a_to_b = a.network.insert_peer(b.network.address()).expect("b's address");
        let b_to_a = b.network.insert_peer(a.network.address()).expect("a's address");
        Some(Pair { a, b, a_to_b, b_to_a })
    }

    pub(crate) fn poll(&mut self) {
        if self.a.poll() + self.b.poll() == 0 {
            thread::yield_now();
        }
    }

    /// Drives both until there is what is looked for.
    pub(crate) fn until<T>(
        &mut self,
        what: &str,
        mut look: impl FnMut(&mut Pair) -> Option<T>,
    ) -> T {
        let start = Instant::now();
        loop {
            if let Some(found) = look(self) {
                return found;
            }
            assert!(start.elapsed() < DEADLINE, "waited in vain for {what}");
            self.poll();
        }
    }

    pub(crate) fn send_to_b(&mut self, token: u64, parts: &[&[u8]]) {
        self.until("a to send", |pair| posted(pair.a.network.send(pair.a_to_b, token, parts)));
    }

    pub(crate) fn send_to_a(&mut self, token: u64, parts: &[&[u8]]) {
        self.until("b to send", |pair| posted(pair.b.network.send(pair.b_to_a, token, parts)));
    }

    /// Posts a read by a, when there is room.
    pub(crate) fn read_from_b(&mut self, token: u64, remote: Remote, into: Filling) {
        let mut piece = Some(into);
        self.until("a to post a read", |pair| {
            let into = piece.take().expect("kept while busy");
            match pair.a.network.read(pair.a_to_b, token, remote, into) {
                Ok(()) => Some(()),
                Err((PostError::Busy, into)) => {
                    piece = Some(into);
                    None
                }
                Err((error, _)) => panic!("read: {error}"),
            }
        });
    }

    /// A message each way: both are connected.
    pub(crate) fn greet(&mut self) {
        self.send_to_b(0, &[b"hello"]);
        assert_eq!(self.until("a's greeting", |pair| pair.b.received()), b"hello");
        self.send_to_a(0, &[b"hello"]);
        assert_eq!(self.until("b's greeting", |pair| pair.a.received()), b"hello");
    }
}

fn posted(result: Result<(), PostError>) -> Option<()> {
    match result {
        Ok(()) => Some(()),
        Err(PostError::Busy) => None,
        Err(error) => panic!("send: {error}"),
    }
}

/// Bytes that differ by place and by `seed`.
pub(crate) fn pattern(seed: usize, bytes: &mut [u8]) {
    for (index, byte) in bytes.iter_mut().enumerate() {
        *byte = (index ^ (index >> 8) ^ (index >> 16) ^ seed.wrapping_mul(31)) as u8;
    }
}
