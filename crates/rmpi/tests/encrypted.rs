//! Encrypted jobs: every pair talks over the rail asked for, and what does not fit together is told at the start.

#![allow(clippy::unwrap_used, reason = "a test panics where it fails")]

mod common;

use rmpi::{InitError, Op, Options, Transport, Wiring, World};
use rmpi_types::DataPlane;
use std::net::{TcpListener, UdpSocket};
use std::sync::Arc;

/// The wiring of `n` ranks with their keys.
fn wirings(n: u32, data: DataPlane) -> Vec<Wiring> {
    let (boot, listeners) = common::wire_up_as(n, data);
    let boot: Arc<[u8]> = boot.into();
    let wiring = |(rank, listener): (u32, TcpListener)| Wiring {
        udp: (data.transport == Transport::Quic)
            .then(|| UdpSocket::bind(listener.local_addr().unwrap()).unwrap()),
        secret: Some(common::secret(rank).into()),
        ..Wiring::new(rank, boot.clone(), listener)
    };
    (0..n).zip(listeners).map(wiring).collect()
}

#[test]
fn messages_and_collectives_go_over_tls() {
    exchange(DataPlane { transport: Transport::Auto, encrypt: true }, "tls");
}

#[test]
fn messages_and_collectives_go_over_quic() {
    exchange(DataPlane { transport: Transport::Quic, encrypt: false }, "quic");
}

fn exchange(data: DataPlane, rail: &'static str) {
    let threads: Vec<_> = wirings(4, data)
        .into_iter()
        .map(|wiring| {
            std::thread::spawn(move || {
                let world = World::with_wiring(wiring).unwrap();
                let (me, n) = (world.rank(), world.size());
                // A rank of another node: the encrypted rail, whatever serves the own node.
                assert_eq!(world.rail((me + 2) % n), Some(rail));
                for len in [1, 5_000, 300_000] {
                    let mut sum = vec![0.0f32; len];
                    world.comm().allreduce(&vec![me as f32; len], &mut sum, &Op::Sum).unwrap();
                    assert!(sum.iter().all(|&x| x == 6.0));
                }
                world.finalize().unwrap();
            })
        })
        .collect();
    threads.into_iter().for_each(|t| t.join().unwrap());
}

fn refused(wiring: Wiring, options: &Options) -> String {
    match World::with_wiring_and(wiring, options) {
        Err(e @ InitError::Transport { .. }) => e.to_string(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_does_not_fit_together_is_told_at_the_start() {
    let one = |data| wirings(1, data).remove(0);
    let tls = DataPlane { transport: Transport::Tls, encrypt: false };
    let plain = DataPlane::default();
    let auto = Options::new();
    let error = refused(Wiring { secret: None, ..one(tls) }, &auto);
    assert!(error.starts_with("the tls rail cannot be used: the ranks of this job have no keys"), "{error}");
    let error = refused(Wiring { secret: Some([77; 32].into()), ..one(tls) }, &auto);
    assert!(error.contains("does not belong to the job's table"), "{error}");
    let error = refused(one(plain), &Options::new().transport(Transport::Tls));
    assert!(error.contains("does not belong") || error.contains("no keys"), "{error}");
    let quic = DataPlane { transport: Transport::Quic, encrypt: false };
    let error = refused(Wiring { udp: None, ..one(quic) }, &auto);
    assert!(error.contains("this job has no UDP ports"), "{error}");
    let encrypted = DataPlane { transport: Transport::Auto, encrypt: true };
    let error = refused(one(encrypted), &Options::new().transport(Transport::Tcp));
    assert!(error.contains("--transport tcp sends in clear"), "{error}");
    let two_nodes = wirings(3, plain).remove(0);
    let error = refused(two_nodes, &Options::new().transport(Transport::Shm));
    assert!(error.contains("the job is on 2 nodes, which share no memory"), "{error}");
    assert_eq!(format!("{:?}", one(tls).secret), "Some(Secret(..))");
}
