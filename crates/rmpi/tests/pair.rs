//! Two ranks on two nodes, whose collectives are mostly one message each way: right at every length, in order with
//! those under way, and errors as of any others.
#![allow(clippy::unwrap_used, missing_docs, reason = "a failed test may panic")]

mod common;

use common::ranks_on;
use rmpi::{Communicator, Error, Op, UserOp};

/// Elements of 8 bytes, to both sides of the length from which messages have schedules.
const COUNTS: [usize; 8] = [0, 1, 9, 8_000, 32_768, 65_535, 65_536, 65_537];

fn value(r: u32, i: usize) -> i64 {
    i64::from(r + 1) * 1_000_003 + (i as i64) * 31
}

fn of(r: u32, n: usize) -> Vec<i64> {
    (0..n).map(|i| value(r, i)).collect()
}

fn of_both(n: usize, f: impl Fn(i64, i64) -> i64) -> Vec<i64> {
    (0..n).map(|i| f(value(0, i), value(1, i))).collect()
}

fn all_of_them(c: &Communicator, n: usize) {
    let (me, other) = (c.rank(), 1 - c.rank());
    // It neither commutes nor forgets who came first.
    let chain = |a: i64, b: i64| a.wrapping_mul(3).wrapping_add(b);
    let (ordered, op) = (of_both(n, chain), UserOp::ordered(chain));
    let sums = of_both(n, |a, b| a + b);
    let both = [of(0, n), of(1, n)].concat();
    for root in [0, 1] {
        // Begun before the blocking calls, and over after them.
        let sum = c.iallreduce(of(me, n), &Op::Sum).unwrap();
        let news = c.ibcast(of(me, n), 1 - root).unwrap();
        let mut data = of(me, n);
        c.bcast(&mut data, root).unwrap();
        assert!(data == of(root, n), "broadcast of {n} from {root}");
        let mut got = vec![-1; if me == root { n } else { 0 }];
        c.reduce(&of(me, n), &mut got, &Op::Sum, root).unwrap();
        assert!(me != root || got == sums, "sum of {n} to {root}");
        c.barrier().unwrap();
        c.reduce(&of(me, n), &mut got, &op, root).unwrap();
        assert!(me != root || got == ordered, "ordered reduction of {n} to {root}");
        assert!(news.wait().unwrap() == of(1 - root, n), "broadcast of {n} begun before");
        assert!(sum.wait().unwrap() == sums, "sum of {n} begun before");
    }
    let mut got = of(me, n);
    c.allreduce_in_place(&mut got, &op).unwrap();
    assert!(got == ordered, "ordered reduction of {n}");
    let mut all = vec![-1; 2 * n];
    c.allgather(&of(me, n), &mut all).unwrap();
    assert!(all == both, "both of {n}");
    // Messages of the program do not get in between.
    c.send(&[me], other, 0).unwrap();
    c.barrier().unwrap();
    let mut word = [me];
    c.recv(&mut word, other, 0).unwrap();
    assert_eq!(word, [other]);
}

#[test]
fn every_length_and_both_roots_among_calls_under_way() {
    ranks_on(2, 1, |world| {
        let c = world.comm();
        assert!(c.explain(64).lines().any(|l| l.starts_with("bcast ") && l.ends_with("in one message")));
        let mirror = c.split(Some(0), -(c.rank() as i32)).unwrap().unwrap();
        for n in COUNTS {
            all_of_them(c, n);
            all_of_them(&mirror, n);
        }
        world.finalize().unwrap();
    });
}

#[test]
fn a_root_ahead_of_the_other_goes_on_until_the_window_is_full_and_loses_nothing() {
    ranks_on(2, 1, |world| {
        let c = world.comm();
        // What fits into the window, and how often in all.
        for (n, ahead, rounds) in [(1usize, 3_000, 6_000), (5_000, 20, 60), (60_000, 2, 10)] {
            let cast = |round: u32| {
                let mut data = if c.rank() == 0 { of(round, n) } else { vec![0; n] };
                c.bcast(&mut data, 0).unwrap();
                assert!(data == of(round, n), "broadcast {round} of {n}");
            };
            if c.rank() == 0 {
                (0..ahead).for_each(cast);
                c.send(&[1u8], 1, 1).unwrap();
                (ahead..rounds).for_each(cast);
            } else {
                // All that went ahead has come before this.
                c.recv(&mut [0u8], 0, 1).unwrap();
                (0..rounds).for_each(cast);
            }
            c.barrier().unwrap();
        }
        world.finalize().unwrap();
    });
}

