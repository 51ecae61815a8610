//! `copper stop`: ends what one launch has started, dead or alive, and nothing else: on this machine,
//! or, where the launch was written down here, on all of its hosts.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use copper_fuse::mount_point::{resolve, unmount_any_copper, unmount_dead};
use copper_fuse::{MountTable, Unmounted};
use copper_launcher::job::host_name;
use copper_launcher::{Instances, Line, Listed, Process, Said};

use super::{one_line, print, say, stop_hosts};

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

    /// On this machine only, and tell whoever asks for it
    #[arg(long, hide = true)]
    here: bool,
}

/// What was found on a machine, and is not there any more.
#[derive(Default)]
struct Stopped {
    alive: usize,
    dead: usize,
    problems: Vec<String>,
}

pub(super) fn run(arguments: &StopArguments) -> anyhow::Result<ExitCode> {
    let directory = super::mount_directory(arguments.mount.as_deref())?;
    if arguments.here {
        return stop_for_head(&directory);
    }
    let instances = Instances::open()?;
    if let Some(launch) = instances.read_launch(&directory)? {
        return stop_hosts::run(&instances, &launch);
    }
    let stopped = stop_here(&directory)?;
    for problem in &stopped.problems {
        say(&format!("copper: {problem}"));
    }
    if !stopped.problems.is_empty() {
        return Ok(ExitCode::FAILURE);
    }
    match (stopped.alive, stopped.dead) {
        (0, 0) => print(&format!("nothing was running under {}", directory.display()))?,
        (alive, 0) => print(&format!("{alive} ranks stopped"))?,
        (alive, dead) => print(&format!("{alive} ranks stopped, {dead} dead ones cleaned up"))?,
    }
    Ok(ExitCode::SUCCESS)
}

/// On one host of a launch: the result goes to the head, as a line.
fn stop_for_head(directory: &Path) -> anyhow::Result<ExitCode> {
    let said = match stop_here(directory) {
        Ok(Stopped { alive, dead, problems }) if problems.is_empty() => {
            Said::Stopped { alive, dead }
        }
        Ok(Stopped { problems, .. }) => Said::Failed { reason: problems.join("; ") },
        Err(error) => Said::Failed { reason: one_line(&error) },
    };
    print(&Line { host: host_name(), rank: None, said }.print())?;
    Ok(ExitCode::SUCCESS)
}

fn stop_here(directory: &Path) -> anyhow::Result<Stopped> {
    let instances = Instances::open()?;
    let listed = instances.under(directory)?;
    let mut problems = end_all(&listed);
    let mut kept: BTreeSet<PathBuf> = BTreeSet::new();

    let known: BTreeSet<PathBuf> = listed.iter().map(|it| it.instance.mount.clone()).collect();
    for point in &known {
        if let Err(error) = unmount_any_copper(point) {
            problems.push(one_line(&error.into()));
            // A second stop has to find it.
            kept.insert(point.clone());
        }
    }
    for it in listed.iter().filter(|it| !kept.contains(&it.instance.mount)) {
        if let Err(error) = instances.forget(&it.instance) {
            problems.push(one_line(&error.into()));
        }
    }
    let strays = remove_strays(&instances, directory, &known, &mut problems)?;
    let ours = listed.iter().filter(|it| it.instance.mount_point_created);
    let mut points: BTreeSet<PathBuf> = ours.map(|it| it.instance.mount.clone()).collect();
    let alive = listed.iter().filter(|it| it.alive).count();
    let dead = listed.len() - alive + strays.len();
    points.extend(strays);
    remove_mount_points(directory, &points);

    Ok(Stopped { alive, dead, problems })
}

fn end_all(listed: &[Listed]) -> Vec<String> {
    let processes: Vec<Process> =
        listed.iter().filter(|it| it.alive).map(|it| it.instance.process).collect();
    let ended = Process::end_all(&processes, GRACE);
    ended.into_iter().filter_map(|ended| ended.err().map(|error| one_line(&error.into()))).collect()
}

/// Removes dead views at `directory` or `directory/<number>` that nobody is written down for, and
/// complains of living ones; the mount points of those removed.
fn remove_strays(
    instances: &Instances,
    directory: &Path,
    known: &BTreeSet<PathBuf>,
    problems: &mut Vec<String>,
) -> anyhow::Result<Vec<PathBuf>> {
    let Ok(directory) = resolve(directory) else { return Ok(Vec::new()) };
    let table = MountTable::read().context("cannot read the mount table")?;
    let is_rank = |point: &Path| {
        let name = point.file_name().and_then(|name| name.to_str()).unwrap_or("");
        let number = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_digit());
        point == directory || (point.parent() == Some(&directory) && number)
    };
    let mut removed = Vec::new();
    for mount in table.copper().filter(|it| is_rank(&it.point) && !known.contains(&it.point)) {
        match unmount_dead(&mount.point) {
            Ok(Unmounted::Plain | Unmounted::Lazy) => removed.push(mount.point.clone()),
            Ok(Unmounted::Gone) => problems.push(format!(
                "{} is a view ({}) that is alive and not in the register {}: stop it as the user \
                 and with the COPPER_RUN_DIR that started it",
                mount.point.display(),
                mount.id(),
                instances.path().display(),
            )),
            Err(error) => problems.push(one_line(&error.into())),
        }
    }
    Ok(removed)
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
