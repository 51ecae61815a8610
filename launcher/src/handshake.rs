//! The mutual proof that two ranks belong to one job, and the exchange of their fabric addresses:
//! bytes in, bytes out, no socket and no clock.
//!
//! ```text
//! child (Dialer)                                     parent (Acceptor)
//!   Hello     magic, version, rank, size, trees, tree, nonce, job  ──▶
//!             ◀──  Challenge  mac, rank, nonce
//!   Proof     mac, offer                              ──▶
//!             ◀──  Welcome    mac, offer              (or Refusal at any point)
//! ```
//!
//! Every mac is keyed BLAKE3 under a key made of the job's secret, over a label that names the
//! message and its direction, all frames before it, and the rest of its own frame. So a proof is
//! bound to version, job, both ranks, the tree, both nonces and both offers; it cannot be replayed (the other
//! side's nonce is new), reflected (the label names the direction) or altered. The tokens of a link
//! are drawn from the finished transcript under the same key: they never cross the wire.
//!
//! Job, size, number of trees, place in the tree and provider are judged after the proof: somebody without the
//! secret learns nothing but our protocol version. What is said on the connection afterwards is sealed
//! under keys of the same transcript ([`crate::seal`]).

use std::fmt;
use std::sync::Arc;

use blake3::{Hash, Hasher};
use copper_proto::{Forest, Rank, TreeIndex};

use crate::frame::{Fields, Frame, FrameWriter, Malformed};
use crate::job::{JOB_BYTES_MAX, Job};
use crate::refusal::{HandshakeError, REFUSAL, Refusal, RefusalCode, printable};
use crate::seal::{Seal, Seals};
use crate::secret::{Secret, random_bytes};

/// What ranks must agree on to talk to each other: the handshake, the control messages, and
/// whatever the owner of the rendezvous binds to it.
pub const PROTOCOL_VERSION: u16 = 5;

/// The longest fabric address. The largest known, of a verbs or shm endpoint, stays below 64.
pub const FABRIC_ADDRESS_BYTES_MAX: usize = 256;

/// The longest name of a provider, as `tcp;ofi_rxm`.
pub const PROVIDER_BYTES_MAX: usize = 64;

/// Ends in a line break, so that a service that speaks lines answers at once.
const MAGIC: [u8; 8] = *b"copper\r\n";
const KEY_PURPOSE: &str = "copper 2026-11 rendezvous handshake";
const MAC_BYTES: usize = 32;

const HELLO: u8 = 1;
const CHALLENGE: u8 = 2;
const PROOF: u8 = 3;
const WELCOME: u8 = 4;

const CHALLENGE_LABEL: &[u8; 16] = b"parent challenge";
const PROOF_LABEL: &[u8; 16] = b"child's proof   ";
const WELCOME_LABEL: &[u8; 16] = b"parent's welcome";
const UP_TOKEN_LABEL: &[u8; 16] = b"token to parent ";
const DOWN_TOKEN_LABEL: &[u8; 16] = b"token to child  ";
const UP_SEAL_LABEL: &[u8; 16] = b"seal to parent  ";
const DOWN_SEAL_LABEL: &[u8; 16] = b"seal to child   ";

/// What a rank offers to the other end of a link.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Offer {
    /// Where its endpoint is, in the provider's own form; at most [`FABRIC_ADDRESS_BYTES_MAX`].
    pub fabric_address: Vec<u8>,
    /// The libfabric provider; at most [`PROVIDER_BYTES_MAX`].
    pub provider: String,
    /// The key of its arena's memory region.
    pub region_key: u64,
    /// What an offset into the arena is added to: an address, or 0.
    pub region_base: u64,
    /// Size of its arena.
    pub arena_bytes: u64,
}

/// Who this rank is, to the ranks that it talks to.
#[derive(Clone, Debug)]
pub struct Identity {
    /// [`PROTOCOL_VERSION`].
    pub version: u16,
    /// The job.
    pub job: Job,
    /// This rank.
    pub rank: Rank,
    /// The job's trees.
    pub forest: Forest,
    /// The job's secret.
    pub secret: Secret,
    /// What others need to reach this rank over the fabric.
    pub offer: Offer,
}

