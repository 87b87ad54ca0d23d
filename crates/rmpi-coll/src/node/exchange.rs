//! Large data through rings: members copy segments in and publish how many, those who need them take them out.
//!
//! A member's data of one operation starts at a position of its ring that it announces. Positions are in bytes and
//! only grow. Memory is written again when all have read it: they have announced a later operation, or said how
//! many segments of this one they have consumed.

use super::block::{RING_LEN, Slots, ring};
use super::call::{Buffers, Call, Cut, Lay};
use super::group::{Cursor, Group, Look, Trouble};
use super::memory::Memory;
use super::pass::{combine, members};
use crate::kernels::Source;

/// Bytes moved in one look, about.
const BUDGET: usize = 1 << 20;

#[derive(Debug)]
pub(super) struct Exchange {
    cut: Cut,
    /// Where this member's data starts in its ring.
    start: u64,
    /// Segments this member gives.
    giving: u64,
    /// Segments it has published.
    posted: u64,
    /// Segments it has taken from all it needs.
    taken: u64,
    /// Segments it has told the others it has consumed.
    told: u64,
    announced: bool,
    /// The others copy this member's data where it is.
    offered: bool,
    /// This member has copied so, or taken segments; and since when there was something to take.
    copied: bool,
    through_rings: bool,
    since: Option<u64>,
    /// In combinations: the next member to wait for.
    next: usize,
}

impl Exchange {
    pub(super) fn new<M: Memory>(call: &Call, group: &Group<M>, cursor: &mut Cursor) -> Self {
        let (p, me) = (group.size(), group.me);
        let cut = call.cut(p, group.crowded, &group.thresholds);
        let start = cursor.position.next_multiple_of(cut.stride as u64);
        let offered = group.decides_to_offer(cursor, call);
        let giving = if offered { 0 } else { to_give(call, me, p, cut) };
        Self {
            cut,
            start,
            giving,
            posted: 0,
            taken: 0,
            told: 0,
            announced: false,
            offered,
            copied: false,
            through_rings: false,
            since: None,
            next: 0,
        }
    }

    pub(super) fn look<M: Memory>(
        &mut self,
        group: &Group<M>,
        cursor: &mut Cursor,
        call: &Call,
        buffers: &mut Buffers<'_>,
        n: u64,
    ) -> Result<Look, Trouble> {
        let mut look = Look::default();
        if !self.announced {
            cursor.taken.fill(0);
            let takes = (0..group.size()).any(|r| call.needs(group.me, r) && call.gives(r));
            group.mine().set_posted(n, 0);
            group.mine().set_consumed(n, if takes { 0 } else { u64::MAX });
            group.mine().set_refuses(n, cursor.refuses);
            let at = if self.offered { call.own(group.me, buffers).as_ptr().expose_provenance() } else { 0 };
            group.mine().set_offer(n, at as u64);
        }
        let mut budget = BUDGET;
        loop {
            look.awaits = None;
            let left = if self.offered { self.reader_left(group, cursor, call, n)? } else { None };
            let gave = self.give(group, cursor, call, buffers, n, &mut look)?;
            if !self.announced {
                group.mine().announce(n, u64::from(call.digest), self.start);
                self.announced = true;
                look.published = true;
            }
            let took = if call.combines() {
                self.take_combined(group, cursor, call, buffers, n, &mut look)?
            } else {
                self.take_copies(group, cursor, call, buffers, n, &mut look)?
            };
            self.tell(group, call, n, &mut look);
            if self.posted == self.giving && self.taken == u64::MAX {
                if left.is_some() {
                    return Ok(Look { awaits: left, ..look });
                }
                self.sample(group, cursor, call);
                cursor.position = self.start + self.giving * self.cut.stride as u64;
                return Ok(Look { done: true, ..look });
            }
            if gave + took == 0 {
                return Ok(look);
            }
            budget = budget.saturating_sub(gave + took);
            if budget == 0 {
                return Ok(Look { busy: true, ..look });
            }
        }
    }

