//! Reads what `strace -f -y -o FILE` writes: one event a line, each with the process id in front.
//!
//! ```text
//! 12 openat(AT_FDCWD</home>, "a\n", O_RDONLY|O_CLOEXEC) = 3</home/a\n>
//! 12 read(3</home/a\n>,  <unfinished ...>
//! 13 +++ exited with 0 +++
//! 12 <... read resumed>"\177ELF"..., 832) = 832
//! ```
//!
//! It knows how strace writes, not what the calls mean.

use std::collections::HashMap;

use crate::escape::unescape;

/// A thread's number, as strace prints it.
pub(crate) type Pid = u32;

/// `AT_FDCWD` as a descriptor's number.
pub(crate) const AT_FDCWD: i32 = -100;

/// What one line says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// A call has begun and others are written before its end. Its arguments so far.
    Begun(Call),
    /// A call has ended.
    Done(Call),
    /// A thread is gone.
    Exited(Pid),
    /// A signal and the like.
    Nothing,
}

/// One system call: its arguments as strace writes them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) pid: Pid,
    pub(crate) name: String,
    pub(crate) arguments: Vec<String>,
    pub(crate) answer: Answer,
}

/// How a call ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Value(u64),
    /// The errno's name.
    Failed(String),
    /// `?`: it has not ended, or never does.
    Unknown,
}

/// A line that is not strace's.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("this line of strace is not understood: {0}")]
pub(crate) struct NotUnderstood(String);

/// Joins the two halves of calls that others interrupt.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    begun: HashMap<Pid, String>,
}

impl Reader {
    /// Takes the next line, without its end.
    pub(crate) fn feed(&mut self, line: &str) -> Result<Event, NotUnderstood> {
        self.read(line).ok_or_else(|| NotUnderstood(line.to_owned()))
    }

    fn read(&mut self, line: &str) -> Option<Event> {
        let (pid, text) = line.split_once(' ')?;
        let pid: Pid = pid.parse().ok()?;
        let text = text.trim_start();
        if text.starts_with("+++ exited") || text.starts_with("+++ killed") {
            self.begun.remove(&pid);
            return Some(Event::Exited(pid));
        }
        if text.starts_with("+++") || text.starts_with("---") || text.starts_with("strace: ") {
            return Some(Event::Nothing);
        }
        if let Some(resumed) = text.strip_prefix("<... ") {
            let (_, rest) = resumed.split_once(" resumed>")?;
            let Some(mut whole) = self.begun.remove(&pid) else {
                // The execve that strace itself began.
                return Some(Event::Nothing);
            };
            whole.push_str(rest);
            return call(pid, &whole, Half::Whole).map(Event::Done);
        }
        if let Some(first) = text.strip_suffix("<unfinished ...>") {
            let begun = call(pid, first.trim_end(), Half::First)?;
            self.begun.insert(pid, first.to_owned());
            return Some(Event::Begun(begun));
        }
        call(pid, text, Half::Whole).map(Event::Done)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Half {
    First,
    Whole,
}

/// Reads `name(arguments) = answer`, or of a first half what is there.
fn call(pid: Pid, text: &str, half: Half) -> Option<Call> {
    let (name, rest) = text.split_once('(')?;
    if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
        return None;
    }
    let (arguments, end) = split(rest, half)?;
    let answer = match half {
        Half::First => Answer::Unknown,
        Half::Whole => answer(rest[end..].trim_start().strip_prefix("= ")?)?,
    };
    Some(Call { pid, name: name.to_owned(), arguments, answer })
}

/// Splits at the commas outside of quotes, brackets and paths, up to the closing bracket. Gives the
/// arguments and where the text behind that bracket begins.
fn split(text: &str, half: Half) -> Option<(Vec<String>, usize)> {
    let bytes = text.as_bytes();
    let mut arguments = Vec::new();
    let (mut start, mut depth, mut at) = (0, 0_usize, 0);
    let mut take = |start: usize, end: usize| {
        let argument = text[start..end].trim();
        if !argument.is_empty() || !arguments.is_empty() {
            arguments.push(argument.to_owned());
        }
    };
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => at = closing(bytes, at, b'"')?,
            // After a number or AT_FDCWD a path, not a shift.
            b'<' if at > 0
                && (bytes[at - 1].is_ascii_digit() || bytes[at - 1] == b'D')
                && bytes.get(at + 1) != Some(&b'<') =>
            {
                at = closing(bytes, at, b'>')?;
            }
            b'(' | b'[' | b'{' => depth += 1,
            b')' if depth == 0 => {
                take(start, at);
                return Some((arguments, at + 1));
            }
            b')' | b']' | b'}' => depth = depth.checked_sub(1)?,
            b',' if depth == 0 => {
                take(start, at);
                start = at + 1;
            }
            _ => {}
        }
        at += 1;
    }
    if half == Half::Whole {
        return None;
    }
    take(start, bytes.len());
    Some((arguments, bytes.len()))
}

/// Where what opens at `open` ends: the next `end` that no backslash escapes.
fn closing(bytes: &[u8], open: usize, end: u8) -> Option<usize> {
    let mut at = open + 1;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'\\' => at += 1,
            byte if *byte == end => return Some(at),
            _ => {}
        }
        at += 1;
    }
    None
}

fn answer(text: &str) -> Option<Answer> {
    let mut words = text.split(' ');
    let first = words.next()?;
    match first {
        "?" => Some(Answer::Unknown),
        "-1" => match words.next() {
            Some(name) if name.starts_with('E') => Some(Answer::Failed(name.to_owned())),
            _ => Some(Answer::Unknown),
        },
        _ => number(first.split('<').next()?).map(Answer::Value),
    }
}

/// A decimal or hexadecimal number as strace writes it.
pub(crate) fn number(text: &str) -> Option<u64> {
    let text = text.split(' ').next()?;
    match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

/// A decimal number that may be below zero.
pub(crate) fn signed(text: &str) -> Option<i64> {
    text.parse().ok()
}

/// The bytes of an argument in quotes; `None` if it is none, or was cut short.
pub(crate) fn string(argument: &str) -> Option<Vec<u8>> {
    unescape(argument.strip_prefix('"')?.strip_suffix('"')?)
}

/// A descriptor's number, and the path that `-y` puts behind it.
pub(crate) fn descriptor(argument: &str) -> Option<(i32, Option<Vec<u8>>)> {
    let (number, path) = match argument.split_once('<') {
        Some((number, path)) => {
            (number, path.rsplit_once('>').and_then(|(path, _)| unescape(path)))
        }
        None => (argument, None),
    };
    let number = if number == "AT_FDCWD" { AT_FDCWD } else { number.parse().ok()? };
    Some((number, path))
}

#[cfg(test)]
#[path = "strace/tests.rs"]
mod tests;
