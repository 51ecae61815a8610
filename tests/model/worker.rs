//! One thread of a round: it chooses a rank, a path and what to ask, asks the source and the view,
//! and compares.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{Access, AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::answer::{Answer, Identity, Value, difference};
use super::change::{Change, split};
use super::inode_classes::InodeClasses;
use super::open_table::{Kept, OnKept, OpenTable, Pair, Place, identity};
use super::operation::{Bench, Named, OnOpen, OnPath, Shape, offset, on_open, on_path, open};
use super::paths::Paths;
use super::random_tree::last;
use crate::support::Random;

/// What Linux takes for a path, the NUL at its end included.
const PATH_MAX: usize = 4096;

/// A view, and what all threads have learnt of it.
#[derive(Debug)]
pub(crate) struct Rank {
    /// The root of the tree, as this rank shows it.
    pub(crate) root: PathBuf,
    /// The mount, opened without reading it.
    pub(crate) top: OwnedFd,
    pub(crate) device: u64,
    pub(crate) classes: Mutex<InodeClasses>,
}

/// What the threads of a round share.
#[derive(Debug)]
pub(crate) struct Ground {
    /// The root of the tree at the source.
    pub(crate) root: PathBuf,
    pub(crate) paths: Paths,
    pub(crate) ranks: Vec<Rank>,
}

/// What is to be done next.
#[derive(Debug)]
pub(crate) enum Step {
    Path { rank: usize, path: Vec<u8>, operation: OnPath },
    Change { rank: usize, path: Vec<u8>, change: Change },
    Kept { index: usize, operation: OnKept },
}

#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) ground: Arc<Ground>,
    pub(crate) random: Random,
    pub(crate) bench: Bench,
    pub(crate) open: OpenTable,
}

/// Source and view, for one path.
struct Both {
    source: PathBuf,
    view: PathBuf,
}

impl Worker {
    pub(crate) fn choose(&mut self) -> Step {
        let random = &mut self.random;
        if random.below(100) < 45
            && let Some(index) = self.open.any(random)
        {
            let operation = self.open.get(index).random(random);
            return Step::Kept { index, operation };
        }
        let rank = random.below(self.ground.ranks.len() as u64) as usize;
        let path = self.path(rank);
        let random = &mut self.random;
        if random.below(12) == 0 {
            return Step::Change { rank, path, change: Change::random(random) };
        }
        let stat = rustix::fs::stat(&self.both(rank, &path).source);
        let shape = stat.map_or(Shape { kind: FileType::RegularFile, size: 0 }, |stat| Shape {
            kind: FileType::from_raw_mode(stat.st_mode),
            size: stat.st_size as u64,
        });
        Step::Path { rank, path, operation: operation(&mut self.random, shape) }
    }

    /// One that does not lead out of what stays the same during a round.
    fn path(&mut self, rank: usize) -> Vec<u8> {
        loop {
            let path = self.ground.paths.random(&mut self.random);
            let both = self.both(rank, &path);
            let real = fs::canonicalize(&both.source);
            let inside = real.map_or(true, |real| real.starts_with(&self.ground.root));
            // A path is longer in the view than at the source: both are too long, or neither is.
            let [source, view] = [&both.source, &both.view].map(|path| path.as_os_str().len());
            let alike = (source < PATH_MAX) == (view < PATH_MAX);
            if inside && alike && within_path_max(&both.source) {
                return path;
            }
        }
    }

    fn both(&self, rank: usize, path: &[u8]) -> Both {
        let below = |root: &Path| {
            // What is empty stays empty: it names nothing.
            let bytes = match path {
                b"" => Vec::new(),
                _ => [root.as_os_str().as_bytes(), b"/", path].concat(),
            };
            PathBuf::from(std::ffi::OsStr::from_bytes(&bytes))
        };
        Both { source: below(&self.ground.root), view: below(&self.ground.ranks[rank].root) }
    }

