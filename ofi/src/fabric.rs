//! The fabric: a provider, opened.

use std::ptr;
use std::rc::Rc;

use libfabric_sys as sys;

use crate::error::{Errno, Error};
use crate::handle::Handle;
use crate::info::Info;

pub(crate) struct Fabric {
    handle: Handle<sys::fid_fabric>,
    provider: String,
    domain: String,
}

impl Fabric {
    pub(crate) fn open(info: &mut Info) -> Result<Rc<Fabric>, Error> {
        let (provider, domain) = (info.provider(), info.domain_name());
        let attributes = info.fabric_attributes();
        let mut fabric = ptr::null_mut();
        // SAFETY: fi_fabric demands the attributes of an fi_info, which `info` keeps, and a place
        // to store to; a null context is allowed.
        let opened = unsafe { sys::fi_fabric(attributes, &raw mut fabric, ptr::null_mut()) };
        // SAFETY: demands an open object after a 0: fi_fabric stores one, for its caller alone.
        let handle = unsafe { Handle::of(opened, fabric) };
        let handle = handle.map_err(|source| Error::Call {
            call: "fi_fabric",
            on: named(&provider, &domain),
            source,
        })?;
        Ok(Rc::new(Fabric { handle, provider, domain }))
    }

    pub(crate) fn provider(&self) -> &str {
        &self.provider
    }

    pub(crate) fn domain_name(&self) -> &str {
        &self.domain
    }

    /// Provider and domain, for messages.
    pub(crate) fn name(&self) -> String {
        named(&self.provider, &self.domain)
    }

    /// Makes an error of what a call returned.
    pub(crate) fn failed(&self, call: &'static str) -> impl Fn(Errno) -> Error {
        move |source| Error::Call { call, on: self.name(), source }
    }

    /// Whether nothing is waiting behind the object whose descriptor someone is about to wait on.
    pub(crate) fn may_wait(&self, mut fid: *mut sys::fid) -> bool {
        // SAFETY: fi_trywait demands `count` open objects of this fabric: the one caller passes its
        // completion queue, which holds this fabric.
        let returned = unsafe { sys::fi_trywait(self.handle.as_ptr(), &raw mut fid, 1) };
        returned == 0
    }

    pub(crate) fn as_ptr(&self) -> *mut sys::fid_fabric {
        self.handle.as_ptr()
    }
}

fn named(provider: &str, domain: &str) -> String {
    format!("{provider} ({domain})")
}
