//! The system calls on the source: attributes, links, listings, blocks, statistics, holes.
//!
//! The path of a request was resolved by the client's kernel one component at a time, so no
//! component is a link: the last one is never followed here either.

use std::cell::Cell;
use std::ffi::{CStr, OsStr, OsString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use copper_cache::policy::carries_attributes;
use copper_proto::limits::{BLOCK_BYTES, NAME_BYTES_MAX, XATTR_BYTES_MAX};
use copper_proto::{
    Attributes, BlockIndex, DataRanges, DataRangesBuilder, DirectoryBuilder, Entry, Errno,
    ExtendedAttributes, FileKind, Generation, Statistics, Timestamp, ViewPath,
};
use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, SeekFrom, Statx, StatxFlags};

use super::boundary::{Boundary, Passage};
use super::open_files::OpenFiles;
use super::{SourceCounters, count};

/// Never follow, never trigger an automount.
const STAT_FLAGS: AtFlags = AtFlags::SYMLINK_NOFOLLOW.union(AtFlags::NO_AUTOMOUNT);

pub(super) struct FileSystem {
    boundary: Boundary,
    open_files: OpenFiles,
    counters: Arc<SourceCounters>,
}

impl FileSystem {
    pub(super) fn new(boundary: Boundary, counters: Arc<SourceCounters>) -> FileSystem {
        FileSystem { boundary, open_files: OpenFiles::default(), counters }
    }

    fn check(&self, path: &ViewPath) -> Result<Passage, Errno> {
        let passage = self.boundary.check(path);
        if passage == Err(Errno::EACCES) {
            count(&self.counters.refused, 1);
        }
        passage
    }

    /// `lstat` and, of a link, `readlink`; `None` if the source says that it does not exist.
    pub(super) fn entry(&self, path: &ViewPath) -> Result<Option<Entry>, Errno> {
        match self.check(path) {
            Ok(Passage::View) => return self.placeholder(path).map(Some),
            Ok(Passage::Open | Passage::Way) => {}
            Err(Errno::ENOENT) => return Ok(None),
            Err(errno) => return Err(errno),
        }
        match self.stat(CWD, &absolute(path)) {
            Ok(entry) if self.boundary.is_view_device(entry.attributes.device) => {
                self.placeholder(path).map(Some)
            }
            Ok(entry) => Ok(Some(entry)),
            Err(Errno::ENOENT) => Ok(None),
            Err(errno) => Err(errno),
        }
    }

    /// What is shown in a view's place: an empty directory that nobody can write to, with the
    /// times and the owner of the directory that holds it.
    fn placeholder(&self, path: &ViewPath) -> Result<Entry, Errno> {
        let parent = path.split().map_or_else(ViewPath::root, |(parent, _)| parent);
        let mut entry = self.stat(CWD, &absolute(&parent))?;
        entry.attributes.permissions = 0o555;
        entry.attributes.links = 2;
        // No inode of the source's: it must not be taken for one of its files.
        entry.attributes.inode = 0;
        Ok(entry)
    }

    fn stat(&self, directory: impl AsFd, name: &Path) -> Result<Entry, Errno> {
        count(&self.counters.stats, 1);
        let statx = rustix::fs::statx(&directory, name, STAT_FLAGS, StatxFlags::BASIC_STATS)
            .map_err(errno)?;
        let attributes = attributes(&statx)?;
        let target = match attributes.kind {
            FileKind::Link => {
                let target = rustix::fs::readlinkat(&directory, name, Vec::new()).map_err(errno)?;
                Some(Arc::from(target.as_bytes()))
            }
            FileKind::Regular
            | FileKind::Directory
            | FileKind::Fifo
            | FileKind::Socket
            | FileKind::CharacterDevice
            | FileKind::BlockDevice => None,
        };
        Ok(Entry { attributes, target })
    }

