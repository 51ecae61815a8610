//! `copper collect` over several hosts: each of them has its ranks write down what happened last.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use copper_launcher::job::host_name;
use copper_launcher::{Instances, LaunchRecord, Line, Listed, Said};

use super::launch_hosts::on_host;
use super::status::others::is_local;
use super::stop_hosts::{ask_each, bound, fleet_of};
use super::{flights, one_line, print};

/// Who has written down what happened last.
#[derive(Debug, Default)]
pub(super) struct Recorded {
    alive: usize,
    files: Vec<PathBuf>,
    problems: Vec<String>,
}

impl Recorded {
    /// The ranks of this machine.
    pub(super) fn here(listed: &[Listed]) -> Recorded {
        let (alive, files) = (listed.iter().filter(|it| it.alive).count(), flights::ask(listed));
        let elsewhere =
            |it: &&Listed| !is_local(&it.instance) && it.instance.size as usize > listed.len();
        let problems = listed.iter().find(elsewhere).map(|_| {
            "only the ranks of this machine were asked: run it on the machine that has launched the \
             job to have the others write down what happened last"
                .to_owned()
        });
        Recorded { alive, files, problems: problems.into_iter().collect() }
    }

    /// What a user should know of it, who gets an archive of this folder.
    pub(super) fn notes(&self, folder: &Path) -> Vec<String> {
        let mut notes = self.problems.clone();
        let written = self.files.len();
        if written < self.alive {
            notes
                .push(format!("{written} of {} ranks have written what happened last", self.alive));
        }
        let away: Vec<&PathBuf> = self.files.iter().filter(|file| !file.exists()).collect();
        if let Some(first) = away.first() {
            notes.push(format!(
                "{} files are not in {} on this machine, which their hosts do not share: {} and others",
                away.len(),
                folder.display(),
                first.display()
            ));
        }
        notes
    }
}

/// Has the ranks of all hosts of a launch do it.
pub(super) fn record(instances: &Instances, launch: &LaunchRecord) -> anyhow::Result<Recorded> {
    let (fleet, _hosts_file) = fleet_of(instances, launch)?;
    let mut command = on_host(&launch.environment)?;
    command.extend(["collect".into(), "--here".into(), "-v".into(), launch.mount.clone().into()]);
    let mut answers = fleet.ask(&command, bound(fleet.hosts.len()))?;
    if !answers.silent.is_empty() {
        ask_each(instances, &fleet, &command, &mut answers)?;
    }
    let mut recorded = Recorded::default();
    for (rank, said) in answers.said {
        match said {
            Said::Recorded { alive, files } => {
                recorded.alive += alive;
                recorded.files.extend(files);
            }
            Said::Failed { reason } => recorded.problems.push(format!("rank {rank}: {reason}")),
            Said::Started { .. } | Said::Ready | Said::Counted(_) | Said::Stopped { .. } => {}
        }
    }
    let silent: BTreeSet<String> = answers.silent.iter().map(ToString::to_string).collect();
    recorded.problems.extend(silent.into_iter().map(|it| format!("not asked: {it}")));
    Ok(recorded)
}

/// On one host of a launch: the result goes to the head, as a line.
pub(super) fn record_for_head(directory: &Path) -> anyhow::Result<ExitCode> {
    let listed = Instances::open().and_then(|instances| instances.under(directory));
    let said = match listed {
        Ok(listed) => Said::Recorded {
            alive: listed.iter().filter(|it| it.alive).count(),
            files: flights::ask(&listed),
        },
        Err(error) => Said::Failed { reason: one_line(&error.into()) },
    };
    print(&Line { host: host_name(), rank: None, said }.print())?;
    Ok(ExitCode::SUCCESS)
}
