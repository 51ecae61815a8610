//! One line of the code may log so often a minute: a source that fails makes every request fail, and a
//! log that fills a disk, or hides the line that matters, helps nobody.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::callsite::Identifier;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// Lines that are written of one kind within [`WINDOW`].
const LINES_MAX: u64 = 20;

const WINDOW: Duration = Duration::from_secs(60);

/// A format that leaves out lines of a kind that has been written often enough, and says so: when it
/// begins to, and how many there were before the next that is written. What is asked for with `debug` and
/// `trace` is written whole.
#[derive(Debug)]
pub(super) struct WithoutRepeats<F> {
    format: F,
    /// By the place in the code that logs: so many at most.
    kinds: Mutex<HashMap<Identifier, Kind>>,
}

impl<F> WithoutRepeats<F> {
    pub(super) fn new(format: F) -> WithoutRepeats<F> {
        WithoutRepeats { format, kinds: Mutex::default() }
    }
}

impl<S, N, F> FormatEvent<S, N> for WithoutRepeats<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let metadata = event.metadata();
        if *metadata.level() > Level::INFO {
            return self.format.format_event(context, writer, event);
        }
        let now = Instant::now();
        let verdict = {
            let mut kinds = self.kinds.lock().unwrap_or_else(PoisonError::into_inner);
            kinds.entry(metadata.callsite()).or_insert_with(|| Kind::new(now)).comes(now)
        };
        let seconds = WINDOW.as_secs();
        match verdict {
            Verdict::Write => {}
            Verdict::WriteAfter(left_out) => {
                writeln!(writer, "  {left_out} lines like the next one have been left out")?;
            }
            Verdict::LeaveOutFirst => {
                let (level, target) = (metadata.level(), metadata.target());
                let most = format_args!("more than {LINES_MAX} of a kind within {seconds} s");
                return writeln!(writer, "  {level} {target}: {most}: the rest is left out");
            }
            Verdict::LeaveOut => return Ok(()),
        }
        self.format.format_event(context, writer, event)
    }
}

/// Lines from one place in the code.
#[derive(Debug)]
struct Kind {
    began: Instant,
    /// Since then.
    came: u64,
}

#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Write,
    /// So many have been left out.
    WriteAfter(u64),
    LeaveOutFirst,
    LeaveOut,
}

impl Kind {
    fn new(now: Instant) -> Kind {
        Kind { began: now, came: 0 }
    }

    fn comes(&mut self, now: Instant) -> Verdict {
        let mut left_out = 0;
        if now.duration_since(self.began) >= WINDOW {
            left_out = self.came.saturating_sub(LINES_MAX);
            *self = Kind::new(now);
        }
        self.came += 1;
        match self.came {
            _ if left_out > 0 => Verdict::WriteAfter(left_out),
            ..=LINES_MAX => Verdict::Write,
            _ if self.came == LINES_MAX + 1 => Verdict::LeaveOutFirst,
            _ => Verdict::LeaveOut,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::Arc;

    use tracing_subscriber::fmt::MakeWriter;

    use super::*;

    #[test]
    fn a_kind_is_left_out_after_its_share_and_counted_until_its_next_window() {
        let begin = Instant::now();
        let mut kind = Kind::new(begin);
        let mut come = |after: Duration| kind.comes(begin + after);
        for _ in 0..LINES_MAX {
            assert_eq!(come(Duration::ZERO), Verdict::Write);
        }
        assert_eq!(come(Duration::ZERO), Verdict::LeaveOutFirst);
        assert_eq!(come(WINDOW / 2), Verdict::LeaveOut);
        assert_eq!(come(WINDOW), Verdict::WriteAfter(2));
        for _ in 1..LINES_MAX {
            assert_eq!(come(WINDOW), Verdict::Write);
        }
        assert_eq!(come(WINDOW), Verdict::LeaveOutFirst);
        assert_eq!(come(3 * WINDOW), Verdict::WriteAfter(1));
    }

    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl Write for Log {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().expect("nothing panics").write(bytes)
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    impl<'a> MakeWriter<'a> for Log {
        type Writer = Log;
        fn make_writer(&'a self) -> Log {
            self.clone()
        }
    }

    #[test]
    fn one_kind_does_not_hide_another_and_nothing_is_left_out_at_debug() {
        let log = Log::default();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(Level::DEBUG)
            .with_writer(log.clone())
            .with_ansi(false)
            .map_event_format(WithoutRepeats::new)
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            for request in 0..1000 {
                tracing::warn!(request, "request failed");
                tracing::debug!(request, "asked");
            }
            tracing::error!("the disk is full");
        });
        let text = String::from_utf8(log.0.lock().expect("nothing panics").clone()).expect("UTF-8");
        let with = |words: &str| text.lines().filter(|line| line.contains(words)).count() as u64;
        assert_eq!(with("request failed request="), LINES_MAX);
        assert_eq!(with("asked request="), 1000);
        assert_eq!(with("the rest is left out"), 1, "{text}");
        assert_eq!(with("the disk is full"), 1);
        assert_eq!(text.lines().count() as u64, LINES_MAX + 1000 + 1 + 1);
    }
}
