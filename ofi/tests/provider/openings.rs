//! Opening and closing.

use std::net::{IpAddr, Ipv4Addr};
use std::thread;

use copper_ofi::{Arena, Error, Network, Settings};

use crate::pair::{ARENA_BYTES, Pair, is_here, pattern, settings};

pub(crate) fn an_arena_outlives_its_networks(provider: &str) {
    if !is_here(provider) {
        return;
    }
    let arena = Arena::map(ARENA_BYTES).expect("a small arena");
    let mut piece = arena.take(0, 10_000);
    pattern(5, piece.as_mut());
    let piece = piece.freeze();
    let copy = piece.as_ref().to_vec();
    let mut keys = Vec::new();
    for _ in 0..3 {
        let network = Network::open(&settings(provider), &arena).expect("opens again");
        keys.push(network.region_key());
    }
    assert_eq!(piece.as_ref(), copy, "registration keeps what is written");
    drop(piece);
    drop(arena.take(0, arena.len()));
}

pub(crate) fn a_network_moves_to_another_thread_and_drops_there(provider: &str) {
    let Some(mut pair) = Pair::open(provider) else { return };
    pair.greet();
    // With a read and a send under way, of which nobody reaps the completion.
    let remote = pair.b.remote(0);
    let into = pair.a.arena.take(0, 1 << 20);
    pair.read_from_b(1, remote, into);
    pair.send_to_b(2, &[b"nobody waits for this"]);
    let Pair { a, b, .. } = pair;
    let arena = a.arena.clone();
    thread::spawn(move || drop(a)).join().expect("a drop");
    drop(arena.take(0, arena.len()));
    drop(b);
}

pub(crate) fn what_is_open_can_be_named(provider: &str) {
    let Some(pair) = Pair::open(provider) else { return };
    let network = &pair.a.network;
    assert_eq!(network.provider().split(';').next(), Some(provider));
    assert!(!network.address().is_empty());
    assert_ne!(network.address(), pair.b.network.address());
    assert_eq!((network.outstanding_reads(), network.outstanding_sends()), (0, 0));
}

pub(crate) fn too_many_receives_are_refused_with_the_bound(provider: &str) {
    if !is_here(provider) {
        return;
    }
    let arena = Arena::map(ARENA_BYTES).expect("a small arena");
    let settings = Settings { receives: 1 << 30, ..settings(provider) };
    match Network::open(&settings, &arena).map(drop) {
        Err(Error::TooMany { what: "receives", asked, most, .. }) => {
            assert_eq!(asked, 1 << 30);
            assert!((8..asked).contains(&most));
        }
        other => panic!("{other:?}"),
    }
}

fn refusal(settings: &Settings) -> Error {
    let arena = Arena::map(ARENA_BYTES).expect("a small arena");
    Network::open(settings, &arena).map(drop).expect_err("it cannot be opened")
}

pub(crate) fn an_unknown_provider_gets_one_line_with_what_is_there() {
    let error = refusal(&settings("nonsense"));
    let text = error.to_string();
    assert!(matches!(error, Error::NoProvider { .. }), "{text}");
    assert!(text.contains("nonsense") && text.contains("--net tcp"), "{text}");
    assert!(text.contains(&copper_ofi::versions().providers.join(", ")), "{text}");
    assert_eq!(text.lines().count(), 1);
}

pub(crate) fn an_address_of_another_machine_cannot_be_bound() {
    // TEST-NET-3, RFC 5737: nobody's.
    let elsewhere = Some(IpAddr::V4(Ipv4Addr::new(203, 0, 113, 7)));
    let error = refusal(&Settings { bind: elsewhere, ..settings("tcp") });
    let text = error.to_string();
    assert!(text.lines().count() == 1, "{text}");
    assert!(matches!(error, Error::Bind { .. } | Error::Call { .. }), "{text}");
}

pub(crate) fn settings_of_zero_are_refused() {
    let error = refusal(&Settings { reads: 0, ..settings("tcp") });
    assert!(matches!(error, Error::Zero { what: "reads" }), "{error}");
}

pub(crate) fn nobody_gets_an_unfit_provider_unasked() {
    if std::env::var_os("FI_PROVIDER").is_some() {
        crate::pair::excluded("auto", "FI_PROVIDER is set");
        return;
    }
    let arena = Arena::map(ARENA_BYTES).expect("a small arena");
    let network = Network::open(&settings("auto"), &arena).expect("tcp at least");
    assert!(!["net", "udp", "shm"].contains(&network.provider()), "{}", network.provider());
}
