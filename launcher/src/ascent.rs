//! A rank's way to a parent: whom to try next, and when to say that there is none. Pure.
//!
//! ```text
//! Joining ──joined──▶ Joined ──lost──▶ Searching ──joined──▶ Joined
//!    └──deadline──▶ GivenUp                └─ after a full failed round and the orphan bound: orphaned
//! ```
//! At the start only the parent is tried, until the deadline: everybody is just starting, and a
//! rank that cannot have its parent is a launch that failed. Where ranks may be missing, every
//! ancestor in turn is tried when the parent has not answered for a while. Later every ancestor is
//! as good as another, nearest first; where none answers, the ranks that take the root's place follow.

use std::time::Duration;

use copper_proto::{Rank, Tick, jitter::jittered};

const BACKOFF_MIN: Duration = Duration::from_millis(10);
const BACKOFF_MAX: Duration = Duration::from_millis(200);

/// For how long a rank is not tried again over whose fabric nothing sensible came: its control channel
/// may be as good as ever.
const BARRED: Duration = Duration::from_secs(30);

/// A parent that is lost sooner than this was never a good one: two daemons that were given the same
/// rank by mistake would otherwise throw each other out as fast as they can connect.
const FLAP_BOUND: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(crate) struct Ascent {
    rank: Rank,
    /// Parent first, root last, then the root's successors; empty for the root.
    candidates: Vec<Rank>,
    /// How many of them are ancestors.
    ancestors: usize,
    orphan: Duration,
    /// Who is not to be tried, and until when.
    barred: Vec<(Rank, Tick)>,
    state: State,
}

#[derive(Debug)]
enum State {
    Joining { deadline: Tick, patience: Tick, attempts: u32, next: Tick, index: usize },
    Joined { since: Tick, flaps: u32 },
    Searching(Search),
    GivenUp,
}

#[derive(Debug)]
struct Search {
    /// Parents lost at once in a row.
    flaps: u32,
    lost: Tick,
    next: Tick,
    /// Into the candidates.
    index: usize,
    /// Candidates tried in this round.
    tried: usize,
    rounds: u32,
    orphaned: bool,
}

/// What to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// There is a parent, or there will never be one.
    Rest,
    /// Nothing until then.
    Wait(Tick),
    /// Try this rank; report with `on_joined` or `on_failed`.
    Try(Rank),
    /// The start has failed.
    GiveUp,
}

/// How the other end of a link went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Loss {
    /// It has said that it ends: it may be back.
    Left,
    /// It closed the connection: it may be back.
    Closed,
    /// It said nothing for too long: others first.
    Silent,
    /// Over the fabric came nothing, or nonsense: others, for a while.
    Broken,
}

impl Ascent {
    pub(crate) fn new(rank: Rank, ancestors: Vec<Rank>, now: Tick, deadline: Tick) -> Ascent {
        let state = if ancestors.is_empty() {
            State::Joined { since: now, flaps: 0 }
        } else {
            State::Joining { deadline, patience: Tick::NEVER, attempts: 0, next: now, index: 0 }
        };
        let orphan = Duration::from_secs(2);
        let barred = Vec::new();
        Ascent { rank, ancestors: ancestors.len(), candidates: ancestors, orphan, barred, state }
    }

    /// They are tried where no ancestor answers, once this rank has had a parent.
    pub(crate) fn with_successors(mut self, successors: &[Rank]) -> Ascent {
        self.candidates.extend(successors);
        self
    }

    pub(crate) fn with_orphan_bound(mut self, orphan: Duration) -> Ascent {
        self.orphan = orphan;
        self
    }

    /// From then on a rank that is starting tries every ancestor.
    pub(crate) fn with_patience(mut self, until: Tick) -> Ascent {
        if let State::Joining { patience, .. } = &mut self.state {
            *patience = until;
        }
        self
    }

    /// When an attempt that begins now must be over at the latest: at the start's deadline.
    pub(crate) fn deadline(&self) -> Tick {
        match self.state {
            State::Joining { deadline, .. } => deadline,
            State::Joined { .. } | State::Searching(_) | State::GivenUp => Tick::NEVER,
        }
    }

    pub(crate) fn is_joining(&self) -> bool {
        matches!(self.state, State::Joining { .. })
    }

    pub(crate) fn turn(&self, now: Tick) -> Turn {
        match &self.state {
            State::Joining { deadline, .. } if now >= *deadline => Turn::GiveUp,
            State::Joining { next, deadline, .. } if now < *next => {
                Turn::Wait((*next).min(*deadline))
            }
            State::Joining { index, .. } => Turn::Try(self.candidates[*index]),
            State::Searching(search) if now < search.next => Turn::Wait(search.next),
            State::Searching(search) => Turn::Try(self.candidates[search.index]),
            State::Joined { .. } | State::GivenUp => Turn::Rest,
        }
    }

