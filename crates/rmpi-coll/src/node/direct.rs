//! Sums of buffers that lie in the node's memory themselves: every member reduces its slice straight out of the
//! others' buffers into its own, then takes their slices from theirs. Nothing is staged, and every byte crosses
//! between two cores once for the sum and once for the result.
//!
//! A member announces where its buffer is. It says when its slice is summed, which is when the others may copy it, and
//! when it has copied all it needs, which is when they may change their buffers again.

use super::block::Slots;
use super::call::{Buffers, Call};
use super::group::{Cursor, Group, Look, Trouble};
use super::memory::Memory;
use super::pass::combine;
use crate::kernels::Source;
use std::ops::Range;

/// Bytes combined or copied at once: they stay in a core's cache meanwhile.
const PIECE: usize = 128 << 10;
/// Bytes moved in one look, about.
const BUDGET: usize = 1 << 20;
/// Slices begin at cache lines, so that no two members write one line.
const LINE: usize = 64;

/// Where members' buffers are found.
pub trait Reach<M>: std::fmt::Debug + Send + Sync {
    /// The `len` bytes that `member` has at `at`, as it says; `None` when there is no such memory.
    fn window(&self, member: usize, at: u64, len: usize) -> Option<M>;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Announce,
    /// The others must have come.
    Meet,
    /// Bytes of the own slice that are summed.
    Sum(usize),
    /// Slices of others that are copied, and bytes of the next one.
    Copy(usize, usize),
    /// Others that are seen to have copied all.
    Leave(usize),
}

#[derive(Debug)]
pub(super) struct Direct {
    at: u64,
    step: Step,
}

/// Member `r`'s slice of `len` bytes.
fn slice(len: usize, r: usize, p: usize) -> Range<usize> {
    let each = len.div_ceil(p).next_multiple_of(LINE);
    (r * each).min(len)..((r + 1) * each).min(len)
}

impl Direct {
    pub(super) fn new(at: u64) -> Self {
        Self { at, step: Step::Announce }
    }

    pub(super) fn look<M: Memory>(
        &mut self,
        group: &Group<M>,
        cursor: &mut Cursor,
        call: &Call,
        buffers: &mut Buffers<'_>,
        n: u64,
    ) -> Result<Look, Trouble> {
        let (p, me, len) = (group.size(), group.me, call.longest());
        let mut look = Look::default();
        let mut budget = BUDGET;
        let window = |cursor: &Cursor, r: usize| {
            let reach = group.reach.as_ref().and_then(|reach| reach.window(r, cursor.starts[r], len));
            reach.ok_or(Trouble::Mismatch { member: r })
        };
        loop {
            if budget == 0 {
                return Ok(Look { busy: true, ..look });
            }
            match self.step {
                Step::Announce => {
                    group.mine().set_posted(n, 0);
                    group.mine().set_consumed(n, 0);
                    group.mine().announce(n, u64::from(call.digest), self.at);
                    look.published = true;
                    self.step = Step::Meet;
                }
                Step::Meet => {
                    look.awaits = cursor.all_arrived(group, n, call.digest)?;
                    if look.awaits.is_some() {
                        return Ok(look);
                    }
                    self.step = Step::Sum(0);
                }
                Step::Sum(done) => {
                    let mine = slice(len, me, p);
                    let part = mine.start + done..mine.end.min(mine.start + done + PIECE);
                    if part.is_empty() {
                        group.mine().set_posted(n, 1);
                        look.published = true;
                        self.step = Step::Copy(0, 0);
                        continue;
                    }
                    let mut others = Vec::with_capacity(p);
                    for r in 0..p {
                        others.push(if r == me { None } else { Some(window(cursor, r)?) });
                    }
                    let from = |r: usize| match &others[r] {
                        Some(other) => other.source(part.start, part.len()),
                        None => Source::OUTPUT,
                    };
                    let output = &mut buffers.output[part.clone()];
                    combine(call.reducer.as_ref(), 0..p, from, output, part.len(), false)?;
                    budget = budget.saturating_sub(part.len());
                    self.step = Step::Sum(done + part.len());
                }
                Step::Copy(others, done) => {
                    let Some(r) = group.others().nth(others) else {
                        group.mine().set_consumed(n, 1);
                        look.published = true;
                        self.step = Step::Leave(0);
                        continue;
                    };
                    if group.blocks[r].posted(n) == 0 {
                        return Ok(Look { awaits: Some(r), ..look });
                    }
                    let theirs = slice(len, r, p);
                    let part = theirs.start + done..theirs.end.min(theirs.start + done + PIECE);
                    if part.is_empty() {
                        self.step = Step::Copy(others + 1, 0);
                        continue;
                    }
                    window(cursor, r)?.read(part.start, &mut buffers.output[part.clone()]);
                    budget = budget.saturating_sub(part.len());
                    self.step = Step::Copy(others, done + part.len());
                }
                Step::Leave(others) => match group.others().nth(others) {
                    None => return Ok(Look { done: true, ..look }),
                    Some(r) if group.blocks[r].consumed(n) == 0 => {
                        return Ok(Look { awaits: Some(r), ..look });
                    }
                    Some(_) => self.step = Step::Leave(others + 1),
                },
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_cover_all_once_and_begin_at_lines() {
        for p in 1..=33 {
            for len in [0, 1, 63, 64, 65, 4097, 100_000, 1 << 20] {
                let mut end = 0;
                for r in 0..p {
                    let s = slice(len, r, p);
                    assert!(s.start == end && (s.start.is_multiple_of(LINE) || s.is_empty()), "{len} of {p}");
                    end = s.end;
                }
                assert_eq!(end, len);
            }
        }
    }
}
