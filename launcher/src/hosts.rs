//! The hosts of a job, in order of rank: from a file, PBS or Slurm.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::io;
use std::net::{IpAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;

use copper_proto::Rank;

use crate::peers::{PeersError, distinct, hosts_of_file};

/// What launchers tell a process of its rank, in order of trust: those of one launcher never name
/// another's.
pub const RANK_VARIABLES: [&str; 5] =
    ["PALS_RANKID", "PMIX_RANK", "PMI_RANK", "OMPI_COMM_WORLD_RANK", "SLURM_PROCID"];

/// Names of hosts; rank *r* is entry *r*.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hosts(Vec<String>);

impl Hosts {
    /// One host a line; see [`crate::Peers::from_hosts_file`] for the form.
    ///
    /// # Errors
    /// If the file cannot be read or names no host, and which host stands there twice.
    pub fn from_file(path: &Path) -> Result<Hosts, HostsError> {
        let hosts = hosts_of_file(path)?;
        distinct(&hosts, &path.display().to_string())?;
        Ok(Hosts(hosts))
    }

    /// PBS's file of nodes, which names a node as often as it has processes.
    ///
    /// # Errors
    /// If the file cannot be read or names no host.
    pub fn from_pbs(path: &Path) -> Result<Hosts, HostsError> {
        let mut seen = HashSet::new();
        let hosts = hosts_of_file(path)?;
        Ok(Hosts(hosts.into_iter().filter(|host| seen.insert(host.clone())).collect()))
    }

    /// Slurm's list of nodes, as `node[0-7]`: Slurm itself knows best what that means.
    ///
    /// # Errors
    /// If Slurm does not say.
    pub fn from_slurm(list: &OsStr) -> Result<Hosts, HostsError> {
        let scontrol = |source| HostsError::Scontrol { source };
        let output = Command::new("scontrol").args(["show", "hostnames"]).arg(list).output();
        let output = output.map_err(scontrol)?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            return Err(scontrol(io::Error::other(said.trim().to_owned())));
        }
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let hosts: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
        if hosts.is_empty() {
            return Err(scontrol(io::Error::other("it names no host")));
        }
        Ok(Hosts(hosts))
    }

    /// From names that were looked at before.
    pub fn from_names(names: Vec<String>) -> Hosts {
        Hosts(names)
    }

    /// The names.
    pub fn names(&self) -> &[String] {
        &self.0
    }

    /// Number of hosts, at least one.
    #[expect(clippy::len_without_is_empty, reason = "a job has a host")]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The rank of the machine that this runs on and that calls itself `own`: the one entry that
    /// means it; where none or several do, what the launcher says.
    ///
    /// # Errors
    /// If nobody knows.
    pub fn own_rank(&self, own: &str, told: Option<u32>) -> Result<Rank, HostsError> {
        let is_own = |entry: &str| match entry.parse::<IpAddr>() {
            Ok(address) => is_local(address),
            Err(_) => short(entry).eq_ignore_ascii_case(short(own)),
        };
        let mut meant = self.0.iter().enumerate().filter(|(_, entry)| is_own(entry));
        let (first, second) = (meant.next(), meant.next());
        let size = self.0.len();
        match (first, second, told) {
            (Some((index, _)), None, _) => Ok(Rank(u32::try_from(index).unwrap_or(u32::MAX))),
            (_, _, Some(told)) if (told as usize) < size => Ok(Rank(told)),
            (_, _, Some(told)) => Err(HostsError::RankTooLarge { own: own.to_owned(), told, size }),
            (Some(_), Some(_), None) => Err(HostsError::Ambiguous { own: own.to_owned() }),
            (None, _, None) => Err(HostsError::Unknown { own: own.to_owned(), size }),
        }
    }
}

/// The rank that this process' launcher has given it.
pub fn told_rank(variable: impl Fn(&str) -> Option<String>) -> Option<u32> {
    RANK_VARIABLES.iter().find_map(|name| variable(name)?.trim().parse().ok())
}

/// The first part of a host's name.
fn short(name: &str) -> &str {
    name.split('.').next().unwrap_or(name)
}

/// Whether an address is one of this machine's: only those can be bound.
fn is_local(address: IpAddr) -> bool {
    TcpListener::bind((address, 0)).is_ok()
}

