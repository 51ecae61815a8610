//! One request: when it came, what a log line and the counters say of it.

use std::time::Instant;

use copper_engine::Provenance;
use copper_proto::{Errno, ViewPath};
use fuser::{INodeNo, Request};
use tracing::{debug, warn};

use crate::attributes::kernel_errno;
use crate::counters::Counters;
use crate::hot_paths::{Category, HotPaths};
use crate::operations::{Ended, Operation, Operations};

/// One request of the kernel.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    operation: Operation,
    /// The kernel's number of the request.
    pub(crate) request: u64,
    inode: u64,
    started: Instant,
    /// Where its object came from, as far as that is known.
    pub(crate) provenance: Provenance,
    /// What it is about, if paths are counted.
    pub(crate) path: Option<CallPath>,
}

/// What a request is about.
#[derive(Clone, Debug)]
pub(crate) enum CallPath {
    /// An inode's path.
    Inode(ViewPath),
    /// That of a name in one.
    Name(Vec<u8>),
}

impl CallPath {
    fn as_bytes(&self) -> &[u8] {
        match self {
            CallPath::Inode(path) => path.as_bytes(),
            CallPath::Name(path) => path,
        }
    }
}

impl Call {
    pub(crate) fn new(operation: Operation, request: &Request, inode: INodeNo) -> Call {
        Call {
            operation,
            request: request.unique().0,
            inode: inode.0,
            started: Instant::now(),
            provenance: Provenance::Held,
            path: None,
        }
    }

    /// It is about a name in its inode, a directory.
    pub(crate) fn name(&mut self, name: &[u8]) {
        if let Some(directory) = &self.path {
            let directory = directory.as_bytes();
            let slash: &[u8] = if directory.is_empty() { b"" } else { b"/" };
            self.path = Some(CallPath::Name([directory, slash, name].concat()));
        }
    }

    /// Counts it, if it has ended.
    pub(crate) fn ended(self, operations: &Operations, paths: Option<&HotPaths>, ended: Ended) {
        if ended == Ended::Later {
            return;
        }
        let Call { operation, started, provenance, path, .. } = self;
        // What is opened, and what the daemon is told to do, has no object.
        let asks = !matches!(operation, Operation::Open | Operation::Ioctl);
        let took = started.elapsed();
        operations.record(operation, asks.then_some(provenance), ended, took);
        if let (Some(paths), Some(path), Some(category)) = (paths, path, Category::of(operation)) {
            paths.record(category, path.as_bytes(), provenance, ended, took);
        }
    }

    /// Counts and logs an errno, and replies with it. That a name does not exist, may not be read or
    /// is no directory is an answer like any other; that the daemon could not do its work is a failure.
    pub(crate) fn fail(
        &self,
        counters: &Counters,
        errno: Errno,
        reply: impl FnOnce(fuser::Errno),
    ) -> Ended {
        let Call { operation, request, inode, .. } = *self;
        let operation = operation.name();
        if errno != Errno::ENOENT {
            counters.errors.count();
            if is_answer(errno) {
                debug!(operation, request, inode, %errno, "request answered with an errno");
            } else {
                warn!(operation, request, inode, %errno, "request failed");
            }
        }
        reply(kernel_errno(errno));
        match errno {
            Errno::ENOENT | Errno::ENODATA => Ended::Negative,
            _ => Ended::Failed,
        }
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
