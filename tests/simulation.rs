//! The protocol and the cache of 2 to 64 nodes in one process, under virtual time, from one seed:
//! random delays, links that overtake each other, ranks that die, a source that fails, arenas that
//! are too small. `COPPER_SEED=N` replays one run; `COPPER_SEEDS=N` runs that many fresh ones.

#![allow(clippy::print_stderr, reason = "a failing run is replayed from what it prints")]

#[path = "simulation/disk.rs"]
mod disk;
#[path = "simulation/planted.rs"]
mod planted;
#[path = "simulation/random.rs"]
mod random;
#[path = "simulation/source.rs"]
mod source;
#[path = "simulation/world.rs"]
mod world;

use copper_proto::limits::AHEAD_BLOCKS_MAX;
use random::Random;
use world::{Faults, Plan, Report, World};

/// Runs one seed and checks everything that must hold at its end.
fn run(seed: u64, adjust: impl FnOnce(&mut Plan)) -> Report {
    let mut plan = Plan::random(&mut Random::new(seed));
    adjust(&mut plan);
    eprintln!("seed {seed}: {plan:?}");
    World::new(seed, plan).run()
}

fn seeds(first: u64, count: u64) -> impl Iterator<Item = u64> {
    let one = std::env::var("COPPER_SEED").ok().and_then(|seed| seed.parse().ok());
    let more = std::env::var("COPPER_SEEDS").ok().and_then(|count| count.parse().ok());
    match one {
        Some(seed) => seed..seed + 1,
        None => first..first + more.unwrap_or(count),
    }
}

#[test]
fn without_faults_each_object_is_read_once_and_every_reader_gets_the_source_s_bytes() {
    for seed in seeds(1, 60) {
        let report = run(seed, |plan| {
            plan.faults = Faults::default();
            plan.arena_bytes = 1 << 30;
        });
        assert_eq!(report.errors, 0, "seed {seed}");
        assert_eq!(report.source_reads_max, 1, "seed {seed}: something was read twice");
        assert_eq!(report.reads_elsewhere, 0, "seed {seed}: not by the root of its tree");
        assert_eq!(report.checksum_failures, 0, "seed {seed}");
        assert_eq!(report.evictions, 0, "seed {seed}");
    }
}

#[test]
fn several_trees_have_several_readers_of_the_source_and_each_object_one() {
    let (mut runs, mut all_read) = (0, 0);
    for seed in seeds(8000, 60) {
        let mut trees = 0;
        let report = run(seed, |plan| {
            plan.faults = Faults::default();
            plan.arena_bytes = 1 << 30;
            plan.nodes = plan.nodes.max(4);
            plan.trees = 2 + plan.trees % 3;
            trees = plan.trees as usize;
        });
        assert_eq!((report.errors, report.reads_elsewhere), (0, 0), "seed {seed}");
        assert_eq!(report.source_reads_max, 1, "seed {seed}: something was read twice");
        assert!(report.source_readers <= trees, "seed {seed}: {}", report.source_readers);
        runs += 1;
        all_read += u32::from(report.source_readers == trees);
    }
    // Some of these worlds have few objects, or few readers.
    assert!(all_read * 4 >= runs * 3, "all roots read in {all_read} of {runs} worlds");
}

#[test]
fn what_is_above_the_bound_is_read_by_whoever_wants_it() {
    let (mut elsewhere, mut errors) = (0, 0);
    for seed in seeds(9000, 30) {
        let report = run(seed, |plan| {
            plan.faults = Faults::default();
            plan.arena_bytes = 256 << 20;
            plan.fallback = true;
            plan.files.direct_above = Some(4 << 20);
        });
        elsewhere += report.reads_elsewhere;
        errors += report.errors;
    }
    assert!(elsewhere > 0, "some file was meant to be larger");
    assert_eq!(errors, 0);
}

#[test]
fn small_arenas_evict_and_wait_but_never_lie() {
    let mut evictions = 0;
    for seed in seeds(1000, 60) {
        let report = run(seed, |plan| {
            plan.faults = Faults::default();
            plan.arena_bytes = 8 << 20;
        });
        evictions += report.evictions;
        assert_eq!(report.errors, 0, "seed {seed}");
        assert_eq!(
            report.checksum_failures, 0,
            "seed {seed}: an extent was recycled under a lease"
        );
    }
    assert!(evictions > 0, "the arenas were meant to be too small");
}

/// Arenas that are too small beside spill files that are not.
fn spilling(plan: &mut Plan) {
    plan.faults = Faults::default();
    (plan.arena_bytes, plan.spill_bytes) = (8 << 20, 256 << 20);
}

