//! What is read once per job, whatever the number of ranks, processes and repetitions.

#[path = "support/harness.rs"]
mod support;

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;
use support::reader::{Expected, Reader};
use support::tree::BLOCK;
use support::{Job, Random, Running, Scratch, Status, Tree, eventually, run, shell};

const BOUND: Duration = Duration::from_secs(60);

const SOURCE_COUNTERS: [&str; 5] = ["opens", "reads", "bytes", "stats", "listings"];

fn source_counters(status: &Status, rank: u32) -> Vec<u64> {
    SOURCE_COUNTERS.iter().map(|name| status.counter(rank, &format!("source.{name}"))).collect()
}

fn expected(job: &Job, rank: u32, files: &[PathBuf]) -> Vec<Expected> {
    let pair = |path: &PathBuf| (job.view(rank, path), Arc::new(fs::read(path).expect("ours")));
    files.iter().map(pair).collect()
}

/// All ranks read all files at once, each in an order of its own.
fn read_everywhere(job: &Job, files: &[PathBuf], random: &mut Random) {
    let readers: Vec<Reader> = (0..job.ranks())
        .map(|rank| {
            let mut files = expected(job, rank, files);
            random.shuffle(&mut files);
            Reader::start(format!("rank {rank}"), files)
        })
        .collect();
    for reader in readers {
        let tally = reader.finish(BOUND);
        assert!(tally.wrong.is_empty() && tally.failed.is_empty(), "{tally:?}");
        assert_eq!(tally.right, files.len());
    }
}

#[test]
fn only_the_root_reads_the_source_and_each_byte_once() {
    let scratch = Scratch::new();
    let tree = Tree::new(&scratch);
    let mut files: Vec<PathBuf> =
        (0..150_usize).map(|index| tree.file(format!("small-{index}"), index * 97)).collect();
    let sizes = [100_000, 1 << 20, (1 << 20) + 1, 5_000_000, 12 << 20];
    files.extend(sizes.map(|size| tree.file(format!("large-{size}"), size)));
    let distinct: u64 = files.iter().map(|path| path.metadata().expect("ours").len()).sum();
    let job = Job::launch(&scratch, 4);
    let mut random = Random::seeded();
    let before = job.status();
    read_everywhere(&job, &files, &mut random);
    let after = job.status();
    for rank in 1..job.ranks() {
        assert_eq!(source_counters(&after, rank), [0; 5], "rank {rank} has no source");
        assert_eq!(after.counter(rank, "source.refused"), 0, "rank {rank} did not try");
    }
    let delta = |name: &str| after.counter(0, name) - before.counter(0, name);
    let bytes = delta("source.bytes");
    assert!(bytes >= distinct, "{bytes} of {distinct} bytes");
    assert!(bytes as f64 / distinct as f64 <= 1.02, "{bytes} bytes for {distinct}");
    let with_bytes = files.iter().filter(|path| path.metadata().expect("ours").len() > 0).count();
    assert_eq!(delta("source.opens"), with_bytes as u64, "each file with bytes is opened once");
    assert_eq!(delta("fabric.checksum_failures"), 0);
    // The same again costs the source nothing.
    read_everywhere(&job, &files, &mut random);
    assert_eq!(source_counters(&job.status(), 0), source_counters(&after, 0));
}

#[test]
fn a_file_that_everybody_reads_first_at_once_is_opened_once_and_pulled_once_per_rank() {
    const PROCESSES: usize = 12;
    let scratch = Scratch::new();
    let tree = Tree::new(&scratch);
    let size = 3 * BLOCK as usize + 5;
    let blocks = 4;
    let file = tree.file("wanted", size);
    let gate = scratch.join("gate");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &gate,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o600),
        0,
    )
    .expect("it is ours");
    let job = Job::launch(&scratch, 4);
    let before = job.status();
    // Each waits for the gate to open before it touches the file.
    let script = r#"read go < "$1"; exec sha256sum < "$2""#;
    let clients: Vec<Running> = (0..job.ranks())
        .flat_map(|rank| std::iter::repeat_n(job.view(rank, &file), PROCESSES))
        .map(|shown| Running::start(&mut shell(script, [&gate, &shown])))
        .collect();
    // Open for both, so that it neither waits for a reader nor ends with the first.
    let mut gate_keeper = OpenOptions::new().read(true).write(true).open(&gate).expect("ours");
    eventually(BOUND, "all wait at the gate", || {
        let waits = |client: &Running| {
            let input = fs::read_link(format!("/proc/{}/fd/0", client.process.pid));
            input.is_ok_and(|input| input == gate)
        };
        clients.iter().all(waits).then_some(())
    });
    let go = "go\n".repeat(clients.len());
    gate_keeper.write_all(go.as_bytes()).expect("it fits into the pipe");
    let sum = run(Command::new("sh").args(["-c", "sha256sum < \"$1\"", "sh"]).arg(&file), BOUND);
    let sum = sum.success();
    for client in clients {
        assert_eq!(client.finish(BOUND).success(), sum);
    }
    let after = job.status();
    let delta = |rank: u32, name: &str| after.counter(rank, name) - before.counter(rank, name);
    assert_eq!(delta(0, "source.opens"), 1);
    assert_eq!(delta(0, "source.reads"), blocks);
    assert_eq!(delta(0, "source.bytes"), size as u64);
    for rank in 1..job.ranks() {
        let moved = delta(rank, "fabric.pulls") + delta(rank, "fabric.inlined");
        let pulls = delta(rank, "fabric.pulls");
        // The last block has 5 bytes: it comes inside a message.
        assert_eq!(pulls, blocks - 1, "rank {rank} pulls each large block once");
        assert!(moved >= blocks, "rank {rank}: {moved}");
        assert_eq!(delta(rank, "fabric.pulled_bytes"), (blocks - 1) * BLOCK);
        assert_eq!(source_counters(&after, rank), [0; 5]);
    }
}

