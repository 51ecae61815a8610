//! What joins the three parts of a refresh at one rank: the rendezvous, from where it comes and
//! where its end is told, the engine, which drops, and the mount, whose kernel has to forget.

use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use copper_engine::ports::{Control, Refreshed};
use copper_engine::{Forgetting, Queue, Stale};
use copper_fuse::Mounted;
use copper_launcher::{RefreshReply, RefreshResult, Rendezvous};
use copper_proto::{Dropped, Epoch, Scope, ViewPath};

/// The refreshes of one rank.
#[derive(Debug, Default)]
pub(crate) struct Refreshing {
    /// Those that the engine has been told of, in order. Bounded as they are.
    begun: Mutex<Vec<(Epoch, RefreshReply)>>,
    /// The last that has ended here.
    last: Mutex<(Epoch, Dropped)>,
    mounted: OnceLock<Weak<Mounted>>,
}

impl Refreshing {
    /// Has the kernel of this mount told from now on.
    pub(super) fn set_mounted(&self, mounted: &Arc<Mounted>) {
        let _first = self.mounted.set(Arc::downgrade(mounted));
    }

    /// The last refresh that has ended at this rank, and what it has dropped here.
    pub(super) fn last(&self) -> (Epoch, Dropped) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A refresh has come: on to the engine.
    pub(super) fn begin(
        &self,
        epoch: Epoch,
        scope: Scope,
        reply: RefreshReply,
        control: &SyncSender<Control>,
        queue: &Queue,
    ) {
        self.begun.lock().unwrap_or_else(PoisonError::into_inner).push((epoch, reply));
        // If the engine is gone, so is this rank.
        if control.send(Control::Refresh { epoch, scope }).is_ok() {
            queue.wake();
        }
    }

    /// There are too many names: on to the kernel.
    pub(super) fn forget(&self, stale: Vec<Stale>, forgetting: Forgetting) {
        if let Some(mounted) = self.mounted.get().and_then(Weak::upgrade) {
            mounted.invalidate(stale, move || drop(forgetting));
        }
    }

    /// It has taken effect in the engine, on whose thread this is called: on to the kernel.
    pub(super) fn dropped(self: &Arc<Self>, refreshed: Refreshed) {
        let Refreshed { epoch, dropped, stale } = refreshed;
        let mut begun = self.begun.lock().unwrap_or_else(PoisonError::into_inner);
        // None of one that a child has brought to light: nobody waits for it here.
        let at = begun.iter().position(|(of, _)| *of == epoch);
        let reply = at.map(|at| begun.remove(at).1);
        drop(begun);
        if let Some(reply) = &reply {
            reply.dropped();
        }
        let own = Arc::clone(self);
        let done = move || {
            let mut last = own.last.lock().unwrap_or_else(PoisonError::into_inner);
            if last.0 <= epoch {
                *last = (epoch, dropped);
            }
            drop(last);
            if let Some(reply) = reply {
                reply.done(dropped);
            }
        };
        match self.mounted.get().map(Weak::upgrade) {
            // Nothing is mounted yet.
            None => done(),
            Some(Some(mounted)) => mounted.invalidate(stale, done),
            // The rank is ending: it is missing.
            Some(None) => {}
        }
    }
}

/// Has the whole job look at a path anew, if this job's views show it.
///
/// # Errors
/// Why not.
pub(super) fn refresh(
    rendezvous: &Weak<Rendezvous>,
    roots: &[PathBuf],
    path: ViewPath,
) -> Result<RefreshResult, String> {
    let shown = roots.iter().any(|root| {
        let bytes = root.as_os_str().as_bytes();
        let root = ViewPath::parse(bytes.strip_prefix(b"/").unwrap_or(bytes));
        root.is_some_and(|root| path.is_within(&root) || root.is_within(&path))
    });
    if !roots.is_empty() && !shown {
        return Err(format!("{path} is outside of the folders that the views show (--root)"));
    }
    let ending = || "this rank is ending".to_owned();
    Ok(rendezvous.upgrade().ok_or_else(ending)?.refresh(path))
}
