//! Makes a trace of what strace tells, call by call.
//!
//! It follows each process's descriptors and mappings, as far as they are of files below the recorded
//! folders, through dup, fork and exec. Descriptors become slots: two descriptors of one open file are
//! one slot, which is closed when the last of them is. Calls on paths that are relative are made
//! absolute with what `strace -y` says of the folder.
//!
//! It does no I/O: what was touched of a mapping comes in as pages.

mod descriptors;
mod folders;
mod mappings;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::errno;
use crate::pages::Region;
use crate::strace::{AT_FDCWD, Answer, Call, Event, Pid, descriptor, number, signed, string};
use crate::trace::{
    Area, Counted, Follow, Letters, Listed, MapId, Op, OpenFlags, Outcome, Place, Sharing, Slot,
    Trace, WINDOW_BYTES, Whence,
};
use descriptors::{Descriptor, Descriptors, Slots};
pub(crate) use folders::Folders;
use mappings::Mappings;
pub(crate) use mappings::Piece;

/// The state of a recording.
#[derive(Debug)]
pub(crate) struct Recording {
    folders: Folders,
    ops: Vec<Op>,
    slots: Slots,
    maps_count: u32,
    /// By map and window, the offset of the first page that was touched.
    touched: BTreeMap<MapId, BTreeMap<u64, u64>>,
    /// Which process a thread belongs to.
    threads: HashMap<Pid, usize>,
    processes: Vec<Process>,
    /// Forks that have not ended, by whom; the child may run before.
    forking: Vec<(Pid, Kinship)>,
    /// Threads whose close has begun and was seen to, but has not ended.
    closing: BTreeSet<Pid>,
    cwd: Vec<u8>,
    left_out: BTreeMap<String, u64>,
}

/// What threads share.
#[derive(Clone, Debug, Default)]
struct Process {
    threads: usize,
    descriptors: Descriptors,
    mappings: Mappings,
    cwd: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kinship {
    /// Another thread of the process.
    Thread,
    /// A process with a copy of all.
    Child,
}

/// What a call names: a path, or a descriptor that is followed.
enum Named {
    Place(Place),
    Slot(Slot),
}

impl Recording {
    /// For a command that starts in `cwd`.
    pub(crate) fn new(folders: Folders, cwd: Vec<u8>) -> Self {
        Self {
            folders,
            ops: Vec::new(),
            slots: Slots::default(),
            maps_count: 0,
            touched: BTreeMap::new(),
            threads: HashMap::new(),
            processes: Vec::new(),
            forking: Vec::new(),
            closing: BTreeSet::new(),
            cwd,
            left_out: BTreeMap::new(),
        }
    }

    /// Takes what happened next.
    pub(crate) fn on_event(&mut self, event: &Event) {
        match event {
            Event::Begun(call) => self.on_begun(call),
            Event::Done(call) => self.on_done(call),
            Event::Exited(pid) => self.on_exited(*pid),
            Event::Nothing => {}
        }
    }

    /// The threads that there are.
    pub(crate) fn threads(&self) -> impl ExactSizeIterator<Item = Pid> {
        self.threads.keys().copied()
    }

    /// Whether a thread's process has mapped files that are followed.
    pub(crate) fn has_mapped(&self, pid: Pid) -> bool {
        !self.pieces(pid).is_empty()
    }

    /// What of its mappings a thread's process has touched.
    pub(crate) fn on_looked(&mut self, pid: Pid, regions: &[Region]) {
        for piece in self.pieces(pid) {
            for region in regions {
                let (start, end) = (piece.start.max(region.start), piece.end.min(region.end));
                // The file is where it was mapped: else it was moved, and something else is here.
                let same = || piece.offset_of(start) == region.offset + (start - region.start);
                if start >= end || !same() {
                    continue;
                }
                for address in region.present.iter().filter(|at| (start..end).contains(at)) {
                    self.on_touched(&piece, *address);
                }
            }
        }
    }

    fn pieces(&self, pid: Pid) -> Vec<Piece> {
        let process = self.threads.get(&pid).map(|index| &self.processes[*index]);
        process.map(|process| process.mappings.pieces().to_vec()).unwrap_or_default()
    }

