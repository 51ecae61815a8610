//! Starting with what makes no sense, and strangers at the door.

#[path = "support/harness.rs"]
mod support;

use std::fs;
use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use support::job::copper;
use support::{Job, Random, Running, Scratch, Tree, eventually, mounts, run, within};

const BOUND: Duration = Duration::from_secs(60);

/// The exit code for a command line that makes no sense.
const USAGE: i32 = 2;

fn serve(scratch: &Scratch, mount: &Path, arguments: &[&str]) -> Command {
    let mut command = copper(scratch);
    command.args(["serve", "--net", "tcp", "--memory", "64MiB", "-v"]).arg(mount).args(arguments);
    command
}

fn secret(scratch: &Scratch, name: &str, mode: u32) -> PathBuf {
    let path = scratch.join(name);
    let digits: String = name.bytes().cycle().map(|byte| format!("{byte:02x}")).take(32).collect();
    fs::write(&path, digits).expect("it is ours");
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("it is ours");
    path
}

#[track_caller]
fn assert_nothing_left(scratch: &Scratch, mount: &Path) {
    assert_eq!(mounts::below(scratch.path()), Vec::<PathBuf>::new());
    assert!(!mount.exists(), "the mount point is left");
}

fn await_mount(daemon: &Running, view: &Path) {
    eventually(BOUND, "the view is mounted", || {
        assert!(daemon.process.is_alive(), "the daemon has ended");
        (!mounts::below(view).is_empty()).then_some(())
    });
}

#[test]
fn a_command_line_that_makes_no_sense_is_one_line_and_exit_code_2() {
    let scratch = Scratch::new();
    let lines: [&[&str]; 15] = [
        &[],
        &["fly"],
        &["launch"],
        &["launch", "--local"],
        &["launch", "--local", "0"],
        &["launch", "--local", "many"],
        &["launch", "--local", "2", "--memory", "5 apples"],
        &["launch", "--local", "2", "--no-such-flag"],
        &["launch", "--local", "2", "--source", "maybe"],
        &["launch", "--local", "2", "-T", "0"],
        &["launch", "--local", "2", "-M", "some"],
        &["launch", "--local", "2", "--spill-size", "1GiB"],
        &["serve", "--rank", "-1"],
        &["serve", "--size", "0"],
        &["status", "extra"],
    ];
    for arguments in lines {
        let ended = run(copper(&scratch).args(arguments), BOUND);
        let line = ended.failure_line();
        assert_eq!(ended.status.code(), Some(USAGE), "{arguments:?}: {line}");
        assert!(ended.stdout.is_empty(), "{arguments:?}: {}", ended.stdout());
    }
    assert!(!scratch.join("run").exists(), "nothing was begun");
}

#[test]
fn what_cannot_be_is_refused_in_one_line_before_anything_is_mounted() {
    let scratch = Scratch::new();
    let mount = scratch.join("view");
    let busy = TcpListener::bind("127.0.0.1:0").expect("there is a loopback interface");
    let address = busy.local_addr().expect("it is bound").to_string();
    let open_secret = secret(&scratch, "open", 0o644);
    let open_secret = open_secret.to_str().expect("text");
    let two = "127.0.0.1:1,127.0.0.1:2";
    let cases: [(&[&str], &str); 10] = [
        (&["--listen", &address], &address),
        (&["--source", "none"], "root"),
        (&["--rank", "2", "--size", "2", "--peers", two], "2 ranks"),
        (&["--size", "2"], "--peers"),
        (&["--size", "2", "--peers", two, "--listen", "127.0.0.1:0"], "secret"),
        (
            &[
                "--size",
                "2",
                "--peers",
                two,
                "--listen",
                "127.0.0.1:0",
                "--secret-file",
                open_secret,
            ],
            "open",
        ),
        (&["--memory", "1MiB", "--memory", "64MiB"], "--memory"),
        (&["--fanout", "1000"], "--fanout"),
        (&["--trees", "2"], "--trees"),
        (
            &[
                "--rank",
                "1",
                "--size",
                "2",
                "--peers",
                two,
                "--source",
                "none",
                "--direct-above",
                "1MB",
            ],
            "--direct-above",
        ),
    ];
    for (arguments, word) in cases {
        let ended = run(&mut serve(&scratch, &mount, &[&["-l", "off"], arguments].concat()), BOUND);
        let line = ended.failure_line();
        assert!(line.contains(word), "{arguments:?}: {line}");
        assert_nothing_left(&scratch, &mount);
    }
}

