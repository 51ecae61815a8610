//! What the flight recorders of this machine's ranks hold: the daemons are asked to write it down.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use anyhow::Context;
use copper_launcher::Listed;
use copper_launcher::job::run_of;

use crate::flight::Flight;

/// How long daemons may take to write their files.
const WRITTEN_BOUND: Duration = Duration::from_secs(3);

/// What such a file's name ends in.
const SUFFIX: &str = ".jsonl";

/// Where a rank's run keeps its files.
pub(super) fn folder_of(listed: &Listed) -> PathBuf {
    run_of(listed.instance.log.as_deref(), &listed.instance.job)
}

/// Has every daemon that lives write its recorder down; the newest file of each rank that has one.
/// Who does not write in time shows an older file, or none.
pub(super) fn ask(listed: &[Listed]) -> Vec<PathBuf> {
    let alive: Vec<&Listed> = listed.iter().filter(|it| it.alive).collect();
    let newest = |listed: &Listed| {
        let (host, pid) = (&listed.instance.host, listed.instance.process.pid);
        newest_of(&folder_of(listed).join("flight"), &format!("{host}-{pid}-"))
    };
    let before: Vec<Option<SystemTime>> =
        alive.iter().map(|it| newest(it).map(|(time, _)| time)).collect();
    for it in &alive {
        // One that has ended meanwhile shows what it has.
        let _ = it.instance.process.ask_for_flight();
    }
    let until = Instant::now() + WRITTEN_BOUND;
    loop {
        let found: Vec<_> = alive.iter().map(|it| newest(it)).collect();
        let is_new = |(new, old): (&Option<(SystemTime, PathBuf)>, &Option<SystemTime>)| {
            new.as_ref().is_some_and(|(time, _)| Some(*time) > *old)
        };
        if found.iter().zip(&before).all(is_new) || Instant::now() > until {
            return found.into_iter().flatten().map(|(_, path)| path).collect();
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn newest_of(folder: &Path, prefix: &str) -> Option<(SystemTime, PathBuf)> {
    let entries = fs::read_dir(folder).ok()?.filter_map(Result::ok);
    let files = entries.filter(|entry| {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        name.starts_with(prefix) && name.ends_with(SUFFIX)
    });
    let timed =
        files.filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path())));
    timed.max()
}

/// The newest file of each rank in a folder.
pub(super) fn read_folder(folder: &Path) -> anyhow::Result<Vec<Flight>> {
    let name = folder.display();
    let entries = fs::read_dir(folder).with_context(|| format!("cannot read {name}"))?;
    let mut files = Vec::new();
    for entry in entries {
        let entry = entry.with_context(|| format!("cannot read {name}"))?;
        if entry.file_name().to_string_lossy().ends_with(SUFFIX) {
            let written = entry.metadata().and_then(|metadata| metadata.modified());
            files.push((written.unwrap_or(SystemTime::UNIX_EPOCH), entry.path()));
        }
    }
    files.sort();
    read(files.into_iter().map(|(_, path)| path))
}

/// Each file; of several of one rank the last.
pub(super) fn read(paths: impl IntoIterator<Item = PathBuf>) -> anyhow::Result<Vec<Flight>> {
    let mut flights = BTreeMap::new();
    for path in paths {
        let name = path.display();
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {name}"))?;
        let flight = Flight::parse(&text)
            .with_context(|| format!("{name} is no file of a flight recorder"))?;
        flights.insert(flight.head.rank, flight);
    }
    Ok(flights.into_values().collect())
}
