//! Every collective in two levels, for 1 to 33 ranks that lie on nodes in several ways, on the fabric in memory.

use super::*;
use crate::algo::tests::fabric::{Combine, add, compose};
use crate::algo::tests::{SIZES, blank, check, data, fold, team, uneven};

/// Ways for ranks to lie on nodes: blocks of two, three and four with a rest, dealt round, the first alone, all but
/// the last two together, all on one, each on its own, and mixed.
fn layouts(size: u32) -> Vec<Nodes> {
    let by = |f: fn(u32, u32) -> u32| Nodes::new((0..size).map(move |r| f(r, size)));
    let mut all: Vec<Nodes> = Vec::new();
    for nodes in [
        by(|r, _| r / 2),
        by(|r, _| r / 3),
        by(|r, _| r / 4),
        by(|r, p| r % p.div_ceil(3)),
        by(|r, _| r.min(1)),
        by(|r, p| (r + 2).saturating_sub(p)),
        by(|_, _| 0),
        by(|r, _| r),
        by(|r, _| (r * 7 + 3) % 5 / 2),
    ] {
        if !all.contains(&nodes) {
            all.push(nodes);
        }
    }
    all
}

fn roots(size: u32) -> Vec<u32> {
    let mut roots = vec![0, size / 2, size - 1];
    roots.dedup();
    roots
}

fn counts(size: u32) -> Vec<usize> {
    match size {
        1..=4 | 8 => vec![0, 1, 5, 1000],
        9 | 16 => vec![1, 40],
        // In lanes where nodes have equally many.
        6 | 12 => vec![3, SLICED / 8 + 5],
        _ => vec![size as usize + 2],
    }
}

fn ops(nodes: &Nodes) -> Vec<(Combine, bool)> {
    if nodes.in_order() { vec![(add, true), (compose, false)] } else { vec![(add, true)] }
}

fn everywhere(mut f: impl FnMut(u32, &Nodes, usize)) {
    for size in SIZES {
        for nodes in layouts(size) {
            counts(size).into_iter().for_each(|count| f(size, &nodes, count));
        }
    }
}

fn view(nodes: &Nodes, team: Team) -> TwoLevel<'_> {
    TwoLevel::new(nodes, team, Costs::default()).unwrap()
}

#[test]
fn nodes_are_numbered_by_their_first_ranks() {
    let nodes = Nodes::new(["b", "a", "b", "c"]);
    assert_eq!(nodes.members(), [vec![0, 2], vec![1], vec![3]]);
    assert_eq!(nodes.leaders(), [0, 1, 3]);
    // Not all of them the first of their nodes, who would share a core where nodes share a machine.
    assert_eq!(Nodes::new([5, 5, 6, 6, 7, 7]).leaders(), [0, 3, 4]);
    assert_eq!((nodes.of(), nodes.each(), nodes.in_order()), (&[0, 1, 0, 2][..], None, false));
    assert_eq!(Nodes::new([4, 4, 1, 1]).each(), Some(2));
    let wrong = TwoLevel::new(&nodes, Team::new(0, 3).unwrap(), Costs::default());
    assert_eq!(wrong.unwrap_err(), PlanError::Counts { given: 4, size: 3 });
}