#[test]
fn ranks_with_different_secrets_do_not_come_together_and_both_say_so() {
    let scratch = Scratch::new();
    let tree = Tree::new(&scratch);
    let file = tree.file("file", 10_000);
    let secrets = [secret(&scratch, "one", 0o600), secret(&scratch, "other", 0o600)];
    let views = [scratch.join("view-0"), scratch.join("view-1")];
    let ports: Vec<TcpListener> =
        (0..2).map(|_| TcpListener::bind("127.0.0.1:0").expect("loopback")).collect();
    let addresses: Vec<String> =
        ports.iter().map(|port| port.local_addr().expect("bound").to_string()).collect();
    drop(ports);
    let start = |rank: usize, secret: &Path| {
        let (number, peers) = (rank.to_string(), addresses.join(","));
        let mut command = serve(&scratch, &views[rank], &["--size", "2", "--rank", &number]);
        command.args(["--job", "it", "-l", "warn", "--peers", &peers, "--ready-timeout", "30"]);
        Running::start(command.arg("--secret-file").arg(secret))
    };
    let root = start(0, &secrets[0]);
    await_mount(&root, &views[0]);
    let ended = start(1, &secrets[1]).finish(BOUND);
    assert!(!ended.status.success());
    let said = ended.stderr();
    let last = said.lines().last().unwrap_or_default();
    assert!(last.contains("secret"), "the child says: {said}");
    assert!(mounts::below(&views[1]).is_empty() && !views[1].exists(), "nothing half-started");
    // With the right one it joins, and the refusal has broken nothing.
    let child = start(1, &secrets[0]);
    await_mount(&child, &views[1]);
    let shown = views[1].join(file.strip_prefix("/").expect("absolute"));
    let read = within(BOUND, "reading", move || fs::read(shown)).expect("it is there");
    assert!(read == fs::read(&file).expect("it is ours"));
    child.process.signal(Signal::TERM);
    assert!(child.finish(BOUND).status.success());
    root.process.signal(Signal::TERM);
    let ended = root.finish(BOUND);
    assert!(ended.status.success());
    let said = ended.stderr();
    assert!(said.contains("secret") && said.contains("rank"), "the root says: {said}");
    for view in &views {
        assert_nothing_left(&scratch, view);
    }
}

#[test]
fn relative_paths_are_relative_to_where_the_command_was_typed() {
    let scratch = Scratch::new();
    let tree = Tree::new(&scratch);
    let file = tree.file("file", 100);
    secret(&scratch, "secret", 0o600);
    fs::write(scratch.join("hosts"), "127.0.0.1\n127.0.0.2\n").expect("it is ours");
    let view = scratch.join("view");
    let mut command = serve(&scratch, Path::new("view"), &["--size", "2", "--hosts", "hosts"]);
    command.args(["--secret-file", "secret", "--listen", "127.0.0.1:0", "--root", "source"]);
    let daemon = Running::start(command.current_dir(scratch.path()).env("COPPER_RUN_DIR", "run"));
    eventually(BOUND, "the view is mounted", || {
        let mounted = !mounts::below(&view).is_empty();
        (mounted || !daemon.process.is_alive()).then_some(())
    });
    if daemon.process.is_alive() {
        let shown = view.join(file.strip_prefix("/").expect("absolute"));
        let read = within(BOUND, "reading", move || fs::read(shown)).expect("it is there");
        assert!(read == fs::read(&file).expect("it is ours"));
        daemon.process.signal(Signal::TERM);
    }
    let ended = daemon.finish(BOUND);
    assert!(ended.status.success(), "{}", ended.stderr());
    assert_nothing_left(&scratch, &view);
}

/// Where the ranks of a job listen.
fn listeners(job: &Job) -> Vec<SocketAddr> {
    let command = fs::read(format!("/proc/{}/cmdline", job.daemons[0].pid)).expect("it runs");
    let words: Vec<&[u8]> = command.split(|&byte| byte == 0).collect();
    let at = words.iter().position(|word| *word == b"--peers").expect("it was told");
    let peers = std::str::from_utf8(words[at + 1]).expect("text");
    peers.split(',').map(|peer| peer.parse().expect("an address")).collect()
}

