//! The thread that answers requests which nobody else answered in time.
//!
//! It sleeps while nothing waits. It does not go to sleep, and need not be woken, between requests
//! that follow each other closely: waking a thread costs more than most requests.

use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::pending::{Pending, Watch};

/// How long nothing must have waited before it sleeps for good.
const QUIET: Duration = Duration::from_secs(1);

/// Starts the watchdog of a table. It ends when the table is closed.
pub(crate) fn start<B: Send + 'static>(pending: Arc<Pending<B>>) -> io::Result<JoinHandle<()>> {
    thread::Builder::new().name("fuse-watchdog".to_owned()).spawn(move || watch(&pending))
}

fn watch<B: Send + 'static>(pending: &Pending<B>) {
    let mut quiet = false;
    loop {
        let now = Instant::now();
        match pending.expire(now) {
            Watch::Closed => return,
            Watch::Until(until) => {
                quiet = false;
                pending.sleep(until.saturating_duration_since(now));
            }
            Watch::Idle if quiet => {
                quiet = false;
                pending.park();
            }
            Watch::Idle => {
                quiet = true;
                pending.sleep(QUIET.min(pending.deadline()));
            }
        }
    }
}