    /// Copies segments in; the bytes.
    fn give<M: Memory>(
        &mut self,
        group: &Group<M>,
        cursor: &mut Cursor,
        call: &Call,
        buffers: &Buffers<'_>,
        n: u64,
        look: &mut Look,
    ) -> Result<usize, Trouble> {
        let (p, me) = (group.size(), group.me);
        let mine = group.mine();
        let Cut { piece, stride, ahead } = self.cut;
        let mut bytes = 0;
        while self.posted < self.giving && self.posted < self.taken.saturating_add(ahead) && bytes < BUDGET {
            let at = self.start + self.posted * stride as u64;
            if !cursor.is_free(at, stride)
                && let Some(r) = self.make_room(group, cursor, call, at, n)?
            {
                look.awaits = Some(r);
                break;
            }
            let own = call.own(me, buffers);
            let from = part(self.posted, piece);
            match call.lay() {
                Lay::Whole => {
                    let from = clip(from, call.given(me, p));
                    mine.write(ring(at), &own[from.clone()]);
                    bytes += from.len();
                }
                Lay::Blocks => {
                    for d in group.others() {
                        let block = &own[call.lens.range(d)];
                        let from = clip(from.clone(), block.len());
                        mine.write(ring(at) + d * piece, &block[from.clone()]);
                        bytes += from.len();
                    }
                }
            }
            self.posted += 1;
            if self.told < self.taken {
                self.told = self.taken;
                mine.set_consumed(n, self.told);
            }
            mine.set_posted(n, self.posted);
            look.published = true;
            // Blocks of other members may be shorter: progress even where no byte was copied.
            bytes += 1;
        }
        Ok(bytes)
    }

    /// A member that has not copied what this one offers. When one cannot, all is given through the ring instead.
    fn reader_left<M: Memory>(
        &mut self,
        group: &Group<M>,
        cursor: &mut Cursor,
        call: &Call,
        n: u64,
    ) -> Result<Option<usize>, Trouble> {
        let (p, me) = (group.size(), group.me);
        let mut left = None;
        for r in group.others().filter(|&r| call.needs(r, me)) {
            if !cursor.arrived(group, n, call.digest, r)? {
                left = Some(r);
            } else if group.blocks[r].refuses(n) {
                cursor.offering.refuse();
                self.offered = false;
                self.giving = to_give(call, me, p, self.cut);
                return Ok(None);
            } else if group.blocks[r].consumed(n) != u64::MAX {
                left = Some(r);
            }
        }
        Ok(left)
    }

    /// Copies from `r`'s own memory, if it offers that; the bytes.
    fn copy<M: Memory>(
        &mut self,
        group: &Group<M>,
        cursor: &mut Cursor,
        call: &Call,
        buffers: &mut Buffers<'_>,
        (n, r, len): (u64, usize, usize),
        look: &mut Look,
    ) -> Result<Option<usize>, Trouble> {
        if !cursor.arrived(group, n, call.digest, r)? {
            return Ok(None);
        }
        if self.since.is_none()
            && let Some(reading) = group.reading(call, len)
        {
            self.since = Some(reading.now());
        }
        let at = group.blocks[r].offer(n);
        if at == 0 || cursor.refuses {
            return Ok(None);
        }
        if group.reading(call, len).is_none() {
            self.refuse(group, cursor, n, look);
            return Ok(None);
        }
        let first = part(cursor.taken[r], self.cut.piece).start.min(len);
        let count = segments(len - first, self.cut).min((BUDGET / self.cut.piece).max(1) as u64);
        let end = part(cursor.taken[r] + count - 1, self.cut.piece).end.min(len);
        let into = &mut buffers.output[call.place(r)..][first..end];
        match group.copy_from(n, r, at, first, into) {
            Some(true) => {
                self.copied = true;
                cursor.taken[r] += count;
                Ok(Some(end - first))
            }
            // Its operation has failed, of which this one will hear.
            Some(false) => Ok(None),
            None => {
                self.refuse(group, cursor, n, look);
                Ok(None)
            }
        }
    }