#[test]
fn calls_that_do_not_match_are_errors_on_both() {
    type Call = fn(&Communicator) -> Result<(), Error>;
    let pairs: [(&str, Call, Call); 8] = [
        ("lengths", |c| c.bcast(&mut [1i32; 8], 0), |c| c.bcast(&mut [1i32; 9], 0)),
        ("a shorter one", |c| c.bcast(&mut [1i32; 90_000], 0), |c| c.bcast(&mut [1i32; 9], 0)),
        ("a long one", |c| c.bcast(&mut [1i32; 8], 0), |c| c.bcast(&mut vec![1i32; 900_000], 0)),
        ("types", |c| c.bcast(&mut [1i32; 8], 0), |c| c.bcast(&mut [1u32; 8], 0)),
        ("a barrier", |c| c.bcast(&mut [1i32; 8], 0), Communicator::barrier),
        ("operations", |c| c.reduce(&[1], &mut [0], &Op::Sum, 1), |c| c.reduce(&[1], &mut [0], &Op::Max, 1)),
        ("a sum", |c| c.allgather(&[1], &mut [0; 2]), |c| c.allreduce(&[1], &mut [0], &Op::Sum)),
        ("a schedule", |c| c.allgather(&[1], &mut [0; 2]), |c| c.alltoall(&[1, 2], &mut [0; 2])),
    ];
    for (what, first, second) in pairs {
        ranks_on(2, 1, move |world| {
            let c = world.comm();
            c.barrier().unwrap();
            let result = if c.rank() == 0 { first(c) } else { second(c) };
            // Who only sends may have done so before the other can tell; nobody gets out of a barrier after it.
            let error = result.and_then(|()| c.barrier()).unwrap_err();
            assert!(matches!(error, Error::Mismatched { .. } | Error::GivenUp { .. }), "{what}: {error}");
            let error = c.bcast(&mut [1u8], 1).unwrap_err();
            assert!(matches!(error, Error::Mismatched { .. } | Error::GivenUp { .. }), "{what}: {error}");
            // Messages go on.
            let other = 1 - c.rank();
            c.sendrecv(&[1u8], other, 0, &mut [0u8], other, 0).unwrap();
            world.finalize().unwrap();
        });
    }
}

#[test]
fn a_root_that_does_not_exist_is_an_error_before_anything_is_sent() {
    ranks_on(2, 1, |world| {
        let c = world.comm();
        c.bcast(&mut [1u8], 2).unwrap_err();
        c.reduce(&[1u8], &mut [0], &Op::Sum, 7).unwrap_err();
        let mut data = [c.rank()];
        c.bcast(&mut data, 1).unwrap();
        assert_eq!(data, [1]);
        world.finalize().unwrap();
    });
}

#[test]
fn a_rank_that_has_left_is_named() {
    type Call = fn(&Communicator) -> Result<(), Error>;
    let calls: [Call; 4] = [
        Communicator::barrier,
        |c| c.bcast(&mut [1u8; 100], 1),
        |c| c.reduce(&[1], &mut [0], &Op::Sum, 0),
        |c| c.allgather(&[1], &mut [0; 2]),
    ];
    for call in calls {
        ranks_on(2, 1, move |world| {
            let c = world.comm();
            c.barrier().unwrap();
            if c.rank() == 1 {
                return;
            }
            let error = call(c).unwrap_err();
            assert!(matches!(&error, Error::PeerLost { rank: 1, host, .. } if &**host == "node1"), "{error}");
            // The root of a broadcast hears of it, too, however much it has sent before.
            c.bcast(&mut [1u8; 100], 0).unwrap_err();
        });
    }
}
