//! The boot block: one sealed memory file a node, made by the daemon before any rank exists, inherited by
//! every rank. A rank's init is a read of it: flat records at fixed places, no decoding, so the cost does not
//! grow with the number of ranks.
//!
//! ```text
//! header   128 bytes   magic "RMPIBOOT", version u32, flags u32, job 16, key 32, ns u32, epoch u32, size u32,
//!                      nodes u32, node u32, universe u32, offsets of ranks, nodes, strings u64, length u64
//! flags                1 oversubscribed, 2 encrypted, 4 keys are there, bits 8-10 the transport
//! ranks    16 bytes each: node u32, local rank u32, TCP port u16, UDP port u16 (0 for none), 1 u32
//! nodes    192 bytes each: host offset u32, host length u16, addresses u16, first 8 addresses of 20 bytes
//!                      (family 4|6 u8, 3 zero bytes, 16 bytes), ranks u32, 20 zero bytes
//! keys     only with flag 4: the public key of each rank, 32 bytes
//! strings  host names, UTF-8
//! ```
//! Little endian. Which rank a process is comes from [`ENV_RANK`]; where its descriptors are from [`ENV_FDS`]:
//! `boot=3,listen=4,kvs=5`; where several ranks of a node share memory `shm=6`, its memory file; and in an
//! encrypted job `key=8`, a pipe with the private half of the rank's key pair ([`SECRET_LEN`] bytes, an Ed25519
//! seed), and `udp=7`, the socket of the QUIC rail where that is used. Neither variable is a secret; the job's
//! key is only in the boot block.

use crate::codec::WireError;
use rmpi_types::{DataPlane, EndpointTable, Epoch, JobId, Namespace, NodeIdx, NodeLaunch, Rank, Transport};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Variable naming the inherited descriptors.
pub const ENV_FDS: &str = "RMPIRUN_FDS";
/// Variable with the rank.
pub const ENV_RANK: &str = "RMPIRUN_RANK";
/// Bytes of the private half of a rank's key pair, as the daemon hands it over.
pub const SECRET_LEN: usize = 32;
/// Addresses kept per node.
pub const MAX_ADDRESSES: usize = 8;

const MAGIC: &[u8; 8] = b"RMPIBOOT";
const VERSION: u32 = 1;
const HEADER: usize = 128;
const RANK_LEN: usize = 16;
const NODE_LEN: usize = 192;
const ADDRESS_LEN: usize = 20;
const KEY_LEN: usize = 32;
const OVERSUBSCRIBED: u32 = 1;
const ENCRYPTED: u32 = 2;
const KEYED: u32 = 4;
const TRANSPORT_SHIFT: u32 = 8;
const TRANSPORT_MASK: u32 = 7;

/// Builds the block for one node.
///
/// # Errors
/// [`WireError::Boot`] when the table does not have exactly `launch.size` ranks `0..size`, `launch.nodes` nodes,
/// a host name is above 65,535 bytes, or a rank has no key where the job's data is encrypted.
pub fn build(launch: &NodeLaunch, table: &EndpointTable) -> Result<Vec<u8>, WireError> {
    let (size, nodes) = (launch.size as usize, table.nodes.len());
    if nodes != launch.nodes as usize {
        return Err(WireError::Boot("node count differs from the table"));
    }
    let ranks_at = HEADER;
    let nodes_at = ranks_at + size * RANK_LEN;
    let keyed = launch.data.keyed();
    let keys_at = nodes_at + nodes * NODE_LEN;
    let strings_at = keys_at + if keyed { size * KEY_LEN } else { 0 };
    let mut out = vec![0; strings_at];
    let mut seen = 0;
    for (index, node) in table.nodes.iter().enumerate() {
        let at = nodes_at + index * NODE_LEN;
        let host_at =
            u32::try_from(out.len() - strings_at).map_err(|_| WireError::Boot("host names too long"))?;
        let host_len = u16::try_from(node.host.len()).map_err(|_| WireError::Boot("host name too long"))?;
        out.extend_from_slice(node.host.as_bytes());
        put(&mut out, at, &host_at.to_le_bytes());
        put(&mut out, at + 4, &host_len.to_le_bytes());
        let addresses = &node.addresses[..node.addresses.len().min(MAX_ADDRESSES)];
        put(&mut out, at + 6, &u16::try_from(addresses.len()).unwrap_or(0).to_le_bytes());
        for (i, ip) in addresses.iter().enumerate() {
            put_address(&mut out, at + 8 + i * ADDRESS_LEN, *ip);
        }
        let count = u32::try_from(node.ranks.len()).map_err(|_| WireError::Boot("too many ranks"))?;
        put(&mut out, at + 8 + MAX_ADDRESSES * ADDRESS_LEN, &count.to_le_bytes());
        for (local, endpoint) in (0u32..).zip(&node.ranks) {
            let rank = endpoint.rank.0 as usize;
            if rank >= size || out[ranks_at + rank * RANK_LEN + 12] != 0 {
                return Err(WireError::Boot("rank out of range or listed twice"));
            }
            let at = ranks_at + rank * RANK_LEN;
            put(&mut out, at, &node.node.0.to_le_bytes());
            put(&mut out, at + 4, &local.to_le_bytes());
            put(&mut out, at + 8, &endpoint.port.to_le_bytes());
            put(&mut out, at + 10, &endpoint.udp_port.unwrap_or(0).to_le_bytes());
            out[at + 12] = 1;
            if keyed {
                let key = endpoint.public_key.ok_or(WireError::Boot("a rank without a key"))?;
                put(&mut out, keys_at + rank * KEY_LEN, &key);
            }
            seen += 1;
        }
    }
    if seen != size {
        return Err(WireError::Boot("ranks missing in the table"));
    }
    put_header(&mut out, launch, [ranks_at, nodes_at, strings_at]);
    Ok(out)
}

