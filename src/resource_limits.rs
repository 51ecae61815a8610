//! What a daemon needs of the limits that a process has (getrlimit(2)): open files, and memory that a
//! NIC pins. A soft limit that is too low is raised as far as the hard one allows; more is advice. The
//! limit of core files is left as it is: whether a daemon that dies writes its memory to disk is for
//! the site to say.

use std::fmt;
use std::path::Path;

use copper_ofi::Net;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::daemon::links_max;

/// Open files of a daemon without links: standard streams, queues, FUSE, the register, and what the
/// library and the readers of a directory open for a moment. A rank of a small job has 30 to 40.
const BASE: u64 = 128;

/// Open files of a link: the control channel, and what the fabric has for a peer: two connections and
/// their descriptors under tcp;ofi_rxm, the provider with most.
const PER_LINK: u64 = 6;

/// Files of the source that stay open (`source/open_files.rs`), and one for each of its threads.
const OF_SOURCE: u64 = 128 + 64;

/// Copies of opened files that the kernel was handed; they are bounded by their bytes.
const OF_PASSTHROUGH: u64 = 16_384;

/// What a daemon needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Need {
    pub(crate) open_files: u64,
    /// What the fabric pins: zero for those that do not.
    pub(crate) locked_bytes: u64,
}

/// What decides about it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load<'a> {
    pub(crate) children: usize,
    pub(crate) trees: usize,
    pub(crate) passthrough: bool,
    pub(crate) memory_bytes: u64,
    pub(crate) net: &'a Net,
}

/// A limit that is lower than what is needed and cannot be raised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shortage {
    OpenFiles { has: u64, needs: u64 },
    LockedBytes { has: u64, needs: u64 },
}

impl Need {
    pub(crate) fn of(load: Load<'_>) -> Need {
        let links = links_max(load.children, load.trees) as u64;
        let passed = if load.passthrough { OF_PASSTHROUGH } else { 0 };
        Need {
            open_files: BASE + links * PER_LINK + OF_SOURCE + passed,
            locked_bytes: if pins(load.net) { load.memory_bytes } else { 0 },
        }
    }

    /// Raises what is too low, and says what is still too low.
    pub(crate) fn secure(self) -> Vec<Shortage> {
        raise(Resource::Nofile, self.open_files);
        raise(Resource::Memlock, self.locked_bytes);
        self.shortages(|resource| getrlimit(resource).current)
    }

    /// What stays too low even after everything is raised.
    pub(crate) fn out_of_reach(self) -> Vec<Shortage> {
        self.shortages(|resource| getrlimit(resource).maximum)
    }

    fn shortages(self, limit: impl Fn(Resource) -> Option<u64>) -> Vec<Shortage> {
        let needs = self.open_files;
        let files = limit(Resource::Nofile).filter(|&has| has < needs);
        let files = files.map(|has| Shortage::OpenFiles { has, needs });
        let needs = self.locked_bytes;
        let locked = limit(Resource::Memlock).filter(|&has| has < needs);
        let locked = locked.map(|has| Shortage::LockedBytes { has, needs });
        files.into_iter().chain(locked).collect()
    }
}

impl fmt::Display for Shortage {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Shortage::OpenFiles { has, needs } => write!(
                formatter,
                "{has} files may be open and up to {needs} are needed: `ulimit -n {needs}` before the \
                 launch, or `nofile` in /etc/security/limits.conf"
            ),
            Shortage::LockedBytes { has, needs } => write!(
                formatter,
                "{has} bytes may be locked in memory and the NIC pins {needs}: `ulimit -l unlimited` \
                 before the launch, `memlock` in /etc/security/limits.conf, or a smaller --memory"
            ),
        }
    }
}

/// Whether the network pins the arena, as those do whose NIC reads memory by itself; of one that is
/// not named, whether such a NIC is here.
fn pins(net: &Net) -> bool {
    let provider = std::env::var("FI_PROVIDER").ok();
    match net.provider().or(provider.as_deref()) {
        Some(name) => ["cxi", "verbs", "efa", "psm"].iter().any(|kind| name.starts_with(kind)),
        None => {
            ["cxi", "infiniband"].iter().any(|kind| Path::new("/sys/class").join(kind).is_dir())
        }
    }
}

/// Raises the soft limit to `needs`, or as far as it goes; never lowers it.
fn raise(resource: Resource, needs: u64) {
    let Rlimit { current, maximum } = getrlimit(resource);
    let Some(now) = current.filter(|&now| now < needs) else { return };
    let wanted = maximum.map_or(needs, |maximum| needs.min(maximum));
    if wanted > now && setrlimit(resource, Rlimit { current: Some(wanted), maximum }).is_ok() {
        tracing::debug!(?resource, from = now, to = wanted, "raised a limit");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn need(net: &str, children: usize) -> Need {
        let net = net.parse().expect("a network");
        let load =
            Load { children, trees: 1, passthrough: false, memory_bytes: 1 << 30, net: &net };
        Need::of(load)
    }

    #[test]
    fn only_what_a_nic_reads_by_itself_is_pinned() {
        for (net, locked) in [("cxi0", 1 << 30), ("verbs;ofi_rxm", 1 << 30), ("tcp", 0), ("shm", 0)]
        {
            assert_eq!(need(net, 2).locked_bytes, locked, "{net}");
        }
    }

    #[test]
    fn children_cost_open_files_and_a_shortage_says_what_to_do() {
        let (few, many) = (need("cxi", 2).open_files, need("cxi", 64).open_files);
        assert!(few < many && many < 4096, "{few} {many}");
        let limit = |resource| match resource {
            Resource::Nofile => Some(100),
            _ => None,
        };
        let [shortage] = need("cxi", 2).shortages(limit)[..] else { panic!("one was planted") };
        assert_eq!(shortage, Shortage::OpenFiles { has: 100, needs: few });
        assert!(shortage.to_string().contains(&format!("ulimit -n {few}")));
        let locked = need("cxi", 2).shortages(|resource| match resource {
            Resource::Memlock => Some(64 << 10),
            _ => None,
        });
        let [shortage] = locked[..] else { panic!("one was planted") };
        assert!(shortage.to_string().contains("ulimit -l"), "{shortage}");
        assert_eq!(need("cxi", 2).shortages(|_| None), []);
    }
}
