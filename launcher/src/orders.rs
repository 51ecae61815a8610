//! What a host's agent, and its daemon, are told through their standard input, because nobody else
//! is to read it, or because it is too long for a command line: the secret, the hosts.

use std::fs::File;
use std::io::{self, BufRead, Read, Seek, Write};
use std::os::fd::OwnedFd;

use rustix::fs::MemfdFlags;
use serde::{Deserialize, Serialize};

use crate::hosts::Hosts;
use crate::secret::Secret;

/// The most that orders may be: 10,624 hosts of 64 bytes are 0.7 MB.
const ORDERS_BYTES_MAX: u64 = 16 << 20;

/// One line of JSON.
#[derive(Serialize, Deserialize)]
struct Text {
    secret: String,
    hosts: Vec<String>,
}

/// The secret and the hosts.
#[derive(Clone, Debug)]
pub struct Orders {
    /// The job's secret.
    pub secret: Secret,
    /// The hosts, in order of rank.
    pub hosts: Hosts,
}

impl Orders {
    /// Reads them; what comes after their line is left.
    ///
    /// # Errors
    /// If they do not come.
    pub fn read(from: &mut impl BufRead) -> Result<Orders, OrdersError> {
        let mut line = String::new();
        from.take(ORDERS_BYTES_MAX).read_line(&mut line).map_err(OrdersError::Read)?;
        let Text { secret, hosts } =
            serde_json::from_str(&line).map_err(|_| OrdersError::Malformed)?;
        let secret = Secret::from_hex(&secret).ok_or(OrdersError::Malformed)?;
        Ok(Orders { secret, hosts: Hosts::from_names(hosts) })
    }

    /// The line, with its end.
    pub(crate) fn line(&self) -> String {
        let text = Text { secret: self.secret.hex(), hosts: self.hosts.names().to_vec() };
        let mut line = serde_json::to_string(&text).expect("text");
        line.push('\n');
        line
    }

    /// The line as a file without a name, to be somebody's standard input.
    pub(crate) fn file(&self) -> io::Result<OwnedFd> {
        let mut file = File::from(rustix::fs::memfd_create("orders", MemfdFlags::CLOEXEC)?);
        file.write_all(self.line().as_bytes())?;
        file.rewind()?;
        Ok(file.into())
    }
}

/// Why there are no orders.
#[derive(Debug, thiserror::Error)]
pub enum OrdersError {
    /// They cannot be read.
    #[error("cannot read the head's orders")]
    Read(#[source] io::Error),
    /// Something else came, or nothing.
    #[error(
        "the head's orders did not come: it is gone, or the launcher does not hand on standard input"
    )]
    Malformed,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_come_as_they_were_given_and_leave_what_comes_after() {
        let hosts = Hosts::from_names(vec!["a".to_owned(), "b".to_owned()]);
        let orders = Orders { secret: Secret::generate().expect("random bytes"), hosts };
        let text = format!("{}released\n", orders.line());
        let mut from = text.as_bytes();
        let read = Orders::read(&mut from).expect("orders");
        assert_eq!((read.secret.hex(), &read.hosts), (orders.secret.hex(), &orders.hosts));
        assert_eq!(from, b"released\n");
        let file = File::from(orders.file().expect("memory"));
        let read = Orders::read(&mut io::BufReader::new(file)).expect("orders");
        assert_eq!(read.hosts, orders.hosts);
        assert!(Orders::read(&mut &b""[..]).is_err());
        assert!(Orders::read(&mut &b"{\"secret\":\"x\",\"hosts\":[]}\n"[..]).is_err());
    }
}
