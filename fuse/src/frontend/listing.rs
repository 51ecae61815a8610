//! Directory listings. Offsets are positions: `.` is at 0, `..` at 1, the snapshot's entry *i* at
//! 2 + *i*; the offset sent with an entry is the position after it, so that 0 is the start and a
//! listing goes on where it stopped, as long as the kernel holds the directory.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use copper_engine::{InodeNumber, View};
use copper_proto::{Directory, DirectoryEntry, FileKind};
use fuser::{INodeNo, ReplyDirectory};

use crate::attributes::file_type;

/// What is at a position.
pub(super) enum At<'a> {
    /// `.` or `..`, which count no reference.
    Dots { name: &'static str, inode: InodeNumber },
    /// An entry of the snapshot.
    Entry { index: usize, entry: DirectoryEntry<'a> },
}

impl At<'_> {
    pub(super) fn name(&self) -> &OsStr {
        match self {
            At::Dots { name, .. } => OsStr::new(name),
            At::Entry { entry, .. } => OsStr::from_bytes(entry.name),
        }
    }

    pub(super) fn kind(&self) -> FileKind {
        match self {
            At::Dots { .. } => FileKind::Directory,
            At::Entry { entry, .. } => entry.kind,
        }
    }
}

/// What is at a position of a directory; `None` at its end.
pub(super) fn at<'a, V: View>(
    view: &V,
    inode: InodeNumber,
    directory: &'a Directory,
    position: u64,
) -> Option<At<'a>> {
    match position {
        0 => Some(At::Dots { name: ".", inode }),
        1 => Some(At::Dots { name: "..", inode: view.parent(inode) }),
        _ => {
            let index = usize::try_from(position - 2).ok()?;
            directory.get(index).map(|entry| At::Entry { index, entry })
        }
    }
}

/// Replies with names from `offset` on, as many as fit.
pub(super) fn reply<V: View>(
    view: &V,
    inode: InodeNumber,
    directory: &Directory,
    offset: u64,
    mut reply: ReplyDirectory,
) {
    let mut position = offset;
    while let Some(found) = at(view, inode, directory, position) {
        let number = match &found {
            At::Dots { inode, .. } => *inode,
            At::Entry { index, .. } => view.number(inode, directory, *index),
        };
        position += 1;
        if reply.add(INodeNo(number.0), position, file_type(found.kind()), found.name()) {
            break;
        }
    }
    reply.ok();
}
