//! One rank with its mount, and the processor time that it and its reader take.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context, bail};
use rustix::time::{ClockId, clock_gettime};

/// A job of one rank, in a scratch folder that has a part of the source too. All of it goes with this.
pub(super) struct OneRank {
    scratch: PathBuf,
    pid: u32,
    stopped: bool,
}

/// Processor time of something, in nanoseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spent {
    /// The reader's and the daemon's.
    pub(super) cpu_ns: f64,
    /// Of it, that of the threads that read the source.
    pub(super) source_cpu_ns: f64,
}

impl OneRank {
    /// Starts it over a source that `prepare` makes.
    pub(super) fn start(
        prepare: impl FnOnce(&Path) -> std::io::Result<()>,
    ) -> anyhow::Result<OneRank> {
        let name = format!("copper-calibrate-{}", std::process::id());
        let scratch = std::env::temp_dir().join(name);
        let failed = || format!("cannot prepare {}", scratch.display());
        fs::create_dir(&scratch).with_context(failed)?;
        let mut rank = OneRank { scratch: scratch.clone(), pid: 0, stopped: true };
        for part in ["source", "run"] {
            fs::create_dir(scratch.join(part)).with_context(failed)?;
        }
        fs::set_permissions(scratch.join("run"), fs::Permissions::from_mode(0o700))
            .with_context(failed)?;
        prepare(&scratch.join("source")).with_context(failed)?;
        let logs = scratch.join("logs");
        let output = rank.copper(&["launch", "--local", "1", "--memory", "256MiB"], Some(&logs))?;
        rank.stopped = false;
        // "rank 0 ready after 0.92 s: /tmp/…/0 (pid 2181)"
        let said = String::from_utf8_lossy(&output.stdout).into_owned()
            + &String::from_utf8_lossy(&output.stderr);
        let pid = said.split("(pid ").nth(1).and_then(|rest| rest.split(')').next());
        let pid = pid.and_then(|pid| pid.parse().ok());
        rank.pid = pid.with_context(|| format!("copper launch did not name its rank: {said}"))?;
        Ok(rank)
    }

    /// The prepared source, through the mount.
    pub(super) fn view(&self) -> PathBuf {
        let source = self.scratch.join("source");
        let below = source.strip_prefix("/").expect("a scratch folder is absolute").to_owned();
        self.scratch.join("views/0").join(below)
    }

    /// What it costs this process and the daemon to do something.
    pub(super) fn measure(
        &self,
        act: impl FnOnce() -> anyhow::Result<()>,
    ) -> anyhow::Result<Spent> {
        let (own, (all, source)) = (own_cpu_ns(), self.cpu_ns()?);
        act()?;
        let (own_after, (all_after, source_after)) = (own_cpu_ns(), self.cpu_ns()?);
        Ok(Spent {
            cpu_ns: own_after - own + all_after - all,
            source_cpu_ns: source_after - source,
        })
    }

    /// The daemon's so far, and that of its threads for the source.
    fn cpu_ns(&self) -> anyhow::Result<(f64, f64)> {
        let threads = format!("/proc/{}/task", self.pid);
        let gone = || format!("rank 0 (pid {}) has ended", self.pid);
        let (mut all, mut source) = (0.0, 0.0);
        for thread in fs::read_dir(&threads).with_context(gone)? {
            let thread = thread.with_context(gone)?.path();
            // One that ends meanwhile has done nothing of what is measured.
            let Ok(times) = fs::read_to_string(thread.join("schedstat")) else { continue };
            let spent = times.split(' ').next().and_then(|first| first.parse::<f64>().ok());
            let spent =
                spent.context("/proc has no schedstat: the kernel lacks CONFIG_SCHED_INFO")?;
            all += spent;
            let name = fs::read_to_string(thread.join("comm")).unwrap_or_default();
            if name.starts_with("source-") {
                source += spent;
            }
        }
        Ok((all, source))
    }

    fn copper(&self, arguments: &[&str], logs: Option<&Path>) -> anyhow::Result<Output> {
        let exe = std::env::current_exe().context("cannot find this program")?;
        let mut command = Command::new(exe);
        command.args(arguments).arg("--mount").arg(self.scratch.join("views"));
        if let Some(logs) = logs {
            command.arg("--log-dir").arg(logs);
        }
        command.env("COPPER_RUN_DIR", self.scratch.join("run")).stdin(Stdio::null());
        let output = command.output().context("cannot start this program")?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!("copper {} failed: {}", arguments[0], said.trim());
        }
        Ok(output)
    }

    /// Ends it.
    pub(super) fn stop(mut self) -> anyhow::Result<()> {
        self.stopped = true;
        self.copper(&["stop"], None).map(drop)
    }
}

impl Drop for OneRank {
    fn drop(&mut self) {
        let ended = self.stopped || self.copper(&["stop"], None).is_ok();
        // Nothing is removed below a mount that may still be there.
        if ended && fs::remove_dir(self.scratch.join("views")).is_err() {
            let left = fs::symlink_metadata(self.scratch.join("views"));
            if left.is_ok() {
                return;
            }
        }
        if ended {
            let _ = fs::remove_dir_all(&self.scratch);
        }
    }
}

fn own_cpu_ns() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 * 1e9 + time.tv_nsec as f64
}
