//! The collectives of blocks in two levels. Blocks that travel together are put next to each other first: in lanes
//! ordered by the ranks' numbers on their nodes, for heads node by node. Where the ranks lie node by node the latter
//! is rank order and nothing is moved.

use super::{NONE, TwoLevel, number};
use crate::{Blocks, Buffer, Builder, Elems, PlanError, Region, Schedule, algo};

/// Blocks in another order than the ranks'.
struct Order {
    /// Whose block is at each place.
    ranks: Vec<u32>,
    /// Where they lie.
    blocks: Blocks,
    /// Those that travel together: of a lane, or of a node.
    groups: Blocks,
    /// Where each group begins among the places, and the end.
    starts: Vec<u32>,
}

impl Order {
    /// `groups`: the ranks of each.
    fn new(groups: &[Vec<u32>], blocks: &Blocks) -> Result<Self, PlanError> {
        let ranks = groups.concat();
        let counts: Vec<usize> = ranks.iter().map(|&r| blocks.count(r)).collect();
        let mut starts = vec![0];
        let mut sums = Vec::new();
        let mut at = 0;
        for group in groups {
            sums.push(counts[at..at + group.len()].iter().sum());
            at += group.len();
            starts.push(number(at));
        }
        let (blocks, groups) =
            (Blocks::packed(&counts, blocks.elem())?, Blocks::packed(&sums, blocks.elem())?);
        Ok(Self { ranks, blocks, groups, starts })
    }

    /// A group's part of `all`.
    fn part(&self, all: Region, group: usize) -> Region {
        self.groups.within(all, number(group))
    }

    /// Bytes of a group.
    fn part_len(&self, group: usize) -> usize {
        self.groups.of(Buffer::Scratch, number(group)).len
    }

    /// A group's blocks by themselves.
    fn inner(&self, group: usize) -> Result<Blocks, PlanError> {
        let counts: Vec<usize> =
            (self.starts[group]..self.starts[group + 1]).map(|i| self.blocks.count(i)).collect();
        Blocks::packed(&counts, self.blocks.elem())
    }

    /// `(in rank order, in this order)` for every block of two buffers that hold all.
    fn pairs(&self, blocks: &Blocks, by_rank: Region, here: Region) -> Vec<(Region, Region)> {
        (0..)
            .zip(&self.ranks)
            .map(|(i, &r)| (blocks.within(by_rank, r), self.blocks.within(here, i)))
            .collect()
    }
}

/// Copies `(to, from)`, neighbours at once; nothing where both are one place.
fn copy_all(b: &mut Builder, pairs: impl IntoIterator<Item = (Region, Region)>) {
    let follows = |a: Region, b: Region| a.buffer == b.buffer && a.offset + a.len == b.offset;
    let mut run: Option<(Region, Region)> = None;
    for (to, from) in pairs {
        match &mut run {
            Some((t, f)) if follows(*t, to) && follows(*f, from) => {
                t.len += to.len;
                f.len += from.len;
            }
            _ => {
                if let Some((t, f)) = run.replace((to, from)) {
                    b.copy(t, f);
                }
            }
        }
    }
    if let Some((t, f)) = run {
        b.copy(t, f);
    }
}

fn swap<T>((a, b): (T, T)) -> (T, T) {
    (b, a)
}

