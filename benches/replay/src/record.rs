//! Runs a command under strace and writes its trace.
//!
//! strace tells which calls there are, but not which pages of a mapped file are read. So it holds each
//! process at its exit for a moment, in which a [`Watcher`] looks which pages are there. What was
//! unmapped before, by munmap or by execve, or was mapped by execve itself, has no touches.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, ExitStatus};

use crate::arguments::Record;
use crate::failure::Failure;
use crate::recording::{Folders, Recording};
use crate::say;
use crate::strace::{Event, Reader};
use crate::trace::{Op, Trace};
use crate::watcher::Watcher;

/// How long a process is held at its exit: many of the watcher's intervals, for a machine that is busy.
const HOLD_MS: u32 = 500;

/// What strace reports: all calls on paths and descriptors, so that what is not replayed is counted.
/// The one with a question mark is not on every architecture.
const CALLS: &str = "trace=%file,%desc,%process,munmap,?close_range";

/// What the recorder has to say when it is done.
struct Summary {
    left_out: BTreeMap<String, u64>,
    /// Processes whose pages could not be looked up, and why.
    unseen: BTreeMap<u32, String>,
}

/// Fails also if the command did, or if touches are missing: the trace is there, but of a part only.
pub(crate) fn record(asked: &Record) -> Result<ExitCode, Failure> {
    let file = |path: &Path, cause| Failure::File { path: path.to_owned(), cause };
    let folders: Vec<_> = asked
        .below
        .iter()
        .map(|folder| {
            let absolute = std::path::absolute(folder).map_err(|cause| file(folder, cause))?;
            let resolved = folder.canonicalize().map_err(|cause| file(folder, cause))?;
            if !resolved.is_dir() {
                return Err(Failure::NoFolder(folder.clone()));
            }
            Ok((
                absolute.into_os_string().into_encoded_bytes(),
                resolved.into_os_string().into_encoded_bytes(),
            ))
        })
        .collect::<Result<_, _>>()?;
    let cwd = std::env::current_dir().map_err(|cause| file(Path::new("."), cause))?;
    // Before the command runs: it may run long.
    let part = part_of(&asked.trace);
    let to = File::create(&part).map_err(|cause| file(&asked.trace, cause))?;
    let written = follow(
        asked,
        Recording::new(Folders::new(folders), cwd.into_os_string().into_encoded_bytes()),
    )
    .and_then(|(trace, summary, status)| {
        if trace.ops.is_empty() {
            return Err(Failure::Nothing(listed(asked.below.iter().map(|path| path.display()))));
        }
        write(&trace, asked, to)
            .and_then(|()| std::fs::rename(&part, &asked.trace))
            .map_err(|cause| file(&asked.trace, cause))?;
        Ok((trace, summary, status))
    });
    let (trace, summary, status) = written.inspect_err(|_| {
        // It is ours, and worth nothing.
        let _ = std::fs::remove_file(&part);
    })?;
    report(asked, &trace, &summary, status);
    let whole = status.success() && summary.unseen.is_empty();
    Ok(if whole { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Beside the trace, so that a trace is whole or not there.
fn part_of(trace: &Path) -> PathBuf {
    let mut name = trace.as_os_str().to_owned();
    name.push(".part");
    PathBuf::from(name)
}

fn write(trace: &Trace, asked: &Record, to: File) -> std::io::Result<()> {
    let command: Vec<_> =
        asked.command.iter().map(|word| crate::escape::escape(word.as_bytes())).collect();
    let mut to = BufWriter::new(to);
    trace.write(&format!("The calls of: {}", command.join(" ")), &mut to)?;
    to.flush()
}

/// Runs the command to its end.
fn follow(
    asked: &Record,
    mut recording: Recording,
) -> Result<(Trace, Summary, ExitStatus), Failure> {
    let call = |what| move |cause| Failure::Call { what, cause };
    let (from, to) =
        rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(call("make a pipe"))?;
    let strace = start(asked, &to)?;
    let ended = std::thread::spawn(move || wait(strace, to));
    let mut reader = Reader::default();
    let mut unseen = BTreeMap::new();
    let watcher = Watcher::start();
    let mut wrong = None;
    for line in BufReader::new(File::from(from)).split(b'\n') {
        let line = line.map_err(Failure::Pipe)?;
        // strace is read to its end in any case: else the command would be cut short too.
        let event = reader.feed(&String::from_utf8_lossy(&line)).unwrap_or_else(|cause| {
            wrong.get_or_insert(cause);
            Event::Nothing
        });
        let before = recording.threads().len();
        recording.on_event(&event);
        // One event brings one thread or takes one away.
        if recording.threads().len() != before {
            watcher.set_threads(recording.threads().collect());
        }
        // Of an exit that others interrupted, this is the second half: the hold is over.
        let Event::Done(call) = &event else { continue };
        if call.name != "exit_group" || !recording.has_mapped(call.pid) {
            continue;
        }
        match watcher.take(call.pid) {
            Some(Ok(regions)) => recording.on_looked(call.pid, &regions),
            Some(Err(cause)) => drop(unseen.insert(call.pid, cause.to_string())),
            None => drop(unseen.insert(call.pid, format!("it was gone within {HOLD_MS} ms"))),
        }
    }
    let status = ended.join().expect("the thread only waits");
    if let Some(cause) = wrong {
        return Err(cause.into());
    }
    let (trace, left_out) = recording.finish();
    // With a command that it cannot start, strace fails, and there are no calls.
    if trace.ops.is_empty() && !status.success() {
        return Err(Failure::Strace(status));
    }
    Ok((trace, Summary { left_out, unseen }, status))
}

/// strace opens the pipe by its name: only it has the end that is written to, not the command.
fn start(asked: &Record, to: &OwnedFd) -> Result<Child, Failure> {
    let mut strace = Command::new("strace");
    strace.args(["-f", "-q", "-y", "-s", "0", "-e", "signal=none", "-e", CALLS]);
    strace.args(["-e", &format!("inject=exit_group:delay_enter={}", HOLD_MS * 1000)]);
    strace.arg("-o").arg(format!("/proc/{}/fd/{}", std::process::id(), to.as_raw_fd()));
    strace.arg("--").args(&asked.command);
    strace.spawn().map_err(Failure::NoStrace)
}

/// The pipe ends when strace does, not before it has opened it.
fn wait(mut strace: Child, to: OwnedFd) -> ExitStatus {
    let status = strace.wait().expect("strace was started, and nobody else waits for it");
    drop(to);
    status
}

fn report(asked: &Record, trace: &Trace, summary: &Summary, status: ExitStatus) {
    let touches = trace.ops.iter().filter(|op| matches!(op, Op::Touch { .. })).count();
    let calls = trace.ops.len() - touches;
    say(&format!(
        "recorded {calls} calls and {touches} touched windows into {}",
        asked.trace.display()
    ));
    if !status.success() {
        say(&format!("the command failed with {status}; the trace is of what it did until then"));
    }
    if !summary.left_out.is_empty() {
        let left_out = summary.left_out.iter().map(|(name, count)| format!("{count} {name}"));
        say(&format!("calls that a replay does not make: {}", listed(left_out)));
    }
    for (pid, cause) in &summary.unseen {
        say(&format!("what process {pid} has touched is not known: {cause}"));
    }
}

fn listed(items: impl Iterator<Item = impl ToString>) -> String {
    items.map(|item| item.to_string()).collect::<Vec<_>>().join(", ")
}
