//! What the head writes down of a launch over several hosts, for `copper stop` on the same machine.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::instance::{InstanceError, Instances, canonical};
use crate::job::Job;
use crate::process::Process;
use crate::starter::Launcher;

/// A launch over several hosts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaunchRecord {
    /// Of copper.
    pub version: String,
    /// The job.
    pub job: Job,
    /// By what it was launched.
    pub launcher: Launcher,
    /// Its program.
    pub program: PathBuf,
    /// Its further options.
    pub options: Vec<String>,
    /// The hosts, in order of rank.
    pub hosts: Vec<String>,
    /// What the daemons were told by environment variables.
    pub environment: Vec<(String, String)>,
    /// Where the views are, as it was given.
    pub mount: PathBuf,
    /// Where the run leaves its files, `DIR/<job>`.
    #[serde(default)]
    pub folder: PathBuf,
    /// The head, until the launch is complete; then the launcher, if it stays with the daemons.
    pub process: Option<Process>,
}

impl Instances {
    /// Writes a launch down, or again.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write_launch(&self, record: &LaunchRecord) -> Result<(), InstanceError> {
        let path = self.launch_path(&record.mount)?;
        let failed = |source| InstanceError::Record { path: path.clone(), source };
        let temporary = path.with_extension("launch-new");
        let text = serde_json::to_vec_pretty(record).map_err(|error| failed(error.into()))?;
        let mut options = OpenOptions::new();
        let file = options.write(true).create(true).truncate(true).mode(0o600).open(&temporary);
        let written = file.and_then(|mut file| file.write_all(&text));
        written.and_then(|()| fs::rename(&temporary, &path)).map_err(|error| {
            let _ = fs::remove_file(&temporary);
            failed(error)
        })
    }

    /// The launch whose views are at `mount`, if it was started on this machine.
    ///
    /// # Errors
    /// If the record is damaged.
    pub fn read_launch(&self, mount: &Path) -> Result<Option<LaunchRecord>, InstanceError> {
        let path = self.launch_path(mount)?;
        match fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text)
                .map(Some)
                .map_err(|source| InstanceError::Malformed { path, source }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(InstanceError::Record { path, source }),
        }
    }

    /// Forgets it.
    ///
    /// # Errors
    /// If the record cannot be removed.
    pub fn forget_launch(&self, mount: &Path) -> Result<(), InstanceError> {
        let path = self.launch_path(mount)?;
        match fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(InstanceError::Record { path, source })
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }

    fn launch_path(&self, mount: &Path) -> Result<PathBuf, InstanceError> {
        let hash = blake3::hash(canonical(mount)?.as_os_str().as_bytes()).to_hex();
        Ok(self.path().join(format!("{}.launch", &hash[..32])))
    }
}
