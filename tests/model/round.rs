//! One round: a tree, a job, and threads that ask.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::os::unix::fs::MetadataExt;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{Gid, Mode, OFlags, Uid};

use super::open_table::OpenTable;
use super::operation::Bench;
use super::paths::Paths;
use super::random_tree::RandomTree;
use super::worker::{Ground, Rank, Step, Worker, scratch_file};
use crate::support::user::NOBODY;
use crate::support::{Job, Options, Random, Scratch, Tree, is_root, say};

/// Within which every single operation ends, on the source and through the view together.
const STEP_BOUND: Duration = Duration::from_secs(20);

/// Operations of a round, by all threads.
const STEPS: u64 = 12_000;

/// What a report of a failure shows of what came before.
const RECENT: usize = 20;

/// The features that a job may do without: src/cli/kernel_cache.rs.
const KERNEL_CACHES: [&str; 12] = [
    "all",
    "no-open",
    "no-opendir",
    "no-flush",
    "readdirplus",
    "cache-links",
    "keep-cache",
    "cache-directories",
    "negatives",
    "long-timeouts",
    "parallel-dirops",
    "explicit-invalidation",
];

/// How a round is run, beside its tree.
#[derive(Debug)]
struct Plan {
    ranks: u32,
    threads: u64,
    memory: &'static str,
    arguments: Vec<String>,
    /// The threads ask as an ordinary user; the daemons stay root's.
    as_nobody: bool,
}

impl Plan {
    fn random(random: &mut Random, scratch: &Scratch) -> Plan {
        let mut arguments = Vec::new();
        let mut push = |words: &[&str]| arguments.extend(words.iter().map(|&it| it.to_owned()));
        let ranks = 1 + random.below(3) as u32;
        if random.below(2) == 0 {
            push(&["--fanout", ["1", "2"][random.below(2) as usize]]);
        }
        if random.below(3) > 0 {
            for _ in 0..1 + random.below(4) {
                let cache = KERNEL_CACHES[random.below(KERNEL_CACHES.len() as u64) as usize];
                push(&["--no-kernel-cache", cache]);
            }
        }
        if random.below(4) == 0 {
            push(&["--spin-us", "20"]);
        }
        if random.below(4) == 0 {
            push(&["--root", scratch.join("source").to_str().expect("a plain path")]);
        }
        let as_nobody = is_root() && random.below(3) == 0;
        if as_nobody {
            push(&["--allow-other"]);
        }
        let memory = ["64MiB", "64MiB", "96MiB", "256MiB"][random.below(4) as usize];
        Plan { ranks, threads: 1 + random.below(4), memory, arguments, as_nobody }
    }

    fn launch(&self, scratch: &Scratch) -> Job {
        let mut options = Options { memory: self.memory, ..Options::default() };
        options.arguments.extend(self.arguments.iter().map(OsString::from));
        Job::launch_with(scratch, self.ranks, &options)
    }
}

/// What a thread is at, for whoever waits for it.
#[derive(Debug, Default)]
struct Diary {
    step: u64,
    /// What is being done since when.
    now: Option<(String, Instant)>,
    recent: VecDeque<String>,
}

impl Diary {
    fn begin(&mut self, step: u64, what: String) {
        self.step = step;
        self.now = Some((what, Instant::now()));
    }

    fn end(&mut self, came: &str) {
        let Some((what, _)) = self.now.take() else { return };
        if self.recent.len() == RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back(format!("{what} -> {came}"));
    }

    /// The last steps, and the one that is under way or has failed.
    fn report(&self, thread: usize) -> String {
        let mut lines = vec![format!("thread {thread}, before step {}:", self.step)];
        lines.extend(self.recent.iter().map(|line| format!("  {}", short(line))));
        if let Some((what, since)) = &self.now {
            lines.push(format!("step {}, for {:?}: {what}", self.step, since.elapsed()));
        }
        lines.join("\n")
    }
}

fn short(line: &str) -> String {
    if line.len() <= 300 {
        return line.to_owned();
    }
    let (head, tail) = (line.chars().take(150), line.chars().rev().take(150).collect::<Vec<_>>());
    head.chain("…".chars()).chain(tail.into_iter().rev()).collect()
}

/// What the main thread sees of the others.
#[derive(Debug, Default)]
struct Watch {
    diaries: Vec<Mutex<Diary>>,
    stop: AtomicBool,
}

impl Watch {
    fn diary(&self, thread: usize) -> MutexGuard<'_, Diary> {
        self.diaries[thread].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The thread that has been at one step for too long.
    fn hung(&self) -> Option<usize> {
        (0..self.diaries.len()).find(|&thread| {
            let diary = self.diary(thread);
            diary.now.as_ref().is_some_and(|(_, since)| since.elapsed() > STEP_BOUND)
        })
    }
}

