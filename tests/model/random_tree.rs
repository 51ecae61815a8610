//! A random tree: everything that a file system can hold and a view has to show.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps, XattrFlags};

use crate::support::tree::contents;
use crate::support::user::NOBODY;
use crate::support::{Random, Tree, is_root};

/// The entries up to which a directory carries their attributes: see `DIRECTORY_ATTRIBUTES_MAX` in
/// src/proto/limits.rs.
const ATTRIBUTES_MAX: u64 = 4096;

/// Sizes around which something changes: a page, what rides in a message, a block, what is fetched
/// whole.
const BOUNDARIES: [u64; 5] = [4096, 8192, 65_536, 1 << 20, 10_000_000];

/// The longest relative path of an ordinary directory.
const PATH_MAX_USUAL: usize = 600;

/// Bytes in files of more than 64 KiB, in most trees and in a few, which no small memory holds.
const LARGE_BYTES: u64 = 40 << 20;
const LARGE_BYTES_RARELY: u64 = 96 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    Directory,
    Link,
    /// A fifo, a socket, a device.
    Other,
}

/// One name in the tree.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    /// Below the root of the tree; empty for the root itself.
    pub(crate) path: Vec<u8>,
    pub(crate) kind: Kind,
    pub(crate) size: u64,
    /// The directory to which a link leads.
    pub(crate) leads_to: Option<Vec<u8>>,
}

/// A tree on disk, and its names. Dropped, its directories can be removed again.
#[derive(Debug)]
pub(crate) struct RandomTree {
    root: PathBuf,
    pub(crate) nodes: Vec<Node>,
    /// How many of the names, the first ones, are not in the one large directory.
    pub(crate) ordinary: usize,
    taken: HashSet<Vec<u8>>,
}

impl RandomTree {
    /// Makes one. Its paths have up to `path_bytes_max` bytes below the root.
    pub(crate) fn new(tree: &Tree, random: &mut Random, path_bytes_max: usize) -> RandomTree {
        let mut made = RandomTree {
            root: tree.root().to_owned(),
            nodes: Vec::new(),
            ordinary: 0,
            taken: HashSet::from([Vec::new()]),
        };
        made.push(Vec::new(), Kind::Directory, 0);
        made.directories(random);
        made.deep_path(random, path_bytes_max);
        made.files(random);
        made.links(random);
        made.others(random);
        made.hard_links(random);
        made.ordinary = made.nodes.len();
        made.large_directory(random);
        made.decorate(random);
        made
    }

    pub(crate) fn absolute(&self, path: &[u8]) -> PathBuf {
        if path.is_empty() { self.root.clone() } else { self.root.join(OsStr::from_bytes(path)) }
    }

    pub(crate) fn of_kind(&self, kind: Kind) -> Vec<usize> {
        (0..self.nodes.len()).filter(|&index| self.nodes[index].kind == kind).collect()
    }

    fn push(&mut self, path: Vec<u8>, kind: Kind, size: u64) {
        self.taken.insert(path.clone());
        self.nodes.push(Node { path, kind, size, leads_to: None });
    }

    /// A name that is not taken, in one of the directories.
    fn place(&self, random: &mut Random) -> Vec<u8> {
        let directories = self.of_kind(Kind::Directory);
        loop {
            let parent = &self.nodes[directories[random.below(directories.len() as u64) as usize]];
            let path = join(&parent.path, &name(random));
            if path.len() <= PATH_MAX_USUAL && !self.taken.contains(&path) {
                return path;
            }
        }
    }

    fn directories(&mut self, random: &mut Random) {
        for _ in 0..8 + random.below(40) {
            let path = self.place(random);
            fs::create_dir(self.absolute(&path)).expect("a free name");
            self.push(path, Kind::Directory, 0);
        }
    }

