use std::fs::{self, File};
use std::io::{IsTerminal, Read};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};
use std::path::Path;
use std::process::Command;

use copper_proto::{Errno, FileKind, Timestamp};
use rustix::fs::SeekFrom;

use crate::stage::Stage;
use crate::tree::{ROOT, Tree};
use crate::view::{How, STATISTICS};

fn bytes(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at * 31 + at / 251) as u8).collect()
}

#[test]
fn bytes_are_the_sources_at_every_offset_and_end_where_they_end() {
    let content = bytes(3_000_001);
    let mut tree = Tree::new();
    tree.file(ROOT, "empty", b"");
    tree.file(ROOT, "one", b"x");
    tree.file(ROOT, "large", &content);
    let stage = Stage::new(tree);

    assert_eq!(fs::read(stage.path("empty")).expect("read"), b"");
    assert_eq!(fs::read(stage.path("one")).expect("read"), b"x");
    let file = File::open(stage.path("large")).expect("open");
    for (offset, len) in [(0, 10), (131_071, 3), (1_048_570, 100), (2_999_990, 100), (3_000_001, 1)]
    {
        let mut buffer = vec![0; len];
        let got = file.read_at(&mut buffer, offset as u64).expect("read");
        let end = content.len().min(offset + len);
        assert_eq!(buffer[..got], content[offset..end], "{len} bytes at {offset}");
    }
    assert!(fs::read(stage.path("large")).expect("read") == content);
    assert!(stage.mounted.counters().read_bytes >= 3_000_002);
}

#[test]
fn a_read_across_pieces_is_one_run_of_bytes_now_and_later() {
    let content = bytes(1_000_000);
    for how in [How::Now, How::Later] {
        let mut tree = Tree::new();
        tree.file(ROOT, "file", &content);
        let stage = Stage::new(tree);
        *stage.view.piece_bytes.lock().expect("lock") = 1000;
        stage.view.choose(move |_| how);
        assert!(fs::read(stage.path("file")).expect("read") == content, "{how:?}");
        let counters = stage.mounted.counters();
        match how {
            How::Later => assert!(counters.asked > 8 && counters.inline == 0, "{counters:?}"),
            _ => assert!(counters.inline > 8 && counters.asked == 0, "{counters:?}"),
        }
    }
}

#[test]
fn everything_works_through_the_queue_as_it_does_on_the_spot() {
    let mut tree = Tree::new();
    let inner = tree.directory(ROOT, "inner");
    tree.file(inner, "file", b"content");
    tree.link(inner, "link", b"file");
    let stage = Stage::new(tree);
    stage.view.choose(|_| How::Later);
    assert_eq!(fs::read(stage.path("inner/link")).expect("read"), b"content");
    assert_eq!(fs::read_dir(stage.path("inner")).expect("listed").count(), 2);
    assert!(fs::metadata(stage.path("inner/absent")).is_err());
    assert_eq!(fs::read_link(stage.path("inner/link")).expect("link"), Path::new("file"));
    assert_eq!(stage.mounted.counters().inline, 0);
}

#[test]
fn attributes_are_the_sources_to_the_nanosecond() {
    let mut tree = Tree::new();
    let file = tree.file(ROOT, "file", b"12345");
    let device = tree.special(ROOT, "null", FileKind::CharacterDevice);
    tree.special(ROOT, "pipe", FileKind::Fifo);
    tree.special(ROOT, "socket", FileKind::Socket);
    tree.special(ROOT, "disk", FileKind::BlockDevice);
    let times = [(-2, 800_000_000), (1_700_000_000, 123_456_789), (0, 999_999_999)];
    let [accessed, modified, changed] = times.map(|(seconds, nanos)| Timestamp { seconds, nanos });
    let node = &mut tree.nodes[file].attributes;
    (node.accessed, node.modified, node.changed) = (accessed, modified, changed);
    (node.links, node.uid, node.gid, node.permissions) = (3, 12_345, 54_321, 0o4751);
    (node.sectors, node.io_bytes) = (77, 1 << 20);
    tree.nodes[device].attributes.device_number = rustix::fs::makedev(1, 300);
    let stage = Stage::new(tree);

    let stat = fs::symlink_metadata(stage.path("file")).expect("stat");
    let got = [
        (stat.atime(), stat.atime_nsec() as u32),
        (stat.mtime(), stat.mtime_nsec() as u32),
        (stat.ctime(), stat.ctime_nsec() as u32),
    ];
    assert_eq!(got, times);
    assert_eq!((stat.nlink(), stat.uid(), stat.gid()), (3, 12_345, 54_321));
    assert_eq!((stat.mode(), stat.size()), (0o104_751, 5));
    assert_eq!((stat.blocks(), stat.blksize()), (77, 1 << 20));
    assert_eq!(stat.ino(), file as u64 + 1);
    assert_eq!(u64::from(stage.mounted.device().minor), stat.dev());
    let kind = |name| fs::symlink_metadata(stage.path(name)).expect("stat").file_type();
    assert!(kind("null").is_char_device() && kind("disk").is_block_device());
    assert!(kind("pipe").is_fifo() && kind("socket").is_socket());
    let rdev = fs::symlink_metadata(stage.path("null")).expect("stat").rdev();
    assert_eq!(rdev, rustix::fs::makedev(1, 300));
}

#[test]
fn no_file_is_a_terminal() {
    let mut tree = Tree::new();
    tree.file(ROOT, "file", b"x");
    let stage = Stage::new(tree);
    let file = File::open(stage.path("file")).expect("open");
    assert!(!file.is_terminal());
    assert_eq!(stage.mounted.counters().ioctl, 1);
}

