//! The mount table, as the kernel shows it.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// The mount points at and below a path.
pub(crate) fn below(path: &Path) -> Vec<PathBuf> {
    of_process(std::process::id(), path)
}

/// The same, as another process sees them.
pub(crate) fn of_process(pid: u32, path: &Path) -> Vec<PathBuf> {
    let table = std::fs::read(format!("/proc/{pid}/mountinfo")).expect("there is a mount table");
    let points = table.split(|&byte| byte == b'\n').filter_map(|line| {
        let point = line.split(|&byte| byte == b' ').nth(4)?;
        Some(PathBuf::from(OsString::from_vec(unescape(point))))
    });
    points.filter(|point| point.starts_with(path)).collect()
}

/// Spaces and the like are written as `\040`.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, after)) = rest.split_first() {
        let digits = after.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        let escaped = digits.and_then(|digits| u8::from_str_radix(digits, 8).ok());
        let (plain, left) = match (byte, escaped) {
            (b'\\', Some(escaped)) => (escaped, &after[3..]),
            _ => (byte, after),
        };
        bytes.push(plain);
        rest = left;
    }
    bytes
}
