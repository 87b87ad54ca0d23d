//! Gather: [`Buffer::Input`] of every rank into the root's [`Buffer::Output`], in rank order.

use super::Gather;
use super::tree::{Tree, packed, pieces, recv_all, send_all};
use crate::{Blocks, Buffer, Builder, Elems, PlanError, Region, Schedule, Team};

/// Gather of `each` from every rank to `root`.
///
/// # Errors
/// When there is no such root or the data cannot fit in memory.
pub fn gather(team: Team, root: u32, each: Elems, algorithm: Gather) -> Result<Schedule, PlanError> {
    let blocks = Blocks::uniform(team.size, each)?;
    match algorithm {
        Gather::Linear => gatherv(team, root, each, (team.rank == root).then_some(&blocks)),
        Gather::Binomial => {
            team.check_root(root)?;
            let mut b = Builder::new(team, each.size);
            binomial(&mut b, team, root, &blocks);
            Ok(b.finish())
        }
    }
}

/// Gather of blocks of any sizes: `mine` is this rank's; the root gives all in `blocks`, the others `None`.
///
/// # Errors
/// When there is no such root, the root's blocks are not one for each rank, or the data cannot fit in memory.
pub fn gatherv(team: Team, root: u32, mine: Elems, blocks: Option<&Blocks>) -> Result<Schedule, PlanError> {
    team.check_root(root)?;
    let mut b = Builder::new(team, mine.size);
    let own = Region::new(Buffer::Input, 0, mine.bytes()?);
    if team.rank != root {
        b.send(root, own);
        return Ok(b.finish());
    }
    let blocks = blocks.ok_or(PlanError::Counts { given: 0, size: team.size })?;
    blocks.check(team)?;
    for peer in team.others() {
        b.recv(peer, blocks.of(Buffer::Output, peer));
    }
    let place = blocks.of(Buffer::Output, root);
    b.copy(place, own.fit(place)?);
    Ok(b.finish())
}

fn binomial(b: &mut Builder, team: Team, root: u32, blocks: &Blocks) {
    let tree = Tree::new(team, root);
    let below = tree.below();
    let own = Region::new(Buffer::Input, 0, blocks.of(Buffer::Input, team.rank).len);
    if tree.parent().is_none() {
        b.copy(blocks.of(Buffer::Output, team.rank), own);
        for (child, theirs) in tree.children() {
            recv_all(b, tree.rank(child), &pieces(tree, &theirs, blocks, Buffer::Output));
        }
        return;
    }
    let mut all = own;
    if below.len() > 1 {
        all = b.scratch(own.len * below.len());
        b.copy(all.part(0, own.len), own);
        for (child, theirs) in tree.children() {
            let at = (theirs.start - below.start) as usize * own.len;
            let room = all.part(at, theirs.len() * own.len);
            recv_all(b, tree.rank(child), &packed(&pieces(tree, &theirs, blocks, Buffer::Output), room));
        }
    }
    if let Some(parent) = tree.parent() {
        let parts = packed(&pieces(tree, &below, blocks, Buffer::Output), all);
        send_all(b, tree.rank(parent), &parts);
    }
}
