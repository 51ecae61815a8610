//! The description of a provider that fi_getinfo gives and fi_fabric, fi_domain and fi_endpoint take.

use std::ffi::{CStr, CString, c_char, c_int};
use std::iter;
use std::ptr::{self, NonNull};

use libfabric_sys as sys;

use crate::error::{Errno, Error};
use crate::mode::Mode;

/// An owned fi_info, alone or with others behind it. Accessors speak of the first.
///
/// Invariant: libfabric allocated it, with all of its attributes.
pub(crate) struct Info {
    head: NonNull<sys::fi_info>,
}

/// One fi_info of a list.
#[derive(Clone, Copy)]
pub(crate) struct InfoRef<'a> {
    /// Of an [`Info`], whose invariant holds for it.
    fields: &'a sys::fi_info,
}

/// Accessors of the structures that an fi_info points to.
macro_rules! attributes {
    ($($read:ident $write:ident $field:ident: $type:ident),*) => {
        impl<'a> InfoRef<'a> {$(
            fn $read(self) -> &'a sys::$type {
                // SAFETY: demands null or a valid structure for the life of the borrow: the
                // invariant of `Info`, and fi_freeinfo frees it together with the fi_info.
                unsafe { self.fields.$field.as_ref() }.expect("libfabric allocates it")
            }
        )*}

        impl Info {$(
            #[allow(dead_code, reason = "not every structure takes hints")]
            pub(crate) fn $write(&mut self) -> &mut sys::$type {
                let field = self.fields_mut().$field;
                // SAFETY: as above; and nothing else refers to it: `self` is borrowed mutably.
                unsafe { field.as_mut() }.expect("libfabric allocates it")
            }
        )*}
    };
}
attributes!(
    transmit transmit_mut tx_attr: fi_tx_attr,
    receive receive_mut rx_attr: fi_rx_attr,
    endpoint endpoint_mut ep_attr: fi_ep_attr,
    domain domain_mut domain_attr: fi_domain_attr,
    fabric fabric_mut fabric_attr: fi_fabric_attr
);

impl Info {
    /// For hints.
    pub(crate) fn empty() -> Result<Info, Errno> {
        // SAFETY: fi_dupinfo(NULL) allocates an fi_info with all of its attributes, zeroed:
        // fi_allocinfo in rdma/fabric.h is just this.
        let head = unsafe { sys::fi_dupinfo(ptr::null()) };
        NonNull::new(head).map(|head| Info { head }).ok_or(Errno::NO_MEMORY)
    }

    /// What a call of fi_getinfo stores through the pointer that it is given.
    pub(crate) fn list(
        getinfo: impl FnOnce(*mut *mut sys::fi_info) -> c_int,
    ) -> Result<Info, Errno> {
        let mut head = ptr::null_mut();
        Errno::check_int(getinfo(&raw mut head))?;
        NonNull::new(head).map(|head| Info { head }).ok_or(Errno::NO_DATA)
    }

    pub(crate) fn as_ptr(&self) -> *mut sys::fi_info {
        self.head.as_ptr()
    }

