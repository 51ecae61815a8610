//! What an agent says to whoever had it started: lines on its standard output, which launchers mix
//! with those of other hosts and with words of their own.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::ready::ProgressReport;

/// What a line of an agent has in it, after whatever the launcher puts before it.
const MARK: &str = "copper-agent: ";

/// The longest line that is looked at.
pub(crate) const LINE_BYTES_MAX: usize = 64 << 10;

/// One line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// Who says it.
    pub host: String,
    /// Its rank, if it knows.
    pub rank: Option<u32>,
    /// What.
    pub said: Said,
}

/// What can be said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Said {
    /// The daemon has been started.
    Started {
        /// Its process.
        pid: u32,
        /// Where it logs.
        log: String,
    },
    /// Its mount answers.
    Ready,
    /// The ranks of the job that are ready, as they are counted up the tree: said by rank 0.
    Counted(ProgressReport),
    /// It will not come up, or could not be stopped.
    Failed {
        /// Why, and what to do.
        reason: String,
    },
    /// The daemons that run here have written down what happened last.
    Recorded {
        /// How many there are.
        alive: usize,
        /// Of those that have, where.
        files: Vec<PathBuf>,
    },
    /// What was running here is not any more.
    Stopped {
        /// Daemons that have been ended.
        alive: usize,
        /// Views of dead daemons that have been removed.
        dead: usize,
    },
}

impl Line {
    /// As it is printed, without the line's end.
    pub fn print(&self) -> String {
        format!("{MARK}{}", serde_json::to_string(self).expect("numbers and text"))
    }

    /// From a line that a launcher has passed on.
    pub fn parse(text: &str) -> Option<Line> {
        let (_, line) = text.split_once(MARK)?;
        serde_json::from_str(line.trim_end()).ok()
    }
}

/// An error with its causes, as one line.
pub fn one_line(error: &(dyn std::error::Error + 'static)) -> String {
    let mut line = String::new();
    let causes = std::iter::successors(Some(error), |error| error.source());
    for text in causes.map(ToString::to_string) {
        // A cause that its error has already quoted is not said twice.
        if !line.contains(&text) {
            if !line.is_empty() {
                line.push_str(": ");
            }
            line.push_str(&text);
        }
    }
    line.replace('\n', " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_found_behind_what_the_launcher_puts_before_it() {
        let said = Said::Failed { reason: "no /dev/fuse\nhere: \"x\"".to_owned() };
        let line = Line { host: "n1".to_owned(), rank: Some(3), said };
        let printed = line.print();
        assert!(!printed.contains('\n'));
        assert_eq!(Line::parse(&printed), Some(line.clone()));
        assert_eq!(Line::parse(&format!("n1: {printed}\r")), Some(line));
        assert_eq!(Line::parse("n1: bash: copper: command not found"), None);
        assert_eq!(Line::parse("copper-agent: {}"), None);
    }
}
