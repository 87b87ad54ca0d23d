//! Our standard input for the ranks that read it. Nothing is looked at before a rank is there to take it; a first
//! small piece goes out, and more only once it was read. A full window blocks; for several readers the slowest
//! sets the pace, and what the fastest has read is gone from our input for good: the rest is the next command's.

use rmpi_types::{NodeIdx, ProcId, Rank};
use rmpi_wire::frame::MAX_PAYLOAD;
use std::collections::BTreeMap;

/// Bytes sent before any rank has read anything.
const FIRST: u32 = 4 << 10;
/// Bytes given to a reader and not read beyond which no more is sent.
const WINDOW: u64 = 128 << 10;

#[derive(Debug)]
struct Reader {
    node: NodeIdx,
    /// Bytes it was given, and of those the ones it has read.
    given: u64,
    read: u64,
    open: bool,
}

impl Reader {
    fn blocks(&self) -> bool {
        self.open && self.given - self.read > if self.read > 0 { WINDOW } else { 0 }
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
    /// Bytes of our input that came here, and those that some rank has read.
    came: u64,
    read: u64,
}

impl Input {
    /// A reader runs.
    pub(super) fn started(&mut self, proc: ProcId, node: NodeIdx) {
        let reader = Reader { node, given: 0, read: 0, open: true };
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

    /// A reader has read bytes: how many of them nobody had read before, `None` when it was not given as many.
    pub(super) fn taken(&mut self, rank: Rank, bytes: u32) -> Option<u64> {
        let reader = self.readers.get(&rank)?;
        let read = reader.read + u64::from(bytes);
        if read > reader.given {
            return None;
        }
        self.change(rank, |r| r.read = read);
        let fresh = read.saturating_sub(self.read);
        self.read += fresh;
        Some(fresh)
    }

    /// How many bytes to read now, if any.
    pub(super) fn wanted(&mut self) -> Option<u32> {
        let idle = self.asked || self.ended || self.expected > 0 || self.open == 0 || self.blocked > 0;
        if idle {
            return None;
        }
        self.asked = true;
        Some(if self.read > 0 { u32::try_from(MAX_PAYLOAD).unwrap_or(FIRST) } else { FIRST })
    }

    /// Bytes came: who gets them.
    pub(super) fn came(&mut self, bytes: usize) -> Vec<(Rank, NodeIdx)> {
        self.asked = false;
        let open: Vec<(Rank, NodeIdx)> = self.to();
        for (rank, _) in &open {
            self.change(*rank, |r| r.given += bytes as u64);
        }
        self.came += bytes as u64;
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

    /// Bytes that came and that no rank has read.
    pub(super) fn unread(&self) -> u64 {
        self.came - self.read
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
    fn nothing_more_is_sent_until_the_first_piece_was_read() {
        let mut input = input(1);
        assert_eq!(input.wanted(), Some(FIRST));
        assert_eq!(input.wanted(), None, "one request at a time");
        assert_eq!(input.came(100).len(), 1);
        assert_eq!(input.wanted(), None);
        assert_eq!(input.unread(), 100);
        assert_eq!(input.taken(Rank(0), 60), Some(60));
        assert_eq!((input.wanted(), input.unread()), (Some(64 << 10), 40));
        assert_eq!(input.taken(Rank(0), 41), None, "more than it was given");
    }

    #[test]
    fn the_slowest_reader_sets_the_pace_and_the_fastest_says_what_is_gone() {
        let mut input = input(2);
        assert_eq!(input.wanted(), Some(FIRST));
        assert_eq!(input.came(10).len(), 2);
        assert_eq!(input.taken(Rank(0), 10), Some(10));
        assert_eq!(input.wanted(), None);
        assert_eq!(input.taken(Rank(1), 4), Some(0), "the same bytes once more");
        assert!(input.wanted().is_some());
        input.closed(Rank(0));
        assert_eq!(input.came(20).len(), 1);
        assert_eq!((input.taken(Rank(1), 8), input.unread()), (Some(2), 18));
        input.closed(Rank(1));
        assert!(input.came(5).is_empty());
        assert_eq!(input.unread(), 23);
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
