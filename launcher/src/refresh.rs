//! A refresh on its way through the tree: up to the root, which numbers it, then down, each rank
//! before its children, and the answers up again, added together.
//!
//! Who asks need know nobody but its own rank. A rank waits for the children that it has told, for a
//! part of the time that it has itself; who is lost meanwhile, or does not answer, is missing, with
//! all below it that nobody else has answered for.

use std::collections::{BTreeMap, HashMap};
use std::sync::mpsc::SyncSender;
use std::time::Duration;

use copper_proto::{Dropped, Epoch, LinkId, Rank, Tick, Tree, ViewPath};

use crate::frame::{Fields, FrameWriter, Malformed};

/// How long a refresh may take in all. A rank that has died silently is noticed after 5 s.
pub const REFRESH_BOUND: Duration = Duration::from_secs(10);

/// How much longer a rank waits for the root than the root for everybody.
pub(crate) const PATIENCE: Duration = Duration::from_secs(2);

/// Refreshes under way at a time; who wants one more is told to come again.
pub const REFRESHES_MAX: usize = 4;

/// Missing ranks that are named; the others are counted.
const NAMED_MAX: usize = 128;

/// Who has taken part in a refresh.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Ranks that have answered.
    pub ranks: u32,
    /// What they have dropped.
    pub dropped: Dropped,
    /// Ranks that have not, in order: as many as are named.
    pub missing: Vec<Rank>,
    /// Further ones.
    pub missing_more: u32,
    /// Ranks from elsewhere in the tree that have come below whoever says this: it speaks for them and
    /// all below them too.
    pub(crate) guests: Vec<Rank>,
}

impl Tally {
    /// With as many of `missing` named as may be.
    pub fn new(ranks: u32, dropped: Dropped, mut missing: Vec<Rank>, more: u32) -> Tally {
        let beyond = missing.len().saturating_sub(NAMED_MAX);
        missing.truncate(NAMED_MAX);
        let beyond = u32::try_from(beyond).unwrap_or(u32::MAX);
        let missing_more = more.saturating_add(beyond);
        Tally { ranks, dropped, missing, missing_more, guests: Vec::new() }
    }

    /// Whether everybody has answered.
    pub fn is_whole(&self) -> bool {
        self.missing.is_empty() && self.missing_more == 0
    }

    pub(crate) fn encode(&self, frame: FrameWriter) -> FrameWriter {
        let Dropped { entries, directories, blocks, bytes } = self.dropped;
        let frame = frame.u32(self.ranks).u64(entries).u64(directories).u64(blocks).u64(bytes);
        let named = u16::try_from(self.missing.len()).expect("bounded by NAMED_MAX");
        let guests = u16::try_from(self.guests.len()).expect("bounded by NAMED_MAX");
        let frame = frame.u32(self.missing_more).u16(named).u16(guests);
        let ranks = self.missing.iter().chain(&self.guests);
        ranks.fold(frame, |frame, rank| frame.u32(rank.0))
    }

    pub(crate) fn decode(fields: &mut Fields<'_>) -> Result<Tally, Malformed> {
        let ranks = fields.u32()?;
        let dropped = Dropped {
            entries: fields.u64()?,
            directories: fields.u64()?,
            blocks: fields.u64()?,
            bytes: fields.u64()?,
        };
        let (missing_more, named, guests) = (fields.u32()?, fields.u16()?, fields.u16()?);
        if usize::from(named.max(guests)) > NAMED_MAX {
            return Err(fields.malformed());
        }
        let mut list = |count| (0..count).map(|_| fields.u32().map(Rank)).collect::<Result<_, _>>();
        let (missing, guests) = (list(named)?, list(guests)?);
        Ok(Tally { ranks, dropped, missing, missing_more, guests })
    }
}

