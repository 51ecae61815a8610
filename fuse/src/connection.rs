//! The kernel's side of a FUSE connection, in the `fusectl` file system: how many requests wait,
//! and the way to end a connection whose mount cannot be unmounted.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::mount_table::DeviceId;

/// Where systemd mounts `fusectl`.
pub const CONNECTIONS: &str = "/sys/fs/fuse/connections";

/// One connection: every FUSE mount has one, and it belongs to the user who mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    directory: PathBuf,
}

impl Connection {
    /// The connection of a mount; `connections` is where `fusectl` is mounted ([`CONNECTIONS`]).
    pub fn of(device: DeviceId, connections: &Path) -> Connection {
        Connection { directory: connections.join(device.minor.to_string()) }
    }

    /// Requests that the kernel waits for.
    ///
    /// # Errors
    /// If `fusectl` is not mounted, or the connection is another user's or gone.
    pub fn waiting(&self) -> io::Result<u64> {
        let text = fs::read_to_string(self.directory.join("waiting"))?;
        text.trim().parse().map_err(|_| io::Error::from(io::ErrorKind::InvalidData))
    }

    /// Ends the connection: every request fails now and from now on, whoever waits goes on.
    ///
    /// # Errors
    /// If `fusectl` is not mounted, or the connection is another user's or gone.
    pub fn abort(&self) -> io::Result<()> {
        fs::write(self.directory.join("abort"), b"1")
    }
}
