//! Measures what can be measured here of the model's numbers: between ranks of `copper bench`, through
//! the mount of one rank, and at the source itself. What cannot be measured stays as it is.
//!
//! Work is measured as processor time, of the reader and of the daemon: it is what ranks of one
//! machine take from each other, and other people's work is not in it.

mod machine;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use copper_ofi::Net;
use rustix::fs::{Advice, AtFlags, fadvise, statat};

use self::machine::OneRank;
use super::Constants;
use crate::bench::{Amount, Costs, LocalFleet, costs};

/// What is measured between ranks.
const AMOUNT: Amount = Amount { answers: 1000, blocks: 48 };

/// Names that are looked up, and folders in which one is.
const NAMES: u32 = 2000;
const FOLDERS: u32 = 200;

/// A file that is read through the mount.
const FILE_BYTES: usize = 32 << 20;

/// Entries of the source that are looked at.
const ENTRIES_MAX: usize = 2000;

/// Bytes of the source that are read.
const SOURCE_BYTES_MAX: u64 = 64 << 20;

/// Faster than any of this is not told from instantaneous.
const BYTES_PER_SECOND_MAX: f64 = 1e12;

/// Where and with what is measured.
#[derive(Clone, Debug)]
pub(crate) struct Calibration {
    /// Ranks that fetch from each other at the same time.
    pub(crate) ranks: u32,
    pub(crate) net: Net,
    /// A folder of the source.
    pub(crate) source: PathBuf,
}

/// The usual constants with what was measured in their place, and a line for each group that says how.
///
/// # Errors
/// If something cannot be started, or the source cannot be read.
pub(crate) fn calibrate(how: &Calibration) -> anyhow::Result<(Constants, Vec<String>)> {
    let mut constants = Constants::default();
    let mut lines = Vec::new();
    between_ranks(how, &mut constants, &mut lines)?;
    through_a_mount(&mut constants, &mut lines)?;
    of_the_source(&how.source, &mut constants, &mut lines)?;
    lines.push(format!(
        "assumed: {:?} of computing, {:?} between starts, deaths seen in {:?}, dialling in {:?}, a \
         source that gives all {} operations and {} bytes a second",
        constants.computing,
        constants.start_spread,
        constants.death_seen,
        constants.dialling,
        constants.source_operations_per_second,
        constants.source_bytes_per_second
    ));
    Ok((constants, lines))
}

fn between_ranks(
    how: &Calibration,
    constants: &mut Constants,
    lines: &mut Vec<String>,
) -> anyhow::Result<()> {
    let mut local = LocalFleet::start(how.ranks, &how.net, "error")?;
    let found: Costs = costs(&mut local.fleet, AMOUNT)?;
    constants.message_handling = nanos(found.message_ns);
    constants.pulling = nanos(found.pulling_ns);
    constants.serving = nanos(found.serving_ns);
    constants.verifying_picos_per_byte = picos(found.pulling_ns_per_byte);
    constants.serving_picos_per_byte = picos(found.serving_ns_per_byte);
    constants.latency = nanos(found.latency_ns);
    let bytes_per_second = (found.bytes_per_ns * 1e9).min(BYTES_PER_SECOND_MAX);
    constants.nic_bytes_per_second = bytes_per_second as u64;
    lines.push(format!(
        "measured between {} ranks: {:?} of a processor for each message on either side; for each \
         pull {:?} of who pulls and {:?} of whose memory it is, {} and {} ps for each byte; {:?} on \
         the way, {:.1} GB/s",
        how.ranks,
        constants.message_handling,
        constants.pulling,
        constants.serving,
        constants.verifying_picos_per_byte,
        constants.serving_picos_per_byte,
        constants.latency,
        bytes_per_second / 1e9
    ));
    Ok(())
}

