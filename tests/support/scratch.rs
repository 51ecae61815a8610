//! A folder of one test.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use super::mounts;

/// A folder that is removed at the end. Its path is short: sockets in it have at most 107 bytes.
#[derive(Debug)]
pub(crate) struct Scratch {
    path: PathBuf,
}

impl Scratch {
    pub(crate) fn new() -> Scratch {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let base =
            fs::canonicalize(std::env::temp_dir()).expect("there is a folder for temporary files");
        loop {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let path = base.join(format!("copper-it-{}-{number}", std::process::id()));
            match fs::create_dir(&path) {
                Ok(()) => {
                    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))
                        .expect("it is ours");
                    return Scratch { path };
                }
                // Of a killed test whose process number has come round.
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(error) => panic!("{}: {error}", path.display()),
            }
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let mounted = mounts::below(&self.path);
        if mounted.is_empty() {
            // What cannot be removed is in a folder for temporary files.
            let _ = fs::remove_dir_all(&self.path);
        } else {
            super::say(&format!("left behind, since something is mounted: {mounted:?}"));
        }
    }
}
