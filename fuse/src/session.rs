//! The life of one mount.
//!
//! ```text
//!   start: prepare ─▶ mount ─▶ handshake ─▶ serving
//!   serving ─ unmount() ───────────────▶ unmounted, requests answered ─▶ threads joined ─▶ ended
//!   serving ─ unmounted from outside ──▶ threads end ─▶ ended
//! ```
//!
//! fuser's own mounting and unmounting is not used: it unmounts twice after an unmount from
//! outside, and leaves a dead mount when the mount is busy.
//!
//! Memory: fuser gives each of its threads a read buffer of 16 MiB, of which a request touches one
//! page: it is address space, not memory (unless the process locks its memory or asks for huge
//! pages everywhere).

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use copper_engine::{Stale, View};
use fuser::{Config, Session, SessionACL};
use tracing::{error, info, warn};

use crate::backings::Backings;
use crate::connection::{CONNECTIONS, Connection};
use crate::controls::Controls;
use crate::counters::{CounterValues, Counters};
use crate::frontend::{Context, Frontend};
use crate::hot_paths::HotPaths;
use crate::invalidations::{Invalidations, invalidations};
use crate::kernel::{KernelFeatures, Negotiated};
use crate::listers::listers;
use crate::mount::{MountError, MountOptions, UnmountError, Unmounted, mount, unmount};
use crate::mount_point::{MountPointError, prepare, remove_created};
use crate::mount_table::{DeviceId, MountId};
use crate::operations::Operations;
use crate::passthrough::{Passthrough, PassthroughBounds, Refusal};
use crate::pending::Pending;
use crate::stores::stores;
use crate::watchdog;

/// Threads that take requests. A request that the node can answer takes microseconds, and the
/// others wait at the engine: a few threads serve all of a node's processes.
const THREADS: usize = 4;

/// How long unmounting waits for the threads before it ends the connection. They end as soon as
/// the last process has left the mount.
const JOIN_BOUND: Duration = Duration::from_secs(2);

/// How to mount and serve.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where: created if it is missing.
    pub mount_point: PathBuf,
    /// How.
    pub options: MountOptions,
    /// What the kernel may do for us.
    pub features: KernelFeatures,
    /// The largest read-ahead in bytes; the kernel's default (128 KiB) if `None`, and at most.
    pub readahead_bytes: Option<u32>,
    /// Whether files that are opened are handed to the kernel, if it can be, and what that may cost.
    pub passthrough: Option<PassthroughBounds>,
    /// Threads that take requests; at least 1.
    pub threads: usize,
    /// How long [`Mounted::unmount`] waits for the mount's users to leave.
    pub join_bound: Duration,
    /// Where what becomes of each call is counted.
    pub operations: Arc<Operations>,
    /// Where it is counted what paths are asked for, if anywhere.
    pub paths: Option<Arc<HotPaths>>,
    /// What ioctls ask of the daemon, if they may ask for anything.
    pub controls: Option<Arc<dyn Controls>>,
    /// Where `fusectl` is mounted.
    pub connections: PathBuf,
}

impl Settings {
    /// The defaults, for a mount point.
    pub fn new(mount_point: impl Into<PathBuf>) -> Settings {
        Settings {
            mount_point: mount_point.into(),
            options: MountOptions::default(),
            features: KernelFeatures::all(),
            readahead_bytes: None,
            passthrough: None,
            threads: THREADS,
            join_bound: JOIN_BOUND,
            operations: Arc::default(),
            paths: None,
            controls: None,
            connections: PathBuf::from(CONNECTIONS),
        }
    }
}

