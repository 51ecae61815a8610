//! What was asked for.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use crate::failure::Failure;

/// What `--help` prints.
pub(crate) const HELP: &str = "\
Records the file system calls of a command, and replays them against any folder.

usage: replay.sh record TRACE [--below DIR]... -- COMMAND [ARGUMENT]...
       replay.sh run TRACE --at DIR... [--processes N] [--rounds R] [--no-isatty] [--cpu C] [--begin NS] [--json FILE]
       replay.sh show TRACE

record runs COMMAND under strace and writes its calls on paths below DIR to TRACE.
  --below DIR    record what is below DIR, again for more [default: /]; never /proc, /sys and /dev
run makes the calls of TRACE again and checks that each ends as it did. Exits with 1 if one does not.
  --at DIR       the folder that takes the place of the recorded one; as many as were recorded
  --processes N  processes that each make all calls, at the same time, 1 to 1024 [default: 1]
  --rounds R     how often, one after the other, 1 to 1000000 [default: 1]
  --no-isatty    without the ioctls that ask whether a file is a terminal
  --cpu C        all processes on this CPU
  --begin NS     wait with the first round until this moment of the monotonic clock, so that several
                 runs begin together
  --json FILE    write all figures there
show prints what is in TRACE.
";

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Command {
    Help,
    Record(Record),
    Run(Run),
    Show {
        trace: PathBuf,
    },
    /// What `run` starts itself as.
    Work(Work),
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) trace: PathBuf,
    pub(crate) below: Vec<PathBuf>,
    pub(crate) command: Vec<OsString>,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) trace: PathBuf,
    pub(crate) at: Vec<PathBuf>,
    pub(crate) processes: usize,
    pub(crate) rounds: usize,
    pub(crate) isatty: Isatty,
    pub(crate) cpu: Option<usize>,
    /// Of the monotonic clock.
    pub(crate) begin_ns: Option<u64>,
    pub(crate) json: Option<PathBuf>,
}

/// What a process of a run is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Work {
    pub(crate) trace: PathBuf,
    pub(crate) at: Vec<PathBuf>,
    pub(crate) isatty: Isatty,
    pub(crate) cpu: Option<usize>,
}

/// Whether the ioctls are replayed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Isatty {
    Replayed,
    LeftOut,
}

/// More would measure the scheduler.
const PROCESSES_MAX: usize = 1024;
const ROUNDS_MAX: usize = 1_000_000;

fn usage(what: impl Into<String>) -> Failure {
    Failure::Usage(what.into())
}

