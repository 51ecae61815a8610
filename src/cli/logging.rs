//! Logs: to standard error, which a launcher leads into a rank's file.

mod repeats;

use clap::ValueEnum;
use repeats::WithoutRepeats;
use tracing_subscriber::EnvFilter;

/// How much is logged. The documentation of the C++ Copper counts 6 for nothing to 1 for most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Level {
    /// Nothing (6, and 0)
    #[value(aliases = ["6", "0"])]
    Off,
    /// Data or the mount lost (5)
    #[value(alias = "5")]
    Error,
    /// And requests that failed (4)
    #[value(alias = "4")]
    Warn,
    /// And the life of a mount: a handful of lines (3)
    #[value(alias = "3")]
    Info,
    /// And each request (2)
    #[value(alias = "2")]
    Debug,
    /// And each block (1)
    #[value(alias = "1")]
    Trace,
}

impl Level {
    /// As `--log-level` takes it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Level::Off => "off",
            Level::Error => "error",
            Level::Warn => "warn",
            Level::Info => "info",
            Level::Debug => "debug",
            Level::Trace => "trace",
        }
    }
}

/// Starts to log, each kind of line so often a minute. `COPPER_LOG` overrides the level, by module, as
/// tracing-subscriber's filters do.
pub(super) fn start(level: Level) {
    let filter = match std::env::var("COPPER_LOG") {
        Ok(filter) => EnvFilter::new(filter),
        Err(_) => EnvFilter::new(level.name()),
    };
    let logging = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .map_event_format(WithoutRepeats::new)
        .try_init();
    drop(logging);
}
