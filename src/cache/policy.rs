//! Which directories are fetched whole, and which with their attributes: the rules in one place.
//!
//! A snapshot answers every later look-up in its directory on this node, also of names that do not
//! exist, for one fetch. It costs the source a listing and, up to
//! [`DIRECTORY_ATTRIBUTES_MAX`] entries, an `lstat`
//! for each. So a directory is listed when a second name is looked up in it, not for the first: the
//! prefix components of a path (`/`, `/home`, `/lustre/project`) are passed through once each. It is
//! also listed when a name turns out to be absent: only a listing proves that for good.

use copper_proto::limits::{DIRECTORY_ATTRIBUTES_MAX, LOOKUPS_BEFORE_LISTING};

/// How a name is looked up in a directory whose snapshot this node does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LookupPlan {
    /// By its own entry.
    Entry,
    /// By the directory's snapshot.
    Listing,
}

/// The plan for a look-up in a directory in which `lookups_before` names have been looked up.
pub fn lookup_plan(lookups_before: u32) -> LookupPlan {
    if lookups_before < LOOKUPS_BEFORE_LISTING { LookupPlan::Entry } else { LookupPlan::Listing }
}

/// Whether a snapshot of a directory with so many entries carries their attributes.
pub fn carries_attributes(entries: usize) -> bool {
    entries <= DIRECTORY_ATTRIBUTES_MAX
}
