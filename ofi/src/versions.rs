//! Which libfabric this is, for people.

use libfabric_sys as sys;

use crate::hints;

/// Versions and providers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Versions {
    /// Major and minor of the headers that this was compiled with.
    pub compiled: (u32, u32),
    /// Major and minor of the library that is loaded.
    pub runtime: (u32, u32),
    /// Providers with reliable messages and remote reads on this machine, in libfabric's order.
    pub providers: Vec<String>,
}

/// Asks libfabric. Takes some ten milliseconds, the first time longer: providers look for their
/// hardware.
pub fn versions() -> Versions {
    // SAFETY: fi_version takes nothing and demands nothing.
    let runtime = unsafe { sys::fi_version() };
    Versions {
        compiled: (sys::FI_MAJOR_VERSION, sys::FI_MINOR_VERSION),
        runtime: (runtime >> 16, runtime & 0xffff),
        providers: hints::providers(),
    }
}
