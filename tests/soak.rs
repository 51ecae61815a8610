//! Memory that is far too small, read at random by everybody for as long as one likes: every byte is
//! the source's, no daemon takes more than its limit and 64 MiB, and nothing is left under way.
//!
//! `COPPER_SEED=N` repeats the random choices (not how the readers meet), `COPPER_SOAK_SECONDS=S` and
//! `COPPER_SOAK_RANKS=N` make it longer and wider; `ci/soak.sh` sets them.

#[path = "soak/data.rs"]
mod data;
#[path = "model/mapping.rs"]
mod mapping;
#[path = "soak/resident.rs"]
mod resident;
#[path = "soak/roamer.rs"]
mod roamer;
#[path = "support/harness.rs"]
mod support;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use data::Data;
use resident::Sampler;
use roamer::Roamer;
use support::tree::BLOCK;
use support::{Job, Options, Random, Scratch, Status, Tree, eventually, say};

/// The memory of each rank, and what its daemon may take beside it.
const LIMIT: &str = "64MiB";
const LIMIT_BYTES: u64 = 64 << 20;
const BESIDE_BYTES: u64 = 64 << 20;

/// How long readers roam where the environment says nothing.
const SECONDS: u64 = 10;
const RANKS: u64 = 4;

/// Readers at each rank.
const ROAMERS: usize = 2;

/// For everything that is not to hang.
const BOUND: Duration = Duration::from_secs(60);

/// What is zero when nobody waits for anything. Leases are given back within milliseconds.
const UNDER_WAY: [&str; 8] = [
    "questions",
    "fetches",
    "pulls",
    "quarantined",
    "source_jobs",
    "leases_given",
    "leases_held",
    "pinned_bytes",
];

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|error| panic!("{variable}={text}: {error}")))
}

/// Waits until nothing is under way at any rank.
fn settled(job: &Job) -> Status {
    eventually(BOUND, "nothing is under way", || {
        let status = job.status();
        let idle = (0..job.ranks()).all(|rank| {
            UNDER_WAY.iter().all(|name| status.counter(rank, &format!("under_way.{name}")) == 0)
        });
        idle.then_some(status)
    })
}

fn assert_right(job: &Job, status: &Status) {
    for rank in 0..job.ranks() {
        for name in ["fabric.checksum_failures", "fabric.violations", "fuse.expired"] {
            assert_eq!(status.counter(rank, name), 0, "{name} of rank {rank}");
        }
    }
}

#[test]
fn random_reads_of_ten_times_the_memory_are_right_and_every_daemon_keeps_its_bound() {
    let seconds = number("COPPER_SOAK_SECONDS").unwrap_or(SECONDS);
    let ranks = u32::try_from(number("COPPER_SOAK_RANKS").unwrap_or(RANKS)).expect("few");
    let scratch = Scratch::new();
    let mut random = Random::seeded();
    let data = Arc::new(Data::of(&Tree::new(&scratch), 10 * LIMIT_BYTES));
    let mut job =
        Job::launch_with(&scratch, ranks, &Options { memory: LIMIT, ..Options::default() });
    let pids = job.daemons.iter().map(|daemon| daemon.pid).collect();
    let sampler = Sampler::start(pids, LIMIT_BYTES + BESIDE_BYTES);
    let until = Instant::now() + Duration::from_secs(seconds);
    let roamers: Vec<Roamer> = (0..ranks)
        .flat_map(|rank| (0..ROAMERS).map(move |_| rank))
        .map(|rank| {
            let view = job.views[rank as usize].clone();
            Roamer::start(&data, view, Random::new(random.next()), until)
        })
        .collect();
    let mut bytes = 0;
    for roamer in roamers {
        bytes += roamer.finish(Duration::from_secs(seconds) + BOUND);
    }
    let peaks = sampler.finish();
    let status = settled(&job);
    assert_right(&job, &status);
    let evicted = status.counter(0, "cache.evicted_blocks");
    let starved: u64 = (0..ranks).map(|rank| status.counter(rank, "cache.starved")).sum();
    assert!(evicted > 0, "the memory was meant to be too small");
    let peaks: Vec<String> = peaks.iter().map(|bytes| format!("{}", bytes >> 20)).collect();
    say(&format!(
        "{ranks} ranks, {seconds} s: {} MiB compared; MiB resident at most, of {}: {}; \
         {evicted} evictions at the root; {starved} waits for an extent",
        bytes >> 20,
        (LIMIT_BYTES + BESIDE_BYTES) >> 20,
        peaks.join(" "),
    ));
    job.stop();
}

