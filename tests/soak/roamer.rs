//! One reader that reads at random what it finds in a view, and compares all of it with the source.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::fs::{Advice, fadvise};

use crate::data::Data;
use crate::mapping::Mapper;
use crate::support::tree::BLOCK;
use crate::support::{Random, eventually};

/// The longest single read.
const READ_BYTES_MAX: u64 = 300_000;

#[derive(Debug)]
pub(crate) struct Roamer {
    /// Gives the bytes that it has compared.
    thread: JoinHandle<u64>,
}

struct Place {
    data: Arc<Data>,
    view: PathBuf,
    random: Random,
    mapper: Mapper,
}

impl Roamer {
    /// Reads whatever comes to its mind until then.
    pub(crate) fn start(data: &Arc<Data>, view: PathBuf, random: Random, until: Instant) -> Roamer {
        let mut place = Place { data: Arc::clone(data), view, random, mapper: Mapper::default() };
        let thread = thread::spawn(move || {
            let mut bytes = 0;
            while Instant::now() < until {
                bytes += place.act();
            }
            bytes
        });
        Roamer { thread }
    }

    /// Reads all files so many times, each time in another order.
    pub(crate) fn start_on_all(
        data: &Arc<Data>,
        view: PathBuf,
        mut random: Random,
        times: usize,
    ) -> Roamer {
        let data = Arc::clone(data);
        let thread = thread::spawn(move || {
            let mut order: Vec<usize> = (0..data.files.len()).collect();
            for _ in 0..times {
                random.shuffle(&mut order);
                for &index in &order {
                    compare_whole(&data.files[index].0, &shown(&view, &data.files[index].0));
                }
            }
            times as u64 * data.bytes()
        });
        Roamer { thread }
    }

    /// Reads over the border of each two blocks of a file.
    pub(crate) fn start_on_borders(file: PathBuf, view: PathBuf) -> Roamer {
        let thread = thread::spawn(move || {
            let (own, there) = (open(&file), open(&shown(&view, &file)));
            let size = own.metadata().expect("it is ours").len();
            let borders = (1..=size / BLOCK).map(|block| block * BLOCK);
            borders.map(|border| compare(&own, &there, border - 32_768, 65_536, &file)).sum()
        });
        Roamer { thread }
    }

    /// # Panics
    /// If it does not end in time, or has found a difference.
    #[track_caller]
    pub(crate) fn finish(self, deadline: Duration) -> u64 {
        eventually(deadline, "a reader ends", || self.thread.is_finished().then_some(()));
        self.thread.join().expect("what is shown is what the source has")
    }
}

impl Place {
    /// Does one thing; how many bytes it has compared.
    fn act(&mut self) -> u64 {
        let index = self.random.below(self.data.files.len() as u64) as usize;
        let (file, size) = self.data.files[index].clone();
        let there = shown(&self.view, &file);
        match self.random.below(16) {
            0 => self.list(),
            1 => {
                compare_whole(&file, &there);
                size
            }
            2..4 => self.map(&file, &there, size),
            _ => self.read(&file, &there, size),
        }
    }

    fn list(&mut self) -> u64 {
        let index = self.random.below(self.data.folders.len() as u64) as usize;
        let folder = &self.data.folders[index];
        assert_eq!(names(folder), names(&shown(&self.view, folder)));
        0
    }

    fn map(&mut self, file: &Path, there: &Path, size: u64) -> u64 {
        let page = self.random.below(size.div_ceil(4096)) * 4096;
        let len = (1 + self.random.below(READ_BYTES_MAX)).min(size - page);
        let own = self.mapper.digest(file, page, len).expect("it is ours");
        let found = self.mapper.digest(there, page, len);
        assert_eq!(found, Ok(own), "{} from {page}", there.display());
        len
    }

    fn read(&mut self, file: &Path, there: &Path, size: u64) -> u64 {
        let (own, shown) = (open(file), open(there));
        assert_eq!(shown.metadata().expect("it is shown").size(), size);
        let mut bytes = 0;
        for _ in 0..1 + self.random.below(8) {
            let offset = self.random.below(size);
            let len = 1 + self.random.below(READ_BYTES_MAX);
            bytes += compare(&own, &shown, offset, len, there);
        }
        bytes
    }
}

fn shown(view: &Path, path: &Path) -> PathBuf {
    view.join(path.strip_prefix("/").expect("an absolute path"))
}

#[track_caller]
fn open(path: &Path) -> File {
    File::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn names(folder: &Path) -> BTreeSet<std::ffi::OsString> {
    let entries =
        fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    entries.map(|entry| entry.expect("the listing goes on").file_name()).collect()
}

/// Compares a range, and has the kernel drop the view's pages: the next reader asks the daemon.
fn compare(own: &File, there: &File, offset: u64, len: u64, path: &Path) -> u64 {
    let size = own.metadata().expect("it is ours").len();
    let len = usize::try_from(len.min(size - offset)).expect("it fits");
    let (mut expected, mut found) = (vec![0; len], vec![0; len]);
    own.read_exact_at(&mut expected, offset).expect("it is ours");
    let read = there.read_exact_at(&mut found, offset);
    read.unwrap_or_else(|error| panic!("{} from {offset}: {error}", path.display()));
    assert!(found == expected, "{}: {len} bytes from {offset} differ", path.display());
    fadvise(there, 0, None, Advice::DontNeed).expect("a regular file");
    len as u64
}

fn compare_whole(file: &Path, there: &Path) {
    let (own, shown) = (open(file), open(there));
    let size = own.metadata().expect("it is ours").len();
    for offset in (0..size).step_by(1 << 20) {
        compare(&own, &shown, offset, 1 << 20, there);
    }
}
