//! Every collective against its definition, for 1 to 9 ranks, short and long, blocking and not.
#![allow(clippy::unwrap_used, missing_docs, reason = "a failed test may panic")]

mod common;

use common::{ranks, ranks_on};
use rmpi::{Communicator, Error, Op, UserOp, bf16, wait_all};

const SIZES: [u32; 9] = [1, 2, 3, 4, 5, 6, 7, 8, 9];
const COUNTS: [usize; 5] = [0, 1, 7, 1000, 40_000];

/// Element `i` of rank `r`.
fn value(r: u32, i: usize) -> i64 {
    i64::from(r) * 1_000_003 + (i as i64) * 31 + 7
}

fn mine(c: &Communicator, n: usize) -> Vec<i64> {
    (0..n).map(|i| value(c.rank(), i)).collect()
}

fn sum(ranks: std::ops::Range<u32>, i: usize) -> i64 {
    ranks.map(|r| value(r, i)).sum()
}

/// Runs `f` for every number of ranks and every count.
fn everywhere(f: fn(&Communicator, usize)) {
    for p in SIZES {
        // All on their own, two or three a node, all on one.
        for each in [1, 2, 3, p.max(4)] {
            ranks_on(p, each, move |world| {
                COUNTS.into_iter().for_each(|n| f(world.comm(), n));
                world.finalize().unwrap();
            });
        }
    }
}

#[test]
fn reductions_to_all() {
    everywhere(|c, n| {
        let p = c.size();
        let want: Vec<i64> = (0..n).map(|i| sum(0..p, i)).collect();
        let mut got = vec![0; n];
        c.allreduce(&mine(c, n), &mut got, &Op::Sum).unwrap();
        assert!(got == want, "{p} ranks, {n} elements");
        let mut got = mine(c, n);
        c.allreduce_in_place(&mut got, &Op::Sum).unwrap();
        assert!(got == want);
        assert!(c.iallreduce(mine(c, n), &Op::Sum).unwrap().wait().unwrap() == want);
        c.allreduce(&mine(c, n), &mut got, &Op::Max).unwrap();
        assert!(got.iter().enumerate().all(|(i, &x)| x == value(p - 1, i)));
    });
}

#[test]
fn sums_of_shared_buffers() {
    for p in [1, 2, 3, 4, 7, 8] {
        for each in [1, 3, p.max(4)] {
            ranks_on(p, each, move |world| {
                let c = world.comm();
                for n in [0, 1, 7, 512, 513, 40_000, 300_000] {
                    let want: Vec<i64> = (0..n).map(|i| sum(0..p, i)).collect();
                    // Twice: memory that was used before is used again, and mappings are kept.
                    for _ in 0..2 {
                        let mut data = world.alloc::<i64>(n).unwrap();
                        assert!(data.iter().all(|&x| x == 0) && data.len() == n);
                        data.copy_from_slice(&mine(c, n));
                        c.allreduce_shared(&mut data, &Op::Sum).unwrap();
                        assert!(data[..] == want[..], "{p} ranks, {n} elements");
                        data.copy_from_slice(&mine(c, n));
                        let other = c.iallreduce(mine(c, n), &Op::Sum).unwrap();
                        let request = c.iallreduce_shared(data, &Op::Sum).unwrap();
                        assert!(request.wait().unwrap()[..] == want[..]);
                        assert!(other.wait().unwrap() == want);
                    }
                }
                let half = c.split(Some(c.rank() % 2), 0).unwrap().unwrap();
                let mut data = world.alloc::<i64>(10_000).unwrap();
                data.copy_from_slice(&mine(c, 10_000));
                half.allreduce_shared(&mut data, &Op::Max).unwrap();
                let last = (0..p).rev().find(|r| r % 2 == c.rank() % 2).unwrap();
                assert!(data.iter().enumerate().all(|(i, &x)| x == value(last, i)));
                world.finalize().unwrap();
            });
        }
    }
}

#[test]
fn a_shared_sum_against_an_ordinary_one_is_an_error() {
    for n in [8, 20_000] {
        ranks_on(2, 2, move |world| {
            let c = world.comm();
            let mut data = world.alloc::<i64>(n).unwrap();
            let outcome = match c.rank() {
                0 => c.allreduce_shared(&mut data, &Op::Sum),
                _ => c.allreduce_in_place(&mut vec![0i64; n], &Op::Sum),
            };
            let error = outcome.unwrap_err();
            assert!(matches!(error, Error::Mismatched { .. } | Error::GivenUp { .. }), "{error}");
        });
    }
}

