//! Settings of the QUIC rail: who may connect, and the tuning, each number with its measurement.

use crate::auth::{JobKey, Route};
use crate::tls::{Peers, Pins, PublicKey, Security};
use quinn::congestion::BbrConfig;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{
    ClientConfig, ConnectionId, EndpointConfig, MtuDiscoveryConfig, ServerConfig, TransportConfig, VarInt,
};
use ring::rand::{SecureRandom as _, SystemRandom};
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// Streams for pieces of large messages, per direction. A message keeps to one, so that its pieces stay in order.
pub(super) const BULK_STREAMS: u64 = 4;
/// Bytes on their way in one stream before the receiver must have taken some.
const STREAM_WINDOW: u32 = 8 << 20;
/// The same in one connection, and what the sender keeps for repeating.
const WINDOW: u32 = 32 << 20;
/// Longest datagram that is looked for on a path; what the path carries is found out by probes, from 1,200 bytes on, and
/// on Ethernet it stays at 1,452. What a datagram costs beside its bytes is most of QUIC's time: 4 MiB messages over
/// loopback went at 0.28 GB/s with 1,452 bytes, 0.60 with 3,000, 0.94 with 6,500. Ten go to the kernel in one call, which
/// takes 65,507 bytes in all, or none.
const DATAGRAM: u16 = 6_500;
const _: () = assert!(10 * DATAGRAM as usize <= 65_507);
/// Round trip assumed before the first is measured: hosts of a cluster are near.
const INITIAL_RTT: Duration = Duration::from_millis(1);
/// Time without a packet after which one is sent, so that silence means something.
pub(super) const KEEP_ALIVE: Duration = Duration::from_secs(1);
/// Half-open connections that may wait for the thread.
const MAX_INCOMING: usize = 256;
/// Bytes of a first connection id: nonce, then a code under the job's key.
const NONCE: usize = 8;
const CODE: usize = 12;

/// The tuning of one connection.
fn transport(segmentation: bool) -> Arc<TransportConfig> {
    let mut t = TransportConfig::default();
    let mut path = MtuDiscoveryConfig::default();
    path.upper_bound(DATAGRAM);
    t.max_concurrent_bidi_streams(VarInt::from_u32(1))
        .max_concurrent_uni_streams(VarInt::from_u64(BULK_STREAMS).unwrap_or(VarInt::MAX))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW))
        .receive_window(VarInt::from_u32(WINDOW))
        .send_window(u64::from(WINDOW))
        .initial_rtt(INITIAL_RTT)
        .mtu_discovery_config(Some(path))
        .datagram_receive_buffer_size(None)
        // A stopped process must find its connections alive when it goes on; the engine tells silence itself.
        .max_idle_timeout(None)
        .keep_alive_interval(Some(KEEP_ALIVE))
        .enable_segmentation_offload(segmentation)
        // Level with CUBIC where nothing is lost; twice its speed where 1 % is.
        .congestion_controller_factory(Arc::new(BbrConfig::default()));
    Arc::new(t)
}

/// Any rank of the job; which one it must be is known once it has said who it is.
#[derive(Debug)]
struct AnyRank {
    peers: Arc<dyn Peers>,
    size: u32,
}

impl Pins for AnyRank {
    fn known(&self, key: PublicKey) -> bool {
        (0..self.size).any(|rank| self.peers.key(rank) == Some(key))
    }
}

/// Settings of the accepting side.
///
/// # Errors
/// When the provider lacks what QUIC needs.
pub(super) fn server(security: &Security, size: u32) -> io::Result<ServerConfig> {
    let pins = Arc::new(AnyRank { peers: security.peers(), size });
    let tls = security.identity().server(pins)?;
    let crypto = QuicServerConfig::try_from(tls).map_err(io::Error::other)?;
    let mut config = ServerConfig::with_crypto(Arc::new(crypto));
    config.transport_config(transport(true)).max_incoming(MAX_INCOMING).migration(false);
    Ok(config)
}

/// Settings for dialling one rank.
///
/// # Errors
/// When the table has no key for it.
pub(super) fn client(security: &Security, key: &JobKey, route: Route) -> io::Result<ClientConfig> {
    let tls = security.identity().client(Arc::new(security.key(route.to)?))?;
    let crypto = QuicClientConfig::try_from(tls).map_err(io::Error::other)?;
    let mut config = ClientConfig::new(Arc::new(crypto));
    let key = key.clone();
    config
        .transport_config(transport(true))
        .initial_dst_cid_provider(Arc::new(move || first_id(&key, route)));
    Ok(config)
}

/// Settings of the socket.
///
/// # Errors
/// None while [`DATAGRAM`] is a length that QUIC allows.
pub(super) fn endpoint() -> io::Result<EndpointConfig> {
    let mut config = EndpointConfig::default();
    // What this end says that it takes; the other looks for no more.
    config.max_udp_payload_size(DATAGRAM).map_err(io::Error::other)?;
    Ok(config)
}

fn code(key: &JobKey, route: Route, nonce: &[u8]) -> [u8; CODE] {
    let words = [route.namespace, route.epoch, route.to].map(u32::to_le_bytes);
    let full = key.code(b"rmpi quic", &[&words.concat(), nonce]);
    let mut out = [0; CODE];
    out.copy_from_slice(&full[..CODE]);
    out
}

/// The id that a dialler's first packet is addressed to: it shows that the dialler knows the job's key, before the
/// acceptor answers or even looks at the handshake.
fn first_id(key: &JobKey, route: Route) -> ConnectionId {
    let mut id = [0; NONCE + CODE];
    // Without random bytes the connection fails a step later, where there is an error to return.
    let _ = SystemRandom::new().fill(&mut id[..NONCE]);
    let code = code(key, route, &id[..NONCE]);
    id[NONCE..].copy_from_slice(&code);
    ConnectionId::new(&id)
}

/// Whether a first packet's id was made under the job's key for this rank.
pub(super) fn knows_key(key: &JobKey, me: Route, id: &ConnectionId) -> bool {
    id.len() == NONCE + CODE && key.same(&code(key, me, &id[..NONCE]), &id[NONCE..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_ids_hold_for_one_key_and_one_rank() {
        let (key, other) = (JobKey::new(&[7; 32]), JobKey::new(&[8; 32]));
        let route = Route { namespace: 1, epoch: 2, from: 3, to: 4 };
        let id = first_id(&key, route);
        assert_ne!(id, first_id(&key, route), "every attempt has an id of its own");
        assert!(knows_key(&key, Route { from: 9, ..route }, &id));
        assert!(!knows_key(&other, route, &id));
        for wrong in [Route { to: 5, ..route }, Route { epoch: 3, ..route }, Route { namespace: 0, ..route }]
        {
            assert!(!knows_key(&key, wrong, &id));
        }
        for bit in 0..id.len() * 8 {
            let mut bytes = id.to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(!knows_key(&key, route, &ConnectionId::new(&bytes)), "bit {bit}");
        }
        assert!(!knows_key(&key, route, &ConnectionId::new(&id[..19])));
    }
}
