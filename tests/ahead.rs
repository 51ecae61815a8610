//! What is fetched ahead of the readers of large files, and what is not.

#[path = "support/harness.rs"]
mod support;

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use support::tree::BLOCK;
use support::{Job, Options, Random, Scratch, Status, Tree, eventually};

const BOUND: Duration = Duration::from_secs(60);

/// The blocks of the large file that is read in parts. It has no bytes of its own: its blocks cost the
/// source a read each all the same.
const BLOCKS: u64 = 256;

/// Two ranks with room for all of the file.
fn large_file(scratch: &Scratch) -> (Job, File) {
    let tree = Tree::new(scratch);
    let path = tree.sparse("large", BLOCKS * BLOCK, &[]);
    let options = Options { memory: "512MiB", ..Options::default() };
    let job = Job::launch_with(scratch, 2, &options);
    let file = File::open(job.view(1, &path)).expect("it is readable");
    (job, file)
}

fn read(file: &File, offset: u64, len: usize) {
    let mut bytes = vec![1; len];
    file.read_exact_at(&mut bytes, offset).expect("it is readable");
    assert!(bytes.iter().all(|&byte| byte == 0), "the file is a hole");
}

/// The status once nothing is under way at any rank.
fn settled(job: &Job) -> Status {
    eventually(BOUND, "nothing is under way", || {
        let status = job.status();
        (0..job.ranks()).all(|rank| status.counter(rank, "cache.fetches") == 0).then_some(status)
    })
}

fn assert_same(shown: &Path, expected: &[u8]) {
    // Not assert_eq: nobody wants to see the bytes.
    assert!(fs::read(shown).expect("it is readable") == expected, "{}", shown.display());
}

#[test]
fn a_sequential_reader_at_the_end_of_a_chain_asks_for_few_blocks_itself() {
    let scratch = Scratch::new();
    let tree = Tree::new(&scratch);
    let blocks = 64;
    let path = tree.file("large", blocks * BLOCK as usize);
    let job = Job::launch_with(&scratch, 4, &Options::with(&["--fanout", "1"]));
    assert_same(&job.view(3, &path), &fs::read(&path).expect("ours"));
    let status = settled(&job);
    let misses = status.counter(3, "cache.misses");
    assert!((1..=4).contains(&misses), "{misses} of {blocks} blocks");
    let read = status.counter(3, "cache.fetched_ahead_read");
    assert!(read >= blocks as u64 - 4, "{read} of {blocks} were fetched ahead and read");
    assert_eq!(status.counter(3, "cache.fetched_ahead_evicted"), 0);
    assert_eq!(status.counter(0, "source.bytes"), blocks as u64 * BLOCK);
    for rank in 0..3 {
        assert_eq!(status.counter(rank, "cache.misses"), 0, "rank {rank} has no reader");
    }
}

#[test]
fn who_reads_no_further_gets_no_more_than_a_window_beyond() {
    let scratch = Scratch::new();
    let (job, file) = large_file(&scratch);
    for page in 0..2 * BLOCK / 4096 {
        read(&file, page * 4096, 4096);
    }
    let first = settled(&job).counter(0, "source.reads");
    // What is read, what the kernel reads ahead, and four blocks.
    assert!((3..=7).contains(&first), "{first} blocks were read for the first two");
    // Again, and out of the kernel's cache: nobody reads on.
    read(&file, 0, 2 * BLOCK as usize);
    assert_eq!(settled(&job).counter(0, "source.reads"), first);
}

#[test]
fn a_strided_reader_gets_its_blocks_ahead_and_no_others() {
    const STRIDE: u64 = 7;
    let scratch = Scratch::new();
    let (job, file) = large_file(&scratch);
    let touched = BLOCKS / STRIDE;
    for step in 0..touched {
        read(&file, step * STRIDE * BLOCK + 9000, 4096);
    }
    let status = settled(&job);
    let misses = status.counter(1, "cache.misses");
    assert!((1..=6).contains(&misses), "{misses} of {touched} blocks");
    let reads = status.counter(0, "source.reads");
    // The last step of the file has a block that was not touched.
    assert!((touched..=touched + 1).contains(&reads), "{reads} blocks for {touched}");
}

