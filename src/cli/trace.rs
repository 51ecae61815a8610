//! `copper trace`: one request's way through the tree, and what each rank did about it.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::bail;
use clap::Args;
use copper_launcher::Instances;

use super::{flights, print};
use crate::flight::{Hop, Line, follow};

#[derive(Debug, Args)]
pub(super) struct TraceArguments {
    /// The rank whose reader asked; its last answered request, if no other is named
    #[arg(long, value_name = "RANK", required = true)]
    follow: u32,

    /// The request's number, as a trace shows it
    #[arg(long, value_name = "N")]
    number: Option<u64>,

    /// The last request for this path
    #[arg(long, value_name = "PATH")]
    path: Option<String>,

    /// What was written down before, DIR/JOB/flight, instead of asking the ranks of this machine
    #[arg(long, value_name = "DIR", conflicts_with = "mount")]
    from: Option<PathBuf>,

    /// Where the views are mounted [default: /tmp/$USER/copper]
    #[arg(long, short = 'v', value_name = "DIR")]
    mount: Option<PathBuf>,
}

pub(super) fn run(arguments: &TraceArguments) -> anyhow::Result<ExitCode> {
    let flights = match &arguments.from {
        Some(folder) => flights::read_folder(folder)?,
        None => {
            let directory = super::mount_directory(arguments.mount.as_deref())?;
            let listed = Instances::open()?.under(&directory)?;
            if !listed.iter().any(|it| it.alive) {
                bail!(
                    "nothing is running under {}: give --from DIR/JOB/flight",
                    directory.display()
                );
            }
            flights::read(flights::ask(&listed))?
        }
    };
    let way = follow(&flights, arguments.follow, arguments.number, arguments.path.as_deref());
    if way.is_empty() {
        let ranks: Vec<String> =
            flights.iter().map(|flight| flight.head.rank.to_string()).collect();
        bail!(
            "no such request of rank {} among the last events of rank {}: a recorder keeps some \
             thousand of them, and what the kernel answers is none",
            arguments.follow,
            ranks.join(" "),
        );
    }
    for hop in &way {
        print(&shown(hop))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// One line: milliseconds since the question, the rank, further in for each rank that was asked.
fn shown(hop: &Hop<'_>) -> String {
    let Line { what, peer, number, path, aspect, block, bytes, result, errno, .. } = hop.line;
    let mut text = format!("{:>10.3} ms ", hop.seconds * 1e3);
    text.push_str(&"  ".repeat(hop.depth));
    text.push_str(&format!("rank {}: {what}", hop.rank));
    if let Some(peer) = peer {
        text.push_str(&format!(" rank {peer}"));
    }
    text.push_str(&format!(" #{number}"));
    if let Some(path) = path {
        text.push_str(&format!(" {path}"));
    }
    if let Some(aspect) = aspect {
        text.push_str(&format!(" {aspect}"));
    }
    if let Some(block) = block {
        text.push_str(&format!(" {block}"));
    }
    if *bytes > 0 {
        text.push_str(&format!(" {bytes} bytes"));
    }
    if !result.is_empty() {
        text.push_str(&format!(" {result}"));
    }
    if let Some(errno) = errno {
        text.push_str(&format!(" (errno {errno})"));
    }
    text
}
