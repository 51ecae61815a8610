//! Profiles of a rank, as release 1.0 of the C++ Copper wrote them: tables of what was asked, as files
//! of the run. The counters that they tell of only grow; what a reset clears is a baseline here.
//!
//! ```text
//!   counters ── less the baseline ──▶ Profile ──▶ profiling/{final,TAG}/HOST-PID[-TAG[-N]]-profiling_*
//! ```

mod aggregate;
mod files;
mod record;
mod tables;

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use copper_fuse::hot_paths::PathRow;
use copper_fuse::{Category, HotPaths, OperationValues, Operations};
use serde_json::Value;

use crate::controls::Column;
pub(crate) use aggregate::aggregate;
use files::Place;
pub(crate) use files::Tables;
use record::Record;
pub(crate) use tables::quoted;

/// Paths of a table that is to show all: with names of a hundred bytes 10 MiB for each category.
const PATHS_ALL: usize = 32_768;

/// Paths that are counted at least, so that those that are shown are the right ones.
const PATHS_MIN: usize = 1_024;

/// How much of the counted paths is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Paths {
    /// None, and none are counted.
    #[default]
    None,
    /// So many of each category.
    Top(usize),
    /// All that are counted.
    All,
}

impl Paths {
    /// Where they are counted: four times as many as are shown, since the rarest half of a full table
    /// is dropped at once; but no more than twice as many where that is much.
    pub(crate) fn table(self) -> Option<Arc<HotPaths>> {
        match self {
            Paths::None => None,
            Paths::Top(shown) => {
                let counted = (4 * shown).min(PATHS_ALL.max(2 * shown)).max(PATHS_MIN);
                Some(Arc::new(HotPaths::new(counted)))
            }
            Paths::All => Some(Arc::new(HotPaths::new(PATHS_ALL))),
        }
    }
}

/// What the profiles of a rank are to show, and when they are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) paths: Paths,
    /// How often one is written while the rank runs.
    pub(crate) interval: Option<Duration>,
}

/// Why a profile is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Tag {
    /// The rank has ended its mount.
    Final,
    /// Time has passed, or a signal came. Numbered.
    RuntimeSnapshot,
    /// An ioctl asked for it. Numbered.
    IoctlSnapshot,
    /// What it shows is about to be forgotten. Numbered.
    PreReset,
    /// The mount is about to end.
    PreDestroy,
}

impl Tag {
    fn name(self) -> &'static str {
        match self {
            Tag::Final => "final",
            Tag::RuntimeSnapshot => "runtime-snapshot",
            Tag::IoctlSnapshot => "ioctl-snapshot",
            Tag::PreReset => "pre-reset",
            Tag::PreDestroy => "pre-destroy",
        }
    }

    fn is_numbered(self) -> bool {
        match self {
            Tag::Final | Tag::PreDestroy => false,
            Tag::RuntimeSnapshot | Tag::IoctlSnapshot | Tag::PreReset => true,
        }
    }
}

/// What a reset forgets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Forgotten {
    Calls,
    Times,
    Hits,
    Misses,
    Negatives,
    Paths(Category),
    Everything,
}

/// The absences of the engine's cache, by their names in aggregate.csv.
pub(crate) type Absences = [u64; 4];

/// What one profile shows.
#[derive(Clone, Debug)]
pub(crate) struct Profile {
    pub(crate) operations: Vec<Shown>,
    pub(crate) absences: Absences,
    pub(crate) paths: Vec<(Category, Vec<PathRow>)>,
    /// Calls of a path that may be missing from the tables.
    pub(crate) floor: u64,
}

/// A row of operations.csv.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Shown {
    pub(crate) name: String,
    pub(crate) calls: u64,
    pub(crate) hits: u64,
    pub(crate) misses: u64,
    pub(crate) negatives: u64,
    pub(crate) total_ns: u64,
    /// The calls that the time is of: others than `calls` where only one of the two was reset.
    pub(crate) timed: u64,
    pub(crate) quantiles_ns: [u64; 4],
}

/// Writes the profiles of one rank.
pub(crate) struct Profiler {
    operations: Arc<Operations>,
    paths: Option<Arc<HotPaths>>,
    absences: Box<dyn Fn() -> Absences + Send + Sync>,
    /// What the whole rank tells of itself.
    status: Box<dyn Fn() -> Value + Send + Sync>,
    shown: Paths,
    place: Place,
    record: Record,
    baseline: Mutex<Baseline>,
}

/// What is not shown any more: each column of each operation as it was when that was reset.
struct Baseline {
    calls: Vec<OperationValues>,
    times: Vec<OperationValues>,
    hits: Vec<OperationValues>,
    misses: Vec<OperationValues>,
    negatives: Vec<OperationValues>,
    absences: Absences,
}

impl Baseline {
    fn zero() -> Baseline {
        let zero = Operations::default().snapshot();
        Baseline {
            calls: zero.clone(),
            times: zero.clone(),
            hits: zero.clone(),
            misses: zero.clone(),
            negatives: zero,
            absences: Absences::default(),
        }
    }
}

