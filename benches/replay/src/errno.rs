//! Errors by name: strace and traces write `ENOENT`, the kernel answers a number.

use rustix::io::Errno;

/// What a call on a path, or on a file that was opened for reading, may answer.
const NAMES: &[(&str, Errno)] = &[
    ("EPERM", Errno::PERM),
    ("ENOENT", Errno::NOENT),
    ("EIO", Errno::IO),
    ("ENXIO", Errno::NXIO),
    ("EBADF", Errno::BADF),
    ("EAGAIN", Errno::AGAIN),
    ("ENOMEM", Errno::NOMEM),
    ("EACCES", Errno::ACCESS),
    ("EFAULT", Errno::FAULT),
    ("EBUSY", Errno::BUSY),
    ("EEXIST", Errno::EXIST),
    ("ENODEV", Errno::NODEV),
    ("ENOTDIR", Errno::NOTDIR),
    ("EISDIR", Errno::ISDIR),
    ("EINVAL", Errno::INVAL),
    ("ENFILE", Errno::NFILE),
    ("EMFILE", Errno::MFILE),
    ("ENOTTY", Errno::NOTTY),
    ("ETXTBSY", Errno::TXTBSY),
    ("EFBIG", Errno::FBIG),
    ("ENOSPC", Errno::NOSPC),
    ("ESPIPE", Errno::SPIPE),
    ("EROFS", Errno::ROFS),
    ("ERANGE", Errno::RANGE),
    ("ENAMETOOLONG", Errno::NAMETOOLONG),
    ("ENOSYS", Errno::NOSYS),
    ("ELOOP", Errno::LOOP),
    ("ENODATA", Errno::NODATA),
    ("EREMOTE", Errno::REMOTE),
    ("EPROTO", Errno::PROTO),
    ("EOVERFLOW", Errno::OVERFLOW),
    ("EOPNOTSUPP", Errno::OPNOTSUPP),
    ("ENOBUFS", Errno::NOBUFS),
    ("ENOTCONN", Errno::NOTCONN),
    ("ETIMEDOUT", Errno::TIMEDOUT),
    ("ECONNREFUSED", Errno::CONNREFUSED),
    ("EHOSTDOWN", Errno::HOSTDOWN),
    ("EHOSTUNREACH", Errno::HOSTUNREACH),
    ("ESTALE", Errno::STALE),
    ("EDQUOT", Errno::DQUOT),
    ("EKEYEXPIRED", Errno::KEYEXPIRED),
    ("EHWPOISON", Errno::HWPOISON),
];

pub(crate) fn of_name(name: &str) -> Option<Errno> {
    NAMES.iter().find(|(known, _)| *known == name).map(|(_, errno)| *errno)
}

/// The name, or `errno N` for one that no trace can hold.
pub(crate) fn name(errno: Errno) -> String {
    match NAMES.iter().find(|(_, known)| *known == errno) {
        Some((name, _)) => (*name).to_owned(),
        None => format!("errno {}", errno.raw_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_comes_back() {
        for (text, errno) in NAMES {
            assert_eq!(of_name(text), Some(*errno));
            assert_eq!(name(*errno), *text);
        }
        assert_eq!(of_name("ERESTARTSYS"), None);
    }
}
