//! What a collective call asks for, without the types of its buffers: from this follow the digest that all ranks
//! compare, the schedule, and the call in shared memory. Nothing here allocates for the common collectives.

use super::levels::Levels;
use crate::comm::Communicator;
use crate::datatype::{Datatype, code};
use crate::error::Error;
use crate::op::Reduction;
use rmpi_coll::kernels::Reducer;
use rmpi_coll::levels::TwoLevel;
use rmpi_coll::node::{Buffers, Call, Kind, Lens};
use rmpi_coll::select::Collective;
use rmpi_coll::{Blocks, Elems, Schedule, Team, algo};
use std::io::Write as _;
use std::sync::PoisonError;

/// The collective and the numbers that shape it, in elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Shape {
    Barrier,
    Bcast { count: usize, root: u32 },
    Reduce { count: usize, root: u32 },
    Allreduce { count: usize, in_place: bool },
    Gather { each: usize, root: u32 },
    Gatherv { mine: usize, root: u32 },
    Scatter { each: usize, root: u32 },
    Scatterv { mine: usize, root: u32 },
    Allgather { each: usize },
    Allgatherv,
    ReduceScatter { each: usize },
    ReduceScatterv,
    Alltoall { each: usize },
    Alltoallv,
    Scan { count: usize },
    Exscan { count: usize },
}

/// One call.
#[derive(Clone, Debug)]
pub(crate) struct Ask<'a> {
    pub(crate) shape: Shape,
    /// Bytes of an element, and its type's code.
    pub(crate) elem: usize,
    dtype: u16,
    pub(crate) reducer: Option<Reducer>,
    pub(crate) commutes: bool,
    /// The counts of the `v` collectives: one list, or what goes out and what comes in.
    lists: [&'a [usize]; 2],
}

/// What two calls must have in common to run one schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    shape: Shape,
    elem: usize,
    commutes: bool,
}

impl<'a> Ask<'a> {
    #[inline]
    pub(crate) fn new<T: Datatype>(shape: Shape) -> Self {
        let (elem, dtype) = (size_of::<T>(), code(T::TYPE));
        Self { shape, elem, dtype, reducer: None, commutes: true, lists: [&[], &[]] }
    }

    #[inline]
    pub(crate) fn reducing<T: Datatype>(shape: Shape, op: &impl Reduction<T>) -> Result<Self, Error> {
        let op = op.erase()?;
        Ok(Self { reducer: Some(op.reducer), commutes: op.commutative, ..Self::new::<T>(shape) })
    }

    #[inline]
    pub(crate) fn allreduce<T: Datatype>(
        count: usize,
        op: &impl Reduction<T>,
        in_place: bool,
    ) -> Result<Self, Error> {
        Self::reducing::<T>(Shape::Allreduce { count, in_place }, op)
    }

    pub(crate) fn with_counts(self, out: &'a [usize], into: &'a [usize]) -> Self {
        Self { lists: [out, into], ..self }
    }

