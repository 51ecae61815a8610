//! What processes take, looked at all the time.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

const PERIOD: Duration = Duration::from_millis(200);

#[derive(Debug)]
pub(crate) struct Sampler {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<u64>>,
}

/// The bytes of a line of `/proc/PID/status`; `None` if the process is gone.
fn bytes(pid: u32, field: &str) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(field))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? * 1024)
}

impl Sampler {
    /// Begins to look. The kernel remembers the most itself; looking finds the moment.
    pub(crate) fn start(pids: Vec<u32>, bound: u64) -> Sampler {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            loop {
                let last = stopped.load(Ordering::Relaxed);
                let peaks: Vec<u64> =
                    pids.iter().map(|&pid| bytes(pid, "VmHWM:").expect("no daemon ends")).collect();
                for (rank, &peak) in peaks.iter().enumerate() {
                    let status = || fs::read_to_string(format!("/proc/{}/status", pids[rank]));
                    assert!(
                        peak <= bound,
                        "rank {rank} takes {peak}: {}",
                        status().expect("it is there")
                    );
                }
                if last {
                    return peaks;
                }
                thread::sleep(PERIOD);
            }
        });
        Sampler { stop, thread }
    }

    /// The most that each has taken.
    ///
    /// # Panics
    /// If one has taken more than its bound.
    #[track_caller]
    pub(crate) fn finish(self) -> Vec<u64> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("a daemon takes more than it may")
    }
}