/// A random number that is part of every fabric message of one link and direction, so that what
/// was meant for an earlier link is recognised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LinkToken(pub u64);

/// 32 random bytes that make a transcript unlike any other.
#[derive(Clone, Copy, Debug)]
pub struct Nonce([u8; 32]);

impl Nonce {
    /// A new one.
    ///
    /// # Errors
    /// If the kernel has no random bytes.
    pub fn random() -> std::io::Result<Nonce> {
        random_bytes().map(Nonce)
    }
}

impl From<[u8; 32]> for Nonce {
    fn from(bytes: [u8; 32]) -> Nonce {
        Nonce(bytes)
    }
}

/// What is known of the other end after the handshake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerHello {
    /// Its rank.
    pub rank: Rank,
    /// The tree that the link is part of.
    pub tree: TreeIndex,
    /// What it offers.
    pub offer: Offer,
    /// Goes into messages to it.
    pub send_token: LinkToken,
    /// Stands in messages from it.
    pub receive_token: LinkToken,
}

/// A handshake that failed, and what to tell the other side before hanging up.
#[derive(Debug)]
pub struct Failed {
    /// Why.
    pub error: HandshakeError,
    /// The last frame, if there is something to say.
    pub reply: Option<Frame>,
}

impl From<HandshakeError> for Failed {
    fn from(error: HandshakeError) -> Failed {
        Failed { error, reply: None }
    }
}

impl From<Malformed> for Failed {
    fn from(malformed: Malformed) -> Failed {
        HandshakeError::from(malformed).into()
    }
}

/// What to do after a frame.
#[derive(Debug)]
pub enum Step {
    /// Send this and wait for the next frame.
    Send(Frame),
    /// The other side is who it should be. A parent has this frame left to send.
    Done {
        /// The welcome, from a parent.
        send: Option<Frame>,
        /// The other side.
        peer: PeerHello,
        /// For what is said from now on.
        seals: Seals,
    },
}

/// All that was said, under the job's key.
struct Transcript(Hasher);

impl Transcript {
    fn new(secret: &Secret) -> Transcript {
        Transcript(Hasher::new_keyed(&secret.key(KEY_PURPOSE)))
    }

    fn add(&mut self, frame: &Frame) {
        self.0.update(frame.as_bytes());
    }

    fn mac(&self, label: &[u8; 16], rest: &[u8]) -> Hash {
        self.0.clone().update(label).update(rest).finalize()
    }

    fn token(&self, label: &[u8; 16]) -> LinkToken {
        let hash = self.mac(label, &[]);
        let (token, _) = hash.as_bytes().split_first_chunk().expect("a hash has 32 bytes");
        LinkToken(u64::from_le_bytes(*token))
    }

    fn seal(&self, label: &[u8; 16]) -> Seal {
        Seal::new(self.mac(label, &[]))
    }

    /// A frame whose body is the mac of `rest`, then `rest`; adds it to the transcript.
    fn sealed(&mut self, kind: u8, label: &[u8; 16], rest: &[u8]) -> Frame {
        let mac = self.mac(label, rest);
        let frame = FrameWriter::new(kind).array(mac.as_bytes()).array(rest).finish();
        self.add(&frame);
        frame
    }

    /// Whether the mac at the front of a sealed frame is right; adds it to the transcript if so.
    fn opens(&mut self, label: &[u8; 16], frame: &Frame) -> bool {
        let Some((mac, rest)) = frame.body().split_first_chunk::<MAC_BYTES>() else { return false };
        // In constant time: comparisons with a `Hash` are.
        let holds = self.mac(label, rest) == *mac;
        if holds {
            self.add(frame);
        }
        holds
    }
}

/// The child's side.
pub struct Dialer {
    identity: Arc<Identity>,
    parent: Rank,
    tree: TreeIndex,
    transcript: Transcript,
    state: DialerState,
}

