//! What a launcher leaves to its daemons in files: the secret, the list of hosts.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::process::Process;
use crate::secret::{Secret, SecretError};

const SECRET: &str = "secret";
const HOSTS: &str = "hosts";

/// A file that lives as long as the launch takes.
#[derive(Debug)]
pub struct HandedFile {
    path: PathBuf,
}

impl HandedFile {
    /// The job's secret, in a folder of ours.
    pub(crate) fn secret(directory: &Path, secret: &Secret) -> Result<HandedFile, HandedError> {
        let path = HandedFile::place(directory, SECRET)?;
        // Removed as well if only a part of it can be written.
        let handed = HandedFile { path };
        secret.write_new(&handed.path)?;
        Ok(handed)
    }

    /// The list of hosts, one a line.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn hosts(directory: &Path, hosts: &[String]) -> Result<HandedFile, HandedError> {
        let path = HandedFile::place(directory, HOSTS)?;
        let mut options = OpenOptions::new();
        let file = options.write(true).create_new(true).mode(0o600).open(&path);
        let handed = HandedFile { path };
        let text: String = hosts.iter().flat_map(|host| [host.as_str(), "\n"]).collect();
        let written = file.and_then(|mut file| file.write_all(text.as_bytes()));
        match written {
            Ok(()) => Ok(handed),
            Err(source) => Err(HandedError::Write { path: handed.path.clone(), source }),
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its name says whose it is, so that those of killed launchers can be told and removed.
    fn place(directory: &Path, kind: &str) -> Result<PathBuf, HandedError> {
        remove_abandoned(directory);
        let launcher = Process::current().map_err(HandedError::Launcher)?;
        // Several launches of one process at a time are told apart by the random part.
        let [distinct] = crate::secret::random_bytes::<1>().map_err(HandedError::Launcher)?;
        let Process { pid, pid_started } = launcher;
        Ok(directory.join(format!("{pid}-{pid_started}-{distinct}.{kind}")))
    }
}

impl Drop for HandedFile {
    fn drop(&mut self) {
        // Removed by the next launch if it cannot be removed now.
        let _ = fs::remove_file(&self.path);
    }
}

/// Why a file could not be left.
#[derive(Debug, thiserror::Error)]
pub enum HandedError {
    /// The launcher's own process is unreadable.
    #[error("the launcher cannot find out about itself")]
    Launcher(#[source] io::Error),
    /// The secret cannot be handed on.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// The hosts cannot be handed on.
    #[error("cannot write the list of hosts to {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

fn remove_abandoned(directory: &Path) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    for path in entries.flatten().map(|entry| entry.path()) {
        let owner = path.file_name().and_then(|name| name.to_str()).and_then(|name| {
            let (name, kind) = name.rsplit_once('.')?;
            if ![SECRET, HOSTS].contains(&kind) {
                return None;
            }
            let mut parts = name.split('-');
            let pid = parts.next()?.parse().ok()?;
            Some(Process { pid, pid_started: parts.next()?.parse().ok()? })
        });
        if owner.is_some_and(|owner| !owner.is_alive()) {
            // Another launcher may have been quicker.
            let _ = fs::remove_file(&path);
        }
    }
}
