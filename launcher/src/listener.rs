//! Where a rank listens for its children: a port of its own choice, or one that the launcher bound.

use std::io;
use std::net::{SocketAddr, TcpListener};

use crate::inherited::Stream;

/// The number under which a local launcher leaves the listening socket to a rank: standard input.
pub const LISTEN_FD: u32 = 0;

/// Binds a port.
///
/// # Errors
/// Why it cannot be had, and what to do.
pub fn listen(address: SocketAddr) -> Result<TcpListener, ListenError> {
    TcpListener::bind(address).map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => ListenError::Taken { address },
        io::ErrorKind::AddrNotAvailable => ListenError::NotHere { address },
        io::ErrorKind::PermissionDenied => ListenError::Privileged { address },
        _ => ListenError::Listen { address, source },
    })
}

/// Takes over the listening socket that the launcher left as descriptor `number`. To be called once,
/// before anything reads standard input.
///
/// # Errors
/// If there is none.
pub fn inherited_listener(number: u32) -> Result<TcpListener, ListenError> {
    let stream = Stream::from_number(number).ok_or(ListenError::Number { number })?;
    let is_listening = |fd: &std::os::fd::OwnedFd| rustix::net::sockopt::socket_acceptconn(fd);
    let fd = stream.take().map_err(|source| ListenError::Inherited { number, source })?;
    match is_listening(&fd) {
        Ok(true) => Ok(TcpListener::from(fd)),
        Ok(false) | Err(_) => Err(ListenError::NotASocket { number }),
    }
}

/// Why a rank cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Somebody else has it.
    #[error(
        "cannot listen on {address}: the port is taken; another copper or another program uses it \
         (`ss -ltnp` shows which), choose another port"
    )]
    Taken {
        /// Where.
        address: SocketAddr,
    },
    /// Another machine's address.
    #[error(
        "cannot listen on {address}: this machine does not have that address; `ip address` shows \
         which it has"
    )]
    NotHere {
        /// Where.
        address: SocketAddr,
    },
    /// A port below 1024.
    #[error("cannot listen on {address}: permission denied; choose a port from 1024 on")]
    Privileged {
        /// Where.
        address: SocketAddr,
    },
    /// Something else.
    #[error("cannot listen on {address}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// Only the standard streams can be handed down.
    #[error("descriptor {number} cannot be taken over: 0 and 1 can")]
    Number {
        /// Which.
        number: u32,
    },
    /// Taking it over failed.
    #[error("cannot take over descriptor {number} from the launcher")]
    Inherited {
        /// Which.
        number: u32,
        /// Why.
        source: io::Error,
    },
    /// It is something else.
    #[error("descriptor {number} is not a listening socket: it is to be left by the launcher")]
    NotASocket {
        /// Which.
        number: u32,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_is_called_taken() {
        let first = listen(SocketAddr::from(([127, 0, 0, 1], 0))).expect("any port");
        let address = first.local_addr().expect("bound");
        let error = listen(address).expect_err("it is taken").to_string();
        let expected = format!("cannot listen on {address}: the port is taken;");
        assert!(error.starts_with(&expected), "{error}");
    }

    #[test]
    fn an_address_of_another_machine_is_called_so() {
        // 192.0.2.0/24 is for documentation (RFC 5737): nobody has it.
        let error = listen(SocketAddr::from(([192, 0, 2, 1], 7001))).expect_err("not ours");
        assert!(matches!(error, ListenError::NotHere { .. }), "{error}");
    }
}