    fn on_touched(&mut self, piece: &Piece, address: u64) {
        let offset = piece.offset_of(address);
        let first = self.touched.entry(piece.map).or_default();
        let first = first.entry(address / WINDOW_BYTES).or_insert(offset);
        *first = offset.min(*first);
    }

    /// The trace, and how many calls of which name were left out.
    pub(crate) fn finish(mut self) -> (Trace, BTreeMap<String, u64>) {
        for process in 0..self.processes.len() {
            let descriptors = std::mem::take(&mut self.processes[process].descriptors);
            self.release(descriptors.slots());
        }
        let mut ops = Vec::with_capacity(self.ops.len());
        for op in self.ops {
            let map = if let Op::Mmap { map, .. } = op { Some(map) } else { None };
            ops.push(op);
            let offsets = map.and_then(|map| self.touched.remove(&map)).unwrap_or_default();
            // Two windows of different processes may begin with the same page.
            let offsets: BTreeSet<u64> = offsets.into_values().collect();
            ops.extend(map.into_iter().flat_map(|map| {
                offsets.iter().map(move |offset| Op::Touch { map, offset: *offset })
            }));
        }
        let below = self.folders.paths();
        (Trace { below, ops, lines: Vec::new() }, self.left_out)
    }

    fn on_begun(&mut self, call: &Call) {
        let process = self.process_of(call.pid);
        match call.name.as_str() {
            // The number is free from now on: another thread may get it before this call is told.
            "close" => {
                self.close(process, call);
                self.closing.insert(call.pid);
            }
            "clone" | "clone3" | "fork" | "vfork" => self.forking.push((call.pid, kinship(call))),
            _ => {}
        }
    }

    fn on_done(&mut self, call: &Call) {
        let process = self.process_of(call.pid);
        match call.name.as_str() {
            "open" | "openat" | "openat2" => self.open(process, call),
            "close" if self.closing.remove(&call.pid) => {}
            "close" => self.close(process, call),
            "close_range" => self.close_range(process, call),
            "dup" | "dup2" | "dup3" | "fcntl" => self.dup(process, call),
            "chdir" | "fchdir" => self.chdir(process, call),
            "clone" | "clone3" | "fork" | "vfork" => self.fork(call),
            "execve" | "execveat" => self.exec(process, call),
            "mmap" => self.mmap(process, call),
            "munmap" => self.munmap(process, call),
            _ => match self.plain(process, call) {
                Some(op) => self.ops.push(op),
                None => self.leave_out(process, call),
            },
        }
    }

    /// A call that changes nothing that is followed.
    fn plain(&mut self, process: usize, call: &Call) -> Option<Op> {
        let argument = |index: usize| call.arguments.get(index).map(String::as_str);
        let slot = |this: &Self| this.slot(process, argument(0)?);
        Some(match call.name.as_str() {
            "stat" | "lstat" | "newfstatat" | "statx" => {
                let outcome = outcome(call)?;
                match self.named(process, call)? {
                    Named::Slot(slot) => Op::Fstat { slot, outcome },
                    Named::Place(place) => Op::Stat { follow: follow(call), place, outcome },
                }
            }
            "fstat" => Op::Fstat { slot: slot(self)?, outcome: outcome(call)? },
            "access" | "faccessat" | "faccessat2" => {
                let mode = argument(if call.name == "access" { 1 } else { 2 })?;
                let Named::Place(place) = self.named(process, call)? else { return None };
                Op::Access { mode: letters(mode, "_OK"), place, outcome: outcome(call)? }
            }
            "readlink" | "readlinkat" => {
                let Named::Place(place) = self.named(process, call)? else { return None };
                Op::Readlink { place, outcome: outcome(call)? }
            }
            "getdents64" => {
                self.slots.on_listed(slot(self)?);
                let listed = match counted(call)? {
                    Ok(0) => Listed::End,
                    Ok(_) => Listed::More,
                    Err(errno) => Listed::Failed(errno),
                };
                Op::Getdents { slot: slot(self)?, bytes: number(argument(2)?)?, listed }
            }
            "read" => {
                Op::Read { slot: slot(self)?, bytes: number(argument(2)?)?, count: counted(call)? }
            }
            "pread64" => Op::Pread {
                slot: slot(self)?,
                offset: number(argument(3)?)?,
                bytes: number(argument(2)?)?,
                count: counted(call)?,
            },
            "lseek" => self.lseek(slot(self)?, call)?,
            "ioctl" if argument(1) == Some("TCGETS") => {
                Op::Isatty { slot: slot(self)?, outcome: outcome(call)? }
            }
            _ => return None,
        })
    }