/// Why there was no refresh. Nothing has been dropped, but for the last: then it is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RefreshError {
    /// The way to the root is interrupted.
    #[error("rank {rank} has no parent, so that the root is not told: look at its log")]
    NoParent {
        /// Where it ends.
        rank: Rank,
    },
    /// Too many at a time.
    #[error("rank {rank} has {REFRESHES_MAX} other refreshes under way: try again")]
    Busy {
        /// Whose bound that is.
        rank: Rank,
    },
    /// The way to the root was interrupted meanwhile, or the root has not answered.
    #[error("rank {rank} has heard nothing of the root: try again, and look at its log")]
    Unheard {
        /// Who has waited.
        rank: Rank,
    },
}

impl RefreshError {
    pub(crate) fn encode(self, frame: FrameWriter) -> FrameWriter {
        let (code, rank) = match self {
            RefreshError::NoParent { rank } => (1, rank),
            RefreshError::Busy { rank } => (2, rank),
            RefreshError::Unheard { rank } => (3, rank),
        };
        frame.u8(code).u32(rank.0)
    }

    pub(crate) fn decode(code: u8, fields: &mut Fields<'_>) -> Result<RefreshError, Malformed> {
        let rank = Rank(fields.u32()?);
        match code {
            1 => Ok(RefreshError::NoParent { rank }),
            2 => Ok(RefreshError::Busy { rank }),
            3 => Ok(RefreshError::Unheard { rank }),
            _ => Err(fields.malformed()),
        }
    }
}

/// What has come of a refresh.
pub type RefreshResult = Result<(Epoch, Tally), RefreshError>;

/// Who wants a refresh.
#[derive(Debug)]
pub(crate) enum Requester {
    /// Somebody on this machine.
    Local(SyncSender<RefreshResult>),
    /// A child, by its number for it.
    Child(LinkId, u32),
}

/// A refresh's number within one rank.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct RunId(u64);

/// A refresh that this rank has begun.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) epoch: Epoch,
    pub(crate) path: ViewPath,
    pub(crate) deadline: Tick,
    own: Option<Dropped>,
    told: bool,
    /// Which epoch each child that was told is to answer for.
    awaited: HashMap<LinkId, (Rank, Epoch)>,
    answers: BTreeMap<Rank, Tally>,
    requester: Option<Requester>,
}

impl Run {
    fn is_over(&self, now: Tick) -> bool {
        let answered = self.told && self.own.is_some() && self.awaited.is_empty();
        answered || now >= self.deadline
    }

    /// `all`: every rank is this one's business, not only those below it and its guests.
    fn tally(self, rank: Rank, tree: &Tree, all: bool) -> Tally {
        let below = |of: &Rank| tree.ancestors(*of).any(|above| above == rank);
        let told = self.awaited.values().map(|(child, _)| child).chain(self.answers.keys());
        let further = self.answers.values().flat_map(|answer| &answer.guests);
        let mut guests: Vec<Rank> = told.chain(further).copied().filter(|of| !below(of)).collect();
        guests.sort_unstable();
        guests.dedup();
        guests.truncate(NAMED_MAX);
        let mut total = self.own.unwrap_or_default();
        let (mut ranks, mut more) = (u32::from(self.own.is_some()), 0_u32);
        for answer in self.answers.values() {
            total += answer.dropped;
            ranks = ranks.saturating_add(answer.ranks);
            more = more.saturating_add(answer.missing_more);
        }
        // Whoever is next on the way up and has answered has said whether this one has.
        let is_missing = |of: Rank| {
            let mut way = std::iter::once(of).chain(tree.ancestors(of));
            let hosting =
                |guest: Rank| self.answers.values().find(|answer| answer.guests.contains(&guest));
            let spoken = way.by_ref().take_while(|&it| it != rank);
            let spoken = spoken.filter_map(|it| self.answers.get(&it).or_else(|| hosting(it)));
            let spoken = spoken.reduce(|first, _| first);
            spoken.is_none_or(|answer| answer.missing.binary_search(&of).is_ok())
        };
        let is_guest = |of: &Rank| {
            std::iter::once(*of).chain(tree.ancestors(*of)).any(|it| guests.contains(&it))
        };
        let business = |of: &Rank| *of != rank && (all || below(of) || is_guest(of));
        let mut missing: Vec<Rank> = (0..tree.size()).map(Rank).filter(business).collect();
        missing.retain(|&of| is_missing(of));
        if self.own.is_none() {
            missing.push(rank);
            missing.sort_unstable();
        }
        Tally { guests, ..Tally::new(ranks, total, missing, more) }
    }
}

