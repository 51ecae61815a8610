//! What takes more than two seconds says how far it has come.

#[path = "support/harness.rs"]
mod support;

use std::time::Duration;

use rustix::process::Signal;
use support::job::{COPPER, copper};
use support::terminal::Terminal;
use support::{Job, Scratch, eventually, run};

const BOUND: Duration = Duration::from_secs(60);

#[test]
fn a_refresh_that_waits_says_so_once_in_a_log_and_over_and_over_at_a_terminal() {
    let scratch = Scratch::new();
    let job = Job::launch(&scratch, 2);
    job.daemons[1].signal(Signal::STOP);
    let what = "copper: all ranks look at / anew";
    let refresh = ["refresh", "-v", job.directory.to_str().expect("UTF-8")];
    let ended = run(copper(&scratch).args(refresh), BOUND);
    let told = ended.stderr();
    assert_eq!(told.lines().filter(|line| *line == what).count(), 1, "{told}");
    assert!(!told.contains('\r') && told.contains("no answer from ranks 1:"), "{told}");

    // Its parent does not wait for it any more: it comes back first.
    job.daemons[1].signal(Signal::CONT);
    eventually(BOUND, "all answer again", || {
        run(copper(&scratch).args(refresh), BOUND).status.success().then_some(())
    });
    job.daemons[1].signal(Signal::STOP);
    let terminal = Terminal::open(&scratch);
    terminal.say(&format!("{COPPER} {}; echo end''ed $?", refresh.join(" ")));
    terminal.until("what is done", |screen| screen.contains(&format!("{what}, 2 s")));
    terminal.until("that it goes on", |screen| screen.contains(&format!("{what}, 3 s")));
    let screen = terminal.until("the end", |screen| screen.contains("ended 1"));
    assert!(!screen.contains(what), "the line is left:\n{screen}");
    job.daemons[1].signal(Signal::CONT);
}

#[test]
fn a_simulation_shows_how_far_it_has_come() {
    let scratch = Scratch::new();
    let terminal = Terminal::open(&scratch);
    terminal
        .say(&format!("{COPPER} simulate --nodes 256 >{}", scratch.path().join("table").display()));
    terminal.until("how far", |screen| screen.contains("copper: 256 nodes: "));
    terminal.press("C-c");
}
