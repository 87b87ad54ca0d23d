//! What a collective compiles to: actions over regions of three buffers, and which must wait for which.
//! A schedule is plain immutable data; it may be shared, cached and run any number of times.

use crate::PlanError;

/// The buffers of one call of a collective, as the caller binds them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Buffer {
    /// What this rank contributes; never written.
    Input,
    /// What this rank gets. Where a collective has one buffer only (broadcast, in-place calls) it is this.
    Output,
    /// Memory of [`Schedule::scratch_len`] bytes, private to the run, contents arbitrary at the start.
    Scratch,
}

/// A range of bytes of one buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Region {
    /// The buffer.
    pub buffer: Buffer,
    /// First byte.
    pub offset: usize,
    /// Length in bytes.
    pub len: usize,
}

impl Region {
    /// `len` bytes of `buffer` from `offset`.
    #[must_use]
    pub fn new(buffer: Buffer, offset: usize, len: usize) -> Self {
        Self { buffer, offset, len }
    }

    /// `len` bytes of this region from its byte `offset`.
    ///
    /// # Panics
    /// When that is not inside the region: a mistake in an algorithm.
    #[must_use]
    pub fn part(self, offset: usize, len: usize) -> Self {
        assert!(offset <= self.len && len <= self.len - offset, "part {offset}+{len} of {self:?}");
        Self { offset: self.offset + offset, len, ..self }
    }

    /// Itself if it is as long as `other`.
    pub(crate) fn fit(self, other: Self) -> Result<Self, PlanError> {
        if self.len == other.len {
            Ok(self)
        } else {
            Err(PlanError::OwnBlock { one: self.len, other: other.len })
        }
    }

    /// The bytes as a range, to index the buffer with.
    #[must_use]
    pub fn range(self) -> std::ops::Range<usize> {
        self.offset..self.offset + self.len
    }
}

/// One step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send the region to a rank.
    Send {
        /// Receiving rank.
        peer: u32,
        /// Number of the message among those from this rank to `peer` in this schedule, from 0.
        tag: u32,
        /// The bytes.
        data: Region,
    },
    /// Fill the region with exactly as many bytes from a rank.
    Recv {
        /// Sending rank.
        peer: u32,
        /// Number of the message among those from `peer` to this rank in this schedule, from 0.
        tag: u32,
        /// Where to.
        into: Region,
    },
    /// `dst = op(dst, src)`, element by element, in this operand order.
    Reduce {
        /// Left operand and result.
        dst: Region,
        /// Right operand.
        src: Region,
    },
    /// `dst = src`.
    Copy {
        /// Where to.
        dst: Region,
        /// Where from; does not overlap `dst`.
        src: Region,
    },
}

/// One rank's part of a collective: a graph of actions. Made by [`crate::Builder`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    pub(crate) steps: Vec<Action>,
    /// Number of steps that each step waits for.
    pub(crate) waits: Vec<u32>,
    /// `next[next_at[i]..next_at[i + 1]]` are the steps that wait for step `i`.
    pub(crate) next_at: Vec<u32>,
    pub(crate) next: Vec<u32>,
    pub(crate) scratch_len: usize,
    pub(crate) tags: u32,
}

impl Schedule {
    /// The actions in program order: carried out one by one in this order, with sends that do not wait for
    /// their receiver, they give the result too.
    #[must_use]
    pub fn steps(&self) -> &[Action] {
        &self.steps
    }

    /// The steps that must wait for step `step`, ascending.
    #[must_use]
    pub fn dependents(&self, step: usize) -> &[u32] {
        &self.next[self.next_at[step] as usize..self.next_at[step + 1] as usize]
    }

    /// Bytes of scratch memory a run needs. Reductions into scratch are at offsets that are multiples of 64
    /// plus multiples of the element size, so a 64-byte aligned scratch keeps elements aligned.
    #[must_use]
    pub fn scratch_len(&self) -> usize {
        self.scratch_len
    }

    /// All tags are below this. Ranks may differ in it.
    #[must_use]
    pub fn tags(&self) -> u32 {
        self.tags
    }
}