/// A refresh that is over: whom to tell.
#[derive(Debug)]
pub(crate) struct Over {
    pub(crate) epoch: Epoch,
    pub(crate) tally: Tally,
    /// `None` if it came from the parent.
    pub(crate) requester: Option<Requester>,
}

/// Everything of refreshes that one rank has under way.
#[derive(Debug, Default)]
pub(crate) struct Refreshes {
    /// The last that has taken effect at this rank.
    epoch: Epoch,
    issued: Epoch,
    runs: BTreeMap<RunId, Run>,
    next_run: u64,
    /// What the parent was asked for.
    asked: BTreeMap<u32, (Requester, Tick)>,
    next_request: u32,
}

impl Refreshes {
    /// The last refresh that has taken effect here.
    pub(crate) fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Some rank has taken this one in: a root that has come back goes on with the numbers.
    pub(crate) fn hear_of(&mut self, epoch: Epoch) {
        self.issued = self.issued.max(epoch);
    }

    /// Numbers a refresh and begins it, at the root or in its place.
    ///
    /// # Errors
    /// The requester, if there are too many.
    pub(crate) fn issue(
        &mut self,
        path: ViewPath,
        requester: Requester,
        now: Tick,
    ) -> Result<(RunId, Epoch), Requester> {
        if self.runs.len() >= REFRESHES_MAX {
            return Err(requester);
        }
        self.issued = Epoch(self.issued.max(self.epoch).0 + 1);
        let epoch = self.issued;
        Ok((self.begin(epoch, path, now + REFRESH_BOUND, Some(requester)), epoch))
    }

    /// Begins a refresh that the parent has sent.
    pub(crate) fn follow(&mut self, epoch: Epoch, path: ViewPath, deadline: Tick) -> RunId {
        self.begin(epoch, path, deadline, None)
    }

    fn begin(
        &mut self,
        epoch: Epoch,
        path: ViewPath,
        deadline: Tick,
        requester: Option<Requester>,
    ) -> RunId {
        let id = RunId(self.next_run);
        self.next_run += 1;
        let run = Run {
            epoch,
            path,
            deadline,
            own: None,
            told: false,
            awaited: HashMap::new(),
            answers: BTreeMap::new(),
            requester,
        };
        self.runs.insert(id, run);
        id
    }

    /// A refresh has taken effect here: it is to be told to the children, whose answers are awaited.
    pub(crate) fn on_dropped(
        &mut self,
        id: RunId,
        children: impl Iterator<Item = (LinkId, Rank)>,
    ) -> Option<&Run> {
        let run = self.runs.get_mut(&id)?;
        self.epoch = self.epoch.max(run.epoch);
        run.told = true;
        run.awaited = children.map(|(link, rank)| (link, (rank, run.epoch))).collect();
        Some(run)
    }

    /// This rank is done, the kernel too.
    pub(crate) fn on_done(&mut self, id: RunId, dropped: Dropped) {
        if let Some(run) = self.runs.get_mut(&id) {
            run.own = Some(dropped);
        }
    }

    /// A new child that has missed refreshes is told to drop everything, as of the last: every
    /// refresh under way waits for it too.
    pub(crate) fn on_late(&mut self, link: LinkId, rank: Rank) {
        let epoch = self.epoch;
        for run in self.runs.values_mut().filter(|run| run.told) {
            run.awaited.insert(link, (rank, epoch));
        }
    }

    pub(crate) fn on_answer(&mut self, link: LinkId, epoch: Epoch, tally: &Tally) {
        for run in self.runs.values_mut() {
            if let Some(&(rank, of)) = run.awaited.get(&link)
                && of == epoch
            {
                run.awaited.remove(&link);
                run.answers.insert(rank, tally.clone());
            }
        }
    }

