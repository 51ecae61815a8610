//! The errno values that travel between ranks, as Linux numbers them (`errno(3)`).

use std::fmt;

/// A Linux errno; never zero.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Errno(pub i32);

macro_rules! errnos {
    ($($(#[$doc:meta])* $name:ident = $value:literal;)*) => {
        impl Errno {
            $($(#[$doc])* pub const $name: Errno = Errno($value);)*

            /// The symbolic name, where this table has one.
            pub fn name(self) -> Option<&'static str> {
                match self.0 {
                    $($value => Some(stringify!($name)),)*
                    _ => None,
                }
            }
        }
    };
}

errnos! {
    /// Not permitted.
    EPERM = 1;
    /// No such file: the only errno that is ever remembered.
    ENOENT = 2;
    /// Input or output failed: a peer was lost, a checksum did not match.
    EIO = 5;
    /// No such offset: no data behind it.
    ENXIO = 6;
    /// The daemon is not able to take the request now.
    EAGAIN = 11;
    /// No extent could be had.
    ENOMEM = 12;
    /// Not permitted by mode, or outside the allowed roots.
    EACCES = 13;
    /// A component is not a directory.
    ENOTDIR = 20;
    /// Is a directory.
    EISDIR = 21;
    /// An argument that makes no sense.
    EINVAL = 22;
    /// Not a terminal; an ioctl that is not known.
    ENOTTY = 25;
    /// Larger than the protocol carries.
    EFBIG = 27;
    /// The view is read-only.
    EROFS = 30;
    /// The answer does not fit the caller's buffer.
    ERANGE = 34;
    /// A name over 255 bytes, a path over [`crate::limits::PATH_BYTES_MAX`].
    ENAMETOOLONG = 36;
    /// Not implemented: the kernel stops asking.
    ENOSYS = 38;
    /// Too many links on the way.
    ELOOP = 40;
    /// No such extended attribute.
    ENODATA = 61;
    /// The other side speaks another protocol.
    EPROTO = 71;
    /// Not supported.
    EOPNOTSUPP = 95;
    /// No answer within the request's bound.
    ETIMEDOUT = 110;
    /// The source changed after its attributes were read.
    ESTALE = 116;
}

impl fmt::Debug for Errno {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => formatter.write_str(name),
            None => write!(formatter, "errno {}", self.0),
        }
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, formatter)
    }
}
