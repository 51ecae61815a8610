//! What the kernel is asked to do for us: each thing it caches is a request not made. Everything is
//! intersected with what this kernel can do, and each can be left out to find out which one a
//! problem comes from.

use fuser::{FopenFlags, InitFlags, KernelConfig};
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::passthrough::{Passthrough, PassthroughBounds, agree, rights};

/// How long the kernel may keep names and attributes. A refresh tells it what to
/// forget; a year outlives every job, and is far from overflowing the kernel's clock.
pub const LONG: Duration = Duration::from_secs(365 * 24 * 3600);

/// Requests without a waiting process (read-ahead) that the kernel sends at once. Its default of 12
/// would make a page fault's neighbours wait behind each other.
const BACKGROUND_MAX: u16 = 128;

/// The smallest that the kernel accepts: nothing is written.
const WRITE_BYTES_MAX: u32 = 4096;

/// How many file systems may lie on each other with ours at the top, where files are handed to the
/// kernel: one that lies on the memory's own.
const STACK_DEPTH: u32 = 1;

macro_rules! features {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// One thing that the kernel can do for us.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Feature {
            $($(#[$doc])* $variant,)*
        }

        impl Feature {
            /// Every feature.
            pub const ALL: &[Feature] = &[$(Feature::$variant,)*];

            /// The name of the feature on the command line.
            pub fn name(self) -> &'static str {
                match self {
                    $(Feature::$variant => $name,)*
                }
            }
        }
    };
}

features! {
    /// Opening a file is not told to the daemon. Needs [`Feature::KeepCache`], and that no files are
    /// handed to the kernel: that is done when they are opened.
    NoOpen = "no-open",
    /// Opening a directory is not told to the daemon. Needs [`Feature::CacheDirectories`].
    NoOpendir = "no-opendir",
    /// Closing a file is not told to the daemon.
    NoFlush = "no-flush",
    /// A listing brings the attributes of what it lists.
    Readdirplus = "readdirplus",
    /// Link targets are kept.
    CacheLinks = "cache-links",
    /// Pages survive the next opening of their file.
    KeepCache = "keep-cache",
    /// Listings survive the next opening of their directory.
    CacheDirectories = "cache-directories",
    /// Names that do not exist are kept as such.
    Negatives = "negatives",
    /// Names and attributes are kept for [`LONG`] rather than asked for each time.
    LongTimeouts = "long-timeouts",
    /// Look-ups and listings in one directory go on side by side.
    ParallelDirops = "parallel-dirops",
    /// What follows a shared library's header is given to the kernel before it asks. Needs
    /// [`Feature::KeepCache`].
    StoreLibraries = "store-libraries",
    /// Pages are not thrown away when attributes seem to have changed.
    ExplicitInvalidation = "explicit-invalidation",
}

impl fmt::Display for Feature {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

impl FromStr for Feature {
    type Err = UnknownFeature;

    fn from_str(name: &str) -> Result<Feature, UnknownFeature> {
        let found = Feature::ALL.iter().find(|feature| feature.name() == name);
        found.copied().ok_or_else(|| UnknownFeature { name: name.to_owned() })
    }
}

/// A name that no feature has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no kernel feature {name}; there are: {}", names(Feature::ALL))]
pub struct UnknownFeature {
    name: String,
}

fn names(features: &[Feature]) -> String {
    features.iter().map(|feature| feature.name()).collect::<Vec<_>>().join(", ")
}

/// A set of features.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct KernelFeatures {
    bits: u32,
}

impl Default for KernelFeatures {
    fn default() -> KernelFeatures {
        KernelFeatures::all()
    }
}

impl KernelFeatures {
    /// Everything.
    pub fn all() -> KernelFeatures {
        Feature::ALL.iter().fold(KernelFeatures::none(), |set, &feature| set.with(feature))
    }

    /// Nothing: every call comes to the daemon.
    pub fn none() -> KernelFeatures {
        KernelFeatures { bits: 0 }
    }

    /// This set and one more.
    #[must_use]
    pub fn with(self, feature: Feature) -> KernelFeatures {
        KernelFeatures { bits: self.bits | 1 << feature as u32 }
    }

    /// This set but one.
    #[must_use]
    pub fn without(self, feature: Feature) -> KernelFeatures {
        KernelFeatures { bits: self.bits & !(1 << feature as u32) }
    }

    /// Whether the set has it.
    pub fn has(self, feature: Feature) -> bool {
        self.bits & 1 << feature as u32 != 0
    }

    /// The members.
    pub fn list(self) -> Vec<Feature> {
        Feature::ALL.iter().copied().filter(|&feature| self.has(feature)).collect()
    }
}

impl fmt::Debug for KernelFeatures {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_set().entries(self.list()).finish()
    }
}

