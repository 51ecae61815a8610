//! Processes that list one directory at the same time.
//!
//! The kernel keeps a listing once somebody has read it to its end, which takes two requests: the
//! names, and then nothing. Twelve processes that list a directory at once make 24, since the kernel
//! does not join them. So the first is answered, and the others wait until it has reached the end,
//! a fraction of a millisecond later. They then get all names but the last: the kernel goes on from
//! there in what it keeps, and finds the last name and the end. (It does not find the end alone:
//! fuse_readdir_cached in fs/fuse/readdir.c looks for an entry at the position.) A first one that takes
//! longer (a large directory, a process that stops reading) holds nobody up for more than [`HOLD`].
//!
//! Replies wait in [`Pending`] as all others do; here are their tickets only.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use copper_engine::{Answer, InodeNumber, Provenance};
use copper_proto::{Directory, Ticket};

use crate::pending::Pending;

/// How long the others wait at most.
const HOLD: Duration = Duration::from_millis(2);

/// How long a process may take to go on when it is told that a listing has ended: two wake-ups.
const SETTLE: Duration = Duration::from_micros(300);

/// Directories that are being listed; more are answered as they come.
const DIRECTORIES_MAX: usize = 1024;

/// A directory that somebody has begun to list.
struct Listing {
    number: u64,
    since: Instant,
    directory: Arc<Directory>,
    waiting: Vec<Ticket>,
    kept: Arc<AtomicBool>,
}

#[derive(Default)]
struct State {
    listings: HashMap<InodeNumber, Listing>,
    next: u64,
}

/// Somebody waits for this listing: it is not to take longer.
struct Watched {
    inode: InodeNumber,
    number: u64,
    until: Instant,
}

/// The directories that are being listed.
pub(crate) struct Listers {
    state: Arc<Mutex<State>>,
    watched: SyncSender<Watched>,
}

/// The other end of [`Listers`], for the thread that keeps the bound.
pub(crate) struct Watching {
    state: Arc<Mutex<State>>,
    watched: Receiver<Watched>,
}

/// Whose turn it is.
#[derive(Debug)]
pub(crate) enum Turn {
    /// The caller's. Those who waited for somebody before, for too long, are to be answered.
    Now(Vec<Ticket>),
    /// Somebody else's: [`Listers::wait`]. True from when the kernel keeps the listing.
    Later(Arc<AtomicBool>),
}

pub(crate) fn listers() -> (Listers, Watching) {
    let state = Arc::new(Mutex::new(State::default()));
    let (sender, receiver) = sync_channel(DIRECTORIES_MAX);
    let listers = Listers { state: Arc::clone(&state), watched: sender };
    (listers, Watching { state, watched: receiver })
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().expect("no code of others runs under the lock")
}

impl Listers {
    /// Somebody lists a directory from its beginning.
    pub(crate) fn turn(
        &self,
        inode: InodeNumber,
        directory: &Arc<Directory>,
        now: Instant,
    ) -> Turn {
        let mut state = lock(&self.state);
        let fresh = |listing: &Listing| now.saturating_duration_since(listing.since) < HOLD;
        if let Some(listing) = state.listings.get(&inode).filter(|listing| fresh(listing)) {
            return Turn::Later(Arc::clone(&listing.kept));
        }
        if state.listings.len() >= DIRECTORIES_MAX {
            // What nobody waits for was not read to its end.
            state.listings.retain(|_, listing| fresh(listing) || !listing.waiting.is_empty());
        }
        let number = state.next;
        state.next += 1;
        let directory = Arc::clone(directory);
        let kept = Arc::new(AtomicBool::new(false));
        let listing = Listing { number, since: now, directory, waiting: Vec::new(), kept };
        let before = if state.listings.len() < DIRECTORIES_MAX {
            state.listings.insert(inode, listing)
        } else {
            state.listings.remove(&inode)
        };
        Turn::Now(before.map(|before| before.waiting).unwrap_or_default())
    }

    /// Waits for the one whose turn it is; false if it has ended, or cannot be waited for: the
    /// caller answers then.
    pub(crate) fn wait(&self, inode: InodeNumber, ticket: Ticket) -> bool {
        let mut state = lock(&self.state);
        let Some(listing) = state.listings.get_mut(&inode) else { return false };
        let (number, until) = (listing.number, listing.since + HOLD);
        if listing.waiting.is_empty()
            && self.watched.try_send(Watched { inode, number, until }).is_err()
        {
            return false;
        }
        listing.waiting.push(ticket);
        true
    }

    /// A listing has been read to its end: those who waited for that are answered in a moment, when
    /// the process that has read it has told the kernel so.
    pub(crate) fn end(&self, inode: InodeNumber, now: Instant) {
        let mut state = lock(&self.state);
        let Some(listing) = state.listings.get_mut(&inode) else { return };
        if listing.waiting.is_empty() {
            state.listings.remove(&inode);
            return;
        }
        listing.kept.store(true, Ordering::Release);
        let (number, until) = (listing.number, now + SETTLE);
        // If the thread has too much to do, it finds them when their time is over.
        let _ = self.watched.try_send(Watched { inode, number, until });
    }
}

