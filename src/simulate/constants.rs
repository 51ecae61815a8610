//! Every number of the model, with its source. What nobody has measured says "assumed".
//!
//! [`Constants::default`] is a machine such as Aurora. `--constants FILE` puts others in their place,
//! `--calibrate` measures those of the machine at hand. Their names there end in their unit.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::program::Program;

/// Source reads that one rank has under way at once: the daemon's threads (`src/source.rs`).
pub(super) const SOURCE_THREADS: usize = 16;

/// How long a side of a link that hears nothing waits before it closes it: the launcher's `Pace`.
pub(super) const SILENCE: Duration = Duration::from_secs(5);

/// How long a rank that reaches nobody above waits before it reads the source: one that takes the root's
/// place, and any other. The daemon's (`launcher/src/control.rs`).
pub(super) const TAKEOVER: Duration = Duration::from_millis(500);
pub(super) const ORPHANED: Duration = Duration::from_secs(2);

/// What the model takes for a machine, a network and a source.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Constants {
    /// What one NIC moves each way. HPE Slingshot 11: 200 Gbit/s. A node of Aurora has eight, of which a
    /// daemon uses one.
    pub(crate) nic_bytes_per_second: u64,

    /// From one NIC to another. Assumed; of the order of published half round trips over Slingshot.
    #[serde(rename = "latency_ns", with = "nanos")]
    pub(crate) latency: Duration,

    /// What the engine's thread spends on one message, on either side. Measured: an answer of 4 KiB takes
    /// 5.8 µs longer than over bare libfabric (`benches/record`, spinning), for two messages on two sides.
    #[serde(rename = "message_handling_ns", with = "nanos")]
    pub(crate) message_handling: Duration,

    /// What the engine's thread spends on one pull, whatever its size, beside the messages around it.
    /// Assumed: as on a message.
    #[serde(rename = "pulling_ns", with = "nanos")]
    pub(crate) pulling: Duration,

    /// What the engine's thread spends on each byte that it pulls, mostly its checksum, in picoseconds.
    /// Measured: a pull of 1 MiB takes 89 µs longer than over bare libfabric (`benches/record`).
    pub(crate) verifying_picos_per_byte: u64,

    /// What a parent's thread spends on one pull out of its memory. 0: the NIC reads it. The provider tcp
    /// has the parent send it.
    #[serde(rename = "serving_ns", with = "nanos")]
    pub(crate) serving: Duration,

    /// The same for each byte, in picoseconds.
    pub(crate) serving_picos_per_byte: u64,

    /// A message without its payload. Measured: a path of 80 bytes, and what `wire` puts around it.
    pub(crate) message_bytes: u64,

    /// A request of the kernel to the daemon, there and back. Measured in ADR 9, on one processor.
    #[serde(rename = "fuse_request_ns", with = "nanos")]
    pub(crate) fuse_request: Duration,

    /// Each byte from the daemon's memory through the kernel to a reader. Assumed: one copy at 10 GB/s.
    pub(crate) fuse_picos_per_byte: u64,

    /// Handing a request to the engine's thread. Measured in ADR 6, on one processor.
    #[serde(rename = "engine_handoff_ns", with = "nanos")]
    pub(crate) engine_handoff: Duration,

    /// What the kernel answers by itself. Assumed.
    #[serde(rename = "kernel_answer_ns", with = "nanos")]
    pub(crate) kernel_answer: Duration,

    /// What each process computes, over its whole program. Assumed: `import torch` from a warm local disk.
    #[serde(rename = "computing_ns", with = "nanos")]
    pub(crate) computing: Duration,

    /// The processes of a node, and the nodes, begin within so long. Assumed.
    #[serde(rename = "start_spread_ns", with = "nanos")]
    pub(crate) start_spread: Duration,

    /// One operation of the source, there and back, while it is not busy. Assumed; DESIGN has "Lustre
    /// answers in milliseconds".
    #[serde(rename = "source_latency_ns", with = "nanos")]
    pub(crate) source_latency: Duration,

    /// Each further entry of a listing with attributes, which Lustre fetches ahead. Assumed.
    #[serde(rename = "source_entry_ns", with = "nanos")]
    pub(crate) source_entry: Duration,

    /// Metadata operations that the source takes from all nodes together. Fitted: 98,304 processes (8,192
    /// nodes of the published measurement) then take its 17 minutes for this program.
    pub(crate) source_operations_per_second: u64,

    /// What the source gives all nodes together. Published for Aurora's Flare: 650 GB/s.
    pub(crate) source_bytes_per_second: u64,

    /// What the source gives one node. Assumed.
    pub(crate) client_bytes_per_second: u64,

    /// How long until a rank knows that another has died. Assumed: its kernel closes its connections.
    #[serde(rename = "death_seen_ns", with = "nanos")]
    pub(crate) death_seen: Duration,

    /// What it takes to connect to another rank and prove oneself. Assumed.
    #[serde(rename = "dialling_ns", with = "nanos")]
    pub(crate) dialling: Duration,
}

