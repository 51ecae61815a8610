//! Reads a trace, and refuses one that does not keep a trace's promises.

use std::collections::{BTreeMap, BTreeSet};
use std::str::Split;

use rustix::io::Errno;

use super::{
    Area, Counted, FIRST_LINE, Follow, Letters, Listed, MapId, Op, OpenFlags, Outcome, Place,
    Sharing, Slot, Trace, WINDOW_BYTES, Whence,
};
use crate::errno;
use crate::escape::unescape;

/// What is wrong with a trace, and in which line.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{line}: {what}")]
pub(crate) struct Damage {
    pub(crate) line: u32,
    pub(crate) what: String,
}

impl Trace {
    /// Reads a whole file.
    pub(crate) fn parse(text: &str) -> Result<Self, Damage> {
        let mut trace = Self::default();
        let mut promises = Promises::default();
        let mut last = 0;
        for (line, text) in (1..).zip(text.split_terminator('\n')) {
            last = line;
            let damage = |what: String| Damage { line, what };
            if line == 1 {
                if text != FIRST_LINE {
                    return Err(damage(format!(
                        "this is no trace: it should begin with '{FIRST_LINE}'"
                    )));
                }
            } else if let Some(below) = text.strip_prefix("below ") {
                let below = unescape(below).filter(|below| below.first() == Some(&b'/'));
                trace.below.push(below.ok_or_else(|| damage("no absolute path".to_owned()))?);
            } else if !text.starts_with('#') {
                let op = Fields::new(text).op().map_err(damage)?;
                promises.check(&op, trace.below.len()).map_err(damage)?;
                trace.ops.push(op);
                trace.lines.push(line);
            }
        }
        if last == 0 {
            return Err(Damage { line: 1, what: "the trace is empty".to_owned() });
        }
        if let Some(slot) = promises.open.first() {
            let what = format!("the trace is cut short: slot {} is never closed", slot.0);
            return Err(Damage { line: last, what });
        }
        Ok(trace)
    }
}

/// What was opened and mapped so far.
#[derive(Default)]
struct Promises {
    open: BTreeSet<Slot>,
    maps: BTreeMap<MapId, Area>,
}

impl Promises {
    fn check(&mut self, op: &Op, below_count: usize) -> Result<(), String> {
        match op {
            Op::Open { place, .. }
            | Op::Stat { place, .. }
            | Op::Access { place, .. }
            | Op::Readlink { place, .. }
                if place.below >= below_count =>
            {
                Err(format!("there is no line 'below' with the number {}", place.below))
            }
            Op::Open { slot: Ok(slot), .. } if !self.open.insert(*slot) => {
                Err(format!("slot {} is open already", slot.0))
            }
            Op::Open { .. } | Op::Stat { .. } | Op::Access { .. } | Op::Readlink { .. } => Ok(()),
            Op::Close { slot } if self.open.remove(slot) => Ok(()),
            Op::Close { slot }
            | Op::Fstat { slot, .. }
            | Op::Getdents { slot, .. }
            | Op::Read { slot, .. }
            | Op::Pread { slot, .. }
            | Op::Lseek { slot, .. }
            | Op::Isatty { slot, .. }
            | Op::Mmap { slot, .. }
                if !self.open.contains(slot) =>
            {
                Err(format!("slot {} is not open", slot.0))
            }
            Op::Mmap { map, area, outcome, .. } => match (outcome, self.maps.insert(*map, *area)) {
                (_, Some(_)) => Err(format!("map {} is there already", map.0)),
                (Ok(()), None) => Ok(()),
                (Err(_), None) => {
                    self.maps.remove(map);
                    Ok(())
                }
            },
            Op::Touch { map, offset } => match self.maps.get(map) {
                None => Err(format!("there is no map {}", map.0)),
                Some(area)
                    if offset.checked_sub(area.offset).is_some_and(|at| at < area.length) =>
                {
                    Ok(())
                }
                Some(_) => Err(format!("map {} does not reach {offset}", map.0)),
            },
            Op::Munmap { map } => self
                .maps
                .remove(map)
                .map(|_| ())
                .ok_or_else(|| format!("there is no map {}", map.0)),
            Op::Close { .. }
            | Op::Fstat { .. }
            | Op::Getdents { .. }
            | Op::Read { .. }
            | Op::Pread { .. }
            | Op::Lseek { .. }
            | Op::Isatty { .. } => Ok(()),
        }
    }
}

