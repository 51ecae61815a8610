//! The paths that were asked for most, in bounded memory: Space-Saving (Metwally, Agrawal, El Abbadi,
//! "Efficient computation of frequent and top-k elements in data streams", 2005), where the rarest
//! half is dropped at once when the table is full, so that an event costs one look-up in a hash table.
//!
//! A path that comes after others were dropped may have been among them: it counts as if it had been
//! asked for as often as the most frequent of those (the *floor*) when it is judged who stays, but not
//! in what is told of it. So a path that was asked for more often than the floor is in the table, and
//! what is told of a path is too low by the floor at most; both are exact as long as nothing was
//! dropped.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use copper_engine::Provenance;
use hashbrown::HashMap;

use crate::operations::{Ended, Operation};

/// The kinds of things that are asked of a path, as the profiling files name them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Category {
    /// Names, attributes, links.
    Metadata,
    /// Bytes.
    Data,
    /// Listings.
    Tree,
}

impl Category {
    /// All of them, in the order of the files.
    pub const ALL: [Category; 3] = [Category::Metadata, Category::Data, Category::Tree];

    /// As the profiling files call it.
    pub fn name(self) -> &'static str {
        match self {
            Category::Metadata => "metadata",
            Category::Data => "data",
            Category::Tree => "tree",
        }
    }

    /// The one that an operation belongs to, if it is asked of a path.
    pub(crate) fn of(operation: Operation) -> Option<Category> {
        match operation {
            Operation::Lookup
            | Operation::Getattr
            | Operation::Readlink
            | Operation::Statfs
            | Operation::Getxattr
            | Operation::Listxattr => Some(Category::Metadata),
            Operation::Read | Operation::Lseek => Some(Category::Data),
            Operation::Readdir | Operation::Readdirplus => Some(Category::Tree),
            Operation::Init
            | Operation::Open
            | Operation::Release
            | Operation::Opendir
            | Operation::Releasedir
            | Operation::Access
            | Operation::Ioctl
            | Operation::Mutation
            | Operation::Other
            | Operation::Destroy => None,
        }
    }
}

/// What was counted of a path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PathCounts {
    /// Calls.
    pub events: u64,
    /// Those answered from what this node held.
    pub hits: u64,
    /// Those that had to be fetched.
    pub misses: u64,
    /// Those answered that there is no such thing.
    pub negatives: u64,
    /// Absences taken in that hold for a time only.
    pub ttl_stores: u64,
    /// Calls answered with one.
    pub ttl_serves: u64,
    /// Those whose time had passed when the path was asked for again.
    pub ttl_expires: u64,
    /// Those that ended because something is there now.
    pub ttl_clears: u64,
    /// How long all calls took together.
    pub total_ns: u64,
    /// How long the slowest call took.
    pub slowest_ns: u64,
    /// Whether the last answer was one.
    absent_for_a_time: bool,
}

/// A path and what was counted of it.
pub type PathRow = (Arc<[u8]>, PathCounts);

/// A path with its category.
pub type Leader = (Category, Arc<[u8]>, PathCounts);

/// Some paths that lead.
#[derive(Clone, Debug, Default)]
pub struct Leaders {
    /// Those with the most events.
    pub hottest: Vec<Leader>,
    /// Those with the slowest calls.
    pub slowest: Vec<Leader>,
}

/// Puts a path where it belongs among those that lead, if it does.
fn keep(
    leaders: &mut Vec<Leader>,
    count: usize,
    (category, path, counts): (Category, &Arc<[u8]>, PathCounts),
    by: fn(&PathCounts) -> u64,
) {
    let before = leaders.partition_point(|(_, _, of)| by(of) >= by(&counts));
    if before < count {
        leaders.truncate(count - 1);
        leaders.insert(before, (category, Arc::clone(path), counts));
    }
}

/// One category's table.
#[derive(Debug, Default)]
struct Table {
    paths: HashMap<Arc<[u8]>, Tally>,
    floor: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    counts: PathCounts,
    /// What was the floor when it came.
    before: u64,
}

