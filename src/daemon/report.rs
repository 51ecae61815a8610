//! What `copper status` shows of a rank. Names and shape are stable: people script on them.

mod leaders;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::Instant;

use copper_engine::{Counters, Recorder};
use copper_fuse::{CounterValues, HotPaths, Mounted, OperationValues, Operations};
use copper_launcher::{Job, Progress, Rendezvous, job::host_name};
use copper_proto::{Forest, Rank};
use serde::Serialize;
use serde_json::{Map, Value, json};
use tracing::info;

use super::refreshing::Refreshing;
use super::{Plan, resident};
use crate::source::SourceCounters;

/// A rank's part in one tree.
#[derive(Debug, Serialize)]
struct TreeReport {
    root: u32,
    /// Links to the root.
    level: usize,
    parent: Option<u64>,
    reads_source: bool,
    /// `root`, `child`, `joining`, `stands-in`, `degraded` or `orphan`.
    role: &'static str,
    /// Which parent was lost last, and why.
    lost: Option<String>,
}

/// Reads counters that others write; asks nobody.
#[derive(Debug)]
pub(super) struct Reporter {
    pub(super) rank: Rank,
    pub(super) size: u32,
    pub(super) host: String,
    pub(super) job: Job,
    pub(super) engine: Arc<Counters>,
    pub(super) recorder: Arc<Recorder>,
    /// The engine's moment 0.
    pub(super) origin: Arc<OnceLock<Instant>>,
    pub(super) source: Arc<SourceCounters>,
    pub(super) operations: Arc<Operations>,
    /// What paths are asked for, if that is counted.
    pub(super) paths: Option<Arc<HotPaths>>,
    pub(super) refreshing: Arc<Refreshing>,
    forest: Forest,
    memory_bytes: u64,
    source_access: &'static str,
    started: Instant,
    registered_us: OnceLock<u64>,
    ready_us: OnceLock<u64>,
    state: Mutex<&'static str>,
    fabric: OnceLock<(String, String)>,
    mounted: OnceLock<Weak<Mounted>>,
    rendezvous: OnceLock<Weak<Rendezvous>>,
}

impl Reporter {
    pub(super) fn new(plan: &Plan) -> Reporter {
        Reporter {
            rank: plan.rank,
            size: plan.forest.size(),
            host: host_name(),
            job: plan.job.clone(),
            engine: Arc::default(),
            recorder: Arc::default(),
            origin: Arc::default(),
            source: Arc::default(),
            operations: Arc::default(),
            paths: plan.profile.and_then(|profile| profile.paths.table()),
            refreshing: Arc::default(),
            forest: plan.forest,
            memory_bytes: plan.memory_bytes,
            source_access: match plan.source {
                super::SourceAccess::Direct => "direct",
                super::SourceAccess::None => "none",
            },
            started: Instant::now(),
            registered_us: OnceLock::new(),
            ready_us: OnceLock::new(),
            state: Mutex::new("starting"),
            fabric: OnceLock::new(),
            mounted: OnceLock::new(),
            rendezvous: OnceLock::new(),
        }
    }

    pub(super) fn set_state(&self, state: &'static str) {
        if state == "ready" {
            let _first = self.ready_us.set(self.running_us());
        }
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = state;
    }

