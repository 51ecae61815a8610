//! Limits, memory, clock, and where logs and the register of daemons go.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use copper_launcher::Instances;
use copper_proto::topology::default_fanout;

use super::{Finding, Plan};
use crate::resource_limits::{Load, Need};

/// What a log, or a register, may need: less than this left is worth a word.
const SPACE_WANTED: u64 = 100 << 20;

/// What is written for trial: as much as the first lines of a log.
const TRIAL_BYTES: usize = 64 << 10;

/// How far a file server's clock may be off before times of files and of logs confuse.
const SKEW: Duration = Duration::from_secs(2);

pub(super) fn examine(plan: &Plan, hosts: usize) -> Vec<Finding> {
    let mut findings = limits(plan, hosts);
    findings.push(memory(plan.memory_bytes));
    let (logs, written) = folder("log folder", &plan.log_base, "choose another one with -d");
    findings.push(logs);
    findings.extend(written.map(clock));
    let (temporary, _) = folder("/tmp", &std::env::temp_dir(), "make room there, or set TMPDIR");
    findings.push(temporary);
    findings.push(register());
    findings
}

fn limits(plan: &Plan, hosts: usize) -> Vec<Finding> {
    let size = u32::try_from(hosts).unwrap_or(u32::MAX);
    let children = default_fanout(size).get() as usize;
    let (memory_bytes, net) = (plan.memory_bytes, &plan.net);
    let load = Load { children, trees: 1, passthrough: false, memory_bytes, net };
    let need = Need::of(load);
    let short = need.out_of_reach();
    if short.is_empty() {
        let found = format!("{} open files may be had", need.open_files);
        return vec![Finding::ok("limits", found)];
    }
    let advice = |text: &str| {
        let (found, advice) = text.split_once(": ").unwrap_or((text, "raise it"));
        Finding::warning("limits", found, advice)
    };
    short.iter().map(|shortage| advice(&shortage.to_string())).collect()
}

fn memory(wanted: u64) -> Finding {
    const CHECK: &str = "memory";
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib = line.and_then(|rest| rest.trim().trim_end_matches(" kB").parse::<u64>().ok());
    let (Some(available), mib) = (kib.map(|kib| kib << 10), |bytes: u64| bytes >> 20) else {
        return Finding::warning(CHECK, "/proc/meminfo does not say", "choose --memory with care");
    };
    let found =
        format!("{} MiB of {} MiB that are free, for each rank", mib(wanted), mib(available));
    if wanted > available {
        return Finding::fail(CHECK, found, "give less with --memory");
    }
    if wanted > available / 2 {
        return Finding::warning(CHECK, found, "the job has to live with the rest; else --memory");
    }
    Finding::ok(CHECK, found)
}

/// Writes a file where `folder` is, or would be made; and when that was by the clock of the file system.
fn folder(check: &'static str, folder: &Path, advice: &str) -> (Finding, Option<SystemTime>) {
    let there = folder.ancestors().find(|above| above.is_dir());
    let Some(there) = there else {
        return (Finding::fail(check, format!("there is no {}", folder.display()), advice), None);
    };
    let shown = there.display();
    let trial = there.join(format!(".copper-doctor-{}", std::process::id()));
    let written = write(&trial);
    // Ours, or not there.
    let _ = fs::remove_file(&trial);
    let finding = match (&written, space(there)) {
        (Err(error), _) => {
            Finding::fail(check, format!("cannot write in {shown}: {error}"), advice)
        }
        (Ok(_), Ok(free)) if free < SPACE_WANTED => {
            Finding::warning(check, format!("{} MiB are left in {shown}", free >> 20), advice)
        }
        (Ok(_), Ok(free)) => {
            Finding::ok(check, format!("{shown} can be written, {} MiB free", free >> 20))
        }
        (Ok(_), Err(error)) => Finding::warning(check, format!("{shown}: {error}"), advice),
    };
    (finding, written.ok())
}

/// Compares a time that a file system has just given with this machine's.
fn clock(written: SystemTime) -> Finding {
    const CHECK: &str = "clock";
    let now = SystemTime::now();
    let apart = written.duration_since(now).or_else(|_| now.duration_since(written));
    match apart {
        Ok(apart) if apart > SKEW => {
            let seconds = apart.as_secs_f32();
            let found =
                format!("this machine's and that of the log folder differ by {seconds:.0} s");
            let advice = "have them synchronised: times in logs cannot be compared";
            Finding::warning(CHECK, found, advice)
        }
        Ok(_) | Err(_) => Finding::ok(CHECK, "this machine's agrees with that of the log folder"),
    }
}

fn write(path: &PathBuf) -> io::Result<SystemTime> {
    let mut file: File = OpenOptions::new().write(true).create_new(true).open(path)?;
    file.write_all(&[0; TRIAL_BYTES])?;
    // Some file systems notice only now that they are full.
    file.sync_all()?;
    file.metadata()?.modified()
}

fn space(folder: &Path) -> io::Result<u64> {
    let statistics = rustix::fs::statvfs(folder)?;
    Ok(statistics.f_bavail.saturating_mul(statistics.f_frsize))
}

fn register() -> Finding {
    const CHECK: &str = "register";
    match Instances::open().and_then(|instances| Ok((instances.all()?, instances))) {
        Ok((all, instances)) => {
            let alive = all.iter().filter(|it| it.alive).count();
            let found = format!("{alive} daemons run, {} are dead", all.len() - alive);
            Finding::ok(CHECK, format!("{found}, in {}", instances.path().display()))
        }
        Err(error) => {
            let found = crate::cli::one_line(&error.into());
            Finding::fail(
                CHECK,
                found,
                "put that right, or set COPPER_RUN_DIR to a folder of yours",
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    #[test]
    fn a_clock_that_is_off_in_either_direction_is_pointed_out() {
        let now = SystemTime::now();
        assert_eq!(clock(now).verdict, Verdict::Ok);
        for off in [now + Duration::from_secs(60), now - Duration::from_secs(60)] {
            assert_eq!(clock(off).verdict, Verdict::Warning);
        }
    }
}
