//! Waiting without sleeping blindly.

use std::time::{Duration, Instant};

/// Far above what anything here takes, also on a machine that is busy with something else.
pub(crate) const BOUND: Duration = Duration::from_secs(20);

/// Polls until the condition holds; panics after [`BOUND`].
pub(crate) fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < BOUND, "waited in vain for: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
