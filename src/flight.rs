//! What the flight recorders of ranks hold, as lines of JSON: one for the rank, then one for each event.

mod follow;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use copper_engine::recorder::{Event, aspect};
use serde::{Deserialize, Serialize};

pub(crate) use follow::{Hop, follow};

/// Whose events follow.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct Head {
    pub(crate) rank: u32,
    pub(crate) size: u32,
    pub(crate) host: String,
    pub(crate) pid: u32,
    pub(crate) job: String,
    pub(crate) version: String,
    /// Why it was written.
    pub(crate) why: String,
    /// The engine's moment 0, in seconds since 1970.
    pub(crate) origin_unix_s: f64,
}

/// One event, as text knows it. What does not apply is left out.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct Line {
    /// Seconds since the engine's moment 0.
    pub(crate) t: f64,
    pub(crate) what: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) peer: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) tree: Option<u32>,
    pub(crate) number: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) path: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) aspect: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) block: Option<u32>,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) bytes: u64,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) result: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) errno: Option<i32>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl From<&Event> for Line {
    fn from(event: &Event) -> Line {
        let aspect = event.key.as_ref().map(aspect);
        let path = event.key.as_ref().map(|key| String::from_utf8_lossy(key.path.as_bytes()));
        Line {
            t: event.at.0 as f64 / 1e9,
            what: event.what.to_owned(),
            peer: event.peer.map(|(rank, _)| rank.0),
            tree: event.peer.map(|(_, tree)| tree.0),
            number: event.number,
            path: path.map(|path| format!("/{path}")),
            aspect: aspect.map(|(aspect, _)| aspect.to_owned()),
            block: aspect.and_then(|(_, block)| block),
            bytes: event.bytes,
            result: event.result.to_owned(),
            errno: Some(event.errno).filter(|&errno| errno != 0),
        }
    }
}

/// One rank's recorder.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Flight {
    pub(crate) head: Head,
    /// Oldest first.
    pub(crate) lines: Vec<Line>,
}

impl Flight {
    /// As lines of JSON.
    pub(crate) fn to_text(&self) -> String {
        let head = serde_json::to_string(&self.head).expect("plain fields");
        let lines =
            self.lines.iter().map(|line| serde_json::to_string(line).expect("plain fields"));
        let mut text = String::new();
        for line in std::iter::once(head).chain(lines) {
            text.push_str(&line);
            text.push('\n');
        }
        text
    }

    /// From what [`Flight::to_text`] gave; a last line that was cut off does not count.
    ///
    /// # Errors
    /// Which line is not one.
    pub(crate) fn parse(text: &str) -> anyhow::Result<Flight> {
        let mut lines = text.lines().enumerate();
        let (_, head) = lines.next().ok_or_else(|| anyhow::anyhow!("it is empty"))?;
        let head = serde_json::from_str(head)?;
        let whole = text.ends_with('\n');
        let count = text.lines().count();
        let mut parsed = Vec::new();
        for (index, line) in lines {
            match serde_json::from_str(line) {
                Ok(line) => parsed.push(line),
                Err(_) if !whole && index + 1 == count => {}
                Err(error) => anyhow::bail!("line {}: {error}", index + 1),
            }
        }
        Ok(Flight { head, lines: parsed })
    }
}

/// The wall clock at the engine's moment 0, which is `elapsed` ago.
pub(crate) fn origin_unix_s(elapsed: Duration) -> f64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    now.as_secs_f64() - elapsed.as_secs_f64()
}
