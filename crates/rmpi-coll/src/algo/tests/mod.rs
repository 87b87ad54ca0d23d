//! Every algorithm, for every number of ranks from 1 to 33, on a fabric in memory that delivers in random
//! order, against what the collective means, written plainly.

pub(crate) mod fabric;

use super::*;
use crate::{Blocks, Elems, PlanError, Schedule, Team};
use fabric::{Combine, Start, add, compose, run, sent};

pub(crate) const SIZES: std::ops::RangeInclusive<u32> = 1..=33;
const SENTINEL: u64 = 0xdead_dead_dead_dead;

pub(crate) fn team(rank: u32, size: u32) -> Team {
    // Short segments, three elements or a hundred, so that small tests are cut; none for odd sizes.
    let segment = match size {
        2 | 4 | 5 => 24,
        _ if size.is_multiple_of(2) => 800,
        _ => 0,
    };
    Team::new(rank, size).unwrap().with_segment(segment)
}

pub(crate) fn counts(size: u32) -> Vec<usize> {
    match size {
        1..=5 | 8 => vec![0, 1, 2, 7, size as usize, 1000],
        6..=9 | 16 | 17 => vec![0, 1, 7, size as usize + 2],
        33 => vec![1, 1000],
        _ => vec![size as usize + 2],
    }
}

pub(crate) fn roots(size: u32) -> Vec<u32> {
    if size <= 9 { (0..size).collect() } else { vec![0, size / 2 + 1] }
}

/// Rank `rank`'s `count` elements; every one is an odd-and-anything affine map.
pub(crate) fn data(rank: u32, count: usize) -> Vec<u64> {
    (0..count as u64)
        .map(|i| (u64::from(rank) * 1_000_003 + i * 7_919 + 17).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1 << 32)
        .collect()
}

fn ops<A: Named>(a: A) -> Vec<Combine> {
    if a.ordered() { vec![add, compose] } else { vec![add] }
}

pub(crate) fn fold(from: std::ops::Range<u32>, count: usize, op: Combine) -> Vec<u64> {
    let add_to = |sum: Vec<u64>, r| sum.into_iter().zip(data(r, count)).map(|(a, b)| op(a, b)).collect();
    (from.start + 1..from.end).fold(data(from.start, count), add_to)
}

/// Runs the schedule of each rank with its data; checks the outputs of all ranks against `want`, `None`
/// meaning that the output must stay as it was.
pub(crate) fn check(
    what: &str,
    size: u32,
    op: Combine,
    schedule: impl Fn(Team) -> Result<Schedule, PlanError>,
    input: impl Fn(u32) -> Vec<u64>,
    output: impl Fn(u32) -> Vec<u64>,
    want: impl Fn(u32) -> Option<Vec<u64>>,
) {
    let start = |rank| Start {
        schedule: schedule(team(rank, size)).unwrap(),
        input: input(rank),
        output: output(rank),
    };
    for seed in [1, u64::from(size)].into_iter().take(if size <= 9 { 2 } else { 1 }) {
        let got = run((0..size).map(start).collect(), op, seed);
        for (rank, got) in (0..size).zip(got) {
            let want = want(rank).unwrap_or_else(|| output(rank));
            assert!(got == want, "{what}: rank {rank} of {size}: got {got:x?}, want {want:x?}");
        }
    }
}

pub(crate) fn blank(count: usize) -> Vec<u64> {
    vec![SENTINEL; count]
}

#[test]
fn barriers_hold_until_all_have_entered() {
    for size in SIZES {
        check("barrier", size, add, |t| Ok(barrier(t)), |_| vec![], |_| vec![], |_| Some(vec![]));
        // Whoever leaves must have heard, directly or not, from all: follow the signals.
        let mut knows: Vec<Vec<bool>> = (0..size).map(|r| (0..size).map(|o| o == r).collect()).collect();
        let mut distance = 1;
        while distance < size {
            let before = knows.clone();
            for r in 0..size {
                let from = &before[((r + size - distance) % size) as usize];
                knows[r as usize].iter_mut().zip(from).for_each(|(k, &f)| *k |= f);
            }
            distance *= 2;
        }
        assert!(knows.iter().flatten().all(|&k| k));
        assert_eq!(barrier(team(0, size)).steps().len() as u32, 2 * size.next_power_of_two().ilog2());
    }
}

#[test]
fn bcast_gives_all_the_roots_data() {
    for size in SIZES {
        for (count, root) in
            counts(size).into_iter().flat_map(|c| roots(size).into_iter().map(move |r| (c, r)))
        {
            for &(name, a) in Bcast::ALL {
                let start = |r| if r == root { data(root, count) } else { blank(count) };
                check(
                    name,
                    size,
                    add,
                    |t| bcast(t, root, Elems::new(count, 8), a),
                    |_| vec![],
                    start,
                    |_| Some(data(root, count)),
                );
            }
        }
    }
}

