//! TLS 1.3 over TCP as a rail: mutual raw public keys, begun after the keyed handshake of the plain rail, so that
//! not one byte of a stranger reaches the TLS code.

pub(crate) mod keys;
mod link;
mod session;

#[cfg(test)]
mod tests;

pub(crate) use keys::Pins;
pub use keys::{Identity, KEY_LEN, PublicKey};
pub use session::{Session, Stop, room_for};

use crate::link::{Link, TcpLink};
use link::{Pool, TlsLink};
use std::io;
use std::sync::Arc;

/// The public keys of the job's ranks: the endpoint table.
pub trait Peers: std::fmt::Debug + Send + Sync {
    /// The key of `rank`; `None` when the table has none.
    fn key(&self, rank: u32) -> Option<PublicKey>;
}

/// What a rank needs to talk to others encrypted, and to nobody in clear.
#[derive(Clone, Debug)]
pub struct Security {
    identity: Identity,
    peers: Arc<dyn Peers>,
    pool: Pool,
}

impl Security {
    /// This rank's key pair, and everybody's public keys.
    #[must_use]
    pub fn new(identity: Identity, peers: Arc<dyn Peers>) -> Self {
        Self { identity, peers, pool: Pool::default() }
    }

    pub(crate) fn identity(&self) -> &Identity {
        &self.identity
    }

    pub(crate) fn peers(&self) -> Arc<dyn Peers> {
        self.peers.clone()
    }

    pub(crate) fn key(&self, rank: u32) -> io::Result<PublicKey> {
        let none = || io::Error::new(io::ErrorKind::PermissionDenied, "the job's table has no key for it");
        self.peers.key(rank).ok_or_else(none)
    }

    /// Over a connection that this rank dialled, to `rank`.
    pub(crate) fn client(&self, tcp: TcpLink, rank: u32) -> io::Result<Box<dyn Link>> {
        Ok(Box::new(TlsLink::client(tcp, &self.identity, self.key(rank)?, self.pool.clone())?))
    }

    /// Over a connection that `rank` dialled.
    pub(crate) fn server(&self, tcp: TcpLink, rank: u32) -> io::Result<Box<dyn Link>> {
        Ok(Box::new(TlsLink::server(tcp, &self.identity, self.key(rank)?, self.pool.clone())?))
    }
}
