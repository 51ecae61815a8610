//! Which files are fetched whole, which are not fetched through the trees at all, and how long an absent
//! name stays absent.

use std::time::Duration;

use crate::key::{Key, What};
use crate::limits::{ABSENT_BOUND, WHOLE_FILE_BYTES};

/// How files and absent names are treated; the same for all ranks of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FilePolicy {
    /// Files up to this size, in bytes, are fetched whole on first touch (`-M`).
    pub whole_up_to: u64,
    /// Each rank reads the blocks of files larger than this, in bytes, from the source itself
    /// (`--direct-above`); `None` for no file.
    pub direct_above: Option<u64>,
    /// How long a name is answered as absent where no complete listing proves it (`-E`).
    pub absent_bound: Duration,
}

impl Default for FilePolicy {
    fn default() -> FilePolicy {
        FilePolicy { whole_up_to: WHOLE_FILE_BYTES, direct_above: None, absent_bound: ABSENT_BOUND }
    }
}

impl FilePolicy {
    /// Whether an object is read from the source by each rank that wants it.
    pub fn is_direct(&self, key: &Key) -> bool {
        match key.what {
            What::Block { generation, .. } => {
                self.direct_above.is_some_and(|bound| generation.size > bound)
            }
            What::Entry
            | What::Directory
            | What::ExtendedAttributes
            | What::DataRanges { .. }
            | What::Statistics => false,
        }
    }
}
