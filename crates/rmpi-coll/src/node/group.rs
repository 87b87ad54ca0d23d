//! The ranks of one node that do collectives together, and where this one stands.

use super::block::{BLOCK_LEN, RING, RING_LEN, SLOTS, Slots};
use super::direct::Reach;
use super::memory::Memory;
use super::single::{Reading, Reported};
use crate::PlanError;
use rmpi_shm::Rates;
use rmpi_types::Thresholds;
use std::sync::Arc;

/// The blocks of all members, in their order.
#[derive(Debug)]
pub struct Group<M> {
    pub(super) blocks: Vec<M>,
    pub(super) me: usize,
    /// More ranks than cores: long pieces, so that ranks change places seldom.
    pub(super) crowded: bool,
    /// How data is cut.
    pub(super) thresholds: Thresholds,
    /// Buffers of members in memory that all reach.
    pub(super) reach: Option<Arc<dyn Reach<M>>>,
    /// Reading members' own memory.
    pub(super) reading: Option<Arc<dyn Reading>>,
}

impl<M: Memory> Group<M> {
    /// Bytes of a member's block.
    pub const BLOCK: usize = BLOCK_LEN;

    /// Bytes at a block's beginning that must be zero before any member begins.
    pub const ZEROED: usize = RING;

    /// Member `me` of those whose `blocks` these are; `crowded` when there are fewer cores than ranks here, the
    /// same for all members.
    ///
    /// # Errors
    /// When `me` is none of them.
    pub fn new(blocks: Vec<M>, me: usize, crowded: bool) -> Result<Self, PlanError> {
        let size = u32::try_from(blocks.len()).unwrap_or(u32::MAX);
        if me >= blocks.len() {
            return Err(PlanError::Rank { rank: u32::try_from(me).unwrap_or(u32::MAX), size });
        }
        let thresholds = Thresholds::default();
        Ok(Self { blocks, me, crowded, thresholds, reach: None, reading: None })
    }

    /// The same group, for [`super::Kind::AllreduceShared`] too.
    #[must_use]
    pub fn reaching(self, reach: Arc<dyn Reach<M>>) -> Self {
        Self { reach: Some(reach), ..self }
    }

    /// The same group with data cut by these, the same for all members.
    #[must_use]
    pub fn tuned(self, thresholds: Thresholds) -> Self {
        Self { thresholds, ..self }
    }

    /// The same group, whose members may copy large data out of each other's own memory.
    #[must_use]
    pub fn copying(self, reading: Arc<dyn Reading>) -> Self {
        Self { reading: Some(reading), ..self }
    }

    /// Number of members.
    #[must_use]
    pub fn size(&self) -> usize {
        self.blocks.len()
    }

    /// This member.
    #[must_use]
    pub fn me(&self) -> usize {
        self.me
    }

    /// The members' blocks.
    #[must_use]
    pub fn blocks(&self) -> &[M] {
        &self.blocks
    }

    pub(super) fn mine(&self) -> &M {
        &self.blocks[self.me]
    }

    /// The other members, the next one first.
    #[inline]
    pub(super) fn others(&self) -> impl Iterator<Item = usize> + use<M> {
        let (p, me) = (self.blocks.len(), self.me);
        (me + 1..p).chain(0..me)
    }
}

/// Where this member stands in the sequence of operations.
#[derive(Clone, Debug)]
pub struct Cursor {
    /// The last operation completed here.
    done: u64,
    /// The latest operation that each member was seen to have begun.
    seen: Vec<u64>,
    /// All have begun this one.
    least: u64,
    /// Where each member's data of this operation starts in its ring.
    pub(super) starts: Vec<u64>,
    /// Segments taken from each member in this operation.
    pub(super) taken: Vec<u64>,
    /// First free position of this member's ring.
    pub(super) position: u64,
    /// Everything before this position has been read by all.
    pub(super) free: u64,
    /// Segments reduced by claims so far, and chunks: the same numbers at all members.
    pub(super) claimed_segments: u64,
    pub(super) claimed_chunks: u64,
    /// How fast this member reads large data each way, and what of that it has told.
    pub(super) rates: Rates,
    pub(super) reported: Reported,
    /// What its readers say, and whether this member's data is offered where it is.
    pub(super) offering: Rates,
    /// This member cannot read others' memory.
    pub(super) refuses: bool,
}

