//! Collectives as schedules, and the reduction kernels.
//!
//! Three parts that know nothing of each other's insides. *Algorithms* ([`algo`]) are pure functions from a
//! team (rank, number of ranks) and sizes to a [`Schedule`]: a small graph of sends, receives, reductions and
//! copies over named regions. [`Run`] walks a schedule over any [`Fabric`] without ever blocking, so blocking
//! and non-blocking collectives, tests and simulators share one code. [`kernels`] reduce bytes of a known
//! type. [`levels`] composes the algorithms where ranks share nodes. [`select`] chooses among algorithms by a cost model that can be inspected and overridden.
//!
//! **Determinism.** The bits of a result depend on the inputs, the number of ranks and the algorithm; never on
//! timing, segment size or arrival order. The choice of algorithm depends only on sizes and the layout of
//! ranks over nodes, so every rank chooses alike.
//!
//! This crate does no IO, has no clock and holds no threads.

pub mod algo;
mod builder;
mod hazards;
pub mod kernels;
pub mod levels;
pub mod node;
mod run;
mod schedule;
pub mod select;
mod team;

pub use builder::{Builder, StepId};
pub use run::{Fabric, Progress, Run};
pub use schedule::{Action, Buffer, Region, Schedule};
pub use team::{Blocks, DEFAULT_SEGMENT, Elems, PlanError, Team};