    /// Directories in each other as far as a path can reach, and a file at the end.
    fn deep_path(&mut self, random: &mut Random, path_bytes_max: usize) {
        if random.below(3) != 0 {
            return;
        }
        let mut path = Vec::new();
        loop {
            let len = 1 + random.below(255) as usize;
            let next = join(&path, &vec![b'd'; len]);
            if next.len() + 2 > path_bytes_max {
                break;
            }
            path = next;
            if self.taken.contains(&path) {
                continue;
            }
            fs::create_dir(self.absolute(&path)).expect("a free name");
            self.push(path.clone(), Kind::Directory, 0);
        }
        let left = (path_bytes_max - path.len() - 1).min(255);
        let path = join(&path, &vec![b'f'; left]);
        self.file(path, 100);
    }

    fn file(&mut self, path: Vec<u8>, size: u64) {
        let seed = twox_hash::XxHash3_64::oneshot(&path);
        let bytes = contents(seed, 0, size as usize);
        let file = File::create_new(self.absolute(&path)).expect("a free name");
        file.write_all_at(&bytes, 0).expect("there is room");
        settle(&file, size);
        self.push(path, Kind::File, size);
    }

    fn files(&mut self, random: &mut Random) {
        let bound = if random.below(4) == 0 { LARGE_BYTES_RARELY } else { LARGE_BYTES };
        let mut large = 0;
        for _ in 0..60 + random.below(140) {
            let size = size(random);
            let path = self.place(random);
            if size > 65_537 {
                if large + size > bound {
                    continue;
                }
                large += size;
            }
            if random.below(12) == 0 { self.sparse(path, random) } else { self.file(path, size) }
        }
    }

    /// A file of mostly holes; rarely of more than any memory holds.
    fn sparse(&mut self, path: Vec<u8>, random: &mut Random) {
        let size = match random.below(8) {
            0 => 1 << 40,
            1..=3 => random.below(200_000),
            _ => random.below(24 << 20),
        };
        let file = File::create_new(self.absolute(&path)).expect("a free name");
        file.set_len(size).expect("the file system has sparse files");
        for _ in 0..random.below(6) {
            let start = random.below(size + 1);
            let piece = contents(random.next(), 0, (1 + random.below(20_000)) as usize);
            let len = piece.len().min((size - start) as usize);
            file.write_all_at(&piece[..len], start).expect("there is room");
        }
        settle(&file, u64::MAX);
        self.push(path, Kind::File, size);
    }

    fn links(&mut self, random: &mut Random) {
        for _ in 0..10 + random.below(40) {
            let path = self.place(random);
            let to = self.nodes[random.below(self.nodes.len() as u64) as usize].clone();
            let (target, resolved) = match random.below(10) {
                // To itself, or to another that leads back here or nowhere.
                0 => (last(&path).to_vec(), None),
                1 => (join(&upwards(&path), &name(random)), None),
                2 => ([b"/nowhere-at-all/", &name(random)[..]].concat(), None),
                3 => (vec![b'x'; 1 + random.below(4000) as usize], None),
                4 | 5 => (self.absolute(&to.path).as_os_str().as_bytes().to_vec(), Some(to)),
                6 => (join(&[&upwards(&path)[..], b"/.//"].concat(), &to.path), Some(to)),
                _ => (join(&upwards(&path), &to.path), Some(to)),
            };
            if target.is_empty() || target.len() > 4000 {
                continue;
            }
            let target = OsStr::from_bytes(&target);
            symlink(target, self.absolute(&path)).expect("a free name");
            self.push(path, Kind::Link, 0);
            let leads_to = resolved.filter(|to| to.kind == Kind::Directory).map(|to| to.path);
            self.nodes.last_mut().expect("pushed above").leads_to = leads_to;
        }
        if random.below(3) == 0 {
            self.chain(random);
        }
    }

    /// Links to links, around the 40 that Linux follows.
    fn chain(&mut self, random: &mut Random) {
        let first = self.place(random);
        self.file(first.clone(), 10);
        let mut before = last(&first).to_vec();
        for index in 0..36 + random.below(8) {
            let name = format!("chain-{index}");
            let path = sibling(&first, name.as_bytes());
            if self.taken.contains(&path) {
                return;
            }
            symlink(OsStr::from_bytes(&before), self.absolute(&path)).expect("a free name");
            self.push(path, Kind::Link, 0);
            before = name.into_bytes();
        }
    }

