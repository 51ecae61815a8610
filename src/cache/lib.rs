//! What a node holds: which object lies in which extent of the arena, what is pinned, what goes
//! first when room is needed, what of it lies in the spill file, and what is known of paths.
//!
//! Pure bookkeeping: it never sees a byte of an extent, a clock or an I/O. Whether somebody is
//! reading an extent right now only the engine knows; it is asked before anything is evicted.

#![forbid(unsafe_code)]

mod absences;
pub mod buddy;
mod budget;
pub mod cache;
mod clock_map;
mod past;
pub mod policy;
mod spill;

pub use absences::Absences;
pub use buddy::Buddy;
pub use budget::Budget;
pub use cache::{Cache, CacheCounters, Candidate, Contents, LocalUse};
pub use spill::{Spill, SpillCounters};
