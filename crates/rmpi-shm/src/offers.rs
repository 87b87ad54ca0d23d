//! Memory of its own that a rank lets others of the node copy from: which offers stand is in the segment.
//!
//! An offer may be withdrawn at any time, for its memory goes back to the program: who is copying just then asks
//! afterwards whether it still stood. A word of a rank's table says which offer stands in that place; no number is used twice.

use crate::area::Area;
use crate::layout::Layout;
use crate::segment::Segment;
use std::num::NonZeroU64;
use std::sync::atomic::{Ordering, fence};

/// Memory of the sender's process from which its receiver may copy, while the offer stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offer {
    /// Where it begins in that process.
    pub address: u64,
    /// Which one it is.
    pub ticket: Ticket,
}

/// Names an offer of a rank: its place in the table, and what stands there then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket(NonZeroU64);

impl Ticket {
    /// What a slot says; `None` when that is no ticket.
    pub(crate) fn from_word(word: u64) -> Option<Self> {
        NonZeroU64::new(word).map(Self)
    }

    pub(crate) fn word(self) -> u64 {
        self.0.get()
    }

    /// Its place in the table of its rank.
    pub(crate) fn place(self) -> usize {
        (self.word() % u64::from(Layout::OFFERS)) as usize
    }
}

/// This rank's table.
#[derive(Debug)]
pub struct Offers {
    table: Area,
    /// What stands, by place; and the places where nothing does.
    standing: Vec<u64>,
    free: Vec<u16>,
    made: u64,
}

impl Offers {
    /// The table of the rank whose segment this is.
    #[must_use]
    pub fn new(segment: &Segment) -> Self {
        let table = segment.area(segment.layout().offers(segment.me()));
        Self { table, standing: Vec::new(), free: Vec::new(), made: 0 }
    }

    /// Offers memory of this process; `None` when too many offers stand.
    pub fn make(&mut self, address: u64) -> Option<Offer> {
        if self.standing.is_empty() {
            self.standing = vec![0; usize::from(Layout::OFFERS)];
            self.free = (0..Layout::OFFERS).rev().collect();
        }
        let place = self.free.pop()?;
        self.made += 1;
        let ticket = Ticket::from_word(self.made * u64::from(Layout::OFFERS) + u64::from(place))?;
        self.standing[usize::from(place)] = ticket.word();
        self.table.word64(8 * usize::from(place))?.store(ticket.word(), Ordering::Release);
        Some(Offer { address, ticket })
    }

    /// Takes an offer back, if it stands: its memory may be used for something else at once.
    pub fn withdraw(&mut self, ticket: Ticket) {
        let place = ticket.place();
        let Some(standing) = self.standing.get_mut(place).filter(|t| **t == ticket.word()) else { return };
        *standing = 0;
        self.free.extend(u16::try_from(place));
        self.clear(place);
        // Seen before anything that is written to that memory from now on.
        fence(Ordering::SeqCst);
    }

    fn clear(&self, place: usize) {
        if let Some(word) = self.table.word64(8 * place) {
            word.store(0, Ordering::Relaxed);
        }
    }
}

impl Drop for Offers {
    /// What was offered will belong to somebody else.
    fn drop(&mut self) {
        (0..self.standing.len()).for_each(|place| self.clear(place));
        fence(Ordering::SeqCst);
    }
}
