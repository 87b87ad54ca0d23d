//! An allreduce of two ranks over messages whose data goes in one message without asking: both send at once,
//! receive, and combine in rank order. Without a schedule and its operations, which cost more than a small message's way.

use super::ask::{Ask, Shape};
use super::fabric::Wire;
use super::run::Scope;
use crate::comm::Communicator;
use crate::error::Error;
use rmpi_coll::algo::Allreduce;
use rmpi_coll::kernels::{Reducer, Source};
use rmpi_coll::node::Buffers;

/// Largest data that goes this way: one message that is sent without asking.
const WHOLE: usize = 512 << 10;

impl Communicator {
    /// Whether a call goes this way; the same on both ranks.
    pub(crate) fn is_exchange(&self, ask: &Ask<'_>, bytes: usize) -> bool {
        self.group.len() == 2
            && matches!(ask.shape, Shape::Allreduce { .. })
            && (1..=WHOLE).contains(&bytes)
            && self.selector.allreduce(bytes, ask.commutes).algorithm == Allreduce::Direct
    }

    /// Carries such a call out.
    pub(crate) fn exchange(&self, ask: &Ask<'_>, buffers: &mut Buffers<'_>) -> Result<(), Error> {
        let wire = self.wire(ask, Scope::All, &self.group, self.draw());
        let mut words = self.scratch(buffers.output.len());
        let theirs = &mut bytemuck::cast_slice_mut::<u64, u8>(&mut words)[..buffers.output.len()];
        let result = self.exchange_on(&wire, buffers, theirs);
        match &result {
            Ok(()) => self.keep_scratch(words),
            Err(e) => self.inner.engine.with(|core| wire.give_up(core, e, &self.group)),
        }
        result
    }

    fn exchange_on(&self, wire: &Wire, buffers: &mut Buffers<'_>, theirs: &mut [u8]) -> Result<(), Error> {
        let own = buffers.input.unwrap_or(buffers.output);
        let (send, recv) = wire.both_ways(1 - self.rank())?;
        let status = self.inner.engine.sendrecv(send, own, &recv, theirs).map_err(|f| wire.fault(f))?;
        if status.length != theirs.len() as u64 {
            return Err(Error::Mismatched { call: wire.call, rank: status.peer });
        }
        let own = buffers.input.map_or(Source::OUTPUT, Source::from);
        let mut operands = [own, Source::from(&*theirs)];
        if self.rank() == 1 {
            operands.reverse();
        }
        let without = Error::Internal("an allreduce without an operation");
        let reducer: &Reducer = wire.reducer.as_ref().ok_or(without)?;
        Ok(reducer.combine((&mut *buffers.output).into(), &operands, false)?)
    }
}
