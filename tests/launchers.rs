//! The launchers that are installed on this machine, each on a cluster of namespaces: a launch, a stop,
//! and what is left when the launcher, or the head, is killed. All five are compared with figures by
//! `ci/launchers.sh`.

#[path = "support/harness.rs"]
mod support;

use std::process::Command;
use std::time::Duration;

use support::fleet::{VIEW, complaint, takes_root};
use support::{Fleet, Scratch, Tree, eventually, say};

/// How long what a failure has left may stay: Slurm looks after its steps once a second or so.
const CLEAN_BOUND: Duration = Duration::from_secs(15);

const BOUND: Duration = Duration::from_secs(60);

const SIZE: u32 = 3;

/// Whether all of these programs are here; says so if not.
fn has(programs: &[&str]) -> bool {
    let found =
        |name: &&&str| Command::new("which").arg(name).output().is_ok_and(|it| it.status.success());
    let missing = programs.iter().find(|name| !found(name));
    if let Some(name) = missing {
        say(&format!("skipped: there is no {name} on this machine"));
    }
    missing.is_none()
}

/// A launch by `words`, that all hosts show a file, a stop, and that nothing is left.
#[track_caller]
fn assert_works(fleet: &Fleet, tree: &Tree, words: &[&str]) {
    let file = tree.file("file", 2_000_000);
    let said = fleet.launch(words);
    assert!(said.contains("3 of 3 ranks ready"), "{said}");
    (0..SIZE).rev().for_each(|host| fleet.assert_shows(host, &file));
    let said = fleet.stop();
    assert!(said.contains("3 ranks stopped"), "{said}");
    fleet.assert_clean(0..SIZE, CLEAN_BOUND);
}

/// Of a launch whose launcher holds the daemons: the secret is where it has to be, and nowhere else.
#[track_caller]
fn assert_secret_is_kept(fleet: &Fleet) {
    let agent = "tr '\\0' '\\n' </proc/$(pgrep -f '^[^ ]*copper agent ')/environ | sed -n 's/^COPPER_SECRET=//p'";
    let secret = fleet.on(1, agent).trim().to_owned();
    assert_eq!(secret.len(), 64, "an agent has it in its environment");
    for host in 0..SIZE {
        let holders = fleet.holders(host, &secret);
        assert!(!holders.is_empty(), "the agent of node{host} has it");
        for holder in holders {
            let own = ["copper serve", "copper guard", "copper launch"];
            let of_a_daemon = own.iter().any(|own| holder.ends_with(own));
            assert!(holder.starts_with("environ of") && !of_a_daemon, "on node{host}: {holder}");
        }
    }
}

/// The launcher killed while the daemons serve: where it does not take all of them with it, a stop does.
#[track_caller]
fn assert_a_killed_launcher_leaves_nothing(fleet: &Fleet, words: &[&str], launcher: &str) {
    fleet.launch(words);
    assert_secret_is_kept(fleet);
    let killed = fleet.on(0, &format!("kill -KILL $(pgrep -o '{launcher}') && echo killed"));
    assert_eq!(killed, "killed\n");
    // Open MPI leaves the rank on its own host alone.
    let first = if words.contains(&"openmpi") { 1 } else { 0 };
    for host in first..SIZE {
        eventually(CLEAN_BOUND, &format!("node{host} is clean"), || {
            let left = fleet.on(host, "pgrep -ax copper; grep ' fuse' /proc/self/mounts; true");
            left.is_empty().then_some(())
        });
    }
    fleet.stop();
    fleet.assert_clean(0..SIZE, CLEAN_BOUND);
}

/// The head killed in the middle of a launch.
#[track_caller]
fn assert_a_killed_head_leaves_nothing(
    scratch: &Scratch,
    fleet: &Fleet,
    words: &[&str],
    launcher: &str,
) {
    fleet.replace_program(scratch, 2, "exec sleep 60");
    let head = fleet.start_head(words);
    eventually(BOUND, "node1 shows the view", || {
        let mounts = fleet.on(1, "grep ' fuse' /proc/self/mounts || true");
        mounts.contains(VIEW).then_some(())
    });
    fleet.kill_head(head);
    eventually(CLEAN_BOUND, "the launcher ends", || {
        fleet.on(0, &format!("pgrep '{launcher}' || true")).is_empty().then_some(())
    });
    fleet.assert_clean(0..SIZE, CLEAN_BOUND);
    fleet.restore_program(2);
    fleet.stop();
}

