//! Bugs that the address sanitizer or valgrind must find: `ci/sanitize.sh` runs each of these alone and
//! wants it ended with a report. The suite of `provider.rs` is what must pass.

#[allow(dead_code, reason = "these need little of it")]
#[path = "provider/pair.rs"]
mod pair;

use pair::Pair;

/// Bugs in the arena, which only the address sanitizer is told about.
#[cfg(copper_asan)]
mod arena {
    use copper_ofi::{Arena, PAGE_BYTES, planted};

    use super::pair::Pair;

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
}

#[test]
#[ignore = "valgrind has to report it"]
fn a_message_of_bytes_that_nobody_wrote() {
    let mut pair = Pair::open("tcp").expect("tcp is everywhere");
    let unwritten: Vec<u8> = Vec::with_capacity(100);
    // SAFETY: none: this is the bug, of bytes that were allocated and never written.
    let unwritten = unsafe { std::slice::from_raw_parts(unwritten.as_ptr(), 100) };
    pair.send_to_b(0, &[unwritten]);
    assert_eq!(pair.until("the message", |pair| pair.b.received()).len(), 100);
}
