//! Who starts the daemons and reads.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use super::command::{Running, shell};
use super::{Scratch, eventually, mounts};

/// `nobody`, who owns nothing.
pub(crate) const NOBODY: u32 = 65534;

#[derive(Clone, Debug, Default)]
pub(crate) enum User {
    /// Whoever runs the tests.
    #[default]
    Own,
    /// Somebody else, who need not have an account; takes root.
    Other(Ids, Arc<Place>),
}

/// The numbers of a user.
#[derive(Clone, Debug)]
pub(crate) struct Ids {
    pub(crate) user: u32,
    pub(crate) group: u32,
    /// Supplementary groups.
    pub(crate) groups: Vec<u32>,
}

/// Where [`NOBODY`] can mount.
#[derive(Debug, Default)]
pub(crate) struct Place {
    /// Keeps a mount namespace in which anybody may use `/dev/fuse`, on machines that reserve it
    /// for root, and in which `/etc/fuse.conf` says what a test wants.
    namespace: Option<Running>,
}

impl User {
    /// An ordinary user, [`NOBODY`]; the test's folder is theirs then.
    pub(crate) fn nobody(scratch: &Scratch) -> User {
        let mode = fs::metadata("/dev/fuse").expect("there is FUSE").permissions().mode();
        let namespace = (mode & 0o006 != 0o006).then(|| namespace(scratch));
        User::nobody_in(scratch, namespace)
    }

    /// The same on a machine whose `/etc/fuse.conf` has these lines.
    pub(crate) fn nobody_with_fuse_conf(scratch: &Scratch, lines: &str) -> User {
        fs::write(scratch.join("fuse.conf"), lines).expect("it is ours");
        User::nobody_in(scratch, Some(namespace(scratch)))
    }

    fn nobody_in(scratch: &Scratch, namespace: Option<Running>) -> User {
        std::os::unix::fs::chown(scratch.path(), Some(NOBODY), Some(NOBODY)).expect("root may");
        let ids = Ids { user: NOBODY, group: NOBODY, groups: Vec::new() };
        User::Other(ids, Arc::new(Place { namespace }))
    }

    /// Another user, who sees the mounts that this one sees.
    pub(crate) fn beside(&self, ids: Ids) -> User {
        match self {
            User::Own => User::Other(ids, Arc::default()),
            User::Other(_, place) => User::Other(ids, Arc::clone(place)),
        }
    }

    /// A command as this user.
    pub(crate) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let User::Other(ids, place) = self else { return Command::new(program) };
        let mut command = match &place.namespace {
            None => Command::new("setpriv"),
            Some(holder) => {
                let mut command = Command::new("nsenter");
                command.arg(format!("--mount=/proc/{}/ns/mnt", holder.process.pid));
                command.args(["--", "setpriv"]);
                command
            }
        };
        command.args([format!("--reuid={}", ids.user), format!("--regid={}", ids.group)]);
        let groups: Vec<String> = ids.groups.iter().map(u32::to_string).collect();
        match groups.is_empty() {
            true => command.arg("--clear-groups"),
            false => command.arg(format!("--groups={}", groups.join(","))),
        };
        command.arg("--").arg(program);
        command
    }

    /// The mounts that this user sees.
    pub(crate) fn mounts_below(&self, path: &Path) -> Vec<PathBuf> {
        match self {
            User::Other(_, place) => match &place.namespace {
                Some(holder) => mounts::of_process(holder.process.pid, path),
                None => mounts::below(path),
            },
            User::Own => mounts::below(path),
        }
    }
}

/// A mount namespace with its own `/dev/fuse`, and with the `fuse.conf` of the test's folder, if
/// there is one.
fn namespace(scratch: &Scratch) -> Running {
    let script = r#"mkdir "$1/dev" && mount -t tmpfs -o mode=755 tmpfs "$1/dev" &&
        mknod -m 666 "$1/dev/fuse" c 10 229 && mount --bind "$1/dev/fuse" /dev/fuse &&
        { [ ! -e "$1/fuse.conf" ] || mount --bind "$1/fuse.conf" /etc/fuse.conf; } &&
        echo > "$1/dev-is-there" && exec sleep 1000"#;
    let mut unshare = Command::new("unshare");
    unshare.args(["--mount", "--propagation", "private", "--"]);
    let script = shell(script, [scratch.path()]);
    unshare.arg(script.get_program()).args(script.get_args());
    let holder = Running::start(&mut unshare);
    eventually(Duration::from_secs(10), "a namespace with its own /dev/fuse", || {
        scratch.join("dev-is-there").exists().then_some(())
    });
    holder
}
