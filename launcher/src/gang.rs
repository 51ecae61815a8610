//! The processes on this machine by which others run on their hosts, and what comes from there.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::process::Process;
use crate::said::LINE_BYTES_MAX;
use crate::secret::{SECRET_VARIABLE, Secret};
use crate::starter::Start;

/// How often the file that a step writes to is looked at.
const LOOK: Duration = Duration::from_millis(20);

/// How long a process may take to end of SIGTERM.
const END_GRACE: Duration = Duration::from_secs(2);

/// Where what the processes say goes.
pub(crate) enum Voice {
    /// Here, for as long as this process lives.
    Pipe,
    /// Into a file, which they go on writing to when this process has ended.
    File(PathBuf),
}

/// What happens.
#[derive(Debug)]
pub(crate) enum News {
    /// A line, of the process with this number.
    Line(usize, String),
    /// The process with this number has ended, and all its lines have been told.
    Ended(usize, Option<ExitStatus>),
}

struct Member {
    host: Option<usize>,
    process: Option<Process>,
    /// What is written to its standard input; dropped, that ends.
    input: Option<SyncSender<String>>,
    writer: Option<JoinHandle<()>>,
    ended: bool,
}

/// The processes. Dropped while they run, they are ended.
pub(crate) struct Gang {
    members: Vec<Member>,
    news: Receiver<News>,
    /// Nobody listens any more.
    left: Arc<AtomicBool>,
    kept: bool,
}

impl Gang {
    /// Starts all of them. The secret goes into their environment if it is given.
    pub(crate) fn start(
        starts: &[Start],
        voice: &Voice,
        secret: Option<&Secret>,
    ) -> Result<Gang, GangError> {
        let (sender, news) = channel();
        let left = Arc::new(AtomicBool::new(false));
        let mut gang = Gang { members: Vec::new(), news, left, kept: false };
        for start in starts {
            gang.spawn(start, voice, secret, &sender)?;
        }
        Ok(gang)
    }

    fn spawn(
        &mut self,
        start: &Start,
        voice: &Voice,
        secret: Option<&Secret>,
        sender: &Sender<News>,
    ) -> Result<(), GangError> {
        let number = self.members.len();
        let (program, arguments) = start.words.split_first().expect("a program");
        let failed = |source| GangError::Start { program: program.into(), source };
        let mut command = Command::new(program);
        // Ctrl-C at the terminal is for us: we end them in order.
        command.args(arguments).stdin(Stdio::piped()).process_group(0).env_remove(SECRET_VARIABLE);
        if let Some(secret) = secret {
            command.env(SECRET_VARIABLE, secret.hex());
        }
        let (reader, mut child) = match voice {
            Voice::Pipe => {
                let (reader, writer) = io::pipe().map_err(failed)?;
                command.stdout(writer.try_clone().map_err(failed)?).stderr(writer);
                let child = command.spawn().map_err(failed)?;
                (Mouth::Pipe(reader), child)
            }
            Voice::File(path) => {
                let unwritable = |source| GangError::File { path: path.clone(), source };
                let (read, write) = open_voice(path).map_err(unwritable)?;
                command.stdout(write.try_clone().map_err(unwritable)?).stderr(write);
                (Mouth::File(read), command.spawn().map_err(failed)?)
            }
        };
        // Its ends of the pipes are its own now.
        drop(command);
        let process = Process::of(child.id());
        let writer = child.stdin.take().map(writer).transpose().map_err(failed)?;
        let (input, writer) = writer.unzip();
        self.members.push(Member { host: start.host, process, input, writer, ended: false });
        let (sender, left) = (sender.clone(), Arc::clone(&self.left));
        let listen = move || listen(number, reader, child, &sender, &left);
        std::thread::Builder::new().name("launcher".to_owned()).spawn(listen).map_err(failed)?;
        Ok(())
    }

    /// The host that a process is for; `None` if for all.
    pub(crate) fn host(&self, number: usize) -> Option<usize> {
        self.members[number].host
    }

    /// What happens next; `None` if nothing does until then.
    pub(crate) fn next(&mut self, deadline: Instant) -> Option<News> {
        let left = deadline.saturating_duration_since(Instant::now());
        match self.news.recv_timeout(left) {
            Ok(news) => {
                if let News::Ended(number, _) = news {
                    self.members[number].ended = true;
                }
                Some(news)
            }
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => None,
        }
    }

    /// Whether any still runs.
    pub(crate) fn runs(&self) -> bool {
        self.members.iter().any(|member| !member.ended)
    }

