//! What went wrong in a run, and what fell short, each with what to try.

use std::collections::{BTreeMap, BTreeSet};

use super::figure::{bytes, count, percent};
use super::run::{Moved, RankRecord, Run};

/// Ranks that one line names.
const NAMED: usize = 8;

/// By how much the clocks of two hosts may differ.
const CLOCKS_APART_MS: u64 = 1000;

/// Something that is worth a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) what: String,
    /// What to do about it.
    pub(super) action: String,
}

fn finding(what: String, action: &str) -> Finding {
    Finding { what, action: action.to_owned() }
}

/// Ranks that have left no word of their end, while others have.
pub(super) fn dead(run: &Run) -> Vec<&RankRecord> {
    if !run.ranks.iter().any(RankRecord::has_ended) {
        return Vec::new();
    }
    run.ranks.iter().filter(|rank| !rank.has_ended()).collect()
}

/// What went wrong: ranks that died, parents that were lost, ranks that stood in, broken links.
pub(super) fn faults(run: &Run) -> Vec<Finding> {
    let mut faults = Vec::new();
    let (start, _) = run.span_ms();
    for rank in dead(run) {
        let last = rank.moments.last();
        let after_s = last.map_or(0.0, |it| seconds(it.unix_ms.saturating_sub(start)));
        faults.push(finding(
            format!(
                "Rank {} ({}) ended without a word; it was last seen {after_s:.1} s after the start",
                rank.rank, rank.name
            ),
            "its log, and the kernel's on its host: was it killed, or out of memory?",
        ));
    }
    if !run.ranks.iter().any(RankRecord::has_ended) {
        faults.push(finding(
            "No rank has ended: the job still runs, or all of it was killed".to_owned(),
            "if it runs, this is what is known so far",
        ));
    }
    missing(run, &mut faults);
    lost_links(run, &mut faults);
    states(run, &mut faults);
    counted(run, &mut faults);
    errors(run, &mut faults);
    faults
}

fn seconds(time_ms: u64) -> f64 {
    time_ms as f64 / 1000.0
}

/// Ranks without any file.
fn missing(run: &Run, faults: &mut Vec<Finding>) {
    let present: BTreeSet<u64> = run.ranks.iter().map(|rank| rank.rank.into()).collect();
    let missing: Vec<u64> = (0..run.size()).filter(|rank| !present.contains(rank)).collect();
    if !missing.is_empty() {
        faults.push(finding(
            format!("{} left no file", named(&missing)),
            "were they ever ready? Is the folder of the logs (-d) on a file system that all hosts share?",
        ));
    }
}

/// `Rank 3`, `Ranks 3, 4 and 7 more`.
fn named(ranks: &[u64]) -> String {
    let names: Vec<String> = ranks.iter().take(NAMED).map(u64::to_string).collect();
    let more = ranks.len().saturating_sub(NAMED);
    let word = if ranks.len() == 1 { "Rank" } else { "Ranks" };
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{word} {}{more}", names.join(", "))
}

/// The parents that each rank has lost, with the time of the first moment that knew. That a rank is lost
/// which has ended by itself is no fault: it may end before those below it.
pub(super) fn losses(run: &Run) -> Vec<(u32, u64, Moved)> {
    let dead: BTreeSet<u32> = dead(run).iter().map(|rank| rank.rank).collect();
    let ends: BTreeMap<u32, u64> =
        run.ranks.iter().filter_map(|rank| Some((rank.rank, rank.end_ms()?))).collect();
    let mut losses: BTreeMap<(u32, u32, String), (u64, Moved)> = BTreeMap::new();
    for rank in &run.ranks {
        for moment in &rank.moments {
            let had_ended = |lost: u32| {
                let end_ms = ends.get(&lost);
                !dead.contains(&lost)
                    && end_ms.is_some_and(|end_ms| moment.unix_ms + CLOCKS_APART_MS >= *end_ms)
            };
            for moved in &moment.moved {
                if !moved.lost_rank().is_some_and(had_ended) {
                    let key = (rank.rank, moved.tree, moved.lost.clone());
                    losses.entry(key).or_insert_with(|| (moment.unix_ms, moved.clone()));
                }
            }
        }
    }
    losses.into_iter().map(|((rank, ..), (at_ms, moved))| (rank, at_ms, moved)).collect()
}

