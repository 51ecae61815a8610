//! The register of running daemons, and asking them how they are.

#[path = "support/patience.rs"]
mod patience;
#[path = "support/scratch.rs"]
mod scratch;

use std::fs;
use std::io::Read;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::time::{Duration, Instant};

use copper_launcher::instance::canonical;
use copper_launcher::status::{collect, query};
use copper_launcher::{
    Claim, Instance, InstanceError, Instances, Job, Moment, Process, StatusServer,
};
use copper_proto::Rank;
use patience::until;
use scratch::Scratch;
use serde_json::json;

fn register(scratch: &Scratch) -> Instances {
    Instances::at(&scratch.path().join("run")).expect("a new folder")
}

fn instance(claim: &Claim, rank: u32, process: Process) -> Instance {
    Instance {
        version: "0.1.0".to_owned(),
        job: Job::parse("job-1").expect("valid"),
        rank: Rank(rank),
        size: 4,
        host: "here".to_owned(),
        process,
        since: Moment(1_700_000_000),
        mount: claim.mount().to_owned(),
        device: Some(77),
        mount_point_created: true,
        socket: claim.socket().to_owned(),
        log: Some(PathBuf::from("/logs/here-1-output.log")),
        launch: claim.mount().parent().expect("not the root").to_owned(),
    }
}

fn current() -> Process {
    Process::current().expect("/proc")
}

/// A process that waits until its input is closed.
fn waiting_process() -> (Child, Process) {
    let mut command = Command::new("/bin/cat");
    let child = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().expect("cat");
    let process = Process::of(child.id()).expect("it waits");
    (child, process)
}

fn end(mut child: Child) {
    drop(child.stdin.take());
    child.wait().expect("a child");
}

#[test]
fn a_mount_point_has_one_holder_who_is_named() {
    let scratch = Scratch::new();
    let (instances, mount) = (register(&scratch), scratch.path().join("m"));
    let mut claim = instances.claim(&mount).expect("free");
    assert!(claim.predecessor().is_none());
    let error = instances.claim(&mount).expect_err("held").to_string();
    let (mount_shown, pid) = (mount.display(), std::process::id());
    assert_eq!(
        error,
        format!(
            "mount point {mount_shown} is held by pid {pid}, which is just starting or ending: try again"
        )
    );
    claim.record(&instance(&claim, 3, current())).expect("written");
    let error = instances.claim(&scratch.path().join("./x/../m")).expect_err("held").to_string();
    let expected = format!(
        "mount point {mount_shown} is held by pid {pid} (rank 3 of job job-1, started 2023-11-14 \
         22:13:20 UTC): stop that one first (stop_copper.sh -v {}), or choose another with -v",
        scratch.path().display()
    );
    assert_eq!(error, expected);
    instances.claim(&scratch.path().join("n")).expect("another mount point is free");
    claim.release().expect("removed");
    let left: Vec<_> = fs::read_dir(instances.path()).expect("there").collect();
    assert!(left.is_empty(), "{left:?}");
    instances.claim(&mount).expect("free again");
}

#[test]
fn of_many_who_want_a_mount_point_one_has_it_at_a_time() {
    let scratch = Scratch::new();
    let (instances, mount) = (register(&scratch), scratch.path().join("m"));
    let (holders, claims) = (AtomicU32::new(0), AtomicU32::new(0));
    // The race that this looks for was lost within a second when it was there.
    let end = Instant::now() + Duration::from_secs(1);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                while Instant::now() < end {
                    let Ok(claim) = instances.claim(&mount) else { continue };
                    assert_eq!(holders.fetch_add(1, SeqCst), 0, "two hold it");
                    claims.fetch_add(1, SeqCst);
                    // Gives the others the time to come in.
                    (0..20).for_each(|_| std::thread::yield_now());
                    holders.fetch_sub(1, SeqCst);
                    claim.release().expect("ours");
                }
            });
        }
    });
    assert!(claims.into_inner() > 1);
}

#[test]
fn what_a_dead_daemon_left_is_found_and_given_to_the_next() {
    let scratch = Scratch::new();
    let (instances, mount) = (register(&scratch), scratch.path().join("m"));
    let (child, process) = waiting_process();
    let mut claim = instances.claim(&mount).expect("free");
    let record = instance(&claim, 1, process);
    claim.record(&record).expect("written");
    drop(claim);
    // Its lock is gone, but it lives: as where somebody cleans /tmp.
    assert!(matches!(instances.claim(&mount), Err(InstanceError::Held { .. })));
    assert!(matches!(instances.forget(&record), Err(InstanceError::Held { .. })));
    assert!(instances.all().expect("readable")[0].alive);
    end(child);
    let listed = instances.all().expect("readable");
    assert_eq!((listed.len(), listed[0].alive, &listed[0].instance), (1, false, &record));
    let claim = instances.claim(&mount).expect("free");
    assert_eq!(claim.predecessor(), Some(&record));
    drop(claim);
    assert_eq!(instances.all().expect("readable").len(), 1, "nobody has cleaned up yet");
    instances.forget(&record).expect("dead");
    assert!(instances.all().expect("readable").is_empty());
}

#[test]
fn a_process_number_that_was_given_again_does_not_hold_anything() {
    let scratch = Scratch::new();
    let (instances, mount) = (register(&scratch), scratch.path().join("m"));
    let (child, process) = waiting_process();
    let earlier = Process { pid_started: process.pid_started - 1, ..process };
    let mut claim = instances.claim(&mount).expect("free");
    claim.record(&instance(&claim, 1, earlier)).expect("written");
    drop(claim);
    assert!(!instances.all().expect("readable")[0].alive);
    assert!(instances.claim(&mount).expect("free").predecessor().is_some());
    end(child);
}