    /// An encoded snapshot.
    pub(super) fn directory(&self, path: &ViewPath) -> Result<Vec<u8>, Errno> {
        let passage = self.check(path)?;
        if passage == Passage::View {
            return Ok(DirectoryBuilder::default().finish());
        }
        count(&self.counters.listings, 1);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory = rustix::fs::open(absolute(path), flags, Mode::empty()).map_err(errno)?;
        // Not `Dir::read_from`, which opens the directory again as `.`: that takes the permission to
        // search it, and to list it takes only the one to read it.
        let mut directory = Dir::new(directory).map_err(errno)?;
        let names = self.names(&mut directory, path, passage)?;
        let directory = directory.fd().map_err(errno)?;
        let with_attributes = carries_attributes(names.len());
        let mut builder = DirectoryBuilder::default();
        for name in names {
            self.push(&mut builder, directory, path, &name, with_attributes)?;
        }
        Ok(builder.finish())
    }

    fn names(
        &self,
        directory: &mut Dir,
        path: &ViewPath,
        passage: Passage,
    ) -> Result<Vec<Name>, Errno> {
        let mut names = Vec::new();
        for entry in directory {
            let entry = entry.map_err(errno)?;
            let name = entry.file_name().to_bytes();
            if name == b"." || name == b".." || name.len() > NAME_BYTES_MAX {
                continue;
            }
            if passage == Passage::Way
                && path.join(name).is_none_or(|child| self.boundary.check(&child).is_err())
            {
                continue;
            }
            names.push(Name {
                name: entry.file_name().to_owned(),
                kind: file_kind(entry.file_type()),
                inode: entry.ino(),
            });
        }
        Ok(names)
    }

    fn push(
        &self,
        builder: &mut DirectoryBuilder,
        directory: BorrowedFd<'_>,
        path: &ViewPath,
        name: &Name,
        with_attributes: bool,
    ) -> Result<(), Errno> {
        let bytes = name.name.to_bytes();
        let Some(child) = path.join(bytes) else {
            // Deeper than a request's path reaches: it is listed, and cannot be asked for.
            let kind = name.kind.ok_or(Errno::ENAMETOOLONG)?;
            builder.push(bytes, kind, name.inode, None);
            return Ok(());
        };
        if self.boundary.check(&child) == Ok(Passage::View) {
            let entry = self.placeholder(&child)?;
            builder.push(bytes, FileKind::Directory, name.inode, Some(&entry));
            return Ok(());
        }
        let entry = match name.kind {
            Some(_) if !with_attributes => None,
            Some(_) | None => match self.stat(directory, as_path(&name.name)) {
                Ok(entry) if self.boundary.is_view_device(entry.attributes.device) => {
                    Some(self.placeholder(&child)?)
                }
                Ok(entry) => Some(entry),
                // It has gone since it was listed.
                Err(Errno::ENOENT) => return Ok(()),
                // It is there, but will be asked for by itself, which tells why it cannot be seen.
                Err(_) => None,
            },
        };
        let kind = entry.as_ref().map(|entry| entry.attributes.kind).or(name.kind);
        let kind = kind.ok_or(Errno::EIO)?;
        builder.push(bytes, kind, name.inode, entry.as_ref().filter(|_| with_attributes));
        Ok(())
    }

    /// Fills `into` with a block of the file in one generation.
    ///
    /// # Errors
    /// `ESTALE` if the file is not of that generation, before or after.
    pub(super) fn block(
        &self,
        path: &ViewPath,
        index: BlockIndex,
        generation: Generation,
        into: &mut [u8],
    ) -> Result<(), Errno> {
        match self.check(path)? {
            Passage::Open => {}
            Passage::Way | Passage::View => return Err(Errno::EISDIR),
        }
        if generation.size <= u64::from(BLOCK_BYTES) {
            return self.read(&self.open(path)?, index, generation, into);
        }
        let opened = Cell::new(false);
        let mut read = || {
            let open = || {
                opened.set(true);
                self.open(path)
            };
            let file = self.open_files.get(path, open)?;
            let result = self.read(&file, index, generation, into);
            if result.is_err() {
                // The name may lead to another file by now.
                self.open_files.forget(path);
            }
            result
        };
        match read() {
            // The file that was open is an older one than the reader wants.
            Err(Errno::ESTALE) if !opened.get() => read(),
            result => result,
        }
    }

