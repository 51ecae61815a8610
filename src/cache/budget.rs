//! How a rank's memory is shared out: the arena, and what is kept beside it to know what lies there.
//!
//! `--memory` covers all of it. Each table has a sixteenth, up to a bound; the arena is the rest. What
//! does not grow with use (the program, its stacks, libfabric's buffers) is not in it; docs/adr/0016
//! has the figures. With a spill its table is one more.

/// The share of each table: one in so many bytes of memory.
const TABLE_SHARE: u64 = 16;

/// What an entry takes beside its path and its target, in bytes.
pub(crate) const ENTRY_BYTES: usize = 300;

/// What an object takes beside its path, in bytes: its places in the cache, the engine and an inode.
pub(crate) const OBJECT_BYTES: u64 = 640;

/// What a copy in the spill file takes beside its path, in bytes: two places by key, one by offset, one
/// in the order of going, and what maps keep free.
pub(crate) const SPILLED_BYTES: u64 = 400;

/// Objects that any cache may hold: more than all credits of all children can pin at once.
pub(crate) const OBJECTS_MIN: u64 = 8192;

/// Bytes for each part of what a rank keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Blocks and directories as they travel.
    pub arena: u64,
    /// What is known of paths.
    pub entries: u64,
    /// Decoded directories.
    pub directories: u64,
    /// The bookkeeping of what lies in the arena.
    pub objects: u64,
    /// What the kernel holds references to.
    pub inodes: u64,
    /// The bookkeeping of what lies in the spill file.
    pub spill: u64,
}

impl Budget {
    /// Shares out `memory` bytes, a multiple of 64 KiB so that each share is whole pages.
    pub const fn of(memory: u64) -> Budget {
        let share = memory / TABLE_SHARE;
        let entries = most(share, 80 << 20);
        let directories = most(share, 256 << 20);
        let objects = most(share, 256 << 20);
        let inodes = most(share, 256 << 20);
        let arena = memory - entries - directories - objects - inodes;
        Budget { arena, entries, directories, objects, inodes, spill: 0 }
    }

    /// The same memory with a spill, whose table is taken from the arena.
    pub const fn with_spill(self) -> Budget {
        let spill = self.objects;
        Budget { arena: self.arena - spill, spill, ..self }
    }

    /// An arena of `arena` bytes, and tables as large as it could ever have beside it.
    pub const fn around(arena: u64) -> Budget {
        Budget { arena, ..Budget::of(arena / 3 * 4) }
    }
}

const fn most(bytes: u64, bound: u64) -> u64 {
    if bytes > bound { bound } else { bytes }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_shares_are_whole_pages_and_together_the_memory() {
        for memory in [16 << 20, 64 << 20, (1 << 30) + (1 << 16), 16 << 30] {
            let budget = Budget::of(memory);
            assert!(budget.arena >= memory / 4 * 3);
            for budget in [budget, budget.with_spill()] {
                let Budget { arena, entries, directories, objects, inodes, spill } = budget;
                let shares = [arena, entries, directories, objects, inodes, spill];
                assert_eq!(shares.iter().sum::<u64>(), memory);
                assert!(shares.iter().all(|share| share % 4096 == 0), "{shares:?}");
                assert!(arena >= memory / 16 * 11);
            }
        }
    }

    #[test]
    fn a_large_memory_is_nearly_all_arena() {
        assert!(Budget::of(16 << 30).arena > 15 << 30);
        assert_eq!(Budget::around(48 << 20), Budget::of(64 << 20));
    }
}
