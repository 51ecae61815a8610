//! Bindings of the installed libfabric: the structures and calls that Copper uses, and no others.
//!
//! libfabric's calls are mostly inline C functions over tables of pointers; `shim.c` gives them
//! symbols. Names are libfabric's own, and so is their documentation: `man 7 fabric`,
//! `man 3 fi_endpoint` and so on. [`FI_API_VERSION`] is the version of the headers compiled
//! against and the one to hand to [`fi_getinfo`]: the library sizes what it writes by it.

#[allow(
    clippy::all,
    clippy::multiple_unsafe_ops_per_block,
    clippy::undocumented_unsafe_blocks,
    missing_docs,
    non_camel_case_types,
    non_upper_case_globals,
    unreachable_pub,
    unsafe_op_in_unsafe_fn,
    unused_qualifications
)]
mod bindings {
    include!(concat!(env!("OUT_DIR"), "/bindings.rs"));
}

pub use bindings::*;