/// What was agreed with the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Negotiated {
    /// The kernel's version of the FUSE protocol: major, minor.
    pub protocol: (u32, u32),
    /// What was asked for.
    pub asked: KernelFeatures,
    /// What this kernel grants of it.
    pub granted: KernelFeatures,
    /// Whether files are handed to the kernel.
    pub passthrough: Passthrough,
    /// The protocol's names of the flags that are set.
    pub flags: Vec<&'static str>,
    /// The largest read-ahead in bytes; the mount's `read_ahead_kb` may be lower.
    pub max_readahead: u32,
    /// The most requests at once that no process waits for.
    pub max_background: u16,
}

/// What of the agreement each call needs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Policy {
    /// How long names and attributes are kept.
    pub(crate) keep: Duration,
    /// Whether absent names are kept, for as long as the view says.
    pub(crate) negatives: bool,
    /// Whether the kernel is told to stop asking to open files; else the flags of an open file.
    pub(crate) open: Opening,
    /// The same of directories.
    pub(crate) opendir: Opening,
    /// Whether listings are kept.
    pub(crate) cache_directories: bool,
    /// Whether libraries are stored.
    pub(crate) store_libraries: bool,
    /// Whether the kernel is told to stop asking to flush.
    pub(crate) flush: Flushing,
}

/// The answer to OPEN and OPENDIR.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Opening {
    /// ENOSYS: the kernel opens alone from now on, keeping its cache.
    Alone,
    /// Opened, with these flags.
    Told(FopenFlags),
    /// Handed to the kernel where that can be, else opened with these flags.
    Passed(FopenFlags),
}

/// The answer to FLUSH.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Flushing {
    /// ENOSYS: the kernel does not ask again.
    Alone,
    /// Success.
    Told,
}

/// The kernel's flag behind a feature; `None` of features that need no flag.
fn flag(feature: Feature) -> Option<InitFlags> {
    match feature {
        Feature::NoOpen => Some(InitFlags::FUSE_NO_OPEN_SUPPORT),
        Feature::NoOpendir => Some(InitFlags::FUSE_NO_OPENDIR_SUPPORT),
        Feature::Readdirplus => Some(InitFlags::FUSE_DO_READDIRPLUS),
        Feature::CacheLinks => Some(InitFlags::FUSE_CACHE_SYMLINKS),
        Feature::ParallelDirops => Some(InitFlags::FUSE_PARALLEL_DIROPS),
        Feature::ExplicitInvalidation => Some(InitFlags::FUSE_EXPLICIT_INVAL_DATA),
        Feature::NoFlush
        | Feature::KeepCache
        | Feature::CacheDirectories
        | Feature::Negatives
        | Feature::StoreLibraries
        | Feature::LongTimeouts => None,
    }
}

/// What can be granted of what is asked for, by a kernel with these capabilities.
fn grant(
    asked: KernelFeatures,
    capabilities: InitFlags,
    passthrough: Passthrough,
) -> KernelFeatures {
    let mut granted = KernelFeatures::none();
    for feature in asked.list() {
        // A kernel that opens alone keeps its cache, whatever we would have said (fuse_file_open
        // in fs/fuse/file.c).
        let consistent = match feature {
            Feature::NoOpen => asked.has(Feature::KeepCache) && passthrough != Passthrough::On,
            Feature::StoreLibraries => asked.has(Feature::KeepCache),
            Feature::NoOpendir => asked.has(Feature::CacheDirectories),
            _ => true,
        };
        if consistent && flag(feature).is_none_or(|flag| capabilities.contains(flag)) {
            granted = granted.with(feature);
        }
    }
    granted
}

/// Tells the kernel what to do. With `access_lists` it goes by POSIX ACLs too, which it then asks
/// for as extended attributes, once per file.
pub(crate) fn negotiate(
    asked: KernelFeatures,
    access_lists: bool,
    readahead_bytes: Option<u32>,
    passthrough: Option<PassthroughBounds>,
    config: &mut KernelConfig,
) -> Negotiated {
    let passthrough = agree(passthrough, config.capabilities(), rights);
    let granted = grant(asked, config.capabilities(), passthrough);
    let flags = granted.list().into_iter().filter_map(flag);
    let mut wanted = flags.fold(InitFlags::empty(), InitFlags::union);
    if access_lists {
        wanted |= config.capabilities() & InitFlags::FUSE_POSIX_ACL;
    }
    if passthrough == Passthrough::On {
        wanted |= InitFlags::FUSE_PASSTHROUGH;
        config.set_max_stack_depth(STACK_DEPTH).expect("1 is in the range");
    }
    config.add_capabilities(wanted).expect("granted is a subset of the capabilities");
    config.set_max_background(BACKGROUND_MAX).expect("128 is in the range");
    config.set_max_write(WRITE_BYTES_MAX).expect("4096 is in the range");
    // Read and set back: there is no other way to learn the kernel's limit.
    let limit = config.set_max_readahead(u32::MAX).err().unwrap_or(u32::MAX);
    let max_readahead = readahead_bytes.unwrap_or(limit).clamp(1, limit.max(1));
    if limit > 0 {
        config.set_max_readahead(max_readahead).expect("clamped to the range");
    }
    let protocol = config.kernel_abi();
    Negotiated {
        protocol: (protocol.0, protocol.1),
        asked,
        granted,
        passthrough,
        flags: wanted.iter_names().map(|(name, _)| name).collect(),
        max_readahead,
        max_background: BACKGROUND_MAX,
    }
}