impl Default for Constants {
    fn default() -> Constants {
        Constants {
            nic_bytes_per_second: 25_000_000_000,
            latency: Duration::from_micros(2),
            message_handling: Duration::from_nanos(1_500),
            pulling: Duration::from_nanos(1_500),
            verifying_picos_per_byte: 85,
            serving: Duration::ZERO,
            serving_picos_per_byte: 0,
            message_bytes: 160,
            fuse_request: Duration::from_nanos(7_400),
            fuse_picos_per_byte: 100,
            engine_handoff: Duration::from_nanos(3_300),
            kernel_answer: Duration::from_nanos(1_000),
            computing: Duration::from_secs(3),
            start_spread: Duration::from_millis(50),
            source_latency: Duration::from_millis(1),
            source_entry: Duration::from_micros(20),
            source_operations_per_second: 505_000,
            source_bytes_per_second: 650_000_000_000,
            client_bytes_per_second: 5_000_000_000,
            death_seen: Duration::from_millis(1),
            dialling: Duration::from_millis(1),
        }
    }
}

impl Constants {
    /// Whether the model can use them: nothing is divided by 0, and nothing outlasts a run.
    pub(crate) fn check(&self) -> Result<(), String> {
        let rates = [
            ("nic_bytes_per_second", self.nic_bytes_per_second),
            ("source_operations_per_second", self.source_operations_per_second),
            ("source_bytes_per_second", self.source_bytes_per_second),
            ("client_bytes_per_second", self.client_bytes_per_second),
            ("message_handling_ns", nanoseconds(self.message_handling)),
            ("start_spread_ns", nanoseconds(self.start_spread)),
        ];
        match rates.iter().find(|(_, value)| *value == 0) {
            Some((name, _)) => Err(format!("{name} is 0: it is at least 1")),
            None => Ok(()),
        }
    }

    /// What a reader of the figures of a program must know, one line each.
    pub(crate) fn assumptions(&self, program: &Program) -> Vec<String> {
        let gigabytes = |bytes: u64| bytes as f64 / 1e9;
        let mut lines = match self == &Constants::default() {
            true => vec![format!(
                "fitted: {} metadata operations a second of the source, to the 17 minutes published \
                 for 8,192 nodes without Copper",
                self.source_operations_per_second
            )],
            false => {
                vec!["given: constants of --constants in the place of the usual ones".to_owned()]
            }
        };
        lines.insert(
            0,
            format!(
                "assumed: {:?} between NICs of {} GB/s; {:?} of computing in each process; a source \
                 that answers in {:?} and gives one node {} GB/s",
                self.latency,
                gigabytes(self.nic_bytes_per_second),
                program.computing(self),
                self.source_latency,
                gigabytes(self.client_bytes_per_second)
            ),
        );
        lines.push(format!(
            "measured on one machine over tcp: {:?} for each message on either side, {} ps for each \
             byte, {:?} for each request of the kernel",
            self.message_handling, self.verifying_picos_per_byte, self.fuse_request
        ));
        lines.push(
            "readers are modelled as questions to the protocol, by the look-up, sibling and \
             read-ahead rules of the daemon; FUSE and the kernel are not simulated"
                .to_owned(),
        );
        lines.push(
            "without Copper: the larger of one process's chain and of what all ask of the source, \
             through what it can give"
                .to_owned(),
        );
        lines
    }
}

/// How long so many bytes take at this rate.
pub(super) fn moving(bytes: u64, bytes_per_second: u64) -> Duration {
    Duration::from_nanos((u128::from(bytes) * 1_000_000_000 / u128::from(bytes_per_second)) as u64)
}

/// How long so many bytes take at so many picoseconds for each.
pub(super) fn treating(bytes: u64, picos_per_byte: u64) -> Duration {
    Duration::from_nanos(bytes.saturating_mul(picos_per_byte) / 1000)
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

mod nanos {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(duration: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u64(super::nanoseconds(*duration))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        u64::deserialize(from).map(Duration::from_nanos)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constants_come_back_from_their_file_and_a_wrong_name_is_refused() {
        let constants = Constants { latency: Duration::from_nanos(77), ..Constants::default() };
        let text = serde_json::to_string(&constants).expect("numbers are JSON");
        assert_eq!(serde_json::from_str::<Constants>(&text).expect("it is whole"), constants);
        let few: Constants =
            serde_json::from_str(r#"{"latency_ns": 77}"#).expect("the rest is usual");
        assert_eq!(few, constants);
        assert!(serde_json::from_str::<Constants>(r#"{"latency": 77}"#).is_err());
        let none = Constants { nic_bytes_per_second: 0, ..constants };
        assert!(none.check().expect_err("no bytes move").contains("nic_bytes_per_second"));
    }
}