    /// The time since the daemon was started.
    fn running_us(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    pub(super) fn set_fabric(&self, provider: &str, domain: &str) {
        let _first = self.fabric.set((provider.to_owned(), domain.to_owned()));
        let _first = self.registered_us.set(self.running_us());
        // Scripts of release 1.0 look for this line.
        info!("provider registration completed after {} us", self.running_us());
    }

    pub(super) fn set_mounted(&self, mounted: &Arc<Mounted>) {
        let _first = self.mounted.set(Arc::downgrade(mounted));
    }

    pub(super) fn set_rendezvous(&self, rendezvous: &Arc<Rendezvous>) {
        let _first = self.rendezvous.set(Arc::downgrade(rendezvous));
    }

    /// How far this rank and all below it have come, and the depth of the tree; `None` before this
    /// rank looks for its parent.
    pub(super) fn progress(&self) -> Option<(Progress, u32)> {
        let rendezvous = self.rendezvous.get().and_then(Weak::upgrade)?;
        Some((rendezvous.progress(), rendezvous.depth()))
    }

    /// The rank as one JSON object.
    pub(super) fn report(&self) -> Value {
        let trees: Vec<TreeReport> = self.trees().collect();
        let mounted = self.mounted.get().and_then(Weak::upgrade);
        let operations = self.operations.snapshot();
        json!({
            "rank": self.rank.0,
            "size": self.size,
            "pid": std::process::id(),
            "host": self.host,
            "job": self.job.as_str(),
            "version": env!("CARGO_PKG_VERSION"),
            "state": self.state(&trees),
            "parent": trees[0].parent,
            "level": trees[0].level,
            "moved": Reporter::moved(&trees),
            "trees": trees,
            "fanout": self.forest.fanout(),
            "progress": self.progress_report(),
            "uptime_s": self.started.elapsed().as_secs(),
            "mount": mounted.as_ref().map(|mounted| mounted.point().to_string_lossy().into_owned()),
            "bootstrap": {
                "registered_us": self.registered_us.get(),
                "ready_us": self.ready_us.get(),
            },
            "totals": totals_report(&operations),
            "operations": operations_report(&operations),
            "source": self.source_report(),
            "fabric": self.fabric_report(),
            "fuse": mounted.as_ref().map(|mounted| fuse_report(mounted)),
            "kernel": mounted.as_ref().map(|mounted| kernel_report(mounted)),
            "cache": self.cache_report(),
            "absences": self.absences_report(),
            "spill": self.spill_report(),
            "memory": resident::report(self.memory_bytes),
            "under_way": self.under_way_report(),
            "links": self.links_report(),
            "refresh": self.refresh_report(),
        })
    }

    /// What another rank is told of this one: the numbers that the tables of `copper status` and
    /// `copper top` show, and those by which trouble shows. Some 1,500 bytes, and as many more where
    /// paths are counted.
    pub(super) fn short_report(&self) -> Value {
        let trees: Vec<TreeReport> = self.trees().collect();
        let mounted = self.mounted.get().and_then(Weak::upgrade);
        let pick = |whole: Value, names: &[&str]| {
            let pairs = names.iter().map(|&name| (name.to_owned(), whole[name].clone()));
            Value::Object(pairs.collect::<Map<_, _>>())
        };
        let (source, fabric) = (self.source_report(), self.fabric_report());
        let operations = self.operations.snapshot();
        let fabric_names = [
            "provider",
            "pulls",
            "pulled_bytes",
            "served_bytes",
            "messages_dropped",
            "checksum_failures",
        ];
        json!({
            "rank": self.rank.0,
            "size": self.size,
            "pid": std::process::id(),
            "host": self.host,
            "version": env!("CARGO_PKG_VERSION"),
            "state": self.state(&trees),
            "parent": trees[0].parent,
            "level": trees[0].level,
            "moved": Reporter::moved(&trees),
            "totals": totals_report(&operations),
            "slowest_operation": leaders::slowest_operation(&operations),
            "leaders": self.paths.as_deref().map(leaders::report),
            "under_way": self.under_way_report(),
            "uptime_s": self.started.elapsed().as_secs(),
            "mount": mounted.as_ref().map(|mounted| mounted.point().to_string_lossy().into_owned()),
            "source": pick(source, &["access", "opens", "reads", "bytes", "refused", "degraded_reads"]),
            "fabric": pick(fabric, &fabric_names),
            "cache": pick(self.cache_report(), &["bytes", "limit_bytes", "misses", "starved"]),
            "links": pick(self.links_report(), &["children", "refused_connections"]),
            "kernel": mounted.as_ref().map(|mounted| kernel_report(mounted)),
            "progress": self.progress_report(),
        })
    }

    /// `ready`, or why it is less than that.
    fn state(&self, trees: &[TreeReport]) -> &'static str {
        let state = *self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let troubles = ["orphan", "degraded", "stands-in"];
        let mut found = troubles.into_iter().filter(|it| trees.iter().any(|of| of.role == *it));
        match state {
            "ready" => found.next().unwrap_or(state),
            state => state,
        }
    }

    fn trees(&self) -> impl Iterator<Item = TreeReport> {
        let counted = self.engine.trees.iter();
        let rendezvous = self.rendezvous.get().and_then(Weak::upgrade);
        let ways = rendezvous.map(|rendezvous| rendezvous.hangs_on()).unwrap_or_default();
        self.forest.trees().zip(counted).map(move |((index, tree), counted)| {
            let parent = get(&counted.parent_plus_one).checked_sub(1);
            let reads_source = get(&counted.reads_source) == 1;
            let way = ways.iter().find(|way| way.tree == index);
            TreeReport {
                root: tree.root().0,
                level: tree.ancestors(self.rank).count(),
                parent,
                reads_source,
                role: match (parent, reads_source) {
                    _ if tree.root() == self.rank => "root",
                    (Some(_), _) => "child",
                    (None, true) if tree.is_successor(self.rank) => "stands-in",
                    (None, true) => "degraded",
                    (None, false) if way.is_some_and(|way| way.orphaned) => "orphan",
                    // Readers wait meanwhile.
                    (None, false) => "joining",
                },
                lost: way.and_then(|way| way.lost.clone()),
            }
        })
    }

