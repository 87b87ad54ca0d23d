//! What must arrive arrives: sizes, order, wildcards, crowds, scopes, threads.

use super::*;
use proptest::prelude::*;

#[test]
fn ping_pong_of_every_size_class() {
    ranks(2, |me, e| {
        for (round, len) in [0, 1, 31, 2048, 2049, 16_384, 16_385, 65_536, 65_537, 1 << 20, 5_000_000]
            .into_iter()
            .enumerate()
            .flat_map(|(i, l)| [(3 * i, l), (3 * i + 1, l), (3 * i + 2, l)])
        {
            let sent = pattern(len, round as u64);
            let mut got = vec![0; len];
            if me == 0 {
                e.send(to(1, 5), &sent).unwrap();
                e.recv(&from(1, 6), &mut got).unwrap();
            } else {
                let status = e.recv(&from(0, 5), &mut got).unwrap();
                assert_eq!(status, Status { peer: 0, tag: 5, length: len as u64 });
                e.send(to(0, 6), &got).unwrap();
            }
            assert!(got == sent, "round {round} of {len} bytes");
        }
    });
}

#[test]
fn a_receive_that_waits_at_the_socket_takes_only_its_own_message() {
    let other = |len: usize| vec![9u8; len];
    run(
        engines_over(Rail::Tcp, 2, false).0,
        &Arc::new(move |me, e: &Engine| {
            for round in 0..300u64 {
                let len = usize::try_from(round * 37 % 5000).unwrap();
                let mut got = vec![0; 5000];
                if me == 0 {
                    // Both sides are calm then, and the receiver waits at the socket or soon will.
                    e.recv(&from(1, 0), &mut [0]).unwrap();
                    match round % 3 {
                        0 => e.send(to(1, 2), &other(len)).map(drop).unwrap(),
                        1 => e.send(to(1, 2), &other(100_000)).map(drop).unwrap(),
                        _ => {}
                    }
                    e.send(to(1, 1), &pattern(len, round)).unwrap();
                    if round % 10 == 9 {
                        e.send(to(1, 1), &other(6000)).unwrap();
                    }
                } else {
                    e.send(to(0, 0), &[1]).unwrap();
                    let large = round % 3 == 1;
                    let request =
                        large.then(|| e.with(|c| c.recv_owned(&from(0, 2), Box::new(other(100_000)))));
                    let status = e.recv(&from(0, 1), &mut got).unwrap();
                    assert_eq!((status.length, status.tag), (len as u64, 1));
                    assert!(got[..len] == pattern(len, round)[..], "round {round} of {len} bytes");
                    if round % 10 == 9 {
                        let e = e.recv(&from(0, 1), &mut got).unwrap_err();
                        assert!(matches!(e, Fault::Truncated { sent: 6000, capacity: 5000, .. }), "{e}");
                    }
                    if round % 3 == 0 {
                        let status = e.recv(&from(0, 2), &mut got).unwrap();
                        assert!(status.length == len as u64 && got[..len] == other(len)[..]);
                    }
                    if let Some(op) = request {
                        e.wait(op).0.unwrap();
                    }
                }
            }
        }),
    );
}

#[test]
fn a_link_at_rest_keeps_no_buffers() {
    run(
        engines_over(Rail::Tcp, 2, true).0,
        &Arc::new(|me, e: &Engine| {
            for len in [10, 3000, 60_000, 1 << 20] {
                let mut got = vec![0; len];
                let ops: Vec<OpId> = e.with(|c| {
                    (0..20).map(|_| c.send_owned(to(1 - me, 1), Box::new(vec![1u8; len]))).collect()
                });
                for _ in 0..20 {
                    e.recv(&from(1 - me, 1), &mut got).unwrap();
                }
                for op in ops {
                    e.wait(op).0.unwrap();
                }
            }
            e.with(|core| {
                let conn = core.conns[1 - me as usize].as_ref().unwrap();
                assert!(conn.rx.staging.is_empty() && conn.tx.spare.capacity() <= crate::conn::FRAMES_MAX);
                assert!(conn.rx.guesses.capacity() <= 4096);
            });
        }),
    );
}

