//! The terminal of `copper top`: keys, signals, and frames whose changes are written.
//!
//! It is given back whatever happens: at the end of [`show`], when an error or a panic leaves it, and at
//! SIGTERM, SIGINT and SIGHUP, which a thread waits for.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use nix::sys::signal::{SigSet, Signal};
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::Line as Text;
use ratatui::widgets::Paragraph;

use super::asker::Asker;
use crate::top::{Frame, Line, Order, Snapshot, Tone, View, draw};

/// How long a signal or a new snapshot may go unseen.
const LOOK: Duration = Duration::from_millis(100);

/// How much later than it should be an answer is before the screen says so.
const PATIENCE: Duration = Duration::from_secs(2);

/// How long the end may take after a signal.
const GRACE: Duration = Duration::from_secs(1);

/// What a shell makes of an end by a signal: this, and its number.
const SIGNALLED: u8 = 128;

/// Why nothing is shown any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// By a key.
    Asked,
    /// By a signal: the exit code for it.
    Signalled(u8),
    /// Nobody is left to show.
    NobodyRuns,
}

type Answer = anyhow::Result<Option<Snapshot>>;

/// Shows frames until somebody ends it.
pub(super) fn show(
    asker: Asker,
    first: Snapshot,
    interval: Duration,
    by_level: bool,
) -> anyhow::Result<End> {
    // Before any other thread, which would take the signal instead.
    let signalled = watch_signals().context("cannot wait for signals")?;
    let answers = ask_on(asker, interval)?;
    let mut screen = Screen::open(first, interval, by_level)?;
    loop {
        screen.draw()?;
        loop {
            match signalled.load(Ordering::Relaxed) {
                0 => {}
                signal => return Ok(End::Signalled(SIGNALLED + signal)),
            }
            match answers.try_recv() {
                Ok(answer) => match answer? {
                    Some(snapshot) => screen.take(snapshot),
                    None => return Ok(End::NobodyRuns),
                },
                Err(TryRecvError::Empty) => {}
                Err(TryRecvError::Disconnected) => {
                    bail!("the thread that asks the ranks has ended")
                }
            }
            if screen.changed() {
                break;
            }
            if event::poll(LOOK).context("cannot read the terminal")? {
                let event = event::read().context("cannot read the terminal")?;
                if screen.on_event(&event) {
                    return Ok(End::Asked);
                }
            }
        }
    }
}

/// The number of the first signal that asks for the end, or 0.
fn watch_signals() -> anyhow::Result<Arc<AtomicU8>> {
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT] {
        signals.add(signal);
    }
    signals.thread_block()?;
    let signalled = Arc::new(AtomicU8::new(0));
    let told = Arc::clone(&signalled);
    let watch = move || {
        if let Ok(signal) = signals.wait() {
            // Relaxed: nothing is read by it.
            let number = u8::try_from(signal as i32).unwrap_or(0);
            told.store(number, Ordering::Relaxed);
            // A terminal that is gone may hold the thread that reads it for ever.
            thread::sleep(GRACE);
            // Said to nobody: a terminal that is gone takes no words either.
            let _ = ratatui::try_restore();
            std::process::exit((SIGNALLED + number).into());
        }
    };
    thread::Builder::new().name("signals".to_owned()).spawn(watch)?;
    Ok(signalled)
}

/// Asks again and again in a thread, which ends with who listens, or with the process.
fn ask_on(mut asker: Asker, interval: Duration) -> anyhow::Result<Receiver<Answer>> {
    let (sender, receiver) = sync_channel(1);
    let ask = move || {
        let mut rest = interval;
        loop {
            thread::sleep(rest);
            let started = Instant::now();
            let answer = asker.ask();
            // Who takes long to answer has much to do.
            rest = interval.saturating_sub(started.elapsed()).max(started.elapsed());
            let last = !matches!(answer, Ok(Some(_)));
            if sender.send(answer).is_err() || last {
                return;
            }
        }
    };
    thread::Builder::new().name("asker".to_owned()).spawn(ask)?;
    Ok(receiver)
}

