//! Encrypted links over loopback: friends, wrong keys, plain talkers, damaged and cut streams. No clocks: both ends
//! are driven until something has happened.

use super::*;
use crate::{Acceptor, Dial, DialStep, JobKey, Route};
use std::io::{ErrorKind, IoSlice, IoSliceMut, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
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

/// What `seed` has, in a job where rank 0 and 1 have the keys of seeds 1 and 2.
fn security(seed: u8) -> Security {
    Security::new(identity(seed), Arc::new(Keys(vec![identity(1).public(), identity(2).public()])))
}

/// The links of rank 0 (dialling, with `dialler`'s key) and rank 1 (with `acceptor`'s); `None` is in clear.
fn links(dialler: Option<u8>, acceptor: Option<u8>) -> (Box<dyn Link>, Box<dyn Link>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let key = JobKey::new(&[9; 32]);
    let mut a = Acceptor::new(vec![listener], key.clone(), 0, 0, 1).unwrap().secured(acceptor.map(security));
    let route = Route { namespace: 0, epoch: 0, from: 0, to: 1 };
    let mut d = Dial::new(key, route, vec![address], Instant::now()).secured(dialler.map(security));
    let mut taken = None;
    loop {
        for arrival in a.poll(Instant::now()) {
            taken = Some(arrival.take().unwrap());
        }
        match d.poll(Instant::now()) {
            DialStep::Up(link) => return (link, taken.unwrap()),
            DialStep::Pending => {}
            other => panic!("{other:?}"),
        }
    }
}

/// One call each way; the first error that is not `WouldBlock`, with the side that saw it.
fn turn(x: &mut Box<dyn Link>, y: &mut Box<dyn Link>) -> Option<(usize, std::io::Error)> {
    let mut buf = [0; 100];
    for (i, link) in [x, y].into_iter().enumerate() {
        let results = [link.send(&[IoSlice::new(b"x")]), link.recv(&mut [IoSliceMut::new(&mut buf)])];
        for result in results {
            match result {
                Err(e) if e.kind() != ErrorKind::WouldBlock => return Some((i, e)),
                Ok(0) => return Some((i, ErrorKind::UnexpectedEof.into())),
                _ => {}
            }
        }
    }
    None
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 7 + i / 251) as u8).collect()
}

/// Sends all of `data` from `x` in parts cut at `cuts`, receives it at `y` in pieces of `take` bytes.
fn carry(x: &mut Box<dyn Link>, y: &mut Box<dyn Link>, data: &[u8], cut: usize, take: usize) -> Vec<u8> {
    let (mut sent, mut got) = (0, Vec::new());
    let mut buf = vec![0; take];
    while got.len() < data.len() {
        let rest = &data[sent..];
        let (head, tail) = rest.split_at(cut.min(rest.len()));
        match x.send(&[IoSlice::new(head), IoSlice::new(tail)]) {
            Ok(n) => sent += n,
            Err(e) => assert_eq!(e.kind(), ErrorKind::WouldBlock),
        }
        let (a, b) = buf.split_at_mut(take / 3);
        match y.recv(&mut [IoSliceMut::new(a), IoSliceMut::new(b)]) {
            Ok(n) => got.extend_from_slice(&buf[..n]),
            Err(e) => assert_eq!(e.kind(), ErrorKind::WouldBlock),
        }
    }
    got
}

#[test]
fn bytes_of_every_amount_come_as_they_went_both_ways() {
    let (mut x, mut y) = links(Some(1), Some(2));
    assert_eq!((x.rail(), y.rail()), ("tls", "tls"));
    for len in [1, 31, 2_000, 16_383, 16_384, 16_385, 131_072, 131_073, 3_000_000] {
        let data = pattern(len);
        for (cut, take) in [(32, 1 << 20), (0, 5_000), (20_000, 16_384), (len, 65_568)] {
            assert!(carry(&mut x, &mut y, &data, cut, take) == data, "{len} {cut} {take}");
            assert!(carry(&mut y, &mut x, &data, cut, take) == data, "{len} {cut} {take}");
        }
    }
}

#[test]
fn a_short_receive_means_that_nothing_is_hidden() {
    let (mut x, mut y) = links(Some(1), Some(2));
    let data = pattern(50_000);
    assert!(carry(&mut x, &mut y, &data, 32, 1 << 20) == data);
    // All of it in the link: pieces come without a look at the socket, which has nothing.
    while x.send(&[IoSlice::new(&data)]).is_err() {}
    let mut got = Vec::new();
    let mut buf = [0; 777];
    while got.len() < data.len() {
        match y.recv(&mut [IoSliceMut::new(&mut buf)]) {
            Ok(n) => {
                got.extend_from_slice(&buf[..n]);
                assert!(n == 777 || got.len() == data.len() || n > 0);
            }
            Err(e) => {
                assert_eq!(e.kind(), ErrorKind::WouldBlock);
                // Then the descriptor tells.
                let mut fds = [nix::poll::PollFd::new(y.fd(), nix::poll::PollFlags::POLLIN)];
                assert_eq!(nix::poll::poll(&mut fds, 10_000u16).unwrap(), 1, "hidden bytes");
            }
        }
    }
    assert!(got == data);
}

