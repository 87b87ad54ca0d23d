//! Reduction to all. All ranks end with the same bits: each element is either combined at one rank and then
//! copied, or combined everywhere in the same operand order.

use super::Allreduce;
use crate::{Blocks, Buffer, Builder, Elems, PlanError, Region, Schedule, Team};

/// Segments of the ring of two ranks. Measured over TCP: 1 MiB (halves of that) 0.55 of Open MPI's time, 4 MiB 0.60, with halves in
/// one piece 0.80; segments of 256 KiB were behind at 1 MiB.
const PAIR_SEGMENT: usize = 512 << 10;

/// Allreduce of `elems`. With `in_place` the contribution is in [`Buffer::Output`], where the result goes,
/// and there is no input buffer.
///
/// # Errors
/// When the data cannot fit in memory.
pub fn allreduce(
    team: Team,
    elems: Elems,
    in_place: bool,
    algorithm: Allreduce,
) -> Result<Schedule, PlanError> {
    // Two ranks send that much without asking, and what has come is summed while it is in the cache.
    let two = team.size == 2 && algorithm == Allreduce::Ring;
    let mut b = Builder::new(if two { team.with_segment(PAIR_SEGMENT) } else { team }, elems.size);
    let n = elems.bytes()?;
    let output = Region::new(Buffer::Output, 0, n);
    let mine = if in_place { output } else { Region::new(Buffer::Input, 0, n) };
    let alone = team.size == 1;
    match algorithm {
        _ if alone => b.copy(output, mine),
        Allreduce::Direct => direct(&mut b, team, mine, output),
        Allreduce::RecursiveDoubling => doubling(&mut b, team, mine, output),
        Allreduce::Rabenseifner => rabenseifner(&mut b, team, elems, mine, output)?,
        Allreduce::Ring => ring(&mut b, team, &Blocks::even(team.size, elems)?, in_place),
        Allreduce::Chain => chain(&mut b, team, mine, output),
    }
    Ok(b.finish())
}

fn direct(b: &mut Builder, team: Team, mine: Region, output: Region) {
    for peer in team.others() {
        b.send(peer, mine);
    }
    let place = |peer| match peer {
        _ if peer == team.rank => mine,
        0 if mine != output => output,
        _ => b.scratch(mine.len),
    };
    let theirs: Vec<Region> = (0..team.size).map(place).collect();
    for peer in team.others() {
        b.recv(peer, theirs[peer as usize]);
    }
    // The result grows where rank 0's contribution came in, unless that is the caller's own input.
    let sum = if team.rank == 0 { output } else { theirs[0] };
    b.copy(sum, theirs[0]);
    for &t in &theirs[1..] {
        b.reduce(sum, t);
    }
    b.copy(output, sum);
}

/// Ranks when p is not a power of two: the first `2 × extra` are paired, each pair acts as one.
struct Folded {
    /// Number of acting ranks, a power of two.
    acting: u32,
    extra: u32,
    /// This rank's number among the acting; `None` when its neighbour acts for it.
    me: Option<u32>,
}

impl Folded {
    fn new(team: Team) -> Self {
        let acting = 1 << team.size.ilog2();
        let extra = team.size - acting;
        let me = match team.rank {
            r if r >= 2 * extra => Some(r - extra),
            r => (r % 2 == 0).then_some(r / 2),
        };
        Self { acting, extra, me }
    }

    fn rank(&self, acting: u32) -> u32 {
        if acting < self.extra { 2 * acting } else { acting + self.extra }
    }

    /// Before: the odd one of a pair hands its data over, which the even one adds to `sum` through `spare`.
    fn fold(&self, b: &mut Builder, team: Team, sum: Region, spare: Region) {
        if team.rank >= 2 * self.extra {
        } else if self.me.is_some() {
            b.recv(team.rank + 1, spare);
            b.reduce(sum, spare);
        } else {
            b.send(team.rank - 1, sum);
        }
    }

    /// After: the odd one gets the result.
    fn unfold(&self, b: &mut Builder, team: Team, output: Region) {
        if team.rank >= 2 * self.extra {
        } else if self.me.is_some() {
            b.send(team.rank + 1, output);
        } else {
            b.recv(team.rank - 1, output);
        }
    }
}

