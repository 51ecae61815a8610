//! That what is wrong ends a run: checks that have never failed prove nothing.

use std::num::NonZeroU32;

use super::World;
use crate::simulate::Plan;
use crate::simulate::program::Program;

fn plan(seed: u64, arena_bytes: u64) -> Plan {
    let nonzero = |value| NonZeroU32::new(value).expect("not zero");
    Plan {
        nodes: nonzero(8),
        processes: nonzero(2),
        trees: nonzero(1),
        fanout: nonzero(3),
        seed,
        arena_bytes,
        killed_permille: 0,
    }
}

#[test]
fn a_reader_who_is_never_answered_is_found() {
    let (plan, program) = (plan(1, 1 << 30), Program::torch());
    let mut world = World::new(&plan, &program);
    // Its question was asked, as far as it knows.
    world.hosts[3].readers.asked = true;
    let broken = world.run().expect_err("rank 3 waits for ever").to_string();
    assert!(broken.contains("rank 3") && broken.contains("waits for"), "{broken}");
}

#[test]
fn a_block_that_is_read_twice_is_found() {
    let (plan, program) = (plan(1, 1 << 30), Program::torch());
    let mut world = World::new(&plan, &program);
    world.object_reads[5] = 1;
    let broken = world.run().expect_err("object 5 is read again").to_string();
    assert!(broken.contains("was read 2 times"), "{broken}");
}
