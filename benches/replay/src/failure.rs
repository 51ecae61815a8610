//! Why a command of this program ended without doing what it was asked to.

use std::path::PathBuf;
use std::process::ExitStatus;

use rustix::io::Errno;

use crate::strace::NotUnderstood;
use crate::trace::Damage;

/// What failed, on what, and what to do.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("{0} (--help says how it is called)")]
    Usage(String),
    #[error("{}: {cause}", path.display())]
    File { path: PathBuf, cause: std::io::Error },
    #[error("{}:{cause}", path.display())]
    Damaged { path: PathBuf, cause: Damage },
    #[error("{} is no folder", .0.display())]
    NoFolder(PathBuf),
    #[error("strace does not start: {0}; it is Debian's package strace")]
    NoStrace(std::io::Error),
    #[error("strace failed with {0}; nothing was recorded")]
    Strace(ExitStatus),
    #[error("what strace writes cannot be read: {0}")]
    Pipe(std::io::Error),
    #[error("{0}")]
    Line(#[from] NotUnderstood),
    #[error("the command called nothing below {0}; nothing was recorded")]
    Nothing(String),
    #[error("cannot {what}: {cause}")]
    Call { what: &'static str, cause: Errno },
    #[error("process {number} {what}")]
    Process { number: usize, what: String },
    #[error("standard output: {0}")]
    Output(std::io::Error),
}

impl Failure {
    /// 2 for what was called wrongly, 1 for what went wrong.
    pub(crate) fn code(&self) -> u8 {
        match self {
            Self::Usage(_) => 2,
            Self::File { .. }
            | Self::Damaged { .. }
            | Self::NoFolder(_)
            | Self::NoStrace(_)
            | Self::Strace(_)
            | Self::Pipe(_)
            | Self::Line(_)
            | Self::Nothing(_)
            | Self::Call { .. }
            | Self::Process { .. }
            | Self::Output(_) => 1,
        }
    }
}
