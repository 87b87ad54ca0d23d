//! Collectives of ranks that share a node's memory, as machines over that memory: polled, never waiting. Who polls
//! decides how to wait; see [`Pass`].
//!
//! Results are made in rank order, whoever computes them: the same inputs give the same bits.

mod block;
mod call;
mod claim;
mod direct;
mod exchange;
mod group;
mod memory;
#[cfg(all(test, loom))]
mod models;
mod pass;
mod round;
mod single;
#[cfg(test)]
mod tests;

pub use call::{Buffers, Call, Kind, Lens};
pub use direct::Reach;
pub use group::{Cursor, Group, Look, Trouble};
pub use memory::{Memory, Window};
pub use pass::Pass;
pub use round::Round;
pub use single::Reading;
