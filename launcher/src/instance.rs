//! The register of the daemons of one user on one machine: who holds which mount point.
//!
//! A folder of ours with four files for each mount point, named after a hash of its path: `.lock`,
//! which the daemon keeps locked with flock(2) for as long as it lives, `.json`, the record, and
//! `.sock` and `.refresh`, where it answers questions and takes refreshes. The lock decides who
//! holds a mount point; the record says what there is to clean up after a daemon that could not do
//! so itself. Nothing here touches a mount: that of a dead or hanging daemon does not answer.

use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};

use copper_proto::Rank;
use rustix::fs::{FlockOperation, OFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use tracing::warn;

use crate::job::Job;
use crate::moment::Moment;
use crate::process::Process;

/// The environment variable that names another place for the register.
pub const RUN_DIRECTORY_VARIABLE: &str = "COPPER_RUN_DIR";

/// What the records of this version look like.
const RECORD_VERSION: u32 = 1;

/// What the name of the socket that takes refreshes ends in.
const REFRESHES: &str = "refresh";

/// As path_resolution(7).
const LINKS_MAX: usize = 40;

/// A lock file may be removed between its opening and its locking; nobody loses this race often.
const LOCK_ATTEMPTS_MAX: usize = 100;

/// One daemon, as it has written itself down.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instance {
    /// Of copper.
    pub version: String,
    /// Its job.
    pub job: Job,
    /// Its rank; a number in the record.
    #[serde(with = "rank_number")]
    pub rank: Rank,
    /// Ranks of its job.
    pub size: u32,
    /// Its machine.
    pub host: String,
    /// Itself.
    #[serde(flatten)]
    pub process: Process,
    /// When it wrote this.
    pub since: Moment,
    /// Its mount point, canonical.
    pub mount: PathBuf,
    /// The device number of the mount, once it is there.
    pub device: Option<u64>,
    /// Whether it made the folder that it is mounted on.
    pub mount_point_created: bool,
    /// Where it answers questions.
    pub socket: PathBuf,
    /// Where it logs.
    pub log: Option<PathBuf>,
    /// What was started together: the folder given to `-v`.
    pub launch: PathBuf,
}

impl Instance {
    /// Where it takes refreshes.
    pub fn refresh_socket(&self) -> PathBuf {
        self.socket.with_extension(REFRESHES)
    }
}

/// A record, and whether its daemon runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The record.
    pub instance: Instance,
    /// Whether that process runs.
    pub alive: bool,
}

/// The register.
#[derive(Clone, Debug)]
pub struct Instances {
    directory: PathBuf,
}

impl Instances {
    /// `$COPPER_RUN_DIR`, else `/tmp/copper-run-<uid>`; made if it is missing.
    ///
    /// # Errors
    /// If it is not a folder that only we can use.
    pub fn open() -> Result<Instances, InstanceError> {
        let given = std::env::var_os(RUN_DIRECTORY_VARIABLE).filter(|path| !path.is_empty());
        let user = rustix::process::geteuid().as_raw();
        let path = given.map_or_else(|| format!("/tmp/copper-run-{user}").into(), PathBuf::from);
        Instances::at(&path)
    }

