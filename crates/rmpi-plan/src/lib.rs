//! Pure planning: from host files, host lists and rank files to where every rank runs and which CPUs it
//! gets. No IO, no clock, no state: the same input gives the same plan, and hostile input gives an error.
//!
//! [`hosts`] reads host lists of every dialect into the pool of a job, [`rankfile`] explicit placements.

#![forbid(unsafe_code)]

mod error;
mod fold;
pub mod hosts;
pub mod rankfile;
mod suggest;

pub use error::{HostsError, HostsProblem};
pub use fold::fold_hosts;
