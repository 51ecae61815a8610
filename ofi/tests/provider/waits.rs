//! Waiting on the descriptor.

use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::pair::{DEADLINE, Pair, Side, excluded};

/// Blocks until the descriptor is readable, or for `time`.
fn is_readable_within(side: &Side, time: Duration) -> bool {
    let descriptor = side.network.wait_descriptor().expect("asked before");
    let mut descriptors = [PollFd::new(&descriptor, PollFlags::IN)];
    let time = Timespec { tv_sec: 0, tv_nsec: time.as_nanos() as i64 };
    poll(&mut descriptors, Some(&time)).expect("a valid descriptor") > 0
}

pub(crate) fn an_idle_network_blocks_and_a_message_wakes_it(provider: &str) {
    let Some(mut pair) = Pair::open(provider) else { return };
    if provider == "shm" {
        assert!(pair.a.network.wait_descriptor().is_none(), "shm got a descriptor: test it");
        excluded(provider, "it has no descriptor to wait on");
        return;
    }
    pair.greet();
    // What remains of the greeting; then nothing comes, and waiting takes its time.
    let idle = Duration::from_millis(50);
    pair.until("an idle network", |pair| {
        let blocks = pair.a.network.may_block() && pair.b.network.may_block();
        let start = Instant::now();
        (blocks && !is_readable_within(&pair.a, idle) && start.elapsed() >= idle).then_some(())
    });
    assert!(pair.a.network.may_block(), "nothing came meanwhile");

    pair.send_to_a(1, &[b"wake"]);
    let start = Instant::now();
    let mut woken = false;
    let message = loop {
        assert!(start.elapsed() < DEADLINE, "no message");
        pair.b.poll();
        if !pair.a.network.may_block() || is_readable_within(&pair.a, Duration::from_millis(20)) {
            woken = true;
            pair.a.poll();
        }
        if let Some(message) = pair.a.received() {
            break message;
        }
    };
    assert!(woken);
    assert_eq!(message, b"wake");
}
