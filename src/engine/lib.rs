//! The engine of one rank: it owns the protocol and the cache, moves bytes between a fabric, a
//! source and an arena that it knows only as [`ports`], and answers frontends.
//!
//! - [`view`] is what a frontend sees: answers on the spot, and questions for the queue;
//! - [`inodes`] is what both sides share: what this node can show without the engine;
//! - [`engine`] is the one thread's work: it takes what happened, lets the protocol decide, and
//!   does what was decided.

#![forbid(unsafe_code)]

pub mod counters;
pub mod engine;
mod first_answers;
pub mod inodes;
#[cfg(all(test, copper_loom))]
mod models;
pub mod ports;
mod questions;
pub mod queue;
pub mod recorder;
mod shelf;
mod spilling;
mod sync;
pub mod view;

pub use counters::Counters;
pub use engine::{Engine, Forgetting, Settings};
pub use ports::{Control, Fabric, FabricEvent, Memory, PostError, Source, SpillFile, Wake};
pub use queue::{EngineView, Queue};
pub use recorder::Recorder;
pub use spilling::SpillSettings;
pub use view::{
    Answer, Answers, Found, InodeNumber, Looked, Now, Piece, Provenance, Question, Stale, View,
};