impl Command {
    /// Reads the arguments behind the program's name.
    pub(crate) fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Self, Failure> {
        let mut words: Vec<OsString> = arguments.into_iter().collect();
        let command = words.iter().position(|word| word == "--").map(|end| {
            let command = words.split_off(end + 1);
            words.pop();
            command
        });
        if words.iter().any(|word| word == "--help" || word == "-h") {
            return Ok(Self::Help);
        }
        let mut words = words.into_iter();
        let Some(verb) = words.next() else { return Err(usage("record, run or show?")) };
        let mut options = Options::default();
        while let Some(word) = words.next() {
            options.take(word, &mut words)?;
        }
        let trace = options.trace.take().ok_or_else(|| usage("which TRACE?"))?;
        if verb != "record" && command.is_some() {
            return Err(usage("only record takes a command"));
        }
        let parsed = match verb.to_str() {
            Some("record") => {
                let command = command.filter(|command| !command.is_empty());
                let command = command.ok_or_else(|| usage("which command? Put it behind --"))?;
                let mut below = std::mem::take(&mut options.below);
                if below.is_empty() {
                    below.push(PathBuf::from("/"));
                }
                Self::Record(Record { trace, below, command })
            }
            Some("run") => {
                let at = std::mem::take(&mut options.at);
                if at.is_empty() {
                    return Err(usage("against which folder? Say --at DIR"));
                }
                Self::Run(Run {
                    trace,
                    at,
                    processes: options.processes.take().unwrap_or(1),
                    rounds: options.rounds.take().unwrap_or(1),
                    isatty: options.isatty.take().unwrap_or(Isatty::Replayed),
                    cpu: options.cpu.take(),
                    begin_ns: options.begin_ns.take(),
                    json: options.json.take(),
                })
            }
            Some("show") => Self::Show { trace },
            Some("work") => Self::Work(Work {
                trace,
                at: std::mem::take(&mut options.at),
                isatty: options.isatty.take().unwrap_or(Isatty::Replayed),
                cpu: options.cpu.take(),
            }),
            _ => return Err(usage(format!("there is no command {}", verb.display()))),
        };
        // Each command has taken its own.
        if options != Options::default() {
            return Err(usage(format!("{} does not take all of these options", verb.display())));
        }
        Ok(parsed)
    }
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Options {
    trace: Option<PathBuf>,
    below: Vec<PathBuf>,
    at: Vec<PathBuf>,
    processes: Option<usize>,
    rounds: Option<usize>,
    isatty: Option<Isatty>,
    cpu: Option<usize>,
    begin_ns: Option<u64>,
    json: Option<PathBuf>,
}

impl Options {
    fn take(
        &mut self,
        word: OsString,
        rest: &mut impl Iterator<Item = OsString>,
    ) -> Result<(), Failure> {
        let Some(option) = word.to_str().filter(|word| word.starts_with('-')) else {
            return match self.trace.replace(PathBuf::from(&word)) {
                None => Ok(()),
                Some(_) => Err(usage(format!("'{}' is one argument too many", word.display()))),
            };
        };
        let (name, value) = match option.split_once('=') {
            Some((name, value)) => (name, Some(OsString::from(value))),
            None => (option, None),
        };
        if name == "--no-isatty" && value.is_none() {
            self.isatty = Some(Isatty::LeftOut);
            return Ok(());
        }
        let mut value = || {
            let value = value.clone().or_else(|| rest.next()).filter(|value| !value.is_empty());
            value.ok_or_else(|| usage(format!("{name} needs a value")))
        };
        match name {
            "--below" => self.below.push(PathBuf::from(value()?)),
            "--at" => self.at.push(PathBuf::from(value()?)),
            "--processes" => self.processes = Some(number(name, &value()?, 1, PROCESSES_MAX)?),
            "--rounds" => self.rounds = Some(number(name, &value()?, 1, ROUNDS_MAX)?),
            "--cpu" => {
                self.cpu = Some(number(name, &value()?, 0, rustix::thread::CpuSet::MAX_CPU - 1)?)
            }
            "--begin" => {
                let value = value()?;
                let begin = value.to_str().and_then(|text| text.parse().ok());
                let wrong = || usage(format!("{name} is a number of nanoseconds"));
                self.begin_ns = Some(begin.ok_or_else(wrong)?);
            }
            "--json" => self.json = Some(PathBuf::from(value()?)),
            _ => return Err(usage(format!("there is no option {name}"))),
        }
        Ok(())
    }
}

fn number(name: &str, text: &OsStr, min: usize, max: usize) -> Result<usize, Failure> {
    let number = text.to_str().and_then(|text| text.parse().ok());
    number
        .filter(|number| (min..=max).contains(number))
        .ok_or_else(|| usage(format!("{name} is {min} to {max}, not '{}'", text.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Command, Failure> {
        Command::parse(line.split_whitespace().map(OsString::from))
    }

    #[test]
    fn what_is_behind_two_dashes_is_the_commands() {
        let record =
            parse("record t --below /a --below=/b -- ls -l --help -- x").expect("it is right");
        let expected = Record {
            trace: "t".into(),
            below: vec!["/a".into(), "/b".into()],
            command: ["ls", "-l", "--help", "--", "x"].map(OsString::from).to_vec(),
        };
        assert_eq!(record, Command::Record(expected));
    }

    #[test]
    fn a_run_has_its_defaults() {
        let Ok(Command::Run(run)) = parse("run --at /x t") else { panic!("it is right") };
        assert_eq!(
            (run.processes, run.rounds, run.isatty, run.cpu),
            (1, 1, Isatty::Replayed, None)
        );
        let Ok(Command::Run(run)) = parse("run t --at /x --processes=3 --no-isatty --cpu 0") else {
            panic!("it is right")
        };
        assert_eq!((run.processes, run.isatty, run.cpu), (3, Isatty::LeftOut, Some(0)));
    }

    #[test]
    fn what_is_wrong_is_told() {
        let cases = [
            ("", "record, run or show?"),
            ("walk t", "there is no command walk"),
            ("show", "which TRACE?"),
            ("show t u", "'u' is one argument too many"),
            ("show t --at /x", "show does not take all of these options"),
            ("show t -- ls", "only record takes a command"),
            ("record t", "which command? Put it behind --"),
            ("record t --", "which command? Put it behind --"),
            ("record t --rounds 2 -- ls", "record does not take all of these options"),
            ("run t", "against which folder? Say --at DIR"),
            ("run t --at", "--at needs a value"),
            ("run t --at /x --processes 0", "--processes is 1 to 1024, not '0'"),
            ("run t --at /x --begin soon", "--begin is a number of nanoseconds"),
            ("show t --begin 1", "show does not take all of these options"),
            ("run t --at /x --rounds x", "--rounds is 1 to 1000000, not 'x'"),
            ("run t --at /x --no-isatty=1", "there is no option --no-isatty"),
            ("run t --at /x --frobnicate", "there is no option --frobnicate"),
        ];
        for (line, what) in cases {
            let failure = parse(line).expect_err(line);
            assert_eq!(failure.code(), 2, "{line}");
            assert!(failure.to_string().starts_with(what), "{line}: {failure}");
        }
    }
}
