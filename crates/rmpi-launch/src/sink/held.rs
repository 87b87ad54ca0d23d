//! The end of what each rank wrote, held back until it is known whether it failed (`--ranks-shown failed`).

use super::Chunk;
use rmpi_types::ProcId;
use std::collections::{HashMap, VecDeque};

/// Bytes kept of one rank.
const RANK_MAX: usize = 64 << 10;

/// Chunks by writer, the oldest dropped first.
#[derive(Default)]
pub(super) struct Held(HashMap<ProcId, Tail>);

#[derive(Default)]
struct Tail {
    chunks: VecDeque<Chunk>,
    bytes: usize,
}

impl Held {
    /// Keeps a chunk; older ones go when the rank has too many.
    pub(super) fn keep(&mut self, chunk: Chunk) {
        let tail = self.0.entry(chunk.proc).or_default();
        tail.bytes += chunk.bytes.len();
        // A chunk may be a piece of a large buffer: what is kept must not hold that.
        let bytes = bytes::Bytes::copy_from_slice(&chunk.bytes);
        tail.chunks.push_back(Chunk { bytes, ..chunk });
        while tail.bytes > RANK_MAX && tail.chunks.len() > 1 {
            tail.bytes -= tail.chunks.pop_front().map_or(0, |c| c.bytes.len());
        }
    }

    /// What was kept of a rank.
    pub(super) fn take(&mut self, proc: ProcId) -> VecDeque<Chunk> {
        self.0.remove(&proc).unwrap_or_default().chunks
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rmpi_wire::msg::Stream;

    #[test]
    fn the_newest_is_kept() {
        let mut held = Held::default();
        let proc = ProcId::first(1);
        for i in 0..40u8 {
            held.keep(Chunk { proc, stream: Stream::Stdout, bytes: vec![i; 4096].into() });
        }
        let kept = held.take(proc);
        assert_eq!((kept.len(), kept.back().map(|c| c.bytes[0])), (16, Some(39)));
        assert!(held.take(proc).is_empty());
    }
}
