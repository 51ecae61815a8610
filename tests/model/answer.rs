//! What a call answers, in a form that can be compared.

use std::fmt;
use std::mem::MaybeUninit;
use std::os::fd::AsFd;

use rustix::fs::{FileType, RawDir, Stat, StatVfs, Statx};
use rustix::io::Errno;

pub(crate) type Answer = Result<Value, Errno>;

#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Value {
    Done,
    Number(u64),
    Bytes(Vec<u8>),
    Fields(Vec<(&'static str, i128)>),
    Attributes(Attributes),
    Names(Vec<Entry>),
    Text(String),
}

/// What `stat` and `statx` say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Attributes {
    pub(crate) fields: Vec<(&'static str, i128)>,
    pub(crate) accessed: (i128, i128),
    pub(crate) modified: (i128, i128),
    pub(crate) identity: Identity,
}

/// Device and inode number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Identity {
    pub(crate) device: u64,
    pub(crate) inode: u64,
}

/// A name in a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) name: Vec<u8>,
    pub(crate) kind: FileType,
    pub(crate) inode: u64,
    /// Where the listing goes on after it.
    pub(crate) next: u64,
}

impl Attributes {
    pub(crate) fn of_stat(stat: &Stat) -> Attributes {
        let fields = vec![
            ("mode", stat.st_mode.into()),
            ("links", stat.st_nlink.into()),
            ("uid", stat.st_uid.into()),
            ("gid", stat.st_gid.into()),
            ("device", stat.st_rdev.into()),
            ("size", stat.st_size.into()),
            ("block", stat.st_blksize.into()),
            ("blocks", stat.st_blocks.into()),
            ("changed", stat.st_ctime.into()),
            ("changed ns", stat.st_ctime_nsec.into()),
        ];
        Attributes {
            fields,
            accessed: (stat.st_atime.into(), stat.st_atime_nsec.into()),
            modified: (stat.st_mtime.into(), stat.st_mtime_nsec.into()),
            identity: Identity { device: stat.st_dev, inode: stat.st_ino },
        }
    }

    /// Of the basic fields: FUSE has no others (the time of birth, the mount, flags of the disk).
    pub(crate) fn of_statx(statx: &Statx) -> Attributes {
        let number = |major, minor| rustix::fs::makedev(major, minor);
        let time = |time: rustix::fs::StatxTimestamp| (time.tv_sec.into(), time.tv_nsec.into());
        let (changed, changed_ns) = time(statx.stx_ctime);
        let fields = vec![
            ("mode", statx.stx_mode.into()),
            ("links", statx.stx_nlink.into()),
            ("uid", statx.stx_uid.into()),
            ("gid", statx.stx_gid.into()),
            ("device", number(statx.stx_rdev_major, statx.stx_rdev_minor).into()),
            ("size", statx.stx_size.into()),
            ("block", statx.stx_blksize.into()),
            ("blocks", statx.stx_blocks.into()),
            ("changed", changed),
            ("changed ns", changed_ns),
        ];
        let device = number(statx.stx_dev_major, statx.stx_dev_minor);
        Attributes {
            fields,
            accessed: time(statx.stx_atime),
            modified: time(statx.stx_mtime),
            identity: Identity { device, inode: statx.stx_ino },
        }
    }

    /// The first field in which another one differs.
    ///
    /// The access time is compared where reading the source does not change it (`relatime`): else
    /// "what a node has been told it keeps" (docs/SEMANTICS.md). Device and inode number are left
    /// out: "inode numbers are the view's own".
    pub(crate) fn difference(&self, other: &Attributes) -> Option<String> {
        let pairs = self.fields.iter().zip(&other.fields);
        let field = pairs.filter(|(one, other)| one != other).map(|it| format!("{it:?}")).next();
        let times = || {
            let modified = (self.modified != other.modified)
                .then(|| format!("modified: {:?}, {:?}", self.modified, other.modified));
            let settled = self.modified < self.accessed;
            let accessed = (settled && self.accessed != other.accessed)
                .then(|| format!("accessed: {:?}, {:?}", self.accessed, other.accessed));
            modified.or(accessed)
        };
        field.or_else(times)
    }
}