#[test]
fn data_and_holes_are_the_sources() {
    let mut tree = Tree::new();
    tree.file(ROOT, "file", &bytes(10_000));
    let stage = Stage::new(tree);
    for how in [How::Now, How::Later] {
        stage.view.choose(move |_| how);
        let mut file = File::open(stage.path("file")).expect("open");
        let seek = |position| rustix::fs::seek(&file, position);
        assert_eq!(seek(SeekFrom::Hole(0)), Ok(4096));
        assert_eq!(seek(SeekFrom::Data(77)), Ok(77));
        assert_eq!(seek(SeekFrom::Data(5000)), Ok(8192));
        assert_eq!(seek(SeekFrom::Hole(9000)), Ok(10_000));
        assert_eq!(seek(SeekFrom::Data(10_000)), Err(rustix::io::Errno::NXIO));
        assert_eq!(seek(SeekFrom::Hole(10_000)), Err(rustix::io::Errno::NXIO));
        assert_eq!(seek(SeekFrom::End(-3)), Ok(9_997));
        let mut end = Vec::new();
        file.read_to_end(&mut end).expect("read");
        assert_eq!(end, bytes(10_000)[9_997..]);
    }
    assert_eq!(stage.mounted.counters().lseek, 12, "the kernel moves to the end by itself");
}

#[test]
fn extended_attributes_are_the_sources() {
    use rustix::io::Errno;
    let mut tree = Tree::new();
    tree.file(ROOT, "file", b"x");
    let stage = Stage::new(tree);
    let path = stage.path("file");
    for how in [How::Now, How::Later] {
        stage.view.choose(move |_| how);
        let mut value = [0u8; 64];
        assert_eq!(rustix::fs::getxattr(&path, "user.x", &mut value), Ok(5));
        assert_eq!(&value[..5], b"value");
        assert_eq!(rustix::fs::getxattr(&path, "user.empty", &mut value), Ok(0));
        assert_eq!(rustix::fs::getxattr(&path, "user.none", &mut value), Err(Errno::NODATA));
        assert_eq!(rustix::fs::getxattr(&path, "user.x", &mut value[..2]), Err(Errno::RANGE));
        assert_eq!(rustix::fs::getxattr(&path, "none", &mut value), Err(Errno::OPNOTSUPP));
        assert_eq!(rustix::fs::listxattr(&path, &mut value), Ok(18));
        assert_eq!(&value[..18], b"user.x\0user.empty\0");
        assert_eq!(rustix::fs::listxattr(&path, &mut value[..17]), Err(Errno::RANGE));
    }
}

#[test]
fn space_is_the_sources() {
    let stage = Stage::new(Tree::new());
    let stat = rustix::fs::statfs(stage.mounted.point()).expect("statfs");
    assert_eq!((stat.f_blocks, stat.f_bfree, stat.f_bavail), (1000, 500, 400));
    assert_eq!((stat.f_files, stat.f_ffree), (77, 33));
    assert_eq!(stat.f_bsize as u64, u64::from(STATISTICS.block_bytes));
    assert_eq!(stat.f_frsize as u64, u64::from(STATISTICS.fragment_bytes));
    assert_eq!(stat.f_namelen as u64, 255);
    assert_eq!(stage.mounted.counters().statfs, 1);
}

#[test]
fn every_errno_reaches_the_client_and_is_not_remembered() {
    let mut tree = Tree::new();
    tree.file(ROOT, "file", b"x");
    let stage = Stage::new(tree);
    let errnos = [
        Errno::EPERM,
        Errno::ENOENT,
        Errno::EIO,
        Errno::ENOMEM,
        Errno::EACCES,
        Errno::ENOTDIR,
        Errno::EINVAL,
        Errno::EFBIG,
        Errno::EROFS,
        Errno::ENAMETOOLONG,
        Errno::ENOSYS,
        Errno::ELOOP,
        Errno::ENODATA,
        Errno::EPROTO,
        Errno::EOPNOTSUPP,
        Errno::ETIMEDOUT,
        Errno::ESTALE,
    ];
    for errno in errnos {
        for how in [How::Fail(errno), How::Refuse(errno)] {
            stage.view.choose(move |_| how);
            let error = fs::symlink_metadata(stage.path("file")).expect_err("it fails");
            assert_eq!(error.raw_os_error(), Some(errno.0), "{how:?}");
        }
    }
    stage.view.choose(|_| How::Now);
    assert_eq!(fs::read(stage.path("file")).expect("read"), b"x");
    // All but ENOENT; the kernel tries some of them twice.
    assert!(stage.mounted.counters().errors >= 2 * (errnos.len() as u64 - 1));
}

#[test]
fn a_directory_cannot_be_read_as_a_file() {
    let mut tree = Tree::new();
    tree.directory(ROOT, "directory");
    let stage = Stage::new(tree);
    let error = fs::read(stage.path("directory")).expect_err("no file");
    assert_eq!(error.raw_os_error(), Some(Errno::EISDIR.0));
}

#[test]
fn programs_run_from_the_view() {
    let program = fs::read("/bin/true").expect("every system has it");
    let mut tree = Tree::new();
    let file = tree.file(ROOT, "true", &program);
    tree.nodes[file].attributes.permissions = 0o755;
    let script = tree.file(ROOT, "script", b"#!/bin/sh\nexit 7\n");
    tree.nodes[script].attributes.permissions = 0o755;
    let stage = Stage::new(tree);
    stage.view.choose(|_| How::Later);
    let status = |name| Command::new(stage.path(name)).status().expect("it runs");
    assert!(status("true").success());
    assert_eq!(status("script").code(), Some(7));
}