    pub(crate) fn on_joined(&mut self, now: Tick) {
        let flaps = match &self.state {
            State::Searching(search) => search.flaps,
            State::Joining { .. } | State::Joined { .. } | State::GivenUp => 0,
        };
        self.state = State::Joined { since: now, flaps };
    }

    pub(crate) fn give_up(&mut self) {
        self.state = State::GivenUp;
    }

    /// Whether an attempt to reach a rank has failed before it begins.
    pub(crate) fn is_barred(&self, rank: Rank, now: Tick) -> bool {
        self.barred.iter().any(|&(barred, until)| barred == rank && now < until)
    }

    /// The parent `from` is lost.
    pub(crate) fn on_lost(&mut self, from: Rank, loss: Loss, now: Tick) {
        self.barred.retain(|&(_, until)| now < until);
        if loss == Loss::Broken {
            self.barred.push((from, now + BARRED));
        }
        let lost_index = self.candidates.iter().position(|&candidate| candidate == from);
        let index = match (loss, lost_index) {
            (Loss::Silent | Loss::Broken, Some(lost)) => (lost + 1) % self.candidates.len(),
            (Loss::Left | Loss::Closed, _) | (Loss::Silent | Loss::Broken, None) => 0,
        };
        let (flaps, next) = match &self.state {
            State::Joined { since, flaps } if now.since(*since) < FLAP_BOUND => {
                (flaps.saturating_add(1), now + backoff(self.rank, *flaps))
            }
            State::Joined { .. } | State::Joining { .. } | State::Searching(_) | State::GivenUp => {
                (0, now)
            }
        };
        let search = Search { flaps, lost: now, next, index, tried: 0, rounds: 0, orphaned: false };
        self.state = State::Searching(search);
    }

    /// Whether nobody has answered for so long that this rank counts as an orphan.
    pub(crate) fn is_orphaned(&self) -> bool {
        matches!(&self.state, State::Searching(search) if search.orphaned)
    }

    /// The last attempt came to nothing. Returns whether this rank counts as an orphan from now on:
    /// once for each parent that it loses.
    pub(crate) fn on_failed(&mut self, now: Tick) -> bool {
        let (rank, count, orphan) = (self.rank, self.candidates.len(), self.orphan);
        let ancestors = self.ancestors;
        match &mut self.state {
            State::Joining { attempts, next, index, patience, .. } => {
                *next = now + backoff(rank, *attempts);
                *attempts += 1;
                if now >= *patience {
                    *index = (*index + 1) % ancestors;
                }
                false
            }
            State::Searching(search) => {
                search.index = (search.index + 1) % count;
                search.tried += 1;
                if search.tried < count {
                    search.next = now;
                    return false;
                }
                search.tried = 0;
                search.next = now + backoff(rank, search.rounds);
                search.rounds += 1;
                let orphaned = !search.orphaned && now.since(search.lost) >= orphan;
                search.orphaned |= orphaned;
                orphaned
            }
            State::Joined { .. } | State::GivenUp => false,
        }
    }
}

