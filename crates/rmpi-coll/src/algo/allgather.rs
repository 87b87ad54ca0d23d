//! Allgather: [`Buffer::Input`] of every rank (its block of `blocks`), all into everyone's
//! [`Buffer::Output`]. With `in_place` the block is in its place in the output already.

use super::Allgather;
use super::tree::{recv_all, send_all};
use crate::{Blocks, Buffer, Builder, PlanError, Region, Schedule, Team};

/// Allgather of blocks of equal or different sizes, known to all ranks.
///
/// # Errors
/// When there is not one block for each rank.
pub fn allgather(
    team: Team,
    blocks: &Blocks,
    in_place: bool,
    algorithm: Allgather,
) -> Result<Schedule, PlanError> {
    blocks.check(team)?;
    let mut b = Builder::new(team, blocks.elem());
    let place = blocks.of(Buffer::Output, team.rank);
    let own = if in_place { place } else { Region::new(Buffer::Input, 0, place.len) };
    match algorithm {
        Allgather::Ring => {
            b.copy(place, own);
            ring(&mut b, team, blocks);
        }
        Allgather::Bruck => bruck(&mut b, team, blocks, own),
        Allgather::RecursiveDoubling => {
            b.copy(place, own);
            doubling(&mut b, team, blocks);
        }
    }
    Ok(b.finish())
}

/// Every block goes once round the ring; this rank's is in its place in the output.
pub(crate) fn ring(b: &mut Builder, team: Team, blocks: &Blocks) {
    for step in 1..team.size {
        b.send(team.after(1), blocks.of(Buffer::Output, team.before(step - 1)));
        b.recv(team.before(1), blocks.of(Buffer::Output, team.before(step)));
    }
}

/// Blocks are gathered in a scratch copy that begins with this rank's own, then turned into their places.
fn bruck(b: &mut Builder, team: Team, blocks: &Blocks, own: Region) {
    // starts[k] is where the block of the k-th rank after this one begins.
    let mut starts = vec![0usize];
    for k in 0..team.size {
        starts.push(starts[k as usize] + blocks.of(Buffer::Output, team.after(k)).len);
    }
    let all = b.scratch(blocks.total());
    b.copy(all.part(0, own.len), own);
    let mut have = 1;
    while have < team.size {
        let more = have.min(team.size - have);
        b.send(team.before(have), all.part(0, starts[more as usize]));
        let (from, to) = (starts[have as usize], starts[(have + more) as usize]);
        b.recv(team.after(have), all.part(from, to - from));
        have += more;
    }
    for k in 0..team.size {
        let place = blocks.of(Buffer::Output, team.after(k));
        b.copy(place, all.part(starts[k as usize], place.len));
    }
}

/// Ranks past the largest power of two hand their block to a partner and get everything at the end.
fn doubling(b: &mut Builder, team: Team, blocks: &Blocks) {
    let acting = 1u32 << team.size.ilog2();
    let extra = team.size - acting;
    let rank = team.rank;
    let all = blocks.span(Buffer::Output, 0, team.size);
    if rank >= acting {
        b.send(rank - acting, blocks.of(Buffer::Output, rank));
        // All but its own block, which it has.
        b.recv(rank - acting, blocks.span(Buffer::Output, 0, rank));
        b.recv(rank - acting, blocks.span(Buffer::Output, rank + 1, team.size));
        return;
    }
    if rank < extra {
        b.recv(rank + acting, blocks.of(Buffer::Output, rank + acting));
    }
    let mut bit = 1;
    while bit < acting {
        let peer = rank ^ bit;
        let groups = |r: u32| {
            let first = r & !(bit - 1);
            let end = (first + bit + acting).min(team.size);
            let begin = (first + acting).min(end);
            [blocks.span(Buffer::Output, first, first + bit), blocks.span(Buffer::Output, begin, end)]
        };
        send_all(b, peer, &groups(rank));
        recv_all(b, peer, &groups(peer));
        bit *= 2;
    }
    if rank < extra {
        let theirs = blocks.of(Buffer::Output, rank + acting);
        let after = theirs.offset + theirs.len;
        b.send(rank + acting, all.part(0, theirs.offset));
        b.send(rank + acting, all.part(after, all.len - after));
    }
}
