//! Identifiers: a newtype each, so that no two can be confused.

use std::fmt;

macro_rules! identifier {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(formatter)
            }
        }
    };
}

identifier! {
    /// A daemon's number within its job, from 0; MPI's word.
    Rank(u32)
}
identifier! {
    /// One of the trees over a job's ranks, from 0.
    TreeIndex(u32)
}
identifier! {
    /// One established connection to another rank; never reused within a daemon's life.
    LinkId(u32)
}
identifier! {
    /// A child's question on one link, until it is answered.
    RequestId(u32)
}
identifier! {
    /// A parent's promise on one link not to recycle an extent.
    LeaseId(u32)
}
identifier! {
    /// How many refreshes a rank has taken in: the root counts them, everybody else follows.
    #[derive(Default)]
    Epoch(u64)
}
identifier! {
    /// A local reader's question, until it is answered.
    Ticket(u64)
}
identifier! {
    /// One RMA read (or one copy out of a message) into an extent; unlike any other of its rank that
    /// is under way.
    PullId(u32)
}
identifier! {
    /// One read of the source; unlike any other of its rank that is under way.
    JobId(u32)
}
