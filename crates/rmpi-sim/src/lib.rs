//! A simulated cluster for the control machines: the very code that launcher and daemons run, under a clock
//! and a network that a seed decides. Thousands of daemons fit into a unit test; links delay, stall, break and
//! are cut, nodes die, and every run is repeated exactly by its seed.
//!
//! Not simulated: bytes of frames (the wire's own tests have them), real processes, lines of output.
#![forbid(unsafe_code)]

mod config;
mod launcher;
mod net;
mod node;
mod report;
mod serving;
mod world;

pub use config::{Act, Config, Fault, LOST_CODE, Program, Tree};
pub use net::Rng;
pub use report::{Counts, Report};
pub use world::Sim;
