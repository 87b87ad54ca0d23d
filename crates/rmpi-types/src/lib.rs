//! Ids, specifications, reports and outcomes shared by launcher, daemon and ranks.
//!
//! Everything here is plain data: no IO, no clock, no threads. What a user asked for is in [`spec`], what a
//! node said about itself in [`node`], what each rank of a node must be started with in [`launch`], how
//! things ended in [`outcome`], and what can go wrong before the first rank runs in [`fault`].

pub mod costs;
pub mod cpus;
pub mod env;
pub mod exit;
pub mod fault;
pub mod ids;
pub mod launch;
pub mod names;
pub mod node;
pub mod outcome;
mod output;
pub mod spec;
mod thresholds;
pub mod transport;
mod tuning;

pub use costs::Costs;
pub use cpus::{CpuSet, Topology};
pub use fault::{FaultKind, LaunchFault, Stage};
pub use ids::{Epoch, JobId, Namespace, NodeIdx, ProcId, Rank, RankSet};
pub use launch::{EndpointTable, NodeLaunch, RankEndpoint, RankLaunch};
pub use node::{NodeId, NodeReport};
pub use outcome::{JobOutcome, RankEnd, RankExit};
pub use spec::JobSpec;
pub use thresholds::{Threshold, Thresholds};
pub use transport::{DataPlane, Transport, UnknownTransport};
pub use tuning::{BadTuning, Tuning};
