//! What the engine and the FUSE threads share, tried by loom in every order: `ci/models.sh`.

use std::sync::Arc;
use std::sync::PoisonError;

use copper_cache::LocalUse;
use copper_proto::{BlockIndex, Extent, Held, Ticket};
use loom::sync::atomic::{AtomicU32, Ordering};
use loom::sync::{Condvar, Mutex};
use loom::thread;

use crate::inodes::Inodes;
use crate::ports::{Memory, Wake};
use crate::queue::Queue;
use crate::shelf::Slots;
use crate::sync::{Bug, plant};
use crate::view::{InodeNumber, Question};

/// An event as the sleeper's eventfd is one: a wake-up before the sleep ends the sleep.
#[derive(Default)]
struct Event {
    rung: Mutex<bool>,
    changed: Condvar,
}

impl Event {
    fn sleep(&self) {
        let mut rung = self.rung.lock().unwrap_or_else(PoisonError::into_inner);
        while !*rung {
            rung = self.changed.wait(rung).unwrap_or_else(PoisonError::into_inner);
        }
        *rung = false;
    }
}

struct Bell(Arc<Event>);

impl Wake for Bell {
    fn wake(&self) {
        *self.0.rung.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.0.changed.notify_one();
    }
}

/// The engine's loop, until it has taken two questions; loom ends a sleep that nobody ends.
fn every_question_wakes() {
    loom::model(|| {
        let event = Arc::new(Event::default());
        let queue = Arc::new(Queue::new(Box::new(Bell(Arc::clone(&event)))));
        let askers = [1, 2].map(|ticket| {
            let queue = Arc::clone(&queue);
            thread::spawn(move || {
                let question = Question::Attributes(InodeNumber::ROOT);
                queue.ask(Ticket(ticket), question).expect("there is room");
            })
        });
        let mut taken = 0;
        while taken < 2 {
            if queue.pop().is_some() {
                taken += 1;
            } else if queue.fall_asleep() {
                event.sleep();
                queue.awake();
            }
        }
        for asker in askers {
            asker.join().expect("it has asked");
        }
    });
}

/// An arena of one extent, whose content is 1 while it is shown.
struct OneExtent;

#[derive(Clone)]
struct Shown {
    holders: loom::sync::Arc<()>,
    content: Arc<AtomicU32>,
}

impl AsRef<[u8]> for Shown {
    fn as_ref(&self) -> &[u8] {
        &[]
    }
}

impl Memory for OneExtent {
    type Filling = Vec<u8>;
    type Filled = Shown;

    fn take(&self, _: Extent) -> Vec<u8> {
        unreachable!("nothing is filled here")
    }

    fn freeze(_: Vec<u8>) -> Shown {
        unreachable!("nothing is filled here")
    }

    fn extent(_: &Vec<u8>) -> Extent {
        unreachable!("nothing is filled here")
    }

    fn holders(filled: &Shown) -> usize {
        loom::sync::Arc::strong_count(&filled.holders)
    }
}

/// A reader finds an extent, or does not, while the engine looks whether it may be recycled.
fn an_extent_in_use_stays() {
    const EXTENT: Extent = Extent { offset: 0, len: 4096 };
    const BLOCK: BlockIndex = BlockIndex(0);
    loom::model(|| {
        let content = Arc::new(AtomicU32::new(1));
        let inodes = Arc::new(Inodes::<Shown>::default());
        let mut slots = Slots::<OneExtent>::default();
        let holders = loom::sync::Arc::new(());
        slots.filled(EXTENT, Shown { holders, content: Arc::clone(&content) }, None);
        let _no_directory = slots.publish(Held { extent: EXTENT, checksum: 0 });
        slots.show(&inodes, InodeNumber::ROOT, BLOCK, EXTENT);
        let reader = {
            let inodes = Arc::clone(&inodes);
            thread::spawn(move || {
                let root = inodes.get(InodeNumber::ROOT).expect("there is always the root");
                if let Some(shown) = root.block(BLOCK, 10) {
                    assert_eq!(shown.content.load(Ordering::Relaxed), 1, "read while recycled");
                }
            })
        };
        if slots.local_use(&inodes, EXTENT) == LocalUse::Idle {
            drop(slots.remove(EXTENT));
            content.store(2, Ordering::Relaxed);
        }
        reader.join().expect("it has read");
    });
}

#[test]
fn no_wake_up_is_lost() {
    every_question_wakes();
}

#[test]
#[should_panic(expected = "deadlock")]
fn a_wake_up_before_the_question_is_found() {
    plant(Bug::WokenTooEarly);
    every_question_wakes();
}

#[test]
#[should_panic(expected = "deadlock")]
fn sleep_without_a_second_look_is_found() {
    plant(Bug::NoSecondLook);
    every_question_wakes();
}

#[test]
fn no_extent_is_recycled_under_a_reader() {
    an_extent_in_use_stays();
}

#[test]
#[should_panic(expected = "read while recycled")]
fn holders_that_are_counted_too_early_are_found() {
    plant(Bug::CountedBeforeWithdrawn);
    an_extent_in_use_stays();
}
