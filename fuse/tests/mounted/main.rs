//! The frontend through real mounts: a view that lives in memory, mounted with fusermount3, used
//! through system calls. These tests need `/dev/fuse` and fusermount3, and fail without them.

mod caching;
mod ends;
mod guarding;
mod listing;
mod mount_points;
mod mutations;
mod passthrough;
mod reading;
mod stage;
mod storing;
mod tree;
mod view;
mod waiting;
