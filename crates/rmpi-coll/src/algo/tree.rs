//! Binomial trees over ranks counted from a root: rank `v` hangs under `v` without its lowest bit, and heads
//! the ranks `v .. v + lowest bit of v`.

use crate::team::wrap;
use crate::{Blocks, Buffer, Builder, Region, Team};
use std::ops::Range;

/// This rank's place.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tree {
    root: u32,
    size: u32,
    /// Distance from the root.
    pub(crate) v: u32,
}

impl Tree {
    pub(crate) fn new(team: Team, root: u32) -> Self {
        Self { root, size: team.size, v: team.before(root) }
    }

    /// The rank at distance `v`.
    pub(crate) fn rank(self, v: u32) -> u32 {
        wrap(u64::from(v) + u64::from(self.root), self.size)
    }

    /// Distance of the parent; `None` at the root.
    pub(crate) fn parent(self) -> Option<u32> {
        (self.v != 0).then(|| self.v & (self.v - 1))
    }

    /// Children with the distances they head, smallest subtree (nearest) first.
    pub(crate) fn children(self) -> Vec<(u32, Range<u32>)> {
        let mut out = Vec::new();
        let mut bit = 1u32;
        while bit < self.size && self.v & bit == 0 {
            let child = self.v + bit;
            if child < self.size {
                out.push((child, child..child.saturating_add(bit).min(self.size)));
            }
            bit = bit.saturating_mul(2);
        }
        out
    }

    /// The distances this rank heads, itself included.
    pub(crate) fn below(self) -> Range<u32> {
        self.v..self.children().last().map_or(self.v + 1, |(_, r)| r.end)
    }

    /// A range of distances as one or two ranges of ranks: it may pass the last rank.
    pub(crate) fn ranks(self, below: &Range<u32>) -> Vec<Range<u32>> {
        if below.is_empty() {
            return Vec::new();
        }
        let (from, last) = (self.rank(below.start), self.rank(below.end - 1));
        let wraps = last < from;
        let first = from..if wraps { self.size } else { last + 1 };
        std::iter::once(first).chain(wraps.then_some(0..last + 1)).collect()
    }
}

/// The pieces in which the blocks of a subtree travel, as the root has them: `(rank range, bytes)`.
pub(crate) fn pieces(tree: Tree, below: &Range<u32>, blocks: &Blocks, buffer: Buffer) -> Vec<Region> {
    tree.ranks(below).into_iter().map(|r| blocks.span(buffer, r.start, r.end)).collect()
}

/// The same pieces packed one after the other in `packed`.
pub(crate) fn packed(pieces: &[Region], packed: Region) -> Vec<Region> {
    let mut at = 0;
    pieces
        .iter()
        .map(|p| {
            let part = packed.part(at, p.len);
            at += p.len;
            part
        })
        .collect()
}

/// Sends `from` down or up piece by piece.
pub(crate) fn send_all(b: &mut Builder, peer: u32, from: &[Region]) {
    for &r in from {
        b.send(peer, r);
    }
}

/// Receives into the pieces `into`.
pub(crate) fn recv_all(b: &mut Builder, peer: u32, into: &[Region]) {
    for &r in into {
        b.recv(peer, r);
    }
}