fn put(out: &mut [u8], at: usize, bytes: &[u8]) {
    out[at..at + bytes.len()].copy_from_slice(bytes);
}

fn put_address(out: &mut [u8], at: usize, ip: IpAddr) {
    match ip {
        IpAddr::V4(v4) => {
            out[at] = 4;
            put(out, at + 4, &v4.octets());
        }
        IpAddr::V6(v6) => {
            out[at] = 6;
            put(out, at + 4, &v6.octets());
        }
    }
}

fn put_header(out: &mut [u8], launch: &NodeLaunch, offsets: [usize; 3]) {
    let length = out.len() as u64;
    put(out, 0, MAGIC);
    put(out, 8, &VERSION.to_le_bytes());
    let mut flags = 0;
    for (on, flag) in [
        (launch.oversubscribed, OVERSUBSCRIBED),
        (launch.data.encrypt, ENCRYPTED),
        (launch.data.keyed(), KEYED),
    ] {
        flags |= if on { flag } else { 0 };
    }
    let transport = Transport::ALL.iter().position(|t| *t == launch.data.transport);
    flags |= u32::try_from(transport.unwrap_or(0)).unwrap_or(0) << TRANSPORT_SHIFT;
    put(out, 12, &flags.to_le_bytes());
    put(out, 16, &launch.job.0);
    put(out, 32, &launch.key);
    let words =
        [launch.ns.ns.0, launch.ns.epoch.0, launch.size, launch.nodes, launch.node.0, launch.universe];
    for (i, word) in words.iter().enumerate() {
        put(out, 64 + 4 * i, &word.to_le_bytes());
    }
    for (i, offset) in offsets.iter().enumerate() {
        put(out, 88 + 8 * i, &(*offset as u64).to_le_bytes());
    }
    put(out, 112, &length.to_le_bytes());
}

/// A checked view of a boot block.
#[derive(Clone, Copy, Debug)]
pub struct BootBlock<'a> {
    bytes: &'a [u8],
    size: u32,
    nodes: u32,
    ranks_at: usize,
    nodes_at: usize,
    keys_at: Option<usize>,
    strings_at: usize,
}

/// Where a rank is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RankRecord {
    /// Its node.
    pub node: NodeIdx,
    /// Its number among the node's ranks.
    pub local_rank: u32,
    /// TCP port it listens on, on every address of its node.
    pub port: u16,
    /// UDP port of its QUIC rail.
    pub udp_port: Option<u16>,
}

/// A node's record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeRecord<'a> {
    /// Host name as the user wrote it.
    pub host: &'a str,
    /// Addresses in the order to try.
    pub addresses: Vec<IpAddr>,
    /// Ranks on it.
    pub ranks: u32,
}

