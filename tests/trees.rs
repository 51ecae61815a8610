//! Several trees over the same ranks: several roots read the source, each its part, and what is read
//! of a file depends on its size as `-M` and `--direct-above` say.

#[path = "support/harness.rs"]
mod support;

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use support::reader::{Expected, Reader};
use support::tree::BLOCK;
use support::{Job, Options, Random, Scratch, Status, Tree, eventually};

const BOUND: Duration = Duration::from_secs(60);

/// In which a rank finds another parent.
const PARENT_BOUND: Duration = Duration::from_secs(10);

fn files(tree: &Tree) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = (0..8_usize)
        .flat_map(|folder| {
            tree.directory(format!("folder-{folder}"));
            (0..20_usize).map(move |index| (format!("folder-{folder}/{index}"), 1 + index * 997))
        })
        .map(|(name, size)| tree.file(name, size))
        .collect();
    let sizes = [3_000_000, 9_999_999, 10_000_001, 24 << 20];
    files.extend(sizes.map(|size| tree.file(format!("large-{size}"), size)));
    files
}

fn distinct(files: &[PathBuf]) -> u64 {
    files.iter().map(|path| path.metadata().expect("ours").len()).sum()
}

fn expected(job: &Job, rank: u32, files: &[PathBuf], random: &mut Random) -> Vec<Expected> {
    let pair = |path: &PathBuf| (job.view(rank, path), Arc::new(fs::read(path).expect("ours")));
    let mut expected: Vec<Expected> = files.iter().map(pair).collect();
    random.shuffle(&mut expected);
    expected
}

#[track_caller]
fn read_everywhere(job: &Job, ranks: &[u32], files: &[PathBuf], random: &mut Random) {
    let readers: Vec<Reader> = ranks
        .iter()
        .map(|&rank| Reader::start(format!("rank {rank}"), expected(job, rank, files, random)))
        .collect();
    for reader in readers {
        let tally = reader.finish(BOUND);
        assert!(tally.wrong.is_empty() && tally.failed.is_empty(), "{tally:?}");
        assert_eq!(tally.right, files.len());
    }
}

fn roots(status: &Status) -> Vec<u64> {
    let trees = status.rank(0)["trees"].as_array().expect("a list");
    trees.iter().map(|tree| tree["root"].as_u64().expect("a rank")).collect()
}

fn source_bytes(status: &Status, rank: u32) -> u64 {
    status.counter(rank, "source.bytes")
}

#[test]
fn each_root_reads_its_part_of_the_source_and_each_byte_is_read_once() {
    for trees in ["2", "3", "4"] {
        let scratch = Scratch::new();
        let tree = Tree::new(&scratch);
        let files = files(&tree);
        let mut random = Random::seeded();
        let mut options = Options::with(&["-T", trees, "--fanout", "2"]);
        options.memory = "256MiB";
        let mut job = Job::launch_with(&scratch, 4, &options);
        read_everywhere(&job, &[0, 1, 2, 3], &files, &mut random);
        let status = job.status();
        let roots = roots(&status);
        assert_eq!(roots.len().to_string(), trees);
        let mut whole = 0;
        for rank in 0..4 {
            let bytes = source_bytes(&status, rank);
            let share = bytes as f64 / distinct(&files) as f64;
            whole += bytes;
            if roots.contains(&rank.into()) {
                let even = 1.0 / roots.len() as f64;
                assert!(
                    (even / 3.0..even * 2.0).contains(&share),
                    "-T {trees}: {rank} read {share}"
                );
            } else {
                assert_eq!(bytes, 0, "-T {trees}: rank {rank} is no root");
            }
            for name in ["fabric.checksum_failures", "fabric.violations", "source.refused"] {
                assert_eq!(status.counter(rank, name), 0, "-T {trees}, rank {rank}: {name}");
            }
        }
        assert_eq!(whole, distinct(&files), "-T {trees}");
        // The same again costs the source nothing.
        read_everywhere(&job, &[0, 1, 2, 3], &files, &mut random);
        let again = job.status();
        let sum = |status: &Status| (0..4).map(|rank| source_bytes(status, rank)).sum::<u64>();
        assert_eq!(sum(&again), whole);
        job.stop();
    }
}

