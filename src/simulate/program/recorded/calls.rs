//! Reads the trace format of `ci/replay.sh`, which says at the head of each trace what its lines mean,
//! as far as the model needs it: which paths are named, which folders listed, which bytes touched.

use std::collections::HashMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

/// The first line of every trace.
const FIRST_LINE: &str = "copper-replay trace 1";

/// What a page of a mapped file is.
const PAGE_BYTES: u64 = 4096;

/// A path below one of the folders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Which folder.
    pub(super) below: usize,
    pub(super) rest: PathBuf,
}

/// Whether a link at the end of a path is followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Follow {
    Yes,
    No,
}

/// What a daemon can be asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Call {
    Name { place: Place, follow: Follow },
    List { place: Place },
    Ioctl { place: Place },
    Touch { place: Place, offset: u64, bytes: u64 },
}

/// The folders of a trace and its calls; or the line that is not understood, and why.
pub(super) fn parse(text: &str) -> Result<(Vec<PathBuf>, Vec<Call>), (usize, String)> {
    let mut lines = text.lines();
    if lines.next() != Some(FIRST_LINE) {
        return Err((1, format!("this is no trace: it should begin with '{FIRST_LINE}'")));
    }
    let (mut reading, mut calls) = (Reading::default(), Vec::new());
    for (number, line) in (2..).zip(lines).filter(|(_, line)| !line.starts_with('#')) {
        let words: Vec<&str> = line.split(' ').collect();
        let call = reading.line(&words);
        calls.extend(call.ok_or_else(|| (number, format!("'{line}' is no call of a trace")))?);
    }
    Ok((reading.below, calls))
}

/// What was opened and mapped so far.
#[derive(Default)]
struct Reading {
    below: Vec<PathBuf>,
    /// With the position of the next read.
    slots: HashMap<u32, (Place, u64)>,
    maps: HashMap<u32, Place>,
}

impl Reading {
    /// `None` if the line makes no sense.
    fn line(&mut self, words: &[&str]) -> Option<Option<Call>> {
        match *words {
            ["below", folder] => {
                self.below.push(path(folder)?);
                Some(None)
            }
            ["open" | "stat" | "readlink" | "access", ..] => self.name(words).map(Some),
            ["mmap" | "touch", ..] => self.mapped(words),
            ["fstat", _, _] | ["close" | "munmap", _] => Some(None),
            [_, slot, ..] => self.opened(slot, words),
            _ => None,
        }
    }

    /// A call on a path.
    fn name(&mut self, words: &[&str]) -> Option<Call> {
        let (place, follow) = match *words {
            ["open", slot, flags, place, _] => {
                let place = self.place(place)?;
                if slot != "-" {
                    self.slots.insert(slot.parse().ok()?, (place.clone(), 0));
                }
                let stays = flags.split(',').any(|flag| flag == "nofollow");
                (place, if stays { Follow::No } else { Follow::Yes })
            }
            ["stat", "nofollow", place, _] | ["readlink", place, _] => {
                (self.place(place)?, Follow::No)
            }
            ["stat", "follow", place, _] | ["access", _, place, _] => {
                (self.place(place)?, Follow::Yes)
            }
            _ => return None,
        };
        Some(Call::Name { place, follow })
    }

    /// A call on a file that is mapped, or will be.
    fn mapped(&mut self, words: &[&str]) -> Option<Option<Call>> {
        match *words {
            ["mmap", map, slot, _, _, _, _, _, _] => {
                let (place, _) = self.slots.get(&slot.parse().ok()?)?;
                self.maps.insert(map.parse().ok()?, place.clone());
                Some(None)
            }
            ["touch", map, offset] => {
                let place = self.maps.get(&map.parse().ok()?)?.clone();
                let offset = offset.parse().ok()?;
                Some(Some(Call::Touch { place, offset, bytes: PAGE_BYTES }))
            }
            _ => None,
        }
    }

    /// A call on what is open in a slot.
    fn opened(&mut self, slot: &str, words: &[&str]) -> Option<Option<Call>> {
        let (place, position) = self.slots.get_mut(&slot.parse().ok()?)?;
        let touch = |offset, bytes| Call::Touch { place: place.clone(), offset, bytes };
        match *words {
            ["getdents", _, _, _] => Some(Some(Call::List { place: place.clone() })),
            ["isatty", _, _] => Some(Some(Call::Ioctl { place: place.clone() })),
            ["read", _, _, count] => {
                let (offset, bytes) = (*position, count.parse().unwrap_or(0));
                *position += bytes;
                Some(Some(touch(offset, bytes)))
            }
            ["pread", _, offset, _, count] => {
                Some(Some(touch(offset.parse().ok()?, count.parse().unwrap_or(0))))
            }
            ["lseek", _, _, _, set] => {
                *position = set.parse().unwrap_or(*position);
                Some(None)
            }
            _ => None,
        }
    }

    fn place(&self, word: &str) -> Option<Place> {
        let (below, rest) = word.split_once('/')?;
        let below = below.parse().ok().filter(|below| *below < self.below.len())?;
        Some(Place { below, rest: path(rest)? })
    }
}

/// A backslash and three octal digits are a byte.
fn path(word: &str) -> Option<PathBuf> {
    let mut bytes = Vec::with_capacity(word.len());
    let mut rest = word.as_bytes();
    while let [first, after @ ..] = rest {
        rest = after;
        if *first != b'\\' {
            bytes.push(*first);
            continue;
        }
        let (digits, after) = rest.split_at_checked(3)?;
        bytes.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok()?);
        rest = after;
    }
    Some(OsString::from_vec(bytes).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "\
copper-replay trace 1
# a comment
below /a\\040b
stat follow 0/x ok
open 0 - 0/lib\\057so ok
read 0 832 832
lseek 0 64 set 64
read 0 100 36
pread 0 8192 10 EIO
isatty 0 ENOTTY
mmap 0 0 0 4096 0 r private ok
close 0
touch 0 4096
munmap 0
open - nofollow 0/none ENOENT
open 0 directory 0/ ok
getdents 0 32768 more
close 0
";

    #[test]
    fn a_trace_says_what_is_named_listed_and_touched() {
        let (below, calls) = parse(TRACE).expect("it is one");
        assert_eq!(below, [PathBuf::from("/a b")]);
        let place = |rest: &str| Place { below: 0, rest: rest.into() };
        let named = |rest, follow| Call::Name { place: place(rest), follow };
        let touch = |offset, bytes| Call::Touch { place: place("lib/so"), offset, bytes };
        let expected = [
            named("x", Follow::Yes),
            named("lib/so", Follow::Yes),
            touch(0, 832),
            touch(64, 36),
            touch(8192, 0),
            Call::Ioctl { place: place("lib/so") },
            touch(4096, PAGE_BYTES),
            named("none", Follow::No),
            named("", Follow::Yes),
            Call::List { place: place("") },
        ];
        assert_eq!(calls, expected);
    }

    #[test]
    fn what_is_no_trace_is_refused_with_its_line() {
        let bad = [
            ("", 1),
            ("something else\n", 1),
            ("copper-replay trace 1\nbelow /a\nwalk 0\n", 3),
            ("copper-replay trace 1\nstat follow 0/x ok\n", 2),
            ("copper-replay trace 1\nbelow /a\nread 0 1 1\n", 3),
            ("copper-replay trace 1\nbelow /a\\9\n", 2),
        ];
        for (text, line) in bad {
            assert_eq!(parse(text).expect_err(text).0, line, "{text}");
        }
    }
}