#[test]
fn barriers_hold_until_all_have_entered() {
    use crate::{Action, Fabric, Progress, Region, Run};
    use std::{cell::RefCell, collections::HashMap, rc::Rc, sync::Arc};
    type Key = (u32, u32, u32);
    /// Signals that carry who was heard of.
    struct Ears {
        rank: u32,
        heard: Vec<bool>,
        wire: Rc<RefCell<HashMap<Key, Vec<bool>>>>,
    }
    impl Fabric for Ears {
        type Error = ();
        type Op = Option<Key>;
        fn send(&mut self, peer: u32, tag: u32, _: Region) -> Result<Self::Op, ()> {
            self.wire.borrow_mut().insert((self.rank, peer, tag), self.heard.clone());
            Ok(None)
        }
        fn recv(&mut self, peer: u32, tag: u32, _: Region) -> Result<Self::Op, ()> {
            Ok(Some((peer, self.rank, tag)))
        }
        fn done(&mut self, op: &mut Self::Op) -> Result<bool, ()> {
            let Some(key) = op else { return Ok(true) };
            let Some(theirs) = self.wire.borrow_mut().remove(key) else { return Ok(false) };
            self.heard.iter_mut().zip(theirs).for_each(|(mine, t)| *mine |= t);
            Ok(true)
        }
        fn reduce(&mut self, _: Region, _: Region) -> Result<(), ()> {
            Err(())
        }
        fn copy(&mut self, _: Region, _: Region) -> Result<(), ()> {
            Err(())
        }
    }
    for size in SIZES {
        for nodes in layouts(size) {
            let wire = Rc::default();
            let mut ranks: Vec<_> = (0..size)
                .map(|rank| {
                    let schedule = view(&nodes, team(rank, size)).barrier().unwrap();
                    assert!(
                        schedule
                            .steps()
                            .iter()
                            .all(|s| matches!(s, Action::Send { .. } | Action::Recv { .. }))
                    );
                    let heard = (0..size).map(|r| r == rank).collect();
                    (Ears { rank, heard, wire: Rc::clone(&wire) }, Run::new(Arc::new(schedule)))
                })
                .collect();
            let mut rounds = 0;
            while ranks
                .iter_mut()
                .fold(false, |more, (ears, run)| run.advance(ears).unwrap() == Progress::Pending || more)
            {
                rounds += 1;
                assert!(rounds < 1000, "{size} ranks: {nodes:?}");
            }
            assert!(ranks.iter().all(|(ears, _)| ears.heard.iter().all(|&h| h)), "{nodes:?}");
        }
    }
}

#[test]
fn bcast_gives_all_the_roots_data() {
    everywhere(|size, nodes, count| {
        for root in roots(size) {
            let start = |r| if r == root { data(root, count) } else { blank(count) };
            let make = |t| view(nodes, t).bcast(root, Elems::new(count, 8));
            check("bcast", size, add, make, |_| vec![], start, |_| Some(data(root, count)));
        }
    });
}

#[test]
fn reduce_gives_the_root_the_combination() {
    everywhere(|size, nodes, count| {
        for (root, (op, commutes)) in
            roots(size).into_iter().flat_map(|r| ops(nodes).into_iter().map(move |o| (r, o)))
        {
            let want = fold(0..size, count, op);
            let make = |t| view(nodes, t).reduce(root, Elems::new(count, 8), commutes);
            let output = |r| if r == root { blank(count) } else { vec![] };
            check(
                "reduce",
                size,
                op,
                make,
                |r| data(r, count),
                output,
                |r| (r == root).then(|| want.clone()),
            );
        }
    });
}

#[test]
fn allreduce_gives_all_the_combination() {
    everywhere(|size, nodes, count| {
        for (op, commutes) in ops(nodes) {
            let want = fold(0..size, count, op);
            let make = |in_place| move |t| view(nodes, t).allreduce(Elems::new(count, 8), in_place, commutes);
            let mine = |r| data(r, count);
            check("allreduce", size, op, make(false), mine, |_| blank(count), |_| Some(want.clone()));
            check("in place", size, op, make(true), |_| vec![], mine, |_| Some(want.clone()));
        }
    });
}

#[test]
fn gather_and_scatter_place_blocks_in_rank_order() {
    everywhere(|size, nodes, count| {
        for root in roots(size) {
            let all: Vec<u64> = (0..size).flat_map(|r| data(r, count)).collect();
            let mine = |r| data(r, count);
            let output = |r| blank(if r == root { all.len() } else { 0 });
            let make = |t| view(nodes, t).gather(root, Elems::new(count, 8));
            check("gather", size, add, make, mine, output, |r| (r == root).then(|| all.clone()));
            let input = |r| if r == root { all.clone() } else { vec![] };
            let make = |t| view(nodes, t).scatter(root, Elems::new(count, 8));
            check("scatter", size, add, make, input, |_| blank(count), |r| Some(mine(r)));
        }
    });
}

