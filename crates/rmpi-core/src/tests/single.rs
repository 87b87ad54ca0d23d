//! Large messages between ranks of one node that their receiver copies out of the sender's memory.

use super::faults::lost;
use super::*;
use proptest::prelude::*;
use std::sync::atomic::{AtomicU64, Ordering};

/// Makes one copy the way of all large messages from `peer`; they must have been in touch.
fn favour(e: &Engine, peer: u32) {
    e.with(|core| {
        core.ensure(peer);
        let local = core.conns[peer as usize].as_deref_mut().and_then(|c| c.local.as_deref_mut()).unwrap();
        for shift in [17, 19, 21, 23, 25] {
            local.rates.cells(1 << shift, 1, u64::MAX);
            local.rates.single(1 << shift, 1 << shift, 1);
        }
    });
}

/// Whether nothing large has come through cells, and whether one copy was refused.
fn outcome(e: &Engine, peer: u32) -> (bool, bool) {
    e.with(|core| {
        let local = core.conns[peer as usize].as_deref().unwrap().local.as_deref().unwrap();
        (local.warm.iter().all(|&w| w == 0), local.rates.is_refused())
    })
}

/// Two engines that share memory, and consider one copy from 64 KiB on.
fn near() -> Vec<Engine> {
    engines_with(Rail::Shm, 2, true, Some(rmpi_shm::create(&[0, 1]).unwrap()), early()).0
}

fn early() -> Thresholds {
    Thresholds { single_copy: 4 << 10, ..Thresholds::default() }
}

fn two() -> (Engine, Engine) {
    let mut engines = near().into_iter();
    (engines.next().unwrap(), engines.next().unwrap())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    /// Both ways at once, posted before or after they come, in one copy and through cells: every byte is right.
    #[test]
    fn messages_of_all_sizes_arrive(sizes in proptest::collection::vec(0usize..2_500_000, 1..8), early: bool, seed: u64) {
        let sizes = Arc::new(sizes);
        run(near(), &Arc::new(move |me: u32, e: &Engine| {
            let other = 1 - me;
            favour(e, other);
            let ours: Vec<Vec<u8>> = sizes.iter().map(|&n| pattern(n, seed ^ u64::from(me))).collect();
            let receive = |i: usize| e.with(|c| c.recv_owned(&from(other, i as i32), Box::new(vec![0u8; sizes[i]])));
            let mut posted: Vec<OpId> = if early { (0..sizes.len()).map(receive).collect() } else { vec![] };
            let sent: Vec<OpId> = ours.iter().enumerate()
                .map(|(i, d)| e.with(|c| c.send_owned(to(other, i as i32), Box::new(d.clone())))).collect();
            if !early {
                for _ in 0..50 {
                    e.with(Core::progress);
                }
                posted = (0..sizes.len()).rev().map(receive).collect();
                posted.reverse();
            }
            for (op, &n) in posted.into_iter().zip(sizes.iter()) {
                let (result, memory) = e.wait(op);
                assert_eq!(result.unwrap().length, n as u64);
                let got = memory.unwrap().into_any().downcast::<Vec<u8>>().unwrap();
                assert!(*got == pattern(n, seed ^ u64::from(other)), "{n} bytes");
            }
            for op in sent {
                e.wait(op).0.unwrap();
            }
        }));
    }
}

#[test]
fn one_copy_is_what_happens_and_a_longer_message_is_truncated() {
    run(
        near(),
        &Arc::new(|me: u32, e: &Engine| {
            let data = pattern(3_000_000, 4);
            if me == 0 {
                e.send(to(1, 1), &data).unwrap();
                e.send(to(1, 2), &data).unwrap();
                e.send(to(1, 3), &data).unwrap();
                return;
            }
            favour(e, 0);
            let mut got = vec![0; data.len()];
            e.recv(&from(0, 1), &mut got).unwrap();
            assert!(got == data);
            assert_eq!(outcome(e, 0), (true, false));
            let mut short = vec![0; 1_500_000];
            let fault = e.recv(&from(0, 2), &mut short).unwrap_err();
            assert_eq!(fault, Fault::Truncated { rank: 0, tag: 2, sent: 3_000_000, capacity: 1_500_000 });
            assert!(short == data[..short.len()], "the beginning is there");
            let spec = RecvSpec { check: 9, ..from(0, 3) };
            let fault = e.recv(&spec, &mut got).unwrap_err();
            assert!(matches!(fault, Fault::Mismatch { rank: 0, tag: 3, .. }), "{fault}");
        }),
    );
}

#[test]
fn a_send_that_is_let_go_is_received_from_its_copy() {
    let (a, b) = two();
    let data = pattern(2_000_000, 8);
    let t = std::thread::spawn(move || {
        let mut buffer = data.clone();
        a.scope(|s| assert!(s.send(to(1, 1), &buffer).is_err(), "it waits for its receiver"));
        // The memory is this function's again, whatever was offered.
        buffer.fill(0xAA);
        a.recv(&from(1, 2), &mut [0]).unwrap();
        assert!(buffer.iter().all(|&b| b == 0xAA));
        assert!(a.finish(Duration::from_secs(20)));
        data
    });
    favour(&b, 0);
    // It is announced by now.
    b.block(|c| c.probe(&from(0, 1)));
    let mut got = vec![0; 2_000_000];
    b.recv(&from(0, 1), &mut got).unwrap();
    b.send(to(0, 2), &[1]).unwrap();
    assert!(b.finish(Duration::from_secs(20)));
    assert!(got == t.join().unwrap());
}

