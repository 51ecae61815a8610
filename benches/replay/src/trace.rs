//! A trace: the calls of a command, one a line, as text.
//!
//! [`FORMAT`] says what a line means, and stands at the head of every trace. A trace in memory keeps
//! its promises: a slot is used only between its open and its close, a map only after its mmap, and at
//! the end every slot is closed. Both [`Trace::parse`] and the recorder make only such traces.
//!
//! It does not know how calls are recorded or made.

mod fields;

use std::fmt;

use rustix::io::Errno;

use crate::errno;
use crate::escape::escape;

pub(crate) use fields::Damage;

/// The first line of every trace.
pub(crate) const FIRST_LINE: &str = "copper-replay trace 1";

/// What the lines mean.
pub(crate) const FORMAT: &str = "\
One call a line, its words divided by one space. In the order in which the calls ended, whichever
process made them. Lines that begin with # mean nothing.

below DIR                                   paths begin with the number of such a line: 0 is the first
open SLOT FLAGS PATH RESULT                 SLOT names the file until its close, - if the open failed
close SLOT
stat follow|nofollow PATH RESULT            stat, lstat, newfstatat, statx
fstat SLOT RESULT
access MODE PATH RESULT
readlink PATH RESULT
getdents SLOT BYTES more|end|RESULT         BYTES is the buffer's size; after end the listing is over
read SLOT BYTES COUNT|RESULT                COUNT of the BYTES asked for were read
pread SLOT OFFSET BYTES COUNT|RESULT
lseek SLOT OFFSET set|cur|end|data|hole POSITION|RESULT
isatty SLOT RESULT                          ioctl TCGETS
mmap MAP SLOT OFFSET LENGTH PHASE PROTECTION private|shared RESULT
touch MAP OFFSET                            a page of the file that a map reads first in its 64 KiB window
munmap MAP

PATH        N/REST: REST below the DIR of line N; bytes that are not printable, spaces and backslashes
            are a backslash and three octal digits
RESULT      ok, or the name of an errno
FLAGS       - or of directory, nofollow and path, divided by commas
MODE        f, or letters of rwx
PROTECTION  - or letters of rwx
PHASE       the map's address modulo 64 KiB: the kernel maps pages around a fault in windows of that
            size and alignment
OFFSET, BYTES, COUNT, LENGTH and POSITION are bytes.";

/// An open file of a trace. Small and used again, as descriptors are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Slot(pub(crate) u32);

/// A mapping of a trace. Never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct MapId(pub(crate) u32);

/// A path below one of the folders that were recorded.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Place {
    /// Which folder: an index of [`Trace::below`].
    pub(crate) below: usize,
    /// Without a slash in front; empty for the folder itself.
    pub(crate) rest: Vec<u8>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.below, escape(&self.rest))
    }
}

/// How a call ended that answers nothing else.
pub(crate) type Outcome = Result<(), Errno>;

/// How a call ended that answers a number.
pub(crate) type Counted = Result<u64, Errno>;

/// How an open was meant, as far as a reader's opens differ.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct OpenFlags {
    pub(crate) directory: bool,
    pub(crate) nofollow: bool,
    pub(crate) path: bool,
}

/// Letters of `rwx`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Letters {
    pub(crate) read: bool,
    pub(crate) write: bool,
    pub(crate) execute: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Follow {
    Yes,
    No,
}

/// How one getdents64 ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Listed {
    More,
    End,
    Failed(Errno),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Whence {
    Set,
    Current,
    End,
    Data,
    Hole,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sharing {
    Private,
    Shared,
}

/// One call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Op {
    Open { flags: OpenFlags, place: Place, slot: Result<Slot, Errno> },
    Close { slot: Slot },
    Stat { follow: Follow, place: Place, outcome: Outcome },
    Fstat { slot: Slot, outcome: Outcome },
    Access { mode: Letters, place: Place, outcome: Outcome },
    Readlink { place: Place, outcome: Outcome },
    Getdents { slot: Slot, bytes: u64, listed: Listed },
    Read { slot: Slot, bytes: u64, count: Counted },
    Pread { slot: Slot, offset: u64, bytes: u64, count: Counted },
    Lseek { slot: Slot, offset: i64, whence: Whence, position: Counted },
    Isatty { slot: Slot, outcome: Outcome },
    Mmap { map: MapId, slot: Slot, area: Area, outcome: Outcome },
    Touch { map: MapId, offset: u64 },
    Munmap { map: MapId },
}

/// What of a file is mapped, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Area {
    pub(crate) offset: u64,
    pub(crate) length: u64,
    /// The address modulo [`WINDOW_BYTES`].
    pub(crate) phase: u64,
    pub(crate) protection: Letters,
    pub(crate) sharing: Sharing,
}

/// What the kernel maps around a fault if it is cached: `fault_around_bytes` of mm/memory.c.
pub(crate) const WINDOW_BYTES: u64 = 64 << 10;

