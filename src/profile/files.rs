//! Where profiles lie: `profiling/{final,TAG}/HOST-PID[-TAG[-NUMBER]]-profiling_KIND`.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::Tag;
use crate::whole_file::write_whole;

/// The files of one rank.
#[derive(Debug)]
pub(super) struct Place {
    folder: PathBuf,
    /// `<host>-<pid>`.
    name: String,
    written: Mutex<HashMap<Tag, u32>>,
}

impl Place {
    pub(super) fn new(folder: PathBuf, name: String) -> Place {
        Place { folder, name, written: Mutex::default() }
    }

    /// Writes the files of one profile. Gives what their paths begin with.
    pub(super) fn write(&self, tag: Tag, texts: &[(&str, String)]) -> io::Result<PathBuf> {
        let folder = self.folder.join(tag.name());
        fs::create_dir_all(&folder)?;
        let prefix = folder.join(self.prefix(tag));
        for (kind, text) in texts {
            write_whole(&with_suffix(&prefix, kind), text)?;
        }
        Ok(prefix)
    }

    fn prefix(&self, tag: Tag) -> String {
        let name = &self.name;
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        let number = written.entry(tag).or_default();
        *number += 1;
        match tag {
            Tag::Final => name.clone(),
            tag if tag.is_numbered() => format!("{name}-{}-{number:04}", tag.name()),
            tag => format!("{name}-{}", tag.name()),
        }
    }
}

fn with_suffix(prefix: &Path, kind: &str) -> PathBuf {
    let mut path = prefix.as_os_str().to_owned();
    path.push("-profiling_");
    path.push(kind);
    path.into()
}

/// The tables of one rank that ioctls ask for: `tables/ioctl-snapshot/HOST-PID-ioctl-snapshot-NUMBER-TABLE`.
#[derive(Debug)]
pub(crate) struct Tables {
    place: Place,
}

impl Tables {
    pub(crate) fn new(folder: PathBuf, name: String) -> Tables {
        Tables { place: Place::new(folder, name) }
    }

    /// Writes tables under one number.
    pub(crate) fn write(&self, texts: &[(String, String)]) -> io::Result<()> {
        let folder = self.place.folder.join(Tag::IoctlSnapshot.name());
        fs::create_dir_all(&folder)?;
        let prefix = self.place.prefix(Tag::IoctlSnapshot);
        for (table, text) in texts {
            write_whole(&folder.join(format!("{prefix}-{table}")), text)?;
        }
        Ok(())
    }
}