#[test]
fn garbage_and_a_thousand_connections_disturb_nobody() {
    let scratch = Scratch::new();
    let tree = Tree::new(&scratch);
    let files: Vec<PathBuf> = (0..60).map(|i| tree.file(format!("{i}"), 50_000 + i)).collect();
    let job = Job::launch(&scratch, 3);
    let addresses = listeners(&job);
    let mut random = Random::seeded();
    let refused = |rank: u32| job.status().counter(rank, "links.refused_connections");
    let before: Vec<u64> = (0..2).map(refused).collect();
    let mut held = Vec::new();
    let mut read = 0;
    for index in 0..1000 {
        let address = addresses[index % 2];
        // A full backlog is an answer too.
        let Ok(mut stream) = TcpStream::connect_timeout(&address, Duration::from_secs(5)) else {
            continue;
        };
        if index % 3 != 0 {
            let garbage: Vec<u8> = (0..random.below(3000)).map(|_| random.next() as u8).collect();
            // It may be closed already.
            let _ = stream.write_all(&garbage);
        }
        if index % 2 == 0 {
            held.push(stream);
        }
        if index % 20 == 0 {
            let file = files[read].clone();
            for rank in 0..job.ranks() {
                let (shown, file) = (job.view(rank, &file), file.clone());
                within(BOUND, "reading meanwhile", move || {
                    let bytes = fs::read(shown).expect("it is there");
                    assert!(bytes == fs::read(file).expect("it is ours"));
                });
            }
            read += 1;
        }
    }
    for rank in 0..2_u32 {
        eventually(BOUND, "refused connections are counted", || {
            (refused(rank) > before[rank as usize] + 100).then_some(())
        });
    }
    drop(held);
    let status = job.status();
    for rank in 0..job.ranks() {
        assert_eq!(status.rank(rank)["state"], "ready");
        assert_eq!(status.counter(rank, "fabric.violations"), 0);
    }
    assert_eq!(status.counter(0, "links.children"), 2);
    assert_eq!(status.rank(2)["parent"], 0);
}

#[test]
fn a_view_shows_nothing_outside_of_its_roots() {
    let scratch = Scratch::new();
    let tree = Tree::new(&scratch);
    tree.directory("allowed");
    let allowed = tree.file("allowed/file", 5000);
    let refused = tree.file("refused", 5000);
    let root = tree.path("allowed");
    let options = support::Options::with(&["--root", root.to_str().expect("text")]);
    let job = Job::launch_with(&scratch, 2, &options);
    for rank in 0..job.ranks() {
        let (allowed, shown) = (allowed.clone(), job.view(rank, &allowed));
        let refused = job.view(rank, &refused);
        let passwords = job.view(rank, Path::new("/etc/passwd"));
        let around = job.view(rank, tree.root());
        within(BOUND, "reading", move || {
            assert!(fs::read(shown).expect("allowed") == fs::read(allowed).expect("it is ours"));
            assert!(fs::read(refused).is_err() && fs::read(passwords).is_err());
            let names: Vec<_> = fs::read_dir(around).expect("the way").flatten().collect();
            assert_eq!(names.len(), 1, "of the way only what leads on: {names:?}");
        });
    }
}

