//! The way from frontends to the engine, beside a channel of the standard library: one thread that
//! asks and takes, and four that ask while one takes.

use std::hint::black_box;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::thread;

use copper_engine::inodes::Inodes;
use copper_engine::{EngineView, InodeNumber, Question, Queue, View, Wake};
use copper_proto::limits::LOCAL_WAITERS_MAX;
use copper_proto::{Errno, Ticket};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

/// Questions of each asking thread.
const EACH: u64 = 10_000;

const ASKERS: u64 = 4;

/// The engine is awake all the time here.
struct Awake;

impl Wake for Awake {
    fn wake(&self) {}
}

fn view() -> (Arc<Queue>, Arc<EngineView<Vec<u8>>>) {
    let queue = Arc::new(Queue::new(Box::new(Awake)));
    (Arc::clone(&queue), Arc::new(EngineView::new(Arc::new(Inodes::default()), queue)))
}

fn question(number: u64) -> (Ticket, Question) {
    (Ticket(number), Question::Attributes(InodeNumber(number)))
}

/// The sum of all tickets of `ASKERS` threads: each came once.
fn expected() -> u64 {
    let count = ASKERS * EACH;
    count * (count - 1) / 2
}

fn one_thread(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("queue, one thread");
    let (queue, view) = view();
    group.bench_function("copper", |bencher| {
        bencher.iter(|| {
            let (ticket, question) = question(7);
            view.ask(ticket, question).expect("there is room");
            assert_eq!(queue.pop().map(|(ticket, _)| ticket), Some(Ticket(7)));
        });
    });
    let (sender, receiver) = sync_channel(LOCAL_WAITERS_MAX);
    group.bench_function("sync_channel", |bencher| {
        bencher.iter(|| {
            sender.send(question(7)).expect("there is a receiver");
            assert_eq!(receiver.try_recv().map(|(ticket, _)| ticket), Ok(Ticket(7)));
        });
    });
    group.finish();
}

fn many_threads(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("queue, 4 threads to one");
    group.throughput(Throughput::Elements(ASKERS * EACH)).sample_size(20);
    group.bench_function("copper", |bencher| bencher.iter(|| assert_eq!(ask_copper(), expected())));
    group.bench_function("sync_channel", |bencher| {
        bencher.iter(|| assert_eq!(ask_channel(), expected()));
    });
    group.finish();
}

fn ask_copper() -> u64 {
    let (queue, view) = view();
    thread::scope(|scope| {
        for asker in 0..ASKERS {
            let view = Arc::clone(&view);
            scope.spawn(move || {
                for number in asker * EACH..(asker + 1) * EACH {
                    let (ticket, question) = question(number);
                    // Full: the engine is behind.
                    while view.ask(ticket, question.clone()) == Err(Errno::EAGAIN) {
                        thread::yield_now();
                    }
                }
            });
        }
        let (mut sum, mut taken) = (0, 0);
        while taken < ASKERS * EACH {
            match queue.pop() {
                Some((ticket, question)) => {
                    black_box(question);
                    sum += ticket.0;
                    taken += 1;
                }
                None => thread::yield_now(),
            }
        }
        sum
    })
}

fn ask_channel() -> u64 {
    let (sender, receiver) = sync_channel(LOCAL_WAITERS_MAX);
    thread::scope(|scope| {
        for asker in 0..ASKERS {
            let sender = sender.clone();
            scope.spawn(move || {
                for number in asker * EACH..(asker + 1) * EACH {
                    sender.send(question(number)).expect("there is a receiver");
                }
            });
        }
        drop(sender);
        receiver.iter().map(|(ticket, question)| (ticket.0, black_box(question)).0).sum()
    })
}

criterion_group!(benches, one_thread, many_threads);
criterion_main!(benches);
