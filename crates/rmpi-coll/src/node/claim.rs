//! Large reductions of many ranks, or of ranks that share cores: every member copies a segment into its ring; then
//! whoever runs claims chunks of it, combines all members' in registers, in rank order, and leaves the result in the
//! first member's ring; when all chunks are done everyone copies the result out.
//!
//! No rank has a slice of its own, so that none needs to get a core before the others can go on. Chunks are short:
//! the owner of a claimed chunk may lose its core, and all wait for it.

use super::block::{CHUNKS_DONE, CLAIMS, Slots, ring};
use super::call::{Buffers, Call};
use super::group::{Cursor, Group, Look, Trouble};
use super::memory::Memory;
use super::pass::members;
use crate::kernels::Source;

/// Longest segment: half the ring, so that one can be filled while the other is read.
const SEGMENT: usize = 1 << 20;
/// A claim. 64 KiB leave too little to share at such sizes, 4 KiB cost 10-40 % more (measured).
const CHUNK: usize = 16 << 10;
/// Bits of the claims word that count chunks; the rest counts segments.
const CHUNK_BITS: u32 = 20;
/// Bytes combined in one look, about.
const BUDGET: usize = 1 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// This member's segment must be copied in.
    Give,
    /// Members from this one on have not been seen to have theirs in.
    Gather(usize),
    /// Chunks may be left.
    Work,
    /// Others may be at work.
    Rest,
}

#[derive(Debug)]
pub(super) struct Claim {
    stride: usize,
    start: u64,
    segments: u64,
    segment: u64,
    phase: Phase,
    announced: bool,
    /// Chunks of all segments before this one, in the group's life.
    chunks_before: u64,
}

impl Claim {
    pub(super) fn new(call: &Call, _p: usize, cursor: &Cursor) -> Self {
        let len = call.longest();
        let stride = len.next_power_of_two().min(SEGMENT);
        Self {
            stride,
            start: cursor.position.next_multiple_of(stride as u64),
            segments: len.div_ceil(stride) as u64,
            segment: 0,
            phase: Phase::Give,
            announced: false,
            chunks_before: cursor.claimed_chunks,
        }
    }

    /// The bytes of the data in this segment.
    fn range(&self, call: &Call) -> std::ops::Range<usize> {
        let start = usize::try_from(self.segment).unwrap_or(usize::MAX).saturating_mul(self.stride);
        let end = start.saturating_add(self.stride).min(call.longest());
        start.min(end)..end
    }

    fn position(&self) -> u64 {
        self.segment * self.stride as u64
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
        let mut budget = BUDGET;
        loop {
            let range = self.range(call);
            match self.phase {
                Phase::Give => {
                    if let Some(r) = self.give(group, cursor, call, buffers, n, &mut look)? {
                        return Ok(Look { awaits: Some(r), ..look });
                    }
                    self.phase = Phase::Gather(0);
                }
                Phase::Gather(r) if r < group.size() => {
                    let here = r == group.me
                        || (cursor.arrived(group, n, call.digest, r)?
                            && group.blocks[r].posted(n) > self.segment);
                    if !here {
                        return Ok(Look { awaits: Some(r), ..look });
                    }
                    if !cursor.starts[r].is_multiple_of(self.stride as u64) {
                        return Err(Trouble::Mismatch { member: r });
                    }
                    self.phase = Phase::Gather(r + 1);
                }
                Phase::Gather(_) => {
                    // Whoever gave this segment had copied out the result of the one before.
                    cursor.all_seen(n);
                    cursor.free = cursor.free.max(self.start + self.position());
                    self.phase = Phase::Work;
                }
                Phase::Work => match self.claim(group, cursor, range.len()) {
                    Some(chunk) => {
                        self.combine(group, cursor, call, chunk, range.len())?;
                        group.blocks[0].add(CHUNKS_DONE, 1);
                        look.published = true;
                        budget = budget.saturating_sub(CHUNK * group.size());
                        if budget == 0 {
                            return Ok(Look { busy: true, ..look });
                        }
                    }
                    None => self.phase = Phase::Rest,
                },
                Phase::Rest => {
                    let chunks = range.len().div_ceil(CHUNK) as u64;
                    if group.blocks[0].load(CHUNKS_DONE) < self.chunks_before + chunks {
                        return Ok(look);
                    }
                    if !members(call, group.me, group.size()).is_empty() {
                        let at = ring(cursor.starts[0].wrapping_add(self.position()));
                        group.blocks[0].read(at, &mut buffers.output[range]);
                    }
                    self.chunks_before += chunks;
                    self.segment += 1;
                    if self.segment == self.segments {
                        cursor.position = self.start + self.position();
                        cursor.claimed_segments += self.segments;
                        cursor.claimed_chunks = self.chunks_before;
                        return Ok(Look { done: true, ..look });
                    }
                    self.phase = Phase::Give;
                }
            }
        }
    }

