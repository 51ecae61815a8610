//! What `lstat` says of a path, and what `statfs` says of a file system, as they travel.

use std::sync::Arc;

use crate::encoding::{Fields, Malformed, put_bytes, put_i64, put_u8, put_u16, put_u32, put_u64};
use crate::key::Generation;
use crate::limits::LINK_BYTES_MAX;

/// The type of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FileKind {
    /// A regular file.
    Regular,
    /// A directory.
    Directory,
    /// A symbolic link.
    Link,
    /// A named pipe.
    Fifo,
    /// A Unix-domain socket.
    Socket,
    /// A character device.
    CharacterDevice,
    /// A block device.
    BlockDevice,
}

impl FileKind {
    const ALL: [FileKind; 7] = [
        FileKind::Regular,
        FileKind::Directory,
        FileKind::Link,
        FileKind::Fifo,
        FileKind::Socket,
        FileKind::CharacterDevice,
        FileKind::BlockDevice,
    ];

    /// The type bits of a `st_mode` (`inode(7)`), shifted down by 12; also `DT_*` of `readdir(3)`.
    pub fn bits(self) -> u8 {
        match self {
            FileKind::Fifo => 1,
            FileKind::CharacterDevice => 2,
            FileKind::Directory => 4,
            FileKind::BlockDevice => 6,
            FileKind::Regular => 8,
            FileKind::Link => 10,
            FileKind::Socket => 12,
        }
    }

    /// The kind with these type bits; `None` if there is no such kind.
    pub fn from_bits(bits: u8) -> Option<FileKind> {
        FileKind::ALL.into_iter().find(|kind| kind.bits() == bits)
    }
}

/// A point in time as a file system keeps it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp {
    /// Seconds since the epoch; may be negative.
    pub seconds: i64,
    /// Nanoseconds within the second, below 10^9.
    pub nanos: u32,
}

impl Timestamp {
    /// Nanoseconds since the epoch, saturating.
    pub fn as_nanos(self) -> i64 {
        self.seconds.saturating_mul(1_000_000_000).saturating_add(i64::from(self.nanos))
    }
}

/// What `lstat` says of a path at the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attributes {
    /// Type.
    pub kind: FileKind,
    /// Permission bits with set-id and sticky bits: `st_mode & 0o7777`.
    pub permissions: u16,
    /// Number of hard links.
    pub links: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Device number of a device file, as the kernel encodes it for user space (`makedev(3)`).
    pub device_number: u64,
    /// Size in bytes.
    pub size: u64,
    /// Allocated space in units of 512 bytes.
    pub sectors: u64,
    /// Preferred size of an I/O, in bytes.
    pub io_bytes: u32,
    /// Last access.
    pub accessed: Timestamp,
    /// Last modification.
    pub modified: Timestamp,
    /// Last change of the inode.
    pub changed: Timestamp,
    /// The source's device: with `inode`, a file's identity.
    pub device: u64,
    /// The source's inode number.
    pub inode: u64,
}

/// Bytes of encoded [`Attributes`].
pub(crate) const ATTRIBUTES_BYTES: usize = 1 + 2 + 4 * 4 + 5 * 8 + 3 * 12;

impl Attributes {
    /// The state of the content that these attributes describe.
    pub fn generation(&self) -> Generation {
        Generation {
            mtime_ns: self.modified.as_nanos(),
            ctime_ns: self.changed.as_nanos(),
            size: self.size,
            inode: self.inode,
        }
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let before = out.len();
        put_u8(out, self.kind.bits());
        put_u16(out, self.permissions);
        for value in [self.links, self.uid, self.gid, self.io_bytes] {
            put_u32(out, value);
        }
        for value in [self.device_number, self.size, self.sectors, self.device, self.inode] {
            put_u64(out, value);
        }
        for time in [self.accessed, self.modified, self.changed] {
            put_i64(out, time.seconds);
            put_u32(out, time.nanos);
        }
        debug_assert_eq!(out.len() - before, ATTRIBUTES_BYTES);
    }

    pub(crate) fn decode(fields: &mut Fields<'_>) -> Result<Attributes, Malformed> {
        let kind = FileKind::from_bits(fields.u8()?).ok_or_else(|| fields.malformed())?;
        let permissions = fields.u16()?;
        let (links, uid, gid, io_bytes) =
            (fields.u32()?, fields.u32()?, fields.u32()?, fields.u32()?);
        let (device_number, size, sectors) = (fields.u64()?, fields.u64()?, fields.u64()?);
        let (device, inode) = (fields.u64()?, fields.u64()?);
        let mut times = [Timestamp::default(); 3];
        for time in &mut times {
            *time = Timestamp { seconds: fields.i64()?, nanos: fields.u32()? };
            if time.nanos >= 1_000_000_000 {
                return Err(fields.malformed());
            }
        }
        let [accessed, modified, changed] = times;
        if permissions > 0o7777 {
            return Err(fields.malformed());
        }
        Ok(Attributes {
            kind,
            permissions,
            links,
            uid,
            gid,
            device_number,
            size,
            sectors,
            io_bytes,
            accessed,
            modified,
            changed,
            device,
            inode,
        })
    }
}

/// A path that exists: its attributes and, of a link, where it points.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What `lstat` says.
    pub attributes: Attributes,
    /// What `readlink` says; `Some` exactly for links.
    pub target: Option<Arc<[u8]>>,
}

impl Entry {
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        self.attributes.encode(out);
        if let Some(target) = &self.target {
            put_bytes(out, target);
        }
    }

    pub(crate) fn decode(fields: &mut Fields<'_>) -> Result<Entry, Malformed> {
        let attributes = Attributes::decode(fields)?;
        let target = match attributes.kind {
            FileKind::Link => Some(Arc::from(fields.bytes(LINK_BYTES_MAX)?)),
            FileKind::Regular
            | FileKind::Directory
            | FileKind::Fifo
            | FileKind::Socket
            | FileKind::CharacterDevice
            | FileKind::BlockDevice => None,
        };
        Ok(Entry { attributes, target })
    }
}

/// What `statfs` says of a file system (`statvfs(3)`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Size in units of `fragment_bytes`.
    pub blocks: u64,
    /// Free blocks.
    pub blocks_free: u64,
    /// Free blocks for ordinary users.
    pub blocks_available: u64,
    /// Inodes.
    pub files: u64,
    /// Free inodes.
    pub files_free: u64,
    /// Preferred size of an I/O, in bytes.
    pub block_bytes: u32,
    /// The unit of `blocks`, in bytes.
    pub fragment_bytes: u32,
    /// The longest name, in bytes.
    pub name_bytes_max: u32,
}

impl Statistics {
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let counts =
            [self.blocks, self.blocks_free, self.blocks_available, self.files, self.files_free];
        for value in counts {
            put_u64(out, value);
        }
        for value in [self.block_bytes, self.fragment_bytes, self.name_bytes_max] {
            put_u32(out, value);
        }
    }

    pub(crate) fn decode(fields: &mut Fields<'_>) -> Result<Statistics, Malformed> {
        Ok(Statistics {
            blocks: fields.u64()?,
            blocks_free: fields.u64()?,
            blocks_available: fields.u64()?,
            files: fields.u64()?,
            files_free: fields.u64()?,
            block_bytes: fields.u32()?,
            fragment_bytes: fields.u32()?,
            name_bytes_max: fields.u32()?,
        })
    }
}
