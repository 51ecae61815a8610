//! `copper simulate --seeds`: jobs by the thousand, each drawn with its faults from one number.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::bail;

use crate::cli::progress::Line;
use crate::cli::say;
use crate::simulate::{Plan, Program, run as simulate};

/// How often a terminal shows how many have begun.
const WATCHED_EVERY: Duration = Duration::from_millis(500);

/// Runs one drawn job after the other, on each processor, and stops at the first that breaks something.
pub(super) fn run(first: u64, count: u64) -> anyhow::Result<ExitCode> {
    if count == 1 {
        say(&format!("copper: {:?}", Plan::drawn(first)));
    }
    let program = Program::small();
    let next = AtomicU64::new(0);
    let broken = Mutex::new(BTreeMap::new());
    let work = || {
        while broken.lock().expect("no panic while it is held").is_empty() {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= count {
                return;
            }
            let seed = first.wrapping_add(index);
            // An assertion of the protocol names no seed.
            let run = || simulate(&Plan::drawn(seed), &program, &mut |_| ());
            let why = match catch_unwind(AssertUnwindSafe(run)) {
                Ok(Ok(_)) => continue,
                Ok(Err(broken)) => broken.to_string(),
                Err(_) => "it has panicked, see above".to_owned(),
            };
            broken.lock().expect("no panic while it is held").insert(seed, why);
        }
    };
    let watch = || {
        let mut line = Line::new();
        while line.is_watched()
            && next.load(Ordering::Relaxed) < count
            && broken.lock().expect("no panic while it is held").is_empty()
        {
            std::thread::sleep(WATCHED_EVERY);
            line.show(&format!(
                "copper: {} of {count} jobs",
                next.load(Ordering::Relaxed).min(count)
            ));
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(watch);
        (0..std::thread::available_parallelism().map_or(1, usize::from)).for_each(|_| {
            scope.spawn(work);
        });
    });
    match broken.into_inner().expect("no panic while it is held").pop_first() {
        None => {
            let last = first.wrapping_add(count - 1);
            say(&format!("copper: {count} jobs, no invariant broken; the last seed was {last}"));
            Ok(ExitCode::SUCCESS)
        }
        Some((seed, why)) => {
            bail!("seed {seed}: {why}; replay it with: copper simulate --seeds 1 --seed {seed}")
        }
    }
}
