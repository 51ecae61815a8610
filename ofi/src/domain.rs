//! The domain: a NIC, opened, and owned by one thread (FI_THREAD_DOMAIN).

use std::ptr;
use std::rc::Rc;

use libfabric_sys as sys;

use crate::error::{Errno, Error};
use crate::fabric::Fabric;
use crate::handle::Handle;
use crate::info::Info;

pub(crate) struct Domain {
    handle: Handle<sys::fid_domain>,
    fabric: Rc<Fabric>,
}

impl Domain {
    pub(crate) fn open(fabric: &Rc<Fabric>, info: &Info) -> Result<Rc<Domain>, Error> {
        let mut domain = ptr::null_mut();
        // SAFETY: fi_domain demands an open fabric and an fi_info of its provider: both borrowed.
        let opened = unsafe { sys::fi_domain(fabric.as_ptr(), info.as_ptr(), &raw mut domain) };
        // SAFETY: demands an open object after a 0: fi_domain stores one, for its caller alone.
        let handle = unsafe { Handle::of(opened, domain) };
        let handle = handle.map_err(|source| match source {
            // CXI without the job's credentials for the network.
            Errno::NO_SYS if fabric.provider() == "cxi" => {
                Error::NoAccess { on: fabric.name(), source }
            }
            source => fabric.failed("fi_domain")(source),
        })?;
        Ok(Rc::new(Domain { handle, fabric: Rc::clone(fabric) }))
    }

    pub(crate) fn fabric(&self) -> &Fabric {
        &self.fabric
    }

    pub(crate) fn as_ptr(&self) -> *mut sys::fid_domain {
        self.handle.as_ptr()
    }
}
