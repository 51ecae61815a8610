//! A program made of calls that `ci/replay.sh` has recorded. What a trace does not say (sizes, what
//! else lies in a folder, links) is read from the folders themselves.
//!
//! Only what a daemon can be asked remains: the first look-up of each name on the way to each path, the
//! first listing of each folder, the first touch of each block, and each question whether a file is a
//! terminal, which no kernel keeps. All else the kernel answers.

mod calls;

use std::collections::{HashMap, HashSet, VecDeque};
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail, ensure};
use copper_proto::limits::{BLOCK_BYTES, SIBLING_BYTES_MAX};
use copper_proto::{Entry, FileKind, ViewPath};
use rustix::fs::{AtFlags, CWD, StatxFlags, statx};

use self::calls::{Call, Follow};
use super::{Folder, Program, Step};
use crate::source::attributes;

/// As many as the kernel follows (`MAXSYMLINKS`, linux/namei.h).
const LINKS_MAX: usize = 40;

impl Program {
    /// The program whose calls are in the file `trace`. Its folders are where they were recorded, or,
    /// in the same order, `at`.
    ///
    /// # Errors
    /// If the trace cannot be understood, or its folders cannot be read.
    pub(crate) fn recorded(trace: &Path, at: &[PathBuf]) -> anyhow::Result<Program> {
        let name = trace.display();
        let text = std::fs::read(trace).with_context(|| format!("cannot read {name}"))?;
        let text = String::from_utf8_lossy(&text);
        let (below, calls) =
            calls::parse(&text).map_err(|(line, what)| anyhow::anyhow!("{name}:{line}: {what}"))?;
        let folders = if at.is_empty() { &below } else { at };
        ensure!(
            folders.len() == below.len() && !below.is_empty(),
            "{name} is of {} folders: give --at for each, or for none",
            below.len()
        );
        let mut making = Making::new();
        making.folder(Path::new("/"))?;
        for call in calls {
            making.call(&call, folders)?;
        }
        making.program.close_folders();
        ensure!(!making.program.steps.is_empty(), "{name} has no call on a path");
        Ok(making.program)
    }
}

struct Making {
    program: Program,
    folders: HashMap<PathBuf, usize>,
    /// Names that the kernel knows by then, and paths with what they lead to.
    found: HashSet<PathBuf>,
    resolved: HashMap<(PathBuf, Follow), Option<PathBuf>>,
    listed: HashSet<usize>,
    touched: HashMap<PathBuf, HashSet<u32>>,
}

impl Making {
    fn new() -> Making {
        Making {
            program: Program::empty(1),
            folders: HashMap::new(),
            found: HashSet::new(),
            resolved: HashMap::new(),
            listed: HashSet::new(),
            touched: HashMap::new(),
        }
    }

    fn call(&mut self, call: &Call, below: &[PathBuf]) -> anyhow::Result<()> {
        let (place, follow) = match call {
            Call::Name { place, follow } => (place, *follow),
            Call::List { place } | Call::Ioctl { place } | Call::Touch { place, .. } => {
                (place, Follow::Yes)
            }
        };
        // Joined to an empty path it would end with a slash.
        let path = match place.rest.as_os_str().is_empty() {
            true => below[place.below].clone(),
            false => below[place.below].join(&place.rest),
        };
        let path = std::path::absolute(&path)
            .with_context(|| format!("no absolute path: {}", path.display()))?;
        let Some(path) = self.resolve(path, follow)? else { return Ok(()) };
        match call {
            Call::Name { .. } => Ok(()),
            Call::List { .. } => self.list(&path),
            Call::Ioctl { .. } => {
                let folder = self.folder(&above(&path))?;
                self.program.steps.push(Step::Ioctl { folder });
                Ok(())
            }
            Call::Touch { offset, bytes, .. } => self.touch(&path, *offset, *bytes),
        }
    }

    /// Looks up each name of a path and of the links on its way: what it leads to.
    fn resolve(&mut self, path: PathBuf, follow: Follow) -> anyhow::Result<Option<PathBuf>> {
        let known = self.resolved.get(&(path.clone(), follow));
        if let Some(known) = known {
            return Ok(known.clone());
        }
        let end = self.walk(&path, follow)?;
        self.resolved.insert((path, follow), end.clone());
        Ok(end)
    }

