//! Collectives in two levels, as schedules: among the ranks of each node, and between nodes.
//!
//! Nothing here sends a message itself: each is composed of the flat algorithms ([`crate::algo`]), embedded with
//! their ranks renamed and their buffers placed ([`Builder::embed`]). Which bytes a step touches says what it waits
//! for, so the levels overlap where they can: a broadcast inside a node begins with the first segment that comes in.
//!
//! Two shapes occur. With *heads* one rank of each node speaks for it. With *lanes*, where all nodes have equally
//! many ranks, those of one number on all nodes exchange a part of the data, so that all ranks of a node send at
//! once. Either way the bytes between nodes are those of one rank a node. Ranks may lie on nodes in any order; where
//! they do not follow each other node by node, only operations that commute may be used.

mod blocks;
#[cfg(test)]
mod tests;

use crate::select::{Layout, Selector};
use crate::{Blocks, Buffer, Builder, Elems, PlanError, Region, Schedule, StepId, Team, algo};
use rmpi_types::Costs;
use std::collections::HashMap;
use std::hash::Hash;

/// Allreduces from this many bytes on go in lanes: measured with four hosts of two ranks.
pub const SLICED: usize = 32 << 10;

/// A buffer that an embedded schedule does not use.
const NONE: Region = Region { buffer: Buffer::Scratch, offset: 0, len: 0 };

/// How ranks lie on nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nodes {
    of: Vec<usize>,
    members: Vec<Vec<u32>>,
}

impl Nodes {
    /// From what names each rank's node. Nodes are numbered in the order of their first ranks.
    #[must_use]
    pub fn new<N: Eq + Hash>(names: impl IntoIterator<Item = N>) -> Self {
        let (mut of, mut members) = (Vec::new(), Vec::<Vec<u32>>::new());
        let mut numbers = HashMap::new();
        for (rank, name) in (0u32..).zip(names) {
            let node = *numbers.entry(name).or_insert_with(|| {
                members.push(Vec::new());
                members.len() - 1
            });
            members[node].push(rank);
            of.push(node);
        }
        Self { of, members }
    }

    /// The ranks of each node, ascending.
    #[must_use]
    pub fn members(&self) -> &[Vec<u32>] {
        &self.members
    }

    /// Each rank's node.
    #[must_use]
    pub fn of(&self) -> &[usize] {
        &self.of
    }

    /// The ranks of every node, if all have equally many.
    #[must_use]
    pub fn each(&self) -> Option<usize> {
        let each = self.members.first()?.len();
        self.members.iter().all(|m| m.len() == each).then_some(each)
    }

    /// A rank of each node to speak for it: member n, counted around, of node n. Ranks are bound to cores in their
    /// order; where nodes are containers of one machine, their first members would all share its first core.
    #[must_use]
    pub fn leaders(&self) -> Vec<u32> {
        self.members.iter().enumerate().map(|(n, m)| m[n % m.len()]).collect()
    }

    /// Ranks follow each other node by node.
    #[must_use]
    pub fn in_order(&self) -> bool {
        self.of.is_sorted()
    }
}

/// One rank's view of nodes, from which its part of each collective follows.
#[derive(Clone, Debug)]
pub struct TwoLevel<'a> {
    nodes: &'a Nodes,
    team: Team,
    node: usize,
    me: usize,
    inside: Selector,
    between: Selector,
}

/// One rank of each node: the root for its own, the leader of every other.
struct Heads {
    ranks: Vec<u32>,
    /// Node of the root.
    root: u32,
    /// Number of this node's head among the node's ranks.
    first: u32,
    /// This rank is its node's.
    me: bool,
}

