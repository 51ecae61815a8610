//! Inodes beyond the memory that is set aside for them: the kernel keeps what it has looked up for as
//! long as it has memory of its own, so it is asked to forget.
//!
//! A name that the kernel forgets is looked up again by whoever wants it, which the cache answers. But
//! what a process has open, mapped or runs loses its name too: `/proc/PID/exe` then says that it is
//! deleted. So directories stay, where processes sit, and programs and libraries that were read, and what
//! has been read of and is still held; files that were only looked at go, and data that is not held.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;

use copper_proto::FileKind;

use super::{Inode, Inodes, Tables, read, write};
use crate::view::{InodeNumber, Stale};

/// What an inode takes with its name and its places in the tables, in bytes: 960 measured with names
/// of 24 bytes.
const INODE_BYTES: u64 = 1024;

/// Inodes that any rank may hold.
const INODES_MIN: usize = 8192;

/// Names that the kernel is asked to forget in one go.
const BATCH: usize = 4096;

/// Permission to execute, of anybody.
const EXECUTABLE: u16 = 0o111;

/// The inodes in the order in which they are looked at: the first has been there longest.
#[derive(Debug, Default)]
pub(super) struct Order {
    numbers: VecDeque<InodeNumber>,
    /// Too few could go when this was last looked at: not again before there are so many.
    enough: usize,
}

impl Order {
    /// Numbers that are not held any more go in time, so that it stays in proportion to those that are.
    pub(super) fn push(
        &mut self,
        number: InodeNumber,
        is_held: impl Fn(InodeNumber) -> bool,
        held: usize,
    ) {
        if self.numbers.len() > 2 * held + BATCH {
            self.numbers.retain(|&number| is_held(number));
        }
        self.numbers.push_back(number);
    }
}

/// How many inodes fit into so many bytes.
pub(crate) fn inodes_within(bytes: u64) -> usize {
    usize::try_from(bytes / INODE_BYTES).unwrap_or(usize::MAX).max(INODES_MIN)
}

impl<B: Clone> Inodes<B> {
    /// Names of inodes beyond `most`, for the kernel to forget; a batch at most, of those that were
    /// found longest ago. The inodes go when it gives them back.
    pub(crate) fn surplus(&self, most: usize) -> Vec<Stale> {
        let tables = read(&self.tables);
        let held = tables.by_number.len();
        let beyond = held.saturating_sub(most).min(BATCH);
        if beyond == 0 || held < tables.order.enough {
            return Vec::new();
        }
        drop(tables);
        let mut tables = write(&self.tables);
        let mut found = Vec::new();
        let mut chosen = 0;
        for _ in 0..tables.order.numbers.len() {
            if chosen == beyond {
                break;
            }
            let Some(number) = tables.order.numbers.pop_front() else { break };
            let Some(inode) = tables.by_number.get(&number).cloned() else { continue };
            // Whatever becomes of it: it may stay, or be held by somebody.
            tables.order.numbers.push_back(number);
            if inode.may_go() {
                found.extend(tables.names_of(number));
                chosen += 1;
            }
        }
        tables.order.enough = if chosen < beyond { held + BATCH } else { 0 };
        found
    }
}

impl<B> Inode<B> {
    fn may_go(&self) -> bool {
        let Some(attributes) = *read(&self.attributes) else { return false };
        if attributes.kind == FileKind::Directory {
            return false;
        }
        if !self.was_read.load(Ordering::Relaxed) {
            return true;
        }
        let name = self.path.split();
        let is_library = name.is_some_and(|(_, name)| name.windows(3).any(|part| part == b".so"));
        let is_program = attributes.permissions & EXECUTABLE != 0 || is_library;
        !is_program && read(&self.blocks).is_empty()
    }
}

impl<B> Tables<B> {
    fn names_of(&self, number: InodeNumber) -> impl Iterator<Item = Stale> + '_ {
        let names = self.names.get(&number).into_iter().flatten();
        names.map(|(parent, name)| Stale::Name { parent: *parent, name: name.clone() })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::super::tests::entry;
    use super::*;

    fn names(stale: Vec<Stale>) -> Vec<String> {
        let name = |stale| match stale {
            Stale::Name { name, .. } => String::from_utf8_lossy(&name).into_owned(),
            Stale::Directory(number) => format!("{number:?}"),
        };
        stale.into_iter().map(name).collect()
    }

    #[test]
    fn what_was_found_longest_ago_goes_first_and_what_may_be_in_use_stays() {
        let inodes = Inodes::<Vec<u8>>::default();
        let mut directory = entry(1, 1);
        directory.attributes.kind = FileKind::Directory;
        let mut program = entry(2, 1);
        program.attributes.permissions = 0o755;
        let files = [("folder", directory), ("program", program)];
        let files = files.into_iter().chain((3..8).map(|inode| {
            let name = ["held", "data", "lib.so.1", "seen", "last"][inode - 3];
            (name, entry(inode as u64, 1))
        }));
        for (name, entry) in files {
            let found = inodes.found(InodeNumber::ROOT, name.as_bytes(), &entry).expect("held");
            let inode = inodes.get(found.inode).expect("found");
            let was_read = !["folder", "seen", "last"].contains(&name);
            inode.was_read.store(was_read, Ordering::Relaxed);
            if name == "held" {
                inode.publish(copper_proto::BlockIndex(0), vec![1], 1);
            }
        }
        assert_eq!(inodes.len(), 8);
        assert!(inodes.surplus(8).is_empty());
        assert_eq!(names(inodes.surplus(7)), ["data"]);
        assert_eq!(names(inodes.surplus(6)), ["seen", "last"], "what was named waits its turn");
        let mut left = inodes.surplus(0);
        assert_eq!(left.len(), 3, "the others may be in use");
        assert!(inodes.surplus(0).is_empty(), "it is not looked for again before there are more");
        while let Some(Stale::Name { parent, name }) = left.pop() {
            let found = inodes.known(parent, &name).expect("held");
            inodes.forget(found.inode, 2);
        }
        assert_eq!(inodes.len(), 5);
    }

    #[test]
    fn what_was_forgotten_does_not_stay_in_the_order() {
        let inodes = Inodes::<Vec<u8>>::default();
        for inode in 0..4 * BATCH as u64 {
            let name = inode.to_string();
            let found = inodes.found(InodeNumber::ROOT, name.as_bytes(), &entry(inode, 1));
            inodes.forget(found.expect("held").inode, 1);
        }
        assert_eq!(inodes.len(), 1);
        assert!(read(&inodes.tables).order.numbers.len() <= BATCH + 4);
    }
}
