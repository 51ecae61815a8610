//! `copper top`: what all ranks of a job do, again and again, on a terminal or once as text.

mod asker;
mod screen;

use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use anyhow::bail;
use clap::Args;

use super::{print, say};
use crate::top::{Order, View, draw};
use asker::Asker;

/// Columns of a frame for a log: with the hosts.
const COLUMNS_OF_LOG: usize = 120;

/// More often would measure itself; the longest is a day.
const INTERVAL_SECONDS: std::ops::RangeInclusive<f64> = 0.2..=86_400.0;

#[derive(Debug, Args)]
pub(super) struct TopArguments {
    /// Where the views are mounted [default: /tmp/$USER/copper]
    #[arg(long, short = 'v', value_name = "DIR")]
    mount: Option<PathBuf>,

    /// Seconds between two frames
    #[arg(long, value_name = "S", default_value = "2", value_parser = interval)]
    interval: Duration,

    /// Print one frame as text, of the interval that begins now, and end
    #[arg(long)]
    once: bool,

    /// Begin with one row for each level of the tree, not for each rank
    #[arg(long)]
    levels: bool,
}

fn interval(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().filter(|seconds| INTERVAL_SECONDS.contains(seconds));
    seconds.map(Duration::from_secs_f64).ok_or_else(|| {
        let (least, most) = (INTERVAL_SECONDS.start(), INTERVAL_SECONDS.end());
        format!("give seconds, from {least} to {most}")
    })
}

pub(super) fn run(arguments: &TopArguments) -> anyhow::Result<ExitCode> {
    let directory = super::mount_directory(arguments.mount.as_deref())?;
    let at_terminal = io::stdin().is_terminal() && io::stdout().is_terminal();
    if !arguments.once && !at_terminal {
        bail!("standard input and output are no terminal: use --once");
    }
    let nobody = || {
        say(&format!("copper: nothing is running under {}", directory.display()));
        Ok(ExitCode::FAILURE)
    };
    let mut asker = Asker::new(&directory);
    let Some(first) = asker.ask()? else { return nobody() };
    if !arguments.once {
        return match screen::show(asker, first, arguments.interval, arguments.levels)? {
            screen::End::Asked => Ok(ExitCode::SUCCESS),
            screen::End::Signalled(code) => Ok(ExitCode::from(code)),
            screen::End::NobodyRuns => nobody(),
        };
    }
    thread::sleep(arguments.interval);
    let Some(second) = asker.ask()? else { return nobody() };
    let view = View {
        columns: COLUMNS_OF_LOG,
        rows: None,
        skipped: 0,
        order: Order::Tree,
        by_level: arguments.levels,
        help: false,
        unheard_s: None,
    };
    for line in draw(Some(&first), &second, &view).lines {
        print(&line.text)?;
    }
    Ok(ExitCode::SUCCESS)
}
