//! A job over several hosts, as the head sees it: starts an agent on each by a launcher, hears how
//! far each has come, and releases or ends all of them.

use std::collections::{BTreeMap, VecDeque};
use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use copper_proto::Rank;

use crate::agent::RELEASED;
use crate::daemons::last_line;
use crate::gang::{Gang, GangError, News, Voice};
use crate::hosts::Hosts;
use crate::orders::Orders;
use crate::process::Process;
use crate::said::{Line, Said};
use crate::secret::Secret;
use crate::starter::{Launcher, Life, Run, Start};

/// How long the head listens for further reasons once too many ranks have failed.
const FAILURE_SETTLE: Duration = Duration::from_secs(1);

/// How long agents may take to end their daemons once they are told.
const END_BOUND: Duration = Duration::from_secs(8);

/// How long the count of all ranks, and what each says itself, may reach the head after one another:
/// they come by different ways.
const COUNT_BOUND: Duration = Duration::from_secs(5);

/// Between two reports of progress.
const PROGRESS_PACE: Duration = Duration::from_millis(200);

/// Lines of the launcher itself that are kept, for when something fails.
const WORDS_MAX: usize = 32;

/// Seconds that a host may take to answer ssh.
const CONNECT_SECONDS: u32 = 10;

/// The same where all hosts answered when they were launched: one that is down is named soon.
const RECONNECT_SECONDS: u32 = 5;

/// Which launcher, how, and where.
#[derive(Clone, Debug)]
pub struct Fleet {
    /// Which.
    pub launcher: Launcher,
    /// Its program.
    pub program: PathBuf,
    /// Further options for it.
    pub options: Vec<String>,
    /// On which hosts.
    pub hosts: Hosts,
    /// A file with the same.
    pub hosts_file: PathBuf,
}

/// Ranks to start, one on each host.
#[derive(Debug)]
pub struct RemotePlan<'a> {
    /// Where and by what.
    pub fleet: &'a Fleet,
    /// The agent and its arguments.
    pub command: &'a [OsString],
    /// The job's secret.
    pub secret: &'a Secret,
    /// Where a launcher that stays writes what it says.
    pub words_file: PathBuf,
    /// How long all of them may take.
    pub ready_timeout: Duration,
    /// Ranks without which the launch is complete all the same.
    pub allow_missing: u32,
}

/// How far a launch is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaunchProgress {
    /// Ranks that are ready, as far as rank 0 has counted them.
    pub ready: usize,
    /// Ranks that have failed.
    pub failed: usize,
    /// All of them.
    pub size: usize,
    /// Since the start.
    pub elapsed: Duration,
}

/// A rank that is not there, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// Which.
    pub rank: Rank,
    /// Where it should be.
    pub host: String,
    /// Why it is not.
    pub reason: String,
}

impl fmt::Display for Missing {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let own = format!("rank {}: ", self.rank);
        let reason = self.reason.strip_prefix(&own).unwrap_or(&self.reason);
        write!(formatter, "rank {} on {}: {reason}", self.rank, self.host)
    }
}

/// A launch that is complete.
#[derive(Debug)]
pub struct RemoteLaunched {
    /// Ranks that are ready.
    pub ready: usize,
    /// Ranks that are allowed to be missing.
    pub missing: Vec<Missing>,
    /// Since the start.
    pub elapsed: Duration,
    /// The launcher's process, if it stays with the daemons.
    pub step: Option<Process>,
}

/// What is known of one rank.
#[derive(Clone, Debug, Default)]
enum Known {
    #[default]
    Nothing,
    Started {
        log: PathBuf,
    },
    Ready,
    Failed(String),
}

/// All that is heard.
struct Ears<'a> {
    hosts: &'a Hosts,
    ranks: Vec<Known>,
    /// Ranks that rank 0 has counted.
    counted: usize,
    /// What the launcher itself says, with the host that it is about.
    words: VecDeque<(Option<usize>, String)>,
}

