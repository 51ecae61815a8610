//! Copper: a read-only cooperative cache that lets thousands of nodes load the same software or
//! data as if it were on local disk.
//!
//! This package joins the others: `cli` says what is wanted, `daemon` runs one rank, and the
//! adapters (`arena`, `fabric`, `source`, `sleeper`) fit libfabric and the file system to the
//! engine's ports.

mod arena;
mod bench;
mod cli;
mod controls;
mod daemon;
mod doctor;
mod fabric;
mod flight;
mod metrics;
mod profile;
mod report;
mod resource_limits;
mod simulate;
mod sleeper;
mod source;
mod spill;
mod top;
mod whole_file;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::run()
}