impl TwoLevel<'_> {
    fn by_node(&self, blocks: &Blocks) -> Result<Order, PlanError> {
        blocks.check(self.team)?;
        Order::new(&self.nodes.members, blocks)
    }

    fn by_lane(&self, blocks: &Blocks) -> Result<Order, PlanError> {
        blocks.check(self.team)?;
        let lanes: Vec<Vec<u32>> = (0..self.mates().len())
            .map(|i| self.nodes.members.iter().filter_map(|m| m.get(i).copied()).collect())
            .collect();
        Order::new(&lanes, blocks)
    }

    /// `whole` if that is in node order, else scratch for as much.
    fn room(&self, b: &mut Builder, whole: Region) -> Region {
        if self.nodes.in_order() { whole } else { b.scratch(whole.len) }
    }

    /// Gather in each node, then between heads, the root among them. Buffers as [`algo::gather`].
    ///
    /// # Errors
    /// As [`algo::gather`].
    pub fn gather(&self, root: u32, each: Elems) -> Result<Schedule, PlanError> {
        let (heads, blocks) = (self.heads(root)?, Blocks::uniform(self.team.size, each)?);
        let mut b = Builder::new(self.team, each.size);
        let order = self.by_node(&blocks)?;
        let at_root = self.team.rank == root;
        let whole = Region::new(Buffer::Output, 0, if at_root { blocks.total() } else { 0 });
        let all = self.room(&mut b, whole);
        let own = Region::new(Buffer::Input, 0, each.bytes()?);
        let bundle = match heads.me {
            true if at_root => order.part(all, self.node),
            true if self.mates().len() == 1 => own,
            true => b.scratch(order.part_len(self.node)),
            false => NONE,
        };
        if bundle != own {
            let algorithm = self.inside.gather(own.len).algorithm;
            b.embed(&algo::gather(self.inside(), heads.first, each, algorithm)?, self.mates(), own, bundle);
        }
        if heads.me {
            let mine = Elems::new(bundle.len / each.size, each.size);
            let part = match self.nodes.each() {
                Some(_) => {
                    let algorithm = self.between.gather(bundle.len).algorithm;
                    algo::gather(self.between(), heads.root, mine, algorithm)?
                }
                None => algo::gatherv(self.between(), heads.root, mine, at_root.then_some(&order.groups))?,
            };
            b.embed(&part, &heads.ranks, bundle, all);
        }
        if at_root {
            copy_all(&mut b, order.pairs(&blocks, whole, all));
        }
        Ok(b.finish())
    }

    /// Scatter between heads, the root among them, then in each node. Buffers as [`algo::scatter`].
    ///
    /// # Errors
    /// As [`algo::scatter`].
    pub fn scatter(&self, root: u32, each: Elems) -> Result<Schedule, PlanError> {
        let (heads, blocks) = (self.heads(root)?, Blocks::uniform(self.team.size, each)?);
        let mut b = Builder::new(self.team, each.size);
        let order = self.by_node(&blocks)?;
        let at_root = self.team.rank == root;
        let whole = Region::new(Buffer::Input, 0, if at_root { blocks.total() } else { 0 });
        let all = self.room(&mut b, whole);
        if at_root {
            copy_all(&mut b, order.pairs(&blocks, whole, all).into_iter().map(swap));
        }
        let own = Region::new(Buffer::Output, 0, each.bytes()?);
        let alone = self.mates().len() == 1;
        let mut bundle = NONE;
        if heads.me {
            bundle = if alone { own } else { b.scratch(order.part_len(self.node)) };
            let mine = Elems::new(bundle.len / each.size, each.size);
            let part = match self.nodes.each() {
                Some(_) => {
                    let algorithm = self.between.scatter(bundle.len).algorithm;
                    algo::scatter(self.between(), heads.root, mine, algorithm)?
                }
                None => algo::scatterv(self.between(), heads.root, mine, at_root.then_some(&order.groups))?,
            };
            b.embed(&part, &heads.ranks, all, bundle);
        }
        if !alone {
            let algorithm = self.inside.scatter(own.len).algorithm;
            b.embed(&algo::scatter(self.inside(), heads.first, each, algorithm)?, self.mates(), bundle, own);
        }
        Ok(b.finish())
    }

    /// In lanes: each collects its blocks, then the lanes of a node are collected. Else gather in each node,
    /// allgather between heads, broadcast in each node. Buffers as [`algo::allgather`], not in place.
    ///
    /// # Errors
    /// As [`algo::allgather`].
    pub fn allgather(&self, blocks: &Blocks) -> Result<Schedule, PlanError> {
        let mut b = Builder::new(self.team, blocks.elem());
        let own = Region::new(Buffer::Input, 0, blocks.of(Buffer::Input, self.team.rank).len);
        let whole = Region::new(Buffer::Output, 0, blocks.total());
        if let Some(lane) = self.lane() {
            let order = self.by_lane(blocks)?;
            let all = b.scratch(whole.len);
            let mine = order.part(all, self.me);
            let algorithm = self.between.allgather(mine.len).algorithm;
            let part = algo::allgather(self.between(), &order.inner(self.me)?, false, algorithm)?;
            b.embed(&part, &lane, own, mine);
            let algorithm = self.inside.allgather(all.len).algorithm;
            let part = algo::allgather(self.inside(), &order.groups, true, algorithm)?;
            b.embed(&part, self.mates(), NONE, all);
            copy_all(&mut b, order.pairs(blocks, whole, all));
            return Ok(b.finish());
        }
        let (heads, order) = (self.heads(0)?, self.by_node(blocks)?);
        let all = self.room(&mut b, whole);
        let mine = Elems::new(own.len / blocks.elem(), blocks.elem());
        let inner = order.inner(self.node)?;
        let part = algo::gatherv(self.inside(), heads.first, mine, heads.me.then_some(&inner))?;
        b.embed(&part, self.mates(), own, order.part(all, self.node));
        if heads.me {
            let algorithm = self.between.allgather(all.len).algorithm;
            let part = algo::allgather(self.between(), &order.groups, true, algorithm)?;
            b.embed(&part, &heads.ranks, NONE, all);
        }
        self.spread(&mut b, heads.first, Elems::new(all.len / blocks.elem(), blocks.elem()), all)?;
        copy_all(&mut b, order.pairs(blocks, whole, all));
        Ok(b.finish())
    }

    /// In lanes: reduce-scatter of the lanes' parts in each node, then in each lane. Else reduction in each node,
    /// reduce-scatter between heads, scatter in each node. Buffers as [`algo::reduce_scatter`].
    ///
    /// # Errors
    /// As [`algo::reduce_scatter`].
    pub fn reduce_scatter(&self, blocks: &Blocks, commutes: bool) -> Result<Schedule, PlanError> {
        let mut b = Builder::new(self.team, blocks.elem());
        let whole = Region::new(Buffer::Input, 0, blocks.total());
        let own = Region::new(Buffer::Output, 0, blocks.of(Buffer::Output, self.team.rank).len);
        if let Some(lane) = self.lane() {
            let order = self.by_lane(blocks)?;
            let all = b.scratch(whole.len);
            copy_all(&mut b, order.pairs(blocks, whole, all).into_iter().map(swap));
            let sums = b.scratch(order.part_len(self.me));
            let algorithm = self.inside.reduce_scatter(all.len, commutes).algorithm;
            let part = algo::reduce_scatter(self.inside(), &order.groups, algorithm)?;
            b.embed(&part, self.mates(), all, sums);
            let algorithm = self.between.reduce_scatter(sums.len, commutes).algorithm;
            let part = algo::reduce_scatter(self.between(), &order.inner(self.me)?, algorithm)?;
            b.embed(&part, &lane, sums, own);
            return Ok(b.finish());
        }
        let (heads, order) = (self.heads(0)?, self.by_node(blocks)?);
        let elems = Elems::new(whole.len / blocks.elem(), blocks.elem());
        let sum = self.node_sum(&mut b, &heads, elems, whole, commutes)?;
        let mut bundle = NONE;
        if heads.me {
            let all = self.room(&mut b, sum);
            copy_all(&mut b, order.pairs(blocks, sum, all).into_iter().map(swap));
            bundle = b.scratch(order.part_len(self.node));
            let algorithm = self.between.reduce_scatter(all.len, commutes).algorithm;
            let part = algo::reduce_scatter(self.between(), &order.groups, algorithm)?;
            b.embed(&part, &heads.ranks, all, bundle);
        }
        let mine = Elems::new(own.len / blocks.elem(), blocks.elem());
        let inner = order.inner(self.node)?;
        let part = algo::scatterv(self.inside(), heads.first, mine, heads.me.then_some(&inner))?;
        b.embed(&part, self.mates(), bundle, own);
        Ok(b.finish())
    }

    /// In lanes: a rank gives its mates what is for their lanes, then each lane exchanges what its nodes have for
    /// each other. Else everything through the heads. `each` to and from every rank; buffers as [`algo::alltoall`].
    ///
    /// # Errors
    /// As [`algo::alltoall`].
    pub fn alltoall(&self, each: Elems) -> Result<Schedule, PlanError> {
        let blocks = Blocks::uniform(self.team.size, each)?;
        let mut b = Builder::new(self.team, each.size);
        let input = Region::new(Buffer::Input, 0, blocks.total());
        let output = Region::new(Buffer::Output, 0, blocks.total());
        let nodes = self.nodes.members.len();
        let k = self.mates().len();
        let times = |n: usize| Elems::new(each.count.saturating_mul(n), each.size);
        // The i-th of `all`'s blocks.
        let at = |all: Region, i: usize| blocks.within(all, number(i));
        if let Some(lane) = self.lane() {
            let (by_lane, by_node) = (self.by_lane(&blocks)?, self.by_node(&blocks)?);
            let [give, got, forth] = [(); 3].map(|()| b.scratch(input.len));
            copy_all(&mut b, by_lane.pairs(&blocks, input, give).into_iter().map(swap));
            let lanes = Blocks::uniform(number(k), times(nodes))?;
            b.embed(&algo::alltoall(self.inside(), &lanes, &lanes)?, self.mates(), give, got);
            // From mate by mate to node by node.
            let turned = (0..nodes * k).map(|i| (at(forth, i), at(got, i % k * nodes + i / k)));
            copy_all(&mut b, turned);
            let back = self.room(&mut b, output);
            let bundles = Blocks::uniform(number(nodes), times(k))?;
            b.embed(&algo::alltoall(self.between(), &bundles, &bundles)?, &lane, forth, back);
            copy_all(&mut b, by_node.pairs(&blocks, output, back));
            return Ok(b.finish());
        }
        let (heads, p) = (self.heads(0)?, self.nodes.of.len());
        let rows = Blocks::uniform(number(k), times(p))?;
        let [got, forth, back, give] =
            if heads.me { [(); 4].map(|()| b.scratch(rows.total())) } else { [NONE; 4] };
        let algorithm = self.inside.gather(input.len).algorithm;
        b.embed(&algo::gather(self.inside(), heads.first, times(p), algorithm)?, self.mates(), input, got);
        if heads.me {
            let cells = Blocks::uniform(number(k * p), each)?;
            let at = |all: Region, i: usize| cells.within(all, number(i));
            // Between two nodes: for each rank here one block for, or from, each rank there.
            let sizes: Vec<usize> = self.nodes.members.iter().map(|m| each.count * m.len() * k).collect();
            let bundles = Blocks::packed(&sizes, each.size)?;
            let (mut out, mut into) = (Vec::new(), Vec::new());
            for theirs in &self.nodes.members {
                for mine in 0..k {
                    for &r in theirs {
                        out.push((at(forth, out.len()), at(got, mine * p + r as usize)));
                    }
                }
                for &r in theirs {
                    for mine in 0..k {
                        into.push((at(give, mine * p + r as usize), at(back, into.len())));
                    }
                }
            }
            copy_all(&mut b, out);
            b.embed(&algo::alltoall(self.between(), &bundles, &bundles)?, &heads.ranks, forth, back);
            copy_all(&mut b, into);
        }
        let algorithm = self.inside.scatter(input.len).algorithm;
        b.embed(&algo::scatter(self.inside(), heads.first, times(p), algorithm)?, self.mates(), give, output);
        Ok(b.finish())
    }
}
