//! What a rendezvous counts. Written by its one thread, read by anybody.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use serde::Serialize;

use crate::refusal::RefusalCode;

/// Why a connection was closed before it became a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    Malformed,
    TimedOut,
    Closed,
    Crowded,
    Said(RefusalCode),
}

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        #[derive(Debug, Default)]
        pub(crate) struct Counters { $(pub(crate) $name: AtomicU64),* }

        /// Counts since the start; `links` and `handshakes_pending` are as of now.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
        pub struct RendezvousCounters { $($(#[$doc])* pub $name: u64),* }

        impl Counters {
            pub(crate) fn read(&self) -> RendezvousCounters {
                RendezvousCounters { $($name: self.$name.load(Relaxed)),* }
            }
        }
    };
}

counters! {
    /// Connections that became links, of either side.
    handshakes,
    /// Incoming connections whose handshake is under way.
    handshakes_pending,
    /// Links that are up.
    links,
    /// Control messages sent over links, without heartbeats.
    control_sent,
    /// Control messages received over links, without heartbeats.
    control_received,
    /// Control messages whose seal does not hold: forged, altered, or sent twice.
    control_forged,
    /// Heartbeats that did not come in time.
    heartbeats_missed,
    /// Own attempts to reach a parent that failed.
    attempts_failed,
    /// Incoming connections that did not become links, for any of the reasons below.
    refused_connections,
    /// … that sent something else than our protocol.
    refused_malformed,
    /// … that took too long.
    refused_timed_out,
    /// … that were closed by the other side.
    refused_closed,
    /// … that were in the way of newer ones.
    refused_crowded,
    /// … of another protocol version.
    refused_version,
    /// … without the job's secret.
    refused_secret,
    /// … of another job.
    refused_job,
    /// … of a job of another size.
    refused_size,
    /// … of a job with another number of trees.
    refused_trees,
    /// … that are not below this rank in the tree.
    refused_position,
    /// … with another provider.
    refused_provider,
    /// … for which there was no room among the links.
    refused_busy,
    /// … that refused us, for another reason.
    refused_unsaid,
}

impl Counters {
    /// Counts a refusal; returns how many there have been for this reason.
    pub(crate) fn on_refused(&self, refused: Refused) -> u64 {
        self.refused_connections.fetch_add(1, Relaxed);
        let counter = match refused {
            Refused::Malformed => &self.refused_malformed,
            Refused::TimedOut => &self.refused_timed_out,
            Refused::Closed => &self.refused_closed,
            Refused::Crowded => &self.refused_crowded,
            Refused::Said(RefusalCode::Version) => &self.refused_version,
            Refused::Said(RefusalCode::Secret) => &self.refused_secret,
            Refused::Said(RefusalCode::Job) => &self.refused_job,
            Refused::Said(RefusalCode::Size) => &self.refused_size,
            Refused::Said(RefusalCode::Trees) => &self.refused_trees,
            Refused::Said(RefusalCode::Position) => &self.refused_position,
            Refused::Said(RefusalCode::Provider) => &self.refused_provider,
            Refused::Said(RefusalCode::Busy) => &self.refused_busy,
            Refused::Said(RefusalCode::Unsaid) => &self.refused_unsaid,
        };
        counter.fetch_add(1, Relaxed) + 1
    }
}
