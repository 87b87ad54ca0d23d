//! The ring of slots between two ranks: one writes, one reads, no locked instruction.
//!
//! A slot is a cache line of eight words. The first word holds, in its low half, the number of the message in
//! the slot; it is stored last, with release, and the receiver polls it. The receiver says now and then how many
//! slots it has taken; memory that a slot's message pointed to is the sender's again then.
//!
//! What the other side writes is checked: a count that cannot be is an error, not an index.

use crate::sync::{AtomicU64, Ordering};

/// Words of a slot.
pub(crate) const SLOT_WORDS: usize = 8;
/// Bytes of payload in a slot.
pub const INLINE: usize = 48;

/// Words of shared memory.
pub(crate) trait Words {
    /// Word `i`, counted modulo their number.
    fn word(&self, i: usize) -> &AtomicU64;
}

/// A message as it lies in a slot; the low half of the first word is the ring's.
pub(crate) type Slot = [u64; SLOT_WORDS];

/// A count that the other side cannot have reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it wrote an impossible position into shared memory")]
pub struct Impossible;

fn number(position: u64) -> u64 {
    (position + 1) & 0xffff_ffff
}

/// The writing end.
#[derive(Debug)]
pub(crate) struct Sender<W> {
    slots: W,
    taken: W,
    count: u64,
    next: u64,
    seen: u64,
}

impl<W: Words> Sender<W> {
    /// The writing end of a fresh ring of `count` slots; the receiver tells in word 0 of `taken`.
    pub(crate) fn new(slots: W, taken: W, count: u32) -> Self {
        Self { slots, taken, count: u64::from(count), next: 0, seen: 0 }
    }

    /// Messages written so far.
    #[inline]
    pub(crate) fn position(&self) -> u64 {
        self.next
    }

    /// Messages of which the receiver was last seen to have taken them.
    #[inline]
    pub(crate) fn seen(&self) -> u64 {
        self.seen
    }

    /// Whether a slot is free, as far as is known without looking.
    #[inline]
    pub(crate) fn has_room(&self) -> bool {
        self.next - self.seen < self.count
    }

    /// Looks how far the receiver is; the number of slots taken.
    ///
    /// # Errors
    /// [`Impossible`].
    pub(crate) fn look(&mut self) -> Result<u64, Impossible> {
        let taken = self.taken.word(0).load(Ordering::Acquire);
        if taken < self.seen || taken > self.next {
            return Err(Impossible);
        }
        self.seen = taken;
        Ok(taken)
    }

    /// Writes a message of which the first `words` words count. There must be room.
    #[inline]
    pub(crate) fn put(&mut self, slot: &Slot, words: usize) {
        debug_assert!(self.has_room() && (1..=SLOT_WORDS).contains(&words));
        #[expect(clippy::cast_possible_truncation, reason = "counted modulo the ring")]
        let base = (self.next % self.count) as usize * SLOT_WORDS;
        for (i, word) in slot.iter().enumerate().take(words).skip(1) {
            self.slots.word(base + i).store(*word, Ordering::Relaxed);
        }
        let first = (slot[0] & !0xffff_ffff) | number(self.next);
        self.slots.word(base).store(first, Ordering::Release);
        self.next += 1;
    }
}

/// The reading end.
#[derive(Debug)]
pub(crate) struct Receiver<W> {
    slots: W,
    taken: W,
    count: u64,
    next: u64,
    told: u64,
}

impl<W: Words> Receiver<W> {
    /// The reading end of a fresh ring.
    pub(crate) fn new(slots: W, taken: W, count: u32) -> Self {
        Self { slots, taken, count: u64::from(count), next: 0, told: 0 }
    }

    #[inline]
    fn base(&self) -> usize {
        #[expect(clippy::cast_possible_truncation, reason = "counted modulo the ring")]
        let slot = (self.next % self.count) as usize;
        slot * SLOT_WORDS
    }

    /// Whether a message is there.
    #[inline]
    pub(crate) fn ready(&self) -> bool {
        self.slots.word(self.base()).load(Ordering::Relaxed) & 0xffff_ffff == number(self.next)
    }

    /// The next message, which stays where it is. All words are read once, here.
    #[inline]
    pub(crate) fn peek(&self) -> Option<Slot> {
        let base = self.base();
        let first = self.slots.word(base).load(Ordering::Acquire);
        if first & 0xffff_ffff != number(self.next) {
            return None;
        }
        let mut slot = [first, 0, 0, 0, 0, 0, 0, 0];
        for (i, word) in slot.iter_mut().enumerate().skip(1) {
            *word = self.slots.word(base + i).load(Ordering::Relaxed);
        }
        Some(slot)
    }

    /// Goes on to the next message; tells the sender once in a quarter of the ring.
    #[inline]
    pub(crate) fn advance(&mut self) {
        self.next += 1;
        if self.next - self.told >= self.count.div_ceil(4) {
            self.tell();
        }
    }

    /// Tells the sender that everything up to here is taken, and what it pointed to read.
    #[inline]
    pub(crate) fn tell(&mut self) {
        if self.next != self.told {
            self.told = self.next;
            self.taken.word(0).store(self.next, Ordering::Release);
        }
    }
}