    /// The trees in which this rank has lost a parent, for who asks from far away.
    fn moved(trees: &[TreeReport]) -> Value {
        let moved = (0..).zip(trees).filter_map(|(index, tree): (u32, _)| {
            let lost = tree.lost.as_ref()?;
            Some(json!({ "tree": index, "parent": tree.parent, "role": tree.role, "lost": lost }))
        });
        moved.collect()
    }

    fn source_report(&self) -> Value {
        let source = &*self.source;
        json!({
            "access": self.source_access,
            "opens": get(&source.opens),
            "reads": get(&source.reads),
            "bytes": get(&source.bytes),
            "stats": get(&source.stats),
            "listings": get(&source.listings),
            "extended_attributes": get(&source.extended_attributes),
            "data_ranges": get(&source.data_ranges),
            "refused": get(&source.refused),
            "degraded_reads": get(&self.engine.degraded_reads),
        })
    }

    fn fabric_report(&self) -> Value {
        let engine = &*self.engine;
        let (provider, domain) = self.fabric.get().cloned().unzip();
        json!({
            "provider": provider,
            "domain": domain,
            "pulls": get(&engine.pulls),
            "pulled_bytes": get(&engine.pulled_bytes),
            "served_bytes": get(&engine.served_bytes),
            "inlined": get(&engine.inlined),
            "messages_sent": get(&engine.messages_sent),
            "messages_received": get(&engine.messages_received),
            "messages_dropped": get(&engine.messages_dropped),
            "retries": get(&engine.retries),
            "checksum_failures": get(&engine.checksum_failures),
            "quarantined": get(&engine.quarantined),
            "expired": get(&engine.expired),
            "violations": get(&engine.violations),
            "given_up": get(&engine.given_up),
            "recalled": get(&engine.recalled),
        })
    }

    fn cache_report(&self) -> Value {
        let engine = &*self.engine;
        json!({
            "blocks": get(&engine.blocks),
            "bytes": get(&engine.bytes),
            "limit_bytes": get(&engine.limit_bytes),
            "pinned_bytes": get(&engine.pinned_bytes),
            "evicted_blocks": get(&engine.evicted_blocks),
            "refetched_bytes": get(&engine.refetched_bytes),
            "directories": get(&engine.directories),
            "attributes": get(&engine.attributes),
            "inodes": get(&engine.inodes),
            "inodes_surplus": get(&engine.inodes_surplus),
            "fetches": get(&engine.fetches),
            "misses": get(&engine.misses),
            "fetched_ahead": get(&engine.fetched_ahead),
            "fetched_ahead_read": get(&engine.fetched_ahead_read),
            "fetched_ahead_evicted": get(&engine.fetched_ahead_evicted),
            "starved": get(&engine.starved),
        })
    }

    /// Of absences that are believed for a time only.
    fn absences_report(&self) -> Value {
        let engine = &*self.engine;
        json!({
            "stored": get(&engine.absences_stored),
            "served": get(&engine.absences_served),
            "expired": get(&engine.absences_expired),
            "cleared": get(&engine.absences_cleared),
        })
    }

    /// All zero without `--spill`.
    fn spill_report(&self) -> Value {
        let engine = &*self.engine;
        json!({
            "written_bytes": get(&engine.spill_written_bytes),
            "restored_bytes": get(&engine.spill_restored_bytes),
            "dropped": get(&engine.spill_dropped),
            "lost": get(&engine.spill_lost),
            "bytes": get(&engine.spill_bytes),
            "limit_bytes": get(&engine.spill_limit_bytes),
        })
    }

    /// All zero once every reader is answered and every link is idle.
    fn under_way_report(&self) -> Value {
        let engine = &*self.engine;
        json!({
            "questions": get(&engine.questions),
            "fetches": get(&engine.fetches),
            "pulls": get(&engine.pulls_now),
            "quarantined": get(&engine.quarantined_now),
            "source_jobs": get(&engine.source_jobs),
            "leases_given": get(&engine.leases_given),
            "leases_held": get(&engine.leases_held),
            "pinned_bytes": get(&engine.pinned_bytes),
        })
    }

