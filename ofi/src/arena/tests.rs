use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;

use super::taken::BITS;
use super::*;

fn arena(pages: usize) -> Arena {
    Arena::map(pages * PAGE_BYTES).expect("a small mapping")
}

/// Whether the pages can be taken now.
fn free(arena: &Arena, offset: usize, len: usize) -> bool {
    catch_unwind(AssertUnwindSafe(|| arena.take(offset, len))).is_ok()
}

#[test]
fn a_mapping_has_whole_pages() {
    assert_eq!(Arena::map(1).expect("a page").len(), PAGE_BYTES);
    assert_eq!(Arena::map(PAGE_BYTES + 1).expect("two pages").len(), 2 * PAGE_BYTES);
    assert!(matches!(Arena::map(usize::MAX), Err(Error::Map { .. })));
}

#[test]
fn an_overlapping_piece_panics_and_takes_nothing() {
    let arena = arena(200);
    let held = arena.take(130 * PAGE_BYTES, PAGE_BYTES);
    assert!(!free(&arena, 0, arena.len()), "overlaps page 130");
    assert!(!free(&arena, 130 * PAGE_BYTES, 1));
    assert!(free(&arena, 0, 130 * PAGE_BYTES), "the failed take left no page behind");
    assert!(free(&arena, 131 * PAGE_BYTES, 69 * PAGE_BYTES));
    drop(held);
    assert!(free(&arena, 0, arena.len()));
}

#[test]
fn a_piece_outside_or_across_a_page_panics() {
    let arena = arena(4);
    assert!(!free(&arena, 1, PAGE_BYTES), "not aligned");
    assert!(!free(&arena, 0, 0), "empty");
    assert!(!free(&arena, 0, arena.len() + 1), "too long");
    assert!(!free(&arena, 4 * PAGE_BYTES, 1), "behind the end");
    assert!(!free(&arena, PAGE_BYTES, usize::MAX), "overflow");
    assert!(free(&arena, 3 * PAGE_BYTES, PAGE_BYTES));
}

#[test]
fn pages_return_after_the_last_holder() {
    let arena = arena(8);
    let mut filling = arena.take(PAGE_BYTES, 3 * PAGE_BYTES);
    filling.as_mut().fill(7);
    filling.shorten(5000);
    let first = filling.freeze();
    let second = first.clone();
    assert_eq!((first.offset(), first.len(), first.holders()), (PAGE_BYTES, 5000, 2));
    drop(first);
    assert!(second.as_ref().iter().all(|&byte| byte == 7));
    assert!(!free(&arena, 3 * PAGE_BYTES, PAGE_BYTES), "a shortened piece keeps its pages");
    drop(second);
    assert!(free(&arena, 0, arena.len()));
}

#[test]
fn a_piece_outlives_the_arena_handle() {
    let mut filling = arena(2).take(0, 10);
    filling.as_mut().copy_from_slice(b"0123456789");
    assert_eq!(filling.freeze().as_ref(), b"0123456789");
}

#[test]
fn every_mask_covers_its_pages_once() {
    for start in 0..130 {
        for end in start + 1..=200 {
            let pages: Vec<usize> = Pages { start, end }
                .words()
                .flat_map(|(word, mask)| {
                    (0..BITS).filter(move |bit| mask >> bit & 1 == 1).map(move |b| word * BITS + b)
                })
                .collect();
            assert_eq!(pages, (start..end).collect::<Vec<_>>());
        }
    }
}

#[test]
fn pieces_taken_by_many_threads_do_not_mix() {
    const THREADS: usize = 4;
    const ROUNDS: usize = 300;
    // Five pages each: neighbours share words of the bitmap.
    const PAGES: usize = 5;
    let arena = arena(THREADS * PAGES);
    thread::scope(|scope| {
        for index in 0..THREADS {
            let arena = arena.clone();
            scope.spawn(move || {
                for round in 0..ROUNDS {
                    let mark = (index * ROUNDS + round) as u8;
                    let mut piece = arena.take(index * PAGES * PAGE_BYTES, PAGES * PAGE_BYTES);
                    piece.as_mut().fill(mark);
                    let piece = piece.freeze();
                    let other = piece.clone();
                    let reader = thread::spawn(move || {
                        assert!(other.as_ref().iter().all(|&byte| byte == mark));
                    });
                    reader.join().expect("only our bytes");
                    drop(piece);
                }
            });
        }
    });
    assert!(free(&arena, 0, arena.len()));
}

#[test]
fn populating_keeps_what_is_written() {
    let arena = arena(64);
    let mut filling = arena.take(0, PAGE_BYTES);
    filling.as_mut().fill(9);
    arena.populate().expect("a few pages");
    assert!(filling.as_ref().iter().all(|&byte| byte == 9));
}

#[test]
fn populating_by_hand_wants_all_pages_free() {
    let arena = arena(3);
    let held = arena.take(2 * PAGE_BYTES, PAGE_BYTES);
    assert!(!arena.populate_by_hand());
    drop(held);
    assert!(arena.populate_by_hand());
    assert!(free(&arena, 0, arena.len()), "it gave the pages back");
}