    /// In a directory a position is what its file system likes: only the way back is the same in all.
    fn lseek(&self, slot: Slot, call: &Call) -> Option<Op> {
        let offset = signed(call.arguments.get(1)?)?;
        let whence = match call.arguments.get(2)?.as_str() {
            "SEEK_SET" => Whence::Set,
            "SEEK_CUR" => Whence::Current,
            "SEEK_END" => Whence::End,
            "SEEK_DATA" => Whence::Data,
            "SEEK_HOLE" => Whence::Hole,
            _ => return None,
        };
        let back = whence == Whence::Set && offset == 0;
        let listed = self.slots.was_listed(slot);
        (back || !listed).then_some(Op::Lseek { slot, offset, whence, position: counted(call)? })
    }

    fn open(&mut self, process: usize, call: &Call) {
        let flags = match call.name.as_str() {
            "open" => call.arguments.get(1),
            _ => call.arguments.get(2),
        };
        let words = words(flags.map_or("", String::as_str));
        let writes = ["O_WRONLY", "O_RDWR", "O_CREAT", "O_TRUNC", "O_TMPFILE"];
        let named = self.named(process, call);
        let Some(Named::Place(place)) = named else { return self.forget(process, call) };
        if words.iter().any(|word| writes.contains(word)) {
            self.forget(process, call);
            return self.count("open for writing");
        }
        let flags = OpenFlags {
            directory: words.contains(&"O_DIRECTORY"),
            nofollow: words.contains(&"O_NOFOLLOW"),
            path: words.contains(&"O_PATH"),
        };
        let slot = match counted(call) {
            Some(Ok(number)) => {
                self.forget(process, call);
                let slot = self.slots.take();
                let close_on_exec = words.contains(&"O_CLOEXEC");
                self.processes[process].descriptors.set(number, Descriptor { slot, close_on_exec });
                Ok(slot)
            }
            Some(Err(errno)) => Err(errno),
            None => return self.count(&call.name),
        };
        self.ops.push(Op::Open { flags, place, slot });
    }

    /// What a descriptor's number meant before a call answered it.
    fn forget(&mut self, process: usize, call: &Call) {
        if let Some(Ok(number)) = counted(call) {
            let before = self.processes[process].descriptors.remove(number);
            self.release(before);
        }
    }

    fn close(&mut self, process: usize, call: &Call) {
        let number = call.arguments.first().and_then(|argument| descriptor(argument));
        let number = number.and_then(|(number, _)| u64::try_from(number).ok());
        let before = number.and_then(|number| self.processes[process].descriptors.remove(number));
        self.release(before);
    }

    fn close_range(&mut self, process: usize, call: &Call) {
        let argument = |index: usize| call.arguments.get(index).and_then(|text| number(text));
        let (Some(first), Some(last)) = (argument(0), argument(1)) else { return };
        let on_exec = call.arguments.get(2).is_some_and(|flags| flags.contains("CLOEXEC"));
        let descriptors = &mut self.processes[process].descriptors;
        let closed = if on_exec {
            descriptors.close_on_exec(first..=last);
            Vec::new()
        } else {
            descriptors.remove_range(first..=last)
        };
        self.release(closed);
    }

    fn dup(&mut self, process: usize, call: &Call) {
        let flags = call.arguments.get(if call.name == "fcntl" { 1 } else { 2 });
        let flags = flags.map_or("", String::as_str);
        let Some(old) = call.arguments.first().and_then(|argument| descriptor(argument)) else {
            return;
        };
        let Ok(old) = u64::try_from(old.0) else { return };
        let descriptors = &mut self.processes[process].descriptors;
        if call.name == "fcntl" && !flags.starts_with("F_DUPFD") {
            if flags == "F_SETFD" {
                let set = call.arguments.get(2).is_some_and(|flags| flags.contains("CLOEXEC"));
                descriptors.mark(old, set);
            } else {
                self.leave_out(process, call);
            }
            return;
        }
        let Some(Ok(new)) = counted(call) else { return };
        if new == old {
            return;
        }
        let slot = descriptors.slot(old);
        let before = descriptors.remove(new);
        if let Some(slot) = slot {
            self.slots.share(slot);
            let close_on_exec = flags.contains("CLOEXEC");
            self.processes[process].descriptors.set(new, Descriptor { slot, close_on_exec });
        }
        self.release(before);
    }

