//! Fences at the launcher: contributions of nodes are gathered, and the whole is sent once to every node. A
//! fence that some rank will never call fails, and so do all after it.

use bytes::{Bytes, BytesMut};
use rmpi_types::ProcId;
use rmpi_wire::frame::MAX_PAYLOAD;
use std::collections::BTreeMap;

/// Bytes gathered for fences that are not complete, at most.
const MAX_GATHERED: usize = 1 << 30;
/// Fences a node may be ahead of the slowest one.
const MAX_AHEAD: usize = 4096;

#[derive(Debug, Default)]
struct Gather {
    arrived: usize,
    chunks: Vec<Bytes>,
    tail: BytesMut,
}

/// What a contribution leads to.
#[derive(Debug, PartialEq)]
pub(super) enum Gathered {
    /// Others are still to come.
    Waiting,
    /// It cannot complete because of this rank.
    Dead(ProcId),
    /// All are there: the payloads to send.
    Complete(Vec<Bytes>),
}

/// All fences of a namespace.
#[derive(Debug, Default)]
pub(super) struct Fences {
    open: BTreeMap<u64, Gather>,
    gathered: usize,
    dead: Option<(u64, ProcId)>,
    /// Whether any node was ever said to wait.
    pub(super) waited: bool,
}

impl Fences {
    /// A piece of a node's contribution; `of` nodes take part.
    pub(super) fn add(
        &mut self,
        fence: u64,
        piece: &Bytes,
        last: bool,
        of: usize,
    ) -> Result<Gathered, String> {
        if let Some((_, proc)) = self.dead.filter(|&(from, _)| fence >= from) {
            return Ok(if last { Gathered::Dead(proc) } else { Gathered::Waiting });
        }
        self.gathered += piece.len();
        if self.gathered > MAX_GATHERED || self.open.len() > MAX_AHEAD {
            return Err("more fence data than the launcher gathers".into());
        }
        let gather = self.open.entry(fence).or_default();
        // Small contributions are put together: the result is then a few frames and not one a node.
        if gather.tail.len() + piece.len() > MAX_PAYLOAD && !gather.tail.is_empty() {
            gather.chunks.push(gather.tail.split().freeze());
        }
        gather.tail.extend_from_slice(piece);
        if !last {
            return Ok(Gathered::Waiting);
        }
        gather.arrived += 1;
        if gather.arrived < of {
            return Ok(Gathered::Waiting);
        }
        let Some(mut gather) = self.open.remove(&fence) else { return Ok(Gathered::Waiting) };
        if !gather.tail.is_empty() || gather.chunks.is_empty() {
            gather.chunks.push(gather.tail.split().freeze());
        }
        self.gathered -= gather.chunks.iter().map(Bytes::len).sum::<usize>();
        Ok(Gathered::Complete(gather.chunks))
    }

    /// Because of whom this fence cannot complete.
    pub(super) fn dead(&self, fence: u64) -> Option<ProcId> {
        self.dead.filter(|&(from, _)| fence >= from).map(|(_, proc)| proc)
    }

    /// A rank is gone that has called `called` fences: the first fence that dies of it now, if nodes may be
    /// waiting in it or a later one.
    pub(super) fn kill(&mut self, proc: ProcId, called: u64) -> Option<u64> {
        let from = called.saturating_add(1);
        if self.dead.is_some_and(|(old, _)| old <= from) {
            return None;
        }
        self.dead = Some((from, proc));
        let dropped = self.open.split_off(&from);
        let bytes = |g: &Gather| g.tail.len() + g.chunks.iter().map(Bytes::len).sum::<usize>();
        self.gathered -= dropped.values().map(bytes).sum::<usize>();
        (self.waited || !dropped.is_empty()).then_some(from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contributions_are_put_together_in_few_payloads() {
        let mut fences = Fences::default();
        let piece = Bytes::from(vec![7; 1000]);
        for _ in 0..999 {
            assert_eq!(fences.add(1, &piece, true, 1000), Ok(Gathered::Waiting));
        }
        let Ok(Gathered::Complete(chunks)) = fences.add(1, &piece, true, 1000) else { panic!() };
        assert_eq!(chunks.iter().map(Bytes::len).sum::<usize>(), 1_000_000);
        assert!(chunks.len() <= 17 && chunks.iter().all(|c| c.len() <= MAX_PAYLOAD));
        assert_eq!(fences.gathered, 0);
        let nothing = fences.add(2, &Bytes::new(), true, 1);
        assert_eq!(nothing, Ok(Gathered::Complete(vec![Bytes::new()])), "no data is still one answer");
    }

    #[test]
    fn a_lost_member_kills_the_fences_it_had_not_called() {
        let mut fences = Fences::default();
        let gone = ProcId::first(3);
        assert_eq!(fences.kill(gone, 1), None, "nobody waits");
        assert_eq!(fences.add(1, &Bytes::new(), true, 2), Ok(Gathered::Waiting), "it had called the first");
        assert_eq!(fences.add(2, &Bytes::new(), true, 2), Ok(Gathered::Dead(gone)));
        assert_eq!(fences.kill(ProcId::first(4), 0), Some(1));
        assert_eq!(fences.kill(ProcId::first(5), 7), None);
    }
}
