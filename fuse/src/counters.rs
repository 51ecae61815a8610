//! How often the kernel asked what. Counted with relaxed atomics: a number may be one behind
//! another that it belongs to.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// The counters of one mount. They only grow.
        #[derive(Debug, Default)]
        pub struct Counters {
            $($(#[$doc])* pub(crate) $name: Counter,)*
        }

        /// [`Counters`] at one moment. The names are the keys of `copper status --json` and stay.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct CounterValues {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl Counters {
            /// The counters as they are now.
            pub fn snapshot(&self) -> CounterValues {
                CounterValues { $($name: self.$name.get(),)* }
            }
        }

        impl CounterValues {
            /// Every counter with its name, in the order of this file.
            pub fn list(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name),)*]
            }
        }
    };
}

counters! {
    /// LOOKUP: a name in a directory.
    lookup,
    /// FORGET and BATCH_FORGET, in inodes given back.
    forget,
    /// GETATTR.
    getattr,
    /// READLINK.
    readlink,
    /// OPEN: once where the kernel then stops asking.
    open,
    /// READ.
    read,
    /// RELEASE.
    release,
    /// OPENDIR: once where the kernel then stops asking.
    opendir,
    /// READDIR.
    readdir,
    /// READDIRPLUS.
    readdirplus,
    /// RELEASEDIR.
    releasedir,
    /// STATFS.
    statfs,
    /// ACCESS: none, the kernel checks permissions itself.
    access,
    /// GETXATTR: one extended attribute.
    getxattr,
    /// LISTXATTR: the names of them.
    listxattr,
    /// LSEEK: the next data or hole of a file.
    lseek,
    /// IOCTL: mostly `isatty`.
    ioctl,
    /// Everything that would change the view; answered EROFS.
    mutation,
    /// Everything else.
    other,
    /// Look-ups answered with "no such file".
    negative,
    /// Requests answered at once from what the node holds.
    inline,
    /// Requests handed to the engine.
    asked,
    /// Requests answered with an errno other than ENOENT that the engine, the source or the
    /// watchdog chose.
    errors,
    /// Requests that the watchdog answered because nobody else did.
    expired,
    /// Names and directories that the kernel was told to forget.
    invalidations,
    /// Ranges of pages that were put into the kernel's cache before it asked.
    stores,
    /// Bytes of them.
    store_bytes,
    /// Opens that were handed to the kernel with a backing file.
    passthrough,
    /// Backing files that were made.
    backings,
    /// Bytes that were copied into them.
    backing_bytes,
    /// Backing files that could not be made, so that their file was opened plainly.
    backings_failed,
    /// Bytes of READ replies.
    read_bytes,
    /// The largest READ so far, in bytes: what the kernel makes of the read-ahead it was granted.
    read_request_bytes_max,
}

/// One number that many threads add to.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn count(&self) {
        self.add(1);
    }

    pub(crate) fn add(&self, amount: u64) {
        self.0.fetch_add(amount, Ordering::Relaxed);
    }

    pub(crate) fn raise(&self, value: u64) {
        // Mostly it is as large already, and nobody else's cache line has to be taken.
        if self.0.load(Ordering::Relaxed) < value {
            self.0.fetch_max(value, Ordering::Relaxed);
        }
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_values_belong_to_them() {
        let counters = Counters::default();
        counters.lookup.count();
        counters.read_bytes.add(4096);
        let values = counters.snapshot();
        assert_eq!((values.lookup, values.read_bytes, values.expired), (1, 4096, 0));
        let list = values.list();
        assert!(list.contains(&("lookup", 1)) && list.contains(&("read_bytes", 4096)));
        let names: std::collections::HashSet<&str> = list.iter().map(|(name, _)| *name).collect();
        assert_eq!(names.len(), list.len());
    }
}
