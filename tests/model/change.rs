//! What would change a view. It is asked of the view alone, and never through a link that leads out
//! of it to the source.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, UTIME_NOW, Uid,
    XattrFlags,
};
use rustix::io::Errno;

use crate::support::Random;

#[derive(Clone, Copy, Debug)]
pub(crate) enum Change {
    MakeDirectory,
    MakeFifo,
    MakeLink,
    MakeHardLink,
    Remove,
    RemoveDirectory,
    Rename,
    Owner,
    Times,
    SetAttribute,
    Open(OFlags),
}

impl Change {
    pub(crate) fn random(random: &mut Random) -> Change {
        let flags = [
            OFlags::WRONLY,
            OFlags::RDWR,
            OFlags::WRONLY | OFlags::TRUNC,
            OFlags::RDWR | OFlags::APPEND,
            OFlags::RDONLY | OFlags::CREATE,
            OFlags::WRONLY | OFlags::CREATE,
            OFlags::RDWR | OFlags::CREATE | OFlags::EXCL,
            OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC,
            OFlags::RDONLY | OFlags::TRUNC,
            OFlags::RDWR | OFlags::NOFOLLOW,
            OFlags::RDWR | OFlags::DIRECTORY,
        ];
        let changes = [
            Change::MakeDirectory,
            Change::MakeFifo,
            Change::MakeLink,
            Change::MakeHardLink,
            Change::Remove,
            Change::RemoveDirectory,
            Change::Rename,
            Change::Owner,
            Change::Times,
            Change::SetAttribute,
        ];
        match random.below(2) {
            0 => Change::Open(flags[random.below(flags.len() as u64) as usize]),
            _ => changes[random.below(changes.len() as u64) as usize],
        }
    }

    /// Asks for the change at a path below `top`, and for nothing beyond its mount.
    pub(crate) fn ask(self, top: &OwnedFd, path: &[u8]) -> Result<(), Errno> {
        let inside = ResolveFlags::NO_XDEV | ResolveFlags::NO_MAGICLINKS;
        if let Change::Open(flags) = self {
            let creates = flags.contains(OFlags::CREATE);
            let mode = if creates { Mode::from_raw_mode(0o644) } else { Mode::empty() };
            let flags = flags | OFlags::NONBLOCK | OFlags::CLOEXEC;
            return rustix::fs::openat2(top, OsStr::from_bytes(path), flags, mode, inside)
                .map(drop);
        }
        let (parent, name) = split(path);
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let parent = OsStr::from_bytes(parent);
        let parent = rustix::fs::openat2(top, parent, flags, Mode::empty(), inside)?;
        self.at(&parent, OsStr::from_bytes(name))
    }

    fn at(self, parent: &OwnedFd, name: &OsStr) -> Result<(), Errno> {
        let none = AtFlags::empty();
        let mode = Mode::from_raw_mode(0o755);
        match self {
            Change::MakeDirectory => rustix::fs::mkdirat(parent, name, mode),
            Change::MakeFifo => rustix::fs::mknodat(parent, name, FileType::Fifo, mode, 0),
            Change::MakeLink => rustix::fs::symlinkat("target", parent, name),
            Change::MakeHardLink => rustix::fs::linkat(parent, name, parent, "another", none),
            Change::Remove => rustix::fs::unlinkat(parent, name, none),
            Change::RemoveDirectory => rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR),
            Change::Rename => rustix::fs::renameat(parent, name, parent, "another"),
            Change::Owner => {
                let (owner, group) = (Some(Uid::from_raw(1)), Some(Gid::from_raw(1)));
                rustix::fs::chownat(parent, name, owner, group, AtFlags::SYMLINK_NOFOLLOW)
            }
            Change::Times => {
                let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
                let times = Timestamps { last_access: now, last_modification: now };
                rustix::fs::utimensat(parent, name, &times, AtFlags::SYMLINK_NOFOLLOW)
            }
            Change::SetAttribute => {
                use std::os::fd::AsRawFd;
                let through = format!("/proc/self/fd/{}/", parent.as_raw_fd());
                let path = [through.as_bytes(), name.as_bytes()].concat();
                let path = OsStr::from_bytes(&path);
                rustix::fs::lsetxattr(path, "user.name", b"value", XattrFlags::empty())
            }
            Change::Open(_) => unreachable!("it has no parent"),
        }
    }

    /// What may be said instead of EROFS, and is what Linux says of any read-only file system:
    /// it looks at the name first, or at the rights.
    pub(crate) fn more_specific(self, errno: Errno) -> bool {
        let rights = [Errno::ACCESS, Errno::PERM].contains(&errno);
        let name = [Errno::NAMETOOLONG, Errno::NOENT, Errno::NOTDIR, Errno::LOOP];
        let of_this: &[Errno] = match self {
            Change::MakeDirectory | Change::MakeFifo | Change::MakeLink => &[Errno::EXIST],
            Change::MakeHardLink => &[Errno::PERM, Errno::EXIST],
            Change::Remove => &[Errno::ISDIR],
            Change::RemoveDirectory => &[Errno::NOTEMPTY, Errno::INVAL, Errno::BUSY],
            Change::Rename => &[Errno::BUSY, Errno::EXIST],
            Change::Owner | Change::Times => &[],
            Change::SetAttribute => &[Errno::OPNOTSUPP],
            // A socket cannot be opened, and a device not through a view (`nodev`).
            Change::Open(_) => &[Errno::ISDIR, Errno::EXIST, Errno::INVAL, Errno::NXIO],
        };
        rights || name.contains(&errno) || of_this.contains(&errno)
    }

    /// Whether it may succeed: nothing is changed by opening a file that is there.
    pub(crate) fn may_succeed(self) -> bool {
        matches!(self, Change::Open(flags)
            if !flags.intersects(OFlags::WRONLY | OFlags::RDWR | OFlags::TRUNC | OFlags::EXCL))
    }
}

/// The directory and the name in it.
pub(crate) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|&byte| byte == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (b".", path),
    }
}
