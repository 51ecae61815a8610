//! Files that a user or a batch system hands over: the secret and the list of hosts.

#[path = "support/scratch.rs"]
mod scratch;

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};

use copper_launcher::{Job, Peers, PeersError, RunFolder, Secret, SecretError};
use copper_proto::Rank;
use scratch::Scratch;

#[test]
fn a_secret_survives_its_file_and_is_never_shown() {
    let scratch = Scratch::new();
    let path = scratch.path().join("secret");
    let secret = Secret::generate().expect("random bytes");
    secret.write_new(&path).expect("new");
    assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o7777, 0o600);
    assert_eq!(Secret::from_file(&path).expect("ours").hex(), secret.hex());
    assert!(matches!(secret.write_new(&path), Err(SecretError::Write { .. })), "O_EXCL");
    let shown = format!("{secret:?}");
    assert!(!shown.contains(&secret.hex()[..8]), "{shown}");
    assert_ne!(Secret::generate().expect("random bytes").hex(), secret.hex());
}

#[test]
fn a_secret_that_others_could_have_read_is_refused() {
    let scratch = Scratch::new();
    let path = scratch.path().join("secret");
    Secret::generate().expect("random bytes").write_new(&path).expect("new");
    for mode in [0o400, 0o600] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("ours");
        Secret::from_file(&path).expect("nobody else can read it");
    }
    for mode in [0o640, 0o604, 0o700, 0o4600] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("ours");
        let error = Secret::from_file(&path).expect_err("others can").to_string();
        assert!(error.contains(&format!("has mode {mode:04o}")), "{error}");
    }
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("ours");
    let link = scratch.path().join("link");
    symlink(&path, &link).expect("new");
    assert!(matches!(Secret::from_file(&link), Err(SecretError::Read { .. })));
    assert!(matches!(Secret::from_file(scratch.path()), Err(SecretError::NotAFile { .. })));
    if rustix::process::geteuid().is_root() {
        chown(&path, Some(65_534), None).expect("we are root");
        assert!(matches!(Secret::from_file(&path), Err(SecretError::Owner { .. })));
    }
}

#[test]
fn what_is_not_a_secret_is_refused_without_being_repeated() {
    let scratch = Scratch::new();
    let path = scratch.path().join("secret");
    for text in ["", "hunter2", &"0".repeat(63), &"0".repeat(65), &"g".repeat(64)] {
        fs::write(&path, text).expect("ours");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("ours");
        let error = Secret::from_file(&path).expect_err("not a secret");
        assert!(matches!(error, SecretError::Malformed { .. }), "{error}");
        assert!(text.is_empty() || !error.to_string().contains(text));
    }
}

#[test]
fn a_hosts_file_has_comments_and_no_host_twice() {
    let scratch = Scratch::new();
    let path = scratch.path().join("hosts");
    let read = |text: &str| {
        fs::write(&path, text).expect("ours");
        Peers::from_hosts_file(&path, 7001)
    };
    let peers = read("# two nodes\n127.0.0.1\n\n  ::1   # the second\n").expect("valid");
    assert_eq!(peers.to_string(), "127.0.0.1:7001,[::1]:7001");
    let error = read("node-1\nnode-2\nnode-1\n").expect_err("twice").to_string();
    assert!(error.starts_with("node-1:7001 stands twice in"), "{error}");
    assert!(error.contains("for ranks 0 and 2"), "{error}");
    assert!(matches!(read("# nobody\n"), Err(PeersError::NoHost { .. })));
    assert!(matches!(read("a b\n"), Err(PeersError::Entry { .. })));
    // RFC 6761: no such name, ever.
    let peers = read("127.0.0.1\nno-such-host.invalid\n").expect("names are looked up later");
    let error = peers.resolve(Rank(1)).expect_err("unknown").to_string();
    assert!(error.contains("the host \"no-such-host.invalid\" of rank 1 is not known"), "{error}");
    fs::remove_file(&path).expect("ours");
    let error = Peers::from_hosts_file(&path, 7001).expect_err("missing").to_string();
    assert!(error.contains("cannot read the list of hosts"), "{error}");
}

#[test]
fn a_run_s_folder_has_its_logs_and_its_hosts() {
    let scratch = Scratch::new();
    let job = Job::parse("42").expect("valid");
    let folder = RunFolder::create(scratch.path(), &job, ["a", "b"]).expect("ours");
    assert_eq!(folder.path(), scratch.path().join("42"));
    let hosts = fs::read_to_string(folder.logs().join("node_file.txt")).expect("written");
    assert_eq!(hosts, "a\nb\n");
    assert_eq!(folder.log("a", 7), scratch.path().join("42/logs/a-7-output.log"));
    fs::write(scratch.path().join("file"), "").expect("ours");
    let error = RunFolder::create(&scratch.path().join("file"), &job, []).expect_err("a file");
    assert!(error.to_string().contains("choose another place with -d"), "{error}");
}