/// The words of a line, one after the other.
struct Fields<'a> {
    words: Split<'a, char>,
}

impl<'a> Fields<'a> {
    fn new(line: &'a str) -> Self {
        Self { words: line.split(' ') }
    }

    fn op(mut self) -> Result<Op, String> {
        let op = match self.word("a call")? {
            "open" => self.open()?,
            "close" => Op::Close { slot: self.slot()? },
            "stat" => Op::Stat {
                follow: self.one_of(&[("follow", Follow::Yes), ("nofollow", Follow::No)])?,
                place: self.place()?,
                outcome: self.outcome()?,
            },
            "fstat" => Op::Fstat { slot: self.slot()?, outcome: self.outcome()? },
            "access" => Op::Access {
                mode: self.letters("f")?,
                place: self.place()?,
                outcome: self.outcome()?,
            },
            "readlink" => Op::Readlink { place: self.place()?, outcome: self.outcome()? },
            "getdents" => {
                Op::Getdents { slot: self.slot()?, bytes: self.bytes()?, listed: self.listed()? }
            }
            "read" => Op::Read { slot: self.slot()?, bytes: self.bytes()?, count: self.counted()? },
            "pread" => Op::Pread {
                slot: self.slot()?,
                offset: self.number("an offset")?,
                bytes: self.bytes()?,
                count: self.counted()?,
            },
            "lseek" => Op::Lseek {
                slot: self.slot()?,
                offset: self.number("an offset")?,
                whence: self.one_of(&[
                    ("set", Whence::Set),
                    ("cur", Whence::Current),
                    ("end", Whence::End),
                    ("data", Whence::Data),
                    ("hole", Whence::Hole),
                ])?,
                position: self.counted()?,
            },
            "isatty" => Op::Isatty { slot: self.slot()?, outcome: self.outcome()? },
            "mmap" => self.mmap()?,
            "touch" => Op::Touch { map: self.map()?, offset: self.number("an offset")? },
            "munmap" => Op::Munmap { map: self.map()? },
            other => return Err(format!("there is no call '{other}'")),
        };
        match self.words.next() {
            None => Ok(op),
            Some(word) => Err(format!("'{word}' is one word too many")),
        }
    }

    fn open(&mut self) -> Result<Op, String> {
        let slot = match self.word("a slot")? {
            "-" => None,
            word => Some(Slot(number(word, "a slot")?)),
        };
        let flags = self.flags()?;
        let place = self.place()?;
        let slot = match (slot, self.outcome()?) {
            (Some(slot), Ok(())) => Ok(slot),
            (None, Err(errno)) => Err(errno),
            (Some(_), Err(_)) => return Err("an open that failed has no slot".to_owned()),
            (None, Ok(())) => return Err("an open that succeeded has a slot".to_owned()),
        };
        Ok(Op::Open { flags, place, slot })
    }

    fn mmap(&mut self) -> Result<Op, String> {
        let (map, slot) = (self.map()?, self.slot()?);
        let area = Area {
            offset: self.number("an offset")?,
            length: self.number("a length")?,
            phase: self.number("a phase")?,
            protection: self.letters("-")?,
            sharing: self.one_of(&[("private", Sharing::Private), ("shared", Sharing::Shared)])?,
        };
        if area.phase >= WINDOW_BYTES {
            return Err(format!("the phase {} is not below {WINDOW_BYTES}", area.phase));
        }
        if area.length == 0 || area.length > MAP_BYTES_MAX {
            return Err(format!("a map of {} bytes", area.length));
        }
        Ok(Op::Mmap { map, slot, area, outcome: self.outcome()? })
    }

