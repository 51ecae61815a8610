//! A trace made ready to be replayed against one folder: every path a C string, every mapping with its
//! addresses, so that a round makes calls and does nothing else.

use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::rc::Rc;

use crate::arguments::Isatty;
use crate::calls::Part;
use crate::trace::{Area, MapId, Op, Place, Slot, Trace, WINDOW_BYTES};

/// One call with what it needs.
#[derive(Debug)]
pub(crate) struct Step {
    pub(crate) op: Op,
    /// In the trace's file.
    pub(crate) line: u32,
    /// Of the file that the call is about.
    pub(crate) path: Rc<CStr>,
    /// Of a call on mapped memory.
    pub(crate) area: Option<Reserved>,
}

/// Addresses for a mapping.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reserved {
    /// Which mapping, counted from 0.
    pub(crate) index: usize,
    /// The whole mapping, or the page of it that is touched.
    pub(crate) part: Part,
}

/// All calls, and how much they need.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) steps: Vec<Step>,
    pub(crate) slots_count: usize,
    pub(crate) maps_count: usize,
    /// What the largest call asks for, and what the largest was given.
    pub(crate) buffer_bytes: usize,
    pub(crate) filled_bytes: usize,
    pub(crate) reserved_bytes: usize,
}

/// What the kernel reads at once at most: `MAX_RW_COUNT` of linux/fs.h with pages of 4 KiB.
const READ_BYTES_MAX: u64 = 0x7fff_f000;

/// Long enough for every answer of readlink.
const LINK_BYTES: u64 = 4096;

impl Plan {
    /// `at` has a folder for each that was recorded.
    pub(crate) fn new(trace: Trace, at: &[PathBuf], isatty: Isatty) -> Self {
        assert_eq!(trace.below.len(), at.len(), "a folder for each");
        let mut plan = Self {
            steps: Vec::with_capacity(trace.ops.len()),
            slots_count: 0,
            maps_count: 0,
            buffer_bytes: to_usize(LINK_BYTES),
            filled_bytes: to_usize(LINK_BYTES),
            reserved_bytes: 0,
        };
        let mut files: HashMap<Slot, Rc<CStr>> = HashMap::new();
        let mut maps: HashMap<MapId, (Area, Reserved, Rc<CStr>)> = HashMap::new();
        for (op, line) in trace.ops.into_iter().zip(trace.lines) {
            let mut area = None;
            let path = match &op {
                Op::Isatty { .. } if isatty == Isatty::LeftOut => continue,
                Op::Open { place, slot, .. } => {
                    let path = below(at, place);
                    if let Ok(slot) = slot {
                        plan.slots_count = plan.slots_count.max(slot.0 as usize + 1);
                        files.insert(*slot, Rc::clone(&path));
                    }
                    path
                }
                Op::Stat { place, .. } | Op::Access { place, .. } | Op::Readlink { place, .. } => {
                    below(at, place)
                }
                Op::Mmap { map, slot, area: mapped, .. } => {
                    let path = Rc::clone(&files[slot]);
                    let reserved = plan.reserve(mapped);
                    area = Some(reserved);
                    maps.insert(*map, (*mapped, reserved, Rc::clone(&path)));
                    path
                }
                Op::Touch { map, offset } => {
                    let (mapped, reserved, path) = &maps[map];
                    area = Some(page_of(mapped, *reserved, *offset));
                    Rc::clone(path)
                }
                Op::Munmap { map } => {
                    let (_, reserved, path) = &maps[map];
                    area = Some(*reserved);
                    Rc::clone(path)
                }
                Op::Close { slot }
                | Op::Fstat { slot, .. }
                | Op::Getdents { slot, .. }
                | Op::Read { slot, .. }
                | Op::Pread { slot, .. }
                | Op::Lseek { slot, .. }
                | Op::Isatty { slot, .. } => Rc::clone(&files[slot]),
            };
            plan.make_room(&op);
            plan.steps.push(Step { op, line, path, area });
        }
        // Room to begin at a whole window.
        plan.reserved_bytes += to_usize(WINDOW_BYTES) + rustix::param::page_size();
        plan.reserved_bytes = plan.reserved_bytes.next_multiple_of(to_usize(WINDOW_BYTES));
        plan
    }

    /// Makes the buffer large enough for a call.
    fn make_room(&mut self, op: &Op) {
        let (asked, given) = match op {
            Op::Read { bytes, count, .. } | Op::Pread { bytes, count, .. } => {
                (*bytes, count.unwrap_or(0).min(*bytes))
            }
            Op::Getdents { bytes, .. } => (*bytes, *bytes),
            _ => return,
        };
        let size = |bytes: u64| to_usize(bytes.min(READ_BYTES_MAX));
        self.buffer_bytes = self.buffer_bytes.max(size(asked));
        self.filled_bytes = self.filled_bytes.max(size(given));
    }

    /// Takes addresses for a mapping: the next that have its phase, if the reservation begins at a
    /// whole window.
    fn reserve(&mut self, area: &Area) -> Reserved {
        let window = to_usize(WINDOW_BYTES);
        let page = rustix::param::page_size();
        let start =
            self.reserved_bytes.next_multiple_of(window) + to_usize(area.phase) / page * page;
        let length = to_usize(area.length).next_multiple_of(page);
        self.reserved_bytes = start + length;
        self.maps_count += 1;
        Reserved { index: self.maps_count - 1, part: Part { start, length } }
    }
}

fn page_of(area: &Area, reserved: Reserved, offset: u64) -> Reserved {
    let page = rustix::param::page_size();
    let start = reserved.part.start + to_usize(offset - area.offset) / page * page;
    Reserved { index: reserved.index, part: Part { start, length: page } }
}

fn to_usize(number: u64) -> usize {
    usize::try_from(number).expect("an address has 64 bits here")
}

fn below(at: &[PathBuf], place: &Place) -> Rc<CStr> {
    let mut path = at[place.below].as_os_str().as_bytes().to_vec();
    if !place.rest.is_empty() {
        if path.last() != Some(&b'/') {
            path.push(b'/');
        }
        path.extend_from_slice(&place.rest);
    }
    CString::new(path).expect("neither a trace's path nor an argument holds a zero").into()
}
