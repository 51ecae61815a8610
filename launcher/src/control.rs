//! What two ranks say to each other once the handshake is done: still alive, which ranks are
//! ready, shut down, look at the source anew.

use std::time::Duration;

use copper_proto::limits::PATH_BYTES_MAX;
use copper_proto::{Epoch, Rank, Tick, ViewPath};

use crate::frame::{Fields, Frame, FrameWriter, Malformed};
use crate::gather::{GatherError, REPORT_BYTES_MAX};
use crate::rank_set::RankSlice;
use crate::refresh::{RefreshError, Tally};

const HEARTBEAT: u8 = 16;
const READY: u8 = 17;
const SHUTDOWN: u8 = 18;
const JOINED: u8 = 19;
const WANT_REFRESH: u8 = 20;
const REFRESH: u8 = 21;
const REFRESHED: u8 = 22;
const REFRESH_ENDED: u8 = 23;
const WANT_STATUS: u8 = 24;
const GATHER: u8 = 25;
const STATUS_PART: u8 = 26;
const STATUS_END: u8 = 27;
const LEAVING: u8 = 28;

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
    /// The same for a rank that may take the root's place: nothing is lost if the root is back soon.
    pub takeover: Duration,
    /// Without an answer of the parent at the start, after which other ancestors are tried too.
    pub patience: Duration,
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
            takeover: Duration::from_millis(500),
            patience: Duration::MAX,
        }
    }
}

/// One control message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ControlMessage {
    /// The sender lives.
    Heartbeat,
    /// To a parent: which ranks at or below the sender are ready, of those that the slice is about.
    Ready {
        /// These, and no others.
        ranks: RankSlice,
    },
    /// To a child: end, and tell your own children.
    Shutdown,
    /// The sender ends: nobody has lost anything, and nothing more comes.
    Leaving,
    /// To a new parent: the last refresh that the sender has taken in.
    Joined {
        /// Its number.
        epoch: Epoch,
    },
    /// To a parent, and on to the root: somebody wants the source to be looked at anew.
    WantRefresh {
        /// The sender's number for it.
        request: u32,
        /// What.
        path: ViewPath,
    },
    /// To a child: forget what you hold of this, then tell your own children.
    Refresh {
        /// The refresh's number.
        epoch: Epoch,
        /// An answer is of no use after this many milliseconds.
        bound_ms: u32,
        /// What.
        path: ViewPath,
    },
    /// To a parent: the sender, and who is below it, have done so, or not.
    Refreshed {
        /// The refresh's number.
        epoch: Epoch,
        /// Who, and what they have dropped.
        tally: Tally,
    },
    /// To the child that has sent [`ControlMessage::WantRefresh`].
    RefreshEnded {
        /// The child's number for it.
        request: u32,
        /// What has come of it.
        result: Result<(Epoch, Tally), RefreshError>,
    },
    /// To a parent, and on to the root: somebody wants to know how all ranks are.
    WantStatus {
        /// The sender's number for it.
        request: u32,
    },
    /// To a child: say how you are, and have your children do so.
    Gather {
        /// The root's number for it.
        run: u32,
        /// An answer is of no use after this many milliseconds.
        bound_ms: u32,
    },
    /// What one rank says of itself: up with the number of [`ControlMessage::Gather`], down with that
    /// of [`ControlMessage::WantStatus`].
    StatusPart {
        /// What it belongs to.
        number: u32,
        /// Who.
        rank: Rank,
        /// What, as JSON.
        report: Vec<u8>,
    },
    /// That was all, in either direction.
    StatusEnd {
        /// What has ended.
        number: u32,
        /// Why there is nothing, or no more.
        error: Option<GatherError>,
    },
}

