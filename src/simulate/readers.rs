//! The processes of one node, which all run the same program: whoever comes to a step first asks, the
//! others wait with it or are answered by the kernel.

use std::time::Duration;

use copper_proto::Tick;

use super::constants::Constants;
use super::network::Network;
use super::program::Program;
use super::random::Random;
use super::waits::Waits;

#[derive(Debug)]
pub(super) struct Readers {
    /// The step that the first of them does next, or waits for.
    pub(super) step: u32,
    /// When the step was asked for.
    pub(super) asked: Option<Tick>,
    /// The moment at which the step is to be begun is noted.
    pub(super) noted: bool,
    /// When each of them came, or will come, to the step.
    arrivals: Box<[Tick]>,
}

impl Readers {
    /// They begin soon after `now`.
    pub(super) fn new(
        processes: u32,
        constants: &Constants,
        now: Tick,
        random: &mut Random,
    ) -> Readers {
        let spread = constants.start_spread.as_nanos() as u64;
        let mut arrival = || now + Duration::from_nanos(random.below(spread));
        let arrivals = (0..processes).map(|_| arrival()).collect();
        Readers { step: 0, asked: None, noted: false, arrivals }
    }

    /// When the first of them comes to the step.
    pub(super) fn first(&self) -> Tick {
        *self.arrivals.iter().min().expect("there is at least one")
    }

    /// When the last of them has done, or will begin, the step.
    pub(super) fn last(&self) -> Tick {
        *self.arrivals.iter().max().expect("there is at least one")
    }

    /// The step's answer is there: everybody goes on to the next.
    pub(super) fn answered(
        &mut self,
        at: Tick,
        program: &Program,
        network: &mut Network,
        mut waits: Option<&mut Waits>,
    ) {
        let takes = network.between_steps(program);
        for arrival in &mut self.arrivals {
            if let Some(waits) = &mut waits {
                waits.add(at.since(*arrival).as_nanos() as u64);
            }
            *arrival = network.works((*arrival).max(at), takes);
        }
        self.step += 1;
        self.asked = None;
    }
}
