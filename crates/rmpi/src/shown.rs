//! `RMPI_DISPLAY_COMM=init|finalize` (`rmpirun --display-comm`): the first rank of each node says on standard error by
//! which way its ranks reach all others.

use crate::World;
use rmpi_types::{Rank, RankSet};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;

/// What the variable names.
const VARIABLE: &str = "RMPI_DISPLAY_COMM";

/// Says it when `moment` is the one asked for.
pub(crate) fn at(world: &World, moment: &str) {
    if world.local_rank() == 0 && std::env::var_os(VARIABLE).is_some_and(|wanted| wanted == moment) {
        // A closed standard error is nobody's failure here.
        let _ = std::io::stderr().write_all(line(world).as_bytes());
    }
}

fn line(world: &World) -> String {
    let me = world.rank();
    let mine = world.node_of(me);
    let mut here = RankSet::default();
    let mut ways: BTreeMap<&str, RankSet> = BTreeMap::new();
    for rank in 0..world.size() {
        if world.node_of(rank) == mine {
            here.insert(Rank(rank));
        }
        if let Some(way) = world.rail(rank).filter(|_| rank != me) {
            ways.entry(way).or_default().insert(Rank(rank));
        }
    }
    let host = world.host_of(me).unwrap_or_default();
    let mut out = format!("rmpirun: ranks {here} on {host}:");
    for (way, ranks) in &ways {
        let _ = write!(out, " {way} to {ranks};");
    }
    if ways.is_empty() {
        out.push_str(" alone;");
    }
    out.pop();
    out.push('\n');
    out
}