#[test]
fn a_launch_finds_its_own_ranks_and_no_others() {
    let scratch = Scratch::new();
    let instances = register(&scratch);
    let mut claims = Vec::new();
    for (name, rank) in [("d/1", 1), ("d/0", 0), ("d", 9), ("d/x", 5), ("e/0", 0), ("d/0/0", 0)] {
        let mut claim = instances.claim(&scratch.path().join(name)).expect("free");
        claim.record(&instance(&claim, rank, current())).expect("written");
        claims.push(claim);
    }
    let under = instances.under(&scratch.path().join("d/")).expect("readable");
    let mounts: Vec<&Path> = under
        .iter()
        .map(|it| it.instance.mount.strip_prefix(scratch.path()).expect("in it"))
        .collect();
    assert_eq!(mounts, [Path::new("d/0"), Path::new("d/1"), Path::new("d")]);
    assert_eq!(instances.all().expect("readable").len(), 6);
}

#[test]
fn a_folder_that_others_could_touch_is_refused() {
    let scratch = Scratch::new();
    let run = scratch.path().join("run");
    fs::create_dir(&run).expect("new");
    fs::set_permissions(&run, fs::Permissions::from_mode(0o755)).expect("ours");
    let error = Instances::at(&run).expect_err("0755").to_string();
    assert!(error.contains("has mode 0755"), "{error}");
    fs::set_permissions(&run, fs::Permissions::from_mode(0o700)).expect("ours");
    Instances::at(&run).expect("0700");
    let link = scratch.path().join("link");
    symlink(&run, &link).expect("new");
    let error = Instances::at(&link).expect_err("a link").to_string();
    assert!(error.contains("is a symbolic link") && error.contains("COPPER_RUN_DIR"), "{error}");
    if rustix::process::geteuid().is_root() {
        chown(&run, Some(65_534), None).expect("we are root");
        let error = Instances::at(&run).expect_err("somebody else's").to_string();
        assert!(error.contains("belongs to user 65534, not to user 0"), "{error}");
    }
}

#[test]
fn a_mount_point_has_one_path_whether_or_not_it_exists() {
    let scratch = Scratch::new();
    let base = fs::canonicalize(scratch.path()).expect("there");
    fs::create_dir(base.join("real")).expect("new");
    symlink("real", base.join("link")).expect("new");
    symlink("loop", base.join("loop")).expect("new");
    for (given, expected) in [
        ("link", "real"),
        ("link/0", "real/0"),
        ("link/../link/./missing//0/", "real/missing/0"),
        ("missing/../real", "real"),
    ] {
        assert_eq!(canonical(&base.join(given)).expect(given), base.join(expected), "{given}");
    }
    assert!(matches!(canonical(&base.join("loop/0")), Err(InstanceError::Path { .. })));
}

#[test]
fn a_damaged_record_stops_nobody_from_seeing_the_others() {
    let scratch = Scratch::new();
    let instances = register(&scratch);
    let mut claim = instances.claim(&scratch.path().join("m")).expect("free");
    claim.record(&instance(&claim, 0, current())).expect("written");
    fs::write(instances.path().join("0123.json"), "{").expect("ours");
    assert_eq!(instances.all().expect("readable").len(), 1);
}

#[test]
fn status_is_collected_from_the_living_and_stood_in_for_the_dead_and_the_silent() {
    let scratch = Scratch::new();
    let instances = register(&scratch);
    let mut claims: Vec<Claim> = ["0", "1", "2"]
        .map(|name| instances.claim(&scratch.path().join(name)).expect("free"))
        .into();
    let (child, dead) = waiting_process();
    end(child);
    // Nobody listens on the socket of rank 0; rank 1 is dead; rank 2 answers.
    for (index, process) in [current(), dead, current()].into_iter().enumerate() {
        let rank = u32::try_from(index).expect("small");
        let record = instance(&claims[index], rank, process);
        claims[index].record(&record).expect("written");
    }
    let answer = json!({"rank": 2, "state": "ready", "source": {"opens": 0}});
    let given = answer.clone();
    let server = StatusServer::start(claims[2].socket(), move || given.clone()).expect("starts");
    let mode = fs::metadata(claims[2].socket()).expect("there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let status = collect(&instances.all().expect("readable"));
    let ranks = status["ranks"].as_array().expect("a list");
    assert_eq!(ranks.len(), 3);
    assert_eq!((&ranks[0]["state"], &ranks[0]["rank"]), (&json!("silent"), &json!(0)));
    assert_eq!((&ranks[1]["state"], &ranks[1]["pid"]), (&json!("dead"), &json!(dead.pid)));
    assert_eq!(ranks[2], answer);
    let socket = claims[2].socket().to_owned();
    drop(server);
    assert!(!socket.exists());
    query(&socket).expect_err("nobody answers");
}

#[test]
fn a_client_that_does_not_read_delays_the_others_for_a_bounded_time() {
    let scratch = Scratch::new();
    let instances = register(&scratch);
    let claim = instances.claim(&scratch.path().join("m")).expect("free");
    // More than a socket's buffer takes.
    let large = "x".repeat(2 << 20);
    let server = StatusServer::start(claim.socket(), move || json!({ "filler": large }));
    let server = server.expect("starts");
    let mut idle = UnixStream::connect(claim.socket()).expect("it listens");
    until("an answer although another client sleeps", || query(claim.socket()).is_ok());
    let mut half = Vec::new();
    idle.read_to_end(&mut half).expect("what was sent before it was given up");
    drop(server);
}
