//! Lines of release 1.0 by which scripts measure how soon a rank was of use: the first success of each
//! kind of question to its parent.

use copper_proto::{Key, Tick, ViewPath, What};
use tracing::info;

/// Which kinds have been answered by a parent.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct FirstAnswers {
    attributes: bool,
    bytes: bool,
    listing: bool,
}

impl FirstAnswers {
    /// A parent has given an object: told the first time, with the time since the engine's start.
    pub(crate) fn on_object(&mut self, key: &Key, now: Tick) {
        match key.what {
            What::Block { .. } => tell(&mut self.bytes, "rpc_readfile", &key.path, now),
            What::Directory => tell(&mut self.listing, "rpc_readdir", &key.path, now),
            What::Entry | What::ExtendedAttributes | What::DataRanges { .. } | What::Statistics => {
            }
        }
    }

    /// Whether attributes have come.
    pub(crate) fn has_entry(&self) -> bool {
        self.attributes
    }

    /// The same of a path's attributes.
    pub(crate) fn on_entry(&mut self, path: &ViewPath, now: Tick) {
        tell(&mut self.attributes, "rpc_lstat", path, now);
    }
}

fn tell(told: &mut bool, name: &str, path: &ViewPath, now: Tick) {
    if !std::mem::replace(told, true) {
        let us = now.since(Tick(0)).as_micros();
        // Scripts look for this text.
        info!(
            "first successful parent {name} completed after {us} us since provider startup; \
             path={path}"
        );
    }
}