impl<'a> TwoLevel<'a> {
    /// The view of the team's rank. Algorithms inside and between nodes are chosen by `costs`.
    ///
    /// # Errors
    /// [`PlanError::Counts`] when `nodes` are of another number of ranks.
    pub fn new(nodes: &'a Nodes, team: Team, costs: Costs) -> Result<Self, PlanError> {
        if nodes.of.len() != team.size as usize {
            return Err(PlanError::Counts { given: nodes.of.len(), size: team.size });
        }
        let node = nodes.of[team.rank as usize];
        let mates = &nodes.members[node];
        let me = mates.partition_point(|&r| r < team.rank);
        let choose = |layout| {
            let mut selector = Selector::new(layout);
            selector.costs = costs;
            selector
        };
        let count = number(nodes.members.len());
        let inside = choose(Layout { ranks: number(mates.len()), nodes: 1 });
        let between = choose(Layout { ranks: count, nodes: count });
        Ok(Self { nodes, team, node, me, inside, between })
    }

    fn mates(&self) -> &'a [u32] {
        &self.nodes.members[self.node]
    }

    /// This rank among those of its node.
    fn inside(&self) -> Team {
        Team { rank: number(self.me), size: number(self.mates().len()), ..self.team }
    }

    /// This rank among one of each node.
    fn between(&self) -> Team {
        Team { rank: number(self.node), size: number(self.nodes.members.len()), ..self.team }
    }

    /// The ranks of this one's number on all nodes, where nodes have equally many.
    fn lane(&self) -> Option<Vec<u32>> {
        self.nodes.each()?;
        Some(self.nodes.members.iter().map(|m| m[self.me]).collect())
    }

    fn heads(&self, root: u32) -> Result<Heads, PlanError> {
        self.team.check_root(root)?;
        let mut ranks = self.nodes.leaders();
        let node = self.nodes.of[root as usize];
        ranks[node] = root;
        let head = ranks[self.node];
        let first = number(self.mates().partition_point(|&r| r < head));
        Ok(Heads { ranks, root: number(node), first, me: head == self.team.rank })
    }

    /// Barrier: a node's head waits for its ranks, meets the other heads, and lets its ranks go.
    ///
    /// # Errors
    /// None in practice: rank 0 is always there.
    pub fn barrier(&self) -> Result<Schedule, PlanError> {
        let mut b = Builder::new(self.team, 1);
        let heads = self.heads(0)?;
        if !heads.me {
            let head = heads.ranks[self.node];
            b.signal(head);
            b.await_signal(head);
            return Ok(b.finish());
        }
        let others = || self.mates().iter().filter(|&&r| r != self.team.rank);
        let mut passed: Vec<StepId> = others().map(|&r| b.await_signal(r)).collect();
        let met = b.embed(&algo::barrier(self.between()), &heads.ranks, NONE, NONE);
        passed.iter().for_each(|&heard| met.iter().for_each(|&m| b.order(heard, m)));
        passed.extend(met);
        for &r in others() {
            let go = b.signal(r);
            passed.iter().for_each(|&p| b.order(p, go));
        }
        Ok(b.finish())
    }

    /// Broadcast between heads, the root among them, then in each node. Buffers as [`algo::bcast`].
    ///
    /// # Errors
    /// As [`algo::bcast`].
    pub fn bcast(&self, root: u32, elems: Elems) -> Result<Schedule, PlanError> {
        let (heads, bytes) = (self.heads(root)?, elems.bytes()?);
        let mut b = Builder::new(self.team, elems.size);
        let data = Region::new(Buffer::Output, 0, bytes);
        if heads.me {
            let algorithm = self.between.bcast(bytes).algorithm;
            let part = algo::bcast(self.between(), heads.root, elems, algorithm)?;
            b.embed(&part, &heads.ranks, NONE, data);
        }
        self.spread(&mut b, heads.first, elems, data)?;
        Ok(b.finish())
    }

    /// Broadcast in this node.
    fn spread(&self, b: &mut Builder, first: u32, elems: Elems, data: Region) -> Result<(), PlanError> {
        let algorithm = self.inside.bcast(data.len).algorithm;
        b.embed(&algo::bcast(self.inside(), first, elems, algorithm)?, self.mates(), NONE, data);
        Ok(())
    }

    /// Reduction in each node, then between heads, the root among them. Buffers as [`algo::reduce`].
    ///
    /// # Errors
    /// As [`algo::reduce`].
    pub fn reduce(&self, root: u32, elems: Elems, commutes: bool) -> Result<Schedule, PlanError> {
        let (heads, bytes) = (self.heads(root)?, elems.bytes()?);
        let mut b = Builder::new(self.team, elems.size);
        let mine = Region::new(Buffer::Input, 0, bytes);
        let sum = self.node_sum(&mut b, &heads, elems, mine, commutes)?;
        if heads.me {
            let algorithm = self.between.reduce(bytes, commutes).algorithm;
            let part = algo::reduce(self.between(), heads.root, elems, algorithm)?;
            b.embed(&part, &heads.ranks, sum, Region::new(Buffer::Output, 0, bytes));
        }
        Ok(b.finish())
    }

    /// The combination of this node's contributions, at its head.
    fn node_sum(
        &self,
        b: &mut Builder,
        heads: &Heads,
        elems: Elems,
        mine: Region,
        commutes: bool,
    ) -> Result<Region, PlanError> {
        if self.mates().len() == 1 {
            return Ok(mine);
        }
        let sum = if heads.me { b.scratch(mine.len) } else { NONE };
        let algorithm = self.inside.reduce(mine.len, commutes).algorithm;
        b.embed(&algo::reduce(self.inside(), heads.first, elems, algorithm)?, self.mates(), mine, sum);
        Ok(sum)
    }

    /// Small ones: reduction in each node, allreduce between heads, broadcast in each node. Large ones in lanes:
    /// each rank combines a slice of its node's data, then with its lane, and the slices are collected. Buffers as
    /// [`algo::allreduce`].
    ///
    /// # Errors
    /// As [`algo::allreduce`].
    pub fn allreduce(&self, elems: Elems, in_place: bool, commutes: bool) -> Result<Schedule, PlanError> {
        let bytes = elems.bytes()?;
        let mut b = Builder::new(self.team, elems.size);
        let output = Region::new(Buffer::Output, 0, bytes);
        let mine = if in_place { output } else { Region::new(Buffer::Input, 0, bytes) };
        if let Some(lane) = self.lane().filter(|_| bytes >= SLICED) {
            let slices = Blocks::even(self.inside().size, elems)?;
            let slice = b.scratch(slices.of(Buffer::Output, self.inside().rank).len);
            let algorithm = self.inside.reduce_scatter(bytes, commutes).algorithm;
            let part = algo::reduce_scatter(self.inside(), &slices, algorithm)?;
            b.embed(&part, self.mates(), mine, slice);
            self.combined(&mut b, &lane, elems.size, slice, slice, commutes)?;
            let algorithm = self.inside.allgather(bytes).algorithm;
            let part = algo::allgather(self.inside(), &slices, false, algorithm)?;
            b.embed(&part, self.mates(), slice, output);
            return Ok(b.finish());
        }
        let heads = self.heads(0)?;
        let sum = self.node_sum(&mut b, &heads, elems, mine, commutes)?;
        if heads.me {
            self.combined(&mut b, &heads.ranks, elems.size, sum, output, commutes)?;
        }
        self.spread(&mut b, heads.first, elems, output)?;
        Ok(b.finish())
    }

    /// Allreduce among one rank of each node.
    fn combined(
        &self,
        b: &mut Builder,
        peers: &[u32],
        elem: usize,
        from: Region,
        to: Region,
        commutes: bool,
    ) -> Result<(), PlanError> {
        let elems = Elems::new(to.len / elem.max(1), elem);
        let algorithm = self.between.allreduce(to.len, commutes).algorithm;
        b.embed(&algo::allreduce(self.between(), elems, from == to, algorithm)?, peers, from, to);
        Ok(())
    }
}

/// Ranks and nodes are counted in 32 bits.
fn number(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}
