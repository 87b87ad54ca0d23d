//! The non-blocking collectives: they own their buffers and advance inside every wait and test. Members must
//! start them in the same order as all other collectives of the communicator.

use super::plans::length;
use crate::comm::Communicator;
use crate::datatype::Datatype;
use crate::error::Error;
use crate::op::Reduction;
use crate::request::Request;

/// # Non-blocking collectives
///
/// Errors of arguments come at once, all others with the request.
impl Communicator {
    /// Starts a barrier.
    ///
    /// # Errors
    /// As [`Communicator::barrier`].
    pub fn ibarrier(&self) -> Result<Request<Vec<u8>>, Error> {
        Ok(self.start(&self.plan_barrier()?, Vec::new(), Vec::new()))
    }

    /// Starts a broadcast of the root's `data`; everybody gives a vector of its length.
    ///
    /// # Errors
    /// As [`Communicator::bcast`].
    pub fn ibcast<T: Datatype>(&self, data: Vec<T>, root: u32) -> Result<Request<Vec<T>>, Error> {
        Ok(self.start(&self.plan_bcast::<T>(data.len(), root)?, Vec::new(), data))
    }

    /// Starts combining everybody's `data`; the request gives the root the result and the others an empty
    /// vector.
    ///
    /// # Errors
    /// As [`Communicator::reduce`].
    pub fn ireduce<T: Datatype>(
        &self,
        data: Vec<T>,
        op: &impl Reduction<T>,
        root: u32,
    ) -> Result<Request<Vec<T>>, Error> {
        let plan = self.plan_reduce(data.len(), op, root)?;
        let result = if self.rank() == root { vec![T::zeroed(); data.len()] } else { Vec::new() };
        Ok(self.start(&plan, data, result))
    }

    /// Starts combining everybody's `data`; the request gives it back with the result in its place.
    ///
    /// # Errors
    /// As [`Communicator::allreduce`].
    pub fn iallreduce<T: Datatype>(
        &self,
        data: Vec<T>,
        op: &impl Reduction<T>,
    ) -> Result<Request<Vec<T>>, Error> {
        Ok(self.start(&self.plan_allreduce(data.len(), op, true)?, Vec::new(), data))
    }

    /// Starts collecting everybody's `data`, equally long, at the root; the others get an empty vector.
    ///
    /// # Errors
    /// As [`Communicator::gather`].
    pub fn igather<T: Datatype>(&self, data: Vec<T>, root: u32) -> Result<Request<Vec<T>>, Error> {
        let plan = self.plan_gather::<T>(data.len(), root)?;
        let len = if self.rank() == root { data.len() * self.group.len() } else { 0 };
        Ok(self.start(&plan, data, vec![T::zeroed(); len]))
    }

    /// Starts dealing the root's `all`, `each` elements to every rank; the others give an empty vector.
    ///
    /// # Errors
    /// As [`Communicator::scatter`].
    pub fn iscatter<T: Datatype>(
        &self,
        all: Vec<T>,
        each: usize,
        root: u32,
    ) -> Result<Request<Vec<T>>, Error> {
        if self.rank() == root {
            length("scattered buffer", each * self.group.len(), all.len())?;
        }
        Ok(self.start(&self.plan_scatter::<T>(each, root)?, all, vec![T::zeroed(); each]))
    }

    /// Starts collecting everybody's `data`, equally long, at every rank.
    ///
    /// # Errors
    /// As [`Communicator::allgather`].
    pub fn iallgather<T: Datatype>(&self, data: Vec<T>) -> Result<Request<Vec<T>>, Error> {
        let plan = self.plan_allgather::<T>(&vec![data.len(); self.group.len()])?;
        let all = vec![T::zeroed(); data.len() * self.group.len()];
        Ok(self.start(&plan, data, all))
    }

    /// Starts combining everybody's `data`; each rank gets its block, of `counts[rank]` elements.
    ///
    /// # Errors
    /// As [`Communicator::reduce_scatter`].
    pub fn ireduce_scatter<T: Datatype>(
        &self,
        data: Vec<T>,
        counts: &[usize],
        op: &impl Reduction<T>,
    ) -> Result<Request<Vec<T>>, Error> {
        let plan = self.plan_reduce_scatter(counts, op)?;
        length("data", counts.iter().sum(), data.len())?;
        let block = vec![T::zeroed(); counts[self.rank() as usize]];
        Ok(self.start(&plan, data, block))
    }

    /// Starts an exchange of equally long blocks.
    ///
    /// # Errors
    /// As [`Communicator::alltoall`].
    pub fn ialltoall<T: Datatype>(&self, data: Vec<T>) -> Result<Request<Vec<T>>, Error> {
        let each = data.len() / self.group.len();
        length("data", each * self.group.len(), data.len())?;
        let all = vec![T::zeroed(); data.len()];
        Ok(self.start(&self.plan_alltoall::<T>(each)?, data, all))
    }

    /// Starts a prefix reduction up to and with this rank.
    ///
    /// # Errors
    /// As [`Communicator::scan`].
    pub fn iscan<T: Datatype>(&self, data: Vec<T>, op: &impl Reduction<T>) -> Result<Request<Vec<T>>, Error> {
        let result = vec![T::zeroed(); data.len()];
        Ok(self.start(&self.plan_scan(data.len(), op, true)?, data, result))
    }
}