#[test]
fn where_it_is_refused_cells_are_used_from_then_on() {
    let file = rmpi_shm::create(&[0, 1]).unwrap();
    let observer = Segment::attach(file.try_clone().unwrap(), 0, 2).unwrap();
    let (engines, _) = engines_with(Rail::Shm, 2, true, Some(file), early());
    let announced = AtomicU64::new(0);
    let forge = move || {
        // What rank 0 says of its process ids' namespace: as if it were in another one.
        let state = observer.area(observer.layout().state(0));
        let word = state.word64(8 * 33).unwrap();
        if word.load(Ordering::Relaxed) != 0 {
            word.store(1, Ordering::Relaxed);
            announced.fetch_add(1, Ordering::Relaxed);
        }
        announced.load(Ordering::Relaxed)
    };
    run(
        engines,
        &Arc::new(move |me: u32, e: &Engine| {
            let data = pattern(1_000_000, 4);
            let mut got = vec![0; data.len()];
            if me == 0 {
                for tag in 0..20 {
                    e.send(to(1, tag), &data).unwrap();
                }
                return;
            }
            favour(e, 0);
            e.block(|c| c.probe(&from(0, 0)));
            assert_eq!(forge(), 1);
            for tag in 0..20 {
                got.fill(0);
                e.recv(&from(0, tag), &mut got).unwrap();
                assert!(got == data, "message {tag}");
                if tag == 10 {
                    // Its sender has not left yet.
                    assert_eq!(outcome(e, 0), (false, true));
                }
            }
        }),
    );
}

#[test]
fn a_sender_that_ends_after_its_announcement_is_lost() {
    let (a, b) = two();
    a.with(|c| c.send_owned(to(1, 1), Box::new(pattern(50_000_000, 1))));
    favour(&b, 0);
    b.block(|c| c.probe(&from(0, 1)));
    drop(a);
    let mut got = vec![0; 50_000_000];
    let fault = b.recv(&from(0, 1), &mut got).unwrap_err();
    assert!(lost(&fault, 0), "{fault}");
    assert!(b.finish(Duration::from_secs(10)));
}

#[test]
fn a_sender_that_ends_while_it_is_copied_from_is_lost_or_was_copied_whole() {
    let (a, b) = two();
    let data = pattern(60_000_000, 1);
    a.with(|c| c.send_owned(to(1, 1), Box::new(data.clone())));
    favour(&b, 0);
    let op = b.with(|c| c.recv_owned(&from(0, 1), Box::new(vec![0u8; 60_000_000])));
    // Some pieces are copied; then the other's memory goes away.
    for _ in 0..5 {
        b.with(Core::progress);
    }
    drop(a);
    match b.wait(op) {
        (Ok(_), memory) => {
            let got = memory.unwrap().into_any().downcast::<Vec<u8>>().unwrap();
            assert!(*got == data);
        }
        (Err(fault), _) => assert!(lost(&fault, 0), "{fault}"),
    }
    assert!(b.finish(Duration::from_secs(10)));
}

#[test]
fn a_receive_given_up_in_the_middle_lets_its_sender_go() {
    run(
        near(),
        &Arc::new(|me: u32, e: &Engine| {
            let data = pattern(40_000_000, 3);
            let context = |r: RecvSpec| RecvSpec { context: 4, ..r };
            if me == 0 {
                // Released in the middle: the message goes nowhere.
                e.send(to(1, 1), &data).unwrap();
                // Revoked in the middle: an error at the receiver, and here an error or none.
                let _ = e.send(SendSpec { context: 4, ..to(1, 2) }, &data);
            } else {
                favour(e, 0);
                let mut got = vec![0; data.len()];
                let begun = |c: &mut Core, op| {
                    matches!(c.ops.get(op).map(|o| &o.state), Some(crate::ops::State::RecvData { .. }))
                        .then_some(())
                };
                e.scope(|s| {
                    let op = s.recv(&from(0, 1), &mut got);
                    e.block(|c| begun(c, op));
                });
                let op = e.with(|c| c.recv_owned(&context(from(0, 2)), Box::new(vec![0u8; 40_000_000])));
                e.block(|c| begun(c, op));
                e.with(|c| c.revoke(4, 2, 1, &[0, 1].into()));
                assert_eq!(e.wait(op).0.unwrap_err(), Fault::Revoked { by: 1, culprit: 1 });
            }
            let mut word = [0];
            e.sendrecv(to(1 - me, 9), &[me as u8], &from(1 - me, 9), &mut word).unwrap();
            assert_eq!(u32::from(word[0]), 1 - me);
        }),
    );
}