#[test]
fn what_was_evicted_comes_back_from_the_spill() {
    let (mut restored, mut evictions) = (0, 0);
    for seed in seeds(10_000, 60) {
        let report = run(seed, spilling);
        assert_eq!((report.errors, report.checksum_failures), (0, 0), "seed {seed}");
        assert_eq!(report.spill_lost, 0, "seed {seed}: a copy was not what was written");
        restored += report.restored_bytes;
        evictions += report.evictions;
    }
    assert!(evictions > 0 && restored > 0, "{evictions} evictions, {restored} bytes restored");
}

#[test]
fn a_spill_that_fails_and_stalls_costs_no_reader_an_error_or_a_wrong_byte() {
    let (mut restored, mut lost) = (0, 0);
    for seed in seeds(10_500, 120) {
        let report = run(seed, |plan| {
            spilling(plan);
            plan.spill_bytes = *[16 << 20, 256 << 20].get(seed as usize % 2).expect("two");
            plan.faults.spill_fails = 3;
        });
        assert_eq!((report.errors, report.checksum_failures), (0, 0), "seed {seed}");
        restored += report.restored_bytes;
        lost += report.spill_lost;
    }
    assert!(restored > 0 && lost > 0, "{restored} bytes restored, {lost} copies lost");
}

#[test]
fn copies_that_are_not_verified_are_seen_by_the_reader_s_check() {
    let found = seeds(10_500, 60).any(|seed| {
        let plan = |plan: &mut Plan| {
            spilling(plan);
            plan.faults.spill_fails = 3;
            plan.ignore_checksums = true;
        };
        std::panic::catch_unwind(|| run(seed, plan)).is_err()
    });
    assert!(found, "the planted bug was never found: restored bytes are not looked at");
}

#[test]
fn a_reader_of_a_large_file_misses_little_and_brings_one_window_beyond_its_last_block() {
    for seed in seeds(8000, 60) {
        // What is fetched ahead by a tree that has no parent yet is dropped.
        let mut misses = 4;
        let report = run(seed, |plan| {
            plan.faults = Faults::default();
            plan.arena_bytes = 1 << 30;
            (plan.readers, plan.streams) = (0, 1);
            misses += u64::from(plan.trees - 1).min(2);
        });
        assert_eq!(report.errors, 0, "seed {seed}");
        assert_eq!(report.source_reads_max, 1, "seed {seed}: something was read twice");
        assert!(report.touched > 0 && report.misses <= misses, "seed {seed}: {report:?}");
        let window = u64::from(AHEAD_BLOCKS_MAX);
        assert!(report.fetched <= report.touched + window, "seed {seed}: {report:?}");
    }
}

#[test]
fn ranks_that_die_and_a_source_that_fails_cost_errors_but_no_wrong_byte_and_no_hang() {
    let mut deaths = 0;
    for seed in seeds(2000, 120) {
        let report = run(seed, |plan| plan.faults.deaths = plan.faults.deaths.max(1));
        deaths += report.deaths;
        assert_eq!(report.checksum_failures, 0, "seed {seed}");
    }
    assert!(deaths > 0, "somebody was meant to die");
}

#[test]
fn a_lost_inner_rank_costs_no_reader_an_error() {
    for seed in seeds(3000, 60) {
        let report = run(seed, |plan| {
            plan.faults = Faults { deaths: 2, ..Faults::default() };
            plan.arena_bytes = 256 << 20;
        });
        assert_eq!(report.errors, 0, "seed {seed}");
        assert_eq!(report.source_reads_max, 1, "seed {seed}: something was read twice");
    }
}

#[test]
fn a_lost_root_is_replaced_and_costs_no_reader_an_error() {
    let (mut held_below, mut recalled, mut deaths) = (0, 0, 0);
    for seed in seeds(3500, 200) {
        let report = run(seed, |plan| {
            plan.faults = Faults { deaths: 3, root_dies: true, ..Faults::default() };
            plan.arena_bytes = 1 << 30;
            (plan.fallback, plan.spill_bytes) = (true, 0);
            (plan.nodes, plan.trees) = (plan.nodes.clamp(5, 9), 1 + plan.trees % 2);
        });
        assert_eq!(report.errors, 0, "seed {seed}");
        held_below += report.held_below;
        recalled += report.recalled;
        deaths += report.deaths;
    }
    // A child's word that it holds something may still be on its way.
    assert!(held_below * 100 <= recalled, "{held_below} of {recalled} read again, {deaths} deaths");
    assert!(recalled > 50, "{recalled}: what was held was meant to be asked for");
}

#[test]
fn a_fabric_that_fails_while_the_control_channel_lives_is_noticed_and_gone_around() {
    let (mut given_up, mut failed) = (0, 0);
    for seed in seeds(3800, 200) {
        let report = run(seed, |plan| {
            plan.faults = Faults { cuts: 3, ..Faults::default() };
            plan.arena_bytes = 1 << 30;
            (plan.fallback, plan.spill_bytes) = (true, 0);
            (plan.nodes, plan.trees) = (plan.nodes.clamp(5, 9), 1 + plan.trees % 2);
        });
        failed += report.errors;
        given_up += report.given_up;
    }
    assert_eq!(failed, 0, "who has another way gets its bytes");
    assert!(given_up > 100, "{given_up}: links were meant to be cut");
}