    fn walk(&mut self, path: &Path, follow: Follow) -> anyhow::Result<Option<PathBuf>> {
        let mut ahead: VecDeque<OsString> = components(path).collect();
        let (mut at, mut links) = (PathBuf::from("/"), 0);
        while let Some(name) = ahead.pop_front() {
            if name == ".." {
                at.pop();
                continue;
            }
            let folder = self.folder(&at)?;
            at.push(&name);
            let view_path = view_path(&at)?;
            if self.found.insert(at.clone()) {
                self.program.steps.push(Step::Find { folder, path: view_path.clone() });
            }
            let Some(entry) = self.program.entry(&view_path) else { return Ok(None) };
            match (entry.attributes.kind, &entry.target) {
                (FileKind::Link, Some(target)) if !ahead.is_empty() || follow == Follow::Yes => {
                    let target = PathBuf::from(std::ffi::OsStr::from_bytes(target));
                    links += 1;
                    if links > LINKS_MAX {
                        return Ok(None);
                    }
                    at = if target.is_absolute() { "/".into() } else { above(&at) };
                    for name in components(&target).rev() {
                        ahead.push_front(name);
                    }
                }
                (FileKind::Directory, _) => {}
                _ if !ahead.is_empty() => return Ok(None),
                _ => {}
            }
        }
        Ok(Some(at))
    }

    fn list(&mut self, path: &Path) -> anyhow::Result<()> {
        let folder = self.folder(path)?;
        if self.listed.insert(folder) {
            self.program.steps.push(Step::List { folder });
        }
        Ok(())
    }

    fn touch(&mut self, path: &Path, offset: u64, bytes: u64) -> anyhow::Result<()> {
        let folder = self.folder(&above(path))?;
        let view_path = view_path(path)?;
        let Some(entry) = self.program.entry(&view_path) else { return Ok(()) };
        let size = entry.attributes.size;
        if entry.attributes.kind != FileKind::Regular || bytes == 0 || offset >= size {
            return Ok(());
        }
        let touched = self.touched.entry(path.to_owned()).or_default();
        // The small ones are there since their folder is.
        if touched.is_empty() && size > SIBLING_BYTES_MAX {
            self.program.put_blocks(&view_path, size);
        }
        let block = u64::from(BLOCK_BYTES);
        let last = (offset + bytes).min(size) - 1;
        for index in (offset / block) as u32..=(last / block) as u32 {
            if touched.insert(index) {
                let object = self.program.number(&self.program.block(&view_path, index));
                self.program.steps.push(Step::Read { folder, object });
            }
        }
        Ok(())
    }

    /// The number of a folder, all of whose names are known from then on.
    fn folder(&mut self, path: &Path) -> anyhow::Result<usize> {
        if let Some(&known) = self.folders.get(path) {
            return Ok(known);
        }
        let above = match path.parent() {
            Some(above) => Some(self.folder(above)?),
            None => None,
        };
        let failed = || format!("cannot read the folder {}", path.display());
        let size = std::fs::metadata(path).with_context(failed)?.len();
        let number = self.program.folders.len();
        let (path_in_view, siblings, entries) = (view_path(path)?, Vec::new(), Vec::new());
        let folder = Folder { path: path_in_view, above, size, object: 0, siblings, entries };
        self.program.folders.push(folder);
        self.folders.insert(path.to_owned(), number);
        let names = std::fs::read_dir(path).with_context(failed)?.map(|it| it.map(|it| it.path()));
        let mut names: Vec<PathBuf> = names.collect::<Result<_, _>>().with_context(failed)?;
        names.sort_unstable();
        for path in names {
            self.put(number, &path)?;
        }
        Ok(number)
    }

    fn put(&mut self, folder: usize, path: &Path) -> anyhow::Result<()> {
        let Ok(found) = statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::BASIC_STATS) else {
            // It went while the others were looked at.
            return Ok(());
        };
        let Ok(attributes) = attributes(&found) else { bail!("{}: of no kind", path.display()) };
        let is_link = attributes.kind == FileKind::Link;
        let target = is_link.then(|| std::fs::read_link(path)).transpose();
        let target = target.with_context(|| format!("cannot read the link {}", path.display()))?;
        let target = target.map(|target| Arc::from(target.as_os_str().as_bytes()));
        let (kind, size) = (attributes.kind, attributes.size);
        let name = path.file_name().context("a folder's name has no name")?.as_bytes();
        let view_path = view_path(path)?;
        self.program.put_entry(folder, name, &view_path, Entry { attributes, target });
        if kind == FileKind::Regular && size <= SIBLING_BYTES_MAX {
            self.program.put_blocks(&view_path, size);
        }
        Ok(())
    }
}

fn above(path: &Path) -> PathBuf {
    path.parent().unwrap_or(Path::new("/")).to_owned()
}

/// Its names, without those that lead nowhere.
fn components(path: &Path) -> impl DoubleEndedIterator<Item = OsString> {
    path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    })
}

fn view_path(path: &Path) -> anyhow::Result<ViewPath> {
    let bytes = path.as_os_str().as_bytes();
    let relative = bytes.strip_prefix(b"/").unwrap_or(bytes);
    ViewPath::parse(relative).with_context(|| format!("{} is too long", path.display()))
}
