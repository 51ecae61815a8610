//! Whatever is asked of a view is answered as the source would: random trees, random settings, and
//! thousands of random operations, each on the source and through a real mount, compared at once.
//! The model is the source itself, which stays as it is (`changes` and `directories` are about those
//! that change).
//!
//! `COPPER_SEED=N` begins with the round of that seed, the same to the byte; `COPPER_MODEL_SECONDS=S`
//! begins no round after so long: 0 replays one round. `ci/model.sh` runs it as long as one likes.

#[path = "model/answer.rs"]
mod answer;
#[path = "model/change.rs"]
mod change;
#[path = "model/inode_classes.rs"]
mod inode_classes;
#[path = "model/mapping.rs"]
mod mapping;
#[path = "model/open_table.rs"]
mod open_table;
#[path = "model/operation.rs"]
mod operation;
#[path = "model/paths.rs"]
mod paths;
#[path = "model/random_tree.rs"]
mod random_tree;
#[path = "model/round.rs"]
mod round;
#[path = "support/harness.rs"]
mod support;
#[path = "model/worker.rs"]
mod worker;

use std::time::{Duration, Instant};

use support::{Random, say};

/// Rounds are begun for so long where the environment says nothing.
const SECONDS: u64 = 15;

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|error| panic!("{variable}={text}: {error}")))
}

#[test]
fn whatever_is_asked_of_a_view_is_answered_as_the_source_would() {
    let bound = Duration::from_secs(number("COPPER_MODEL_SECONDS").unwrap_or(SECONDS));
    let mut seed = number("COPPER_SEED").unwrap_or_else(|| Random::seeded().next());
    let (started, mut rounds) = (Instant::now(), 0);
    loop {
        say(&format!("COPPER_SEED={seed} COPPER_MODEL_SECONDS=0 replays round {rounds}"));
        round::run(seed);
        rounds += 1;
        if started.elapsed() >= bound {
            break;
        }
        // So that each round can be replayed from a seed of its own, and what follows it.
        seed = Random::new(seed).next();
    }
    say(&format!("{rounds} rounds in {:.0} s", started.elapsed().as_secs_f64()));
}
