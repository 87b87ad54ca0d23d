//! Several connections a pair: what is spread over them comes whole, and what a peer may do with them.

use super::*;
use crate::header::Header;
use rmpi_net::{Dial, DialStep, Link};
use rmpi_types::transport::MAX_STREAMS;
use std::io::{ErrorKind, IoSlice};

/// Connections beyond the first.
fn further(e: &Engine, peer: u32) -> usize {
    e.with(|c| c.conns[peer as usize].as_ref().map_or(0, |c| c.lanes.up.len()))
}

fn wait_for(e: &Engine, what: impl Fn(&Core) -> bool) {
    let soon = Instant::now() + Duration::from_secs(20);
    assert!(e.block_until(soon, |c| what(c).then_some(())).is_some(), "it does not come");
}

#[test]
fn messages_over_one_to_four_connections_come_whole_and_in_order() {
    for (rail, streams) in [(Rail::Tcp, 1), (Rail::Tcp, 2), (Rail::Tcp, 3), (Rail::Tcp, 4), (Rail::Tls, 3)] {
        let engines = wide(rail, 2, streams).0;
        let traffic = move |me: u32, e: &Engine| {
            let peer = 1 - me;
            e.sendrecv(to(peer, 0), &[1], &from(peer, 0), &mut [0]).unwrap();
            wait_for(e, |c| c.conns[peer as usize].as_ref().unwrap().lanes.up.len() + 1 == streams as usize);
            let sizes = [3, 70_000, 131_072, 200_001, 1 << 20, 5_000_000, 100_000, 6_000_000, 0, 131_073];
            let data = |rank: u32| -> Vec<Vec<u8>> {
                sizes.iter().zip(1..).map(|(&n, i)| pattern(n, u64::from(rank) * 100 + i)).collect()
            };
            let (out, expected) = (data(me), data(peer));
            let mut into: Vec<Vec<u8>> = sizes.iter().map(|&n| vec![0; n]).collect();
            // The last but one is too long for its receive.
            into[7].truncate(4_000_000);
            e.scope(|s| {
                let sends: Vec<_> = out.iter().map(|d| s.send(to(peer, 7), d)).collect();
                let receives: Vec<_> = into.iter_mut().map(|m| s.recv(&from(peer, 7), m)).collect();
                for (i, r) in receives.into_iter().enumerate() {
                    let ended = e.wait(r).0;
                    let cut = matches!(ended, Err(Fault::Truncated { sent: 6_000_000, .. }));
                    assert!(ended.is_ok() || (i == 7 && cut), "{ended:?}");
                }
                for send in sends {
                    send.or_else(|op| e.wait(op).0).unwrap();
                }
            });
            for (i, (got, want)) in into.iter().zip(&expected).enumerate() {
                assert!(got[..] == want[..got.len()], "message {i} over {streams} of {rail:?}");
            }
            let carried = e.with(|c| {
                let lanes = &c.conns[peer as usize].as_ref().unwrap().lanes.up;
                lanes.iter().map(|l| l.carried).collect::<Vec<u64>>()
            });
            // Whoever is through closes its connections: not before the other has looked at them.
            e.sendrecv(to(peer, 8), &[1], &from(peer, 8), &mut [0]).unwrap();
            carried
        };
        for carried in run(engines, &Arc::new(traffic)) {
            assert_eq!(carried.len() + 1, streams as usize);
            assert!(carried.iter().all(|&n| n >= 64 << 10), "{carried:?} over {streams} of {rail:?}");
        }
    }
}

#[test]
fn many_ranks_with_several_connections_each() {
    let engines = wide(Rail::Tcp, 5, 3).0;
    let traffic = |me: u32, e: &Engine| {
        for round in 0..3u64 {
            let (next, previous) = ((me + 1) % 5, (me + 4) % 5);
            let out = pattern(900_000, u64::from(me) + 10 * round);
            let mut into = vec![0; 900_000];
            e.sendrecv(to(next, 1), &out, &from(previous, 1), &mut into).unwrap();
            assert!(into == pattern(900_000, u64::from(previous) + 10 * round));
        }
    };
    run(engines, &Arc::new(traffic));
}

/// An engine (rank 0) of two, whose peer is made by hand, and where it listens.
fn alone() -> (Engine, SocketAddr) {
    let (mut engines, addresses) = wide(Rail::Tcp, 2, 2);
    engines.truncate(1);
    (engines.remove(0), addresses[0])
}

/// The peer's connection of this number, if the engine takes it.
fn dialled(e: &Engine, address: SocketAddr, number: u32) -> Option<Box<dyn Link>> {
    let route = Route { namespace: 0, epoch: 0, from: 1, to: 0 };
    let key = JobKey::new(&[3; 32]);
    let mut dial = Dial::new(key, route, vec![address], Instant::now()).numbered(number);
    loop {
        e.with(|c| c.link_up());
        match dial.poll(Instant::now()) {
            DialStep::Up(link) => return Some(link),
            DialStep::Pending => {}
            _ => return None,
        }
    }
}

/// The engine, the peer's first connection and another.
fn with_a_hostile_peer() -> (Engine, Box<dyn Link>, Box<dyn Link>) {
    let (e, address) = alone();
    let first = dialled(&e, address, 0).unwrap();
    let second = dialled(&e, address, 1).unwrap();
    assert_eq!(further(&e, 1), 1);
    (e, first, second)
}