    pub(crate) fn on_child_down(&mut self, link: LinkId) {
        for run in self.runs.values_mut() {
            run.awaited.remove(&link);
        }
    }

    /// The parent is to be asked: the number for it.
    pub(crate) fn ask(&mut self, requester: Requester, now: Tick) -> u32 {
        let request = self.next_request;
        self.next_request = self.next_request.wrapping_add(1);
        self.asked.insert(request, (requester, now + REFRESH_BOUND + PATIENCE));
        request
    }

    /// Whether the parent may be asked for one more.
    pub(crate) fn may_ask(&self) -> bool {
        // Whatever the children send, this stays small; the root has its own bound.
        self.asked.len() < 4 * REFRESHES_MAX
    }

    pub(crate) fn on_ended(&mut self, request: u32) -> Option<Requester> {
        self.asked.remove(&request).map(|(requester, _)| requester)
    }

    /// Those that will not be answered: all once the parent is lost, else those whose time is over.
    pub(crate) fn unheard(&mut self, parent_lost: bool, now: Tick) -> Vec<Requester> {
        let over = |deadline: Tick| parent_lost || deadline <= now;
        let over = self.asked.iter().filter(|&(_, &(_, deadline))| over(deadline));
        let over: Vec<u32> = over.map(|(&request, _)| request).collect();
        over.into_iter().filter_map(|request| self.on_ended(request)).collect()
    }

    /// The refreshes that are over.
    pub(crate) fn over(&mut self, rank: Rank, tree: &Tree, now: Tick) -> Vec<Over> {
        let over = self.runs.iter().filter(|(_, run)| run.is_over(now));
        let over: Vec<RunId> = over.map(|(&id, _)| id).collect();
        let over = over.into_iter().filter_map(|id| self.runs.remove(&id)).map(|mut run| {
            let (epoch, requester) = (run.epoch, run.requester.take());
            let all = requester.is_some();
            Over { epoch, requester, tally: run.tally(rank, tree, all) }
        });
        over.collect()
    }

    pub(crate) fn next_due(&self) -> Tick {
        let runs = self.runs.values().map(|run| run.deadline);
        let asked = self.asked.values().map(|&(_, deadline)| deadline);
        runs.chain(asked).min().unwrap_or(Tick::NEVER)
    }
}

