//! What can be asked of a path or of an open file, and asking it: the same code asks the source and
//! the view.

use std::ffi::OsStr;
use std::io::IoSliceMut;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{
    Access, AtFlags, CWD, FileType, Mode, OFlags, SeekFrom, StatxFlags, fstat, fstatvfs,
};
use rustix::io::Errno;

use super::answer::{self, Answer, Attributes, Extent, Value, dots_first};
use super::mapping::Mapper;
use crate::support::Random;

/// The longest single read: more than is fetched whole.
pub(crate) const READ_BYTES_MAX: u64 = 12 << 20;

#[derive(Clone, Debug)]
pub(crate) enum OnPath {
    Stat,
    StatLink,
    Statx(AtFlags),
    Access(Access, AtFlags),
    ReadLink,
    Statistics,
    /// Opened, asked, closed.
    Open(OFlags, OnOpen),
    /// Opened and kept.
    Keep(OFlags),
    Map {
        /// In bytes, on a page.
        offset: u64,
        len: u64,
    },
    ExtendedAttributes(Named),
    ExtendedAttributesOfLink(Named),
}

#[derive(Clone, Debug)]
pub(crate) enum OnOpen {
    Stat,
    Statistics,
    Read(u64),
    ReadAt(u64, u64),
    ReadVector(Vec<u64>),
    ReadVectorAt(Vec<u64>, u64),
    ReadWhole,
    Seek(SeekFrom),
    SendFile(Option<u64>, u64),
    CopyRange(u64, u64),
    List(usize),
    ExtendedAttributes(Named),
}

/// An extended attribute and the room for its value, or the list of all.
#[derive(Clone, Debug)]
pub(crate) enum Named {
    One(Vec<u8>, usize),
    All(usize),
}

/// What a thread asks with.
#[derive(Debug)]
pub(crate) struct Bench {
    /// An ordinary file to write to.
    pub(crate) out: OwnedFd,
    pub(crate) mapper: Mapper,
}

pub(crate) fn on_path(bench: &mut Bench, path: &Path, operation: &OnPath) -> Answer {
    match operation {
        OnPath::Stat => {
            rustix::fs::stat(path).map(|stat| Value::Attributes(Attributes::of_stat(&stat)))
        }
        OnPath::StatLink => {
            rustix::fs::lstat(path).map(|stat| Value::Attributes(Attributes::of_stat(&stat)))
        }
        OnPath::Statx(flags) => rustix::fs::statx(CWD, path, *flags, StatxFlags::BASIC_STATS)
            .map(|statx| Value::Attributes(Attributes::of_statx(&statx))),
        OnPath::Access(access, flags) => {
            rustix::fs::accessat(CWD, path, *access, *flags).map(|()| Value::Done)
        }
        OnPath::ReadLink => {
            rustix::fs::readlink(path, Vec::new()).map(|target| Value::Bytes(target.into_bytes()))
        }
        OnPath::Statistics => rustix::fs::statvfs(path).map(|stat| answer::statistics(&stat)),
        OnPath::Open(flags, then) => on_open(bench, open(path, *flags)?, then),
        OnPath::Keep(flags) => open(path, *flags).map(|_| Value::Done),
        OnPath::Map { offset, len } => bench.mapper.digest(path, *offset, *len).map(Value::Text),
        OnPath::ExtendedAttributes(Named::One(name, room)) => attribute(
            *room,
            || rustix::fs::getxattr_query(path, OsStr::from_bytes(name)),
            |room| rustix::fs::getxattr(path, OsStr::from_bytes(name), room),
        ),
        OnPath::ExtendedAttributes(Named::All(room)) => attributes(
            *room,
            || rustix::fs::listxattr_query(path),
            |room| rustix::fs::listxattr(path, room),
        ),
        OnPath::ExtendedAttributesOfLink(Named::One(name, room)) => attribute(
            *room,
            || rustix::fs::lgetxattr_query(path, OsStr::from_bytes(name)),
            |room| rustix::fs::lgetxattr(path, OsStr::from_bytes(name), room),
        ),
        OnPath::ExtendedAttributesOfLink(Named::All(room)) => attributes(
            *room,
            || rustix::fs::llistxattr_query(path),
            |room| rustix::fs::llistxattr(path, room),
        ),
    }
}

pub(crate) fn open(path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
    rustix::fs::open(path, flags | OFlags::CLOEXEC, Mode::empty())
}