fn doubling(b: &mut Builder, team: Team, mine: Region, output: Region) {
    let folded = Folded::new(team);
    let Some(me) = folded.me else {
        b.send(team.rank - 1, mine);
        folded.unfold(b, team, output);
        return;
    };
    let mut spare = b.scratch(mine.len);
    let mut sum = output;
    b.copy(sum, mine);
    folded.fold(b, team, sum, spare);
    let mut bit = 1;
    while bit < folded.acting {
        let peer = folded.rank(me ^ bit);
        b.send(peer, sum);
        b.recv(peer, spare);
        // Blocks of ranks stay in order: the lower half is the left operand on both sides.
        if me & bit == 0 {
            b.reduce(sum, spare);
        } else {
            b.reduce(spare, sum);
            std::mem::swap(&mut sum, &mut spare);
        }
        bit *= 2;
    }
    b.copy(output, sum);
    folded.unfold(b, team, output);
}

fn rabenseifner(
    b: &mut Builder,
    team: Team,
    elems: Elems,
    mine: Region,
    output: Region,
) -> Result<(), PlanError> {
    let folded = Folded::new(team);
    let Some(me) = folded.me else {
        b.send(team.rank - 1, mine);
        folded.unfold(b, team, output);
        return Ok(());
    };
    let blocks = Blocks::even(folded.acting, elems)?;
    let mut spare = b.scratch(mine.len);
    let mut sum = output;
    b.copy(sum, mine);
    folded.fold(b, team, sum, spare);
    // Neighbours first, so that what is combined is always a run of ranks in order. Which blocks a rank keeps
    // is decided by its bits from the lowest up: the high block numbers are split by the lowest bit.
    let (mut low, mut high) = (0u32, folded.acting);
    let mut halvings = Vec::new();
    let mut bit = 1;
    while bit < folded.acting {
        let middle = low.midpoint(high);
        let (keep, give) =
            if me & bit == 0 { ((low, middle), (middle, high)) } else { ((middle, high), (low, middle)) };
        let part = |of: Region, (from, to): (u32, u32)| {
            let span = blocks.span(Buffer::Output, from, to);
            of.part(span.offset, span.len)
        };
        let peer = folded.rank(me ^ bit);
        b.send(peer, part(sum, give));
        b.recv(peer, part(spare, keep));
        if me & bit == 0 {
            b.reduce(part(sum, keep), part(spare, keep));
        } else {
            b.reduce(part(spare, keep), part(sum, keep));
            std::mem::swap(&mut sum, &mut spare);
        }
        halvings.push((peer, keep, give));
        (low, high) = keep;
        bit *= 2;
    }
    let own = blocks.span(Buffer::Output, low, high);
    b.copy(own, sum.part(own.offset, own.len));
    for (peer, keep, give) in halvings.into_iter().rev() {
        b.send(peer, blocks.span(Buffer::Output, keep.0, keep.1));
        b.recv(peer, blocks.span(Buffer::Output, give.0, give.1));
    }
    folded.unfold(b, team, output);
    Ok(())
}

/// Block k starts at rank k and gathers each rank's part on its way to rank k − 1, then goes round once more.
fn ring(b: &mut Builder, team: Team, blocks: &Blocks, in_place: bool) {
    let (next, previous) = (team.after(1), team.before(1));
    let source = if in_place { Buffer::Output } else { Buffer::Input };
    // In place, sums travel through two spare blocks, used in turn; else the output serves.
    let spares =
        if in_place { vec![b.scratch(blocks.largest()), b.scratch(blocks.largest())] } else { Vec::new() };
    let mut sum = blocks.of(source, team.rank);
    for step in 1..team.size {
        b.send(next, sum);
        let block = team.before(step);
        let own = blocks.of(source, block);
        sum = match spares.get(step as usize % 2) {
            Some(spare) => spare.part(0, own.len),
            None => blocks.of(Buffer::Output, block),
        };
        b.recv(previous, sum);
        b.reduce(sum, own);
    }
    b.copy(blocks.of(Buffer::Output, next), sum);
    for step in 0..team.size - 1 {
        b.send(next, blocks.of(Buffer::Output, team.before(step + team.size - 1)));
        b.recv(previous, blocks.of(Buffer::Output, team.before(step)));
    }
}

fn chain(b: &mut Builder, team: Team, mine: Region, output: Region) {
    let last = team.size - 1;
    let mut sum = mine;
    if team.rank > 0 {
        sum = b.scratch(mine.len);
        b.recv(team.rank - 1, sum);
        b.reduce(sum, mine);
    }
    if team.rank < last {
        b.send(team.rank + 1, sum);
        b.recv(team.rank + 1, output);
    } else {
        b.copy(output, sum);
    }
    if team.rank > 0 {
        b.send(team.rank - 1, output);
    }
}
