//! Waiting for a condition, never for a time.

use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

/// Between two looks at a condition.
const POLL: Duration = Duration::from_millis(10);

/// Looks until there is something, and returns it.
///
/// # Panics
/// At the deadline.
#[track_caller]
pub(crate) fn eventually<T>(
    deadline: Duration,
    what: &str,
    mut look: impl FnMut() -> Option<T>,
) -> T {
    let until = Instant::now() + deadline;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < until, "not within {deadline:?}: {what}");
        thread::sleep(POLL);
    }
}

/// Does something that may hang, in a thread of its own, which is left alone if it does: it is
/// freed when the daemon that it waits for is ended.
///
/// # Panics
/// At the deadline, or if `act` does.
#[track_caller]
pub(crate) fn within<T: Send + 'static>(
    deadline: Duration,
    what: &str,
    act: impl FnOnce() -> T + Send + 'static,
) -> T {
    let (sender, receiver) = mpsc::sync_channel(1);
    let thread = thread::spawn(move || {
        // Nobody listens any more after the deadline.
        let _sent = sender.send(act());
    });
    match receiver.recv_timeout(deadline) {
        Ok(done) => done,
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("hung for {deadline:?}: {what}"),
        Err(mpsc::RecvTimeoutError::Disconnected) => match thread.join() {
            Ok(()) => unreachable!("it sends before it ends"),
            Err(panic) => std::panic::resume_unwind(panic),
        },
    }
}