/// All files through all ranks, in different orders, twice, with the kernel's pages dropped between.
fn read_all(job: &Job, data: &Arc<Data>, random: &mut Random) {
    let readers: Vec<Roamer> = (0..job.ranks())
        .map(|rank| {
            let view = job.views[rank as usize].clone();
            Roamer::start_on_all(data, view, Random::new(random.next()), 2)
        })
        .collect();
    for reader in readers {
        reader.finish(4 * BOUND);
    }
}

#[test]
fn the_source_is_read_once_and_again_only_for_what_was_evicted() {
    let scratch = Scratch::new();
    let mut random = Random::seeded();
    let working_set = 96 << 20;
    let data = Arc::new(Data::of(&Tree::new(&scratch), working_set));
    let spill = scratch.path().to_str().expect("text");
    // The arena is three quarters of it: all of the working set, or half.
    let spills = ["--spill", spill];
    for (memory, arguments) in [("192MiB", &[][..]), ("64MiB", &[]), ("64MiB", &spills)] {
        let options = Options { memory, ..Options::with(arguments) };
        let mut job = Job::launch_with(&scratch, 8, &options);
        read_all(&job, &data, &mut random);
        let status = settled(&job);
        assert_right(&job, &status);
        let read = status.counter(0, "source.bytes");
        let again = status.counter(0, "cache.refetched_bytes");
        let back = status.counter(0, "spill.restored_bytes");
        assert_eq!(read + back, data.bytes() + again, "{memory}: more than eviction makes needed");
        assert_eq!(again > 0, memory == "64MiB", "{memory}: {again} bytes again");
        assert_eq!(back > 0, !arguments.is_empty(), "{memory}: {back} bytes from the spill");
        assert!((1..8).all(|rank| status.counter(rank, "source.bytes") == 0));
        say(&format!(
            "8 ranks, {memory} {arguments:?}: source ÷ distinct = {read} ÷ {} = {:.2}; eviction makes \
             needed {:.2}, of which {:.2} comes from the spill",
            data.bytes(),
            read as f64 / data.bytes() as f64,
            again as f64 / data.bytes() as f64,
            back as f64 / data.bytes() as f64,
        ));
        job.stop();
    }
}

#[test]
fn more_readers_than_there_is_room_for_wait_in_turn_and_get_their_bytes() {
    let scratch = Scratch::new();
    let tree = Tree::new(&scratch);
    // Each read needs two blocks at once, and there is room for twelve.
    let files: Vec<PathBuf> = (0..48)
        .map(|index| tree.file(format!("file-{index}"), 11 * BLOCK as usize + index))
        .collect();
    let mut job = Job::launch_with(&scratch, 3, &Options { memory: "16MiB", ..Options::default() });
    let views = job.views[1..].to_vec();
    let readers: Vec<Roamer> = files
        .iter()
        .flat_map(|file| views.iter().map(move |view| (file.clone(), view.clone())))
        .map(|(file, view)| Roamer::start_on_borders(file, view))
        .collect();
    for reader in readers {
        reader.finish(2 * BOUND);
    }
    let status = settled(&job);
    assert_right(&job, &status);
    let starved: u64 = (0..3).map(|rank| status.counter(rank, "cache.starved")).sum();
    assert!(starved > 0, "somebody was meant to wait: {}", status.json);
    job.stop();
}

#[test]
fn the_arena_has_huge_pages_where_the_kernel_gives_them() {
    let path = "/sys/kernel/mm/transparent_hugepage/enabled";
    let enabled = std::fs::read_to_string(path).unwrap_or_default();
    if !enabled.contains("[always]") && !enabled.contains("[madvise]") {
        say(&format!("not looked at: {path} says `{}`", enabled.trim()));
        return;
    }
    let scratch = Scratch::new();
    let job = Job::launch(&scratch, 1);
    let status = job.status();
    let huge = status.counter(0, "memory.huge_page_bytes");
    assert!(
        huge >= 2 << 20,
        "a quarter of the arena has pages: {}",
        status.json["ranks"][0]["memory"]
    );
}
