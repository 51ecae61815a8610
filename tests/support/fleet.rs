//! Launches over the hosts of a cluster: its first host is the head.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::cluster::Cluster;
use super::command::{Ended, Running, run};
use super::job::COPPER;
use super::{Scratch, eventually, is_root, say};

/// Where the view is on every host.
pub(crate) const VIEW: &str = "/tmp/v";

/// Where the head of [`Fleet::start_head`] leaves its process number.
const HEAD: &str = "/tmp/head";

/// How long a launch, or anything else that is run on a host, may take.
const BOUND: Duration = Duration::from_secs(90);

/// What a host has of Copper's: processes, mounts, mount points, the register. A launch that was
/// written down for `copper stop` is no part of a host's; what else is in the register is.
const LEFT: &str = "pgrep -ax copper; grep ' fuse' /proc/self/mounts; ls -d /tmp/v /tmp/w /tmp/v?/* 2>/dev/null; \
                    ls /tmp/copper-run-0 2>/dev/null | grep -v '[.]launch$'; true";

/// Whether there can be a cluster; says so if not.
pub(crate) fn takes_root() -> bool {
    if !is_root() {
        say("skipped: namespaces take root");
    }
    is_root()
}

/// A cluster, and a file with its hosts.
#[derive(Debug)]
pub(crate) struct Fleet {
    pub(crate) cluster: Cluster,
    pub(crate) size: u32,
    hosts: PathBuf,
    logs: PathBuf,
    /// What whoever types commands has in the environment.
    pub(crate) environment: Vec<(&'static str, String)>,
}

impl Fleet {
    pub(crate) fn up(scratch: &Scratch, size: u32, options: &[&str]) -> Fleet {
        let cluster = Cluster::new(scratch);
        let mut up = cluster.up_command(size);
        run(up.args(options), BOUND).success();
        let (hosts, logs) = (scratch.join("hosts"), scratch.join("logs"));
        let names: String = (0..size).map(|index| format!("node{index}\n")).collect();
        fs::write(&hosts, names).expect("it is ours");
        Fleet { cluster, size, hosts, logs, environment: Vec::new() }
    }

    pub(crate) fn hosts_file(&self) -> &str {
        self.hosts.to_str().expect("UTF-8")
    }

    /// What all launches have gone to, the head's log and all daemons'.
    pub(crate) fn logs(&self) -> &Path {
        &self.logs
    }

    /// `copper` on a host.
    pub(crate) fn copper(&self, host: u32, words: &[&str]) -> Command {
        let mut command = self.cluster.command(&["exec", &format!("node{host}"), COPPER]);
        command.args(words);
        // The register of whoever runs the tests is not the hosts'.
        command.env_remove("COPPER_RUN_DIR").env_remove("COPPER_SECRET");
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// A launch at [`VIEW`] by ssh, where `words` say nothing else.
    pub(crate) fn launch_command(&self, words: &[&str]) -> Command {
        let mut command = self.copper(0, &["launch", "--net", "tcp", "--memory", "64MiB"]);
        command.arg("-d").arg(&self.logs).args(words);
        let has = |option: &str| words.contains(&option);
        if !has("-l") {
            command.args(["-l", "info"]);
        }
        if !has("--hosts") {
            command.args(["--hosts", self.hosts_file()]);
        }
        if !has("--launcher") {
            command.args(["--launcher", "ssh"]);
        }
        if !has("-v") {
            command.args(["-v", VIEW]);
        }
        command
    }

    #[track_caller]
    pub(crate) fn try_launch(&self, words: &[&str]) -> Ended {
        run(&mut self.launch_command(words), BOUND)
    }

    #[track_caller]
    pub(crate) fn launch(&self, words: &[&str]) -> String {
        self.try_launch(words).success()
    }

    pub(crate) fn try_stop(&self) -> Ended {
        run(&mut self.copper(0, &["stop", "-v", VIEW]), BOUND)
    }

    #[track_caller]
    pub(crate) fn stop(&self) -> String {
        self.try_stop().success()
    }

    /// What a script prints on a host, whether it succeeds or not.
    #[track_caller]
    pub(crate) fn on(&self, host: u32, script: &str) -> String {
        let ended = self.cluster.shell(&format!("node{host}"), script, &[]);
        if !ended.status.success() {
            say(&format!("on node{host}: {script}: {} {}", ended.status, ended.stderr()));
        }
        ended.stdout()
    }

    /// Something that stays, on a host.
    pub(crate) fn start_on(&self, host: u32, script: &str) -> Running {
        let name = format!("node{host}");
        Running::start(&mut self.cluster.command(&["exec", &name, "sh", "-c", script]))
    }

    /// A host shows a file as it is at the source, on whose path all hosts agree.
    #[track_caller]
    pub(crate) fn assert_shows(&self, host: u32, file: &Path) {
        let path = file.to_str().expect("UTF-8");
        let script = "timeout 30 cmp -- \"$1\" \"$2$1\" && echo same";
        let compared = self.cluster.shell(&format!("node{host}"), script, &[path, VIEW]);
        assert_eq!(compared.stdout(), "same\n", "{path} on node{host}: {}", compared.stderr());
    }

    /// The number of a host's daemon, once it is there.
    #[track_caller]
    pub(crate) fn daemon(&self, host: u32) -> String {
        eventually(BOUND, "a daemon", || {
            let found = self.on(host, "pgrep -f '^[^ ]*copper serve ' || true");
            found.lines().next().map(str::to_owned)
        })
    }

    /// Puts a script in the program's place on one host.
    pub(crate) fn replace_program(&self, scratch: &Scratch, host: u32, script: &str) {
        let path = scratch.join(&format!("program-{host}"));
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).expect("it is ours");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("it is ours");
        self.on(host, &format!("mount --bind {} {COPPER}", path.display()));
    }

