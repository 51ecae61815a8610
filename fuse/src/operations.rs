//! What became of each call: one registry for a mount, one row for each operation.
//!
//! A call that asks for an object is a *hit* if this node held the answer, else a *miss*; whether it
//! was a success does not matter for that. That something does not exist is a *negative* beside it,
//! any other errno an *error*. A call that no object is behind (to open, to close, an ioctl) is
//! neither hit nor miss. So `hits + misses <= calls`, and for what asks for objects they are equal.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use copper_engine::Provenance;

use crate::histogram::{Histogram, Latency};

macro_rules! operations {
    ($($(#[$doc:meta])* $variant:ident $name:literal,)*) => {
        /// What the kernel asks.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Operation {
            $($(#[$doc])* $variant,)*
        }

        impl Operation {
            /// All of them, in the order of the tables.
            pub const ALL: &[Operation] = &[$(Operation::$variant,)*];

            /// As it is called in tables and log lines. These names stay.
            pub fn name(self) -> &'static str {
                match self {
                    $(Operation::$variant => $name,)*
                }
            }
        }
    };
}

operations! {
    /// INIT: once for a mount.
    Init "init",
    /// LOOKUP: a name in a directory.
    Lookup "lookup",
    /// GETATTR.
    Getattr "getattr",
    /// READLINK.
    Readlink "readlink",
    /// OPEN: once where the kernel then stops asking.
    Open "open",
    /// READ.
    Read "read",
    /// RELEASE.
    Release "release",
    /// OPENDIR: once where the kernel then stops asking.
    Opendir "opendir",
    /// READDIR.
    Readdir "readdir",
    /// READDIRPLUS.
    Readdirplus "readdirplus",
    /// RELEASEDIR.
    Releasedir "releasedir",
    /// STATFS: always fetched.
    Statfs "statfs",
    /// ACCESS.
    Access "access",
    /// GETXATTR.
    Getxattr "getxattr",
    /// LISTXATTR.
    Listxattr "listxattr",
    /// LSEEK for data or holes.
    Lseek "lseek",
    /// IOCTL: mostly `isatty`.
    Ioctl "ioctl",
    /// Everything that would change the view.
    Mutation "mutation",
    /// Everything else.
    Other "other",
    /// DESTROY: the end of a mount.
    Destroy "destroy",
}

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// With what was asked for.
    Well,
    /// With the answer that there is no such thing.
    Negative,
    /// The same, by an answer that holds for a time only: no listing proves it.
    NegativeForNow,
    /// With an errno.
    Failed,
    /// Not yet: the reply was put away again.
    Later,
}

/// One row.
#[derive(Debug, Default)]
struct Row {
    hits: AtomicU64,
    misses: AtomicU64,
    negatives: AtomicU64,
    errors: AtomicU64,
    latency: Histogram,
}

/// What became of the calls of one mount. It only grows.
#[derive(Debug)]
pub struct Operations(Box<[Row]>);

impl Default for Operations {
    fn default() -> Operations {
        Operations(Operation::ALL.iter().map(|_| Row::default()).collect())
    }
}

impl Operations {
    /// Counts a call that has ended. `provenance` is that of its object, if it asks for one.
    pub(crate) fn record(
        &self,
        operation: Operation,
        provenance: Option<Provenance>,
        ended: Ended,
        took: Duration,
    ) {
        let row = &self.0[operation as usize];
        let count = |counter: &AtomicU64| {
            counter.fetch_add(1, Relaxed);
        };
        match provenance {
            Some(Provenance::Held) => count(&row.hits),
            Some(Provenance::Fetched) => count(&row.misses),
            None => {}
        }
        match ended {
            Ended::Well => {}
            Ended::Negative | Ended::NegativeForNow => count(&row.negatives),
            Ended::Failed => count(&row.errors),
            Ended::Later => unreachable!("it has not ended"),
        }
        row.latency.record(took);
    }

    /// Counts a call without an object that was answered at once.
    pub(crate) fn local(&self, operation: Operation, ended: Ended, started: Instant) {
        self.record(operation, None, ended, started.elapsed());
    }

    /// All rows as they are now, in the order of [`Operation::ALL`].
    pub fn snapshot(&self) -> Vec<OperationValues> {
        let row = |(operation, row): (&Operation, &Row)| OperationValues {
            operation: *operation,
            hits: row.hits.load(Relaxed),
            misses: row.misses.load(Relaxed),
            negatives: row.negatives.load(Relaxed),
            errors: row.errors.load(Relaxed),
            latency: row.latency.snapshot(),
        };
        Operation::ALL.iter().zip(&self.0).map(row).collect()
    }
}

/// A row of [`Operations`] at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OperationValues {
    /// Of what.
    pub operation: Operation,
    /// Answered from what this node held.
    pub hits: u64,
    /// Answered with what had to be fetched.
    pub misses: u64,
    /// Answered that there is no such thing.
    pub negatives: u64,
    /// Answered with another errno.
    pub errors: u64,
    /// How long they took, and so how many there were.
    pub latency: Latency,
}

impl OperationValues {
    /// Calls that have ended.
    pub fn calls(&self) -> u64 {
        self.latency.count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_counted_in_its_row_alone() {
        let operations = Operations::default();
        let took = Duration::from_micros(10);
        operations.record(Operation::Lookup, Some(Provenance::Held), Ended::Negative, took);
        operations.record(Operation::Lookup, Some(Provenance::Fetched), Ended::Well, took);
        operations.record(Operation::Read, Some(Provenance::Fetched), Ended::Failed, took);
        operations.record(Operation::Ioctl, None, Ended::Failed, took);
        let told: Vec<_> = operations
            .snapshot()
            .iter()
            .filter(|row| row.calls() > 0)
            .map(|row| {
                (row.operation, row.calls(), row.hits, row.misses, row.negatives, row.errors)
            })
            .collect();
        let lookup = (Operation::Lookup, 2, 1, 1, 1, 0);
        assert_eq!(
            told,
            [lookup, (Operation::Read, 1, 0, 1, 0, 1), (Operation::Ioctl, 1, 0, 0, 0, 1)]
        );
    }

    #[test]
    fn names_are_unique() {
        let names: std::collections::HashSet<_> =
            Operation::ALL.iter().map(|operation| operation.name()).collect();
        assert_eq!(names.len(), Operation::ALL.len());
    }
}
