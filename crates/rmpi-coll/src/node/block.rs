//! What lies where in a rank's block.
//!
//! ```text
//! slot 0 .. 3   one for every operation, by its number modulo 4
//!     line 0    number u64 | digest u64 | start in the ring u64 | 40 bytes of data, or where large data is in its giver's memory u64
//!     line 1    segments posted u64 | segments consumed u64 | cannot read givers' memory u64
//!     4 KiB     data longer than 40 bytes
//! claims        chunk claims u64, on a line of its own; chunks done u64, on another (the first rank's are used)
//! reports       how fast large data was read each way, a word a class of sizes
//! ring          2 MiB, where large data goes through; positions only grow
//! ```
//!
//! The ring is larger than a core's second-level cache on purpose: writing a line that the reader's cache still
//! has costs more than writing one it has long lost (28-37 GB/s against 8 GB/s measured with small rings).

use super::memory::Memory;
use crate::kernels::Source;

/// Slots of a rank.
pub(super) const SLOTS: u64 = 4;
/// Largest data in a slot.
pub(super) const SMALL: usize = 4096;
/// Data that rides on the first line.
const INLINE: usize = 40;
const SLOT: usize = 128 + SMALL;
const DIGEST: usize = 8;
const START: usize = 16;
const NEAR: usize = 24;
const POSTED: usize = 64;
const CONSUMED: usize = 72;
const OFFER: usize = NEAR;
const REFUSED: usize = 80;
const FAR: usize = 128;
pub(super) const CLAIMS: usize = 4 * SLOT;
pub(super) const CHUNKS_DONE: usize = CLAIMS + 64;
const REPORTS: usize = CHUNKS_DONE + 64;
/// Where the ring begins; all before it must be zero when a group begins.
pub(super) const RING: usize = 64 << 10;
/// Bytes of the ring.
pub(super) const RING_LEN: usize = 2 << 20;
/// Bytes of a block.
pub(super) const BLOCK_LEN: usize = RING + RING_LEN;

const _: () = assert!(REPORTS + 8 * rmpi_shm::Rates::WORDS <= REPORTS + 64 && REPORTS + 64 <= RING);
const _: () = assert!(CHUNKS_DONE + 64 <= RING && RING_LEN.is_power_of_two() && SLOT.is_multiple_of(64));

fn slot(n: u64) -> usize {
    // The remainder is below 4.
    (n % SLOTS) as usize * SLOT
}

/// Where small data of `len` bytes lies in operation `n`'s slot.
fn data(n: u64, len: usize) -> usize {
    slot(n) + if len <= INLINE { NEAR } else { FAR }
}

/// Where a position of the ring is.
pub(super) fn ring(position: u64) -> usize {
    RING + (position % RING_LEN as u64) as usize
}

/// The slots of a block.
pub(super) trait Slots: Memory {
    /// The latest operation announced in `n`'s slot.
    #[inline]
    fn number(&self, n: u64) -> u64 {
        self.load(slot(n))
    }

    #[inline]
    fn digest(&self, n: u64) -> u64 {
        self.load(slot(n) + DIGEST)
    }

    #[inline]
    fn start(&self, n: u64) -> u64 {
        self.load(slot(n) + START)
    }

    #[inline]
    fn announce(&self, n: u64, digest: u64, start: u64) {
        let at = slot(n);
        self.store(at + DIGEST, digest);
        self.store(at + START, start);
        self.store(at, n);
    }

    #[inline]
    fn write_small(&self, n: u64, bytes: &[u8]) {
        self.write(data(n, bytes.len()), bytes);
    }

    /// Bytes `offset..offset + into.len()` of small data that is `of` bytes long.
    #[inline]
    fn read_small(&self, n: u64, of: usize, offset: usize, into: &mut [u8]) {
        self.read(data(n, of) + offset, into);
    }

    #[inline]
    fn small(&self, n: u64, of: usize, offset: usize, len: usize) -> Source<'_> {
        self.source(data(n, of) + offset, len)
    }

    fn posted(&self, n: u64) -> u64 {
        self.load(slot(n) + POSTED)
    }

    fn set_posted(&self, n: u64, segments: u64) {
        self.store(slot(n) + POSTED, segments);
    }

    fn consumed(&self, n: u64) -> u64 {
        self.load(slot(n) + CONSUMED)
    }

    fn set_consumed(&self, n: u64, segments: u64) {
        self.store(slot(n) + CONSUMED, segments);
    }

    /// Where the member's large data is in its own memory, for others to copy; 0: nowhere.
    fn offer(&self, n: u64) -> u64 {
        self.load(slot(n) + OFFER)
    }

    fn set_offer(&self, n: u64, at: u64) {
        self.store(slot(n) + OFFER, at);
    }

    /// Whether the member cannot read others' memory.
    fn refuses(&self, n: u64) -> bool {
        self.load(slot(n) + REFUSED) != 0
    }

    fn set_refuses(&self, n: u64, refuses: bool) {
        self.store(slot(n) + REFUSED, refuses.into());
    }

    fn report(&self, word: usize) -> u64 {
        self.load(REPORTS + 8 * word)
    }

    fn set_report(&self, word: usize, value: u64) {
        self.store(REPORTS + 8 * word, value);
    }
}

impl<M: Memory + ?Sized> Slots for M {}
