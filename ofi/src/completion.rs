//! The completion queue: where every posted operation ends.

use std::ffi::{CStr, c_int, c_void};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, RawFd};
use std::ptr;
use std::rc::Rc;

use libfabric_sys as sys;
use tracing::debug;

use crate::domain::Domain;
use crate::error::{Errno, Error};
use crate::handle::Handle;

/// Completions taken by one call: enough to spread its cost, few enough to lie on the stack.
pub(crate) const BATCH: usize = 16;

/// Longest text that a provider says of an error.
const DETAIL_BYTES_MAX: usize = 256;

/// What one read of the queue gave.
pub(crate) enum Reaped {
    Nothing,
    /// So many entries of the batch were written.
    Entries(usize),
    Failed(Failure),
}

/// An operation that failed.
pub(crate) struct Failure {
    /// As posted; null if the provider does not say.
    pub(crate) context: *mut c_void,
    pub(crate) errno: Errno,
    /// In the provider's words.
    pub(crate) detail: String,
}

/// fi_cq_err_entry, with room for what newer libraries append to it.
#[repr(C)]
struct ErrorEntry {
    entry: sys::fi_cq_err_entry,
    room: [u64; 8],
}

pub(crate) struct CompletionQueue {
    handle: Handle<sys::fid_cq>,
    descriptor: Option<RawFd>,
    domain: Rc<Domain>,
}

impl CompletionQueue {
    /// A queue of at least `size` entries, with a descriptor to wait on if the provider has one.
    pub(crate) fn open(domain: &Rc<Domain>, size: usize) -> Result<Rc<CompletionQueue>, Error> {
        match CompletionQueue::open_with(domain, size, sys::FI_WAIT_FD) {
            Ok(queue) => Ok(Rc::new(queue)),
            Err(error) => {
                debug!(%error, "no descriptor to wait on; the caller polls by the clock");
                CompletionQueue::open_with(domain, size, sys::FI_WAIT_NONE).map(Rc::new)
            }
        }
    }

    fn open_with(
        domain: &Rc<Domain>,
        size: usize,
        wait: sys::fi_wait_obj,
    ) -> Result<CompletionQueue, Error> {
        let mut attributes = sys::fi_cq_attr {
            size,
            format: sys::FI_CQ_FORMAT_MSG,
            wait_obj: wait,
            ..Default::default()
        };
        let mut queue = ptr::null_mut();
        // SAFETY: fi_cq_open demands an open domain and attributes for the call: both borrowed.
        let opened =
            unsafe { sys::fi_cq_open(domain.as_ptr(), &raw mut attributes, &raw mut queue) };
        // SAFETY: demands an open object after a 0: fi_cq_open stores one, for its caller alone.
        let handle = unsafe { Handle::of(opened, queue) };
        let handle = handle.map_err(domain.fabric().failed("fi_cq_open"))?;
        let mut queue = CompletionQueue { handle, descriptor: None, domain: Rc::clone(domain) };
        if wait == sys::FI_WAIT_FD {
            queue.descriptor = Some(queue.get_descriptor()?);
        }
        Ok(queue)
    }

    fn get_descriptor(&self) -> Result<RawFd, Error> {
        let mut descriptor: c_int = -1;
        // SAFETY: FI_GETWAIT demands an open queue and, for FI_WAIT_FD, a place for an int.
        let returned = unsafe { sys::fi_cq_descriptor(self.handle.as_ptr(), &raw mut descriptor) };
        let failed = self.domain.fabric().failed("fi_control(FI_GETWAIT)");
        Errno::check_int(returned).map_err(&failed)?;
        if descriptor < 0 { Err(failed(Errno::INVALID)) } else { Ok(descriptor) }
    }

    pub(crate) fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        // SAFETY: demands a descriptor that stays open for the life of the borrow: the provider
        // keeps it as long as the queue, which is borrowed as long.
        self.descriptor.map(|descriptor| unsafe { BorrowedFd::borrow_raw(descriptor) })
    }

    pub(crate) fn may_wait(&self) -> bool {
        self.domain.fabric().may_wait(self.handle.fid())
    }

    pub(crate) fn read(&self, batch: &mut [sys::fi_cq_msg_entry]) -> Result<Reaped, Error> {
        // SAFETY: fi_cq_read demands room for `count` entries of the queue's format: the slice
        // is that, and the queue was opened with FI_CQ_FORMAT_MSG.
        let returned = unsafe {
            sys::fi_cq_read(self.handle.as_ptr(), batch.as_mut_ptr().cast(), batch.len())
        };
        match Errno::check(returned) {
            Ok(0) | Err(Errno::AGAIN) => Ok(Reaped::Nothing),
            Ok(count) => Ok(Reaped::Entries(count.min(batch.len()))),
            Err(Errno::AVAIL) => self.read_failure(),
            Err(errno) => Err(self.domain.fabric().failed("fi_cq_read")(errno)),
        }
    }

    fn read_failure(&self) -> Result<Reaped, Error> {
        // All zeros: without a buffer of ours the provider lends its own (man 3 fi_cq).
        let mut read = ErrorEntry { entry: sys::fi_cq_err_entry::default(), room: [0; 8] };
        // SAFETY: fi_cq_readerr demands room for an entry of the version asked for: this is
        // one of the headers' version, and `room` follows for a library that writes more.
        let returned =
            unsafe { sys::fi_cq_readerr(self.handle.as_ptr(), (&raw mut read).cast(), 0) };
        match Errno::check(returned) {
            Ok(0) | Err(Errno::AGAIN) => return Ok(Reaped::Nothing),
            Ok(_) => {}
            Err(errno) => return Err(self.domain.fabric().failed("fi_cq_readerr")(errno)),
        }
        Ok(Reaped::Failed(Failure {
            context: read.entry.op_context,
            errno: Errno::of_completion(read.entry.err),
            detail: self.detail(&read.entry),
        }))
    }

    fn detail(&self, entry: &sys::fi_cq_err_entry) -> String {
        let mut text = [MaybeUninit::new(0); DETAIL_BYTES_MAX];
        // SAFETY: fi_cq_strerror demands the provider's number and data of an entry, valid until
        // the queue is read again, which has not happened; and room for `len` bytes.
        let said = unsafe {
            sys::fi_cq_strerror(
                self.handle.as_ptr(),
                entry.prov_errno,
                entry.err_data,
                text.as_mut_ptr().cast(),
                text.len(),
            )
        };
        if said.is_null() {
            return format!("provider error {}", entry.prov_errno);
        }
        // SAFETY: demands a string that ends in NUL: it is the provider's constant, or `text`.
        let said = unsafe { CStr::from_ptr(said) };
        format!("{} (provider error {})", said.to_string_lossy(), entry.prov_errno)
    }

    pub(crate) fn fid(&self) -> *mut sys::fid {
        self.handle.fid()
    }
}

/// An entry to be written over.
pub(crate) const fn blank() -> sys::fi_cq_msg_entry {
    sys::fi_cq_msg_entry { op_context: ptr::null_mut(), flags: 0, len: 0 }
}