/// A host without FUSE is named, and the others are left clean.
#[track_caller]
fn assert_names_a_faulty_host(fleet: &Fleet, words: &[&str]) {
    for rank in [1, 0] {
        fleet.on(rank, "mount --bind /dev/null /dev/fuse");
        let line = complaint(&fleet.try_launch(words), 1);
        let named = line.contains(&format!("rank {rank} on node{rank}: /dev/fuse"));
        assert!(named && !line.contains("on node2"), "{line}");
        fleet.assert_clean(0..SIZE, CLEAN_BOUND);
        fleet.on(rank, "umount /dev/fuse");
    }
}

#[test]
fn clush_launches_and_stops() {
    if !takes_root() || !has(&["clush"]) {
        return;
    }
    let scratch = Scratch::new();
    let fleet = Fleet::up(&scratch, SIZE, &[]);
    let words = ["--launcher", "clush"];
    assert_works(&fleet, &Tree::new(&scratch), &words);
    assert_names_a_faulty_host(&fleet, &words);
}

#[test]
fn mpich_launches_and_stops_and_its_death_leaves_nothing() {
    if !takes_root() || !has(&["mpiexec.mpich"]) {
        return;
    }
    let scratch = Scratch::new();
    let fleet = Fleet::up(&scratch, SIZE, &[]);
    let words = ["--launcher", "mpich"];
    assert_works(&fleet, &Tree::new(&scratch), &words);
    assert_names_a_faulty_host(&fleet, &words);
    assert_a_killed_launcher_leaves_nothing(&fleet, &words, "^mpiexec");
    assert_a_killed_head_leaves_nothing(&scratch, &fleet, &words, "^mpiexec");
}

#[test]
fn openmpi_launches_and_stops_and_its_death_leaves_nothing() {
    if !takes_root() || !has(&["mpiexec.openmpi"]) {
        return;
    }
    let scratch = Scratch::new();
    let fleet = Fleet::up(&scratch, SIZE, &[]);
    let words = ["--launcher", "openmpi"];
    assert_works(&fleet, &Tree::new(&scratch), &words);
    assert_names_a_faulty_host(&fleet, &words);
    assert_a_killed_launcher_leaves_nothing(&fleet, &words, "^mpiexec");
    assert_a_killed_head_leaves_nothing(&scratch, &fleet, &words, "^mpiexec");
}

#[test]
fn slurm_launches_and_stops_and_a_killed_srun_leaves_no_dead_mount() {
    if !takes_root() || !has(&["srun", "slurmctld", "slurmd", "munged"]) {
        return;
    }
    let scratch = Scratch::new();
    let mut fleet = Fleet::up(&scratch, SIZE, &["--slurm"]);
    let job = fleet.on(0, "salloc -Q --no-shell -N 3 && squeue -h -o %A");
    let job = job.trim().to_owned();
    fleet.environment =
        vec![("SLURM_JOB_ID", job.clone()), ("SLURM_JOB_NODELIST", "node[0-2]".into())];
    let words = ["--launcher", "slurm"];
    assert_works(&fleet, &Tree::new(&scratch), &words);
    assert_names_a_faulty_host(&fleet, &words);
    assert_a_killed_launcher_leaves_nothing(&fleet, &words, "^srun$");
    assert_a_killed_head_leaves_nothing(&scratch, &fleet, &words, "^srun$");
    // The end of the job.
    fleet.launch(&words);
    fleet.on(0, &format!("scancel {job}"));
    fleet.assert_clean(0..SIZE, CLEAN_BOUND);
    // srun can reach nobody any more; ssh can.
    let late = fleet.stop();
    assert!(late.contains("nothing was running"), "{late}");
}
