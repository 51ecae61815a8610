//! The handshake without a socket: who is accepted, who is not, and what each side is told.

use std::num::NonZeroU32;
use std::sync::Arc;

use copper_launcher::frame::Frame;
use copper_launcher::handshake::{Acceptor, Dialer, Nonce, Step};
use copper_launcher::{
    HandshakeError, Identity, Job, Offer, PROTOCOL_VERSION, PeerHello, RefusalCode, Secret,
};
use copper_proto::{Forest, Rank, TreeIndex};

type Outcome = Result<PeerHello, HandshakeError>;

fn forest(size: u32, trees: u32) -> Forest {
    let nonzero = |value| NonZeroU32::new(value).expect("not zero");
    Forest::new(nonzero(size), nonzero(2), nonzero(trees)).expect("valid")
}

fn identity(rank: u32, secret: &Secret) -> Identity {
    Identity {
        version: PROTOCOL_VERSION,
        job: Job::parse("job-1").expect("valid"),
        rank: Rank(rank),
        forest: forest(7, 1),
        secret: secret.clone(),
        offer: Offer {
            fabric_address: vec![u8::try_from(rank).expect("small"); 20],
            provider: "tcp".to_owned(),
            region_key: 100 + u64::from(rank),
            region_base: 0x7000_0000_0000,
            arena_bytes: 1 << 30,
        },
    }
}

fn nonce(byte: u8) -> Nonce {
    Nonce::from([byte; 32])
}

/// Carries the frames of one handshake across, each through `wire`. A frame that no longer is one
/// ends the side that was to get it.
struct Wire<'a> {
    alter: &'a mut dyn FnMut(usize, &mut Vec<u8>),
    carried: usize,
    log: Vec<Vec<u8>>,
}

impl Wire<'_> {
    fn carry(&mut self, frame: &Frame) -> Option<Frame> {
        let mut bytes = frame.as_bytes().to_vec();
        (self.alter)(self.carried, &mut bytes);
        self.carried += 1;
        self.log.push(bytes.clone());
        Frame::parse(&bytes).ok()
    }
}

/// Runs one handshake in the first tree. `None` for a side that was left waiting.
fn meet(
    child: &Identity,
    parent: &Identity,
    expected: Rank,
    alter: &mut dyn FnMut(usize, &mut Vec<u8>),
) -> (Option<Outcome>, Option<Outcome>, Vec<Vec<u8>>) {
    meet_in(TreeIndex(0), child, parent, expected, alter)
}

fn meet_in(
    tree: TreeIndex,
    child: &Identity,
    parent: &Identity,
    expected: Rank,
    alter: &mut dyn FnMut(usize, &mut Vec<u8>),
) -> (Option<Outcome>, Option<Outcome>, Vec<Vec<u8>>) {
    let mut wire = Wire { alter, carried: 0, log: Vec::new() };
    let (mut dialer, hello) = Dialer::start(Arc::new(child.clone()), expected, tree, nonce(1));
    let mut acceptor = Acceptor::new(Arc::new(parent.clone()), nonce(2));
    let (mut at_child, mut at_parent) = (None, None);
    let mut to_parent = Some(hello);
    while let Some(frame) = to_parent.take() {
        let Some(frame) = wire.carry(&frame) else { break };
        let to_child = match acceptor.on_frame(&frame) {
            Ok(Step::Send(frame)) => Some(frame),
            Ok(Step::Done { send, peer, .. }) => {
                at_parent = Some(Ok(peer));
                send
            }
            Err(failed) => {
                at_parent = Some(Err(failed.error));
                failed.reply
            }
        };
        let Some(frame) = to_child else { break };
        if at_child.is_some() {
            break;
        }
        let Some(frame) = wire.carry(&frame) else { break };
        to_parent = match dialer.on_frame(&frame) {
            Ok(Step::Send(frame)) => Some(frame),
            Ok(Step::Done { send, peer, .. }) => {
                at_child = Some(Ok(peer));
                send
            }
            Err(failed) => {
                at_child = Some(Err(failed.error));
                failed.reply
            }
        };
    }
    (at_child, at_parent, wire.log)
}

