//! The status of a whole job: asked up to the root, from there down to every rank, and the reports up
//! again, each in a message of its own, then back down to who has asked.
//!
//! Nothing waits for anybody: a rank that has not answered when the time is over is left out. Who
//! asks need know nobody but its own rank.

use std::collections::{BTreeMap, HashSet};
use std::sync::mpsc::SyncSender;
use std::time::Duration;

use copper_proto::{LinkId, Rank, Tick};

use crate::frame::{FRAME_BYTES_MAX, Fields, FrameWriter, Malformed};
use crate::rank_set::RankSet;

/// How long the root waits for all ranks.
pub const GATHER_BOUND: Duration = Duration::from_secs(2);

/// How much longer a rank waits for the root: for the way of the reports.
pub(crate) const PATIENCE: Duration = Duration::from_secs(1);

/// Gathers under way at a time; who wants one more is told to come again.
pub(crate) const GATHERS_MAX: usize = 4;

/// The longest report of a rank: with its number, its rank and a seal it fits a frame.
pub const REPORT_BYTES_MAX: usize = 4096;

const _: () = assert!(REPORT_BYTES_MAX + 64 <= FRAME_BYTES_MAX);

/// What the ranks of a job say of themselves; who has not answered is not among them.
pub type JobReports = BTreeMap<Rank, Vec<u8>>;

/// What has come of a gather.
pub type GatherResult = Result<JobReports, GatherError>;

/// Why there are no reports of other ranks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GatherError {
    /// The way to the root is interrupted.
    #[error("rank {rank} has no parent, so that the root cannot be asked: look at its log")]
    NoParent {
        /// Where it ends.
        rank: Rank,
    },
    /// Too many at a time.
    #[error("rank {rank} answers {GATHERS_MAX} others: try again")]
    Busy {
        /// Whose bound that is.
        rank: Rank,
    },
    /// The way to the root was interrupted meanwhile, or the root has not answered.
    #[error("rank {rank} has heard nothing of the root: look at its log")]
    Unheard {
        /// Who has waited.
        rank: Rank,
    },
}

impl GatherError {
    pub(crate) fn encode(error: Option<GatherError>, frame: FrameWriter) -> FrameWriter {
        match error {
            None => frame.u8(0),
            Some(GatherError::NoParent { rank }) => frame.u8(1).u32(rank.0),
            Some(GatherError::Busy { rank }) => frame.u8(2).u32(rank.0),
            Some(GatherError::Unheard { rank }) => frame.u8(3).u32(rank.0),
        }
    }

    pub(crate) fn decode(fields: &mut Fields<'_>) -> Result<Option<GatherError>, Malformed> {
        let code = fields.u8()?;
        if code == 0 {
            return Ok(None);
        }
        let rank = Rank(fields.u32()?);
        match code {
            1 => Ok(Some(GatherError::NoParent { rank })),
            2 => Ok(Some(GatherError::Busy { rank })),
            3 => Ok(Some(GatherError::Unheard { rank })),
            _ => Err(fields.malformed()),
        }
    }
}

/// Who gets the reports.
#[derive(Debug)]
pub(crate) enum Asker {
    /// Somebody on this machine, and what has come for it.
    Local(SyncSender<GatherResult>, JobReports),
    /// A child, by its number for it.
    Child(LinkId, u32),
    /// The parent, by the root's number.
    Parent(u32),
}

/// Where a report goes on to; one for this machine has been put there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Onward {
    Child(LinkId, u32),
    Parent(u32),
}

/// Reports on their way to somebody.
#[derive(Debug)]
struct Flow {
    asker: Asker,
    deadline: Tick,
    /// Nobody is heard twice, so that a flow is bounded by the job's size.
    heard: RankSet,
    /// Children that have not said that they have told everything.
    awaited: HashSet<LinkId>,
}

impl Flow {
    fn take(&mut self, rank: Rank, report: &[u8]) -> Option<Onward> {
        if rank.0 >= self.heard.size() || self.heard.contains(rank) {
            return None;
        }
        self.heard.insert(rank);
        match &mut self.asker {
            Asker::Local(_, reports) => {
                reports.insert(rank, report.to_vec());
                None
            }
            Asker::Child(link, number) => Some(Onward::Child(*link, *number)),
            Asker::Parent(number) => Some(Onward::Parent(*number)),
        }
    }
}

/// All that one rank has under way.
#[derive(Debug)]
pub(crate) struct Gathers {
    size: u32,
    /// Down from here: by the root's number.
    runs: BTreeMap<u32, Flow>,
    next_run: u32,
    /// What the parent was asked for: by this rank's number.
    asked: BTreeMap<u32, Flow>,
    next_request: u32,
}

impl Gathers {
    pub(crate) fn new(size: u32) -> Gathers {
        let (runs, asked) = (BTreeMap::new(), BTreeMap::new());
        Gathers { size, runs, next_run: 0, asked, next_request: 0 }
    }

    fn flow(&self, asker: Asker, deadline: Tick) -> Flow {
        Flow { asker, deadline, heard: RankSet::new(self.size), awaited: HashSet::new() }
    }

    /// Whether there is room for one more.
    pub(crate) fn has_room(&self) -> bool {
        self.runs.len() < GATHERS_MAX && self.asked.len() < GATHERS_MAX
    }

    /// The root's number for a new gather.
    pub(crate) fn issue(&mut self) -> u32 {
        self.next_run = self.next_run.wrapping_add(1);
        self.next_run
    }

    /// These children are asked.
    pub(crate) fn begin(
        &mut self,
        run: u32,
        asker: Asker,
        deadline: Tick,
        children: impl Iterator<Item = LinkId>,
    ) {
        let mut flow = self.flow(asker, deadline);
        flow.awaited.extend(children);
        self.runs.insert(run, flow);
    }

