//! Memory that many operations of one schedule share, checked for overlap at run time.
//!
//! A collective sends one part of a buffer while it receives another and adds up a third: more than the borrow
//! checker can follow. An arena holds the buffers and the list of parts in use, and refuses every step that
//! would read what is being written or write what is being used.
#![allow(unsafe_code, reason = "parts of one buffer in several operations; overlap is checked at run time")]

use crate::core::Core;
use crate::engine::Engine;
use crate::error::Fault;
use crate::memory::{Keeper, Memory, RawBuf, window};
use crate::ops::{OpId, Status};
use crate::submit::{RecvSpec, SendSpec};
use nix::sys::epoll::Epoll;
use std::marker::PhantomData;
use std::sync::Arc;

/// A part of one of an arena's buffers, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Which buffer.
    pub buffer: usize,
    /// First byte.
    pub offset: usize,
    /// Bytes.
    pub len: usize,
}

impl Place {
    fn meets(&self, other: &Self) -> bool {
        self.buffer == other.buffer
            && self.offset < other.offset + other.len
            && other.offset < self.offset + self.len
    }
}

struct Use {
    op: OpId,
    place: Place,
    writes: bool,
}

/// Buffers of one schedule; see [`Engine::lend`] and [`Arena::owned`].
pub struct Arena<'m> {
    buffers: Vec<(RawBuf, bool)>,
    keeper: Option<Arc<Keeper>>,
    uses: Vec<Use>,
    /// The engine all operations belong to: that of the first.
    home: Option<Arc<Epoll>>,
    /// Invariant: an arena of borrowed memory cannot pass for one that lives longer.
    lent: PhantomData<&'m mut &'m ()>,
}

impl Arena<'static> {
    /// An arena that owns its buffers, all writable.
    #[must_use]
    pub fn owned(mut memories: Vec<Box<dyn Memory>>) -> Self {
        let buffers = memories.iter_mut().map(|m| (window(m), true)).collect();
        let keeper = Some(Arc::new(Keeper(memories)));
        Self { buffers, keeper, uses: Vec::new(), home: None, lent: PhantomData }
    }

    /// The buffers back; `None` while operations use them.
    #[must_use]
    pub fn into_memories(self) -> Option<Vec<Box<dyn Memory>>> {
        Arc::into_inner(self.keeper?).map(|k| k.0)
    }
}

impl Arena<'_> {
    /// Checks a place and that using it so is allowed now.
    fn check(&self, place: Place, writes: bool) -> Result<RawBuf, Fault> {
        let &(buf, writable) = self.buffers.get(place.buffer).ok_or(Fault::Overlap)?;
        let inside = place.offset.checked_add(place.len).is_some_and(|end| end <= buf.len());
        let clash = |u: &Use| (writes || u.writes) && u.place.meets(&place);
        if !inside || (writes && !writable) || self.uses.iter().any(clash) {
            return Err(Fault::Overlap);
        }
        Ok(buf.part(place.offset, place.len))
    }

    fn settle(&mut self, core: &mut Core, op: OpId, place: Place, writes: bool) -> OpId {
        if let Some(o) = core.ops.get_mut(op) {
            o.hold = self.keeper.clone();
        }
        self.uses.push(Use { op, place, writes });
        op
    }

    fn at_home(&mut self, core: &Core) -> Result<(), Fault> {
        let home = self.home.get_or_insert_with(|| core.epoll.clone());
        if Arc::ptr_eq(home, &core.epoll) { Ok(()) } else { Err(Fault::Overlap) }
    }

    /// Sends a part.
    ///
    /// # Errors
    /// [`Fault::Overlap`] when the part is being received into, or is not inside its buffer.
    pub fn send(&mut self, core: &mut Core, spec: SendSpec, place: Place) -> Result<OpId, Fault> {
        self.at_home(core)?;
        let buf = self.check(place, false)?;
        let op = core.submit_send(spec, buf, None);
        Ok(self.settle(core, op, place, false))
    }

    /// Receives into a part.
    ///
    /// # Errors
    /// [`Fault::Overlap`] when the part is in use, read-only, or not inside its buffer.
    pub fn recv(&mut self, core: &mut Core, spec: &RecvSpec, place: Place) -> Result<OpId, Fault> {
        self.at_home(core)?;
        let buf = self.check(place, true)?;
        let op = core.submit_recv(spec, buf, None);
        Ok(self.settle(core, op, place, true))
    }

    /// The status of an operation of this arena, once it is over; its part is free again then.
    ///
    /// # Errors
    /// The operation's fault.
    pub fn done(&mut self, core: &mut Core, op: OpId) -> Result<Option<Status>, Fault> {
        self.at_home(core)?;
        let Some((result, _)) = core.take(op) else { return Ok(None) };
        self.uses.retain(|u| u.op != op);
        result.map(Some)
    }

    /// Calls `f` with a part to write and another to read.
    ///
    /// # Errors
    /// [`Fault::Overlap`] when they meet each other or a part in use, or are not inside their buffers.
    pub fn pair<R>(
        &mut self,
        to: Place,
        from: Place,
        f: impl FnOnce(&mut [u8], &[u8]) -> R,
    ) -> Result<R, Fault> {
        let (dst, src) = (self.check(to, true)?, self.check(from, false)?);
        if to.meets(&from) {
            return Err(Fault::Overlap);
        }
        // No operation uses either part and they do not meet, so these are the only references to them; `self`
        // is borrowed meanwhile, so none can be made.
        Ok(f(dst.bytes_mut(), src.bytes()))
    }

    /// Ends the use of all parts at once.
    pub fn abandon(&mut self, core: &mut Core) {
        if self.home.as_ref().is_some_and(|h| Arc::ptr_eq(h, &core.epoll)) {
            self.uses.drain(..).for_each(|u| core.release(u.op));
        }
    }
}

/// Ends an arena's operations when the borrow ends.
struct Guard<'a, 'm> {
    engine: &'a Engine,
    arena: Arena<'m>,
}

impl Drop for Guard<'_, '_> {
    fn drop(&mut self) {
        if !self.arena.uses.is_empty() {
            self.engine.with(|core| self.arena.abandon(core));
        }
    }
}

impl Engine {
    /// Calls `f` with an arena of borrowed buffers: first those to read, then those to write. Operations left
    /// over at its end are released.
    pub fn lend<R>(
        &self,
        reads: &[&[u8]],
        writes: &mut [&mut [u8]],
        f: impl for<'m> FnOnce(&mut Arena<'m>) -> R,
    ) -> R {
        // SAFETY: the buffers stay borrowed until this call ends, and the guard releases every operation of the
        // arena before; the arena cannot leave `f`, whose argument's lifetime is its own.
        let read = reads.iter().map(|b| (unsafe { RawBuf::read(b) }, false));
        // SAFETY: as above; exclusive.
        let write = writes.iter_mut().map(|b| (unsafe { RawBuf::write(b) }, true));
        let buffers = read.chain(write).collect();
        // Operations are only taken for this engine, or releasing them here would miss them.
        let home = Some(self.home());
        let arena = Arena { buffers, keeper: None, uses: Vec::new(), home, lent: PhantomData };
        let mut guard = Guard { engine: self, arena };
        f(&mut guard.arena)
    }
}
