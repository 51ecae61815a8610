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
    DIRECTORY_ATTRIBUTES_MAX, LOOKUPS_BEFORE_LISTING, SMALL_DIRECTORY_BYTES,
};

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

#[cfg(test)]
mod tests {
    use super::*;

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
