//! Who takes part and how data is cut: the checked arguments of the algorithms. All overflow and range checks
//! of sizes are here, so that the algorithms can add and multiply plainly.

use crate::{Buffer, Region};

/// Why no schedule can be made: the arguments contradict each other.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// The team's own rank is not below its size.
    #[error("rank {rank} is not in a group of {size} ranks")]
    Rank {
        /// The rank.
        rank: u32,
        /// Number of ranks.
        size: u32,
    },
    /// The root is not in the group.
    #[error("root {root} is not in a group of {size} ranks")]
    Root {
        /// The root.
        root: u32,
        /// Number of ranks.
        size: u32,
    },
    /// A list of counts has not one entry for each rank.
    #[error("{given} counts given for a group of {size} ranks")]
    Counts {
        /// Entries given.
        given: usize,
        /// Number of ranks.
        size: u32,
    },
    /// A rank's block for itself differs in length between its two buffers.
    #[error("this rank's own block is {one} bytes in one buffer and {other} in the other")]
    OwnBlock {
        /// Bytes in one.
        one: usize,
        /// Bytes in the other.
        other: usize,
    },
    /// The buffers would not fit in the address space.
    #[error("{count} elements of {size} bytes are more than a buffer can hold")]
    TooLarge {
        /// Number of elements.
        count: usize,
        /// Size of one in bytes.
        size: usize,
    },
}

/// Bytes of a message above which it is cut, so that a later step can begin while the rest is on its way.
pub const DEFAULT_SEGMENT: usize = 256 << 10;

/// The group as one rank sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Team {
    pub(crate) rank: u32,
    pub(crate) size: u32,
    pub(crate) segment: usize,
}

impl Team {
    /// Rank `rank` of `size`, cutting messages at [`DEFAULT_SEGMENT`].
    ///
    /// # Errors
    /// [`PlanError::Rank`] unless `rank < size`.
    pub fn new(rank: u32, size: u32) -> Result<Self, PlanError> {
        if rank >= size {
            return Err(PlanError::Rank { rank, size });
        }
        Ok(Self { rank, size, segment: DEFAULT_SEGMENT })
    }

    /// The same with messages cut at `bytes` (rounded down to whole elements, at least one; 0 never cuts).
    /// All ranks of a collective must use the same value.
    #[must_use]
    pub fn with_segment(self, bytes: usize) -> Self {
        Self { segment: bytes, ..self }
    }

    /// This rank.
    #[must_use]
    pub fn rank(self) -> u32 {
        self.rank
    }

    /// Number of ranks, at least 1.
    #[must_use]
    pub fn size(self) -> u32 {
        self.size
    }

    pub(crate) fn check_root(self, root: u32) -> Result<(), PlanError> {
        if root < self.size { Ok(()) } else { Err(PlanError::Root { root, size: self.size }) }
    }

    /// The rank `by` places after this one, around the circle.
    pub(crate) fn after(self, by: u32) -> u32 {
        wrap(u64::from(self.rank) + u64::from(by), self.size)
    }

    /// The rank `by` places before this one, around the circle.
    pub(crate) fn before(self, by: u32) -> u32 {
        wrap(u64::from(self.rank) + u64::from(self.size) - u64::from(by % self.size), self.size)
    }

    /// Every rank but this one, nearest following first.
    pub(crate) fn others(self) -> impl Iterator<Item = u32> {
        (1..self.size).map(move |k| self.after(k))
    }
}

/// `rank` modulo `size`.
pub(crate) fn wrap(rank: u64, size: u32) -> u32 {
    u32::try_from(rank % u64::from(size)).unwrap_or(0)
}

/// A number of elements of one size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Elems {
    /// How many.
    pub count: usize,
    /// Bytes of one; 0 counts as 1.
    pub size: usize,
}

impl Elems {
    /// `count` elements of `size` bytes.
    #[must_use]
    pub fn new(count: usize, size: usize) -> Self {
        Self { count, size: size.max(1) }
    }

