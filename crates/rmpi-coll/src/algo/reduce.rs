//! Reduction to a root: [`Buffer::Input`] of every rank, [`Buffer::Output`] of the root.

use super::Reduce;
use super::tree::Tree;
use crate::{Buffer, Builder, Elems, PlanError, Region, Schedule, Team};

/// Reduction of `elems` to `root`.
///
/// # Errors
/// When there is no such root or the data cannot fit in memory.
pub fn reduce(team: Team, root: u32, elems: Elems, algorithm: Reduce) -> Result<Schedule, PlanError> {
    team.check_root(root)?;
    let mut b = Builder::new(team, elems.size);
    let n = elems.bytes()?;
    let input = Region::new(Buffer::Input, 0, n);
    let output = Region::new(Buffer::Output, 0, n);
    match algorithm {
        Reduce::Binomial => binomial(&mut b, team, root, root, input, output),
        Reduce::Ordered => binomial(&mut b, team, 0, root, input, output),
        Reduce::Linear => linear(&mut b, team, root, input, output),
        Reduce::Chain => chain(&mut b, team, root, input, output),
    }
    Ok(b.finish())
}

/// A tree around `top`, whose rank hands the result to `root`. A rank combines its own with the subtrees in
/// order of distance, so around rank 0 this is rank order.
fn binomial(b: &mut Builder, team: Team, top: u32, root: u32, input: Region, output: Region) {
    let tree = Tree::new(team, top);
    let children = tree.children();
    let mut sum = input;
    if !children.is_empty() {
        sum = if team.rank == root && top == root { output } else { b.scratch(input.len) };
        b.copy(sum, input);
    }
    for (child, _) in children {
        let theirs = b.scratch(input.len);
        b.recv(tree.rank(child), theirs);
        b.reduce(sum, theirs);
    }
    match tree.parent() {
        Some(parent) => _ = b.send(tree.rank(parent), sum),
        None if top != root => _ = b.send(root, sum),
        None => b.copy(output, sum),
    }
    if team.rank == root && top != root {
        b.recv(top, output);
    }
}

fn linear(b: &mut Builder, team: Team, root: u32, input: Region, output: Region) {
    if team.rank != root {
        b.send(root, input);
        return;
    }
    for peer in 0..team.size {
        let theirs = match peer {
            _ if peer == root => input,
            0 => output,
            _ => b.scratch(input.len),
        };
        if peer != root {
            b.recv(peer, theirs);
        }
        if peer == 0 {
            b.copy(output, theirs);
        } else {
            b.reduce(output, theirs);
        }
    }
}

fn chain(b: &mut Builder, team: Team, root: u32, input: Region, output: Region) {
    let last = team.size - 1;
    let mut sum = input;
    if team.rank > 0 {
        sum = if team.rank == last && root == last { output } else { b.scratch(input.len) };
        b.recv(team.rank - 1, sum);
        b.reduce(sum, input);
    }
    if team.rank < last {
        b.send(team.rank + 1, sum);
    } else if root != last {
        b.send(root, sum);
    } else {
        b.copy(output, sum);
    }
    if team.rank == root && root != last {
        b.recv(last, output);
    }
}
