//! The engine of a rank: progress, matching, eager and rendezvous, requests.
//!
//! The engine sees bytes, ranks, 32-bit contexts and operation ids. Rust element types, communicators and
//! collectives are built on it in `rmpi`. There is no thread here and no global state: whoever calls makes
//! progress, and an [`Engine`] is a value that several threads may share.

mod announce;
mod arena;
mod conn;
mod core;
mod engine;
mod error;
mod finish;
mod header;
mod helper;
mod lanes;
mod linkup;
mod local;
mod local_fetch;
mod local_receive;
mod matching;
mod memory;
mod ops;
mod quick;
mod receive;
mod revoke;
mod scope;
mod submit;
mod transmit;

#[cfg(test)]
mod tests;

pub use arena::{Arena, Place};
pub use core::{Config, Core, Directory, Endpoint, Task};
pub use engine::Engine;
pub use error::Fault;
pub use header::{HEADER_LEN, Header, HeaderError, Kind};
pub use helper::Helper;
pub use matching::Envelope;
pub use memory::Memory;
pub use ops::{Finished, OpId, Status};
pub use scope::Scope;
pub use submit::{From, RecvSpec, SendSpec};
