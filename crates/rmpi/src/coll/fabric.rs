//! What a schedule needs of the world, on the engine: messages in the communicator's collective context,
//! arithmetic in an arena.

use crate::error::Error;
use rmpi_coll::kernels::Reducer;
use rmpi_coll::{Buffer, Fabric, Region};
use rmpi_core::{Arena, Core, Fault, From, OpId, Place, RecvSpec, SendSpec, Status};
use std::sync::Arc;

/// Bits of a tag that number the messages of one call; the rest numbers the calls.
const TAG_BITS: u32 = 20;
/// Calls of one communicator that can be under way at once before tags repeat.
const CALLS: u32 = 1 << (31 - TAG_BITS);

/// The lowest tag of a call: giving up a call gives up those after it, but none before.
pub(crate) fn first_tag(number: u32) -> i32 {
    i32::try_from((number % CALLS) << TAG_BITS).unwrap_or(0)
}

/// One call of a collective on the engine.
#[derive(Clone)]
pub(crate) struct Wire {
    pub(crate) call: &'static str,
    pub(crate) group: Arc<[u32]>,
    pub(crate) context: u32,
    pub(crate) number: u32,
    pub(crate) check: u16,
    pub(crate) reducer: Option<Reducer>,
    /// Whether every message's receiver is about to wait for it.
    pub(crate) awaited: bool,
}

/// A call together with what it works on, for the length of one look at it.
pub(crate) struct Bench<'a, 'm> {
    pub(crate) wire: &'a Wire,
    pub(crate) core: &'a mut Core,
    pub(crate) arena: &'a mut Arena<'m>,
}

/// A message under way; a receive knows the length it must have.
pub(crate) struct Flying {
    op: OpId,
    expected: Option<usize>,
}

/// The arena's buffers are input, output, scratch.
fn place(r: Region) -> Place {
    let buffer = match r.buffer {
        Buffer::Input => 0,
        Buffer::Output => 1,
        Buffer::Scratch => 2,
    };
    Place { buffer, offset: r.offset, len: r.len }
}

impl Wire {
    pub(crate) fn fault(&self, fault: Fault) -> Error {
        Error::collective(self.call, fault)
    }

    fn peer(&self, peer: u32) -> Result<u32, Error> {
        self.group
            .get(peer as usize)
            .copied()
            .ok_or(Error::Internal("a schedule names a rank outside its group"))
    }

    /// What a receive of `expected` bytes gave.
    pub(crate) fn whole(&self, got: Result<Status, Fault>, expected: usize) -> Result<(), Error> {
        let status = got.map_err(|f| self.fault(f))?;
        if status.length == expected as u64 {
            return Ok(());
        }
        Err(Error::Mismatched { call: self.call, rank: status.peer })
    }

    /// The first message to `peer` and the first of it.
    pub(crate) fn both_ways(&self, peer: u32) -> Result<(SendSpec, RecvSpec), Error> {
        let (to, tag) = (self.peer(peer)?, self.tag(0)?);
        let Self { context, check, .. } = *self;
        let recv = RecvSpec { from: From::Rank(to), context, tag: Some(tag), check, scribble: true };
        Ok((SendSpec { to, context, tag, check, awaited: true }, recv))
    }

    /// Gives up the context from this call on and tells `group`.
    pub(crate) fn give_up(&self, core: &mut Core, error: &Error, group: &Arc<[u32]>) {
        if let Some(culprit) = error.culprit() {
            core.revoke(self.context, first_tag(self.number), culprit, group);
        }
    }

    fn tag(&self, tag: u32) -> Result<i32, Error> {
        let too_many = Error::Internal("a schedule has more than a million messages between two ranks");
        if tag >> TAG_BITS != 0 {
            return Err(too_many);
        }
        i32::try_from((self.number % CALLS) << TAG_BITS | tag).map_err(|_| too_many)
    }
}

impl Fabric for Bench<'_, '_> {
    type Error = Error;
    type Op = Flying;

    fn send(&mut self, peer: u32, tag: u32, data: Region) -> Result<Flying, Error> {
        let Wire { context, check, awaited, .. } = *self.wire;
        let spec = SendSpec { to: self.wire.peer(peer)?, context, tag: self.wire.tag(tag)?, check, awaited };
        let op = self.arena.send(self.core, spec, place(data)).map_err(|f| self.wire.fault(f))?;
        Ok(Flying { op, expected: None })
    }

    fn recv(&mut self, peer: u32, tag: u32, into: Region) -> Result<Flying, Error> {
        let Wire { context, check, .. } = *self.wire;
        let from = From::Rank(self.wire.peer(peer)?);
        let spec = RecvSpec { from, context, tag: Some(self.wire.tag(tag)?), check, scribble: true };
        let op = self.arena.recv(self.core, &spec, place(into)).map_err(|f| self.wire.fault(f))?;
        Ok(Flying { op, expected: Some(into.len) })
    }

    fn done(&mut self, flying: &mut Flying) -> Result<bool, Error> {
        let ended = self.arena.done(self.core, flying.op).map_err(|f| self.wire.fault(f))?;
        if let (Some(status), Some(expected)) = (ended, flying.expected) {
            self.wire.whole(Ok(status), expected)?;
        }
        Ok(ended.is_some())
    }

    fn reduce(&mut self, dst: Region, src: Region) -> Result<(), Error> {
        let without = Error::Internal("a schedule reduces without an operation");
        let reducer = self.wire.reducer.as_ref().ok_or(without)?;
        let done = self.arena.pair(place(dst), place(src), |d, s| reducer.apply(d, s));
        Ok(done.map_err(|f| self.wire.fault(f))??)
    }

    fn copy(&mut self, dst: Region, src: Region) -> Result<(), Error> {
        let done = self.arena.pair(place(dst), place(src), <[u8]>::copy_from_slice);
        done.map_err(|f| self.wire.fault(f))
    }
}