    fn others(&mut self, random: &mut Random) {
        for _ in 0..2 + random.below(6) {
            let path = self.place(random);
            let (kind, device) = match random.below(3) {
                0 => (FileType::Fifo, 0),
                1 => (FileType::Socket, 0),
                _ if is_root() => (FileType::CharacterDevice, rustix::fs::makedev(1, 3)),
                _ => (FileType::Fifo, 0),
            };
            let mode = Mode::from_raw_mode(0o644);
            rustix::fs::mknodat(CWD, self.absolute(&path), kind, mode, device).expect("it is ours");
            self.push(path, Kind::Other, 0);
        }
    }

    /// A few thousand entries: more often than not with their attributes in one object.
    fn large_directory(&mut self, random: &mut Random) {
        let entries = match random.below(12) {
            0 => ATTRIBUTES_MAX + random.below(3) - 1,
            1 => ATTRIBUTES_MAX + 1 + random.below(1500),
            2 | 3 => 500 + random.below(3000),
            _ => return,
        };
        let directory = self.place(random);
        fs::create_dir(self.absolute(&directory)).expect("a free name");
        self.push(directory.clone(), Kind::Directory, 0);
        for index in 0..entries {
            let path = join(&directory, format!("entry-{index}").as_bytes());
            let size = index % 3;
            fs::write(self.absolute(&path), &b"ab"[..size as usize]).expect("a free name");
            self.push(path, Kind::File, size);
        }
    }

    fn hard_links(&mut self, random: &mut Random) {
        for _ in 0..random.below(30) {
            let of = self.nodes[random.below(self.nodes.len() as u64) as usize].clone();
            if of.kind == Kind::Directory {
                continue;
            }
            let beside = random.below(2) == 0;
            let path = if beside { sibling(&of.path, &name(random)) } else { self.place(random) };
            if self.taken.contains(&path) || path.len() > PATH_MAX_USUAL {
                continue;
            }
            fs::hard_link(self.absolute(&of.path), self.absolute(&path)).expect("a free name");
            self.push(path.clone(), of.kind, of.size);
            // What a relative link leads to depends on where it is.
            self.nodes.last_mut().expect("pushed above").leads_to = None;
        }
    }

    /// Owners, extended attributes, modes, times; the names in a directory before the directory.
    fn decorate(&self, random: &mut Random) {
        for node in self.nodes.iter().rev() {
            let path = self.absolute(&node.path);
            if is_root() && node.kind != Kind::Link && random.below(6) == 0 {
                let id = |random: &mut Random| [0, 1, NOBODY][random.below(3) as usize];
                chown(&path, Some(id(random)), Some(id(random))).expect("root may");
            }
            if matches!(node.kind, Kind::File | Kind::Directory) && random.below(5) == 0 {
                extended_attributes(&path, random);
            }
            if node.kind != Kind::Link {
                let mode = if node.path.is_empty() { 0o755 } else { mode(node.kind, random) };
                fs::set_permissions(&path, Permissions::from_mode(mode)).expect("it is ours");
            }
            set_times(&path, random);
        }
    }
}

impl Drop for RandomTree {
    /// An ordinary user cannot remove what he may not list.
    fn drop(&mut self) {
        for node in self.nodes.iter().filter(|node| node.kind == Kind::Directory) {
            let _ = fs::set_permissions(self.absolute(&node.path), Permissions::from_mode(0o755));
        }
    }
}

/// What delayed allocation adds to `st_blocks` is there after this.
fn settle(file: &File, size: u64) {
    if size > 65_537 {
        file.sync_all().expect("there is room");
    }
}

pub(crate) fn join(directory: &[u8], name: &[u8]) -> Vec<u8> {
    match (directory, name) {
        (b"", _) => name.to_vec(),
        (_, b"") => directory.to_vec(),
        _ => [directory, b"/", name].concat(),
    }
}

