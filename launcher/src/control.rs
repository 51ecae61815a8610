//! What two ranks say to each other once the handshake is done: still alive, how many ranks are
//! ready, shut down.

use std::collections::HashMap;
use std::time::Duration;

use copper_proto::{LinkId, Tick};

use crate::frame::{Fields, Frame, FrameWriter, Malformed};

const HEARTBEAT: u8 = 16;
const READY: u8 = 17;
const SHUTDOWN: u8 = 18;

/// How often, how long.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Between two heartbeats of one side of a link.
    pub heartbeat: Duration,
    /// Without a word from the other side, after which a link is down.
    pub silence: Duration,
    /// For a whole handshake, from the accepted connection to the last frame.
    pub handshake: Duration,
    /// For one attempt to reach a new parent after the old one was lost.
    pub attempt: Duration,
    /// Without a parent, after which [`crate::Events::orphaned`] is called.
    pub orphan: Duration,
}

impl Default for Pace {
    /// A dead host is noticed after 5 s, a dead daemon at once (its TCP connection closes). With
    /// the bound for orphans the sum stays below the 10 s in which readers must have an answer.
    fn default() -> Pace {
        Pace {
            heartbeat: Duration::from_secs(1),
            silence: Duration::from_secs(5),
            handshake: Duration::from_secs(5),
            attempt: Duration::from_secs(2),
            orphan: Duration::from_secs(2),
        }
    }
}

/// One control message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ControlMessage {
    /// The sender lives.
    Heartbeat,
    /// To a parent: how many ranks at or below the sender are ready.
    Ready {
        /// Ranks.
        count: u32,
    },
    /// To a child: end, and tell your own children.
    Shutdown,
}

impl ControlMessage {
    /// As it goes over the wire.
    pub fn encode(self) -> Frame {
        match self {
            ControlMessage::Heartbeat => FrameWriter::new(HEARTBEAT).finish(),
            ControlMessage::Ready { count } => FrameWriter::new(READY).u32(count).finish(),
            ControlMessage::Shutdown => FrameWriter::new(SHUTDOWN).finish(),
        }
    }

    /// From the wire.
    ///
    /// # Errors
    /// If it is none.
    pub fn decode(frame: &Frame) -> Result<ControlMessage, Malformed> {
        let mut fields = Fields::new(frame.body(), "control message");
        let message = match frame.kind() {
            HEARTBEAT => ControlMessage::Heartbeat,
            READY => ControlMessage::Ready { count: fields.u32()? },
            SHUTDOWN => ControlMessage::Shutdown,
            _ => return Err(fields.malformed()),
        };
        fields.end()?;
        Ok(message)
    }
}

/// The life of one side of one link.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pulse {
    heard: Tick,
    due: Tick,
    missed: u64,
}

/// What a [`Pulse`] wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Beat {
    /// Nothing until then.
    Rest(Tick),
    /// A heartbeat goes out now.
    Send,
    /// The other side is gone.
    Dead,
}

impl Pulse {
    pub(crate) fn new(pace: &Pace, now: Tick) -> Pulse {
        Pulse { heard: now, due: now + pace.heartbeat, missed: 0 }
    }

    pub(crate) fn on_heard(&mut self, now: Tick) {
        self.heard = now;
        self.missed = 0;
    }

    /// What is to be done at `now`. After [`Beat::Send`] the heartbeat counts as sent.
    pub(crate) fn beat(&mut self, pace: &Pace, now: Tick) -> Beat {
        let dead = self.heard + pace.silence;
        if now >= dead {
            return Beat::Dead;
        }
        if now >= self.due {
            self.due = now + pace.heartbeat;
            return Beat::Send;
        }
        Beat::Rest(self.due.min(dead))
    }

    /// Heartbeats that should have come and did not, since this was last asked. The first half
    /// period of lateness does not count.
    pub(crate) fn newly_missed(&mut self, pace: &Pace, now: Tick) -> u64 {
        let late = now.since(self.heard + pace.heartbeat / 2).as_nanos();
        let missed = late.checked_div(pace.heartbeat.as_nanos()).unwrap_or(0);
        let missed = u64::try_from(missed).unwrap_or(u64::MAX);
        let new = missed.saturating_sub(self.missed);
        self.missed = self.missed.max(missed);
        new
    }
}

/// How many ranks at or below this one are ready.
#[derive(Debug, Default)]
pub(crate) struct Readiness {
    own: bool,
    below: HashMap<LinkId, u32>,
}

impl Readiness {
    pub(crate) fn set_own(&mut self) {
        self.own = true;
    }

    pub(crate) fn set_below(&mut self, link: LinkId, count: u32) {
        self.below.insert(link, count);
    }

    pub(crate) fn forget(&mut self, link: LinkId) {
        self.below.remove(&link);
    }

    /// At most `size`: a rank that changes its parent may for a moment be counted twice.
    pub(crate) fn total(&self, size: u32) -> u32 {
        let below = self.below.values().fold(0_u32, |sum, &count| sum.saturating_add(count));
        below.saturating_add(u32::from(self.own)).min(size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn messages_survive_the_wire_and_nothing_else_is_one() {
        let messages = [
            ControlMessage::Heartbeat,
            ControlMessage::Ready { count: 10_624 },
            ControlMessage::Shutdown,
        ];
        for message in messages {
            assert_eq!(ControlMessage::decode(&message.encode()), Ok(message));
        }
        for kind in (0..=u8::MAX).filter(|kind| !(16..=18).contains(kind)) {
            assert!(ControlMessage::decode(&FrameWriter::new(kind).finish()).is_err());
        }
        let long = FrameWriter::new(HEARTBEAT).u8(0).finish();
        assert!(ControlMessage::decode(&long).is_err());
    }

    #[test]
    fn a_pulse_beats_each_second_and_stops_after_five_of_silence() {
        let (pace, start) = (Pace::default(), Tick(0));
        let mut pulse = Pulse::new(&pace, start);
        assert_eq!(pulse.beat(&pace, start), Beat::Rest(start + SECOND));
        assert_eq!(pulse.beat(&pace, start + SECOND), Beat::Send);
        assert_eq!(pulse.beat(&pace, start + SECOND), Beat::Rest(start + 2 * SECOND));
        assert_eq!(pulse.newly_missed(&pace, start + SECOND), 0);
        assert_eq!(pulse.newly_missed(&pace, start + 3 * SECOND), 2);
        assert_eq!(pulse.newly_missed(&pace, start + 3 * SECOND), 0);
        pulse.on_heard(start + 3 * SECOND);
        assert_eq!(pulse.beat(&pace, start + 7 * SECOND), Beat::Send);
        assert_eq!(pulse.beat(&pace, start + 8 * SECOND), Beat::Dead);
    }

    #[test]
    fn readiness_adds_up_and_stays_within_the_job() {
        let mut readiness = Readiness::default();
        readiness.set_below(LinkId(1), 3);
        readiness.set_below(LinkId(2), 2);
        assert_eq!(readiness.total(8), 5);
        readiness.set_own();
        readiness.set_below(LinkId(2), u32::MAX);
        assert_eq!(readiness.total(8), 8);
        readiness.forget(LinkId(2));
        assert_eq!(readiness.total(8), 4);
    }
}
