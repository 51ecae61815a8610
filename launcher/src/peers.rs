//! Where every rank listens: the list of hosts, in order of rank.

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};

use copper_proto::Rank;

/// 10,624 nodes of Aurora at 64 bytes a name are 0.7 MB.
const HOSTS_FILE_BYTES_MAX: u64 = 16 << 20;

/// The addresses of all ranks; rank *r* is entry *r*. Names are looked up when they are needed, so
/// that a rank asks for its few ancestors and not for everybody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peers {
    addresses: Vec<Address>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Address {
    host: String,
    port: u16,
}

impl Peers {
    /// Takes `host:port,host:port,…`. An IPv6 address stands in brackets.
    ///
    /// # Errors
    /// Which entry is wrong, or stands there twice.
    pub fn parse(list: &str) -> Result<Peers, PeersError> {
        let entry = |entry: &str| {
            let entry = entry.trim();
            Address::parse(entry).ok_or_else(|| PeersError::Entry { entry: entry.to_owned() })
        };
        let addresses = list.split(',').map(entry).collect::<Result<Vec<_>, _>>()?;
        Peers::distinct(addresses, "--peers")
    }

    /// Reads one host a line; everybody listens on `port`. Empty lines and what follows a `#` do
    /// not count.
    ///
    /// # Errors
    /// If the file cannot be read or has no host, and which host is wrong or stands there twice.
    pub fn from_hosts_file(path: &Path, port: u16) -> Result<Peers, PeersError> {
        let address = |host| Address { host, port };
        let addresses = hosts_of_file(path)?.into_iter().map(address).collect();
        Peers::distinct(addresses, &path.display().to_string())
    }

    /// From names that were looked at before; everybody listens on `port`.
    pub fn from_hosts(hosts: &[String], port: u16) -> Peers {
        let address = |host: &String| Address { host: host.clone(), port };
        Peers { addresses: hosts.iter().map(address).collect() }
    }

    /// From addresses that are known to be right.
    pub fn from_addresses(addresses: impl IntoIterator<Item = SocketAddr>) -> Peers {
        let address = |it: SocketAddr| Address { host: it.ip().to_string(), port: it.port() };
        Peers { addresses: addresses.into_iter().map(address).collect() }
    }

    fn distinct(addresses: Vec<Address>, place: &str) -> Result<Peers, PeersError> {
        distinct(&addresses, place)?;
        Ok(Peers { addresses })
    }

    /// Number of ranks.
    pub fn len(&self) -> usize {
        self.addresses.len()
    }

    /// Never: a list has at least one rank, unless it was made from no addresses.
    pub fn is_empty(&self) -> bool {
        self.addresses.is_empty()
    }

    /// The host of a rank, as it was given.
    pub fn host(&self, rank: Rank) -> Option<&str> {
        self.addresses.get(rank.0 as usize).map(|address| address.host.as_str())
    }

    /// Looks a rank's host up.
    ///
    /// # Errors
    /// If there is no such rank or no such host.
    pub fn resolve(&self, rank: Rank) -> Result<SocketAddr, PeersError> {
        let address = self
            .addresses
            .get(rank.0 as usize)
            .ok_or(PeersError::NoRank { rank, size: self.len() })?;
        let unknown = |source| PeersError::Unknown { rank, host: address.host.clone(), source };
        let mut found = (address.host.as_str(), address.port).to_socket_addrs().map_err(unknown)?;
        found.next().ok_or_else(|| unknown(io::ErrorKind::NotFound.into()))
    }
}

/// That no entry stands twice in the list that `place` names.
pub(crate) fn distinct<T: Eq + Hash + fmt::Display>(
    entries: &[T],
    place: &str,
) -> Result<(), PeersError> {
    let mut ranks = HashMap::new();
    for (second, entry) in entries.iter().enumerate() {
        if let Some(first) = ranks.insert(entry, second) {
            let (entry, place) = (entry.to_string(), place.to_owned());
            return Err(PeersError::Twice { entry, first, second, place });
        }
    }
    Ok(())
}

