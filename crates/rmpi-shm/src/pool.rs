//! Where a sending rank's large messages wait: cells of one pool for all its receivers, and a small lane a
//! pair. Private bookkeeping of the sender; the memory itself is in the segment.
//!
//! The pool is used in rotation and is larger than a core's second-level cache: rewriting lines of which the
//! receiver still has copies costs three to four times as much as writing lines that have left its cache.

use crate::layout::Layout;
use std::collections::VecDeque;

/// Bytes of a cell.
pub const CELL: usize = 16 << 10;
/// Bytes of the pool in rotation: measured best at twice the second-level cache and more; 4 MiB adds nothing.
const ROTATION: usize = 2 << 20;
const CELLS: usize = ROTATION / CELL;
/// A receiver that lags may always have so many cells.
const FEW: usize = 4;

const _: () = assert!(ROTATION as u64 <= Layout::POOL);

/// Cells that small pieces share at first: a page used for the first time costs as much as copying 50 KiB (3-10 us).
const SHARED: usize = 12;
/// Rounds through the shared cells after which their number doubles, and the most there are of them.
const ROUNDS: usize = 16;
const SHARED_MOST: usize = CELLS / 2;

/// The free cells of a rank's pool.
#[derive(Debug)]
pub struct Pool {
    free: VecDeque<u16>,
    /// Free cells for small pieces, a smaller rotation.
    shared: VecDeque<u16>,
    /// Which cells are for small pieces, and how many.
    is_shared: Vec<bool>,
    shares: usize,
    /// Takes of shared cells since there were so many of them.
    takes: usize,
}

impl Default for Pool {
    fn default() -> Self {
        Self::with(u16::try_from(CELLS).unwrap_or(u16::MAX), SHARED)
    }
}

impl Pool {
    fn with(cells: u16, shares: usize) -> Self {
        let mut free: VecDeque<u16> = (0..cells).collect();
        let is_shared = (0..usize::from(cells)).map(|c| c < shares).collect();
        let shared = free.drain(..shares.min(usize::from(cells))).collect();
        Self { free, shared, is_shared, shares, takes: 0 }
    }

    /// A pool of so many cells, for models.
    #[cfg(all(test, loom))]
    pub(crate) fn of(cells: u16) -> Self {
        Self::with(cells, 0)
    }

    /// Takes a cell for a receiver that holds `held` already: its number. Who holds more than is left gets none, so
    /// that one that does not read cannot starve the others.
    pub fn take(&mut self, held: usize) -> Option<u16> {
        if held >= FEW.max(self.free()) {
            return None;
        }
        self.free.pop_front().or_else(|| self.shared.pop_front())
    }

    /// The same for small pieces: fewer cells, used again sooner.
    pub(crate) fn take_shared(&mut self, held: usize) -> Option<u16> {
        if held >= FEW.max(self.free()) {
            return None;
        }
        self.takes += 1;
        if self.takes > ROUNDS * self.shares && self.shares < SHARED_MOST {
            let more = self.shares.min(self.free.len());
            for cell in self.free.drain(..more) {
                self.is_shared[usize::from(cell)] = true;
                self.shared.push_front(cell);
            }
            self.shares += more;
            self.takes = 0;
        }
        self.shared.pop_front().or_else(|| self.free.pop_front())
    }

    /// Whether a receiver that holds `held` gets so many.
    pub(crate) fn has(&self, held: usize, cells: usize) -> bool {
        held + cells <= self.free().saturating_sub(cells)
    }

    /// Gives one back.
    pub fn give(&mut self, cell: u16) {
        let shared = self.is_shared.get(usize::from(cell)).is_some_and(|s| *s);
        if shared { &mut self.shared } else { &mut self.free }.push_back(cell);
    }

    /// Where a cell begins in the pool.
    #[must_use]
    pub fn offset(cell: u16) -> usize {
        usize::from(cell) * CELL
    }

    /// Free cells.
    #[must_use]
    pub fn free(&self) -> usize {
        self.free.len() + self.shared.len()
    }
}

/// What one pair has in use: cells and lane bytes, each until the slot that names it is taken.
#[derive(Debug, Default)]
pub(crate) struct Held {
    cells: VecDeque<(u64, u16)>,
    /// Bytes given out of the last cell, while more pieces may go into it.
    open: Option<usize>,
    /// Bytes of the lane given out so far, and of those in slots not taken, `(slot, where they end)`.
    head: u64,
    tail: u64,
    ends: VecDeque<(u64, u64)>,
}

impl Held {
    /// Cells in use.
    #[must_use]
    pub(crate) fn cells(&self) -> usize {
        self.cells.len()
    }

    /// Bytes of the lane in use.
    pub(crate) fn lane_used(&self) -> u64 {
        self.head - self.tail
    }

    /// Notes that slot `position` names `cell`.
    pub(crate) fn hold(&mut self, position: u64, cell: u16) {
        self.cells.push_back((position, cell));
        self.open = None;
    }

    /// Notes that slot `position` names the first `used` bytes of `cell`, of which further pieces may be carved.
    pub(crate) fn hold_open(&mut self, position: u64, cell: u16, used: usize) {
        self.cells.push_back((position, cell));
        self.open = Some(used.next_multiple_of(64));
    }