#[test]
fn the_second_reading_of_a_tree_asks_the_daemon_next_to_nothing() {
    let scratch = Scratch::new();
    let tree = Tree::new(&scratch);
    for directory in 0..20 {
        tree.directory(format!("package-{directory}"));
        for file in 0..25 {
            tree.file(format!("package-{directory}/module-{file}.py"), 500 + file * 300);
        }
        tree.link(&format!("package-{directory}/link"), "module-0.py");
    }
    tree.file("library", 3_000_000);
    let job = Job::launch(&scratch, 2);
    for rank in 0..job.ranks() {
        let root = job.view(rank, tree.root());
        let read = || {
            let script = r#"find "$1" -ls | wc -l; find "$1" -type f -exec cat {} + | sha256sum;
                ls "$1"/package-*/missing 2>&1 | wc -l"#;
            let ended = run(&mut shell(script, [&root]), BOUND);
            (ended.success(), job.status().requests(rank))
        };
        let start = job.status().requests(rank);
        let (first, cold) = read();
        let (second, warm) = read();
        assert_eq!(first, second);
        let (cold, warm) = (cold - start, warm - cold);
        assert!(cold > 500, "the first reading has asked for each file: {cold}");
        assert!(warm <= 50, "the second reading sent {warm} requests, the first {cold}");
    }
}

#[test]
fn an_idle_job_uses_no_processor() {
    let scratch = Scratch::new();
    let tree = Tree::new(&scratch);
    let files: Vec<PathBuf> = (0..20).map(|i| tree.file(format!("{i}"), i * 100_000)).collect();
    let job = Job::launch(&scratch, 4);
    read_everywhere(&job, &files, &mut Random::seeded());
    // The best of several spans counts: a daemon that polls is never idle in any.
    const SPAN: Duration = Duration::from_secs(1);
    let ticks = || job.daemons.iter().map(|daemon| daemon.ticks()).sum::<u64>();
    // USER_HZ, the same on all machines that matter: include/asm-generic/param.h.
    let per_second = 100_u64;
    let mut best = f64::MAX;
    let until = Instant::now() + Duration::from_secs(15);
    while best > 0.01 && Instant::now() < until {
        let (started, before) = (Instant::now(), ticks());
        eventually(2 * SPAN, "a span is over", || (started.elapsed() >= SPAN).then_some(()));
        let used = (ticks() - before) as f64 / per_second as f64;
        best = best.min(used / started.elapsed().as_secs_f64());
    }
    assert!(best <= 0.01, "four idle daemons use {:.1} % of a processor", best * 100.0);
}

