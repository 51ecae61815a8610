//! Bugs that the address sanitizer must find: `ci/sanitize.sh` runs each of these alone and wants it
//! ended with a report. The suites of `provider.rs` are what must pass.

#![cfg(copper_asan)]

#[allow(dead_code, reason = "these need little of it")]
#[path = "provider/pair.rs"]
mod pair;

use copper_ofi::{Arena, PAGE_BYTES, planted};
use pair::Pair;

#[test]
#[ignore = "the sanitizer has to end it"]
fn a_byte_behind_a_piece() {
    let mut piece = Arena::map(4 * PAGE_BYTES).expect("few pages").take(PAGE_BYTES, 5000);
    planted::write_behind(&mut piece);
}

#[test]
#[ignore = "the sanitizer has to end it"]
fn bytes_that_outlive_their_piece() {
    let arena = Arena::map(4 * PAGE_BYTES).expect("few pages");
    let piece = arena.take(PAGE_BYTES, PAGE_BYTES).freeze();
    let kept = planted::keep_bytes(&piece);
    drop(piece);
    std::hint::black_box(kept[100]);
}

#[test]
#[ignore = "the sanitizer has to end it"]
fn a_read_into_a_piece_that_was_returned() {
    let mut pair = Pair::open("tcp").expect("tcp is everywhere");
    pair.greet();
    let into = pair.a.arena.take(PAGE_BYTES, 16 * PAGE_BYTES);
    planted::return_early(&into);
    let remote = pair.b.remote(0);
    pair.read_from_b(1, remote, into);
    let (_, _, result) = pair.until("the read", |pair| pair.a.read_ended());
    result.expect("the fabric knows nothing of pieces");
}
