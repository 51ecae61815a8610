//! Bugs of the protocol, each planted in every node, and the bounded number of seeds that find it.
//! The same runs without the bug pass: what is found is the bug and nothing else.

use std::panic::{AssertUnwindSafe, catch_unwind};

use copper_proto::Bug;

use crate::run;
use crate::world::{Faults, Plan};

/// Seeds that a bug may take; the slowest took four when this was written.
const SEEDS_MAX: u64 = 40;

/// Arenas too small for what is read, so that extents change hands.
fn crowded(plan: &mut Plan) {
    plan.faults = Faults::default();
    plan.arena_bytes = 8 << 20;
}

/// Pulls that take longer than their bound, so that their bytes come late.
fn stalling(plan: &mut Plan) {
    plan.faults = Faults { pulls_stall: 3, ..Faults::default() };
    plan.arena_bytes = 32 << 20;
}

/// What shows a run to be wrong: an assertion of the simulation or the protocol, or, where no fault
/// explains them, bytes that do not match their checksum.
fn is_wrong(seed: u64, adjust: impl FnOnce(&mut Plan)) -> bool {
    let report = catch_unwind(AssertUnwindSafe(|| run(seed, adjust)));
    report.map_or(true, |report| report.checksum_failures > 0)
}

/// Finds the bug within [`SEEDS_MAX`] seeds; those before it, and itself, pass without the bug.
fn finds(first: u64, bug: Bug, circumstances: impl Fn(&mut Plan)) {
    let found = (first..first + SEEDS_MAX).find(|&seed| {
        assert!(!is_wrong(seed, &circumstances), "seed {seed} fails without a bug");
        is_wrong(seed, |plan| {
            circumstances(plan);
            plan.planted = Some(bug);
        })
    });
    let seed = found.unwrap_or_else(|| panic!("{SEEDS_MAX} seeds do not find {bug:?}"));
    eprintln!("{bug:?} is found by seed {seed}, after {} that do not", seed - first);
}

#[test]
fn a_lease_that_is_returned_before_its_pull_ends_is_found() {
    finds(20_000, Bug::LeaseReturnedEarly, crowded);
}

#[test]
fn an_extent_that_is_free_before_its_late_pull_ends_is_found() {
    finds(21_000, Bug::QuarantineSkipped, stalling);
}

#[test]
fn a_credit_that_is_never_given_back_is_found() {
    finds(22_000, Bug::CreditLeaked, stalling);
}

#[test]
fn a_checksum_that_is_not_looked_at_is_found() {
    // Something has to be wrong with the bytes: the parents recycle under leases.
    let recycling = |plan: &mut Plan| {
        crowded(plan);
        plan.ignore_pins = true;
    };
    let found = (23_000..23_000 + SEEDS_MAX).find(|&seed| {
        let sound = catch_unwind(|| run(seed, recycling));
        let sound = sound.unwrap_or_else(|_| panic!("seed {seed}: checksums protect the readers"));
        let bug = |plan: &mut Plan| {
            recycling(plan);
            plan.planted = Some(Bug::ChecksumIgnored);
        };
        sound.checksum_failures > 0 && catch_unwind(|| run(seed, bug)).is_err()
    });
    let seed = found.unwrap_or_else(|| panic!("{SEEDS_MAX} seeds do not find it"));
    eprintln!("it is found by seed {seed}");
}
