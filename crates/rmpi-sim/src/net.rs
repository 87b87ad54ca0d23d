//! Time, chance and links of a simulation. A link is a reliable stream: what it delivers comes in order, and
//! what it does not deliver is everything from some frame on.

use rmpi_control::Time;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

/// A small generator of pseudo-random numbers (SplitMix64, public domain by S. Vigna): the same seed, the same
/// run, on every machine.
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    /// From a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`; 0 for 0.
    pub fn below(&mut self, n: u64) -> u64 {
        self.next_u64().checked_rem(n).unwrap_or(0)
    }

    /// A duration of the range, both ends included, in whole microseconds.
    pub fn between(&mut self, lo: Duration, hi: Duration) -> Duration {
        let span = u64::try_from(hi.saturating_sub(lo).as_micros()).unwrap_or(u64::MAX - 1);
        lo + Duration::from_micros(self.below(span + 1))
    }
}

/// Events in order of time, and of their making when at the same time.
#[derive(Debug)]
pub(crate) struct Queue<E> {
    heap: BinaryHeap<Reverse<(Time, u64, usize)>>,
    slots: Vec<Option<E>>,
    free: Vec<usize>,
    made: u64,
}

impl<E> Queue<E> {
    pub(crate) fn new() -> Self {
        Self { heap: BinaryHeap::new(), slots: Vec::new(), free: Vec::new(), made: 0 }
    }

    pub(crate) fn push(&mut self, at: Time, event: E) {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        self.slots[slot] = Some(event);
        self.made += 1;
        self.heap.push(Reverse((at, self.made, slot)));
    }

    pub(crate) fn pop(&mut self) -> Option<(Time, E)> {
        let Reverse((at, _, slot)) = self.heap.pop()?;
        self.free.push(slot);
        Some((at, self.slots[slot].take()?))
    }
}

/// The link of one node towards the launcher.
#[derive(Debug)]
pub(crate) struct Wire {
    /// When the last thing sent each way arrives: `[up, down]`.
    last: [Time; 2],
    /// Nothing sent before this arrives before it.
    hold: Time,
    /// The cable is out.
    pub(crate) cut: bool,
    /// Which stream: what was sent on an earlier one is gone.
    pub(crate) stream: u32,
}

impl Wire {
    pub(crate) fn new() -> Self {
        Self { last: [Time::ZERO; 2], hold: Time::ZERO, cut: false, stream: 0 }
    }

    /// When something sent now arrives.
    pub(crate) fn arrival(&mut self, now: Time, down: bool, delay: Duration) -> Time {
        let last = &mut self.last[usize::from(down)];
        let at = (now + delay).max(*last).max(self.hold);
        *last = at;
        at
    }

    pub(crate) fn stall(&mut self, until: Time) {
        self.hold = self.hold.max(until);
    }
}
