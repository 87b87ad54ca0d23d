//! Data-plane rails between ranks: byte links with a mutual keyed handshake, in clear or encrypted.
//!
//! This crate turns addresses and listening sockets into authenticated [`Link`]s and knows nothing of
//! messages. Everything is non-blocking and driven by its caller ([`Dial::poll`], [`Acceptor::poll`]): there
//! is no thread, no timer and no runtime here. An unauthenticated peer never gets past fixed-size hellos.

mod accept;
mod auth;
mod dial;
mod link;
mod quic;
mod sys;
mod tls;

#[cfg(test)]
mod tests;

pub use accept::{Acceptor, Arrival};
pub use auth::{ANSWER_LEN, HELLO_LEN, JobKey, PROOF_LEN, Route};
pub use dial::{Dial, DialError, DialStep};
pub use link::{Buffers, Link, TcpLink, has_closed};
pub use quic::QuicRail;
pub use tls::{Identity, KEY_LEN, Peers, PublicKey, Security};

/// Streams of units, without a QUIC connection.
pub mod units {
    pub use crate::quic::Units;
}

/// TLS 1.3 between two pinned raw public keys, without IO.
pub mod session {
    pub use crate::tls::{Session, Stop, room_for};
}
