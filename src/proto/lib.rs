//! The protocol of Copper, with no I/O, no clock, no thread and no byte of a block.
//!
//! Time, messages and completions come in through [`Node::handle`]; what is to be done comes out of
//! [`Node::poll`]. The daemon and the simulator run this same code. What a node holds is behind the
//! [`Store`] trait, which `copper-cache` implements.
//!
//! Read in this order: [`key`] (what is asked for), [`topology`] and [`ownership`] (who is asked),
//! [`wire`] (how), [`member`] (one rank), [`node`] (its part in one tree), `fetch` (its side as a
//! child), `serve` (its side as a parent), [`ahead`] (what will be asked for next).

#![forbid(unsafe_code)]

pub mod ahead;
pub mod attributes;
pub mod data_ranges;
pub mod directory;
pub mod encoding;
pub mod errno;
pub mod extended_attributes;
mod fetch;
mod file_policy;
mod gauges;
pub mod ids;
mod input;
pub mod jitter;
pub mod key;
pub mod limits;
mod link;
pub mod member;
pub mod node;
mod output;
pub mod ownership;
mod planted;
pub mod scope;
mod serve;
pub mod store;
pub mod tick;
pub mod topology;
pub mod wire;

pub use ahead::ReadAhead;
pub use attributes::{Attributes, Entry, FileKind, Statistics, Timestamp};
pub use data_ranges::{DataRanges, DataRangesBuilder};
pub use directory::{Directory, DirectoryBuilder, DirectoryEntry};
pub use errno::Errno;
pub use extended_attributes::ExtendedAttributes;
pub use fetch::PullFailure;
pub use file_policy::FilePolicy;
pub use ids::{Epoch, JobId, LeaseId, LinkId, PullId, Rank, RequestId, Ticket, TreeIndex};
pub use key::{BlockIndex, Generation, Key, ViewPath, What};
pub use member::Member;
pub use node::{
    CopyFrom, Gauges, Input, Node, NodeCounters, Outcome, Output, Place, SourceAnswer,
    SourceRequest, SourceUse,
};
#[cfg(feature = "planted")]
pub use planted::Bug;
pub use scope::{Dropped, Scope};
pub use serve::Violation;
pub use store::{Extent, Held, Known, Spilled, Store};
pub use tick::Tick;
pub use topology::{Forest, Tree};
pub use wire::{Message, Reply};