    /// All extended attributes of a path, as the daemon's user sees them.
    pub(super) fn extended_attributes(&self, path: &ViewPath) -> Result<ExtendedAttributes, Errno> {
        let passage = self.check(path)?;
        if passage == Passage::View {
            return Ok(ExtendedAttributes::new(Vec::new()));
        }
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let named = rustix::fs::open(absolute(path), flags, Mode::empty()).map_err(errno)?;
        if self.boundary.is_view_device(rustix::fs::fstat(&named).map_err(errno)?.st_dev) {
            return Ok(ExtendedAttributes::new(Vec::new()));
        }
        count(&self.counters.extended_attributes, 1);
        // Leads to what was opened, also if that is a link.
        let path = through(&named);
        let names = match grow(|space| rustix::fs::listxattr(&path, space)) {
            Ok(names) => names,
            Err(Errno::EOPNOTSUPP) => return Ok(ExtendedAttributes::unsupported()),
            Err(errno) => return Err(errno),
        };
        let mut list = Vec::new();
        for name in names.split(|&byte| byte == 0).filter(|name| !name.is_empty()) {
            let value = grow(|space| rustix::fs::getxattr(&path, OsStr::from_bytes(name), space));
            match value {
                Ok(value) => list.push((name.into(), value.into())),
                // It has gone since, or is listed for this user but not for him to read.
                Err(Errno::ENODATA | Errno::EPERM | Errno::EACCES | Errno::EOPNOTSUPP) => {}
                Err(errno) => return Err(errno),
            }
        }
        Ok(ExtendedAttributes::new(list))
    }

    /// Where a file of this generation has data.
    ///
    /// # Errors
    /// `ESTALE` if it is not of that generation.
    pub(super) fn data_ranges(
        &self,
        path: &ViewPath,
        generation: Generation,
    ) -> Result<DataRanges, Errno> {
        match self.check(path)? {
            Passage::Open => {}
            Passage::Way | Passage::View => return Err(Errno::EISDIR),
        }
        count(&self.counters.data_ranges, 1);
        let file = self.open(path)?;
        let mut builder = DataRangesBuilder::new(generation.size);
        let mut at = 0;
        loop {
            let start = match rustix::fs::seek(&file, SeekFrom::Data(at)) {
                Ok(start) => start,
                Err(rustix::io::Errno::NXIO) => break,
                // A file system that cannot tell: all of it is data.
                Err(rustix::io::Errno::INVAL | rustix::io::Errno::OPNOTSUPP) => {
                    builder.push(at, generation.size);
                    break;
                }
                Err(error) => return Err(errno(error)),
            };
            at = match rustix::fs::seek(&file, SeekFrom::Hole(start)) {
                Ok(end) => end,
                // It has become shorter.
                Err(rustix::io::Errno::NXIO) => return Err(Errno::ESTALE),
                Err(error) => return Err(errno(error)),
            };
            if !builder.push(start, at) {
                break;
            }
        }
        self.verify(&file, generation)?;
        Ok(builder.finish())
    }

    fn verify(&self, file: &OwnedFd, generation: Generation) -> Result<(), Errno> {
        let flags = StatxFlags::BASIC_STATS;
        let statx = rustix::fs::statx(file, c"", AtFlags::EMPTY_PATH, flags).map_err(errno)?;
        if attributes(&statx)?.generation() == generation { Ok(()) } else { Err(Errno::ESTALE) }
    }

