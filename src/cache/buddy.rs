//! A buddy allocator over the arena: extents are powers of two from 4 KiB to 16 MiB, aligned to
//! their size.
//!
//! A 6 KiB module takes 8 KiB, a block of 1 MiB takes just that. Freed neighbours join again, so
//! that small files do not cut the arena up for good.

use std::collections::BTreeSet;

use copper_proto::limits::{EXTENT_BYTES_MAX, EXTENT_BYTES_MIN};

const ORDERS: usize = (EXTENT_BYTES_MAX / EXTENT_BYTES_MIN).ilog2() as usize + 1;

/// Which parts of an arena are free. Offsets are in bytes.
#[derive(Debug)]
pub struct Buddy {
    /// Per order, the free runs' first pages. The lowest is taken first, which keeps small extents
    /// together.
    free: [BTreeSet<u64>; ORDERS],
    capacity_bytes: u64,
    free_bytes: u64,
}

impl Buddy {
    /// All of an arena of `bytes` (rounded down to 4 KiB) is free.
    pub fn new(bytes: u64) -> Buddy {
        let pages = bytes / u64::from(EXTENT_BYTES_MIN);
        let mut buddy = Buddy {
            free: std::array::from_fn(|_| BTreeSet::new()),
            capacity_bytes: pages * u64::from(EXTENT_BYTES_MIN),
            free_bytes: 0,
        };
        let mut page = 0;
        while page < pages {
            let aligned = if page == 0 { ORDERS as u32 - 1 } else { page.trailing_zeros() };
            let order = (aligned as usize).min((pages - page).ilog2() as usize).min(ORDERS - 1);
            buddy.free[order].insert(page);
            page += 1 << order;
        }
        buddy.free_bytes = buddy.capacity_bytes;
        buddy
    }

    /// Bytes that an extent of `len` bytes takes.
    pub fn space(len: u32) -> u64 {
        u64::from(EXTENT_BYTES_MIN) << order(len)
    }

    /// Takes a run of at least `len` bytes; its offset.
    pub fn allocate(&mut self, len: u32) -> Option<u64> {
        let wanted = order(len);
        let found = (wanted..ORDERS).find(|&order| !self.free[order].is_empty())?;
        let page = self.free[found].pop_first().expect("it has just been seen");
        for order in wanted..found {
            self.free[order].insert(page + (1 << order));
        }
        self.free_bytes -= Buddy::space(len);
        Some(page * u64::from(EXTENT_BYTES_MIN))
    }

    /// Gives back what [`Buddy::allocate`] gave for the same `len`.
    pub fn free(&mut self, offset: u64, len: u32) {
        let mut page = offset / u64::from(EXTENT_BYTES_MIN);
        let mut order = order(len);
        self.free_bytes += Buddy::space(len);
        assert!(self.free_bytes <= self.capacity_bytes, "more is freed than was taken");
        while order + 1 < ORDERS && self.free[order].remove(&(page ^ (1 << order))) {
            page &= !(1 << order);
            order += 1;
        }
        assert!(self.free[order].insert(page), "page {page} is freed twice");
    }

    /// Whether an extent of `len` bytes fits into the empty arena: runs are aligned to their size,
    /// so the largest power of two in it decides.
    pub fn can_hold(&self, len: u32) -> bool {
        Buddy::space(len) <= self.capacity_bytes
    }

    /// Bytes that no extent takes.
    pub fn free_bytes(&self) -> u64 {
        self.free_bytes
    }

    /// Bytes in all.
    pub fn capacity_bytes(&self) -> u64 {
        self.capacity_bytes
    }
}

fn order(len: u32) -> usize {
    assert!(len > 0 && len <= EXTENT_BYTES_MAX, "an extent of {len} bytes");
    let pages = len.div_ceil(EXTENT_BYTES_MIN).next_power_of_two();
    pages.ilog2() as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn extents_never_overlap_and_all_comes_back() {
        let mut buddy = Buddy::new(37 * MIB + 12_345);
        let capacity = buddy.capacity_bytes();
        assert_eq!(capacity, 37 * MIB + 12_288);
        let mut taken: Vec<(u64, u32)> = Vec::new();
        let mut random = 1_u64;
        for _ in 0..20_000 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let len = 1 + (random >> 33) as u32 % (1 << (random >> 59 & 15).min(20));
            if random & 1 == 0
                && let Some(offset) = buddy.allocate(len)
            {
                assert!(offset.is_multiple_of(Buddy::space(len)), "aligned to its size");
                assert!(offset + Buddy::space(len) <= capacity);
                let end = offset + Buddy::space(len);
                let clash = taken.iter().find(|(other, other_len)| {
                    *other < end && offset < other + Buddy::space(*other_len)
                });
                assert_eq!(clash, None);
                taken.push((offset, len));
            } else if !taken.is_empty() {
                let (offset, len) = taken.swap_remove(random as usize % taken.len());
                buddy.free(offset, len);
            }
            let used: u64 = taken.iter().map(|&(_, len)| Buddy::space(len)).sum();
            assert_eq!(buddy.free_bytes(), capacity - used);
        }
        for (offset, len) in taken {
            buddy.free(offset, len);
        }
        assert_eq!(buddy.free_bytes(), capacity);
        assert!(buddy.allocate(16 << 20).is_some(), "neighbours have joined again");
        assert!(buddy.allocate(16 << 20).is_some());
    }

    #[test]
    fn a_full_arena_says_so() {
        let mut buddy = Buddy::new(MIB);
        assert_eq!(buddy.allocate(1 << 20), Some(0));
        assert_eq!(buddy.allocate(1), None);
        buddy.free(0, 1 << 20);
        assert_eq!(buddy.allocate(2 << 20), None);
        assert!(buddy.can_hold(1 << 20) && !buddy.can_hold((1 << 20) + 1));
        assert_eq!(buddy.allocate(1), Some(0));
    }

    #[test]
    #[should_panic(expected = "freed")]
    fn freeing_twice_is_noticed() {
        let mut buddy = Buddy::new(MIB);
        let offset = buddy.allocate(1).expect("room");
        let _other = buddy.allocate(1).expect("room");
        buddy.free(offset, 1);
        buddy.free(offset, 1);
    }
}