#[test]
fn a_hundred_megabytes_both_ways_at_once() {
    ranks(2, |me, e| {
        let (out, mut into) = (pattern(100_000_000, u64::from(me)), vec![0; 100_000_000]);
        e.sendrecv(to(1 - me, 1), &out, &from(1 - me, 1), &mut into).unwrap();
        assert!(into == pattern(100_000_000, u64::from(1 - me)));
    });
}

#[test]
fn a_short_message_leaves_the_rest_alone_unless_scribbling_is_allowed() {
    ranks(2, |me, e| {
        if me == 0 {
            for _ in 0..200 {
                e.send(to(1, 1), &[7; 10]).unwrap();
                e.send(to(1, 2), &[8; 3000]).unwrap();
            }
        } else {
            for _ in 0..200 {
                let mut buf = vec![1; 5000];
                let strict = RecvSpec { scribble: false, ..from(0, 1) };
                assert_eq!(e.recv(&strict, &mut buf).unwrap().length, 10);
                assert!(buf[..10] == [7; 10] && buf[10..].iter().all(|&b| b == 1));
                assert_eq!(e.recv(&from(0, 2), &mut buf).unwrap().length, 3000);
                assert!(buf[..3000].iter().all(|&b| b == 8));
            }
        }
    });
}

#[test]
fn bursts_keep_their_order_and_fall_back_when_the_window_is_used_up() {
    const N: usize = 5_000;
    ranks(2, |me, e| {
        if me == 0 {
            let data: Vec<Vec<u8>> = (0..N).map(|i| pattern(i % 3000, i as u64)).collect();
            e.scope(|s| {
                let ops: Vec<_> = data.iter().map(|d| s.send(to(1, 1), d)).collect();
                ops.into_iter().for_each(|op| {
                    op.or_else(|op| e.wait(op).0).unwrap();
                });
            });
        } else {
            // 7 MB come while nothing is posted: far beyond the window.
            let start = Instant::now();
            while start.elapsed() < Duration::from_millis(100) {
                e.with(Core::progress);
            }
            for i in 0..N {
                let mut buf = vec![0; 4000];
                let n = e.recv(&from(0, 1), &mut buf).unwrap().length as usize;
                assert!(buf[..n] == pattern(i % 3000, i as u64), "message {i}");
            }
        }
    });
}

#[test]
fn sixty_four_ranks_send_to_one_and_get_answers() {
    const N: u32 = 64;
    ranks(N, |me, e| {
        let mut buf = [0; 4];
        if me == 0 {
            let mut seen = vec![0; N as usize];
            for _ in 0..3 * (N - 1) {
                let status = e.recv(&anyone(N), &mut buf).unwrap();
                assert_eq!(u32::from_le_bytes(buf), status.peer);
                // Each source's tags come in its order.
                assert_eq!(status.tag, seen[status.peer as usize]);
                seen[status.peer as usize] += 1;
                e.send(to(status.peer, 99), &buf).unwrap();
            }
        } else {
            for tag in 0..3 {
                e.send(to(0, tag), &me.to_le_bytes()).unwrap();
            }
            for _ in 0..3 {
                e.recv(&from(0, 99), &mut buf).unwrap();
                assert_eq!(u32::from_le_bytes(buf), me);
            }
        }
    });
}

#[test]
fn everybody_dials_everybody_at_once() {
    const N: u32 = 12;
    for _ in 0..3 {
        ranks(N, |me, e| {
            let out = me.to_le_bytes();
            e.scope(|s| {
                for peer in 0..N {
                    let _ = s.send(to(peer, 1), &out);
                }
                for peer in 0..N {
                    let mut buf = [0; 4];
                    e.recv(&from(peer, 1), &mut buf).unwrap();
                    assert_eq!(u32::from_le_bytes(buf), peer);
                }
            });
        });
    }
}

#[test]
fn to_oneself_small_and_large_in_either_order() {
    ranks(1, |_, e| {
        for len in [0, 10, 65_536, 3_000_000] {
            let data = pattern(len, 1);
            let mut buf = vec![0; len];
            e.sendrecv(to(0, 1), &data, &from(0, 1), &mut buf).unwrap();
            assert!(buf == data);
            let op = e.with(|c| c.send_owned(to(0, 2), Box::new(data.clone())));
            buf.fill(0);
            assert_eq!(e.recv(&from(0, 2), &mut buf).unwrap().length, len as u64);
            assert!(buf == data);
            let back = e.wait(op).1.unwrap().into_any().downcast::<Vec<u8>>().unwrap();
            assert!(*back == data);
        }
    });
}

