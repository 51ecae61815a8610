//! Whether files that are opened are handed to the kernel (`FOPEN_PASSTHROUGH`), so that reads and
//! mappings of them never come here: what it takes, and what it may cost. `backings` does it.

use std::fmt;
use std::os::unix::fs::MetadataExt;

use copper_proto::limits::WHOLE_FILE_BYTES;
use fuser::InitFlags;
use rustix::thread::{CapabilitySet, capabilities};

/// The largest file that is handed over, in bytes: what a node fetches whole at the first touch
/// anyway.
pub const PASSED_BYTES_MAX: u64 = WHOLE_FILE_BYTES;

/// The number of the first user namespace, as Linux fixes it (`PROC_USER_INIT_INO` in
/// include/linux/proc_ns.h).
const FIRST_USER_NAMESPACE: u64 = 0xEFFF_FFFD;

/// The most of the view's memory that is held in place for contents on their way, and the most that
/// idle backing files take, in bytes: some tens of milliseconds of copying, and the libraries of a
/// small program.
const BYTES_MAX: u64 = 64 << 20;

/// What handing over may cost. What would cost more is opened plainly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PassthroughBounds {
    /// Bytes of the view that may be held in place until they are copied.
    pub held_bytes: u64,
    /// Bytes of backing files that nobody has open.
    pub idle_bytes: u64,
    /// Bytes of all backing files.
    pub total_bytes: u64,
}

impl PassthroughBounds {
    /// What suits a view whose cache has this many bytes: as much again for backing files. Of the
    /// cache itself a quarter may be held, so that reads beside it always find room.
    pub fn of(cache_bytes: u64) -> PassthroughBounds {
        PassthroughBounds {
            held_bytes: BYTES_MAX.min(cache_bytes / 4),
            idle_bytes: BYTES_MAX.min(cache_bytes),
            total_bytes: cache_bytes,
        }
    }
}

/// Whether files are handed to the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Passthrough {
    /// Nobody asked for it.
    NotAsked,
    /// They are.
    On,
    /// It was asked for and cannot be.
    Off(Refusal),
}

impl fmt::Display for Passthrough {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Passthrough::NotAsked => formatter.write_str("off"),
            Passthrough::On => formatter.write_str("on"),
            Passthrough::Off(refusal) => write!(formatter, "off: {refusal}"),
        }
    }
}

/// Why files cannot be handed to the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No `FUSE_PASSTHROUGH`.
    #[error("this kernel cannot do it, it takes Linux 6.9 with CONFIG_FUSE_PASSTHROUGH")]
    Kernel,
    /// No effective `CAP_SYS_ADMIN`.
    #[error("the daemon is not root, it takes CAP_SYS_ADMIN")]
    Rights,
    /// `CAP_SYS_ADMIN` of a container's own user namespace.
    #[error("the daemon is root in a user namespace only, it takes CAP_SYS_ADMIN outside")]
    Namespace,
    /// EPERM when the first file was to be handed over.
    #[error("the kernel did not permit it")]
    Denied,
}

/// Whether this thread may hand files over (`fuse_backing_open` in fs/fuse/backing.c demands
/// `CAP_SYS_ADMIN` in the first user namespace).
pub(crate) fn rights() -> Result<(), Refusal> {
    let effective = capabilities(None).map(|sets| sets.effective);
    if !effective.is_ok_and(|effective| effective.contains(CapabilitySet::SYS_ADMIN)) {
        return Err(Refusal::Rights);
    }
    // Without /proc it is tried.
    let namespace = std::fs::metadata("/proc/self/ns/user").map(|metadata| metadata.ino());
    if namespace.is_ok_and(|number| number != FIRST_USER_NAMESPACE) {
        return Err(Refusal::Namespace);
    }
    Ok(())
}

/// What comes of the wish on a kernel with these capabilities.
pub(crate) fn agree(
    bounds: Option<PassthroughBounds>,
    capabilities: InitFlags,
    rights: impl FnOnce() -> Result<(), Refusal>,
) -> Passthrough {
    if bounds.is_none() {
        Passthrough::NotAsked
    } else if !capabilities.contains(InitFlags::FUSE_PASSTHROUGH) {
        Passthrough::Off(Refusal::Kernel)
    } else {
        rights().map_or_else(Passthrough::Off, |()| Passthrough::On)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_on_where_it_is_asked_for_and_can_be_and_off_with_its_reason_elsewhere() {
        let asked = Some(PassthroughBounds::of(1 << 30));
        let (new, old) = (InitFlags::all(), InitFlags::FUSE_DO_READDIRPLUS);
        assert_eq!(agree(None, new, || Ok(())), Passthrough::NotAsked);
        assert_eq!(agree(asked, new, || Ok(())), Passthrough::On);
        assert_eq!(agree(asked, old, || Ok(())), Passthrough::Off(Refusal::Kernel));
        let off = agree(asked, new, || Err(Refusal::Rights));
        assert_eq!(off, Passthrough::Off(Refusal::Rights));
        assert_eq!(off.to_string(), "off: the daemon is not root, it takes CAP_SYS_ADMIN");
    }

    #[test]
    fn a_small_cache_is_never_held_whole() {
        let bounds = PassthroughBounds::of(16 << 20);
        assert_eq!((bounds.held_bytes, bounds.idle_bytes), (4 << 20, 16 << 20));
        assert_eq!(PassthroughBounds::of(1 << 40).held_bytes, BYTES_MAX);
    }
}
