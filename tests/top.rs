//! `copper top` on a real terminal.

#[path = "support/harness.rs"]
mod support;

use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;
use support::command::Ended;
use support::job::{COPPER, copper};
use support::process::Process;
use support::terminal::Terminal;
use support::{Job, Options, Scratch, Tree, run};

const BOUND: Duration = Duration::from_secs(30);

/// `copper top` in a terminal.
trait Top {
    /// Starts it; a line tells when and how it has ended.
    fn top(&self, views: &Path);

    /// It has ended so, and the terminal is as it was: what was there is shown again, and lines are
    /// read as a shell wants them.
    fn is_given_back(&self, ended: &str) -> String;

    fn top_process(&self) -> Process;
}

impl Top for Terminal {
    fn top(&self, views: &Path) {
        self.say("echo before");
        self.until("what was before", |screen| screen.lines().any(|line| line == "before"));
        // What is typed must not look like what is told.
        self.say(&format!("{COPPER} top --interval 0.2 -v {}; echo end''ed $?", views.display()));
        self.until("a frame", |screen| screen.contains("copper top ") && screen.contains("q quit"));
    }

    #[track_caller]
    fn is_given_back(&self, ended: &str) -> String {
        let is_there = |screen: &str| {
            screen.lines().any(|line| line == "before")
                && screen.lines().any(|line| line == ended)
                && !screen.contains("q quit")
        };
        let screen = self.until("the shell", is_there);
        self.say("stty -a | tr ' ;' '\\n\\n' | grep -x -e icanon -e echo -e isig | tr '\\n' '.'");
        self.until("a terminal in order", |screen| screen.contains("isig.icanon.echo."));
        let pane = self.tmux(&["display-message", "-p", "#{alternate_on} #{cursor_flag}"]);
        let flags = run(&mut { pane }, BOUND).success();
        assert_eq!(flags.trim(), "0 1", "no alternate screen, and a cursor");
        screen
    }

    fn top_process(&self) -> Process {
        let children = format!("/proc/{0}/task/{0}/children", self.shell());
        let child = std::fs::read_to_string(children).expect("the shell runs");
        Process::of(child.trim().parse().expect("one child")).expect("it runs")
    }
}

/// A job with a counted path, and one file read at each rank.
fn job_with_paths(scratch: &Scratch, ranks: u32) -> Job {
    let tree = Tree::new(scratch);
    let file = tree.file("hot", 3_000_000);
    let job = Job::launch_with(scratch, ranks, &Options::with(&["-P", "-N", "10"]));
    for rank in 0..ranks {
        let bytes = std::fs::read(job.view(rank, &file)).expect("it is in the view");
        assert_eq!(bytes.len(), 3_000_000);
    }
    job
}

fn once(scratch: &Scratch, views: &Path) -> Ended {
    let mut command = copper(scratch);
    run(command.args(["top", "--once", "--interval", "0.2", "-v"]).arg(views), BOUND)
}

/// The words of a rank's row.
fn row(screen: &str, rank: u32) -> Vec<String> {
    let below = screen.lines().skip_while(|line| !line.starts_with("RANK")).skip(1);
    let mut rows = below.map(|line| line.split_whitespace().map(str::to_owned).collect());
    let found = rows.find(|words: &Vec<String>| words.first() == Some(&rank.to_string()));
    found.unwrap_or_else(|| panic!("rank {rank} is not on\n{screen}"))
}

#[test]
fn a_terminal_shows_all_ranks_and_does_what_the_keys_say() {
    let scratch = Scratch::new();
    let job = job_with_paths(&scratch, 4);
    let terminal = Terminal::open(&scratch);
    terminal.top(&job.directory);
    // Two frames make rates.
    let screen = terminal.until("rates", |screen| !screen.contains("calls -/s"));
    assert!(screen.starts_with("copper top   4 ranks: 4 ready"), "{screen}");
    for rank in 0..4 {
        assert_eq!(row(&screen, rank)[1], "ready", "{screen}");
    }
    let below = screen.lines().skip_while(|line| !line.starts_with("RANK")).skip(1);
    let indents = below.take(2).map(|line| line.len() - line.trim_start().len());
    assert_eq!(indents.collect::<Vec<_>>(), [0, 2], "a child stands below its parent:\n{screen}");
    let hottest =
        screen.lines().find(|line| line.starts_with("hottest")).expect("paths are counted");
    assert!(hottest.contains("4 ranks") && hottest.ends_with("hot"), "{screen}");
    terminal.press("s");
    terminal.until("another order", |screen| screen.contains("by calls/s"));
    terminal.press("l");
    let screen = terminal.until("levels", |screen| screen.contains("LEVEL"));
    let levels: Vec<&str> = screen.lines().filter(|line| line.contains(" ranks ready ")).collect();
    assert_eq!(levels.len(), 3, "four ranks, with two children each:\n{screen}");
    assert!(levels[1].starts_with("1      2 ranks ready "), "{screen}");
    terminal.press("l");
    terminal.until("ranks", |screen| screen.contains("RANK"));
    terminal.press("?");
    terminal.until("help", |screen| screen.contains("press any key") && screen.contains("q quit"));
    terminal.press("x");
    terminal.until("the table", |screen| screen.contains("RANK") && !screen.contains("press any"));
    terminal.act(&["resize-window", "-x", "120", "-y", "14"]);
    terminal.until("hosts, and the last line", |screen| {
        screen.contains("HOST")
            && screen.lines().nth(13).is_some_and(|line| line.starts_with("q quit"))
    });
    // Two rows for four ranks.
    terminal.act(&["resize-window", "-x", "80", "-y", "5"]);
    terminal.until("the first ranks", |screen| screen.contains("1-2 of 4"));
    terminal.press("End");
    terminal.until("the last ranks", |screen| screen.contains("3-4 of 4"));
    terminal.press("Up");
    terminal.until("those before", |screen| screen.contains("2-3 of 4"));
    terminal.act(&["resize-window", "-x", "80", "-y", "24"]);
    terminal.press("q");
    terminal.is_given_back("ended 0");
}

