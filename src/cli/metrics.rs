//! `copper metrics`: the ranks of this machine, as text for Prometheus.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use copper_launcher::{Instances, status};

use super::{print, say};
use crate::metrics;
use crate::whole_file::write_whole;

#[derive(Debug, Args)]
pub(super) struct MetricsArguments {
    /// Where the views are mounted [default: /tmp/$USER/copper]
    #[arg(long, short = 'v', value_name = "DIR")]
    mount: Option<PathBuf>,

    /// Write to FILE, whole or not at all, as node_exporter's textfile collector wants it
    #[arg(long, value_name = "FILE")]
    textfile: Option<PathBuf>,
}

pub(super) fn run(arguments: &MetricsArguments) -> anyhow::Result<ExitCode> {
    let directory = super::mount_directory(arguments.mount.as_deref())?;
    let listed = Instances::open()?.under(&directory)?;
    // Also of nobody: a file that stayed would tell of ranks that are gone.
    let text = metrics::text(&status::collect(&listed));
    match &arguments.textfile {
        Some(file) => write_whole(file, &text).with_context(|| {
            format!("cannot write {}: choose another --textfile", file.display())
        })?,
        None => print(text.trim_end())?,
    }
    if listed.is_empty() {
        say(&format!("copper: nothing is running under {}", directory.display()));
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}