#[derive(Clone, Copy, Debug)]
enum DialerState {
    Greeted,
    Proven,
    Ended,
}

impl Dialer {
    /// Begins with `parent` in a tree: the first frame goes out at once.
    pub fn start(
        identity: Arc<Identity>,
        parent: Rank,
        tree: TreeIndex,
        nonce: Nonce,
    ) -> (Dialer, Frame) {
        let hello = FrameWriter::new(HELLO)
            .array(&MAGIC)
            .u16(identity.version)
            .u32(identity.rank.0)
            .u32(identity.forest.size())
            .u32(identity.forest.count().get())
            .u32(tree.0)
            .array(&nonce.0)
            .bytes(identity.job.as_str().as_bytes())
            .finish();
        let mut transcript = Transcript::new(&identity.secret);
        transcript.add(&hello);
        (Dialer { identity, parent, tree, transcript, state: DialerState::Greeted }, hello)
    }

    /// Takes the next frame from the parent.
    ///
    /// # Errors
    /// Why this is not our parent, or why it will not have us.
    pub fn on_frame(&mut self, frame: &Frame) -> Result<Step, Failed> {
        let state = std::mem::replace(&mut self.state, DialerState::Ended);
        match (state, frame.kind()) {
            (DialerState::Greeted | DialerState::Proven, REFUSAL) => {
                Err(self.refused(Refusal::decode(frame)?).into())
            }
            (DialerState::Greeted, CHALLENGE) => self.on_challenge(frame),
            (DialerState::Proven, WELCOME) => self.on_welcome(frame),
            (DialerState::Greeted | DialerState::Proven, _) => Err(Malformed("answer").into()),
            (DialerState::Ended, _) => Err(Malformed("frame after the end").into()),
        }
    }

    fn on_challenge(&mut self, frame: &Frame) -> Result<Step, Failed> {
        let mut fields = Fields::new(frame.body(), "challenge");
        let (_mac, rank, _nonce) =
            (fields.array::<MAC_BYTES>()?, Rank(fields.u32()?), fields.array::<32>()?);
        fields.end()?;
        if !self.transcript.opens(CHALLENGE_LABEL, frame) {
            let refusal = Refusal { version: self.identity.version, code: RefusalCode::Secret };
            let error = HandshakeError::Secret { rank: self.parent };
            return Err(Failed { error, reply: Some(refusal.encode("")) });
        }
        if rank != self.parent {
            let error = HandshakeError::WrongRank { expected: self.parent, answered: rank };
            return Err(error.into());
        }
        self.state = DialerState::Proven;
        let offer = encode_offer(&self.identity.offer);
        Ok(Step::Send(self.transcript.sealed(PROOF, PROOF_LABEL, &offer)))
    }

    fn on_welcome(&mut self, frame: &Frame) -> Result<Step, Failed> {
        let offer = decode_offer(frame, "welcome")?;
        if !self.transcript.opens(WELCOME_LABEL, frame) {
            return Err(HandshakeError::Secret { rank: self.parent }.into());
        }
        same_provider(&self.identity, self.parent, &offer)?;
        let peer = PeerHello {
            rank: self.parent,
            tree: self.tree,
            offer,
            send_token: self.transcript.token(UP_TOKEN_LABEL),
            receive_token: self.transcript.token(DOWN_TOKEN_LABEL),
        };
        let (send, receive) =
            (self.transcript.seal(UP_SEAL_LABEL), self.transcript.seal(DOWN_SEAL_LABEL));
        Ok(Step::Done { send: None, peer, seals: Seals { send, receive } })
    }

    fn refused(&self, (refusal, text): (Refusal, String)) -> HandshakeError {
        let (rank, ours) = (self.parent, self.identity.version);
        match refusal.code {
            RefusalCode::Version if refusal.version != ours => {
                HandshakeError::Version { rank, theirs: refusal.version, ours }
            }
            code if text.is_empty() => {
                HandshakeError::Refused { rank, code, text: "it gave no reason".to_owned() }
            }
            code => HandshakeError::Refused { rank, code, text },
        }
    }
}

