//! The flight recorder: the last few thousand things that happened to the protocol of one rank, to be
//! looked at after something went wrong.
//!
//! The engine's thread writes, whoever wants to see it reads; nobody else does either, so that the lock
//! is free but for the moments in which somebody looks.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use copper_proto::{
    Errno, Input, Key, LinkId, Message, Outcome, Output, Rank, Reply, SourceAnswer, Tick,
    TreeIndex, What,
};

/// Events that are kept: some 100 bytes each, and the paths that they name.
pub const EVENTS_MAX: usize = 4096;

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// When, by the engine's clock.
    pub at: Tick,
    /// What: `want` and `answer` of a reader's question; `ask` and `replied` of one to another rank,
    /// `asked` and `reply` of one from there; `pull`, `copy`, `restore`, and `pulled`; `source` and
    /// `sourced`; `done`, `holds`, `probe`, `alive`; `link-up`, `link-down`, `orphaned`, `refresh`.
    pub what: &'static str,
    /// The other end of the link that it is about, with its tree.
    pub peer: Option<(Rank, TreeIndex)>,
    /// The number of the question, pull, job or ticket that it is about.
    pub number: u64,
    /// The object that it is about.
    pub key: Option<Key>,
    /// Bytes, where it is about some.
    pub bytes: u64,
    /// How it went, where it could have gone otherwise.
    pub result: &'static str,
    /// The error, where it went wrong.
    pub errno: i32,
}

impl Event {
    fn of(at: Tick, what: &'static str, number: u64) -> Event {
        let (peer, key, bytes, result, errno) = (None, None, 0, "", 0);
        Event { at, what, peer, number, key, bytes, result, errno }
    }

    fn about(self, key: &Key) -> Event {
        Event { key: Some(key.clone()), ..self }
    }

    fn with(self, peer: Option<(Rank, TreeIndex)>) -> Event {
        Event { peer, ..self }
    }

    fn moving(self, bytes: u32) -> Event {
        Event { bytes: bytes.into(), ..self }
    }

    fn ended(self, result: &'static str, errno: Option<Errno>) -> Event {
        Event { result, errno: errno.map_or(0, |errno| errno.0), ..self }
    }
}

/// The ring.
#[derive(Debug)]
pub struct Recorder {
    events: Mutex<VecDeque<Event>>,
}

impl Default for Recorder {
    fn default() -> Recorder {
        Recorder { events: Mutex::new(VecDeque::with_capacity(EVENTS_MAX)) }
    }
}

impl Recorder {
    /// What is in it, oldest first.
    pub fn events(&self) -> Vec<Event> {
        self.ring().iter().cloned().collect()
    }

    fn ring(&self) -> std::sync::MutexGuard<'_, VecDeque<Event>> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, event: Event) {
        let mut events = self.ring();
        if events.len() >= EVENTS_MAX {
            events.pop_front();
        }
        events.push_back(event);
    }

    /// What the protocol is told. `peer` says who is at a link's other end.
    pub(crate) fn told(
        &self,
        at: Tick,
        input: &Input,
        peer: impl Fn(LinkId) -> Option<(Rank, TreeIndex)>,
    ) {
        let event = match input {
            Input::Want { ticket, key, .. } => Event::of(at, "want", ticket.0).about(key),
            Input::Received { link, message } => received(at, message).with(peer(*link)),
            Input::Pulled { pull, result } => {
                let ended = Event::of(at, "pulled", pull.0.into());
                match result {
                    Ok(_) => ended.ended("well", None),
                    Err(failure) => ended.ended("badly", Some(failure.errno())),
                }
            }
            Input::Source { job, result } => sourced(at, job.0.into(), result),
            Input::ParentUp { tree, link, rank } => Event::of(at, "link-up", link.0.into())
                .with(Some((*rank, *tree)))
                .ended("parent", None),
            Input::ChildUp { tree, link, rank } => Event::of(at, "link-up", link.0.into())
                .with(Some((*rank, *tree)))
                .ended("child", None),
            Input::LinkDown { link } => Event::of(at, "link-down", link.0.into()).with(peer(*link)),
            Input::Orphaned { tree } => Event::of(at, "orphaned", tree.0.into()),
            Input::Refresh { epoch, .. } => Event::of(at, "refresh", epoch.0),
            Input::Prefetch { .. } | Input::Time => return,
        };
        self.push(event);
    }

    /// What the protocol has done.
    pub(crate) fn does(
        &self,
        at: Tick,
        output: &Output,
        peer: impl Fn(LinkId) -> Option<(Rank, TreeIndex)>,
    ) {
        let event = match output {
            Output::Send { link, message, .. } => sent(at, message).with(peer(*link)),
            Output::Pull { pull, key, link, into, .. } => {
                Event::of(at, "pull", pull.0.into()).about(key).with(peer(*link)).moving(into.len)
            }
            Output::Copy { pull, key, into, .. } => {
                Event::of(at, "copy", pull.0.into()).about(key).moving(into.len)
            }
            Output::Restore { pull, key, into, .. } => {
                Event::of(at, "restore", pull.0.into()).about(key).moving(into.len)
            }
            Output::Source { job, key, .. } => Event::of(at, "source", job.0.into()).about(key),
            Output::Answer { ticket, result } => {
                let answer = Event::of(at, "answer", ticket.0);
                match result {
                    Ok(Outcome::Present(_)) => answer.ended("present", None),
                    Ok(Outcome::Absent(_)) => answer.ended("absent", None),
                    Ok(Outcome::Object(held)) => {
                        answer.moving(held.extent.len).ended("bytes", None)
                    }
                    Ok(Outcome::Statistics(_)) => answer.ended("statistics", None),
                    Err(errno) => answer.ended("failed", Some(*errno)),
                }
            }
            Output::Disconnect { link, .. } => {
                let down = Event::of(at, "link-down", link.0.into()).with(peer(*link));
                down.ended("violation", None)
            }
            Output::Refreshed { .. } | Output::DropEncoded(_) => return,
        };
        self.push(event);
    }
}