    /// The same, at another place.
    ///
    /// # Errors
    /// As [`Instances::open`].
    pub fn at(path: &Path) -> Result<Instances, InstanceError> {
        let failed = |source| InstanceError::Directory { path: path.to_owned(), source };
        let directory = std::path::absolute(path).map_err(failed)?;
        match DirBuilder::new().mode(0o700).create(&directory) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(failed(error)),
        }
        let untrusted = |what: String| InstanceError::Untrusted { path: directory.clone(), what };
        let metadata = fs::symlink_metadata(&directory).map_err(failed)?;
        if metadata.is_symlink() {
            return Err(untrusted("is a symbolic link".to_owned()));
        }
        if !metadata.is_dir() {
            return Err(untrusted("is not a folder".to_owned()));
        }
        let (owner, user) = (metadata.uid(), rustix::process::geteuid().as_raw());
        if owner != user {
            return Err(untrusted(format!("belongs to user {owner}, not to user {user}")));
        }
        let mode = metadata.mode() & 0o7777;
        if mode & 0o077 != 0 {
            return Err(untrusted(format!("has mode {mode:04o}, others can use it too")));
        }
        Ok(Instances { directory })
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.directory
    }

    /// Takes a mount point for this process, for as long as the claim lives.
    ///
    /// # Errors
    /// [`InstanceError::Held`] or [`InstanceError::Claimed`] if somebody has it.
    pub fn claim(&self, mount: &Path) -> Result<Claim, InstanceError> {
        let mount = canonical(mount)?;
        if mount.to_str().is_none() {
            return Err(InstanceError::NotText { path: mount });
        }
        let files = self.files(&mount);
        let failed = |source| InstanceError::Lock { path: files.lock.clone(), source };
        for _ in 0..LOCK_ATTEMPTS_MAX {
            let mut lock = open_lock(&files.lock).map_err(failed)?;
            match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(Errno::WOULDBLOCK) => return Err(self.holder(mount, &mut lock)),
                Err(error) => return Err(failed(error.into())),
            }
            // The holder before us may have removed the file after we opened it.
            let ours = lock.metadata().map_err(failed)?.ino();
            let named = fs::symlink_metadata(&files.lock).map(|metadata| metadata.ino());
            if named.ok() != Some(ours) {
                continue;
            }
            let predecessor = files.read()?;
            if let Some(holder) = &predecessor
                && holder.process.is_alive()
                && holder.process.pid != std::process::id()
            {
                // Its lock file was removed by somebody who cleans /tmp.
                return Err(InstanceError::Held { holder: Box::new(holder.clone()) });
            }
            let leaves = predecessor.is_some();
            let file = files.lock.clone();
            // From here on the lock file goes with the claim, also where there is no room to write.
            let mut claim = Claim { files, mount, predecessor, leaves, lock };
            claim.sign().map_err(|source| InstanceError::Lock { path: file, source })?;
            return Ok(claim);
        }
        Err(failed(io::ErrorKind::Interrupted.into()))
    }

    /// All records, by rank and then by mount point.
    ///
    /// # Errors
    /// If the register cannot be read.
    pub fn all(&self) -> Result<Vec<Listed>, InstanceError> {
        let failed = |source| InstanceError::Directory { path: self.directory.clone(), source };
        let mut listed = Vec::new();
        for entry in fs::read_dir(&self.directory).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            if path.extension() != Some(OsStr::new("json")) {
                continue;
            }
            match read_record(&path) {
                Ok(Some(instance)) => {
                    let alive = instance.process.is_alive();
                    listed.push(Listed { instance, alive });
                }
                Ok(None) => {}
                Err(error) => warn!(error = &error as &dyn std::error::Error, "left out a record"),
            }
        }
        listed.sort_by(|a, b| {
            let key = |it: &Listed| (it.instance.rank, it.instance.mount.clone());
            key(a).cmp(&key(b))
        });
        Ok(listed)
    }

    /// Those that are mounted on `directory`, or on `directory/<number>`, as a local launch puts
    /// its ranks.
    ///
    /// # Errors
    /// As [`Instances::all`].
    pub fn under(&self, directory: &Path) -> Result<Vec<Listed>, InstanceError> {
        let directory = canonical(directory)?;
        let belongs = |mount: &Path| {
            let number = |name: &OsStr| name.as_bytes().iter().all(u8::is_ascii_digit);
            mount == directory
                || (mount.parent() == Some(&directory) && mount.file_name().is_some_and(number))
        };
        let mut listed = self.all()?;
        listed.retain(|it| belongs(&it.instance.mount));
        Ok(listed)
    }

    /// Removes what a dead daemon has left in the register.
    ///
    /// # Errors
    /// [`InstanceError::Held`] if it is not dead.
    pub fn forget(&self, instance: &Instance) -> Result<(), InstanceError> {
        self.claim(&instance.mount)?.release()
    }

    fn files(&self, mount: &Path) -> Files {
        let hash = blake3::hash(mount.as_os_str().as_bytes()).to_hex();
        // 128 bits, and short enough for a socket's path, which has at most 107 bytes.
        let file = |extension| self.directory.join(format!("{}.{extension}", &hash[..32]));
        Files {
            lock: file("lock"),
            record: file("json"),
            socket: file("sock"),
            refreshes: file(REFRESHES),
        }
    }

    /// Who holds the lock.
    fn holder(&self, mount: PathBuf, lock: &mut File) -> InstanceError {
        if let Ok(Some(holder)) = self.files(&mount).read()
            && holder.process.is_alive()
        {
            return InstanceError::Held { holder: Box::new(holder) };
        }
        let mut pid = String::new();
        let read = lock.rewind().and_then(|()| lock.read_to_string(&mut pid));
        let pid = read.ok().and_then(|_| pid.trim().parse().ok());
        InstanceError::Claimed { mount, pid }
    }
}