pub(crate) fn on_open(bench: &mut Bench, fd: impl AsFd, operation: &OnOpen) -> Answer {
    let fd = fd.as_fd();
    match operation {
        OnOpen::Stat => fstat(fd).map(|stat| Value::Attributes(Attributes::of_stat(&stat))),
        OnOpen::Statistics => fstatvfs(fd).map(|stat| answer::statistics(&stat)),
        OnOpen::Read(len) => {
            let mut bytes = vec![0; *len as usize];
            let read = rustix::io::read(fd, &mut bytes[..])?;
            bytes.truncate(read);
            Ok(Value::Bytes(bytes))
        }
        OnOpen::ReadAt(offset, len) => {
            let mut bytes = vec![0; *len as usize];
            let read = rustix::io::pread(fd, &mut bytes[..], *offset)?;
            bytes.truncate(read);
            Ok(Value::Bytes(bytes))
        }
        OnOpen::ReadVector(lens) => vector(lens, |pieces| rustix::io::readv(fd, pieces)),
        OnOpen::ReadVectorAt(lens, offset) => {
            vector(lens, |pieces| rustix::io::preadv(fd, pieces, *offset))
        }
        OnOpen::ReadWhole => whole(fd),
        OnOpen::Seek(to) => rustix::fs::seek(fd, *to).map(Value::Number),
        OnOpen::SendFile(offset, len) => bench.copied(|out| {
            let mut offset = *offset;
            rustix::fs::sendfile(out, fd, offset.as_mut(), *len as usize)
        }),
        OnOpen::CopyRange(offset, len) => bench.copied(|out| {
            let mut offset = *offset;
            rustix::fs::copy_file_range(fd, Some(&mut offset), out, None, *len as usize)
        }),
        OnOpen::List(buffer) => {
            let entries = answer::entries(fd, *buffer, Extent::Whole)?;
            Ok(Value::Names(dots_first(entries)))
        }
        OnOpen::ExtendedAttributes(Named::One(name, room)) => attribute(
            *room,
            || rustix::fs::fgetxattr_query(fd, OsStr::from_bytes(name)),
            |room| rustix::fs::fgetxattr(fd, OsStr::from_bytes(name), room),
        ),
        OnOpen::ExtendedAttributes(Named::All(room)) => attributes(
            *room,
            || rustix::fs::flistxattr_query(fd),
            |room| rustix::fs::flistxattr(fd, room),
        ),
    }
}

impl Bench {
    /// What a call has written to the file.
    fn copied(&self, copy: impl FnOnce(&OwnedFd) -> Result<usize, Errno>) -> Answer {
        rustix::fs::ftruncate(&self.out, 0).expect("it is ours");
        rustix::fs::seek(&self.out, SeekFrom::Start(0)).expect("it is ours");
        let copied = copy(&self.out)?;
        let mut bytes = vec![0; copied + 1];
        let read = rustix::io::pread(&self.out, &mut bytes[..], 0).expect("it is ours");
        assert_eq!(read, copied, "the kernel counts what it copies");
        bytes.truncate(read);
        Ok(Value::Bytes(bytes))
    }
}

