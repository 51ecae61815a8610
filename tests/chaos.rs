//! `ci/chaos.sh`, shortly: daemons that die, stop and come back, links and files that fail, on hosts made
//! of namespaces, while everybody reads.

#[path = "support/harness.rs"]
mod support;

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use support::{Random, is_root, run, say};

/// Faults for some seconds, the start and the end of hosts, and the time that readers have to recover.
const BOUND: Duration = Duration::from_secs(200);

#[test]
fn faults_at_random_cost_no_wrong_byte_no_hang_and_nothing_is_left() {
    if !is_root() {
        say("skipped: namespaces take root");
        return;
    }
    let seed = Random::seeded().next().to_string();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("ci/chaos.sh");
    let mut command = Command::new(script);
    command.args(["10", "--hosts", "4", "--seed", &seed]);
    command.args(["--program", env!("CARGO_BIN_EXE_copper")]);
    let said = run(&mut command, BOUND).success();
    say(&said);
    assert!(said.contains("the root"), "the last fault has come: {said}");
    assert!(said.contains("wrong 0, over 60 s 0"), "{said}");
}
