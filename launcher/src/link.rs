//! A link's control channel: what is heard on it, and how it ends.

use std::io;
use std::sync::atomic::Ordering::Relaxed;

use copper_proto::Tick;

use crate::ascent::Loss;
use crate::channel::{Channel, Heard};
use crate::control::{Beat, ControlMessage, Pace, Pulse};
use crate::counters::Counters;
use crate::refusal::HandshakeError;

/// Frames read from one connection in one turn, so that nobody is starved by one that sends
/// without end.
const FRAMES_PER_TURN: usize = 16;

/// Why an attempt to reach a parent failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Reason {
    #[error("it does not answer in time")]
    Silent,
    #[error("its host has not been looked up yet")]
    NotLookedUp,
    #[error("nothing sensible came over its fabric a while ago")]
    Barred,
    #[error("it closed the connection during the handshake")]
    HungUp,
    #[error("{}", short(.0))]
    Io(#[from] io::Error),
    #[error("{0}")]
    Handshake(HandshakeError),
}

/// "connection refused" rather than "Connection refused (os error 111)", where the kind says it.
fn short(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused
        | io::ErrorKind::ConnectionReset
        | io::ErrorKind::HostUnreachable
        | io::ErrorKind::NetworkUnreachable
        | io::ErrorKind::TimedOut => error.kind().to_string(),
        _ => error.to_string(),
    }
}

/// How a link ended.
#[derive(Debug)]
pub(crate) struct LinkEnd {
    pub(crate) loss: Loss,
    pub(crate) reason: String,
}

impl LinkEnd {
    pub(crate) fn closed(reason: impl Into<String>) -> LinkEnd {
        LinkEnd { loss: Loss::Closed, reason: reason.into() }
    }

    /// It has said so.
    pub(crate) fn left() -> LinkEnd {
        LinkEnd { loss: Loss::Left, reason: "it has ended".to_owned() }
    }

    pub(crate) fn broken() -> LinkEnd {
        let reason = "nothing came over the fabric, or nonsense".to_owned();
        LinkEnd { loss: Loss::Broken, reason }
    }

    pub(crate) fn nonsense() -> LinkEnd {
        LinkEnd::closed("it sent something that is not a control message")
    }
}

/// Everything that has arrived on a link, up to a bound; and its end, if it has come.
pub(crate) fn hear(
    channel: &mut Channel,
    pulse: &mut Pulse,
    now: Tick,
) -> (Vec<ControlMessage>, Option<LinkEnd>) {
    let mut messages = Vec::new();
    if let Err(error) = channel.flush() {
        return (messages, Some(LinkEnd::closed(short(&error))));
    }
    while messages.len() < FRAMES_PER_TURN {
        let end = match channel.receive() {
            Ok(Heard::Message(message)) => {
                pulse.on_heard(now);
                messages.push(message);
                continue;
            }
            Ok(Heard::Nothing) => return (messages, None),
            Ok(Heard::End) => LinkEnd::closed("it closed the connection"),
            Ok(Heard::Malformed) => LinkEnd::nonsense(),
            Err(error) => LinkEnd::closed(short(&error)),
        };
        return (messages, Some(end));
    }
    (messages, None)
}

/// Sends a heartbeat if one is due. Returns when to come again.
pub(crate) fn keep_alive(
    channel: &mut Channel,
    pulse: &mut Pulse,
    pace: &Pace,
    counters: &Counters,
    now: Tick,
) -> Result<Tick, LinkEnd> {
    counters.heartbeats_missed.fetch_add(pulse.newly_missed(pace, now), Relaxed);
    loop {
        match pulse.beat(pace, now) {
            Beat::Rest(until) => return Ok(until),
            Beat::Send => channel
                .send(&ControlMessage::Heartbeat)
                .map_err(|error| LinkEnd::closed(short(&error)))?,
            Beat::Dead => {
                let reason = format!("it has been silent for {} s", pace.silence.as_secs_f32());
                return Err(LinkEnd { loss: Loss::Silent, reason });
            }
        }
    }
}
