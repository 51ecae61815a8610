//! One process of a run: makes all calls of a plan once a round, and compares how they end.
//!
//! It is told to begin on standard input, by a line with the moment of the common start, and answers
//! a line of JSON on standard output. When its input ends, or the process that started it, it ends.

use std::ffi::CStr;
use std::io::BufRead;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;

use rustix::fs::{Access, AtFlags, CWD, Mode, OFlags, RawDir, SeekFrom};
use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags};
use rustix::process::Signal;
use rustix::thread::CpuSet;
use rustix::time::{ClockId, Timespec, clock_gettime};
use serde::{Deserialize, Serialize};

use crate::arguments::Work;
use crate::calls::{Mapping, Part, Reservation, isatty};
use crate::failure::Failure;
use crate::plan::{Plan, Step};
use crate::trace::{
    Area, Follow, Letters, Listed, Op, OpenFlags, Sharing, Slot, WINDOW_BYTES, Whence, counted,
    result,
};
use crate::{load, print};

/// What a worker says once it is ready for the first round.
pub(crate) const READY: &str = "ready";

/// What a worker says of a round.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Round {
    /// From the common start to the end of the last call.
    pub(crate) wall_ns: u64,
    /// From this process's first call to the end of its last.
    pub(crate) own_ns: u64,
    /// Of the processor, in that time.
    pub(crate) cpu_ns: u64,
    /// The calls that ended otherwise than recorded.
    pub(crate) differences: u64,
    /// The calls on files that could not be opened this time.
    pub(crate) skipped: u64,
    /// The first of the differences.
    pub(crate) first: Vec<Difference>,
}

/// A call that ended otherwise than recorded.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Difference {
    /// Of the trace.
    pub(crate) line: u32,
    pub(crate) what: String,
}

/// Who needs more to see what is wrong?
const DIFFERENCES_TOLD_MAX: usize = 20;

/// A directory of a million entries takes a few ten thousand calls.
const LISTING_CALLS_MAX: u32 = 1 << 20;

pub(crate) fn work(asked: &Work) -> Result<(), Failure> {
    let call = |what| move |cause| Failure::Call { what, cause };
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(call("ask to end with the parent"))?;
    if let Some(cpu) = asked.cpu {
        let mut cpus = CpuSet::new();
        cpus.set(cpu);
        rustix::thread::sched_setaffinity(None, &cpus).map_err(call("stay on one CPU"))?;
    }
    let plan = Plan::new(load(&asked.trace)?, &asked.at, asked.isatty);
    let mut player = Player::new(&plan).map_err(call("reserve memory"))?;
    print(READY)?;
    for line in std::io::stdin().lock().lines() {
        let start = line.ok().and_then(|line| line.parse().ok());
        let start = start.expect("run writes the moment in ns");
        let round = player.play(&plan, start).map_err(call("take back what was mapped"))?;
        print(&serde_json::to_string(&round).expect("numbers and strings are JSON"))?;
    }
    Ok(())
}

/// Now, on a clock that is the same for all processes.
pub(crate) fn now_ns() -> u64 {
    nanoseconds(clock_gettime(ClockId::Monotonic))
}

fn nanoseconds(time: Timespec) -> u64 {
    let whole = u64::try_from(time.tv_sec).expect("these clocks begin at zero");
    whole * 1_000_000_000 + u64::try_from(time.tv_nsec).expect("below 10^9")
}

/// All that the calls of a plan need.
struct Player {
    files: Vec<Opened>,
    /// Which mappings are there.
    mapped: Vec<bool>,
    buffer: Vec<MaybeUninit<u8>>,
    reservation: Reservation,
    /// How far the reservation is from the next whole window.
    shift: usize,
}

/// What a slot holds.
#[derive(Default)]
struct Opened {
    file: Option<OwnedFd>,
    /// Its listing has come to the end.
    listed: bool,
}

/// How a call ended.
enum Ended {
    AsRecorded,
    Otherwise(String),
    /// Its file could not be opened.
    Skipped,
}

impl Player {
    fn new(plan: &Plan) -> Result<Self, Errno> {
        let mut buffer = Vec::new();
        buffer.resize_with(plan.buffer_bytes, MaybeUninit::uninit);
        // The kernel fills it in every round: its pages are there in the first one too.
        buffer[..plan.filled_bytes].fill(MaybeUninit::new(1));
        let reservation = Reservation::new(plan.reserved_bytes)?;
        let window = usize::try_from(WINDOW_BYTES).expect("64 KiB");
        let shift = reservation.address().next_multiple_of(window) - reservation.address();
        let files = (0..plan.slots_count).map(|_| Opened::default()).collect();
        Ok(Self { files, mapped: vec![false; plan.maps_count], buffer, reservation, shift })
    }

