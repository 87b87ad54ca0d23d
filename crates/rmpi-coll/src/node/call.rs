//! What is asked of a node's group: the collective, its sizes, and how they are cut. All members cut alike: only
//! what all know decides.

use super::block::SMALL;
use crate::kernels::Reducer;
use rmpi_types::Thresholds;
use std::ops::Range;
use std::sync::Arc;

/// A collective. Roots are members' numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Nobody leaves before all have come.
    Barrier,
    /// The root's output to all outputs.
    Bcast {
        /// Who has the data.
        root: usize,
    },
    /// All inputs combined into the root's output.
    Reduce {
        /// Who gets the result.
        root: usize,
    },
    /// All inputs combined into all outputs.
    Allreduce,
    /// The same in place, where all members' outputs lie in memory that all reach.
    AllreduceShared {
        /// Where this member's is, as [`super::Reach`] knows it; each has its own.
        at: u64,
    },
    /// Everyone's block to the root's output.
    Gather {
        /// Who gets the blocks.
        root: usize,
    },
    /// The root's blocks to everyone's output.
    Scatter {
        /// Who has the blocks.
        root: usize,
    },
    /// Everyone's block to all outputs.
    Allgather,
    /// Everyone's block of the combined inputs.
    ReduceScatter,
    /// A block from everyone to everyone.
    Alltoall,
    /// The inputs up to and with this rank's combined.
    Scan,
    /// The inputs before this rank's combined.
    Exscan,
}

impl Kind {
    /// Whether members' data are combined.
    pub(super) fn combines(&self) -> bool {
        matches!(
            self,
            Self::Reduce { .. }
                | Self::Allreduce
                | Self::AllreduceShared { .. }
                | Self::ReduceScatter
                | Self::Scan
                | Self::Exscan
        )
    }
}

/// Bytes of the members' blocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lens {
    /// All alike.
    Each(usize),
    /// Where each begins in a packed buffer, and the end.
    Packed(Arc<[usize]>),
}

impl Lens {
    pub(super) fn len(&self, r: usize) -> usize {
        self.range(r).len()
    }

    pub(super) fn range(&self, r: usize) -> Range<usize> {
        match self {
            Self::Each(n) => r * n..(r + 1) * n,
            Self::Packed(ends) => ends[r]..ends[r + 1],
        }
    }

    fn longest(&self) -> usize {
        match self {
            Self::Each(n) => *n,
            Self::Packed(ends) => ends.windows(2).map(|w| w[1] - w[0]).max().unwrap_or(0),
        }
    }

    pub(super) fn total(&self, p: usize) -> usize {
        match self {
            Self::Each(n) => p * n,
            Self::Packed(ends) => ends.last().copied().unwrap_or(0),
        }
    }
}

/// One call.
#[derive(Clone, Debug)]
pub struct Call {
    /// Which collective.
    pub kind: Kind,
    /// Of the arguments that must be the same at all members.
    pub digest: u32,
    /// Bytes of a member's block, or of everybody's data where there are no blocks.
    pub lens: Lens,
    /// For reductions.
    pub reducer: Option<Reducer>,
}

/// The caller's memory.
#[derive(Debug)]
pub struct Buffers<'a> {
    /// What this member contributes; `None`: it is in the output (broadcast's root, reductions and allgather in
    /// place; then reduce-scatter's result is where this member's block was).
    pub input: Option<&'a [u8]>,
    /// What it gets.
    pub output: &'a mut [u8],
}

/// How data lies in a slot or a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lay {
    /// A member's data is for all alike.
    Whole,
    /// A member's data has a block for each member.
    Blocks,
}

/// Pieces that go through a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cut {
    /// Bytes of a block that a segment carries; a multiple of 64.
    pub(super) piece: usize,
    /// Bytes of a ring that a segment takes; a power of two.
    pub(super) stride: usize,
    /// Segments that a member may be ahead of what it has taken.
    pub(super) ahead: u64,
}

impl Call {
    pub(super) fn lay(&self) -> Lay {
        match self.kind {
            Kind::Scatter { .. } | Kind::ReduceScatter | Kind::Alltoall => Lay::Blocks,
            _ => Lay::Whole,
        }
    }

