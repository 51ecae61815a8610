use super::*;
use crate::strace::Reader;

/// The calls on what is below `/t` that these lines of strace make, as a trace writes them.
fn ops(lines: &str) -> Vec<String> {
    let (recording, _) = fed(lines);
    let (trace, _) = recording.finish();
    trace.ops.iter().map(Op::to_string).collect()
}

fn left_out(lines: &str) -> Vec<(String, u64)> {
    fed(lines).0.finish().1.into_iter().collect()
}

fn fed(lines: &str) -> (Recording, Reader) {
    let folders = Folders::new(vec![(b"/t".to_vec(), b"/real/t".to_vec())]);
    let (mut recording, mut reader) =
        (Recording::new(folders, b"/t/home".to_vec()), Reader::default());
    for line in lines.lines().map(str::trim).filter(|line| !line.is_empty()) {
        recording.on_event(&reader.feed(line).expect("strace's line"));
    }
    (recording, reader)
}

#[test]
fn every_kind_is_recorded() {
    let lines = r#"
        1 openat(AT_FDCWD</t>, "a", O_RDONLY|O_CLOEXEC|O_NOFOLLOW) = 3</t/a>
        1 fstat(3</t/a>, {st_mode=S_IFREG|0644, st_size=0, ...}) = 0
        1 newfstatat(3</t/a>, "", {st_mode=S_IFREG|0644, ...}, AT_EMPTY_PATH) = 0
        1 ioctl(3</t/a>, TCGETS, 0x7ffd) = -1 ENOTTY (Inappropriate ioctl for device)
        1 read(3</t/a>, ""..., 832) = 12
        1 pread64(3</t/a>, ""..., 784, 64) = 784
        1 lseek(3</t/a>, -1, SEEK_END) = 11
        1 mmap(0x7f0000003000, 8192, PROT_READ|PROT_EXEC, MAP_PRIVATE|MAP_FIXED, 3</t/a>, 0x1000) = 0x7f0000013000
        1 close(3</t/a>) = 0
        1 munmap(0x7f0000013000, 8192) = 0
        1 open("/t", O_RDONLY|O_DIRECTORY) = 3</t>
        1 getdents64(3</t>, 0x55 /* 3 entries */, 32768) = 72
        1 getdents64(3</t>, 0x55 /* 0 entries */, 32768) = 0
        1 lstat("/t/b c", 0x7f) = -1 ENOENT (No such file or directory)
        1 statx(AT_FDCWD</t>, "b", AT_STATX_SYNC_AS_STAT|AT_SYMLINK_NOFOLLOW, STATX_MODE, {stx_mask=0}) = 0
        1 newfstatat(3</t>, "b", {st_mode=S_IFREG|0644, ...}, 0) = 0
        1 access("/t/b", R_OK|X_OK) = 0
        1 faccessat2(AT_FDCWD</t>, "b", F_OK, AT_EACCESS) = -1 EACCES (Permission denied)
        1 readlink("/t/b", 0x7f, 4096) = -1 EINVAL (Invalid argument)
        1 openat(AT_FDCWD</t>, "a", O_RDONLY|O_DIRECTORY) = -1 ENOTDIR (Not a directory)
        1 exit_group(0) = ?
        1 +++ exited with 0 +++"#;
    let expected = [
        "open 0 nofollow 0/a ok",
        "fstat 0 ok",
        "fstat 0 ok",
        "isatty 0 ENOTTY",
        "read 0 832 12",
        "pread 0 64 784 784",
        "lseek 0 -1 end 11",
        "mmap 0 0 4096 8192 12288 rx private ok",
        "close 0",
        "munmap 0",
        "open 0 directory 0/ ok",
        "getdents 0 32768 more",
        "getdents 0 32768 end",
        "stat nofollow 0/b\\040c ENOENT",
        "stat nofollow 0/b ok",
        "stat follow 0/b ok",
        "access rx 0/b ok",
        "access f 0/b EACCES",
        "readlink 0/b EINVAL",
        "open - directory 0/a ENOTDIR",
        "close 0",
    ];
    assert_eq!(ops(lines), expected);
    assert_eq!(left_out(lines), []);
}

