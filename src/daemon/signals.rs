//! SIGTERM, SIGINT and SIGHUP end a rank in order; SIGUSR1 has it write a profile, SIGUSR2 what
//! happened last.

use std::io;
use std::sync::mpsc::SyncSender;

use nix::sys::signal::{SigSet, Signal};

use super::End;
use super::flights::Scribe;
use super::profiles::Snapshots;

/// Blocks the signals in this thread, and so in all that it starts, and waits for them in one of
/// its own. To be called before any other thread is started.
pub(super) fn watch(ends: SyncSender<End>, snapshots: Snapshots, scribe: Scribe) -> io::Result<()> {
    let mut signals = SigSet::empty();
    let ending = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP];
    for signal in ending.into_iter().chain([Signal::SIGUSR1, Signal::SIGUSR2]) {
        signals.add(signal);
    }
    signals.thread_block()?;
    let watch = move || {
        while let Ok(signal) = signals.wait() {
            if signal == Signal::SIGUSR1 {
                snapshots.ask();
                continue;
            }
            if signal == Signal::SIGUSR2 {
                scribe.ask();
                continue;
            }
            tracing::info!(%signal, "signalled");
            if ends.try_send(End::Signal).is_err() {
                return;
            }
        }
    };
    std::thread::Builder::new().name("signals".to_owned()).spawn(watch)?;
    Ok(())
}
