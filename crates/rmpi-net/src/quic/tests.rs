//! QUIC rails over loopback: friends, strangers, wrong keys, crowded and ended connections. Both ends are driven
//! until something has happened; nothing is timed.

use super::*;
use crate::tls::{Identity, KEY_LEN, Peers, PublicKey, Security};
use crate::{Acceptor, Arrival, Dial, DialStep, JobKey, Link, Route};
use std::io::{ErrorKind, IoSlice, IoSliceMut};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::sync::Arc;
use std::time::Instant;

#[derive(Debug)]
struct Keys(Vec<PublicKey>);

impl Peers for Keys {
    fn key(&self, rank: u32) -> Option<PublicKey> {
        self.0.get(rank as usize).copied()
    }
}

fn identity(seed: u8) -> Identity {
    Identity::new(&[seed; KEY_LEN]).unwrap()
}

/// A rank of a job of three, whose ranks have the keys of seeds 1, 2 and 3.
struct Host {
    acceptor: Acceptor,
    address: SocketAddr,
}

fn host(rank: u32, job: u8, seed: u8) -> Host {
    let peers = Arc::new(Keys((1..=3).map(|s| identity(s).public()).collect()));
    let security = Security::new(identity(seed), peers);
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let key = JobKey::new(&[job; 32]);
    let me = Route { namespace: 0, epoch: 0, from: rank, to: rank };
    let rail = QuicRail::start(socket, key.clone(), me, 3, security).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let acceptor = Acceptor::new(vec![listener], key, 0, 0, rank).unwrap().over_quic(Some(rail));
    Host { acceptor, address }
}

impl Host {
    fn dial(&self, to: u32, addresses: &[SocketAddr]) -> Dial {
        self.acceptor.dial(to, addresses.to_vec(), Instant::now())
    }
}

/// Drives both until the dialler has an outcome; arrivals go to `each`.
fn outcome(host: &mut Host, dial: &mut Dial, mut each: impl FnMut(Arrival)) -> DialStep {
    loop {
        host.acceptor.poll(Instant::now()).into_iter().for_each(&mut each);
        match dial.poll(Instant::now()) {
            DialStep::Pending => std::thread::yield_now(),
            done => return done,
        }
    }
}

/// Both ends of a link from rank 0 to rank 1.
fn links() -> (Host, Host, Box<dyn Link>, Box<dyn Link>) {
    let (zero, mut one) = (host(0, 9, 1), host(1, 9, 2));
    let mut taken = None;
    let mut dial = zero.dial(1, &[one.address]);
    let up = outcome(&mut one, &mut dial, |a| {
        assert_eq!(a.from, 0);
        taken = Some(a.take().unwrap());
    });
    let DialStep::Up(link) = up else { panic!("{up:?}") };
    (zero, one, link, taken.unwrap())
}

fn receive(link: &mut Box<dyn Link>, len: usize) -> Vec<u8> {
    let mut got = vec![0; len];
    let mut at = 0;
    while at < len {
        match link.recv(&mut [IoSliceMut::new(&mut got[at..])]) {
            Ok(0) => panic!("the end after {at} bytes"),
            Ok(n) => at += n,
            Err(e) => {
                assert_eq!(e.kind(), ErrorKind::WouldBlock, "{e}");
                let mut fds = [nix::poll::PollFd::new(link.fd(), nix::poll::PollFlags::POLLIN)];
                assert_eq!(nix::poll::poll(&mut fds, 20_000u16).unwrap(), 1, "the descriptor says nothing");
            }
        }
    }
    got
}

/// How a link ends: `None` in good order.
fn end(link: &mut Box<dyn Link>) -> Option<String> {
    loop {
        match link.recv(&mut [IoSliceMut::new(&mut [0; 4096])]) {
            Ok(0) => return None,
            Err(e) if e.kind() != ErrorKind::WouldBlock => return Some(e.to_string()),
            _ => std::thread::yield_now(),
        }
    }
}

#[test]
fn two_ranks_meet_talk_and_part() {
    let (zero, _one, mut x, mut y) = links();
    assert_eq!((x.rail(), x.announces_room(), x.silence()), ("quic", false, None));
    assert_eq!(x.send(&[IoSlice::new(b"he"), IoSlice::new(b"llo")]).unwrap(), 5);
    assert_eq!(receive(&mut y, 5), b"hello");
    assert_eq!(y.send(&[IoSlice::new(b"you")]).unwrap(), 3);
    assert_eq!(receive(&mut x, 3), b"you");
    x.send(&[IoSlice::new(b"last words")]).unwrap();
    x.finish();
    while x.unacknowledged() > 0 {
        std::thread::yield_now();
    }
    drop(x);
    drop(zero);
    // Acknowledged is not received: it is there even after the other end has gone.
    assert_eq!(receive(&mut y, 10), b"last words");
    assert_eq!(end(&mut y), None);
}

