//! `copper refresh`: whoever asks after it is shown the source as it is, on every rank; whoever has a
//! file open goes on with one generation of it.

#[path = "support/harness.rs"]
mod support;

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;
use support::command::Ended;
use support::job::copper;
use support::tree::{PAGE, contents};
use support::{Job, Options, Scratch, Tree, eventually, run, within};

const BOUND: Duration = Duration::from_secs(60);
const EIO: i32 = 5;
const ESTALE: i32 = 116;

/// In which a refresh ends, whoever does not answer: its own bound is 10 s.
const REFRESH_BOUND: Duration = Duration::from_secs(20);

/// More than one block.
const LARGE: usize = 700 * PAGE;

struct World {
    job: Job,
    tree: Tree,
    scratch: Scratch,
}

impl World {
    /// With what `make` puts into the tree before the launch.
    fn new(arguments: &[&str], make: impl FnOnce(&Tree)) -> World {
        let scratch = Scratch::new();
        let tree = Tree::new(&scratch);
        make(&tree);
        let options = Options::with(&[&["--fanout", "2"], arguments].concat());
        let job = Job::launch_with(&scratch, 4, &options);
        assert_eq!(job.status().counter(3, "parent"), 1, "rank 1 is the parent of rank 3");
        World { job, tree, scratch }
    }

    fn refresh_command(&self, arguments: &[&OsStr]) -> Command {
        let mut command = copper(&self.scratch);
        command.arg("refresh").arg("-v").arg(&self.job.directory).args(arguments);
        command
    }

    /// What it prints as JSON about the only path.
    #[track_caller]
    fn refresh(&self, path: Option<&Path>) -> (Ended, Value) {
        let mut arguments = vec![OsStr::new("--json")];
        arguments.extend(path.map(Path::as_os_str));
        let ended = run(&mut self.refresh_command(&arguments), REFRESH_BOUND);
        let json: Result<Value, _> = serde_json::from_slice(&ended.stdout);
        let json = json.unwrap_or_else(|error| panic!("{error}: {ended:?}"));
        (ended, json["refreshes"][0].clone())
    }

    /// All four ranks answer.
    #[track_caller]
    fn refresh_all(&self, path: Option<&Path>) -> Value {
        let (ended, report) = self.refresh(path);
        assert!(ended.status.success(), "{ended:?}");
        assert_eq!((&report["ranks"], &report["missing"]), (&4.into(), &Value::Array(vec![])));
        report
    }

    fn views(&self, name: &str) -> Vec<PathBuf> {
        let path = self.tree.path(name);
        (0..self.job.ranks()).map(|rank| self.job.view(rank, &path)).collect()
    }

    /// What each view has under a name.
    #[track_caller]
    fn read(&self, name: &str) -> Vec<Result<Vec<u8>, i32>> {
        let views = self.views(name);
        let errno = |error: std::io::Error| error.raw_os_error().expect("of the kernel");
        let read = move |path: &PathBuf| fs::read(path).map_err(errno);
        within(BOUND, "reading", move || views.iter().map(read).collect())
    }

    #[track_caller]
    fn list(&self, name: &str) -> Vec<Vec<String>> {
        let views = self.views(name);
        let names = |path: &PathBuf| {
            let entries = fs::read_dir(path).expect("it is there");
            let names = entries.map(|entry| entry.expect("listed").file_name());
            let mut names: Vec<_> = names.map(|name| name.to_string_lossy().into_owned()).collect();
            names.sort();
            names
        };
        within(BOUND, "listing", move || views.iter().map(names).collect())
    }
}

/// Writes a version of a file in place of the one that is there; times are those of before.
fn replace(path: &Path, version: u64, size: usize) {
    let before = path.metadata().and_then(|it| it.modified());
    let new = path.with_extension("new");
    fs::write(&new, contents(1, version, size)).expect("it is ours");
    if let Ok(before) = before {
        File::options()
            .append(true)
            .open(&new)
            .and_then(|it| it.set_modified(before))
            .expect("set");
    }
    fs::rename(new, path).expect("it is ours");
}

/// Maps a file whole, says so, and prints at each line that comes what it finds in all pages now:
/// their versions, or the signal of a page that is not to be had.
const MAPPED: &str = "
import mmap, os, signal, sys
f = open(sys.argv[1], 'rb')
m = mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ)
print('mapped', flush=True)
for line in sys.stdin:
    pid = os.fork()
    if pid == 0:
        print(sorted({int.from_bytes(m[at:at + 8], 'little') for at in range(0, len(m), 4096)}),
              flush=True)
        os._exit(0)
    status = os.waitpid(pid, 0)[1]
    if os.WIFSIGNALED(status):
        print(signal.Signals(os.WTERMSIG(status)).name, flush=True)
