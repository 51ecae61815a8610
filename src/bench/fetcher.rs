//! A reader without a kernel: it keeps a number of questions open and asks the next as soon as one is
//! answered, on the engine's thread, so that no wake-up of its own is timed.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use copper_engine::view::Looked;
use copper_engine::{Answer, Answers, EngineView, InodeNumber, Now, Provenance, Question, View};
use copper_ofi::Filled;
use copper_proto::limits::BLOCK_BYTES;
use copper_proto::{Errno, Ticket};

use super::orders::{Files, Timed};
use super::synthetic;
use super::worker::clock_ns;

/// How long a batch of questions may take in all.
const BATCH_BOUND: Duration = Duration::from_secs(180);

/// Blocks of a fetch that are compared with the source afterwards.
const CHECKED_MAX: usize = 64;

/// Look-ups at once.
const LOOKUPS: usize = 64;

#[derive(Default)]
struct Batch {
    first: u64,
    waiting: VecDeque<Question>,
    begun_ns: Vec<u64>,
    each_ns: Vec<u64>,
    found: Vec<(u64, InodeNumber)>,
    bytes: u64,
    end_ns: u64,
    failed: Option<Errno>,
}

impl Batch {
    fn is_over(&self) -> bool {
        let open = self.begun_ns.len() - self.each_ns.len();
        self.failed.is_some() || (self.waiting.is_empty() && open == 0)
    }
}

/// Asks the engine of one rank and takes its answers.
#[derive(Default)]
pub(super) struct Fetcher {
    view: OnceLock<EngineView<Filled>>,
    batch: Mutex<Batch>,
    over: Condvar,
}

/// A file that has been looked up.
#[derive(Clone, Copy)]
struct File {
    inode: InodeNumber,
    identity: u64,
}

/// The files of a set, ready to be read.
pub(super) struct Prepared {
    files: Files,
    found: Vec<File>,
}

impl Fetcher {
    /// Where it asks. To be called once, before anything is asked.
    pub(super) fn set_view(&self, view: EngineView<Filled>) {
        let _ = self.view.set(view);
    }

    /// Looks up all files of a set.
    pub(super) fn prepare(&self, files: Files) -> anyhow::Result<Prepared> {
        let directory = synthetic::directory(files);
        let lookup = |parent, name| Question::Lookup { parent, name };
        let questions = VecDeque::from([lookup(InodeNumber::ROOT, directory)]);
        let found = self.ask(questions, 1)?.found;
        let &[(_, parent)] = &found[..] else { bail!("the source has lost its directory") };
        let names = (0..files.count).map(|index| lookup(parent, synthetic::name(files, index)));
        let mut found = self.ask(names.collect(), LOOKUPS)?.found;
        found.sort_unstable();
        if found.len() != files.count as usize {
            bail!("of {} files {} were found", files.count, found.len());
        }
        let found = found.into_iter().map(|(_, inode)| {
            let attributes = match self.view().attributes(inode) {
                Now::Answered(attributes) => attributes.map_err(|errno| anyhow!("{errno:?}"))?,
                Now::Ask => bail!("a file that was looked up is not known"),
            };
            Ok(File { inode, identity: attributes.inode })
        });
        Ok(Prepared { files, found: found.collect::<anyhow::Result<_>>()? })
    }

    /// Reads all files of a set, a block at a time, `window` blocks at once; compares some of what
    /// came with the source.
    pub(super) fn fetch(&self, prepared: &Prepared, window: usize) -> anyhow::Result<Timed> {
        let blocks: Vec<_> = prepared.blocks().collect();
        let questions = blocks.iter().map(|&(file, offset, len)| Question::Read {
            inode: file.inode,
            offset,
            len,
        });
        let start_ns = clock_ns();
        let batch = self.ask(questions.collect(), window)?;
        let timed = Timed::of(start_ns, batch.end_ns, batch.bytes, batch.each_ns);
        let expected = u64::from(prepared.files.count) * prepared.files.bytes;
        if timed.bytes != expected {
            bail!("{} bytes came, not {expected}", timed.bytes);
        }
        self.check(&blocks)?;
        Ok(timed)
    }

