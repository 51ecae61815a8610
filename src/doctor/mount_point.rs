//! What stands at the mount point, or in the way to it.

use std::fs;
use std::path::Path;

use copper_fuse::mount_point::{Pulse, pulse, resolve};
use copper_fuse::{Mount, MountTable};
use rustix::fs::{Access, access};

use super::Finding;

const CHECK: &str = "mount point";

pub(super) fn examine(directory: &Path) -> Vec<Finding> {
    let existing = directory.ancestors().skip(1).find(|above| above.exists());
    let Ok(table) = MountTable::read() else {
        return vec![Finding::fail(CHECK, "the mount table cannot be read", "mount /proc")];
    };
    // What does not exist yet has nothing mounted on it.
    let point = resolve(directory).unwrap_or_else(|_| directory.to_owned());
    // A launch on this machine has its views one below.
    let near = |mount: &&Mount| mount.point == point || mount.point.parent() == Some(&point);
    let here: Vec<&Mount> = table.all().iter().filter(near).collect();
    if here.is_empty() {
        return vec![way_to(&point, existing)];
    }
    here.into_iter().map(of_mount).collect()
}

fn of_mount(mount: &Mount) -> Finding {
    let (point, kind) = (mount.point.display(), &mount.kind);
    match (mount.is_copper(), pulse(mount)) {
        (true, Pulse::Alive) => Finding::warning(
            CHECK,
            format!("{point} is a view that is alive"),
            "a launch there is refused until `copper stop -v` has ended it",
        ),
        (true, Pulse::Dead) => Finding::warning(
            CHECK,
            format!("{point} is a view whose daemon is gone"),
            "a launch or `copper stop -v` removes it",
        ),
        (true, Pulse::Silent) => Finding::fail(
            CHECK,
            format!("{point} is a view that does not answer"),
            "`copper stop -v` ends it",
        ),
        (false, Pulse::Dead) => Finding::fail(
            CHECK,
            format!("{point} is a dead mount of another program ({kind})"),
            format!("`fusermount3 -u -z {point}`, or another -v"),
        ),
        (false, Pulse::Alive | Pulse::Silent) => Finding::fail(
            CHECK,
            format!("{point} has something else mounted ({kind})"),
            "choose another place with -v",
        ),
    }
}

/// Nothing is mounted: whether the mount point can be used, or made below what exists of its path.
fn way_to(point: &Path, existing: Option<&Path>) -> Finding {
    let shown = point.display();
    let elsewhere = "choose another place with -v";
    match fs::metadata(point) {
        Ok(metadata) if !metadata.is_dir() => {
            Finding::fail(CHECK, format!("{shown} is no directory"), elsewhere)
        }
        Ok(_) if access(point, Access::WRITE_OK).is_err() => {
            Finding::fail(CHECK, format!("{shown} is not yours"), elsewhere)
        }
        Ok(_) => match fs::read_dir(point).map(|mut entries| entries.next().is_some()) {
            Ok(false) => Finding::ok(CHECK, format!("{shown} is an empty directory")),
            Ok(true) => Finding::fail(CHECK, format!("{shown} is not empty"), elsewhere),
            Err(error) => Finding::fail(CHECK, format!("{shown}: {error}"), elsewhere),
        },
        Err(_) => match existing {
            Some(above) if above.is_dir() && access(above, Access::WRITE_OK).is_ok() => {
                Finding::ok(CHECK, format!("{shown} can be created"))
            }
            Some(above) => {
                let found = format!("{shown} cannot be created in {}", above.display());
                Finding::fail(CHECK, found, elsewhere)
            }
            None => Finding::fail(CHECK, format!("{shown} cannot be created"), elsewhere),
        },
    }
}
