//! The directory that a view is mounted on: what may be there before, and what is left after.
//!
//! User data is never hidden and never removed: a directory with something in it is refused, and
//! cleaning up is `rmdir` of what was created, nothing else.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use rustix::fs::{Access, AtFlags, CWD, StatxFlags, statx};
use rustix::io::Errno;

use crate::mount::{UnmountError, Unmounted, unmount, unmount_lazily};
use crate::mount_table::{Mount, MountId, MountTable};

/// How long a FUSE mount in the way may take to answer a `stat`. A live daemon answers in
/// microseconds; a stopped one never.
const PROBE_BOUND: Duration = Duration::from_secs(2);

/// A mount point that can be mounted on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prepared {
    /// The mount point as the mount table will show it: absolute, without links.
    pub point: PathBuf,
    /// The directories that did not exist before, outermost first; to be given to
    /// [`remove_created`].
    pub created: Vec<PathBuf>,
    /// Whether the dead mount of an earlier daemon was removed from here.
    pub recovered: bool,
}

/// Why a mount point cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum MountPointError {
    /// It is something else than a directory.
    #[error("the mount point {} is not a directory: choose a new or an empty one", .0.display())]
    NotADirectory(PathBuf),
    /// It has entries, which the view would hide.
    #[error("the mount point {} is not empty: choose a new or an empty directory", .0.display())]
    NotEmpty(PathBuf),
    /// A copper view is mounted there, and its daemon answers.
    #[error("a copper view is already mounted on {}: {id}; stop it, or choose another directory",
        point.display())]
    Busy {
        /// Where.
        point: PathBuf,
        /// Which view.
        id: MountId,
    },
    /// A FUSE file system is mounted there, and its daemon neither answers nor is dead.
    #[error("what is mounted on {} ({kind}) does not answer: end its daemon, then fusermount3 -u \
             -z {}", point.display(), point.display())]
    Stuck {
        /// Where.
        point: PathBuf,
        /// The type.
        kind: String,
    },
    /// Something else is mounted there.
    #[error("a file system of type {kind} is mounted on {}: choose another directory",
        point.display())]
    Foreign {
        /// Where.
        point: PathBuf,
        /// The type.
        kind: String,
    },
    /// The user may not mount there.
    #[error("the mount point {} is not a directory that you own and may write: fusermount3 would \
             refuse it; choose one of your own", .0.display())]
    NotYours(PathBuf),
    /// It could not be created.
    #[error("the mount point {} could not be created", point.display())]
    Create {
        /// What.
        point: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It could not be looked at.
    #[error("the mount point {} could not be examined", point.display())]
    Examine {
        /// What.
        point: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A dead mount is in the way and could not be removed.
    #[error(transparent)]
    Unmount(#[from] UnmountError),
}

/// How the mount that is seen somewhere answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pulse {
    /// Its daemon answers, or keeps others out.
    Alive,
    /// Its daemon is gone (`ENOTCONN`).
    Dead,
    /// No answer in time.
    Silent,
}

/// Makes a directory ready to be mounted on: creates it if it is missing, and removes the dead
/// mount of an earlier daemon.
///
/// # Errors
/// One line that says what to do; nothing was changed then, or what was created is removed again.
pub fn prepare(path: &Path) -> Result<Prepared, MountPointError> {
    let examine = |source: io::Error| MountPointError::Examine { point: path.to_owned(), source };
    let mut created = Vec::new();
    create_missing(path, &mut created).map_err(|source| {
        remove_created(&created);
        match source.kind() {
            io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => {
                MountPointError::NotADirectory(path.to_owned())
            }
            _ => MountPointError::Create { point: path.to_owned(), source },
        }
    })?;
    let point = resolve(path).map_err(examine)?;
    let mut recovered = false;
    while let Some(mount) = MountTable::read().map_err(examine)?.at(&point) {
        remove_if_dead(mount)?;
        recovered = true;
    }
    let result = require_usable(&point);
    if result.is_err() {
        remove_created(&created);
    }
    result.map(|()| Prepared { point, created, recovered })
}

/// The path as the mount table writes it, without asking the file system that is mounted there.
///
/// # Errors
/// If the path's parent does not exist.
pub fn resolve(path: &Path) -> io::Result<PathBuf> {
    let Some(name) = path.file_name() else { return fs::canonicalize(path) };
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let point = fs::canonicalize(parent)?.join(name);
    if MountTable::read()?.at(&point).is_some() {
        return Ok(point);
    }
    match fs::read_link(&point) {
        // A link's target can be a dead mount, so it is taken apart in the same way.
        Ok(target) => resolve(&point.parent().unwrap_or(Path::new("/")).join(target)),
        Err(_) => Ok(point),
    }
}

/// Whether the daemon behind a mount answers. A plain `stat` does not tell: the kernel answers it
/// from what it keeps, long after the daemon's death; so the daemon is asked by force. Bounded: from
/// a thread of its own, since nobody can call back a `stat` that hangs.
pub fn pulse(mount: &Mount) -> Pulse {
    if !mount.is_fuse() {
        return Pulse::Alive;
    }
    let (sender, receiver) = mpsc::sync_channel(1);
    let point = mount.point.clone();
    let probe = thread::Builder::new().name("fuse-probe".to_owned()).spawn(move || {
        // The receiver may have given up.
        let stat = statx(CWD, &point, AtFlags::STATX_FORCE_SYNC, StatxFlags::BASIC_STATS);
        let _sent = sender.send(stat.err());
    });
    if probe.is_err() {
        return Pulse::Silent;
    }
    match receiver.recv_timeout(PROBE_BOUND) {
        Ok(Some(Errno::NOTCONN)) => Pulse::Dead,
        Ok(_) => Pulse::Alive,
        Err(_) => Pulse::Silent,
    }
}

/// Removes a copper view whose daemon is gone.
///
/// # Errors
/// If it is still there afterwards.
pub fn unmount_dead(point: &Path) -> Result<Unmounted, UnmountError> {
    let table = MountTable::read().map_err(UnmountError::Table)?;
    match table.at(point) {
        Some(mount) if mount.is_copper() && pulse(mount) == Pulse::Dead => {
            unmount_lazily(point, &mount.id())
        }
        _ => Ok(Unmounted::Gone),
    }
}

/// Removes a copper view, alive or not: for a daemon that was told to stop and did not.
///
/// # Errors
/// If it is still there afterwards.
pub fn unmount_any_copper(point: &Path) -> Result<Unmounted, UnmountError> {
    let table = MountTable::read().map_err(UnmountError::Table)?;
    match table.at(point) {
        Some(mount) if mount.is_copper() => unmount(point, &mount.id()),
        _ => Ok(Unmounted::Gone),
    }
}

/// Removes the directories that [`prepare`] created, innermost first, up to the first that is not
/// empty or not there.
pub fn remove_created(created: &[PathBuf]) {
    for directory in created.iter().rev() {
        if fs::remove_dir(directory).is_err() {
            break;
        }
    }
}

/// Creates a directory and the ones above it, noting each. One that is there, whatever it is, is
/// left for the later checks.
fn create_missing(path: &Path, created: &mut Vec<PathBuf>) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => return Err(error),
        // Also ENOTCONN, of a dead mount: it exists.
        _ => return Ok(()),
    }
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        create_missing(parent, created)?;
    }
    match fs::create_dir(path) {
        Ok(()) => {
            created.push(fs::canonicalize(path)?);
            Ok(())
        }
        // `a/..`, or somebody else was faster.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        Err(error) => Err(error),
    }
}