#[test]
fn the_shape_of_the_status_is_stable() {
    let scratch = Scratch::new();
    let tree = Tree::new(&scratch);
    let file = tree.file("file", 3_000_000);
    let job = Job::launch(&scratch, 3);
    read_everywhere(&job, &[file], &mut Random::seeded());
    let status = job.status();
    let keys = [
        ("source", "opens reads bytes stats listings"),
        ("fabric", "pulls pulled_bytes messages_sent messages_received retries checksum_failures"),
        (
            "fuse",
            "lookup getattr read readdir readdirplus readlink open release statfs access \
                  ioctl forget negative",
        ),
        (
            "cache",
            "blocks bytes limit_bytes pinned_bytes evicted_blocks directories attributes misses \
                  fetched_ahead fetched_ahead_read fetched_ahead_evicted",
        ),
        ("spill", "written_bytes restored_bytes dropped lost bytes limit_bytes"),
        ("memory", "limit_bytes resident_bytes resident_peak_bytes"),
        ("under_way", "questions fetches pulls quarantined source_jobs leases_given leases_held"),
        ("refresh", "epoch entries directories blocks bytes taken outdated"),
    ];
    assert_eq!(status.ranks().len(), 3);
    for rank in 0..3 {
        for (group, names) in keys {
            for name in names.split_whitespace() {
                let _a_number = status.counter(rank, &format!("{group}.{name}"));
            }
        }
        let value = status.rank(rank);
        assert_eq!(status.ranks()[rank as usize]["rank"], rank, "in the order of ranks");
        assert_eq!(value["state"], "ready");
        assert!(value["pid"].is_u64() && value["host"].is_string());
        assert!(value["fabric"]["provider"].as_str().expect("a name").contains("tcp"));
        let parent = if rank == 0 { Value::Null } else { Value::from(0) };
        assert_eq!(value["parent"], parent);
        assert_eq!(status.counter(rank, "cache.limit_bytes"), 48 << 20, "three quarters are arena");
    }
    assert!(status.counter(1, "fabric.pulls") > 0 && status.counter(1, "fabric.messages_sent") > 0);
    // For people it is a table with a line for each rank, and what the kernel agreed to.
    let mut command = support::job::copper(&scratch);
    let table = run(command.arg("status").arg("-v").arg(&job.directory), BOUND).success();
    let (kernel, ranks): (Vec<_>, Vec<_>) =
        table.lines().partition(|line| line.starts_with("kernel of rank"));
    assert_eq!(ranks.len(), 4, "{table}");
    assert!(ranks[1..].iter().all(|line| line.contains("ready")), "{table}");
    assert!(!kernel.is_empty() && kernel[0].contains("caches: "), "{table}");
}

#[test]
fn the_second_module_of_a_package_brings_the_others_and_a_data_set_stays_where_it_is() {
    let scratch = Scratch::new();
    let tree = Tree::new(&scratch);
    tree.directory("package");
    tree.directory("data");
    let modules: Vec<PathBuf> = (0..30)
        .map(|index| tree.file(format!("package/module-{index}"), 1000 + index * 1500))
        .collect();
    let large = tree.file("package/large", 3 << 20);
    let data: Vec<PathBuf> =
        (0..50).map(|index| tree.file(format!("data/{index}"), 60_000)).collect();
    let job = Job::launch(&scratch, 2);
    let read = |path: &PathBuf| {
        let expected = fs::read(path).expect("it is ours");
        assert!(fs::read(job.view(1, path)).expect("it is readable") == expected);
    };
    let opens = || job.status().counter(0, "source.opens");
    for folder in ["package", "data"] {
        assert!(fs::read_dir(job.view(1, &tree.path(folder))).expect("a folder").count() > 0);
    }
    read(&modules[7]);
    assert_eq!(opens(), 1, "one file alone brings no other");
    read(&modules[3]);
    eventually(BOUND, "the rest of the package is fetched", || (opens() == 30).then_some(()));
    let sent = |status: &Status| status.counter(1, "fabric.messages_sent");
    let before = eventually(BOUND, "it has arrived", || {
        let status = job.status();
        (status.counter(1, "cache.fetches") == 0).then_some(status)
    });
    modules.iter().for_each(&read);
    // But for a note that leases are done.
    assert!(sent(&job.status()) <= sent(&before) + 1, "all of it is held");
    data[..10].iter().for_each(&read);
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(opens(), 40, "only what is read of a data set, and of large files");
    read(&large);
    assert_eq!(opens(), 41);
}

#[test]
fn more_than_the_memory_holds_is_read_right_through_every_view() {
    let scratch = Scratch::new();
    let tree = Tree::new(&scratch);
    let mut files: Vec<PathBuf> = (0..20)
        .map(|index| tree.file(format!("large-{index}"), 3 * BLOCK as usize + index))
        .collect();
    files.extend((0..400).map(|index| tree.file(format!("small-{index}"), 1000 + index * 11)));
    let options = support::Options { memory: "16MiB", ..support::Options::default() };
    let job = Job::launch_with(&scratch, 3, &options);
    let mut random = Random::seeded();
    read_everywhere(&job, &files, &mut random);
    let status = job.status();
    for rank in 0..job.ranks() {
        assert!(status.counter(rank, "cache.bytes") <= 16 << 20);
        assert!(status.counter(rank, "cache.evicted_blocks") > 0, "60 MB went through 16 MiB");
        assert_eq!(status.counter(rank, "fuse.expired"), 0);
    }
}
