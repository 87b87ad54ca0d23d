//! Reduce-scatter: [`Buffer::Input`] of every rank holds a block for each rank; [`Buffer::Output`] gets this
//! rank's block, combined over all ranks.

use super::ReduceScatter;
use crate::{Blocks, Buffer, Builder, PlanError, Region, Schedule, Team};

/// Reduce-scatter of blocks of equal or different sizes, known to all ranks.
///
/// # Errors
/// When there is not one block for each rank.
pub fn reduce_scatter(team: Team, blocks: &Blocks, algorithm: ReduceScatter) -> Result<Schedule, PlanError> {
    blocks.check(team)?;
    let mut b = Builder::new(team, blocks.elem());
    let output = Region::new(Buffer::Output, 0, blocks.of(Buffer::Input, team.rank).len);
    match algorithm {
        ReduceScatter::Pairwise => pairwise(&mut b, team, blocks, output),
        ReduceScatter::Ring => ring(&mut b, team, blocks, output),
    }
    Ok(b.finish())
}

fn pairwise(b: &mut Builder, team: Team, blocks: &Blocks, output: Region) {
    let own = blocks.of(Buffer::Input, team.rank);
    let mut theirs = vec![own; team.size as usize];
    for step in 1..team.size {
        let (to, from) = (team.after(step), team.before(step));
        b.send(to, blocks.of(Buffer::Input, to));
        theirs[from as usize] = if from == 0 { output } else { b.scratch(own.len) };
        b.recv(from, theirs[from as usize]);
    }
    b.copy(output, theirs[0]);
    for &t in &theirs[1..] {
        b.reduce(output, t);
    }
}

/// The block of rank k starts at rank k + 1 and gathers each rank's part on its way round to rank k.
fn ring(b: &mut Builder, team: Team, blocks: &Blocks, output: Region) {
    let spares = [b.scratch(blocks.largest()), b.scratch(blocks.largest())];
    let mut sum = blocks.of(Buffer::Input, team.before(1));
    for step in 1..team.size {
        b.send(team.after(1), sum);
        let own = blocks.of(Buffer::Input, team.before(step + 1));
        sum = if step + 1 == team.size { output } else { spares[step as usize % 2].part(0, own.len) };
        b.recv(team.before(1), sum);
        b.reduce(sum, own);
    }
    b.copy(output, sum);
}
