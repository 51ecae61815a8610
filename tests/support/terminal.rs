//! A real terminal: tmux is one, whose screen can be read.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use super::{Scratch, eventually, run};

const BOUND: Duration = Duration::from_secs(30);

/// A shell in a terminal of 80 columns and 24 rows, behind a server of its own.
pub(crate) struct Terminal {
    socket: PathBuf,
}

impl Terminal {
    pub(crate) fn open(scratch: &Scratch) -> Terminal {
        let terminal = Terminal { socket: scratch.path().join("tmux") };
        let mut new = terminal.tmux(&["new-session", "-d", "-x", "80", "-y", "24", "sh"]);
        new.env("COPPER_RUN_DIR", scratch.path().join("run"));
        let ended = run(&mut new, BOUND);
        assert!(ended.status.success(), "is tmux installed? {}", ended.stderr());
        terminal.until("a prompt", |screen| !screen.trim().is_empty());
        terminal
    }

    pub(crate) fn tmux(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("tmux");
        command.args(["-f", "/dev/null", "-S"]).arg(&self.socket).args(arguments);
        command
    }

    pub(crate) fn act(&self, arguments: &[&str]) {
        run(&mut self.tmux(arguments), BOUND).success();
    }

    /// Types a line.
    pub(crate) fn say(&self, line: &str) {
        self.act(&["send-keys", "-l", line]);
        self.act(&["send-keys", "Enter"]);
    }

    pub(crate) fn press(&self, key: &str) {
        self.act(&["send-keys", key]);
    }

    pub(crate) fn screen(&self) -> String {
        run(&mut self.tmux(&["capture-pane", "-p"]), BOUND).success()
    }

    /// Waits for a screen, and returns it.
    #[track_caller]
    pub(crate) fn until(&self, what: &str, is_there: impl Fn(&str) -> bool) -> String {
        let mut last = String::new();
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            eventually(BOUND, what, || {
                last = self.screen();
                is_there(&last).then_some(())
            });
        }));
        assert!(outcome.is_ok(), "{what} is not on the screen:\n{last}");
        last
    }

    /// The process id of the shell.
    pub(crate) fn shell(&self) -> u32 {
        let shell = run(&mut self.tmux(&["display-message", "-p", "#{pane_pid}"]), BOUND).success();
        shell.trim().parse().expect("a number")
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // Not there if it could not be started.
        let _ = self.tmux(&["kill-server"]).output();
    }
}
