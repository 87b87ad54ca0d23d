//! Scatter: the root's [`Buffer::Input`], in rank order, into everyone's [`Buffer::Output`].

use super::Scatter;
use super::tree::{Tree, packed, pieces, recv_all, send_all};
use crate::{Blocks, Buffer, Builder, Elems, PlanError, Region, Schedule, Team};

/// Scatter of `each` to every rank from `root`.
///
/// # Errors
/// When there is no such root or the data cannot fit in memory.
pub fn scatter(team: Team, root: u32, each: Elems, algorithm: Scatter) -> Result<Schedule, PlanError> {
    let blocks = Blocks::uniform(team.size, each)?;
    match algorithm {
        Scatter::Linear => scatterv(team, root, each, (team.rank == root).then_some(&blocks)),
        Scatter::Binomial => {
            team.check_root(root)?;
            let mut b = Builder::new(team, each.size);
            binomial(&mut b, team, root, &blocks);
            Ok(b.finish())
        }
    }
}

/// Scatter of blocks of any sizes: `mine` is this rank's; the root gives all in `blocks`, the others `None`.
///
/// # Errors
/// When there is no such root, the root's blocks are not one for each rank, or the data cannot fit in memory.
pub fn scatterv(team: Team, root: u32, mine: Elems, blocks: Option<&Blocks>) -> Result<Schedule, PlanError> {
    team.check_root(root)?;
    let mut b = Builder::new(team, mine.size);
    let own = Region::new(Buffer::Output, 0, mine.bytes()?);
    if team.rank != root {
        b.recv(root, own);
        return Ok(b.finish());
    }
    let blocks = blocks.ok_or(PlanError::Counts { given: 0, size: team.size })?;
    blocks.check(team)?;
    for peer in team.others() {
        b.send(peer, blocks.of(Buffer::Input, peer));
    }
    let place = blocks.of(Buffer::Input, root);
    b.copy(own.fit(place)?, place);
    Ok(b.finish())
}

fn binomial(b: &mut Builder, team: Team, root: u32, blocks: &Blocks) {
    let tree = Tree::new(team, root);
    let below = tree.below();
    let own = Region::new(Buffer::Output, 0, blocks.of(Buffer::Input, team.rank).len);
    let mut all = own;
    if let Some(parent) = tree.parent() {
        if below.len() > 1 {
            all = b.scratch(own.len * below.len());
        }
        let parts = packed(&pieces(tree, &below, blocks, Buffer::Input), all);
        recv_all(b, tree.rank(parent), &parts);
    }
    for (child, theirs) in tree.children().into_iter().rev() {
        let mut parts = pieces(tree, &theirs, blocks, Buffer::Input);
        if tree.parent().is_some() {
            let at = (theirs.start - below.start) as usize * own.len;
            parts = packed(&parts, all.part(at, theirs.len() * own.len));
        }
        send_all(b, tree.rank(child), &parts);
    }
    if tree.parent().is_none() {
        b.copy(own, blocks.of(Buffer::Input, team.rank));
    } else {
        b.copy(own, all.part(0, own.len));
    }
}
