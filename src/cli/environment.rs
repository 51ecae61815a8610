//! What a machine offers where nothing was said.

/// The most memory that a rank takes without being told.
const MEMORY_MAX: u64 = 16 << 30;

/// The least that an arena can be: a few blocks to fill while others are served.
pub(super) const MEMORY_MIN: u64 = 16 << 20;

/// An eighth of this machine's memory, shared by `ranks` on it, at most 16 GiB each.
pub(super) fn default_memory(ranks: u64) -> u64 {
    let info = rustix::system::sysinfo();
    let memory = info.totalram.saturating_mul(u64::from(info.mem_unit));
    let share = (memory / 8 / ranks.max(1)).min(MEMORY_MAX);
    (share & !((1 << 20) - 1)).max(MEMORY_MIN)
}