#[test]
fn a_rank_refuses_what_it_does_not_show_whatever_the_asking_rank_shows() {
    let scratch = Scratch::new();
    let tree = Tree::new(&scratch);
    for folder in ["allowed", "allowed/denied", "allowed/denied/deeper"] {
        tree.directory(folder);
    }
    let [shown, outside] = ["allowed/shown", "outside"].map(|name| tree.file(name, 5000));
    let denied = ["allowed/denied/file", "allowed/denied/deeper/file"];
    let denied = denied.map(|name| tree.file(name, 5000));
    std::os::unix::fs::symlink(tree.path("allowed/denied"), tree.path("allowed/link"))
        .expect("it is ours");
    let secret = secret(&scratch, "secret", 0o600);
    let views = [scratch.join("view-0"), scratch.join("view-1")];
    let ports = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").expect("loopback"));
    let peers = ports.each_ref().map(|port| port.local_addr().expect("bound").to_string());
    drop(ports);
    let start = |rank: usize, arguments: &[&str]| {
        let number = rank.to_string();
        let mut command = serve(&scratch, &views[rank], &["--size", "2", "--rank", &number]);
        command.args(["--job", "it", "-l", "warn", "--peers", &peers.join(",")]).args(arguments);
        let daemon = Running::start(command.arg("--secret-file").arg(&secret));
        await_mount(&daemon, &views[rank]);
        daemon
    };
    let text = |name: &str| tree.path(name).to_str().expect("text").to_owned();
    // Denied by a name that leads there.
    let root = start(0, &["--root", &text("allowed"), "--deny", &text("allowed/link")]);
    let child = start(1, &["--root", "/"]);
    for view in &views {
        let below = |path: &Path| view.join(path.strip_prefix("/").expect("absolute"));
        let (readable, outside) = (below(&shown), below(&outside));
        let passwords = below(Path::new("/etc/passwd"));
        let denied = denied.each_ref().map(|path: &PathBuf| below(path));
        let (link, folder) =
            (below(&tree.path("allowed/link")), below(&tree.path("allowed/denied")));
        within(BOUND, "reading", move || {
            assert_eq!(fs::read(&readable).expect("it is shown").len(), 5000);
            let refused = |path: &Path| fs::read(path).expect_err("refused").raw_os_error();
            // Where nothing but the way is shown, a name that does not lead on is not there.
            assert!(refused(&passwords).is_some() && refused(&outside).is_some());
            for path in &denied {
                assert_eq!(
                    refused(path),
                    Some(rustix::io::Errno::NOENT.raw_os_error()),
                    "{path:?}"
                );
            }
            assert!(fs::read(link.join("file")).is_err());
            let names = fs::read_dir(&folder).expect("an empty one in its place").count();
            assert_eq!(names, 0);
        });
    }
    let mut command = copper(&scratch);
    let status = run(command.args(["status", "--json", "-v"]).arg(&views[0]), BOUND).success();
    let status: serde_json::Value = serde_json::from_str(&status).expect("it is JSON");
    let opens = |rank: usize| status["ranks"][rank]["source"]["opens"].as_u64();
    assert_eq!((opens(0), opens(1)), (Some(1), Some(0)), "rank 1 has asked rank 0 for all of it");
    for daemon in [child, root] {
        daemon.process.signal(Signal::TERM);
        assert!(daemon.finish(BOUND).status.success());
    }
}

#[test]
fn what_a_launch_denies_is_shown_by_no_rank() {
    let scratch = Scratch::new();
    let tree = Tree::new(&scratch);
    tree.directory("private");
    let (private, shown) = (tree.file("private/file", 100), tree.file("file", 100));
    let folder = tree.path("private");
    let options = support::Options::with(&["--deny", folder.to_str().expect("text")]);
    let job = Job::launch_with(&scratch, 2, &options);
    for rank in 0..2 {
        let [private, shown] = [&private, &shown].map(|path| job.view(rank, path));
        within(BOUND, "reading", move || {
            assert!(fs::read(private).is_err());
            assert_eq!(fs::read(shown).expect("it is shown").len(), 100);
        });
    }
    let absent = scratch.join("absent");
    let mut command = serve(&scratch, &scratch.join("view"), &[]);
    let line = run(command.arg("--deny").arg(absent), BOUND).failure_line();
    assert!(line.contains("--deny") && line.contains("absent"), "{line}");
}

#[test]
fn the_secret_is_in_no_command_line_and_in_no_environment_of_a_daemon() {
    let scratch = Scratch::new();
    let digits = "5ec7e7".repeat(10) + "5ec7";
    let view = scratch.join("view");
    let mut command = serve(&scratch, &view, &["-l", "trace"]);
    let daemon = Running::start(command.env("COPPER_SECRET", &digits));
    await_mount(&daemon, &view);
    let guardians = eventually(BOUND, "a daemon has a guardian", || {
        let guardians = support::process::guardians(&[daemon.process.pid]);
        (!guardians.is_empty()).then_some(guardians)
    });
    for pid in guardians.iter().map(|it| it.pid).chain([daemon.process.pid]) {
        for file in ["environ", "cmdline"] {
            let said = fs::read(format!("/proc/{pid}/{file}")).expect("it runs");
            let said = String::from_utf8_lossy(&said);
            assert!(!said.contains(&digits) && !said.contains("COPPER_SECRET="), "{file}: {said}");
        }
        // What is left of the way that it took is empty.
        for entry in fs::read_dir(format!("/proc/{pid}/fd")).expect("it runs").flatten() {
            let name = fs::read_link(entry.path()).unwrap_or_default();
            assert!(!name.to_string_lossy().contains("memfd:"), "{name:?}");
        }
    }
    daemon.process.signal(Signal::TERM);
    let ended = daemon.finish(BOUND);
    assert!(ended.status.success());
    assert!(!ended.stderr().contains(&digits), "not in the log");
    // It is the secret all the same: another does not fit.
    let wrong = run(serve(&scratch, &view, &[]).env("COPPER_SECRET", "not one"), BOUND);
    assert!(wrong.failure_line().contains("64 hexadecimal digits"));
}
