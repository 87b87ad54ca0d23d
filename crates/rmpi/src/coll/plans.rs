//! From the arguments of a collective to its plan: checks, choice of the algorithm, digest.

use crate::comm::Communicator;
use crate::datatype::{Datatype, code};
use crate::error::Error;
use crate::op::{Erased, Reduction};
use rmpi_coll::kernels::Reducer;
use rmpi_coll::{Blocks, Elems, Schedule, Team, algo};
use std::sync::Arc;

/// One collective call, ready to run.
pub(crate) struct Plan {
    pub(crate) call: &'static str,
    pub(crate) schedule: Arc<Schedule>,
    /// What it reduces with, if it reduces.
    pub(crate) reducer: Option<Reducer>,
    /// Digest of the arguments that must be the same on all ranks.
    pub(crate) check: u16,
}

/// Fails unless a buffer has the length it needs.
pub(crate) fn length(what: &'static str, need: usize, got: usize) -> Result<(), Error> {
    if need == got { Ok(()) } else { Err(Error::Length { what, need, got }) }
}

/// FNV-1a over the arguments, folded; never 0.
fn digest(call: &str, numbers: &[u64]) -> u16 {
    let mut h = 0xcbf2_9ce4_8422_2325u64;
    let mut eat = |b: u8| h = (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3);
    call.bytes().for_each(&mut eat);
    numbers.iter().flat_map(|n| n.to_le_bytes()).for_each(eat);
    let folded = (h ^ (h >> 16) ^ (h >> 32) ^ (h >> 48)) & 0xffff;
    u16::try_from(folded).unwrap_or(1).max(1)
}

impl Communicator {
    pub(crate) fn team(&self) -> Result<Team, Error> {
        Ok(Team::new(self.rank(), self.size())?)
    }

    /// A plan without an operation; `numbers` are the arguments all ranks share.
    fn plan<T: Datatype>(call: &'static str, schedule: Schedule, numbers: &[u64]) -> Plan {
        let mut all = vec![u64::from(code(T::TYPE))];
        all.extend_from_slice(numbers);
        Plan { call, schedule: Arc::new(schedule), reducer: None, check: digest(call, &all) }
    }

    fn reducing<T: Datatype>(call: &'static str, schedule: Schedule, op: Erased, numbers: &[u64]) -> Plan {
        let mut all = vec![u64::from(op.reducer.code())];
        all.extend_from_slice(numbers);
        Plan { reducer: Some(op.reducer), ..Self::plan::<T>(call, schedule, &all) }
    }

    /// Which algorithms this communicator uses for `bytes` (of one rank's contribution, or in all for
    /// collectives of blocks) and why, one line a collective. `RMPI_COLL_ALLREDUCE=ring` and the like force
    /// one; all ranks must be given the same.
    #[must_use]
    pub fn explain(&self, bytes: usize) -> String {
        let s = &self.selector;
        format!(
            "bcast {}\nreduce {}\nallreduce {}\ngather {}\nscatter {}\nallgather {}\nreduce_scatter {}\nscan {}\n",
            s.bcast(bytes),
            s.reduce(bytes, true),
            s.allreduce(bytes, true),
            s.gather(bytes),
            s.scatter(bytes),
            s.allgather(bytes),
            s.reduce_scatter(bytes, true),
            s.scan(bytes),
        )
    }

    pub(crate) fn plan_barrier(&self) -> Result<Plan, Error> {
        Ok(Self::plan::<u8>("barrier", algo::barrier(self.team()?), &[]))
    }

    pub(crate) fn plan_bcast<T: Datatype>(&self, count: usize, root: u32) -> Result<Plan, Error> {
        let elems = Elems::new(count, size_of::<T>());
        let algorithm = self.selector.bcast(elems.bytes()?).algorithm;
        let schedule = algo::bcast(self.team()?, root, elems, algorithm)?;
        Ok(Self::plan::<T>("broadcast", schedule, &[count as u64, u64::from(root)]))
    }

    pub(crate) fn plan_reduce<T: Datatype>(
        &self,
        count: usize,
        op: &impl Reduction<T>,
        root: u32,
    ) -> Result<Plan, Error> {
        let op = op.erase()?;
        let elems = Elems::new(count, size_of::<T>());
        let algorithm = self.selector.reduce(elems.bytes()?, op.commutative).algorithm;
        let schedule = algo::reduce(self.team()?, root, elems, algorithm)?;
        Ok(Self::reducing::<T>("reduce", schedule, op, &[count as u64, u64::from(root)]))
    }

    pub(crate) fn plan_allreduce<T: Datatype>(
        &self,
        count: usize,
        op: &impl Reduction<T>,
        in_place: bool,
    ) -> Result<Plan, Error> {
        let op = op.erase()?;
        let elems = Elems::new(count, size_of::<T>());
        let algorithm = self.selector.allreduce(elems.bytes()?, op.commutative).algorithm;
        let schedule = algo::allreduce(self.team()?, elems, in_place, algorithm)?;
        Ok(Self::reducing::<T>("allreduce", schedule, op, &[count as u64]))
    }