/// The terminal, and what is on it.
struct Screen {
    terminal: DefaultTerminal,
    before: Option<Snapshot>,
    now: Snapshot,
    heard: Instant,
    interval: Duration,
    order: Order,
    by_level: bool,
    help: bool,
    skipped: usize,
    page: usize,
    is_old: bool,
    /// What has been drawn of [`Screen::unheard_s`].
    drawn_unheard_s: Option<u64>,
}

impl Drop for Screen {
    fn drop(&mut self) {
        // As at a signal.
        let _ = ratatui::try_restore();
    }
}

impl Screen {
    fn open(now: Snapshot, interval: Duration, by_level: bool) -> anyhow::Result<Screen> {
        // Its panic hook gives the terminal back before it says what has happened.
        let terminal = ratatui::try_init().context("cannot take the terminal: use --once")?;
        Ok(Screen {
            terminal,
            before: None,
            now,
            heard: Instant::now(),
            interval,
            order: Order::default(),
            by_level,
            help: false,
            skipped: 0,
            page: 1,
            is_old: false,
            drawn_unheard_s: None,
        })
    }

    fn take(&mut self, snapshot: Snapshot) {
        self.before = Some(std::mem::replace(&mut self.now, snapshot));
        self.heard = Instant::now();
        self.is_old = true;
    }

    fn changed(&self) -> bool {
        self.is_old || self.unheard_s() != self.drawn_unheard_s
    }

    fn unheard_s(&self) -> Option<u64> {
        let since = self.heard.elapsed();
        (since > self.interval + PATIENCE).then_some(since.as_secs())
    }

    fn draw(&mut self) -> anyhow::Result<()> {
        let size = self.terminal.size().context("cannot read the size of the terminal")?;
        self.drawn_unheard_s = self.unheard_s();
        let view = View {
            columns: size.width.into(),
            rows: Some(size.height.into()),
            skipped: self.skipped,
            order: self.order,
            by_level: self.by_level,
            help: self.help,
            unheard_s: self.drawn_unheard_s,
        };
        let Frame { lines, skipped, page } = draw(self.before.as_ref(), &self.now, &view);
        (self.skipped, self.page, self.is_old) = (skipped, page, false);
        let text: Vec<Text<'_>> = lines.into_iter().map(styled).collect();
        let shown =
            self.terminal.draw(|frame| frame.render_widget(Paragraph::new(text), frame.area()));
        shown.map(|_| ()).context("cannot write to the terminal")
    }

    /// Whether it is the end.
    fn on_event(&mut self, event: &Event) -> bool {
        match event {
            Event::Key(key) if key.kind != KeyEventKind::Release => {
                self.is_old = true;
                self.on_key(key)
            }
            Event::Resize(..) => {
                self.is_old = true;
                false
            }
            _ => false,
        }
    }

    fn on_key(&mut self, key: &KeyEvent) -> bool {
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        match key.code {
            KeyCode::Char('q') => return true,
            KeyCode::Char('c' | 'd') if control => return true,
            _ if self.help => self.help = false,
            KeyCode::Char('?' | 'h') => self.help = true,
            KeyCode::Char('s') => (self.order, self.skipped) = (self.order.next(), 0),
            KeyCode::Char('l') => (self.by_level, self.skipped) = (!self.by_level, 0),
            KeyCode::Down => self.skipped += 1,
            KeyCode::Up => self.skipped = self.skipped.saturating_sub(1),
            KeyCode::PageDown | KeyCode::Char(' ') => self.skipped += self.page,
            KeyCode::PageUp => self.skipped = self.skipped.saturating_sub(self.page),
            KeyCode::Home => self.skipped = 0,
            KeyCode::End => self.skipped = self.now.ranks.len(),
            _ => {}
        }
        false
    }
}

fn styled(line: Line) -> Text<'static> {
    let style = match line.tone {
        Tone::Plain => Style::new(),
        Tone::Heading => Style::new().add_modifier(Modifier::REVERSED),
        Tone::Trouble => Style::new().fg(Color::Red).add_modifier(Modifier::BOLD),
        Tone::Faint => Style::new().add_modifier(Modifier::DIM),
    };
    Text::from(line.text).style(style)
}
