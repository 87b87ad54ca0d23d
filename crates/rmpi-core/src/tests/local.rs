//! Ranks of one node: what shared memory adds to what every rail must do. (The traffic tests run over both.)

use super::faults::lost;
use super::*;
use proptest::prelude::*;
use rmpi_shm::Layout;
use std::sync::atomic::Ordering;

#[test]
fn no_socket_is_used_between_neighbours() {
    let mut engines = neighbours(2).into_iter();
    let (a, b) = (engines.next().unwrap(), engines.next().unwrap());
    let t = std::thread::spawn(move || {
        b.recv(&from(0, 1), &mut [0; 5]).unwrap();
        let links = b.with(|c| c.conns.iter().flatten().filter(|c| c.link.is_some()).count());
        assert!(b.finish(Duration::from_secs(10)));
        links
    });
    a.send(to(1, 1), b"hello").unwrap();
    assert_eq!((t.join().unwrap(), a.finish(Duration::from_secs(10))), (0, true));
}

#[test]
fn a_neighbour_that_ends_without_finishing_is_named_after_its_last_words() {
    let mut engines = neighbours(3).into_iter();
    let (e0, e1, e2) = (engines.next().unwrap(), engines.next().unwrap(), engines.next().unwrap());
    e1.send(to(0, 1), b"last words").unwrap();
    let op = e1.with(|c| c.send_owned(to(0, 2), Box::new(pattern(50_000_000, 1))));
    let taker = std::thread::spawn(move || {
        let mut buf = vec![0; 50_000_000];
        let fault = e0.recv(&from(1, 2), &mut buf).unwrap_err();
        assert!(lost(&fault, 1), "{fault}");
        assert!(fault.to_string().contains("rank 1 on node1 is lost: it ended without finishing"), "{fault}");
        let mut words = [0; 10];
        e0.recv(&from(1, 1), &mut words).unwrap();
        assert_eq!(&words, b"last words");
        assert!(lost(&e0.send(to(1, 1), b"x").unwrap_err(), 1));
        // The others go on.
        e0.send(to(2, 3), b"ok").unwrap();
        assert!(e0.finish(Duration::from_secs(10)));
    });
    e1.block(|c| {
        let streaming = c
            .ops
            .get(op)
            .is_some_and(|o| matches!(o.state, crate::ops::State::SendStreaming { sent, .. } if sent > 0));
        streaming.then_some(())
    });
    drop(e1);
    let mut buf = [0; 2];
    e2.recv(&from(0, 3), &mut buf).unwrap();
    assert_eq!(&buf, b"ok");
    taker.join().unwrap();
    assert!(e2.finish(Duration::from_secs(10)));
}

#[test]
fn a_process_that_the_daemon_saw_end_is_lost_though_it_never_came() {
    let file = rmpi_shm::create(&[0, 1]).unwrap();
    let (mut engines, _) =
        engines_with(Rail::Shm, 2, true, Some(file.try_clone().unwrap()), Thresholds::default());
    std::mem::forget(engines.pop());
    let waiting = engines[0].with(|c| c.recv_owned(&from(1, 1), Box::new(vec![0u8; 8])));
    rmpi_shm::mark_gone(&file, 1).unwrap();
    let fault = engines[0].wait(waiting).0.unwrap_err();
    assert!(lost(&fault, 1) && fault.to_string().ends_with("its process has ended"), "{fault}");
}

#[test]
fn a_receiver_that_does_not_read_stops_its_sender_and_nobody_else() {
    let mut engines = neighbours(3).into_iter();
    let (e0, e1, e2) = (engines.next().unwrap(), engines.next().unwrap(), engines.next().unwrap());
    const N: usize = 3_000;
    let data = pattern(3_000, 5);
    let reader = std::thread::spawn(move || {
        let mut buf = vec![0; 10_000_000];
        e2.recv(&from(0, 2), &mut buf).unwrap();
        assert!(buf == pattern(10_000_000, 6));
        assert!(e2.finish(Duration::from_secs(20)));
    });
    // 9 MB to a rank that does nothing: its window and memory are used up.
    let ops: Vec<OpId> =
        (0..N).map(|_| e0.with(|c| c.send_owned(to(1, 1), Box::new(data.clone())))).collect();
    e0.send(to(2, 2), &pattern(10_000_000, 6)).unwrap();
    reader.join().unwrap();
    assert!(e0.with(|c| ops.iter().filter(|&&op| !c.is_done(op)).count()) > N / 2);
    let late = std::thread::spawn(move || {
        for _ in 0..N {
            let mut buf = vec![0; 3_000];
            e1.recv(&from(0, 1), &mut buf).unwrap();
            assert!(buf == pattern(3_000, 5));
        }
        assert!(e1.finish(Duration::from_secs(20)));
    });
    for op in ops {
        e0.wait(op).0.unwrap();
    }
    late.join().unwrap();
    assert!(e0.finish(Duration::from_secs(20)));
}

