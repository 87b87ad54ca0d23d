//! Whole engines over loopback: ranks are threads with an engine and a port each.

use super::*;
use rmpi_net::{Acceptor, Identity, JobKey, KEY_LEN, Peers, PublicKey, QuicRail, Route, Security};
use rmpi_shm::Segment;
use rmpi_types::{Threshold, Thresholds};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

mod faults;
mod streams;
mod traffic;

mod local;
mod single;
mod thresholds;

/// Addresses, and whether the ranks share memory.
struct Table(Vec<SocketAddr>, bool);

impl Directory for Table {
    fn endpoint(&self, rank: u32) -> Endpoint {
        Endpoint { addresses: vec![self.0[rank as usize]], host: format!("node{rank}") }
    }

    fn local(&self, rank: u32) -> Option<u32> {
        self.1.then_some(rank)
    }
}

/// `n` engines that know each other, and their addresses.
fn engines(n: u32, oversubscribed: bool) -> (Vec<Engine>, Vec<SocketAddr>) {
    engines_over(Rail::Tcp, n, oversubscribed)
}

/// What links are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rail {
    Tcp,
    Tls,
    Shm,
    Quic,
}

/// Everybody's public keys.
#[derive(Debug)]
struct Keys(Vec<PublicKey>);

impl Peers for Keys {
    fn key(&self, rank: u32) -> Option<PublicKey> {
        self.0.get(rank as usize).copied()
    }
}

/// `n` engines of one node that share memory.
fn neighbours(n: u32) -> Vec<Engine> {
    engines_over(Rail::Shm, n, true).0
}

fn engines_over(rail: Rail, n: u32, oversubscribed: bool) -> (Vec<Engine>, Vec<SocketAddr>) {
    let world: Vec<u32> = (0..n).collect();
    let shm = (rail == Rail::Shm).then(|| rmpi_shm::create(&world).unwrap());
    engines_with(rail, n, oversubscribed, shm, Thresholds::default())
}

/// Engines with several connections each.
fn wide(rail: Rail, n: u32, streams: u32) -> (Vec<Engine>, Vec<SocketAddr>) {
    engines_of(rail, n, true, None, Thresholds::default(), streams)
}

fn engines_with(
    rail: Rail,
    n: u32,
    oversubscribed: bool,
    shm: Option<OwnedFd>,
    thresholds: Thresholds,
) -> (Vec<Engine>, Vec<SocketAddr>) {
    engines_of(rail, n, oversubscribed, shm, thresholds, 1)
}

fn engines_of(
    rail: Rail,
    n: u32,
    oversubscribed: bool,
    shm: Option<OwnedFd>,
    thresholds: Thresholds,
    streams: u32,
) -> (Vec<Engine>, Vec<SocketAddr>) {
    let listeners: Vec<_> = (0..n).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let addresses: Vec<_> = listeners.iter().map(|l| l.local_addr().unwrap()).collect();
    let key = JobKey::new(&[3; 32]);
    let identities: Vec<_> = (0..n).map(|r| Identity::new(&[r as u8 + 1; KEY_LEN]).unwrap()).collect();
    let peers = std::sync::Arc::new(Keys(identities.iter().map(Identity::public).collect()));
    let engines = (0..n).zip(listeners).map(|(rank, l)| {
        let security = match rail {
            Rail::Tcp | Rail::Shm => None,
            Rail::Tls | Rail::Quic => Some(Security::new(identities[rank as usize].clone(), peers.clone())),
        };
        let attach = |fd: &OwnedFd| Arc::new(Segment::attach(fd.try_clone().unwrap(), rank, n).unwrap());
        let segment = shm.as_ref().map(attach);
        let me = Route { namespace: 0, epoch: 0, from: rank, to: rank };
        let quic = (rail == Rail::Quic).then(|| {
            let socket = UdpSocket::bind(addresses[rank as usize]).unwrap();
            QuicRail::start(socket, key.clone(), me, n, security.clone().unwrap()).unwrap()
        });
        let acceptor = Acceptor::new(vec![l], key.clone(), 0, 0, rank).unwrap();
        let acceptor = acceptor.secured(security).over_quic(quic);
        let config = Config {
            rank,
            size: n,
            namespace: 0,
            epoch: 0,
            key: key.clone(),
            oversubscribed,
            segment,
            streams,
            thresholds,
        };
        Engine::new(config, Box::new(Table(addresses.clone(), shm.is_some())), Some(acceptor)).unwrap()
    });
    (engines.collect(), addresses)
}

/// Runs `f` as every rank on a thread of its own, within a minute, over each rail.
fn ranks<R: Send + 'static>(n: u32, f: impl Fn(u32, &Engine) -> R + Send + Sync + 'static) -> Vec<R> {
    let f = Arc::new(f);
    ranks_over(Rail::Tls, n, f.clone());
    ranks_over(Rail::Shm, n, f.clone());
    ranks_over(Rail::Quic, n, f.clone());
    ranks_over(Rail::Tcp, n, f)
}

fn ranks_over<R: Send + 'static>(
    rail: Rail,
    n: u32,
    f: Arc<impl Fn(u32, &Engine) -> R + Send + Sync + 'static>,
) -> Vec<R> {
    run(engines_over(rail, n, true).0, &f)
}

fn run<R: Send + 'static>(
    engines: Vec<Engine>,
    f: &Arc<impl Fn(u32, &Engine) -> R + Send + Sync + 'static>,
) -> Vec<R> {
    let n = u32::try_from(engines.len()).unwrap();
    let (tx, rx) = mpsc::channel();
    for (rank, engine) in (0..n).zip(engines) {
        let (f, tx) = (f.clone(), tx.clone());
        std::thread::spawn(move || {
            let result = f(rank, &engine);
            assert!(engine.finish(Duration::from_secs(60)), "rank {rank} could not finish");
            tx.send((rank, result)).unwrap();
        });
    }
    drop(tx);
    let mut results: Vec<Option<R>> = (0..n).map(|_| None).collect();
    for _ in 0..n {
        let (rank, r) = rx.recv_timeout(Duration::from_secs(180)).expect("a rank failed or hangs");
        results[rank as usize] = Some(r);
    }
    results.into_iter().map(Option::unwrap).collect()
}

fn to(to: u32, tag: i32) -> SendSpec {
    SendSpec { to, context: 0, tag, check: 0, awaited: false }
}

fn from(rank: u32, tag: i32) -> RecvSpec {
    RecvSpec { from: From::Rank(rank), context: 0, tag: Some(tag), check: 0, scribble: true }
}

fn anyone(n: u32) -> RecvSpec {
    let group: Vec<u32> = (0..n).collect();
    RecvSpec { from: From::Any(group.into()), context: 0, tag: None, check: 0, scribble: false }
}

/// Bytes that differ at every place and for every seed.
fn pattern(len: usize, seed: u64) -> Vec<u8> {
    let mut x = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..len)
        .map(|_| {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            x.to_le_bytes()[3]
        })
        .collect()
}