/// Free space changes all the time, and the type and the flags of the mount are FUSE's.
pub(crate) fn statistics(stat: &StatVfs) -> Value {
    Value::Fields(vec![
        ("blocks", stat.f_blocks.into()),
        ("block", stat.f_bsize.into()),
        ("fragment", stat.f_frsize.into()),
        ("files", stat.f_files.into()),
        ("name", stat.f_namemax.into()),
    ])
}

/// What one call of `getdents64` gives, or, with `Extent::Whole`, all up to the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extent {
    OneCall,
    Whole,
}

pub(crate) fn entries(fd: impl AsFd, buffer: usize, extent: Extent) -> Result<Vec<Entry>, Errno> {
    let mut buffer = vec![MaybeUninit::uninit(); buffer];
    let mut listing = RawDir::new(fd, &mut buffer);
    let mut entries = Vec::new();
    while let Some(entry) = listing.next() {
        let entry = entry?;
        entries.push(Entry {
            name: entry.file_name().to_bytes().to_vec(),
            kind: entry.file_type(),
            inode: entry.ino(),
            next: entry.next_entry_cookie(),
        });
        if extent == Extent::OneCall && listing.is_buffer_empty() {
            break;
        }
    }
    Ok(entries)
}

impl Entry {
    /// What it takes in a buffer of `getdents64`: `linux_dirent64` of 19 bytes, the name, a NUL.
    pub(crate) fn bytes(&self) -> usize {
        (19 + self.name.len() + 1).next_multiple_of(8)
    }
}

/// In a view, `.` and `..` come first; elsewhere they come anywhere.
pub(crate) fn dots_first(entries: Vec<Entry>) -> Vec<Entry> {
    let dots = |entry: &Entry| entry.name == b"." || entry.name == b"..";
    let (mut first, others): (Vec<_>, Vec<_>) = entries.into_iter().partition(dots);
    first.sort_by_key(|entry| entry.name.len());
    first.extend(others);
    first
}

/// In a line, however much it is.
impl fmt::Debug for Value {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Done => formatter.write_str("done"),
            Value::Number(number) => write!(formatter, "{number}"),
            Value::Bytes(bytes) if bytes.len() <= 32 => {
                write!(formatter, "{} bytes \"{}\"", bytes.len(), bytes.escape_ascii())
            }
            Value::Bytes(bytes) => write!(formatter, "{} bytes", bytes.len()),
            Value::Fields(fields) => write!(formatter, "{fields:?}"),
            Value::Attributes(all) => {
                write!(formatter, "{:?} {:?} {:?}", all.identity, all.fields, all.modified)
            }
            Value::Names(names) => write!(formatter, "{} names", names.len()),
            Value::Text(text) => formatter.write_str(text),
        }
    }
}

/// Where two answers differ, if they do; `None` also for what is not to be compared.
pub(crate) fn difference(source: &Answer, view: &Answer) -> Option<String> {
    match (source, view) {
        (Ok(Value::Attributes(source)), Ok(Value::Attributes(view))) => source.difference(view),
        (Ok(Value::Bytes(source)), Ok(Value::Bytes(view))) => {
            if source == view {
                return None;
            }
            let at = source.iter().zip(view).position(|(source, view)| source != view);
            let at = at.unwrap_or(source.len().min(view.len()));
            let part =
                |bytes: &[u8]| bytes[at..bytes.len().min(at + 16)].escape_ascii().to_string();
            let lens = (source.len(), view.len());
            Some(format!("{lens:?} bytes, at {at}: \"{}\", \"{}\"", part(source), part(view)))
        }
        (Ok(Value::Names(source)), Ok(Value::Names(view))) => names_difference(source, view),
        _ => (source != view).then(|| "another answer".to_owned()),
    }
}

/// Names and types, in order; offsets are each file system's own.
pub(crate) fn names_difference(source: &[Entry], view: &[Entry]) -> Option<String> {
    let shown = |entry: Option<&Entry>| {
        entry.map(|entry| format!("{:?} \"{}\"", entry.kind, entry.name.escape_ascii()))
    };
    let count = source.len().max(view.len());
    (0..count).map(|index| (index, shown(source.get(index)), shown(view.get(index)))).find_map(
        |(index, source, view)| {
            (source != view).then(|| format!("entry {index}: {source:?}, {view:?}"))
        },
    )
}
