//! Reads of a peer's arena.

use std::panic::{AssertUnwindSafe, catch_unwind};

use copper_ofi::{Arena, PAGE_BYTES, PostError};

use crate::pair::{ARENA_BYTES, Pair, excluded, pattern};

pub(crate) fn bytes_of_any_length_arrive_from_any_offset(provider: &str) {
    const MIB: usize = 1 << 20;
    let Some(mut pair) = Pair::open(provider) else { return };
    let mut whole = pair.b.arena.take(0, ARENA_BYTES);
    pattern(1, whole.as_mut());
    let whole = whole.freeze();
    // Length, offset there, offset here: first and last byte of the arena, odd offsets there.
    for (token, (len, from, to)) in [
        (1, 0, 0),
        (1, ARENA_BYTES - 1, ARENA_BYTES - PAGE_BYTES),
        (4096, 4096, 8192),
        (4096, 12345, 4096),
        (6123, 77 * PAGE_BYTES, 3 * PAGE_BYTES),
        (MIB, 3 * MIB, 0),
        (MIB, 2 * MIB + 1, 5 * MIB),
        (MIB, ARENA_BYTES - MIB, MIB),
        (ARENA_BYTES, 0, 0),
    ]
    .into_iter()
    .enumerate()
    {
        let mut into = pair.a.arena.take(to, len);
        into.as_mut().fill(0xa5);
        let remote = pair.b.remote(from);
        pair.read_from_b(token as u64, remote, into);
        assert_eq!(pair.a.network.outstanding_reads(), 1);
        let (ended, into, result) = pair.until("the read", |pair| pair.a.read_ended());
        assert!(result.is_ok(), "{len} bytes at {from}: {result:?}");
        assert_eq!((ended, into.offset(), into.len()), (token as u64, to, len));
        assert!(
            into.as_ref() == &whole.as_ref()[from..from + len],
            "other bytes: {len} from {from} to {to}"
        );
        assert_eq!(pair.a.network.outstanding_reads(), 0);
    }
}

pub(crate) fn a_window_of_reads_is_under_way_at_once(provider: &str) {
    const WINDOW: usize = 24;
    const ROUNDS: usize = 4;
    const LEN: usize = 64 << 10;
    let Some(mut pair) = Pair::open(provider) else { return };
    let blocks: Vec<_> = (0..WINDOW)
        .map(|index| {
            let mut block = pair.b.arena.take(index * LEN, LEN);
            pattern(index + 100, block.as_mut());
            block.freeze()
        })
        .collect();
    pair.greet();
    for _ in 0..ROUNDS {
        let mut most = 0;
        for index in 0..WINDOW {
            let place = WINDOW - 1 - index;
            let remote = pair.b.remote(index * LEN);
            let into = pair.a.arena.take(place * LEN, LEN);
            pair.read_from_b(index as u64, remote, into);
            most = most.max(pair.a.network.outstanding_reads());
        }
        // Nobody polls between posts, unless the provider has no room.
        if provider == "shm" {
            excluded(provider, "where it copies through its own buffers it does so one by one");
        } else {
            assert!(most >= 16, "only {most} reads under way");
        }
        let mut seen = [false; WINDOW];
        for _ in 0..WINDOW {
            let (token, into, result) = pair.until("a read", |pair| pair.a.read_ended());
            assert!(result.is_ok(), "{result:?}");
            let index = token as usize;
            assert!(!std::mem::replace(&mut seen[index], true), "read {index} ended twice");
            assert!(into.as_ref() == blocks[index].as_ref(), "other bytes in block {index}");
        }
    }
}

pub(crate) fn more_reads_than_settings_allow_are_busy_and_keep_their_piece(provider: &str) {
    let Some(mut pair) = Pair::open(provider) else { return };
    pair.greet();
    let remote = pair.b.remote(0);
    for index in 0..32 {
        let into = pair.a.arena.take(index * PAGE_BYTES, PAGE_BYTES);
        pair.read_from_b(index as u64, remote, into);
    }
    // `read_from_b` polls when it must wait; fill up again what ended meanwhile.
    let mut next = 32;
    while pair.a.network.outstanding_reads() < 32 {
        let into = pair.a.arena.take(next * PAGE_BYTES, PAGE_BYTES);
        match pair.a.network.read(pair.a_to_b, next as u64, remote, into) {
            Ok(()) => next += 1,
            Err((PostError::Busy, _)) => pair.poll(),
            Err((error, _)) => panic!("{error}"),
        }
        assert!(next < 1000, "reads end faster than they are posted");
    }
    let offset = ARENA_BYTES - PAGE_BYTES;
    let into = pair.a.arena.take(offset, PAGE_BYTES);
    match pair.a.network.read(pair.a_to_b, 99, remote, into) {
        Err((PostError::Busy, into)) => assert_eq!(into.offset(), offset),
        other => panic!("{other:?}"),
    }
    pair.until("all reads", |pair| (pair.a.network.outstanding_reads() == 0).then_some(()));
}

pub(crate) fn a_read_into_another_arena_panics(provider: &str) {
    let Some(mut pair) = Pair::open(provider) else { return };
    let other = Arena::map(PAGE_BYTES).expect("a page");
    let remote = pair.b.remote(0);
    let into = other.take(0, PAGE_BYTES);
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        let _ = pair.a.network.read(pair.a_to_b, 1, remote, into);
    }));
    assert!(outcome.is_err(), "a read into memory that is not registered");
    assert_eq!(pair.a.network.outstanding_reads(), 0);
}
