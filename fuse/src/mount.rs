//! Mounting and unmounting through `fusermount3`, the set-uid helper that an ordinary user needs.
//!
//! Mounting: the helper gets one end of a socket pair as its standard input, opens `/dev/fuse`,
//! mounts, and sends the open device back (`SCM_RIGHTS`). This way no descriptor of the daemon is
//! ever inheritable, not even for a moment.
//!
//! Unmounting checks the mount table for our mount first, every time: an unmount by path alone can
//! hit somebody else's mount that took the place of ours. Its device number does not tell the two
//! apart, since the kernel gives the number of an unmounted view to the next one; so every mount
//! gets a source name that no other has.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketFlags, SocketType,
    recvmsg, socketpair, sockopt,
};

use crate::mount_table::{MountId, MountTable};

/// How long `fusermount3` may take. It only makes system calls; a mount point on a hung file
/// system is what could hold it up.
const FUSERMOUNT_BOUND: Duration = Duration::from_secs(30);

/// The helper, as it is found on the search path.
/// `MISC_MAJOR` and `FUSE_MINOR` of the kernel.
const FUSE_DEVICE: (u32, u32) = (10, 229);

const FUSERMOUNT: &str = "fusermount3";

/// How to mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountOptions {
    /// With what the source in the mount table (`fsname`) begins; `@`, the daemon's process id and
    /// something unique follow.
    pub source_name: OsString,
    /// Whether other users, root among them, may enter; needs `user_allow_other` in
    /// `/etc/fuse.conf`.
    pub allow_other: bool,
}

impl Default for MountOptions {
    fn default() -> MountOptions {
        MountOptions { source_name: OsString::from("copper"), allow_other: false }
    }
}

impl MountOptions {
    /// A source that no other mount has or had: two daemons never have the same process id at the
    /// same time, and one daemon does not mount twice in the same nanosecond.
    fn unique_source(&self) -> OsString {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let mut source = self.source_name.clone();
        source.push(format!("@{}.{:x}", std::process::id(), now.as_nanos()));
        source
    }

    /// The argument of `-o`.
    fn list(&self, source: &OsStr) -> OsString {
        let mut list = b"ro,nosuid,nodev,noatime,default_permissions,subtype=copper".to_vec();
        if self.allow_other {
            list.extend_from_slice(b",allow_other");
        }
        list.extend_from_slice(b",fsname=");
        for &byte in source.as_bytes() {
            if byte == b',' || byte == b'\\' {
                list.push(b'\\');
            }
            list.push(byte);
        }
        OsString::from_vec(list)
    }
}

/// Why there is no mount.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// The helper is not installed.
    #[error("{} was not found: install the package fuse3, or put it on PATH", program.display())]
    NoFusermount {
        /// What was looked for.
        program: PathBuf,
    },
    /// The helper could not be started.
    #[error("{} could not be started", program.display())]
    Spawn {
        /// What was started.
        program: PathBuf,
        /// Why it did not start.
        source: io::Error,
    },
    /// The kernel's FUSE device does not exist.
    #[error("/dev/fuse does not exist: load the kernel module fuse, or pass it to the container")]
    NoDevice,
    /// Something else is in its place.
    #[error(
        "/dev/fuse is not the kernel's FUSE device: remove it and load the kernel module fuse, or pass \
         the device to the container"
    )]
    OtherDevice,
    /// The helper refused or failed.
    #[error("{} is not mounted: {said}{advice}", point.display())]
    Refused {
        /// Where the mount should have been.
        point: PathBuf,
        /// What the helper wrote, in one line.
        said: String,
        /// What to do, where that is known.
        advice: &'static str,
    },
    /// The helper did not come back.
    #[error("{} did not answer in {FUSERMOUNT_BOUND:?}: is the mount point on a hung file system?",
        program.display())]
    Silent {
        /// What did not answer.
        program: PathBuf,
    },
    /// The helper reported success, but the mount table does not show a copper view.
    #[error("{} is not in the mount table after mounting: was it unmounted at once?", point.display())]
    NotInTable {
        /// Where the mount should be.
        point: PathBuf,
    },
    /// A system call failed.
    #[error("{tried} failed")]
    System {
        /// What was tried.
        tried: &'static str,
        /// How it failed.
        source: io::Error,
    },
}

impl MountError {
    fn system(tried: &'static str, source: impl Into<io::Error>) -> MountError {
        MountError::System { tried, source: source.into() }
    }
}

