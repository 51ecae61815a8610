//! Ranks that die or stop: the others go on or get an errno in time; nobody gets wrong bytes, nobody
//! hangs, and nothing is left in the end.
//!
//! With `--fanout 2` rank 1 is the parent of rank 3; ranks 1 and 2 are below the root.

#[path = "support/harness.rs"]
mod support;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;
use support::job::copper;
use support::reader::{Expected, Reader, Tally, read};
use support::{Job, Options, Random, Running, Scratch, Tree, eventually, mounts, within};

/// For a whole reader.
const BOUND: Duration = Duration::from_secs(60);

/// In which every single reader has to have its bytes or an errno.
const ERRNO_BOUND: Duration = Duration::from_secs(10);

/// In which a rank finds another parent.
const PARENT_BOUND: Duration = Duration::from_secs(10);

struct World {
    job: Job,
    files: Vec<(PathBuf, Arc<Vec<u8>>)>,
    late: PathBuf,
    random: Random,
    scratch: Scratch,
}

impl World {
    fn new() -> World {
        World::with("none", "64MiB")
    }

    fn with(source: &'static str, memory: &'static str) -> World {
        let scratch = Scratch::new();
        let tree = Tree::new(&scratch);
        let mut paths: Vec<PathBuf> = (0..1500_usize)
            .map(|index| tree.file(format!("small-{index}"), 500 + (index * 131) % 40_000))
            .collect();
        paths.extend(
            (0..15_usize).map(|index| tree.file(format!("large-{index}"), (2 << 20) + index)),
        );
        let late = tree.directory("late");
        for index in 0..100 {
            tree.file(format!("late/{index}"), 30_000 + index);
        }
        let files = paths.into_iter().map(|path| {
            let bytes = Arc::new(fs::read(&path).expect("it is ours"));
            (path, bytes)
        });
        let files = files.collect();
        let job = Job::launch_with(
            &scratch,
            4,
            &Options { source, memory, ..Options::with(&["--fanout", "2"]) },
        );
        assert_eq!(job.status().counter(3, "parent"), 1, "rank 1 is the parent of rank 3");
        World { job, files, late, random: Random::seeded(), scratch }
    }

    /// Every file through a rank's view, in an order of its own.
    fn expected(&mut self, rank: u32) -> Vec<Expected> {
        let mut files: Vec<Expected> = self
            .files
            .iter()
            .map(|(path, bytes)| (self.job.view(rank, path), Arc::clone(bytes)))
            .collect();
        self.random.shuffle(&mut files);
        files
    }

    fn reader(&mut self, rank: u32) -> Reader {
        Reader::start(format!("the reader of rank {rank}"), self.expected(rank))
    }

    /// Files that nobody has read before.
    fn late(&self, rank: u32) -> Vec<Expected> {
        let entries = fs::read_dir(&self.late).expect("it is ours");
        let paths = entries.map(|entry| entry.expect("it is ours").path());
        paths
            .map(|path| {
                let bytes = Arc::new(fs::read(&path).expect("it is ours"));
                (self.job.view(rank, &path), bytes)
            })
            .collect()
    }

    /// Both, once the trouble is over.
    #[track_caller]
    fn assert_rank_reads_everything(&mut self, rank: u32) {
        let mut files = self.expected(rank);
        files.extend(self.late(rank));
        let count = files.len();
        let tally = Reader::start(format!("rank {rank}, afterwards"), files).finish(BOUND);
        assert!(tally.wrong.is_empty() && tally.failed.is_empty(), "rank {rank}: {tally:?}");
        assert_eq!(tally.right, count);
    }
}

/// Whatever happened, nobody got wrong bytes and nobody waited for too long.
#[track_caller]
fn assert_harmless(rank: u32, tally: &Tally) {
    let failed = tally.failed.len();
    support::say(&format!(
        "rank {rank}: {} right, {failed} failed, longest {:?}, {:?}",
        tally.right,
        tally.longest,
        tally.failed.first()
    ));
    assert!(tally.wrong.is_empty(), "rank {rank} has shown other bytes: {:?}", tally.wrong);
    assert!(tally.longest <= ERRNO_BOUND, "rank {rank}: one file took {:?}", tally.longest);
}