impl Watching {
    /// Starts the thread; it ends with the [`Listers`].
    ///
    /// # Errors
    /// If there is no thread to be had.
    pub(crate) fn start<B: Send + 'static>(self, pending: Arc<Pending<B>>) -> io::Result<()> {
        let watch = move || {
            let mut watched = Vec::<Watched>::new();
            loop {
                let now = Instant::now();
                for Watched { inode, number, .. } in watched.extract_if(.., |it| it.until <= now) {
                    if let Some(Listing { directory, waiting, .. }) = self.remove(inode, number) {
                        answer(&pending, waiting, &directory);
                    }
                }
                let next = watched.iter().map(|it| it.until).min();
                let received = match next {
                    Some(next) => self.watched.recv_timeout(next.saturating_duration_since(now)),
                    None => self.watched.recv().map_err(RecvTimeoutError::from),
                };
                match received {
                    Ok(more) => watched.push(more),
                    Err(RecvTimeoutError::Timeout) => {}
                    // Whoever waits is answered with the closing of the table of replies.
                    Err(RecvTimeoutError::Disconnected) => return,
                }
            }
        };
        thread::Builder::new().name("fuse-listers".to_owned()).spawn(watch)?;
        Ok(())
    }

    fn remove(&self, inode: InodeNumber, number: u64) -> Option<Listing> {
        let mut state = lock(&self.state);
        let is_it = state.listings.get(&inode).is_some_and(|listing| listing.number == number);
        if is_it { state.listings.remove(&inode) } else { None }
    }
}

/// Answers those who have waited.
pub(crate) fn answer<B: Send + 'static>(
    pending: &Pending<B>,
    waiting: Vec<Ticket>,
    directory: &Arc<Directory>,
) {
    for ticket in waiting {
        if let Some(complete) = pending.take(ticket) {
            complete(Ok(Answer::Directory(Arc::clone(directory))), Provenance::Held);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use copper_proto::DirectoryBuilder;

    const HERE: InodeNumber = InodeNumber(7);

    fn directory() -> Arc<Directory> {
        let bytes = DirectoryBuilder::default().finish();
        Arc::new(Directory::decode(&bytes).expect("well-formed"))
    }

    #[test]
    fn the_first_goes_ahead_and_the_others_wait_for_its_end() {
        let (listers, watching) = listers();
        let (directory, now) = (directory(), Instant::now());
        assert!(matches!(listers.turn(HERE, &directory, now), Turn::Now(none) if none.is_empty()));
        let Turn::Later(kept) = listers.turn(HERE, &directory, now) else { panic!("later") };
        assert!(listers.wait(HERE, Ticket(1)) && listers.wait(HERE, Ticket(2)));
        assert!(!kept.load(Ordering::Acquire));
        listers.end(HERE, now);
        assert!(kept.load(Ordering::Acquire));
        let number = lock(&watching.state).listings[&HERE].number;
        let waiting = watching.remove(HERE, number).expect("it is there").waiting;
        assert_eq!(waiting, [Ticket(1), Ticket(2)]);
        assert!(!listers.wait(HERE, Ticket(3)), "it has ended");
        assert!(matches!(listers.turn(HERE, &directory, now), Turn::Now(none) if none.is_empty()));
    }

    #[test]
    fn nobody_waits_for_one_that_takes_long() {
        let (listers, watching) = listers();
        let (directory, now) = (directory(), Instant::now());
        listers.turn(HERE, &directory, now);
        assert!(listers.wait(HERE, Ticket(1)));
        let next = listers.turn(HERE, &directory, now + HOLD);
        assert!(matches!(next, Turn::Now(overdue) if overdue == [Ticket(1)]));
        let Watched { inode, number, .. } = watching.watched.recv().expect("one is watched");
        assert_eq!(inode, HERE);
        let current = lock(&watching.state).listings[&HERE].number;
        assert_ne!(number, current, "the thread finds another's turn, and nobody to answer");
    }

    #[test]
    fn the_table_is_bounded() {
        let (listers, _watching) = listers();
        let (directory, now) = (directory(), Instant::now());
        for inode in 0..3 * DIRECTORIES_MAX as u64 {
            let turn = listers.turn(InodeNumber(inode), &directory, now);
            assert!(matches!(turn, Turn::Now(none) if none.is_empty()));
        }
        assert!(lock(&listers.state).listings.len() <= DIRECTORIES_MAX);
        listers.turn(HERE, &directory, now + HOLD);
        assert!(lock(&listers.state).listings.len() <= 2, "what was not read to its end is gone");
    }
}