#[test]
fn reduce_gives_the_root_the_combination() {
    for size in SIZES {
        for (count, root) in
            counts(size).into_iter().flat_map(|c| roots(size).into_iter().map(move |r| (c, r)))
        {
            for &(name, a) in Reduce::ALL {
                for op in ops(a) {
                    let want = fold(0..size, count, op);
                    let make = |t| reduce(t, root, Elems::new(count, 8), a);
                    check(
                        name,
                        size,
                        op,
                        make,
                        |r| data(r, count),
                        |_| blank(count),
                        |r| (r == root).then(|| want.clone()),
                    );
                }
            }
        }
    }
}

#[test]
fn allreduce_gives_all_the_combination() {
    for size in SIZES {
        for count in counts(size) {
            for &(name, a) in Allreduce::ALL {
                for op in ops(a) {
                    let want = fold(0..size, count, op);
                    let make = |in_place| move |t| allreduce(t, Elems::new(count, 8), in_place, a);
                    let mine = |r| data(r, count);
                    check(name, size, op, make(false), mine, |_| blank(count), |_| Some(want.clone()));
                    check(name, size, op, make(true), |_| vec![], mine, |_| Some(want.clone()));
                }
            }
        }
    }
}

#[test]
fn gather_and_scatter_place_blocks_in_rank_order() {
    for size in SIZES {
        for (count, root) in
            counts(size).into_iter().flat_map(|c| roots(size).into_iter().map(move |r| (c, r)))
        {
            let all: Vec<u64> = (0..size).flat_map(|r| data(r, count)).collect();
            let whole = |r| if r == root { all.len() } else { 0 };
            for &(name, a) in Gather::ALL {
                let make = |t| gather(t, root, Elems::new(count, 8), a);
                check(
                    name,
                    size,
                    add,
                    make,
                    |r| data(r, count),
                    |r| blank(whole(r)),
                    |r| (r == root).then(|| all.clone()),
                );
            }
            for &(name, a) in Scatter::ALL {
                let make = |t| scatter(t, root, Elems::new(count, 8), a);
                let input = |r| if r == root { all.clone() } else { vec![] };
                check(name, size, add, make, input, |_| blank(count), |r| Some(data(r, count)));
            }
        }
    }
}

/// Uneven counts with zeros among them.
pub(crate) fn uneven(size: u32) -> Vec<usize> {
    (0..size as usize).map(|r| (r * 5 + 3) % 7 * usize::from(r % 3 != 1)).collect()
}

#[test]
fn uneven_blocks_are_gathered_and_scattered() {
    for size in SIZES {
        let c = uneven(size);
        let mine = |r: u32| data(r, c[r as usize]);
        let all: Vec<u64> = (0..size).flat_map(mine).collect();
        let blocks = Blocks::packed(&c, 8).unwrap();
        for root in roots(size) {
            let known = |t: Team| (t.rank() == root).then_some(&blocks);
            let elems = |t: Team| Elems::new(c[t.rank() as usize], 8);
            let whole = |r| if r == root { all.len() } else { 0 };
            check(
                "gatherv",
                size,
                add,
                |t| gatherv(t, root, elems(t), known(t)),
                mine,
                |r| blank(whole(r)),
                |r| (r == root).then(|| all.clone()),
            );
            let input = |r| if r == root { all.clone() } else { vec![] };
            let output = |r: u32| blank(c[r as usize]);
            check(
                "scatterv",
                size,
                add,
                |t| scatterv(t, root, elems(t), known(t)),
                input,
                output,
                |r| Some(mine(r)),
            );
        }
    }
}

#[test]
fn allgather_gives_all_every_block() {
    for size in SIZES {
        let uniform = counts(size).into_iter().map(|c| vec![c; size as usize]);
        for c in uniform.chain([uneven(size)]) {
            let blocks = Blocks::packed(&c, 8).unwrap();
            let mine = |r: u32| data(r, c[r as usize]);
            let all: Vec<u64> = (0..size).flat_map(mine).collect();
            let placed = |r: u32| -> Vec<u64> {
                let block = |k| if k == r { mine(k) } else { blank(c[k as usize]) };
                (0..size).flat_map(block).collect()
            };
            for &(name, a) in Allgather::ALL {
                let make = |in_place| {
                    let blocks = &blocks;
                    move |t| allgather(t, blocks, in_place, a)
                };
                check(name, size, add, make(false), mine, |_| blank(all.len()), |_| Some(all.clone()));
                check(name, size, add, make(true), |_| vec![], placed, |_| Some(all.clone()));
            }
        }
    }
}