";

/// In each view, what has changed in all ways is read, mapped and listed; then all of it changes.
fn everything_changes(arguments: &[&str]) {
    let world = World::new(arguments, |tree| {
        replace(&tree.path("small"), 1, PAGE);
        replace(&tree.path("large"), 1, LARGE);
        tree.directory("folder");
        replace(&tree.path("folder/gone"), 1, PAGE);
        tree.directory("becomes-a-file");
        tree.file("becomes-a-file/inside", 10);
        tree.file("becomes-a-folder", 10);
        tree.link("link", "small");
    });
    for (name, size) in [("small", PAGE), ("large", LARGE), ("folder/gone", PAGE)] {
        assert!(world.read(name).iter().all(|it| *it == Ok(contents(1, 1, size))), "{name}");
    }
    assert!(world.read("link").iter().all(|it| it.is_ok()));
    assert!(world.read("becomes-a-file/inside").iter().all(Result::is_ok));
    assert!(world.read("becomes-a-folder").iter().all(Result::is_ok));
    let absent = ["new", "folder/new", "folder/deep/new"];
    assert!(absent.iter().all(|name| world.read(name).iter().all(|it| *it == Err(2))));
    assert!(world.list("folder").iter().all(|names| names == &["gone"]));

    let path = |name: &str| world.tree.path(name);
    replace(&path("small"), 2, PAGE);
    replace(&path("large"), 2, LARGE);
    fs::remove_file(path("folder/gone")).expect("it is ours");
    replace(&path("new"), 2, PAGE);
    replace(&path("folder/new"), 2, PAGE);
    world.tree.directory("folder/deep");
    replace(&path("folder/deep/new"), 2, PAGE);
    fs::remove_dir_all(path("becomes-a-file")).expect("it is ours");
    replace(&path("becomes-a-file"), 2, PAGE);
    fs::remove_file(path("becomes-a-folder")).expect("it is ours");
    world.tree.directory("becomes-a-folder");
    replace(&path("becomes-a-folder/inside"), 2, PAGE);
    fs::remove_file(path("link")).expect("it is ours");
    world.tree.link("link", "large");

    let report = world.refresh_all(None);
    let dropped = &report["dropped"];
    assert!(dropped["blocks"].as_u64() >= Some(4 * 4), "{report}");
    assert!(dropped["bytes"].as_u64() >= Some(4 * LARGE as u64), "{report}");
    assert!(dropped["directories"].as_u64() >= Some(4), "{report}");
    for (name, size) in [
        ("small", PAGE),
        ("large", LARGE),
        ("link", LARGE),
        ("new", PAGE),
        ("folder/new", PAGE),
        ("folder/deep/new", PAGE),
        ("becomes-a-file", PAGE),
        ("becomes-a-folder/inside", PAGE),
    ] {
        for (rank, read) in world.read(name).into_iter().enumerate() {
            assert!(read == Ok(contents(1, 2, size)), "{name} on rank {rank}: {:?}", read.err());
        }
    }
    assert_eq!(world.read("folder/gone"), vec![Err(2); 4]);
    assert!(world.list("folder").iter().all(|names| names == &["deep", "new"]));
    assert!(world.list("becomes-a-folder").iter().all(|names| names == &["inside"]));
}

#[test]
fn after_a_refresh_every_rank_shows_the_source_as_it_is() {
    everything_changes(&[]);
}

#[test]
fn after_a_refresh_every_rank_shows_the_source_as_it_is_without_kernel_caches_too() {
    everything_changes(&["--no-kernel-cache", "all"]);
}

