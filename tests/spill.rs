//! `--spill`: what does not fit into the memory lies in a nameless file, comes back from there, and
//! is asked for again where that file fails.

#[allow(dead_code, reason = "made for other tests too")]
#[path = "soak/data.rs"]
mod data;
#[path = "model/mapping.rs"]
mod mapping;
#[path = "soak/resident.rs"]
mod resident;
#[allow(dead_code, reason = "made for other tests too")]
#[path = "soak/roamer.rs"]
mod roamer;
#[path = "support/harness.rs"]
mod support;

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use data::Data;
use resident::Sampler;
use roamer::Roamer;
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use support::job::launch_command;
use support::{
    Job, Options, Random, Scratch, Status, Tree, User, eventually, is_root, run, say, within,
};

const BOUND: Duration = Duration::from_secs(120);

const MEMORY: &str = "16MiB";
const MEMORY_BYTES: u64 = 16 << 20;

/// What a daemon may take beside its memory.
const BESIDE_BYTES: u64 = 64 << 20;

const RANKS: u32 = 3;

struct World {
    job: Job,
    data: Arc<Data>,
    random: Random,
    tree: Tree,
    folder: PathBuf,
    scratch: Scratch,
}

/// Files of four times the memory.
fn data(tree: &Tree) -> Data {
    let large = (0..5).map(|index| (format!("large-{index}"), (6 << 20) + 4097 * index));
    let middling = (0..80).map(|index| (format!("middling-{index}"), 400_000 + 977 * index));
    let small = (0..200).map(|index| (format!("small-{index}"), 1 + 97 * index));
    let file = |(name, size): (String, usize)| (tree.file(name, size), size as u64);
    let files: Vec<(PathBuf, u64)> = large.chain(middling).chain(small).map(file).collect();
    let data = Data { files, folders: Vec::new() };
    assert!(data.bytes() >= 4 * MEMORY_BYTES, "{} bytes", data.bytes());
    data
}

fn options(folder: &Path, size: &str) -> Options {
    let folder = folder.to_str().expect("text");
    let mut options = Options::with(&["--spill", folder, "--spill-size", size]);
    options.memory = MEMORY;
    options
}

impl World {
    fn new(size: &str) -> World {
        let scratch = Scratch::new();
        let folder = scratch.join("spill");
        fs::create_dir(&folder).expect("it is ours");
        World::on(scratch, folder, size)
    }

    fn on(scratch: Scratch, folder: PathBuf, size: &str) -> World {
        let tree = Tree::new(&scratch);
        let data = Arc::new(data(&tree));
        let job = Job::launch_with(&scratch, RANKS, &options(&folder, size));
        World { job, data, random: Random::seeded(), tree, folder, scratch }
    }

    /// Everything through every rank, each in an order of its own: right, or it panics. Nothing of it
    /// stays in the kernel.
    #[track_caller]
    fn read_all(&mut self) -> Status {
        let readers: Vec<Roamer> = (0..RANKS)
            .map(|rank| {
                let view = self.job.views[rank as usize].clone();
                Roamer::start_on_all(&self.data, view, Random::new(self.random.next()), 1)
            })
            .collect();
        for reader in readers {
            reader.finish(BOUND);
        }
        self.settled()
    }

    /// The status once nothing is under way and what was evicted has been written.
    #[track_caller]
    fn settled(&self) -> Status {
        let mut before = None;
        eventually(BOUND, "nothing is under way", || {
            let status = self.job.status();
            let idle = (0..RANKS).all(|rank| {
                let zero = |name| status.counter(rank, name) == 0;
                zero("under_way.fetches") && zero("under_way.pulls")
            });
            let written = self.sum(&status, "spill.written_bytes");
            let same = before.replace(written) == Some(written);
            (idle && same).then_some(status)
        })
    }

    fn sum(&self, status: &Status, name: &str) -> u64 {
        (0..RANKS).map(|rank| status.counter(rank, name)).sum()
    }

    /// The nameless files of all ranks.
    #[track_caller]
    fn spill_files(&self) -> Vec<File> {
        let files = self.job.daemons.iter().map(|daemon| {
            let descriptors = format!("/proc/{}/fd", daemon.pid);
            let entries = fs::read_dir(&descriptors).expect("it runs").flatten();
            let is_it = |path: &PathBuf| {
                fs::read_link(path).is_ok_and(|target| target.starts_with(&self.folder))
            };
            let path = entries.map(|entry| entry.path()).find(is_it).expect("it has one");
            File::options().write(true).open(path).expect("a file")
        });
        files.collect()
    }

