//! The FUSE frontend: one call in, one reply out.
//!
//! It knows the kernel's side (mounting, the FUSE protocol through fuser, what to ask the kernel to
//! cache) and an engine only as a [`View`](copper_engine::View). It knows no path, no parent and no
//! fabric.
//!
//! A daemon does, in this order: [`Guardian::start`] (before anything registers memory),
//! [`Pending::new`], the engine with that as its `Answers`, [`Mounted::start`], [`Guardian::arm`];
//! and at the end [`Mounted::unmount`], [`Guardian::dismiss`].
//!
//! Read in this order: [`pending`] (replies that wait), [`session`] (a mount's life), `frontend`
//! (the calls), [`mount`] and [`mount_table`] (mount points), [`guardian`] (what a `kill -9` leaves).

#![forbid(unsafe_code)]

mod attributes;
mod backings;
pub mod connection;
pub mod controls;
pub mod counters;
mod frontend;
pub mod guardian;
pub mod histogram;
pub mod hot_paths;
mod invalidations;
pub mod kernel;
mod listers;
pub mod mount;
pub mod mount_point;
pub mod mount_table;
pub mod operations;
pub mod passthrough;
pub mod pending;
pub mod session;
mod stores;
mod watchdog;

pub use controls::Controls;
pub use counters::{CounterValues, Counters};
pub use guardian::{Guardian, GuardianEnd, GuardianError};
pub use histogram::Latency;
pub use hot_paths::{Category, HotPaths, Leader, PathCounts};
pub use kernel::{Feature, KernelFeatures, Negotiated};
pub use mount::{MountError, MountOptions, UnmountError, Unmounted};
pub use mount_point::{MountPointError, Prepared};
pub use mount_table::{DeviceId, Mount, MountId, MountTable};
pub use operations::{Operation, OperationValues, Operations};
pub use passthrough::{Passthrough, PassthroughBounds, Refusal};
pub use pending::Pending;
pub use session::{Mounted, SessionEnd, SessionError, Settings};
