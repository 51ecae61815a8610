//! Which pages of mapped files a process has touched: `/proc/PID/maps` and `/proc/PID/pagemap`.
//!
//! A page that is present was read by the process, or lay in the page cache within 64 KiB of one that
//! was. The process has to stand still and be the reader's own.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use crate::strace::Pid;

/// Addresses of a process at which a part of a file lies.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Region {
    pub(crate) start: u64,
    pub(crate) end: u64,
    /// Of the file, at `start`.
    pub(crate) offset: u64,
    /// The addresses of the pages that are there.
    pub(crate) present: Vec<u64>,
}

/// In an entry of pagemap: the page is in memory, or was swapped out.
const PRESENT: u64 = 1 << 63;
const SWAPPED: u64 = 1 << 62;
const ENTRY_BYTES: usize = 8;

/// Looks at a process.
///
/// # Errors
///
/// The process is gone, or may not be looked at.
pub(crate) fn look(pid: Pid) -> io::Result<Vec<Region>> {
    let maps = std::fs::read(format!("/proc/{pid}/maps"))?;
    if maps.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, "the process has no memory any more"));
    }
    let maps = String::from_utf8_lossy(&maps);
    let mut regions: Vec<Region> = maps.lines().filter_map(region).collect();
    let pagemap = File::open(format!("/proc/{pid}/pagemap"))?;
    let page = rustix::param::page_size() as u64;
    for region in &mut regions {
        let pages = (region.end - region.start) / page;
        let mut entries = vec![0; usize::try_from(pages).map_err(io::Error::other)? * ENTRY_BYTES];
        pagemap.read_exact_at(&mut entries, region.start / page * ENTRY_BYTES as u64)?;
        for (index, entry) in (0_u64..).zip(entries.chunks_exact(ENTRY_BYTES)) {
            let entry = u64::from_ne_bytes(entry.try_into().expect("a chunk of eight bytes"));
            if entry & (PRESENT | SWAPPED) != 0 {
                region.present.push(region.start + index * page);
            }
        }
    }
    Ok(regions)
}

/// Reads `7f00-7f01 r--p 00001000 fd:00 1234   /path`; nothing for what is no file.
fn region(line: &str) -> Option<Region> {
    let mut words = line.split_ascii_whitespace();
    let (start, end) = words.next()?.split_once('-')?;
    let (offset, inode) = (words.nth(1)?, words.nth(1)?);
    let number = |text: &str| u64::from_str_radix(text, 16).ok();
    (inode != "0").then_some(())?;
    Some(Region {
        start: number(start)?,
        end: number(end)?,
        offset: number(offset)?,
        present: Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_region_is_of_a_file() {
        let line = "7f66184e4000-7f66184e6000 r-xp 000dd000 fe:00 1835  /usr/lib/a b.so";
        let (start, end) = (0x7f66_184e_4000, 0x7f66_184e_6000);
        let expected = Region { start, end, offset: 0xdd000, present: Vec::new() };
        assert_eq!(region(line), Some(expected));
        assert_eq!(region("7f66184ef000-7f66184f1000 rw-p 00000000 00:00 0"), None);
        assert_eq!(region("7ffe1000-7ffe2000 r-xp 00000000 00:00 0   [vdso]"), None);
        assert_eq!(region(""), None);
    }

    #[test]
    fn a_process_has_touched_its_own_code() {
        let here = a_process_has_touched_its_own_code as *const () as u64;
        let regions = look(std::process::id()).expect("it is ours");
        let region = regions.iter().find(|region| (region.start..region.end).contains(&here));
        let page = rustix::param::page_size() as u64;
        assert!(region.expect("code is mapped").present.contains(&(here / page * page)));
    }
}
