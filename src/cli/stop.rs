//! `copper stop`: ends what one launch has started on this machine, dead or alive, and nothing else.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use copper_fuse::MountTable;
use copper_fuse::mount_point::{resolve, unmount_any_copper, unmount_dead};
use copper_launcher::{Instances, Listed, Process};

use super::{one_line, print, say};

/// How long daemons may take to unmount and end before they are killed.
const GRACE: Duration = Duration::from_secs(3);

#[derive(Debug, Args)]
pub(super) struct StopArguments {
    /// Where the views were mounted [default: /tmp/$USER/copper]
    #[arg(long, short = 'v', value_name = "DIR")]
    mount: Option<PathBuf>,

    /// Accepted as the launcher's; logs stay where they are
    #[arg(long, short = 'd', value_name = "DIR")]
    log_dir: Option<PathBuf>,
}

pub(super) fn run(arguments: &StopArguments) -> anyhow::Result<ExitCode> {
    let directory = arguments.mount.clone().unwrap_or_else(super::default_mount);
    let directory = std::path::absolute(&directory)
        .with_context(|| format!("{} is no path", directory.display()))?;
    let instances = Instances::open()?;
    let listed = instances.under(&directory)?;
    let mut problems = end_all(&listed);
    let mut kept = BTreeSet::new();

    let mut points: BTreeSet<PathBuf> = listed.iter().map(|it| it.instance.mount.clone()).collect();
    points.extend(dead_mounts(&directory)?);
    for point in &points {
        let known = listed.iter().any(|it| it.instance.mount == *point);
        // A mount that nobody is written down for is somebody's, unless it is dead.
        let removed = if known { unmount_any_copper(point) } else { unmount_dead(point) };
        if let Err(error) = removed {
            problems.push(one_line(&error.into()));
            // A second stop has to find it.
            kept.insert(point);
        }
    }
    for it in listed.iter().filter(|it| !kept.contains(&it.instance.mount)) {
        if let Err(error) = instances.forget(&it.instance) {
            problems.push(one_line(&error.into()));
        }
    }
    remove_mount_points(&directory, &points);

    for problem in &problems {
        say(&format!("copper: {problem}"));
    }
    if !problems.is_empty() {
        return Ok(ExitCode::FAILURE);
    }
    let alive = listed.iter().filter(|it| it.alive).count();
    let dead = points.len() - alive;
    match (alive, dead) {
        (0, 0) => print(&format!("nothing was running under {}", directory.display()))?,
        (_, 0) => print(&format!("{alive} ranks stopped"))?,
        (_, _) => print(&format!("{alive} ranks stopped, {dead} dead ones cleaned up"))?,
    }
    Ok(ExitCode::SUCCESS)
}

fn end_all(listed: &[Listed]) -> Vec<String> {
    let processes: Vec<Process> =
        listed.iter().filter(|it| it.alive).map(|it| it.instance.process).collect();
    let ended = Process::end_all(&processes, GRACE);
    ended.into_iter().filter_map(|ended| ended.err().map(|error| one_line(&error.into()))).collect()
}

/// Copper mounts at `directory` or `directory/<number>` in the mount table.
fn dead_mounts(directory: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let Ok(directory) = resolve(directory) else { return Ok(Vec::new()) };
    let table = MountTable::read().context("cannot read the mount table")?;
    let is_rank = |point: &Path| {
        let name = point.file_name().and_then(|name| name.to_str()).unwrap_or("");
        let number = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_digit());
        point == directory || (point.parent() == Some(&directory) && number)
    };
    let copper = table.copper().filter(|mount| is_rank(&mount.point));
    Ok(copper.map(|mount| mount.point.clone()).collect())
}

/// Removes the mount points, and the folder that held them, if they are empty: never more.
fn remove_mount_points(directory: &Path, points: &BTreeSet<PathBuf>) {
    for point in points {
        let _ = std::fs::remove_dir(point);
    }
    if !points.is_empty() {
        let _ = std::fs::remove_dir(directory);
    }
}
