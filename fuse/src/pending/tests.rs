use super::*;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};

use copper_engine::Found;
use copper_proto::{Attributes, FileKind, Statistics, Timestamp};

const SECOND: Duration = Duration::from_secs(1);

type Got = Result<Answer<()>, Errno>;

fn waiting() -> (Complete<()>, Receiver<Got>) {
    let (sender, receiver) = channel();
    (Box::new(move |answer, _| sender.send(answer).expect("the test listens")), receiver)
}

fn put(pending: &Pending<()>, now: Instant) -> (Ticket, Receiver<Got>) {
    let (complete, receiver) = waiting();
    match pending.put(complete, now) {
        Ok(ticket) => (ticket, receiver),
        Err((_, errno)) => panic!("refused with {errno}"),
    }
}

fn statistics() -> Got {
    Ok(Answer::Statistics(Statistics::default()))
}

fn found(inode: u64) -> Got {
    let time = Timestamp::default();
    let attributes = Attributes {
        kind: FileKind::Regular,
        permissions: 0o644,
        links: 1,
        uid: 0,
        gid: 0,
        device_number: 0,
        size: 0,
        sectors: 0,
        io_bytes: 4096,
        accessed: time,
        modified: time,
        changed: time,
        device: 1,
        inode: 1,
    };
    Ok(Answer::Looked(Looked::Found(Found { inode: InodeNumber(inode), attributes })))
}

#[test]
fn a_reply_is_answered_once_whoever_comes_first() {
    let pending = Pending::new(SECOND);
    let now = Instant::now();
    let (ticket, got) = put(&pending, now);
    pending.answer(ticket, statistics(), Provenance::Fetched);
    pending.answer(ticket, Err(Errno::EIO), Provenance::Fetched);
    assert_eq!(pending.expire(now + 2 * SECOND), Watch::Idle);
    pending.close();
    assert!(matches!(got.try_iter().collect::<Vec<_>>()[..], [Ok(Answer::Statistics(_))]));
    assert_eq!((pending.waiting(), pending.counters().snapshot().expired), (0, 0));
}

#[test]
fn a_slot_used_again_does_not_take_the_answer_of_its_predecessor() {
    let pending = Pending::new(SECOND);
    let now = Instant::now();
    let (old, got_old) = put(&pending, now);
    assert_eq!(pending.expire(now + SECOND), Watch::Idle);
    let (new, got_new) = put(&pending, now);
    assert_ne!(old, new);
    pending.answer(old, statistics(), Provenance::Fetched);
    assert_eq!(pending.waiting(), 1);
    pending.answer(new, Err(Errno::EACCES), Provenance::Fetched);
    assert!(matches!(got_old.try_iter().collect::<Vec<_>>()[..], [Err(EXPIRED)]));
    assert!(matches!(got_new.try_iter().collect::<Vec<_>>()[..], [Err(Errno::EACCES)]));
}

#[test]
fn only_what_is_due_expires_and_the_next_moment_is_known() {
    let pending = Pending::new(SECOND);
    let now = Instant::now();
    let (_, first) = put(&pending, now);
    let (_, second) = put(&pending, now + SECOND / 2);
    assert_eq!(pending.expire(now), Watch::Until(now + SECOND));
    assert_eq!(pending.expire(now + SECOND), Watch::Until(now + SECOND * 3 / 2));
    assert_eq!((first.try_iter().count(), second.try_iter().count()), (1, 0));
    assert_eq!(pending.counters().snapshot().expired, 1);
}

#[test]
fn after_the_end_nothing_waits() {
    let pending = Pending::new(SECOND);
    let now = Instant::now();
    let (ticket, got) = put(&pending, now);
    pending.close();
    assert!(matches!(got.try_iter().collect::<Vec<_>>()[..], [Err(CLOSED)]));
    pending.answer(ticket, statistics(), Provenance::Fetched);
    assert!(matches!(pending.put(waiting().0, now), Err((_, CLOSED))));
    assert_eq!(pending.expire(now), Watch::Closed);
    pending.park();
    pending.sleep(Duration::from_secs(3600));
}

#[test]
fn the_table_is_bounded() {
    let pending = Pending::new(SECOND);
    let now = Instant::now();
    let got: Vec<_> = (0..PENDING_MAX).map(|_| put(&pending, now)).collect();
    assert!(matches!(pending.put(waiting().0, now), Err((_, Errno::EAGAIN))));
    pending.answer(got[7].0, statistics(), Provenance::Fetched);
    let (again, _got) = put(&pending, now);
    assert_ne!(again, got[7].0);
    assert_eq!(pending.waiting(), PENDING_MAX);
}

#[test]
fn a_reference_that_the_kernel_never_got_goes_back() {
    let pending = Pending::new(SECOND);
    let back = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&back);
    pending.on_late_reference(move |inode| {
        assert_eq!(inode, InodeNumber(9));
        count.fetch_add(1, Ordering::Relaxed);
    });
    let now = Instant::now();
    let (ticket, _got) = put(&pending, now);
    pending.expire(now + SECOND);
    pending.answer(ticket, found(9), Provenance::Fetched);
    pending.answer(ticket, statistics(), Provenance::Fetched);
    assert_eq!(back.load(Ordering::Relaxed), 1);
}

#[test]
fn competitors_never_answer_twice() {
    let pending = Pending::new(Duration::ZERO);
    let answered = Arc::new(AtomicUsize::new(0));
    let now = Instant::now();
    let rounds = 2000;
    for _ in 0..rounds {
        let count = Arc::clone(&answered);
        let complete: Complete<()> = Box::new(move |_, _| {
            count.fetch_add(1, Ordering::Relaxed);
        });
        let Ok(ticket) = pending.put(complete, now) else { panic!("not full") };
        std::thread::scope(|scope| {
            scope.spawn(|| pending.answer(ticket, statistics(), Provenance::Fetched));
            pending.expire(now);
        });
    }
    assert_eq!((answered.load(Ordering::Relaxed), pending.waiting()), (rounds, 0));
}
