//! Collectives: each call becomes an [`ask::Ask`], which is carried out in shared memory, as a schedule of messages
//! over the engine in the communicator's second context, or in two levels.

pub(crate) mod ask;
mod blocking;
mod fabric;
pub(crate) mod levels;
pub(crate) mod node;
mod nonblocking;
mod pair;
pub(crate) mod persistent;
pub(crate) mod run;
