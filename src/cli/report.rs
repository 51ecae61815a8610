//! `copper report`: what the files of a run tell.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::{ArgGroup, Args};

use super::print;
use super::progress::Stage;
use crate::{profile, report};

#[derive(Debug, Args)]
#[command(group(ArgGroup::new("what").required(true).args(["folder", "aggregate", "advice"])))]
pub(super) struct ReportArguments {
    /// Write a page of the run in DIR/JOB: HTML that needs nothing else
    #[arg(value_name = "DIR")]
    folder: Option<PathBuf>,

    /// Where the page goes; report.html in DIR if it is not said
    #[arg(short, long, value_name = "FILE", requires = "folder")]
    output: Option<PathBuf>,

    /// Add up the final profiles of all ranks of a run, in DIR/JOB: into profiling/cluster there
    #[arg(long, value_name = "DIR")]
    aggregate: Option<PathBuf>,

    /// Print what an environment could do without, from a run with -A in DIR/JOB: absent names by class,
    /// and entries of PATH, LD_LIBRARY_PATH and PYTHONPATH, as they are set here, that give nothing
    #[arg(long, value_name = "DIR")]
    advice: Option<PathBuf>,

    /// Look below DIR for files that nobody has touched
    #[arg(long, value_name = "DIR", requires = "advice")]
    environment: Option<PathBuf>,

    /// Write the paths that were used into FILE, one a line
    #[arg(long, value_name = "FILE", requires = "advice")]
    allow_list: Option<PathBuf>,
}

pub(super) fn run(arguments: &ReportArguments) -> anyhow::Result<ExitCode> {
    if let Some(folder) = &arguments.aggregate {
        let stage = Stage::begin(format!("adding up the profiles in {}", folder.display()));
        let aggregated = profile::aggregate(folder)?;
        drop(stage);
        print(&format!("{} ranks added up in {}", aggregated.ranks, aggregated.folder.display()))?;
    }
    if let Some(folder) = &arguments.folder {
        let stage = Stage::begin(format!("reading the run in {}", folder.display()));
        let page = report::page(folder)?;
        drop(stage);
        let output = arguments.output.clone().unwrap_or_else(|| folder.join("report.html"));
        write(&output, &page)?;
        print(&format!("{}", output.display()))?;
    }
    if let Some(folder) = &arguments.advice {
        let stage = Stage::begin(format!("reading the profiles in {}", folder.display()));
        let advice = report::advice(folder, arguments.environment.as_deref())?;
        drop(stage);
        if let Some(file) = &arguments.allow_list {
            write(file, &advice.allow_list)?;
        }
        print(advice.text.trim_end())?;
    }
    Ok(ExitCode::SUCCESS)
}

fn write(file: &Path, text: &str) -> anyhow::Result<()> {
    fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
}
