//! Attributes and errno values as fuser wants them.

use std::time::{Duration, SystemTime};

use copper_engine::InodeNumber;
use copper_proto::{Attributes, Errno, FileKind, Timestamp};
use fuser::{FileAttr, FileType, INodeNo};

/// Attributes under the number that the view shows.
pub(crate) fn file_attributes(inode: InodeNumber, attributes: &Attributes) -> FileAttr {
    FileAttr {
        ino: INodeNo(inode.0),
        size: attributes.size,
        blocks: attributes.sectors,
        atime: system_time(attributes.accessed),
        mtime: system_time(attributes.modified),
        ctime: system_time(attributes.changed),
        crtime: SystemTime::UNIX_EPOCH,
        kind: file_type(attributes.kind),
        perm: attributes.permissions,
        nlink: attributes.links,
        uid: attributes.uid,
        gid: attributes.gid,
        rdev: kernel_device(attributes.device_number),
        blksize: attributes.io_bytes,
        flags: 0,
    }
}

/// The answer "there is no such name, and you may remember it": an entry of inode 0
/// (fuse_lookup_name in fs/fuse/dir.c).
pub(crate) fn absence() -> FileAttr {
    FileAttr {
        ino: INodeNo(0),
        size: 0,
        blocks: 0,
        atime: SystemTime::UNIX_EPOCH,
        mtime: SystemTime::UNIX_EPOCH,
        ctime: SystemTime::UNIX_EPOCH,
        crtime: SystemTime::UNIX_EPOCH,
        kind: FileType::RegularFile,
        perm: 0,
        nlink: 0,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 0,
        flags: 0,
    }
}

pub(crate) fn file_type(kind: FileKind) -> FileType {
    match kind {
        FileKind::Regular => FileType::RegularFile,
        FileKind::Directory => FileType::Directory,
        FileKind::Link => FileType::Symlink,
        FileKind::Fifo => FileType::NamedPipe,
        FileKind::Socket => FileType::Socket,
        FileKind::CharacterDevice => FileType::CharDevice,
        FileKind::BlockDevice => FileType::BlockDevice,
    }
}

/// Linux's `SystemTime` holds all of an `i64` of seconds, so this loses nothing.
fn system_time(time: Timestamp) -> SystemTime {
    let seconds = Duration::from_secs(time.seconds.unsigned_abs());
    let whole = if time.seconds < 0 {
        SystemTime::UNIX_EPOCH.checked_sub(seconds)
    } else {
        SystemTime::UNIX_EPOCH.checked_add(seconds)
    };
    let nanos = Duration::from_nanos(u64::from(time.nanos));
    whole.and_then(|whole| whole.checked_add(nanos)).unwrap_or(SystemTime::UNIX_EPOCH)
}

/// The 32 bits of a device number in the FUSE protocol (`new_encode_dev` in the kernel). Its 12 bits
/// of major and 20 of minor number are the low half of what `makedev(3)` gives.
pub(crate) fn kernel_device(device: u64) -> u32 {
    device as u32
}

/// An errno as fuser wants it. Both are Linux's numbers. The kernel refuses a reply whose errno is
/// not in 1..=511 (fuse_dev_do_write in fs/fuse/dev.c), and its request would then never end: such
/// a number, which only a bug or a peer can send, becomes EIO.
pub(crate) fn kernel_errno(errno: Errno) -> fuser::Errno {
    match errno.0 {
        code @ 1..=511 => fuser::Errno::from_i32(code),
        _ => fuser::Errno::EIO,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_the_epoch_keep_their_nanoseconds() {
        let time = system_time(Timestamp { seconds: -2, nanos: 800_000_000 });
        let before = SystemTime::UNIX_EPOCH.duration_since(time).expect("before the epoch");
        assert_eq!(before, Duration::new(1, 200_000_000));
        let time = system_time(Timestamp { seconds: 1, nanos: 999_999_999 });
        let after = time.duration_since(SystemTime::UNIX_EPOCH).expect("after the epoch");
        assert_eq!(after, Duration::new(1, 999_999_999));
        for seconds in [i64::MIN, i64::MAX] {
            system_time(Timestamp { seconds, nanos: 999_999_999 });
        }
    }

    #[test]
    fn device_numbers_are_encoded_as_the_kernel_decodes_them() {
        for (major, minor) in [(1, 3), (8, 300), (4095, 0xf_ffff)] {
            let encoded = kernel_device(rustix::fs::makedev(major, minor));
            assert_eq!((encoded & 0xf_ff00) >> 8, major);
            assert_eq!((encoded & 0xff) | ((encoded >> 12) & 0xf_ff00), minor);
        }
    }

    #[test]
    fn every_errno_of_the_protocol_reaches_the_client_unchanged() {
        for code in 1..=133 {
            assert_eq!(kernel_errno(Errno(code)).code(), code);
        }
        for code in [0, -2, 4096, i32::MIN, i32::MAX] {
            assert_eq!(kernel_errno(Errno(code)).code(), fuser::Errno::EIO.code());
        }
    }
}
