//! What a provider demands of memory and operations, decided from the bits that fi_getinfo gives.

use std::ffi::c_int;

use libfabric_sys as sys;

/// The registration modes that we offer to obey (man 3 fi_mr).
pub(crate) const MR_MODE_OFFERED: c_int = sys::FI_MR_LOCAL
    | sys::FI_MR_VIRT_ADDR
    | sys::FI_MR_ALLOCATED
    | sys::FI_MR_PROV_KEY
    | sys::FI_MR_ENDPOINT;

/// The operation modes that we offer to obey (man 3 fi_getinfo): a context per operation.
pub(crate) const MODE_OFFERED: u64 = sys::FI_CONTEXT | sys::FI_CONTEXT2;

/// A provider's demands. CXI wants physical pages, its own keys and regions bound to the
/// endpoint; tcp wants nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mode {
    /// Remote addresses are virtual addresses of the owner, not offsets into the region.
    pub(crate) virtual_addresses: bool,
    /// Buffers of local operations are registered too, and their descriptor is passed.
    pub(crate) local_descriptors: bool,
    /// Physical pages lie behind the memory before it is registered.
    pub(crate) physical_pages: bool,
    /// The provider chooses the key.
    pub(crate) provider_keys: bool,
    /// A region is bound to the endpoint, and enabled when that is; it is closed first.
    pub(crate) bound_to_endpoint: bool,
}

/// Demands that were not offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unmet {
    pub(crate) mr_mode: c_int,
    pub(crate) mode: u64,
}

impl Mode {
    /// From `domain_attr.mr_mode` and `mode` of the fi_info. Contexts need no decision: every
    /// operation gets the larger one.
    pub(crate) fn of(mr_mode: c_int, mode: u64) -> Result<Mode, Unmet> {
        let unmet = Unmet { mr_mode: mr_mode & !MR_MODE_OFFERED, mode: mode & !MODE_OFFERED };
        if unmet != (Unmet { mr_mode: 0, mode: 0 }) {
            return Err(unmet);
        }
        Ok(Mode {
            virtual_addresses: mr_mode & sys::FI_MR_VIRT_ADDR != 0,
            local_descriptors: mr_mode & sys::FI_MR_LOCAL != 0,
            physical_pages: mr_mode & sys::FI_MR_ALLOCATED != 0,
            provider_keys: mr_mode & sys::FI_MR_PROV_KEY != 0,
            bound_to_endpoint: mr_mode & sys::FI_MR_ENDPOINT != 0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTHING: Mode = Mode {
        virtual_addresses: false,
        local_descriptors: false,
        physical_pages: false,
        provider_keys: false,
        bound_to_endpoint: false,
    };

    #[test]
    fn tcp_demands_nothing() {
        assert_eq!(Mode::of(0, 0), Ok(NOTHING));
    }

    #[test]
    fn cxi_wants_pages_its_own_keys_and_bound_regions_and_addresses_by_offset() {
        let answer = sys::FI_MR_ALLOCATED | sys::FI_MR_PROV_KEY | sys::FI_MR_ENDPOINT;
        let mode =
            Mode { physical_pages: true, provider_keys: true, bound_to_endpoint: true, ..NOTHING };
        assert_eq!(Mode::of(answer, 0), Ok(mode));
    }

    #[test]
    fn verbs_behind_rxm_wants_descriptors_and_virtual_addresses() {
        let answer =
            sys::FI_MR_LOCAL | sys::FI_MR_VIRT_ADDR | sys::FI_MR_ALLOCATED | sys::FI_MR_PROV_KEY;
        let mode = Mode {
            virtual_addresses: true,
            local_descriptors: true,
            physical_pages: true,
            provider_keys: true,
            ..NOTHING
        };
        assert_eq!(Mode::of(answer, sys::FI_CONTEXT), Ok(mode));
        assert_eq!(Mode::of(answer, sys::FI_CONTEXT2), Ok(mode));
    }

    #[test]
    fn what_was_not_offered_is_refused() {
        let raw = 1 << 3; // FI_MR_RAW
        let prefix = 1 << 58; // FI_MSG_PREFIX
        assert_eq!(Mode::of(raw | sys::FI_MR_LOCAL, 0), Err(Unmet { mr_mode: raw, mode: 0 }));
        assert_eq!(Mode::of(0, prefix | sys::FI_CONTEXT), Err(Unmet { mr_mode: 0, mode: prefix }));
    }
}