#[test]
fn reductions_to_one_and_scattered() {
    everywhere(|c, n| {
        let p = c.size();
        for root in [0, p - 1] {
            let at_root = c.rank() == root;
            let mut got = vec![0; if at_root { n } else { 0 }];
            c.reduce(&mine(c, n), &mut got, &Op::Sum, root).unwrap();
            let later = c.ireduce(mine(c, n), &Op::Sum, root).unwrap().wait().unwrap();
            assert!(got == later);
            assert!(!at_root || got.iter().enumerate().all(|(i, &x)| x == sum(0..p, i)));
        }
        let counts: Vec<usize> = (0..p as usize).map(|r| n / 8 + r % 3).collect();
        let start: usize = counts[..c.rank() as usize].iter().sum();
        let data = mine(c, counts.iter().sum());
        let mut block = vec![0; counts[c.rank() as usize]];
        c.reduce_scatter(&data, &mut block, &counts, &Op::Sum).unwrap();
        assert!(block.iter().enumerate().all(|(i, &x)| x == sum(0..p, start + i)));
        assert!(c.ireduce_scatter(data, &counts, &Op::Sum).unwrap().wait().unwrap() == block);
    });
}

#[test]
fn broadcasts_and_barriers() {
    everywhere(|c, n| {
        for root in [0, c.size() - 1] {
            let want: Vec<i64> = (0..n).map(|i| value(root, i)).collect();
            let mut data = mine(c, n);
            c.bcast(&mut data, root).unwrap();
            assert!(data == want);
            assert!(c.ibcast(mine(c, n), root).unwrap().wait().unwrap() == want);
        }
        c.barrier().unwrap();
        c.ibarrier().unwrap().wait().unwrap();
    });
}

#[test]
fn gathers_and_scatters() {
    everywhere(|c, n| {
        let (p, me) = (c.size(), c.rank());
        let whole: Vec<i64> = (0..p).flat_map(|r| (0..n).map(move |i| value(r, i))).collect();
        let mut all = vec![0; n * p as usize];
        c.allgather(&mine(c, n), &mut all).unwrap();
        assert!(all == whole);
        assert!(c.iallgather(mine(c, n)).unwrap().wait().unwrap() == whole);
        let root = p / 2;
        let mut all = vec![0; if me == root { n * p as usize } else { 0 }];
        c.gather(&mine(c, n), &mut all, root).unwrap();
        assert!(me != root || all == whole);
        assert!(c.igather(mine(c, n), root).unwrap().wait().unwrap() == all);
        let mut block = vec![0; n];
        c.scatter(&all, &mut block, root).unwrap();
        assert!(block == mine(c, n));
        assert!(c.iscatter(all, n, root).unwrap().wait().unwrap() == block);

        // Different lengths: rank r has n/4 + r elements.
        let counts: Vec<usize> = (0..p as usize).map(|r| n / 4 + r).collect();
        let whole: Vec<i64> =
            (0..p).flat_map(|r| (0..n / 4 + r as usize).map(move |i| value(r, i))).collect();
        let own = mine(c, counts[me as usize]);
        let mut all = vec![0; whole.len()];
        c.allgatherv(&own, &mut all, &counts).unwrap();
        assert!(all == whole);
        all.fill(0);
        c.gatherv(
            &own,
            if me == root { &mut all } else { &mut [] },
            if me == root { &counts } else { &[] },
            root,
        )
        .unwrap();
        assert!(me != root || all == whole);
        let mut block = vec![0; own.len()];
        let (data, given): (&[i64], &[usize]) = if me == root { (&whole, &counts) } else { (&[], &[]) };
        c.scatterv(data, given, &mut block, root).unwrap();
        assert!(block == own);
    });
}

