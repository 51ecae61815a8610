//! Bugs for the simulator to find: a check that has never failed proves nothing.
//!
//! Only the feature `planted` makes them possible, and only tests enable it (`tests/tidy.rs` looks).
//! Without it [`Planted`] has no size and [`Planted::has`] is constantly false.

/// A bug of the protocol, one for each promise that a parent and a child make each other.
#[cfg_attr(not(feature = "planted"), allow(unreachable_pub, reason = "only tests name them"))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// A child gives a lease back as its pull begins: the parent recycles what is still being read.
    LeaseReturnedEarly,
    /// The extent of a pull that is given up is free at once: late bytes land in what is there next.
    QuarantineSkipped,
    /// A pull that is given up keeps its lease, and with it its credit.
    CreditLeaked,
    /// Bytes whose checksum does not match are shown.
    ChecksumIgnored,
    /// A parent grants an extent on lease and does not keep it from eviction.
    LeaseIgnored,
    /// A name that the source could not be asked about is remembered as absent.
    ErrorCached,
    /// A fetch that fails is begun again however often, whether or not somebody still waits.
    RetriedForEver,
}

/// The bug that a node has.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Planted {
    #[cfg(feature = "planted")]
    bug: Option<Bug>,
}

impl Planted {
    #[cfg(feature = "planted")]
    pub(crate) fn has(self, bug: Bug) -> bool {
        self.bug == Some(bug)
    }

    #[cfg(not(feature = "planted"))]
    pub(crate) fn has(self, _: Bug) -> bool {
        false
    }
}

#[cfg(feature = "planted")]
impl crate::Node {
    /// Gives this node a bug.
    pub fn plant(&mut self, bug: Bug) {
        self.planted = Planted { bug: Some(bug) };
        self.children.planted = self.planted;
    }
}