    /// Does it, and says in short what came of it.
    ///
    /// # Errors
    /// What differs.
    pub(crate) fn perform(&mut self, step: Step) -> Result<String, String> {
        match step {
            Step::Path { rank, path, operation: OnPath::Keep(flags) } => {
                self.keep(rank, path, flags)
            }
            Step::Path { rank, path, operation } => {
                let both = self.both(rank, &path);
                let source = on_path(&mut self.bench, &both.source, &operation);
                let view = on_path(&mut self.bench, &both.view, &operation);
                let source = expected(&operation, source, &view, &both, &self.ground.ranks[rank]);
                self.compare(rank, &source, &view)
            }
            Step::Change { rank, path, change } => self.change(rank, &path, change),
            Step::Kept { index, operation } => self.on_kept(index, operation),
        }
    }

    fn compare(&self, rank: usize, source: &Answer, view: &Answer) -> Result<String, String> {
        let numbers = || match (source, view) {
            (Ok(Value::Attributes(source)), Ok(Value::Attributes(view))) => {
                self.ground.ranks[rank].identities(source.identity, view.identity)
            }
            _ => None,
        };
        match difference(source, view).or_else(numbers) {
            Some(difference) => {
                Err(format!("{difference}\n  source: {source:?}\n  view:   {view:?}"))
            }
            None => Ok(format!("{view:?}")),
        }
    }

    fn keep(&mut self, rank: usize, path: Vec<u8>, flags: OFlags) -> Result<String, String> {
        let both = self.both(rank, &path);
        match (open(&both.source, flags), open(&both.view, flags)) {
            (Ok(source), Ok(view)) => {
                let device = rustix::fs::fstat(&view).map_or(0, |stat| stat.st_dev);
                let inside = device == self.ground.ranks[rank].device;
                let place = if inside { Place::View } else { Place::Source };
                let kept = Kept::new(rank, path, flags, source, view, place);
                self.open.keep(kept.map_err(|errno| format!("the source itself: {errno:?}"))?);
                Ok("open".to_owned())
            }
            (source, view) => {
                let [source, view] = [source, view].map(|it| it.map(|_| Value::Done));
                let operation = OnPath::Keep(flags);
                let source = expected(&operation, source, &view, &both, &self.ground.ranks[rank]);
                self.compare(rank, &source, &view)
            }
        }
    }

    fn on_kept(&mut self, index: usize, operation: OnKept) -> Result<String, String> {
        let kept = self.open.get(index);
        let rank = kept.rank;
        match operation {
            OnKept::Ask(operation) => {
                let source = on_open(&mut self.bench, &kept.source, &operation);
                let view = on_open(&mut self.bench, &kept.view, &operation);
                let source = copied_elsewhere(&operation, source, &view);
                self.compare(rank, &source, &view)
            }
            OnKept::ReadOn(buffer) => {
                let (said, pairs) = kept.read_on(buffer)?;
                let device = identity(kept, 0).device;
                let shown = rustix::fs::fstat(&kept.view).map_or(0, |stat| stat.st_dev);
                self.ground.ranks[rank].listed(device, shown, &pairs).map_or(Ok(said), Err)
            }
            OnKept::SeekTo(position) => kept.seek_to(position),
            OnKept::Close => {
                self.open.close(index);
                Ok("closed".to_owned())
            }
        }
    }

