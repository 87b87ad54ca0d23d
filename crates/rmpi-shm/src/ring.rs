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

/// A count that the other side cannot have reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it wrote an impossible position into shared memory")]
pub struct Impossible;

/// What the low half of the first word of slot `position` says when the message is there.
#[inline]
fn number(position: u64) -> u64 {
    (position + 1) & 0xffff_ffff
}

/// The first word of a slot in a ring of `N`, a power of two.
#[expect(clippy::cast_possible_truncation, reason = "counted modulo the ring")]
#[inline]
fn base<const N: u64>(position: u64) -> usize {
    const { assert!(N.is_power_of_two()) };
    (position & (N - 1)) as usize * SLOT_WORDS
}

/// The writing end.
#[derive(Debug)]
pub(crate) struct Sender<W, const N: u64> {
    slots: W,
    taken: W,
    next: u64,
    seen: u64,
}

impl<W: Words, const N: u64> Sender<W, N> {
    /// The writing end of a fresh ring; the receiver tells in word 0 of `taken`.
    pub(crate) fn new(slots: W, taken: W) -> Self {
        Self { slots, taken, next: 0, seen: 0 }
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
        self.next - self.seen < N
    }

    /// Free slots, as far as is known without looking.
    #[inline]
    pub(crate) fn free(&self) -> u64 {
        N - (self.next - self.seen)
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

    /// Writes word `i` (from 1) of the next message. There must be room.
    #[inline]
    pub(crate) fn write(&self, i: usize, word: u64) {
        debug_assert!(self.has_room() && (1..SLOT_WORDS).contains(&i));
        self.slots.word(base::<N>(self.next) + i).store(word, Ordering::Relaxed);
    }

    /// Makes the next message, of which the other words are written, one the receiver sees. `first` is the high
    /// half of its first word.
    #[inline]
    pub(crate) fn publish(&mut self, first: u64) {
        let word = (first & !0xffff_ffff) | number(self.next);
        self.slots.word(base::<N>(self.next)).store(word, Ordering::Release);
        self.next += 1;
    }
}

/// The reading end.
#[derive(Debug)]
pub(crate) struct Receiver<W, const N: u64> {
    slots: W,
    taken: W,
    next: u64,
    told: u64,
}

impl<W: Words, const N: u64> Receiver<W, N> {
    /// The reading end of a fresh ring.
    pub(crate) fn new(slots: W, taken: W) -> Self {
        Self { slots, taken, next: 0, told: 0 }
    }

    /// Whether a message is there.
    #[inline]
    pub(crate) fn ready(&self) -> bool {
        self.slots.word(base::<N>(self.next)).load(Ordering::Relaxed) & 0xffff_ffff == number(self.next)
    }

    /// The first word of the next message, which stays where it is.
    #[inline]
    pub(crate) fn peek(&self) -> Option<u64> {
        let first = self.slots.word(base::<N>(self.next)).load(Ordering::Acquire);
        (first & 0xffff_ffff == number(self.next)).then_some(first)
    }

    /// Another word (from 1) of the message that was seen. A hostile sender may change it at any time: read each
    /// once.
    #[inline]
    pub(crate) fn read(&self, i: usize) -> u64 {
        self.slots.word(base::<N>(self.next) + i).load(Ordering::Relaxed)
    }

    /// Goes on to the next message; tells the sender once in a quarter of the ring, and whether it did.
    #[inline]
    pub(crate) fn advance(&mut self) -> bool {
        self.next += 1;
        let due = self.next - self.told >= N.div_ceil(4);
        if due {
            self.tell();
        }
        due
    }

    /// Tells the sender that everything up to here is taken, and what it pointed to read; whether that was news.
    #[inline]
    pub(crate) fn tell(&mut self) -> bool {
        let news = self.next != self.told;
        if news {
            self.told = self.next;
            self.taken.word(0).store(self.next, Ordering::Release);
        }
        news
    }
}
