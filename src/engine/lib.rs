//! The engine of one rank: it owns the protocol and the cache, moves bytes between a fabric, a
//! source and an arena that it knows only as ports, and answers frontends.
//!
//! [`view`] is what a frontend sees.

#![forbid(unsafe_code)]

pub mod view;

pub use view::{Answer, Answers, Found, InodeNumber, Looked, Now, Piece, Question, View};