/// The files of one mount point.
#[derive(Clone, Debug)]
struct Files {
    lock: PathBuf,
    record: PathBuf,
    socket: PathBuf,
    refreshes: PathBuf,
}

impl Files {
    fn read(&self) -> Result<Option<Instance>, InstanceError> {
        read_record(&self.record)
    }

    /// The lock file goes last: until then nobody else can be in the middle of anything.
    fn remove(&self) -> Result<(), InstanceError> {
        for path in [&self.socket, &self.refreshes, &self.record, &self.lock] {
            match fs::remove_file(path) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(source) => return Err(InstanceError::Record { path: path.clone(), source }),
            }
        }
        Ok(())
    }
}

/// A mount point that is ours. Dropped without [`Claim::release`], as in a crash, it leaves its
/// record for whoever cleans up.
#[derive(Debug)]
pub struct Claim {
    files: Files,
    mount: PathBuf,
    predecessor: Option<Instance>,
    /// Whether there is something in the register that outlives this claim.
    leaves: bool,
    /// Closing it, at the end of this process at the latest, gives the mount point back.
    lock: File,
}

impl Claim {
    fn sign(&mut self) -> io::Result<()> {
        self.lock.set_len(0)?;
        write!(self.lock, "{}", std::process::id())
    }

    /// The mount point, canonical.
    pub fn mount(&self) -> &Path {
        &self.mount
    }

    /// Where this daemon is to answer questions.
    pub fn socket(&self) -> &Path {
        &self.files.socket
    }

    /// Where this daemon is to take refreshes.
    pub fn refresh_socket(&self) -> &Path {
        &self.files.refreshes
    }

    /// The daemon that held the mount point before and died: its mount may still be there.
    pub fn predecessor(&self) -> Option<&Instance> {
        self.predecessor.as_ref()
    }

    /// Writes the record, or writes it again.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn record(&mut self, instance: &Instance) -> Result<(), InstanceError> {
        let path = &self.files.record;
        let failed = |source| InstanceError::Record { path: path.clone(), source };
        let temporary = path.with_extension("new");
        let stored = Stored { format: RECORD_VERSION, instance: instance.clone() };
        let text = serde_json::to_vec_pretty(&stored).map_err(|error| failed(error.into()))?;
        let mut options = OpenOptions::new();
        let options = options.write(true).create(true).truncate(true).mode(0o600);
        let write = |mut file: File| file.write_all(&text);
        let written = options.open(&temporary).and_then(write);
        written.and_then(|()| fs::rename(&temporary, path)).map_err(|error| {
            // Where there is no room there is none for a part of it either.
            let _ = fs::remove_file(&temporary);
            failed(error)
        })?;
        self.leaves = true;
        Ok(())
    }

    /// Gives the mount point back, with everything about it removed from the register.
    ///
    /// # Errors
    /// If a file cannot be removed; the mount point is free all the same.
    pub fn release(mut self) -> Result<(), InstanceError> {
        // Once the lock file is gone its name may be another claim's.
        self.leaves = true;
        self.files.remove()
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if !self.leaves {
            // Failing that, an empty lock file stays.
            let _ = fs::remove_file(&self.files.lock);
        }
    }
}

#[derive(Serialize, Deserialize)]
struct Stored {
    format: u32,
    #[serde(flatten)]
    instance: Instance,
}

mod rank_number {
    use super::{Deserialize, Rank};

