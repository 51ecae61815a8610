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
    /// [`NOBODY`]; takes root.
    Nobody(Arc<Place>),
}

/// Where [`NOBODY`] can mount.
#[derive(Debug)]
pub(crate) struct Place {
    /// Keeps a mount namespace in which anybody may use `/dev/fuse`, on machines that reserve it
    /// for root.
    namespace: Option<Running>,
}

impl User {
    /// An ordinary user; the test's folder is theirs then.
    pub(crate) fn nobody(scratch: &Scratch) -> User {
        let path = scratch.path();
        std::os::unix::fs::chown(path, Some(NOBODY), Some(NOBODY)).expect("root may");
        let mode = fs::metadata("/dev/fuse").expect("there is FUSE").permissions().mode();
        let namespace = (mode & 0o006 != 0o006).then(|| {
            let script = r#"mkdir "$1/dev" && mount -t tmpfs -o mode=755 tmpfs "$1/dev" &&
                mknod -m 666 "$1/dev/fuse" c 10 229 && mount --bind "$1/dev/fuse" /dev/fuse &&
                echo > "$1/dev-is-there" && exec sleep 1000"#;
            let mut unshare = Command::new("unshare");
            unshare.args(["--mount", "--propagation", "private", "--"]);
            let script = shell(script, [path]);
            unshare.arg(script.get_program()).args(script.get_args());
            let holder = Running::start(&mut unshare);
            eventually(Duration::from_secs(10), "a namespace with its own /dev/fuse", || {
                path.join("dev-is-there").exists().then_some(())
            });
            holder
        });
        User::Nobody(Arc::new(Place { namespace }))
    }

    /// A command as this user.
    pub(crate) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let User::Nobody(place) = self else { return Command::new(program) };
        let ids = [format!("--reuid={NOBODY}"), format!("--regid={NOBODY}")];
        let mut command = match &place.namespace {
            None => Command::new("setpriv"),
            Some(holder) => {
                let mut command = Command::new("nsenter");
                command.arg(format!("--mount=/proc/{}/ns/mnt", holder.process.pid));
                command.args(["--", "setpriv"]);
                command
            }
        };
        command.args(ids).args(["--clear-groups", "--"]).arg(program);
        command
    }

    /// The mounts that this user sees.
    pub(crate) fn mounts_below(&self, path: &Path) -> Vec<PathBuf> {
        match self {
            User::Nobody(place) => match &place.namespace {
                Some(holder) => mounts::of_process(holder.process.pid, path),
                None => mounts::below(path),
            },
            User::Own => mounts::below(path),
        }
    }
}
