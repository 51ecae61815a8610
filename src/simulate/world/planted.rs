//! That what is wrong ends a run: checks that have never failed prove nothing. States are planted, and
//! bugs of the protocol, each in every rank; the same job without the bug passes.

use std::num::NonZeroU32;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use copper_proto::{Bug, Tick};

use super::World;
use crate::simulate::constants::Constants;
use crate::simulate::program::Program;
use crate::simulate::{Faults, Plan};

/// Jobs that a bug may take; the slowest takes three.
const SEEDS_MAX: u64 = 40;

fn plan(seed: u64, arena_bytes: u64, faults: Faults) -> Plan {
    let nonzero = |value| NonZeroU32::new(value).expect("not zero");
    Plan {
        nodes: nonzero(8),
        processes: nonzero(2),
        trees: nonzero(1),
        fanout: nonzero(3),
        seed,
        arena_bytes,
        faults,
        processors: None,
        constants: Constants::default(),
    }
}

fn large(seed: u64) -> Plan {
    plan(seed, 1 << 30, Faults::default())
}

#[test]
fn a_reader_who_is_never_answered_is_found() {
    let (plan, program) = (large(1), Program::torch());
    let mut world = World::new(&plan, &program);
    // Its question was asked, as far as it knows.
    world.hosts[3].readers.asked = Some(Tick(0));
    let broken = world.run(&mut |_| ()).expect_err("rank 3 waits for ever").to_string();
    assert!(broken.contains("rank 3") && broken.contains("waits for"), "{broken}");
}

#[test]
fn a_block_that_is_read_twice_is_found() {
    let (plan, program) = (large(1), Program::torch());
    let mut world = World::new(&plan, &program);
    world.object_reads[5].count = 1;
    let broken = world.run(&mut |_| ()).expect_err("object 5 is read again").to_string();
    assert!(broken.contains("was read 2 times"), "{broken}");
}

/// Runs a job of the small program, with a bug in every rank: what was found to be wrong.
fn finds(plan: &Plan, program: &Program, bug: Option<Bug>) -> Option<String> {
    let run = || {
        let mut world = World::new(plan, program);
        world.planted = bug;
        for host in &mut world.hosts {
            bug.into_iter().for_each(|bug| host.member.plant(bug));
        }
        world.run(&mut |_| ())
    };
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(result) => result.err().map(|broken| broken.to_string()),
        Err(_) => Some("an assertion".to_owned()),
    }
}

/// Some seed of few finds the bug under these circumstances, and says so in these words; without the
/// bug nothing is wrong.
fn is_found(bug: Bug, arena_bytes: u64, faults: Faults, words: &str) {
    let program = Program::small();
    let found = (1..=SEEDS_MAX).find_map(|seed| {
        let plan = plan(seed, arena_bytes, faults);
        assert_eq!(finds(&plan, &program, None), None, "seed {seed} fails without a bug");
        finds(&plan, &program, Some(bug)).map(|what| (seed, what))
    });
    let (seed, what) = found.unwrap_or_else(|| panic!("{SEEDS_MAX} seeds do not find {bug:?}"));
    assert!(what.contains(words), "seed {seed}: {what}");
}

/// Arenas too small for what is read, so that extents change hands, and pulls that take long.
const CROWDED: u64 = 8 << 20;

#[test]
fn a_parent_that_does_not_keep_to_its_leases_is_found() {
    let late = Faults { jitter: Duration::from_millis(50), ..Faults::default() };
    is_found(Bug::LeaseIgnored, CROWDED, late, "pulled something else than was granted");
}

#[test]
fn a_lease_that_is_returned_before_its_pull_ends_is_found() {
    let late = Faults { jitter: Duration::from_millis(50), ..Faults::default() };
    is_found(Bug::LeaseReturnedEarly, CROWDED, late, "pulled something else than was granted");
}

#[test]
fn an_error_that_is_remembered_as_an_answer_is_found() {
    let failing = Faults { source_fails: 10, ..Faults::default() };
    is_found(Bug::ErrorCached, 1 << 30, failing, "is shown something else");
}

#[test]
fn a_retry_without_a_bound_is_found() {
    let poisoned = Faults { poisoned: true, ..Faults::default() };
    is_found(Bug::RetriedForEver, 1 << 30, poisoned, "times in a row");
}

#[test]
fn a_checksum_that_is_not_looked_at_is_found() {
    let corrupt = Faults { pulls_corrupt: 50, ..Faults::default() };
    is_found(Bug::ChecksumIgnored, 1 << 30, corrupt, "is shown something else");
}

#[test]
fn a_credit_that_is_never_given_back_is_found() {
    let stalling = Faults { pulls_stall: 50, ..Faults::default() };
    is_found(Bug::CreditLeaked, 1 << 30, stalling, "closes link");
}

#[test]
fn an_extent_that_is_free_before_its_late_pull_ends_is_found() {
    let stalling = Faults { pulls_stall: 20, ..Faults::default() };
    is_found(Bug::QuarantineSkipped, CROWDED, stalling, "something else");
}

#[test]
fn drawn_jobs_keep_every_invariant() {
    for seed in 1..=100 {
        let plan = Plan::drawn(seed);
        let report = World::new(&plan, &Program::small()).run(&mut |_| ());
        report.unwrap_or_else(|broken| panic!("seed {seed}: {broken}"));
    }
}
