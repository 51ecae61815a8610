//! What a run has left in `DIR/JOB`: the records of its ranks, their profiles, their logs.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use serde::Deserialize;
use serde_json::Value;

use super::table;

/// Of each log only so much is looked at.
const LOG_BYTES_MAX: u64 = 4 << 20;

/// Distinct lines of all logs that are kept.
const LOG_LINES_MAX: usize = 60;

/// A rank at one moment.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Moment {
    pub(super) unix_ms: u64,
    pub(super) why: String,
    pub(super) level: u64,
    pub(super) state: String,
    /// In each tree.
    pub(super) parents: Vec<Option<u32>>,
    pub(super) moved: Vec<Moved>,
    pub(super) calls: u64,
    pub(super) pulled_bytes: u64,
    pub(super) served_bytes: u64,
    pub(super) source_bytes: u64,
}

/// A tree in which a rank has lost a parent.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(default)]
pub(super) struct Moved {
    pub(super) tree: u32,
    pub(super) parent: Option<u32>,
    pub(super) role: String,
    /// `rank N: why`.
    pub(super) lost: String,
}

impl Moved {
    /// Which rank was lost.
    pub(super) fn lost_rank(&self) -> Option<u32> {
        self.lost.strip_prefix("rank ")?.split(':').next()?.parse().ok()
    }
}

/// One rank of the run.
#[derive(Clone, Debug)]
pub(super) struct RankRecord {
    pub(super) rank: u32,
    /// `HOST-PID`.
    pub(super) name: String,
    pub(super) host: String,
    /// As it was looked at last.
    pub(super) status: Value,
    pub(super) moments: Vec<Moment>,
}

impl RankRecord {
    /// A number of its last status; 0 where there is none.
    pub(super) fn number(&self, pointer: &str) -> u64 {
        self.status.pointer(pointer).and_then(Value::as_u64).unwrap_or(0)
    }

    /// When it began to end, if it has told so.
    pub(super) fn end_ms(&self) -> Option<u64> {
        let tells = |moment: &&Moment| moment.why == "final" || moment.why == "pre-destroy";
        self.moments.iter().find(tells).map(|moment| moment.unix_ms)
    }

    /// Whether it has told of its own end.
    pub(super) fn has_ended(&self) -> bool {
        self.end_ms().is_some()
    }

    /// Its distance from the root.
    pub(super) fn level(&self) -> u64 {
        self.number("/level")
    }

    /// Its parent in the first tree, as it was at the start.
    pub(super) fn first_parent(&self) -> Option<u32> {
        self.moments.first().and_then(|moment| moment.parents.first().copied().flatten())
    }

    /// Bytes that it gave to other ranks.
    pub(super) fn load(&self) -> u64 {
        self.number("/fabric/served_bytes")
    }
}

/// What was counted of a path, at all ranks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct PathTotals {
    pub(super) events: u64,
    pub(super) misses: u64,
    pub(super) negatives: u64,
}

impl PathTotals {
    /// Whether it was ever there.
    pub(super) fn was_found(self) -> bool {
        self.events > self.negatives
    }
}

/// Category and path, and what was counted of it.
pub(super) type Paths = BTreeMap<(String, String), PathTotals>;

/// A whole run.
#[derive(Debug, Default)]
pub(super) struct Run {
    pub(super) folder: PathBuf,
    /// By rank, and by time where one stood twice.
    pub(super) ranks: Vec<RankRecord>,
    pub(super) paths: Paths,
    /// Ranks that have left tables of paths.
    pub(super) path_files: usize,
    /// Lines of level WARN and ERROR without their time, and how often each stands there.
    pub(super) log_lines: Vec<(String, u64)>,
    pub(super) has_logs: bool,
}

impl Run {
    /// Reads `DIR/JOB`.
    ///
    /// # Errors
    /// If it is no folder of a run with profiles.
    pub(super) fn read(folder: &Path) -> anyhow::Result<Run> {
        let mut run = Run { folder: folder.to_owned(), ..Run::default() };
        run.ranks = records(&folder.join("ranks"))?;
        if run.ranks.is_empty() {
            bail!(
                "{} has no records of ranks: was the job launched with -P? Give the folder DIR/JOB",
                folder.display()
            );
        }
        let profiling = folder.join("profiling");
        for file in path_tables(&profiling, &run.ranks) {
            let text = fs::read_to_string(&file)
                .with_context(|| format!("cannot read {}", file.display()))?;
            run.path_files += usize::from(add_paths(&text, &mut run.paths) > 0);
        }
        read_logs(&folder.join("logs"), &mut run);
        Ok(run)
    }