    #[track_caller]
    fn assert_folder_is_empty(&self) {
        assert_eq!(fs::read_dir(&self.folder).expect("it is ours").count(), 0, "something is left");
    }
}

/// A file system of its own in memory; unmounted at the end.
struct MountedTmpfs(PathBuf);

impl MountedTmpfs {
    fn new(point: PathBuf, options: &str) -> MountedTmpfs {
        fs::create_dir(&point).expect("it is ours");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(&point);
        run(&mut mount, BOUND).success();
        MountedTmpfs(point)
    }

    fn used_bytes(&self) -> u64 {
        let statistics = rustix::fs::statvfs(&self.0).expect("it is mounted");
        (statistics.f_blocks - statistics.f_bfree) * statistics.f_frsize
    }
}

impl Drop for MountedTmpfs {
    fn drop(&mut self) {
        let ended = run(Command::new("umount").arg(&self.0), BOUND);
        if !ended.status.success() {
            say(&format!("{}: {}", self.0.display(), ended.stderr()));
        }
    }
}

#[test]
fn what_was_evicted_comes_back_and_the_source_is_read_once() {
    let mut world = World::new("256MiB");
    let pids = world.job.daemons.iter().map(|daemon| daemon.pid).collect();
    let sampler = Sampler::start(pids, MEMORY_BYTES + BESIDE_BYTES);
    let distinct = world.data.bytes();
    let mut reads = Vec::new();
    for _ in 0..2 {
        let status = world.read_all();
        let [read, again, restored] =
            ["source.bytes", "cache.refetched_bytes", "spill.restored_bytes"]
                .map(|name| status.counter(0, name));
        assert_eq!(read, distinct + again - restored, "{again} again, {restored} from the spill");
        reads.push(read);
        for rank in 0..RANKS {
            let counter = |name| status.counter(rank, name);
            assert!(counter("cache.evicted_blocks") > 0, "the memory was meant to be too small");
            assert!(counter("spill.restored_bytes") > 0, "rank {rank} has read nothing back");
            assert!(counter("spill.bytes") <= counter("spill.limit_bytes"));
            assert_eq!(counter("spill.limit_bytes"), 256 << 20);
            assert_eq!((counter("spill.lost"), counter("fabric.checksum_failures")), (0, 0));
        }
    }
    let peaks = sampler.finish();
    let status = world.job.status();
    let (dropped, restored) =
        (world.sum(&status, "spill.dropped"), world.sum(&status, "spill.restored_bytes"));
    say(&format!(
        "{RANKS} ranks, {} MiB: source ÷ distinct {:.3} after one reading, {:.3} after two; {} MiB \
         restored, {dropped} dropped; resident at most {} MiB",
        distinct >> 20,
        reads[0] as f64 / distinct as f64,
        reads[1] as f64 / distinct as f64,
        restored >> 20,
        peaks.iter().max().expect("ranks") >> 20,
    ));
    // What is evicted faster than it can be written is asked for again, and nothing else.
    let dropped = status.counter(0, "spill.dropped");
    assert!(dropped > 0 || reads[1] == distinct, "{reads:?} of {distinct}");
    assert!(reads[1] - distinct < distinct / 5, "{reads:?} of {distinct}, {dropped} dropped");
    world.assert_folder_is_empty();
    world.job.stop();
    world.assert_folder_is_empty();
}

#[test]
fn a_spill_file_that_is_damaged_or_cut_off_costs_no_wrong_byte() {
    let mut world = World::new("256MiB");
    world.read_all();
    let files = world.spill_files();
    for file in &files {
        let len = file.metadata().expect("open").len();
        assert!(len > 0, "nothing was written");
        let garbage = vec![0x5a; 1 << 20];
        for offset in (0..len).step_by(garbage.len()) {
            let rest = garbage.len().min((len - offset) as usize);
            file.write_all_at(&garbage[..rest], offset).expect("it is open");
        }
    }
    let damaged = world.read_all();
    let lost = world.sum(&damaged, "spill.lost");
    assert!(lost > 0, "nothing was read back");
    for file in &files {
        file.set_len(0).expect("it is open");
    }
    let cut = world.read_all();
    assert!(world.sum(&cut, "spill.lost") > lost, "nothing was read back");
    assert_eq!(world.sum(&cut, "fabric.checksum_failures"), 0, "that is another thing");
    world.job.stop();
}