fn lost_links(run: &Run, faults: &mut Vec<Finding>) {
    let (start, _) = run.span_ms();
    let losses = losses(run);
    let shown = 4 * NAMED;
    for (rank, at_ms, moved) in losses.iter().take(shown) {
        let after_s = seconds(at_ms.saturating_sub(start));
        let now = match (moved.parent, &*moved.role) {
            (Some(parent), _) => format!("it hangs on rank {parent} instead"),
            (None, role) => format!("it is {role}"),
        };
        faults.push(finding(
            format!(
                "Rank {rank} lost its parent in tree {} ({}), known {after_s:.1} s after the start; {now}",
                moved.tree, moved.lost
            ),
            "the log of the lost rank; none is needed for this one",
        ));
    }
    if losses.len() > shown {
        let more = count((losses.len() - shown) as u64);
        faults.push(finding(format!("{more} more links were lost"), "the logs of the lost ranks"));
    }
}

fn states(run: &Run, faults: &mut Vec<Finding>) {
    let cases = [
        ("stands-in", "stood in for a lost root and read the source", "the log of the root"),
        (
            "degraded",
            "read the source by itself, since no parent was left",
            "the logs of its ancestors",
        ),
        (
            "orphan",
            "had nobody above: what it did not hold was EIO",
            "the logs of its ancestors; --source direct lets ranks read for themselves",
        ),
    ];
    for (state, what, action) in cases {
        // While a job ends, each rank may lose those above it before it ends itself.
        let was = |rank: &&RankRecord| {
            let end_ms = rank.end_ms().unwrap_or(u64::MAX);
            let mut lived = rank.moments.iter().filter(|it| it.unix_ms + CLOCKS_APART_MS < end_ms);
            lived.any(|moment| moment.state == state)
        };
        let ranks: Vec<u64> = run.ranks.iter().filter(was).map(|it| it.rank.into()).collect();
        if !ranks.is_empty() {
            faults.push(finding(format!("{} {what}", named(&ranks)), action));
        }
    }
}

/// Counters that should be zero.
fn counted(run: &Run, faults: &mut Vec<Finding>) {
    let counters = [
        (
            "/fabric/checksum_failures",
            "blocks had a false checksum and were fetched again",
            "report it",
        ),
        (
            "/fabric/violations",
            "times a rank broke the protocol",
            "are all ranks of the same version?",
        ),
        (
            "/fabric/given_up",
            "links were given up: their fabric was dead",
            "the NIC of the ranks that the logs name",
        ),
        (
            "/fabric/expired",
            "requests had no answer in time",
            "is the source slow? The logs say which rank waited for whom",
        ),
        (
            "/source/degraded_reads",
            "reads of the source by ranks that had lost everybody above",
            "the logs of their ancestors",
        ),
        (
            "/spill/lost",
            "copies on the local disk were not as written",
            "leave --spill out and look at the disk",
        ),
    ];
    for (pointer, what, action) in counters {
        let sum = run.sum(pointer);
        if sum > 0 {
            let ranks: Vec<u64> = run
                .ranks
                .iter()
                .filter(|it| it.number(pointer) > 0)
                .map(|it| it.rank.into())
                .collect();
            let at = named(&ranks).to_lowercase();
            faults.push(finding(format!("{} {what}, at {at}", count(sum)), action));
        }
    }
}