#[test]
fn the_terminal_is_given_back_at_a_signal() {
    let scratch = Scratch::new();
    let job = Job::launch(&scratch, 1);
    let terminal = Terminal::open(&scratch);
    for (signal, ended) in [(Signal::TERM, "ended 143"), (Signal::HUP, "ended 129")] {
        terminal.top(&job.directory);
        terminal.top_process().signal(signal);
        terminal.is_given_back(ended);
        terminal.say("clear");
        terminal.until("a prompt alone", |screen| screen.trim().chars().count() == 1);
    }
}

#[test]
fn a_terminal_that_is_gone_ends_it() {
    let scratch = Scratch::new();
    let job = job_with_paths(&scratch, 1);
    let terminal = Terminal::open(&scratch);
    terminal.top(&job.directory);
    let process = terminal.top_process();
    terminal.act(&["kill-server"]);
    assert!(process.wait(Duration::from_secs(10)), "it goes on without a terminal");
}

#[test]
fn a_daemon_that_dies_is_shown_and_a_job_that_ends_ends_it() {
    let scratch = Scratch::new();
    let mut job = Job::launch(&scratch, 3);
    let terminal = Terminal::open(&scratch);
    terminal.top(&job.directory);
    // The rank that all are asked through, and the root.
    job.kill(0);
    let screen = terminal.until("the dead rank", |screen| screen.contains("1 dead"));
    assert_eq!(row(&screen, 0)[1], "dead", "{screen}");
    job.stop();
    let screen = terminal.is_given_back("ended 1");
    let line = format!("copper: nothing is running under {}", job.directory.display());
    let unwrapped = screen.lines().collect::<String>();
    assert!(unwrapped.contains(&line), "{screen}");
}

/// The number of bytes that a rate in a row stands for, times the seconds of the interval.
fn bytes(rate: &str, seconds: f64) -> f64 {
    let number: f64 = rate.strip_suffix('M').expect("some MiB").parse().expect("a number");
    number * f64::from(1 << 20) * seconds
}

#[test]
fn rates_are_those_of_a_load_that_is_known() {
    const LEN: usize = 24 << 20;
    const INTERVAL_S: f64 = 6.0;
    let scratch = Scratch::new();
    let tree = Tree::new(&scratch);
    let file = tree.file("large", LEN);
    let job = Job::launch(&scratch, 2);
    let (mut command, views) = (copper(&scratch), job.directory.clone());
    let frame = std::thread::spawn(move || {
        let interval = INTERVAL_S.to_string();
        run(command.args(["top", "--once", "--interval", &interval, "-v"]).arg(views), BOUND)
    });
    // In the middle of the interval.
    std::thread::sleep(Duration::from_secs_f64(INTERVAL_S / 2.0));
    assert_eq!(std::fs::read(job.view(1, &file)).expect("it is in the view").len(), LEN);
    let frame = frame.join().expect("it does not panic").success();
    let (root, leaf) = (row(&frame, 0), row(&frame, 1));
    let (pulled, served, source) = (&leaf[4], &root[5], &root[6]);
    assert_eq!((pulled, &root[4], &leaf[6]), (served, &"0".to_owned(), &"0".to_owned()), "{frame}");
    for rate in [pulled, source] {
        // The interval may have been longer, but not by half of it.
        let part = bytes(rate, INTERVAL_S) / LEN as f64;
        assert!((0.65..1.05).contains(&part), "{part} of what was read:\n{frame}");
    }
}

#[test]
fn one_frame_is_printed_as_text() {
    let scratch = Scratch::new();
    let mut job = job_with_paths(&scratch, 2);
    let text = once(&scratch, &job.directory).success();
    assert!(text.starts_with("copper top   2 ranks: 2 ready"), "{text}");
    assert!(!text.contains('\u{1b}'), "no codes for a terminal: {text}");
    for rank in 0..2 {
        let row = row(&text, rank);
        // Between its two frames nobody has read.
        assert_eq!((row[1].as_str(), row[2].as_str()), ("ready", "0"), "{text}");
    }
    assert!(text.contains("hot"), "{text}");
    job.stop();
    let line = once(&scratch, &job.directory).failure_line();
    assert!(line.starts_with("copper: nothing is running under "), "{line}");
}

#[test]
fn without_a_terminal_it_says_what_to_do() {
    let scratch = Scratch::new();
    let mut command = copper(&scratch);
    let ended = run(command.args(["top", "-v"]).arg(scratch.path()), BOUND);
    assert_eq!(ended.status.code(), Some(1));
    assert!(ended.failure_line().contains("use --once"), "{}", ended.stderr());
    let mut command = copper(&scratch);
    let ended = run(command.args(["top", "--interval", "0", "-v"]).arg(scratch.path()), BOUND);
    assert_eq!(ended.status.code(), Some(2));
    assert!(ended.failure_line().contains("give seconds"), "{}", ended.stderr());
}