    /// Their bytes.
    ///
    /// # Errors
    /// [`PlanError::TooLarge`] above `isize::MAX`, the largest a buffer can be.
    pub fn bytes(self) -> Result<usize, PlanError> {
        self.count
            .checked_mul(self.size.max(1))
            .filter(|&b| isize::try_from(b).is_ok())
            .ok_or(PlanError::TooLarge { count: self.count, size: self.size })
    }
}

/// A buffer cut into one block for each rank, packed in rank order.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Blocks {
    /// Byte offsets; one more than there are ranks.
    ends: Vec<usize>,
    elem: usize,
}

impl Blocks {
    /// `size` blocks of `each.count` elements.
    ///
    /// # Errors
    /// [`PlanError::TooLarge`] when they do not fit in the address space.
    pub fn uniform(size: u32, each: Elems) -> Result<Self, PlanError> {
        Self::packed(&vec![each.count; size as usize], each.size)
    }

    /// Blocks of `counts[rank]` elements of `elem` bytes, one after the other.
    ///
    /// # Errors
    /// [`PlanError::TooLarge`] when they do not fit in the address space.
    pub fn packed(counts: &[usize], elem: usize) -> Result<Self, PlanError> {
        let mut total = 0usize;
        let mut ends = Vec::with_capacity(counts.len() + 1);
        ends.push(0);
        for &count in counts {
            total = total.checked_add(count).ok_or(PlanError::TooLarge { count, size: elem })?;
            ends.push(Elems::new(total, elem).bytes()?);
        }
        Ok(Self { ends, elem: elem.max(1) })
    }

    /// `all.count` elements dealt as evenly as can be: the first blocks have one more.
    ///
    /// # Errors
    /// [`PlanError::TooLarge`] when they do not fit in the address space.
    pub fn even(size: u32, all: Elems) -> Result<Self, PlanError> {
        let n = size.max(1) as usize;
        let (each, more) = (all.count / n, all.count % n);
        let counts: Vec<usize> = (0..n).map(|i| each + usize::from(i < more)).collect();
        Self::packed(&counts, all.size)
    }

    pub(crate) fn check(&self, team: Team) -> Result<(), PlanError> {
        let given = self.ends.len() - 1;
        if given == team.size as usize { Ok(()) } else { Err(PlanError::Counts { given, size: team.size }) }
    }

    /// Bytes of an element.
    #[must_use]
    pub fn elem(&self) -> usize {
        self.elem
    }

    /// Bytes of all blocks.
    #[must_use]
    pub fn total(&self) -> usize {
        self.ends[self.ends.len() - 1]
    }

    /// Bytes of the largest block.
    #[must_use]
    pub fn largest(&self) -> usize {
        self.ends.windows(2).map(|w| w[1] - w[0]).max().unwrap_or(0)
    }

    /// Elements of the block of `rank`.
    pub(crate) fn count(&self, rank: u32) -> usize {
        self.of(Buffer::Input, rank).len / self.elem
    }

    /// The block of `rank` in a region that holds all blocks.
    pub(crate) fn within(&self, all: Region, rank: u32) -> Region {
        let block = self.of(all.buffer, rank);
        all.part(block.offset, block.len)
    }

    /// The block of `rank` in `buffer`.
    ///
    /// # Panics
    /// When there is no such rank.
    #[must_use]
    pub fn of(&self, buffer: Buffer, rank: u32) -> Region {
        self.span(buffer, rank, rank + 1)
    }

    /// The blocks of ranks `from..to` in `buffer`.
    ///
    /// # Panics
    /// When there are no such ranks.
    #[must_use]
    pub fn span(&self, buffer: Buffer, from: u32, to: u32) -> Region {
        let (start, end) = (self.ends[from as usize], self.ends[to as usize]);
        Region::new(buffer, start, end - start)
    }
}
