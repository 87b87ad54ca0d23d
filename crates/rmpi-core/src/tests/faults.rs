//! What must fail fails as a value, names the rank, and leaves the others working.

use super::*;

pub(super) fn lost(fault: &Fault, who: u32) -> bool {
    matches!(fault, Fault::PeerLost { rank, host, .. } if *rank == who && **host == *format!("node{who}"))
}

#[test]
fn truncation_and_wrong_kinds_are_errors_and_the_link_lives() {
    ranks(2, |me, e| {
        for len in [100, 300_000] {
            let data = pattern(len, 4);
            if me == 0 {
                e.send(to(1, 1), &data).unwrap();
                e.send(SendSpec { check: 9, ..to(1, 2) }, &data).unwrap();
                e.send(to(1, 3), &data).unwrap();
            } else {
                let mut small = vec![0; len / 2];
                let fault = e.recv(&from(0, 1), &mut small).unwrap_err();
                let (sent, capacity) = (len as u64, len as u64 / 2);
                assert_eq!(fault, Fault::Truncated { rank: 0, tag: 1, sent, capacity });
                assert!(small == data[..len / 2], "the beginning is there");
                let mut buf = vec![0; len];
                let fault = e.recv(&from(0, 2), &mut buf).unwrap_err();
                assert_eq!(fault, Fault::Mismatch { rank: 0, tag: 2, expected: 0, got: 9 });
                e.recv(&from(0, 3), &mut buf).unwrap();
                assert!(buf == data);
            }
        }
    });
}

#[test]
fn a_death_in_the_middle_of_a_message_is_named_and_the_others_go_on() {
    let (engines, _) = engines(3, true);
    let mut engines = engines.into_iter();
    let (e0, e1, e2) = (engines.next().unwrap(), engines.next().unwrap(), engines.next().unwrap());
    let other = std::thread::spawn(move || {
        let mut buf = [0; 2];
        e2.recv(&from(0, 1), &mut buf).unwrap();
        e2.send(to(0, 2), &buf).unwrap();
        e2.finish(Duration::from_secs(10));
    });
    let victim = std::thread::spawn(move || {
        // Announce a large message and die once it is on its way, like a killed process: the kernel closes.
        let op = e1.with(|c| c.send_owned(to(0, 7), Box::new(pattern(50_000_000, 1))));
        e1.block(|c| {
            let streaming = c.ops.get(op).is_some_and(
                |o| matches!(o.state, crate::ops::State::SendStreaming { sent, .. } if sent > 0),
            );
            streaming.then_some(())
        });
    });
    let pending = e0.with(|c| c.recv_owned(&from(1, 8), Box::new(vec![0u8; 8])));
    let anybody = e0.with(|c| c.recv_owned(&anyone(3), Box::new(vec![0u8; 8])));
    // The wildcard takes rank 1's message, too large for it, or hears of the death; never hangs.
    let fault = e0.wait(anybody).0.unwrap_err();
    assert!(lost(&fault, 1) || matches!(fault, Fault::Truncated { rank: 1, .. }), "{fault}");
    let fault = e0.wait(pending).0.unwrap_err();
    assert!(lost(&fault, 1), "{fault}");
    assert!(fault.to_string().contains("rank 1 on node1 is lost: "), "{fault}");
    assert!(lost(&e0.send(to(1, 1), b"x").unwrap_err(), 1));
    assert!(lost(&e0.recv(&from(1, 1), &mut [0; 9]).unwrap_err(), 1));
    e0.send(to(2, 1), b"ok").unwrap();
    let mut buf = [0; 2];
    e0.recv(&anyone(3), &mut buf).unwrap();
    assert_eq!(&buf, b"ok");
    victim.join().unwrap();
    assert!(e0.finish(Duration::from_secs(10)));
    other.join().unwrap();
}

