//! How the engine's thread sleeps, and how others end its sleep: one epoll over the fabric's
//! descriptor and an eventfd.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use copper_engine::Wake;
use rustix::event::{EventfdFlags, Timespec, epoll, eventfd};

/// The longest sleep: a fabric's descriptor may miss a wake-up.
const SLEEP_MAX: Duration = Duration::from_millis(100);

/// The longest sleep where the fabric has no descriptor (shm) and has to be polled.
const POLL_PAUSE: Duration = Duration::from_micros(500);

/// Wakes a [`Sleeper`].
#[derive(Clone, Debug)]
pub(crate) struct Bell(Arc<OwnedFd>);

impl Wake for Bell {
    fn wake(&self) {
        // Full means that it has been rung often enough.
        let _ = rustix::io::write(&*self.0, &1_u64.to_ne_bytes());
    }
}

/// Belongs to the thread that sleeps.
#[derive(Debug)]
pub(crate) struct Sleeper {
    epoll: OwnedFd,
    bell: Bell,
    polls: bool,
}

impl Sleeper {
    /// # Errors
    /// If the kernel has no descriptors left.
    pub(crate) fn new() -> io::Result<Sleeper> {
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let data = epoll::EventData::new_u64(0);
        epoll::add(&epoll, &bell, data, epoll::EventFlags::IN)?;
        Ok(Sleeper { epoll, bell: Bell(Arc::new(bell)), polls: true })
    }

    /// Wakes this.
    pub(crate) fn bell(&self) -> Bell {
        self.bell.clone()
    }

    /// Has the fabric's descriptor end the sleep too.
    ///
    /// # Errors
    /// If it cannot be waited for.
    pub(crate) fn watch(&mut self, descriptor: BorrowedFd<'_>) -> io::Result<()> {
        let data = epoll::EventData::new_u64(1);
        epoll::add(&self.epoll, descriptor, data, epoll::EventFlags::IN)?;
        self.polls = false;
        Ok(())
    }

    /// Sleeps until woken, until the fabric has something, or for `at_most`.
    pub(crate) fn sleep(&self, at_most: Duration) {
        let longest = if self.polls { POLL_PAUSE } else { SLEEP_MAX };
        let timeout = Timespec::try_from(at_most.min(longest)).expect("well below a second");
        let mut events: [epoll::Event; 2] = [epoll::Event {
            flags: epoll::EventFlags::empty(),
            data: epoll::EventData::new_u64(0),
        }; 2];
        // Interrupted, or nothing in time: either way the caller looks again.
        let _ = epoll::wait(&self.epoll, &mut events[..], Some(&timeout));
        let mut rung = [0; 8];
        let _ = rustix::io::read(self.bell.0.as_fd(), &mut rung);
    }
}
