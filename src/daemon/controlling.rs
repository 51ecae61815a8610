//! What ioctls ask for is done here, by one thread: the tables go to files, on whatever file system the
//! run's folder is, and who answers the kernel must not wait for that.

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use copper_cache::Contents;
use copper_engine::ports::Control as EngineControl;
use copper_engine::{Answer, Answers, Provenance, Queue};
use copper_fuse::{Category, Pending};
use copper_ofi::Filled;
use copper_proto::{Epoch, Errno, Scope, Ticket, ViewPath, What};

use crate::controls::{Action, CONTROLS, Control, by_code};
use crate::profile::{Forgotten, Profiler, Tables, Tag, quoted};

/// Ioctls that wait to be done.
const WAITING_MAX: usize = 64;

/// Ioctls of which it is known when they came.
const LOGGED_MAX: usize = 1_024;

/// Objects and paths of a table of the cache.
const ROWS_MAX: usize = 100_000;

/// How long the engine may take to list what it holds.
const ENGINE_BOUND: Duration = Duration::from_secs(10);

/// Takes ioctls from the mount.
#[derive(Debug, Default)]
pub(super) struct Controlling {
    thread: OnceLock<SyncSender<(Control, Ticket)>>,
}

impl copper_fuse::Controls for Controlling {
    fn knows(&self, code: u32) -> bool {
        by_code(code).is_some()
    }

    fn ask(&self, code: u32, ticket: Ticket) -> Result<(), Errno> {
        let control = by_code(code).ok_or(Errno::ENOTTY)?;
        let thread = self.thread.get().ok_or(Errno::EAGAIN)?;
        thread.try_send((control, ticket)).map_err(|_| Errno::EAGAIN)
    }
}

/// What the thread needs.
pub(super) struct Controller {
    pub(super) profiler: Arc<Profiler>,
    pub(super) pending: Arc<Pending<Filled>>,
    pub(super) engine: SyncSender<EngineControl>,
    pub(super) queue: Arc<Queue>,
    /// `DIR/<job>/tables`.
    pub(super) folder: PathBuf,
    /// `<host>-<pid>`.
    pub(super) name: String,
}

impl Controlling {
    /// From now on ioctls are done, until this is dropped.
    pub(super) fn start(&self, controller: Controller) -> io::Result<()> {
        let (asks, asked) = sync_channel(WAITING_MAX);
        let run = move || Running::new(controller).run(&asked);
        std::thread::Builder::new().name("controls".to_owned()).spawn(run)?;
        let _first = self.thread.set(asks);
        Ok(())
    }
}

struct Running {
    controller: Controller,
    tables: Tables,
    started: Instant,
    log: VecDeque<(Duration, Control)>,
}

impl Running {
    fn new(controller: Controller) -> Running {
        let tables = Tables::new(controller.folder.clone(), controller.name.clone());
        Running { controller, tables, started: Instant::now(), log: VecDeque::new() }
    }

    fn run(mut self, asked: &Receiver<(Control, Ticket)>) {
        while let Ok((control, ticket)) = asked.recv() {
            if self.log.len() >= LOGGED_MAX {
                self.log.pop_front();
            }
            self.log.push_back((self.started.elapsed(), control));
            let done = self.act(control.action);
            if let Err(error) = &done {
                tracing::warn!(%error, control = control.name, "an ioctl was not done");
            }
            let answer = done.map(|()| Answer::Done).map_err(|_| Errno::EIO);
            self.controller.pending.answer(ticket, answer, Provenance::Held);
        }
    }

    fn act(&mut self, action: Action) -> io::Result<()> {
        let profiler = Arc::clone(&self.controller.profiler);
        match action {
            Action::ClearCache => self.clear_cache(),
            Action::Clear(column) => {
                profiler.forget(column.forgotten());
                Ok(())
            }
            Action::ClearEvents(category) => {
                profiler.forget(Forgotten::Paths(category));
                Ok(())
            }
            Action::ClearIoctls => {
                self.log.clear();
                Ok(())
            }
            Action::Reset => {
                profiler.write(Tag::PreReset);
                profiler.forget(Forgotten::Everything);
                self.log.clear();
                Ok(())
            }
            Action::LogEverything => {
                profiler.write(Tag::IoctlSnapshot);
                let all = CONTROLS.iter().map(|control| control.action);
                let mut texts = Vec::new();
                for action in all {
                    texts.extend(self.text(action)?);
                }
                self.tables.write(&texts)
            }
            Action::LogCache
            | Action::Log(_)
            | Action::LogEvents(_)
            | Action::LogIoctls
            | Action::LogSize(_) => {
                let texts: Vec<_> = self.text(action)?.into_iter().collect();
                self.tables.write(&texts)
            }
        }
    }

