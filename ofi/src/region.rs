//! A memory region: memory that the provider may touch, for peers or for us.

use std::collections::hash_map::RandomState;
use std::ffi::c_void;
use std::hash::{BuildHasher, Hasher};
use std::mem;
use std::ptr;
use std::rc::Rc;

use libfabric_sys as sys;

use crate::arena::Arena;
use crate::domain::Domain;
use crate::endpoint::Endpoint;
use crate::error::{Errno, Error};
use crate::handle::Handle;
use crate::message::Messages;
use crate::mode::Mode;

/// What is registered; the region keeps it mapped.
#[derive(Clone)]
pub(crate) enum Memory {
    /// Peers may read it, and our reads may end in it. Nobody may write it from outside.
    Arena(Arena),
    /// For our own sends and receives only.
    Messages(Rc<Messages>),
}

/// Closed before the endpoint that it is bound to.
pub(crate) struct Region {
    handle: Handle<sys::fid_mr>,
    key: u64,
    descriptor: *mut c_void,
    /// Given up, for ever, when the region cannot be closed.
    memory: Option<Memory>,
    _domain: Rc<Domain>,
}

impl Region {
    /// Registers all of `memory`, on an endpoint that is enabled.
    pub(crate) fn register(
        domain: &Rc<Domain>,
        endpoint: &Endpoint,
        mode: Mode,
        memory: Memory,
        requested_key: u64,
    ) -> Result<Region, Error> {
        let fabric = domain.fabric();
        let is_remote = matches!(memory, Memory::Arena(_));
        let (base, len, access) = match &memory {
            Memory::Arena(arena) => (arena.base(), arena.len(), sys::FI_REMOTE_READ | sys::FI_READ),
            Memory::Messages(all) => (all.base(), all.len(), sys::FI_SEND | sys::FI_RECV),
        };
        let mut region = ptr::null_mut();
        let bytes = base.as_ptr().cast();
        // SAFETY: fi_mr_reg demands an open domain, and memory that stays mapped as long as the
        // region is open: the region holds `memory`.
        let opened = unsafe {
            sys::fi_mr_reg(domain.as_ptr(), bytes, len, access, requested_key, &raw mut region)
        };
        // SAFETY: demands an open object after a 0: fi_mr_reg stores one, for its caller alone.
        let handle = unsafe { Handle::of(opened, region) };
        let mut region = Region {
            handle: handle.map_err(fabric.failed("fi_mr_reg"))?,
            key: sys::FI_KEY_NOTAVAIL,
            descriptor: ptr::null_mut(),
            memory: Some(memory),
            _domain: Rc::clone(domain),
        };
        if mode.bound_to_endpoint {
            // SAFETY: fi_mr_bind demands an open endpoint of the same domain: borrowed.
            let bound = unsafe { sys::fi_mr_bind(region.handle.as_ptr(), endpoint.fid(), 0) };
            Errno::check_int(bound).map_err(fabric.failed("fi_mr_bind"))?;
            // SAFETY: fi_mr_enable demands a region bound to an enabled endpoint: just bound.
            let enabled = unsafe { sys::fi_mr_enable(region.handle.as_ptr()) };
            Errno::check_int(enabled).map_err(fabric.failed("fi_mr_enable"))?;
        }
        // SAFETY: fi_mr_key demands a region that is open, and enabled where it must be.
        region.key = unsafe { sys::fi_mr_key(region.handle.as_ptr()) };
        // Newer libraries give no key to memory that no peer may read.
        if is_remote && region.key == sys::FI_KEY_NOTAVAIL {
            return Err(fabric.failed("fi_mr_key")(Errno::NO_DATA));
        }
        if mode.local_descriptors {
            // SAFETY: fi_mr_desc demands an open region.
            region.descriptor = unsafe { sys::fi_mr_desc(region.handle.as_ptr()) };
        }
        Ok(region)
    }

    /// For peers; without meaning for messages.
    pub(crate) fn key(&self) -> u64 {
        self.key
    }

    /// To pass with operations on its memory; null where the provider does not ask for it.
    pub(crate) fn descriptor(&self) -> *mut c_void {
        self.descriptor
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        if self.handle.close().is_err() {
            // Still registered: the memory must not become anything else.
            mem::forget(self.memory.take());
        }
    }
}

/// A key to ask for where the provider does not choose, of `bytes` bytes. Not a constant, so that
/// the key of a daemon that ended does not open the arena of the next one at its address.
pub(crate) fn key_wish(bytes: usize) -> u64 {
    // The standard library's random state is the random source at hand; nothing secret is made.
    let random = RandomState::new().build_hasher().finish();
    // One bit less than there are: FI_KEY_NOTAVAIL is all ones.
    let bits = 8 * bytes.clamp(1, 8) as u32 - 1;
    // Even, so that the next one is free for another region.
    random & (u64::MAX >> (u64::BITS - bits)) & !1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_fits_and_leaves_its_successor_free() {
        for bytes in 0..10 {
            for _ in 0..100 {
                let key = key_wish(bytes);
                assert_eq!(key % 2, 0);
                assert!(key + 1 < 1 << (8 * bytes.clamp(1, 8) - 1));
            }
        }
        assert_ne!(key_wish(8), key_wish(8), "random");
    }
}
