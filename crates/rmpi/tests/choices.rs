//! Every algorithm that can be named gives the same result, and a wrong name is a clear error. In one test:
//! the variables belong to the process.
#![allow(clippy::unwrap_used, missing_docs, reason = "a failed test may panic")]

mod common;

use rmpi::Op;
use std::process::Command;

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
    let again = |value: &str| {
        Command::new(std::env::current_exe().unwrap()).env("RMPI_COLL_ALLREDUCE", value).output().unwrap()
    };
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