fn sent(at: Tick, message: &Message) -> Event {
    match message {
        Message::Ask { request, key, .. } => Event::of(at, "ask", request.0.into()).about(key),
        Message::Answer { request, reply } => {
            replying(Event::of(at, "reply", request.0.into()), reply)
        }
        Message::Done { leases } => Event::of(at, "done", leases.len() as u64).ended("sent", None),
        Message::Holds => Event::of(at, "holds", 0).ended("sent", None),
        Message::Probe => Event::of(at, "probe", 0).ended("sent", None),
        Message::Alive => Event::of(at, "alive", 0).ended("sent", None),
    }
}

fn received(at: Tick, message: &Message) -> Event {
    match message {
        Message::Ask { request, key, .. } => Event::of(at, "asked", request.0.into()).about(key),
        Message::Answer { request, reply } => {
            replying(Event::of(at, "replied", request.0.into()), reply)
        }
        Message::Done { leases } => Event::of(at, "done", leases.len() as u64).ended("came", None),
        Message::Holds => Event::of(at, "holds", 0).ended("came", None),
        Message::Probe => Event::of(at, "probe", 0).ended("came", None),
        Message::Alive => Event::of(at, "alive", 0).ended("came", None),
    }
}

fn replying(event: Event, reply: &Reply) -> Event {
    match reply {
        Reply::Present(_) => event.ended("present", None),
        Reply::Absent { .. } => event.ended("absent", None),
        Reply::Statistics(_) => event.ended("statistics", None),
        Reply::Inline { len, .. } => event.moving(*len).ended("inline", None),
        Reply::Grant { len, .. } => event.moving(*len).ended("grant", None),
        Reply::Failed(errno) => event.ended("failed", Some(*errno)),
    }
}

fn sourced(at: Tick, number: u64, result: &Result<SourceAnswer, Errno>) -> Event {
    let event = Event::of(at, "sourced", number);
    match result {
        Ok(SourceAnswer::Present(_)) => event.ended("present", None),
        Ok(SourceAnswer::Absent) => event.ended("absent", None),
        Ok(SourceAnswer::Encoded(len)) => event.moving(*len).ended("bytes", None),
        Ok(SourceAnswer::Block(_)) => event.ended("bytes", None),
        Ok(SourceAnswer::Statistics(_)) => event.ended("statistics", None),
        Err(errno) => event.ended("failed", Some(*errno)),
    }
}

/// What is asked of a path, in a word, and the number of the block.
pub fn aspect(key: &Key) -> (&'static str, Option<u32>) {
    match key.what {
        What::Entry => ("entry", None),
        What::Directory => ("directory", None),
        What::Block { index, .. } => ("block", Some(index.0)),
        What::Statistics => ("statistics", None),
        What::ExtendedAttributes => ("extended-attributes", None),
        What::DataRanges { .. } => ("data-ranges", None),
    }
}