#[test]
fn the_death_of_a_leaf_is_nobody_else_s_business() {
    let mut world = World::new();
    let readers: Vec<Reader> = (0..4).map(|rank| world.reader(rank)).collect();
    eventually(BOUND, "rank 3 reads", || (readers[3].progress() > 100).then_some(()));
    world.job.kill(3);
    for (rank, reader) in (0..).zip(readers) {
        let tally = reader.finish(BOUND);
        assert_harmless(rank, &tally);
        if rank != 3 {
            assert!(tally.failed.is_empty(), "rank {rank}: {:?}", tally.failed);
        }
    }
    let view = world.job.views[3].clone();
    eventually(Duration::from_secs(5), "the guardian removes the mount", || {
        mounts::below(&view).is_empty().then_some(())
    });
    let status = world.job.status();
    assert_eq!(status.rank(3)["state"], "dead");
    eventually(PARENT_BOUND, "rank 1 has no child any more", || {
        (world.job.status().counter(1, "links.children") == 0).then_some(())
    });
    for rank in 0..3 {
        world.assert_rank_reads_everything(rank);
    }
    let printed = world.job.stop();
    assert!(printed.contains("3 ranks stopped"), "{printed}");
}

#[test]
fn the_children_of_a_dead_rank_find_another_parent_and_go_on() {
    let mut world = World::new();
    let readers: Vec<Reader> = [0, 2, 3].into_iter().map(|rank| world.reader(rank)).collect();
    eventually(BOUND, "rank 3 reads", || (readers[2].progress() > 100).then_some(()));
    world.job.kill(1);
    for (rank, reader) in [0, 2, 3].into_iter().zip(readers) {
        let tally = reader.finish(BOUND);
        assert_harmless(rank, &tally);
        if rank != 3 {
            assert!(tally.failed.is_empty(), "rank {rank}: {:?}", tally.failed);
        }
    }
    eventually(PARENT_BOUND, "rank 0 is rank 3's parent", || {
        (world.job.status().rank(3)["parent"] == 0).then_some(())
    });
    for rank in [0, 2, 3] {
        world.assert_rank_reads_everything(rank);
        let status = world.job.status();
        assert_eq!(status.rank(rank)["state"], "ready");
        if rank != 0 {
            assert_eq!(status.counter(rank, "source.opens"), 0);
        }
    }
    world.job.stop();
}

/// A read that the kernel does not answer from its own memory.
fn read_from_the_daemon(path: &Path) -> std::io::Result<Vec<u8>> {
    let file = File::open(path)?;
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?;
    drop(file);
    read(path)
}

#[test]
fn after_the_death_of_the_root_what_is_held_is_read_and_the_rest_is_an_errno() {
    let mut world = World::new();
    let held: Vec<Expected> = world.expected(3).into_iter().take(300).collect();
    let tally = Reader::start("rank 3", held.clone()).finish(BOUND);
    assert_eq!(tally.right, held.len());
    let readers: Vec<Reader> = (1..4).map(|rank| world.reader(rank)).collect();
    eventually(BOUND, "rank 1 reads", || (readers[0].progress() > 50).then_some(()));
    world.job.kill(0);
    // Waiting for a root that does not come back takes each file its time: not all are waited for.
    let before = world.job.status().counter(3, "fuse.read");
    let again = held.clone();
    within(BOUND, "files that rank 3 holds", move || {
        for (path, bytes) in again {
            let read = read_from_the_daemon(&path);
            let read = read.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            assert!(read == *bytes, "{}", path.display());
        }
    });
    let asked = world.job.status().counter(3, "fuse.read") - before;
    assert!(asked >= held.len() as u64 / 2, "the daemon was asked {asked} times");
    for rank in 1..4 {
        let few: Vec<Expected> = world.late(rank).into_iter().take(2).collect();
        let tally = Reader::start(format!("rank {rank}"), few).finish(3 * ERRNO_BOUND);
        assert_harmless(rank, &tally);
        assert_eq!(tally.right, 0, "--source none: nobody else may read the source");
    }
    // The readers are in the middle of it: the end of the daemons frees them.
    world.job.stop();
    for (rank, reader) in (1..).zip(readers) {
        let tally = reader.finish(ERRNO_BOUND);
        assert_harmless(rank, &tally);
    }
}