#[test]
fn exchanges_and_prefixes() {
    everywhere(|c, n| {
        let (p, me) = (c.size(), c.rank());
        let each = n / 10;
        // Element i of the block from r to s.
        let cell = |r: u32, s: u32, i: usize| value(r, i) * 100 + i64::from(s);
        let data: Vec<i64> = (0..p).flat_map(|s| (0..each).map(move |i| cell(me, s, i))).collect();
        let want: Vec<i64> = (0..p).flat_map(|r| (0..each).map(move |i| cell(r, me, i))).collect();
        let mut got = vec![0; want.len()];
        c.alltoall(&data, &mut got).unwrap();
        assert!(got == want);
        assert!(c.ialltoall(data).unwrap().wait().unwrap() == want);
        // From r to s: each + r + 2s elements.
        let len = |r: u32, s: u32| each + (r + 2 * s) as usize;
        let data: Vec<i64> = (0..p).flat_map(|s| (0..len(me, s)).map(move |i| cell(me, s, i))).collect();
        let want: Vec<i64> = (0..p).flat_map(|r| (0..len(r, me)).map(move |i| cell(r, me, i))).collect();
        let out: Vec<usize> = (0..p).map(|s| len(me, s)).collect();
        let into: Vec<usize> = (0..p).map(|r| len(r, me)).collect();
        let mut got = vec![0; want.len()];
        c.alltoallv(&data, &out, &mut got, &into).unwrap();
        assert!(got == want);

        let mut got = vec![0; n];
        c.scan(&mine(c, n), &mut got, &Op::Sum).unwrap();
        assert!(got.iter().enumerate().all(|(i, &x)| x == sum(0..me + 1, i)));
        assert!(c.iscan(mine(c, n), &Op::Sum).unwrap().wait().unwrap() == got);
        let mut got = vec![-1; n];
        c.exscan(&mine(c, n), &mut got, &Op::Sum).unwrap();
        assert!(got.iter().enumerate().all(|(i, &x)| x == if me == 0 { -1 } else { sum(0..me, i) }));
    });
}

#[test]
fn one_rank_gets_its_own_data_and_the_same_errors() {
    ranks(1, |world| {
        let c = world.comm();
        let data = [3, 5, 7];
        let got = |f: &dyn Fn(&mut [i64])| {
            let mut got = [0i64; 3];
            f(&mut got);
            got
        };
        let sum = &Op::Sum;
        let minus = UserOp::ordered(|a: i64, b: i64| a - b);
        c.barrier().unwrap();
        assert_eq!(got(&|g| c.allreduce(&data, g, sum).unwrap()), data);
        assert_eq!(got(&|g| c.allreduce(&data, g, &minus).unwrap()), data);
        assert_eq!(got(&|g| c.reduce(&data, g, sum, 0).unwrap()), data);
        assert_eq!(got(&|g| c.gather(&data, g, 0).unwrap()), data);
        assert_eq!(got(&|g| c.gatherv(&data, g, &[3], 0).unwrap()), data);
        assert_eq!(got(&|g| c.scatter(&data, g, 0).unwrap()), data);
        assert_eq!(got(&|g| c.scatterv(&data, &[3], g, 0).unwrap()), data);
        assert_eq!(got(&|g| c.allgather(&data, g).unwrap()), data);
        assert_eq!(got(&|g| c.allgatherv(&data, g, &[3]).unwrap()), data);
        assert_eq!(got(&|g| c.reduce_scatter(&data, g, &[3], sum).unwrap()), data);
        assert_eq!(got(&|g| c.alltoall(&data, g).unwrap()), data);
        assert_eq!(got(&|g| c.alltoallv(&data, &[3], g, &[3]).unwrap()), data);
        assert_eq!(got(&|g| c.scan(&data, g, sum).unwrap()), data);
        assert_eq!(got(&|g| c.exscan(&data, g, sum).unwrap()), [0; 3], "nobody is before it");
        let mut own = data;
        c.bcast(&mut own, 0).unwrap();
        c.allreduce_in_place(&mut own, sum).unwrap();
        assert_eq!(own, data);
        // What cannot be fails as it does elsewhere.
        let mut g = [0; 3];
        for e in [
            c.bcast(&mut g, 1).unwrap_err(),
            c.reduce(&data, &mut g, sum, 1).unwrap_err(),
            c.gather(&data, &mut g, 1).unwrap_err(),
            c.scatter(&data, &mut g, 1).unwrap_err(),
        ] {
            assert!(matches!(e, Error::Plan(_)), "{e:?}");
        }
        assert!(matches!(c.allreduce(&data, &mut g[..2], sum), Err(Error::Length { .. })));
        assert!(c.alltoallv(&data, &[3], &mut g[..2], &[2]).is_err());
        assert!(c.allreduce(&[1.0], &mut [0.0], &Op::BitAnd).is_err());
        world.finalize().unwrap();
    });
}

