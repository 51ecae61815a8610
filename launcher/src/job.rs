//! A job's name, and the folder that its run writes to.

use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::moment::Moment;

/// PBS and Slurm stay below 64 bytes; the name goes into every first message of a handshake.
pub const JOB_BYTES_MAX: usize = 128;

/// A job's name: what PBS or Slurm call it, else one of our own. Letters, digits and `. _ - [ ]`,
/// and not a name that means something to a path, because folders are named after it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Job(String);

/// What cannot be a job's name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} cannot be a job's name: it has 1 to {JOB_BYTES_MAX} letters, digits or any of . _ - [ ], \
     and does not start with a dot"
)]
pub struct NotAJob(String);

impl Job {
    /// Takes a name from outside.
    ///
    /// # Errors
    /// If it does not have the form above.
    pub fn parse(name: &str) -> Result<Job, NotAJob> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-[]".contains(&byte);
        let valid = (1..=JOB_BYTES_MAX).contains(&name.len())
            && !name.starts_with('.')
            && name.bytes().all(allowed);
        if valid { Ok(Job(name.to_owned())) } else { Err(NotAJob(name.to_owned())) }
    }

    /// The job that this process runs in: `PBS_JOBID`, `SLURM_JOB_ID`, else a new name of this
    /// machine's own, `local-<time>-<pid>`.
    ///
    /// # Errors
    /// If the batch system's name cannot be used.
    pub fn from_environment() -> Result<Job, NotAJob> {
        Job::detect(|name| std::env::var_os(name), Moment::now(), std::process::id())
    }

    fn detect(
        variable: impl Fn(&str) -> Option<OsString>,
        now: Moment,
        pid: u32,
    ) -> Result<Job, NotAJob> {
        let given = ["PBS_JOBID", "SLURM_JOB_ID"]
            .into_iter()
            .filter_map(variable)
            .find(|value| !value.is_empty());
        match given {
            Some(name) => Job::parse(&name.to_string_lossy()),
            None => Ok(Job(format!("local-{}-{pid}", now.compact()))),
        }
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Job {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl TryFrom<String> for Job {
    type Error = NotAJob;
    fn try_from(name: String) -> Result<Job, NotAJob> {
        Job::parse(&name)
    }
}

impl From<Job> for String {
    fn from(job: Job) -> String {
        job.0
    }
}

/// `DIR/<job>/`, where a run leaves its files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunFolder {
    path: PathBuf,
}

/// A run's folder could not be made.
#[derive(Debug, thiserror::Error)]
#[error("cannot create {} for the logs of this run; choose another place with -d", path.display())]
pub struct RunFolderError {
    /// What was being created.
    pub path: PathBuf,
    /// Why it failed.
    pub source: io::Error,
}

impl RunFolder {
    /// Creates `base/<job>/logs/` as far as it is missing, and writes `logs/node_file.txt` with one
    /// host a line.
    ///
    /// # Errors
    /// If that is not possible.
    pub fn create<'a>(
        base: &Path,
        job: &Job,
        hosts: impl IntoIterator<Item = &'a str>,
    ) -> Result<RunFolder, RunFolderError> {
        let path = std::path::absolute(base)
            .map_err(|source| RunFolderError { path: base.to_owned(), source })?
            .join(job.as_str());
        let folder = RunFolder { path };
        let logs = folder.logs();
        fs::create_dir_all(&logs).map_err(|source| RunFolderError { path: logs, source })?;
        let mut text = String::new();
        for host in hosts {
            text.push_str(host);
            text.push('\n');
        }
        let node_file = folder.logs().join("node_file.txt");
        fs::write(&node_file, text).map_err(|source| RunFolderError { path: node_file, source })?;
        Ok(folder)
    }

    /// The folder of a run that was created elsewhere; its `logs` are made here if they are missing.
    ///
    /// # Errors
    /// If that is not possible.
    pub fn at(path: &Path) -> Result<RunFolder, RunFolderError> {
        let folder = RunFolder { path: path.to_owned() };
        let logs = folder.logs();
        fs::create_dir_all(&logs).map_err(|source| RunFolderError { path: logs, source })?;
        Ok(folder)
    }

    /// Where runs go if nothing else is said: `~/copper-logs`; in the working folder for somebody
    /// without a home.
    pub fn default_base() -> PathBuf {
        let home = std::env::var_os("HOME").filter(|home| !home.is_empty());
        home.map(PathBuf::from).unwrap_or_default().join("copper-logs")
    }

    /// `DIR/<job>`.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// `DIR/<job>/logs`.
    pub fn logs(&self) -> PathBuf {
        self.path.join("logs")
    }

    /// The log of one daemon.
    pub fn log(&self, host: &str, pid: u32) -> PathBuf {
        self.logs().join(format!("{host}-{pid}-output.log"))
    }
}

/// The file that standard error leads to, under the name that it has now: a daemon that was started
/// with its log as standard error finds its log so. `None` if that is no file.
pub fn own_log() -> Option<PathBuf> {
    let path = fs::read_link("/proc/self/fd/2").ok()?;
    let is_file = fs::symlink_metadata(&path).is_ok_and(|metadata| metadata.is_file());
    is_file.then_some(path)
}

/// The folder of the run that this daemon belongs to: where its log is, else `DIR/<job>` in the default
/// place.
pub fn own_run(job: &Job) -> PathBuf {
    run_of(own_log().as_deref(), job)
}

/// The same of any daemon, by where it logs.
pub fn run_of(log: Option<&Path>, job: &Job) -> PathBuf {
    let logs = log.and_then(Path::parent).filter(|folder| folder.ends_with("logs"));
    match logs.and_then(Path::parent) {
        Some(run) => run.to_owned(),
        None => RunFolder::default_base().join(job.as_str()),
    }
}

/// This machine's name, as far as it can stand in a file's name.
pub fn host_name() -> String {
    let name = rustix::system::uname();
    let name = name.nodename().to_string_lossy();
    let clean = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '_' };
    name.chars().map(clean).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_batch_system_names_the_job() {
        let detect = |set: &'static [(&'static str, &'static str)]| {
            let lookup = move |name: &str| {
                set.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(value))
            };
            Job::detect(lookup, Moment(0), 7).map(|job| job.0)
        };
        let aurora = "1234567.aurora-pbs-0001.hostmgmt.cm.aurora.alcf.anl.gov";
        assert_eq!(
            detect(&[("PBS_JOBID", "1234567.aurora-pbs-0001.hostmgmt.cm.aurora.alcf.anl.gov")]),
            Ok(aurora.to_owned())
        );
        assert_eq!(detect(&[("PBS_JOBID", ""), ("SLURM_JOB_ID", "42")]), Ok("42".to_owned()));
        assert_eq!(detect(&[]), Ok("local-19700101-000000-7".to_owned()));
        assert!(detect(&[("SLURM_JOB_ID", "../../etc")]).is_err());
    }

    #[test]
    fn a_name_that_is_a_path_is_refused() {
        for name in ["", ".", "..", "a/b", ".hidden", "a b", "a\n", &"x".repeat(129)] {
            assert!(Job::parse(name).is_err(), "{name:?}");
        }
        assert!(Job::parse("12[3].server").is_ok());
    }
}
