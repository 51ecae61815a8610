//! A mounted view for one test, and what it takes to leave nothing behind.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use copper_fuse::{Feature, KernelFeatures, MountTable, Mounted, Pending, Settings};
use rustix::process::{Pid, Signal};

use crate::tree::Tree;
use crate::view::TestView;

/// How long a test waits for what must come.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// Waits for a condition.
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + SOON;
    while !holds() {
        assert!(Instant::now() < end, "did not come: {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// A directory of the test's own. At its end whatever is still mounted in it is unmounted.
pub(crate) struct Scratch {
    path: PathBuf,
}

impl Scratch {
    pub(crate) fn new() -> Scratch {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        assert!(Path::new("/dev/fuse").exists(), "these tests need /dev/fuse");
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("copper-{}-{count}", std::process::id());
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::create_dir_all(&path).expect("a scratch directory");
        Scratch { path: fs::canonicalize(path).expect("just created") }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    fn mounts(&self) -> Vec<PathBuf> {
        let table = MountTable::read().expect("/proc is mounted");
        let points = table.all().iter().map(|mount| mount.point.clone());
        points.filter(|point| point.starts_with(&self.path)).collect()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        for point in self.mounts().iter().rev() {
            let _status = Command::new("fusermount3").args(["-u", "-z"]).arg(point).status();
        }
        let left = self.mounts();
        // Never with something mounted below.
        if left.is_empty() {
            let _removed = fs::remove_dir_all(&self.path);
        }
        assert!(left.is_empty() || thread::panicking(), "still mounted: {left:?}");
    }
}

/// A child process that is killed at the end.
pub(crate) struct Process {
    child: Child,
}

impl Process {
    pub(crate) fn start(command: &mut Command) -> Process {
        Process { child: command.stdin(Stdio::null()).spawn().expect("it starts") }
    }

    /// This test binary again, running one of its tests as a helper.
    pub(crate) fn helper(test: &str, variable: (&str, &Path)) -> Process {
        let mut command = Command::new(std::env::current_exe().expect("a path"));
        command.args(["--exact", test, "--nocapture", "--test-threads=1"]);
        command.env(variable.0, variable.1).stdout(Stdio::null());
        Process::start(&mut command)
    }

    pub(crate) fn id(&self) -> i32 {
        Pid::from_child(&self.child).as_raw_nonzero().get()
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("it runs");
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let id = Pid::from_child(&self.child);
        rustix::process::kill_process(id, signal).expect("it runs");
    }

    /// Stops it, and waits until its last thread has stopped.
    pub(crate) fn stop(&self) {
        self.signal(Signal::STOP);
        let is_stopped = |task: fs::DirEntry| {
            let stat = fs::read_to_string(task.path().join("stat")).unwrap_or_default();
            stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'))
        };
        until("the stop of every thread", || {
            let tasks = fs::read_dir(format!("/proc/{}/task", self.child.id())).expect("it runs");
            tasks.filter_map(Result::ok).all(is_stopped)
        });
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("a child").is_none()
    }

    /// Waits for its end.
    pub(crate) fn end(&mut self) -> ExitStatus {
        let mut status = None;
        until("the end of a child", || {
            status = self.child.try_wait().expect("a child");
            status.is_some()
        });
        status.expect("just ended")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _killed = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// A view that is mounted.
pub(crate) struct Stage {
    pub(crate) mounted: Mounted,
    pub(crate) view: Arc<TestView>,
    pub(crate) scratch: Scratch,
}

impl Stage {
    pub(crate) fn new(tree: Tree) -> Stage {
        Stage::with(tree, Duration::from_secs(30), |_| {})
    }

    /// Without some of what the kernel does for us.
    pub(crate) fn without(tree: Tree, features: &[Feature]) -> Stage {
        let left = features.iter().fold(KernelFeatures::all(), |set, &out| set.without(out));
        Stage::with(tree, Duration::from_secs(30), |settings| settings.features = left)
    }

    pub(crate) fn with(
        tree: Tree,
        deadline: Duration,
        change: impl FnOnce(&mut Settings),
    ) -> Stage {
        let scratch = Scratch::new();
        let mut settings = Settings::new(scratch.join("mnt"));
        change(&mut settings);
        let pending = Pending::new(deadline);
        let view = TestView::start(tree, Arc::clone(&pending));
        let mounted = Mounted::start(Arc::clone(&view), pending, &settings);
        Stage { mounted: mounted.expect("mounted"), view, scratch }
    }

    /// Changes the mount's options, if this user may. It also makes the kernel give back what it
    /// keeps of names that nobody uses (reconfigure_super in fs/super.c).
    pub(crate) fn remount(&self, how: &str) -> bool {
        if !rustix::process::geteuid().is_root() {
            untested("not root: nothing can be mounted again");
            return false;
        }
        let mut command = Command::new("mount");
        command.args(["-i", "-o", &format!("remount,{how}")]).arg(self.mounted.point());
        assert!(command.status().expect("mount runs").success());
        true
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.mounted.point().join(name)
    }
}

/// Whether a copper view is seen somewhere.
pub(crate) fn is_mounted(point: &Path) -> bool {
    let table = MountTable::read().expect("/proc is mounted");
    table.at(point).is_some_and(|mount| mount.is_copper())
}

/// Says what the circumstances leave untested.
#[allow(clippy::print_stderr)]
pub(crate) fn untested(why: &str) {
    eprintln!("{why}");
}