    /// When its first rank was ready, and when the last one was looked at.
    pub(super) fn span_ms(&self) -> (u64, u64) {
        let times = || self.ranks.iter().flat_map(|it| &it.moments).map(|it| it.unix_ms);
        (times().min().unwrap_or(0), times().max().unwrap_or(0))
    }

    /// Whether the ranks were looked at while they ran.
    pub(super) fn has_snapshots(&self) -> bool {
        let mut moments = self.ranks.iter().flat_map(|rank| &rank.moments);
        moments.any(|moment| moment.why == "runtime-snapshot")
    }

    /// The most paths that a rank's tables may have left out of a path's events.
    pub(super) fn floor(&self) -> u64 {
        self.ranks.iter().map(|rank| rank.number("/paths/floor")).max().unwrap_or(0)
    }

    /// Ranks of the job, whether they have left anything or not.
    pub(super) fn size(&self) -> u64 {
        self.ranks.iter().map(|rank| rank.number("/size")).max().unwrap_or(0)
    }

    /// The sum over all ranks.
    pub(super) fn sum(&self, pointer: &str) -> u64 {
        self.ranks.iter().map(|rank| rank.number(pointer)).sum()
    }
}

fn records(folder: &Path) -> anyhow::Result<Vec<RankRecord>> {
    let entries = fs::read_dir(folder).with_context(|| {
        format!("{}: give the folder of a run with -P, DIR/JOB", folder.display())
    })?;
    let mut records = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        let Some(name) = name.and_then(|name| name.strip_suffix("-status.json")) else { continue };
        let text = fs::read_to_string(&path);
        let text = text.with_context(|| format!("cannot read {}", path.display()))?;
        let status: Value = serde_json::from_str(&text)
            .with_context(|| format!("{} is no record of this version", path.display()))?;
        let rank = status["rank"].as_u64().and_then(|rank| u32::try_from(rank).ok());
        let rank = rank.with_context(|| format!("{} names no rank", path.display()))?;
        let moments = fs::read_to_string(folder.join(format!("{name}-moments.jsonl")));
        records.push(RankRecord {
            rank,
            name: name.to_owned(),
            host: status["host"].as_str().unwrap_or_default().to_owned(),
            moments: moments_of(&moments.unwrap_or_default()),
            status,
        });
    }
    records.sort_by_key(|it| (it.rank, it.moments.first().map(|moment| moment.unix_ms)));
    Ok(records)
}

/// The lines of a record in order; one that a killed rank has half written is left out.
pub(super) fn moments_of(text: &str) -> Vec<Moment> {
    let mut moments: Vec<Moment> =
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    moments.sort_by_key(|moment| moment.unix_ms);
    moments
}

/// The last table of paths of each rank: the final one, or that of its last snapshot.
fn path_tables(profiling: &Path, ranks: &[RankRecord]) -> Vec<PathBuf> {
    const KIND: &str = "-profiling_top_paths.csv";
    let snapshots = profiling.join("runtime-snapshot");
    let mut last: HashMap<String, String> = HashMap::new();
    for entry in fs::read_dir(&snapshots).into_iter().flatten().flatten() {
        let Ok(file) = entry.file_name().into_string() else { continue };
        let Some((name, _)) = file.rsplit_once("-runtime-snapshot-") else { continue };
        if file.ends_with(KIND) {
            // Longer numbers are greater ones.
            let known = last.entry(name.to_owned()).or_default();
            if (file.len(), &file) > (known.len(), known) {
                *known = file;
            }
        }
    }
    let of_rank = |rank: &RankRecord| {
        let name = &rank.name;
        let end = profiling.join("final").join(format!("{name}{KIND}"));
        let before = profiling.join("pre-destroy").join(format!("{name}-pre-destroy{KIND}"));
        let snapshot = last.get(name).map(|file| snapshots.join(file));
        [Some(end), Some(before), snapshot].into_iter().flatten().find(|path| path.is_file())
    };
    ranks.iter().filter_map(of_rank).collect()
}

