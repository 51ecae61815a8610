//! Threads that claim and return overlapping pages, in every order: `ci/models.sh`.

use std::sync::Arc;

use loom::cell::UnsafeCell;
use loom::thread;

use super::taken::{BITS, Pages, Taken};
use crate::sync::{Bug, plant};

/// What lies in the page that all of a model's claims have in common; loom reports whoever touches it
/// while another may.
struct Shared {
    taken: Taken,
    content: UnsafeCell<u32>,
}

// SAFETY: Send and Sync demand that the content is touched by one thread at a time, the owner of its
// page: which is what the models try, and loom checks.
unsafe impl Send for Shared {}
// SAFETY: as for Send.
unsafe impl Sync for Shared {}

impl Shared {
    /// Claims, writes and returns the pages; whether they could be had.
    fn use_once(&self, pages: Pages) -> bool {
        self.taken.claim(pages) && {
            self.content.with_mut(|content| {
                // SAFETY: demands that nobody else touches it: the page has been claimed.
                unsafe { *content += 1 };
            });
            self.taken.release(pages);
            true
        }
    }
}

/// The page before the border of two words of the bitmap is in each range.
const RANGES: [Pages; 3] = [
    Pages { start: BITS - 1, end: BITS },
    Pages { start: BITS - 2, end: BITS + 2 },
    Pages { start: BITS - 1, end: BITS + 1 },
];

fn one_owner_at_a_time() {
    loom::model(|| {
        let shared =
            Arc::new(Shared { taken: Taken::none_of(2 * BITS), content: UnsafeCell::new(0) });
        let others = [RANGES[1], RANGES[2]].map(|pages| {
            let shared = Arc::clone(&shared);
            thread::spawn(move || u32::from(shared.use_once(pages)))
        });
        let mine = u32::from(shared.use_once(RANGES[0]));
        let uses = mine + others.map(|other| other.join().expect("it ends")).iter().sum::<u32>();
        let all = Pages { start: 0, end: 2 * BITS };
        assert!(shared.taken.claim(all), "a page is lost");
        // SAFETY: demands that nobody else touches it: the others have ended.
        shared.content.with(|content| assert_eq!(unsafe { *content }, uses));
    });
}

#[test]
fn a_page_has_one_owner_who_sees_what_the_last_one_did() {
    one_owner_at_a_time();
}

#[test]
#[should_panic(expected = "Causality violation")]
fn a_release_that_orders_nothing_is_found() {
    plant(Bug::RelaxedRelease);
    one_owner_at_a_time();
}

#[test]
#[should_panic(expected = "Causality violation")]
fn a_failed_claim_that_frees_others_pages_is_found() {
    plant(Bug::OthersCleared);
    one_owner_at_a_time();
}