#[test]
fn a_lost_root_of_one_tree_is_replaced_there_and_the_others_go_on() {
    let scratch = Scratch::new();
    let tree = Tree::new(&scratch);
    let files = files(&tree);
    tree.directory("late");
    let mut late: Vec<PathBuf> =
        (0..40_usize).map(|index| tree.file(format!("late/{index}"), 5000 + index)).collect();
    late.push(tree.file("late/large", 9 << 20));
    let mut random = Random::seeded();
    let mut options = Options::with(&["-T", "2", "--fanout", "2"]);
    (options.memory, options.source) = ("256MiB", "direct");
    let mut job = Job::launch_with(&scratch, 4, &options);
    let roots = roots(&job.status());
    assert_eq!(roots, [0, 2]);
    let readers: Vec<(u32, Reader)> = [0, 1, 3]
        .map(|rank| {
            let expected = expected(&job, rank, &files, &mut random);
            (rank, Reader::start(format!("rank {rank}"), expected))
        })
        .into();
    eventually(BOUND, "somebody reads", || {
        readers.iter().any(|(_, reader)| reader.progress() > 20).then_some(())
    });
    job.kill(2);
    for (rank, reader) in readers {
        let tally = reader.finish(BOUND);
        assert!(tally.wrong.is_empty() && tally.failed.is_empty(), "rank {rank}: {tally:?}");
    }
    eventually(PARENT_BOUND, "the second tree has another root", || {
        let status = job.status();
        [0, 1, 3]
            .iter()
            .any(|&rank| status.rank(rank)["trees"][1]["reads_source"] == true)
            .then_some(())
    });
    // What nobody has read before comes too, by either tree.
    read_everywhere(&job, &[0, 1, 3], &late, &mut random);
    assert!(job.stop().contains("3 ranks stopped"));
}

#[test]
fn files_above_the_bound_are_read_by_each_rank_from_the_source_itself() {
    let scratch = Scratch::new();
    let tree = Tree::new(&scratch);
    let small = tree.file("small", 3 << 20);
    let large = tree.file("large", 12 << 20);
    let mut random = Random::seeded();
    let mut options = Options::with(&["--direct-above", "10MB"]);
    (options.memory, options.source) = ("256MiB", "direct");
    let mut job = Job::launch_with(&scratch, 3, &options);
    read_everywhere(&job, &[0, 1, 2], &[small, large], &mut random);
    let status = job.status();
    assert_eq!(source_bytes(&status, 0), (3 << 20) + (12 << 20));
    for rank in 1..3 {
        assert_eq!(source_bytes(&status, rank), 12 << 20, "the large one, and nothing else");
        assert_eq!(status.rank(rank)["state"], "ready", "that is not degraded");
    }
    job.stop();
}

#[test]
fn the_bound_of_files_that_are_fetched_whole_can_be_set() {
    let scratch = Scratch::new();
    let tree = Tree::new(&scratch);
    let file = tree.file("file", 6 << 20);
    let mut fetched = Vec::new();
    for bound in ["0", "10MB"] {
        let mut options = Options::with(&["-M", bound]);
        options.memory = "256MiB";
        let mut job = Job::launch_with(&scratch, 2, &options);
        let mut first = vec![0; 100];
        let view = fs::File::open(job.view(1, &file)).expect("it is shown");
        std::os::unix::fs::FileExt::read_exact_at(&view, &mut first, 3 * BLOCK + 5)
            .expect("it is shown");
        let own = fs::read(&file).expect("ours");
        let start = 3 * BLOCK as usize + 5;
        assert_eq!(first, own[start..start + 100]);
        // What is fetched ahead comes after the answer.
        let settled = eventually(BOUND, "nothing is under way", || {
            let status = job.status();
            let idle = (0..2).all(|rank| status.counter(rank, "under_way.fetches") == 0);
            idle.then_some(status)
        });
        fetched.push(source_bytes(&settled, 0) / BLOCK);
        drop(view);
        job.stop();
    }
    assert!(fetched[0] <= 2, "what is touched, and what the kernel reads ahead: {fetched:?}");
    assert_eq!(fetched[1], 6, "all of it");
}