#[test]
fn threads_share_an_engine() {
    ranks(2, |me, e| {
        std::thread::scope(|t| {
            for thread in 0..4 {
                t.spawn(move || {
                    for i in 0..200u32 {
                        let mut buf = [0; 4];
                        if me == 0 {
                            e.send(to(1, thread), &i.to_le_bytes()).unwrap();
                            e.recv(&from(1, thread), &mut buf).unwrap();
                        } else {
                            e.recv(&from(0, thread), &mut buf).unwrap();
                            e.send(to(0, thread), &buf).unwrap();
                        }
                        assert_eq!(u32::from_le_bytes(buf), i);
                    }
                });
            }
        });
    });
}

#[test]
fn probing_and_cancelling() {
    ranks(2, |me, e| {
        if me == 0 {
            e.send(to(1, 3), &[1, 2, 3]).unwrap();
            e.recv(&from(1, 1), &mut []).unwrap();
        } else {
            let found = e.block(|c| c.probe(&anyone(2)));
            assert_eq!(found, Envelope { source: 0, tag: 3, check: 0, length: 3 });
            let op = e.with(|c| c.recv_owned(&from(0, 4), Box::new(vec![0u8; 3])));
            assert!(e.with(|c| c.cancel(op)));
            assert_eq!(e.wait(op).0, Err(Fault::Cancelled));
            assert_eq!(e.wait(op).0, Err(Fault::Spent));
            let mut buf = [0; 3];
            e.recv(&anyone(2), &mut buf).unwrap();
            assert_eq!(buf, [1, 2, 3]);
            e.send(to(0, 1), &[]).unwrap();
        }
    });
}

#[test]
fn released_operations_leave_memory_alone_and_the_rest_intact() {
    ranks(2, |me, e| {
        let big = pattern(3_000_000, 9);
        if me == 0 {
            // The scope ends while the message waits for its receiver.
            e.scope(|s| {
                let _ = s.send(to(1, 1), &big[..0]);
                let _ = s.send(to(1, 2), &big);
            });
            e.send(to(1, 3), b"end").unwrap();
        } else {
            let mut forgotten = vec![0; 3_000_000];
            e.scope(|s| {
                s.recv(&from(0, 7), &mut forgotten);
            });
            let mut buf = vec![0; 3_000_000];
            e.recv(&from(0, 3), &mut [0; 3]).unwrap();
            e.recv(&from(0, 2), &mut buf).unwrap();
            assert!(buf == big && forgotten.iter().all(|&b| b == 0));
            assert_eq!(e.recv(&from(0, 1), &mut []).unwrap().length, 0);
        }
    });
}

#[derive(Clone, Debug)]
struct Message {
    tag: i32,
    len: usize,
}

