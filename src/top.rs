//! What `copper top` shows: a job at one moment, and the text that two such moments make. Pure: who
//! asks the ranks, and what the terminal does, is in `cli::top`.

mod frame;
mod snapshot;
mod table;

pub(crate) use frame::{Frame, Line, Tone, View, draw};
pub(crate) use snapshot::Snapshot;
pub(crate) use table::Order;
