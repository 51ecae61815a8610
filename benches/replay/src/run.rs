//! Replays a trace with processes that all begin at once, round after round.
//!
//! ```text
//! start the workers ─▶ each is ready ─▶ the common start, to each worker ─▶ each says how it went ─┐
//!                                         ▲──────────────── next round ───────────────────────────┘
//! ```
//!
//! The workers are this program again. They end when their input does, or when this process does.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitCode, Stdio};
use std::time::Duration;

use serde::Serialize;

use crate::arguments::{Isatty, Run};
use crate::failure::Failure;
use crate::show::kinds;
use crate::worker::{Difference, READY, Round, now_ns};
use crate::{load, print, say};

/// What `--json` writes.
#[derive(Serialize)]
struct Report<'a> {
    trace: &'a Path,
    at: &'a [PathBuf],
    processes: usize,
    isatty: bool,
    cpu: Option<usize>,
    /// By kind, of one process in one round.
    calls: BTreeMap<&'static str, u64>,
    /// Of each round, each process.
    rounds: Vec<Vec<Round>>,
    /// Of all.
    differences: u64,
}

/// More lines than this help nobody.
const LINES_MAX: usize = 20;

pub(crate) fn run(asked: &Run) -> Result<ExitCode, Failure> {
    let calls = check(asked)?;
    // Before the work: it may take long.
    let json = asked.json.as_ref().map(|path| (path, std::fs::File::create(path)));
    let json = match json {
        Some((path, Err(cause))) => return Err(Failure::File { path: path.clone(), cause }),
        Some((path, Ok(file))) => Some((path, file)),
        None => None,
    };
    let counts: Vec<_> = calls.iter().map(|(kind, count)| format!("{kind} {count}")).collect();
    print(&format!(
        "calls of each process: {}, all {}",
        counts.join(", "),
        calls.values().sum::<u64>()
    ))?;
    let mut workers = Workers::start(asked)?;
    let wait = asked.begin_ns.map_or(0, |begin| begin.saturating_sub(now_ns()));
    std::thread::sleep(Duration::from_nanos(wait));
    let mut rounds = Vec::with_capacity(asked.rounds);
    for number in 1..=asked.rounds {
        let round = workers.round()?;
        let walls: Vec<_> = round.iter().map(|one| format!("{:.3}", ms(one.wall_ns))).collect();
        print(&format!("round {number}: {} ms", walls.join(" ")))?;
        rounds.push(round);
    }
    drop(workers);
    let differences = rounds.iter().flatten().map(|round| round.differences).sum();
    report_differences(asked, &rounds, differences);
    if let Some((path, mut file)) = json {
        let report = Report {
            trace: &asked.trace,
            at: &asked.at,
            processes: asked.processes,
            isatty: asked.isatty == Isatty::Replayed,
            cpu: asked.cpu,
            calls,
            rounds,
            differences,
        };
        let text = serde_json::to_string(&report).expect("numbers and strings are JSON");
        writeln!(file, "{text}").map_err(|cause| Failure::File { path: path.clone(), cause })?;
    }
    Ok(if differences == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Whether it can be run at all, before processes are started. Gives the calls of a process by kind.
fn check(asked: &Run) -> Result<BTreeMap<&'static str, u64>, Failure> {
    let trace = load(&asked.trace)?;
    for folder in &asked.at {
        let found = std::fs::metadata(folder)
            .map_err(|cause| Failure::File { path: folder.clone(), cause })?;
        if !found.is_dir() {
            return Err(Failure::NoFolder(folder.clone()));
        }
    }
    if trace.below.len() != asked.at.len() {
        let (recorded, given) = (trace.below.len(), asked.at.len());
        return Err(Failure::Usage(format!(
            "the trace is of {recorded} folders, so --at is to be given {recorded} times, not {given}"
        )));
    }
    if let Some(cpu) = asked.cpu {
        let cpus = rustix::thread::sched_getaffinity(None)
            .map_err(|cause| Failure::Call { what: "learn which CPUs there are", cause })?;
        if !cpus.is_set(cpu) {
            return Err(Failure::Usage(format!("CPU {cpu} is none that this process may use")));
        }
    }
    let mut calls = kinds(&trace);
    if asked.isatty == Isatty::LeftOut {
        calls.remove("isatty");
    }
    Ok(calls)
}

/// Each call that differs once, however many processes and rounds it differed in.
fn report_differences(asked: &Run, rounds: &[Vec<Round>], differences: u64) {
    if differences == 0 {
        return;
    }
    let mut told: BTreeMap<&Difference, u64> = BTreeMap::new();
    for difference in rounds.iter().flatten().flat_map(|round| &round.first) {
        *told.entry(difference).or_default() += 1;
    }
    for (Difference { line, what }, count) in told.iter().take(LINES_MAX) {
        say(&format!("{}:{line}: {what} ({count} times)", asked.trace.display()));
    }
    let skipped: u64 = rounds.iter().flatten().map(|round| round.skipped).sum();
    say(&format!(
        "{differences} calls did not end as recorded; {skipped} on files that did not open were not made"
    ));
}

fn ms(ns: u64) -> f64 {
    ns as f64 / 1e6
}

/// The processes of a run; ended and waited for when this goes.
struct Workers(Vec<Worker>);

struct Worker {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Workers {
    /// Starts all of them. They are ready when this returns.
    fn start(asked: &Run) -> Result<Self, Failure> {
        let mut workers = Self(Vec::with_capacity(asked.processes));
        for number in 0..asked.processes {
            let failed =
                |cause| Failure::Process { number, what: format!("does not start: {cause}") };
            let mut child =
                command(asked).and_then(|mut command| command.spawn()).map_err(failed)?;
            let input = child.stdin.take().expect("it is piped");
            let output = BufReader::new(child.stdout.take().expect("it is piped"));
            workers.0.push(Worker { child, input, output });
        }
        for (number, worker) in workers.0.iter_mut().enumerate() {
            let line = worker.line(number)?;
            assert_eq!(line, READY, "what a worker says first");
        }
        Ok(workers)
    }

    /// Has all make their calls once, from now on.
    fn round(&mut self) -> Result<Vec<Round>, Failure> {
        let start = format!("{}\n", now_ns());
        for worker in &mut self.0 {
            // One that is gone is told of below.
            let _ = worker.input.write_all(start.as_bytes());
        }
        let round = |(number, worker): (usize, &mut Worker)| {
            let line = worker.line(number)?;
            Ok(serde_json::from_str(&line).expect("a worker writes what a worker reads"))
        };
        self.0.iter_mut().enumerate().map(round).collect()
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        for worker in &mut self.0 {
            // Between rounds it does nothing that it could not be stopped at.
            let _ = worker.child.kill();
            let _ = worker.child.wait();
        }
    }
}

fn command(asked: &Run) -> std::io::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("work").arg(&asked.trace);
    for folder in &asked.at {
        command.arg("--at").arg(std::path::absolute(folder)?);
    }
    if asked.isatty == Isatty::LeftOut {
        command.arg("--no-isatty");
    }
    if let Some(cpu) = asked.cpu {
        command.arg("--cpu").arg(cpu.to_string());
    }
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    Ok(command)
}

impl Worker {
    /// What it says next.
    fn line(&mut self, number: usize) -> Result<String, Failure> {
        let mut line = String::new();
        let read = self.output.read_line(&mut line);
        if read.is_ok_and(|length| length > 0) && line.ends_with('\n') {
            line.pop();
            return Ok(line);
        }
        let what = match self.child.wait() {
            Ok(status) => match status.signal() {
                Some(signal) => format!("was ended by signal {signal}"),
                None => format!("ended with {status} in the middle of its work"),
            },
            Err(cause) => format!("is gone: {cause}"),
        };
        Err(Failure::Process { number, what })
    }
}
