//! `copper ctl`: an ioctl to every view of this machine.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Args;
use copper_launcher::Instances;
use copper_ofi::plain_ioctl;

use super::compatible::Usage;
use super::print;
use crate::controls::{CONTROLS, by_word};

#[derive(Debug, Args)]
pub(super) struct CtlArguments {
    /// A code, or its name; without one, all of them are listed
    #[arg(value_name = "CODE|NAME")]
    word: Option<String>,

    /// Where the views are mounted [default: /tmp/$USER/copper]
    #[arg(long, short = 'v', value_name = "DIR")]
    mount: Option<PathBuf>,
}

pub(super) fn run(arguments: &CtlArguments) -> anyhow::Result<ExitCode> {
    let Some(word) = &arguments.word else {
        for control in CONTROLS {
            print(&format!("{:>5} {}", control.code, control.name))?;
        }
        return Ok(ExitCode::SUCCESS);
    };
    let Some(control) = by_word(word) else {
        let unknown = anyhow::anyhow!("{word} is no code: `copper ctl` lists them");
        return Err(Usage::of(unknown).into());
    };
    let directory = super::mount_directory(arguments.mount.as_deref())?;
    let listed = Instances::open()?.under(&directory)?;
    let mounts: Vec<_> = listed.iter().filter(|it| it.alive).map(|it| &it.instance.mount).collect();
    if mounts.is_empty() {
        bail!("nothing is running under {}", directory.display());
    }
    for mount in mounts {
        let asked = File::open(mount).and_then(|view| plain_ioctl(view.as_fd(), control.code));
        asked.with_context(|| format!("{}: {} was not done", mount.display(), control.name))?;
        print(&format!("{}: {}", mount.display(), control.name))?;
    }
    Ok(ExitCode::SUCCESS)
}
