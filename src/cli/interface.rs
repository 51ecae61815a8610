//! Which of this machine's addresses others reach it at.

use std::net::{IpAddr, UdpSocket};

use anyhow::{Context, bail};
use copper_launcher::Peers;
use copper_proto::Rank;
use nix::ifaddrs::getifaddrs;

/// The address of a network interface, IPv4 before IPv6.
pub(super) fn address(name: &str) -> anyhow::Result<IpAddr> {
    let all = getifaddrs().context("cannot list the network interfaces")?;
    let mut names = Vec::new();
    let mut found = Vec::new();
    for interface in all {
        let Some(socket) = interface.address else { continue };
        let v4 = socket.as_sockaddr_in().map(|it| IpAddr::from(it.ip()));
        let v6 = socket.as_sockaddr_in6().map(|it| IpAddr::from(it.ip()));
        if let Some(address) = v4.or(v6) {
            if interface.interface_name == name {
                found.push(address);
            }
            if !names.contains(&interface.interface_name) {
                names.push(interface.interface_name);
            }
        }
    }
    let is_link_local = |it: &IpAddr| matches!(it, IpAddr::V6(v6) if v6.is_unicast_link_local());
    found.retain(|address| !is_link_local(address));
    found.sort_by_key(IpAddr::is_ipv6);
    match found.first() {
        Some(&address) => Ok(address),
        None => bail!(
            "--interface {name}: no such interface with an address; there are {}",
            names.join(" ")
        ),
    }
}

/// The address under which this rank's host is in the list. Many hosts know their own name by an
/// address of their loopback, which is of no use to others: then the one that this host has on the
/// way to another rank. `None`: whatever the fabric takes.
pub(super) fn towards(peers: &Peers, rank: Rank) -> Option<IpAddr> {
    let own = peers.resolve(rank).ok()?.ip();
    if own.is_unspecified() {
        return None;
    }
    let neighbour = if rank.0 == 0 { Rank(1) } else { Rank(0) };
    let other = peers.resolve(neighbour).ok();
    match other {
        // Ranks that only talk on this machine stay on it.
        Some(other) if own.is_loopback() && !other.ip().is_loopback() => {
            // Nothing is sent: connect(2) of a datagram socket asks the routes alone.
            let socket =
                UdpSocket::bind((if other.is_ipv4() { "0.0.0.0" } else { "::" }, 0)).ok()?;
            socket.connect(other).ok()?;
            Some(socket.local_addr().ok()?.ip())
        }
        _ => Some(own),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_has_the_address_that_the_kernel_gave_it() {
        assert_eq!(address("lo").expect("loopback"), IpAddr::from([127, 0, 0, 1]));
        let error = address("nosuch7").expect_err("there is none").to_string();
        assert!(error.contains("there are lo"), "{error}");
    }

    #[test]
    fn ranks_of_one_machine_stay_on_it() {
        let peers = Peers::parse("127.0.0.1:7001,127.0.0.1:7002").expect("a list");
        assert_eq!(towards(&peers, Rank(0)), Some(IpAddr::from([127, 0, 0, 1])));
        let alone = Peers::parse("127.0.0.1:7001").expect("a list");
        assert_eq!(towards(&alone, Rank(0)), Some(IpAddr::from([127, 0, 0, 1])));
    }
}
