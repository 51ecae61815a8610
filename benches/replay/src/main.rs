//! Records the file system calls of a command and replays them against any folder, so that a mount can
//! be compared with a local file system by the calls of real programs and by nothing else.
//!
//! `ci/replay.sh` builds and runs it. `arguments` has the commands, `trace` the format. `record` runs
//! strace, whose lines `strace` reads, of which `recording` makes a trace, with what `watcher` finds in
//! the `pages` of mapped files. `run` starts processes that are `worker`s, and collects what they measure.
//!
//! A replay is not the program. All processes of the command become one, in the order in which their
//! calls ended. Paths that were relative to a folder are walked from the top. Calls that write are left
//! out, as are extended attributes, advice on reading ahead, `chdir` and `execve`, also when `execve`
//! maps a program below the folder; `record` says how many it has left out. Pages that were unmapped
//! before a process's end, or of one that a signal ended, are not touched, and within 64 KiB it is not
//! known which page was first.

#![deny(unsafe_code)]

mod arguments;
#[allow(unsafe_code)]
mod calls;
mod errno;
mod escape;
mod failure;
mod pages;
mod plan;
mod record;
mod recording;
mod run;
mod show;
mod strace;
mod trace;
mod watcher;
mod worker;

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use arguments::Command;
use failure::Failure;
use trace::Trace;

fn main() -> ExitCode {
    match command() {
        Ok(code) => code,
        Err(failure) => {
            say(&failure.to_string());
            ExitCode::from(failure.code())
        }
    }
}

fn command() -> Result<ExitCode, Failure> {
    match Command::parse(std::env::args_os().skip(1))? {
        Command::Help => print(arguments::HELP.trim_end())?,
        Command::Record(asked) => return record::record(&asked),
        Command::Run(asked) => return run::run(&asked),
        Command::Show { trace } => show::show(&trace)?,
        Command::Work(asked) => worker::work(&asked)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn load(path: &Path) -> Result<Trace, Failure> {
    let bytes =
        std::fs::read(path).map_err(|cause| Failure::File { path: path.to_owned(), cause })?;
    Trace::parse(&String::from_utf8_lossy(&bytes))
        .map_err(|cause| Failure::Damaged { path: path.to_owned(), cause })
}

/// For people, on standard error.
#[expect(clippy::print_stderr, reason = "a command line talks to people")]
fn say(line: &str) {
    eprintln!("copper-replay: {line}");
}

/// What was asked for, on standard output.
fn print(line: &str) -> Result<(), Failure> {
    match writeln!(std::io::stdout(), "{line}") {
        // Whoever read the first lines may want no more of them.
        Err(cause) if cause.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => other.map_err(Failure::Output),
    }
}