    /// Finds `len` bytes in the cell that was begun, for slot `position`; where in the pool.
    pub(crate) fn carve(&mut self, position: u64, len: usize) -> Option<usize> {
        let used = self.open?;
        let (last, cell) = self.cells.back_mut()?;
        if used + len > CELL {
            self.open = None;
            return None;
        }
        *last = position;
        self.open = Some((used + len).next_multiple_of(64));
        Some(Pool::offset(*cell) + used)
    }

    /// Where the next piece of the lane probably begins.
    pub(crate) fn lane_next(&self) -> usize {
        usize::try_from(self.head % Layout::LANE).unwrap_or(0)
    }

    /// Finds `len` bytes in a row in the lane for slot `position`; where they begin.
    pub(crate) fn lane(&mut self, position: u64, len: usize) -> Option<usize> {
        let len = (len as u64).next_multiple_of(64);
        let at = self.head % Layout::LANE;
        let skip = if at + len > Layout::LANE { Layout::LANE - at } else { 0 };
        let end = self.head + skip + len;
        if len > Layout::LANE || end - self.tail > Layout::LANE {
            return None;
        }
        self.head = end;
        self.ends.push_back((position, end));
        usize::try_from((end - len) % Layout::LANE).ok()
    }

    /// Takes back what slots before `taken` named.
    pub(crate) fn settle(&mut self, taken: u64, pool: &mut Pool) {
        while let Some(&(position, cell)) = self.cells.front()
            && position < taken
        {
            self.cells.pop_front();
            if self.cells.is_empty() {
                self.open = None;
            }
            pool.give(cell);
        }
        while let Some(&(position, end)) = self.ends.front()
            && position < taken
        {
            self.ends.pop_front();
            self.tail = end;
        }
    }

    /// Takes everything back: the receiver is gone.
    pub(crate) fn abandon(&mut self, pool: &mut Pool) {
        self.settle(u64::MAX, pool);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Pieces of a lane that are in use at the same time never meet, whatever the order of taking.
        #[test]
        fn lane_pieces_in_use_do_not_meet(steps in proptest::collection::vec((1usize..5000, 0u64..4), 1..200)) {
            let (mut held, mut pool) = (Held::default(), Pool::default());
            let mut live: VecDeque<(u64, usize, usize)> = VecDeque::new();
            let (mut next, mut taken) = (0, 0);
            for (len, take) in steps {
                if let Some(at) = held.lane(next, len) {
                    prop_assert!(at + len <= usize::try_from(Layout::LANE).unwrap());
                    prop_assert!(live.iter().all(|&(_, a, l)| a + l <= at || at + len <= a));
                    live.push_back((next, at, len));
                    next += 1;
                } else {
                    prop_assert!(!live.is_empty(), "an empty lane has room");
                }
                taken = (taken + take).min(next);
                held.settle(taken, &mut pool);
                live.retain(|&(p, _, _)| p >= taken);
            }
        }

        /// Pieces of cells in use at the same time never meet, whichever pieces share a cell.
        #[test]
        fn carved_pieces_do_not_meet(steps in proptest::collection::vec((1usize..9000, 0u64..4), 1..400)) {
            let (mut held, mut pool) = (Held::default(), Pool::default());
            let mut live: VecDeque<(u64, usize, usize)> = VecDeque::new();
            let (mut next, mut taken) = (0, 0);
            for (len, take) in steps {
                let place = match held.carve(next, len) {
                    Some(at) => Some(at),
                    None => pool.take_shared(held.cells()).map(|cell| {
                        if len < CELL / 2 { held.hold_open(next, cell, len) } else { held.hold(next, cell) }
                        Pool::offset(cell)
                    }),
                };
                if let Some(at) = place {
                    prop_assert!(at / CELL == (at + len - 1) / CELL && at + len <= CELLS * CELL);
                    prop_assert!(live.iter().all(|&(_, a, l)| a + l <= at || at + len <= a));
                    live.push_back((next, at, len));
                    next += 1;
                }
                taken = (taken + take).min(next);
                if take > 2 {
                    held.settle(taken, &mut pool);
                    live.retain(|&(p, _, _)| p >= taken);
                }
            }
        }

        /// However receivers lag, cells are never given twice, and one that reads always gets some.
        #[test]
        fn cells_are_shared_fairly(steps in proptest::collection::vec((0usize..8, any::<bool>()), 1..600)) {
            let mut pool = Pool::default();
            let mut helds: Vec<Held> = (0..8).map(|_| Held::default()).collect();
            let mut next = [0u64; 8];
            let mut out = std::collections::HashSet::new();
            for (who, read) in steps {
                if read {
                    let before: Vec<u16> = helds[who].cells.iter().map(|c| c.1).collect();
                    helds[who].settle(next[who], &mut pool);
                    before.iter().for_each(|c| { out.remove(c); });
                } else if let Some(cell) = pool.take(helds[who].cells()) {
                    prop_assert!(out.insert(cell));
                    helds[who].hold(next[who], cell);
                    next[who] += 1;
                } else {
                    prop_assert!(helds[who].cells() >= FEW);
                }
                prop_assert_eq!(pool.free() + out.len(), CELLS);
            }
        }
    }
}
