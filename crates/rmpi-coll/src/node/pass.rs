//! One operation of a node's group, as a machine that never waits.
//!
//! **Slots.** Operation n uses slot n modulo 4 of every member. A member writes its data there, then the number:
//! whoever reads the number may read the data. Every member announces every operation, also where nobody needs
//! it, because that says that it has completed all before: a slot is written again only when all were seen three
//! operations later than its last use, at most three apart.
//!
//! **Small data** is in the slots; everyone who needs it combines or copies it there, in rank order. No second
//! phase: with more ranks than cores each phase costs every rank a change of place.

use super::block::Slots;
use super::call::{Buffers, Call, Kind, Lay};
use super::claim::Claim;
use super::direct::Direct;
use super::exchange::Exchange;
use super::group::{Cursor, Group, Look, Trouble};
use super::memory::Memory;
use crate::kernels::{Reducer, Source};

#[derive(Debug)]
enum Stage {
    /// The slot may still be read.
    Enter,
    /// Announced; `next` members, counted from this one, have been seen.
    Small,
    Exchange(Exchange),
    Claim(Claim),
    Direct(Direct),
    Over,
}

/// Operation `n` of a group at one member. Operations begin in their order: [`Pass::look`] may be called once
/// [`Cursor::done`] is `n - 1`.
#[derive(Debug)]
pub struct Pass {
    n: u64,
    next: usize,
    stage: Stage,
}

impl Pass {
    /// Operation `n`, counted from 1.
    #[must_use]
    pub fn new(n: u64) -> Self {
        Self { n, next: 0, stage: Stage::Enter }
    }

    /// Operation `n`, of which [`Group::put`] has written this member's part.
    #[must_use]
    pub fn begun(n: u64) -> Self {
        Self { n, next: 0, stage: Stage::Small }
    }

