//! What the kernel has looked up is bounded at this end too: it is asked to forget, and nobody who
//! uses a file notices.

#[path = "support/harness.rs"]
mod support;

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use support::{Job, Scratch, Tree, eventually};

const DIRECTORIES: usize = 16;
const FILES: usize = 1500;

/// As many as any rank may hold, and a batch: a sixteenth of its 64 MiB is less.
const INODES_MAX: u64 = 8192 + 4096;

#[test]
fn a_walk_of_many_files_leaves_few_inodes_and_disturbs_nobody() {
    let scratch = Scratch::new();
    let tree = Tree::new(&scratch);
    let file = tree.file("a-file", 50_000);
    let program = tree.file_with("a-program", &fs::read("/bin/sleep").expect("there is one"));
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("ours");
    for directory in 0..DIRECTORIES {
        let directory = tree.directory(format!("many-{directory}"));
        for index in 0..FILES {
            fs::write(directory.join(format!("file-{index}")), [index as u8]).expect("ours");
        }
    }
    let mut job = Job::launch(&scratch, 1);
    let shown = |path: &PathBuf| job.view(0, path);
    let open = File::open(shown(&file)).expect("it is there");
    let before = open.metadata().expect("open").ino();
    let sits = shown(&tree.path("many-0"));
    let mut running = Command::new(shown(&program));
    let mut running =
        running.arg("600").current_dir(&sits).stdin(Stdio::null()).spawn().expect("a program");
    for round in 0..2 {
        for directory in 0..DIRECTORIES {
            let directory = shown(&tree.path(format!("many-{directory}")));
            let entries = fs::read_dir(&directory).expect("a directory");
            let sizes = entries.map(|it| it.and_then(|it| it.metadata()).expect("an entry").len());
            assert_eq!(sizes.sum::<u64>(), FILES as u64, "round {round}");
        }
    }
    // The engine looks at it when it has something to do.
    let few = || {
        let _ = fs::metadata(shown(&tree.path("nothing-is-called-so")));
        let status = job.status();
        let cache = &status.rank(0)["cache"];
        let asked = cache["inodes_surplus"].as_u64() > Some(0);
        (asked && cache["inodes"].as_u64() < Some(INODES_MAX)).then_some(())
    };
    eventually(Duration::from_secs(20), "few inodes are left", few);
    assert_eq!(open.metadata().expect("open").ino(), before);
    assert_eq!(fs::read(shown(&file)).expect("there"), fs::read(&file).expect("ours"));
    let exe = fs::read_link(format!("/proc/{}/exe", running.id())).expect("it runs");
    assert_eq!(exe, shown(&program), "it is not shown as deleted");
    let folder = fs::read_link(format!("/proc/{}/cwd", running.id())).expect("it runs");
    assert_eq!(folder, sits);
    for index in [0, FILES - 1] {
        let path = tree.path("many-3").join(format!("file-{index}"));
        assert_eq!(fs::read(shown(&path)).expect("there"), [index as u8]);
    }
    running.kill().expect("ours");
    running.wait().expect("ours");
    drop(open);
    job.stop();
}