    /// Makes all calls.
    fn play(&mut self, plan: &Plan, start_ns: u64) -> Result<Round, Errno> {
        let mut round = Round::default();
        let cpu = clock_gettime(ClockId::ProcessCPUTime);
        let begin_ns = now_ns();
        for step in &plan.steps {
            match self.step(step) {
                Ended::AsRecorded => {}
                Ended::Skipped => round.skipped += 1,
                Ended::Otherwise(what) => {
                    round.differences += 1;
                    if round.first.len() < DIFFERENCES_TOLD_MAX {
                        let what =
                            format!("{} {}: {what}", step.op.kind(), step.path.to_string_lossy());
                        round.first.push(Difference { line: step.line, what });
                    }
                }
            }
        }
        let end_ns = now_ns();
        round.cpu_ns = nanoseconds(clock_gettime(ClockId::ProcessCPUTime)) - nanoseconds(cpu);
        round.own_ns = end_ns - begin_ns;
        round.wall_ns = end_ns.saturating_sub(start_ns);
        // As at the exit of a process: no part of what is measured.
        self.reservation.clear(Part { start: 0, length: plan.reserved_bytes })?;
        self.mapped.fill(false);
        Ok(round)
    }

    fn step(&mut self, step: &Step) -> Ended {
        let path: &CStr = &step.path;
        match &step.op {
            Op::Open { flags, slot, .. } => {
                let opened = open(path, *flags);
                let ended =
                    same(slot.map(|_| ()), opened.as_ref().map(|_| ()).map_err(|errno| *errno));
                // One that did not open when it was recorded has no slot: it is closed here.
                if let Ok(slot) = slot {
                    self.files[slot.0 as usize] = Opened { file: opened.ok(), listed: false };
                }
                ended
            }
            Op::Close { slot } => match self.files[slot.0 as usize].file.take() {
                Some(_) => Ended::AsRecorded,
                None => Ended::Skipped,
            },
            Op::Stat { follow, outcome, .. } => {
                let flags = match follow {
                    Follow::Yes => AtFlags::empty(),
                    Follow::No => AtFlags::SYMLINK_NOFOLLOW,
                };
                same(*outcome, rustix::fs::statat(CWD, path, flags).map(|_| ()))
            }
            Op::Access { mode, outcome, .. } => {
                same(*outcome, rustix::fs::accessat(CWD, path, access(*mode), AtFlags::empty()))
            }
            Op::Readlink { outcome, .. } => {
                let read = rustix::fs::readlinkat_raw(CWD, path, &mut self.buffer[..]);
                same(*outcome, read.map(|_| ()))
            }
            Op::Fstat { slot, outcome } => {
                self.with(*slot, |file, _| same(*outcome, rustix::fs::fstat(file).map(|_| ())))
            }
            Op::Isatty { slot, outcome } => {
                self.with(*slot, |file, _| same(*outcome, isatty(file)))
            }
            Op::Read { slot, bytes, count } => self.with(*slot, |file, buffer| {
                let read = rustix::io::read(file, room(buffer, *bytes));
                same_count(*count, read.map(|(read, _)| read.len() as u64))
            }),
            Op::Pread { slot, offset, bytes, count } => self.with(*slot, |file, buffer| {
                let read = rustix::io::pread(file, room(buffer, *bytes), *offset);
                same_count(*count, read.map(|(read, _)| read.len() as u64))
            }),
            Op::Lseek { slot, offset, whence, position } => {
                self.files[slot.0 as usize].listed = false;
                let to = seek_from(*offset, *whence);
                self.with(*slot, |file, _| same_count(*position, rustix::fs::seek(file, to)))
            }
            Op::Getdents { slot, bytes, listed } => self.list(*slot, *bytes, *listed),
            Op::Mmap { slot, area, outcome, .. } => {
                let (index, part) = self.part(step);
                let Some(file) = &self.files[slot.0 as usize].file else { return Ended::Skipped };
                let mapped = self.reservation.map(part, file, mapping(area));
                self.mapped[index] = mapped.is_ok();
                same(*outcome, mapped)
            }
            Op::Touch { .. } => match self.part(step) {
                (index, part) if self.mapped[index] => same(Ok(()), self.reservation.touch(part)),
                _ => Ended::Skipped,
            },
            Op::Munmap { .. } => match self.part(step) {
                (index, part) if self.mapped[index] => {
                    self.mapped[index] = false;
                    same(Ok(()), self.reservation.clear(part))
                }
                _ => Ended::Skipped,
            },
        }
    }