#[test]
fn who_has_a_file_open_or_mapped_across_a_refresh_sees_one_generation() {
    const SIZE: usize = 24 << 20;
    let world = World::new(&[], |tree| replace(&tree.path("file"), 1, SIZE));
    for view in world.views("file") {
        let mut mapping = Command::new("python3")
            .args(["-c", MAPPED])
            .arg(&view)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3 is there");
        let mut to = mapping.stdin.take().expect("piped");
        let mut from = BufReader::new(mapping.stdout.take().expect("piped")).lines();
        let shown = view.clone();
        let (file, mut from) = within(BOUND, "the first page", move || {
            assert_eq!(from.next().expect("a line").expect("text"), "mapped");
            let file = File::open(shown).expect("it is there");
            let mut page = vec![0; PAGE];
            file.read_exact_at(&mut page, 0).expect("it is there");
            assert!(page == contents(1, 1, PAGE));
            (file, from)
        });
        replace(&world.tree.path("file"), 2, SIZE);
        world.refresh_all(Some(&world.tree.path("file")));
        let seen = within(BOUND, "the rest", move || {
            let page = |at: usize| {
                let mut page = vec![0; PAGE];
                let read = file.read_exact_at(&mut page, (at * PAGE) as u64);
                read.map(|()| u64::from_le_bytes(page[..8].try_into().expect("eight bytes")))
            };
            (0..SIZE / PAGE).step_by(64).map(page).collect::<Vec<_>>()
        });
        assert_eq!(seen[0].as_ref().ok(), Some(&1), "what it has read it keeps");
        for read in seen {
            match read {
                Ok(version) => assert_eq!(version, 1, "a mixture"),
                Err(error) => {
                    let errno = error.raw_os_error();
                    assert!([Some(EIO), Some(ESTALE)].contains(&errno), "{error}");
                }
            }
        }
        let mapped = within(BOUND, "the mapped pages", move || {
            to.write_all(b"\n").expect("it listens");
            let line = from.next().expect("a line").expect("text");
            drop(to);
            line
        });
        assert!(["[1]", "SIGBUS"].contains(&mapped.as_str()), "a mixture: {mapped}");
        mapping.wait().expect("its input has ended");
        let now = within(BOUND, "the new one", move || fs::read(view).expect("it is there"));
        assert!(now == contents(1, 2, SIZE));
        // For the next rank.
        replace(&world.tree.path("file"), 1, SIZE);
        world.refresh_all(None);
    }
}

#[test]
fn a_refresh_of_a_path_drops_that_and_what_is_below() {
    let world = World::new(&[], |tree| {
        for folder in ["one", "two"] {
            tree.directory(folder);
            replace(&tree.path(format!("{folder}/file")), 1, PAGE);
        }
    });
    let all = |name: &str| {
        let read = world.read(name);
        let first = read[0].clone();
        assert!(read.iter().all(|it| *it == first), "{name}: the ranks differ");
        first
    };
    let version = |version| Ok(contents(1, version, PAGE));
    assert!([all("one/file"), all("two/file")].iter().all(|it| *it == version(1)));
    for folder in ["one", "two"] {
        replace(&world.tree.path(format!("{folder}/file")), 2, PAGE);
    }
    assert_eq!(all("one/late"), Err(2));
    replace(&world.tree.path("one/late"), 2, PAGE);
    // As it is called below a view.
    let report = world.refresh_all(Some(&world.views("one")[2]));
    assert_eq!(report["dropped"]["blocks"], 4, "{report}");
    assert!(all("one/file") == version(2) && all("one/late") == version(2));
    assert!(all("two/file") == version(1), "nobody has asked for that");
    // A path that is nowhere: what said so is dropped.
    assert_eq!(all("two/late"), Err(2));
    let late = world.tree.path("two/late");
    world.refresh_all(Some(&late));
    assert_eq!(all("two/late"), Err(2));
    replace(&late, 2, PAGE);
    world.refresh_all(Some(&late));
    assert!(all("two/late") == version(2) && all("two/file") == version(1));

    let mut command = world.refresh_command(&[late.as_os_str(), OsStr::new("--ranks")]);
    let printed = run(&mut command, REFRESH_BOUND).success();
    assert!(printed.contains("4 ranks dropped") && printed.contains("rank 3: "), "{printed}");
}

#[test]
fn a_refresh_that_cannot_be_is_refused_in_one_line() {
    let scratch = Scratch::new();
    let tree = Tree::new(&scratch);
    let (inside, outside) = (tree.directory("inside"), tree.file("outside", 10));
    let nobody = run(copper(&scratch).args(["refresh", "-v"]).arg(tree.root()), REFRESH_BOUND);
    assert!(nobody.failure_line().contains("nothing is running"), "{nobody:?}");
    let options = Options::with(&["--root", inside.to_str().expect("text")]);
    let job = Job::launch_with(&scratch, 4, &options);
    let refresh = |path: &Path| {
        let mut command = copper(&scratch);
        run(command.args(["refresh", "-v"]).arg(&job.directory).arg(path), REFRESH_BOUND)
    };
    let line = refresh(&outside).failure_line();
    assert!(line.contains("outside of the folders"), "{line}");
    refresh(&inside).success();
    refresh(tree.root()).success();
}