#[test]
fn a_pull_that_stalls_ends_in_quarantine_and_its_late_bytes_land_nowhere_else() {
    let mut quarantined = 0;
    for seed in seeds(6000, 60) {
        let report = run(seed, |plan| {
            plan.faults = Faults { pulls_stall: 5, ..Faults::default() };
            plan.arena_bytes = 32 << 20;
        });
        quarantined += report.quarantined;
    }
    assert!(quarantined > 0, "pulls were meant to stall");
}

#[test]
fn an_object_larger_than_the_arena_costs_an_error_and_nobody_else_waits_for_it() {
    let mut errors = 0;
    for seed in seeds(7000, 30) {
        let report = run(seed, |plan| {
            plan.faults = Faults::default();
            plan.arena_bytes = 512 << 10;
        });
        assert!(report.end < copper_proto::Tick(10_000_000_000), "seed {seed}: {:?}", report.end);
        errors += report.errors;
    }
    assert!(errors > 0, "some object was meant to be larger than the arena");
}

#[test]
fn a_parent_that_recycles_under_a_lease_is_found_by_the_checksum() {
    let found = seeds(4000, 60).any(|seed| {
        let report = run(seed, |plan| {
            plan.faults = Faults::default();
            plan.arena_bytes = 8 << 20;
            plan.ignore_pins = true;
        });
        report.checksum_failures > 0
    });
    assert!(found, "the planted bug was never found: this simulation cannot see a recycled extent");
}

#[test]
fn bytes_that_are_not_verified_are_seen_by_the_reader_s_check() {
    let found = seeds(5000, 60).any(|seed| {
        let plan = |plan: &mut Plan| {
            plan.faults = Faults::default();
            plan.arena_bytes = 8 << 20;
            plan.ignore_pins = true;
            plan.ignore_checksums = true;
        };
        std::panic::catch_unwind(|| run(seed, plan)).is_err()
    });
    assert!(found, "the planted bug was never found: this simulation does not look at the bytes");
}

/// Many refreshes of a source that changes all the time.
fn refreshing(plan: &mut Plan) {
    plan.faults = Faults::default();
    plan.arena_bytes = 64 << 20;
    (plan.changes, plan.refreshes) = (60, 30);
}

#[test]
fn who_asks_after_a_refresh_is_shown_nothing_older() {
    let mut outdated = 0;
    for seed in seeds(8000, 120) {
        let report = run(seed, |plan| {
            refreshing(plan);
            plan.disorder = seed % 2 == 0;
        });
        assert_eq!(report.errors, 0, "seed {seed}");
        assert_eq!(report.checksum_failures, 0, "seed {seed}");
        assert!(report.dropped > 0, "seed {seed}: nothing was refreshed");
        outdated += report.outdated;
    }
    assert!(outdated > 0, "something was meant to be under way during a refresh");
}

#[test]
fn refreshes_among_deaths_and_stalls_show_nothing_older_and_no_request_hangs() {
    for seed in seeds(8500, 120) {
        let report = run(seed, |plan| {
            let faults = plan.faults.clone();
            refreshing(plan);
            plan.faults = Faults { deaths: faults.deaths.max(1), ..faults };
            plan.arena_bytes = *[8 << 20, 64 << 20].get(seed as usize % 2).expect("two");
            plan.spill_bytes = *[0, 32 << 20].get(seed as usize / 2 % 2).expect("two");
        });
        assert_eq!(report.checksum_failures, 0, "seed {seed}");
    }
}

#[test]
fn a_copy_that_outlives_a_refresh_is_seen_by_the_reader_s_check() {
    let found = seeds(11_000, 60).any(|seed| {
        let plan = |plan: &mut Plan| {
            refreshing(plan);
            (plan.arena_bytes, plan.spill_bytes) = (2 << 20, 64 << 20);
            plan.ignore_refreshed_copies = true;
        };
        std::panic::catch_unwind(|| run(seed, plan)).is_err()
    });
    assert!(found, "the planted bug was never found: restored objects are not looked at for age");
}

#[test]
fn a_parent_that_answers_from_before_a_refresh_is_seen_by_the_reader_s_check() {
    let found = seeds(9000, 60).any(|seed| {
        let plan = |plan: &mut Plan| {
            refreshing(plan);
            (plan.disorder, plan.ignore_epochs) = (true, true);
        };
        std::panic::catch_unwind(|| run(seed, plan)).is_err()
    });
    assert!(found, "the planted bug was never found: this simulation does not look at the age");
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let report = |seed| run(seed, |_| ());
    assert_eq!(report(77), report(77));
}
