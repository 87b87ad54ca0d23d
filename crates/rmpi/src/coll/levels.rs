//! Collectives in two levels: in shared memory inside each node, over messages between nodes.
//!
//! Small allreduces combine at one rank of each node, which exchange the sums. For large ones every rank combines a
//! slice of its node's data and exchanges that slice with the ranks of its number on the other nodes, so that all
//! ranks of a node send and receive at once; then the slices are collected. Between nodes goes the data of one
//! rank a node, whatever the number of ranks on it. These are blocking calls of the collectives that gain most by it;
//! all others in two levels are schedules of messages ([`rmpi_coll::levels`]).

use super::ask::{Ask, Shape};
use super::run::Scope;
use crate::comm::Communicator;
use crate::error::Error;
use crate::world::Inner;
use rmpi_coll::levels::{Nodes, SLICED};
use rmpi_coll::node::{Buffers, Call, Kind, Lens};
use rmpi_coll::select::{Layout, Selector};
use rmpi_coll::{Elems, PlanError, Team, algo};
use std::sync::Arc;

/// How a communicator's ranks lie on nodes, and this one among them.
#[derive(Debug)]
pub(crate) struct Levels {
    /// Each node's leader, of the world.
    leaders: Arc<[u32]>,
    /// This node's number among them.
    node: usize,
    /// The member of this node that is in `leaders`.
    lead: usize,
    /// The ranks of the communicator on them.
    pub(crate) nodes: Nodes,
    /// Ranks of the world with this one's number on all nodes, where nodes have equally many.
    peers: Option<Arc<[u32]>>,
    /// Chooses between nodes.
    selector: Selector,
}

impl Levels {
    /// `None` when all are on one node, or all on their own.
    pub(crate) fn new(inner: &Inner, group: &[u32]) -> Option<Self> {
        let nodes = Nodes::new(inner.nodes_of(group)?);
        let members = nodes.members();
        if members.len() < 2 || members.len() == group.len() {
            return None;
        }
        let rank = group.iter().position(|&w| w == inner.rank)?;
        let node = nodes.of()[rank];
        let me = members[node].iter().position(|&r| r as usize == rank)?;
        let peers = nodes.each().map(|_| members.iter().map(|m| group[m[me] as usize]).collect());
        let chosen = nodes.leaders();
        let lead = members[node].iter().position(|&r| r == chosen[node])?;
        let leaders: Arc<[u32]> = chosen.iter().map(|&r| group[r as usize]).collect();
        let count = u32::try_from(leaders.len()).ok()?;
        let mut selector = Selector::new(Layout { ranks: count, nodes: count });
        selector.overrides = inner.overrides;
        selector.costs = inner.tuning.costs;
        Some(Self { leaders, node, lead, nodes, peers, selector })
    }

    fn team(&self) -> Result<Team, PlanError> {
        Team::new(
            u32::try_from(self.node).unwrap_or(u32::MAX),
            u32::try_from(self.leaders.len()).unwrap_or(0),
        )
    }

    /// The leaders with `root` in the place of its node's; and its node.
    fn led_by(&self, root: u32, world: u32) -> (Arc<[u32]>, usize) {
        let node = self.nodes.of()[root as usize];
        if self.leaders[node] == world {
            return (self.leaders.clone(), node);
        }
        let mut leaders = self.leaders.to_vec();
        leaders[node] = world;
        (leaders.into(), node)
    }
}

impl Communicator {
    pub(crate) fn in_two_levels(
        &self,
        levels: &Levels,
        ask: &Ask<'_>,
        buffers: &mut Buffers<'_>,
    ) -> Result<(), Error> {
        match ask.shape {
            Shape::Barrier => self.barrier_in_two(levels, ask),
            Shape::Bcast { root, .. } => self.bcast_in_two(levels, ask, buffers, root),
            Shape::Reduce { root, .. } => self.reduce_in_two(levels, ask, buffers, root),
            Shape::Allreduce { count, .. } => self.allreduce_in_two(levels, ask, buffers, count),
            _ => Err(Error::Internal("a collective without a form in two levels")),
        }
    }

    /// A step inside this node; nothing where this rank is alone on it.
    fn inside(
        &self,
        ask: &Ask<'_>,
        kind: Kind,
        lens: Lens,
        input: Option<&[u8]>,
        output: &mut [u8],
    ) -> Result<(), Error> {
        let Some(node) = &self.shared.node else { return Ok(()) };
        let call = Call { kind, digest: ask.digest(), lens, reducer: ask.reducer.clone() };
        self.in_memory(node, ask.name(), &call, &mut Buffers { input, output }, None)
    }

    /// This rank's number on its node.
    fn place(&self) -> usize {
        self.shared.node.as_ref().map_or(0, |n| n.me())
    }

    /// The member number of a rank of the communicator on this node.
    fn member(&self, rank: u32) -> usize {
        let place = |n: &super::node::Node| n.ranks.iter().position(|&r| r == rank);
        self.shared.node.as_ref().and_then(place).unwrap_or(0)
    }