#[test]
fn a_wrong_key_on_either_side_is_told_to_both_and_carries_nothing() {
    for (dialler, acceptor, who) in
        [(3, 2, "acceptor"), (1, 3, "dialler"), (2, 2, "acceptor"), (1, 1, "dialler")]
    {
        let (mut x, mut y) = links(Some(dialler), Some(acceptor));
        let mut told = [None, None];
        while told.iter().any(Option::is_none) {
            let mut buf = [0; 8];
            for (i, link) in [&mut x, &mut y].into_iter().enumerate() {
                let _ = link.send(&[IoSlice::new(b"secret")]);
                match link.recv(&mut [IoSliceMut::new(&mut buf)]) {
                    Ok(0) => told[i] = Some("closed".to_owned()),
                    Ok(_) => panic!("{who} was let in"),
                    Err(e) if e.kind() == ErrorKind::WouldBlock => {}
                    Err(e) => told[i] = Some(e.to_string()),
                }
            }
        }
        let told = told.map(Option::unwrap_or_default);
        let judge = &told[usize::from(who == "acceptor")];
        assert_eq!(judge, "its key is not the one in the job's table", "{dialler} {acceptor}");
        let judged = &told[usize::from(who == "dialler")];
        assert!(judged.contains("this rank's key is not the one"), "{judged}");
    }
}

#[test]
fn a_rank_that_is_not_in_the_table_is_refused_before_a_byte() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let error = security(1).server(TcpLink::new(stream).unwrap(), 7).unwrap_err();
    assert!(error.to_string().contains("no key for it"), "{error}");
}

#[test]
fn one_side_in_clear_is_an_error_on_the_other() {
    for (dialler, acceptor) in [(None, Some(2)), (Some(1), None)] {
        let (mut x, mut y) = links(dialler, acceptor);
        // The plain side may take the other's handshake for data; the encrypted side must give up.
        let error = loop {
            if let Some((side, e)) = turn(&mut x, &mut y)
                && side == usize::from(dialler.is_none())
            {
                break e;
            }
        };
        assert!(!error.to_string().is_empty());
    }
}

/// A relay between two links: `edit` sees each read of the dialler's bytes and says what goes on.
struct Relay {
    dialler: TcpStream,
    acceptor: TcpStream,
}

impl Relay {
    /// Links of both ends with the relay between them.
    fn new() -> (Self, Box<dyn Link>, Box<dyn Link>) {
        let pair = || {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let far = listener.accept().unwrap().0;
            far.set_nonblocking(true).unwrap();
            (TcpLink::new(near).unwrap(), far)
        };
        let ((x, dialler), (y, acceptor)) = (pair(), pair());
        let x = security(1).client(x, 1).unwrap();
        let y = security(2).server(y, 0).unwrap();
        (Self { dialler, acceptor }, x, y)
    }

    /// Carries bytes both ways once.
    fn pass(&mut self, mut edit: impl FnMut(&mut Vec<u8>)) {
        let mut buf = vec![0; 1 << 20];
        if let Ok(n) = self.dialler.read(&mut buf) {
            let mut bytes = buf[..n].to_vec();
            edit(&mut bytes);
            self.acceptor.write_all(&bytes).unwrap();
        }
        if let Ok(n) = self.acceptor.read(&mut buf) {
            self.dialler.write_all(&buf[..n]).unwrap();
        }
    }

    /// Until both ends have spoken.
    fn handshake(&mut self, x: &mut Box<dyn Link>, y: &mut Box<dyn Link>) {
        let mut done = [false; 2];
        let mut buf = [0; 1];
        let mut spoken = [false; 2];
        while done != [true; 2] {
            self.pass(|_| {});
            for (i, link) in [&mut *x, &mut *y].into_iter().enumerate() {
                if !spoken[i] {
                    spoken[i] = link.send(&[IoSlice::new(b"!")]).is_ok();
                }
                done[i] |= link.recv(&mut [IoSliceMut::new(&mut buf)]).is_ok();
            }
        }
    }
}

/// What the acceptor ends with.
fn end(relay: &mut Relay, y: &mut Box<dyn Link>) -> (Vec<u8>, Option<std::io::Error>) {
    let mut got = Vec::new();
    let mut buf = [0; 4096];
    loop {
        relay.pass(|_| {});
        match y.recv(&mut [IoSliceMut::new(&mut buf)]) {
            Ok(0) => return (got, None),
            Ok(n) => got.extend_from_slice(&buf[..n]),
            Err(e) if e.kind() == ErrorKind::WouldBlock => {}
            Err(e) => return (got, Some(e)),
        }
    }
}