    fn first(&self) -> InfoRef<'_> {
        // SAFETY: demands a valid fi_info for the life of the borrow: `self` owns it.
        InfoRef { fields: unsafe { self.head.as_ref() } }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = InfoRef<'_>> {
        iter::successors(Some(self.first()), |info| {
            // SAFETY: demands null or a valid fi_info for the life of the borrow: libfabric links
            // the list so, and `self` owns all of it.
            unsafe { info.fields.next.as_ref() }.map(|fields| InfoRef { fields })
        })
    }

    pub(crate) fn fields_mut(&mut self) -> &mut sys::fi_info {
        // SAFETY: demands a valid fi_info that nothing else refers to: owned, borrowed mutably.
        unsafe { self.head.as_mut() }
    }

    pub(crate) fn set_provider(&mut self, name: &str) -> Result<(), Errno> {
        let name = CString::new(name).map_err(|_| Errno::NO_DATA)?;
        let field = &raw mut self.fabric_mut().prov_name;
        // SAFETY: demands a string, and a field that is null or was allocated by malloc: `name`
        // lives during the call, which copies it; libfabric allocated what is in the field.
        Errno::check_int(unsafe { sys::fi_set_name(field, name.as_ptr()) })
    }

    pub(crate) fn set_domain(&mut self, name: &str) -> Result<(), Errno> {
        let name = CString::new(name).map_err(|_| Errno::NO_DATA)?;
        let field = &raw mut self.domain_mut().name;
        // SAFETY: as for `set_provider`.
        Errno::check_int(unsafe { sys::fi_set_name(field, name.as_ptr()) })
    }

    pub(crate) fn fabric_attributes(&mut self) -> *mut sys::fi_fabric_attr {
        self.fabric_mut()
    }

    pub(crate) fn provider(&self) -> String {
        self.first().provider()
    }

    pub(crate) fn domain_name(&self) -> String {
        self.first().domain_name()
    }

    /// What the provider demands of us, and `more` bits of `mr_mode` besides; or an error that
    /// names the bits that we do not know.
    pub(crate) fn mode(&self, more: c_int) -> Result<Mode, Error> {
        let first = self.first();
        Mode::of(first.domain().mr_mode | more, first.fields.mode).map_err(|unmet| Error::Unmet {
            on: self.provider(),
            mr_mode: unmet.mr_mode,
            mode: unmet.mode,
        })
    }

    pub(crate) fn address_vector_type(&self) -> sys::fi_av_type {
        match self.first().domain().av_type {
            sys::FI_AV_UNSPEC => sys::FI_AV_TABLE,
            given => given,
        }
    }

    /// How many bytes the provider keeps of a key that we choose.
    pub(crate) fn key_bytes(&self) -> usize {
        self.first().domain().mr_key_size
    }

    /// The most that one message or one read carries.
    pub(crate) fn operation_bytes_max(&self) -> usize {
        self.first().endpoint().max_msg_size
    }

    /// Whether addresses are texts, whose length varies.
    pub(crate) fn has_text_addresses(&self) -> bool {
        self.first().fields.addr_format == sys::FI_ADDR_STR
    }

    pub(crate) fn has_socket_addresses(&self) -> bool {
        [sys::FI_SOCKADDR, sys::FI_SOCKADDR_IN, sys::FI_SOCKADDR_IN6]
            .contains(&self.first().fields.addr_format)
    }

    /// How many sends and reads may be under way.
    pub(crate) fn transmit_depth(&self) -> usize {
        self.first().transmit().size
    }

    /// How many receives may be posted.
    pub(crate) fn receive_depth(&self) -> usize {
        self.first().receive().size
    }
}

impl Drop for Info {
    fn drop(&mut self) {
        // SAFETY: fi_freeinfo demands a list that libfabric allocated and that is not used again:
        // `self` owned it, and copies made of it are deep.
        unsafe { sys::fi_freeinfo(self.head.as_ptr()) }
    }
}

impl InfoRef<'_> {
    pub(crate) fn provider(self) -> String {
        // SAFETY: demands null or a string that stays for the call: libfabric's, and borrowed.
        unsafe { text(self.fabric().prov_name) }
    }

    fn domain_name(self) -> String {
        // SAFETY: as for `provider`.
        unsafe { text(self.domain().name) }
    }

    /// A copy, without those behind it.
    pub(crate) fn copy(self) -> Result<Info, Errno> {
        // SAFETY: fi_dupinfo reads a valid fi_info, which the borrow is, and copies it deeply.
        let head = unsafe { sys::fi_dupinfo(ptr::from_ref(self.fields)) };
        NonNull::new(head).map(|head| Info { head }).ok_or(Errno::NO_MEMORY)
    }
}

/// # Safety
/// Null, or a string that ends in NUL and stays for the call.
unsafe fn text(name: *const c_char) -> String {
    if name.is_null() {
        return String::new();
    }
    // SAFETY: demanded of the caller.
    unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned()
}
