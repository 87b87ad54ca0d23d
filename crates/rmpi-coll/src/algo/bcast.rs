//! Broadcast. One buffer, [`Buffer::Output`]: the root has the data in it, the others get it there.

use super::Bcast;
use super::tree::{Tree, pieces, recv_all, send_all};
use crate::{Blocks, Buffer, Builder, Elems, PlanError, Region, Schedule, Team};

/// Broadcast of `elems` from `root`.
///
/// # Errors
/// When there is no such root or the data cannot fit in memory.
pub fn bcast(team: Team, root: u32, elems: Elems, algorithm: Bcast) -> Result<Schedule, PlanError> {
    team.check_root(root)?;
    let mut b = Builder::new(team, elems.size);
    let data = Region::new(Buffer::Output, 0, elems.bytes()?);
    match algorithm {
        Bcast::Binomial => binomial(&mut b, team, root, data),
        Bcast::Chain => {
            let v = team.before(root);
            if v > 0 {
                b.recv(team.before(1), data);
            }
            if v + 1 < team.size {
                b.send(team.after(1), data);
            }
        }
        Bcast::ScatterAllgather => scatter_allgather(&mut b, team, root, &Blocks::even(team.size, elems)?),
    }
    Ok(b.finish())
}

/// Each rank hears from its parent, then tells the largest subtree first.
pub(crate) fn binomial(b: &mut Builder, team: Team, root: u32, data: Region) {
    let tree = Tree::new(team, root);
    if let Some(parent) = tree.parent() {
        b.recv(tree.rank(parent), data);
    }
    for (child, _) in tree.children().into_iter().rev() {
        b.send(tree.rank(child), data);
    }
}

fn scatter_allgather(b: &mut Builder, team: Team, root: u32, blocks: &Blocks) {
    let tree = Tree::new(team, root);
    if let Some(parent) = tree.parent() {
        recv_all(b, tree.rank(parent), &pieces(tree, &tree.below(), blocks, Buffer::Output));
    }
    for (child, below) in tree.children().into_iter().rev() {
        send_all(b, tree.rank(child), &pieces(tree, &below, blocks, Buffer::Output));
    }
    super::allgather::ring(b, team, blocks);
}