/// What a rank leaves its children of its time.
pub(crate) fn bound_below(deadline: Tick, now: Tick) -> u32 {
    let left = deadline.since(now);
    u32::try_from((left - left / 16).as_millis()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::num::NonZeroU32;

    fn tree(size: u32) -> Tree {
        let two = NonZeroU32::new(2).expect("not zero");
        Tree::new(NonZeroU32::new(size).expect("not zero"), two, 0, 1).expect("valid")
    }

    fn answer(ranks: u32, missing: &[u32]) -> Tally {
        let dropped = Dropped { entries: ranks.into(), ..Dropped::default() };
        Tally::new(ranks, dropped, missing.iter().copied().map(Rank).collect(), 0)
    }

    fn begun(refreshes: &mut Refreshes, children: &[(u32, u32)]) -> RunId {
        let id = refreshes.follow(Epoch(1), ViewPath::root(), Tick(1000));
        let children = children.iter().map(|&(link, rank)| (LinkId(link), Rank(rank)));
        refreshes.on_dropped(id, children).expect("it has begun");
        refreshes.on_done(id, Dropped { entries: 1, ..Dropped::default() });
        id
    }

    #[test]
    fn a_refresh_is_over_when_all_have_answered() {
        // Ranks 1 and 2 below 0, 3 and 4 below 1, 5 and 6 below 2.
        let mut refreshes = Refreshes::default();
        begun(&mut refreshes, &[(1, 1), (2, 2)]);
        refreshes.on_answer(LinkId(1), Epoch(1), &answer(3, &[]));
        refreshes.on_answer(LinkId(2), Epoch(7), &answer(3, &[]));
        assert!(refreshes.over(Rank(0), &tree(7), Tick(0)).is_empty());
        refreshes.on_answer(LinkId(2), Epoch(1), &answer(3, &[]));
        let over = refreshes.over(Rank(0), &tree(7), Tick(0)).pop().expect("it is over");
        assert_eq!((over.tally.ranks, over.tally.dropped.entries), (7, 7));
        assert!(over.tally.is_whole());
        assert_eq!((refreshes.epoch(), refreshes.next_due()), (Epoch(1), Tick::NEVER));
    }

    #[test]
    fn who_is_lost_or_silent_is_missing_with_all_below_that_nobody_else_has_answered_for() {
        let missing = |children: &[(u32, u32)], answers: &[(u32, Tally)], late: Tick| {
            let mut refreshes = Refreshes::default();
            begun(&mut refreshes, children);
            for (link, tally) in answers {
                refreshes.on_answer(LinkId(*link), Epoch(1), tally);
            }
            refreshes.on_child_down(LinkId(9));
            let over = refreshes.over(Rank(0), &tree(7), late).pop().expect("it is over");
            over.tally.missing.iter().map(|rank| rank.0).collect::<Vec<_>>()
        };
        let two = || (2, answer(3, &[]));
        assert_eq!(missing(&[(9, 1), (2, 2)], &[two()], Tick(0)), [1, 3, 4]);
        assert_eq!(missing(&[(1, 1), (2, 2)], &[two()], Tick(1000)), [1, 3, 4]);
        // Rank 1 is dead, 3 has come to the root; 4 says that somebody below it is missing.
        assert_eq!(missing(&[(3, 3), (2, 2)], &[(3, answer(1, &[])), two()], Tick(0)), [1, 4]);
        // Rank 1 has lost 3, which has come to the root meanwhile.
        let lost = (1, answer(2, &[3]));
        assert_eq!(missing(&[(1, 1), (2, 2)], &[lost.clone(), two()], Tick(0)), [3]);
        let found = [lost, two(), (3, answer(1, &[]))];
        assert!(missing(&[(1, 1), (2, 2), (3, 3)], &found, Tick(0)).is_empty());
    }

    #[test]
    fn guests_are_answered_for_by_their_host() {
        // Rank 0 was lost: 2, with 5 and 6 below it, has come to rank 1, which has 3 and 4.
        let mut host = Refreshes::default();
        begun(&mut host, &[(1, 2), (3, 3), (4, 4)]);
        for (link, tally) in [(1, answer(2, &[6])), (3, answer(1, &[])), (4, answer(1, &[]))] {
            host.on_answer(LinkId(link), Epoch(1), &tally);
        }
        let tally = host.over(Rank(1), &tree(7), Tick(0)).pop().expect("it is over").tally;
        assert_eq!(
            (tally.ranks, &tally.missing[..], &tally.guests[..]),
            (5, &[Rank(6)][..], &[Rank(2)][..])
        );
        // Rank 0 is back.
        let mut root = Refreshes::default();
        begun(&mut root, &[(1, 1)]);
        root.on_answer(LinkId(1), Epoch(1), &tally);
        let tally = root.over(Rank(0), &tree(7), Tick(0)).pop().expect("it is over").tally;
        assert_eq!((tally.ranks, tally.missing, tally.guests), (6, vec![Rank(6)], vec![]));
    }

    #[test]
    fn a_child_that_comes_late_is_waited_for_and_a_lost_parent_is_not() {
        let mut refreshes = Refreshes::default();
        begun(&mut refreshes, &[]);
        refreshes.on_late(LinkId(5), Rank(1));
        assert!(refreshes.over(Rank(0), &tree(3), Tick(0)).is_empty());
        refreshes.on_answer(LinkId(5), Epoch(1), &answer(1, &[]));
        let over = refreshes.over(Rank(0), &tree(3), Tick(0)).pop().expect("it is over");
        assert_eq!(over.tally.missing, [Rank(2)]);
        let request = refreshes.ask(Requester::Child(LinkId(5), 3), Tick(0));
        assert!(refreshes.unheard(false, Tick(0)).is_empty());
        assert_eq!(refreshes.unheard(true, Tick(0)).len(), 1);
        assert!(refreshes.on_ended(request).is_none());
    }
}
