//! What threads share, by the names of the standard library. With `--cfg copper_loom` loom's stand-ins
//! take their place, and `models` tries every order in which threads may come to them.

#[cfg(not(copper_loom))]
mod real {
    pub(crate) use crossbeam_queue::ArrayQueue;
    pub(crate) use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};
    pub(crate) use std::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

    use super::Bug;

    pub(crate) const fn planted(_: Bug) -> bool {
        false
    }
}

#[cfg(copper_loom)]
mod modelled;

#[cfg(copper_loom)]
pub(crate) use modelled::*;
#[cfg(not(copper_loom))]
pub(crate) use real::*;

/// A bug for the models to find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bug {
    /// The engine is woken before the question is there.
    WokenTooEarly,
    /// The engine goes to sleep without looking once more.
    NoSecondLook,
    /// An extent's holders are counted while readers can still find it.
    CountedBeforeWithdrawn,
}