#[test]
fn large_buckets_overlap_and_agree_bit_for_bit() {
    let results = ranks(4, |world| {
        let c = world.comm();
        // Eight gradient buckets at once, 16 MB each in all, among blocking calls.
        let bucket = |b: usize| -> Vec<f32> {
            (0..500_000).map(|i| ((i * 7 + b * 13) % 1000) as f32 * 0.001 + c.rank() as f32).collect()
        };
        let requests: Vec<_> = (0..8).map(|b| c.iallreduce(bucket(b), &Op::Sum).unwrap()).collect();
        c.barrier().unwrap();
        let sums = wait_all(requests).unwrap();
        for (b, sum) in sums.iter().enumerate() {
            for (i, x) in sum.iter().enumerate() {
                let want = ((i * 7 + b * 13) % 1000) as f32 * 0.004 + 6.0;
                assert!((x - want).abs() < 1e-3, "bucket {b} element {i}: {x} {want}");
            }
        }
        world.finalize().unwrap();
        sums
    });
    assert!(results.iter().all(|r| r == &results[0]), "ranks differ in bits");
}

#[test]
fn operators_of_the_user_run_in_rank_order() {
    ranks(5, |world| {
        let c = world.comm();
        // 2x2 matrices of wrapping integers do not commute.
        let product = |a: &[u32], b: &[u32]| {
            let f = |r: usize, s: usize| {
                a[2 * r].wrapping_mul(b[s]).wrapping_add(a[2 * r + 1].wrapping_mul(b[2 + s]))
            };
            [f(0, 0), f(0, 1), f(1, 0), f(1, 1)]
        };
        let op = UserOp::slices(false, move |left: &mut [u32], right: &[u32]| {
            left.chunks_exact_mut(4)
                .zip(right.chunks_exact(4))
                .for_each(|(l, r)| l.copy_from_slice(&product(l, r)));
        });
        let matrix = |r: u32| [r + 1, 2, 3, r * r];
        let mut got = [0; 4];
        c.allreduce(&matrix(c.rank()), &mut got, &op).unwrap();
        let want = (1..5).fold(matrix(0), |m, r| product(&m, &matrix(r)));
        assert_eq!(got, want);
        let least = UserOp::commutative(|a: f64, b: f64| a.min(b));
        let mut got = [0.0];
        c.allreduce(&[3.0 - f64::from(c.rank())], &mut got, &least).unwrap();
        assert_eq!(got, [-1.0]);
        world.finalize().unwrap();
    });
}

#[test]
fn types_and_operations() {
    ranks(3, |world| {
        let c = world.comm();
        let r = c.rank() as u8;
        let mut b = [0u8];
        for (op, want) in
            [(Op::Sum, 6), (Op::Product, 6), (Op::Min, 1), (Op::Max, 3), (Op::BitAnd, 0), (Op::BitOr, 3)]
        {
            c.allreduce(&[r + 1], &mut b, &op).unwrap();
            assert_eq!(b, [want], "{op:?}");
        }
        for (op, want) in [(Op::LogicalAnd, 0), (Op::LogicalOr, 1), (Op::LogicalXor, 0), (Op::BitXor, 3)] {
            c.allreduce(&[r], &mut b, &op).unwrap();
            assert_eq!(b, [want], "{op:?}");
        }
        let mut h = [bf16::ZERO];
        c.allreduce(&[bf16::from_f32(0.5)], &mut h, &Op::Sum).unwrap();
        assert_eq!(h[0].to_f32(), 1.5);
        let e = c.allreduce(&[1.0f32], &mut [0.0], &Op::BitOr).unwrap_err();
        assert!(matches!(e, Error::Reduction(_)), "{e}");
        let e = c.allreduce(&[1.0f32], &mut [0.0; 2], &Op::Sum).unwrap_err();
        assert!(matches!(e, Error::Length { need: 1, got: 2, .. }), "{e}");
        world.finalize().unwrap();
    });
}

#[test]
fn mismatched_calls_are_errors_everywhere() {
    type Call = fn(&Communicator) -> Result<(), Error>;
    // Another count, another operation, another collective, another type.
    let wrong: [Call; 4] = [
        |c| c.allreduce(&[1i32; 9], &mut [0; 9], &Op::Sum),
        |c| c.allreduce(&[1i32; 8], &mut [0; 8], &Op::Max),
        |c| c.reduce(&[1i32; 8], &mut [0; 8], &Op::Sum, 0),
        |c| c.allreduce(&[1u32; 8], &mut [0; 8], &Op::Sum),
    ];
    for (f, each) in wrong.into_iter().flat_map(|f| [1, 2, 4].map(|each| (f, each))) {
        ranks_on(4, each, move |world| {
            let c = world.comm();
            c.barrier().unwrap();
            let result = if c.rank() == 2 { f(c) } else { c.allreduce(&[1i32; 8], &mut [0; 8], &Op::Sum) };
            // The odd one out may be done before anybody can tell it.
            if c.rank() != 2 {
                let e = result.unwrap_err();
                assert!(matches!(e, Error::Mismatched { .. } | Error::GivenUp { .. }), "{e}");
            }
            // Messages go on.
            let next = (c.rank() + 1) % 4;
            c.sendrecv(&[1u8], next, 0, &mut [0u8], (c.rank() + 3) % 4, 0).unwrap();
            world.finalize().unwrap();
        });
    }
}