    fn barrier_in_two(&self, levels: &Levels, ask: &Ask<'_>) -> Result<(), Error> {
        let number = self.draw();
        self.inside(ask, Kind::Barrier, Lens::Each(0), None, &mut [])?;
        if self.place() == levels.lead {
            let schedule = self.planned(ask, Scope::Leaders, || Ok(algo::barrier(levels.team()?)))?;
            self.over_messages(
                &self.wire(ask, Scope::Leaders, &levels.leaders, number),
                schedule,
                &[],
                &mut [],
            )?;
        }
        self.inside(ask, Kind::Bcast { root: levels.lead }, Lens::Each(0), None, &mut [])
    }

    fn bcast_in_two(
        &self,
        levels: &Levels,
        ask: &Ask<'_>,
        buffers: &mut Buffers<'_>,
        root: u32,
    ) -> Result<(), Error> {
        let number = self.draw();
        let (leaders, node) = levels.led_by(root, self.world_rank(root)?);
        let here = node == levels.node;
        let first = if here { self.member(root) } else { levels.lead };
        let bytes = buffers.output.len();
        if self.place() == first {
            let elems = Elems::new(bytes / ask.elem, ask.elem);
            let at = u32::try_from(node).unwrap_or(0);
            let algorithm = levels.selector.bcast(bytes).algorithm;
            let make = || Ok(algo::bcast(levels.team()?, at, elems, algorithm)?);
            let schedule = self.planned(ask, Scope::Leaders, make)?;
            self.over_messages(
                &self.wire(ask, Scope::Leaders, &leaders, number),
                schedule,
                &[],
                buffers.output,
            )?;
        }
        self.inside(ask, Kind::Bcast { root: first }, Lens::Each(bytes), None, buffers.output)
    }

    fn reduce_in_two(
        &self,
        levels: &Levels,
        ask: &Ask<'_>,
        buffers: &mut Buffers<'_>,
        root: u32,
    ) -> Result<(), Error> {
        let number = self.draw();
        let (leaders, node) = levels.led_by(root, self.world_rank(root)?);
        let first = if node == levels.node { self.member(root) } else { levels.lead };
        let input = buffers.input.unwrap_or(&[]);
        let bytes = input.len();
        if self.place() != first {
            return self.inside(ask, Kind::Reduce { root: first }, Lens::Each(bytes), Some(input), &mut []);
        }
        let mut words = self.scratch(bytes);
        let sum = &mut bytemuck::cast_slice_mut::<u64, u8>(&mut words)[..bytes];
        sum.copy_from_slice(input);
        self.inside(ask, Kind::Reduce { root: first }, Lens::Each(bytes), Some(input), sum)?;
        let elems = Elems::new(bytes / ask.elem, ask.elem);
        let at = u32::try_from(node).unwrap_or(0);
        let algorithm = levels.selector.reduce(bytes, ask.commutes).algorithm;
        let make = || Ok(algo::reduce(levels.team()?, at, elems, algorithm)?);
        let schedule = self.planned(ask, Scope::Leaders, make)?;
        self.over_messages(&self.wire(ask, Scope::Leaders, &leaders, number), schedule, sum, buffers.output)?;
        self.keep_scratch(words);
        Ok(())
    }

    fn allreduce_in_two(
        &self,
        levels: &Levels,
        ask: &Ask<'_>,
        buffers: &mut Buffers<'_>,
        count: usize,
    ) -> Result<(), Error> {
        let number = self.draw();
        let bytes = buffers.output.len();
        if let (Some(node), Some(peers)) = (&self.shared.node, &levels.peers)
            && bytes >= SLICED
        {
            let (k, me) = (node.ranks.len(), node.me());
            let (each, more) = (count / k, count % k);
            let ends: Arc<[usize]> = (0..=k).map(|i| ask.elem * (i * each + i.min(more))).collect();
            let mine = ends[me]..ends[me + 1];
            let lens = Lens::Packed(ends);
            let kind = Kind::ReduceScatter;
            if buffers.input.is_some() {
                let slice = &mut buffers.output[mine.clone()];
                self.inside(ask, kind, lens.clone(), buffers.input, slice)?;
            } else {
                self.inside(ask, kind, lens.clone(), None, buffers.output)?;
            }
            self.between(levels, ask, Scope::Peers, peers, number, &mut buffers.output[mine])?;
            return self.inside(ask, Kind::Allgather, lens, None, buffers.output);
        }
        let lens = Lens::Each(bytes);
        if self.shared.node.is_none() {
            if let Some(input) = buffers.input {
                buffers.output.copy_from_slice(input);
            }
        } else {
            let kind = Kind::Reduce { root: levels.lead };
            self.inside(ask, kind, lens.clone(), buffers.input, buffers.output)?;
        }
        if self.place() == levels.lead {
            self.between(levels, ask, Scope::Leaders, &levels.leaders, number, buffers.output)?;
        }
        self.inside(ask, Kind::Bcast { root: levels.lead }, lens, None, buffers.output)
    }

    /// An allreduce in place between nodes.
    fn between(
        &self,
        levels: &Levels,
        ask: &Ask<'_>,
        scope: Scope,
        group: &Arc<[u32]>,
        number: u32,
        data: &mut [u8],
    ) -> Result<(), Error> {
        let elems = Elems::new(data.len() / ask.elem, ask.elem);
        let algorithm = levels.selector.allreduce(data.len(), ask.commutes).algorithm;
        let make = || Ok(algo::allreduce(levels.team()?, elems, true, algorithm)?);
        let schedule = self.planned(ask, scope, make)?;
        self.over_messages(&self.wire(ask, scope, group, number), schedule, &[], data)
    }
}
