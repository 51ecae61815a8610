//! `copper agent`: what launchers run on each host. See [`copper_launcher::agent`].

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use copper_launcher::job::host_name;
use copper_launcher::{AgentPlan, Life, Line, Said};
use copper_proto::Rank;

use super::{one_line, print, version};

#[derive(Debug, Args)]
pub(super) struct AgentArguments {
    /// What the launch is by
    #[arg(long)]
    expect: String,

    /// Stay for as long as the daemon lives
    #[arg(long)]
    step: bool,

    /// Standard input comes to every rank
    #[arg(long)]
    all_hear: bool,

    #[arg(long)]
    rank: Option<u32>,

    #[arg(long)]
    hosts: Option<PathBuf>,

    #[arg(long)]
    port: u16,

    #[arg(long)]
    mount: PathBuf,

    #[arg(long)]
    folder: PathBuf,

    #[arg(long)]
    ready_timeout: u64,

    /// What the daemon is started with, quoted as for a shell
    #[arg(long, allow_hyphen_values = true)]
    daemon: String,
}

pub(super) fn run(arguments: AgentArguments) -> anyhow::Result<ExitCode> {
    let rank = arguments.rank;
    match plan(arguments) {
        Ok(plan) => Ok(plan.run()),
        Err(error) => {
            let said = Said::Failed { reason: one_line(&error) };
            print(&Line { host: host_name(), rank, said }.print())?;
            Ok(ExitCode::FAILURE)
        }
    }
}

fn plan(arguments: AgentArguments) -> anyhow::Result<AgentPlan> {
    let daemon = shell_words::split(&arguments.daemon).context("--daemon")?;
    Ok(AgentPlan {
        exe: std::env::current_exe().context("cannot find this program")?,
        expected: arguments.expect,
        version: version::short(),
        life: if arguments.step { Life::Step } else { Life::Detached },
        all_hear: arguments.all_hear,
        rank: arguments.rank.map(Rank),
        hosts_file: arguments.hosts,
        port: arguments.port,
        mount: arguments.mount,
        folder: arguments.folder,
        daemon: daemon.into_iter().map(OsString::from).collect(),
        ready_timeout: Duration::from_secs(arguments.ready_timeout),
    })
}
