//! Turns a straight-line program of one rank into a [`Schedule`].
//!
//! An algorithm says its steps one after the other, as if each ended before the next began. The builder finds
//! which really must wait for which, from the bytes they touch, and numbers the messages of each pair of
//! ranks in program order, so that sender and receiver agree on tags whatever order the network has. Long
//! regions are cut into segments, each a step of its own: pipelining needs nothing more.

use crate::hazards::Hazards;
use crate::{Action, Buffer, Region, Schedule, Team};
use std::collections::HashMap;

/// A step of the schedule being built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepId(u32);

/// Alignment of scratch areas, in bytes: a cache line, and the widest vector.
const SCRATCH_ALIGN: usize = 64;

/// Builds a schedule.
#[derive(Debug)]
pub struct Builder {
    segment: usize,
    steps: Vec<Action>,
    /// `(earlier, later)`.
    edges: Vec<(u32, u32)>,
    hazards: [Hazards; 3],
    sent: HashMap<u32, u32>,
    received: HashMap<u32, u32>,
    scratch_len: usize,
    waits: Vec<u32>,
}

impl Builder {
    /// Starts a schedule of `team` over elements of `elem` bytes, which no segment cuts.
    #[must_use]
    pub fn new(team: Team, elem: usize) -> Self {
        let elem = elem.max(1);
        let segment = if team.segment == 0 { usize::MAX } else { (team.segment / elem).max(1) * elem };
        Self {
            segment,
            steps: Vec::new(),
            edges: Vec::new(),
            hazards: Default::default(),
            sent: HashMap::new(),
            received: HashMap::new(),
            scratch_len: 0,
            waits: Vec::new(),
        }
    }

    /// Reserves `len` bytes of scratch memory.
    pub fn scratch(&mut self, len: usize) -> Region {
        let offset = self.scratch_len.next_multiple_of(SCRATCH_ALIGN);
        self.scratch_len = offset + len;
        Region::new(Buffer::Scratch, offset, len)
    }

    /// Sends `data` to `peer`; nothing when it is empty. Returns the last step made.
    pub fn send(&mut self, peer: u32, data: Region) -> Option<StepId> {
        self.pieces(data.len).map(|(at, len)| self.message(peer, data.part(at, len), true)).last()
    }

    /// Receives into `into` from `peer`; nothing when it is empty. Returns the last step made.
    pub fn recv(&mut self, peer: u32, into: Region) -> Option<StepId> {
        self.pieces(into.len).map(|(at, len)| self.message(peer, into.part(at, len), false)).last()
    }

    /// Sends an empty message to `peer`.
    pub fn signal(&mut self, peer: u32) -> StepId {
        self.message(peer, Region::new(Buffer::Scratch, 0, 0), true)
    }

    /// Receives an empty message from `peer`.
    pub fn await_signal(&mut self, peer: u32) -> StepId {
        self.message(peer, Region::new(Buffer::Scratch, 0, 0), false)
    }

    /// `dst = op(dst, src)`; the regions have one length.
    pub fn reduce(&mut self, dst: Region, src: Region) {
        debug_assert_eq!(dst.len, src.len);
        for (at, len) in self.pieces(dst.len) {
            let (dst, src) = (dst.part(at, len), src.part(at, len));
            self.push(Action::Reduce { dst, src }, Some(src), Some(dst));
        }
    }

    /// `dst = src`; the regions have one length and do not overlap.
    pub fn copy(&mut self, dst: Region, src: Region) {
        debug_assert_eq!(dst.len, src.len);
        if dst == src {
            return;
        }
        for (at, len) in self.pieces(dst.len) {
            let (dst, src) = (dst.part(at, len), src.part(at, len));
            self.push(Action::Copy { dst, src }, Some(src), Some(dst));
        }
    }