    /// For errors.
    pub(crate) fn name(&self) -> &'static str {
        match self.shape {
            Shape::Barrier => "barrier",
            Shape::Bcast { .. } => "broadcast",
            Shape::Reduce { .. } => "reduce",
            Shape::Allreduce { .. } => "allreduce",
            Shape::Gather { .. } => "gather",
            Shape::Gatherv { .. } => "gatherv",
            Shape::Scatter { .. } => "scatter",
            Shape::Scatterv { .. } => "scatterv",
            Shape::Allgather { .. } | Shape::Allgatherv => "allgather",
            Shape::ReduceScatter { .. } | Shape::ReduceScatterv => "reduce_scatter",
            Shape::Alltoall { .. } => "alltoall",
            Shape::Alltoallv => "alltoallv",
            Shape::Scan { .. } => "scan",
            Shape::Exscan { .. } => "exscan",
        }
    }

    #[inline]
    pub(crate) fn collective(&self) -> Collective {
        match self.shape {
            Shape::Barrier => Collective::Barrier,
            Shape::Bcast { .. } => Collective::Bcast,
            Shape::Reduce { .. } => Collective::Reduce,
            Shape::Allreduce { .. } => Collective::Allreduce,
            Shape::Gather { .. } | Shape::Gatherv { .. } => Collective::Gather,
            Shape::Scatter { .. } | Shape::Scatterv { .. } => Collective::Scatter,
            Shape::Allgather { .. } | Shape::Allgatherv => Collective::Allgather,
            Shape::ReduceScatter { .. } | Shape::ReduceScatterv => Collective::ReduceScatter,
            Shape::Alltoall { .. } | Shape::Alltoallv => Collective::Alltoall,
            Shape::Scan { .. } | Shape::Exscan { .. } => Collective::Scan,
        }
    }

    /// Of what must be the same on all ranks; never 0.
    #[inline]
    pub(crate) fn digest(&self) -> u32 {
        let op = self.reducer.as_ref().map_or(0, Reducer::code);
        let (which, a, b) = match self.shape {
            Shape::Barrier => (1, 0, 0),
            Shape::Bcast { count, root } => (2, count, root),
            Shape::Reduce { count, root } => (3, count, root),
            // Some may do it in place.
            Shape::Allreduce { count, .. } => (4, count, 0),
            Shape::Gather { each, root } => (5, each, root),
            Shape::Gatherv { root, .. } => (6, 0, root),
            Shape::Scatter { each, root } => (7, each, root),
            Shape::Scatterv { root, .. } => (8, 0, root),
            Shape::Allgather { each } => (9, each, 0),
            Shape::Allgatherv => (10, 0, 0),
            Shape::ReduceScatter { each } => (11, each, 0),
            Shape::ReduceScatterv => (12, 0, 0),
            Shape::Alltoall { each } => (13, each, 0),
            Shape::Alltoallv => (14, 0, 0),
            Shape::Scan { count } => (15, count, 0),
            Shape::Exscan { count } => (16, count, 0),
        };
        let mix = |h: u64, x: u64| (h.rotate_left(23) ^ x).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let head = which | u64::from(self.dtype) << 8 | u64::from(op) << 24 | u64::from(b) << 32;
        let mut h = mix(mix(0x51, head), a as u64);
        if matches!(self.shape, Shape::Allgatherv | Shape::ReduceScatterv) {
            h = self.lists[0].iter().fold(h, |h, &c| mix(h, c as u64));
        }
        (h >> 32) as u32 | 1
    }

    /// The digest as messages carry it; never 0.
    pub(crate) fn check(&self) -> u16 {
        let d = self.digest();
        ((d >> 16) ^ (d & 0xffff)) as u16 | 1
    }

    /// Whether all ranks know all sizes, and there is a form in two levels.
    pub(crate) fn has_two_levels(&self) -> bool {
        use Shape::{Alltoallv, Exscan, Gatherv, Scan, Scatterv};
        !matches!(self.shape, Gatherv { .. } | Scatterv { .. } | Alltoallv | Scan { .. } | Exscan { .. })
    }

    /// Whether a blocking call in two levels uses the nodes' memory as such, not only messages through it.
    pub(crate) fn in_nodes_memory(&self) -> bool {
        matches!(
            self.shape,
            Shape::Barrier | Shape::Bcast { .. } | Shape::Reduce { .. } | Shape::Allreduce { .. }
        )
    }

    /// The schedule over messages inside the nodes and between them.
    pub(crate) fn schedule_in_two(&self, comm: &Communicator, levels: &Levels) -> Result<Schedule, Error> {
        let team = comm.team()?;
        let view = TwoLevel::new(&levels.nodes, team, comm.selector.costs)?;
        let elems = |count| Elems::new(count, self.elem);
        let all = || Ok::<_, Error>(Blocks::packed(self.lists[0], self.elem)?);
        let each = |count| Ok::<_, Error>(Blocks::uniform(team.size(), elems(count))?);
        Ok(match self.shape {
            Shape::Barrier => view.barrier()?,
            Shape::Bcast { count, root } => view.bcast(root, elems(count))?,
            Shape::Reduce { count, root } => view.reduce(root, elems(count), self.commutes)?,
            Shape::Allreduce { count, in_place } => view.allreduce(elems(count), in_place, self.commutes)?,
            Shape::Gather { each, root } => view.gather(root, elems(each))?,
            Shape::Scatter { each, root } => view.scatter(root, elems(each))?,
            Shape::Allgather { each: n } => view.allgather(&each(n)?)?,
            Shape::Allgatherv => view.allgather(&all()?)?,
            Shape::ReduceScatter { each: n } => view.reduce_scatter(&each(n)?, self.commutes)?,
            Shape::ReduceScatterv => view.reduce_scatter(&all()?, self.commutes)?,
            Shape::Alltoall { each } => view.alltoall(elems(each))?,
            Shape::Gatherv { .. }
            | Shape::Scatterv { .. }
            | Shape::Alltoallv
            | Shape::Scan { .. }
            | Shape::Exscan { .. } => return self.schedule(comm),
        })
    }

    /// For keeping schedules; `None` for calls with lists of counts.
    pub(crate) fn key(&self) -> Option<Key> {
        use Shape::{Allgatherv, Alltoallv, Gatherv, ReduceScatterv, Scatterv};
        let listed =
            matches!(self.shape, Gatherv { .. } | Scatterv { .. } | Allgatherv | ReduceScatterv | Alltoallv);
        (!listed).then_some(Key { shape: self.shape, elem: self.elem, commutes: self.commutes })
    }

    /// Bytes as the choice of algorithms wants them: of one rank's contribution, or in all for blocks.
    #[inline]
    pub(crate) fn weight(&self, ranks: usize) -> usize {
        let elements = match self.shape {
            Shape::Barrier | Shape::Alltoallv => 0,
            Shape::Bcast { count, .. }
            | Shape::Reduce { count, .. }
            | Shape::Allreduce { count, .. }
            | Shape::Scan { count }
            | Shape::Exscan { count } => count,
            Shape::Gather { each, .. } | Shape::Scatter { each, .. } => each,
            Shape::Gatherv { mine, .. } | Shape::Scatterv { mine, .. } => mine,
            Shape::Allgather { each } | Shape::ReduceScatter { each } | Shape::Alltoall { each } => {
                each.saturating_mul(ranks)
            }
            Shape::Allgatherv | Shape::ReduceScatterv => self.lists[0].iter().sum(),
        };
        elements.saturating_mul(self.elem)
    }

    /// The call in the memory of a node whose members are all ranks; `None` where only messages do. Fails where
    /// the sizes cannot be.
    pub(crate) fn in_memory(&self, ranks: usize) -> Result<Option<Call>, Error> {
        let root = |r: u32| if (r as usize) < ranks { Ok(r as usize) } else { Err(no_root(r, ranks)) };
        let bytes = |count| Elems::new(count, self.elem).bytes();
        let each = |count: usize| -> Result<Lens, Error> {
            bytes(count.saturating_mul(ranks))?;
            Ok(Lens::Each(bytes(count)?))
        };
        let packed = || -> Result<Lens, Error> {
            let mut ends = Vec::with_capacity(ranks + 1);
            ends.push(0);
            for &count in self.lists[0] {
                let before = ends.last().copied().unwrap_or(0);
                ends.push(bytes(count)?.saturating_add(before));
            }
            bytes(self.lists[0].iter().fold(0, |a, &c| a.saturating_add(c)))?;
            Ok(Lens::Packed(ends.into()))
        };
        let (kind, lens) = match self.shape {
            Shape::Barrier => (Kind::Barrier, Lens::Each(0)),
            Shape::Bcast { count, root: r } => (Kind::Bcast { root: root(r)? }, Lens::Each(bytes(count)?)),
            Shape::Reduce { count, root: r } => (Kind::Reduce { root: root(r)? }, Lens::Each(bytes(count)?)),
            Shape::Allreduce { count, .. } => (Kind::Allreduce, Lens::Each(bytes(count)?)),
            Shape::Gather { each: n, root: r } => (Kind::Gather { root: root(r)? }, each(n)?),
            Shape::Scatter { each: n, root: r } => (Kind::Scatter { root: root(r)? }, each(n)?),
            Shape::Allgather { each: n } => (Kind::Allgather, each(n)?),
            Shape::Allgatherv => (Kind::Allgather, packed()?),
            Shape::ReduceScatter { each: n } => (Kind::ReduceScatter, each(n)?),
            Shape::ReduceScatterv => (Kind::ReduceScatter, packed()?),
            Shape::Alltoall { each: n } => (Kind::Alltoall, each(n)?),
            Shape::Scan { count } => (Kind::Scan, Lens::Each(bytes(count)?)),
            Shape::Exscan { count } => (Kind::Exscan, Lens::Each(bytes(count)?)),
            Shape::Gatherv { .. } | Shape::Scatterv { .. } | Shape::Alltoallv => return Ok(None),
        };
        Ok(Some(Call { kind, digest: self.digest(), lens, reducer: self.reducer.clone() }))
    }

    /// Whether every rank needs every other's data, all equally long.
    #[inline]
    pub(crate) fn is_round(&self) -> bool {
        matches!(self.shape, Shape::Barrier | Shape::Allreduce { .. })
    }

    /// The call where there is one rank: its result is its own contribution. False, and nothing is done, where its
    /// arguments cannot be, so that it fails as it does with more ranks.
    pub(crate) fn alone(&self, buffers: &mut Buffers<'_>) -> bool {
        use Shape::{Bcast, Exscan, Gather, Gatherv, Reduce, Scatter, Scatterv};
        match self.shape {
            Bcast { root, .. }
            | Reduce { root, .. }
            | Gather { root, .. }
            | Gatherv { root, .. }
            | Scatter { root, .. }
            | Scatterv { root, .. }
                if root != 0 =>
            {
                return false;
            }
            // Nobody is before this rank.
            Exscan { .. } => return true,
            _ => {}
        }
        let Some(input) = buffers.input else { return true };
        let fits = input.len() == buffers.output.len();
        if fits {
            buffers.output.copy_from_slice(input);
        }
        fits
    }

    /// The schedule over messages, by the algorithm that `comm` chooses.
    pub(crate) fn schedule(&self, comm: &Communicator) -> Result<Schedule, Error> {
        let team = comm.team()?;
        let s = &comm.selector;
        let elems = |count| Elems::new(count, self.elem);
        let all = || Ok::<_, Error>(Blocks::packed(self.lists[0], self.elem)?);
        let each = |count| Ok::<_, Error>(Blocks::uniform(team.size(), elems(count))?);
        let root_blocks = |root: u32| if team.rank() == root { all().map(Some) } else { Ok(None) };
        Ok(match self.shape {
            Shape::Barrier => algo::barrier(team),
            Shape::Bcast { count, root } => {
                algo::bcast(team, root, elems(count), s.bcast(elems(count).bytes()?).algorithm)?
            }
            Shape::Reduce { count, root } => {
                let algorithm = s.reduce(elems(count).bytes()?, self.commutes).algorithm;
                algo::reduce(team, root, elems(count), algorithm)?
            }
            Shape::Allreduce { count, in_place } => {
                let algorithm = s.allreduce(elems(count).bytes()?, self.commutes).algorithm;
                algo::allreduce(team, elems(count), in_place, algorithm)?
            }
            Shape::Gather { each, root } => {
                algo::gather(team, root, elems(each), s.gather(elems(each).bytes()?).algorithm)?
            }
            Shape::Gatherv { mine, root } => {
                algo::gatherv(team, root, elems(mine), root_blocks(root)?.as_ref())?
            }
            Shape::Scatter { each, root } => {
                algo::scatter(team, root, elems(each), s.scatter(elems(each).bytes()?).algorithm)?
            }
            Shape::Scatterv { mine, root } => {
                algo::scatterv(team, root, elems(mine), root_blocks(root)?.as_ref())?
            }
            Shape::Allgather { each: n } => self.allgather(comm, team, &each(n)?)?,
            Shape::Allgatherv => self.allgather(comm, team, &all()?)?,
            Shape::ReduceScatter { each: n } => self.reduce_scatter(comm, team, &each(n)?)?,
            Shape::ReduceScatterv => self.reduce_scatter(comm, team, &all()?)?,
            Shape::Alltoall { each: n } => {
                let blocks = each(n)?;
                algo::alltoall(team, &blocks, &blocks)?
            }
            Shape::Alltoallv => algo::alltoall(team, &all()?, &Blocks::packed(self.lists[1], self.elem)?)?,
            Shape::Scan { count } => algo::scan(team, elems(count), s.scan(elems(count).bytes()?).algorithm)?,
            Shape::Exscan { count } => {
                algo::exscan(team, elems(count), s.scan(elems(count).bytes()?).algorithm)?
            }
        })
    }

    fn allgather(&self, comm: &Communicator, team: Team, blocks: &Blocks) -> Result<Schedule, Error> {
        let algorithm = comm.selector.allgather(blocks.total()).algorithm;
        Ok(algo::allgather(team, blocks, false, algorithm)?)
    }

    fn reduce_scatter(&self, comm: &Communicator, team: Team, blocks: &Blocks) -> Result<Schedule, Error> {
        let algorithm = comm.selector.reduce_scatter(blocks.total(), self.commutes).algorithm;
        Ok(algo::reduce_scatter(team, blocks, algorithm)?)
    }
}

