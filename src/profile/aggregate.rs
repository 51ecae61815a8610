//! The final profiles of all ranks of a run, added up: `profiling/cluster/cluster-profiling_*`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use super::tables::{self, ABSENCE_METRICS, AGGREGATE_HEADER, OPERATIONS_HEADER};
use super::{Absences, Shown};
use crate::whole_file::write_whole;

/// How the files end that are added up.
const OPERATIONS: &str = "-profiling_operations.csv";
const AGGREGATE: &str = "-profiling_aggregate.csv";

/// What was added up.
#[derive(Debug)]
pub(crate) struct Aggregated {
    pub(crate) ranks: usize,
    pub(crate) folder: PathBuf,
}

/// Adds up the final profiles below a run's folder, or below its `profiling`.
///
/// # Errors
/// If there are none, or one is not what it should be.
pub(crate) fn aggregate(run: &Path) -> anyhow::Result<Aggregated> {
    let profiling = if run.ends_with("profiling") { run.to_owned() } else { run.join("profiling") };
    let finals = profiling.join("final");
    let names = profiles(&finals)?;
    if names.is_empty() {
        bail!(
            "{} has no profile: was the job launched with -P, and has it ended?",
            finals.display()
        );
    }
    let mut operations: BTreeMap<usize, Shown> = BTreeMap::new();
    let mut absences = Absences::default();
    for name in &names {
        let path = finals.join(format!("{name}{OPERATIONS}"));
        add_operations(&read(&path)?, &mut operations).with_context(|| not_ours(&path))?;
        let path = finals.join(format!("{name}{AGGREGATE}"));
        add_absences(&read(&path)?, &mut absences).with_context(|| not_ours(&path))?;
    }
    let rows: Vec<Shown> = operations.into_values().collect();
    let folder = profiling.join("cluster");
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let mut summary = format!("# Copper profile: {} ranks added up\n", names.len());
    tables::cluster_tables(&mut summary, &rows, absences);
    let texts = [
        ("operations.csv", tables::operations(&rows)),
        ("aggregate.csv", tables::aggregate(&rows, absences)),
        ("summary.md", summary),
    ];
    for (kind, text) in texts {
        let path = folder.join(format!("cluster-profiling_{kind}"));
        write_whole(&path, &text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(Aggregated { ranks: names.len(), folder })
}

/// What the names of the profiles in a folder begin with: `HOST-PID`, whatever the host is called.
fn profiles(folder: &Path) -> anyhow::Result<Vec<String>> {
    let entries = fs::read_dir(folder)
        .with_context(|| format!("{}: give the folder of a run, DIR/JOB", folder.display()))?;
    let mut names = Vec::new();
    for entry in entries {
        let name = entry?.file_name();
        let Some(name) = name.to_str().and_then(|name| name.strip_suffix(OPERATIONS)) else {
            continue;
        };
        let is_pid = |pid: &str| !pid.is_empty() && pid.bytes().all(|byte| byte.is_ascii_digit());
        if name.rsplit_once('-').is_some_and(|(host, pid)| !host.is_empty() && is_pid(pid)) {
            names.push(name.to_owned());
        }
    }
    names.sort();
    Ok(names)
}

fn read(path: &Path) -> anyhow::Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

fn not_ours(path: &Path) -> String {
    format!("{} is not a profile of this version", path.display())
}

/// Adds the rows of an operations.csv, in the order of their lines.
fn add_operations(text: &str, sums: &mut BTreeMap<usize, Shown>) -> anyhow::Result<()> {
    let mut lines = text.lines();
    if lines.next() != Some(OPERATIONS_HEADER) {
        bail!("it begins with other columns");
    }
    for (index, line) in lines.enumerate() {
        let fields: Vec<&str> = line.split(',').collect();
        let [name, calls, hits, misses, negatives, _, total_s] = fields[..] else {
            bail!("{line:?} has another number of fields");
        };
        let row = sums
            .entry(index)
            .or_insert_with(|| Shown { name: name.to_owned(), ..Shown::default() });
        if row.name != name {
            bail!("{name} stands where others have {}", row.name);
        }
        row.calls += number(calls)?;
        row.timed = row.calls;
        row.hits += number(hits)?;
        row.misses += number(misses)?;
        row.negatives += number(negatives)?;
        row.total_ns += nanoseconds(total_s)?;
    }
    Ok(())
}

fn add_absences(text: &str, sums: &mut Absences) -> anyhow::Result<()> {
    let mut lines = text.lines();
    if lines.next() != Some(AGGREGATE_HEADER) {
        bail!("it begins with other columns");
    }
    for line in lines {
        let (metric, value) = line.split_once(',').context("a line has one field")?;
        if let Some(index) = ABSENCE_METRICS.iter().position(|name| *name == metric) {
            sums[index] += number(value)?;
        }
    }
    Ok(())
}

fn number(text: &str) -> anyhow::Result<u64> {
    text.parse().with_context(|| format!("{text:?} is no number"))
}

/// Of seconds with nine decimals, without a detour over floating point.
fn nanoseconds(text: &str) -> anyhow::Result<u64> {
    let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
    if decimals.len() > 9 {
        bail!("{text:?} has more than nine decimals");
    }
    let nanos = number(&format!("{decimals:0<9}"))?;
    Ok(number(whole)? * 1_000_000_000 + nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_read_exactly() {
        assert_eq!(nanoseconds("12.000000034").expect("seconds"), 12_000_000_034);
        assert_eq!(nanoseconds("0.5").expect("seconds"), 500_000_000);
        assert_eq!(nanoseconds("7").expect("seconds"), 7_000_000_000);
        assert!(nanoseconds("1.0000000001").is_err() && nanoseconds("-1").is_err());
    }
}