#[test]
fn a_failed_send_to_a_rank_that_has_finished_loses_nothing_of_what_it_sent() {
    for rail in [Rail::Tcp, Rail::Tls, Rail::Quic] {
        let mut engines = engines_over(rail, 2, true).0.into_iter();
        let (e0, e1) = (engines.next().unwrap(), engines.next().unwrap());
        let sender = std::thread::spawn(move || {
            for tag in 0..20 {
                e0.send(to(1, tag), &[tag as u8; 1000]).unwrap();
            }
            assert!(e0.finish(Duration::from_secs(20)));
        });
        let mut buf = [99; 1000];
        e1.recv(&from(0, 0), &mut buf).unwrap();
        sender.join().unwrap();
        // The first of these may still be taken by the kernel.
        let fault = (0..1_000_000).find_map(|_| e1.send(to(0, 1), &[0]).err()).unwrap();
        assert!(lost(&fault, 0), "{fault}");
        for tag in 1..20 {
            e1.recv(&from(0, tag), &mut buf).unwrap();
            assert!(buf == [tag as u8; 1000], "{rail:?}: message {tag}");
        }
    }
}

#[test]
fn what_a_rank_sent_before_it_finished_is_received_and_what_it_did_not_send_is_an_error() {
    ranks(2, |me, e| {
        if me == 1 {
            e.send(to(0, 1), b"last words").unwrap();
            return;
        }
        let mut buf = [0; 10];
        let never = e.with(|c| c.recv_owned(&from(1, 2), Box::new(vec![0u8; 8])));
        let fault = e.wait(never).0.unwrap_err();
        assert!(lost(&fault, 1) && fault.to_string().contains("finished"), "{fault}");
        e.recv(&from(1, 1), &mut buf).unwrap();
        assert_eq!(&buf, b"last words");
    });
}

#[test]
fn waiting_for_a_rank_that_never_came_is_an_error_soon() {
    let (mut engines, _) = engines(2, true);
    drop(engines.pop());
    let start = Instant::now();
    let fault = engines[0].recv(&from(1, 1), &mut [0; 1]).unwrap_err();
    assert!(lost(&fault, 1), "{fault}");
    assert!(start.elapsed() < Duration::from_secs(60));
    let fault = engines[0].send(to(5, 1), &[]).unwrap_err();
    assert_eq!(fault, Fault::NoSuchRank { rank: 5, size: 2 });
}

#[test]
fn strangers_at_a_port_do_not_disturb_ranks() {
    let (engines, addresses) = engines(2, true);
    let strangers: Vec<TcpStream> = (0..40)
        .map(|i| {
            let mut s = TcpStream::connect(addresses[1]).unwrap();
            s.write_all(&pattern([0, 50, 1000][i % 3], i as u64)).unwrap();
            s
        })
        .collect();
    let mut engines = engines.into_iter();
    let (e0, e1) = (engines.next().unwrap(), engines.next().unwrap());
    let t = std::thread::spawn(move || {
        let mut buf = [0; 5];
        e1.recv(&from(0, 1), &mut buf).unwrap();
        e1.finish(Duration::from_secs(10));
        buf
    });
    e0.send(to(1, 1), b"hello").unwrap();
    assert_eq!(&t.join().unwrap(), b"hello");
    assert!(e0.finish(Duration::from_secs(10)));
    for mut s in strangers {
        s.set_nonblocking(true).unwrap();
        assert!(!matches!(s.read(&mut [0; 8]), Ok(n) if n > 0));
    }
}

#[test]
fn a_revoked_context_wakes_everybody_in_it_and_nobody_else() {
    ranks(3, |me, e| {
        let ctx = |r: RecvSpec| RecvSpec { context: 4, ..r };
        match me {
            0 => e.with(|c| c.revoke(4, 1, 2, &[0, 1, 2].into())),
            _ => {
                let fault = e.recv(&ctx(from(3 - me, 1)), &mut [0; 4]).unwrap_err();
                assert_eq!(fault, Fault::Revoked { by: 0, culprit: 2 });
                let spec = SendSpec { context: 4, ..to(3 - me, 1) };
                assert_eq!(e.send(spec, &[1]).unwrap_err(), fault);
            }
        }
        // With both others: nobody leaves before all have heard why.
        for (next, previous) in [((me + 1) % 3, (me + 2) % 3), ((me + 2) % 3, (me + 1) % 3)] {
            let mut buf = [0; 1];
            e.sendrecv(to(next, 1), &[me as u8], &from(previous, 1), &mut buf).unwrap();
            assert_eq!(u32::from(buf[0]), previous);
        }
    });
}
