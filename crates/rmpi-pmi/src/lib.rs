//! Process-management servers for MPI programs that were not linked with us: what a client of PMI-1, PMI-2 or
//! PMIx says goes in as bytes, answers come out as bytes. No socket is opened and no clock is read here.
//! [`api`] is the border: what servers are told and what they ask of their driver.
#![forbid(unsafe_code)]

pub mod api;
pub mod node;
pub mod pmi;
pub mod pmix;

pub use node::Servers;
