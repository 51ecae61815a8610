//! Everything that takes bytes from outside, told random changes of what is right: no panic, no growth,
//! and nothing that is understood in two ways. See docs/adr/0019-fuzzing.md.
//!
//! `COPPER_SEED=N` repeats a run, `COPPER_FUZZ_SECONDS=S` makes it longer, for each target;
//! `ci/fuzz.sh` sets it.

#[path = "fuzzing/mutator.rs"]
mod mutator;
#[path = "support/split_mix.rs"]
mod split_mix;
#[path = "fuzzing/targets.rs"]
mod targets;

use std::fs;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant, SystemTime};

use mutator::Mutator;
use split_mix::Random;
use targets::Target;

/// How long each target is tried where the environment says nothing.
const SECONDS: u64 = 1;

/// A planted bug is found by then, or the search is no good.
const PLANTED_INPUTS_MAX: u64 = 3_000_000;

/// What a run may hold: inputs that are kept, and what the allocator makes of the others.
const GROWTH_BYTES_MAX: u64 = 64 << 20;

fn say(line: &str) {
    // Who does not read it does without.
    let _ = writeln!(std::io::stderr(), "{line}");
}

fn seeded() -> Random {
    let given = std::env::var("COPPER_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed: u64 = given.unwrap_or_else(|| {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        since.as_nanos() as u64
    });
    say(&format!("COPPER_SEED={seed}"));
    Random::new(seed)
}

fn resident_bytes() -> u64 {
    let statm = fs::read_to_string("/proc/self/statm").expect("there is /proc");
    let pages = statm.split_whitespace().nth(1).expect("resident pages");
    4096 * pages.parse::<u64>().expect("a number")
}

/// Whether the target gets through, and where to.
fn attempt(target: &Target, input: &[u8], planted: bool) -> Option<u64> {
    catch_unwind(AssertUnwindSafe(|| (target.run)(input, planted))).ok()
}

#[test]
fn no_input_panics_is_understood_in_two_ways_or_makes_a_rank_of_a_stranger() {
    let seconds = std::env::var("COPPER_FUZZ_SECONDS").map_or(SECONDS, |text| {
        text.parse().unwrap_or_else(|error| panic!("COPPER_FUZZ_SECONDS={text}: {error}"))
    });
    let random = seeded();
    for target in targets::all() {
        let mut mutator = Mutator::new(random.clone(), target.corpus.clone());
        for input in &target.corpus {
            let reached = attempt(&target, input, false).expect("what is right is understood");
            mutator.reached(input, reached);
        }
        let (before, start) = (resident_bytes(), Instant::now());
        let mut inputs = 0_u64;
        while start.elapsed() < Duration::from_secs(seconds) {
            for _ in 0..100 {
                let input = mutator.next();
                let Some(reached) = attempt(&target, &input, false) else {
                    let hex: String = input.iter().map(|byte| format!("{byte:02x}")).collect();
                    panic!("{} fails with the input {hex}", target.name);
                };
                mutator.reached(&input, reached);
                inputs += 1;
            }
        }
        let grown = resident_bytes().saturating_sub(before);
        say(&format!(
            "{}: {inputs} inputs, {} places, {grown} bytes more",
            target.name,
            mutator.places()
        ));
        assert!(grown <= GROWTH_BYTES_MAX, "{} grows by {grown} bytes", target.name);
        assert!(mutator.places() > 1, "{} gets nowhere", target.name);
    }
}

#[test]
fn a_bug_that_is_planted_in_a_target_is_found() {
    let random = seeded();
    // They are meant to panic: not a word of it.
    std::panic::set_hook(Box::new(|_| {}));
    let mut missed = Vec::new();
    for target in targets::all() {
        let mut mutator = Mutator::new(random.clone(), target.corpus.clone());
        let found = (1..=PLANTED_INPUTS_MAX).find(|_| {
            let input = mutator.next();
            match attempt(&target, &input, true) {
                Some(reached) => {
                    mutator.reached(&input, reached);
                    false
                }
                // Without the bug the same input is none.
                None => attempt(&target, &input, false).is_some(),
            }
        });
        match found {
            Some(inputs) => say(&format!("{}: found with input {inputs}", target.name)),
            None => missed.push(target.name),
        }
    }
    let _ = std::panic::take_hook();
    assert!(missed.is_empty(), "not found in {missed:?}");
}