impl ControlMessage {
    /// As it goes over the wire.
    pub fn encode(&self) -> Frame {
        match self {
            ControlMessage::Heartbeat => FrameWriter::new(HEARTBEAT).finish(),
            ControlMessage::Ready { ranks } => ranks.encode(FrameWriter::new(READY)).finish(),
            ControlMessage::Shutdown => FrameWriter::new(SHUTDOWN).finish(),
            ControlMessage::Leaving => FrameWriter::new(LEAVING).finish(),
            ControlMessage::Joined { epoch } => FrameWriter::new(JOINED).u64(epoch.0).finish(),
            ControlMessage::WantRefresh { request, path } => {
                FrameWriter::new(WANT_REFRESH).u32(*request).bytes(path.as_bytes()).finish()
            }
            ControlMessage::Refresh { epoch, bound_ms, path } => {
                let frame = FrameWriter::new(REFRESH).u64(epoch.0).u32(*bound_ms);
                frame.bytes(path.as_bytes()).finish()
            }
            ControlMessage::Refreshed { epoch, tally } => {
                tally.encode(FrameWriter::new(REFRESHED).u64(epoch.0)).finish()
            }
            ControlMessage::WantStatus { request } => {
                FrameWriter::new(WANT_STATUS).u32(*request).finish()
            }
            ControlMessage::Gather { run, bound_ms } => {
                FrameWriter::new(GATHER).u32(*run).u32(*bound_ms).finish()
            }
            ControlMessage::StatusPart { number, rank, report } => {
                FrameWriter::new(STATUS_PART).u32(*number).u32(rank.0).bytes(report).finish()
            }
            ControlMessage::StatusEnd { number, error } => {
                GatherError::encode(*error, FrameWriter::new(STATUS_END).u32(*number)).finish()
            }
            ControlMessage::RefreshEnded { request, result } => {
                let frame = FrameWriter::new(REFRESH_ENDED).u32(*request);
                match result {
                    Ok((epoch, tally)) => tally.encode(frame.u8(0).u64(epoch.0)).finish(),
                    Err(error) => error.encode(frame).finish(),
                }
            }
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
            READY => ControlMessage::Ready { ranks: RankSlice::decode(&mut fields)? },
            SHUTDOWN => ControlMessage::Shutdown,
            LEAVING => ControlMessage::Leaving,
            JOINED => ControlMessage::Joined { epoch: Epoch(fields.u64()?) },
            WANT_REFRESH => {
                ControlMessage::WantRefresh { request: fields.u32()?, path: path(&mut fields)? }
            }
            REFRESH => ControlMessage::Refresh {
                epoch: Epoch(fields.u64()?),
                bound_ms: fields.u32()?,
                path: path(&mut fields)?,
            },
            REFRESHED => ControlMessage::Refreshed {
                epoch: Epoch(fields.u64()?),
                tally: Tally::decode(&mut fields)?,
            },
            REFRESH_ENDED => ControlMessage::RefreshEnded {
                request: fields.u32()?,
                result: match fields.u8()? {
                    0 => Ok((Epoch(fields.u64()?), Tally::decode(&mut fields)?)),
                    code => Err(RefreshError::decode(code, &mut fields)?),
                },
            },
            WANT_STATUS => ControlMessage::WantStatus { request: fields.u32()? },
            GATHER => ControlMessage::Gather { run: fields.u32()?, bound_ms: fields.u32()? },
            STATUS_PART => ControlMessage::StatusPart {
                number: fields.u32()?,
                rank: Rank(fields.u32()?),
                report: fields.bytes(REPORT_BYTES_MAX)?.to_vec(),
            },
            STATUS_END => ControlMessage::StatusEnd {
                number: fields.u32()?,
                error: GatherError::decode(&mut fields)?,
            },
            _ => return Err(fields.malformed()),
        };
        fields.end()?;
        Ok(message)
    }
}

fn path(fields: &mut Fields<'_>) -> Result<ViewPath, Malformed> {
    ViewPath::parse(fields.bytes(PATH_BYTES_MAX)?).ok_or_else(|| fields.malformed())
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rank_set::RankSet;
    use copper_proto::Dropped;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn messages_survive_the_wire_and_nothing_else_is_one() {
        let long = ViewPath::parse(&[b"a".as_slice(); PATH_BYTES_MAX / 2].join(&b'/'));
        let long = long.expect("short enough");
        let dropped = Dropped { entries: 1, directories: 2, blocks: 3, bytes: u64::MAX };
        let missing: Vec<Rank> = (0..1000).map(Rank).collect();
        let guests = vec![Rank(5), Rank(7)];
        let tally = Tally { guests, ..Tally::new(7, dropped, missing, 3) };
        let mut ready = RankSet::new(10_624);
        for rank in [1, 17, 10_623] {
            ready.insert(Rank(rank));
        }
        let failed = Err(RefreshError::NoParent { rank: Rank(9) });
        let messages = [
            ControlMessage::Heartbeat,
            ControlMessage::Ready { ranks: ready.slice(0) },
            ControlMessage::Shutdown,
            ControlMessage::Leaving,
            ControlMessage::Joined { epoch: Epoch(u64::MAX) },
            ControlMessage::WantRefresh { request: 7, path: ViewPath::root() },
            ControlMessage::Refresh { epoch: Epoch(1), bound_ms: 10_000, path: long },
            ControlMessage::Refreshed { epoch: Epoch(1), tally: tally.clone() },
            ControlMessage::RefreshEnded { request: 7, result: Ok((Epoch(1), tally)) },
            ControlMessage::RefreshEnded { request: 7, result: failed },
            ControlMessage::WantStatus { request: 7 },
            ControlMessage::Gather { run: 7, bound_ms: 2000 },
            ControlMessage::StatusPart {
                number: 7,
                rank: Rank(9),
                report: vec![b'x'; REPORT_BYTES_MAX],
            },
            ControlMessage::StatusEnd { number: 7, error: None },
            ControlMessage::StatusEnd {
                number: 7,
                error: Some(GatherError::Busy { rank: Rank(9) }),
            },
        ];
        for message in messages {
            let frame = message.encode();
            assert_eq!(ControlMessage::decode(&frame), Ok(message));
            for len in 3..frame.as_bytes().len() {
                let mut cut = frame.as_bytes()[..len].to_vec();
                cut[..2].copy_from_slice(&u16::try_from(len - 2).expect("short").to_le_bytes());
                let cut = Frame::parse(&cut).expect("a frame");
                assert!(ControlMessage::decode(&cut).is_err(), "{frame:?} cut at {len}");
            }
        }
        for kind in
            (0..=u8::MAX).filter(|kind| ![HEARTBEAT, READY, SHUTDOWN, LEAVING].contains(kind))
        {
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
}
