//! What threads share, by its name in the standard library. With `--cfg copper_loom` loom's stand-in
//! takes its place, and `arena/models.rs` tries every order in which threads may come to it.

#[cfg(copper_loom)]
pub(crate) use loom::sync::atomic::AtomicU64;
#[cfg(not(copper_loom))]
pub(crate) use std::sync::atomic::AtomicU64;

/// A bug for the models to find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bug {
    /// A page's next owner need not see what the last one did.
    RelaxedRelease,
    /// A claim that fails frees the pages over which it failed.
    OthersCleared,
}

#[cfg(copper_loom)]
thread_local! {
    // Loom runs all threads of a model on the one that began it.
    static PLANTED: std::cell::Cell<Option<Bug>> = const { std::cell::Cell::new(None) };
}

/// The models of this thread have this bug from now on.
#[cfg(all(test, copper_loom))]
pub(crate) fn plant(bug: Bug) {
    PLANTED.set(Some(bug));
}

#[cfg(copper_loom)]
pub(crate) fn planted(bug: Bug) -> bool {
    PLANTED.get() == Some(bug)
}

#[cfg(not(copper_loom))]
pub(crate) const fn planted(_: Bug) -> bool {
    false
}