fn say(link: &mut dyn Link, header: &Header, payload: &[u8]) {
    let bytes = [&header.encode()[..], payload].concat();
    let mut at = 0;
    while at < bytes.len() {
        match link.send(&[IoSlice::new(&bytes[at..])]) {
            Ok(n) => at += n,
            Err(e) if e.kind() == ErrorKind::WouldBlock => std::thread::yield_now(),
            // The engine has had enough of it.
            Err(_) => return,
        }
    }
}

/// A receive of `len` bytes that a message of as many is announced for.
fn announced(e: &Engine, first: &mut dyn Link, len: usize) -> OpId {
    let op = e.with(|c| c.recv_owned(&from(1, 1), Box::new(vec![0u8; len])));
    let rts = Header { tag: 1, length: len as u64, id: 77, ..Header::bare(crate::Kind::Rts) };
    say(first, &rts, &[]);
    wait_for(e, |c| c.ops.get(op).is_some_and(|o| matches!(o.state, crate::ops::State::RecvData { .. })));
    op
}

#[test]
fn pieces_come_in_any_order() {
    let (e, mut first, mut second) = with_a_hostile_peer();
    let data = pattern(300_000, 5);
    let op = announced(&e, first.as_mut(), data.len());
    let piece =
        |from: usize, to: usize| (Header::piece(op.raw(), from as u64, (to - from) as u64), &data[from..to]);
    let sends = [(1, 200_000, 300_000), (0, 100_000, 200_000), (1, 0, 0), (1, 0, 100_000)];
    for (over, from, to) in sends {
        let link = if over == 0 { first.as_mut() } else { second.as_mut() };
        let (header, payload) = piece(from, to);
        say(link, &header, payload);
    }
    let (result, memory) = e.wait(op);
    assert_eq!(result.unwrap().length, 300_000);
    assert!(*memory.unwrap().into_any().downcast::<Vec<u8>>().unwrap() == data);
}

#[test]
fn what_does_not_belong_on_a_further_connection_ends_the_pair() {
    const LEN: usize = 200_000;
    type Script = fn(u64) -> Vec<(Header, usize)>;
    let scripts: [(&str, Script); 7] = [
        ("a message", |_| vec![(Header { length: 5, tag: 1, ..Header::bare(crate::Kind::Eager) }, 5)]),
        ("a goodbye", |_| vec![(Header::bare(crate::Kind::Bye), 0)]),
        ("beyond the end", |id| vec![(Header::piece(id, LEN as u64 - 10, 11), 11)]),
        ("far beyond", |id| vec![(Header::piece(id, u64::MAX - 3, 5), 5)]),
        ("too long", |id| vec![(Header::piece(id, 0, LEN as u64 + 1), 0)]),
        ("twice", |id| vec![(Header::piece(id, 0, 150_000), 150_000), (Header::piece(id, 0, 150_000), 0)]),
        ("noise", |_| Vec::new()),
    ];
    for (what, script) in scripts {
        let (e, mut first, mut second) = with_a_hostile_peer();
        let op = announced(&e, first.as_mut(), LEN);
        if what == "noise" {
            say(second.as_mut(), &Header::bare(crate::Kind::Data), &[9; 100]);
        }
        for (header, payload) in script(op.raw()) {
            say(second.as_mut(), &header, &pattern(payload, 1));
        }
        let fault = e.wait(op).0.unwrap_err();
        assert!(matches!(fault, Fault::PeerLost { rank: 1, .. }), "{what}: {fault}");
        assert!(fault.to_string().contains("its connection 2 at 127.0.0.1:"), "{what}: {fault}");
    }
}

#[test]
fn numbers_out_of_range_and_used_ones_are_refused() {
    let (e, address) = alone();
    let verdict = |number| dialled(&e, address, number);
    assert!(verdict(1).is_none(), "a further connection before the first one");
    let _first = verdict(0).unwrap();
    assert!(verdict(MAX_STREAMS).is_none() && verdict(u32::MAX).is_none());
    let _second = verdict(1).unwrap();
    assert!(verdict(1).is_none(), "the same number again");
    assert_eq!(further(&e, 1), 1);
}

#[test]
fn a_further_connection_that_breaks_is_named_and_so_is_a_peer_that_dies() {
    let (e, mut first, second) = with_a_hostile_peer();
    let op = announced(&e, first.as_mut(), 200_000);
    drop(second);
    let fault = e.wait(op).0.unwrap_err();
    let text = fault.to_string();
    assert!(text.starts_with("rank 1 on node1 is lost: its connection 2 at 127.0.0.1:"), "{text}");
    drop(first);

    let mut engines = wide(Rail::Tcp, 2, 3).0.into_iter();
    let (e0, e1) = (engines.next().unwrap(), engines.next().unwrap());
    let victim = std::thread::spawn(move || {
        let op = e1.with(|c| c.send_owned(to(0, 1), Box::new(pattern(50_000_000, 1))));
        wait_for(&e1, |c| c.conns[0].as_ref().is_some_and(|c| c.lanes.up.iter().any(|l| l.carried > 0)));
        e1.with(|c| assert!(!c.is_done(op)));
    });
    let fault = e0.recv(&from(1, 1), &mut vec![0; 50_000_000]).unwrap_err();
    assert!(matches!(fault, Fault::PeerLost { rank: 1, .. }), "{fault}");
    victim.join().unwrap();
}
