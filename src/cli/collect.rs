//! `copper collect`: what somebody needs who was not there, in one archive.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, bail, ensure};
use clap::Args;
use copper_launcher::{Instances, status};

use super::collect_hosts::{self, Recorded};
use super::progress::Stage;
use super::status::others;
use super::{flights, print, say};

/// What a run's folder has that tells something.
const PARTS: [&str; 4] = ["logs", "flight", "profiling", "tables"];

/// Variables that explain a job begin so.
const EXPLAINING: [&str; 12] = [
    "COPPER_",
    "FI_",
    "PBS_",
    "SLURM_",
    "PALS_",
    "PMI",
    "OMPI_",
    "MPI",
    "PATH",
    "LD_LIBRARY_PATH",
    "PYTHONPATH",
    "VIRTUAL_ENV",
];

/// And are left out if their name has one of these in it.
const SECRET: [&str; 6] = ["SECRET", "TOKEN", "PASS", "KEY", "CREDENTIAL", "AUTH"];

#[derive(Debug, Args)]
pub(super) struct CollectArguments {
    /// Where the views are mounted [default: /tmp/$USER/copper]
    #[arg(long, short = 'v', value_name = "DIR")]
    mount: Option<PathBuf>,

    /// The archive [default: copper-JOB.tar.gz in the current folder]
    #[arg(long, short = 'o', value_name = "FILE")]
    output: Option<PathBuf>,

    /// The folder of a run that has ended, DIR/JOB
    #[arg(long, value_name = "DIR", conflicts_with = "mount")]
    run: Option<PathBuf>,

    /// On this machine only, and tell whoever asks for it
    #[arg(long, hide = true)]
    here: bool,
}

pub(super) fn run(arguments: &CollectArguments) -> anyhow::Result<ExitCode> {
    let directory = super::mount_directory(arguments.mount.as_deref())?;
    if arguments.here {
        return collect_hosts::record_for_head(&directory);
    }
    let instances = Instances::open()?;
    let (listed, launch) = match &arguments.run {
        Some(_) => (Vec::new(), None),
        None => (instances.under(&directory)?, instances.read_launch(&directory)?),
    };
    let mut folders: BTreeSet<PathBuf> = listed.iter().map(flights::folder_of).collect();
    // A record of an older version names none.
    let named = launch.iter().map(|launch| &launch.folder).filter(|it| !it.as_os_str().is_empty());
    folders.extend(named.cloned());
    folders.extend(
        arguments.run.iter().map(|run| super::absolute(run)).collect::<Result<Vec<_>, _>>()?,
    );
    let Some(folder) = folders.first().cloned() else {
        bail!("nothing is running under {}: give --run DIR/JOB", directory.display());
    };
    ensure!(
        folders.len() == 1,
        "several jobs run under {}: give --run DIR/JOB",
        directory.display()
    );
    ensure!(folder.is_dir(), "{}: there is no such folder of a run", folder.display());
    let asking = Stage::begin("asking the ranks what happened last");
    let recorded = match &launch {
        Some(launch) => collect_hosts::record(&instances, launch)?,
        None => Recorded::here(&listed),
    };
    drop(asking);
    let mut report = status::collect(&listed);
    let mut notes = others::add(&listed, &mut report);
    notes.extend(recorded.notes(&folder));
    notes.iter().for_each(|note| say(&format!("copper: {note}")));
    let stage = folder.join(format!("collected-{}", std::process::id()));
    fs::create_dir(&stage).with_context(|| format!("cannot make {}", stage.display()))?;
    let job = folder.file_name().map_or("run".into(), |name| name.to_string_lossy().into_owned());
    let output = match &arguments.output {
        Some(output) => super::absolute(output)?,
        None => super::absolute(Path::new(&format!("copper-{job}.tar.gz")))?,
    };
    let texts = [
        ("status.json", serde_json::to_string_pretty(&report)?),
        ("notes.txt", lines(notes.iter())),
        ("versions.txt", versions()),
        ("environment.txt", environment(std::env::vars_os())),
    ];
    let packing = Stage::begin(format!("packing {}", folder.display()));
    let archived = archive(&folder, &stage, &texts, &output);
    drop(packing);
    fs::remove_dir_all(&stage).with_context(|| format!("cannot remove {}", stage.display()))?;
    archived?;
    print(&format!("{}: everything of {job} but secrets", output.display()))?;
    Ok(ExitCode::SUCCESS)
}

fn archive(
    folder: &Path,
    stage: &Path,
    texts: &[(&str, String)],
    output: &Path,
) -> anyhow::Result<()> {
    for (name, text) in texts {
        let path = stage.join(name);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    let parts = PARTS.into_iter().filter(|part| folder.join(part).is_dir());
    let mut tar = Command::new("tar");
    // Daemons go on writing meanwhile: what tar says of that is no failure (its exit status 1).
    tar.arg("-czf").arg(output).arg("-C").arg(stage).args(texts.iter().map(|(name, _)| name));
    tar.arg("-C").arg(folder).args(parts);
    let ended = tar.output().context("cannot start tar: is it installed?")?;
    if !matches!(ended.status.code(), Some(0 | 1)) {
        // It may not have been made.
        let _ = fs::remove_file(output);
        let said = String::from_utf8_lossy(&ended.stderr);
        let said = said.lines().next().unwrap_or("it says nothing");
        bail!("cannot write {}: {said}", output.display());
    }
    Ok(())
}

fn lines<T: AsRef<str>>(lines: impl Iterator<Item = T>) -> String {
    lines.map(|line| format!("{}\n", line.as_ref())).collect()
}

fn versions() -> String {
    let name = rustix::system::uname();
    let system = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let system = system.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    let words = [name.sysname(), name.release(), name.version(), name.machine()];
    let kernel: Vec<_> = words.iter().map(|word| word.to_string_lossy()).collect();
    lines(
        [
            format!("copper {}", super::version::long()),
            kernel.join(" "),
            system.unwrap_or("unknown system").trim_matches('"').to_owned(),
        ]
        .iter(),
    )
}

fn environment(
    variables: impl Iterator<Item = (std::ffi::OsString, std::ffi::OsString)>,
) -> String {
    let texts = variables.map(|(name, value)| {
        (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned())
    });
    let explains = |name: &str| EXPLAINING.iter().any(|word| name.starts_with(word));
    let is_secret = |name: &str| SECRET.iter().any(|word| name.to_uppercase().contains(word));
    let kept = texts.filter(|(name, _)| explains(name) && !is_secret(name));
    let mut kept: Vec<String> = kept.map(|(name, value)| format!("{name}={value}")).collect();
    kept.sort();
    lines(kept.iter())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_is_shown_as_far_as_it_explains_and_without_secrets() {
        let given = [
            ("FI_PROVIDER", "tcp"),
            ("COPPER_SECRET", "hidden"),
            ("SLURM_JWT_TOKEN", "hidden"),
            ("HOME", "/home/somebody"),
            ("COPPER_ROOT", "/opt/copper"),
        ];
        let given = given.map(|(name, value)| (name.into(), value.into()));
        assert_eq!(environment(given.into_iter()), "COPPER_ROOT=/opt/copper\nFI_PROVIDER=tcp\n");
    }
}
