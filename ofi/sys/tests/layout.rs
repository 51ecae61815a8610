//! The structures as the C compiler lays them out and as Rust does.

use std::ffi::CStr;
use std::mem::{offset_of, size_of};

use libfabric_sys as sys;

/// What C says of "struct" or "struct.field".
fn in_c(name: &CStr) -> usize {
    // SAFETY: fi_layout reads a string that ends in NUL: `name` is one.
    unsafe { sys::fi_layout(name.as_ptr()) }
}

macro_rules! assert_layout {
    ($($type:ident { $($field:ident),* })*) => {$(
        let name = concat!(stringify!($type), "\0");
        let name = CStr::from_bytes_with_nul(name.as_bytes()).expect("one NUL, at the end");
        assert_eq!(in_c(name), size_of::<sys::$type>(), "size of {name:?}");
        $(
            let name = concat!(stringify!($type), ".", stringify!($field), "\0");
            let name = CStr::from_bytes_with_nul(name.as_bytes()).expect("one NUL, at the end");
            assert_eq!(in_c(name), offset_of!(sys::$type, $field), "offset of {name:?}");
        )*
    )*};
}

#[test]
fn structures_have_the_layout_that_c_gives_them() {
    assert_layout! {
        fi_context2 {}
        fi_info {
            next, caps, mode, addr_format, tx_attr, rx_attr, ep_attr, domain_attr, fabric_attr
        }
        fi_tx_attr { size }
        fi_rx_attr { size }
        fi_domain_attr { name, threading, av_type, mr_mode, mr_key_size }
        fi_fabric_attr { name, prov_name }
        fi_av_attr {}
        fi_cq_attr { size, format, wait_obj }
        fi_cq_msg_entry { op_context, flags, len }
        fi_cq_err_entry { op_context, err, prov_errno, err_data, err_data_size }
    }
    assert_eq!(in_c(c"fi_ep_attr"), size_of::<sys::fi_ep_attr>());
    assert_eq!(in_c(c"fi_ep_attr.type"), offset_of!(sys::fi_ep_attr, type_));
    assert_eq!(in_c(c"fi_ep_attr.max_msg_size"), offset_of!(sys::fi_ep_attr, max_msg_size));
    assert_eq!(in_c(c"fi_av_attr.type"), offset_of!(sys::fi_av_attr, type_));
}

#[test]
fn a_name_that_c_does_not_know_is_found_out() {
    assert_eq!(in_c(c"fi_info.nonsense"), usize::MAX);
}

#[test]
fn a_context_has_the_size_that_the_man_page_gives() {
    assert_eq!(size_of::<sys::fi_context2>(), 64, "eight pointers, man 3 fi_endpoint");
}

#[test]
fn constants_keep_their_width() {
    assert_eq!(sys::FI_ADDR_UNSPEC, u64::MAX);
    assert_eq!(sys::FI_KEY_NOTAVAIL, u64::MAX);
    assert_eq!(sys::FI_CONTEXT, 1 << 59);
    assert_eq!(sys::FI_SOURCE, 1 << 57);
    assert_eq!(sys::FI_MR_ENDPOINT, 1 << 9);
}

#[test]
fn the_library_is_not_older_than_the_headers() {
    // SAFETY: fi_version takes nothing and demands nothing.
    let runtime = unsafe { sys::fi_version() };
    assert!(runtime >= sys::FI_API_VERSION, "{runtime:#x} < {:#x}", sys::FI_API_VERSION);
}
