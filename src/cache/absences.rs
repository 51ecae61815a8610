//! What became of absences that the source told without a proof, and that may be believed for a time.

use copper_proto::Tick;
use copper_proto::store::Known;

/// Counts of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Absences {
    /// Taken in.
    pub stored: u64,
    /// Answers given with one: to readers of this node, and to its children.
    pub served: u64,
    /// Replaced by another: their time had passed, and the path was still absent.
    pub expired: u64,
    /// Replaced by an entry: something is there now.
    pub cleared: u64,
}

impl Absences {
    /// One is answered with.
    pub(crate) fn serve(&mut self, until: Tick) {
        self.served += u64::from(until != Tick::NEVER);
    }

    /// Something is learnt of a path.
    pub(crate) fn learn(&mut self, before: Option<&Known>, now: &Known) {
        let is_new = is_for_a_time(now);
        self.stored += u64::from(is_new);
        if before.is_some_and(is_for_a_time) {
            *(if is_new { &mut self.expired } else { &mut self.cleared }) += 1;
        }
    }
}

fn is_for_a_time(known: &Known) -> bool {
    matches!(known, Known::Absent(until) if *until != Tick::NEVER)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_absence_is_stored_served_and_ends_in_one_of_two_ways() {
        let (first, again) = (Known::Absent(Tick(0)), Known::Absent(Tick::NEVER));
        let mut absences = Absences::default();
        absences.learn(None, &first);
        absences.serve(Tick(0));
        absences.serve(Tick::NEVER);
        absences.learn(Some(&first), &first);
        absences.learn(Some(&first), &again);
        absences.learn(Some(&again), &again);
        assert_eq!(absences, Absences { stored: 2, served: 1, expired: 1, cleared: 1 });
    }
}