    /// Does what `inner` does: its rank r is `peers[r]` here, and its input and output are these regions, which may
    /// be one only where `inner` works in place. Returns its steps.
    ///
    /// # Panics
    /// When `inner` uses more of its buffers, or other ranks, than it is given: a mistake in an algorithm.
    pub fn embed(&mut self, inner: &Schedule, peers: &[u32], input: Region, output: Region) -> Vec<StepId> {
        let scratch = self.scratch(inner.scratch_len());
        let place = |r: Region| match r.buffer {
            Buffer::Input => input.part(r.offset, r.len),
            Buffer::Output => output.part(r.offset, r.len),
            Buffer::Scratch => scratch.part(r.offset, r.len),
        };
        let here: Vec<Option<StepId>> = inner
            .steps()
            .iter()
            .map(|&action| match action {
                Action::Send { peer, data, .. } => {
                    Some(self.message(peers[peer as usize], place(data), true))
                }
                Action::Recv { peer, into, .. } => {
                    Some(self.message(peers[peer as usize], place(into), false))
                }
                Action::Reduce { dst, src } => {
                    let (dst, src) = (place(dst), place(src));
                    Some(self.push(Action::Reduce { dst, src }, Some(src), Some(dst)))
                }
                Action::Copy { dst, src } => {
                    let (dst, src) = (place(dst), place(src));
                    (dst != src).then(|| self.push(Action::Copy { dst, src }, Some(src), Some(dst)))
                }
            })
            .collect();
        // What bytes demand is found again; what was ordered beyond that is only here.
        for (step, &earlier) in here.iter().enumerate() {
            for &later in inner.dependents(step) {
                if let (Some(earlier), Some(later)) = (earlier, here[later as usize]) {
                    self.order(earlier, later);
                }
            }
        }
        here.into_iter().flatten().collect()
    }

    /// Makes `later` wait for `earlier` beyond what their bytes demand.
    ///
    /// # Panics
    /// When `earlier` was not made before `later`.
    pub fn order(&mut self, earlier: StepId, later: StepId) {
        assert!(earlier.0 < later.0, "step {} cannot wait for {}", later.0, earlier.0);
        self.edges.push((earlier.0, later.0));
    }

    /// The schedule.
    #[must_use]
    pub fn finish(mut self) -> Schedule {
        self.edges.sort_unstable();
        self.edges.dedup();
        let n = self.steps.len();
        let mut waits = vec![0u32; n];
        let mut next_at = vec![0u32; n + 1];
        for &(earlier, later) in &self.edges {
            waits[later as usize] += 1;
            next_at[earlier as usize + 1] += 1;
        }
        for i in 0..n {
            next_at[i + 1] += next_at[i];
        }
        let next = self.edges.iter().map(|&(_, later)| later).collect();
        let tags = self.sent.values().chain(self.received.values()).copied().max().unwrap_or(0);
        Schedule { steps: self.steps, waits, next_at, next, scratch_len: self.scratch_len, tags }
    }

    fn pieces(&self, len: usize) -> impl Iterator<Item = (usize, usize)> + use<> {
        let segment = self.segment;
        (0..len.div_ceil(segment)).map(move |i| (i * segment, segment.min(len - i * segment)))
    }

    fn message(&mut self, peer: u32, region: Region, out: bool) -> StepId {
        let count = if out { &mut self.sent } else { &mut self.received }.entry(peer).or_insert(0);
        let tag = *count;
        *count += 1;
        if out {
            self.push(Action::Send { peer, tag, data: region }, Some(region), None)
        } else {
            self.push(Action::Recv { peer, tag, into: region }, None, Some(region))
        }
    }

    fn push(&mut self, action: Action, reads: Option<Region>, writes: Option<Region>) -> StepId {
        let step = u32::try_from(self.steps.len()).expect("a schedule has fewer than 2^32 steps");
        self.steps.push(action);
        if let Some(r) = reads {
            self.hazards[r.buffer as usize].read(step, r.range(), &mut self.waits);
        }
        if let Some(w) = writes {
            self.hazards[w.buffer as usize].write(step, w.range(), &mut self.waits);
        }
        self.edges.extend(self.waits.drain(..).map(|earlier| (earlier, step)));
        StepId(step)
    }
}
