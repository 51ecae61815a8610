//! One TCP connection that never blocks: frames in, frames out.

use std::io::{self, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};

use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};

use crate::frame::{Arrival, FRAME_BYTES_MAX, Frame, FrameReader};
use crate::refresh::REFRESHES_MAX;

/// What may wait to be sent: a handshake's frame, a few control messages, and the refreshes that may
/// be under way. A peer that lets more pile up does not read.
const OUTBOX_BYTES_MAX: usize = 4096 + REFRESHES_MAX * (FRAME_BYTES_MAX + 2);

pub(crate) struct Connection {
    stream: TcpStream,
    reader: Box<FrameReader>,
    outbox: Vec<u8>,
}

impl Connection {
    pub(crate) fn new(stream: TcpStream) -> io::Result<Connection> {
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        Ok(Connection { stream, reader: Box::new(FrameReader::new()), outbox: Vec::new() })
    }

    /// Begins to connect. Once the connection is writable, [`Connection::outcome`] says how it went.
    pub(crate) fn dial(address: SocketAddr) -> io::Result<Connection> {
        let family = match address {
            SocketAddr::V4(_) => AddressFamily::INET,
            SocketAddr::V6(_) => AddressFamily::INET6,
        };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
        match rustix::net::connect(&socket, &address) {
            Ok(()) | Err(Errno::INPROGRESS) => Connection::new(TcpStream::from(socket)),
            Err(error) => Err(error.into()),
        }
    }

    pub(crate) fn outcome(&self) -> io::Result<()> {
        Ok(rustix::net::sockopt::socket_error(&self.stream)??)
    }

    pub(crate) fn receive(&mut self) -> io::Result<Arrival> {
        self.reader.read_from(&mut self.stream)
    }

    pub(crate) fn send(&mut self, frame: &Frame) -> io::Result<()> {
        if self.outbox.len() + frame.as_bytes().len() > OUTBOX_BYTES_MAX {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "the other side does not read"));
        }
        self.outbox.extend_from_slice(frame.as_bytes());
        self.flush()
    }

    pub(crate) fn flush(&mut self) -> io::Result<()> {
        while !self.outbox.is_empty() {
            match self.stream.write(&self.outbox) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => drop(self.outbox.drain(..count)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Whether nothing waits to be sent.
    pub(crate) fn is_idle(&self) -> bool {
        self.outbox.is_empty()
    }

    /// What to wait for.
    pub(crate) fn interest(&self) -> PollFlags {
        if self.outbox.is_empty() { PollFlags::IN } else { PollFlags::IN | PollFlags::OUT }
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}
