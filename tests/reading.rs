//! What a view shows is what the source has: bytes, attributes, names, kinds, order.

#[path = "support/harness.rs"]
mod support;

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{DirEntryExt, FileExt, FileTypeExt, MetadataExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use support::attributes::attributes;
use support::tree::{BLOCK, PAGE};
use support::{Job, Options, Random, Scratch, Tree, User, is_root, run, say, shell, within};

/// For everything that is not to hang.
const BOUND: Duration = Duration::from_secs(60);

const ELOOP: i32 = 40;
const ENOENT: i32 = 2;

/// Names with their kinds, in the order in which they come.
fn listing(path: &Path) -> Vec<(Vec<u8>, fs::FileType)> {
    let entries = fs::read_dir(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let entries = entries.map(|entry| entry.expect("the listing goes on"));
    let pairs = entries.map(|entry| {
        (entry.file_name().into_vec(), entry.file_type().expect("the listing has the kind"))
    });
    pairs.collect()
}

/// A varied tree: all the sizes at which something changes, and everything that is not a file.
fn varied(scratch: &Scratch) -> Tree {
    let tree = Tree::new(scratch);
    let sizes = [
        0,
        1,
        4095,
        4096,
        4097,
        8191,
        8192,
        8193,
        65_536,
        1_048_575,
        1_048_576,
        1_048_577,
        (3 << 20) + 5,
        12 << 20,
    ];
    for size in sizes {
        tree.file(format!("size-{size}"), size);
    }
    tree.directory("many");
    for index in 0..300 {
        tree.file(format!("many/file-{index}"), index * 37);
    }
    tree.directory("deep/er/still");
    tree.file("deep/er/still/file", 100);
    tree.directory("empty");
    tree.link("relative", "deep/er/still/file");
    tree.link("dangling", "not/there");
    tree.link("absolute", tree.path("size-1"));
    tree.link("directory", "deep");
    fs::hard_link(tree.path("size-4097"), tree.path("another-name")).expect("it is ours");
    use std::os::unix::fs::PermissionsExt;
    for (name, mode) in [("size-1", 0o4755), ("size-4095", 0o600), ("empty", 0o1777)] {
        fs::set_permissions(tree.path(name), fs::Permissions::from_mode(mode)).expect("ours");
    }
    if is_root() {
        std::os::unix::fs::chown(tree.path("size-4096"), Some(12), Some(34)).expect("root may");
    }
    tree.settle_access_times();
    tree
}

fn files(tree: &Tree) -> Vec<PathBuf> {
    let is_file = |path: &PathBuf| path.symlink_metadata().expect("it is listed").is_file();
    tree.all().into_iter().filter(is_file).collect()
}

#[test]
fn every_view_shows_the_attributes_links_kinds_and_order_of_the_source() {
    let scratch = Scratch::new();
    let tree = varied(&scratch);
    let expected: Vec<_> = tree.all().into_iter().map(|path| (attributes(&path), path)).collect();
    let job = Job::launch(&scratch, 4);
    for rank in 0..job.ranks() {
        let view = job.views[rank as usize].clone();
        let expected = expected.clone();
        within(BOUND, "attributes", move || {
            for (attributes_of_source, path) in expected {
                let shown = view.join(path.strip_prefix("/").expect("absolute"));
                assert_eq!(attributes(&shown), attributes_of_source, "{}", shown.display());
                let kind = path.symlink_metadata().expect("it is there").file_type();
                if kind.is_symlink() {
                    let targets = [&path, &shown].map(|path| fs::read_link(path).expect("a link"));
                    assert_eq!(targets[0], targets[1]);
                }
                if kind.is_dir() {
                    assert_eq!(listing(&shown), listing(&path), "{}", shown.display());
                    for entry in fs::read_dir(&shown).expect("a directory") {
                        let entry = entry.expect("the listing goes on");
                        let found = entry.metadata().expect("it is listed").ino();
                        assert_eq!(entry.ino(), found, "{}", entry.path().display());
                    }
                }
            }
        });
        let number = |name: &str| {
            job.view(rank, &tree.path(name)).symlink_metadata().expect("it is there").ino()
        };
        assert_eq!(number("size-4097"), number("another-name"), "one file with two names");
        assert_ne!(number("size-4097"), number("size-4096"));
    }
}

#[test]
fn every_byte_of_every_file_is_the_source_s_through_each_view() {
    let scratch = Scratch::new();
    let tree = varied(&scratch);
    let job = Job::launch(&scratch, 4);
    let mut random = Random::seeded();
    // Each rank reads in its own way, all of them at once.
    std::thread::scope(|scope| {
        for rank in 0..job.ranks() {
            let mut files: Vec<_> =
                files(&tree).into_iter().map(|path| (job.view(rank, &path), path)).collect();
            random.shuffle(&mut files);
            let mut random = Random::new(random.next());
            scope.spawn(move || {
                within(BOUND, "reading", move || {
                    for (shown, source) in files {
                        let bytes = fs::read(&source).expect("it is ours");
                        match rank {
                            0 => assert_whole(&shown, &bytes),
                            1 => assert_pieces(&shown, &bytes, &mut random),
                            2 => assert_backwards(&shown, &bytes),
                            _ => assert_compared(&shown, &source),
                        }
                        assert_whole(&shown, &bytes);
                    }
                });
            });
        }
    });
    let status = job.status();
    for rank in 0..4 {
        assert_eq!(status.counter(rank, "fabric.checksum_failures"), 0);
        assert_eq!(status.counter(rank, "fabric.violations"), 0);
        assert_eq!(status.counter(rank, "fuse.expired"), 0);
    }
}

fn assert_whole(shown: &Path, bytes: &[u8]) {
    let read = support::reader::read(shown);
    let read = read.unwrap_or_else(|error| panic!("{}: {error}", shown.display()));
    assert!(read == bytes, "{} has other bytes", shown.display());
}

fn assert_pieces(shown: &Path, bytes: &[u8], random: &mut Random) {
    let file = File::open(shown).expect("it opens");
    let size = bytes.len() as u64;
    for _ in 0..40 {
        let offset = random.below(size + 10);
        let mut piece = vec![0; 1 + random.below(100_000) as usize];
        let len = file.read_at(&mut piece, offset).expect("it reads");
        let end = (offset + piece.len() as u64).min(size);
        let expected = bytes.get(offset as usize..end as usize).unwrap_or(&[]);
        assert!(piece[..len] == *expected, "{} at {offset}: {len} bytes", shown.display());
    }
}

fn assert_backwards(shown: &Path, bytes: &[u8]) {
    let mut file = File::open(shown).expect("it opens");
    let mut piece = vec![0; 300_000];
    let mut end = bytes.len();
    while end > 0 {
        let start = end.saturating_sub(piece.len());
        file.seek(SeekFrom::Start(start as u64)).expect("it seeks");
        let piece = &mut piece[..end - start];
        file.read_exact(piece).expect("it reads");
        assert!(*piece == bytes[start..end], "{} from {start}", shown.display());
        end = start;
    }
}

/// As the dynamic loader reads: mapped, by page faults.
#[test]
fn mapped_files_have_the_source_s_bytes() {
    const SUM: &str = "import hashlib, mmap, sys\nfor path in sys.argv[1:]:\n \
        with open(path, 'rb') as f, mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ) as m:\n  \
        print(hashlib.sha256(m).hexdigest(), m[-1], m[len(m) // 2])";
    let scratch = Scratch::new();
    let tree = Tree::new(&scratch);
    let sizes = [1, 4096, 4097, 1_048_577, 3_000_005, 12 << 20];
    let paths = sizes.map(|size| tree.file(format!("size-{size}"), size));
    let job = Job::launch(&scratch, 3);
    let sum = |paths: &[PathBuf]| {
        run(Command::new("python3").args(["-c", SUM]).args(paths), BOUND).success()
    };
    let expected = sum(&paths);
    std::thread::scope(|scope| {
        for rank in 0..job.ranks() {
            let (shown, expected) = (paths.each_ref().map(|path| job.view(rank, path)), &expected);
            scope.spawn(move || assert_eq!(sum(&shown), *expected));
        }
    });
}

fn assert_compared(shown: &Path, source: &Path) {
    run(Command::new("cmp").arg("--").arg(shown).arg(source), BOUND).success();
}

#[test]
fn names_are_bytes_and_everything_but_nul_and_slash_may_be_in_them() {
    let scratch = Scratch::new();
    let tree = Tree::new(&scratch);
    let names: [&'static [u8]; 8] = [
        b"with space",
        b"with\nnewline",
        b"invalid \xff\xfe utf-8",
        b"\xf0\x9f\xa6\x80",
        b"-n",
        b"back\\slash \"quoted\" 'twice'",
        b"...",
        &[b'n'; 255],
    ];
    for name in names {
        tree.file(OsStr::from_bytes(name), 100 + name.len());
    }
    let deepest = deep(&tree, job_prefix_len(&scratch));
    let job = Job::launch(&scratch, 2);
    for rank in 0..job.ranks() {
        let shown = job.view(rank, tree.root());
        let (root, source) = (shown.clone(), tree.root().to_owned());
        within(BOUND, "names", move || {
            assert_eq!(listing(&root), listing(&source));
            for name in names {
                let name = OsStr::from_bytes(name);
                let bytes = fs::read(source.join(name)).expect("it is ours");
                assert_whole(&root.join(name), &bytes);
            }
            let too_long = root.join("n".repeat(256)).symlink_metadata();
            let errno = too_long.expect_err("no file system has such names").raw_os_error();
            assert_eq!(errno, Some(36), "ENAMETOOLONG");
        });
        let at_the_end = job.view(rank, &deepest);
        assert!(at_the_end.as_os_str().len() > 4000, "the test wants a long path");
        within(BOUND, "a long path", move || {
            assert_eq!(fs::read(&at_the_end).expect("it is there"), b"at the end");
        });
    }
}

/// How much longer a path is in a view than at the source.
fn job_prefix_len(scratch: &Scratch) -> usize {
    scratch.join("views/0").as_os_str().len()
}

/// A file whose path in a view is as long as a path can be: PATH_MAX counts the NUL at the end.
fn deep(tree: &Tree, prefix: usize) -> PathBuf {
    let bound = 4095 - prefix;
    let mut path = tree.path("d".repeat(100));
    while path.as_os_str().len() + 201 <= bound - 2 {
        path.push("d".repeat(100));
    }
    fs::create_dir_all(&path).expect("it is ours");
    let left = bound - path.as_os_str().len() - 1;
    path.push("f".repeat(left.min(255)));
    fs::write(&path, "at the end").expect("it is ours");
    path
}

#[test]
fn holes_are_zeros_and_a_large_sparse_file_is_read_where_it_is_touched() {
    let scratch = Scratch::new();
    let tree = Tree::new(&scratch);
    let (large, page) = (3_u64 << 30, [7_u8; PAGE]);
    let holes = tree.sparse("holes", 2 * BLOCK + 100, &[(5000, b"here"), (BLOCK + 1, b"and here")]);
    let sparse = tree.sparse("large", large, &[(large / 2, &page), (large - 5, b"  end")]);
    tree.settle_access_times();
    let job = Job::launch(&scratch, 2);
    let before = job.status();
    for rank in 0..job.ranks() {
        let shown = job.view(rank, &holes);
        assert_eq!(attributes(&shown), attributes(&holes));
        let bytes = fs::read(&holes).expect("it is ours");
        within(BOUND, "a file with holes", move || assert_whole(&shown, &bytes));
        let shown = job.view(rank, &sparse);
        assert_eq!(attributes(&shown), attributes(&sparse));
        within(Duration::from_secs(10), "parts of a large file", move || {
            let file = File::open(shown).expect("it opens");
            let mut piece = vec![1; 3 * PAGE];
            let read = file.read_at(&mut piece, large - 5).expect("it reads");
            assert_eq!(&piece[..read], b"  end");
            let read = file.read_at(&mut piece, large / 2 - PAGE as u64).expect("it reads");
            assert_eq!(read, piece.len());
            assert!(piece[..PAGE].iter().all(|&byte| byte == 0));
            assert!(piece[PAGE..2 * PAGE].iter().all(|&byte| byte == 7));
            assert!(piece[2 * PAGE..].iter().all(|&byte| byte == 0));
        });
    }
    let read = job.status().counter(0, "source.bytes") - before.counter(0, "source.bytes");
    assert!(read < 40 * BLOCK, "{read} bytes were read of a file that was touched twice");
}

#[test]
fn what_is_no_file_is_shown_as_what_it_is_and_hurts_nobody() {
    let scratch = Scratch::new();
    let tree = Tree::new(&scratch);
    tree.directory("empty");
    tree.link("loop-a", "loop-b");
    tree.link("loop-b", "loop-a");
    tree.link("self", "self/self");
    tree.link("dangling", "nowhere");
    tree.link("absolute", "/proc/self/../self/status");
    tree.fifo("fifo");
    let _socket = UnixListener::bind(tree.path("socket")).expect("a short path");
    if is_root() {
        tree.null_device("null");
    }
    tree.file("file", 10);
    let job = Job::launch(&scratch, 3);
    for rank in 0..job.ranks() {
        let (root, source) = (job.view(rank, tree.root()), tree.root().to_owned());
        within(BOUND, "kinds", move || {
            assert_eq!(listing(&root), listing(&source));
            for (name, _) in listing(&source) {
                let name = OsStr::from_bytes(&name);
                let kinds = [&root, &source].map(|at| {
                    let found = at.join(name).symlink_metadata().expect("it is there");
                    (found.mode(), found.rdev(), found.size())
                });
                assert_eq!(kinds[0], kinds[1], "{name:?}");
            }
            let kind = |name: &str| root.join(name).symlink_metadata().expect("there").file_type();
            assert!(kind("fifo").is_fifo() && kind("socket").is_socket());
            assert_eq!(fs::read_dir(root.join("empty")).expect("a directory").count(), 0);
            let errno = |name: &str| fs::read(root.join(name)).map_err(|it| it.raw_os_error());
            assert_eq!(errno("loop-a"), Err(Some(ELOOP)));
            assert_eq!(errno("self"), Err(Some(ELOOP)));
            assert_eq!(errno("dangling"), Err(Some(ENOENT)));
            let target = fs::read_link(root.join("absolute")).expect("a link");
            assert_eq!(target, Path::new("/proc/self/../self/status"));
        });
    }
    // The kernel itself connects the ends of a FIFO: a reader through the view waits for a writer,
    // and meanwhile the daemon goes on.
    let fifo = job.view(1, &tree.path("fifo"));
    let waiting = support::Running::start(Command::new("cat").arg(&fifo));
    let shown = job.view(1, &tree.path("file"));
    let bytes = fs::read(tree.path("file")).expect("it is ours");
    within(BOUND, "a file beside a FIFO", move || assert_whole(&shown, &bytes));
    assert!(waiting.process.is_alive(), "nobody has written into the FIFO");
    drop(waiting);
}

#[test]
fn permissions_are_the_source_s_for_an_ordinary_user() {
    if !is_root() {
        say("skipped: it takes root to become another user");
        return;
    }
    let scratch = Scratch::new();
    let tree = Tree::new(&scratch);
    let (nobody, user) = (support::user::NOBODY, User::nobody(&scratch));
    let mode = |path: &Path, mode: u32| {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("it is ours");
    };
    mode(&tree.file("secret", 10), 0o000);
    mode(&tree.file("of root", 10), 0o600);
    mode(&tree.file("open", 10), 0o444);
    tree.directory("search only");
    tree.file("search only/known", 10);
    mode(&tree.path("search only"), 0o711);
    tree.directory("list only");
    tree.file("list only/known", 10);
    mode(&tree.path("list only"), 0o744);
    tree.directory("closed");
    tree.file("closed/file", 10);
    mode(&tree.path("closed"), 0o700);
    let own = tree.file("own", 10);
    std::os::unix::fs::chown(&own, Some(nobody), Some(nobody)).expect("root may");
    mode(&own, 0o000);
    let options = Options { user: user.clone(), ..Options::default() };
    let job = Job::launch_with(&scratch, 2, &options);
    for rank in 0..job.ranks() {
        let root = job.view(rank, tree.root());
        let try_as_nobody = |script: &str| {
            let mut command = user.command("sh");
            command.env("LC_ALL", "C").args(["-c", script, "sh"]).arg(&root);
            run(&mut command, BOUND)
        };
        let denied = |script: &str| {
            let ended = try_as_nobody(script);
            let said = ended.stderr();
            assert!(
                !ended.status.success() && said.contains("Permission denied"),
                "{script}: {said}"
            );
        };
        let allowed = |script: &str| try_as_nobody(script).success();
        denied(r#"cat "$1/secret""#);
        denied(r#"cat "$1/of root""#);
        denied(r#"cat "$1/own""#);
        denied(r#"ls "$1/search only""#);
        denied(r#"cat "$1/list only/known""#);
        assert_eq!(allowed(r#"ls "$1/list only""#), "known\n");
        denied(r#"ls "$1/closed""#);
        denied(r#"cat "$1/closed/file""#);
        assert_eq!(allowed(r#"cat "$1/open" | wc -c"#).trim(), "10");
        assert_eq!(allowed(r#"cat "$1/search only/known" | wc -c"#).trim(), "10");
        allowed(r#"test ! -r "$1/secret" && test -r "$1/open" && test ! -x "$1/open""#);
        allowed(r#"test ! -e "$1/search only/unknown" && test -e "$1/search only/known""#);
        assert_eq!(allowed(r#"stat -c %a "$1/secret" "$1/search only""#), "0\n711\n");
    }
}

#[test]
fn a_view_answers_statfs_access_and_isatty_as_a_disk_does() {
    let scratch = Scratch::new();
    let tree = Tree::new(&scratch);
    let file = tree.file("file", 5000);
    let dangling = tree.link("dangling", "nowhere");
    let program = tree.file_with("program", b"#!/bin/sh\necho run\n");
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("it is ours");
    let job = Job::launch(&scratch, 2);
    for rank in 0..job.ranks() {
        let (shown, program) = (job.view(rank, &file), job.view(rank, &program));
        let statistics = {
            let (shown, file) = (shown.clone(), file.clone());
            within(BOUND, "statfs", move || {
                [shown, file].map(|path| rustix::fs::statvfs(&path).expect("statfs answers"))
            })
        };
        let [of_view, of_source] = statistics;
        assert_eq!(of_view.f_blocks, of_source.f_blocks);
        assert_eq!(of_view.f_frsize, of_source.f_frsize);
        assert_eq!(of_view.f_namemax, of_source.f_namemax);
        assert!(of_view.f_bfree <= of_view.f_blocks && of_view.f_blocks > 0);
        // Asked of a link itself, it is not followed: it may lead nowhere, or into a view.
        let link = job.view(rank, &dangling);
        let of_link = within(BOUND, "statfs of a link", move || {
            use rustix::fs::{Mode, OFlags};
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let link = rustix::fs::open(link, flags, Mode::empty()).expect("it is there");
            rustix::fs::fstatvfs(link).map(|statistics| statistics.f_blocks)
        });
        assert_eq!(of_link, Ok(of_source.f_blocks));
        run(
            &mut shell(r#"test -r "$1" && test -x "$2" && test ! -x "$1""#, [&shown, &program]),
            BOUND,
        )
        .success();
        run(&mut shell(r#"test ! -w "$1""#, [&shown]), BOUND).success();
        assert_eq!(run(&mut Command::new(&program), BOUND).success(), "run\n");
        let isatty = "import os, sys; print(os.isatty(os.open(sys.argv[1], os.O_RDONLY)))";
        let mut python = Command::new("python3");
        assert_eq!(run(python.args(["-c", isatty]).arg(&shown), BOUND).success(), "False\n");
    }
}

#[test]
fn everything_that_would_change_a_view_is_answered_erofs() {
    const EROFS: Option<i32> = Some(30);
    let scratch = Scratch::new();
    let tree = Tree::new(&scratch);
    tree.file("file", 5000);
    tree.directory("directory");
    tree.link("link", "file");
    let before: Vec<_> = tree.all().iter().map(|path| (attributes(path), path.clone())).collect();
    let job = Job::launch(&scratch, 2);
    for rank in 0..job.ranks() {
        let root = job.view(rank, tree.root());
        within(BOUND, "mutations", move || {
            let (file, new) = (root.join("file"), root.join("new"));
            let errno = |result: std::io::Result<()>| result.expect_err("read-only").raw_os_error();
            let raw = |result: rustix::io::Result<()>| errno(result.map_err(Into::into));
            use rustix::fs as sys;
            use std::os::unix::fs::PermissionsExt;
            let (cwd, now) = (sys::CWD, sys::Timespec { tv_sec: 0, tv_nsec: sys::UTIME_NOW });
            let times = sys::Timestamps { last_access: now, last_modification: now };
            let none = sys::AtFlags::empty();
            assert_eq!(errno(File::create(&new).map(drop)), EROFS, "create");
            assert_eq!(errno(fs::create_dir(&new)), EROFS, "mkdir");
            assert_eq!(errno(fs::remove_file(&file)), EROFS, "unlink");
            assert_eq!(errno(fs::remove_dir(root.join("directory"))), EROFS, "rmdir");
            assert_eq!(errno(fs::rename(&file, &new)), EROFS, "rename");
            assert_eq!(errno(fs::hard_link(&file, &new)), EROFS, "link");
            assert_eq!(errno(std::os::unix::fs::symlink("file", &new)), EROFS, "symlink");
            let mode = fs::Permissions::from_mode(0o777);
            assert_eq!(errno(fs::set_permissions(&file, mode)), EROFS, "chmod");
            assert_eq!(errno(std::os::unix::fs::chown(&file, Some(1), None)), EROFS, "chown");
            assert_eq!(raw(sys::utimensat(cwd, &file, &times, none)), EROFS, "utimens");
            let open = |options: &mut fs::OpenOptions| errno(options.open(&file).map(drop));
            assert_eq!(open(fs::OpenOptions::new().write(true)), EROFS, "open to write");
            assert_eq!(open(fs::OpenOptions::new().read(true).append(true)), EROFS, "append");
            assert_eq!(open(fs::OpenOptions::new().write(true).truncate(true)), EROFS, "truncate");
            let made = sys::mknodat(cwd, &new, sys::FileType::Fifo, sys::Mode::RWXU, 0);
            assert_eq!(raw(made), EROFS, "mknod");
            let set = sys::setxattr(&file, "user.name", b"value", sys::XattrFlags::empty());
            assert_eq!(raw(set), EROFS, "setxattr");
        });
        let mut touch = Command::new("touch");
        let ended = run(touch.env("LC_ALL", "C").arg(job.view(rank, &tree.path("file"))), BOUND);
        assert!(ended.failure_line().contains("Read-only file system"));
    }
    for (attributes_before, path) in before {
        let without_access = |all: Vec<(&'static str, i64)>| {
            all.into_iter().filter(|(name, _)| !name.starts_with("atime")).collect::<Vec<_>>()
        };
        assert_eq!(without_access(attributes(&path)), without_access(attributes_before));
    }
}

/// Where data and holes follow each other in a file, as `lseek` finds them.
fn runs(path: &Path) -> Vec<u64> {
    use rustix::fs::{SeekFrom, seek};
    let file = File::open(path).expect("it opens");
    let mut runs = vec![0];
    while let Ok(data) = seek(&file, SeekFrom::Data(*runs.last().expect("never empty"))) {
        runs.push(data);
        runs.push(seek(&file, SeekFrom::Hole(data)).expect("a run of data ends"));
    }
    runs
}

#[test]
fn data_and_holes_are_where_the_source_has_them() {
    let scratch = Scratch::new();
    let tree = Tree::new(&scratch);
    let page = [7_u8; PAGE];
    let files = [
        tree.sparse("some", 2 * BLOCK + 100, &[(0, &page), (BLOCK, &page), (2 * BLOCK, b"end")]),
        tree.sparse("only a hole", 3 * BLOCK, &[]),
        tree.sparse("large", 3_u64 << 30, &[(1_u64 << 30, &page)]),
        tree.file("dense", 100_000),
        tree.file("empty", 0),
    ];
    let most: Vec<_> = (0..500).map(|index| (index * 4 * PAGE as u64, &page[..])).collect();
    let many = tree.sparse("many", 3000 * PAGE as u64, &most);
    let job = Job::launch(&scratch, 3);
    for rank in 0..job.ranks() {
        for file in files.iter().chain([&many]) {
            let (shown, file) = (job.view(rank, file), file.clone());
            within(BOUND, "holes", move || assert_eq!(runs(&shown), runs(&file)));
        }
    }
    let status = job.status();
    assert_eq!(status.counter(0, "source.data_ranges"), 6, "each file once, by the root");
    assert_eq!(status.counter(2, "source.data_ranges"), 0);
}

#[test]
fn extended_attributes_are_the_source_s() {
    use rustix::fs as sys;
    let scratch = Scratch::new();
    let tree = Tree::new(&scratch);
    let (file, plain) = (tree.file("file", 10), tree.file("plain", 10));
    tree.directory("directory");
    tree.link("link", "file");
    let set = |path: &Path, name: &str, value: &[u8]| {
        let set = sys::setxattr(path, name, value, sys::XattrFlags::empty());
        set.expect("the tests' file system has user attributes");
    };
    let long = vec![b'x'; 60_000];
    let long = if sys::setxattr(&file, "user.long", &long, sys::XattrFlags::empty()).is_ok() {
        long
    } else {
        // ext4 keeps an inode's attributes in one block.
        vec![b'x'; 2_000]
    };
    set(&file, "user.long", &long);
    set(&file, "user.empty", b"");
    set(&tree.path("directory"), "user.of a directory", b"\0\xff");
    let answers = |path: &Path| {
        let mut space = vec![0; 1 << 16];
        let mut answers = Vec::new();
        let listed = sys::llistxattr(path, &mut space[..]);
        answers.push(listed.map(|len| space[..len].to_vec()));
        for name in ["user.long", "user.empty", "user.of a directory", "user.none", "security.none"]
        {
            let got = sys::lgetxattr(path, name, &mut space[..]);
            answers.push(got.map(|len| space[..len].to_vec()));
            let got = sys::getxattr(path, name, &mut space[..1]);
            answers.push(got.map(|len| space[..len].to_vec()));
        }
        answers.push(sys::getxattr(path, "no namespace", &mut space[..]).map(|_| Vec::new()));
        answers
    };
    let job = Job::launch(&scratch, 3);
    for name in ["security.selinux", "system.posix_acl_access"] {
        let got = sys::getxattr(job.view(0, &plain), name, &mut [0_u8; 8][..]);
        assert_eq!(got, Err(rustix::io::Errno::OPNOTSUPP), "{name}");
    }
    for rank in 0..job.ranks() {
        for path in [&file, &plain, &tree.path("directory"), &tree.path("link"), &tree.path(".")] {
            assert_eq!(answers(&job.view(rank, path)), answers(path), "{}", path.display());
        }
    }
    let before = job.status().counter(2, "fabric.messages_sent");
    for _ in 0..100 {
        answers(&job.view(2, &plain));
    }
    let status = job.status();
    assert_eq!(status.counter(2, "fabric.messages_sent"), before, "answered where it is known");
    assert_eq!(status.counter(0, "source.extended_attributes"), 5, "read once, by the root");
}

#[test]
fn absolute_links_stay_within_the_view_if_asked_for() {
    let scratch = Scratch::new();
    let tree = Tree::new(&scratch);
    tree.directory("there");
    let file = tree.file("there/file", 100);
    tree.link("absolute", &file);
    tree.link("directory", tree.path("there"));
    tree.link("relative", "there/file");
    for (arguments, within_view) in [(&[][..], false), (&["--rewrite-links"][..], true)] {
        let job = Job::launch_with(&scratch, 2, &Options::with(arguments));
        for rank in 0..job.ranks() {
            let target = fs::read_link(job.view(rank, &tree.path("absolute"))).expect("a link");
            let expected = if within_view { job.view(rank, &file) } else { file.clone() };
            assert_eq!(target, expected);
            let link = job.view(rank, &tree.path("absolute"));
            let shown = link.symlink_metadata().expect("it is there");
            assert_eq!(shown.len() as usize, target.as_os_str().len(), "a link's size");
            let relative = fs::read_link(job.view(rank, &tree.path("relative"))).expect("a link");
            assert_eq!(relative, Path::new("there/file"));
            let view = fs::metadata(&job.views[rank as usize]).expect("it is mounted").dev();
            for name in ["absolute", "directory/file"] {
                let through = fs::metadata(job.view(rank, &tree.path(name))).expect("it leads");
                assert_eq!(through.dev() == view, within_view, "{name}");
                assert_eq!(through.len(), 100);
            }
        }
    }
}