    pub(crate) fn plan_gather<T: Datatype>(&self, each: usize, root: u32) -> Result<Plan, Error> {
        let elems = Elems::new(each, size_of::<T>());
        let algorithm = self.selector.gather(elems.bytes()?).algorithm;
        let schedule = algo::gather(self.team()?, root, elems, algorithm)?;
        Ok(Self::plan::<T>("gather", schedule, &[each as u64, u64::from(root)]))
    }

    pub(crate) fn plan_gatherv<T: Datatype>(
        &self,
        mine: usize,
        counts: &[usize],
        root: u32,
    ) -> Result<Plan, Error> {
        let blocks = self.root_blocks::<T>(counts, root)?;
        let elems = Elems::new(mine, size_of::<T>());
        let schedule = algo::gatherv(self.team()?, root, elems, blocks.as_ref())?;
        Ok(Self::plan::<T>("gatherv", schedule, &[u64::from(root)]))
    }

    pub(crate) fn plan_scatter<T: Datatype>(&self, each: usize, root: u32) -> Result<Plan, Error> {
        let elems = Elems::new(each, size_of::<T>());
        let algorithm = self.selector.scatter(elems.bytes()?).algorithm;
        let schedule = algo::scatter(self.team()?, root, elems, algorithm)?;
        Ok(Self::plan::<T>("scatter", schedule, &[each as u64, u64::from(root)]))
    }

    pub(crate) fn plan_scatterv<T: Datatype>(
        &self,
        mine: usize,
        counts: &[usize],
        root: u32,
    ) -> Result<Plan, Error> {
        let blocks = self.root_blocks::<T>(counts, root)?;
        let elems = Elems::new(mine, size_of::<T>());
        let schedule = algo::scatterv(self.team()?, root, elems, blocks.as_ref())?;
        Ok(Self::plan::<T>("scatterv", schedule, &[u64::from(root)]))
    }

    fn root_blocks<T: Datatype>(&self, counts: &[usize], root: u32) -> Result<Option<Blocks>, Error> {
        if self.rank() != root {
            return Ok(None);
        }
        length("list of counts", self.group.len(), counts.len())?;
        Ok(Some(Blocks::packed(counts, size_of::<T>())?))
    }

    pub(crate) fn plan_allgather<T: Datatype>(&self, counts: &[usize]) -> Result<Plan, Error> {
        length("list of counts", self.group.len(), counts.len())?;
        let blocks = Blocks::packed(counts, size_of::<T>())?;
        let algorithm = self.selector.allgather(blocks.total()).algorithm;
        let schedule = algo::allgather(self.team()?, &blocks, false, algorithm)?;
        let numbers: Vec<u64> = counts.iter().map(|&c| c as u64).collect();
        Ok(Self::plan::<T>("allgather", schedule, &numbers))
    }

    pub(crate) fn plan_reduce_scatter<T: Datatype>(
        &self,
        counts: &[usize],
        op: &impl Reduction<T>,
    ) -> Result<Plan, Error> {
        length("list of counts", self.group.len(), counts.len())?;
        let op = op.erase()?;
        let blocks = Blocks::packed(counts, size_of::<T>())?;
        let algorithm = self.selector.reduce_scatter(blocks.total(), op.commutative).algorithm;
        let schedule = algo::reduce_scatter(self.team()?, &blocks, algorithm)?;
        let numbers: Vec<u64> = counts.iter().map(|&c| c as u64).collect();
        Ok(Self::reducing::<T>("reduce_scatter", schedule, op, &numbers))
    }

    pub(crate) fn plan_alltoall<T: Datatype>(&self, each: usize) -> Result<Plan, Error> {
        let blocks = Blocks::uniform(self.size(), Elems::new(each, size_of::<T>()))?;
        let schedule = algo::alltoall(self.team()?, &blocks, &blocks)?;
        Ok(Self::plan::<T>("alltoall", schedule, &[each as u64]))
    }

    pub(crate) fn plan_alltoallv<T: Datatype>(&self, out: &[usize], into: &[usize]) -> Result<Plan, Error> {
        length("list of send counts", self.group.len(), out.len())?;
        length("list of receive counts", self.group.len(), into.len())?;
        let (out, into) = (Blocks::packed(out, size_of::<T>())?, Blocks::packed(into, size_of::<T>())?);
        Ok(Self::plan::<T>("alltoallv", algo::alltoall(self.team()?, &out, &into)?, &[]))
    }

    pub(crate) fn plan_scan<T: Datatype>(
        &self,
        count: usize,
        op: &impl Reduction<T>,
        inclusive: bool,
    ) -> Result<Plan, Error> {
        let op = op.erase()?;
        let elems = Elems::new(count, size_of::<T>());
        let team = self.team()?;
        let algorithm = self.selector.scan(elems.bytes()?).algorithm;
        let (call, schedule) = if inclusive {
            ("scan", algo::scan(team, elems, algorithm)?)
        } else {
            ("exscan", algo::exscan(team, elems, algorithm)?)
        };
        Ok(Self::reducing::<T>(call, schedule, op, &[count as u64]))
    }
}
