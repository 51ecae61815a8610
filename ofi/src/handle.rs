//! An open object of libfabric, closed when it is dropped.

use std::ffi::c_int;
use std::ptr::NonNull;

use libfabric_sys as sys;
use tracing::warn;

use crate::error::Errno;

/// A structure of libfabric that stands for an open object.
///
/// # Safety
/// The structure starts with a `struct fid` (rdma/fabric.h: "All fabric interface descriptors must
/// start with this structure").
pub(crate) unsafe trait Object {
    /// For messages.
    const NAME: &'static str;
}

macro_rules! objects {
    ($($type:ident $name:literal),*) => {$(
        // SAFETY: rdma/*.h declare `struct fid fid` as the first field.
        unsafe impl Object for sys::$type {
            const NAME: &'static str = $name;
        }
    )*};
}
objects!(
    fid_fabric "fabric", fid_domain "domain", fid_cq "completion queue", fid_av "address vector",
    fid_ep "endpoint", fid_mr "memory region"
);

/// An open object. Whoever holds it also holds what it was opened on, and declares that after it.
pub(crate) struct Handle<T: Object> {
    pointer: NonNull<T>,
    open: bool,
}

impl<T: Object> Handle<T> {
    /// Takes what a call opened: its return value and the pointer that it stored.
    ///
    /// # Safety
    /// If `returned` is 0, `pointer` is an open object that nobody else closes.
    pub(crate) unsafe fn of(returned: c_int, pointer: *mut T) -> Result<Self, Errno> {
        Errno::check_int(returned)?;
        let pointer = NonNull::new(pointer).ok_or(Errno::IO)?;
        Ok(Handle { pointer, open: true })
    }

    pub(crate) fn as_ptr(&self) -> *mut T {
        self.pointer.as_ptr()
    }

    pub(crate) fn fid(&self) -> *mut sys::fid {
        self.as_ptr().cast()
    }

    /// Closes now what a drop would close, for those who must know whether it worked.
    pub(crate) fn close(&mut self) -> Result<(), Errno> {
        if !self.open {
            return Ok(());
        }
        self.open = false;
        // SAFETY: fi_close demands an open object that is not used again:
        // - `open` was true, so it was not closed before;
        // - its owner is closing it: what was opened on it holds it and would keep it from here.
        let closed = Errno::check_int(unsafe { sys::fi_close(self.fid()) });
        if let Err(error) = closed {
            warn!(object = T::NAME, %error, "fi_close failed; the object stays open");
        }
        closed
    }
}

impl<T: Object> Drop for Handle<T> {
    fn drop(&mut self) {
        // `close` has logged the error.
        let _ = self.close();
    }
}
