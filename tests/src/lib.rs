//! What the whole-system tests share: the built programs, a cluster of real little hosts, watched processes.
//!
//! The tests themselves are in `tests/`, one file a promise. They run the release binaries, so `cargo xtask
//! test` builds those first; run by hand they build what is missing.

#![allow(clippy::print_stdout, reason = "tests say what they skip and what they measured")]

pub mod bins;
pub mod cluster;
pub mod contract;
pub mod faults;
pub mod loopback;
pub mod mpi;
pub mod pods;
pub mod procs;
pub mod pty;

/// Whether the tests that take minutes were asked for (`cargo xtask test --long`).
#[must_use]
pub fn long() -> bool {
    std::env::var_os("RMPI_LONG").is_some()
}

/// A cluster of `n` hosts, or one line saying why the test is skipped.
#[must_use]
pub fn cluster_or_skip(n: usize, mbit: Option<u32>) -> Option<cluster::Cluster> {
    match cluster::Cluster::up(n, mbit) {
        Ok(cluster) => Some(cluster),
        Err(why) => {
            println!("skipped: no cluster of namespaces here: {why}");
            None
        }
    }
}
