//! What can fail at the fabric: what was tried, on what, and why.

use std::ffi::{CStr, c_int};
use std::{fmt, io};

use libfabric_sys as sys;

/// A libfabric error number: an errno of the system, or one of libfabric's own from 256 up
/// (man 3 fi_errno).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Errno(c_int);

impl Errno {
    /// More room or more progress is needed first.
    pub const AGAIN: Errno = Errno(sys::FI_EAGAIN);
    /// Nothing there that answers to what was asked for.
    pub const NO_DATA: Errno = Errno(sys::FI_ENODATA);
    /// The operation was ended before it was done.
    pub const CANCELED: Errno = Errno(sys::FI_ECANCELED);
    /// The provider does not have this call or option.
    pub const NO_SYS: Errno = Errno(sys::FI_ENOSYS);
    /// A failed operation waits to be reaped by fi_cq_readerr.
    pub(crate) const AVAIL: Errno = Errno(sys::FI_EAVAIL);
    pub(crate) const TOO_SMALL: Errno = Errno(sys::FI_ETOOSMALL);
    pub(crate) const INVALID: Errno = Errno(sys::FI_EINVAL);
    pub(crate) const IO: Errno = Errno(sys::FI_EIO);
    pub(crate) const NO_MEMORY: Errno = Errno(sys::FI_ENOMEM);

    /// The positive number.
    pub fn number(self) -> i32 {
        self.0
    }

    /// From what a completion carries, which some providers give negated.
    pub(crate) fn of_completion(number: c_int) -> Errno {
        match number {
            0 => Errno::IO,
            number => Errno(number.saturating_abs()),
        }
    }

    /// From what a call returned: libfabric returns negated error numbers and counts.
    pub(crate) fn check(returned: isize) -> Result<usize, Errno> {
        usize::try_from(returned)
            .map_err(|_| Errno(c_int::try_from(returned.saturating_neg()).unwrap_or(sys::FI_EIO)))
    }

