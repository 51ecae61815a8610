//! How the engine's thread sleeps, and how others end its sleep: one epoll over the fabric's
//! descriptor and an eventfd.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use copper_engine::Wake;
use rustix::event::{EventfdFlags, Timespec, epoll, eventfd};

/// Which descriptor an event is of.
const BELL: u64 = 0;
const FABRIC: u64 = 1;

/// The longest sleep after work: a fabric's descriptor may miss a wake-up.
const SLEEP_MAX: Duration = Duration::from_millis(100);

/// How often it doubles while nothing comes: to 0.4 s.
const QUIET_DOUBLINGS: u32 = 2;

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
        let data = epoll::EventData::new_u64(BELL);
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
        let data = epoll::EventData::new_u64(FABRIC);
        epoll::add(&self.epoll, descriptor, data, epoll::EventFlags::IN)?;
        self.polls = false;
        Ok(())
    }

    /// Sleeps until woken, until the fabric has something, or for `at_most`. Whether it was anything
    /// but the time. `quiet` is how many sleeps before this one only the time has ended.
    pub(crate) fn sleep(&self, at_most: Duration, quiet: u32) -> bool {
        let longest = match self.polls {
            true => POLL_PAUSE,
            false => SLEEP_MAX * (1 << quiet.min(QUIET_DOUBLINGS)),
        };
        let timeout = Timespec::try_from(at_most.min(longest)).expect("well below a second");
        let mut events: [epoll::Event; 2] = [epoll::Event {
            flags: epoll::EventFlags::empty(),
            data: epoll::EventData::new_u64(FABRIC),
        }; 2];
        // Interrupted: the caller looks again.
        let Ok(count) = epoll::wait(&self.epoll, &mut events[..], Some(&timeout)) else {
            return true;
        };
        if events[..count].iter().any(|event| event.data.u64() == BELL) {
            let mut rung = [0; 8];
            let _ = rustix::io::read(self.bell.0.as_fd(), &mut rung);
        }
        count > 0
    }
}