    /// The table that is asked for: its name and its text.
    fn text(&self, action: Action) -> io::Result<Option<(String, String)>> {
        let profiler = &self.controller.profiler;
        Ok(Some(match action {
            Action::LogCache => ("cache.csv".to_owned(), cache_table(&self.contents()?)),
            Action::Log(column) => (format!("{}.csv", column.name()), profiler.column(column)),
            Action::LogEvents(category) => {
                (format!("{}_events.csv", table_name(category)), profiler.events(category))
            }
            Action::LogIoctls => ("ioctl_events.csv".to_owned(), self.ioctl_table()),
            Action::LogSize(category) => {
                let name = format!("{}_size.csv", table_name(category));
                (name, size_table(category, &self.contents()?))
            }
            Action::ClearCache
            | Action::Clear(_)
            | Action::ClearEvents(_)
            | Action::ClearIoctls
            | Action::Reset
            | Action::LogEverything => return Ok(None),
        }))
    }

    /// Of this rank alone: what is asked for again comes from its parent. The engine takes its orders in
    /// turn, so when it has listed what it holds nothing of before is left.
    fn clear_cache(&self) -> io::Result<()> {
        let scope = Scope::new(ViewPath::root());
        // Not a refresh of the job: the source is not looked at anew.
        self.tell(EngineControl::Refresh { epoch: Epoch(0), scope })?;
        self.contents().map(drop)
    }

    fn contents(&self) -> io::Result<Contents> {
        let (reply, replied) = sync_channel(1);
        self.tell(EngineControl::List { rows_max: ROWS_MAX, reply })?;
        replied.recv_timeout(ENGINE_BOUND).map_err(|_| io::ErrorKind::TimedOut.into())
    }

    fn tell(&self, control: EngineControl) -> io::Result<()> {
        self.controller.engine.send(control).map_err(|_| io::ErrorKind::BrokenPipe)?;
        self.controller.queue.wake();
        Ok(())
    }

    fn ioctl_table(&self) -> String {
        let line = |(after, control): &(Duration, Control)| {
            format!("{:.3},{},{}\n", after.as_secs_f64(), control.code, control.name)
        };
        std::iter::once("seconds,code,name\n".to_owned()).chain(self.log.iter().map(line)).collect()
    }
}

/// As files call it: release 1.0 says directory where its profiles say tree.
fn table_name(category: Category) -> &'static str {
    match category {
        Category::Metadata => "metadata",
        Category::Data => "data",
        Category::Tree => "directory",
    }
}

fn category_of(what: &What) -> Category {
    match what {
        What::Block { .. } => Category::Data,
        What::Directory => Category::Tree,
        What::Entry | What::ExtendedAttributes | What::DataRanges { .. } | What::Statistics => {
            Category::Metadata
        }
    }
}

fn cache_table(contents: &Contents) -> String {
    let shown = |path: &ViewPath| quoted(&format!("/{}", String::from_utf8_lossy(path.as_bytes())));
    let mut rows: Vec<String> = contents
        .objects
        .iter()
        .map(|(key, bytes)| {
            format!("{},{},{bytes}\n", table_name(category_of(&key.what)), shown(&key.path))
        })
        .collect();
    rows.extend(contents.entries.iter().map(|(path, is_there)| {
        let kind = if *is_there { "metadata" } else { "absent" };
        format!("{kind},{},0\n", shown(path))
    }));
    rows.sort_unstable();
    let left_out = match contents.left_out {
        0 => String::new(),
        count => format!("left_out,,{count}\n"),
    };
    format!("kind,path,bytes\n{}{left_out}", rows.concat())
}

fn size_table(category: Category, contents: &Contents) -> String {
    let of = contents.objects.iter().filter(|(key, _)| category_of(&key.what) == category);
    let (count, bytes) =
        of.fold((0, 0), |(count, sum), (_, bytes)| (count + 1, sum + u64::from(*bytes)));
    let entries = if category == Category::Metadata { contents.entries.len() } else { 0 };
    format!("entries,bytes,left_out\n{},{bytes},{}\n", count + entries, contents.left_out)
}