    /// The parent is to be asked: the number for it.
    pub(crate) fn ask(&mut self, asker: Asker, now: Tick) -> u32 {
        self.next_request = self.next_request.wrapping_add(1);
        let flow = self.flow(asker, now + GATHER_BOUND + PATIENCE);
        self.asked.insert(self.next_request, flow);
        self.next_request
    }

    /// This rank's own report.
    pub(crate) fn on_own(&mut self, run: u32, rank: Rank, report: &[u8]) -> Option<Onward> {
        self.runs.get_mut(&run)?.take(rank, report)
    }

    /// A report from below.
    pub(crate) fn on_part_from_child(
        &mut self,
        link: LinkId,
        run: u32,
        rank: Rank,
        report: &[u8],
    ) -> Option<Onward> {
        let flow = self.runs.get_mut(&run).filter(|flow| flow.awaited.contains(&link));
        flow?.take(rank, report)
    }

    pub(crate) fn on_end_from_child(&mut self, link: LinkId, run: u32) {
        if let Some(flow) = self.runs.get_mut(&run) {
            flow.awaited.remove(&link);
        }
    }

    /// A report from above, for what this rank has asked.
    pub(crate) fn on_part_from_parent(
        &mut self,
        request: u32,
        rank: Rank,
        report: &[u8],
    ) -> Option<Onward> {
        self.asked.get_mut(&request)?.take(rank, report)
    }

    pub(crate) fn on_end_from_parent(&mut self, request: u32) -> Option<Asker> {
        self.asked.remove(&request).map(|flow| flow.asker)
    }

    pub(crate) fn on_child_down(&mut self, link: LinkId) {
        for flow in self.runs.values_mut() {
            flow.awaited.remove(&link);
        }
    }

    /// Those below that have told all, or have had their time.
    pub(crate) fn over(&mut self, now: Tick) -> Vec<Asker> {
        let is_over = |flow: &Flow| flow.awaited.is_empty() || now >= flow.deadline;
        let over: Vec<u32> =
            self.runs.iter().filter(|(_, flow)| is_over(flow)).map(|(&run, _)| run).collect();
        over.iter().filter_map(|run| self.runs.remove(run)).map(|flow| flow.asker).collect()
    }

    /// Those that will not be answered: all once the parent is lost, else those whose time is over.
    pub(crate) fn unheard(&mut self, parent_lost: bool, now: Tick) -> Vec<Asker> {
        let is_over = |flow: &Flow| parent_lost || now >= flow.deadline;
        let over: Vec<u32> =
            self.asked.iter().filter(|(_, flow)| is_over(flow)).map(|(&it, _)| it).collect();
        over.into_iter().filter_map(|request| self.on_end_from_parent(request)).collect()
    }

    pub(crate) fn next_due(&self) -> Tick {
        let due = |flow: &Flow| if flow.awaited.is_empty() { Tick(0) } else { flow.deadline };
        let runs = self.runs.values().map(due);
        let asked = self.asked.values().map(|flow| flow.deadline);
        runs.chain(asked).min().unwrap_or(Tick::NEVER)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::sync_channel;

    use super::*;

    #[test]
    fn reports_go_to_who_has_asked_once_each_until_all_below_have_told_theirs() {
        let mut gathers = Gathers::new(4);
        let (sender, receiver) = sync_channel(1);
        let asker = Asker::Local(sender, JobReports::new());
        let run = gathers.issue();
        gathers.begin(run, asker, Tick(9), [LinkId(1), LinkId(2)].into_iter());
        assert_eq!(gathers.on_own(run, Rank(0), b"0"), None);
        assert_eq!(gathers.on_part_from_child(LinkId(1), run, Rank(1), b"1"), None);
        assert_eq!(gathers.on_part_from_child(LinkId(1), run, Rank(1), b"other"), None);
        assert_eq!(gathers.on_part_from_child(LinkId(1), run, Rank(4), b"nobody"), None);
        gathers.on_end_from_child(LinkId(1), run);
        assert_eq!(gathers.on_part_from_child(LinkId(1), run, Rank(3), b"late"), None);
        assert!(gathers.over(Tick(8)).is_empty());
        gathers.on_child_down(LinkId(2));
        let Some(Asker::Local(sender, reports)) = gathers.over(Tick(8)).pop() else {
            panic!("all below are done");
        };
        drop((sender, receiver));
        let expected = [(Rank(0), b"0".to_vec()), (Rank(1), b"1".to_vec())];
        assert_eq!(reports, JobReports::from(expected));
        assert_eq!(gathers.next_due(), Tick::NEVER);
    }

    #[test]
    fn what_is_not_answered_ends_with_its_time_or_with_the_parent() {
        let mut gathers = Gathers::new(4);
        gathers.begin(7, Asker::Parent(7), Tick(9), [LinkId(1)].into_iter());
        let onward = gathers.on_part_from_child(LinkId(1), 7, Rank(3), b"3");
        assert_eq!(onward, Some(Onward::Parent(7)));
        assert!(matches!(gathers.over(Tick(9))[..], [Asker::Parent(7)]));
        let request = gathers.ask(Asker::Child(LinkId(1), 5), Tick(0));
        let onward = gathers.on_part_from_parent(request, Rank(0), b"0");
        assert_eq!(onward, Some(Onward::Child(LinkId(1), 5)));
        assert!(gathers.unheard(false, Tick(9)).is_empty());
        assert!(matches!(gathers.unheard(true, Tick(9))[..], [Asker::Child(LinkId(1), 5)]));
        while gathers.has_room() {
            gathers.ask(Asker::Parent(1), Tick(0));
        }
        assert_eq!(gathers.asked.len(), GATHERS_MAX);
    }
}
