//! Hosts made of namespaces, by `ci/cluster.sh`. Takes root.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::command::{Ended, run};
use super::scratch::Scratch;

const BOUND: Duration = Duration::from_secs(60);

/// A cluster whose hosts all see the scratch folder and the program. Dropped, it is ended.
#[derive(Debug)]
pub(crate) struct Cluster {
    folder: PathBuf,
    shared: PathBuf,
}

impl Cluster {
    /// None is up yet.
    pub(crate) fn new(scratch: &Scratch) -> Cluster {
        Cluster { folder: scratch.join("cluster"), shared: scratch.path().to_owned() }
    }

    /// `ci/cluster.sh` about this cluster.
    pub(crate) fn command(&self, words: &[&str]) -> Command {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("ci/cluster.sh");
        let mut command = Command::new(script);
        command.args(words).env("COPPER_CLUSTER_DIR", &self.folder);
        command
    }

    pub(crate) fn up_command(&self, hosts: u32) -> Command {
        let program = Path::new(env!("CARGO_BIN_EXE_copper")).parent().expect("it is in a folder");
        let mut command = self.command(&["up", &hosts.to_string()]);
        command.arg("--share").arg(program).arg("--share").arg(&self.shared);
        command
    }

    #[track_caller]
    pub(crate) fn up(&self, hosts: u32) {
        run(&mut self.up_command(hosts), BOUND).success();
    }

    #[track_caller]
    pub(crate) fn down(&self) {
        run(&mut self.command(&["down"]), BOUND).success();
    }

    /// Runs a shell script on a host; `$1`, `$2` … are `arguments`.
    #[track_caller]
    pub(crate) fn shell(&self, host: &str, script: &str, arguments: &[&str]) -> Ended {
        let mut command = self.command(&["exec", host, "sh", "-c", script, "sh"]);
        run(command.args(arguments), BOUND)
    }

    /// The network namespaces that it has now.
    pub(crate) fn namespaces(&self) -> Vec<String> {
        let status = run(&mut self.command(&["status"]), BOUND).stdout();
        let named = status.split_whitespace().find_map(|word| word.strip_suffix("-*"));
        let prefix = format!("{}-", named.expect("status names them"));
        let names = std::fs::read_dir("/run/netns").into_iter().flatten().flatten();
        let names = names.filter_map(|entry| entry.file_name().into_string().ok());
        names.filter(|name| name.starts_with(&prefix)).collect()
    }

    /// Where its hosts and their files are.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let ended = run(&mut self.command(&["down"]), BOUND);
        if !ended.status.success() {
            super::say(&ended.stderr());
        }
    }
}
