//! QUIC as a rail: encrypted, one UDP port a rank, alive through lost packets, and streams so that a large message
//! does not hold up a small one. Runs on a thread of its own, the only place of the data plane with a runtime.
//!
//! Connections are pinned to the endpoint table as those of the TLS rail are. A dialler's first packet is addressed
//! to an id made under the job's key; packets to other ids are dropped before any handshake is looked at. All
//! matchable messages share one stream, so their order holds; pieces of large messages, which name the receive they
//! belong to, go over streams of their own.

mod carry;
mod config;
mod link;
mod pipe;
mod rail;
mod units;

#[cfg(test)]
mod tests;

pub use rail::QuicRail;
pub(crate) use rail::{QuicArrival, QuicDial, QuicStep};
pub use units::Units;
