//! What a rank leaves for `copper report` beside its profiles, in `DIR/JOB/ranks`: its whole status as it
//! was last (`HOST-PID-status.json`, rewritten), and a short line for each time that it was looked at
//! (`HOST-PID-moments.jsonl`). A rank that is killed leaves what it had written before.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use copper_fuse::Category;
use copper_fuse::hot_paths::PathRow;
use serde_json::{Value, json};

use crate::whole_file::write_whole;

/// Lines of a rank: some 250 KB. When there are as many, every second one is dropped.
const MOMENTS_MAX: usize = 512;

/// Paths of each category whose calls took longest.
const SLOWEST: usize = 20;

/// The files of one rank.
#[derive(Debug)]
pub(super) struct Record {
    status: PathBuf,
    moments: PathBuf,
    lines: Mutex<Vec<String>>,
}

impl Record {
    /// Beside the folder of the profiles, of the rank that files call `name`.
    pub(super) fn new(profiling: &Path, name: &str) -> Record {
        let folder = profiling.with_file_name("ranks");
        Record {
            status: folder.join(format!("{name}-status.json")),
            moments: folder.join(format!("{name}-moments.jsonl")),
            lines: Mutex::default(),
        }
    }

    /// Writes the state of a rank, looked at because of `why`.
    pub(super) fn write(
        &self,
        why: &str,
        mut status: Value,
        paths: &[(Category, Vec<PathRow>)],
        floor: u64,
    ) -> io::Result<()> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let at_ms = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        let moment = moment(why, at_ms, &status);
        status["looked_at"] = json!({ "why": why, "unix_ms": at_ms });
        status["paths"] = json!({ "floor": floor, "slowest": slowest(paths) });
        if let Some(folder) = self.status.parent() {
            fs::create_dir_all(folder)?;
        }
        write_whole(&self.status, &format!("{status}\n"))?;
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.push(format!("{moment}\n"));
        if lines.len() > MOMENTS_MAX {
            let mut index = 0;
            lines.retain(|_| {
                index += 1;
                index % 2 == 1
            });
            return write_whole(&self.moments, &lines.concat());
        }
        let line = lines.last().map_or(&[][..], |line| line.as_bytes());
        OpenOptions::new().create(true).append(true).open(&self.moments)?.write_all(line)
    }
}

/// Of a status, what is worth knowing of every moment.
fn moment(why: &str, at_ms: u64, status: &Value) -> Value {
    let read = &status["operations"]["read"];
    json!({
        "unix_ms": at_ms,
        "why": why,
        "rank": status["rank"],
        "level": status["level"],
        "state": status["state"],
        "parents": status["trees"].as_array().into_iter().flatten().map(|tree| &tree["parent"]).collect::<Vec<_>>(),
        "moved": status["moved"],
        "calls": status["totals"]["calls"],
        "misses": status["totals"]["misses"],
        "reads": read["calls"],
        "pulled_bytes": status["fabric"]["pulled_bytes"],
        "served_bytes": status["fabric"]["served_bytes"],
        "source_bytes": status["source"]["bytes"],
        "cache_bytes": status["cache"]["bytes"],
        "starved": status["cache"]["starved"],
    })
}

/// The paths of each category whose calls took longest together.
fn slowest(paths: &[(Category, Vec<PathRow>)]) -> Vec<Value> {
    let of_category = |(category, rows): &(Category, Vec<PathRow>)| {
        let mut rows: Vec<&PathRow> = rows.iter().collect();
        rows.sort_by_key(|(_, counts)| std::cmp::Reverse(counts.total_ns));
        rows.truncate(SLOWEST);
        let name = category.name();
        let row = move |(path, counts): &PathRow| {
            json!({
                "category": name,
                "path": format!("/{}", String::from_utf8_lossy(path)),
                "calls": counts.events,
                "total_ns": counts.total_ns,
                "max_ns": counts.slowest_ns,
            })
        };
        rows.into_iter().map(row).collect::<Vec<_>>()
    };
    paths.iter().flat_map(of_category).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_thinned_out_and_never_more_than_their_bound() {
        let folder = std::env::temp_dir().join(format!("copper-record-{}", std::process::id()));
        let record = Record::new(&folder.join("profiling"), "node-1-7");
        for _ in 0..MOMENTS_MAX + 2 {
            record.write("test", json!({ "rank": 3 }), &[], 0).expect("it can be written");
        }
        let moments = fs::read_to_string(folder.join("ranks/node-1-7-moments.jsonl"));
        let status = fs::read_to_string(folder.join("ranks/node-1-7-status.json"));
        fs::remove_dir_all(&folder).expect("ours");
        let moments = moments.expect("it is there");
        assert_eq!(moments.lines().count(), MOMENTS_MAX / 2 + 2);
        let parsed = moments.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
        assert!(parsed.into_iter().all(|moment| moment["rank"] == 3));
        let status: Value = serde_json::from_str(&status.expect("it is there")).expect("JSON");
        assert_eq!(status["looked_at"]["why"], "test");
    }
}