#[test]
fn sleepers_are_woken_across_many_turns() {
    let turns = |me: u32, e: &Engine| {
        let sleepers = e.with(|c| rmpi_shm::Sleepers::new(&c.rail.as_ref().unwrap().segment, &[1 - me]));
        // The other has nothing to do but to wait for us; parked, it must be rung.
        let parked = || {
            let deadline = Instant::now() + Duration::from_secs(60);
            while !sleepers.any() {
                assert!(Instant::now() < deadline, "rank {} does not park", 1 - me);
                std::thread::yield_now();
            }
        };
        for round in 0..6u64 {
            let mut buf = [0; 8];
            if me == 0 {
                parked();
                e.send(to(1, 1), &round.to_le_bytes()).unwrap();
                e.recv(&from(1, 1), &mut buf).unwrap();
            } else {
                e.recv(&from(0, 1), &mut buf).unwrap();
                parked();
                e.send(to(0, 1), &buf).unwrap();
            }
            assert_eq!(u64::from_le_bytes(buf), round);
        }
    };
    ranks_over(Rail::Shm, 2, Arc::new(turns));
}

/// Slots as an authenticated but hostile neighbour may write them.
fn slots() -> impl Strategy<Value = Vec<[u64; 7]>> {
    let kind = prop_oneof![4 => 0u64..10, 1 => any::<u64>()];
    let place = prop_oneof![0u64..50, 250u64..256];
    let small = prop_oneof![3 => 0u64..200, 1 => any::<u64>()];
    let slot = (kind, place, 0u64..3, small.clone(), 0u64..5, small.clone(), small).prop_map(
        |(kind, place, context, length, id, offset, n)| {
            [kind << 32 | (place & 255) << 40, context, length, id, offset | n << 32, 7, 7]
        },
    );
    proptest::collection::vec(slot, 0..64)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever a neighbour writes, calls end with a value or an error, and nothing runs for ever.
    #[test]
    fn garbage_in_the_segment_is_an_error_value(slots in slots(), taken: u64, freed: u64, count in 0u64..3) {
        let file = rmpi_shm::create(&[0, 1]).unwrap();
        let hostile = Segment::attach(file.try_clone().unwrap(), 1, 2).unwrap();
        let (mut engines, _) = engines_with(Rail::Shm, 2, true, Some(file), Thresholds::default());
        std::mem::forget(engines.pop());
        let engine = engines.pop().unwrap();
        let posted: Vec<OpId> = (0..3)
            .map(|i| engine.with(|c| c.recv_owned(&from(1, i), Box::new(vec![0u8; 64]))))
            .collect();
        let sent = engine.with(|c| c.send_owned(to(1, 0), Box::new(vec![1u8; 100_000])));
        let layout = Layout::new(2).unwrap();
        let area = hostile.area(layout.slots(1, 0));
        for (i, slot) in slots.iter().enumerate() {
            for (w, word) in slot.iter().enumerate().skip(1) {
                area.word64(64 * i + 8 * w).unwrap().store(*word, Ordering::Relaxed);
            }
            area.word64(64 * i).unwrap().store(slot[0] & !0xffff_ffff | (i as u64 + 1), Ordering::Release);
        }
        if count > 0 {
            let line = hostile.area(layout.taken(0, 1));
            line.word64(0).unwrap().store(taken >> (32 * (count - 1)), Ordering::Release);
            line.word64(8).unwrap().store(freed, Ordering::Release);
        }
        for _ in 0..200 {
            engine.with(Core::progress);
        }
        for op in posted {
            engine.with(|c| { c.cancel(op); c.release(op); });
        }
        engine.with(|c| c.release(sent));
        // Small sends use up the slots; they end or wait, they do not panic.
        for _ in 0..100 {
            let op = engine.with(|c| c.send_owned(to(1, 0), Box::new(vec![1u8; 10])));
            engine.with(|c| { c.progress(); c.release(op); });
        }
    }
}