#[test]
fn a_large_message_does_not_hold_up_a_small_one_and_memory_is_bounded() {
    let (_zero, _one, mut x, mut y) = links();
    let piece = vec![7u8; x.max_piece().unwrap()];
    let mut queued = 0usize;
    // The peer's engine takes nothing, so one stream after a while takes nothing either...
    let mut full = 0;
    while full < 2_000 {
        match x.send_piece(0, &[IoSlice::new(&piece)]) {
            Ok(n) => (queued, full) = (queued + n, 0),
            Err(e) => {
                assert_eq!(e.kind(), ErrorKind::WouldBlock);
                full += 1;
                std::thread::yield_now();
            }
        }
        assert!(queued < 128 << 20, "no back-pressure");
    }
    // ...but the others do, and what is taken comes whole: pieces before and after, never through the small one.
    assert_eq!(x.send(&[IoSlice::new(b"small")]).unwrap(), 5);
    let got = receive(&mut y, queued + 5);
    let at = got.iter().position(|&b| b != 7).unwrap();
    assert_eq!(&got[at..at + 5], b"small");
    assert_eq!(at % piece.len(), 0, "a unit was cut");
    assert!(got.iter().filter(|&&b| b == 7).count() == queued);
    assert!(at < queued, "the small message came last of all");
}

#[test]
fn another_jobs_rank_and_other_strangers_hear_nothing() {
    let (other_job, mut one) = (host(0, 8, 1), host(1, 9, 2));
    let stranger = UdpSocket::bind("127.0.0.1:0").unwrap();
    for len in [1, 20, 1200, 1400] {
        // A long header of version 1 to start with; the rest is anything.
        let mut packet: Vec<u8> = (0..len).map(|i| (i * 31) as u8).collect();
        packet.splice(0..0, [0xc3, 0, 0, 0, 1, 20]);
        stranger.send_to(&packet, one.address).unwrap();
    }
    let mut dial = other_job.dial(1, &[one.address]);
    let failed = outcome(&mut one, &mut dial, |a| panic!("{a:?} was let in"));
    let DialStep::Failed(e) = failed else { panic!("{failed:?}") };
    assert!(e.to_string().contains("no address answered"), "{e}");
    stranger.set_nonblocking(true).unwrap();
    let answer = stranger.recv(&mut [0; 2000]);
    assert_eq!(answer.unwrap_err().kind(), ErrorKind::WouldBlock, "a stranger was answered");
}

#[test]
fn a_wrong_key_pair_is_named_on_the_side_that_sees_it() {
    // The acceptor is not who the table says: the dialler refuses at once and says why.
    let (zero, mut false_one) = (host(0, 9, 1), host(1, 9, 3));
    let mut dial = zero.dial(1, &[false_one.address]);
    let failed = outcome(&mut false_one, &mut dial, |a| panic!("{a:?}"));
    let DialStep::Failed(e) = failed else { panic!("{failed:?}") };
    assert!(e.to_string().contains("its key is not the one in the job's table"), "{e}");
    // The dialler has no key of the job, or another rank's: it knows the job's key and still gets nowhere.
    for seed in [77, 3] {
        let (false_zero, mut one) = (host(0, 9, seed), host(1, 9, 2));
        let mut dial = false_zero.dial(1, &[one.address]);
        let failed = outcome(&mut one, &mut dial, |a| panic!("{a:?} was let in"));
        let DialStep::Failed(e) = failed else { panic!("{failed:?}") };
        assert!(!e.to_string().is_empty());
    }
}

#[test]
fn a_second_connection_is_refused_and_a_given_up_effort_is_not_seen() {
    let (zero, mut one) = (host(0, 9, 1), host(1, 9, 2));
    let mut dial = zero.dial(1, &[one.address]);
    assert!(matches!(outcome(&mut one, &mut dial, Arrival::refuse), DialStep::Duplicate));
    // Nothing was said yet, so the effort can be given up; said, it cannot.
    let mut dial = zero.dial(1, &[one.address]);
    if dial.give_way() {
        drop(dial);
    } else {
        assert!(matches!(outcome(&mut one, &mut dial, Arrival::refuse), DialStep::Duplicate));
    }
    let mut dial = zero.dial(1, &[one.address]);
    let mut arrivals = Vec::new();
    while arrivals.is_empty() {
        arrivals = one.acceptor.poll(Instant::now());
        std::thread::yield_now();
    }
    assert!(!dial.give_way(), "the peer knows of it already");
    let link = arrivals.pop().unwrap().take().unwrap();
    assert!(matches!(outcome(&mut one, &mut dial, |a| panic!("{a:?}")), DialStep::Up(_)));
    drop(link);
}

#[test]
fn a_wrong_address_is_passed_over() {
    let (zero, mut two, mut one) = (host(0, 9, 1), host(2, 9, 3), host(1, 9, 2));
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut dial = zero.dial(1, &[silent.local_addr().unwrap(), two.address, one.address]);
    let mut taken = Vec::new();
    let up = outcome(&mut one, &mut dial, |a| taken.push(a.take().unwrap()));
    assert!(matches!(up, DialStep::Up(_)), "{up:?}");
    assert!(two.acceptor.poll(Instant::now()).is_empty(), "rank 2 took what is meant for rank 1");
}

#[test]
fn a_peer_that_gives_up_or_vanishes_is_an_end() {
    let (_zero, _one, x, mut y) = links();
    drop(x);
    assert_eq!(end(&mut y).as_deref(), Some("it gave the connection up"));
    assert!(y.send(&[IoSlice::new(b"x")]).is_err());
    let (zero, _one, x, mut y) = links();
    drop(zero);
    assert_eq!(end(&mut y), None);
    drop(x);
    let none = host(0, 9, 1).dial(1, &[]).poll(Instant::now());
    assert!(matches!(none, DialStep::Failed(crate::DialError::NoAddress)));
}