    fn chdir(&mut self, process: usize, call: &Call) {
        self.leave_out(process, call);
        let Some(argument) = call.arguments.first() else { return };
        let path = string(argument).or_else(|| descriptor(argument)?.1);
        if let (Some(path), Answer::Value(0)) = (path, &call.answer) {
            let process = &mut self.processes[process];
            process.cwd = joined(&process.cwd, &path);
        }
    }

    fn fork(&mut self, call: &Call) {
        if let Some(index) = self.forking.iter().position(|(pid, _)| *pid == call.pid) {
            self.forking.remove(index);
        }
        let child = counted(call).and_then(Result::ok).and_then(|pid| Pid::try_from(pid).ok());
        if let Some(child) = child.filter(|child| !self.threads.contains_key(child)) {
            self.adopt(child, call.pid, kinship(call));
        }
    }

    fn exec(&mut self, process: usize, call: &Call) {
        if call.answer == Answer::Value(0) {
            let closed = self.processes[process].descriptors.exec();
            self.release(closed);
            self.processes[process].mappings = Mappings::default();
        }
        self.leave_out(process, call);
    }

    fn mmap(&mut self, process: usize, call: &Call) {
        let argument = |index: usize| call.arguments.get(index).map_or("", String::as_str);
        let length = number(argument(1));
        if let (Answer::Value(base), Some(length)) = (&call.answer, length) {
            self.unmap(process, *base, length);
        }
        let Some(slot) = self.slot(process, argument(4)) else { return };
        let (Some(length), Some(offset), Some(count)) =
            (length, number(argument(5)), counted(call))
        else {
            return self.count("mmap");
        };
        let base = count.unwrap_or(0);
        let shared = words(argument(3)).iter().any(|word| word.starts_with("MAP_SHARED"));
        let area = Area {
            offset,
            length,
            phase: base % WINDOW_BYTES,
            protection: letters(argument(2), ""),
            sharing: if shared { Sharing::Shared } else { Sharing::Private },
        };
        let map = MapId(self.maps_count);
        self.maps_count += 1;
        if count.is_ok() {
            self.processes[process].mappings.add(map, base, &area);
        }
        self.ops.push(Op::Mmap { map, slot, area, outcome: count.map(|_| ()) });
    }

    fn munmap(&mut self, process: usize, call: &Call) {
        let argument = |index: usize| call.arguments.get(index).and_then(|text| number(text));
        if let (Some(start), Some(length), Answer::Value(0)) =
            (argument(0), argument(1), &call.answer)
        {
            self.unmap(process, start, length);
        }
    }

    /// Something else, or nothing, is at these addresses from now on.
    fn unmap(&mut self, process: usize, start: u64, length: u64) {
        for map in self.processes[process].mappings.cut(start, length) {
            if !self.processes.iter().any(|process| process.mappings.holds(map)) {
                self.ops.push(Op::Munmap { map });
            }
        }
    }

    fn on_exited(&mut self, pid: Pid) {
        self.closing.remove(&pid);
        let Some(process) = self.threads.remove(&pid) else { return };
        let process = &mut self.processes[process];
        process.threads -= 1;
        if process.threads == 0 {
            let left = std::mem::take(process);
            self.release(left.descriptors.slots());
        }
    }

    /// The process of a thread. One that was never heard of is the first, or of a fork under way.
    fn process_of(&mut self, pid: Pid) -> usize {
        if let Some(process) = self.threads.get(&pid) {
            return *process;
        }
        if !self.forking.is_empty() {
            let (parent, kinship) = self.forking.remove(0);
            return self.adopt(pid, parent, kinship);
        }
        self.start(pid, Process { cwd: self.cwd.clone(), ..Process::default() })
    }

