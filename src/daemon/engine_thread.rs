//! The engine's thread: turns while there is something to do, a bounded moment of spinning after
//! that, then sleep.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context;
use copper_engine::ports::{Control, Source};
use copper_engine::{Engine, Queue, Settings};
use copper_ofi::Filling;
use copper_proto::Tick;

use super::End;
use crate::arena::RankArena;
use crate::fabric::RankFabric;
use crate::sleeper::Sleeper;

/// News of links that may wait for the engine. It takes them at every turn.
const CONTROLS_MAX: usize = 256;

/// How often a stop looks whether the thread has ended.
const END_POLL: Duration = Duration::from_millis(2);

type RankEngine<S> = Engine<RankArena, RankFabric, S>;

/// A running engine.
#[derive(Debug)]
pub(crate) struct EngineThread {
    control: SyncSender<Control>,
    queue: Arc<Queue>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
    origin: Instant,
}

/// Tells the daemon that the thread is gone, however it ended.
struct Notice {
    ends: SyncSender<End>,
}

impl Drop for Notice {
    fn drop(&mut self) {
        let _ = self.ends.try_send(End::EngineLost);
    }
}

impl EngineThread {
    pub(crate) fn start<S: Source<Filling> + Send + 'static>(
        settings: Settings<RankArena>,
        fabric: RankFabric,
        source: S,
        mut sleeper: Sleeper,
        spin: Duration,
        ends: SyncSender<End>,
    ) -> anyhow::Result<EngineThread> {
        let (control, controls) = sync_channel(CONTROLS_MAX);
        let queue = Arc::clone(&settings.queue);
        let stop = Arc::new(AtomicBool::new(false));
        let origin = Instant::now();
        let run = {
            let (queue, stop) = (Arc::clone(&queue), Arc::clone(&stop));
            move || {
                let _notice = Notice { ends };
                if let Some(descriptor) = fabric.wait_descriptor()
                    && let Err(error) = sleeper.watch(descriptor)
                {
                    tracing::warn!(%error, "the fabric is polled: it cannot be waited for");
                }
                let mut engine = Engine::new(settings, controls, fabric, source, tick(origin));
                turn_until(&stop, &mut engine, &queue, &sleeper, spin, origin);
                engine.end();
            }
        };
        let thread = std::thread::Builder::new().name("engine".to_owned());
        let thread = thread.spawn(run).context("cannot start the engine's thread")?;
        Ok(EngineThread { control, queue, stop, thread, origin })
    }

    /// The engine's moment 0.
    pub(crate) fn origin(&self) -> Instant {
        self.origin
    }

    /// Where news of links go; wake the engine's queue after sending.
    pub(crate) fn control(&self) -> SyncSender<Control> {
        self.control.clone()
    }

    /// Ends the thread; gives up on it after `bound`, as the process ends anyway.
    pub(crate) fn stop(self, bound: Duration) {
        // Release: pairs with the Acquire in turn_until.
        self.stop.store(true, Ordering::Release);
        self.queue.wake();
        let until = Instant::now() + bound;
        while !self.thread.is_finished() {
            if Instant::now() > until {
                tracing::warn!("the engine does not end; the process does");
                return;
            }
            std::thread::sleep(END_POLL);
        }
        if self.thread.join().is_err() {
            tracing::error!("the engine's thread has panicked");
        }
    }
}

fn tick(origin: Instant) -> Tick {
    Tick(u64::try_from(origin.elapsed().as_nanos()).unwrap_or(u64::MAX))
}

fn turn_until<S: Source<Filling>>(
    stop: &AtomicBool,
    engine: &mut RankEngine<S>,
    queue: &Queue,
    sleeper: &Sleeper,
    spin: Duration,
    origin: Instant,
) {
    let mut busy_until = Instant::now();
    // Nothing came while it slept: the one look before the next sleep is enough, and an idle rank
    // does little else.
    let mut quiet = 0_u32;
    // Acquire: pairs with the Release in stop.
    while !stop.load(Ordering::Acquire) {
        if quiet == 0 && engine.turn(tick(origin)) {
            busy_until = Instant::now() + spin;
            continue;
        }
        if quiet == 0 && !spin.is_zero() && Instant::now() < busy_until {
            std::thread::yield_now();
            continue;
        }
        if !queue.fall_asleep() {
            quiet = 0;
            continue;
        }
        // What was put elsewhere before the flag was set is looked at once more.
        let late = engine.turn(tick(origin));
        let may_sleep = !late && !stop.load(Ordering::Acquire) && engine.fabric().may_block();
        let timed_out = may_sleep && !sleeper.sleep(engine.next_due().since(tick(origin)), quiet);
        quiet = if timed_out { quiet.saturating_add(1) } else { 0 };
        queue.awake();
    }
}