/// The parent's side.
pub struct Acceptor {
    identity: Arc<Identity>,
    nonce: Nonce,
    transcript: Transcript,
    state: AcceptorState,
}

#[derive(Clone, Debug)]
enum AcceptorState {
    Listening,
    Challenged(Claimed),
    Ended,
}

/// What a child says of itself before it proves anything.
#[derive(Clone, Debug)]
struct Claimed {
    rank: Rank,
    size: u32,
    trees: u32,
    tree: TreeIndex,
    job: Job,
}

impl Acceptor {
    /// For a new connection.
    pub fn new(identity: Arc<Identity>, nonce: Nonce) -> Acceptor {
        let transcript = Transcript::new(&identity.secret);
        Acceptor { identity, nonce, transcript, state: AcceptorState::Listening }
    }

    /// Takes the next frame from the child.
    ///
    /// # Errors
    /// Why it is refused, and what it is told.
    pub fn on_frame(&mut self, frame: &Frame) -> Result<Step, Failed> {
        let state = std::mem::replace(&mut self.state, AcceptorState::Ended);
        match (state, frame.kind()) {
            (AcceptorState::Listening, HELLO) => self.on_hello(frame),
            (AcceptorState::Challenged(claimed), PROOF) => self.on_proof(frame, claimed),
            (AcceptorState::Challenged(claimed), REFUSAL) => {
                Err(refused_by_child(&claimed, Refusal::decode(frame)?).into())
            }
            (AcceptorState::Listening | AcceptorState::Challenged(_), _) => {
                Err(Malformed("opening").into())
            }
            (AcceptorState::Ended, _) => Err(Malformed("frame after the end").into()),
        }
    }

    /// The frame that is sent in place of the welcome where there is no room for another link.
    pub fn busy(&self) -> Frame {
        Refusal { version: self.identity.version, code: RefusalCode::Busy }
            .encode("it has as many links as it can hold")
    }

    fn on_hello(&mut self, frame: &Frame) -> Result<Step, Failed> {
        let mut fields = Fields::new(frame.body(), "greeting");
        if fields.array()? != MAGIC {
            return Err(fields.malformed().into());
        }
        // Magic, version and rank, and the form of a refusal, are the same in every version.
        let (theirs, rank) = (fields.u16()?, Rank(fields.u32()?));
        let ours = self.identity.version;
        if theirs != ours {
            let refusal = Refusal { version: ours, code: RefusalCode::Version };
            let error = HandshakeError::Version { rank, theirs, ours };
            return Err(Failed { error, reply: Some(refusal.encode("")) });
        }
        let (size, trees) = (fields.u32()?, fields.u32()?);
        let (tree, _nonce) = (TreeIndex(fields.u32()?), fields.array::<32>()?);
        let job = std::str::from_utf8(fields.bytes(JOB_BYTES_MAX)?).ok();
        let job = job.and_then(|job| Job::parse(job).ok()).ok_or(fields.malformed())?;
        fields.end()?;
        self.transcript.add(frame);
        self.state = AcceptorState::Challenged(Claimed { rank, size, trees, tree, job });
        let rest = [&self.identity.rank.0.to_le_bytes()[..], &self.nonce.0].concat();
        Ok(Step::Send(self.transcript.sealed(CHALLENGE, CHALLENGE_LABEL, &rest)))
    }