    /// EROFS, or what the source says of the path, or what Linux looks at first.
    fn change(&self, rank: usize, path: &[u8], change: Change) -> Result<String, String> {
        let both = self.both(rank, path);
        let found = rustix::fs::stat(&both.source);
        let kind = found.map(|stat| FileType::from_raw_mode(stat.st_mode));
        // A pipe can be opened in a file system that is read-only.
        let pipe = matches!(change, Change::Open(_)) && kind == Ok(FileType::Fifo);
        if split(path).1.is_empty() || pipe {
            return Ok("not asked".to_owned());
        }
        let root = self.ground.root.strip_prefix("/").expect("absolute");
        let below_top = [root.as_os_str().as_bytes(), b"/", path].concat();
        let errno = match change.ask(&self.ground.ranks[rank].top, &below_top) {
            Err(errno) => errno,
            Ok(()) if change.may_succeed() && open(&both.source, quiet()).is_ok() => {
                return Ok("opened".to_owned());
            }
            Ok(()) => return Err("it has succeeded".to_owned()),
        };
        // A link has led out of the view; or this Linux cannot be asked to stay inside.
        let not_asked = [Errno::XDEV, Errno::NOSYS].contains(&errno);
        let of_path = [Errno::NAMETOOLONG, Errno::NOENT, Errno::NOTDIR, Errno::LOOP];
        let as_expected = if of_path.contains(&errno) {
            let parent = both.source.as_os_str().as_bytes();
            let parent = Path::new(std::ffi::OsStr::from_bytes(split(parent).0));
            let directory = OFlags::PATH | OFlags::DIRECTORY;
            let asked = if let Change::Open(flags) = change { flags } else { OFlags::empty() };
            let asked = asked & (OFlags::NOFOLLOW | OFlags::DIRECTORY);
            let of_source = [
                rustix::fs::lstat(&both.source).err(),
                found.err(),
                open(&both.source, OFlags::PATH | asked).err(),
                open(parent, directory).err(),
                // Of `x/`, where there is no `x`, or a file.
                open(&both.source, OFlags::RDONLY | OFlags::NONBLOCK | asked).err(),
            ];
            of_source.contains(&Some(errno))
        } else {
            errno == Errno::ROFS || change.more_specific(errno)
        };
        if as_expected || not_asked { Ok(format!("{errno:?}")) } else { Err(format!("{errno:?}")) }
    }
}

/// Whether what is looked up has a path that can be written down. A link can lead to a directory so
/// deep that the names in it are beyond: "paths up to 4,096 bytes" (docs/SEMANTICS.md).
fn within_path_max(path: &Path) -> bool {
    let bytes = path.as_os_str().as_bytes();
    let mut end = bytes.len();
    loop {
        let name = last(&bytes[..end]);
        let directory = Path::new(std::ffi::OsStr::from_bytes(&bytes[..end - name.len()]));
        // Of names that are missing, the first one is looked up.
        if let Ok(real) = fs::canonicalize(directory) {
            return real.as_os_str().len() + 1 + name.len() < PATH_MAX;
        }
        match (end - name.len()).checked_sub(1) {
            Some(slash) if slash > 0 => end = slash,
            Some(_) | None => return true,
        }
    }
}

/// To be opened, and nothing else: what is opened so is never waited for.
fn quiet() -> OFlags {
    OFlags::RDONLY | OFlags::NONBLOCK
}

impl Rank {
    /// Numbers are the view's own, but where an absolute link has led out of it to the source.
    fn identities(&self, source: Identity, view: Identity) -> Option<String> {
        if view.device != self.device {
            return (source != view).then(|| "neither the view nor the source".to_owned());
        }
        self.classes().difference(source, view.inode)
    }

    fn listed(&self, device: u64, shown: u64, pairs: &[Pair]) -> Option<String> {
        pairs.iter().find_map(|pair| {
            let source = Identity { device, inode: pair.source };
            self.identities(source, Identity { device: shown, inode: pair.view })
        })
    }

