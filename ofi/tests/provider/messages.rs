//! Messages.

use std::thread;
use std::time::Instant;

use copper_ofi::{Event, PostError};

use crate::pair::{DEADLINE, Got, MESSAGE_BYTES_MAX, Pair, excluded, pattern};

fn there_and_back(provider: &str, message: &[u8]) {
    let Some(mut pair) = Pair::open(provider) else { return };
    pair.send_to_b(7, &[message]);
    let came = pair.until("the message", |pair| pair.b.received());
    assert_eq!(came, message);
    pair.send_to_a(8, &[&came]);
    assert_eq!(pair.until("the echo", |pair| pair.a.received()), message);
    pair.until("both sends to end", |pair| {
        let done = |got: &Got, token| matches!(got, Got::Sent(sent, Ok(())) if *sent == token);
        let a = pair.a.got.iter().any(|got| done(got, 7));
        let b = pair.b.got.iter().any(|got| done(got, 8));
        (a && b).then_some(())
    });
}

pub(crate) fn one_byte_goes_there_and_back(provider: &str) {
    there_and_back(provider, b"!");
}

pub(crate) fn the_longest_message_goes_there_and_back(provider: &str) {
    if provider == "shm" {
        excluded(provider, "2.5 crashes on more than 128 bytes within one process");
        return;
    }
    let mut message = vec![0; MESSAGE_BYTES_MAX];
    pattern(3, &mut message);
    there_and_back(provider, &message);
}

pub(crate) fn a_message_of_parts_arrives_as_one(provider: &str) {
    let Some(mut pair) = Pair::open(provider) else { return };
    pair.send_to_b(1, &[b"head", b"", b"er", b"body"]);
    assert_eq!(pair.until("the message", |pair| pair.b.received()), b"headerbody");
}

pub(crate) fn a_longer_message_is_refused(provider: &str) {
    let Some(mut pair) = Pair::open(provider) else { return };
    let long = vec![0; MESSAGE_BYTES_MAX];
    match pair.a.network.send(pair.a_to_b, 1, &[&long, b"!"]) {
        Err(PostError::TooLong { len, max }) => {
            assert_eq!((len, max), (MESSAGE_BYTES_MAX + 1, MESSAGE_BYTES_MAX));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(pair.a.network.outstanding_sends(), 0);
}

pub(crate) fn many_messages_arrive_once_each_though_buffers_are_few(provider: &str) {
    const MESSAGES: usize = 600;
    let Some(mut pair) = Pair::open(provider) else { return };
    let mut seen = vec![0; MESSAGES];
    let (mut sent, mut arrived, mut busy) = (0, 0, 0);
    let start = Instant::now();
    while arrived < MESSAGES {
        assert!(start.elapsed() < DEADLINE, "{arrived} of {sent} messages came");
        // As many as go, so that b's buffers run out; b takes one at a time.
        while sent < MESSAGES {
            let head = sent.to_le_bytes();
            let body = [sent as u8; 100];
            match pair.a.network.send(pair.a_to_b, sent as u64, &[&head, &body]) {
                Ok(()) => sent += 1,
                Err(PostError::Busy) => break,
                Err(error) => panic!("{error}"),
            }
        }
        busy += usize::from(sent < MESSAGES);
        pair.a.poll();
        let polled = pair.b.network.poll(1, |event| {
            if let Event::Received { bytes } = event {
                let (head, body) = bytes.split_at(size_of::<usize>());
                let index = usize::from_le_bytes(head.try_into().expect("a head"));
                assert_eq!(body, [index as u8; 100]);
                seen[index] += 1;
                arrived += 1;
            }
        });
        if polled.expect("a queue that works") == 0 {
            thread::yield_now();
        }
    }
    assert!(busy > 0, "the few buffers never ran out");
    assert!(seen.iter().all(|&times| times == 1), "a message came twice");
    pair.until("all sends to end", |pair| (pair.a.network.outstanding_sends() == 0).then_some(()));
    let ok = pair.a.got.iter().filter(|got| matches!(got, Got::Sent(_, Ok(())))).count();
    assert_eq!(ok, MESSAGES);
    assert_eq!(pair.b.network.receives_failed(), 0);
}

pub(crate) fn two_threads_ask_and_answer(provider: &str) {
    const ROUNDS: u64 = 200;
    let Some(Pair { mut a, mut b, a_to_b, b_to_a }) = Pair::open(provider) else { return };
    let answering = thread::spawn(move || {
        let start = Instant::now();
        let mut left = ROUNDS;
        let mut unsent: Option<Vec<u8>> = None;
        while left > 0 || b.network.outstanding_sends() > 0 {
            assert!(start.elapsed() < DEADLINE, "{left} questions did not come");
            if b.poll() == 0 {
                thread::yield_now();
            }
            unsent = unsent.or_else(|| b.received());
            if let Some(bytes) = &unsent {
                match b.network.send(b_to_a, 0, &[b"re ", bytes]) {
                    Ok(()) => {
                        unsent = None;
                        left -= 1;
                    }
                    Err(PostError::Busy) => {}
                    Err(error) => panic!("{error}"),
                }
            }
        }
        b
    });
    let start = Instant::now();
    for round in 0..ROUNDS {
        let question = round.to_le_bytes();
        while let Err(error) = a.network.send(a_to_b, round, &[&question]) {
            assert!(matches!(error, PostError::Busy), "{error}");
            assert!(start.elapsed() < DEADLINE, "no room to ask");
            a.poll();
        }
        let answer = loop {
            if let Some(answer) = a.received() {
                break answer;
            }
            assert!(start.elapsed() < DEADLINE, "no answer to {round}");
            if a.poll() == 0 {
                thread::yield_now();
            }
        };
        assert_eq!(answer, [b"re ".as_slice(), &question].concat());
    }
    drop(answering.join().expect("the answering thread"));
}
