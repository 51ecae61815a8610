use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use rustix::fs::{CWD, FallocateFlags, Mode, XattrFlags};

use crate::stage::Stage;
use crate::tree::{ROOT, Tree};

const EROFS: i32 = copper_proto::Errno::EROFS.0;

fn tree() -> Tree {
    let mut tree = Tree::new();
    tree.directory(ROOT, "directory");
    tree.file(ROOT, "file", b"content");
    tree
}

/// Tries everything that would change the view, and gives how each attempt ended.
fn attempts(root: &Path) -> Vec<(&'static str, i32)> {
    let (file, directory, new) = (root.join("file"), root.join("directory"), root.join("new"));
    let code = |result: io::Result<()>| result.err().and_then(|e| e.raw_os_error()).unwrap_or(0);
    let errno = |result: rustix::io::Result<()>| code(result.map_err(io::Error::from));
    let mode = Mode::from_raw_mode(0o600);
    let time = rustix::fs::Timespec { tv_sec: 1, tv_nsec: 1 };
    let times = rustix::fs::Timestamps { last_access: time, last_modification: time };
    let open = |options: &mut OpenOptions, path: &Path| code(options.open(path).map(drop));
    vec![
        ("mkdir", code(fs::create_dir(&new))),
        ("create", open(OpenOptions::new().write(true).create_new(true), &new)),
        ("mknod", errno(rustix::fs::mknodat(CWD, &new, rustix::fs::FileType::Fifo, mode, 0))),
        ("symlink", code(std::os::unix::fs::symlink("x", &new))),
        ("link", code(fs::hard_link(&file, &new))),
        ("unlink", code(fs::remove_file(&file))),
        ("rmdir", code(fs::remove_dir(&directory))),
        ("rename", code(fs::rename(&file, &new))),
        ("chmod", code(fs::set_permissions(&file, fs::Permissions::from_mode(0o777)))),
        ("chown", code(std::os::unix::fs::chown(&file, Some(1), Some(1)))),
        ("truncate", open(OpenOptions::new().write(true).truncate(true), &file)),
        ("utimens", errno(rustix::fs::utimensat(CWD, &file, &times, rustix::fs::AtFlags::empty()))),
        ("setxattr", errno(rustix::fs::setxattr(&file, "user.x", b"x", XattrFlags::empty()))),
        ("removexattr", errno(rustix::fs::removexattr(&file, "user.x"))),
    ]
}

#[test]
fn every_mutation_is_refused_by_the_kernel_and_never_arrives() {
    let stage = Stage::new(tree());
    for (what, code) in attempts(stage.mounted.point()) {
        assert_eq!(code, EROFS, "{what}");
    }
    for path in ["file", "new"] {
        let error = OpenOptions::new().append(true).create(path == "new").open(stage.path(path));
        assert_eq!(error.expect_err("read-only").raw_os_error(), Some(EROFS), "{path}");
    }
    assert_eq!(stage.mounted.counters().mutation, 0);
    assert_eq!(fs::read(stage.path("file")).expect("read"), b"content");
}

#[test]
fn every_mutation_that_arrives_is_refused_by_the_daemon() {
    let stage = Stage::new(tree());
    // Else the kernel refuses by itself.
    if !stage.remount("rw") {
        return;
    }
    let attempts = attempts(stage.mounted.point());
    for &(what, code) in &attempts {
        assert_eq!(code, EROFS, "{what}");
    }
    // The kernel opens files alone, so what is written to an open file arrives as such. O_SYNC:
    // else the kernel would keep it for later.
    let open = OpenOptions::new().write(true).custom_flags(0o4_010_000).open(stage.path("file"));
    let file = match open {
        Ok(file) => file,
        Err(error) => {
            assert_eq!(error.raw_os_error(), Some(EROFS));
            File::open(stage.path("file")).expect("open")
        }
    };
    let written = rustix::io::write(&file, b"changed");
    assert!(matches!(written, Err(rustix::io::Errno::ROFS | rustix::io::Errno::BADF)));
    let allocated = rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, 1 << 20);
    assert!(matches!(allocated, Err(rustix::io::Errno::ROFS | rustix::io::Errno::BADF)));
    assert!(stage.mounted.counters().mutation >= attempts.len() as u64);
    assert_eq!(fs::read(stage.path("file")).expect("read"), b"content");
}
