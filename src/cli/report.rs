//! `copper report`: what the files of a run tell.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::print;
use crate::profile;

#[derive(Debug, Args)]
pub(super) struct ReportArguments {
    /// Add up the final profiles of all ranks of a run, in DIR/JOB: into profiling/cluster there
    #[arg(long, value_name = "DIR", required = true)]
    aggregate: PathBuf,
}

pub(super) fn run(arguments: &ReportArguments) -> anyhow::Result<ExitCode> {
    let aggregated = profile::aggregate(&arguments.aggregate)?;
    print(&format!("{} ranks added up in {}", aggregated.ranks, aggregated.folder.display()))?;
    Ok(ExitCode::SUCCESS)
}