impl Op {
    /// The word with which its line begins.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Open { .. } => "open",
            Self::Close { .. } => "close",
            Self::Stat { .. } => "stat",
            Self::Fstat { .. } => "fstat",
            Self::Access { .. } => "access",
            Self::Readlink { .. } => "readlink",
            Self::Getdents { .. } => "getdents",
            Self::Read { .. } => "read",
            Self::Pread { .. } => "pread",
            Self::Lseek { .. } => "lseek",
            Self::Isatty { .. } => "isatty",
            Self::Mmap { .. } => "mmap",
            Self::Touch { .. } => "touch",
            Self::Munmap { .. } => "munmap",
        }
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.kind())?;
        match self {
            Self::Open { flags, place, slot: Ok(slot) } => {
                write!(f, "{} {flags} {place} ok", slot.0)
            }
            Self::Open { flags, place, slot: Err(errno) } => {
                write!(f, "- {flags} {place} {}", errno::name(*errno))
            }
            Self::Close { slot } => write!(f, "{}", slot.0),
            Self::Stat { follow, place, outcome } => {
                let follow = if *follow == Follow::Yes { "follow" } else { "nofollow" };
                write!(f, "{follow} {place} {}", result(*outcome))
            }
            Self::Fstat { slot, outcome } | Self::Isatty { slot, outcome } => {
                write!(f, "{} {}", slot.0, result(*outcome))
            }
            Self::Access { mode, place, outcome } => {
                let mode =
                    if *mode == Letters::default() { "f".to_owned() } else { mode.to_string() };
                write!(f, "{mode} {place} {}", result(*outcome))
            }
            Self::Readlink { place, outcome } => write!(f, "{place} {}", result(*outcome)),
            Self::Getdents { slot, bytes, listed } => {
                write!(f, "{} {bytes} ", slot.0)?;
                match listed {
                    Listed::More => f.write_str("more"),
                    Listed::End => f.write_str("end"),
                    Listed::Failed(errno) => f.write_str(&errno::name(*errno)),
                }
            }
            Self::Read { slot, bytes, count } => {
                write!(f, "{} {bytes} {}", slot.0, counted(*count))
            }
            Self::Pread { slot, offset, bytes, count } => {
                write!(f, "{} {offset} {bytes} {}", slot.0, counted(*count))
            }
            Self::Lseek { slot, offset, whence, position } => {
                write!(f, "{} {offset} {whence} {}", slot.0, counted(*position))
            }
            Self::Mmap { map, slot, area, outcome } => {
                let Area { offset, length, phase, protection, sharing } = area;
                let sharing = if *sharing == Sharing::Private { "private" } else { "shared" };
                write!(
                    f,
                    "{} {} {offset} {length} {phase} {protection} {sharing} ",
                    map.0, slot.0
                )?;
                f.write_str(&result(*outcome))
            }
            Self::Touch { map, offset } => write!(f, "{} {offset}", map.0),
            Self::Munmap { map } => write!(f, "{}", map.0),
        }
    }
}

pub(crate) fn result(outcome: Outcome) -> String {
    outcome.map_or_else(errno::name, |()| "ok".to_owned())
}

pub(crate) fn counted(count: Counted) -> String {
    count.map_or_else(errno::name, |count| count.to_string())
}

impl fmt::Display for OpenFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words =
            [("directory", self.directory), ("nofollow", self.nofollow), ("path", self.path)];
        let words: Vec<_> = words.iter().filter(|(_, is)| *is).map(|(word, _)| *word).collect();
        f.write_str(if words.is_empty() { "-" } else { "" })?;
        f.write_str(&words.join(","))
    }
}

impl fmt::Display for Letters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = [('r', self.read), ('w', self.write), ('x', self.execute)];
        let text: String = all.iter().filter(|(_, is)| *is).map(|(letter, _)| *letter).collect();
        f.write_str(if text.is_empty() { "-" } else { &text })
    }
}

impl fmt::Display for Whence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Set => "set",
            Self::Current => "cur",
            Self::End => "end",
            Self::Data => "data",
            Self::Hole => "hole",
        })
    }
}

/// A whole trace.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Trace {
    /// The folders that were recorded, absolute.
    pub(crate) below: Vec<Vec<u8>>,
    pub(crate) ops: Vec<Op>,
    /// The line of each op in the file that it was read from.
    pub(crate) lines: Vec<u32>,
}

impl Trace {
    /// Writes the whole file. `notes` are for people: each line becomes a comment.
    pub(crate) fn write(&self, notes: &str, to: &mut impl std::io::Write) -> std::io::Result<()> {
        writeln!(to, "{FIRST_LINE}")?;
        for line in notes.lines().chain([""]).chain(FORMAT.lines()) {
            writeln!(to, "{}", format!("# {line}").trim_end())?;
        }
        for below in &self.below {
            writeln!(to, "below {}", escape(below))?;
        }
        for op in &self.ops {
            writeln!(to, "{op}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "trace/tests.rs"]
mod tests;
