//! Files of more than one block stay open while their blocks are read, so that each is opened once,
//! however many of its blocks are wanted at the same time.

use std::collections::{HashMap, VecDeque};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};

use copper_proto::{Errno, ViewPath};

/// Files that stay open.
const OPEN_FILES_MAX: usize = 128;

/// A file that one thread opens and the others wait for.
type Slot = Arc<Mutex<Option<Arc<OwnedFd>>>>;

#[derive(Debug, Default)]
struct Table {
    slots: HashMap<ViewPath, Slot>,
    order: VecDeque<ViewPath>,
}

#[derive(Debug, Default)]
pub(super) struct OpenFiles {
    table: Mutex<Table>,
}

impl OpenFiles {
    /// The open file, opened by `open` if it is not yet.
    ///
    /// # Errors
    /// What `open` says; it is not remembered.
    pub(super) fn get(
        &self,
        path: &ViewPath,
        open: impl FnOnce() -> Result<OwnedFd, Errno>,
    ) -> Result<Arc<OwnedFd>, Errno> {
        let slot = self.slot(path);
        let mut file = slot.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = &*file {
            return Ok(Arc::clone(file));
        }
        let opened = Arc::new(open()?);
        *file = Some(Arc::clone(&opened));
        Ok(opened)
    }

    /// Closes a file once nobody reads it any more.
    pub(super) fn forget(&self, path: &ViewPath) {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        if table.slots.remove(path).is_some() {
            table.order.retain(|other| other != path);
        }
    }

    fn slot(&self, path: &ViewPath) -> Slot {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = table.slots.get(path) {
            return Arc::clone(slot);
        }
        if table.order.len() >= OPEN_FILES_MAX
            && let Some(oldest) = table.order.pop_front()
        {
            table.slots.remove(&oldest);
        }
        let slot = Slot::default();
        table.slots.insert(path.clone(), Arc::clone(&slot));
        table.order.push_back(path.clone());
        slot
    }
}
