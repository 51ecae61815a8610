//! Source trees.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::{CWD, FileType, Mode, Timespec, Timestamps};

use super::Scratch;

/// What the contents of a file count in.
pub(crate) const PAGE: usize = 4096;

/// What a fetch moves of a large file.
pub(crate) const BLOCK: u64 = 1 << 20;

/// A folder with files whose bytes can be told from their name.
#[derive(Clone, Debug)]
pub(crate) struct Tree {
    root: PathBuf,
}

impl Tree {
    pub(crate) fn new(scratch: &Scratch) -> Tree {
        let root = scratch.join("source");
        fs::create_dir(&root).expect("the folder is new");
        Tree { root }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn path(&self, name: impl AsRef<OsStr>) -> PathBuf {
        self.root.join(name.as_ref())
    }

    /// A file of `size` bytes of [`contents`] with its name as the seed.
    pub(crate) fn file(&self, name: impl AsRef<OsStr>, size: usize) -> PathBuf {
        let bytes = contents(seed_of(name.as_ref()), 0, size);
        self.file_with(name, &bytes)
    }

    pub(crate) fn file_with(&self, name: impl AsRef<OsStr>, bytes: &[u8]) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, bytes).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        path
    }

    /// A file without blocks, but for `bytes` at `offset`.
    pub(crate) fn sparse(&self, name: &str, size: u64, written: &[(u64, &[u8])]) -> PathBuf {
        let path = self.path(name);
        let file = File::create_new(&path).expect("a new file");
        file.set_len(size).expect("the file system has sparse files");
        for (offset, bytes) in written {
            file.write_all_at(bytes, *offset).expect("it is ours");
        }
        path
    }

    pub(crate) fn directory(&self, name: impl AsRef<OsStr>) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(&path).expect("it is ours");
        path
    }

    pub(crate) fn link(&self, name: &str, target: impl AsRef<OsStr>) -> PathBuf {
        let path = self.path(name);
        std::os::unix::fs::symlink(Path::new(target.as_ref()), &path).expect("it is ours");
        path
    }

    pub(crate) fn fifo(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        rustix::fs::mknodat(CWD, &path, FileType::Fifo, Mode::from_raw_mode(0o640), 0)
            .expect("it is ours");
        path
    }

    /// A character device like `/dev/null`; takes root.
    pub(crate) fn null_device(&self, name: &str) -> PathBuf {
        let (path, device) = (self.path(name), rustix::fs::makedev(1, 3));
        let mode = Mode::from_raw_mode(0o666);
        rustix::fs::mknodat(CWD, &path, FileType::CharacterDevice, mode, device)
            .expect("root makes devices");
        path
    }

    /// All paths below the root, the root included, in no order.
    pub(crate) fn all(&self) -> Vec<PathBuf> {
        let mut all = vec![self.root.clone()];
        let mut next = 0;
        while let Some(path) = all.get(next).cloned() {
            next += 1;
            if path.symlink_metadata().expect("it was listed").is_dir() {
                let entries = fs::read_dir(&path).expect("it is ours");
                all.extend(entries.map(|entry| entry.expect("it is ours").path()));
            }
        }
        all
    }

    /// Gives everything access times later than all else: reading does not change them then
    /// (relatime), and they can be compared.
    pub(crate) fn settle_access_times(&self) {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let later = now + Duration::new(5, 123_456_789);
        let seconds = i64::try_from(later.as_secs()).expect("not yet");
        let at = Timespec { tv_sec: seconds, tv_nsec: later.subsec_nanos().into() };
        let kept = Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_OMIT };
        let times = Timestamps { last_access: at, last_modification: kept };
        for path in self.all() {
            let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
            rustix::fs::utimensat(CWD, &path, &times, flags).expect("it is ours");
        }
    }
}

/// A number for a name.
pub(crate) fn seed_of(name: &OsStr) -> u64 {
    twox_hash::XxHash3_64::oneshot(name.as_encoded_bytes())
}

/// The bytes of a file: each page begins with the version, and every 8 bytes can be told from the
/// seed, the version and their place.
pub(crate) fn contents(seed: u64, version: u64, size: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(size + PAGE);
    for page in 0..size.div_ceil(PAGE) as u64 {
        page_of(seed, version, page, &mut bytes);
    }
    bytes.truncate(size);
    bytes
}

/// Appends one page.
pub(crate) fn page_of(seed: u64, version: u64, page: u64, to: &mut Vec<u8>) {
    let start = twox_hash::XxHash3_64::oneshot_with_seed(seed ^ version, &page.to_le_bytes());
    to.extend_from_slice(&version.to_le_bytes());
    for word in 1..(PAGE / 8) as u64 {
        let value = start.wrapping_add(word.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        to.extend_from_slice(&value.to_le_bytes());
    }
}