impl RemotePlan<'_> {
    /// Starts an agent on each host and waits until all daemons are ready. If more fail than may,
    /// all are ended before this returns.
    ///
    /// # Errors
    /// Which ranks failed and why.
    pub fn launch(
        &self,
        on_progress: &mut dyn FnMut(LaunchProgress),
    ) -> Result<RemoteLaunched, RemoteError> {
        let started = Instant::now();
        let fleet = self.fleet;
        let life = fleet.launcher.life();
        let starts = fleet.starts(self.command);
        let voice = match life {
            Life::Step => Voice::File(self.words_file.clone()),
            Life::Detached => Voice::Pipe,
        };
        let mut gang = Gang::start(&starts, &voice, (life == Life::Step).then_some(self.secret))?;
        if life == Life::Detached {
            let orders = Orders { secret: self.secret.clone(), hosts: fleet.hosts.clone() };
            gang.say(&orders.line());
        }
        let mut ears = Ears::new(&fleet.hosts);
        let hopeless = self.hear(&mut gang, &mut ears, started, on_progress);
        // Where some have failed, others that wait for them have not.
        let bound = (!hopeless).then_some(self.ready_timeout);
        let missing = ears.missing(bound);
        if missing.len() > self.allow_missing as usize {
            let words = ears.words_beyond(&missing);
            // The end of input first: some launchers, told to end, kill at once.
            gang.hush();
            gang.wait(Instant::now() + END_BOUND);
            gang.end();
            return Err(RemoteError::Ranks { missing, words });
        }
        gang.say(RELEASED);
        gang.hush();
        let step = match life {
            Life::Step => gang.keep(),
            Life::Detached => {
                gang.wait(Instant::now() + END_BOUND);
                None
            }
        };
        let ready = ears.count(|known| matches!(known, Known::Ready));
        Ok(RemoteLaunched { ready, missing, elapsed: started.elapsed(), step })
    }

    /// Until all are ready, or the time is up, or, which it returns, more have failed than may.
    fn hear(
        &self,
        gang: &mut Gang,
        ears: &mut Ears<'_>,
        started: Instant,
        on_progress: &mut dyn FnMut(LaunchProgress),
    ) -> bool {
        let mut deadline = started + self.ready_timeout;
        let mut hopeless = false;
        let mut told = (0, started);
        let mut answered = None;
        loop {
            let ready = ears.count(|known| matches!(known, Known::Ready));
            let failed = ears.count(|known| matches!(known, Known::Failed(_)));
            let (size, counted) = (ears.ranks.len(), ears.counted);
            let all_counted = counted == size;
            if told.0 != counted && (told.1.elapsed() >= PROGRESS_PACE || all_counted) {
                let elapsed = started.elapsed();
                on_progress(LaunchProgress { ready: counted, failed, size, elapsed });
                told = (counted, Instant::now());
            }
            let root_failed = matches!(ears.ranks.first(), Some(Known::Failed(_)));
            if !hopeless && (failed > self.allow_missing as usize || root_failed) {
                hopeless = true;
                deadline = deadline.min(Instant::now() + FAILURE_SETTLE);
            }
            if all_counted || ready + failed == size {
                // What is left is the count's way up the tree, or a host's own word. It is waited for:
                // before an agent has heard its daemon it is not to be told of the end of the launch.
                deadline = deadline.min(*answered.get_or_insert(Instant::now() + COUNT_BOUND));
            }
            let waits_for_none = failed > 0 && ready + failed == size;
            if ears.is_complete() || waits_for_none || !gang.runs() || Instant::now() >= deadline {
                return hopeless;
            }
            match gang.next(deadline.min(Instant::now() + PROGRESS_PACE)) {
                Some(News::Line(number, text)) => ears.line(gang.host(number), &text),
                Some(News::Ended(number, status)) => {
                    let how =
                        status.map_or("it cannot be waited for".to_owned(), |it| it.to_string());
                    ears.ended(gang.host(number), self.fleet.launcher, &how);
                }
                None => {}
            }
        }
    }
}