    fn classes(&self) -> std::sync::MutexGuard<'_, InodeClasses> {
        self.classes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the view has to answer, given the answer of the source: another one where a view is
/// documented to differ.
fn expected(operation: &OnPath, source: Answer, view: &Answer, both: &Both, rank: &Rank) -> Answer {
    let opens = matches!(operation, OnPath::Open(..) | OnPath::Keep(_) | OnPath::Map { .. });
    let kind = || {
        let stat = rustix::fs::stat(&both.source)?;
        Ok::<_, Errno>(FileType::from_raw_mode(stat.st_mode))
    };
    let within = || rustix::fs::stat(&both.view).is_ok_and(|stat| stat.st_dev == rank.device);
    match operation {
        _ if *view == Err(Errno::LOOP) && leads_through_many_links(&both.source) => {
            Err(Errno::LOOP)
        }
        // A view is mounted `nodev`.
        _ if opens && *view == Err(Errno::ACCESS) => match kind() {
            Ok(FileType::CharacterDevice) if within() => Err(Errno::ACCESS),
            _ => source,
        },
        OnPath::Open(_, then) => copied_elsewhere(then, source, view),
        // "Whatever would change something answers EROFS" (docs/SEMANTICS.md), whatever the mode.
        OnPath::Access(access, _) if access.contains(Access::WRITE_OK) => match kind() {
            Ok(FileType::RegularFile | FileType::Directory) if within() => Err(Errno::ROFS),
            Ok(_) => source,
            Err(errno) => Err(errno),
        },
        _ => source,
    }
}

/// Whether so many links are followed that Linux may count more than 40: a walk that it begins again,
/// up to twice, is counted again (`total_link_count`, fs/namei.c), and at a daemon's mount it often is.
fn leads_through_many_links(path: &Path) -> bool {
    path.components().any(|component| {
        let name = component.as_os_str().to_str();
        let links = name.and_then(|name| name.strip_prefix("chain-")?.parse::<u32>().ok());
        links.is_some_and(|before| before + 1 > 40 / 3)
    })
}

/// From one file system into another, `copy_file_range` is for Linux to refuse.
fn copied_elsewhere(operation: &OnOpen, source: Answer, view: &Answer) -> Answer {
    match operation {
        OnOpen::CopyRange(..) if source.is_ok() && *view == Err(Errno::XDEV) => Err(Errno::XDEV),
        _ => source,
    }
}

fn operation(random: &mut Random, shape: Shape) -> OnPath {
    match random.below(100) {
        0..=15 => OnPath::StatLink,
        16..=27 => OnPath::Stat,
        28..=33 => {
            let flags = [AtFlags::empty(), AtFlags::SYMLINK_NOFOLLOW, AtFlags::NO_AUTOMOUNT];
            OnPath::Statx(flags[random.below(3) as usize])
        }
        34..=41 => {
            let access = Access::from_bits_retain(random.below(8) as u32);
            let effective = [AtFlags::empty(), AtFlags::EACCESS][random.below(2) as usize];
            OnPath::Access(access, effective)
        }
        42..=48 => OnPath::ReadLink,
        49 | 50 => OnPath::Statistics,
        51 | 52 => OnPath::Map {
            offset: offset(random, shape.size) & !4095,
            len: 1 + random.below(3 << 20),
        },
        53..=57 => match random.below(2) {
            0 => OnPath::ExtendedAttributes(Named::random(random)),
            _ => OnPath::ExtendedAttributesOfLink(Named::random(random)),
        },
        58..=79 => OnPath::Open(flags(random), OnOpen::random(random, shape)),
        _ => OnPath::Keep(flags(random)),
    }
}

fn flags(random: &mut Random) -> OFlags {
    let more = match random.below(20) {
        0 | 1 => OFlags::DIRECTORY,
        2 | 3 => OFlags::NOFOLLOW,
        4 => OFlags::PATH,
        5 => OFlags::PATH | OFlags::NOFOLLOW,
        6 => OFlags::DIRECTORY | OFlags::NOFOLLOW,
        7 => OFlags::NOATIME,
        _ => OFlags::empty(),
    };
    if more.contains(OFlags::PATH) { more } else { quiet() | more }
}

/// An ordinary file of this thread's own.
pub(crate) fn scratch_file(path: &Path) -> OwnedFd {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::from_raw_mode(0o600)).expect("a new file")
}