/// # Panics
/// At the first difference, and where something hangs.
pub(crate) fn run(seed: u64) {
    let mut random = Random::new(seed);
    let scratch = Scratch::new();
    let plan = Plan::random(&mut random, &scratch);
    let started = Instant::now();
    let source = Tree::new(&scratch);
    let prefix = scratch.join("views/0").as_os_str().len() + source.root().as_os_str().len() + 1;
    let tree = RandomTree::new(&source, &mut random, 4095 - prefix);
    let made = started.elapsed();
    let mut job = plan.launch(&scratch);
    let launched = started.elapsed();
    let ground = Arc::new(ground(&job, &source, &tree));
    let workers = workers(&plan, &ground, &scratch, &mut random);
    drop(ground);
    let done = watch(seed, &plan, workers);
    let status = job.status();
    for rank in 0..job.ranks() {
        for counter in ["fabric.checksum_failures", "fabric.violations", "fuse.expired"] {
            assert_eq!(status.counter(rank, counter), 0, "{counter} of rank {rank}");
        }
    }
    job.stop();
    say(&format!(
        "{done} steps in {:.1} s (tree of {} names {:.1}, launch {:.1}): {} ranks, {} threads{}, \
         {} {}",
        started.elapsed().as_secs_f64(),
        tree.nodes.len(),
        made.as_secs_f64(),
        (launched - made).as_secs_f64(),
        plan.ranks,
        plan.threads,
        if plan.as_nobody { " of nobody" } else { "" },
        plan.memory,
        plan.arguments.join(" ")
    ));
}

fn ground(job: &Job, source: &Tree, tree: &RandomTree) -> Ground {
    let rank = |rank: u32| {
        let mount = &job.views[rank as usize];
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Rank {
            root: job.view(rank, source.root()),
            top: rustix::fs::open(mount, flags, Mode::empty()).expect("it is mounted"),
            device: std::fs::metadata(mount).expect("it is mounted").dev(),
            classes: Mutex::default(),
        }
    };
    Ground {
        root: source.root().to_owned(),
        paths: Paths::of(tree),
        ranks: (0..job.ranks()).map(rank).collect(),
    }
}

fn workers(
    plan: &Plan,
    ground: &Arc<Ground>,
    scratch: &Scratch,
    random: &mut Random,
) -> Vec<Worker> {
    let worker = |thread: u64| Worker {
        ground: Arc::clone(ground),
        random: Random::new(random.next()),
        bench: Bench {
            out: scratch_file(&scratch.join(&format!("out-{thread}"))),
            mapper: Default::default(),
        },
        open: OpenTable::default(),
    };
    (0..plan.threads).map(worker).collect()
}

/// Lets them work; how many steps they have done.
fn watch(seed: u64, plan: &Plan, workers: Vec<Worker>) -> u64 {
    let diaries = workers.iter().map(|_| Mutex::default()).collect();
    let watch = Arc::new(Watch { diaries, stop: AtomicBool::new(false) });
    let (sender, receiver) = mpsc::channel();
    let steps = STEPS / plan.threads;
    let mut left = workers.len();
    for (thread, worker) in workers.into_iter().enumerate() {
        let (watch, sender, nobody) = (Arc::clone(&watch), sender.clone(), plan.as_nobody);
        thread::spawn(move || {
            let work = AssertUnwindSafe(|| work(worker, &watch, thread, steps, nobody));
            let ended = std::panic::catch_unwind(work).unwrap_or_else(|panic| {
                let text = panic.downcast_ref::<String>().map(String::as_str);
                let text = text.or(panic.downcast_ref::<&str>().copied());
                Err(format!("the test itself: {}", text.unwrap_or("it panics")))
            });
            // Nobody listens any more after another's failure.
            let _ = sender.send((thread, ended));
        });
    }
    let fail = |thread: usize, what: &str| -> ! {
        let report = watch.diary(thread).report(thread);
        watch.stop.store(true, Ordering::Relaxed);
        // The others, but for one that hangs: the end of the daemons frees it.
        while receiver.recv_timeout(Duration::from_secs(1)).is_ok() {}
        panic!("{what}\n{report}\n{plan:?}\nCOPPER_SEED={seed} COPPER_MODEL_SECONDS=0 replays it");
    };
    while left > 0 {
        match receiver.recv_timeout(Duration::from_millis(100)) {
            Ok((_, Ok(()))) => left -= 1,
            Ok((thread, Err(what))) => fail(thread, &what),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => unreachable!("`sender` lives here"),
        }
        if let Some(thread) = watch.hung() {
            fail(thread, &format!("not within {STEP_BOUND:?}"));
        }
    }
    steps * plan.threads
}

/// The steps of one thread.
fn work(
    mut worker: Worker,
    watch: &Watch,
    thread: usize,
    steps: u64,
    as_nobody: bool,
) -> Result<(), String> {
    if as_nobody {
        become_nobody();
    }
    for step in 0..steps {
        if watch.stop.load(Ordering::Relaxed) {
            break;
        }
        let chosen = worker.choose();
        watch.diary(thread).begin(step, described(&chosen, &mut worker));
        let came = worker.perform(chosen)?;
        watch.diary(thread).end(&came);
    }
    Ok(())
}

fn described(step: &Step, worker: &mut Worker) -> String {
    let path = |path: &[u8]| format!("\"{}\"", path.escape_ascii());
    match step {
        Step::Path { rank, path: of, operation } => {
            format!("rank {rank}: {operation:?} of {}", path(of))
        }
        Step::Change { rank, path: of, change } => {
            format!("rank {rank}: {change:?} of {}", path(of))
        }
        Step::Kept { index, operation } => {
            let kept = worker.open.get(*index);
            format!("rank {}: {operation:?} of the open {}", kept.rank, path(&kept.path))
        }
    }
}

/// This thread alone.
fn become_nobody() {
    use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};
    let (user, group) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
    set_thread_groups(&[]).expect("root may");
    set_thread_res_gid(group, group, group).expect("root may");
    set_thread_res_uid(user, user, user).expect("root may");
}