impl<'a> Ears<'a> {
    fn new(hosts: &'a Hosts) -> Ears<'a> {
        let ranks = vec![Known::Nothing; hosts.len()];
        Ears { hosts, ranks, counted: 0, words: VecDeque::new() }
    }

    fn count(&self, is: impl Fn(&Known) -> bool) -> usize {
        self.ranks.iter().filter(|known| is(known)).count()
    }

    /// Rank 0 has counted every rank, and each has said so itself.
    fn is_complete(&self) -> bool {
        let answered = self.count(|known| matches!(known, Known::Ready | Known::Failed(_)));
        self.counted == self.ranks.len() && answered == self.ranks.len()
    }

    fn line(&mut self, host: Option<usize>, text: &str) {
        let Some(line) = Line::parse(text) else {
            if let Some((index, how)) = self.clush_end(text) {
                self.ended(Some(index), Launcher::Clush, &how);
            } else if !text.trim().is_empty() {
                // clush puts the host's name before what came from there.
                let of = host.or_else(|| {
                    let name = text.split_once(": ")?.0;
                    self.hosts.names().iter().position(|host| host == name)
                });
                self.keep(of, text.trim().to_owned());
            }
            return;
        };
        let rank = self.rank_of(host, &line);
        let Some(known) = rank.and_then(|rank| self.ranks.get_mut(rank)) else {
            self.keep(None, format!("{}: {:?}", line.host, line.said));
            return;
        };
        match (line.said, &known) {
            (Said::Counted(count), _) => self.counted = count.ready as usize,
            (_, Known::Failed(_)) | (Said::Stopped { .. } | Said::Recorded { .. }, _) => {}
            (Said::Started { log, .. }, _) => *known = Known::Started { log: log.into() },
            (Said::Ready, _) => *known = Known::Ready,
            (Said::Failed { reason }, _) => *known = Known::Failed(reason),
        }
    }

    /// Whose line that is, of the process that is for `host`.
    fn rank_of(&self, host: Option<usize>, line: &Line) -> Option<usize> {
        let told = line.rank.map(|rank| rank as usize).or(host);
        told.or_else(|| self.hosts.own_rank(&line.host, None).ok().map(|rank| rank.0 as usize))
    }

    /// Keeps the last words of the launcher.
    fn keep(&mut self, of: Option<usize>, text: String) {
        if self.words.len() == WORDS_MAX {
            self.words.pop_front();
        }
        self.words.push_back((of, text));
    }

    /// clush says of a host that its command has failed: `clush: node3: exited with exit code 2`.
    fn clush_end(&self, text: &str) -> Option<(usize, String)> {
        let (name, how) = text.strip_prefix("clush: ")?.split_once(": ")?;
        let index = self.hosts.names().iter().position(|host| host == name)?;
        (how.contains("exited with") || how.contains("timeout")).then(|| (index, how.to_owned()))
    }

    /// A process of the launcher has ended: what it was for will not come any more.
    fn ended(&mut self, host: Option<usize>, launcher: Launcher, how: &str) {
        let of: Vec<usize> = match host {
            Some(index) => vec![index],
            None => (0..self.ranks.len()).collect(),
        };
        for index in of {
            if !matches!(self.ranks[index], Known::Failed(_)) {
                let words =
                    self.words_of(index).map_or(String::new(), |words| format!(": {words}"));
                self.ranks[index] = Known::Failed(format!("{launcher} has ended ({how}){words}"));
            }
        }
    }

    /// What the launcher has last said about a host.
    fn words_of(&self, index: usize) -> Option<&str> {
        let name = self.hosts.names()[index].as_str();
        let about = |(of, text): &&(Option<usize>, String)| {
            *of == Some(index) || (of.is_none() && mentions(text, name))
        };
        self.words.iter().rev().find(about).map(|(_, text)| text.as_str())
    }

    /// What the launcher has said about nobody that is known to be missing.
    fn words_beyond(&self, missing: &[Missing]) -> Vec<String> {
        let quoted = |text: &str| missing.iter().any(|it| it.reason.contains(text));
        let of_nobody = self.words.iter().filter(|(of, text)| of.is_none() && !quoted(text));
        of_nobody.map(|(_, text)| text.clone()).collect()
    }

    /// The ranks that have failed, and those that are not ready within `bound`, if that is up.
    fn missing(&self, bound: Option<Duration>) -> Vec<Missing> {
        let seconds = bound.unwrap_or_default().as_secs_f32();
        let reason = |index: usize, known: &Known| match known {
            Known::Ready => None,
            Known::Failed(reason) => Some(reason.clone()),
            Known::Started { .. } | Known::Nothing if bound.is_none() => None,
            Known::Started { log } => Some(match last_line(log) {
                Some(line) => format!(
                    "not ready within {seconds} s; the last line of {} is: {line}",
                    log.display()
                ),
                None => format!("not ready within {seconds} s; its log {} is empty", log.display()),
            }),
            Known::Nothing => {
                let words = self.words_of(index).map_or_else(
                    || "is the host up, and can the launcher reach it?".to_owned(),
                    |words| format!("the launcher said: {words}"),
                );
                Some(format!("no word from this host within {seconds} s; {words}"))
            }
        };
        let ranks = self.ranks.iter().enumerate();
        ranks
            .filter_map(|(index, known)| {
                let reason = reason(index, known)?;
                let rank = Rank(u32::try_from(index).unwrap_or(u32::MAX));
                Some(Missing { rank, host: self.hosts.names()[index].clone(), reason })
            })
            .collect()
    }
}

/// Whether a text has this name in it as a word of its own.
fn mentions(text: &str, name: &str) -> bool {
    let is_name = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
    text.match_indices(name).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        let after = text[at + name.len()..].chars().next();
        !before.is_some_and(is_name) && !after.is_some_and(is_name)
    })
}