/// Adds a top_paths.csv; gives how many paths it has. Lines of another form are passed over.
pub(super) fn add_paths(text: &str, paths: &mut Paths) -> usize {
    let mut count = 0;
    for fields in table::rows(text).into_iter().skip(1) {
        let [category, path, events, _, misses, negatives, ..] = &fields[..] else { continue };
        let number = |field: &String| field.parse::<u64>().unwrap_or(0);
        // Absences that hold for a time are in `metadata` too.
        if category == "metadata_ttl" {
            continue;
        }
        let totals = paths.entry((category.clone(), path.clone())).or_default();
        totals.events += number(events);
        totals.misses += number(misses);
        totals.negatives += number(negatives);
        count += 1;
    }
    count
}

fn read_logs(folder: &Path, run: &mut Run) {
    let mut lines: HashMap<String, u64> = HashMap::new();
    let mut order = Vec::new();
    let mut files: Vec<PathBuf> = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.to_string_lossy().ends_with("-output.log"))
        .collect();
    files.sort();
    for path in files {
        let Ok(file) = File::open(&path) else { continue };
        for line in BufReader::new(file.take(LOG_BYTES_MAX)).lines().map_while(Result::ok) {
            run.has_logs = true;
            let Some(message) = trouble(&line) else { continue };
            match lines.get_mut(message) {
                Some(count) => *count += 1,
                None if order.len() < LOG_LINES_MAX => {
                    order.push(message.to_owned());
                    lines.insert(message.to_owned(), 1);
                }
                None => {}
            }
        }
    }
    run.log_lines = order.into_iter().map(|line| (line.clone(), lines[&line])).collect();
}

/// A log line of level WARN or ERROR from its level on.
pub(super) fn trouble(line: &str) -> Option<&str> {
    let (_, rest) = line.split_once(' ')?;
    let rest = rest.trim_start();
    (rest.starts_with("WARN ") || rest.starts_with("ERROR ")).then_some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_a_killed_rank_has_half_written_is_left_out() {
        let text = "{\"unix_ms\":7,\"why\":\"ready\",\"calls\":3,\"parents\":[0,null]}\n{\"unix_ms\":9,\"wh";
        let moments = moments_of(text);
        assert_eq!(moments.len(), 1);
        assert_eq!((moments[0].calls, &moments[0].parents[..]), (3, &[Some(0), None][..]));
    }

    #[test]
    fn the_paths_of_ranks_are_added_up_by_category() {
        let header =
            "category,path,total_events,cache_hits,cache_misses,negative_results,a,b,c,d\n";
        let one =
            format!("{header}metadata,\"/a,b\",5,3,2,4,0,0,0,0\nmetadata_ttl,/x,1,0,0,0,1,0,0,0\n");
        let other =
            format!("{header}metadata,\"/a,b\",1,1,0,1,0,0,0,0\ndata,\"/a,b\",9,9,0,0,0,0,0,0\n");
        let mut paths = Paths::new();
        assert_eq!((add_paths(&one, &mut paths), add_paths(&other, &mut paths)), (1, 2));
        let of = |category: &str| paths[&(category.to_owned(), "/a,b".to_owned())];
        assert_eq!(of("metadata"), PathTotals { events: 6, misses: 2, negatives: 5 });
        assert!(of("metadata").was_found() && of("data").events == 9);
        assert_eq!(paths.len(), 2);
    }

    #[test]
    fn a_lost_parent_is_known_by_its_rank() {
        let moved = Moved { lost: "rank 12: its connection has closed".into(), ..Moved::default() };
        assert_eq!(moved.lost_rank(), Some(12));
        assert_eq!(Moved::default().lost_rank(), None);
    }

    #[test]
    fn only_trouble_is_taken_from_logs() {
        let line = "2026-01-01T00:00:00Z  WARN copper_launcher::upward: lost the parent parent=1";
        assert_eq!(trouble(line), Some("WARN copper_launcher::upward: lost the parent parent=1"));
        assert_eq!(trouble("2026-01-01T00:00:00Z  INFO copper: ready"), None);
        assert_eq!(trouble("WARN"), None);
    }
}