#[test]
fn what_is_elsewhere_is_left_out() {
    let lines = r#"
        1 openat(AT_FDCWD</>, "/etc/passwd", O_RDONLY) = 3</etc/passwd>
        1 read(3</etc/passwd>, ""..., 4096) = 12
        1 newfstatat(AT_FDCWD</>, "/tt", 0x7f, 0) = -1 ENOENT (No such file or directory)
        1 close(3</etc/passwd>) = 0
        1 write(1</t/log>, ""..., 3) = 3"#;
    assert!(ops(lines).is_empty());
    assert_eq!(left_out(lines), []);
}

#[test]
fn what_is_not_replayed_is_counted() {
    let lines = r#"
        1 openat(AT_FDCWD</t>, "new", O_WRONLY|O_CREAT|O_CLOEXEC, 0666) = 3</t/new>
        1 write(3</t/new>, ""..., 3) = 3
        1 close(3</t/new>) = 0
        1 getxattr("/t/a", "security.capability", 0x7f, 20) = -1 ENODATA (No data available)
        1 unlink("a") = 0
        1 unlinkat(AT_FDCWD</t>, "a", 0) = 0
        1 read(0</t/a>, ""..., 3) = 3
        1 newfstatat(AT_FDCWD</t>, "a", 0x7f, 0) = -1 EWHAT (What)"#;
    let expected = [
        ("getxattr", 1),
        ("newfstatat", 1),
        ("open for writing", 1),
        ("unlink", 1),
        ("unlinkat", 1),
    ];
    assert_eq!(left_out(lines), expected.map(|(name, count)| (name.to_owned(), count)));
    assert!(ops(lines).is_empty());
}

#[test]
fn relative_paths_follow_the_folder() {
    let lines = r#"
        1 stat("a", 0x7f) = 0
        1 chdir("x") = 0
        1 stat("a", 0x7f) = 0
        1 chdir("/elsewhere") = -1 ENOENT (No such file or directory)
        1 stat("a", 0x7f) = 0
        1 fchdir(7</t/y>) = 0
        1 stat("a", 0x7f) = 0
        1 newfstatat(AT_FDCWD</real/t/z>, "../a", 0x7f, 0) = 0
        1 stat("a", 0x7f) = 0
        1 chdir("/") = 0
        1 stat("a", 0x7f) = 0"#;
    let expected = ["home/a", "home/x/a", "home/x/a", "y/a", "z/../a", "z/a"];
    assert_eq!(ops(lines), expected.map(|path| format!("stat follow 0/{path} ok")));
}

#[test]
fn a_file_is_closed_with_its_last_descriptor() {
    let lines = r#"
        1 openat(AT_FDCWD</t>, "a", O_RDONLY) = 3</t/a>
        1 dup2(3</t/a>, 0) = 0</t/a>
        1 fcntl(0</t/a>, F_DUPFD_CLOEXEC, 10) = 10</t/a>
        1 close(3</t/a>) = 0
        1 read(0</t/a>, ""..., 1) = 1
        1 close_range(0, 4294967295, 0) = 0
        1 openat(AT_FDCWD</t>, "b", O_RDONLY) = 0</t/b>
        1 dup2(5</x>, 0) = 0</x>"#;
    let expected = ["open 0 - 0/a ok", "read 0 1 1", "close 0", "open 0 - 0/b ok", "close 0"];
    assert_eq!(ops(lines), expected);
}

#[test]
fn a_child_has_the_files_of_its_parent() {
    // The child runs before its parent has been told its number.
    let lines = r#"
        1 openat(AT_FDCWD</t>, "a", O_RDONLY) = 3</t/a>
        1 openat(AT_FDCWD</t>, "b", O_RDONLY|O_CLOEXEC) = 4</t/b>
        1 clone(child_stack=NULL, flags=CLONE_CHILD_SETTID|SIGCHLD <unfinished ...>
        2 read(3</t/a>,  <unfinished ...>
        1 <... clone resumed>, child_tidptr=0x7f) = 2
        1 close(3</t/a>) = 0
        1 close(4</t/b>) = 0
        2 <... read resumed>""..., 5) = 5
        2 execve("/bin/cat", ["cat"], 0x7f /* 9 vars */) = 0
        2 read(3</t/a>, "", 5) = 0
        2 +++ exited with 0 +++"#;
    let expected =
        ["open 0 - 0/a ok", "open 1 - 0/b ok", "read 0 5 5", "close 1", "read 0 5 0", "close 0"];
    assert_eq!(ops(lines), expected);
}