impl Cursor {
    /// At the beginning of a group of `size`.
    #[must_use]
    pub fn new(size: usize) -> Self {
        Self {
            done: 0,
            seen: vec![0; size],
            least: 0,
            starts: vec![0; size],
            taken: vec![0; size],
            position: 0,
            free: 0,
            claimed_segments: 0,
            claimed_chunks: 0,
            rates: Rates::default(),
            reported: Reported::default(),
            offering: Rates::default(),
            refuses: false,
        }
    }

    /// The last operation completed here: the next one may begin.
    #[must_use]
    pub fn done(&self) -> u64 {
        self.done
    }

    pub(super) fn complete(&mut self, n: u64) {
        self.done = n;
    }

    /// All members have been seen in operation `n`.
    pub(super) fn all_seen(&mut self, n: u64) {
        self.least = n;
    }

    /// A member that may still read what operation `n`'s slot holds from before; `None`: the slot may be written.
    #[inline]
    pub(super) fn slot_in_use<M: Memory>(&mut self, group: &Group<M>, n: u64) -> Option<usize> {
        let need = (n + 1).saturating_sub(SLOTS);
        if self.least >= need {
            return None;
        }
        for r in group.others() {
            if self.seen[r] < need {
                if group.blocks[r].number(need) < need {
                    return Some(r);
                }
                // It may be further on, but what it announced for the operations between has not been looked at.
                self.seen[r] = need;
            }
        }
        self.least = need;
        None
    }

    /// Whether member `r` has begun operation `n`.
    ///
    /// # Errors
    /// When it has begun another operation in its place.
    #[inline]
    pub(super) fn arrived<M: Memory>(
        &mut self,
        group: &Group<M>,
        n: u64,
        digest: u32,
        r: usize,
    ) -> Result<bool, Trouble> {
        if self.seen[r] >= n {
            return Ok(true);
        }
        let block = &group.blocks[r];
        if block.number(n) != n {
            return Ok(false);
        }
        if block.digest(n) != u64::from(digest) {
            return Err(Trouble::Mismatch { member: r });
        }
        self.starts[r] = block.start(n);
        self.seen[r] = n;
        Ok(true)
    }

    /// A member that has not begun operation `n`; `None`: all have.
    #[inline]
    pub(super) fn all_arrived<M: Memory>(
        &mut self,
        group: &Group<M>,
        n: u64,
        digest: u32,
    ) -> Result<Option<usize>, Trouble> {
        if self.least >= n {
            return Ok(None);
        }
        for r in group.others() {
            if !self.arrived(group, n, digest, r)? {
                return Ok(Some(r));
            }
        }
        self.least = n;
        Ok(None)
    }

    /// Whether `len` bytes at `position` of this member's ring are free, as far as is known.
    pub(super) fn is_free(&self, position: u64, len: usize) -> bool {
        position + len as u64 <= self.free + RING_LEN as u64
    }
}

/// What one look at an operation found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Look {
    /// The operation is over here.
    pub done: bool,
    /// Something was written that others may wait for.
    pub published: bool,
    /// There is more to do at once.
    pub busy: bool,
    /// A member that it waits for.
    pub awaits: Option<usize>,
}

/// Why an operation cannot go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
    /// A member called another collective, or with other arguments.
    #[error("member {member} of the node's group called something else")]
    Mismatch {
        /// The member.
        member: usize,
    },
    /// The reduction failed.
    #[error(transparent)]
    Kernel(#[from] crate::kernels::KernelError),
}
