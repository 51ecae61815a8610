//! What fails, and what comes back.

use std::time::{Duration, Instant};

use copper_ofi::{Error, PAGE_BYTES, Peer, PostError};

use crate::pair::{DEADLINE, Got, Pair, Side, excluded, settings};

/// How long a read from a lost peer is watched. It ends in some 20 ms or, where the provider
/// does not notice, stays: then only a deadline of the caller ends the wait.
const WATCH: Duration = Duration::from_secs(1);

/// Takes the whole arena: nobody holds a page any more.
fn assert_all_returned(a: Side) {
    let Side { network, arena, got } = a;
    drop(got);
    drop(network);
    drop(arena.take(0, arena.len()));
}

/// shm maps a peer of the same process only once, and that mapping goes with the peer's endpoint:
/// an operation to it then is a segmentation fault (1.17). Peers are other processes in life.
fn shares_memory_with_its_peer(provider: &str) -> bool {
    let shares = provider == "shm";
    if shares {
        excluded(provider, "a lost peer of the same process takes the shared mapping with it");
    }
    shares
}

/// Polls until the reads have ended, or for a while.
fn watch(a: &mut Side) {
    let start = Instant::now();
    while a.network.outstanding_reads() > 0 && start.elapsed() < WATCH {
        a.poll();
    }
}

pub(crate) fn a_read_under_way_from_a_lost_peer_returns_its_piece(provider: &str) {
    if shares_memory_with_its_peer(provider) {
        return;
    }
    let Some(mut pair) = Pair::open(provider) else { return };
    pair.greet();
    let remote = pair.b.remote(0);
    for index in 0..4 {
        let into = pair.a.arena.take(index << 20, 1 << 20);
        pair.read_from_b(index as u64, remote, into);
    }
    let Pair { mut a, b, .. } = pair;
    drop(b);
    watch(&mut a);
    let ended = a.got.iter().filter(|got| matches!(got, Got::Read(..))).count();
    assert_eq!(ended + a.network.outstanding_reads(), 4, "a read was lost");
    assert_all_returned(a);
}

pub(crate) fn a_read_from_a_peer_that_is_gone_returns_its_piece(provider: &str) {
    if shares_memory_with_its_peer(provider) {
        return;
    }
    let Some(mut pair) = Pair::open(provider) else { return };
    pair.greet();
    let remote = pair.b.remote(0);
    let Pair { mut a, b, a_to_b, .. } = pair;
    drop(b);
    let start = Instant::now();
    let mut piece = Some(a.arena.take(PAGE_BYTES, PAGE_BYTES));
    // Busy for ever, refused, an error later or no end: all are allowed, and none loses the piece.
    while let Some(into) = piece.take() {
        match a.network.read(a_to_b, 5, remote, into) {
            Ok(()) => watch(&mut a),
            Err((PostError::Busy, into)) if start.elapsed() < WATCH => {
                assert_eq!(into.offset(), PAGE_BYTES);
                a.poll();
                piece = Some(into);
            }
            Err((_, into)) => assert_eq!(into.offset(), PAGE_BYTES),
        }
    }
    assert_all_returned(a);
}

pub(crate) fn a_wrong_key_is_an_error(provider: &str) {
    if provider == "shm" {
        excluded(provider, "it ignores keys");
        return;
    }
    let Some(mut pair) = Pair::open(provider) else { return };
    pair.greet();
    let mut remote = pair.b.remote(0);
    remote.key ^= 2;
    let into = pair.a.arena.take(0, PAGE_BYTES);
    pair.read_from_b(9, remote, into);
    let (token, into, result) = pair.until("the failure", |pair| pair.a.read_ended());
    assert_eq!((token, into.offset(), into.len()), (9, 0, PAGE_BYTES));
    match result {
        Err(error @ Error::Operation { .. }) => {
            let text = error.to_string();
            assert!(text.contains("read") && text.lines().count() == 1, "{text}");
            assert!(error.errno().is_some());
        }
        other => panic!("a wrong key gave {other:?}"),
    }
    drop(into);
    assert_all_returned(pair.a);
}

pub(crate) fn a_removed_peer_is_refused_and_others_go_on(provider: &str) {
    let Some(mut pair) = Pair::open(provider) else { return };
    pair.greet();
    let mut c = Side::open(&settings(provider));
    let a_to_c = pair.a.network.insert_peer(c.network.address()).expect("c's address");
    assert_ne!(a_to_c, pair.a_to_b);
    let refused = |a: &mut Side, peer: Peer| {
        matches!(a.network.send(peer, 1, &[b"!"]), Err(PostError::Refused(_)))
    };
    // With an operation under way, then with none.
    pair.send_to_b(3, &[b"last"]);
    pair.a.network.remove_peer(pair.a_to_b).expect("a peer that is in");
    assert!(refused(&mut pair.a, pair.a_to_b));
    assert!(pair.a.network.remove_peer(pair.a_to_b).is_err(), "removed twice");
    assert_eq!(pair.until("the last message", |pair| pair.b.received()), b"last");
    pair.until("the last send", |pair| (pair.a.network.outstanding_sends() == 0).then_some(()));

    let start = Instant::now();
    let mut sent = false;
    while c.received().is_none() {
        assert!(start.elapsed() < DEADLINE, "c got nothing");
        sent = sent || pair.a.network.send(a_to_c, 4, &[b"to c"]).is_ok();
        pair.poll();
        c.poll();
    }
    while pair.a.network.outstanding_sends() > 0 {
        assert!(start.elapsed() < DEADLINE, "a send did not end");
        pair.poll();
        c.poll();
    }
    pair.a.network.remove_peer(a_to_c).expect("a peer without operations");
    assert!(refused(&mut pair.a, a_to_c));
}

pub(crate) fn an_address_of_another_shape_is_refused(provider: &str) {
    let Some(mut pair) = Pair::open(provider) else { return };
    assert!(matches!(pair.a.network.insert_peer(&[]), Err(Error::Address { .. })));
    let long = [b'x'; 4096];
    assert!(matches!(pair.a.network.insert_peer(&long), Err(Error::Address { .. })));
    if provider == "shm" {
        excluded(provider, "its addresses are texts of any length");
        return;
    }
    let short = &pair.b.network.address()[1..];
    assert!(matches!(pair.a.network.insert_peer(short), Err(Error::Address { .. })));
}
