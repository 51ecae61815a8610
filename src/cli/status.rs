//! `copper status`: what every rank of this machine is doing.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use copper_launcher::{Instances, status};
use serde_json::Value;

use super::size::Size;
use super::{print, say};

#[derive(Debug, Args)]
pub(super) struct StatusArguments {
    /// Where the views are mounted [default: /tmp/$USER/copper]
    #[arg(long, short = 'v', value_name = "DIR")]
    mount: Option<PathBuf>,

    /// Print everything as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &StatusArguments) -> anyhow::Result<ExitCode> {
    let directory = arguments.mount.clone().unwrap_or_else(super::default_mount);
    let directory = std::path::absolute(&directory)
        .with_context(|| format!("{} is no path", directory.display()))?;
    let listed = Instances::open()?.under(&directory)?;
    let report = status::collect(&listed);
    if arguments.json {
        print(&serde_json::to_string_pretty(&report)?)?;
    } else if listed.is_empty() {
        say(&format!("copper: nothing is running under {}", directory.display()));
    } else {
        print_table(&report)?;
    }
    Ok(if listed.is_empty() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn print_table(report: &Value) -> anyhow::Result<()> {
    print(&format!(
        "{:>5} {:<9} {:>8} {:>6} {:>9} {:>10} {:>8} {:>10} {:>9}  {}",
        "rank", "state", "pid", "parent", "opens", "read", "pulls", "pulled", "cache", "mount"
    ))?;
    for rank in report["ranks"].as_array().into_iter().flatten() {
        let text = |value: &Value| match value {
            Value::String(text) => text.clone(),
            Value::Null => "-".to_owned(),
            other => other.to_string(),
        };
        let bytes = |value: &Value| match value.as_u64() {
            Some(bytes) => Size(bytes).to_string(),
            None => "-".to_owned(),
        };
        print(&format!(
            "{:>5} {:<9} {:>8} {:>6} {:>9} {:>10} {:>8} {:>10} {:>9}  {}",
            text(&rank["rank"]),
            text(&rank["state"]),
            text(&rank["pid"]),
            text(&rank["parent"]),
            text(&rank["source"]["opens"]),
            bytes(&rank["source"]["bytes"]),
            text(&rank["fabric"]["pulls"]),
            bytes(&rank["fabric"]["pulled_bytes"]),
            bytes(&rank["cache"]["bytes"]),
            text(&rank["mount"]),
        ))?;
    }
    Ok(())
}
