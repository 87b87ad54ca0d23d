//! Small operations in which every member needs every other's data, without a machine: what a blocking call does while
//! the others come soon. The words are those of [`super::Pass`], which goes on where waiting takes longer.

use super::block::{SMALL, Slots};
use super::group::{Cursor, Group, Trouble};
use super::memory::Memory;
use super::pass::combine;
use crate::kernels::{Reducer, Source};

/// One operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Round {
    /// Its number, counted from 1.
    pub n: u64,
    /// Of the arguments that must be the same at all members.
    pub digest: u32,
    /// Bytes of each member's data, at most [`Group::SMALL`].
    pub len: usize,
}

impl<M: Memory> Group<M> {
    /// Bytes of a member's data that fit in a slot.
    pub const SMALL: usize = SMALL;

    /// Writes this member's data and says so; false when a member may still read what the slot holds from before:
    /// nothing was written then. [`Cursor::done`] is the number before.
    ///
    /// # Panics
    /// When `own` is not as long as the round says, or longer than a slot: a mistake of the caller's.
    #[inline]
    pub fn put(&self, cursor: &mut Cursor, round: Round, own: &[u8]) -> bool {
        assert!(own.len() == round.len && round.len <= SMALL, "{} bytes in a slot", own.len());
        if cursor.slot_in_use(self, round.n).is_some() {
            return false;
        }
        if !own.is_empty() {
            self.mine().write_small(round.n, own);
        }
        self.mine().announce(round.n, round.digest.into(), 0);
        true
    }

    /// A member that has not put its data there yet; `None`: all have.
    ///
    /// # Errors
    /// When a member has begun another operation in its place: the group is of no use then.
    #[inline]
    pub fn missing(&self, cursor: &mut Cursor, round: Round) -> Result<Option<usize>, Trouble> {
        cursor.all_arrived(self, round.n, round.digest)
    }

    /// Combines what all have put there, in their order, into `output`, and ends the operation. `own` is this member's
    /// data; `None`: it is in the output.
    ///
    /// # Errors
    /// When the reduction fails: the group is of no use then.
    ///
    /// # Panics
    /// When a buffer is not as long as the round says: a mistake of the caller's.
    #[inline]
    pub fn sum_up(
        &self,
        cursor: &mut Cursor,
        round: Round,
        reducer: Option<&Reducer>,
        own: Option<&[u8]>,
        output: &mut [u8],
    ) -> Result<(), Trouble> {
        let Round { n, len, .. } = round;
        let own = own.map_or(Source::OUTPUT, |o| Source::from(&o[..len]));
        let from = |r: usize| if r == self.me { own } else { self.blocks[r].small(n, len, 0, len) };
        combine(reducer, 0..self.size(), from, output, len, false)?;
        cursor.complete(n);
        Ok(())
    }
}
