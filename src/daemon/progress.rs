//! Tells the launcher how far the job has come: rank 0 does, which counts all ranks.

use std::sync::Arc;
use std::thread::{Builder, sleep};
use std::time::Duration;

use copper_launcher::{Progress, ProgressReport, ReadyPipe};

use super::report::Reporter;

/// Between two reports.
const PAUSE: Duration = Duration::from_millis(100);

/// Starts to tell whatever changes, from a thread of its own, until all ranks are ready or the launch
/// is complete without them.
pub(super) fn tell(launcher: ReadyPipe, reporter: Arc<Reporter>) -> std::io::Result<()> {
    let tell = move || {
        let mut told = Progress::default();
        while !launcher.is_settled() {
            if let Some((progress, depth)) = reporter.progress()
                && progress != told
            {
                let report = ProgressReport {
                    ready: progress.ready,
                    size: progress.size,
                    depth,
                    missing: progress.missing.iter().map(|rank| rank.0).collect(),
                };
                if !launcher.progress(report) || progress.is_whole() {
                    return;
                }
                told = progress;
            }
            sleep(PAUSE);
        }
    };
    Builder::new().name("progress".to_owned()).spawn(tell).map(drop)
}
