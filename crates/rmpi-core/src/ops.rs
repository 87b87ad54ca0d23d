//! The table of operations: generation-checked slots, so that a stale or forged id is an error, never a
//! mix-up.

use crate::error::Fault;
use crate::memory::{Keeper, Memory, RawBuf};
use rmpi_shm::Ticket;
use std::sync::Arc;

/// Names one operation of one engine; never used twice within 2^32 uses of a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct OpId(u64);

impl OpId {
    pub(crate) fn raw(self) -> u64 {
        self.0
    }

    pub(crate) fn from_raw(raw: u64) -> Self {
        Self(raw)
    }

    fn parts(self) -> (usize, u32) {
        ((self.0 & 0xffff_ffff) as usize, (self.0 >> 32) as u32)
    }
}

/// What a completed operation did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// The peer, a rank of the world: the sender of a received message.
    pub peer: u32,
    /// The message's tag.
    pub tag: i32,
    /// Bytes of payload.
    pub length: u64,
}

/// An operation that is over: its result, and the memory it owned.
pub type Finished = (Result<Status, Fault>, Option<Box<dyn Memory>>);

pub(crate) enum State {
    /// A send that waits for the link or for its turn.
    SendQueued,
    /// A rendezvous send that the receiver has not cleared yet; the receiver may copy by itself while an offer stands.
    SendWaiting { offer: Option<Ticket> },
    /// A cleared send: how many bytes connections have taken on or sent, and the receiver's operation.
    SendStreaming { sent: usize, peer_op: u64 },
    /// A receive that nothing matched yet.
    RecvPosted,
    /// A receive matched with a message whose bytes are on the way to the unexpected queue.
    RecvClaimed,
    /// A receive whose bytes come in: of `total`, `got` have; eager or rendezvous.
    RecvData { got: u64, total: u64, eager: bool },
    /// A task.
    Running,
    /// Over.
    Done,
}

pub(crate) struct Op {
    pub(crate) state: State,
    /// The peer; of an any-source receive only once matched.
    pub(crate) peer: Option<u32>,
    /// Members of an any-source receive's group; `None` is the world.
    pub(crate) group: Option<Arc<[u32]>>,
    pub(crate) context: u32,
    pub(crate) tag: i32,
    pub(crate) check: u16,
    pub(crate) buf: RawBuf,
    pub(crate) keep: Option<Box<dyn Memory>>,
    /// Keeps an arena's memory alive.
    pub(crate) hold: Option<Arc<Keeper>>,
    /// Bytes of payload, once it is over.
    pub(crate) length: u64,
    /// What went wrong; operations are many and faults are few, so it is elsewhere.
    pub(crate) fault: Option<Box<Fault>>,
    /// The buffer may be written beyond the message's length.
    pub(crate) scribble: bool,
    /// Nobody will ask for the result: free the slot at completion.
    pub(crate) orphan: bool,
}

struct Slot {
    generation: u32,
    op: Option<Op>,
}

#[derive(Default)]
pub(crate) struct Ops {
    slots: Vec<Slot>,
    /// The last one freed is used first: it is warm.
    free: Vec<usize>,
    /// Operations that are not over.
    running: usize,
}

impl Op {
    /// Notes how it ended. A fault noticed on the way (truncation, another type) outranks success at the end, and
    /// what comes after it.
    #[inline]
    pub(crate) fn end(&mut self, result: Result<Status, Fault>) {
        self.state = State::Done;
        match result {
            Ok(Status { peer, tag, length }) => {
                (self.peer, self.tag, self.length) = (Some(peer), tag, length)
            }
            Err(fault) => drop(self.fault.get_or_insert_with(|| Box::new(fault))),
        }
    }
}

impl Ops {
    #[inline]
    pub(crate) fn insert(&mut self, op: Op) -> OpId {
        self.running += 1;
        let Some(index) = self.free.pop() else {
            self.slots.push(Slot { generation: 0, op: Some(op) });
            return OpId(self.slots.len() as u64 - 1);
        };
        let slot = &mut self.slots[index];
        slot.op = Some(op);
        OpId(index as u64 | u64::from(slot.generation) << 32)
    }

    pub(crate) fn get(&self, id: OpId) -> Option<&Op> {
        let (index, generation) = id.parts();
        self.slots.get(index).filter(|s| s.generation == generation)?.op.as_ref()
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, id: OpId) -> Option<&mut Op> {
        let (index, generation) = id.parts();
        self.slots.get_mut(index).filter(|s| s.generation == generation)?.op.as_mut()
    }

    pub(crate) fn remove(&mut self, id: OpId) -> Option<Op> {
        let (index, generation) = id.parts();
        let slot = self.slots.get_mut(index).filter(|s| s.generation == generation)?;
        let op = slot.op.take()?;
        self.running -= usize::from(!matches!(op.state, State::Done));
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(index);
        Some(op)
    }

    /// Operations that are not over.
    #[inline]
    pub(crate) fn running(&self) -> usize {
        self.running
    }

    /// Counts one that has ended ([`Op::end`]) after having run.
    #[inline]
    pub(crate) fn ended(&mut self) {
        self.running -= 1;
    }

    /// Takes the result and the memory of an operation that is over, and forgets it; `None` while it runs.
    #[inline]
    pub(crate) fn finish(&mut self, id: OpId) -> Option<Finished> {
        let (index, generation) = id.parts();
        let spent = || (Err(Fault::Spent), None);
        let Some(slot) = self.slots.get_mut(index).filter(|s| s.generation == generation) else {
            return Some(spent());
        };
        let Some(op) = &mut slot.op else { return Some(spent()) };
        if !matches!(op.state, State::Done) {
            return None;
        }
        // Taken out field by field: operations are large, and moving one costs more than all else here.
        let status = Status { peer: op.peer.unwrap_or(u32::MAX), tag: op.tag, length: op.length };
        let result = op.fault.take().map_or(Ok(status), |fault| Err(*fault));
        let keep = op.keep.take();
        slot.op = None;
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(index);
        Some((result, keep))
    }

    /// Forgets an operation that is over, and says how it ended; `None` while it runs. Operations are large, and
    /// moving one costs more than all else here.
    #[inline]
    pub(crate) fn settle(&mut self, id: OpId) -> Option<Result<(), Fault>> {
        let (index, generation) = id.parts();
        let slot = self.slots.get_mut(index).filter(|s| s.generation == generation);
        let Some(Slot { generation, op: place @ Some(_) }) = slot else { return Some(Err(Fault::Spent)) };
        let op = place.as_mut()?;
        if !matches!(op.state, State::Done) {
            return None;
        }
        let fault = op.fault.take();
        *place = None;
        *generation = generation.wrapping_add(1);
        self.free.push(index);
        Some(fault.map_or(Ok(()), |f| Err(*f)))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (OpId, &Op)> {
        self.slots
            .iter()
            .enumerate()
            .filter_map(|(i, s)| s.op.as_ref().map(|op| (OpId(i as u64 | u64::from(s.generation) << 32), op)))
    }
}
