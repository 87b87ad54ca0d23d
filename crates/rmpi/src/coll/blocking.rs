//! The blocking collectives. All members of the communicator must call them in the same order with matching
//! arguments; where a call differs, it is an error on the ranks that notice and, soon after, on the others.

use super::ask::{Ask, Shape, length};
use crate::comm::Communicator;
use crate::datatype::Datatype;
use crate::error::Error;
use crate::op::Reduction;
use crate::shared::Shared;

/// # Collectives
///
/// After an error that blames a rank ([`Error::PeerLost`], [`Error::Mismatched`], [`Error::GivenUp`]) the
/// communicator's collectives stay unusable; messages between its living ranks go on.
impl Communicator {
    /// Returns when all ranks have called it.
    ///
    /// # Errors
    /// [`Error::PeerLost`], [`Error::Mismatched`], [`Error::GivenUp`].
    pub fn barrier(&self) -> Result<(), Error> {
        self.carry::<u8>(&Ask::new::<u8>(Shape::Barrier), None, &mut [])
    }

    /// Copies the root's `data` to all ranks.
    ///
    /// # Errors
    /// As [`Communicator::barrier`].
    pub fn bcast<T: Datatype>(&self, data: &mut [T], root: u32) -> Result<(), Error> {
        self.carry(&Ask::new::<T>(Shape::Bcast { count: data.len(), root }), None, data)
    }

    /// Combines everybody's `data` into the root's `result`; elsewhere `result` may be empty and is left
    /// alone.
    ///
    /// # Errors
    /// As [`Communicator::allreduce`].
    pub fn reduce<T: Datatype>(
        &self,
        data: &[T],
        result: &mut [T],
        op: &impl Reduction<T>,
        root: u32,
    ) -> Result<(), Error> {
        let ask = Ask::reducing::<T>(Shape::Reduce { count: data.len(), root }, op)?;
        if self.rank() == root {
            length("result", data.len(), result.len())?;
            self.carry(&ask, Some(data), result)
        } else {
            // A schedule may use the output on its way; the caller's is not ours to write there.
            self.carry(&ask, Some(data), &mut [])
        }
    }

    /// Combines everybody's `data` into everybody's `result`, with the same bits everywhere.
    ///
    /// # Errors
    /// As [`Communicator::barrier`], [`Error::Length`], and [`Error::Reduction`] for an operation not defined
    /// for the type.
    pub fn allreduce<T: Datatype>(
        &self,
        data: &[T],
        result: &mut [T],
        op: &impl Reduction<T>,
    ) -> Result<(), Error> {
        length("result", data.len(), result.len())?;
        self.carry(&Ask::allreduce::<T>(data.len(), op, false)?, Some(data), result)
    }

    /// The same with the result in the place of the data.
    ///
    /// # Errors
    /// As [`Communicator::allreduce`].
    pub fn allreduce_in_place<T: Datatype>(
        &self,
        data: &mut [T],
        op: &impl Reduction<T>,
    ) -> Result<(), Error> {
        self.carry(&Ask::allreduce::<T>(data.len(), op, true)?, None, data)
    }

    /// The same for buffers of [`crate::World::alloc`]: on one node each rank adds up its part straight from the others'
    /// buffers. All ranks must use this call, none [`Communicator::allreduce_in_place`] for the same operation.
    ///
    /// # Errors
    /// As [`Communicator::allreduce`].
    pub fn allreduce_shared<T: Datatype>(
        &self,
        data: &mut Shared<T>,
        op: &impl Reduction<T>,
    ) -> Result<(), Error> {
        let at = data.at(self)?;
        self.carry_at(&Ask::allreduce::<T>(data.len(), op, true)?, None, data, at)
    }

    /// Collects everybody's `data`, equally long, in the root's `all`, in rank order; elsewhere `all` may be
    /// empty.
    ///
    /// # Errors
    /// As [`Communicator::barrier`], and [`Error::Length`].
    pub fn gather<T: Datatype>(&self, data: &[T], all: &mut [T], root: u32) -> Result<(), Error> {
        let ask = Ask::new::<T>(Shape::Gather { each: data.len(), root });
        if self.rank() != root {
            return self.carry(&ask, Some(data), &mut []);
        }
        length("gathered buffer", data.len() * self.group.len(), all.len())?;
        self.carry(&ask, Some(data), all)
    }

    /// Collects everybody's `data` of any length in the root's `all`, in rank order; `counts` are the lengths,
    /// needed at the root only.
    ///
    /// # Errors
    /// As [`Communicator::gather`].
    pub fn gatherv<T: Datatype>(
        &self,
        data: &[T],
        all: &mut [T],
        counts: &[usize],
        root: u32,
    ) -> Result<(), Error> {
        let ask =
            self.with_root_counts(Ask::new::<T>(Shape::Gatherv { mine: data.len(), root }), counts, root)?;
        if self.rank() != root {
            return self.carry(&ask, Some(data), &mut []);
        }
        length("gathered buffer", counts.iter().sum(), all.len())?;
        length("own block", counts[root as usize], data.len())?;
        self.carry(&ask, Some(data), all)
    }