/// What came of running a command once on each host.
#[derive(Debug, Default)]
pub struct Answers {
    /// What each host's agent has said last, by rank.
    pub said: BTreeMap<u32, Said>,
    /// Hosts that have not answered, and why.
    pub silent: Vec<Missing>,
    /// What the launcher itself has said, if there are such hosts.
    pub words: Vec<String>,
}

impl Fleet {
    /// What a launch starts on this machine.
    pub fn starts(&self, command: &[OsString]) -> Vec<Start> {
        let run = Run {
            hosts: self.hosts.names(),
            hosts_file: &self.hosts_file,
            command,
            options: &self.options,
            connect_seconds: CONNECT_SECONDS,
            numbered: true,
            secret: true,
        };
        self.launcher.starts(&self.program, &run)
    }

    /// Runs a command once on each host and waits for its one line, `bound` at most.
    ///
    /// # Errors
    /// If the launcher cannot be started.
    pub fn ask(&self, command: &[OsString], bound: Duration) -> Result<Answers, RemoteError> {
        let deadline = Instant::now() + bound;
        let run = Run {
            hosts: self.hosts.names(),
            hosts_file: &self.hosts_file,
            command,
            options: &self.options,
            connect_seconds: RECONNECT_SECONDS,
            numbered: false,
            secret: false,
        };
        let starts = self.launcher.starts(&self.program, &run);
        let mut gang = Gang::start(&starts, &Voice::Pipe, None)?;
        gang.hush();
        let mut ears = Ears::new(&self.hosts);
        let mut answers = Answers::default();
        while gang.runs() && answers.said.len() < self.hosts.len() {
            let Some(news) = gang.next(deadline) else { break };
            match news {
                News::Line(number, text) => match Line::parse(&text) {
                    Some(line) => {
                        if let Some(rank) = ears.rank_of(gang.host(number), &line) {
                            answers.said.insert(u32::try_from(rank).unwrap_or(u32::MAX), line.said);
                        }
                    }
                    None => ears.line(gang.host(number), &text),
                },
                News::Ended(number, status) => {
                    let how = status.map_or("lost".to_owned(), |it| it.to_string());
                    ears.ended(gang.host(number), self.launcher, &how);
                }
            }
        }
        let silent = ears.missing(Some(bound)).into_iter();
        answers.silent = silent.filter(|it| !answers.said.contains_key(&it.rank.0)).collect();
        if !answers.silent.is_empty() {
            answers.words = ears.words_beyond(&answers.silent);
        }
        Ok(answers)
    }
}

