//! The address vector: the peers as the provider knows them.

use std::ptr;
use std::rc::Rc;

use libfabric_sys as sys;

use crate::domain::Domain;
use crate::error::{Errno, Error};
use crate::handle::Handle;
use crate::info::Info;

/// The longest address that is taken: libfabric's are 8 bytes (CXI) to a path of shared memory.
pub(crate) const ADDRESS_BYTES_MAX: usize = 256;

pub(crate) struct AddressVector {
    handle: Handle<sys::fid_av>,
    domain: Rc<Domain>,
}

impl AddressVector {
    pub(crate) fn open(domain: &Rc<Domain>, info: &Info) -> Result<Rc<AddressVector>, Error> {
        let mut attributes =
            sys::fi_av_attr { type_: info.address_vector_type(), ..Default::default() };
        let mut vector = ptr::null_mut();
        // SAFETY: fi_av_open demands an open domain and attributes for the call: both borrowed.
        let opened =
            unsafe { sys::fi_av_open(domain.as_ptr(), &raw mut attributes, &raw mut vector) };
        // SAFETY: demands an open object after a 0: fi_av_open stores one, for its caller alone.
        let handle = unsafe { Handle::of(opened, vector) };
        let handle = handle.map_err(domain.fabric().failed("fi_av_open"))?;
        Ok(Rc::new(AddressVector { handle, domain: Rc::clone(domain) }))
    }

    pub(crate) fn insert(&self, address: &[u8]) -> Result<sys::fi_addr_t, Error> {
        // libfabric takes no length: it reads as much as its format has, or to a NUL.
        let mut padded = [0; ADDRESS_BYTES_MAX];
        let room = padded.get_mut(..address.len()).filter(|_| address.len() < ADDRESS_BYTES_MAX);
        let room = room.ok_or_else(|| Error::Address {
            on: self.domain.fabric().name(),
            len: address.len(),
            expected: ADDRESS_BYTES_MAX - 1,
        })?;
        room.copy_from_slice(address);
        let mut peer = sys::FI_ADDR_NOTAVAIL;
        // SAFETY: fi_av_insert demands `count` addresses of the provider's format and as many
        // places to store to:
        // - `padded` is longer than any format, and ends in NUL for textual ones;
        // - `peer` is one place.
        let inserted = unsafe {
            sys::fi_av_insert(self.handle.as_ptr(), padded.as_ptr().cast(), 1, &raw mut peer, 0)
        };
        let failed = self.domain.fabric().failed("fi_av_insert");
        Errno::check_int(inserted).map_err(&failed)?;
        if inserted == 1 && peer != sys::FI_ADDR_NOTAVAIL {
            Ok(peer)
        } else {
            Err(failed(Errno::INVALID))
        }
    }

    /// Undoes one insertion.
    ///
    /// # Safety
    /// `peer` was inserted once more often than removed, and no operation that names it is under
    /// way (man 3 fi_av: else "the behavior is undefined").
    pub(crate) unsafe fn remove(&self, mut peer: sys::fi_addr_t) -> Result<(), Error> {
        // SAFETY: fi_av_remove demands `count` peers of this vector without operations: demanded
        // of the caller.
        let removed = unsafe { sys::fi_av_remove(self.handle.as_ptr(), &raw mut peer, 1, 0) };
        Errno::check_int(removed).map_err(self.domain.fabric().failed("fi_av_remove"))
    }

    pub(crate) fn fid(&self) -> *mut sys::fid {
        self.handle.fid()
    }
}