    /// As [`check`](Errno::check), for the calls that return an `int`.
    pub(crate) fn check_int(returned: c_int) -> Result<(), Errno> {
        if returned < 0 { Err(Errno(returned.saturating_neg())) } else { Ok(()) }
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // SAFETY: fi_strerror takes any number and returns a string or null.
        let text = unsafe { sys::fi_strerror(self.0) };
        if text.is_null() {
            return write!(f, "error {}", self.0);
        }
        // SAFETY: demands a string that ends in NUL and stays while it is read:
        // - fi_strerror returns one from a constant table, or strerror's buffer;
        // - that buffer is read at once, and only another strerror on this thread rewrites it.
        let text = unsafe { CStr::from_ptr(text) };
        write!(f, "{} ({})", text.to_string_lossy(), self.0)
    }
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Errno {}

/// What failed at the fabric.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The arena could not be mapped.
    #[error("cannot map {bytes} bytes of memory for the arena; ask for less with --memory")]
    Map {
        /// The arena's length.
        bytes: usize,
        /// What the kernel said.
        source: io::Error,
    },
    /// The provider wants physical pages behind the memory, and there were not enough.
    #[error("cannot back {bytes} bytes with physical memory; ask for less with --memory")]
    Populate {
        /// How many bytes.
        bytes: usize,
        /// What the kernel said.
        source: io::Error,
    },
    /// No provider answers to what was asked for.
    #[error(
        "no libfabric provider `{asked}` with reliable messages and remote reads; this machine \
         has: {available}; try `--net tcp`"
    )]
    NoProvider {
        /// `--net` as asked for.
        asked: String,
        /// The names of the providers that would do.
        available: String,
        /// What fi_getinfo answered.
        source: Errno,
    },
    /// The provider cannot use the local address that was asked for.
    #[error(
        "provider {provider} cannot bind to {address}; is it an address of this machine \
         (`ip address`)?"
    )]
    Bind {
        /// The provider.
        provider: String,
        /// The address asked for.
        address: String,
        /// What fi_getinfo answered.
        source: Errno,
    },
    /// A setting is beyond what the provider takes.
    #[error("{what} = {asked} is more than the {most} that provider {provider} takes")]
    TooMany {
        /// The provider.
        provider: String,
        /// The setting.
        what: &'static str,
        /// Its value.
        asked: usize,
        /// The provider's bound.
        most: usize,
    },
    /// A setting must be at least one.
    #[error("{what} must be at least 1")]
    Zero {
        /// The setting.
        what: &'static str,
    },
    /// The provider demands something of us that we do not know.
    #[error("provider {on} demands modes that Copper does not know: {mr_mode:#x}, {mode:#x}")]
    Unmet {
        /// The provider.
        on: String,
        /// Bits of `domain_attr.mr_mode`.
        mr_mode: i32,
        /// Bits of `mode`.
        mode: u64,
    },
    /// CXI gives this process no access to the network.
    #[error(
        "{on} gives this process no access to the network: it has no virtual network id of a \
         job; start Copper by mpiexec or srun inside of the job, not by ssh"
    )]
    NoAccess {
        /// Provider and domain.
        on: String,
        /// What fi_domain returned.
        source: Errno,
    },
    /// A call of libfabric failed.
    #[error("{call} failed on {on}")]
    Call {
        /// libfabric's name of the call; its man page says more.
        call: &'static str,
        /// Provider and domain.
        on: String,
        /// What it returned.
        source: Errno,
    },
    /// A posted operation failed.
    #[error("{operation} failed on {on}: {detail}")]
    Operation {
        /// "send", "receive" or "read".
        operation: &'static str,
        /// Provider and domain.
        on: String,
        /// The provider's own text.
        detail: String,
        /// The error number of the completion.
        source: Errno,
    },
    /// A peer's address does not have the shape of this provider's addresses.
    #[error("a peer's fabric address has {len} bytes where {on} has {expected}")]
    Address {
        /// Provider and domain.
        on: String,
        /// The length given.
        len: usize,
        /// The length of this endpoint's own address.
        expected: usize,
    },
    /// The provider reported an operation that was never posted.
    #[error("provider {on} reported an operation that was never posted")]
    Foreign {
        /// Provider and domain.
        on: String,
    },
}

impl Error {
    /// The error number at the root of it, if libfabric gave one.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Error::NoProvider { source, .. }
            | Error::Bind { source, .. }
            | Error::NoAccess { source, .. }
            | Error::Call { source, .. }
            | Error::Operation { source, .. } => Some(*source),
            Error::Map { .. }
            | Error::Populate { .. }
            | Error::TooMany { .. }
            | Error::Zero { .. }
            | Error::Unmet { .. }
            | Error::Address { .. }
            | Error::Foreign { .. } => None,
        }
    }
}

/// Why an operation was not posted. Nothing of it is under way.
#[derive(Debug, thiserror::Error)]
pub enum PostError {
    /// No buffer or no room in a queue just now, or the peer is being connected to: poll, then
    /// try again, bounded by a deadline. A peer that died can answer this for ever (native tcp).
    #[error("the fabric is busy")]
    Busy,
    /// More bytes than one operation carries.
    #[error("{len} bytes are more than the {max} of one operation")]
    TooLong {
        /// The bytes asked for.
        len: usize,
        /// The most that one operation carries.
        max: usize,
    },
    /// The provider refuses the operation.
    #[error(transparent)]
    Refused(Error),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_number_has_its_text_and_number() {
        assert_eq!(Errno(sys::FI_ENODATA).to_string(), "No data available (61)");
    }

    #[test]
    fn returned_values_are_counts_or_negated_errors() {
        assert_eq!(Errno::check(3), Ok(3));
        assert_eq!(Errno::check(-(sys::FI_EAGAIN as isize)), Err(Errno::AGAIN));
        assert_eq!(Errno::check(isize::MIN), Err(Errno::IO));
        assert_eq!(Errno::check_int(-sys::FI_ENOSYS), Err(Errno::NO_SYS));
        assert_eq!(Errno::of_completion(-5), Errno::of_completion(5));
    }
}