/// Why something is still mounted.
#[derive(Debug, thiserror::Error)]
pub enum UnmountError {
    /// The helper failed, and the mount is still there.
    #[error("{} is still mounted: {said}; try: fusermount3 -u -z {}", point.display(), point.display())]
    Refused {
        /// What is still mounted.
        point: PathBuf,
        /// What the helper wrote, in one line.
        said: String,
    },
    /// The helper could not be started.
    #[error("{} could not be started, so {} is still mounted", program.display(), point.display())]
    Spawn {
        /// What was started.
        program: PathBuf,
        /// What is still mounted.
        point: PathBuf,
        /// Why it did not start.
        source: io::Error,
    },
    /// The mount table could not be read.
    #[error("the mount table could not be read")]
    Table(#[source] io::Error),
}

/// How a mount went away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unmounted {
    /// It was no longer there: nothing was done.
    Gone,
    /// Nobody used it.
    Plain,
    /// It was in use: no path leads to it any more, and it ends with its last user.
    Lazy,
}

/// Mounts on a prepared mount point. Gives the open device, not yet spoken to: until a session
/// answers on it, whoever touches the mount waits.
///
/// # Errors
/// One line that says what to do.
pub fn mount(point: &Path, options: &MountOptions) -> Result<(OwnedFd, MountId), MountError> {
    mount_with(Path::new(FUSERMOUNT), point, options)
}

fn mount_with(
    program: &Path,
    point: &Path,
    options: &MountOptions,
) -> Result<(OwnedFd, MountId), MountError> {
    require_device(Path::new("/dev/fuse"))?;
    let source = options.unique_source();
    let (ours, theirs) =
        socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
            .map_err(|errno| MountError::system("socketpair", errno))?;
    sockopt::set_socket_timeout(&ours, sockopt::Timeout::Recv, Some(FUSERMOUNT_BOUND))
        .map_err(|errno| MountError::system("setsockopt", errno))?;
    // The temporary command, and with it our copy of their end, ends with this statement: their
    // end closes when the helper exits.
    let child = Command::new(program)
        .args([OsStr::new("-o"), &options.list(&source), OsStr::new("--"), point.as_os_str()])
        .env("_FUSE_COMMFD", "0")
        .stdin(Stdio::from(theirs))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => MountError::NoFusermount { program: program.to_owned() },
            _ => MountError::Spawn { program: program.to_owned(), source },
        })?;
    let device = match receive_device(&ours) {
        Ok(Some(device)) => device,
        Ok(None) => return Err(refused(point, child)),
        Err(Errno::AGAIN) => {
            end(child);
            return Err(MountError::Silent { program: program.to_owned() });
        }
        Err(errno) => {
            end(child);
            return Err(MountError::system("recvmsg", errno));
        }
    };
    // It sent the device as its last act; its status says no more.
    let _reaped = child.wait_with_output();
    let table =
        MountTable::read().map_err(|source| MountError::system("/proc/self/mountinfo", source))?;
    match table.at(point) {
        Some(mount) if mount.is_copper() && mount.source == source => Ok((device, mount.id())),
        _ => Err(MountError::NotInTable { point: point.to_owned() }),
    }
}

/// Removes this mount from this place, plainly or, when it is in use, lazily. Does
/// nothing when another or no mount is seen there: doing it twice is harmless.
///
/// # Errors
/// If the mount is still there afterwards.
pub fn unmount(point: &Path, id: &MountId) -> Result<Unmounted, UnmountError> {
    if !is_seen(point, id)? {
        return Ok(Unmounted::Gone);
    }
    let mut said = String::new();
    for (arguments, how) in [(&["-u"][..], Unmounted::Plain), (&["-u", "-z"], Unmounted::Lazy)] {
        said = run(point, arguments)?;
        if !is_seen(point, id)? {
            return Ok(how);
        }
    }
    Err(UnmountError::Refused { point: point.to_owned(), said })
}

/// Removes what a dead daemon left from this place, whoever may still be in it.
///
/// # Errors
/// If the mount is still there afterwards.
pub fn unmount_lazily(point: &Path, id: &MountId) -> Result<Unmounted, UnmountError> {
    if !is_seen(point, id)? {
        return Ok(Unmounted::Gone);
    }
    let said = run(point, &["-u", "-z"])?;
    if is_seen(point, id)? {
        return Err(UnmountError::Refused { point: point.to_owned(), said });
    }
    Ok(Unmounted::Lazy)
}

/// Whether the mount that is seen at a place is this one.
fn is_seen(point: &Path, id: &MountId) -> Result<bool, UnmountError> {
    let table = MountTable::read().map_err(UnmountError::Table)?;
    Ok(table.at(point).is_some_and(|mount| mount.id() == *id))
}

/// Runs the helper to its end and gives what it wrote.
fn run(point: &Path, arguments: &[&str]) -> Result<String, UnmountError> {
    let program = FUSERMOUNT;
    let output = Command::new(program)
        .args(arguments)
        .arg("--")
        .arg(point)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .output()
        .map_err(|source| UnmountError::Spawn {
            program: PathBuf::from(program),
            point: point.to_owned(),
            source,
        })?;
    Ok(one_line(&output.stderr))
}