pub(crate) fn last(path: &[u8]) -> &[u8] {
    path.rsplit(|&byte| byte == b'/').next().unwrap_or(path)
}

/// Another name in the same directory.
pub(crate) fn sibling(path: &[u8], name: &[u8]) -> Vec<u8> {
    [&path[..path.len() - last(path).len()], name].concat()
}

/// From the directory of `path` to the root of the tree.
fn upwards(path: &[u8]) -> Vec<u8> {
    let depth = path.iter().filter(|&&byte| byte == b'/').count();
    vec![&b".."[..]; depth].join(&b'/')
}

/// Any bytes but NUL and `/`.
pub(crate) fn name(random: &mut Random) -> Vec<u8> {
    let len = match random.below(30) {
        0 => 255,
        1 => 254,
        2 => 100 + random.below(155),
        _ => 1 + random.below(12),
    };
    let any = random.below(4) == 0;
    let byte = |random: &mut Random| match any {
        true => 1 + random.below(255) as u8,
        false => b"abcdefgXYZ019._- "[random.below(17) as usize],
    };
    let mut name: Vec<u8> = (0..len).map(|_| byte(random)).collect();
    name.iter_mut().filter(|byte| **byte == b'/').for_each(|byte| *byte = b'\n');
    if name == b"." || name == b".." { b"...".to_vec() } else { name }
}

fn size(random: &mut Random) -> u64 {
    match random.below(20) {
        0 => 0,
        1 => 1,
        2..=7 => {
            // The largest one rarely: it takes a quarter of what there may be.
            let count = if random.below(4) == 0 { BOUNDARIES.len() } else { 3 };
            BOUNDARIES[random.below(count as u64) as usize] + random.below(3) - 1
        }
        8 => (1 << 20) * (1 + random.below(6)) + random.below(3) - 1,
        9 => random.below(9 << 20),
        _ => random.below(20_000),
    }
}

fn mode(kind: Kind, random: &mut Random) -> u32 {
    let usual = if kind == Kind::Directory { 0o755 } else { 0o644 };
    let odd = match kind {
        Kind::Directory => [0o000, 0o111, 0o444, 0o1777, 0o2750, 0o700],
        Kind::File | Kind::Link | Kind::Other => [0o000, 0o111, 0o444, 0o4755, 0o600, 0o040],
    };
    match random.below(10) {
        0 => odd[random.below(odd.len() as u64) as usize],
        1 if kind != Kind::Directory => random.below(0o10000) as u32,
        _ => usual,
    }
}

/// Where the file system has them: an error is an answer too.
fn extended_attributes(path: &Path, random: &mut Random) {
    for index in 0..1 + random.below(3) {
        let len = if random.below(8) == 0 { random.below(1500) } else { random.below(40) };
        let value = contents(random.next(), 0, len as usize);
        let name = format!("user.copper.{index}");
        let _ = rustix::fs::setxattr(path, &name, &value, XattrFlags::empty());
    }
}

/// A modification at any time, and an access in the future: reading does not change it then
/// (relatime), so that it can be compared.
fn set_times(path: &Path, random: &mut Random) {
    // What ext4's 34 bits of seconds reach: 1901 to 2446.
    let modified = match random.below(5) {
        0 => -(random.below(1 << 31) as i64),
        1 => random.below(15_000_000_000) as i64,
        2 => [0, -1, 1, i64::from(i32::MAX) + 1, 4_294_967_296][random.below(5) as usize],
        _ => 1_500_000_000 + random.below(200_000_000) as i64,
    };
    let nanos = |random: &mut Random| match random.below(4) {
        0 => 0,
        1 => 999_999_999,
        _ => random.below(1_000_000_000) as i64,
    };
    let last_modification = Timespec { tv_sec: modified, tv_nsec: nanos(random) };
    let future = 4_000_000_000 + random.below(1_000_000_000) as i64;
    let last_access = Timespec { tv_sec: future, tv_nsec: nanos(random) };
    let times = Timestamps { last_access, last_modification };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).expect("it is ours");
}