    /// Its number.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.n
    }

    /// Goes on as far as it can without waiting, for about a megabyte of data at most. The arguments are the same
    /// at every look.
    ///
    /// # Errors
    /// [`Trouble`]: the group is of no use then.
    ///
    /// # Panics
    /// When the buffers are not as long as the call says: a mistake of the caller's.
    pub fn look<M: Memory>(
        &mut self,
        group: &Group<M>,
        cursor: &mut Cursor,
        call: &Call,
        buffers: &mut Buffers<'_>,
    ) -> Result<Look, Trouble> {
        let mut published = false;
        if let Stage::Enter = self.stage {
            if let Some(r) = cursor.slot_in_use(group, self.n) {
                return Ok(Look { awaits: Some(r), ..Look::default() });
            }
            published = self.enter(group, cursor, call, buffers);
        }
        let look = match &mut self.stage {
            Stage::Small => self.small(group, cursor, call, buffers)?,
            Stage::Exchange(e) => e.look(group, cursor, call, buffers, self.n)?,
            Stage::Claim(c) => c.look(group, cursor, call, buffers, self.n)?,
            Stage::Direct(d) => d.look(group, cursor, call, buffers, self.n)?,
            Stage::Enter | Stage::Over => Look { done: true, ..Look::default() },
        };
        if look.done {
            cursor.complete(self.n);
            self.stage = Stage::Over;
        }
        Ok(Look { published: look.published | published, ..look })
    }

    /// Gives the operation up: the caller's memory is no longer the others' to read.
    pub fn abandon<M: Memory>(&self, group: &Group<M>) {
        if let Stage::Exchange(_) = self.stage {
            group.withdraw(self.n);
        }
    }

    /// Whether something was written.
    fn enter<M: Memory>(
        &mut self,
        group: &Group<M>,
        cursor: &mut Cursor,
        call: &Call,
        buffers: &mut Buffers<'_>,
    ) -> bool {
        let (p, me) = (group.size(), group.me);
        if let (Kind::Allgather | Kind::Gather { .. }, Some(input)) = (call.kind, buffers.input)
            && (call.kind == Kind::Allgather || !call.gives(me))
        {
            buffers.output[call.lens.range(me)].copy_from_slice(input);
        }
        if let (Kind::Alltoall | Kind::Scatter { .. }, Some(input)) = (call.kind, buffers.input)
            && call.gives(me)
        {
            let from = &input[call.lens.range(me)];
            buffers.output[call.place(me)..][..from.len()].copy_from_slice(from);
        }
        if call.is_small(p) {
            let mine = group.mine();
            let given = call.given(me, p);
            if given > 0 {
                mine.write_small(self.n, &call.own(me, buffers)[..given]);
            }
            mine.announce(self.n, u64::from(call.digest), 0);
            self.stage = Stage::Small;
            return true;
        }
        let shared = matches!(call.kind, Kind::Allreduce | Kind::Reduce { .. }) && (p > 2 || group.crowded);
        self.stage = if let Kind::AllreduceShared { at } = call.kind {
            Stage::Direct(Direct::new(at))
        } else if shared {
            Stage::Claim(Claim::new(call, p, cursor))
        } else {
            Stage::Exchange(Exchange::new(call, group, cursor))
        };
        false
    }

    fn small<M: Memory>(
        &mut self,
        group: &Group<M>,
        cursor: &mut Cursor,
        call: &Call,
        buffers: &mut Buffers<'_>,
    ) -> Result<Look, Trouble> {
        let (p, me) = (group.size(), group.me);
        while self.next < p {
            let r = self.next;
            if call.needs(me, r) && !cursor.arrived(group, self.n, call.digest, r)? {
                return Ok(Look { awaits: Some(r), ..Look::default() });
            }
            self.next += 1;
        }
        if matches!(
            call.kind,
            Kind::Barrier
                | Kind::Allreduce
                | Kind::AllreduceShared { .. }
                | Kind::Allgather
                | Kind::ReduceScatter
                | Kind::Alltoall
        ) {
            cursor.all_seen(self.n);
        }
        if call.combines() {
            self.combine_small(group, call, buffers)?;
        } else {
            self.copy_small(group, call, buffers);
        }
        Ok(Look { done: true, ..Look::default() })
    }

    fn combine_small<M: Memory>(
        &self,
        group: &Group<M>,
        call: &Call,
        buffers: &mut Buffers<'_>,
    ) -> Result<(), Trouble> {
        let (p, me) = (group.size(), group.me);
        let (offset, len, of) = match call.lay() {
            Lay::Whole => (0, call.longest(), call.longest()),
            Lay::Blocks => (call.lens.range(me).start, call.lens.len(me), call.lens.total(p)),
        };
        let own = match buffers.input {
            Some(input) if len > 0 => Source::from(&input[offset..offset + len]),
            _ => Source::OUTPUT,
        };
        let from = |r: usize| if r == me { own } else { group.blocks[r].small(self.n, of, offset, len) };
        let at = call.result_at(me, buffers);
        let reducer = call.reducer.as_ref();
        combine(reducer, members(call, me, p), from, &mut buffers.output[at..], len, false)
    }

    fn copy_small<M: Memory>(&self, group: &Group<M>, call: &Call, buffers: &mut Buffers<'_>) {
        let (p, me) = (group.size(), group.me);
        for r in group.others().filter(|&r| call.needs(me, r) && call.gives(r)) {
            let (of, offset, len) = match call.lay() {
                Lay::Whole => (call.given(r, p), 0, call.given(r, p)),
                Lay::Blocks => (call.lens.total(p), call.lens.range(me).start, call.lens.len(me)),
            };
            let into = &mut buffers.output[call.place(r)..][..len];
            group.blocks[r].read_small(self.n, of, offset, into);
        }
    }
}

/// The members whose data a combination takes, in their order; empty when this one gets nothing.
pub(super) fn members(call: &Call, me: usize, p: usize) -> std::ops::Range<usize> {
    match call.kind {
        Kind::Reduce { root } if root != me => 0..0,
        Kind::Scan => 0..me + 1,
        Kind::Exscan => 0..me,
        _ => 0..p,
    }
}

/// Members whose operands are listed on the stack.
const FEW: usize = 16;

/// Combines `len` bytes of the members' sources, in their order, into the beginning of `output`.
#[inline]
pub(super) fn combine<'s>(
    reducer: Option<&Reducer>,
    members: std::ops::Range<usize>,
    source: impl Fn(usize) -> Source<'s>,
    output: &mut [u8],
    len: usize,
    stream: bool,
) -> Result<(), Trouble> {
    let Some(reducer) = reducer.filter(|_| !members.is_empty() && len > 0) else {
        return Ok(());
    };
    let out = &mut output[..len];
    if members.len() == 2 {
        reducer.combine(out.into(), &[source(members.start), source(members.start + 1)], stream)?;
    } else if members.len() <= FEW {
        let mut few = [Source::OUTPUT; FEW];
        let n = members.len();
        few.iter_mut().zip(members).for_each(|(f, r)| *f = source(r));
        reducer.combine(out.into(), &few[..n], stream)?;
    } else {
        let many: Vec<Source<'_>> = members.map(source).collect();
        reducer.combine(out.into(), &many, stream)?;
    }
    Ok(())
}