fn messages() -> impl Strategy<Value = Vec<Message>> {
    let len = prop_oneof![4 => 0usize..200, 2 => 1_000usize..40_000, 1 => 65_000usize..200_000];
    proptest::collection::vec((0i32..3, len).prop_map(|(tag, len)| Message { tag, len }), 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever is sent, in bursts or not, arrives byte for byte in order per tag, however the receives are
    /// posted.
    #[test]
    fn order_holds_for_any_mix(list in messages(), early: bool, strict: bool) {
        let (list, again) = (list.clone(), list);
        ranks(2, move |me, e| {
            let data: Vec<Vec<u8>> = (0..).zip(&list).map(|(i, m)| pattern(m.len, i)).collect();
            if me == 0 {
                e.scope(|s| {
                    let ops: Vec<_> = list.iter().zip(&data).map(|(m, d)| s.send(to(1, m.tag), d)).collect();
                    for op in ops {
                        op.or_else(|op| e.wait(op).0).unwrap();
                    }
                });
                return;
            }
            let post = |i: usize| {
                let spec = RecvSpec { scribble: !strict, ..from(0, list[i].tag) };
                e.with(|c| c.recv_owned(&spec, Box::new(vec![0u8; 200_000])))
            };
            let mut ops = Vec::new();
            if early {
                ops = (0..list.len()).map(post).collect();
            }
            for i in 0..list.len() {
                let op = if early { ops[i] } else { post(i) };
                let (result, memory) = e.wait(op);
                let buf = memory.unwrap().into_any().downcast::<Vec<u8>>().unwrap();
                let n = result.unwrap().length as usize;
                assert!(n == list[i].len && buf[..n] == data[i], "message {i}");
                assert!(!strict || buf[n..].iter().all(|&b| b == 0), "message {i} went beyond its end");
            }
        });
        drop(again);
    }
}

/// Windows of messages of one slot and more, some too long and some of another kind, between two ranks that wait for
/// a whole window at once.
#[test]
fn windows_that_are_waited_for_at_once() {
    const N: usize = 48;
    let len = |i: usize| [8, 0, 3, 48, 49, 700, 5000, 8][i % 8];
    ranks(2, move |me, e| {
        for round in 0..40usize {
            let (bad, strange) = (round % 4 == 1, round % 4 == 2);
            if me == 0 {
                let all: Vec<Vec<u8>> = (0..N).map(|i| pattern(len(i), (round * N + i) as u64)).collect();
                let outcome = e.scope(|s| {
                    let ops: Vec<OpId> =
                        all.iter().zip(0..).filter_map(|(d, i)| s.send(to(1, i % 3), d).err()).collect();
                    s.wait_all(&ops)
                });
                assert_eq!(outcome, Ok(()));
                e.recv(&from(1, 9), &mut [0]).unwrap();
            } else {
                let mut all: Vec<Vec<u8>> = (0..N).map(|i| vec![1; len(i)]).collect();
                if bad {
                    all[8].truncate(5);
                    all[16].truncate(1);
                }
                let outcome = e.scope(|s| {
                    let mut ops = Vec::new();
                    for (i, d) in all.iter_mut().enumerate() {
                        let check = u16::from(strange && i == 24);
                        let tag = i32::try_from(i % 3).unwrap();
                        ops.push(s.recv(&RecvSpec { check, ..from(0, tag) }, d));
                    }
                    s.wait_all(&ops)
                });
                match outcome {
                    Err(Fault::Truncated { sent: 8, capacity: 5, tag: 2, .. }) if bad => {}
                    Err(Fault::Mismatch { expected: 1, got: 0, .. }) if strange => {}
                    Ok(()) if !bad && !strange => {}
                    other => panic!("{other:?} in round {round}"),
                }
                for (i, d) in all.iter().enumerate().filter(|(i, _)| !strange || *i != 24) {
                    let want = pattern(len(i), (round * N + i) as u64);
                    assert!(d[..] == want[..d.len()], "message {i} of round {round}");
                }
                e.send(to(0, 9), &[1]).unwrap();
            }
        }
    });
}

#[test]
fn a_helping_thread_moves_what_nobody_waits_for() {
    for rail in [Rail::Tcp, Rail::Shm] {
        let engines = engines_over(rail, 2, true).0;
        let helpers: Vec<_> = engines.iter().map(|e| e.help().unwrap()).collect();
        assert!(engines[0].help().is_err(), "there is one already");
        for round in 0..5u64 {
            let data = pattern(6_000_000, round);
            let received = engines[1].with(|c| c.recv_owned(&from(0, 1), Box::new(vec![0u8; 6_000_000])));
            let sent = engines[0].with(|c| c.send_owned(to(1, 1), Box::new(data.clone())));
            // Looking makes no progress: the threads do.
            let deadline = Instant::now() + Duration::from_secs(60);
            while !(engines[0].with(|c| c.is_done(sent)) && engines[1].with(|c| c.is_done(received))) {
                assert!(Instant::now() < deadline, "nobody moves it");
                std::thread::yield_now();
            }
            let (status, memory) = engines[1].with(|c| c.take(received)).unwrap();
            assert_eq!(status.unwrap().length, 6_000_000);
            let got = memory.unwrap().into_any().downcast::<Vec<u8>>().unwrap();
            assert!(*got == data);
            drop(engines[0].with(|c| c.take(sent)));
        }
        drop(helpers);
        let again = engines[0].help().unwrap();
        drop(again);
        let parts: Vec<_> = engines
            .into_iter()
            .map(|e| std::thread::spawn(move || e.finish(Duration::from_secs(20))))
            .collect();
        assert!(parts.into_iter().all(|t| t.join().unwrap()));
    }
}