    /// Opens a regular file, and nothing else: opening a device can do things.
    fn open(&self, path: &ViewPath) -> Result<OwnedFd, Errno> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let named = rustix::fs::open(absolute(path), flags, Mode::empty()).map_err(errno)?;
        let stat = rustix::fs::fstat(&named).map_err(errno)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(Errno::ESTALE);
        }
        if self.boundary.is_view_device(stat.st_dev) {
            return Err(Errno::ENOENT);
        }
        count(&self.counters.opens, 1);
        rustix::fs::open(through(&named), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .map_err(errno)
    }

    fn read(
        &self,
        file: &OwnedFd,
        index: BlockIndex,
        generation: Generation,
        into: &mut [u8],
    ) -> Result<(), Errno> {
        let mut done = 0;
        while done < into.len() {
            let offset = index.offset() + done as u64;
            match rustix::io::pread(file, &mut into[done..], offset) {
                // It has become shorter.
                Ok(0) => return Err(Errno::ESTALE),
                Ok(read) => done += read,
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(errno(error)),
            }
        }
        count(&self.counters.reads, 1);
        count(&self.counters.bytes, done as u64);
        self.verify(file, generation)
    }

    pub(super) fn statistics(&self, path: &ViewPath) -> Result<Statistics, Errno> {
        self.check(path)?;
        // Of a link itself: where it leads to is the kernel's to follow, and may be a view.
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let named = rustix::fs::open(absolute(path), flags, Mode::empty()).map_err(errno)?;
        let stat = rustix::fs::fstatvfs(&named).map_err(errno)?;
        let small = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
        Ok(Statistics {
            blocks: stat.f_blocks,
            blocks_free: stat.f_bfree,
            blocks_available: stat.f_bavail,
            files: stat.f_files,
            files_free: stat.f_ffree,
            block_bytes: small(stat.f_bsize),
            fragment_bytes: small(stat.f_frsize),
            name_bytes_max: small(stat.f_namemax),
        })
    }
}

/// Calls with a buffer that is large enough, however often the answer grows in between.
fn grow(call: impl Fn(&mut [u8]) -> rustix::io::Result<usize>) -> Result<Vec<u8>, Errno> {
    let mut space = vec![0; 1024];
    loop {
        match call(&mut space) {
            Ok(len) => {
                space.truncate(len);
                return Ok(space);
            }
            Err(rustix::io::Errno::RANGE) if space.len() < 2 * XATTR_BYTES_MAX => {
                let larger = 4 * space.len();
                space.resize(larger, 0);
            }
            Err(error) => return Err(errno(error)),
        }
    }
}

struct Name {
    name: std::ffi::CString,
    /// `None` where the file system's `readdir` does not say.
    kind: Option<FileKind>,
    inode: u64,
}

fn absolute(path: &ViewPath) -> PathBuf {
    let mut bytes = Vec::with_capacity(path.as_bytes().len() + 1);
    bytes.push(b'/');
    bytes.extend_from_slice(path.as_bytes());
    PathBuf::from(OsString::from_vec(bytes))
}

/// The path by which an `O_PATH` descriptor is used where the descriptor itself is not taken.
fn through(named: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", named.as_raw_fd())
}

fn as_path(name: &CStr) -> &Path {
    Path::new(OsStr::from_bytes(name.to_bytes()))
}

fn errno(error: rustix::io::Errno) -> Errno {
    Errno(error.raw_os_error())
}

fn file_kind(kind: FileType) -> Option<FileKind> {
    match kind {
        FileType::RegularFile => Some(FileKind::Regular),
        FileType::Directory => Some(FileKind::Directory),
        FileType::Symlink => Some(FileKind::Link),
        FileType::Fifo => Some(FileKind::Fifo),
        FileType::Socket => Some(FileKind::Socket),
        FileType::CharacterDevice => Some(FileKind::CharacterDevice),
        FileType::BlockDevice => Some(FileKind::BlockDevice),
        FileType::Unknown => None,
    }
}

/// What `lstat` says, as it travels.
pub(crate) fn attributes(statx: &Statx) -> Result<Attributes, Errno> {
    let mode = u32::from(statx.stx_mode);
    let time =
        |time: rustix::fs::StatxTimestamp| Timestamp { seconds: time.tv_sec, nanos: time.tv_nsec };
    Ok(Attributes {
        kind: file_kind(FileType::from_raw_mode(mode)).ok_or(Errno::EIO)?,
        permissions: statx.stx_mode & 0o7777,
        links: statx.stx_nlink,
        uid: statx.stx_uid,
        gid: statx.stx_gid,
        device_number: rustix::fs::makedev(statx.stx_rdev_major, statx.stx_rdev_minor),
        size: statx.stx_size,
        sectors: statx.stx_blocks,
        io_bytes: statx.stx_blksize,
        accessed: time(statx.stx_atime),
        modified: time(statx.stx_mtime),
        changed: time(statx.stx_ctime),
        device: rustix::fs::makedev(statx.stx_dev_major, statx.stx_dev_minor),
        inode: statx.stx_ino,
    })
}
