//! What of the file system may be shown: nothing outside of the allowed roots but the way to them,
//! and never a copper view, which would show itself.
//!
//! A view is known by its path first, so that nobody touches it: a rank's own mount points are known
//! before they are mounted, others from the mount table, which is read again when it has changed.
//! Then by its device, in case a bind mount shows it elsewhere.

use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::{Mutex, PoisonError, RwLock};

use copper_fuse::mount_table::{DeviceId, MountTable};
use copper_proto::{Errno, ViewPath};
use rustix::event::{PollFd, PollFlags, Timespec};

use super::SourceSettings;

/// What may be done with a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Passage {
    /// All.
    Open,
    /// It is a directory on the way to an allowed root: its attributes, and of its entries those
    /// that lead on.
    Way,
    /// It is a view: an empty directory is shown in its place.
    View,
}

#[derive(Debug, Default)]
struct Views {
    paths: HashSet<ViewPath>,
    devices: HashSet<DeviceId>,
}

#[derive(Debug)]
pub(super) struct Boundary {
    roots: Vec<ViewPath>,
    own: Vec<ViewPath>,
    views: RwLock<Views>,
    /// Becomes readable for `POLLPRI` when a mount has come or gone since it was asked last.
    mounts: Mutex<File>,
}

impl Boundary {
    /// # Errors
    /// If the mount table cannot be read.
    pub(super) fn new(settings: SourceSettings) -> io::Result<Boundary> {
        let mounts = File::open("/proc/self/mountinfo")?;
        let boundary = Boundary {
            roots: settings.roots.iter().filter_map(|root| view_path(root)).collect(),
            own: settings.hidden.iter().filter_map(|point| view_path(point)).collect(),
            views: RwLock::new(Views::default()),
            mounts: Mutex::new(mounts),
        };
        boundary.read_mounts()?;
        Ok(boundary)
    }

    /// Whether a path may be looked at.
    ///
    /// # Errors
    /// `EACCES` outside of the allowed roots; `ENOENT` below a view.
    pub(super) fn check(&self, path: &ViewPath) -> Result<Passage, Errno> {
        self.refresh();
        let mut ancestor = Some(path.clone());
        while let Some(at) = ancestor {
            if self.is_view(&at) {
                return if at == *path { Ok(Passage::View) } else { Err(Errno::ENOENT) };
            }
            ancestor = at.split().map(|(parent, _)| parent);
        }
        if self.roots.iter().any(|root| path.is_within(root)) {
            Ok(Passage::Open)
        } else if self.roots.iter().any(|root| root.is_within(path)) {
            Ok(Passage::Way)
        } else {
            Err(Errno::EACCES)
        }
    }

    /// Whether files of this device are a view's.
    pub(super) fn is_view_device(&self, device: u64) -> bool {
        let views = self.views.read().unwrap_or_else(PoisonError::into_inner);
        views.devices.contains(&DeviceId::from_stat(device))
    }

    fn is_view(&self, path: &ViewPath) -> bool {
        let views = self.views.read().unwrap_or_else(PoisonError::into_inner);
        self.own.contains(path) || views.paths.contains(path)
    }

    fn refresh(&self) {
        // Whoever finds the lock taken is served by whoever holds it, or by the next call.
        let Ok(mounts) = self.mounts.try_lock() else { return };
        let mut poll = [PollFd::new(&*mounts, PollFlags::PRI)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        let changed = rustix::event::poll(&mut poll, Some(&now)).is_ok_and(|ready| ready > 0);
        if changed && let Err(error) = self.read_mounts() {
            tracing::warn!(%error, "the mount table cannot be read: new views are not hidden");
        }
    }

    fn read_mounts(&self) -> io::Result<()> {
        let table = MountTable::read()?;
        let mut views = Views::default();
        for mount in table.copper() {
            views.paths.extend(view_path(&mount.point));
            views.devices.insert(mount.device);
        }
        *self.views.write().unwrap_or_else(PoisonError::into_inner) = views;
        Ok(())
    }
}

/// The path below `/`, if it is absolute and has no `..`.
fn view_path(path: &Path) -> Option<ViewPath> {
    let bytes = path.as_os_str().as_bytes().strip_prefix(b"/")?;
    let components = bytes.split(|&byte| byte == b'/').filter(|component| !component.is_empty());
    ViewPath::parse(&components.collect::<Vec<_>>().join(&b'/'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    fn boundary(roots: &[&str], hidden: &[&str]) -> Boundary {
        let paths = |list: &[&str]| list.iter().map(PathBuf::from).collect();
        Boundary::new(SourceSettings { roots: paths(roots), hidden: paths(hidden) })
            .expect("there is a mount table")
    }

    fn path(text: &str) -> ViewPath {
        ViewPath::parse(text.as_bytes()).expect("well-formed")
    }

    #[test]
    fn a_view_is_hidden_by_its_components() {
        let boundary = boundary(&["/"], &["/tmp/u/copper/"]);
        assert_eq!(boundary.check(&path("tmp/u/copper")), Ok(Passage::View));
        assert_eq!(boundary.check(&path("tmp/u/copper/usr")), Err(Errno::ENOENT));
        assert_eq!(boundary.check(&path("tmp/u/copper_data")), Ok(Passage::Open));
        assert_eq!(boundary.check(&path("tmp/u")), Ok(Passage::Open));
        assert_eq!(boundary.check(&ViewPath::root()), Ok(Passage::Open));
    }

    #[test]
    fn only_the_allowed_roots_and_the_way_to_them_are_shown() {
        let boundary = boundary(&["/opt/env", "/data"], &[]);
        assert_eq!(boundary.check(&path("opt/env/lib/x.py")), Ok(Passage::Open));
        assert_eq!(boundary.check(&path("opt")), Ok(Passage::Way));
        assert_eq!(boundary.check(&ViewPath::root()), Ok(Passage::Way));
        assert_eq!(boundary.check(&path("opt/environment")), Err(Errno::EACCES));
        assert_eq!(boundary.check(&path("etc/shadow")), Err(Errno::EACCES));
    }
}