fn remove_if_dead(mount: &Mount) -> Result<(), MountPointError> {
    let (point, kind) = (mount.point.clone(), mount.kind.clone());
    match (mount.is_copper(), pulse(mount)) {
        (true, Pulse::Dead) => {
            unmount_lazily(&point, &mount.id())?;
            Ok(())
        }
        (true, Pulse::Alive) => Err(MountPointError::Busy { point, id: mount.id() }),
        (_, Pulse::Silent) => Err(MountPointError::Stuck { point, kind }),
        (false, Pulse::Alive | Pulse::Dead) => Err(MountPointError::Foreign { point, kind }),
    }
}

fn require_usable(point: &Path) -> Result<(), MountPointError> {
    let examine = |source: io::Error| MountPointError::Examine { point: point.to_owned(), source };
    if !fs::metadata(point).map_err(examine)?.is_dir() {
        return Err(MountPointError::NotADirectory(point.to_owned()));
    }
    if !is_ours(point).map_err(|errno| examine(errno.into()))? {
        return Err(MountPointError::NotYours(point.to_owned()));
    }
    if fs::read_dir(point).map_err(examine)?.next().is_some() {
        return Err(MountPointError::NotEmpty(point.to_owned()));
    }
    Ok(())
}

/// What fusermount3 demands of an ordinary user (check_perm in util/fusermount.c): write access,
/// and in a sticky directory ownership.
fn is_ours(point: &Path) -> Result<bool, Errno> {
    if rustix::process::geteuid().is_root() {
        return Ok(true);
    }
    let stat = rustix::fs::stat(point)?;
    let sticky = rustix::fs::Mode::from_raw_mode(stat.st_mode).contains(rustix::fs::Mode::SVTX);
    if sticky && stat.st_uid != rustix::process::getuid().as_raw() {
        return Ok(false);
    }
    match rustix::fs::accessat(CWD, point, Access::WRITE_OK, AtFlags::empty()) {
        Ok(()) => Ok(true),
        Err(Errno::ACCESS | Errno::ROFS | Errno::PERM) => Ok(false),
        Err(errno) => Err(errno),
    }
}