/// Doubles up to its bound. Half of it depends on the rank, so that siblings that lost the same
/// parent do not knock in step.
fn backoff(rank: Rank, attempt: u32) -> Duration {
    let full = BACKOFF_MIN.saturating_mul(1 << attempt.min(16)).min(BACKOFF_MAX);
    let seed = (u64::from(rank.0) << 32 | u64::from(attempt)).wrapping_add(1);
    jittered(full, seed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(milliseconds: u64) -> Tick {
        Tick(0) + Duration::from_millis(milliseconds)
    }

    fn ascent() -> Ascent {
        Ascent::new(Rank(7), vec![Rank(3), Rank(1), Rank(0)], after(0), after(1000))
    }

    #[test]
    fn at_the_start_only_the_parent_is_tried_until_the_deadline() {
        let (mut ascent, mut now, mut attempts) = (ascent(), after(0), 0);
        loop {
            match ascent.turn(now) {
                Turn::Try(rank) => {
                    assert_eq!(rank, Rank(3));
                    assert!(!ascent.on_failed(now));
                    attempts += 1;
                }
                Turn::Wait(next) => now = next,
                Turn::GiveUp => break,
                Turn::Rest => panic!("it has no parent"),
            }
        }
        assert_eq!(now, after(1000));
        assert!((7..=16).contains(&attempts), "{attempts} attempts in 1 s");
    }

    #[test]
    fn where_ranks_may_be_missing_all_ancestors_are_tried_after_a_while() {
        let mut ascent = ascent().with_patience(after(300));
        let (mut now, mut tried) = (after(0), Vec::new());
        loop {
            match ascent.turn(now) {
                Turn::Try(rank) => {
                    assert!(!ascent.on_failed(now));
                    tried.push((now, rank));
                }
                Turn::Wait(next) => now = next,
                Turn::GiveUp => break,
                Turn::Rest => panic!("it has no parent"),
            }
        }
        assert!(tried.iter().all(|&(at, rank)| at >= after(300) || rank == Rank(3)), "{tried:?}");
        for ancestor in [3, 1, 0].map(Rank) {
            assert!(tried.iter().any(|&(at, rank)| at >= after(300) && rank == ancestor));
        }
    }

    #[test]
    fn a_lost_parent_is_replaced_by_the_nearest_ancestor_that_answers() {
        let mut ascent = ascent();
        ascent.on_joined(after(10));
        assert_eq!(ascent.turn(after(5000)), Turn::Rest);
        ascent.on_lost(Rank(3), Loss::Closed, after(5000));
        assert_eq!(ascent.turn(after(5000)), Turn::Try(Rank(3)));
        assert!(!ascent.on_failed(after(5000)));
        assert_eq!(ascent.turn(after(5000)), Turn::Try(Rank(1)));
        ascent.on_joined(after(5000));
        ascent.on_lost(Rank(1), Loss::Silent, after(9000));
        assert_eq!(ascent.turn(after(9000)), Turn::Try(Rank(0)));
    }

    #[test]
    fn where_no_ancestor_answers_the_successors_follow_but_not_at_the_start() {
        let successors = [Rank(2), Rank(4)];
        let mut ascent = ascent().with_patience(after(0)).with_successors(&successors);
        for _ in 0..10 {
            if let Turn::Try(rank) = ascent.turn(after(900)) {
                assert!(!successors.contains(&rank), "{rank}");
                ascent.on_failed(after(0));
            }
        }
        ascent.on_joined(after(900));
        ascent.on_lost(Rank(0), Loss::Silent, after(5000));
        for expected in [2, 4, 3, 1, 0].map(Rank) {
            assert_eq!(ascent.turn(after(5000)), Turn::Try(expected));
            assert!(!ascent.on_failed(after(5000)));
        }
        assert!(matches!(ascent.turn(after(5000)), Turn::Wait(_)), "a round is over");
    }

    #[test]
    fn who_broke_the_fabric_s_protocol_is_barred_for_a_while() {
        let mut ascent = ascent();
        ascent.on_joined(after(0));
        ascent.on_lost(Rank(3), Loss::Broken, after(5000));
        assert!(
            ascent.is_barred(Rank(3), after(34_999)) && !ascent.is_barred(Rank(3), after(35_000))
        );
        assert!(!ascent.is_barred(Rank(1), after(5000)));
        assert_eq!(ascent.turn(after(5000)), Turn::Try(Rank(1)));
    }

    #[test]
    fn an_orphan_is_reported_once_per_loss_and_goes_on_trying() {
        let mut ascent = ascent();
        for _ in 0..2 {
            ascent.on_joined(after(0));
            ascent.on_lost(Rank(3), Loss::Closed, after(0));
            let (mut now, mut reported) = (after(0), Vec::new());
            let mut tried = [0; 4];
            while now < after(10_000) {
                match ascent.turn(now) {
                    Turn::Try(rank) => {
                        tried[rank.0 as usize] += 1;
                        if ascent.on_failed(now) {
                            reported.push(now);
                        }
                    }
                    Turn::Wait(next) => now = next,
                    Turn::Rest | Turn::GiveUp => panic!("it goes on"),
                }
            }
            assert_eq!(reported.len(), 1);
            assert!((after(2000)..after(2400)).contains(&reported[0]));
            assert!(tried[0] > 40 && tried[0] == tried[1] && tried[1] == tried[3], "{tried:?}");
        }
    }

    #[test]
    fn a_parent_that_is_lost_at_once_again_and_again_is_not_tried_at_full_speed() {
        let (mut ascent, mut now, mut joined) = (ascent(), after(0), 0);
        while now < after(10_000) {
            match ascent.turn(now) {
                Turn::Try(rank) => {
                    ascent.on_joined(now);
                    ascent.on_lost(rank, Loss::Closed, now);
                    joined += 1;
                }
                Turn::Wait(next) => now = next,
                Turn::Rest | Turn::GiveUp => panic!("it goes on"),
            }
        }
        assert!((50..=120).contains(&joined), "{joined} times in 10 s");
        ascent.on_joined(now);
        let later = now + FLAP_BOUND;
        ascent.on_lost(Rank(3), Loss::Closed, later);
        assert_eq!(ascent.turn(later), Turn::Try(Rank(3)), "a good parent is replaced at once");
    }

    #[test]
    fn the_root_rests() {
        let root = Ascent::new(Rank(0), Vec::new(), after(0), after(1000));
        assert_eq!(root.turn(after(2000)), Turn::Rest);
    }
}
