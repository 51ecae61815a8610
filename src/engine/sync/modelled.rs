//! Loom's stand-ins, and bugs planted under them.

use std::cell::Cell;
use std::collections::VecDeque;
use std::sync::PoisonError;

pub(crate) use loom::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};
pub(crate) use loom::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::Bug;

/// Stands for crossbeam's queue, which is not what is tried here.
#[derive(Debug)]
pub(crate) struct ArrayQueue<T> {
    capacity: usize,
    items: loom::sync::Mutex<VecDeque<T>>,
}

impl<T> ArrayQueue<T> {
    pub(crate) fn new(capacity: usize) -> ArrayQueue<T> {
        ArrayQueue { capacity, items: loom::sync::Mutex::new(VecDeque::new()) }
    }

    fn items(&self) -> loom::sync::MutexGuard<'_, VecDeque<T>> {
        self.items.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn push(&self, item: T) -> Result<(), T> {
        let mut items = self.items();
        if items.len() == self.capacity {
            return Err(item);
        }
        items.push_back(item);
        Ok(())
    }

    pub(crate) fn pop(&self) -> Option<T> {
        self.items().pop_front()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.items().is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.items().len()
    }
}

thread_local! {
    // Loom runs all threads of a model on the one that began it.
    static PLANTED: Cell<Option<Bug>> = const { Cell::new(None) };
}

/// The models of this thread have this bug from now on.
#[cfg(test)]
pub(crate) fn plant(bug: Bug) {
    PLANTED.set(Some(bug));
}

pub(crate) fn planted(bug: Bug) -> bool {
    PLANTED.get() == Some(bug)
}