/// Calls for objects that ended with an errno. That an ioctl or an extended attribute is not known is an
/// answer like any other.
fn errors(run: &Run, faults: &mut Vec<Finding>) {
    let asking =
        ["lookup", "getattr", "readlink", "read", "lseek", "readdir", "readdirplus", "statfs"];
    for operation in asking {
        let sum = run.sum(&format!("/operations/{operation}/errors"));
        if sum > 0 {
            faults.push(finding(
                format!(
                    "{} calls of {operation} ended with an errno other than ENOENT",
                    count(sum)
                ),
                "the logs, from -l warn on, unless the files may not be read by everybody",
            ));
        }
    }
}

/// What fell short, and which option may help.
pub(super) fn shortages(run: &Run) -> Vec<Finding> {
    let mut found = Vec::new();
    memory(run, &mut found);
    balance(run, &mut found);
    source(run, &mut found);
    names(run, &mut found);
    found
}

fn memory(run: &Run, found: &mut Vec<Finding>) {
    let starved = run.sum("/cache/starved");
    if starved > 0 {
        found.push(finding(
            format!("{} fetches waited for room in the cache", count(starved)),
            "a larger --memory",
        ));
    }
    let again = run.sum("/cache/refetched_bytes");
    if again > 0 {
        let all = run.sum("/fabric/pulled_bytes") + run.sum("/source/bytes");
        found.push(finding(
            format!(
                "{} ({}) came once more, since they had been evicted",
                bytes(again),
                percent(again, all)
            ),
            "a larger --memory, or --spill DIR on a local disk",
        ));
    }
    let (evicted, read) =
        (run.sum("/cache/fetched_ahead_evicted"), run.sum("/cache/fetched_ahead_read"));
    if evicted > read / 10 && evicted > 0 {
        found.push(finding(
            format!(
                "{} blocks were fetched ahead and evicted unread ({} were read)",
                count(evicted),
                count(read)
            ),
            "a larger --memory: so many readers need more of it",
        ));
    }
}

/// Whether some rank gives much more than others of its level, and how deep the tree is.
fn balance(run: &Run, found: &mut Vec<Finding>) {
    let Some(busiest) = run.ranks.iter().max_by_key(|rank| rank.load()) else { return };
    let all = run.sum("/fabric/served_bytes");
    let givers = run.ranks.iter().filter(|rank| rank.load() > 0).count() as u64;
    if givers > 2 && busiest.load() * givers > 3 * all {
        found.push(finding(
            format!(
                "Rank {} gave {} of all {} that were served, {} ranks gave the rest",
                busiest.rank,
                percent(busiest.load(), all),
                bytes(all),
                givers - 1
            ),
            "a smaller --fanout, or -T N, so that other ranks give as much",
        ));
    }
    let depth = run.ranks.iter().map(RankRecord::level).max().unwrap_or(0);
    if depth > 4 {
        found.push(finding(
            format!(
                "The tree has {depth} levels below its root: each adds to the wait of a first read"
            ),
            "a larger --fanout",
        ));
    }
}

fn source(run: &Run, found: &mut Vec<Finding>) {
    const MUCH_BYTES: u64 = 1 << 30;
    let readers: Vec<&RankRecord> =
        run.ranks.iter().filter(|rank| rank.number("/source/bytes") > 0).collect();
    if let [reader] = readers[..]
        && reader.number("/source/bytes") > MUCH_BYTES
        && run.ranks.len() > 8
    {
        found.push(finding(
            format!(
                "Rank {} alone read {} from the source",
                reader.rank,
                bytes(reader.number("/source/bytes"))
            ),
            "-T N: N ranks read it side by side",
        ));
    }
    // Blocks of files above -M that nobody had fetched ahead.
    let (waited, ahead) = (run.sum("/cache/misses"), run.sum("/cache/fetched_ahead_read"));
    if waited > 1000 && ahead < waited / 4 {
        found.push(finding(
            format!(
                "Readers were the first to ask for {} blocks, and {} had been fetched ahead",
                count(waited),
                count(ahead)
            ),
            "a larger -M for files that are read as a whole, or prefetch: read them once at one rank before the job begins",
        ));
    }
}