#[test]
fn random_reads_bring_what_they_touch() {
    let scratch = Scratch::new();
    let (job, file) = large_file(&scratch);
    let mut blocks: Vec<u64> = (0..BLOCKS).step_by(2).collect();
    Random::seeded().shuffle(&mut blocks);
    let touched = 40;
    for block in &blocks[..touched] {
        read(&file, block * BLOCK + 9000, 4096);
    }
    let reads = settled(&job).counter(0, "source.reads") as usize;
    // Random steps are equal now and then.
    assert!((touched..=touched + 6).contains(&reads), "{reads} blocks for {touched}");
}

#[test]
fn readers_at_several_places_of_one_file_each_get_theirs_ahead() {
    const READERS: u64 = 4;
    const EACH: u64 = 24;
    let scratch = Scratch::new();
    let tree = Tree::new(&scratch);
    let size = READERS * 2 * EACH * BLOCK;
    let path = tree.file("large", usize::try_from(size).expect("it fits"));
    let options = Options { memory: "512MiB", ..Options::default() };
    let job = Job::launch_with(&scratch, 2, &options);
    let expected = fs::read(&path).expect("ours");
    let shown = job.view(1, &path);
    std::thread::scope(|scope| {
        for reader in 0..READERS {
            let (shown, expected) = (&shown, &expected);
            scope.spawn(move || {
                let start = reader * 2 * EACH * BLOCK;
                let mut bytes = vec![0; usize::try_from(EACH * BLOCK).expect("it fits")];
                let file = File::open(shown).expect("it is readable");
                file.read_exact_at(&mut bytes, start).expect("it is readable");
                let start = usize::try_from(start).expect("it fits");
                assert!(bytes == expected[start..start + bytes.len()], "reader {reader}");
            });
        }
    });
    let status = settled(&job);
    let (misses, reads) = (status.counter(1, "cache.misses"), status.counter(0, "source.reads"));
    assert!((READERS..=4 * READERS).contains(&misses), "{misses} misses");
    // A share of the window for each, beyond its last block.
    assert!(reads <= READERS * (EACH + 17), "{reads} blocks for {}", READERS * EACH);
}

#[test]
fn a_scan_of_more_than_the_memory_holds_leaves_what_is_in_use() {
    let scratch = Scratch::new();
    let tree = Tree::new(&scratch);
    let used = tree.file("used", 8 * BLOCK as usize);
    let scanned = tree.sparse("scanned", BLOCKS * BLOCK, &[]);
    let options = Options { memory: "64MiB", ..Options::default() };
    let job = Job::launch_with(&scratch, 2, &options);
    let expected = fs::read(&used).expect("ours");
    let used = job.view(1, &used);
    let use_it = || {
        assert_same(&used, &expected);
        // The kernel keeps nothing of it: the next one asks the daemon.
        let file = File::open(&used).expect("it is readable");
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).expect("a hint");
    };
    (0..3).for_each(|_| use_it());
    let file = File::open(job.view(1, &scanned)).expect("it is readable");
    for block in 0..BLOCKS {
        read(&file, block * BLOCK, usize::try_from(BLOCK).expect("it fits"));
    }
    let before = settled(&job);
    assert!(before.counter(1, "cache.evicted_blocks") >= BLOCKS - 64);
    assert_eq!(before.counter(1, "cache.fetched_ahead_evicted"), 0, "nothing came too early");
    use_it();
    let (before, after) =
        (before.counter(1, "fabric.pulls"), settled(&job).counter(1, "fabric.pulls"));
    assert_eq!(after, before, "what is in use was evicted by a scan");
}
