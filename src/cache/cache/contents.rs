//! What the cache holds, for somebody who wants to see it.

use copper_proto::store::Known;
use copper_proto::{Key, ViewPath};

use super::Cache;

/// A list of what is held.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    /// Objects, with their bytes.
    pub objects: Vec<(Key, u32)>,
    /// Paths of which something is known, and whether it is that they exist.
    pub entries: Vec<(ViewPath, bool)>,
    /// Objects and paths that are not in the lists, because there are too many.
    pub left_out: usize,
}

impl Cache {
    /// At most so many objects and so many paths, in no order.
    pub fn contents(&self, rows_max: usize) -> Contents {
        let objects = self.by_key.iter().map(|offset| {
            let object = self.objects.get(offset).expect("by_key names published objects");
            (object.key.clone(), object.held.extent.len)
        });
        let entries = self
            .entries
            .iter()
            .map(|(path, known)| (path.clone(), matches!(known, Known::Present(_))));
        let left_out = |count: usize| count.saturating_sub(rows_max);
        Contents {
            objects: objects.take(rows_max).collect(),
            entries: entries.take(rows_max).collect(),
            left_out: left_out(self.by_key.len()) + left_out(self.entries.len()),
        }
    }
}