impl Tally {
    fn rank(&self) -> u64 {
        self.counts.events + self.before
    }
}

/// What a mount's paths were asked for.
#[derive(Debug)]
pub struct HotPaths {
    tables: [Mutex<Table>; Category::ALL.len()],
    paths_max: usize,
}

impl HotPaths {
    /// Tables of at most so many paths each.
    pub fn new(paths_max: usize) -> HotPaths {
        HotPaths { tables: Default::default(), paths_max: paths_max.max(2) }
    }

    pub(crate) fn record(
        &self,
        category: Category,
        path: &[u8],
        provenance: Provenance,
        ended: Ended,
        took: Duration,
    ) {
        let mut table = self.table(category);
        if let Some(known) = table.paths.get_mut(path) {
            return known.counts.add(provenance, ended, took);
        }
        if table.paths.len() >= self.paths_max {
            table.drop_rarest();
        }
        let mut tally = Tally { counts: PathCounts::default(), before: table.floor };
        tally.counts.add(provenance, ended, took);
        table.paths.insert(path.into(), tally);
    }

    /// The paths of a category, most events first, and the floor.
    pub fn snapshot(&self, category: Category) -> (Vec<PathRow>, u64) {
        let table = self.table(category);
        let mut paths: Vec<PathRow> =
            table.paths.iter().map(|(path, tally)| (Arc::clone(path), tally.counts)).collect();
        let floor = table.floor;
        drop(table);
        paths.sort_unstable_by(|(a_path, a), (b_path, b)| {
            b.events.cmp(&a.events).then_with(|| a_path.cmp(b_path))
        });
        (paths, floor)
    }

    /// The paths of all categories that lead: by their events, and by their slowest call. At most so
    /// many each, the leader first; one pass over the tables, so that who is asked every second
    /// may be asked for it.
    pub fn leaders(&self, count: usize) -> Leaders {
        let mut leaders = Leaders::default();
        for category in Category::ALL {
            for (path, tally) in &self.table(category).paths {
                let counts = tally.counts;
                keep(&mut leaders.hottest, count, (category, path, counts), |it| it.events);
                keep(&mut leaders.slowest, count, (category, path, counts), |it| it.slowest_ns);
            }
        }
        leaders
    }

    /// Forgets a category.
    pub fn clear(&self, category: Category) {
        *self.table(category) = Table::default();
    }

    fn table(&self, category: Category) -> MutexGuard<'_, Table> {
        self.tables[category as usize].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    /// Keeps the half that was asked for most.
    fn drop_rarest(&mut self) {
        let mut ranks: Vec<u64> = self.paths.values().map(Tally::rank).collect();
        let half = ranks.len() / 2;
        let (_, &mut limit, _) = ranks.select_nth_unstable(half);
        // Of those at the limit some stay, so that a table of paths that all came once is not emptied.
        let mut spare = ranks[half..].iter().filter(|rank| **rank == limit).count();
        self.paths.retain(|_, tally| match tally.rank().cmp(&limit) {
            std::cmp::Ordering::Greater => true,
            std::cmp::Ordering::Less => false,
            std::cmp::Ordering::Equal => {
                let stays = spare > 0;
                spare -= usize::from(stays);
                stays
            }
        });
        self.floor = self.floor.max(limit);
    }
}

