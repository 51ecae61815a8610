//! The moment from which a launch is complete: one byte in one pipe that all its daemons look at.
//!
//! A daemon that is told by itself could hear it when its neighbour does not, should the launcher be
//! killed between the two. So nobody is told anything: the launcher writes one byte, which nobody
//! reads, and every daemon sees it there, whenever it looks and whatever became of the launcher
//! since. Without the byte the launcher's end is the end of the launch.
//!
//! A daemon gets its end of the pipe over its channel to the launcher: see [`crate::ready`].

use std::io::{self, IoSlice, IoSliceMut, PipeReader, PipeWriter, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::event::{PollFd, PollFlags};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};

/// The launcher's side.
#[derive(Debug)]
pub(crate) struct Release {
    theirs: PipeReader,
    ours: PipeWriter,
}

/// A daemon's side.
#[derive(Debug)]
pub(crate) struct Released(OwnedFd);

impl Release {
    pub(crate) fn new() -> io::Result<Release> {
        let (theirs, ours) = io::pipe()?;
        Ok(Release { theirs, ours })
    }

    /// Leaves the daemons' side in a channel, where it waits until it is taken.
    pub(crate) fn hand_over(&self, channel: &UnixStream) -> io::Result<()> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let descriptors = [self.theirs.as_fd()];
        // The space was measured for it.
        let _ = control.push(SendAncillaryMessage::ScmRights(&descriptors));
        rustix::net::sendmsg(channel, &[IoSlice::new(b"r")], &mut control, SendFlags::empty())?;
        Ok(())
    }

    /// From here on the daemons live without us: all of them, by one system call.
    pub(crate) fn release(mut self) -> io::Result<()> {
        self.ours.write_all(b"r")
    }
}

impl Released {
    /// Takes what the launcher has left in the channel. `None` if there is nothing and the launcher
    /// is gone.
    pub(crate) fn take(channel: &UnixStream) -> io::Result<Option<Released>> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        loop {
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let mut byte = [0];
            let pieces = &mut [IoSliceMut::new(&mut byte)];
            match rustix::net::recvmsg(channel, pieces, &mut control, RecvFlags::CMSG_CLOEXEC) {
                Ok(received) if received.bytes == 0 => return Ok(None),
                Ok(_) => {}
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            }
            let descriptor = control.drain().find_map(|message| match message {
                RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
                _ => None,
            });
            if let Some(descriptor) = descriptor {
                return Ok(Some(Released(descriptor)));
            }
        }
    }

    /// Waits until the launch is complete, or will never be.
    pub(crate) fn wait(&self) -> bool {
        loop {
            let mut ends = [PollFd::new(&self.0, PollFlags::IN)];
            match rustix::event::poll(&mut ends, None) {
                // The byte counts, though the launcher may have ended meanwhile.
                Ok(_) => return ends[0].revents().contains(PollFlags::IN),
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => return false,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_byte_releases_all_daemons_even_those_that_look_after_the_launcher_s_end() {
        let release = Release::new().expect("a pipe");
        let pairs: Vec<_> = (0..3).map(|_| UnixStream::pair().expect("a pair")).collect();
        for (ours, _) in &pairs {
            release.hand_over(ours).expect("the channel is empty");
        }
        release.release().expect("somebody holds the other end");
        for (ours, theirs) in pairs {
            drop(ours);
            let released = Released::take(&theirs).expect("a descriptor").expect("it was left");
            assert!(released.wait() && released.wait(), "nobody takes the byte away");
        }
    }

    #[test]
    fn without_the_byte_the_launcher_s_end_ends_all() {
        let release = Release::new().expect("a pipe");
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        release.hand_over(&ours).expect("the channel is empty");
        let released = Released::take(&theirs).expect("a descriptor").expect("it was left");
        drop(release);
        assert!(!released.wait());
        drop(ours);
        assert!(Released::take(&theirs).expect("an end").is_none());
    }
}