/// One host a line, at least one. Empty lines and what follows a `#` do not count.
pub(crate) fn hosts_of_file(path: &Path) -> Result<Vec<String>, PeersError> {
    use std::io::Read;
    let failed = |source| PeersError::HostsFile { path: path.to_owned(), source };
    let file = std::fs::File::open(path).map_err(failed)?;
    let mut text = String::new();
    file.take(HOSTS_FILE_BYTES_MAX).read_to_string(&mut text).map_err(failed)?;
    let mut hosts = Vec::new();
    for line in text.lines() {
        let host = line.split('#').next().unwrap_or_default().trim();
        if host.is_empty() {
            continue;
        }
        // It becomes a word of other programs' command lines.
        let valid = !host.starts_with('-')
            && !host
                .contains(|c: char| c.is_whitespace() || c.is_control() || ",/'\"\\$`".contains(c));
        if !valid {
            return Err(PeersError::Entry { entry: host.to_owned() });
        }
        hosts.push(host.trim_start_matches('[').trim_end_matches(']').to_owned());
    }
    if hosts.is_empty() { Err(PeersError::NoHost { path: path.to_owned() }) } else { Ok(hosts) }
}

impl Address {
    fn parse(entry: &str) -> Option<Address> {
        let (host, port) = entry.rsplit_once(':')?;
        let port = port.parse().ok().filter(|&port: &u16| port != 0)?;
        let host = match host.strip_prefix('[') {
            Some(rest) => rest.strip_suffix(']')?,
            None if host.contains(':') => return None,
            None => host,
        };
        let valid = !host.is_empty() && !host.contains(|c: char| c.is_whitespace() || c == '/');
        valid.then(|| Address { host: host.to_owned(), port })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(formatter, "[{}]:{}", self.host, self.port)
        } else {
            write!(formatter, "{}:{}", self.host, self.port)
        }
    }
}

impl fmt::Display for Peers {
    /// In the form that [`Peers::parse`] takes.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (rank, address) in self.addresses.iter().enumerate() {
            let comma = if rank > 0 { "," } else { "" };
            write!(formatter, "{comma}{address}")?;
        }
        Ok(())
    }
}

/// What is wrong with a list of hosts.
#[derive(Debug, thiserror::Error)]
pub enum PeersError {
    /// Not an address.
    #[error(
        "{entry:?} is not an address: a rank's address is a host, a colon and a port from 1 to 65535, as 10.0.0.1:7001; a line of a hosts file is a host"
    )]
    Entry {
        /// What stands there.
        entry: String,
    },
    /// The same rank twice.
    #[error(
        "{entry} stands twice in {place}, for ranks {first} and {second}: there is one rank on each"
    )]
    Twice {
        /// The address.
        entry: String,
        /// Where it stands first.
        first: usize,
        /// Where it stands again.
        second: usize,
        /// Which list.
        place: String,
    },
    /// The file cannot be read.
    #[error("cannot read the list of hosts {}", path.display())]
    HostsFile {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is empty.
    #[error("the list of hosts {} names no host: it has one host a line", path.display())]
    NoHost {
        /// The file.
        path: PathBuf,
    },
    /// Too few hosts.
    #[error("there is no address for rank {rank} among {size}")]
    NoRank {
        /// The rank.
        rank: Rank,
        /// Number of addresses.
        size: usize,
    },
    /// No such host.
    #[error("the host {host:?} of rank {rank} is not known here")]
    Unknown {
        /// The rank.
        rank: Rank,
        /// The host.
        host: String,
        /// What the name service says.
        source: io::Error,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_comes_back_as_it_was_given() {
        let list = "127.0.0.1:7001,[::1]:7002,node-3:7003";
        let peers = Peers::parse(list).expect("valid");
        assert_eq!(peers.to_string(), list);
        assert_eq!(peers.host(Rank(2)), Some("node-3"));
        let address = peers.resolve(Rank(1)).expect("an address needs no name service");
        assert_eq!(address.to_string(), "[::1]:7002");
        assert!(matches!(peers.resolve(Rank(3)), Err(PeersError::NoRank { .. })));
    }

    #[test]
    fn a_wrong_entry_is_named() {
        for entry in ["", "a", "a:", ":1", "a:0", "a:70000", "::1:7", "[::1:7", "a b:1", "a/b:1"] {
            let error = Peers::parse(&format!("127.0.0.1:7001,{entry}")).expect_err(entry);
            assert!(error.to_string().contains(&format!("{entry:?}")), "{error}");
        }
        let error = Peers::parse("a:1,b:1,a:1").expect_err("twice").to_string();
        assert!(error.contains("a:1") && error.contains("ranks 0 and 2"), "{error}");
    }
}
