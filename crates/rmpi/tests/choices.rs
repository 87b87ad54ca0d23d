//! Every algorithm that can be named gives the same result, and a wrong name is a clear error. In one test:
//! the variables belong to the process.
#![allow(clippy::unwrap_used, missing_docs, reason = "a failed test may panic")]

mod common;

use rmpi::{Communicator, Op};
use std::process::Command;

/// The collectives whose level depends on size.
const BLOCKS: [&str; 5] = ["GATHER", "SCATTER", "ALLGATHER", "REDUCE_SCATTER", "ALLTOALL"];

/// All of them, blocking and not.
fn blocks(c: &Communicator, n: usize) {
    let (p, me) = (c.size() as usize, c.rank() as usize);
    let from = |r: usize, i: usize| (r * 1000 + i) as u64;
    let mine: Vec<u64> = (0..n).map(|i| from(me, i)).collect();
    let all: Vec<u64> = (0..p).flat_map(|r| (0..n).map(move |i| from(r, i))).collect();
    let mut got = vec![0; n * p];
    c.allgather(&mine, &mut got).unwrap();
    assert!(got == all);
    assert!(c.iallgather(mine.clone()).unwrap().wait().unwrap() == all);
    for root in [0, c.size() - 1] {
        let whole = if c.rank() == root { all.clone() } else { Vec::new() };
        let mut got = vec![0; whole.len()];
        c.gather(&mine, &mut got, root).unwrap();
        assert!(got == whole);
        assert!(c.igather(mine.clone(), root).unwrap().wait().unwrap() == whole);
        let mut got = vec![0; n];
        c.scatter(&whole, &mut got, root).unwrap();
        assert!(got == mine);
        assert!(c.iscatter(whole, n, root).unwrap().wait().unwrap() == mine);
    }
    let counts = vec![n; p];
    let mut got = vec![0; n];
    c.reduce_scatter(&all, &mut got, &counts, &Op::Sum).unwrap();
    assert!(got.iter().zip(&mine).all(|(g, m)| *g == m * p as u64));
    assert!(c.ireduce_scatter(all.clone(), &counts, &Op::Sum).unwrap().wait().unwrap() == got);
    // Rank r's block for s is r's own list with s added.
    let out: Vec<u64> = (0..p).flat_map(|s| (0..n).map(move |i| from(me, i) + s as u64)).collect();
    let want: Vec<u64> = all.iter().map(|x| x + me as u64).collect();
    let mut got = vec![0; n * p];
    c.alltoall(&out, &mut got).unwrap();
    assert!(got == want);
    assert!(c.ialltoall(out).unwrap().wait().unwrap() == want);
}

#[test]
fn algorithms_can_be_named_and_inspected() {
    if let Ok(want) = std::env::var("RMPI_COLL_ALLREDUCE") {
        common::ranks(5, move |world| {
            let c = world.comm();
            assert!(c.explain(100).contains(&want), "{}", c.explain(100));
            let mut got = vec![0u32; 3000];
            c.allreduce(&vec![c.rank() + 1; 3000], &mut got, &Op::Sum).unwrap();
            assert!(got.iter().all(|&x| x == 15));
            world.finalize().unwrap();
        });
        return;
    }
    if std::env::var_os("RMPI_COLL_ALLTOALL").is_some() {
        // Equally many ranks a node, and a rest.
        for (p, each) in [(6, 2), (5, 3), (8, 2)] {
            common::ranks_on(p, each, |world| {
                let told = world.comm().explain(100 << 20);
                let two = told.lines().filter(|l| l.contains("two_level: ")).count();
                assert!(two >= BLOCKS.len(), "{told}");
                [0, 1, 500, 131_072].into_iter().for_each(|n| blocks(world.comm(), n));
                world.finalize().unwrap();
            });
        }
        return;
    }
    let this = || Command::new(std::env::current_exe().unwrap());
    let levels = BLOCKS.map(|c| (format!("RMPI_COLL_{c}"), "two_level"));
    let output = this().envs(levels).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let again = |value: &str| this().env("RMPI_COLL_ALLREDUCE", value).output().unwrap();
    for name in ["direct", "recursive_doubling", "rabenseifner", "ring", "chain"] {
        let output = again(name);
        assert!(output.status.success(), "{name}: {output:?}");
    }
    let output = again("fastest");
    assert!(!output.status.success());
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("Algorithm"), "{text}");
}