fn require_device(device: &Path) -> Result<(), MountError> {
    // Only whether it is the one: what else is wrong with it the helper says.
    match rustix::fs::stat(device) {
        Ok(found) if found.st_rdev == rustix::fs::makedev(FUSE_DEVICE.0, FUSE_DEVICE.1) => Ok(()),
        Ok(_) => Err(MountError::OtherDevice),
        Err(Errno::NOENT) => Err(MountError::NoDevice),
        Err(errno) => Err(MountError::system("stat of /dev/fuse", errno)),
    }
}

/// The descriptor that the helper sends; `None` if it closed its end without one.
fn receive_device(socket: impl AsFd) -> Result<Option<OwnedFd>, Errno> {
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0u8; 1];
    rustix::io::retry_on_intr(|| {
        let mut into = [io::IoSliceMut::new(&mut byte)];
        recvmsg(&socket, &mut into, &mut control, RecvFlags::CMSG_CLOEXEC)
    })?;
    Ok(control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    }))
}

fn refused(point: &Path, child: Child) -> MountError {
    let said = match child.wait_with_output() {
        Ok(output) => one_line(&output.stderr),
        Err(error) => error.to_string(),
    };
    let advice = advice(&said);
    MountError::Refused { point: point.to_owned(), said, advice }
}

/// What to do about a message of `fusermount3` (util/fusermount.c in libfuse).
fn advice(said: &str) -> &'static str {
    const ADVICE: [(&str, &str); 7] = [
        (
            "failed to open /dev/fuse: Permission denied",
            "; users need to read and write it: have its mode set to 0666",
        ),
        (
            "user_allow_other",
            "; have the line user_allow_other added to that file, or do without --allow-other",
        ),
        (
            "too many FUSE filesystems",
            "; unmount others (fusermount3 -u), or have mount_max raised",
        ),
        ("no write access to mountpoint", "; choose a directory of your own"),
        ("not owned by user", "; choose a directory of your own"),
        ("mounting over filesystem type", "; choose a directory in /tmp or on a local disk"),
        ("Operation not permitted", "; fusermount3 must be set-uid root, or the caller root"),
    ];
    let known = ADVICE.iter().find(|(part, _)| said.contains(part));
    known.map_or("", |(_, advice)| advice)
}

fn end(mut child: Child) {
    // Both fail only if it has ended already.
    let _killed = child.kill();
    let _reaped = child.wait();
}

fn one_line(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    if lines.is_empty() { "fusermount3 said nothing".to_owned() } else { lines.join("; ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commas_in_the_source_name_stay_in_it() {
        let options =
            MountOptions { source_name: OsString::from("a,dev\\b"), ..MountOptions::default() };
        let list = options.list(&options.source_name);
        assert_eq!(
            list,
            "ro,nosuid,nodev,noatime,default_permissions,subtype=copper,fsname=a\\,dev\\\\b"
        );
        let options = MountOptions { allow_other: true, ..MountOptions::default() };
        assert!(options.list(OsStr::new("x")).to_string_lossy().contains(",allow_other,"));
    }

    #[test]
    fn no_two_mounts_have_the_same_source() {
        let options = MountOptions::default();
        let sources: Vec<OsString> = (0..3).map(|_| options.unique_source()).collect();
        assert!(sources[0] != sources[1] && sources[1] != sources[2]);
        assert!(sources[0].to_string_lossy().starts_with("copper@"));
    }

    #[test]
    fn every_error_is_one_line_and_says_what_to_do() {
        let said = "fusermount3: option allow_other only allowed if 'user_allow_other' is set in \
                    /etc/fuse.conf";
        assert!(advice(said).contains("without --allow-other"));
        assert_eq!(advice("something new"), "");
        let missing = require_device(Path::new("/dev/null/../no-fuse-here"));
        assert!(matches!(missing, Err(MountError::System { .. } | MountError::NoDevice)));
        let other = require_device(Path::new("/dev/null"));
        assert!(matches!(other, Err(MountError::OtherDevice)));
        let missing = require_device(Path::new("/dev/no-fuse-here")).expect_err("not there");
        assert!(
            missing.to_string().contains("kernel module") && !missing.to_string().contains('\n')
        );
        assert_eq!(one_line(b"a\n\n b \n"), "a; b");
    }

    #[test]
    fn a_missing_helper_is_named() {
        let options = MountOptions::default();
        let helper = Path::new("/nowhere/fusermount3");
        let error = mount_with(helper, Path::new("/nowhere"), &options).expect_err("no helper");
        assert!(error.to_string().contains("install the package fuse3"), "{error}");
    }
}