fn names(run: &Run, found: &mut Vec<Finding>) {
    let (negatives, calls) = (run.sum("/totals/negatives"), run.sum("/totals/calls"));
    if calls > 1000 && negatives > calls / 3 {
        found.push(finding(
            format!(
                "{} of {} calls were for names that do not exist",
                percent(negatives, calls),
                count(calls)
            ),
            "copper report --advice DIR, after a run with -A",
        ));
    }
    let (expired, stored) = (run.sum("/absences/expired"), run.sum("/absences/stored"));
    if expired > 100 && expired > stored / 4 {
        found.push(finding(
            format!("{} absent names were asked for again after their time", count(expired)),
            "a larger -E, if nobody creates these names while the job runs",
        ));
    }
    let surplus = run.sum("/cache/inodes_surplus");
    if surplus > 10_000 {
        found.push(finding(
            format!("The kernel had to forget {} names for lack of memory", count(surplus)),
            "a larger --memory",
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::run::Moment;
    use serde_json::json;

    fn moment(why: &str, unix_ms: u64, lost: Option<&str>) -> Moment {
        let moved = |lost: &str| Moved {
            tree: 0,
            parent: Some(0),
            role: "child".into(),
            lost: lost.into(),
        };
        Moment {
            why: why.into(),
            unix_ms,
            moved: lost.map(moved).into_iter().collect(),
            ..Moment::default()
        }
    }

    fn rank(rank: u32, moments: Vec<Moment>) -> RankRecord {
        let status = json!({ "rank": rank, "size": 4, "cache": { "starved": 3 } });
        RankRecord { rank, name: format!("node-{rank}-77"), host: "node".into(), status, moments }
    }

    fn run() -> Run {
        let ranks = vec![
            rank(0, vec![moment("ready", 1000, None), moment("final", 9000, None)]),
            rank(1, vec![moment("ready", 1000, None)]),
            rank(
                2,
                vec![
                    moment("ready", 1000, None),
                    moment("pre-destroy", 8500, Some("rank 1: its connection has closed")),
                    moment("final", 9000, Some("rank 0: its connection has closed")),
                ],
            ),
        ];
        Run { ranks, ..Run::default() }
    }

    #[test]
    fn a_dead_rank_and_the_link_to_it_are_named_and_the_end_of_all_is_no_fault() {
        let faults: Vec<String> = faults(&run()).into_iter().map(|it| it.what).collect();
        assert_eq!(faults.len(), 3, "{faults:#?}");
        assert!(
            faults[0]
                .starts_with("Rank 1 (node-1-77) ended without a word; it was last seen 0.0 s")
        );
        assert_eq!(faults[1], "Rank 3 left no file");
        assert!(
            faults[2].starts_with(
                "Rank 2 lost its parent in tree 0 (rank 1: its connection has closed), known 7.5 s"
            ),
            "{}",
            faults[2]
        );
    }

    #[test]
    fn a_parent_that_was_lost_long_before_its_end_is_told() {
        let closed = Some("rank 0: it was silent");
        let ends = [moment("ready", 1000, None), moment("final", 9000, None)];
        let of_other = |at_ms| vec![moment("ready", 1000, None), moment("final", at_ms, closed)];
        let ranks = vec![rank(0, ends.to_vec()), rank(1, of_other(5000)), rank(2, of_other(8900))];
        let run = Run { ranks, ..Run::default() };
        let told: Vec<(u32, u64)> = losses(&run).into_iter().map(|it| (it.0, it.1)).collect();
        assert_eq!(told, [(1, 5000)]);
    }

    #[test]
    fn a_cache_that_was_too_small_is_told_with_the_option_that_helps() {
        let found = shortages(&run());
        assert_eq!(
            found,
            [finding("9 fetches waited for room in the cache".into(), "a larger --memory")]
        );
        assert!(shortages(&Run::default()).is_empty() && dead(&Run::default()).is_empty());
    }
}