    fn word(&mut self, wanted: &str) -> Result<&'a str, String> {
        self.words
            .next()
            .filter(|word| !word.is_empty())
            .ok_or_else(|| format!("{wanted} is missing"))
    }

    fn number<T: std::str::FromStr>(&mut self, wanted: &str) -> Result<T, String> {
        number(self.word(wanted)?, wanted)
    }

    fn slot(&mut self) -> Result<Slot, String> {
        self.number("a slot").map(Slot)
    }

    fn map(&mut self) -> Result<MapId, String> {
        self.number("a map").map(MapId)
    }

    fn bytes(&mut self) -> Result<u64, String> {
        self.number("a count of bytes")
    }

    fn one_of<T: Copy>(&mut self, words: &[(&str, T)]) -> Result<T, String> {
        let word = self.word(words[0].0)?;
        let found = words.iter().find(|(known, _)| *known == word);
        found.map(|(_, value)| *value).ok_or_else(|| {
            let known: Vec<_> = words.iter().map(|(known, _)| *known).collect();
            format!("'{word}' is none of {}", known.join(", "))
        })
    }

    fn letters(&mut self, none: &str) -> Result<Letters, String> {
        let word = self.word("letters of rwx")?;
        let mut letters = Letters::default();
        if word != none {
            for letter in word.chars() {
                match letter {
                    'r' => letters.read = true,
                    'w' => letters.write = true,
                    'x' => letters.execute = true,
                    _ => return Err(format!("'{word}' is neither {none} nor letters of rwx")),
                }
            }
        }
        Ok(letters)
    }

    fn flags(&mut self) -> Result<OpenFlags, String> {
        let word = self.word("flags")?;
        let mut flags = OpenFlags::default();
        for flag in word.split(',').filter(|_| word != "-") {
            match flag {
                "directory" => flags.directory = true,
                "nofollow" => flags.nofollow = true,
                "path" => flags.path = true,
                _ => return Err(format!("there is no flag '{flag}'")),
            }
        }
        Ok(flags)
    }

    fn place(&mut self) -> Result<Place, String> {
        let word = self.word("a path")?;
        let wrong = || {
            format!("'{word}' is no path: it should be the number of a 'below', /, and the rest")
        };
        let (below, rest) = word.split_once('/').ok_or_else(wrong)?;
        let rest = unescape(rest).filter(|rest| !rest.contains(&0)).ok_or_else(wrong)?;
        Ok(Place { below: below.parse().map_err(|_| wrong())?, rest })
    }

    fn outcome(&mut self) -> Result<Outcome, String> {
        match self.word("ok or an errno")? {
            "ok" => Ok(Ok(())),
            word => errno(word, "ok").map(Err),
        }
    }

    fn counted(&mut self) -> Result<Counted, String> {
        let word = self.word("a number or an errno")?;
        word.parse().map(Ok).or_else(|_| errno(word, "a number").map(Err))
    }

    fn listed(&mut self) -> Result<Listed, String> {
        match self.word("more, end or an errno")? {
            "more" => Ok(Listed::More),
            "end" => Ok(Listed::End),
            word => errno(word, "more, end").map(Listed::Failed),
        }
    }
}

/// What a 47-bit address space has room for many times over; more is a damaged number.
const MAP_BYTES_MAX: u64 = 1 << 40;

fn number<T: std::str::FromStr>(word: &str, wanted: &str) -> Result<T, String> {
    word.parse().map_err(|_| format!("'{word}' is not {wanted}"))
}

fn errno(word: &str, or: &str) -> Result<Errno, String> {
    errno::of_name(word).ok_or_else(|| format!("'{word}' is neither {or} nor a known errno"))
}
