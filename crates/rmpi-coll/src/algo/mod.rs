//! The algorithms: pure functions from team and sizes to this rank's [`crate::Schedule`]. Every algorithm
//! works for every number of ranks, every root and zero counts. Message sizes follow from arguments that
//! sender and receiver both have; empty messages are not sent.
//!
//! Costs in the comments: p ranks, n bytes (of one rank's contribution), α a message's latency, β seconds a
//! byte, lg the logarithm to base 2 rounded up.

mod allgather;
mod allreduce;
mod alltoall;
mod barrier;
mod bcast;
mod gather;
mod names;
mod reduce;
mod reduce_scatter;
mod scan;
mod scatter;
#[cfg(test)]
pub(crate) mod tests;
mod tree;

pub use allgather::allgather;
pub use allreduce::allreduce;
pub use alltoall::alltoall;
pub use barrier::barrier;
pub use bcast::bcast;
pub use gather::{gather, gatherv};
pub use names::{Allgather, Allreduce, Bcast, Gather, Named, Reduce, ReduceScatter, Scan, Scatter};
pub use reduce::reduce;
pub use reduce_scatter::reduce_scatter;
pub use scan::{exscan, scan};
pub use scatter::{scatter, scatterv};
