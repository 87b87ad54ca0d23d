//! The non-blocking collectives: they own their buffers and advance inside every wait and test. Members must
//! start them in the same order as all other collectives of the communicator.

use super::ask::{Ask, Shape, length};
use crate::comm::Communicator;
use crate::datatype::Datatype;
use crate::error::Error;
use crate::op::Reduction;
use crate::request::Request;
use crate::shared::Shared;

/// # Non-blocking collectives
///
/// Errors of arguments come at once, all others with the request.
impl Communicator {
    /// Starts a barrier.
    ///
    /// # Errors
    /// As [`Communicator::barrier`].
    pub fn ibarrier(&self) -> Result<Request<Vec<u8>>, Error> {
        self.launch(&Ask::new::<u8>(Shape::Barrier), None, Vec::new())
    }

    /// Starts a broadcast of the root's `data`; everybody gives a vector of its length.
    ///
    /// # Errors
    /// As [`Communicator::bcast`].
    pub fn ibcast<T: Datatype>(&self, data: Vec<T>, root: u32) -> Result<Request<Vec<T>>, Error> {
        self.launch(&Ask::new::<T>(Shape::Bcast { count: data.len(), root }), None, data)
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
        let ask = Ask::reducing::<T>(Shape::Reduce { count: data.len(), root }, op)?;
        let result = if self.rank() == root { vec![T::zeroed(); data.len()] } else { Vec::new() };
        self.launch(&ask, Some(data), result)
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
        self.launch(&Ask::allreduce::<T>(data.len(), op, true)?, None, data)
    }

    /// The same for buffers of [`crate::World::alloc`].
    ///
    /// # Errors
    /// As [`Communicator::allreduce_shared`].
    pub fn iallreduce_shared<T: Datatype>(
        &self,
        data: Shared<T>,
        op: &impl Reduction<T>,
    ) -> Result<Request<Shared<T>>, Error> {
        let at = data.at(self)?;
        self.launch_at(&Ask::allreduce::<T>(data.len(), op, true)?, None, data, at)
    }

    /// Starts collecting everybody's `data`, equally long, at the root; the others get an empty vector.
    ///
    /// # Errors
    /// As [`Communicator::gather`].
    pub fn igather<T: Datatype>(&self, data: Vec<T>, root: u32) -> Result<Request<Vec<T>>, Error> {
        let ask = Ask::new::<T>(Shape::Gather { each: data.len(), root });
        let len = if self.rank() == root { data.len() * self.group.len() } else { 0 };
        self.launch(&ask, Some(data), vec![T::zeroed(); len])
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
        self.launch(&Ask::new::<T>(Shape::Scatter { each, root }), Some(all), vec![T::zeroed(); each])
    }

    /// Starts collecting everybody's `data`, equally long, at every rank.
    ///
    /// # Errors
    /// As [`Communicator::allgather`].
    pub fn iallgather<T: Datatype>(&self, data: Vec<T>) -> Result<Request<Vec<T>>, Error> {
        let ask = Ask::new::<T>(Shape::Allgather { each: data.len() });
        let all = vec![T::zeroed(); data.len() * self.group.len()];
        self.launch(&ask, Some(data), all)
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
        let ask = self.reduce_scatter_ask(counts, op)?;
        length("data", counts.iter().sum(), data.len())?;
        let block = vec![T::zeroed(); counts[self.rank() as usize]];
        self.launch(&ask, Some(data), block)
    }

    /// Starts an exchange of equally long blocks.
    ///
    /// # Errors
    /// As [`Communicator::alltoall`].
    pub fn ialltoall<T: Datatype>(&self, data: Vec<T>) -> Result<Request<Vec<T>>, Error> {
        let each = data.len() / self.group.len();
        length("data", each * self.group.len(), data.len())?;
        let all = vec![T::zeroed(); data.len()];
        self.launch(&Ask::new::<T>(Shape::Alltoall { each }), Some(data), all)
    }

    /// Starts a prefix reduction up to and with this rank.
    ///
    /// # Errors
    /// As [`Communicator::scan`].
    pub fn iscan<T: Datatype>(&self, data: Vec<T>, op: &impl Reduction<T>) -> Result<Request<Vec<T>>, Error> {
        let result = vec![T::zeroed(); data.len()];
        self.launch(&Ask::reducing::<T>(Shape::Scan { count: data.len() }, op)?, Some(data), result)
    }
}
