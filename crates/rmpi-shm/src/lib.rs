//! Shared memory between the ranks of one node: the segment, its layout, and what lives in it.
//!
//! The daemon makes one memory file a node before any rank exists ([`create`]); every rank inherits and maps it
//! ([`Segment::attach`]). All `unsafe` of the crate is in `map`, `area`, `copy`, `fence` and
//! `single`. What other ranks
//! write there is untrusted: it is copied once, checked, and then used.

mod area;
mod copy;
pub mod fence;
mod heap;
mod layout;
mod map;
#[cfg(all(test, loom))]
mod models;
mod offers;
mod park;
#[cfg(not(loom))]
mod peer;
mod pool;
mod rates;
mod ring;
mod segment;
mod single;
#[cfg(not(loom))]
mod state;
mod sync;

pub use area::Area;
pub use heap::Block;
pub use layout::{Layout, MAX_RANKS, Span};
pub use offers::{Offer, Offers, Ticket};
#[cfg(not(loom))]
pub use peer::{Label, Message, Peer, Place};
pub use pool::{CELL, Pool};
pub use rates::{Rates, Way};
pub use ring::{INLINE, Impossible};
pub use segment::{Segment, SegmentError, create, mark_gone, refuse};
pub use single::{Single, Unreadable};
#[cfg(not(loom))]
pub use state::{Bells, Sleepers};