/// The count for all, and counts that differ.
fn block_counts(size: u32, count: usize) -> [Vec<usize>; 2] {
    [vec![count.min(100); size as usize], uneven(size)]
}

#[test]
fn allgather_gives_all_every_block() {
    everywhere(|size, nodes, count| {
        for c in block_counts(size, count) {
            let blocks = Blocks::packed(&c, 8).unwrap();
            let mine = |r: u32| data(r, c[r as usize]);
            let all: Vec<u64> = (0..size).flat_map(mine).collect();
            let make = |t| view(nodes, t).allgather(&blocks);
            check("allgather", size, add, make, mine, |_| blank(all.len()), |_| Some(all.clone()));
        }
    });
}

#[test]
fn reduce_scatter_gives_each_its_block_of_the_combination() {
    everywhere(|size, nodes, count| {
        for c in block_counts(size, count) {
            let blocks = Blocks::packed(&c, 8).unwrap();
            let total: usize = c.iter().sum();
            for (op, commutes) in ops(nodes) {
                let sum = fold(0..size, total, op);
                let want = |r: u32| {
                    let from: usize = c[..r as usize].iter().sum();
                    Some(sum[from..from + c[r as usize]].to_vec())
                };
                let make = |t| view(nodes, t).reduce_scatter(&blocks, commutes);
                let output = |r: u32| blank(c[r as usize]);
                check("reduce_scatter", size, op, make, |r| data(r, total), output, want);
            }
        }
    });
}

#[test]
fn alltoall_transposes_the_blocks() {
    everywhere(|size, nodes, count| {
        let count = count.min(50);
        let piece = |r: u32, s: u32| data(r * 64 + s, count);
        let make = |t| view(nodes, t).alltoall(Elems::new(count, 8));
        let input = |r: u32| (0..size).flat_map(|s| piece(r, s)).collect();
        let want = |s: u32| -> Vec<u64> { (0..size).flat_map(|r| piece(r, s)).collect() };
        check("alltoall", size, add, make, input, |s| blank(want(s).len()), |s| Some(want(s)));
    });
}

/// Bytes that a rank sends to other nodes.
fn abroad(nodes: &Nodes, rank: u32, schedule: &Schedule) -> usize {
    let bytes = |a: &crate::Action| match a {
        crate::Action::Send { peer, data, .. } if nodes.of()[*peer as usize] != nodes.of()[rank as usize] => {
            data.len
        }
        _ => 0,
    };
    schedule.steps().iter().map(bytes).sum()
}

#[test]
fn between_nodes_goes_the_data_of_one_rank_a_node() {
    let (p, n) = (8, 8000);
    let nodes = Nodes::new((0..p).map(|r| r / 2));
    let blocks = Blocks::uniform(p, Elems::new(n / 8, 8)).unwrap();
    let node = |make: &dyn Fn(TwoLevel<'_>) -> Schedule| -> usize {
        (2..4).map(|r| abroad(&nodes, r, &make(view(&nodes, Team::new(r, p).unwrap())))).sum()
    };
    // Three other nodes' worth of what two ranks have for them.
    assert_eq!(node(&|v| v.allgather(&blocks).unwrap()), 3 * 2 * n);
    assert_eq!(node(&|v| v.reduce_scatter(&blocks, true).unwrap()), 3 * 2 * n);
    assert_eq!(node(&|v| v.alltoall(Elems::new(n / 8, 8)).unwrap()), 3 * 2 * 2 * n);
    let flat =
        |r| algo::reduce_scatter(Team::new(r, p).unwrap(), &blocks, algo::ReduceScatter::Pairwise).unwrap();
    assert_eq!(abroad(&nodes, 2, &flat(2)) + abroad(&nodes, 3, &flat(3)), 2 * 6 * n);
}