/// What the calls make of it.
pub(crate) fn policy(granted: KernelFeatures, passthrough: Passthrough) -> Policy {
    let flags = |feature, flags| if granted.has(feature) { flags } else { FopenFlags::empty() };
    let opening =
        |alone, told| if granted.has(alone) { Opening::Alone } else { Opening::Told(told) };
    let kept = flags(Feature::KeepCache, FopenFlags::FOPEN_KEEP_CACHE);
    let cached_directory = FopenFlags::FOPEN_CACHE_DIR | FopenFlags::FOPEN_KEEP_CACHE;
    Policy {
        keep: if granted.has(Feature::LongTimeouts) { LONG } else { Duration::ZERO },
        negatives: granted.has(Feature::Negatives),
        open: match passthrough {
            Passthrough::On => Opening::Passed(kept),
            Passthrough::NotAsked | Passthrough::Off(_) => opening(Feature::NoOpen, kept),
        },
        opendir: opening(Feature::NoOpendir, flags(Feature::CacheDirectories, cached_directory)),
        cache_directories: granted.has(Feature::CacheDirectories),
        store_libraries: granted.has(Feature::StoreLibraries),
        flush: if granted.has(Feature::NoFlush) { Flushing::Alone } else { Flushing::Told },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_feature_has_a_name_that_finds_it() {
        for &feature in Feature::ALL {
            assert_eq!(feature.name().parse(), Ok(feature));
            assert!(KernelFeatures::all().has(feature));
            assert!(!KernelFeatures::all().without(feature).has(feature));
            assert_eq!(KernelFeatures::none().with(feature).list(), [feature]);
        }
        let error = "writeback".parse::<Feature>().expect_err("not one");
        assert!(error.to_string().contains("no-opendir"), "{error}");
    }

    #[test]
    fn an_old_kernel_gets_what_it_can_do() {
        let old = InitFlags::FUSE_DO_READDIRPLUS | InitFlags::FUSE_PARALLEL_DIROPS;
        let granted = grant(KernelFeatures::all(), old, Passthrough::NotAsked);
        assert!(granted.has(Feature::Readdirplus) && granted.has(Feature::LongTimeouts));
        assert!(!granted.has(Feature::NoOpen) && !granted.has(Feature::CacheLinks));
        assert!(matches!(
            policy(granted, Passthrough::NotAsked).open,
            Opening::Told(FopenFlags::FOPEN_KEEP_CACHE)
        ));
    }

    #[test]
    fn without_the_cache_the_kernel_is_not_left_to_open_alone() {
        let asked = KernelFeatures::all().without(Feature::KeepCache);
        let granted = grant(asked, InitFlags::all(), Passthrough::NotAsked);
        assert!(!granted.has(Feature::NoOpen) && granted.has(Feature::NoOpendir));
        let Opening::Told(flags) = policy(granted, Passthrough::NotAsked).open else {
            panic!("told")
        };
        assert_eq!(flags, FopenFlags::empty());
    }

    #[test]
    fn to_hand_files_over_every_open_has_to_be_told() {
        let on = Passthrough::On;
        let granted = grant(KernelFeatures::all(), InitFlags::all(), on);
        assert!(!granted.has(Feature::NoOpen) && granted.has(Feature::NoOpendir));
        assert!(matches!(policy(granted, on).open, Opening::Passed(FopenFlags::FOPEN_KEEP_CACHE)));
        let off = Passthrough::Off(crate::passthrough::Refusal::Rights);
        assert!(grant(KernelFeatures::all(), InitFlags::all(), off).has(Feature::NoOpen));
    }

    #[test]
    fn nothing_asked_for_is_nothing_kept() {
        let off = Passthrough::NotAsked;
        let policy = policy(grant(KernelFeatures::none(), InitFlags::all(), off), off);
        assert_eq!(policy.keep, Duration::ZERO);
        assert!(!policy.negatives);
        assert!(matches!(policy.opendir, Opening::Told(flags) if flags.is_empty()));
        assert!(matches!(policy.flush, Flushing::Told));
    }
}