#[test]
fn a_changed_repeated_or_swapped_record_ends_the_link_and_nothing_false_comes_out() {
    type Edit = fn(&mut Vec<u8>);
    let edits: [Edit; 5] = [
        |b| b[40] ^= 1,
        |b| b.extend_from_within(..),
        |b| b.rotate_left(100),
        |b| b[0] = 0x55,
        |b| b[3..5].copy_from_slice(&[0xff, 0xff]),
    ];
    for (i, edit) in edits.into_iter().enumerate() {
        let (mut relay, mut x, mut y) = Relay::new();
        relay.handshake(&mut x, &mut y);
        let data = pattern(200);
        x.send(&[IoSlice::new(&data)]).unwrap();
        let mut edited = false;
        while !edited {
            relay.pass(|b| {
                edit(b);
                edited = true;
            });
        }
        let (got, error) = end(&mut relay, &mut y);
        assert!(error.is_some(), "edit {i}");
        assert!(got.is_empty() || got == data, "edit {i} put {} false bytes through", got.len());
    }
}

#[test]
fn a_recorded_conversation_played_again_opens_nothing() {
    let (mut relay, mut x, mut y) = Relay::new();
    let mut record = Vec::new();
    // The dialler's half of a whole conversation.
    let mut spoken = false;
    let mut buf = [0; 8];
    loop {
        relay.pass(|b| record.extend_from_slice(b));
        if !spoken {
            spoken = x.send(&[IoSlice::new(b"pay 100")]).is_ok();
        }
        let _ = x.recv(&mut [IoSliceMut::new(&mut buf)]);
        if matches!(y.recv(&mut [IoSliceMut::new(&mut buf)]), Ok(7)) {
            break;
        }
    }
    let (mut replay, _dialler, mut y) = Relay::new();
    replay.acceptor.write_all(&record).unwrap();
    let error = loop {
        match y.recv(&mut [IoSliceMut::new(&mut buf)]) {
            Ok(n) => panic!("{n} bytes of a replay were believed"),
            Err(e) if e.kind() == ErrorKind::WouldBlock => {}
            Err(e) => break e,
        }
    };
    assert!(error.to_string().starts_with("TLS: "), "{error}");
}

#[test]
fn a_stream_that_ends_early_is_an_end_in_the_middle_of_anything() {
    // In the handshake...
    let (relay, _x, mut y) = Relay::new();
    relay.acceptor.shutdown(Shutdown::Both).unwrap();
    let error = loop {
        match y.recv(&mut [IoSliceMut::new(&mut [0; 8])]) {
            Err(e) if e.kind() == ErrorKind::WouldBlock => {}
            Err(e) => break e,
            Ok(n) => panic!("{n}"),
        }
    };
    assert!(error.to_string().contains("closed the connection in the TLS handshake"), "{error}");
    // ...and in a record: what was whole comes, then the end.
    let (mut relay, mut x, mut y) = Relay::new();
    relay.handshake(&mut x, &mut y);
    let data = pattern(1000);
    x.send(&[IoSlice::new(&data)]).unwrap();
    x.send(&[IoSlice::new(&data)]).unwrap();
    let mut seen = 0;
    while seen < 2 * 1000 {
        relay.pass(|b| {
            seen += b.len();
            if seen >= 2 * 1000 {
                b.truncate(b.len() - 10);
            }
        });
    }
    relay.acceptor.shutdown(Shutdown::Write).unwrap();
    let (got, error) = end(&mut relay, &mut y);
    assert!(error.is_none(), "{error:?}");
    assert!(got == data, "{} bytes", got.len());
}

#[test]
fn a_goodbye_is_the_end_of_the_stream() {
    let (mut relay, mut x, mut y) = Relay::new();
    relay.handshake(&mut x, &mut y);
    x.send(&[IoSlice::new(b"bye")]).unwrap();
    x.finish();
    let (got, error) = end(&mut relay, &mut y);
    assert_eq!((&got[..], error.is_none()), (&b"bye"[..], true));
}

#[test]
fn an_idle_link_holds_no_buffers() {
    let shared = security(1);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let near = TcpLink::new(TcpStream::connect(listener.local_addr().unwrap()).unwrap()).unwrap();
    let far = TcpLink::new(listener.accept().unwrap().0).unwrap();
    let me = identity(1);
    let mut x = TlsLink::client(near, &me, identity(2).public(), shared.pool.clone()).unwrap();
    let mut y: Box<dyn Link> =
        Box::new(TlsLink::server(far, &identity(2), me.public(), shared.pool.clone()).unwrap());
    let mut buf = [0; 8];
    while x.send(&[IoSlice::new(b"ping")]).is_err() {
        assert_eq!(y.recv(&mut [IoSliceMut::new(&mut buf)]).unwrap_err().kind(), ErrorKind::WouldBlock);
    }
    while y.recv(&mut [IoSliceMut::new(&mut buf)]).is_err() {}
    assert_eq!(x.held(), 0);
}
