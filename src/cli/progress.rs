//! How far something has come that takes more than two seconds, on standard error: on a line of a terminal
//! that is written over and taken away in the end, elsewhere on one line for each stage.

use std::io::{IsTerminal, Write, stderr};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use super::say;

/// What is over by then needs no word.
const PATIENCE: Duration = Duration::from_secs(2);

/// How often a stage's line is written over.
const REDRAWN_EVERY: Duration = Duration::from_millis(500);

/// A line of a terminal; nothing where there is none.
#[derive(Debug)]
pub(super) struct Line {
    at_terminal: bool,
    shown: bool,
}

impl Line {
    pub(super) fn new() -> Line {
        Line { at_terminal: stderr().is_terminal(), shown: false }
    }

    pub(super) fn is_watched(&self) -> bool {
        self.at_terminal
    }

    /// Writes over what it had; false where nobody looks.
    pub(super) fn show(&mut self, text: &str) -> bool {
        if self.at_terminal {
            // Whoever has closed the terminal does not look.
            let _ = write!(stderr(), "\r\x1b[K{text}");
            self.shown = true;
        }
        self.at_terminal
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if self.shown {
            let _ = write!(stderr(), "\r\x1b[K");
        }
    }
}

/// Something is being done for as long as this is held.
#[derive(Debug)]
pub(super) struct Stage {
    /// The thread tells of it until this is dropped.
    lasts: Option<Sender<()>>,
    teller: Option<JoinHandle<()>>,
}

impl Stage {
    pub(super) fn begin(what: impl Into<String>) -> Stage {
        let (lasts, ended) = channel::<()>();
        let (what, began) = (what.into(), Instant::now());
        let tell = move || {
            let lasts_on = |pause| ended.recv_timeout(pause) == Err(RecvTimeoutError::Timeout);
            if !lasts_on(PATIENCE) {
                return;
            }
            let mut line = Line::new();
            if !line.is_watched() {
                return say(&format!("copper: {what}"));
            }
            loop {
                line.show(&format!("copper: {what}, {} s", began.elapsed().as_secs()));
                if !lasts_on(REDRAWN_EVERY) {
                    return;
                }
            }
        };
        // Without a thread nothing is told, and the thing is done all the same.
        let teller = Builder::new().name("progress".to_owned()).spawn(tell).ok();
        Stage { lasts: Some(lasts), teller }
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        drop(self.lasts.take());
        if let Some(teller) = self.teller.take() {
            // It has only written; what comes next must not come between.
            let _ = teller.join();
        }
    }
}