/// Why a job over several hosts did not come up.
#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    /// The launcher itself.
    #[error(transparent)]
    Gang(#[from] GangError),
    /// Ranks did not come up; the others have been ended.
    #[error(
        "{}{}", missing.iter().map(Missing::to_string).collect::<Vec<_>>().join("; "),
        if words.is_empty() { String::new() } else { format!("; the launcher said: {}", words.join(" | ")) }
    )]
    Ranks {
        /// Each with its reason.
        missing: Vec<Missing>,
        /// What the launcher itself has said.
        words: Vec<String>,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts() -> Hosts {
        Hosts::from_names(["n1", "n10", "n2"].map(str::to_owned).to_vec())
    }

    #[test]
    fn what_a_launcher_says_is_taken_for_the_host_that_it_is_about() {
        let hosts = hosts();
        let mut ears = Ears::new(&hosts);
        ears.line(None, "n10: bash: line 1: /opt/copper: No such file or directory");
        ears.line(None, "ssh: connect to host n2 port 22: No route to host");
        ears.line(None, &Line { host: "n1".into(), rank: Some(0), said: Said::Ready }.print());
        ears.ended(None, Launcher::Clush, "exit status: 1");
        let missing = ears.missing(Some(Duration::from_secs(3)));
        assert_eq!(missing.len(), 3, "a rank whose launcher is gone is gone: {missing:?}");
        assert!(missing[1].reason.contains("No such file"), "{missing:?}");
        assert!(missing[2].to_string().starts_with("rank 2 on n2: clush has ended"), "{missing:?}");
        assert!(missing[2].reason.contains("No route to host"), "{missing:?}");
    }

    #[test]
    fn a_launch_is_complete_when_all_are_counted_and_each_has_said_so() {
        let hosts = hosts();
        let mut ears = Ears::new(&hosts);
        let say = |ears: &mut Ears<'_>, rank: usize, said| {
            let line = Line { host: hosts.names()[rank].clone(), rank: None, said };
            ears.line(Some(rank), &line.print());
        };
        say(&mut ears, 0, Said::Ready);
        say(&mut ears, 2, Said::Ready);
        // The count is faster than what the host in the middle says.
        let counted =
            crate::ready::ProgressReport { ready: 3, size: 3, depth: 1, missing: Vec::new() };
        say(&mut ears, 0, Said::Counted(counted));
        assert!(!ears.is_complete(), "rank 1 would count as missing");
        say(&mut ears, 1, Said::Ready);
        assert!(ears.is_complete());
        assert!(ears.missing(Some(Duration::from_secs(3))).is_empty());
    }

    #[test]
    fn what_an_agent_says_counts_for_its_rank() {
        let hosts = hosts();
        let mut ears = Ears::new(&hosts);
        let failed = Said::Failed { reason: "rank 1: no /dev/fuse".to_owned() };
        ears.line(None, &Line { host: "n10".into(), rank: None, said: failed }.print());
        let started = Said::Started { pid: 7, log: "/nowhere".to_owned() };
        ears.line(Some(2), &Line { host: "n2".into(), rank: Some(2), said: started }.print());
        let missing = ears.missing(Some(Duration::from_secs(3)));
        assert_eq!(missing[1].to_string(), "rank 1 on n10: no /dev/fuse");
        assert!(missing[0].reason.contains("no word from this host"), "{missing:?}");
        assert!(missing[2].reason.contains("its log /nowhere is empty"), "{missing:?}");
    }
}