    /// Deals the root's `all` to all ranks, `data.len()` elements to each in rank order; elsewhere `all` may
    /// be empty.
    ///
    /// # Errors
    /// As [`Communicator::gather`].
    pub fn scatter<T: Datatype>(&self, all: &[T], data: &mut [T], root: u32) -> Result<(), Error> {
        let ask = Ask::new::<T>(Shape::Scatter { each: data.len(), root });
        if self.rank() != root {
            return self.carry(&ask, Some(&[]), data);
        }
        length("scattered buffer", data.len() * self.group.len(), all.len())?;
        self.carry(&ask, Some(all), data)
    }

    /// Deals the root's `all` in blocks of `counts` elements, needed at the root only, to all ranks.
    ///
    /// # Errors
    /// As [`Communicator::gather`].
    pub fn scatterv<T: Datatype>(
        &self,
        all: &[T],
        counts: &[usize],
        data: &mut [T],
        root: u32,
    ) -> Result<(), Error> {
        let ask =
            self.with_root_counts(Ask::new::<T>(Shape::Scatterv { mine: data.len(), root }), counts, root)?;
        if self.rank() != root {
            return self.carry(&ask, Some(&[]), data);
        }
        length("scattered buffer", counts.iter().sum(), all.len())?;
        length("own block", counts[root as usize], data.len())?;
        self.carry(&ask, Some(all), data)
    }

    /// Collects everybody's `data`, equally long, in everybody's `all`, in rank order.
    ///
    /// # Errors
    /// As [`Communicator::gather`].
    pub fn allgather<T: Datatype>(&self, data: &[T], all: &mut [T]) -> Result<(), Error> {
        length("gathered buffer", data.len() * self.group.len(), all.len())?;
        self.carry(&Ask::new::<T>(Shape::Allgather { each: data.len() }), Some(data), all)
    }

    /// The same for blocks of any lengths, `counts`, known to all ranks.
    ///
    /// # Errors
    /// As [`Communicator::gather`].
    pub fn allgatherv<T: Datatype>(&self, data: &[T], all: &mut [T], counts: &[usize]) -> Result<(), Error> {
        length("list of counts", self.group.len(), counts.len())?;
        let ask = Ask::new::<T>(Shape::Allgatherv).with_counts(counts, &[]);
        length("gathered buffer", counts.iter().sum(), all.len())?;
        length("own block", counts[self.rank() as usize], data.len())?;
        self.carry(&ask, Some(data), all)
    }

    /// Combines everybody's `data` and leaves each rank its block, of `counts[rank]` elements.
    ///
    /// # Errors
    /// As [`Communicator::allreduce`].
    pub fn reduce_scatter<T: Datatype>(
        &self,
        data: &[T],
        block: &mut [T],
        counts: &[usize],
        op: &impl Reduction<T>,
    ) -> Result<(), Error> {
        let ask = self.reduce_scatter_ask(counts, op)?;
        length("data", counts.iter().sum(), data.len())?;
        length("block", counts[self.rank() as usize], block.len())?;
        self.carry(&ask, Some(data), block)
    }

    /// Gives the r-th block of `data` to rank r and collects what the ranks give in `all`, in rank order. All
    /// blocks are equally long.
    ///
    /// # Errors
    /// As [`Communicator::gather`].
    pub fn alltoall<T: Datatype>(&self, data: &[T], all: &mut [T]) -> Result<(), Error> {
        let each = data.len() / self.group.len();
        length("data", each * self.group.len(), data.len())?;
        length("gathered buffer", data.len(), all.len())?;
        self.carry(&Ask::new::<T>(Shape::Alltoall { each }), Some(data), all)
    }

    /// The same for blocks of any lengths: `out[r]` elements go to rank r, `into[r]` come from it.
    ///
    /// # Errors
    /// As [`Communicator::gather`].
    pub fn alltoallv<T: Datatype>(
        &self,
        data: &[T],
        out: &[usize],
        all: &mut [T],
        into: &[usize],
    ) -> Result<(), Error> {
        length("list of send counts", self.group.len(), out.len())?;
        length("list of receive counts", self.group.len(), into.len())?;
        let ask = Ask::new::<T>(Shape::Alltoallv).with_counts(out, into);
        length("data", out.iter().sum(), data.len())?;
        length("gathered buffer", into.iter().sum(), all.len())?;
        self.carry(&ask, Some(data), all)
    }

    /// Combines the `data` of the ranks up to and with this one into `result`, in rank order.
    ///
    /// # Errors
    /// As [`Communicator::allreduce`].
    pub fn scan<T: Datatype>(
        &self,
        data: &[T],
        result: &mut [T],
        op: &impl Reduction<T>,
    ) -> Result<(), Error> {
        length("result", data.len(), result.len())?;
        self.carry(&Ask::reducing::<T>(Shape::Scan { count: data.len() }, op)?, Some(data), result)
    }

    /// Combines the `data` of the ranks before this one into `result`, in rank order; rank 0's is left alone.
    ///
    /// # Errors
    /// As [`Communicator::allreduce`].
    pub fn exscan<T: Datatype>(
        &self,
        data: &[T],
        result: &mut [T],
        op: &impl Reduction<T>,
    ) -> Result<(), Error> {
        length("result", data.len(), result.len())?;
        self.carry(&Ask::reducing::<T>(Shape::Exscan { count: data.len() }, op)?, Some(data), result)
    }
}