    /// Tells all of them.
    pub(crate) fn say(&self, line: &str) {
        for input in self.members.iter().filter_map(|member| member.input.as_ref()) {
            // One that does not read what it was told before does not read this either.
            let _ = input.try_send(line.to_owned());
        }
    }

    /// Nothing more will be said.
    pub(crate) fn hush(&mut self) {
        for member in &mut self.members {
            member.input = None;
        }
    }

    /// Waits until all have ended, or until then.
    pub(crate) fn wait(&mut self, deadline: Instant) {
        while self.runs() && self.next(deadline).is_some() {}
    }

    /// Ends those that run.
    pub(crate) fn end(&mut self) {
        self.hush();
        let running = self.members.iter().filter(|member| !member.ended);
        let processes: Vec<Process> = running.filter_map(|member| member.process).collect();
        // One that cannot be ended is written down in the process table; there is nothing to do.
        let _ = Process::end_all(&processes, END_GRACE);
    }

    /// They live without us from now on, once all that was said is on its way: the first of them. A
    /// step is told little, for which a pipe has room whether it is read or not.
    pub(crate) fn keep(mut self) -> Option<Process> {
        self.hush();
        // This process may end at once, and what was said is to arrive.
        for writer in self.members.iter_mut().filter_map(|member| member.writer.take()) {
            let _ = writer.join();
        }
        self.kept = true;
        self.members.first().and_then(|member| member.process)
    }
}

impl Drop for Gang {
    fn drop(&mut self) {
        // Release: whoever listens sees it at its next look; nothing else hangs on it.
        self.left.store(true, Ordering::Release);
        if !self.kept && self.runs() {
            self.end();
        }
    }
}

enum Mouth {
    Pipe(io::PipeReader),
    File(File),
}

fn open_voice(path: &Path) -> io::Result<(File, File)> {
    let mut options = OpenOptions::new();
    let write = options.append(true).create(true).mode(0o644).open(path)?;
    let mut read = File::open(path)?;
    io::Seek::seek(&mut read, io::SeekFrom::End(0))?;
    Ok((read, write))
}

/// Writes to a process from a thread of its own: one that does not read would stop us.
fn writer(mut input: ChildStdin) -> io::Result<(SyncSender<String>, JoinHandle<()>)> {
    let (sender, receiver) = sync_channel::<String>(4);
    let write = move || {
        for text in receiver {
            let written = input.write_all(text.as_bytes()).and_then(|()| input.flush());
            if written.is_err() {
                return;
            }
        }
    };
    let thread = std::thread::Builder::new().name("input".to_owned()).spawn(write)?;
    Ok((sender, thread))
}

fn listen(number: usize, mouth: Mouth, mut child: Child, news: &Sender<News>, left: &AtomicBool) {
    let tell = |bytes: &[u8]| {
        let line = String::from_utf8_lossy(bytes).trim_end().to_owned();
        let _ = news.send(News::Line(number, line));
    };
    let status = match mouth {
        Mouth::Pipe(pipe) => {
            // The process may end while what it has started holds the pipe: it counts as running.
            let mut lines = BufReader::new(pipe);
            let mut line = Vec::new();
            while read_line(&mut lines, &mut line) {
                tell(&line);
                line.clear();
            }
            child.wait().ok()
        }
        Mouth::File(mut file) => {
            let mut rest = Vec::new();
            loop {
                let status = child.try_wait();
                let read = file.read_to_end(&mut rest);
                while let Some(end) = rest.iter().position(|&byte| byte == b'\n') {
                    let line: Vec<u8> = rest.drain(..=end).collect();
                    tell(&line);
                }
                rest.truncate(LINE_BYTES_MAX);
                match status {
                    Ok(None) if read.is_ok() => {}
                    Ok(status) => break status,
                    Err(_) => break None,
                }
                // Acquire: see `Gang::drop`.
                if left.load(Ordering::Acquire) {
                    return;
                }
                std::thread::sleep(LOOK);
            }
        }
    };
    let _ = news.send(News::Ended(number, status));
}

/// One line, of which no more is kept than the bound; whether there was one.
fn read_line(from: &mut impl BufRead, line: &mut Vec<u8>) -> bool {
    let read = from.by_ref().take(LINE_BYTES_MAX as u64).read_until(b'\n', line);
    matches!(read, Ok(count) if count > 0)
}

/// Why a launcher could not be started.
#[derive(Debug, thiserror::Error)]
pub enum GangError {
    /// No process.
    #[error("cannot start {}", program.display())]
    Start {
        /// Which program.
        program: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// No file for what it says.
    #[error("cannot write what the launcher says to {}; choose another place with -d", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}