/// Why the hosts of a job are not known, or the place of one of them.
#[derive(Debug, thiserror::Error)]
pub enum HostsError {
    /// A list that cannot be used.
    #[error(transparent)]
    List(#[from] PeersError),
    /// Slurm does not say.
    #[error(
        "cannot learn the job's hosts by `scontrol show hostnames $SLURM_JOB_NODELIST`; give --hosts FILE"
    )]
    Scontrol {
        /// Why.
        source: io::Error,
    },
    /// Not in the list.
    #[error(
        "host {own} is none of the {size} hosts of the list, and its launcher has given it no rank: \
         write it into the list under the name that `hostname` prints"
    )]
    Unknown {
        /// The host.
        own: String,
        /// Number of hosts.
        size: usize,
    },
    /// Several times in the list.
    #[error("host {own} is meant by several lines of the list of hosts: there is one rank on each")]
    Ambiguous {
        /// The host.
        own: String,
    },
    /// More processes than hosts.
    #[error(
        "the launcher has made host {own} rank {told}, but the list has {size} hosts: start one \
         process on each host, and on no others"
    )]
    RankTooLarge {
        /// The host.
        own: String,
        /// Its rank.
        told: u32,
        /// Number of hosts.
        size: usize,
    },
    /// There is no list.
    #[error(
        "on which hosts? Start it within a PBS or Slurm job, or give --hosts FILE with one host a \
         line, or --local N for N ranks on this machine"
    )]
    NoList,
    /// The list is empty or gone.
    #[error("{variable} names {}, which cannot be used", path.display())]
    Variable {
        /// The environment variable.
        variable: &'static str,
        /// What it names.
        path: PathBuf,
        /// Why.
        source: Box<HostsError>,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(names: &[&str]) -> Hosts {
        Hosts::from_names(names.iter().map(|&name| name.to_owned()).collect())
    }

    #[test]
    fn a_host_finds_itself_by_its_short_name_before_it_believes_the_launcher() {
        let list = hosts(&["x1.site.gov", "x2.site.gov", "X3.site.gov"]);
        assert_eq!(list.own_rank("x2", Some(0)).expect("there"), Rank(1));
        assert_eq!(list.own_rank("x3.other", None).expect("there"), Rank(2));
        assert_eq!(list.own_rank("elsewhere", Some(2)).expect("told"), Rank(2));
        assert!(matches!(list.own_rank("x9", None), Err(HostsError::Unknown { .. })));
        assert!(matches!(list.own_rank("x9", Some(3)), Err(HostsError::RankTooLarge { .. })));
    }

    #[test]
    fn an_address_means_the_machine_that_has_it() {
        let list = hosts(&["192.0.2.7", "127.0.0.1"]);
        assert_eq!(list.own_rank("whatever", None).expect("loopback is here"), Rank(1));
        let twice = hosts(&["127.0.0.1", "127.0.0.2"]);
        assert!(matches!(twice.own_rank("whatever", None), Err(HostsError::Ambiguous { .. })));
        assert_eq!(twice.own_rank("whatever", Some(1)).expect("told"), Rank(1));
    }

    #[test]
    fn a_file_of_a_user_names_each_host_once_and_one_of_pbs_once_for_each_process() {
        let path = std::env::temp_dir().join(format!("copper-hosts-{}", std::process::id()));
        std::fs::write(&path, "a\na\n\n b # the second\n").expect("a file");
        let twice = Hosts::from_file(&path).expect_err("a stands there twice").to_string();
        assert!(twice.contains("a stands twice"), "{twice}");
        assert_eq!(Hosts::from_pbs(&path).expect("a list"), hosts(&["a", "b"]));
        std::fs::remove_file(&path).expect("it was written");
    }

    #[test]
    fn the_launcher_names_the_rank() {
        let with = |name: &'static str, value: &'static str| {
            told_rank(move |asked| (asked == name).then(|| value.to_owned()))
        };
        assert_eq!(with("PMI_RANK", "3"), Some(3));
        assert_eq!(with("SLURM_PROCID", " 7\n"), Some(7));
        assert_eq!(with("PMI_RANK", "x"), None);
        assert_eq!(with("HOME", "1"), None);
    }
}
