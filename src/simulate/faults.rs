//! What goes wrong in a run: how much of it is said here, when and to whom is drawn from the seed.

use std::time::Duration;

/// What goes wrong. Nothing by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Faults {
    /// Ranks, of a thousand, that die at random times.
    pub(crate) killed_permille: u32,
    /// Whether the root of the first tree is spared; else it is the first of those that die.
    pub(crate) root_lives: bool,
    /// Of a thousand that die, those that come back with an empty cache within a second.
    pub(crate) returned_permille: u32,
    /// Ranks, of a thousand, whose NIC and engine are slower.
    pub(crate) slow_permille: u32,
    /// By how much.
    pub(crate) slowness: u32,
    /// Ranks, of a thousand, that are cut off from a parent for a while, in one direction or both.
    pub(crate) cut_permille: u32,
    /// The most that a message or a pull may be late. Messages of one link stay in order, as the
    /// provider keeps them; all others overtake each other.
    pub(crate) jitter: Duration,
    /// One pull in so many takes longer than its bound; 0 for none.
    pub(crate) pulls_stall: u64,
    /// One pull or inline answer in so many brings other bytes; 0 for none.
    pub(crate) pulls_corrupt: u64,
    /// One read of the source in so many fails; 0 for none.
    pub(crate) source_fails: u64,
    /// The bytes of one object are never those that were announced.
    pub(crate) poisoned: bool,
}

impl Faults {
    /// Whether nothing goes wrong.
    pub(crate) fn is_none(&self) -> bool {
        let unused = Faults { root_lives: false, returned_permille: 0, slowness: 0, ..*self };
        unused == Faults::default()
    }
}
