//! SIGTERM, SIGINT and SIGHUP end a rank in order.

use std::io;
use std::sync::mpsc::SyncSender;

use nix::sys::signal::{SigSet, Signal};

use super::End;

/// Blocks the signals in this thread, and so in all that it starts, and waits for them in one of
/// its own. To be called before any other thread is started.
pub(super) fn watch(ends: SyncSender<End>) -> io::Result<()> {
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        signals.add(signal);
    }
    signals.thread_block()?;
    let watch = move || {
        while let Ok(signal) = signals.wait() {
            tracing::info!(%signal, "signalled");
            if ends.try_send(End::Signal).is_err() {
                return;
            }
        }
    };
    std::thread::Builder::new().name("signals".to_owned()).spawn(watch)?;
    Ok(())
}