#[test]
fn the_next_rank_takes_the_place_of_a_lost_root_and_asks_others_for_what_they_hold() {
    let mut world = World::with("direct", "256MiB");
    // Ranks 0 and 2 hold these, rank 1 has never heard of them.
    let tally = Reader::start("rank 2", world.expected(2)).finish(BOUND);
    assert_eq!(tally.right, world.files.len());
    world.job.kill(0);
    eventually(PARENT_BOUND, "rank 1 takes over, and rank 2 comes to it", || {
        let status = world.job.status();
        (status.rank(1)["state"] == "stands-in" && status.rank(2)["parent"] == 1).then_some(())
    });
    let tally = Reader::start("rank 3", world.expected(3)).finish(BOUND);
    assert_harmless(3, &tally);
    assert!(tally.failed.is_empty(), "{:?}", tally.failed);
    let status = world.job.status();
    let read_again = status.counter(1, "source.opens");
    assert_eq!(read_again, 0, "rank 2 holds all of it");
    assert!(status.counter(1, "fabric.recalled") > world.files.len() as u64 / 2);
    // What nobody holds is read by the one that has taken over, for all.
    for rank in 1..4 {
        let tally = Reader::start(format!("rank {rank}"), world.late(rank)).finish(BOUND);
        assert!(tally.wrong.is_empty() && tally.failed.is_empty(), "rank {rank}: {tally:?}");
    }
    let status = world.job.status();
    assert_eq!(status.counter(1, "source.opens"), world.late(1).len() as u64);
    assert!(status.counter(1, "source.degraded_reads") > 0, "the operator can see it");
    for rank in 2..4 {
        assert_eq!(status.counter(rank, "source.opens"), 0, "rank {rank}");
    }
    let mut status = copper(&world.scratch);
    let said = Running::start(status.arg("status").arg("-v").arg(&world.job.directory));
    let said = said.finish(BOUND).stdout();
    assert!(said.contains("rank 1 reads the source in the root's place in tree 0"), "{said}");
    assert!(said.contains("rank 2 hangs on rank 1 in tree 0; it has lost rank 0"), "{said}");
    // And numbers refreshes.
    let mut refresh = copper(&world.scratch);
    let refresh = refresh.arg("refresh").arg("-v").arg(&world.job.directory).arg(&world.late);
    let refreshed = Running::start(refresh).finish(BOUND);
    support::say(&format!("{} {}", refreshed.stdout(), refreshed.stderr()));
    let epochs = (1..4).map(|rank| world.job.status().counter(rank, "refresh.epoch"));
    assert_eq!(epochs.collect::<Vec<_>>(), [1, 1, 1]);
    world.job.stop();
}

#[test]
fn the_clients_below_a_rank_that_has_stopped_get_bytes_or_an_errno_and_can_be_killed() {
    let mut world = World::new();
    let (path, bytes) = world.files.last().expect("there are files").clone();
    let (other, _) = world.files[1500].clone();
    world.job.daemons[1].signal(Signal::STOP);
    let shown = world.job.view(3, &path);
    let client = Running::start(Command::new("cat").arg(&shown));
    let impatient = Running::start(Command::new("cat").arg(world.job.view(3, &other)));
    impatient.process.signal(Signal::KILL);
    assert!(impatient.process.wait(Duration::from_secs(15)), "a client cannot be killed");
    let ended = client.finish(Duration::from_secs(15));
    if ended.status.success() {
        assert!(ended.stdout == *bytes, "other bytes");
    } else {
        support::say(&format!("an errno: {}", ended.stderr()));
    }
    // The others do not notice.
    world.assert_rank_reads_everything(0);
    world.assert_rank_reads_everything(2);
    world.job.daemons[1].signal(Signal::CONT);
    eventually(BOUND, "ranks 1 and 3 have parents", || {
        let status = world.job.status();
        let ready = |rank: u32| status.rank(rank)["state"] == "ready";
        (ready(1) && ready(3)).then_some(())
    });
    world.assert_rank_reads_everything(3);
    world.assert_rank_reads_everything(1);
    world.job.stop();
}

#[test]
fn a_root_that_has_stopped_costs_an_errno_and_is_taken_up_again_when_it_goes_on() {
    let mut world = World::new();
    let late = world.late(3);
    world.job.daemons[0].signal(Signal::STOP);
    let few: Vec<Expected> = late.iter().take(3).cloned().collect();
    // Until the link is given up, and then until another parent would have come.
    let tally = Reader::start("rank 3", few).finish(2 * ERRNO_BOUND);
    assert!(tally.wrong.is_empty(), "{:?}", tally.wrong);
    assert_eq!(tally.failed.len(), 3, "the root has not answered");
    world.job.daemons[0].signal(Signal::CONT);
    eventually(BOUND, "all are ready", || {
        let status = world.job.status();
        (0..4).all(|rank| status.rank(rank)["state"] == "ready").then_some(())
    });
    for rank in 0..4 {
        world.assert_rank_reads_everything(rank);
    }
}

#[test]
fn the_readers_of_these_tests_find_other_bytes_a_false_end_and_an_errno() {
    let scratch = Scratch::new();
    let tree = Tree::new(&scratch);
    let good = fs::read(tree.file("good", 10_000)).expect("it is ours");
    let mut bad = good.clone();
    bad[9000] ^= 1;
    tree.file_with("bad", &bad);
    tree.file_with("short", &good[..8192]);
    let expected = Arc::new(good);
    let names = ["good", "bad", "short", "missing"];
    let files = names.map(|name| (tree.path(name), Arc::clone(&expected))).to_vec();
    let tally = Reader::start("here", files).finish(BOUND);
    assert_eq!(tally.right, 1);
    assert_eq!(tally.wrong, [tree.path("bad"), tree.path("short")]);
    assert_eq!(tally.failed, [(tree.path("missing"), 2)]);
}