    fn adopt(&mut self, child: Pid, parent: Pid, kinship: Kinship) -> usize {
        let parent = self.process_of(parent);
        match kinship {
            Kinship::Thread => {
                self.processes[parent].threads += 1;
                self.threads.insert(child, parent);
                parent
            }
            Kinship::Child => {
                let copy = self.processes[parent].clone();
                for slot in copy.descriptors.slots() {
                    self.slots.share(slot);
                }
                self.start(child, copy)
            }
        }
    }

    fn start(&mut self, pid: Pid, process: Process) -> usize {
        self.processes.push(Process { threads: 1, ..process });
        self.threads.insert(pid, self.processes.len() - 1);
        self.processes.len() - 1
    }

    fn release(&mut self, slots: impl IntoIterator<Item = Slot>) {
        for slot in slots {
            if self.slots.release(slot) {
                self.ops.push(Op::Close { slot });
            }
        }
    }

    fn slot(&self, process: usize, argument: &str) -> Option<Slot> {
        let (number, path) = descriptor(argument)?;
        // Threads that open while others fork may leave a child with a number that means another's
        // file here; a pipe is none.
        if path.is_some_and(|path| path.first() != Some(&b'/')) {
            return None;
        }
        self.processes[process].descriptors.slot(u64::try_from(number).ok()?)
    }

    /// What a call is about, if that is followed.
    fn named(&mut self, process: usize, call: &Call) -> Option<Named> {
        let first = call.arguments.first()?;
        let process_index = process;
        let process = &mut self.processes[process];
        if let Some(path) = string(first) {
            return self.folders.place(&joined(&process.cwd, &path)).map(Named::Place);
        }
        let (number, folder) = descriptor(first)?;
        if number == AT_FDCWD
            && let Some(folder) = &folder
        {
            process.cwd.clone_from(folder);
        }
        let relative = call.name.ends_with("at")
            || matches!(call.name.as_str(), "openat2" | "statx" | "faccessat2" | "renameat2");
        match call.arguments.get(1).and_then(|path| string(path)).filter(|_| relative) {
            Some(path) if !path.is_empty() => {
                self.folders.place(&joined(&folder?, &path)).map(Named::Place)
            }
            _ => self.slot(process_index, first).map(Named::Slot),
        }
    }

    /// Counts a call that is not replayed, if it is about something that is followed.
    fn leave_out(&mut self, process: usize, call: &Call) {
        if self.named(process, call).is_some() {
            self.count(&call.name);
        }
    }

    fn count(&mut self, what: &str) {
        *self.left_out.entry(what.to_owned()).or_default() += 1;
    }
}

/// `path` as seen from `folder`.
fn joined(folder: &[u8], path: &[u8]) -> Vec<u8> {
    if path.first() == Some(&b'/') { path.to_vec() } else { [folder, b"/", path].concat() }
}

/// Flags by themselves, also those in openat2's structure.
fn words(flags: &str) -> Vec<&str> {
    flags.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').collect()
}

/// `PROT_READ|PROT_EXEC` or `R_OK|X_OK`.
fn letters(flags: &str, end: &str) -> Letters {
    let has = |long: &str, short: &str| {
        words(flags).iter().any(|word| {
            *word == format!("PROT_{long}") || (!end.is_empty() && *word == format!("{short}{end}"))
        })
    };
    Letters { read: has("READ", "R"), write: has("WRITE", "W"), execute: has("EXEC", "X") }
}

fn follow(call: &Call) -> Follow {
    let nofollow = call.name == "lstat"
        || call.arguments.iter().any(|argument| words(argument).contains(&"AT_SYMLINK_NOFOLLOW"));
    if nofollow { Follow::No } else { Follow::Yes }
}

fn kinship(call: &Call) -> Kinship {
    let shares = call.arguments.iter().any(|argument| argument.contains("CLONE_FILES"));
    if shares { Kinship::Thread } else { Kinship::Child }
}

/// How a call ended; `None` for one that was interrupted, or with an errno that no trace can hold.
fn counted(call: &Call) -> Option<Counted> {
    match &call.answer {
        Answer::Value(value) => Some(Ok(*value)),
        Answer::Failed(name) => errno::of_name(name).map(Err),
        Answer::Unknown => None,
    }
}

fn outcome(call: &Call) -> Option<Outcome> {
    counted(call).map(|counted| counted.map(|_| ()))
}

#[cfg(test)]
#[path = "recording/tests.rs"]
mod tests;
