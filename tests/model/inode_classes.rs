//! Inode numbers of one view: two names have one number if and only if they are one file at the
//! source, and a number stays with its file: "inode numbers are the view's own" (docs/SEMANTICS.md).

use std::collections::HashMap;

use super::answer::Identity;

#[derive(Debug, Default)]
pub(crate) struct InodeClasses {
    numbers: HashMap<Identity, u64>,
    files: HashMap<u64, Identity>,
}

impl InodeClasses {
    /// What is wrong with showing a file of the source under this number, if something is.
    pub(crate) fn difference(&mut self, file: Identity, number: u64) -> Option<String> {
        let before = *self.numbers.entry(file).or_insert(number);
        let owner = *self.files.entry(number).or_insert(file);
        if owner != file {
            return Some(format!("number {number} was that of {owner:?}, now of {file:?}"));
        }
        (before != number).then(|| format!("{file:?} had number {before}, now {number}"))
    }
}