/// Fails unless a buffer has the length it needs.
#[inline]
pub(crate) fn length(what: &'static str, need: usize, got: usize) -> Result<(), Error> {
    if need == got { Ok(()) } else { Err(Error::Length { what, need, got }) }
}

impl Communicator {
    pub(crate) fn team(&self) -> Result<Team, Error> {
        Ok(Team::new(self.rank(), self.size())?)
    }

    /// The counts that only the root gives.
    pub(crate) fn with_root_counts<'a>(
        &self,
        ask: Ask<'a>,
        counts: &'a [usize],
        root: u32,
    ) -> Result<Ask<'a>, Error> {
        if self.rank() != root {
            return Ok(ask);
        }
        length("list of counts", self.group.len(), counts.len())?;
        Ok(ask.with_counts(counts, &[]))
    }

    pub(crate) fn reduce_scatter_ask<'a, T: Datatype>(
        &self,
        counts: &'a [usize],
        op: &impl Reduction<T>,
    ) -> Result<Ask<'a>, Error> {
        length("list of counts", self.group.len(), counts.len())?;
        let each = counts.first().copied().unwrap_or(0);
        if counts.iter().all(|&c| c == each) {
            return Ask::reducing::<T>(Shape::ReduceScatter { each }, op);
        }
        Ok(Ask::reducing::<T>(Shape::ReduceScatterv, op)?.with_counts(counts, &[]))
    }

    /// Where this communicator's collectives run for `bytes` (of one rank's contribution, or in all for
    /// collectives of blocks), by which algorithm and why, one line a collective. `RMPI_COLL_ALLREDUCE=ring` and the
    /// like force one, `=flat` messages; all ranks must be given the same. `RMPI_COLL_EXPLAIN=1` makes rank 0 of a
    /// communicator say on standard error what it chose, once for each collective and size.
    #[must_use]
    pub fn explain(&self, bytes: usize) -> String {
        let line =
            |c: Collective| format!("{} {}\n", c.variable().to_lowercase(), self.selector.explain(c, bytes));
        Collective::ALL.into_iter().map(line).collect()
    }

    /// Says once what was chosen.
    pub(crate) fn tell(&self, ask: &Ask<'_>) {
        let (collective, bytes) = (ask.collective(), ask.weight(self.group.len()));
        let told = || self.shared.told.lock().unwrap_or_else(PoisonError::into_inner);
        if self.rank() != 0 || !told().insert((collective, bytes.checked_ilog2())) {
            return;
        }
        let what = self.selector.explain(collective, bytes);
        // Nobody can be told that standard error is closed.
        let _ = writeln!(
            std::io::stderr(),
            "rmpi: {} of {bytes} bytes over {} ranks: {what}",
            ask.name(),
            self.size()
        );
    }
}

