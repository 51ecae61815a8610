//! `copper doctor`: what would keep a launch from succeeding, and what to do about it.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use copper_launcher::RunFolder;
use copper_ofi::Net;
use serde_json::json;

use super::environment::default_memory;
use super::print;
use super::serve::with_environment;
use super::size::Size;
use crate::doctor::{self, Plan, Verdict};

/// Where sshd listens.
const SSH_PORT: u16 = 22;

#[derive(Debug, Args)]
pub(super) struct DoctorArguments {
    /// Look at the hosts in FILE too, one a line
    #[arg(long, value_name = "FILE")]
    hosts: Option<PathBuf>,

    /// The port at which each host is knocked at: that of ssh
    #[arg(long, default_value_t = SSH_PORT, value_parser = clap::value_parser!(u16).range(1..))]
    port: u16,

    /// Where the view is to be mounted [default: /tmp/$USER/copper]
    #[arg(long, short = 'v', value_name = "DIR")]
    mount: Option<PathBuf>,

    /// Where logs are to go [default: ~/copper-logs]
    #[arg(long, short = 'd', value_name = "DIR")]
    log_dir: Option<PathBuf>,

    /// The fabric, as for `copper launch`
    #[arg(long, short = 'n', default_value = "auto")]
    net: Net,

    /// Each rank's cache [default: as for `copper launch`]
    #[arg(long, value_name = "SIZE")]
    memory: Option<Size>,

    /// Other users are to be let in
    #[arg(long)]
    allow_other: bool,

    /// Print everything as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &DoctorArguments) -> anyhow::Result<ExitCode> {
    with_environment(&arguments.net);
    let log_base = arguments.log_dir.clone().unwrap_or_else(RunFolder::default_base);
    let plan = Plan {
        mount: super::mount_directory(arguments.mount.as_deref())?,
        log_base: super::absolute(&log_base)?,
        net: arguments.net.clone(),
        allow_other: arguments.allow_other,
        memory_bytes: arguments.memory.map_or_else(|| default_memory(1), |Size(bytes)| bytes),
        hosts: arguments.hosts.clone().map(|file| (file, arguments.port)),
    };
    let findings = doctor::examine(&plan);
    let well = findings.iter().all(|finding| finding.verdict != Verdict::Fail);
    if arguments.json {
        print(&serde_json::to_string_pretty(&json!({ "ok": well, "findings": findings }))?)?;
    } else {
        for finding in &findings {
            print(&finding.to_string())?;
        }
    }
    Ok(if well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