    /// How long it took, where all data went one way, and there was something to take.
    fn sample<M: Memory>(&self, group: &Group<M>, cursor: &mut Cursor, call: &Call) {
        let len = call.longest();
        let Some((since, reading)) = self.since.zip(group.reading(call, len)) else { return };
        let ns = reading.now().saturating_sub(since);
        let gives = call.gives(group.me);
        if self.copied && !self.through_rings && (self.offered || !gives) {
            cursor.rates.single(len, len, ns);
        } else if self.through_rings && !self.copied && !self.offered {
            cursor.rates.cells(len, len, ns);
        } else {
            return;
        }
        group.report(cursor, len);
    }

    fn refuse<M: Memory>(&self, group: &Group<M>, cursor: &mut Cursor, n: u64, look: &mut Look) {
        cursor.refuses = true;
        group.mine().set_refuses(n, true);
        look.published = true;
    }

    /// Learns what has been read; `None` when the segment at `at` is free now, else a member to wait for.
    fn make_room<M: Memory>(
        &self,
        group: &Group<M>,
        cursor: &mut Cursor,
        call: &Call,
        at: u64,
        n: u64,
    ) -> Result<Option<usize>, Trouble> {
        if let Some(r) = cursor.all_arrived(group, n, call.digest)? {
            return Ok(Some(r));
        }
        let slowest = group.others().map(|r| (group.blocks[r].consumed(n), r)).min().unwrap_or((u64::MAX, 0));
        // Forged numbers only make room for what this member has posted.
        let read = slowest.0.min(self.posted);
        cursor.free = cursor.free.max(self.start + read * self.cut.stride as u64);
        Ok((!cursor.is_free(at, self.cut.stride)).then_some(slowest.1))
    }

    /// Whether `r` has published segment `segment`; where it is in its ring.
    fn ready<M: Memory>(
        &self,
        group: &Group<M>,
        cursor: &mut Cursor,
        call: &Call,
        n: u64,
        r: usize,
        segment: u64,
    ) -> Result<Option<usize>, Trouble> {
        if !cursor.arrived(group, n, call.digest, r)? || group.blocks[r].posted(n) <= segment {
            return Ok(None);
        }
        let stride = self.cut.stride as u64;
        let start = cursor.starts[r];
        if !start.is_multiple_of(stride) {
            return Err(Trouble::Mismatch { member: r });
        }
        let at = ring(start.wrapping_add(segment * stride));
        Ok(Some(if call.lay() == Lay::Blocks { at + group.me * self.cut.piece } else { at }))
    }

    /// Bytes of member `r`'s data for this one.
    fn from(&self, call: &Call, r: usize, me: usize, p: usize) -> usize {
        match call.lay() {
            Lay::Whole => call.given(r, p),
            Lay::Blocks => call.lens.len(me),
        }
    }

    fn take_copies<M: Memory>(
        &mut self,
        group: &Group<M>,
        cursor: &mut Cursor,
        call: &Call,
        buffers: &mut Buffers<'_>,
        n: u64,
        look: &mut Look,
    ) -> Result<usize, Trouble> {
        let (p, me) = (group.size(), group.me);
        let mut bytes = 0;
        let mut least = u64::MAX;
        for r in group.others().filter(|&r| call.needs(me, r) && call.gives(r)) {
            let len = self.from(call, r, me, p);
            let all = segments(len, self.cut);
            while cursor.taken[r] < all && bytes < BUDGET {
                if let Some(n) = self.copy(group, cursor, call, buffers, (n, r, len), look)? {
                    bytes += n;
                    continue;
                }
                let segment = cursor.taken[r];
                let Some(at) = self.ready(group, cursor, call, n, r, segment)? else {
                    look.awaits = Some(r);
                    break;
                };
                let part = clip(part(segment, self.cut.piece), len);
                let into = &mut buffers.output[call.place(r)..][part.clone()];
                group.blocks[r].read(at, into);
                self.through_rings = true;
                bytes += part.len();
                cursor.taken[r] += 1;
            }
            if cursor.taken[r] < all {
                least = least.min(cursor.taken[r]);
            }
        }
        // Those who have given all wait for nothing here.
        self.taken = least;
        Ok(bytes)
    }

