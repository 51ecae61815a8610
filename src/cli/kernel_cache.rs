//! `--no-kernel-cache NAME`: what the kernel is not asked to do for us, to see what it is worth or to
//! get around a kernel that does it wrong.

use std::fmt;
use std::str::FromStr;

use copper_fuse::kernel::UnknownFeature;
use copper_fuse::{Feature, KernelFeatures};

/// One feature, or all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KernelCache {
    All,
    One(Feature),
}

impl KernelCache {
    /// What is left to ask the kernel for.
    pub(super) fn features(without: &[KernelCache]) -> KernelFeatures {
        without.iter().fold(KernelFeatures::all(), |features, cache| match cache {
            KernelCache::All => KernelFeatures::none(),
            KernelCache::One(feature) => features.without(*feature),
        })
    }
}

impl FromStr for KernelCache {
    type Err = UnknownFeature;

    fn from_str(name: &str) -> Result<KernelCache, UnknownFeature> {
        if name == "all" { Ok(KernelCache::All) } else { name.parse().map(KernelCache::One) }
    }
}

impl fmt::Display for KernelCache {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KernelCache::All => formatter.write_str("all"),
            KernelCache::One(feature) => feature.fmt(formatter),
        }
    }
}
