//! What a log line says of a request.

use copper_proto::Errno;
use fuser::{INodeNo, Request};
use tracing::{debug, warn};

use crate::attributes::kernel_errno;
use crate::counters::Counters;

/// One request of the kernel.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Call {
    operation: &'static str,
    /// The kernel's number of the request.
    pub(crate) request: u64,
    inode: u64,
}

impl Call {
    pub(crate) fn new(operation: &'static str, request: &Request, inode: INodeNo) -> Call {
        Call { operation, request: request.unique().0, inode: inode.0 }
    }

    /// Counts and logs an errno that is about to be the answer, and gives it as the kernel's. That a
    /// name does not exist, may not be read or is no directory is an answer like any other; that
    /// the daemon could not do its work is a failure.
    pub(crate) fn failed(&self, counters: &Counters, errno: Errno) -> fuser::Errno {
        let Call { operation, request, inode } = *self;
        if errno != Errno::ENOENT {
            counters.errors.count();
            if is_answer(errno) {
                debug!(operation, request, inode, %errno, "request answered with an errno");
            } else {
                warn!(operation, request, inode, %errno, "request failed");
            }
        }
        kernel_errno(errno)
    }
}

fn is_answer(errno: Errno) -> bool {
    matches!(
        errno,
        Errno::EPERM
            | Errno::EACCES
            | Errno::ENOTDIR
            | Errno::EISDIR
            | Errno::EINVAL
            | Errno::ENAMETOOLONG
            | Errno::ELOOP
            | Errno::ENODATA
            | Errno::ENXIO
            | Errno::ERANGE
            | Errno::EOPNOTSUPP
    )
}
