//! The FUSE frontend: one call in, one reply out.