/// Why a mount could not be started. Nothing is left mounted.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The mount point cannot be used.
    #[error(transparent)]
    MountPoint(#[from] MountPointError),
    /// It could not be mounted.
    #[error(transparent)]
    Mount(#[from] MountError),
    /// The kernel and we did not agree.
    #[error("the FUSE handshake with the kernel failed")]
    Handshake(#[source] io::Error),
    /// No thread could be had.
    #[error("no thread could be started for the mount: is the limit of processes reached?")]
    Thread(#[source] io::Error),
}

/// How a mount ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionEnd {
    /// The threads have ended: nobody uses the mount any more.
    Joined,
    /// Somebody used it to the last; the connection was aborted.
    Aborted,
    /// Somebody still uses it, and the connection could not be aborted: it ends with the process.
    Left,
}

/// Called once when the mount ends.
type OnEnd = Box<dyn FnOnce() + Send>;

/// A view that is mounted and served. Dropping it unmounts.
#[derive(Debug)]
pub struct Mounted {
    point: PathBuf,
    id: MountId,
    created: Vec<PathBuf>,
    recovered: bool,
    counters: Arc<Counters>,
    operations: Arc<Operations>,
    negotiated: Arc<OnceLock<Negotiated>>,
    /// Why files are not handed to the kernel any more.
    denied: Arc<OnceLock<Refusal>>,
    invalidations: OnceLock<Invalidations>,
    connection: Connection,
    join_bound: Duration,
    end: Arc<End>,
    close: Close,
    /// Whether [`Mounted::unmount`] was called; held while it runs.
    unmounted: Mutex<Option<(Unmounted, SessionEnd)>>,
}

/// Closes the tables of waiting replies, whatever bytes they carry.
struct Close(Box<dyn Fn() + Send + Sync>);

impl std::fmt::Debug for Close {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Close")
    }
}

impl Mounted {
    /// Prepares the mount point, mounts, and serves the view until the end.
    ///
    /// # Errors
    /// One line that says what to do; nothing is left mounted or created.
    pub fn start<V: View>(
        view: Arc<V>,
        pending: Arc<Pending<V::Bytes>>,
        settings: &Settings,
    ) -> Result<Mounted, SessionError> {
        let prepared = prepare(&settings.mount_point)?;
        let mounted = mount(&prepared.point, &settings.options);
        let (descriptor, id) = match mounted {
            Ok(mounted) => mounted,
            Err(error) => {
                remove_created(&prepared.created);
                return Err(error.into());
            }
        };
        // From here on dropping this unmounts and removes what was created.
        let denied = Arc::default();
        let bounds = settings.passthrough.unwrap_or(PassthroughBounds::of(0));
        let backings = Backings::new(bounds, Arc::clone(pending.counters()), Arc::clone(&denied));
        let closing = (Arc::clone(&pending), Arc::clone(&backings));
        let mounted = Mounted {
            connection: Connection::of(id.device, &settings.connections),
            point: prepared.point,
            id,
            created: prepared.created,
            recovered: prepared.recovered,
            counters: Arc::clone(pending.counters()),
            operations: Arc::clone(&settings.operations),
            negotiated: Arc::new(OnceLock::new()),
            denied,
            invalidations: OnceLock::new(),
            join_bound: settings.join_bound,
            end: Arc::new(End::default()),
            close: Close(Box::new(move || {
                closing.0.close();
                closing.1.close();
            })),
            unmounted: Mutex::new(None),
        };
        match mounted.serve(view, pending, backings, settings, descriptor) {
            Ok(()) => {
                info!(mount = %mounted.point.display(), id = %mounted.id, "mounted");
                match mounted.passthrough() {
                    Passthrough::NotAsked => {}
                    Passthrough::On => info!("files that are opened are handed to the kernel"),
                    Passthrough::Off(reason) => {
                        warn!(%reason, "files are not handed to the kernel, and opened plainly");
                    }
                }
                Ok(mounted)
            }
            Err(error) => {
                mounted.end.set();
                Err(error)
            }
        }
    }

    fn serve<V: View>(
        &self,
        view: Arc<V>,
        pending: Arc<Pending<V::Bytes>>,
        backings: Arc<Backings<V::Bytes>>,
        settings: &Settings,
        descriptor: OwnedFd,
    ) -> Result<(), SessionError> {
        let weak = Arc::downgrade(&view);
        pending.on_late_reference(move |inode| {
            if let Some(view) = weak.upgrade() {
                view.forget(inode, 1);
            }
        });
        let (stores, storing) = stores();
        let (listers, watching) = listers();
        let frontend = Frontend::new(Context {
            view,
            stores,
            listers,
            backings: Arc::clone(&backings),
            pending: Arc::clone(&pending),
            counters: Arc::clone(&self.counters),
            operations: Arc::clone(&self.operations),
            paths: settings.paths.clone(),
            controls: settings.controls.clone(),
            device: descriptor.try_clone().map_err(SessionError::Handshake)?,
            asked: settings.features,
            // For oneself the source checks as this user, who is never shown what an ACL denies him;
            // what an ACL alone grants is not seen (docs/SEMANTICS.md).
            access_lists: settings.options.allow_other,
            readahead_bytes: settings.readahead_bytes,
            passthrough: settings.passthrough,
            negotiated: Arc::clone(&self.negotiated),
            policy: OnceLock::new(),
        });
        let mut config = Config::default();
        config.n_threads = Some(settings.threads.max(1));
        // Not clone_fd: a reply has to go out through the descriptor that its request came from,
        // and `listing_plus` writes to this one.
        config.clone_fd = false;
        // Who may enter is the kernel's to check, by the option allow_other.
        let session = Session::from_fd(frontend, descriptor, SessionACL::All, config)
            .map_err(SessionError::Handshake)?;
        storing
            .start(session.notifier(), Arc::clone(&self.counters))
            .map_err(SessionError::Thread)?;
        let (told, telling) = invalidations();
        telling
            .start(session.notifier(), Arc::clone(&self.counters))
            .map_err(SessionError::Thread)?;
        let _first = self.invalidations.set(told);
        if self.negotiated().passthrough == Passthrough::On {
            backings.start().map_err(SessionError::Thread)?;
        }
        watching.start(Arc::clone(&pending)).map_err(SessionError::Thread)?;
        watchdog::start(Arc::clone(&pending)).map_err(SessionError::Thread)?;
        let end = Arc::clone(&self.end);
        let point = self.point.clone();
        let serve = move || {
            if let Err(cause) = session.run() {
                error!(mount = %point.display(), error = %cause, "a FUSE thread failed");
            }
            pending.close();
            backings.close();
            end.set();
        };
        thread::Builder::new()
            .name("fuse-session".to_owned())
            .spawn(serve)
            .map_err(SessionError::Thread)?;
        Ok(())
    }

    /// Where the view is mounted: absolute, without links, as the mount table shows it.
    pub fn point(&self) -> &Path {
        &self.point
    }

    /// Which mount it is: what [`Guardian::arm`](crate::Guardian::arm) wants.
    pub fn id(&self) -> &MountId {
        &self.id
    }

    /// The device of everything in the view.
    pub fn device(&self) -> DeviceId {
        self.id.device
    }

    /// The directories that were created for the mount point, outermost first. They are removed
    /// after unmounting, but for those that are not empty then.
    pub fn created(&self) -> &[PathBuf] {
        &self.created
    }

    /// Whether the dead mount of an earlier daemon was removed from the mount point.
    pub fn recovered(&self) -> bool {
        self.recovered
    }

    /// What the kernel does for us.
    pub fn negotiated(&self) -> &Negotiated {
        self.negotiated.get().expect("the handshake is part of starting")
    }

    /// Whether files are handed to the kernel: as agreed, unless it has refused since.
    pub fn passthrough(&self) -> Passthrough {
        self.denied.get().map_or(self.negotiated().passthrough, |&why| Passthrough::Off(why))
    }

    /// Has the kernel forget what is stale, in this order, from a thread that answers no requests;
    /// then `done` is called, unless the mount ends before.
    pub fn invalidate(&self, stale: Vec<Stale>, done: impl FnOnce() + Send + 'static) {
        if let Some(invalidations) = self.invalidations.get() {
            invalidations.tell(stale, Box::new(done));
        }
    }

    /// The counters as they are now.
    pub fn counters(&self) -> CounterValues {
        self.counters.snapshot()
    }

    /// Whether the mount has ended: by [`Mounted::unmount`], or because somebody else unmounted it.
    pub fn ended(&self) -> bool {
        self.end.state().ended
    }

    /// Waits for the end, at most this long; gives whether it came.
    pub fn wait(&self, bound: Duration) -> bool {
        self.end.wait(bound)
    }

    /// Has this called when the mount ends, from the thread that notices it; at once if it has
    /// ended. Several may be registered.
    pub fn on_end(&self, call: impl FnOnce() + Send + 'static) {
        self.end.call(Box::new(call));
    }

    /// Unmounts if our mount is still there, plainly or, when it is in use, lazily; answers every
    /// waiting request; waits a bounded time for the threads, and then ends the connection. Calling
    /// it again gives the first result.
    ///
    /// # Errors
    /// If the mount is still there. Every request is answered EIO then.
    pub fn unmount(&self) -> Result<(Unmounted, SessionEnd), UnmountError> {
        let mut unmounted = self.unmounted.lock().expect("held by this function only");
        if let Some(result) = *unmounted {
            return Ok(result);
        }
        let how = unmount(&self.point, &self.id);
        (self.close.0)();
        let how = how?;
        let end = self.join();
        remove_created(&self.created);
        info!(mount = %self.point.display(), ?how, ?end, "unmounted");
        *unmounted = Some((how, end));
        Ok((how, end))
    }

    fn join(&self) -> SessionEnd {
        if self.end.wait(self.join_bound) {
            return SessionEnd::Joined;
        }
        match self.connection.abort() {
            Ok(()) if self.end.wait(self.join_bound) => SessionEnd::Aborted,
            Ok(()) => SessionEnd::Left,
            Err(cause) => {
                warn!(mount = %self.point.display(), error = %cause, "connection not aborted");
                SessionEnd::Left
            }
        }
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if let Err(cause) = self.unmount() {
            error!(mount = %self.point.display(), error = %cause, "not unmounted");
        }
    }
}

/// Whether the threads have ended, and who wants to know.
#[derive(Default)]
struct End {
    state: Mutex<EndState>,
    changed: Condvar,
}

#[derive(Default)]
struct EndState {
    ended: bool,
    calls: Vec<OnEnd>,
}

impl std::fmt::Debug for End {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("End").field("ended", &self.state().ended).finish_non_exhaustive()
    }
}

impl End {
    fn state(&self) -> MutexGuard<'_, EndState> {
        self.state.lock().expect("no code of others runs under the lock")
    }

    fn set(&self) {
        let calls = {
            let mut state = self.state();
            state.ended = true;
            std::mem::take(&mut state.calls)
        };
        self.changed.notify_all();
        calls.into_iter().for_each(|call| call());
    }

    fn call(&self, call: OnEnd) {
        let mut state = self.state();
        if state.ended {
            drop(state);
            call();
        } else {
            state.calls.push(call);
        }
    }

    fn wait(&self, bound: Duration) -> bool {
        let until = Instant::now() + bound;
        let mut state = self.state();
        while !state.ended {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let waited = self.changed.wait_timeout(state, left);
            state = waited.expect("no code of others runs under the lock").0;
        }
        true
    }
}
