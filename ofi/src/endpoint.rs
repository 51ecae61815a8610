//! The endpoint: reliable messages and reads, unconnected (FI_EP_RDM).

use std::ffi::c_void;
use std::mem;
use std::ptr::{self, NonNull};
use std::rc::Rc;

use libfabric_sys as sys;

use crate::address_vector::{ADDRESS_BYTES_MAX, AddressVector};
use crate::completion::CompletionQueue;
use crate::domain::Domain;
use crate::error::{Errno, Error};
use crate::handle::Handle;
use crate::info::Info;

pub(crate) struct Endpoint {
    handle: Handle<sys::fid_ep>,
    /// Bound to it, so closed after it.
    bound: (Rc<CompletionQueue>, Rc<AddressVector>),
    domain: Rc<Domain>,
}

/// Memory that an operation reads or writes, and how the provider knows it.
#[derive(Clone, Copy)]
pub(crate) struct Buffer {
    pub(crate) start: NonNull<u8>,
    pub(crate) len: usize,
    /// Of the region that it lies in; null where local memory is not registered.
    pub(crate) descriptor: *mut c_void,
}

/// Where in a peer's memory a read starts: the peer says both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Remote {
    /// The peer's [`region_key`](crate::Network::region_key).
    pub key: u64,
    /// The peer's [`region_base`](crate::Network::region_base) plus an offset into its arena.
    pub address: u64,
}

impl Endpoint {
    /// Opens, binds and enables it.
    pub(crate) fn open(
        domain: &Rc<Domain>,
        info: &Info,
        queue: &Rc<CompletionQueue>,
        vector: &Rc<AddressVector>,
    ) -> Result<Endpoint, Error> {
        let fabric = domain.fabric();
        let mut endpoint = ptr::null_mut();
        // SAFETY: fi_endpoint demands an open domain and an fi_info of its provider: borrowed.
        let opened = unsafe { sys::fi_endpoint(domain.as_ptr(), info.as_ptr(), &raw mut endpoint) };
        // SAFETY: demands an open object after a 0: fi_endpoint stores one, for its caller alone.
        let handle = unsafe { Handle::of(opened, endpoint) };
        let handle = handle.map_err(fabric.failed("fi_endpoint"))?;
        let endpoint = Endpoint {
            handle,
            bound: (Rc::clone(queue), Rc::clone(vector)),
            domain: Rc::clone(domain),
        };
        let transfers = sys::FI_TRANSMIT | sys::FI_RECV;
        for (fid, flags) in [(vector.fid(), 0), (queue.fid(), transfers)] {
            // SAFETY: fi_ep_bind demands open objects of one domain, where what is bound stays
            // open as long as the endpoint: `bound` holds it.
            let bound = unsafe { sys::fi_ep_bind(endpoint.handle.as_ptr(), fid, flags) };
            Errno::check_int(bound).map_err(fabric.failed("fi_ep_bind"))?;
        }
        // SAFETY: fi_enable demands an open endpoint with its queue and vector bound, as above.
        let enabled = unsafe { sys::fi_enable(endpoint.handle.as_ptr()) };
        Errno::check_int(enabled).map_err(fabric.failed("fi_enable"))?;
        Ok(endpoint)
    }

    /// The address by which peers reach it.
    pub(crate) fn address(&self) -> Result<Vec<u8>, Error> {
        let mut address = vec![0u8; ADDRESS_BYTES_MAX];
        let mut len = address.len();
        // SAFETY: fi_getname demands an enabled endpoint and room for `len` bytes.
        let returned = unsafe {
            sys::fi_getname(self.handle.fid(), address.as_mut_ptr().cast(), &raw mut len)
        };
        let failed = self.domain.fabric().failed("fi_getname");
        Errno::check_int(returned).map_err(&failed)?;
        if len == 0 || len >= ADDRESS_BYTES_MAX {
            return Err(failed(Errno::TOO_SMALL));
        }
        address.truncate(len);
        Ok(address)
    }

    /// Posts a buffer for the next message of any peer.
    ///
    /// # Safety
    /// Until the completion with `context` is reaped or the endpoint is closed, the provider
    /// writes `buffer` and `context`: both stay where they are and nobody else touches them.
    pub(crate) unsafe fn receive(&self, buffer: Buffer, context: *mut c_void) -> Result<(), Errno> {
        // SAFETY: fi_recv demands an enabled endpoint, and of the caller what is said above.
        let returned = unsafe {
            sys::fi_recv(
                self.handle.as_ptr(),
                buffer.start.as_ptr().cast(),
                buffer.len,
                buffer.descriptor,
                sys::FI_ADDR_UNSPEC,
                context,
            )
        };
        Errno::check(returned).map(drop)
    }

    /// Posts a message.
    ///
    /// # Safety
    /// `peer` is in the vector, and stays there until the operation has ended. Until the
    /// completion with `context` is reaped or the endpoint is closed, the provider reads `buffer`
    /// and writes `context`: both stay where they are, nobody writes the one and nobody touches
    /// the other.
    pub(crate) unsafe fn send(
        &self,
        peer: sys::fi_addr_t,
        buffer: Buffer,
        context: *mut c_void,
    ) -> Result<(), Errno> {
        // SAFETY: fi_send demands an enabled endpoint, and of the caller what is said above.
        let returned = unsafe {
            sys::fi_send(
                self.handle.as_ptr(),
                buffer.start.as_ptr().cast(),
                buffer.len,
                buffer.descriptor,
                peer,
                context,
            )
        };
        Errno::check(returned).map(drop)
    }

    /// Posts a read of a peer's memory into `buffer`.
    ///
    /// # Safety
    /// As for [`receive`](Endpoint::receive), and `peer` is in the vector and stays there until
    /// the operation has ended.
    pub(crate) unsafe fn read(
        &self,
        peer: sys::fi_addr_t,
        remote: Remote,
        buffer: Buffer,
        context: *mut c_void,
    ) -> Result<(), Errno> {
        // SAFETY: fi_read demands an enabled endpoint, and of the caller what is said above.
        let returned = unsafe {
            sys::fi_read(
                self.handle.as_ptr(),
                buffer.start.as_ptr().cast(),
                buffer.len,
                buffer.descriptor,
                peer,
                remote.address,
                remote.key,
                context,
            )
        };
        Errno::check(returned).map(drop)
    }

    /// Closes it: after that the provider touches no buffer and no context any more. When it
    /// cannot, what it is bound to stays open for ever, and the caller must leave buffers and
    /// contexts alone as well.
    pub(crate) fn close(&mut self) -> Result<(), Errno> {
        self.handle.close().inspect_err(|_| {
            mem::forget(self.bound.clone());
        })
    }

    pub(crate) fn fid(&self) -> *mut sys::fid {
        self.handle.fid()
    }
}
