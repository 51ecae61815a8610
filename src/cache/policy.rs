//! Which directories are fetched whole, and which with their attributes: the rules in one place.
//!
//! A snapshot answers every later look-up in its directory on this node, also of names that do not
//! exist, for one fetch. It costs the source a listing and, up to
//! [`DIRECTORY_ATTRIBUTES_MAX`] entries, an `lstat`
//! for each. So a directory is listed when a second name is looked up in it, not for the first: the
//! prefix components of a path (`/`, `/home`, `/lustre/project`) are passed through once each. It is
//! also listed when a name turns out to be absent: only a listing proves that for good. Within a
//! directory that is listed, a small one is listed for the first name: nobody passes through there,
//! and a program that has come so far mostly wants more of it.

use copper_proto::limits::{
    DIRECTORY_ATTRIBUTES_MAX, LOOKUPS_BEFORE_LISTING, READS_BEFORE_SIBLINGS, SIBLING_BYTES_MAX,
    SIBLINGS_BYTES_MAX, SMALL_DIRECTORY_BYTES,
};
use copper_proto::{Attributes, Directory, FileKind};

/// How a name is looked up in a directory whose snapshot this node does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LookupPlan {
    /// By its own entry.
    Entry,
    /// By the directory's snapshot.
    Listing,
}

/// What the plan for a look-up depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LookedIn {
    /// Names that have been looked up in the directory before.
    pub lookups_before: u32,
    /// Whether this node holds the snapshot of the directory that it lies in.
    pub within_listed: bool,
    /// Its size as `stat` has it, in bytes, if that is known.
    pub size: Option<u64>,
}

/// The plan for a look-up in a directory.
pub fn lookup_plan(directory: LookedIn) -> LookupPlan {
    let small = directory.size.is_some_and(|size| size <= SMALL_DIRECTORY_BYTES);
    if directory.lookups_before >= LOOKUPS_BEFORE_LISTING || (directory.within_listed && small) {
        LookupPlan::Listing
    } else {
        LookupPlan::Entry
    }
}

/// Whether a snapshot of a directory with so many entries carries their attributes.
pub fn carries_attributes(entries: usize) -> bool {
    entries <= DIRECTORY_ATTRIBUTES_MAX
}

/// The files to fetch when a file in a directory is read that this node does not hold, after
/// `reads_before` others: its small ones, if they are not much together. A program that reads two
/// modules of a package mostly reads the others; docs/adr/0010 has the measurement.
pub fn siblings(directory: &Directory, reads_before: u32) -> Vec<(&[u8], Attributes)> {
    // Once is enough: they are all fetched then.
    if reads_before != READS_BEFORE_SIBLINGS {
        return Vec::new();
    }
    let mut files = Vec::new();
    let mut bytes = 0;
    for index in 0..directory.len() {
        let Some(entry) = directory.get(index) else { break };
        let Some(attributes) = entry.entry.map(|entry| entry.attributes) else { continue };
        let small = (1..=SIBLING_BYTES_MAX).contains(&attributes.size);
        if attributes.kind == FileKind::Regular && small {
            bytes += attributes.size;
            files.push((entry.name, attributes));
        }
    }
    if bytes > SIBLINGS_BYTES_MAX { Vec::new() } else { files }
}

#[cfg(test)]
mod tests {
    use super::*;
    use copper_proto::{DirectoryBuilder, Entry, Timestamp};

    fn directory(sizes: &[u64]) -> Directory {
        let mut builder = DirectoryBuilder::default();
        for (index, &size) in sizes.iter().enumerate() {
            let time = Timestamp::default();
            let attributes = Attributes {
                kind: FileKind::Regular,
                permissions: 0o644,
                links: 1,
                uid: 0,
                gid: 0,
                device_number: 0,
                size,
                sectors: 0,
                io_bytes: 4096,
                accessed: time,
                modified: time,
                changed: time,
                device: 1,
                inode: index as u64,
            };
            let entry = Entry { attributes, target: None };
            builder.push(index.to_string().as_bytes(), FileKind::Regular, 1, Some(&entry));
        }
        Directory::decode(&builder.finish()).expect("well-formed")
    }

    #[test]
    fn the_second_file_that_is_read_brings_the_small_ones_of_a_small_directory() {
        let package = directory(&[0, 5000, 60_000, 70_000, 1 << 30, 1]);
        assert!(siblings(&package, 0).is_empty() && siblings(&package, 2).is_empty());
        let names: Vec<_> = siblings(&package, 1).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, [&b"1"[..], b"2", b"5"]);
        let data_set = directory(&[60_000; 40]);
        assert!(siblings(&data_set, 1).is_empty());
    }

    #[test]
    fn a_directory_is_passed_through_once_unless_it_is_small_and_lies_in_a_listed_one() {
        let plan = |lookups_before, within_listed, size| {
            lookup_plan(LookedIn { lookups_before, within_listed, size })
        };
        assert_eq!(plan(0, false, Some(4096)), LookupPlan::Entry);
        assert_eq!(plan(0, true, None), LookupPlan::Entry);
        assert_eq!(plan(0, true, Some(1 << 20)), LookupPlan::Entry);
        assert_eq!(plan(0, true, Some(4096)), LookupPlan::Listing);
        assert_eq!(plan(1, false, Some(1 << 20)), LookupPlan::Listing);
    }
}