    fn on_proof(&mut self, frame: &Frame, claimed: Claimed) -> Result<Step, Failed> {
        let (rank, tree) = (claimed.rank, claimed.tree);
        if !self.transcript.opens(PROOF_LABEL, frame) {
            let refusal =
                Refusal { version: self.identity.version, code: RefusalCode::Unsaid }.encode("");
            return Err(Failed { error: HandshakeError::Secret { rank }, reply: Some(refusal) });
        }
        let offer = decode_offer(frame, "proof")?;
        if let Err(error) = self.judge(claimed, &offer) {
            let code = error.code().unwrap_or(RefusalCode::Unsaid);
            let refusal = Refusal { version: self.identity.version, code };
            let reply = Some(refusal.encode(&error.to_string()));
            return Err(Failed { error, reply });
        }
        let welcome =
            self.transcript.sealed(WELCOME, WELCOME_LABEL, &encode_offer(&self.identity.offer));
        let peer = PeerHello {
            rank,
            tree,
            offer,
            send_token: self.transcript.token(DOWN_TOKEN_LABEL),
            receive_token: self.transcript.token(UP_TOKEN_LABEL),
        };
        let (send, receive) =
            (self.transcript.seal(DOWN_SEAL_LABEL), self.transcript.seal(UP_SEAL_LABEL));
        Ok(Step::Done { send: Some(welcome), peer, seals: Seals { send, receive } })
    }

    /// Whether a rank that holds the secret may be our child: one that has us as an
    /// ancestor in the tree that it names, or may come to us when its root is lost.
    fn judge(&self, claimed: Claimed, offer: &Offer) -> Result<(), HandshakeError> {
        let (identity, rank) = (&self.identity, claimed.rank);
        if claimed.job != identity.job {
            let (theirs, ours) = (claimed.job, identity.job.clone());
            return Err(HandshakeError::Job { rank, theirs, ours });
        }
        let (size, trees) = (identity.forest.size(), identity.forest.count().get());
        if claimed.size != size {
            return Err(HandshakeError::Size { rank, theirs: claimed.size, ours: size });
        }
        if claimed.trees != trees {
            return Err(HandshakeError::Trees { rank, theirs: claimed.trees, ours: trees });
        }
        let tree = identity.forest.tree(claimed.tree).filter(|_| rank.0 < size);
        let below = tree.is_some_and(|tree| tree.may_hang_on(rank, identity.rank));
        if !below {
            let (ours, tree) = (identity.rank, claimed.tree);
            return Err(HandshakeError::Position { rank, ours, tree });
        }
        same_provider(identity, rank, offer)
    }
}

fn refused_by_child(claimed: &Claimed, (refusal, text): (Refusal, String)) -> HandshakeError {
    let rank = claimed.rank;
    match refusal.code {
        RefusalCode::Secret => HandshakeError::Secret { rank },
        code => HandshakeError::Refused { rank, code, text },
    }
}

fn same_provider(identity: &Identity, rank: Rank, offer: &Offer) -> Result<(), HandshakeError> {
    let (theirs, ours) = (&offer.provider, &identity.offer.provider);
    if theirs == ours {
        return Ok(());
    }
    Err(HandshakeError::Provider { rank, theirs: printable(theirs), ours: ours.clone() })
}

fn encode_offer(offer: &Offer) -> Vec<u8> {
    let frame = FrameWriter::new(0)
        .bytes(&offer.fabric_address)
        .bytes(offer.provider.as_bytes())
        .u64(offer.region_key)
        .u64(offer.region_base)
        .u64(offer.arena_bytes)
        .finish();
    frame.body().to_vec()
}

fn decode_offer(frame: &Frame, what: &'static str) -> Result<Offer, Malformed> {
    let mut fields = Fields::new(frame.body(), what);
    fields.array::<MAC_BYTES>()?;
    let fabric_address = fields.bytes(FABRIC_ADDRESS_BYTES_MAX)?.to_vec();
    let provider = fields.bytes(PROVIDER_BYTES_MAX)?;
    let provider = std::str::from_utf8(provider).map_err(|_| Malformed(what))?.to_owned();
    let (region_key, region_base, arena_bytes) = (fields.u64()?, fields.u64()?, fields.u64()?);
    fields.end()?;
    Ok(Offer { fabric_address, provider, region_key, region_base, arena_bytes })
}

impl fmt::Debug for Dialer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Dialer").field("state", &self.state).finish_non_exhaustive()
    }
}

impl fmt::Debug for Acceptor {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Acceptor").field("state", &self.state).finish_non_exhaustive()
    }
}