fn meet_untouched(child: &Identity, parent: &Identity) -> (HandshakeError, HandshakeError) {
    let (at_child, at_parent, _) = meet(child, parent, parent.rank, &mut |_, _| {});
    let error = |outcome: Option<Outcome>| outcome.expect("an outcome").expect_err("refused");
    (error(at_child), error(at_parent))
}

fn secret() -> Secret {
    Secret::generate().expect("random bytes")
}

#[test]
fn both_sides_learn_the_other_s_offer_and_crossed_tokens() {
    let secret = secret();
    let (child, parent) = (identity(3, &secret), identity(1, &secret));
    let (at_child, at_parent, log) = meet(&child, &parent, Rank(1), &mut |_, _| {});
    let at_child = at_child.expect("an outcome").expect("accepted");
    let at_parent = at_parent.expect("an outcome").expect("accepted");
    assert_eq!(log.len(), 4);
    assert_eq!((at_child.rank, &at_child.offer), (Rank(1), &parent.offer));
    assert_eq!((at_parent.rank, &at_parent.offer), (Rank(3), &child.offer));
    assert_eq!(at_child.send_token, at_parent.receive_token);
    assert_eq!(at_child.receive_token, at_parent.send_token);
    assert_ne!(at_child.send_token, at_child.receive_token);
    for token in [at_child.send_token, at_child.receive_token] {
        let bytes = token.0.to_le_bytes();
        let seen = log.iter().any(|frame| frame.windows(8).any(|window| window == bytes));
        assert!(!seen, "a token crossed the wire");
    }
}

#[test]
fn an_ancestor_further_up_accepts_too() {
    let secret = secret();
    let (at_child, at_parent, _) =
        meet(&identity(3, &secret), &identity(0, &secret), Rank(0), &mut |_, _| {});
    assert!(matches!((at_child, at_parent), (Some(Ok(_)), Some(Ok(_)))));
}

#[test]
fn a_link_is_of_the_tree_that_it_was_asked_for_and_of_no_other() {
    let secret = secret();
    let both = |rank| Identity { forest: forest(4, 2), ..identity(rank, &secret) };
    // The second tree of four ranks begins with rank 2: rank 0 is below it, and not above.
    let meet = |child, parent, tree| {
        meet_in(TreeIndex(tree), &both(child), &both(parent), Rank(parent), &mut |_, _| {})
    };
    let (Some(Ok(at_child)), Some(Ok(at_parent)), _) = meet(0, 2, 1) else { panic!("its child") };
    assert_eq!((at_child.tree, at_parent.tree), (TreeIndex(1), TreeIndex(1)));
    let (Some(Ok(at_child)), Some(Ok(at_parent)), _) = meet(2, 0, 0) else { panic!("its child") };
    assert_eq!((at_child.tree, at_parent.tree), (TreeIndex(0), TreeIndex(0)));
    for (child, parent, tree) in [(0, 2, 0), (2, 0, 1), (2, 0, 2), (0, 2, u32::MAX)] {
        let (at_child, at_parent, _) = meet(child, parent, tree);
        let error = at_parent.expect("an outcome").expect_err("not its child");
        let (rank, ours, tree) = (Rank(child), Rank(parent), TreeIndex(tree));
        assert_eq!(error, HandshakeError::Position { rank, ours, tree });
        assert!(at_child.expect("an outcome").is_err());
    }
}

#[test]
fn another_secret_is_named_on_both_sides() {
    let errors = meet_untouched(&identity(3, &secret()), &identity(1, &secret()));
    let named =
        (HandshakeError::Secret { rank: Rank(1) }, HandshakeError::Secret { rank: Rank(3) });
    assert_eq!(errors, named);
}

#[test]
fn another_version_is_named_on_both_sides() {
    let secret = secret();
    let child = Identity { version: 1, ..identity(3, &secret) };
    let (at_child, at_parent) = meet_untouched(&child, &identity(1, &secret));
    assert_eq!(
        at_parent.to_string(),
        "rank 3 speaks protocol 1, this is protocol 5: all ranks must run the same copper"
    );
    assert_eq!(
        at_child.to_string(),
        "rank 1 speaks protocol 5, this is protocol 1: all ranks must run the same copper"
    );
}

