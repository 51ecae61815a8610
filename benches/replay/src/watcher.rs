//! Looks at each process of a recording while strace holds it at its exit.
//!
//! strace writes the line of an exit once the hold is over. So a thread of its own asks the kernel,
//! every few milliseconds, which call each thread is held in.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::pages::{Region, look};
use crate::strace::Pid;

/// A small part of the hold.
const INTERVAL: Duration = Duration::from_millis(10);

/// The call's number: asm/unistd.h.
#[cfg(target_arch = "x86_64")]
const EXIT_GROUP: &str = "231";
#[cfg(target_arch = "aarch64")]
const EXIT_GROUP: &str = "94";

/// The thread that watches; it ends with this.
#[derive(Debug)]
pub(crate) struct Watcher {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    watched: Mutex<Watched>,
    over: Condvar,
}

#[derive(Debug, Default)]
struct Watched {
    threads: BTreeSet<Pid>,
    seen: HashMap<Pid, io::Result<Vec<Region>>>,
    over: bool,
}

impl Watcher {
    pub(crate) fn start() -> Self {
        let shared = Arc::new(Shared::default());
        let theirs = Arc::clone(&shared);
        Self { shared, thread: Some(std::thread::spawn(move || theirs.watch())) }
    }

    /// Which threads there are now.
    pub(crate) fn set_threads(&self, threads: BTreeSet<Pid>) {
        self.shared.lock().threads = threads;
    }

    /// What was seen at the exit of a thread's process; nothing if it was not held long enough.
    pub(crate) fn take(&self, thread: Pid) -> Option<io::Result<Vec<Region>>> {
        let mut watched = self.shared.lock();
        watched.threads.remove(&thread);
        watched.seen.remove(&thread)
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.shared.lock().over = true;
        self.shared.over.notify_one();
        let thread = self.thread.take().expect("only this takes it");
        thread.join().expect("watching does not panic");
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Watched> {
        self.watched.lock().expect("nobody panics while holding it")
    }

    fn watch(&self) {
        let mut watched = self.lock();
        while !watched.over {
            // Once each: a second look may come too late.
            let new = |thread: &&Pid| !watched.seen.contains_key(thread);
            let threads: Vec<_> = watched.threads.iter().filter(new).copied().collect();
            drop(watched);
            for thread in threads.into_iter().filter(|thread| is_exiting(*thread)) {
                let regions = look(thread);
                self.lock().seen.insert(thread, regions);
            }
            let waited = self.over.wait_timeout(self.lock(), INTERVAL);
            (watched, _) = waited.expect("nobody panics while holding it");
        }
    }
}

/// Whether a thread is held at the beginning of exit_group; `/proc/PID/syscall` has the number first.
fn is_exiting(thread: Pid) -> bool {
    let call = std::fs::read_to_string(format!("/proc/{thread}/syscall"));
    call.is_ok_and(|call| call.split(' ').next() == Some(EXIT_GROUP))
}
