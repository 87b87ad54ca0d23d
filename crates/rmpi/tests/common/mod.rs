//! Ranks as threads: worlds wired by hand over loopback, with boot blocks as the daemon makes them.
#![allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    reason = "shared by several test programs, each using a part"
)]

use rmpi::{Wiring, World};
use rmpi_types::launch::{NodeEndpoints, StdioKind};
use rmpi_types::{
    DataPlane, EndpointTable, JobId, NodeIdx, NodeLaunch, ProcId, Rank, RankEndpoint, Transport,
};
use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::os::fd::OwnedFd;
use std::sync::{Arc, mpsc};
use std::time::Duration;

/// Boot block and listeners of `n` ranks, two a node, node k at 127.0.0.(2+k).
pub fn wire_up(n: u32) -> (Vec<u8>, Vec<TcpListener>) {
    wire_up_on(n, 2)
}

/// The same with `each` ranks a node.
pub fn wire_up_on(n: u32, each: u32) -> (Vec<u8>, Vec<TcpListener>) {
    wire_up_with(n, each, DataPlane::default())
}

/// The private half of `rank`'s key pair.
pub fn secret(rank: u32) -> [u8; 32] {
    [rank as u8 + 1; 32]
}

/// Two ranks a node with another data plane; ranks of an encrypted one have the keys of [`secret`].
pub fn wire_up_as(n: u32, data: DataPlane) -> (Vec<u8>, Vec<TcpListener>) {
    wire_up_with(n, 2, data)
}

fn wire_up_with(n: u32, each: u32, data: DataPlane) -> (Vec<u8>, Vec<TcpListener>) {
    let nodes = n.div_ceil(each);
    let mut listeners = Vec::new();
    let blocks = (0..nodes).map(|node| {
        let ip = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2 + u8::try_from(node % 200).unwrap()));
        let ranks = (each * node..(each * (node + 1)).min(n)).map(|rank| {
            let listener = TcpListener::bind((ip, 0)).unwrap();
            let port = listener.local_addr().unwrap().port();
            listeners.push(listener);
            let key = rmpi_net::Identity::new(&secret(rank)).unwrap().public().0;
            RankEndpoint {
                public_key: data.keyed().then_some(key),
                udp_port: (data.transport == Transport::Quic).then_some(port),
                ..RankEndpoint::plain(Rank(rank), port)
            }
        });
        let ranks = ranks.collect();
        let host = format!("node{node}");
        NodeEndpoints { node: NodeIdx(node), host, addresses: vec![ip], ranks, spare_port: None }
    });
    let table = EndpointTable { nodes: blocks.collect() };
    let launch = NodeLaunch {
        job: JobId([5; 16]),
        ns: ProcId::first(0),
        node: NodeIdx(0),
        nodes,
        size: n,
        universe: n,
        host: "node0".into(),
        apps: Vec::new(),
        ranks: Vec::new(),
        layout: Vec::new(),
        mpi: rmpi_types::launch::Mpi::default(),
        reached_at: None,
        ifaces: Vec::new(),
        port_range: None,
        key: [9; 32],
        data,
        oversubscribed: true,
        stdio: StdioKind::Pipe,
        kill_grace_ms: 0,
        drain_ms: 0,
        extras: Default::default(),
        output_credit: 0,
    };
    (rmpi_wire::boot::build(&launch, &table).unwrap(), listeners)
}

/// The worlds of `n` ranks, two a node; those of a node share memory.
pub fn worlds(n: u32) -> Vec<World> {
    worlds_on(n, 2)
}

/// The same with `each` ranks a node.
pub fn worlds_on(n: u32, each: u32) -> Vec<World> {
    let (boot, listeners) = wire_up_on(n, each);
    let boot: Arc<[u8]> = boot.into();
    let nodes: Vec<Vec<u32>> =
        (0..n.div_ceil(each)).map(|k| (each * k..(each * (k + 1)).min(n)).collect()).collect();
    let segments: Vec<OwnedFd> = nodes.iter().map(|ranks| rmpi_shm::create(ranks).unwrap()).collect();
    let world = |(rank, listener): (u32, TcpListener)| {
        let node = (rank / each) as usize;
        let segment = (nodes[node].len() > 1).then(|| segments[node].try_clone().unwrap());
        World::with_wiring(Wiring { segment, ..Wiring::new(rank, boot.clone(), listener) }).unwrap()
    };
    (0..n).zip(listeners).map(world).collect()
}

/// Runs `f` as every rank on its own thread, within a minute; the results by rank.
pub fn ranks<R: Send + 'static>(n: u32, f: impl Fn(World) -> R + Send + Sync + 'static) -> Vec<R> {
    ranks_on(n, 2, f)
}

/// The same with `each` ranks a node.
pub fn ranks_on<R: Send + 'static>(
    n: u32,
    each: u32,
    f: impl Fn(World) -> R + Send + Sync + 'static,
) -> Vec<R> {
    let f = Arc::new(f);
    let (tx, rx) = mpsc::channel();
    for world in worlds_on(n, each) {
        let (f, tx) = (f.clone(), tx.clone());
        std::thread::spawn(move || {
            let rank = world.rank();
            tx.send((rank, f(world))).unwrap();
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
