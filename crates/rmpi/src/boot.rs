//! What a rank is told at its start, and how: the boot block, the listening socket, the daemon's stream. A
//! local read; no exchange with anybody.

use crate::error::InitError;
use crate::inherit;
use rmpi_core::{Directory, Endpoint};
use rmpi_net::{Peers, PublicKey};
use rmpi_types::{NodeIdx, Rank};
use rmpi_wire::boot::{BootBlock, ENV_RANK, SECRET_LEN};
use std::fs::File;
use std::io::Read as _;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use zeroize::Zeroizing;

/// Largest boot block read: 100,000 ranks on as many nodes need 25 MB.
const MAX_BOOT: u64 = 256 << 20;

/// Everything a rank needs to take its place. `World::init` gets it from the launcher; programs that run
/// several ranks in one process (tests, simulations) may make it themselves.
#[derive(Debug)]
pub struct Wiring {
    /// The rank.
    pub rank: u32,
    /// The boot block of its node.
    pub boot: Arc<[u8]>,
    /// Its listening socket, at the port that the block gives.
    pub listener: TcpListener,
    /// The stream to the daemon, for the key-value space.
    pub daemon: Option<UnixStream>,
    /// Its UDP socket, at the port that the block gives; only where the QUIC rail is used.
    pub udp: Option<UdpSocket>,
    /// The private half of its key pair, whose public half is in the block; only in an encrypted job.
    pub secret: Option<Secret>,
    /// The memory file that the ranks of its node share; without one they talk over sockets.
    pub segment: Option<OwnedFd>,
}

/// The private half of a rank's key pair: an Ed25519 seed. Printing it shows nothing, dropping it wipes it.
#[derive(Clone)]
pub struct Secret(Zeroizing<[u8; SECRET_LEN]>);

impl Secret {
    pub(crate) fn bytes(&self) -> &[u8; SECRET_LEN] {
        &self.0
    }
}

impl From<[u8; SECRET_LEN]> for Secret {
    fn from(seed: [u8; SECRET_LEN]) -> Self {
        Self(Zeroizing::new(seed))
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl Wiring {
    /// A rank without a daemon, without keys and QUIC.
    #[must_use]
    pub fn new(rank: u32, boot: Arc<[u8]>, listener: TcpListener) -> Self {
        Self { rank, boot, listener, daemon: None, udp: None, secret: None, segment: None }
    }

    /// What the launcher left for this process; `None` when it was started without one.
    pub(crate) fn inherited() -> Result<Option<Self>, InitError> {
        let Some(fds) = inherit::inherited()? else { return Ok(None) };
        let rank = std::env::var(ENV_RANK)
            .map_err(|e| e.to_string())
            .and_then(|v| v.parse().map_err(|_| format!("{v:?}, not a rank")))
            .map_err(|what| InitError::Environment { name: ENV_RANK, what })?;
        let bad = |source| InitError::Descriptor { name: "boot", source };
        let file = File::from(fds.boot);
        let len = file.metadata().map_err(bad)?.len();
        if len > MAX_BOOT {
            return Err(bad(std::io::ErrorKind::FileTooLarge.into()));
        }
        // Ranks share the open file: the position is not theirs to move.
        let mut boot = vec![0; usize::try_from(len).unwrap_or(0)];
        file.read_exact_at(&mut boot, 0).map_err(bad)?;
        let daemon = fds.kvs.map(UnixStream::from);
        let secret = fds.key.map(read_secret).transpose()?;
        let listener = TcpListener::from(fds.listen);
        let udp = fds.udp.map(UdpSocket::from);
        Ok(Some(Self { rank, boot: boot.into(), listener, daemon, udp, secret, segment: fds.shm }))
    }
}

/// The daemon has written the private half before this process began; reading it empties the pipe.
fn read_secret(pipe: OwnedFd) -> Result<Secret, InitError> {
    let mut seed = Zeroizing::new([0; SECRET_LEN]);
    let read = File::from(pipe).read_exact(&mut *seed);
    read.map_err(|source| InitError::Descriptor { name: "key", source })?;
    Ok(Secret(seed))
}

/// The boot block as the engine's endpoint table.
#[derive(Clone)]
pub(crate) struct Table {
    boot: Arc<[u8]>,
    node: Option<NodeIdx>,
    /// Addresses are of the QUIC rail.
    udp: bool,
}

impl Table {
    /// The table that `rank` finds in its boot block; addresses of the QUIC rail if `udp`.
    pub(crate) fn new(boot: Arc<[u8]>, rank: u32, udp: bool) -> Self {
        let node = BootBlock::parse(&boot).ok().and_then(|b| b.rank(Rank(rank))).map(|r| r.node);
        Self { boot, node, udp }
    }

    pub(crate) fn block(&self) -> Option<BootBlock<'_>> {
        BootBlock::parse(&self.boot).ok()
    }

    /// Node, number on it, host of a rank.
    pub(crate) fn place(&self, rank: u32) -> Option<(NodeIdx, u32, String)> {
        let block = self.block()?;
        let r = block.rank(Rank(rank))?;
        Some((r.node, r.local_rank, block.node(r.node)?.host.to_owned()))
    }
}

impl Directory for Table {
    fn endpoint(&self, rank: u32) -> Endpoint {
        let found = self.block().and_then(|b| {
            let r = b.rank(Rank(rank))?;
            let node = b.node(r.node)?;
            let port = if self.udp { r.udp_port? } else { r.port };
            let addresses = node.addresses.iter().map(|ip| SocketAddr::new(*ip, port)).collect();
            Some(Endpoint { addresses, host: node.host.to_owned() })
        });
        found.unwrap_or_default()
    }

    fn local(&self, rank: u32) -> Option<u32> {
        let found = self.block()?.rank(Rank(rank))?;
        (Some(found.node) == self.node).then_some(found.local_rank)
    }
}

impl std::fmt::Debug for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Table(..)")
    }
}

impl Peers for Table {
    fn key(&self, rank: u32) -> Option<PublicKey> {
        self.block()?.public_key(Rank(rank)).map(PublicKey)
    }
}

/// The table of a world of one.
pub(crate) struct Alone;

impl Directory for Alone {
    fn endpoint(&self, _rank: u32) -> Endpoint {
        Endpoint::default()
    }
}
