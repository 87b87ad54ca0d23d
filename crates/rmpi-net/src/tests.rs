//! Handshakes over loopback: friends, strangers, stalls, replays and crowds.

use super::*;
use std::io::{IoSlice, IoSliceMut, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

fn acceptor(rank: u32, key: u8) -> (Acceptor, SocketAddr) {
    let l = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = l.local_addr().unwrap();
    (Acceptor::new(vec![l], JobKey::new(&[key; 32]), 0, 0, rank).unwrap(), addr)
}

fn dial(from: u32, to: u32, key: u8, addrs: Vec<SocketAddr>) -> Dial {
    let route = Route { namespace: 0, epoch: 0, from, to };
    Dial::new(JobKey::new(&[key; 32]), route, addrs, Instant::now())
}

/// Drives both sides until the dialler is up or `limit` has passed.
fn meet(a: &mut Acceptor, d: &mut Dial, limit: Duration) -> Option<(Box<dyn Link>, Box<dyn Link>)> {
    let start = Instant::now();
    let mut accepted = None;
    while start.elapsed() < limit {
        for arrival in a.poll(Instant::now()) {
            accepted = Some(arrival.take().unwrap());
        }
        match d.poll(Instant::now()) {
            DialStep::Up(link) => return Some((link, accepted.unwrap())),
            DialStep::Pending => {}
            DialStep::Duplicate => panic!("no other connection exists"),
            DialStep::Failed(e) => panic!("{e}"),
        }
        std::thread::yield_now();
    }
    None
}

fn recv_all(link: &mut Box<dyn Link>, buf: &mut [u8]) {
    let mut got = 0;
    while got < buf.len() {
        match link.recv(&mut [IoSliceMut::new(&mut buf[got..])]) {
            Ok(n) => got += n,
            Err(e) => assert_eq!(e.kind(), std::io::ErrorKind::WouldBlock),
        }
    }
}

const LONG: Duration = Duration::from_secs(60);

#[test]
fn two_ranks_meet_and_talk() {
    let (mut a, addr) = acceptor(1, 9);
    let mut d = dial(0, 1, 9, vec![addr]);
    let (mut x, mut y) = meet(&mut a, &mut d, LONG).unwrap();
    assert_eq!(x.send(&[IoSlice::new(b"he"), IoSlice::new(b"llo")]).unwrap(), 5);
    let mut buf = [0; 5];
    recv_all(&mut y, &mut buf);
    assert_eq!(&buf, b"hello");
    assert_eq!((x.rail(), a.turned_away()), ("tcp", 0));
}

/// A rank may look at a link twice before it gives it up, and the second look must not find a friendly end.
#[test]
fn the_error_that_ended_a_link_is_said_again() {
    let (mut a, addr) = acceptor(1, 9);
    let (mut x, y) = meet(&mut a, &mut dial(0, 1, 9, vec![addr]), LONG).unwrap();
    // Without a lingering end, the close is a reset.
    socket2::SockRef::from(&y.fd()).set_linger(Some(Duration::ZERO)).unwrap();
    drop(y);
    let mut look = || x.recv(&mut [IoSliceMut::new(&mut [0; 8])]).map_err(|e| e.kind());
    let waiting = std::io::ErrorKind::WouldBlock;
    let first = std::iter::repeat_with(&mut look).find(|r| *r != Err(waiting));
    assert_eq!(first, Some(Err(std::io::ErrorKind::ConnectionReset)));
    assert_eq!(look(), Err(std::io::ErrorKind::ConnectionReset));
}

#[test]
fn buffers_have_the_sizes_asked_for() {
    let sizes = Buffers { send: Some(64 << 10), receive: Some(32 << 10) };
    let (a, addr) = acceptor(1, 9);
    let mut d = acceptor(0, 9).0.buffers(sizes).dial(1, vec![addr], Instant::now());
    let (x, y) = meet(&mut a.buffers(sizes), &mut d, LONG).unwrap();
    for link in [x, y] {
        let socket = link.fd();
        let socket = socket2::SockRef::from(&socket);
        // The kernel counts its own needs in.
        assert_eq!(
            (socket.send_buffer_size().unwrap(), socket.recv_buffer_size().unwrap()),
            (128 << 10, 64 << 10)
        );
    }
}

#[test]
fn a_wrong_address_is_passed_over() {
    // The first address accepts and says nothing, the second closes, the third is another rank's, the fourth right.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (mut other, other_addr) = acceptor(7, 9);
    let (mut a, addr) = acceptor(1, 9);
    let mut d = dial(0, 1, 9, vec![silent.local_addr().unwrap(), closed, other_addr, addr]);
    let start = Instant::now();
    loop {
        assert!(other.poll(Instant::now()).is_empty(), "rank 7 must not take what is meant for rank 1");
        if meet(&mut a, &mut d, Duration::from_millis(20)).is_some() {
            break;
        }
        assert!(start.elapsed() < LONG);
    }
}

#[test]
fn a_wrong_key_gets_not_one_byte() {
    let (mut a, addr) = acceptor(1, 9);
    let mut d = dial(0, 1, 8, vec![addr]);
    let start = Instant::now();
    let error = loop {
        assert!(a.poll(Instant::now()).is_empty());
        match d.poll(Instant::now()) {
            DialStep::Failed(e) => break e,
            DialStep::Pending => std::thread::yield_now(),
            other => panic!("{other:?}"),
        }
        assert!(start.elapsed() < 2 * LONG);
    };
    assert!(error.to_string().contains("no address answered"), "{error}");
    assert!(a.turned_away() >= 3);
}

#[test]
fn a_false_acceptor_is_not_believed() {
    let l = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut d = dial(0, 1, 9, vec![l.local_addr().unwrap()]);
    l.set_nonblocking(true).unwrap();
    let mut conns = Vec::new();
    let start = Instant::now();
    let error = loop {
        if let Ok((mut s, _)) = l.accept() {
            s.write_all(&[0x55; ANSWER_LEN + 1]).unwrap();
            conns.push(s);
        }
        match d.poll(Instant::now()) {
            DialStep::Failed(e) => break e,
            DialStep::Pending => std::thread::yield_now(),
            other => panic!("{other:?}"),
        }
        assert!(start.elapsed() < 2 * LONG);
    };
    assert!(error.to_string().contains("job's key"), "{error}");
}

#[test]
fn refused_everywhere_is_an_error_soon() {
    let addr = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut d = dial(0, 1, 9, vec![addr]);
    let start = Instant::now();
    loop {
        match d.poll(Instant::now()) {
            DialStep::Failed(DialError::Unreachable { .. }) => break,
            DialStep::Pending => std::thread::yield_now(),
            other => panic!("{other:?}"),
        }
    }
    assert!(start.elapsed() < LONG);
    let none = dial(0, 1, 9, vec![]).poll(Instant::now());
    assert!(matches!(none, DialStep::Failed(DialError::NoAddress)));
}

#[test]
fn strangers_get_nothing_and_keep_nobody_out() {
    let (mut a, addr) = acceptor(1, 9);
    // Far more than the table holds: some silent, some with half a hello, some with garbage.
    let mut strangers: Vec<TcpStream> = (0..300)
        .map(|i| {
            let mut s = TcpStream::connect(addr).unwrap();
            s.write_all(&vec![0xA5; [0, 40, HELLO_LEN, 4 * HELLO_LEN][i % 4]]).unwrap();
            a.poll(Instant::now());
            s
        })
        .collect();
    let mut d = dial(0, 1, 9, vec![addr]);
    assert!(meet(&mut a, &mut d, LONG).is_some());
    for s in &mut strangers {
        s.set_nonblocking(true).unwrap();
        let mut buf = [0; 16];
        let got = s.read(&mut buf);
        assert!(!matches!(got, Ok(n) if n > 0), "a stranger was answered");
    }
    // Who stalls is dropped when its time is over.
    a.poll(Instant::now() + Duration::from_secs(6));
    assert!(!a.busy());
}

#[test]
fn a_replayed_conversation_is_turned_away() {
    // A relay between dialler and acceptor records what the dialler says.
    let (mut a, addr) = acceptor(1, 9);
    let relay = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut d = dial(0, 1, 9, vec![relay.local_addr().unwrap()]);
    assert!(matches!(d.poll(Instant::now()), DialStep::Pending));
    let (mut from, _) = relay.accept().unwrap();
    let mut to = TcpStream::connect(addr).unwrap();
    assert!(matches!(d.poll(Instant::now()), DialStep::Pending));
    let mut hello = [0; HELLO_LEN];
    from.read_exact(&mut hello).unwrap();
    to.write_all(&hello).unwrap();
    to.set_nonblocking(true).unwrap();
    while !a.busy() || to.peek(&mut [0; 1]).is_err() {
        a.poll(Instant::now());
    }
    to.set_nonblocking(false).unwrap();
    let mut answer = [0; ANSWER_LEN];
    to.read_exact(&mut answer).unwrap();
    from.write_all(&answer).unwrap();
    from.set_nonblocking(true).unwrap();
    let mut proof = [0; PROOF_LEN];
    while from.peek(&mut proof).is_err() || proof == [0; PROOF_LEN] {
        d.poll(Instant::now());
    }
    from.set_nonblocking(false).unwrap();
    from.read_exact(&mut proof).unwrap();
    // Now the recorded hello and proof, again and alone.
    let mut replay = TcpStream::connect(addr).unwrap();
    replay.write_all(&hello).unwrap();
    replay.write_all(&proof).unwrap();
    let start = Instant::now();
    while a.turned_away() == 0 {
        assert!(a.poll(Instant::now()).is_empty(), "a replay was believed");
        assert!(start.elapsed() < LONG);
    }
}
