//! `copper stop` over several hosts: each of them stops what runs there, and says so.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use copper_launcher::{Answers, Fleet, HandedFile, Hosts, Instances, LaunchRecord, Said};

use super::launch_hosts::on_host;
use super::{print, say};

/// How long all hosts may take. A daemon has 3 s to unmount; the launcher takes the rest.
const BOUND: Duration = Duration::from_secs(20);

/// How long a step may take to end when its daemons have.
const STEP_GRACE: Duration = Duration::from_secs(2);

pub(super) fn run(instances: &Instances, launch: &LaunchRecord) -> anyhow::Result<ExitCode> {
    let hosts_file = HandedFile::hosts(instances.path(), &launch.hosts)?;
    let fleet = Fleet {
        launcher: launch.launcher,
        program: launch.program.clone(),
        options: launch.options.clone(),
        hosts: Hosts::from_names(launch.hosts.clone()),
        hosts_file: hosts_file.path().to_owned(),
    };
    let mut command = on_host(&launch.environment, launch.launcher.life())?;
    command.extend(["stop".into(), "--here".into(), "-v".into(), launch.mount.clone().into()]);
    let answers = fleet.ask(&command, BOUND)?;
    let failed = report(&answers);
    end_step(launch)?;
    if failed {
        // A second stop tries again.
        return Ok(ExitCode::FAILURE);
    }
    instances.forget_launch(&launch.mount)?;
    Ok(ExitCode::SUCCESS)
}

/// Says what came of it; whether anything failed.
fn report(answers: &Answers) -> bool {
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
            Said::Started { .. } | Said::Ready | Said::Counted(_) => {}
        }
    }
    for silent in &answers.silent {
        failed = true;
        say(&format!("copper: not stopped: {silent}"));
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