    /// Makes a call on the file of a slot.
    fn with(
        &mut self,
        slot: Slot,
        call: impl FnOnce(&OwnedFd, &mut [MaybeUninit<u8>]) -> Ended,
    ) -> Ended {
        match &self.files[slot.0 as usize].file {
            Some(file) => call(file, &mut self.buffer),
            None => Ended::Skipped,
        }
    }

    fn part(&self, step: &Step) -> (usize, Part) {
        let area = step.area.expect("a plan gives each call on memory its addresses");
        (area.index, Part { start: area.part.start + self.shift, ..area.part })
    }

    /// One call, or as many as it takes to the end: file systems divide a listing as they like. A
    /// program stops at the end, so where this one comes earlier, calls are left out.
    fn list(&mut self, slot: Slot, bytes: u64, recorded: Listed) -> Ended {
        let Opened { file: Some(file), listed } = &mut self.files[slot.0 as usize] else {
            return Ended::Skipped;
        };
        let calls_max = match recorded {
            _ if *listed => return Ended::AsRecorded,
            Listed::More | Listed::Failed(_) => 1,
            Listed::End => LISTING_CALLS_MAX,
        };
        for _ in 0..calls_max {
            let now = match RawDir::new(&*file, room(&mut self.buffer, bytes)).next() {
                Some(Ok(_)) => Ok(()),
                None => {
                    *listed = true;
                    Ok(())
                }
                Some(Err(errno)) => Err(errno),
            };
            let then = match recorded {
                Listed::More | Listed::End => Ok(()),
                Listed::Failed(errno) => Err(errno),
            };
            if now != then {
                return same(then, now);
            }
            if *listed {
                return Ended::AsRecorded;
            }
        }
        match recorded {
            Listed::More | Listed::Failed(_) => Ended::AsRecorded,
            Listed::End => Ended::Otherwise(format!("no end after {calls_max} calls")),
        }
    }
}

fn same(recorded: Result<(), Errno>, now: Result<(), Errno>) -> Ended {
    if recorded == now {
        return Ended::AsRecorded;
    }
    Ended::Otherwise(format!("recorded {}, now {}", result(recorded), result(now)))
}

fn same_count(recorded: Result<u64, Errno>, now: Result<u64, Errno>) -> Ended {
    if recorded == now {
        return Ended::AsRecorded;
    }
    Ended::Otherwise(format!("recorded {}, now {}", counted(recorded), counted(now)))
}

fn room(buffer: &mut [MaybeUninit<u8>], bytes: u64) -> &mut [MaybeUninit<u8>] {
    let bytes = usize::try_from(bytes).unwrap_or(usize::MAX).min(buffer.len());
    &mut buffer[..bytes]
}

fn open(path: &CStr, flags: OpenFlags) -> Result<OwnedFd, Errno> {
    let mut wanted = OFlags::RDONLY | OFlags::CLOEXEC;
    wanted.set(OFlags::DIRECTORY, flags.directory);
    wanted.set(OFlags::NOFOLLOW, flags.nofollow);
    wanted.set(OFlags::PATH, flags.path);
    rustix::fs::open(path, wanted, Mode::empty())
}

fn access(mode: Letters) -> Access {
    let mut wanted = Access::EXISTS;
    wanted.set(Access::READ_OK, mode.read);
    wanted.set(Access::WRITE_OK, mode.write);
    wanted.set(Access::EXEC_OK, mode.execute);
    wanted
}

fn seek_from(offset: i64, whence: Whence) -> SeekFrom {
    match whence {
        Whence::Set => SeekFrom::Start(offset.cast_unsigned()),
        Whence::Current => SeekFrom::Current(offset),
        Whence::End => SeekFrom::End(offset),
        Whence::Data => SeekFrom::Data(offset.cast_unsigned()),
        Whence::Hole => SeekFrom::Hole(offset.cast_unsigned()),
    }
}

fn mapping(area: &Area) -> Mapping {
    let mut protection = ProtFlags::empty();
    protection.set(ProtFlags::READ, area.protection.read);
    protection.set(ProtFlags::WRITE, area.protection.write);
    protection.set(ProtFlags::EXEC, area.protection.execute);
    let flags = match area.sharing {
        Sharing::Private => MapFlags::PRIVATE,
        Sharing::Shared => MapFlags::SHARED,
    };
    Mapping { offset: area.offset, protection, flags }
}
