//! Collectives of two ranks that are one message each way at most, sent without asking: without a schedule and its
//! operations, which cost more than a small message's way. Which these are says the selector.

use super::ask::{Ask, Shape};
use super::fabric::Wire;
use super::run::Scope;
use crate::comm::Communicator;
use crate::error::Error;
use rmpi_coll::kernels::Source;
use rmpi_coll::node::Buffers;

impl Communicator {
    /// Whether a call goes this way; the same on both ranks.
    pub(crate) fn is_one_message(&self, ask: &Ask<'_>) -> bool {
        if self.group.len() != 2 {
            return false;
        }
        let known = match ask.shape {
            // A root that does not exist is the schedule's to refuse.
            Shape::Bcast { root, .. } | Shape::Reduce { root, .. } => root < 2,
            Shape::Barrier | Shape::Allreduce { .. } | Shape::Allgather { .. } => true,
            _ => false,
        };
        known && self.selector.is_one_message(ask.collective(), ask.weight(2), ask.commutes)
    }

    /// Carries such a call out.
    pub(crate) fn in_one_message(&self, ask: &Ask<'_>, buffers: &mut Buffers<'_>) -> Result<(), Error> {
        let wire = self.wire(ask, Scope::All, &self.group, self.draw());
        let result = self.tell_other(&wire, ask.shape, buffers);
        if let Err(e) = &result {
            self.inner.engine.with(|core| wire.give_up(core, e, &self.group));
        }
        result
    }

    fn tell_other(&self, wire: &Wire, shape: Shape, buffers: &mut Buffers<'_>) -> Result<(), Error> {
        let (me, engine) = (self.rank(), &self.inner.engine);
        let (send, recv) = wire.both_ways(1 - me)?;
        let out = |data: &[u8]| engine.send(send, data).map(drop).map_err(|f| wire.fault(f));
        let into = |data: &mut [u8]| wire.whole(engine.recv(&recv, data), data.len());
        let swap = |own: &[u8], theirs: &mut [u8]| {
            wire.whole(engine.sendrecv(send, own, &recv, theirs), theirs.len())
        };
        let own = buffers.input.unwrap_or(buffers.output);
        match shape {
            Shape::Bcast { root, .. } if root == me => out(own),
            Shape::Bcast { .. } => into(buffers.output),
            Shape::Reduce { root, .. } if root != me => out(own),
            Shape::Reduce { .. } => self.combine_with(wire, buffers, |_, theirs| into(theirs)),
            Shape::Allreduce { .. } => self.combine_with(wire, buffers, swap),
            Shape::Allgather { .. } => {
                let half = buffers.output.len() / 2;
                let (first, second) = buffers.output.split_at_mut(half);
                let (mine, theirs) = if me == 0 { (first, second) } else { (second, first) };
                let Some(own) = buffers.input else {
                    return swap(mine, theirs);
                };
                mine.copy_from_slice(own);
                swap(own, theirs)
            }
            _ => swap(&[], &mut []),
        }
    }

    /// Combines the own contribution and the other's, which `get` has fetched, in rank order.
    fn combine_with(
        &self,
        wire: &Wire,
        buffers: &mut Buffers<'_>,
        get: impl FnOnce(&[u8], &mut [u8]) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut words = self.scratch(buffers.output.len());
        let theirs = &mut bytemuck::cast_slice_mut::<u64, u8>(&mut words)[..buffers.output.len()];
        get(buffers.input.unwrap_or(buffers.output), theirs)?;
        let own = buffers.input.map_or(Source::OUTPUT, Source::from);
        let mut operands = [own, Source::from(&*theirs)];
        if self.rank() == 1 {
            operands.reverse();
        }
        let reducer = wire.reducer.as_ref().ok_or(Error::Internal("a reduction without an operation"))?;
        reducer.combine((&mut *buffers.output).into(), &operands, false)?;
        self.keep_scratch(words);
        Ok(())
    }
}