fn through_a_mount(constants: &mut Constants, lines: &mut Vec<String>) -> anyhow::Result<()> {
    let rank = OneRank::start(prepare)?;
    let view = rank.view();
    let listed = File::open(&view).with_context(|| format!("cannot open {}", view.display()))?;
    let absent = |index: u32| {
        let found = statat(&listed, format!("absent_{index}"), AtFlags::empty());
        ensure!(found.is_err(), "a name is found that does not exist");
        Ok(())
    };
    // The first has the folder listed, which answers all others.
    absent(NAMES)?;
    let names = rank.measure(|| (0..NAMES).try_for_each(absent))?;
    constants.fuse_request = nanos(names.cpu_ns / f64::from(NAMES));

    let folders = rank.measure(|| {
        (0..FOLDERS).try_for_each(|index| {
            let path = view.join(format!("folder_{index}/file"));
            fs::metadata(&path).map(drop).with_context(|| format!("cannot see {}", path.display()))
        })
    })?;
    let requests = 2.0 * nanoseconds(constants.fuse_request);
    let handoff = (folders.cpu_ns - folders.source_cpu_ns) / f64::from(FOLDERS) - requests;
    constants.engine_handoff = nanos(handoff);

    let path = view.join("file");
    let read = || fs::read(&path).with_context(|| format!("cannot read {}", path.display()));
    let first = read()?.len();
    ensure!(first == FILE_BYTES, "{} of {FILE_BYTES} bytes were read", first);
    // The kernel forgets them, the daemon does not.
    let file = File::open(&path)?;
    fadvise(&file, 0, None, Advice::DontNeed).context("the kernel does not forget pages")?;
    let again = rank.measure(|| read().map(drop))?;
    constants.fuse_picos_per_byte = picos(again.cpu_ns / FILE_BYTES as f64);

    let known = rank.measure(|| {
        (0..NAMES).try_for_each(|_| fs::metadata(&path).map(drop).context("the file is gone"))
    })?;
    constants.kernel_answer = nanos(known.cpu_ns / f64::from(NAMES));
    rank.stop()?;
    lines.push(format!(
        "measured through the mount of one rank: {:?} of a processor for each request of the kernel, \
         {} ps for each byte, {:?} to ask the engine, {:?} for what the kernel knows",
        constants.fuse_request,
        constants.fuse_picos_per_byte,
        constants.engine_handoff,
        constants.kernel_answer
    ));
    Ok(())
}

/// What the mount shows.
fn prepare(source: &Path) -> std::io::Result<()> {
    for index in 0..FOLDERS {
        let folder = source.join(format!("folder_{index}"));
        fs::create_dir(&folder)?;
        fs::write(folder.join("file"), b"a few bytes")?;
    }
    let bytes: Vec<u8> = (0..FILE_BYTES).map(|at| (at / 4096 + at) as u8).collect();
    fs::write(source.join("file"), bytes)
}

fn of_the_source(
    folder: &Path,
    constants: &mut Constants,
    lines: &mut Vec<String>,
) -> anyhow::Result<()> {
    let (mut ahead, mut each, mut listing) = (vec![folder.to_owned()], Vec::new(), Duration::ZERO);
    let (mut bytes, mut reading, mut entries) = (0, Duration::ZERO, 0);
    while let Some(folder) = ahead.pop()
        && each.len() < ENTRIES_MAX
    {
        let failed = || format!("cannot read {}", folder.display());
        let begun = Instant::now();
        let found: Vec<_> = fs::read_dir(&folder)
            .with_context(failed)?
            .collect::<Result<_, _>>()
            .with_context(failed)?;
        listing += begun.elapsed();
        entries += found.len();
        for entry in found {
            let begun = Instant::now();
            let Ok(attributes) = entry.path().symlink_metadata() else { continue };
            each.push(begun.elapsed());
            if attributes.is_dir() {
                ahead.push(entry.path());
            } else if attributes.is_file() && bytes < SOURCE_BYTES_MAX {
                let begun = Instant::now();
                bytes += fs::read(entry.path()).map_or(0, |bytes| bytes.len() as u64);
                reading += begun.elapsed().saturating_sub(each[each.len() - 1]);
            }
        }
    }
    ensure!(bytes > 0, "--source {}: no file to read there", folder.display());
    each.sort_unstable();
    constants.source_latency = each[each.len() / 2].max(Duration::from_nanos(1));
    constants.source_entry = constants.source_latency + listing / entries.max(1) as u32;
    let rate = bytes as f64 / reading.as_secs_f64().max(1e-9);
    constants.client_bytes_per_second = rate.clamp(1.0, BYTES_PER_SECOND_MAX) as u64;
    lines.push(format!(
        "measured at {}, as warm as it was: {:?} for each operation, {:?} for each \
         entry of a listing, {:.2} GB/s",
        folder.display(),
        constants.source_latency,
        constants.source_entry,
        rate / 1e9
    ));
    Ok(())
}

fn nanos(value: f64) -> Duration {
    Duration::from_nanos(value.max(1.0) as u64)
}

fn nanoseconds(duration: Duration) -> f64 {
    duration.as_nanos() as f64
}

fn picos(nanos_per_byte: f64) -> u64 {
    (nanos_per_byte * 1000.0) as u64
}