    pub(crate) fn restore_program(&self, host: u32) {
        self.on(host, &format!("umount {COPPER}"));
    }

    /// Starts a launch whose head can be killed.
    pub(crate) fn start_head(&self, words: &[&str]) -> Running {
        // After `exec node0`; `exec` in the shell keeps the number.
        let launch = self.launch_command(words);
        let words: Vec<_> = launch.get_args().skip(2).map(|word| word.to_string_lossy()).collect();
        let mut start = self.cluster.command(&["exec", "node0", "sh", "-c"]);
        start.arg(format!("echo $$ >{HEAD}; exec {}", words.join(" ")));
        let set = launch.get_envs().filter_map(|(name, value)| Some((name, value?)));
        Running::start(start.envs(set))
    }

    #[track_caller]
    pub(crate) fn kill_head(&self, head: Running) {
        self.on(0, &format!("kill -KILL $(cat {HEAD}); rm {HEAD}"));
        assert!(!head.finish(BOUND).status.success(), "it was killed");
    }

    /// The command lines and environments on a host, and the files of its register, that have the
    /// secret in them: the program's first two words, or the file.
    #[track_caller]
    pub(crate) fn holders(&self, host: u32, secret: &str) -> Vec<String> {
        // From a file: it is to be on no command line.
        let script = "umask 077; cat >/tmp/secret; \
            for it in /proc/[0-9]*; do for file in cmdline environ; do \
                grep -qaf /tmp/secret $it/$file 2>/dev/null && \
                echo \"$file of $(tr '\\0' ' ' <$it/cmdline | cut -d' ' -f1,2)\"; \
            done; done; \
            grep -rlaf /tmp/secret /tmp/copper-run-0 2>/dev/null; rm /tmp/secret; true";
        let name = format!("node{host}");
        let mut look = self.cluster.command(&["exec", &name, "sh", "-c", script]);
        let mut child = look.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("a shell");
        let mut input = child.stdin.take().expect("piped");
        input.write_all(format!("{secret}\n").as_bytes()).expect("it reads");
        drop(input);
        let ended = child.wait_with_output().expect("it was started");
        assert!(ended.status.success(), "{}", ended.status);
        String::from_utf8_lossy(&ended.stdout).lines().map(str::to_owned).collect()
    }

    /// Nothing of Copper's is left on these hosts, within `bound`.
    #[track_caller]
    pub(crate) fn assert_clean(&self, hosts: impl IntoIterator<Item = u32>, bound: Duration) {
        for host in hosts {
            let until = Instant::now() + bound;
            let left = || self.on(host, LEFT);
            let mut found = left();
            while !found.is_empty() && Instant::now() < until {
                thread::sleep(Duration::from_millis(50));
                found = left();
            }
            assert!(found.is_empty(), "left on node{host}: {found}");
        }
    }
}

/// The lines of a command that say what went wrong.
pub(crate) fn complaints(ended: &Ended) -> Vec<String> {
    let stderr = ended.stderr();
    stderr.lines().filter(|line| line.starts_with("copper: ")).map(str::to_owned).collect()
}

/// The one line of a launch that failed.
#[track_caller]
pub(crate) fn complaint(ended: &Ended, code: i32) -> String {
    assert_eq!(ended.status.code(), Some(code), "{}{}", ended.stdout(), ended.stderr());
    let lines = complaints(ended);
    assert_eq!(lines.len(), 1, "one line was to be written, not: {}", ended.stderr());
    lines[0].clone()
}
