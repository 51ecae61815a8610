//! What an ioctl on a file of the mount asks of the daemon.

use std::fmt;

use copper_proto::{Errno, Ticket};

/// Does what ioctls ask for. Called from the threads that answer the kernel: it must not block.
pub trait Controls: fmt::Debug + Send + Sync + 'static {
    /// Whether this is one of its codes; any other is answered `ENOTTY`.
    fn knows(&self, code: u32) -> bool;

    /// Has it done by another thread, which answers the ticket with [`Answer::Done`](copper_engine::Answer::Done) then.
    ///
    /// # Errors
    /// If there is too much to do already: nothing is done.
    fn ask(&self, code: u32, ticket: Ticket) -> Result<(), Errno>;
}
