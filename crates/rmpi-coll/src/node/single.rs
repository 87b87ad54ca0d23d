//! Large data that members copy straight out of its giver's own memory, where that is faster than through rings: a
//! broadcast's, and everyone's in an allgather.
//!
//! A giver decides by itself, from what its readers report of both ways ([`Rates`]), and announces with the operation
//! where its data is. It stays in the operation until all have copied. Who cannot read there says so, and the giver
//! puts the data into its ring after all, now and from then on.

use super::block::Slots;
use super::call::{Call, Kind};
use super::group::{Cursor, Group};
use super::memory::Memory;
use rmpi_shm::{Rates, Way};
use std::sync::atomic::{Ordering, fence};

/// Reading other members' own memory.
pub trait Reading: std::fmt::Debug + Send + Sync {
    /// Lets the others read this member's memory; whether they may try.
    fn offers(&self) -> bool;
    /// Copies what `member` has at `at`, as it says; whether that was possible.
    fn read(&self, member: usize, at: u64, into: &mut [u8]) -> bool;
    /// A clock, nanoseconds.
    fn now(&self) -> u64;
}

/// What readers say of both ways, as far as anybody was told.
pub(super) type Reported = [u64; Rates::WORDS];

impl<M: Memory> Group<M> {
    /// What reads other members' memory in a call of this kind, for `len` bytes of a member.
    pub(super) fn reading(&self, call: &Call, len: usize) -> Option<&dyn Reading> {
        // Ranks that share cores must not wait for each other more often than they do.
        let fits = !self.crowded && matches!(call.kind, Kind::Bcast { .. } | Kind::Allgather);
        self.reading.as_deref().filter(|_| fits && len >= self.thresholds.single_copy)
    }

    /// Whether this member's data of the call is offered where it is.
    pub(super) fn decides_to_offer(&self, cursor: &mut Cursor, call: &Call) -> bool {
        let len = call.given(self.me, self.size());
        let Some(reading) = self.reading(call, len) else { return false };
        if cursor.offering.is_refused() {
            return false;
        }
        let word = Rates::word(len);
        cursor.offering.adopt(len, self.others().map(|r| self.blocks[r].report(word)));
        cursor.offering.choose(len) == Way::Single && reading.offers()
    }

    /// Tells givers how fast `len` bytes were read each way, if that is news.
    pub(super) fn report(&self, cursor: &mut Cursor, len: usize) {
        let (at, word) = cursor.rates.report(len);
        let old = &mut cursor.reported[at];
        if differs(*old >> 32, word >> 32) || differs(*old & HALF, word & HALF) {
            *old = word;
            self.mine().set_report(at, word);
        }
    }

    /// Takes back what this member has offered in operation `n`: its memory may change.
    pub(super) fn withdraw(&self, n: u64) {
        self.mine().set_offer(n, 0);
        fence(Ordering::SeqCst);
    }

    /// Copies from `member`'s offer of operation `n` at `at`; whether what was read is what was offered, `None` when the
    /// offer stands but cannot be read.
    pub(super) fn copy_from(
        &self,
        n: u64,
        member: usize,
        at: u64,
        offset: usize,
        into: &mut [u8],
    ) -> Option<bool> {
        let reading = self.reading.as_deref()?;
        let read = reading.read(member, at.wrapping_add(offset as u64), into);
        fence(Ordering::SeqCst);
        let stands = self.blocks[member].offer(n) == at;
        (read || !stands).then_some(read && stands)
    }
}

const HALF: u64 = u32::MAX as u64;

/// Whether a rate has changed by more than an eighth.
fn differs(old: u64, new: u64) -> bool {
    old.abs_diff(new) * 8 > old
}