    fn check(&self, blocks: &[(File, u64, u32)]) -> anyhow::Result<()> {
        let mut expected = vec![0; BLOCK_BYTES as usize];
        let mut checked = 0;
        // From the last on: the first may have been evicted.
        for &(file, offset, len) in blocks.iter().rev().step_by((blocks.len() / CHECKED_MAX).max(1))
        {
            let Now::Answered(pieces) = self.view().read(file.inode, offset, len) else { continue };
            let pieces = pieces.map_err(|errno| anyhow!("a block that came is lost: {errno:?}"))?;
            let mut at = offset;
            for piece in pieces {
                let bytes = piece.as_ref();
                let expected = &mut expected[..bytes.len()];
                synthetic::fill(file.identity, at, expected);
                if bytes != expected {
                    bail!("bytes came that are not the source's, in a block at {offset}");
                }
                at += bytes.len() as u64;
            }
            checked += 1;
        }
        if checked == 0 {
            bail!("none of the blocks that came could be checked");
        }
        Ok(())
    }

    fn view(&self) -> &EngineView<Filled> {
        self.view.get().expect("set before anything is asked")
    }

    fn batch(&self) -> MutexGuard<'_, Batch> {
        self.batch.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ask(&self, questions: VecDeque<Question>, window: usize) -> anyhow::Result<Batch> {
        let mut batch = self.batch();
        // Answers to an earlier batch, which failed, are not taken for this one's.
        let first = batch.first + batch.begun_ns.len() as u64;
        *batch = Batch { first, waiting: questions, ..Batch::default() };
        for _ in 0..window {
            self.next(&mut batch);
        }
        let over = self.over.wait_timeout_while(batch, BATCH_BOUND, |batch| !batch.is_over());
        let (mut batch, _) = over.unwrap_or_else(PoisonError::into_inner);
        if let Some(errno) = batch.failed {
            return Err(anyhow!("{errno:?}")).context("a question of the bench failed");
        }
        if !batch.is_over() {
            bail!("the bench's questions were not answered within {} s", BATCH_BOUND.as_secs());
        }
        let begun = batch.begun_ns.len() as u64;
        let done = std::mem::take(&mut *batch);
        batch.first = done.first + begun;
        Ok(done)
    }

    fn next(&self, batch: &mut Batch) {
        let Some(question) = batch.waiting.pop_front() else { return };
        let ticket = Ticket(batch.first + batch.begun_ns.len() as u64);
        batch.begun_ns.push(clock_ns());
        if let Err(errno) = self.view().ask(ticket, question) {
            batch.failed = Some(errno);
        }
    }
}

impl Answers<Filled> for Fetcher {
    fn answer(&self, ticket: Ticket, answer: Result<Answer<Filled>, Errno>, _: Provenance) {
        let mut batch = self.batch();
        let Some(index) = ticket.0.checked_sub(batch.first) else { return };
        let now_ns = clock_ns();
        let Some(&begun_ns) = usize::try_from(index).ok().and_then(|at| batch.begun_ns.get(at))
        else {
            return;
        };
        batch.each_ns.push(now_ns - begun_ns);
        match answer {
            Ok(Answer::Data(pieces)) => {
                batch.bytes += pieces.iter().map(|piece| piece.as_ref().len() as u64).sum::<u64>();
            }
            Ok(Answer::Looked(Looked::Found(found))) => batch.found.push((index, found.inode)),
            Ok(_) => batch.failed = Some(Errno::ENOENT),
            Err(errno) => batch.failed = Some(errno),
        }
        self.next(&mut batch);
        if batch.is_over() {
            batch.end_ns = now_ns;
            self.over.notify_all();
        }
    }
}

impl Prepared {
    pub(super) fn files(&self) -> Files {
        self.files
    }

    fn blocks(&self) -> impl Iterator<Item = (File, u64, u32)> + '_ {
        let bytes = self.files.bytes;
        self.found.iter().flat_map(move |&file| {
            let offsets = (0..bytes).step_by(BLOCK_BYTES as usize);
            offsets.map(move |offset| {
                let len = (bytes - offset).min(u64::from(BLOCK_BYTES));
                (file, offset, u32::try_from(len).expect("at most a block"))
            })
        })
    }
}