    fn take_combined<M: Memory>(
        &mut self,
        group: &Group<M>,
        cursor: &mut Cursor,
        call: &Call,
        buffers: &mut Buffers<'_>,
        n: u64,
        look: &mut Look,
    ) -> Result<usize, Trouble> {
        let (p, me) = (group.size(), group.me);
        let members = members(call, me, p);
        let len = call.lens.len(if call.lay() == Lay::Blocks { me } else { 0 });
        let all = if members.is_empty() { 0 } else { segments(len, self.cut) };
        if self.taken >= all {
            self.taken = u64::MAX;
            return Ok(0);
        }
        while self.next < p {
            let r = self.next;
            if r != me && call.needs(me, r) && self.ready(group, cursor, call, n, r, self.taken)?.is_none() {
                look.awaits = Some(r);
                return Ok(0);
            }
            self.next += 1;
        }
        self.next = 0;
        let part = clip(part(self.taken, self.cut.piece), len);
        let base = if call.lay() == Lay::Blocks { call.lens.range(me).start } else { 0 };
        let own =
            buffers.input.map_or(Source::OUTPUT, |i| Source::from(&i[base + part.start..base + part.end]));
        let stride = self.cut.stride as u64;
        let column = if call.lay() == Lay::Blocks { me * self.cut.piece } else { 0 };
        let taken = self.taken;
        let from = |r: usize| {
            if r == me {
                return own;
            }
            let at = ring(cursor.starts[r].wrapping_add(taken * stride)) + column;
            group.blocks[r].source(at, part.len())
        };
        let at = call.result_at(me, buffers);
        let output = &mut buffers.output[at + part.start..at + part.end];
        let stream = call.streams(&group.thresholds);
        combine(call.reducer.as_ref(), members, from, output, part.len(), stream)?;
        self.taken += 1;
        Ok(part.len())
    }

    /// Says how much was consumed when somebody may wait for that.
    fn tell<M: Memory>(&mut self, group: &Group<M>, call: &Call, n: u64, look: &mut Look) {
        let over = self.taken == u64::MAX;
        let behind = self.taken.saturating_sub(self.told);
        let much = behind.saturating_mul(self.cut.stride as u64) >= RING_LEN as u64 / 4;
        // Rings shorter than the data are written again within the operation.
        let again =
            segments(call.longest(), self.cut).saturating_mul(self.cut.stride as u64) > RING_LEN as u64;
        // Givers whose own memory was read wait for that.
        if self.told < self.taken && ((much || over) && again || over && self.copied) {
            self.told = self.taken;
            group.mine().set_consumed(n, self.told);
            look.published = true;
        }
    }
}

/// Segments that member `me` puts into its ring.
fn to_give(call: &Call, me: usize, p: usize, cut: Cut) -> u64 {
    match (call.gives(me), call.lay()) {
        (false, _) => 0,
        (true, Lay::Whole) => segments(call.given(me, p), cut),
        (true, Lay::Blocks) => segments(call.longest(), cut),
    }
}

fn segments(len: usize, cut: Cut) -> u64 {
    len.div_ceil(cut.piece) as u64
}

/// The bytes of a block that a segment carries, before its end is known.
fn part(segment: u64, piece: usize) -> std::ops::Range<usize> {
    let start = usize::try_from(segment).unwrap_or(usize::MAX).saturating_mul(piece);
    start..start.saturating_add(piece)
}

fn clip(range: std::ops::Range<usize>, len: usize) -> std::ops::Range<usize> {
    range.start.min(len)..range.end.min(len)
}