    /// Whether member `r` contributes data.
    pub(super) fn gives(&self, r: usize) -> bool {
        match self.kind {
            Kind::Barrier => false,
            Kind::Bcast { root } | Kind::Scatter { root } => r == root,
            Kind::Reduce { root } | Kind::Gather { root } => r != root,
            _ => true,
        }
    }

    /// Whether member `me` needs the data, or at least the arrival, of member `r`.
    pub(super) fn needs(&self, me: usize, r: usize) -> bool {
        match self.kind {
            Kind::Bcast { root } | Kind::Scatter { root } => r == root && me != root,
            Kind::Reduce { root } | Kind::Gather { root } => me == root && r != me,
            Kind::Scan | Kind::Exscan => r < me,
            _ => r != me,
        }
    }

    /// Whether what is taken is combined, not copied.
    pub(super) fn combines(&self) -> bool {
        self.kind.combines()
    }

    /// Bytes that member `r` gives.
    pub(super) fn given(&self, r: usize, p: usize) -> usize {
        match (self.gives(r), self.lay(), self.kind) {
            (false, ..) => 0,
            (true, Lay::Blocks, _) => self.lens.total(p),
            (true, Lay::Whole, Kind::Allgather | Kind::Gather { .. }) => self.lens.len(r),
            (true, Lay::Whole, _) => self.longest(),
        }
    }

    /// Bytes of the longest block.
    pub(super) fn longest(&self) -> usize {
        self.lens.longest()
    }

    /// Whether the data of `p` members goes in slots, not through rings.
    #[must_use]
    pub fn is_small(&self, p: usize) -> bool {
        match self.lay() {
            Lay::Whole => self.longest() <= SMALL,
            Lay::Blocks => self.lens.total(p) <= SMALL,
        }
    }

    /// Whether outputs are written past the caches: with the inputs they are larger than those.
    pub(super) fn streams(&self, thresholds: &Thresholds) -> bool {
        self.longest() >= thresholds.stream
    }

    /// How the data of `p` members is cut.
    ///
    /// Measured: two ranks with a core each exchange best in pieces of 16 KiB below 1 MiB, of 32 KiB to 8 MiB, of
    /// 64 KiB above. Ranks that share cores want few and long segments (built in: a quarter of the ring): each costs
    /// them changes of place.
    pub(super) fn cut(&self, p: usize, crowded: bool, thresholds: &Thresholds) -> Cut {
        let (short, long) = (thresholds.node_piece, thresholds.node_turn);
        let longest = self.longest().max(1);
        let blocks = if self.lay() == Lay::Blocks { p } else { 1 };
        let most = if !crowded && p > 2 {
            (8 * short / blocks) & !63
        } else if !crowded {
            match longest {
                0..0x10_0000 => short & !63,
                0x10_0000..0x80_0000 => (2 * short) & !63,
                _ => (4 * short) & !63,
            }
        } else {
            (long / blocks) & !63
        };
        let piece = most.min(longest.next_multiple_of(64)).max(64);
        let stride = (piece * blocks).next_power_of_two();
        let ahead = if p == 2 && !crowded { 2 } else { u64::MAX };
        Cut { piece, stride, ahead }
    }

    /// What this member contributes.
    pub(super) fn own<'b>(&self, me: usize, buffers: &'b Buffers<'_>) -> &'b [u8] {
        match (buffers.input, self.kind) {
            (Some(input), _) => input,
            (None, Kind::Allgather) => &buffers.output[self.lens.range(me)],
            (None, _) => buffers.output,
        }
    }

    /// Where this member's combined block goes in its output: in place, where it was.
    pub(super) fn result_at(&self, me: usize, buffers: &Buffers<'_>) -> usize {
        if self.kind == Kind::ReduceScatter && buffers.input.is_none() {
            self.lens.range(me).start
        } else {
            0
        }
    }

    /// Where the block of member `r` goes in the output of those who collect blocks; else all of it.
    pub(super) fn place(&self, r: usize) -> usize {
        match self.kind {
            Kind::Gather { .. } | Kind::Allgather | Kind::Alltoall => self.lens.range(r).start,
            _ => 0,
        }
    }
}
