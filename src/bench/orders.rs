//! What the rank in command tells the others, a line of JSON each, and how both sides prove that they
//! are of one job before the first.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;

use anyhow::{Context, bail};
use copper_launcher::Secret;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The longest line: an order is some 200 bytes.
const LINE_BYTES_MAX: u64 = 16 << 10;

/// What a proof of the job's secret is for; blake3 wants it unlike any other.
const PURPOSE: &str = "copper bench orders v1";

/// Files of the synthetic source. No two measurements use the same set: a new one is cold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Files {
    pub(super) set: u32,
    pub(super) count: u32,
    pub(super) bytes: u64,
}

/// What drives the fabric of a rank.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Driver {
    /// Copper's engine.
    Engine,
    /// A loop that reads, or answers a message by the same: the rival.
    Raw,
}

/// A tree to be formed by the first `ranks` ranks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Join {
    /// Unlike that of any other tree of this bench.
    pub(super) number: u32,
    pub(super) ranks: u32,
    pub(super) fanout: u32,
    pub(super) driver: Driver,
    pub(super) spin_us: u32,
    pub(super) memory_bytes: u64,
}

/// What a rank is to do. Each gets one [`Reply`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Order {
    Join(Join),
    /// Look the files up, so that a fetch moves nothing but their bytes.
    Prepare(Files),
    /// Read the files whole, with `window` blocks asked for at once, from `at_ns` of the clock on.
    Fetch {
        files: Files,
        window: u32,
        at_ns: u64,
    },
    /// Read out of the parent's arena, one piece after the other within the first `span_bytes`.
    Read {
        bytes: u32,
        count: u32,
        window: u32,
        span_bytes: u64,
    },
    /// Send the parent a message and wait until it has sent it back, `count` times.
    PingPong {
        bytes: u32,
        count: u32,
    },
    /// Nothing, for so long; how much processor time that took.
    Idle {
        ms: u64,
    },
    /// Say how much processor time went so far.
    Spent,
    Leave,
}

/// What came of an order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum Reply {
    Done,
    Joined { provider: String },
    Timed(Timed),
    Failed(String),
}

/// When something began and ended, by the monotonic clock of the rank's machine, and how long its
/// operations took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Timed {
    pub(super) start_ns: u64,
    pub(super) end_ns: u64,
    pub(super) bytes: u64,
    pub(super) p50_ns: u64,
    pub(super) p99_ns: u64,
    pub(super) cpu_ns: u64,
}

impl Timed {
    /// With the percentiles of the operations.
    pub(super) fn of(start_ns: u64, end_ns: u64, bytes: u64, mut each_ns: Vec<u64>) -> Timed {
        each_ns.sort_unstable();
        let at = |percent: usize| {
            let index = (each_ns.len() * percent / 100).min(each_ns.len().saturating_sub(1));
            each_ns.get(index).copied().unwrap_or(0)
        };
        Timed { start_ns, end_ns, bytes, p50_ns: at(50), p99_ns: at(99), cpu_ns: 0 }
    }

    pub(super) fn seconds(&self) -> f64 {
        self.end_ns.saturating_sub(self.start_ns) as f64 / 1e9
    }
}

#[derive(Serialize, Deserialize)]
struct Hello {
    rank: u32,
    nonce: [u8; 32],
}

#[derive(Serialize, Deserialize)]
struct Challenge {
    nonce: [u8; 32],
    proof: [u8; 32],
}

#[derive(Serialize, Deserialize)]
struct Proof {
    proof: [u8; 32],
}

/// The connection between the rank in command and another.
pub(super) struct Line {
    reader: BufReader<TcpStream>,
}

impl Line {
    pub(super) fn new(stream: TcpStream) -> io::Result<Line> {
        stream.set_nodelay(true)?;
        Ok(Line { reader: BufReader::new(stream) })
    }

    pub(super) fn stream(&self) -> &TcpStream {
        self.reader.get_ref()
    }

    pub(super) fn say<T: Serialize>(&mut self, what: &T) -> anyhow::Result<()> {
        let mut line = serde_json::to_vec(what)?;
        line.push(b'\n');
        self.reader.get_mut().write_all(&line).context("a rank of the bench is gone")
    }

    /// The next line; `None` when the other side has ended.
    pub(super) fn hear<T: DeserializeOwned>(&mut self) -> anyhow::Result<Option<T>> {
        let mut line = String::new();
        let read = (&mut self.reader).take(LINE_BYTES_MAX).read_line(&mut line);
        if read.context("a rank of the bench does not answer")? == 0 {
            return Ok(None);
        }
        serde_json::from_str(&line).map(Some).context("a rank of the bench speaks otherwise")
    }

    fn hear_now<T: DeserializeOwned>(&mut self) -> anyhow::Result<T> {
        self.hear()?.context("a rank of the bench hung up")
    }

    /// The side that obeys.
    pub(super) fn introduce(&mut self, rank: u32, secret: &Secret) -> anyhow::Result<()> {
        let hello = Hello { rank, nonce: Secret::nonce()? };
        self.say(&hello)?;
        let challenge: Challenge = self.hear_now()?;
        if !secret.proves(PURPOSE, &[b"command", &hello.nonce], &challenge.proof) {
            bail!("the rank in command of the bench does not know the job's secret");
        }
        let proof =
            secret.proof(PURPOSE, &[b"obey", &rank.to_le_bytes(), &challenge.nonce, &hello.nonce]);
        self.say(&Proof { proof })
    }

    /// The side that commands: the other's rank.
    pub(super) fn admit(&mut self, secret: &Secret) -> anyhow::Result<u32> {
        let hello: Hello = self.hear_now()?;
        let nonce = Secret::nonce()?;
        let proof = secret.proof(PURPOSE, &[b"command", &hello.nonce]);
        self.say(&Challenge { nonce, proof })?;
        let proof: Proof = self.hear_now()?;
        let said = [&b"obey"[..], &hello.rank.to_le_bytes(), &nonce, &hello.nonce];
        if !secret.proves(PURPOSE, &said, &proof.proof) {
            bail!("somebody who does not know the job's secret asked to take part");
        }
        Ok(hello.rank)
    }
}