fn no_root(root: u32, ranks: usize) -> Error {
    let size = u32::try_from(ranks).unwrap_or(u32::MAX);
    rmpi_coll::PlanError::Root { root, size }.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rmpi_coll::kernels::Op;

    #[test]
    fn digests_tell_calls_apart() {
        let sum =
            |count| Ask::reducing::<f32>(Shape::Allreduce { count, in_place: false }, &Op::Sum).unwrap();
        let mut seen = vec![
            sum(4).digest(),
            sum(5).digest(),
            Ask::reducing::<f32>(Shape::Allreduce { count: 4, in_place: false }, &Op::Max).unwrap().digest(),
            Ask::reducing::<i32>(Shape::Allreduce { count: 4, in_place: false }, &Op::Sum).unwrap().digest(),
            Ask::reducing::<f32>(Shape::Reduce { count: 4, root: 0 }, &Op::Sum).unwrap().digest(),
            Ask::reducing::<f32>(Shape::Reduce { count: 4, root: 1 }, &Op::Sum).unwrap().digest(),
            Ask::new::<f32>(Shape::Bcast { count: 4, root: 0 }).digest(),
            Ask::new::<f32>(Shape::Allgatherv).with_counts(&[1, 2], &[]).digest(),
            Ask::new::<f32>(Shape::Allgatherv).with_counts(&[2, 1], &[]).digest(),
        ];
        let n = seen.len();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), n);
        let in_place = Ask::reducing::<f32>(Shape::Allreduce { count: 4, in_place: true }, &Op::Sum).unwrap();
        assert_eq!(in_place.digest(), sum(4).digest());
    }
}
