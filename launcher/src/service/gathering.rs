//! The status of the whole job, over the links: see [`crate::gather`] for the rules.

use std::time::Duration;

use copper_proto::{LinkId, Rank, Tick};

use super::{COUNTING_TREE, Service, Uplink, Way};
use crate::control::ControlMessage;
use crate::gather::{Asker, GATHER_BOUND, GatherError, Onward, REPORT_BYTES_MAX};
use crate::refresh::bound_below;

impl Service {
    /// What a child says of gathers.
    pub(super) fn gather_from_child(&mut self, link: LinkId, message: ControlMessage, now: Tick) {
        match message {
            ControlMessage::WantStatus { request } => {
                self.want_status(Asker::Child(link, request), now);
            }
            ControlMessage::StatusPart { number, rank, report } => {
                let onward = self.gathers.on_part_from_child(link, number, rank, &report);
                self.pass_on(onward, rank, report);
            }
            ControlMessage::StatusEnd { number, .. } => {
                self.gathers.on_end_from_child(link, number);
            }
            _ => unreachable!("the caller keeps to these"),
        }
    }

    /// Begins a gather at the top; elsewhere the parent is asked for it.
    pub(super) fn want_status(&mut self, asker: Asker, now: Tick) {
        let rank = self.identity.rank;
        if !self.gathers.has_room() {
            return self.end_gather(asker, Some(GatherError::Busy { rank }));
        }
        if self.is_at_the_top() {
            let run = self.gathers.issue();
            return self.begin_gather(run, asker, now + GATHER_BOUND, now);
        }
        match self.way_up().map(|way| matches!(way.uplink, Uplink::Up { .. })) {
            None | Some(false) => self.end_gather(asker, Some(GatherError::NoParent { rank })),
            Some(true) => {
                let request = self.gathers.ask(asker, now);
                self.tell_parent(&ControlMessage::WantStatus { request });
            }
        }
    }

    /// The parent asks, for the root.
    pub(super) fn follow_gather(&mut self, run: u32, bound_ms: u32, now: Tick) {
        if self.gathers.has_room() {
            let deadline = now + Duration::from_millis(bound_ms.into()).min(GATHER_BOUND);
            self.begin_gather(run, Asker::Parent(run), deadline, now);
        } else {
            let error = Some(GatherError::Busy { rank: self.identity.rank });
            self.pass_to_parent(ControlMessage::StatusEnd { number: run, error });
        }
    }

    fn begin_gather(&mut self, run: u32, asker: Asker, deadline: Tick, now: Tick) {
        let message = ControlMessage::Gather { run, bound_ms: bound_below(deadline, now) };
        let mut asked = Vec::new();
        for child in self.children.iter_mut().filter(|child| child.tree == COUNTING_TREE) {
            // A failure shows itself again at the next heartbeat, which takes the link down.
            let _ = child.channel.send(&message);
            asked.push(child.link);
        }
        self.gathers.begin(run, asker, deadline, asked.into_iter());
        let (rank, report) = (self.identity.rank, self.events.report());
        // A longer one would be nonsense to the parent.
        if report.len() <= REPORT_BYTES_MAX {
            let onward = self.gathers.on_own(run, rank, &report);
            self.pass_on(onward, rank, report);
        }
    }

    /// The parent passes on a report that this rank has asked for.
    pub(super) fn part_from_parent(&mut self, request: u32, rank: Rank, report: Vec<u8>) {
        let onward = self.gathers.on_part_from_parent(request, rank, &report);
        self.pass_on(onward, rank, report);
    }

    /// That was the last of them.
    pub(super) fn end_from_parent(&mut self, request: u32, error: Option<GatherError>) {
        if let Some(asker) = self.gathers.on_end_from_parent(request) {
            self.end_gather(asker, error);
        }
    }

    /// A report goes its way.
    fn pass_on(&mut self, onward: Option<Onward>, rank: Rank, report: Vec<u8>) {
        let part = |number| ControlMessage::StatusPart { number, rank, report };
        match onward {
            None => {}
            Some(Onward::Parent(number)) => self.pass_to_parent(part(number)),
            Some(Onward::Child(link, number)) => {
                if let Some(child) = self.children.iter_mut().find(|child| child.link == link) {
                    child.channel.send_in_turn(part(number));
                }
            }
        }
    }

    fn pass_to_parent(&mut self, message: ControlMessage) {
        if let Some(Way { uplink: Uplink::Up { channel, .. }, .. }) = self.way_up() {
            channel.send_in_turn(message);
        }
    }

    /// Answers what is over. Returns when something is due next.
    pub(super) fn attend_gathers(&mut self, now: Tick) -> Tick {
        for asker in self.gathers.over(now) {
            self.end_gather(asker, None);
        }
        self.gathers_unheard(false, now);
        self.gathers.next_due()
    }

    pub(super) fn gathers_unheard(&mut self, parent_lost: bool, now: Tick) {
        let error = Some(GatherError::Unheard { rank: self.identity.rank });
        for asker in self.gathers.unheard(parent_lost, now) {
            self.end_gather(asker, error);
        }
    }

    fn end_gather(&mut self, asker: Asker, error: Option<GatherError>) {
        match asker {
            // Whoever does not wait any more does not hear it.
            Asker::Local(answer, reports) => {
                drop(answer.try_send(error.map_or(Ok(reports), Err)));
            }
            Asker::Parent(number) => {
                self.pass_to_parent(ControlMessage::StatusEnd { number, error });
            }
            Asker::Child(link, number) => {
                if let Some(child) = self.children.iter_mut().find(|child| child.link == link) {
                    child.channel.send_in_turn(ControlMessage::StatusEnd { number, error });
                }
            }
        }
    }
}
