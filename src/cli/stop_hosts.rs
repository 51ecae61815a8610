//! `copper stop` over several hosts: each of them stops what runs there, and says so.

use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use copper_launcher::{Answers, Fleet, HandedFile, Hosts, Instances, LaunchRecord, Launcher, Said};
use copper_proto::Rank;

use super::launch_hosts::on_host;
use super::{print, say};

/// How long all hosts may take: a daemon has 3 s to unmount, or to write something down, and a launcher takes
/// longer for more hosts.
pub(super) fn bound(hosts: usize) -> Duration {
    Duration::from_secs(8) + Duration::from_millis(2) * u32::try_from(hosts).unwrap_or(u32::MAX)
}

/// How long a step may take to end when its daemons have.
const STEP_GRACE: Duration = Duration::from_secs(2);

pub(super) fn run(instances: &Instances, launch: &LaunchRecord) -> anyhow::Result<ExitCode> {
    let (fleet, _hosts_file) = fleet_of(instances, launch)?;
    let mut command = on_host(&launch.environment)?;
    command.extend(["stop".into(), "--here".into(), "-v".into(), launch.mount.clone().into()]);
    let mut answers = fleet.ask(&command, bound(fleet.hosts.len()))?;
    end_step(launch)?;
    if !answers.silent.is_empty() {
        ask_each(instances, &fleet, &command, &mut answers)?;
    }
    if report(&answers, launch) {
        // A second stop tries again.
        return Ok(ExitCode::FAILURE);
    }
    instances.forget_launch(&launch.mount)?;
    Ok(ExitCode::SUCCESS)
}

/// The hosts of a launch, by what it was launched with; for as long as the file with their names is held.
pub(super) fn fleet_of(
    instances: &Instances,
    launch: &LaunchRecord,
) -> anyhow::Result<(Fleet, HandedFile)> {
    let hosts_file = HandedFile::hosts(instances.path(), &launch.hosts)?;
    let fleet = Fleet {
        launcher: launch.launcher,
        program: launch.program.clone(),
        options: launch.options.clone(),
        hosts: Hosts::from_names(launch.hosts.clone()),
        hosts_file: hosts_file.path().to_owned(),
    };
    Ok((fleet, hosts_file))
}

/// Asks those that have not answered one by one: where one host is down, some launchers start nothing
/// on the others either.
pub(super) fn ask_each(
    instances: &Instances,
    fleet: &Fleet,
    command: &[OsString],
    answers: &mut Answers,
) -> anyhow::Result<()> {
    let Some(program) = Launcher::Ssh.program().filter(|_| fleet.launcher != Launcher::Ssh) else {
        return Ok(());
    };
    let names: Vec<String> = answers.silent.iter().map(|silent| silent.host.clone()).collect();
    let hosts_file = HandedFile::hosts(instances.path(), &names)?;
    let rest = Fleet {
        launcher: Launcher::Ssh,
        program,
        options: Vec::new(),
        hosts: Hosts::from_names(names),
        hosts_file: hosts_file.path().to_owned(),
    };
    let each = rest.ask(command, bound(rest.hosts.len()))?;
    let ranks: Vec<Rank> = answers.silent.iter().map(|silent| silent.rank).collect();
    let rank = |index: u32| ranks[index as usize];
    answers.said.extend(each.said.into_iter().map(|(index, said)| (rank(index).0, said)));
    answers.silent = each.silent;
    for silent in &mut answers.silent {
        silent.rank = rank(silent.rank.0);
    }
    Ok(())
}

/// Says what came of it; whether anything failed.
fn report(answers: &Answers, launch: &LaunchRecord) -> bool {
    let (mut alive_all, mut dead_all, mut failed) = (0, 0, false);
    for (rank, said) in &answers.said {
        match said {
            Said::Stopped { alive, dead } => {
                alive_all += alive;
                dead_all += dead;
            }
            Said::Failed { reason } => {
                failed = true;
                say(&format!("copper: rank {rank}: {reason}"));
            }
            Said::Started { .. } | Said::Ready | Said::Counted(_) | Said::Recorded { .. } => {}
        }
    }
    for silent in &answers.silent {
        failed = true;
        say(&format!("copper: not stopped: {silent}"));
    }
    if !answers.silent.is_empty() && !answers.words.is_empty() {
        say(&format!("copper: {} said: {}", launch.launcher, answers.words.join(" | ")));
    }
    if (alive_all, dead_all, failed) == (0, 0, false) {
        let _ = print(&format!("nothing was running under {}", launch.mount.display()));
        return false;
    }
    let dead =
        if dead_all > 0 { format!(", {dead_all} dead ones cleaned up") } else { String::new() };
    let _ = print(&format!("{alive_all} ranks stopped{dead}"));
    failed
}

/// The launcher that held the daemons ends with them; one that does not is ended.
fn end_step(launch: &LaunchRecord) -> anyhow::Result<()> {
    let Some(process) = launch.process else { return Ok(()) };
    process
        .end_within(STEP_GRACE)
        .with_context(|| format!("the launcher {} ({process}) does not end", launch.launcher))
}
