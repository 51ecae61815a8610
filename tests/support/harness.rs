//! What the tests of the whole product share: real daemons on this machine, as processes, with FUSE
//! mounts and libfabric over tcp on the loopback interface.
//!
//! Each test has a [`Scratch`] folder of its own, with a source [`tree`], a register of daemons, and
//! the mount points of its [`Job`]; so tests run beside each other. Whatever a test does, its
//! daemons, guardians and mounts are gone at its end, or the test fails.

#![allow(dead_code, reason = "each test program uses its part")]
#![allow(unused_imports, reason = "each test program uses its part")]

pub(crate) mod attributes;
pub(crate) mod cluster;
pub(crate) mod command;
pub(crate) mod fleet;
pub(crate) mod job;
pub(crate) mod lines;
pub(crate) mod mounts;
pub(crate) mod process;
pub(crate) mod random;
pub(crate) mod reader;
pub(crate) mod scratch;
pub(crate) mod status;
pub(crate) mod terminal;
pub(crate) mod tree;
pub(crate) mod user;
pub(crate) mod wait;

pub(crate) use command::{Running, run, shell};
pub(crate) use fleet::Fleet;
pub(crate) use job::{Job, Options};
pub(crate) use lines::assert_same_lines;
pub(crate) use random::Random;
pub(crate) use scratch::Scratch;
pub(crate) use status::Status;
pub(crate) use tree::Tree;
pub(crate) use user::User;
pub(crate) use wait::{eventually, within};

/// For whoever reads the output of a failed test.
#[allow(clippy::print_stderr, reason = "cargo shows it if the test fails")]
pub(crate) fn say(line: &str) {
    eprintln!("{line}");
}

/// Whether this test may make devices, become another user, and read everything.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
