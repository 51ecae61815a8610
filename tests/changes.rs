//! Files that change while they are read: the old bytes or an errno, never a mixture, never an
//! invented end.
//!
//! Every page of a file names its version.

#[path = "support/harness.rs"]
mod support;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use support::tree::{PAGE, contents, page_of};
use support::{Job, Scratch, Tree, within};

const BOUND: Duration = Duration::from_secs(60);
const EIO: i32 = 5;
const ESTALE: i32 = 116;

/// Above the size up to which a file is fetched whole, and above what is fetched ahead.
const SIZE: usize = 24 << 20;

const SEED: u64 = 77;

/// Whole pages that have been read in one call, from `page` on: their version.
#[track_caller]
fn version_of(bytes: &[u8], page: u64) -> u64 {
    assert!(bytes.len().is_multiple_of(PAGE), "{} bytes are no pages", bytes.len());
    let version = u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes"));
    let mut expected = Vec::with_capacity(bytes.len());
    for index in 0..(bytes.len() / PAGE) as u64 {
        page_of(SEED, version, page + index, &mut expected);
    }
    for (index, (read, right)) in bytes.chunks(PAGE).zip(expected.chunks(PAGE)).enumerate() {
        assert!(read == right, "page {} of {page}+ is not of version {version}", index);
    }
    version
}

/// Reads the rest of a file from a page on: pages read, and how it ended. All of them have to be of
/// one version.
fn read_on(file: &mut File, from: u64, version: Option<u64>) -> (u64, io::Result<Option<u64>>) {
    let (mut page, mut version) = (from, version);
    let mut buffer = vec![0; 32 * PAGE];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return (page, Ok(version)),
            Ok(len) => {
                let found = version_of(&buffer[..len], page);
                assert_eq!(*version.get_or_insert(found), found, "a mixture at page {page}");
                page += (len / PAGE) as u64;
            }
            Err(error) => return (page, Err(error)),
        }
    }
}

/// Reads the beginning of a file through each rank's view, changes it, reads on.
fn read_across(change: impl Fn(&Path), after: impl Fn(u64)) {
    let scratch = Scratch::new();
    let tree = Tree::new(&scratch);
    let job = Job::launch(&scratch, 3);
    for rank in 0..job.ranks() {
        let path = tree.path(format!("file-{rank}"));
        fs::write(&path, contents(SEED, 1, SIZE)).expect("it is ours");
        let shown = job.view(rank, &path);
        let file = within(BOUND, "the beginning", move || {
            let mut file = File::open(shown).expect("it is there");
            let mut bytes = vec![0; 16 * PAGE];
            file.read_exact(&mut bytes).expect("it is there");
            assert_eq!(version_of(&bytes, 0), 1);
            file
        });
        change(&path);
        let (pages, ended) = within(BOUND, "the rest", move || {
            let mut file = file;
            read_on(&mut file, 16, Some(1))
        });
        match ended {
            Ok(version) => {
                assert_eq!(version, Some(1), "rank {rank}");
                assert_eq!(pages, (SIZE / PAGE) as u64, "rank {rank} invents an end");
            }
            Err(error) => {
                let errno = error.raw_os_error().expect("an error of the kernel");
                assert!([EIO, ESTALE].contains(&errno), "rank {rank}: {error}");
                after(pages);
            }
        }
        assert_eq!(job.status().counter(rank, "fuse.expired"), 0);
    }
}

#[test]
fn a_file_that_shrinks_while_it_is_read_ends_with_its_old_bytes_or_an_errno() {
    read_across(
        |path| {
            let file = OpenOptions::new().write(true).open(path).expect("it is ours");
            file.set_len(10 * PAGE as u64).expect("it is ours");
        },
        |pages| assert!(pages < (SIZE / PAGE) as u64),
    );
}

#[test]
fn a_file_that_grows_while_it_is_read_ends_with_its_old_bytes_or_an_errno() {
    read_across(
        |path| {
            let more = contents(SEED, 2, SIZE + (1 << 20));
            let mut file = OpenOptions::new().append(true).open(path).expect("it is ours");
            file.write_all(&more[SIZE..]).expect("there is room");
        },
        |pages| assert!(pages < (SIZE / PAGE) as u64),
    );
}

#[test]
fn a_file_that_is_replaced_while_it_is_read_ends_with_its_old_bytes_or_an_errno() {
    read_across(
        |path| {
            let new = path.with_extension("new");
            fs::write(&new, contents(SEED, 2, SIZE)).expect("it is ours");
            fs::rename(new, path).expect("it is ours");
        },
        |pages| assert!(pages < (SIZE / PAGE) as u64),
    );
}

#[test]
fn files_that_are_replaced_all_the_time_are_never_mixed() {
    const FILES: u64 = 12;
    let sizes = [PAGE, 3 * PAGE, 300 * PAGE, 700 * PAGE];
    let scratch = Scratch::new();
    let tree = Tree::new(&scratch);
    let write = |index: u64, version: u64| {
        let size = sizes[((index + version) % sizes.len() as u64) as usize];
        let new = tree.path("new");
        fs::write(&new, contents(SEED, version, size)).expect("it is ours");
        fs::rename(new, tree.path(format!("file-{index}"))).expect("it is ours");
    };
    (0..FILES).for_each(|index| write(index, 1));
    let job = Job::launch(&scratch, 3);
    let ended = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> = (0..job.ranks())
        .map(|rank| {
            let (root, ended) = (job.view(rank, tree.root()), Arc::clone(&ended));
            std::thread::spawn(move || {
                let (mut right, mut failed) = (0, 0);
                while !ended.load(Ordering::Relaxed) {
                    for index in 0..FILES {
                        let mut file = match File::open(root.join(format!("file-{index}"))) {
                            Ok(file) => file,
                            Err(error) => {
                                assert_eq!(error.raw_os_error(), Some(ESTALE), "{error}");
                                failed += 1;
                                continue;
                            }
                        };
                        let size = file.metadata().expect("it is open").len();
                        match read_on(&mut file, 0, None) {
                            (pages, Ok(_)) => {
                                assert!(pages * PAGE as u64 >= size, "an end was invented");
                                right += 1;
                            }
                            (_, Err(error)) => {
                                let errno = error.raw_os_error().expect("of the kernel");
                                assert!([EIO, ESTALE].contains(&errno), "{error}");
                                failed += 1;
                            }
                        }
                    }
                }
                (right, failed)
            })
        })
        .collect();
    let until = Instant::now() + Duration::from_secs(4);
    let mut version = 2;
    while Instant::now() < until && !readers.iter().any(|reader| reader.is_finished()) {
        // The first one stays, so that something can be read whatever the others are doing: a file
        // that was replaced between its attributes and its bytes answers ESTALE for good.
        (1..FILES).for_each(|index| write(index, version));
        version += 1;
    }
    ended.store(true, Ordering::Relaxed);
    for (rank, reader) in readers.into_iter().enumerate() {
        let (right, failed) = within(BOUND, "a reader ends", move || reader.join().expect("right"));
        support::say(&format!("rank {rank}: {right} read, {failed} failed, {version} versions"));
        assert!(right > 0);
    }
}

#[test]
#[should_panic(expected = "is not of version 1")]
fn the_readers_of_these_tests_find_a_mixture() {
    let mut bytes = contents(SEED, 1, 8 * PAGE);
    bytes[5 * PAGE..6 * PAGE].copy_from_slice(&contents(SEED, 2, 6 * PAGE)[5 * PAGE..]);
    version_of(&bytes, 0);
}