impl<'a> BootBlock<'a> {
    /// Checks header and lengths; O(1) in the number of ranks.
    ///
    /// # Errors
    /// [`WireError::Boot`] saying what does not hold.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, WireError> {
        if bytes.len() < HEADER || &bytes[..8] != MAGIC {
            return Err(WireError::Boot("no boot block"));
        }
        if u32_at(bytes, 8) != VERSION {
            return Err(WireError::Boot("another version: rebuild the program with this rmpirun's library"));
        }
        let offset = |i: usize| usize::try_from(u64_at(bytes, 88 + 8 * i)).unwrap_or(usize::MAX);
        let (size, nodes) = (u32_at(bytes, 72), u32_at(bytes, 76));
        let (ranks_at, nodes_at, strings_at) = (offset(0), offset(1), offset(2));
        let keyed = u32_at(bytes, 12) & KEYED != 0;
        let keys = if keyed { (size as usize).saturating_mul(KEY_LEN) } else { 0 };
        let fits = ranks_at == HEADER
            && (size as usize).checked_mul(RANK_LEN).is_some_and(|n| nodes_at == ranks_at + n)
            && (nodes as usize)
                .checked_mul(NODE_LEN)
                .and_then(|n| n.checked_add(keys)?.checked_add(nodes_at))
                .is_some_and(|n| strings_at == n)
            && strings_at <= bytes.len()
            && u64_at(bytes, 112) <= bytes.len() as u64;
        if !fits {
            return Err(WireError::Boot("parts do not fit its length"));
        }
        let keys_at = keyed.then(|| strings_at - keys);
        Ok(Self { bytes, size, nodes, ranks_at, nodes_at, keys_at, strings_at })
    }

    /// The job.
    #[must_use]
    pub fn job(&self) -> JobId {
        let mut id = [0; 16];
        id.copy_from_slice(&self.bytes[16..32]);
        JobId(id)
    }

    /// The job's key: every data connection proves knowledge of it.
    #[must_use]
    pub fn key(&self) -> [u8; 32] {
        let mut key = [0; 32];
        key.copy_from_slice(&self.bytes[32..64]);
        key
    }

    /// Namespace and epoch.
    #[must_use]
    pub fn namespace(&self) -> (Namespace, Epoch) {
        (Namespace(u32_at(self.bytes, 64)), Epoch(u32_at(self.bytes, 68)))
    }

    /// Ranks in the namespace.
    #[must_use]
    pub fn size(&self) -> u32 {
        self.size
    }

    /// Nodes in the job.
    #[must_use]
    pub fn nodes(&self) -> u32 {
        self.nodes
    }

    /// The node this block was made for.
    #[must_use]
    pub fn node_index(&self) -> NodeIdx {
        NodeIdx(u32_at(self.bytes, 80))
    }

    /// Slots of the whole allocation.
    #[must_use]
    pub fn universe(&self) -> u32 {
        u32_at(self.bytes, 84)
    }

    /// Whether this node has more ranks than usable cores.
    #[must_use]
    pub fn oversubscribed(&self) -> bool {
        u32_at(self.bytes, 12) & OVERSUBSCRIBED != 0
    }

    /// Where `rank` is; `None` outside `0..size`.
    #[must_use]
    pub fn rank(&self, rank: Rank) -> Option<RankRecord> {
        if rank.0 >= self.size {
            return None;
        }
        let at = self.ranks_at + rank.0 as usize * RANK_LEN;
        Some(RankRecord {
            node: NodeIdx(u32_at(self.bytes, at)),
            local_rank: u32_at(self.bytes, at + 4),
            port: u16_at(self.bytes, at + 8),
            udp_port: Some(u16_at(self.bytes, at + 10)).filter(|&p| p != 0),
        })
    }

    /// The public half (Ed25519) of `rank`'s key pair; `None` in a job without keys and outside `0..size`.
    #[must_use]
    pub fn public_key(&self, rank: Rank) -> Option<[u8; 32]> {
        let at = self.keys_at?.checked_add(rank.0 as usize * KEY_LEN).filter(|_| rank.0 < self.size)?;
        self.bytes.get(at..at + KEY_LEN)?.try_into().ok()
    }

    /// What the user asked of the data plane; an unknown transport is read as automatic.
    #[must_use]
    pub fn data_plane(&self) -> DataPlane {
        let flags = u32_at(self.bytes, 12);
        let index = (flags >> TRANSPORT_SHIFT & TRANSPORT_MASK) as usize;
        let transport = Transport::ALL.get(index).copied().unwrap_or_default();
        DataPlane { transport, encrypt: flags & ENCRYPTED != 0 }
    }

    /// A node's record; `None` outside `0..nodes` or when its host name runs out of the block.
    #[must_use]
    pub fn node(&self, node: NodeIdx) -> Option<NodeRecord<'a>> {
        if node.0 >= self.nodes {
            return None;
        }
        let at = self.nodes_at + node.0 as usize * NODE_LEN;
        let host_at = self.strings_at.checked_add(u32_at(self.bytes, at) as usize)?;
        let host = self.bytes.get(host_at..host_at + usize::from(u16_at(self.bytes, at + 4)))?;
        let count = usize::from(u16_at(self.bytes, at + 6)).min(MAX_ADDRESSES);
        let addresses = (0..count).filter_map(|i| address_at(self.bytes, at + 8 + i * ADDRESS_LEN)).collect();
        let ranks = u32_at(self.bytes, at + 8 + MAX_ADDRESSES * ADDRESS_LEN);
        Some(NodeRecord { host: std::str::from_utf8(host).ok()?, addresses, ranks })
    }
}

fn address_at(bytes: &[u8], at: usize) -> Option<IpAddr> {
    let octets: [u8; 16] = bytes[at + 4..at + 20].try_into().ok()?;
    match bytes[at] {
        4 => Some(IpAddr::V4(Ipv4Addr::new(octets[0], octets[1], octets[2], octets[3]))),
        6 => Some(IpAddr::V6(Ipv6Addr::from(octets))),
        _ => None,
    }
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}