#[test]
fn a_spill_on_a_full_file_system_stays_as_small_as_that_and_costs_no_wrong_byte() {
    if !is_root() {
        say("not looked at: mounting takes root");
        return;
    }
    let scratch = Scratch::new();
    let mounted = MountedTmpfs::new(scratch.join("spill"), "size=16m");
    let mut world = World::on(scratch, mounted.0.clone(), "256MiB");
    for _ in 0..2 {
        world.read_all();
    }
    let status = world.settled();
    assert!(world.sum(&status, "spill.dropped") > 0, "it was meant to be full");
    assert!(world.sum(&status, "spill.restored_bytes") > 0, "what is there is used");
    assert!(world.sum(&status, "spill.bytes") <= 16 << 20);
    assert!(world.sum(&status, "spill.limit_bytes") < 3 * (256 << 20));
    assert_eq!(world.sum(&status, "spill.lost"), 0);
    world.job.kill(2);
    world.job.stop();
    world.assert_folder_is_empty();
    assert_eq!(mounted.used_bytes(), 0, "the files are gone");
    let World { scratch, .. } = world;
    drop(mounted);
    drop(scratch);
}

#[test]
fn a_limit_on_the_size_of_files_keeps_the_spill_small_and_ends_no_daemon() {
    let mut world = World::new("256MiB");
    let limit = Some(8 << 20);
    for daemon in &world.job.daemons {
        let pid = Pid::from_raw(i32::try_from(daemon.pid).expect("a number"));
        let limit = Rlimit { current: limit, maximum: limit };
        prlimit(pid, Resource::Fsize, limit).expect("they are ours");
    }
    for _ in 0..2 {
        world.read_all();
    }
    let status = world.settled();
    assert!(world.sum(&status, "spill.dropped") > 0, "the limit was meant to be too small");
    assert!(world.sum(&status, "spill.restored_bytes") > 0, "what is there is used");
    world.job.stop();
}

#[test]
fn a_refresh_forgets_what_was_evicted_too() {
    let mut world = World::new("256MiB");
    let status = world.read_all();
    assert!(world.sum(&status, "spill.bytes") > 0);
    let new: Vec<(PathBuf, Vec<u8>)> = world
        .data
        .files
        .iter()
        .map(|(path, size)| {
            let bytes = support::tree::contents(7, 1, *size as usize);
            fs::write(path, &bytes).expect("it is ours");
            (path.clone(), bytes)
        })
        .collect();
    let mut command = support::job::copper(&world.scratch);
    run(command.arg("refresh").arg("-v").arg(&world.job.directory), BOUND).success();
    let status = world.settled();
    assert_eq!(world.sum(&status, "spill.bytes"), 0, "{}", status.json);
    let views = world.job.views.clone();
    within(BOUND, "reading", move || {
        for (path, bytes) in &new {
            for view in &views {
                let path = view.join(path.strip_prefix("/").expect("absolute"));
                assert!(fs::read(&path).expect("it is there") == *bytes, "{}", path.display());
            }
        }
    });
    assert!(world.tree.root().exists());
    world.job.stop();
}

#[test]
fn a_daemon_that_is_killed_leaves_nothing_in_the_folder() {
    let mut world = World::new("64MiB");
    world.read_all();
    world.assert_folder_is_empty();
    (0..RANKS).for_each(|rank| world.job.kill(rank));
    world.assert_folder_is_empty();
    world.job.stop();
}

#[test]
fn a_folder_that_cannot_take_the_spill_is_refused_in_one_line() {
    let scratch = Scratch::new();
    let mounts = scratch.join("views");
    let file = scratch.join("file");
    fs::write(&file, "").expect("it is ours");
    let mut folders = vec![scratch.join("missing"), file, PathBuf::from("/proc")];
    let read_only = is_root().then(|| MountedTmpfs::new(scratch.join("read-only"), "ro"));
    folders.extend(read_only.iter().map(|mounted| mounted.0.clone()));
    let refused = |options: &Options, word: &str| {
        let mut command = launch_command(&scratch, &mounts, 2, options);
        let ended = run(&mut command, BOUND);
        let line = ended.failure_line();
        assert!(line.contains(word), "{line}");
        assert!(!mounts.exists(), "the mount points are left");
        ended.status.code()
    };
    for folder in &folders {
        let name = folder.to_str().expect("text");
        assert_eq!(refused(&options(folder, "64MiB"), name), Some(1));
    }
    assert_eq!(refused(&options(scratch.path(), "1MiB"), "--spill-size 1MiB"), Some(1));
    drop(read_only);
    if is_root() {
        let owned = scratch.join("owned");
        fs::create_dir(&owned).expect("it is ours");
        let user = User::nobody(&scratch);
        let options = Options { user, ..options(&owned, "64MiB") };
        assert_eq!(refused(&options, "denied"), Some(1));
    }
}