#[test]
fn ranks_that_have_died_or_stopped_are_named_within_the_bound_and_catch_up() {
    let world = World::new(&[], |tree| replace(&tree.path("file"), 1, PAGE));
    assert!(world.read("file").iter().all(|it| *it == Ok(contents(1, 1, PAGE))));
    let stopped = &world.job.daemons[2];
    stopped.signal(Signal::STOP);
    replace(&world.tree.path("file"), 2, PAGE);
    let (ended, report) = world.refresh(None);
    assert_eq!(ended.status.code(), Some(1), "{ended:?}");
    assert_eq!(report["missing"], serde_json::json!([2]), "{report}");
    assert_eq!(report["ranks"], 3);
    let shown = |rank: usize| {
        let view = world.views("file").swap_remove(rank);
        within(BOUND, "reading", move || fs::read(view).ok()) == Some(contents(1, 2, PAGE))
    };
    assert!([0, 1, 3].into_iter().all(shown));
    stopped.signal(Signal::CONT);
    eventually(BOUND, "who goes on has missed nothing", || shown(2).then_some(()));

    // Rank 1 is above rank 3, which comes to the root.
    world.job.kill(1);
    replace(&world.tree.path("file"), 3, PAGE);
    let (ended, report) = eventually(BOUND, "rank 3 has another parent", || {
        let (ended, report) = world.refresh(None);
        (report["missing"] == serde_json::json!([1])).then_some((ended, report))
    });
    assert_eq!((ended.status.code(), &report["ranks"]), (Some(1), &3.into()), "{report}");
    let views = [0, 2, 3].map(|rank| world.views("file").swap_remove(rank));
    let read = within(BOUND, "reading", move || views.map(|view| fs::read(view).expect("served")));
    assert!(read.iter().all(|it| *it == contents(1, 3, PAGE)));
    let mut command = world.refresh_command(&[]);
    let line = run(&mut command, REFRESH_BOUND).failure_line();
    assert!(line.contains("no answer from ranks 1:"), "{line}");
}

/// Reads files until it is told to end: how many it has read right, and how often it has failed.
fn read_all_the_time(files: &[PathBuf], ended: &AtomicBool) -> (u64, u64) {
    let (mut right, mut failed) = (0, 0);
    while !ended.load(Ordering::Relaxed) {
        for file in files {
            match fs::read(file) {
                Ok(bytes) => {
                    let version = u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes"));
                    let whole = bytes == contents(1, version, bytes.len());
                    assert!(whole, "{} is a mixture", file.display());
                    assert!([PAGE, LARGE].contains(&bytes.len()), "a false end: {}", bytes.len());
                    right += 1;
                }
                Err(error) => {
                    let errno = error.raw_os_error();
                    assert!([Some(EIO), Some(ESTALE)].contains(&errno), "{error}");
                    failed += 1;
                }
            }
        }
    }
    (right, failed)
}

#[test]
fn while_everybody_reads_and_the_source_changes_two_refreshes_at_once_mix_nothing() {
    let names: Vec<String> = (0..8).map(|index| format!("file-{index}")).collect();
    let size = |index: usize| if index.is_multiple_of(2) { PAGE } else { LARGE };
    let world = World::new(&[], |tree| {
        (0..).zip(&names).for_each(|(index, name)| replace(&tree.path(name), 1, size(index)));
    });
    let ended = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> = (0..world.job.ranks())
        .map(|rank| {
            let path = |name: &String| world.job.view(rank, &world.tree.path(name));
            let (files, ended) = (names.iter().map(path).collect::<Vec<_>>(), Arc::clone(&ended));
            std::thread::spawn(move || read_all_the_time(&files, &ended))
        })
        .collect();
    let until = Instant::now() + Duration::from_secs(6);
    let (mut version, mut refreshes) = (1, 0);
    while Instant::now() < until && !readers.iter().any(|reader| reader.is_finished()) {
        version += 1;
        for (index, name) in names.iter().enumerate() {
            replace(&world.tree.path(name), version, size(index));
        }
        std::thread::scope(|scope| {
            let folder = world.tree.root();
            let both = [scope.spawn(|| world.refresh_all(None)), {
                scope.spawn(|| world.refresh_all(Some(folder)))
            }];
            for refresh in both {
                refresh.join().expect("it has been answered by all");
                refreshes += 1;
            }
        });
        // Whoever asks now is shown what is there now.
        for (index, name) in names.iter().enumerate() {
            for read in world.read(name) {
                assert!(read == Ok(contents(1, version, size(index))), "{name}: {:?}", read.err());
            }
        }
    }
    ended.store(true, Ordering::Relaxed);
    for (rank, reader) in readers.into_iter().enumerate() {
        let (right, failed) = within(BOUND, "a reader ends", move || reader.join().expect("right"));
        support::say(&format!("rank {rank}: {right} read, {failed} failed, {refreshes} refreshes"));
        assert!(right > 0);
    }
}
