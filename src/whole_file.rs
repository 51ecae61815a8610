//! Files that others read while they are written.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::Path;

/// Writes a file whole or not at all: whoever looks meanwhile sees what was there before, and a disk that is
/// full keeps nothing of it.
pub(crate) fn write_whole(path: &Path, text: &str) -> io::Result<()> {
    let name = path.file_name().ok_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidInput, "the path does not end in a file's name")
    })?;
    // Hidden, so that nobody who reads a folder takes it for a file of its own.
    let mut beside = OsString::from(".");
    beside.push(name);
    beside.push(format!(".{}", std::process::id()));
    let beside = path.with_file_name(beside);
    let written = fs::write(&beside, text).and_then(|()| fs::rename(&beside, path));
    if written.is_err() {
        // It may not have been made.
        let _ = fs::remove_file(&beside);
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_cannot_be_written_leaves_what_was_there_and_nothing_beside_it() {
        let folder = std::env::temp_dir().join(format!("copper-whole-{}", std::process::id()));
        // A folder of that name cannot be replaced by a file.
        fs::create_dir_all(folder.join("taken")).expect("a folder of ours");
        write_whole(&folder.join("file"), "one").expect("there is room");
        write_whole(&folder.join("file"), "two").expect("there is room");
        assert!(write_whole(&folder.join("taken"), "three").is_err());
        assert!(write_whole(&folder.join(".."), "four").is_err());
        let mut names: Vec<_> = fs::read_dir(&folder)
            .expect("it is ours")
            .map(|entry| entry.expect("it is ours").file_name())
            .collect();
        names.sort();
        assert_eq!(names, ["file", "taken"]);
        assert_eq!(fs::read_to_string(folder.join("file")).expect("it is text"), "two");
        fs::remove_dir_all(&folder).expect("it is ours");
    }
}