    pub(super) fn serialize<S: serde::Serializer>(
        rank: &Rank,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_u32(rank.0)
    }

    pub(super) fn deserialize<'de, D: serde::Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Rank, D::Error> {
        u32::deserialize(deserializer).map(Rank)
    }
}

fn open_lock(path: &Path) -> io::Result<File> {
    let flags = OFlags::NOFOLLOW.bits().cast_signed();
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600).custom_flags(flags);
    options.open(path)
}

fn read_record(path: &Path) -> Result<Option<Instance>, InstanceError> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(InstanceError::Record { path: path.to_owned(), source }),
    };
    let stored: Stored = serde_json::from_slice(&text)
        .map_err(|source| InstanceError::Malformed { path: path.to_owned(), source })?;
    Ok(Some(stored.instance))
}

/// The one path of a mount point: absolute, no `.` or `..`, no symbolic link on the way, whether or
/// not it exists. Asks nothing of what is mounted there: readlink(2) of a folder is answered by the
/// kernel, even where stat(2) would wait for a daemon that hangs.
///
/// # Errors
/// If a symbolic link on the way cannot be followed.
pub fn canonical(path: &Path) -> Result<PathBuf, InstanceError> {
    let failed = |source| InstanceError::Path { path: path.to_owned(), source };
    let absolute = std::path::absolute(path).map_err(failed)?;
    let mut rest: Vec<PathBuf> = components_reversed(&absolute);
    let mut done = PathBuf::from("/");
    let mut links = 0;
    while let Some(component) = rest.pop() {
        match component.components().next() {
            Some(Component::RootDir) => done = PathBuf::from("/"),
            Some(Component::ParentDir) => {
                done.pop();
            }
            Some(Component::Normal(name)) => {
                let next = done.join(name);
                match fs::read_link(&next) {
                    Ok(target) => {
                        links += 1;
                        if links > LINKS_MAX {
                            return Err(failed(Errno::LOOP.into()));
                        }
                        rest.extend(components_reversed(&target));
                    }
                    Err(_) => done = next,
                }
            }
            Some(Component::CurDir | Component::Prefix(_)) | None => {}
        }
    }
    Ok(done)
}

fn components_reversed(path: &Path) -> Vec<PathBuf> {
    path.components().rev().map(|component| PathBuf::from(component.as_os_str())).collect()
}

/// What is wrong with the register, or who holds a mount point.
#[derive(Debug, thiserror::Error)]
pub enum InstanceError {
    /// The folder cannot be used.
    #[error("cannot use {} to keep track of running daemons", path.display())]
    Directory {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The folder might be somebody else's.
    #[error(
        "{} {what}: somebody else could interfere with your daemons. Remove it, or set \
         {RUN_DIRECTORY_VARIABLE} to a folder of your own with mode 0700",
        path.display()
    )]
    Untrusted {
        /// The folder.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// A daemon has it.
    #[error(
        "mount point {} is held by pid {} (rank {} of job {}, started {}): stop that one first \
         (stop_copper.sh -v {}), or choose another with -v",
        holder.mount.display(), holder.process.pid, holder.rank, holder.job, holder.since,
        holder.launch.display()
    )]
    Held {
        /// Which.
        holder: Box<Instance>,
    },
    /// A daemon that is just starting or ending has it.
    #[error(
        "mount point {} is held by {}, which is just starting or ending: try again",
        mount.display(), pid.map_or("another process".to_owned(), |pid| format!("pid {pid}"))
    )]
    Claimed {
        /// The mount point.
        mount: PathBuf,
        /// Which process.
        pid: Option<u32>,
    },
    /// The lock file cannot be locked.
    #[error("cannot lock {}", path.display())]
    Lock {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A record cannot be read, written or removed.
    #[error("cannot keep the record {}", path.display())]
    Record {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A record of another version, or damaged.
    #[error("{} is not the record of a daemon; if no daemon runs, remove it", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// The path leads nowhere.
    #[error("cannot follow {}", path.display())]
    Path {
        /// The path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The path cannot be written into a record.
    #[error("the mount point {} is not UTF-8 text: choose another with -v", path.display())]
    NotText {
        /// The path.
        path: PathBuf,
    },
}