#[test]
fn reduce_scatter_gives_each_its_block_of_the_combination() {
    for size in SIZES {
        let uniform = counts(size).into_iter().filter(|&c| c < 100).map(|c| vec![c; size as usize]);
        for c in uniform.chain([uneven(size)]) {
            let blocks = Blocks::packed(&c, 8).unwrap();
            let total: usize = c.iter().sum();
            for &(name, a) in ReduceScatter::ALL {
                for op in ops(a) {
                    let sum = fold(0..size, total, op);
                    let want = |r: u32| {
                        let from: usize = c[..r as usize].iter().sum();
                        Some(sum[from..from + c[r as usize]].to_vec())
                    };
                    let make = |t| reduce_scatter(t, &blocks, a);
                    check(name, size, op, make, |r| data(r, total), |r| blank(c[r as usize]), want);
                }
            }
        }
    }
}

#[test]
fn alltoall_transposes_the_blocks() {
    for size in SIZES {
        // What r sends to s: uneven, some empty.
        let count = |r: u32, s: u32| ((r * 3 + s * 5) % 6) as usize;
        let piece = |r: u32, s: u32| -> Vec<u64> { data(r * 64 + s, count(r, s)) };
        let make = |t: Team| {
            let row: Vec<usize> = (0..size).map(|s| count(t.rank(), s)).collect();
            let column: Vec<usize> = (0..size).map(|r| count(r, t.rank())).collect();
            alltoall(t, &Blocks::packed(&row, 8)?, &Blocks::packed(&column, 8)?)
        };
        let input = |r: u32| (0..size).flat_map(|s| piece(r, s)).collect();
        let want = |s: u32| -> Vec<u64> { (0..size).flat_map(|r| piece(r, s)).collect() };
        check("alltoall", size, add, make, input, |s| blank(want(s).len()), |s| Some(want(s)));
    }
}

#[test]
fn scans_combine_the_ranks_before() {
    for size in SIZES {
        for count in counts(size) {
            for &(name, a) in Scan::ALL {
                for op in [add as Combine, compose] {
                    let (elems, mine) = (Elems::new(count, 8), |r| data(r, count));
                    check(
                        name,
                        size,
                        op,
                        |t| scan(t, elems, a),
                        mine,
                        |_| blank(count),
                        |r| Some(fold(0..r + 1, count, op)),
                    );
                    check(
                        name,
                        size,
                        op,
                        |t| exscan(t, elems, a),
                        mine,
                        |_| blank(count),
                        |r| (r > 0).then(|| fold(0..r, count, op)),
                    );
                }
            }
        }
    }
}

#[test]
fn bandwidth_algorithms_send_what_their_formulas_say() {
    let (size, n) = (8, 8 * 1024);
    let all = |a| allreduce(Team::new(3, size).unwrap(), Elems::new(n / 8, 8), false, a).unwrap();
    assert_eq!(sent(&all(Allreduce::Ring)), 2 * n * 7 / 8);
    assert_eq!(sent(&all(Allreduce::Rabenseifner)), 2 * n * 7 / 8);
    assert_eq!(sent(&all(Allreduce::RecursiveDoubling)), 3 * n);
    assert_eq!(all(Allreduce::Ring).scratch_len(), 0);
}

#[test]
fn arguments_that_contradict_each_other_are_errors() {
    let t = Team::new(1, 4).unwrap();
    let e = Elems::new(2, 8);
    assert_eq!(Team::new(4, 4), Err(PlanError::Rank { rank: 4, size: 4 }));
    assert_eq!(bcast(t, 4, e, Bcast::Chain), Err(PlanError::Root { root: 4, size: 4 }));
    let three = Blocks::packed(&[1, 2, 3], 8).unwrap();
    assert_eq!(allgather(t, &three, false, Allgather::Ring), Err(PlanError::Counts { given: 3, size: 4 }));
    assert_eq!(gatherv(t, 1, e, None), Err(PlanError::Counts { given: 0, size: 4 }));
    let four = Blocks::packed(&[1, 2, 3, 4], 8).unwrap();
    assert!(gatherv(t, 1, e, Some(&four)).is_ok());
    let other = Blocks::packed(&[1, 1, 1, 1], 8).unwrap();
    assert_eq!(alltoall(t, &four, &other), Err(PlanError::OwnBlock { one: 8, other: 16 }));
    let huge = Elems::new(usize::MAX / 2, 8);
    assert_eq!(scan(t, huge, Scan::Linear), Err(PlanError::TooLarge { count: usize::MAX / 2, size: 8 }));
    assert!(Blocks::uniform(4, Elems::new(usize::MAX / 4, 1)).is_err());
}
