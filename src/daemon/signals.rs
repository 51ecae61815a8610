//! SIGTERM, SIGINT and SIGHUP end a rank in order; SIGUSR1 has it write a profile.

use std::io;
use std::sync::mpsc::SyncSender;

use nix::sys::signal::{SigSet, Signal};

use super::End;
use super::profiles::Snapshots;

/// Blocks the signals in this thread, and so in all that it starts, and waits for them in one of
/// its own. To be called before any other thread is started.
pub(super) fn watch(ends: SyncSender<End>, snapshots: Snapshots) -> io::Result<()> {
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGUSR1] {
        signals.add(signal);
    }
    signals.thread_block()?;
    let watch = move || {
        while let Ok(signal) = signals.wait() {
            if signal == Signal::SIGUSR1 {
                snapshots.ask();
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
