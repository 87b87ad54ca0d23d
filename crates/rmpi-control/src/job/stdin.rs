//! Our standard input for the ranks that read it. Nothing is read before a rank is there to take it; a first
//! small piece goes out, and more is read only once it was taken. A full window blocks reading; for several
//! readers the slowest sets the pace.

use rmpi_types::{NodeIdx, ProcId, Rank};
use rmpi_wire::frame::MAX_PAYLOAD;
use std::collections::BTreeMap;

/// Bytes read before any rank has taken anything.
const FIRST: u32 = 4 << 10;
/// Bytes given to a reader and not taken beyond which no more is read.
const WINDOW: u32 = 128 << 10;

#[derive(Debug)]
struct Reader {
    node: NodeIdx,
    outstanding: u32,
    /// Bytes it took and had not read when it ended.
    left: u32,
    taking: bool,
    open: bool,
}

impl Reader {
    fn blocks(&self) -> bool {
        self.open && self.outstanding > if self.taking { WINDOW } else { 0 }
    }
}

/// The input of one job.
#[derive(Debug, Default)]
pub(super) struct Input {
    readers: BTreeMap<Rank, Reader>,
    /// Readers whose nodes have not started yet.
    pub(super) expected: usize,
    open: usize,
    blocked: usize,
    asked: bool,
    ended: bool,
    /// Bytes that found no reader any more.
    unsent: u64,
}

impl Input {
    /// A reader runs.
    pub(super) fn started(&mut self, proc: ProcId, node: NodeIdx) {
        let reader = Reader { node, outstanding: 0, left: 0, taking: false, open: true };
        if self.readers.insert(proc.rank, reader).is_none() {
            self.expected = self.expected.saturating_sub(1);
            self.open += 1;
        }
    }

    fn change(&mut self, rank: Rank, change: impl FnOnce(&mut Reader)) {
        let Some(reader) = self.readers.get_mut(&rank) else { return };
        let before = (reader.blocks(), reader.open);
        change(reader);
        let after = (reader.blocks(), reader.open);
        self.blocked = self.blocked + usize::from(after.0) - usize::from(before.0);
        self.open = self.open + usize::from(after.1) - usize::from(before.1);
    }

    /// A reader ended, was lost or closed its input.
    pub(super) fn closed(&mut self, rank: Rank) {
        self.change(rank, |r| r.open = false);
    }

    /// A reader took bytes; false when it was not given as many.
    pub(super) fn taken(&mut self, rank: Rank, bytes: u32) -> bool {
        let Some(reader) = self.readers.get(&rank) else { return false };
        let right = bytes <= reader.outstanding;
        self.change(rank, |r| {
            r.outstanding = r.outstanding.saturating_sub(bytes);
            r.taking = true;
        });
        right
    }

    /// A reader ended and had not read this much of what it took.
    pub(super) fn left(&mut self, rank: Rank, bytes: u32) {
        self.change(rank, |r| r.left = bytes);
    }

    /// How many bytes to read now, if any.
    pub(super) fn wanted(&mut self) -> Option<u32> {
        let idle = self.asked || self.ended || self.expected > 0 || self.open == 0 || self.blocked > 0;
        if idle {
            return None;
        }
        self.asked = true;
        let taking = self.readers.values().next().is_some_and(|r| r.taking);
        Some(if taking { u32::try_from(MAX_PAYLOAD).unwrap_or(FIRST) } else { FIRST })
    }

    /// Bytes were read: who gets them.
    pub(super) fn read(&mut self, bytes: usize) -> Vec<(Rank, NodeIdx)> {
        self.asked = false;
        let open: Vec<(Rank, NodeIdx)> = self.to();
        let count = u32::try_from(bytes).unwrap_or(u32::MAX);
        for (rank, _) in &open {
            self.change(*rank, |r| r.outstanding = r.outstanding.saturating_add(count));
        }
        if open.is_empty() {
            self.unsent += bytes as u64;
        }
        open
    }

    /// The input is at its end: who is told.
    pub(super) fn end(&mut self) -> Vec<(Rank, NodeIdx)> {
        self.asked = false;
        if std::mem::replace(&mut self.ended, true) { Vec::new() } else { self.to() }
    }

    fn to(&self) -> Vec<(Rank, NodeIdx)> {
        self.readers.iter().filter(|(_, r)| r.open).map(|(rank, r)| (*rank, r.node)).collect()
    }

    /// Bytes that no rank took, or at least read.
    pub(super) fn untaken(&self) -> u64 {
        let unread = |r: &Reader| u64::from(r.outstanding) + u64::from(r.left);
        self.unsent + self.readers.values().map(unread).min().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input(readers: u32) -> Input {
        let mut input = Input { expected: readers as usize, ..Input::default() };
        (0..readers).for_each(|r| input.started(ProcId::first(r), NodeIdx(0)));
        input
    }

    #[test]
    fn nothing_more_is_read_until_the_first_piece_was_taken() {
        let mut input = input(1);
        assert_eq!(input.wanted(), Some(FIRST));
        assert_eq!(input.wanted(), None, "one request at a time");
        assert_eq!(input.read(100).len(), 1);
        assert_eq!(input.wanted(), None);
        assert_eq!(input.untaken(), 100);
        assert!(input.taken(Rank(0), 60));
        assert_eq!(input.wanted(), Some(64 << 10));
        assert!(!input.taken(Rank(0), 41), "more than it was given");
    }

    #[test]
    fn the_slowest_reader_sets_the_pace_and_a_closed_one_does_not_count() {
        let mut input = input(2);
        assert_eq!(input.wanted(), Some(FIRST));
        assert_eq!(input.read(10).len(), 2);
        assert!(input.taken(Rank(0), 10));
        assert_eq!(input.wanted(), None);
        input.closed(Rank(1));
        assert!(input.wanted().is_some());
        input.closed(Rank(0));
        assert!(input.read(5).is_empty());
        assert_eq!(input.untaken(), 5);
        input.left(Rank(0), 7);
        assert_eq!(input.untaken(), 5 + 7, "rank 1 did not take its 10");
        input.left(Rank(0), 70);
        assert_eq!(input.untaken(), 5 + 10);
    }

    #[test]
    fn it_waits_for_all_readers_to_start() {
        let mut input = Input { expected: 2, ..Input::default() };
        input.started(ProcId::first(0), NodeIdx(0));
        assert_eq!(input.wanted(), None);
        input.started(ProcId::first(1), NodeIdx(1));
        assert!(input.wanted().is_some());
        assert_eq!(input.end().len(), 2);
        assert!(input.end().is_empty() && input.wanted().is_none());
    }
}
