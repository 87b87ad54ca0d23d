//! Pure planning: from host files, host lists and rank files to where every rank runs and which CPUs it
//! gets. No IO, no clock, no state: the same input gives the same plan, and hostile input gives an error.
//!
//! [`hosts`] reads host lists of every dialect into the pool of a job, [`rankfile`] explicit placements.
//! [`hosts_needed`] says which hosts must be reached, [`place`] makes the [`Plan`] once they have reported.

#![forbid(unsafe_code)]

mod bind;
mod error;
mod fold;
pub mod hosts;
mod layout;
mod map;
mod needed;
mod plan;
mod plan_error;
mod pool;
mod rank;
pub mod rankfile;
mod share;
mod suggest;
#[cfg(test)]
mod tests;

pub use error::{HostsError, HostsProblem};
pub use fold::fold_hosts;
pub use needed::hosts_needed;
pub use plan::{PlacedRank, Plan, PlannedNode, place};
pub use plan_error::PlanError;
pub use pool::NodeFacts;

/// Most ranks of a job.
pub const MAX_RANKS: u32 = 4 * 1024 * 1024;