#[test]
fn another_job_size_place_or_provider_is_named_on_both_sides() {
    let secret = secret();
    let parent = identity(1, &secret);
    let job = Job::parse("job-2").expect("valid");
    let provider = Offer { provider: "shm".to_owned(), ..Offer::default() };
    for (child, code, words) in [
        (Identity { job, ..identity(3, &secret) }, RefusalCode::Job, "belongs to job job-2"),
        (
            Identity { forest: forest(8, 1), ..identity(3, &secret) },
            RefusalCode::Size,
            "counts 8 ranks",
        ),
        (
            Identity { forest: forest(7, 2), ..identity(3, &secret) },
            RefusalCode::Trees,
            "counts 2 trees, this rank counts 1",
        ),
        (identity(0, &secret), RefusalCode::Position, "rank 0 is not below rank 1"),
        (identity(1, &secret), RefusalCode::Position, "rank 1 is not below rank 1"),
        (
            Identity { rank: Rank(u32::MAX), ..identity(3, &secret) },
            RefusalCode::Position,
            "rank 4294967295 is not below",
        ),
        (
            Identity { offer: provider, ..identity(3, &secret) },
            RefusalCode::Provider,
            "uses libfabric provider \"shm\", this rank uses \"tcp\"",
        ),
    ] {
        let (at_child, at_parent) = meet_untouched(&child, &parent);
        assert_eq!((at_child.code(), at_parent.code()), (Some(code), Some(code)));
        assert!(at_parent.to_string().contains(words), "{at_parent}");
        let passed_on = format!("rank 1 refused: {at_parent}");
        assert_eq!(at_child.to_string(), passed_on);
        assert!(at_child.is_final());
    }
}

#[test]
fn an_address_that_leads_to_another_rank_is_named() {
    let secret = secret();
    let (at_child, at_parent, _) =
        meet(&identity(3, &secret), &identity(0, &secret), Rank(1), &mut |_, _| {});
    let error = at_child.expect("an outcome").expect_err("not rank 1");
    assert_eq!(error, HandshakeError::WrongRank { expected: Rank(1), answered: Rank(0) });
    assert!(at_parent.is_none());
}

#[test]
fn whoever_has_not_proven_the_secret_learns_the_version_and_nothing_else() {
    // The wrong job, the wrong size and the wrong place: not a word of it without the secret.
    let child = Identity {
        job: Job::parse("job-2").expect("valid"),
        forest: forest(9, 1),
        ..identity(6, &secret())
    };
    let parent = identity(1, &secret());
    let mut acceptor = Acceptor::new(Arc::new(parent), nonce(2));
    let (_, hello) = Dialer::start(Arc::new(child), Rank(1), TreeIndex(0), nonce(1));
    let Ok(Step::Send(_)) = acceptor.on_frame(&hello) else { panic!("everybody is challenged") };
    // A proof of the right form.
    let proof = [&[90, 0, 3][..], &[7; 89]].concat();
    let proof = Frame::parse(&proof).expect("a frame");
    let failed = acceptor.on_frame(&proof).expect_err("no proof");
    let reply = failed.reply.expect("a refusal");
    assert_eq!(reply.body(), [5, 0, 0, 0, 0], "version 5, no reason, no text");
}

#[test]
fn no_altered_byte_is_accepted_by_whom_it_reaches() {
    let secret = secret();
    let (child, parent) = (identity(3, &secret), identity(1, &secret));
    let (_, _, untouched) = meet(&child, &parent, Rank(1), &mut |_, _| {});
    for (index, frame) in untouched.iter().enumerate() {
        for position in 0..frame.len() {
            for mask in [0x01, 0x80, 0xFF] {
                let mut alter = |carried: usize, bytes: &mut Vec<u8>| {
                    if carried == index {
                        bytes[position] ^= mask;
                    }
                };
                let (at_child, at_parent, _) = meet(&child, &parent, Rank(1), &mut alter);
                let place = format!("byte {position} of frame {index} with {mask:#x}");
                assert!(!matches!(at_child, Some(Ok(_))), "the child accepted {place}");
                // The welcome is the parent's last word: it does not hear what became of it.
                let judged = index == 3 || !matches!(at_parent, Some(Ok(_)));
                assert!(judged, "the parent accepted {place}");
            }
        }
    }
}

