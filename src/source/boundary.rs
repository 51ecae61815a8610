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
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno as Failure;

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
    /// Not everything may be shown, so that where a path leads has to be looked at.
    is_restricted: bool,
    views: RwLock<Views>,
    /// Becomes readable for `POLLPRI` when a mount has come or gone since it was asked last.
    mounts: Mutex<File>,
}

impl Boundary {
    /// # Errors
    /// If the mount table cannot be read.
    pub(super) fn new(settings: SourceSettings) -> io::Result<Boundary> {
        let mounts = File::open("/proc/self/mountinfo")?;
        let is_restricted = settings.is_restricted
            || !settings.roots.iter().any(|root| root.as_os_str().as_bytes() == b"/");
        let boundary = Boundary {
            is_restricted,
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
            if self.is_restricted && leads_elsewhere(path) {
                return Err(Errno::EACCES);
            }
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

/// Whether there is a symbolic link on the way to a path. A view's kernel follows links by itself and
/// asks for what they lead to; only who wants to get around the boundary asks through one.
fn leads_elsewhere(path: &ViewPath) -> bool {
    let Some((parent, _)) = path.split() else { return false };
    let mut absolute = b"/".to_vec();
    absolute.extend_from_slice(parent.as_bytes());
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let opened = openat2(CWD, absolute, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS);
    // Where the kernel cannot say, nothing is shown.
    matches!(opened, Err(Failure::LOOP | Failure::NOSYS | Failure::PERM))
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
        let is_restricted = false;
        Boundary::new(SourceSettings { roots: paths(roots), hidden: paths(hidden), is_restricted })
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

    #[test]
    fn a_link_out_of_the_allowed_roots_is_no_way_around_them() {
        let base = std::env::temp_dir().join(format!("copper-boundary-{}", std::process::id()));
        let (shown, secret) = (base.join("shown"), base.join("secret"));
        for folder in [&shown, &secret] {
            std::fs::create_dir_all(folder).expect("a folder");
        }
        std::os::unix::fs::symlink(&secret, shown.join("link")).expect("a link");
        let text = |path: &Path| path.to_str().expect("text").to_owned();
        let below = |name: &str| path(&text(&shown.join(name))[1..]);
        let only = boundary(&[&text(&shown)], &[]);
        assert_eq!(only.check(&below("link")), Ok(Passage::Open), "the link itself");
        assert_eq!(only.check(&below("link/file")), Err(Errno::EACCES));
        assert_eq!(only.check(&below("file")), Ok(Passage::Open));
        let all = boundary(&["/"], &[]);
        assert_eq!(all.check(&below("link/file")), Ok(Passage::Open), "nothing to get around");
        std::fs::remove_dir_all(base).expect("it is ours");
    }
}