impl PathCounts {
    fn add(&mut self, provenance: Provenance, ended: Ended, took: Duration) {
        self.events += 1;
        let took_ns = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.total_ns = self.total_ns.saturating_add(took_ns);
        self.slowest_ns = self.slowest_ns.max(took_ns);
        match provenance {
            Provenance::Held => self.hits += 1,
            Provenance::Fetched => self.misses += 1,
        }
        let for_a_time = ended == Ended::NegativeForNow;
        self.negatives += u64::from(for_a_time || ended == Ended::Negative);
        let was = std::mem::replace(&mut self.absent_for_a_time, for_a_time);
        match (provenance, for_a_time) {
            (Provenance::Held, true) => self.ttl_serves += 1,
            (Provenance::Fetched, true) => {
                self.ttl_stores += 1;
                self.ttl_expires += u64::from(was);
            }
            (_, false) => self.ttl_clears += u64::from(was),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOOK: Duration = Duration::from_micros(1);

    #[test]
    fn those_that_lead_are_the_first_of_all_categories() {
        let paths = HotPaths::new(100);
        for n in 1..=50_u64 {
            let category = Category::ALL[n as usize % 3];
            let path = format!("path {n}");
            // Who is asked for most is fastest.
            let took = Duration::from_nanos(1000 - n);
            for _ in 0..n {
                paths.record(category, path.as_bytes(), Provenance::Held, Ended::Well, took);
            }
        }
        let told = paths.leaders(2);
        let names = |of: &[Leader]| -> Vec<String> {
            of.iter().map(|(_, path, _)| String::from_utf8_lossy(path).into_owned()).collect()
        };
        assert_eq!(names(&told.hottest), ["path 50", "path 49"]);
        assert_eq!(names(&told.slowest), ["path 1", "path 2"]);
        assert_eq!((told.hottest[0].0, told.hottest[0].2.events), (Category::Tree, 50));
        assert_eq!(told.slowest[0].2.slowest_ns, 999);
        assert!(HotPaths::new(100).leaders(2).hottest.is_empty());
    }

    #[test]
    fn as_long_as_there_is_room_everything_is_exact() {
        let paths = HotPaths::new(100);
        for n in 0..100_u64 {
            let path = format!("path {n}");
            for _ in 0..=n {
                paths.record(Category::Data, path.as_bytes(), Provenance::Held, Ended::Well, TOOK);
            }
        }
        let (told, floor) = paths.snapshot(Category::Data);
        assert_eq!((told.len(), floor), (100, 0));
        let of = |n: usize| (&*told[n].0, told[n].1.events);
        assert_eq!((of(0), of(99)), ((&b"path 99"[..], 100), (&b"path 0"[..], 1)));
        assert!(paths.snapshot(Category::Tree).0.is_empty());
        paths.clear(Category::Data);
        assert!(paths.snapshot(Category::Data).0.is_empty());
    }

    #[test]
    fn what_is_asked_for_often_stays_among_any_number_of_others() {
        let paths = HotPaths::new(64);
        for round in 0..1000_u64 {
            for hot in 0..8 {
                let path = format!("hot {hot}");
                paths.record(
                    Category::Metadata,
                    path.as_bytes(),
                    Provenance::Held,
                    Ended::Well,
                    TOOK,
                );
            }
            for other in 0..24 {
                let path = format!("other {round} {other}");
                paths.record(
                    Category::Metadata,
                    path.as_bytes(),
                    Provenance::Fetched,
                    Ended::Well,
                    TOOK,
                );
            }
        }
        let (told, floor) = paths.snapshot(Category::Metadata);
        assert!(told.len() <= 64 && floor > 0);
        for (path, counts) in &told[..8] {
            assert!(path.starts_with(b"hot"), "{}", String::from_utf8_lossy(path));
            assert!(counts.events <= 1000 && counts.events + floor >= 1000, "{counts:?} {floor}");
        }
    }

    #[test]
    fn absences_for_a_time_are_stored_served_and_end() {
        let paths = HotPaths::new(4);
        let all = [
            (Provenance::Fetched, Ended::NegativeForNow),
            (Provenance::Held, Ended::NegativeForNow),
            (Provenance::Fetched, Ended::NegativeForNow),
            (Provenance::Fetched, Ended::Well),
        ];
        for (provenance, ended) in all {
            paths.record(Category::Metadata, b"a", provenance, ended, TOOK);
        }
        let counts = paths.snapshot(Category::Metadata).0[0].1;
        assert_eq!((counts.ttl_stores, counts.ttl_serves), (2, 1));
        assert_eq!((counts.ttl_expires, counts.ttl_clears), (1, 1));
        assert_eq!((counts.events, counts.hits, counts.misses, counts.negatives), (4, 1, 3, 3));
        assert_eq!((counts.total_ns, counts.slowest_ns), (4_000, 1_000));
    }
}
