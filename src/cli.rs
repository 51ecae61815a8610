//! The command line. Whatever is wrong with it: one line on standard error, exit 2, nothing begun.

mod agent;
mod bench;
mod collect;
mod collect_hosts;
mod compatible;
mod cpu_bind;
mod ctl;
mod doctor;
mod environment;
mod flights;
mod interface;
mod kernel_cache;
mod launch;
mod launch_hosts;
mod log_follower;
mod logging;
mod metrics;
mod progress;
mod refresh;
mod report;
mod serve;
mod simulate;
mod size;
mod status;
mod stop;
mod stop_hosts;
mod top;
mod trace;
mod trees;
mod version;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::error::ErrorKind;
use clap::{Parser, Subcommand};

/// The exit code for a command line that makes no sense.
const USAGE: u8 = 2;

/// A read-only cooperative cache: thousands of nodes load the same files as if from local disk.
#[derive(Debug, Parser)]
#[command(name = "copper", version, disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start all ranks of a job and return when every mount answers
    Launch(Box<launch::LaunchArguments>),
    /// Unmount and end all ranks of a launch, on all of its hosts
    Stop(stop::StopArguments),
    /// Show what every rank is doing
    Status(status::StatusArguments),
    /// Show what all ranks do, again and again
    Top(top::TopArguments),
    /// Print the numbers of this machine's ranks for Prometheus
    Metrics(metrics::MetricsArguments),
    /// Have every rank of this machine clear or log what it counts
    Ctl(ctl::CtlArguments),
    /// Tell what a run has left: a page, advice, profiles added up
    Report(report::ReportArguments),
    /// Show one request's way through the tree, from what the ranks remember
    Trace(trace::TraceArguments),
    /// Put what explains a run into one archive: logs, events, versions, environment without secrets
    Collect(collect::CollectArguments),
    /// Have all ranks of a job look at the source anew, where it has changed
    Refresh(refresh::RefreshArguments),
    /// Look for what would keep a launch from succeeding, and say what to do
    Doctor(doctor::DoctorArguments),
    /// Run one rank in the foreground
    Serve(Box<serve::ServeArguments>),
    /// Measure the fabric and the tree, beside bare libfabric
    Bench(Box<bench::BenchArguments>),
    /// Run a job of any size under virtual time: how long an import takes, with and without Copper
    Simulate(simulate::SimulateArguments),
    /// Start this host's rank of a launch over several (started by `launch`)
    #[command(hide = true)]
    Agent(Box<agent::AgentArguments>),
    /// Remove the mount of a daemon that died (started by `serve`)
    #[command(hide = true)]
    Guard,
}

/// Runs the command that the arguments name.
pub(crate) fn run() -> ExitCode {
    // libfabric is asked for its version only where somebody wants to read it.
    if std::env::args_os().skip(1).any(|argument| argument == "--version" || argument == "-V") {
        return match print(&format!("copper {}", version::long())) {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        };
    }
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return refuse(&error),
    };
    let result = match arguments.command {
        Command::Launch(arguments) => launch::run(&arguments),
        Command::Stop(arguments) => stop::run(&arguments),
        Command::Status(arguments) => status::run(&arguments),
        Command::Top(arguments) => top::run(&arguments),
        Command::Metrics(arguments) => metrics::run(&arguments),
        Command::Ctl(arguments) => ctl::run(&arguments),
        Command::Report(arguments) => report::run(&arguments),
        Command::Trace(arguments) => trace::run(&arguments),
        Command::Collect(arguments) => collect::run(&arguments),
        Command::Refresh(arguments) => refresh::run(&arguments),
        Command::Doctor(arguments) => doctor::run(&arguments),
        Command::Serve(arguments) => serve::run(*arguments),
        Command::Bench(arguments) => bench::run(&arguments),
        Command::Simulate(arguments) => simulate::run(&arguments),
        Command::Agent(arguments) => agent::run(*arguments),
        Command::Guard => guard(),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            say(&format!("copper: {}", one_line(&error)));
            let usage = error.is::<compatible::Usage>();
            if usage { ExitCode::from(USAGE) } else { ExitCode::FAILURE }
        }
    }
}

/// An error with its causes, as one line.
pub(crate) fn one_line(error: &anyhow::Error) -> String {
    copper_launcher::said::one_line(error.as_ref())
}

fn refuse(error: &clap::Error) -> ExitCode {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            let _ = error.print();
            ExitCode::SUCCESS
        }
        _ => {
            let text = error.to_string();
            let paragraph = text.split("\n\n").next().unwrap_or(&text);
            let words: Vec<&str> = paragraph.split_whitespace().collect();
            let words = words.join(" ");
            let reason = words.strip_prefix("error: ").unwrap_or(&words);
            say(&format!("copper: {reason} (`copper --help` lists what there is)"));
            ExitCode::from(USAGE)
        }
    }
}

fn guard() -> anyhow::Result<ExitCode> {
    copper_fuse::guardian::guard(std::io::stdin(), std::io::stdout())?;
    Ok(ExitCode::SUCCESS)
}

/// For people, on standard error.
#[expect(clippy::print_stderr, reason = "a command line talks to people")]
fn say(line: &str) {
    eprintln!("{line}");
}

/// What was asked for, on standard output.
fn print(line: &str) -> anyhow::Result<()> {
    use std::io::Write;
    match writeln!(std::io::stdout(), "{line}") {
        // Whoever read the first lines may want no more of them.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => Ok(other?),
    }
}

/// A path from the command line, made independent of the working folder.
fn absolute(path: &Path) -> anyhow::Result<PathBuf> {
    std::path::absolute(path).with_context(|| format!("{} is no path", path.display()))
}

/// Where the views are, absolute.
fn mount_directory(given: Option<&Path>) -> anyhow::Result<PathBuf> {
    absolute(&given.map_or_else(default_mount, Path::to_path_buf))
}

/// `/tmp/$USER/copper`, where the view is mounted if nothing else is said.
fn default_mount() -> PathBuf {
    let user = std::env::var_os("USER").filter(|user| !user.is_empty());
    let user = user.unwrap_or_else(|| rustix::process::geteuid().as_raw().to_string().into());
    PathBuf::from("/tmp").join(user).join("copper")
}