    fn refresh_report(&self) -> Value {
        let (epoch, dropped) = self.refreshing.last();
        json!({
            "epoch": epoch.0,
            "entries": dropped.entries,
            "directories": dropped.directories,
            "blocks": dropped.blocks,
            "bytes": dropped.bytes,
            "taken": get(&self.engine.refreshes),
            "outdated": get(&self.engine.outdated),
        })
    }

    /// Of the root of the first tree, which counts everybody.
    fn progress_report(&self) -> Option<Value> {
        let (progress, depth) = self.progress().filter(|_| self.rank == super::COUNTING_ROOT)?;
        Some(json!({
            "ready": progress.ready,
            "size": progress.size,
            "depth": depth,
            "missing": progress.missing.iter().map(|rank| rank.0).collect::<Vec<_>>(),
        }))
    }

    fn links_report(&self) -> Value {
        let rendezvous = self.rendezvous.get().and_then(Weak::upgrade);
        let counters = rendezvous.as_ref().map(|rendezvous| rendezvous.counters());
        json!({
            "children": get(&self.engine.children),
            "ready_ranks": rendezvous.as_ref().map(|rendezvous| rendezvous.ready_ranks()),
            "handshakes": counters.as_ref().map(|counters| counters.handshakes),
            "refused_connections": counters.as_ref().map(|counters| counters.refused_connections),
            "tcp": counters,
        })
    }
}

/// Every rank of the job that answers, or why nobody else does.
pub(super) fn of_job(rendezvous: &Weak<Rendezvous>) -> Value {
    let Some(rendezvous) = rendezvous.upgrade() else {
        return json!({ "error": "this rank is ending" });
    };
    match rendezvous.gather() {
        Ok(reports) => {
            let parsed = reports.values().filter_map(|report| serde_json::from_slice(report).ok());
            json!({ "ranks": parsed.collect::<Vec<Value>>() })
        }
        Err(error) => json!({ "error": error.to_string() }),
    }
}

fn totals_report(operations: &[OperationValues]) -> Value {
    let sum = |of: fn(&OperationValues) -> u64| operations.iter().map(of).sum::<u64>();
    json!({
        "calls": sum(OperationValues::calls),
        "hits": sum(|row| row.hits),
        "misses": sum(|row| row.misses),
        "negatives": sum(|row| row.negatives),
        "errors": sum(|row| row.errors),
    })
}

fn operations_report(operations: &[OperationValues]) -> Value {
    let row = |row: &OperationValues| {
        let latency = &row.latency;
        let values = json!({
            "calls": row.calls(),
            "hits": row.hits,
            "misses": row.misses,
            "negatives": row.negatives,
            "errors": row.errors,
            "latency": {
                "total_ns": latency.total_ns(),
                "p50_ns": latency.quantile_ns(0.5),
                "p90_ns": latency.quantile_ns(0.9),
                "p99_ns": latency.quantile_ns(0.99),
                "max_ns": latency.max_ns(),
                "buckets": latency.filled().collect::<Vec<_>>(),
            },
        });
        (row.operation.name().to_owned(), values)
    };
    Value::Object(operations.iter().map(row).collect())
}

fn fuse_report(mounted: &Mounted) -> Value {
    let counters = mounted.counters().list();
    let fields = counters.into_iter().map(|(name, value)| (name.to_owned(), Value::from(value)));
    Value::Object(fields.collect::<Map<_, _>>())
}

fn kernel_report(mounted: &Mounted) -> Value {
    let negotiated = mounted.negotiated();
    let CounterValues { read_request_bytes_max: read_max, read: reads, read_bytes, .. } =
        mounted.counters();
    let names = |features: copper_fuse::KernelFeatures| {
        features.list().into_iter().map(copper_fuse::Feature::name).collect::<Vec<_>>()
    };
    json!({
        "protocol": format!("{}.{}", negotiated.protocol.0, negotiated.protocol.1),
        "asked": names(negotiated.asked),
        "granted": names(negotiated.granted),
        "passthrough": mounted.passthrough().to_string(),
        "flags": negotiated.flags,
        "max_readahead": negotiated.max_readahead,
        "read_request_bytes_max": read_max,
        "read_request_bytes_mean": read_bytes.checked_div(reads),
    })
}

fn get(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}