#[test]
fn a_rank_that_leaves_is_an_error_for_all_the_others() {
    for each in [1, 2, 5] {
        a_rank_leaves(each);
    }
}

fn a_rank_leaves(each: u32) {
    ranks_on(5, each, move |world| {
        let c = world.comm();
        c.barrier().unwrap();
        // It leaves when all are out of the barrier: giving up reaches calls under way, too.
        if world.rank() == 3 {
            for r in [0, 1, 2, 4] {
                c.recv(&mut [0u8], r, 0).unwrap();
            }
            return;
        }
        c.send(&[1u8], 3, 0).unwrap();
        let e = c.allreduce(&[1.0f64; 100_000], &mut vec![0.0; 100_000], &Op::Sum).unwrap_err();
        match e {
            Error::PeerLost { rank: 3, ref host, .. } => {
                assert_eq!(&**host, format!("node{}", 3 / each));
            }
            // Who got the news from another may see that one leave first.
            Error::GivenUp { .. } | Error::PeerLost { .. } => {}
            other => panic!("{other}"),
        }
    });
}

#[test]
fn persistent_collectives_start_again() {
    for each in [1, 2, 4] {
        ranks_on(4, each, |world| {
            let c = world.comm();
            for n in [1, 5000] {
                let mut sum = c.allreduce_init(vec![0i64; n], &Op::Sum).unwrap();
                let mut news = c.bcast_init(vec![0u32; n], 3).unwrap();
                let mut barrier = c.barrier_init().unwrap();
                for step in 0..5i64 {
                    sum.buffer().unwrap().fill(step + i64::from(c.rank()));
                    news.buffer().unwrap().fill(7 * c.rank());
                    sum.start().unwrap();
                    news.start().unwrap();
                    assert_eq!(sum.start().unwrap_err(), Error::Running);
                    assert_eq!(sum.buffer().unwrap_err(), Error::Running);
                    barrier.start().unwrap();
                    // A blocking call goes behind those under way.
                    let mut most = [0];
                    c.allreduce(&[c.rank()], &mut most, &Op::Max).unwrap();
                    assert_eq!(most, [3]);
                    assert!(sum.wait().unwrap().iter().all(|&x| x == 4 * step + 6));
                    assert!(news.wait().unwrap().iter().all(|&x| x == 21));
                    barrier.wait().unwrap();
                }
                assert_eq!(sum.into_buffer().unwrap().len(), n);
            }
            world.finalize().unwrap();
        });
    }
}

#[test]
fn communicators_come_and_go_in_shared_memory() {
    ranks_on(6, 3, |world| {
        let c = world.comm();
        for round in 0..12u32 {
            let dup = c.dup().unwrap();
            let part = c.split(Some(c.rank() % 2), 0).unwrap().unwrap();
            let rows = c.split((c.rank() < 5).then_some(0), -(c.rank() as i32)).unwrap();
            for n in [1usize, 900, 30_000] {
                let mut got = vec![0u64; n];
                dup.allreduce(&vec![u64::from(c.rank() + round); n], &mut got, &Op::Sum).unwrap();
                assert!(got.iter().all(|&x| x == u64::from(15 + 6 * round)));
                part.allreduce(&vec![u64::from(c.rank()); n], &mut got, &Op::Sum).unwrap();
                assert!(got.iter().all(|&x| x == if c.rank() % 2 == 0 { 6 } else { 9 }));
                if let Some(rows) = &rows {
                    let mut all = vec![0u64; 5 * n];
                    rows.allgather(&vec![u64::from(c.rank()); n], &mut all).unwrap();
                    assert!(all.iter().enumerate().all(|(i, &x)| x == 4 - (i / n) as u64));
                }
            }
        }
        world.finalize().unwrap();
    });
}
