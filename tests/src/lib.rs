//! What the whole-system tests share: the built programs, a cluster of real little hosts, watched processes.
//!
//! The tests themselves are in `tests/`, one file a promise. They run the release binaries, so `cargo xtask
//! test` builds those first; run by hand they build what is missing.

pub mod bins;
pub mod cluster;
pub mod loopback;
pub mod procs;
