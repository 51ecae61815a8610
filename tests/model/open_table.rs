//! Files that a thread keeps open, at the source and in a view, over many steps.

use std::os::fd::OwnedFd;

use rustix::fs::{FileType, OFlags, SeekFrom, fstat};
use rustix::io::Errno;

use super::answer::{self, Entry, Extent, Identity, dots_first, names_difference};
use super::operation::{OnOpen, Shape};
use crate::support::Random;

/// How many a thread keeps.
const KEPT_MAX: usize = 12;

#[derive(Debug)]
pub(crate) struct Kept {
    pub(crate) rank: usize,
    /// As it was opened.
    pub(crate) path: Vec<u8>,
    pub(crate) source: OwnedFd,
    pub(crate) view: OwnedFd,
    shape: Shape,
    /// Only of a directory that can be read.
    listing: Option<Listing>,
}

/// Where the path in the view has led: an absolute link leads to the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    View,
    Source,
}

/// How far a directory has been read.
#[derive(Debug)]
struct Listing {
    /// All that the source has.
    entries: Vec<Entry>,
    position: usize,
    /// By position, what the view has said to seek to; what it has not said is `None`.
    offsets: Vec<Option<u64>>,
}

/// What is done with a kept file.
#[derive(Clone, Debug)]
pub(crate) enum OnKept {
    Ask(OnOpen),
    /// One call of `getdents64` with a buffer of so many bytes.
    ReadOn(usize),
    /// Back or forth to a position that was reached before.
    SeekTo(usize),
    Close,
}

impl Kept {
    pub(crate) fn new(
        rank: usize,
        path: Vec<u8>,
        flags: OFlags,
        source: OwnedFd,
        view: OwnedFd,
        place: Place,
    ) -> Result<Kept, Errno> {
        let stat = fstat(&source)?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        let shape = Shape { kind, size: stat.st_size as u64 };
        let listed = kind == FileType::Directory && !flags.contains(OFlags::PATH);
        let listing = listed.then(|| Listing::of(&source, place)).transpose()?;
        Ok(Kept { rank, path, source, view, shape, listing })
    }

    pub(crate) fn random(&self, random: &mut Random) -> OnKept {
        let end = random.below(25) == 0;
        match &self.listing {
            _ if end => OnKept::Close,
            Some(listing) => match random.below(10) {
                0..=6 => {
                    let usual = [280, 400, 1024, 4096, 32_768][random.below(5) as usize];
                    let small = 24 + random.below(60) as usize;
                    OnKept::ReadOn(if random.below(4) == 0 { small } else { usual })
                }
                7 | 8 => {
                    let known = |index: &usize| listing.offsets[*index].is_some();
                    let known: Vec<usize> = (0..listing.offsets.len()).filter(known).collect();
                    OnKept::SeekTo(known[random.below(known.len() as u64) as usize])
                }
                _ => OnKept::Ask(OnOpen::Stat),
            },
            None => OnKept::Ask(OnOpen::random(random, self.shape)),
        }
    }

    /// # Errors
    /// What differs.
    pub(crate) fn read_on(&mut self, buffer: usize) -> Result<(String, Vec<Pair>), String> {
        let listing = self.listing.as_mut().expect("chosen for a directory");
        let from = listing.position;
        let left = &listing.entries[from..];
        let view = match answer::entries(&self.view, buffer, Extent::OneCall) {
            Ok(view) => view,
            // What getdents(2) says where not even one entry fits.
            Err(Errno::INVAL) if left.first().is_some_and(|next| next.bytes() > buffer) => {
                return Ok(("too small".to_owned(), Vec::new()));
            }
            Err(errno) => return Err(format!("{errno:?} at entry {from} of {}", left.len())),
        };
        // How many come at once is up to the file system.
        let expected = left.get(..view.len()).unwrap_or(left);
        if let Some(difference) = names_difference(expected, &view) {
            return Err(format!("from entry {from} on: {difference}"));
        }
        if view.is_empty() && !left.is_empty() {
            return Err(format!("an end before {} entries", left.len()));
        }
        let pairs = expected.iter().zip(&view).map(|(source, view)| Pair::of(source, view));
        let pairs = pairs.collect();
        for entry in &view {
            listing.position += 1;
            listing.offsets[listing.position] = Some(entry.next);
        }
        Ok((format!("{} entries from {from} on", view.len()), pairs))
    }

    pub(crate) fn seek_to(&mut self, position: usize) -> Result<String, String> {
        let listing = self.listing.as_mut().expect("chosen for a directory");
        let offset = listing.offsets[position].expect("chosen among the known ones");
        let reached = rustix::fs::seek(&self.view, SeekFrom::Start(offset));
        if reached != Ok(offset) {
            return Err(format!("seeking to offset {offset} gives {reached:?}"));
        }
        listing.position = position;
        Ok(format!("at entry {position}"))
    }
}

/// One entry, by its numbers at the source and in the view.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pair {
    pub(crate) source: u64,
    pub(crate) view: u64,
}

impl Pair {
    pub(crate) fn of(source: &Entry, view: &Entry) -> Pair {
        Pair { source: source.inode, view: view.inode }
    }
}

impl Listing {
    fn of(source: &OwnedFd, place: Place) -> Result<Listing, Errno> {
        let entries = answer::entries(source, 32_768, Extent::Whole)?;
        let entries = match place {
            Place::View => dots_first(entries),
            Place::Source => entries,
        };
        let mut offsets = vec![None; entries.len() + 1];
        offsets[0] = Some(0);
        Ok(Listing { entries, position: 0, offsets })
    }
}

#[derive(Debug, Default)]
pub(crate) struct OpenTable {
    files: Vec<Kept>,
}

impl OpenTable {
    pub(crate) fn any(&self, random: &mut Random) -> Option<usize> {
        let count = self.files.len() as u64;
        (count > 0).then(|| random.below(count) as usize)
    }

    pub(crate) fn get(&mut self, index: usize) -> &mut Kept {
        &mut self.files[index]
    }

    /// Keeps it; the oldest goes where there are too many.
    pub(crate) fn keep(&mut self, kept: Kept) {
        if self.files.len() == KEPT_MAX {
            self.files.remove(0);
        }
        self.files.push(kept);
    }

    pub(crate) fn close(&mut self, index: usize) {
        self.files.swap_remove(index);
    }
}

/// The device of a file of the source, for an inode number from a listing.
pub(crate) fn identity(kept: &Kept, inode: u64) -> Identity {
    let device = fstat(&kept.source).map_or(0, |stat| stat.st_dev);
    Identity { device, inode }
}