#[test]
fn threads_share_their_files() {
    // The number is free once a close has begun: the other thread gets it before the end is told.
    let lines = r#"
        1 openat(AT_FDCWD</t>, "a", O_RDONLY) = 3</t/a>
        1 clone3({flags=CLONE_VM|CLONE_FILES|CLONE_THREAD, stack=0x7f}, 88) = 2
        1 close(3</t/a> <unfinished ...>
        2 openat(AT_FDCWD</t>, "b", O_RDONLY) = 3</t/b>
        1 <... close resumed>) = 0
        1 read(3</t/b>, ""..., 5) = 5
        1 read(3<pipe:[17]>, ""..., 5) = 5
        2 +++ exited with 0 +++
        1 close(3</t/b>) = 0"#;
    let expected = ["open 0 - 0/a ok", "close 0", "open 0 - 0/b ok", "read 0 5 5", "close 0"];
    assert_eq!(ops(lines), expected);
}

#[test]
fn touched_windows_stand_behind_their_map() {
    let lines = r#"
        1 openat(AT_FDCWD</t>, "a.so", O_RDONLY) = 3</t/a.so>
        1 mmap(NULL, 262144, PROT_READ, MAP_PRIVATE|MAP_DENYWRITE, 3</t/a.so>, 0) = 0x7f0000008000
        1 mmap(0x7f0000018000, 65536, PROT_READ|PROT_EXEC, MAP_PRIVATE|MAP_FIXED, 3</t/a.so>, 0x10000) = 0x7f0000018000
        1 close(3</t/a.so>) = 0"#;
    let (mut recording, _) = fed(lines);
    let pieces = recording.pieces(1);
    let starts: Vec<_> = pieces.iter().map(|piece| (piece.map.0, piece.start)).collect();
    assert_eq!(starts, [(0, 0x7f00_0000_8000), (0, 0x7f00_0002_8000), (1, 0x7f00_0001_8000)]);
    // Two pages of one window, one of the next, and some of other files.
    let region = |start: u64, end: u64, offset: u64, present: &[u64]| Region {
        start: 0x7f00_0000_0000 + start,
        end: 0x7f00_0000_0000 + end,
        offset,
        present: present.iter().map(|at| 0x7f00_0000_0000 + at).collect(),
    };
    let regions = [
        region(0x1000, 0x8000, 0, &[0x1000]),
        region(0x8000, 0x18000, 0, &[0xa000, 0x9000, 0x10000]),
        region(0x18000, 0x28000, 0x10000, &[0x18000]),
        region(0x28000, 0x38000, 0x20000, &[0x28000]),
        region(0x38000, 0x48000, 0, &[0x38000]),
    ];
    recording.on_looked(1, &regions);
    let ops: Vec<_> = recording.finish().0.ops.iter().map(Op::to_string).collect();
    let expected = [
        "open 0 - 0/a.so ok",
        "mmap 0 0 0 262144 32768 r private ok",
        "touch 0 4096",
        "touch 0 32768",
        "touch 0 131072",
        "mmap 1 0 65536 65536 32768 rx private ok",
        "touch 1 65536",
        "close 0",
    ];
    assert_eq!(ops, expected);
}

#[test]
fn a_place_in_a_listing_is_not_recorded() {
    let lines = r#"
        1 openat(AT_FDCWD</t>, ".", O_RDONLY|O_DIRECTORY) = 3</t>
        1 getdents64(3</t>, 0x55 /* 3 entries */, 32768) = 72
        1 lseek(3</t>, 5190573918572, SEEK_SET) = 5190573918572
        1 lseek(3</t>, 0, SEEK_SET) = 0
        1 close(3</t>) = 0"#;
    let expected =
        ["open 0 directory 0/ ok", "getdents 0 32768 more", "lseek 0 0 set 0", "close 0"];
    assert_eq!(ops(lines), expected);
    assert_eq!(left_out(lines), [("lseek".to_owned(), 1)]);
}