impl Profiler {
    /// Of the rank that files call `name`, into `folder`, which is `DIR/<job>/profiling`.
    pub(crate) fn new(
        folder: &Path,
        name: String,
        shown: Paths,
        operations: Arc<Operations>,
        paths: Option<Arc<HotPaths>>,
        absences: impl Fn() -> Absences + Send + Sync + 'static,
        status: impl Fn() -> Value + Send + Sync + 'static,
    ) -> Profiler {
        Profiler {
            operations,
            paths,
            absences: Box::new(absences),
            status: Box::new(status),
            shown,
            record: Record::new(folder, &name),
            place: Place::new(folder.to_owned(), name),
            baseline: Mutex::new(Baseline::zero()),
        }
    }

    /// What has happened since the last reset.
    pub(crate) fn profile(&self) -> Profile {
        let baseline = self.baseline();
        let now = self.operations.snapshot();
        let row = |(index, now): (usize, &OperationValues)| {
            let latency = now.latency.since(&baseline.times[index].latency);
            Shown {
                name: now.operation.name().to_owned(),
                calls: now.calls() - baseline.calls[index].calls(),
                hits: now.hits - baseline.hits[index].hits,
                misses: now.misses - baseline.misses[index].misses,
                negatives: now.negatives - baseline.negatives[index].negatives,
                total_ns: latency.total_ns(),
                timed: latency.count(),
                quantiles_ns: [
                    latency.quantile_ns(0.5),
                    latency.quantile_ns(0.9),
                    latency.quantile_ns(0.99),
                    latency.max_ns(),
                ],
            }
        };
        let operations = now.iter().enumerate().map(row).collect();
        let (now, then) = ((self.absences)(), baseline.absences);
        let absences = std::array::from_fn(|index| now[index] - then[index]);
        drop(baseline);
        let (paths, floors): (Vec<_>, Vec<u64>) = self.shown_paths().unzip();
        Profile { operations, absences, paths, floor: floors.into_iter().max().unwrap_or(0) }
    }

    /// One column of all operations, as a table.
    pub(crate) fn column(&self, column: Column) -> String {
        let value = |row: &Shown| match column {
            Column::Counts => row.calls.to_string(),
            Column::Times => tables::seconds(row.total_ns),
            Column::Hits => row.hits.to_string(),
            Column::Misses => row.misses.to_string(),
            Column::Negatives => row.negatives.to_string(),
        };
        let profile = self.profile();
        let rows = profile.operations.iter().map(|row| format!("{},{}\n", row.name, value(row)));
        let unit = if column == Column::Times { "_s" } else { "" };
        std::iter::once(format!("operation,{}{unit}\n", column.name())).chain(rows).collect()
    }

    /// The paths of a category that profiles show, as a table; none if paths are not counted.
    pub(crate) fn events(&self, category: Category) -> String {
        let mut profile = self.profile();
        profile.paths.retain(|(of, _)| *of == category);
        tables::top_paths(&profile)
    }

    fn shown_paths(&self) -> impl Iterator<Item = ((Category, Vec<PathRow>), u64)> + '_ {
        let count = match self.shown {
            Paths::None => 0,
            Paths::Top(count) => count,
            Paths::All => usize::MAX,
        };
        self.paths.iter().flat_map(|paths| Category::ALL.map(|it| (it, paths.snapshot(it)))).map(
            move |(category, (mut rows, floor))| {
                rows.truncate(count);
                ((category, rows), floor)
            },
        )
    }

    /// Forgets what is asked for, for the profiles.
    pub(crate) fn forget(&self, what: Forgotten) {
        let now = || self.operations.snapshot();
        let mut baseline = self.baseline();
        match what {
            Forgotten::Calls => baseline.calls = now(),
            Forgotten::Times => baseline.times = now(),
            Forgotten::Hits => baseline.hits = now(),
            Forgotten::Misses => baseline.misses = now(),
            Forgotten::Negatives => baseline.negatives = now(),
            Forgotten::Paths(category) => {
                if let Some(paths) = &self.paths {
                    paths.clear(category);
                }
            }
            Forgotten::Everything => {
                let now = now();
                *baseline = Baseline {
                    calls: now.clone(),
                    times: now.clone(),
                    hits: now.clone(),
                    misses: now.clone(),
                    negatives: now,
                    absences: (self.absences)(),
                };
                if let Some(paths) = &self.paths {
                    Category::ALL.iter().for_each(|category| paths.clear(*category));
                }
            }
        }
    }

    /// Writes a profile; what cannot be written is said, and harms nobody.
    pub(crate) fn write(&self, tag: Tag) {
        let profile = self.profile();
        let status = (self.status)();
        let texts = [
            ("summary.md", tables::summary(&profile, tag.name(), &status)),
            ("operations.csv", tables::operations(&profile.operations)),
            ("aggregate.csv", tables::aggregate(&profile.operations, profile.absences)),
            ("top_paths.csv", tables::top_paths(&profile)),
        ];
        match self.place.write(tag, &texts) {
            Ok(prefix) => tracing::debug!(profile = %prefix.display(), "written"),
            Err(error) => tracing::warn!(%error, tag = tag.name(), "a profile cannot be written"),
        }
        self.record(tag.name(), status, &profile);
    }

    /// Writes where the rank stands, now that it is ready.
    pub(crate) fn write_ready(&self) {
        self.record("ready", (self.status)(), &self.profile());
    }

    fn record(&self, why: &str, status: Value, profile: &Profile) {
        if let Err(error) = self.record.write(why, status, &profile.paths, profile.floor) {
            tracing::warn!(%error, why, "the record of this rank cannot be written");
        }
    }

    fn baseline(&self) -> MutexGuard<'_, Baseline> {
        self.baseline.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