fn vector(
    lens: &[u64],
    read: impl FnOnce(&mut [IoSliceMut<'_>]) -> Result<usize, Errno>,
) -> Answer {
    let mut pieces: Vec<Vec<u8>> = lens.iter().map(|&len| vec![0; len as usize]).collect();
    let mut slices: Vec<_> = pieces.iter_mut().map(|piece| IoSliceMut::new(piece)).collect();
    let read = read(&mut slices)?;
    let mut bytes = pieces.concat();
    bytes.truncate(read);
    Ok(Value::Bytes(bytes))
}

/// From where the file is to its end, or as far as one read of a test goes.
fn whole(fd: impl AsFd) -> Answer {
    let mut bytes = Vec::new();
    let mut piece = vec![0; 128 << 10];
    while (bytes.len() as u64) < READ_BYTES_MAX {
        match rustix::io::read(&fd, &mut piece[..])? {
            0 => break,
            read => bytes.extend_from_slice(&piece[..read]),
        }
    }
    Ok(Value::Bytes(bytes))
}

/// An extended attribute into so much room, or, without any, how much it takes.
fn attribute(
    room: usize,
    query: impl FnOnce() -> Result<usize, Errno>,
    get: impl FnOnce(&mut [u8]) -> Result<usize, Errno>,
) -> Answer {
    if room == 0 {
        return query().map(|len| Value::Number(len as u64));
    }
    let mut value = vec![0; room];
    let len = get(&mut value)?;
    value.truncate(len);
    Ok(Value::Bytes(value))
}

/// The names of all, of which those beside `user.…` are not everybody's to see.
fn attributes(
    room: usize,
    query: impl FnOnce() -> Result<usize, Errno>,
    list: impl FnOnce(&mut [u8]) -> Result<usize, Errno>,
) -> Answer {
    let Value::Bytes(names) = attribute(room, query, list)? else { return Ok(Value::Done) };
    let names = names.split(|&byte| byte == 0).filter(|name| name.starts_with(b"user."));
    Ok(Value::Bytes(names.collect::<Vec<_>>().join(&0)))
}

/// What an open file is, and how large.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) kind: FileType,
    pub(crate) size: u64,
}

impl OnOpen {
    /// Anything that may be asked of a file of this shape, and rarely something that may not.
    pub(crate) fn random(random: &mut Random, shape: Shape) -> OnOpen {
        if shape.kind == FileType::Directory {
            return match random.below(10) {
                0 => OnOpen::Read(random.below(100)),
                1 => OnOpen::Stat,
                2 => OnOpen::Statistics,
                3 => OnOpen::SendFile(None, 10),
                _ => OnOpen::List([280, 300, 512, 4096, 32_768][random.below(5) as usize]),
            };
        }
        let size = shape.size;
        match random.below(100) {
            0..=19 => OnOpen::ReadAt(offset(random, size), length(random)),
            20..=34 => OnOpen::Read(length(random)),
            35..=44 => OnOpen::ReadVector(lengths(random)),
            45..=52 => OnOpen::ReadVectorAt(lengths(random), offset(random, size)),
            53..=58 => OnOpen::ReadWhole,
            59..=68 => OnOpen::Seek(seek(random, size)),
            69..=76 => OnOpen::SendFile(
                (random.below(2) == 0).then(|| offset(random, size)),
                length(random),
            ),
            77..=79 => OnOpen::CopyRange(offset(random, size), length(random)),
            80..=84 => OnOpen::List(4096),
            85..=87 => OnOpen::Statistics,
            88..=92 => OnOpen::ExtendedAttributes(Named::random(random)),
            _ => OnOpen::Stat,
        }
    }
}

impl Named {
    pub(crate) fn random(random: &mut Random) -> Named {
        let room = [0, 1, 14, 15, 64, 4096, 65_536][random.below(7) as usize];
        let name = match random.below(10) {
            0 => b"user.absent".to_vec(),
            1 => b"no-such-namespace.name".to_vec(),
            2 => Vec::new(),
            3 => [b"user.".to_vec(), vec![b'n'; 300]].concat(),
            _ => format!("user.copper.{}", random.below(3)).into_bytes(),
        };
        if random.below(3) == 0 { Named::All(room) } else { Named::One(name, room) }
    }
}

/// Within the file, around its end, on and around blocks; far beyond the end too.
pub(crate) fn offset(random: &mut Random, size: u64) -> u64 {
    const BLOCK: u64 = 1 << 20;
    match random.below(10) {
        0 => 0,
        1 => (size + 2).saturating_sub(random.below(5)),
        2 => random.below(size / BLOCK + 2) * BLOCK,
        3 => (random.below(size / BLOCK + 2) * BLOCK + 2).saturating_sub(random.below(5)),
        4 => random.below(size / 4096 + 2) * 4096,
        5 => size + random.below(1 << 30),
        _ => random.below(size + 1),
    }
}

fn length(random: &mut Random) -> u64 {
    match random.below(20) {
        0 => 0,
        1 => 1,
        2..=4 => 4096 + random.below(3) - 1,
        5 => (1 << 20) + random.below(3) - 1,
        6 => random.below(3 << 20),
        7..=10 => random.below(200_000),
        _ => random.below(10_000),
    }
}

fn lengths(random: &mut Random) -> Vec<u64> {
    (0..1 + random.below(5)).map(|_| length(random)).collect()
}

/// Up to where every file system can count.
fn seek(random: &mut Random, size: u64) -> SeekFrom {
    let signed = |offset: u64| i64::try_from(offset).expect("far below");
    match random.below(6) {
        0 => SeekFrom::Start(offset(random, size)),
        1 => SeekFrom::End(signed(random.below(20)) - signed(offset(random, size))),
        2 => SeekFrom::Current(signed(offset(random, size)) - signed(size / 2)),
        3 => SeekFrom::Current(0),
        4 => SeekFrom::Data(offset(random, size)),
        _ => SeekFrom::Hole(offset(random, size)),
    }
}