    /// Copies this member's segment in; a member to wait for when there is no room yet.
    fn give<M: Memory>(
        &mut self,
        group: &Group<M>,
        cursor: &mut Cursor,
        call: &Call,
        buffers: &Buffers<'_>,
        n: u64,
        look: &mut Look,
    ) -> Result<Option<usize>, Trouble> {
        let mine = group.mine();
        let at = self.start + self.position();
        if !self.announced {
            mine.set_posted(n, 0);
            cursor.starts[group.me] = self.start;
        }
        let mut room = cursor.is_free(at, self.stride);
        if room {
            mine.write(ring(at), &call.own(group.me, buffers)[self.range(call)]);
            mine.set_posted(n, self.segment + 1);
            look.published = true;
        }
        if !self.announced {
            mine.announce(n, u64::from(call.digest), self.start);
            self.announced = true;
            look.published = true;
        }
        if !room {
            if let Some(r) = cursor.all_arrived(group, n, call.digest)? {
                return Ok(Some(r));
            }
            // All have completed the operations before. Within this one, room was made in `Gather`.
            cursor.free = cursor.free.max(self.start);
            room = cursor.is_free(at, self.stride);
            debug_assert!(room, "half the ring is free");
            mine.write(ring(at), &call.own(group.me, buffers)[self.range(call)]);
            mine.set_posted(n, self.segment + 1);
            look.published = true;
        }
        Ok(None)
    }

    /// A chunk of this segment that nobody else has.
    fn claim<M: Memory>(&self, group: &Group<M>, cursor: &Cursor, len: usize) -> Option<usize> {
        let words = &group.blocks[0];
        let segment = cursor.claimed_segments + self.segment + 1;
        let chunks = len.div_ceil(CHUNK) as u64;
        let mut word = words.load(CLAIMS);
        loop {
            let next = match word >> CHUNK_BITS {
                // The first to come to this segment: nothing of the one before is left to claim.
                s if s < segment => 0,
                s if s == segment => word & ((1 << CHUNK_BITS) - 1),
                _ => return None,
            };
            if next >= chunks {
                return None;
            }
            match words.replace(CLAIMS, word, segment << CHUNK_BITS | (next + 1)) {
                Ok(()) => return usize::try_from(next).ok(),
                Err(now) => word = now,
            }
        }
    }

    fn combine<M: Memory>(
        &self,
        group: &Group<M>,
        cursor: &Cursor,
        call: &Call,
        chunk: usize,
        len: usize,
    ) -> Result<(), Trouble> {
        let Some(reducer) = &call.reducer else { return Ok(()) };
        let (from, to) = (chunk * CHUNK, ((chunk + 1) * CHUNK).min(len));
        let at = |r: usize| ring(cursor.starts[r].wrapping_add(self.position())) + from;
        let source = |r: usize| {
            if r == 0 { Source::OUTPUT } else { group.blocks[r].source(at(r), to - from) }
        };
        let target = group.blocks[0].target(at(0), to - from);
        let p = group.size();
        if p <= 16 {
            let mut few = [Source::OUTPUT; 16];
            few.iter_mut().zip(0..p).for_each(|(f, r)| *f = source(r));
            reducer.combine(target, &few[..p], false)?;
        } else {
            let many: Vec<Source<'_>> = (0..p).map(source).collect();
            reducer.combine(target, &many, false)?;
        }
        Ok(())
    }
}
