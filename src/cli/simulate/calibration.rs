//! `copper simulate --calibrate`: measures the numbers of the model instead of using them.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use copper_ofi::Net;

use crate::cli::print;
use crate::cli::serve::with_environment;
use crate::simulate::{Calibration, calibrate};

/// What is measured, and how.
#[derive(Debug, Args)]
pub(super) struct CalibrationArguments {
    /// Measure the numbers of the model on this machine instead, as far as that is possible
    #[arg(long, conflicts_with_all = ["trace", "constants", "program", "nodes", "processors", "json"])]
    pub(super) calibrate: bool,

    /// Write what was measured to FILE, for --constants
    #[arg(long, value_name = "FILE", requires = "calibrate")]
    write: Option<PathBuf>,

    /// Ranks that ask each other at the same time while that is measured
    #[arg(long, value_name = "N", default_value_t = 2, requires = "calibrate",
          value_parser = clap::value_parser!(u32).range(2..=64))]
    ranks: u32,

    /// The folder of the source that is measured [default: the current one]
    #[arg(long, value_name = "DIR", requires = "calibrate")]
    source: Option<PathBuf>,

    /// The fabric that is measured: auto, tcp, shm, cxi, cxi0 …
    #[arg(long, short = 'n', default_value = "auto", requires = "calibrate")]
    net: Net,
}

impl CalibrationArguments {
    /// Measures, prints what was found, and writes it if that is wanted.
    pub(super) fn run(&self) -> anyhow::Result<ExitCode> {
        with_environment(&self.net);
        let source = self.source.clone().unwrap_or_else(|| PathBuf::from("."));
        let how = Calibration { ranks: self.ranks, net: self.net.clone(), source };
        let (constants, lines) = calibrate(&how)?;
        for line in lines {
            print(&line)?;
        }
        if let Some(file) = &self.write {
            std::fs::write(file, serde_json::to_string_pretty(&constants)? + "\n")
                .with_context(|| format!("cannot write {}", file.display()))?;
        }
        Ok(ExitCode::SUCCESS)
    }
}
