//! A link's control channel: control messages over a connection whose other end has proven itself.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use rustix::event::PollFlags;

use crate::connection::Connection;
use crate::control::ControlMessage;
use crate::counters::Counters;
use crate::frame::Arrival;
use crate::seal::Seals;

/// Messages that may wait for the other side to read: reports of a whole job, of up to 4 KiB each. Of
/// more the last are lost, and their ranks count as those that have not answered.
const IN_TURN_MAX: usize = 16 << 10;

/// What one attempt to hear something brought.
pub(crate) enum Heard {
    Message(ControlMessage),
    /// Not yet.
    Nothing,
    /// The other side closed the connection.
    End,
    /// Not a control message; no more can be heard after it.
    Malformed,
}

pub(crate) struct Channel {
    connection: Connection,
    seals: Seals,
    /// Waits until the connection has taken what came before.
    in_turn: VecDeque<ControlMessage>,
    counters: Arc<Counters>,
}

impl Channel {
    pub(crate) fn new(connection: Connection, seals: Seals, counters: &Arc<Counters>) -> Channel {
        Channel { connection, seals, in_turn: VecDeque::new(), counters: Arc::clone(counters) }
    }

    pub(crate) fn send(&mut self, message: &ControlMessage) -> io::Result<()> {
        if *message != ControlMessage::Heartbeat {
            self.counters.control_sent.fetch_add(1, Relaxed);
        }
        self.connection.send(&self.seals.send.close(&message.encode()))
    }

    pub(crate) fn receive(&mut self) -> io::Result<Heard> {
        let frame = match self.connection.receive()? {
            Arrival::Frame(frame) => frame,
            Arrival::Nothing => return Ok(Heard::Nothing),
            Arrival::End => return Ok(Heard::End),
            Arrival::Malformed(_) => return Ok(Heard::Malformed),
        };
        let Some(frame) = self.seals.receive.open(&frame) else {
            self.counters.control_forged.fetch_add(1, Relaxed);
            return Ok(Heard::Malformed);
        };
        let Ok(message) = ControlMessage::decode(&frame) else { return Ok(Heard::Malformed) };
        if message != ControlMessage::Heartbeat {
            self.counters.control_received.fetch_add(1, Relaxed);
        }
        Ok(Heard::Message(message))
    }

    /// Sends it when the other side has room for it, one after the other: for messages of which there
    /// may be many. A failure shows itself again at the next heartbeat, which takes the link down.
    pub(crate) fn send_in_turn(&mut self, message: ControlMessage) {
        if self.in_turn.len() < IN_TURN_MAX {
            self.in_turn.push_back(message);
        }
        let _ = self.flush();
    }

    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.connection.flush()?;
        while self.connection.is_idle()
            && let Some(message) = self.in_turn.pop_front()
        {
            self.send(&message)?;
        }
        Ok(())
    }

    /// What to wait for.
    pub(crate) fn interest(&self) -> PollFlags {
        self.connection.interest()
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.connection.as_fd()
    }
}
