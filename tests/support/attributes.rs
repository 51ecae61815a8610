//! What `lstat` says of a file.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// All of it, but for the device and inode numbers, which are the view's own.
pub(crate) fn attributes(path: &Path) -> Vec<(&'static str, i64)> {
    let found = fs::symlink_metadata(path);
    let found = found.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    vec![
        ("mode", found.mode().into()),
        ("uid", found.uid().into()),
        ("gid", found.gid().into()),
        ("size", found.size() as i64),
        ("links", found.nlink() as i64),
        ("blocks", found.blocks() as i64),
        ("device", found.rdev() as i64),
        ("atime", found.atime()),
        ("atime_ns", found.atime_nsec()),
        ("mtime", found.mtime()),
        ("mtime_ns", found.mtime_nsec()),
        ("ctime", found.ctime()),
        ("ctime_ns", found.ctime_nsec()),
    ]
}