#[test]
fn a_recorded_child_is_not_accepted_again() {
    let secret = secret();
    let (child, parent) = (identity(3, &secret), identity(1, &secret));
    let (_, _, log) = meet(&child, &parent, Rank(1), &mut |_, _| {});
    let mut acceptor = Acceptor::new(Arc::new(parent), nonce(3));
    let frame = |index: usize| Frame::parse(&log[index]).expect("recorded");
    assert!(matches!(acceptor.on_frame(&frame(0)), Ok(Step::Send(_))));
    let failed = acceptor.on_frame(&frame(2)).expect_err("an old proof");
    assert_eq!(failed.error, HandshakeError::Secret { rank: Rank(3) });
}

#[test]
fn a_recorded_parent_is_not_accepted_again() {
    let secret = secret();
    let (child, parent) = (identity(3, &secret), identity(1, &secret));
    let (_, _, log) = meet(&child, &parent, Rank(1), &mut |_, _| {});
    let (mut dialer, _) = Dialer::start(Arc::new(child), Rank(1), TreeIndex(0), nonce(9));
    let failed = dialer.on_frame(&Frame::parse(&log[1]).expect("recorded")).expect_err("old");
    assert_eq!(failed.error, HandshakeError::Secret { rank: Rank(1) });
}

#[test]
fn what_one_side_said_is_no_answer_to_itself() {
    let secret = secret();
    let mut acceptor = Acceptor::new(Arc::new(identity(1, &secret)), nonce(2));
    let (mut dialer, hello) =
        Dialer::start(Arc::new(identity(3, &secret)), Rank(1), TreeIndex(0), nonce(1));
    assert!(dialer.on_frame(&hello).is_err());
    let Ok(Step::Send(challenge)) = acceptor.on_frame(&hello) else { panic!("a challenge") };
    assert!(acceptor.on_frame(&challenge).is_err());
    assert!(acceptor.on_frame(&hello).is_err(), "nothing comes after the end");
}

/// xorshift64*, Vigna 2014.
fn random(state: &mut u64) -> u64 {
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    state.wrapping_mul(0x2545_F491_4F6C_DD1D)
}

#[test]
fn random_frames_are_refused_without_a_panic() {
    let secret = secret();
    let (child, parent) = (Arc::new(identity(3, &secret)), Arc::new(identity(1, &secret)));
    let seed = 0x00C0_FFEE;
    let mut state = seed;
    for round in 0..20_000 {
        let length = usize::try_from(random(&mut state) % 400).expect("small") + 1;
        let mut bytes = u16::try_from(length).expect("small").to_le_bytes().to_vec();
        bytes.extend((0..length).map(|_| random(&mut state).to_le_bytes()[3]));
        // Mostly types that exist.
        bytes[2] %= 7;
        let frame = Frame::parse(&bytes).expect("the length is right");
        let mut acceptor = Acceptor::new(Arc::clone(&parent), nonce(2));
        let (mut dialer, hello) =
            Dialer::start(Arc::clone(&child), Rank(1), TreeIndex(0), nonce(1));
        if round % 2 == 0 {
            acceptor.on_frame(&hello).expect("a challenge");
        }
        assert!(acceptor.on_frame(&frame).is_err(), "seed {seed:#x}, round {round}");
        assert!(dialer.on_frame(&frame).is_err(), "seed {seed:#x}, round {round}");
    }
}

#[test]
fn a_refusal_s_text_is_made_safe_to_print() {
    let secret = secret();
    let (mut dialer, _) =
        Dialer::start(Arc::new(identity(3, &secret)), Rank(1), TreeIndex(0), nonce(1));
    let text = b"\x1b[2J\nfine";
    let mut refusal = vec![0, 0, 5, 1, 0, 2, u8::try_from(text.len()).expect("short"), 0];
    refusal.extend_from_slice(text);
    refusal[0] = u8::try_from(refusal.len() - 2).expect("short");
    let failed = dialer.on_frame(&Frame::parse(&refusal).expect("a frame")).expect_err("refused");
    assert_eq!(failed.error.to_string(), "rank 1 refused: ?[2J?fine");
}
