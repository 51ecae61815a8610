//! Descriptors that a parent process leaves to its child, taken over without `unsafe`.
//!
//! A descriptor's number alone proves nothing, so Rust calls it unsafe to own one by number. The
//! three standard streams are different: they are there from the start, belong to nobody, and can be
//! duplicated safely. So a launcher hands down what a child needs in place of its standard input
//! and output, as inetd did.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

/// A standard stream that was put to another use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stream {
    Input,
    Output,
}

impl Stream {
    /// 0 or 1.
    pub(crate) fn from_number(number: u32) -> Option<Stream> {
        match number {
            0 => Some(Stream::Input),
            1 => Some(Stream::Output),
            _ => None,
        }
    }

    /// Takes the descriptor, and leaves /dev/null in place of the input, standard error in place of
    /// the output: what is printed later goes to the log and not to the launcher.
    pub(crate) fn take(self) -> io::Result<OwnedFd> {
        match self {
            Stream::Input => {
                let taken = io::stdin().as_fd().try_clone_to_owned()?;
                rustix::stdio::dup2_stdin(OpenOptions::new().read(true).open("/dev/null")?)?;
                Ok(taken)
            }
            Stream::Output => {
                let taken = io::stdout().as_fd().try_clone_to_owned()?;
                rustix::stdio::dup2_stdout(io::stderr().as_fd())?;
                Ok(taken)
            }
        }
    }
}
