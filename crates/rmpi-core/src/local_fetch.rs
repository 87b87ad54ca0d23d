//! Large messages of a node that their receiver copies straight out of the sender's memory, where that is faster
//! than through cells ([`rmpi_shm::Rates`]) and the kernel allows it.
//!
//! The announcement says where the message is; the receiver clears the sender as always, or copies by itself and
//! says when it is done. An offer can be withdrawn at any time, when the sender's memory is given back: the receiver
//! asks after each copy whether it still stood, and if not, or if it may not read there, it clears the sender after all.

use crate::announce::grant;
use crate::conn::Conn;
use crate::core::Core;
use crate::local::{Local, Waiting};
use crate::memory::RawBuf;
use crate::ops::{OpId, State, Status};
use crate::transmit::Cause;
use rmpi_shm::{CELL, Layout, Message, Offer, Place, Way};
use std::time::Instant;

/// Bytes copied in one round, so that one peer does not starve the others.
const PIECE: usize = 1 << 20;
/// Messages are considered from this many times the bytes on that data of a collective is.
const LONGER: usize = 16;
/// Cells of a peer.
pub(crate) const CELLS_SEEN: usize = Layout::POOL as usize / CELL;

/// A message that is copied out of its sender's memory.
pub(crate) struct Fetch {
    op: OpId,
    /// The sender's operation.
    sender: u64,
    offer: Offer,
    /// Bytes that are copied, and how long that took.
    at: u64,
    ns: u64,
}

impl Local {
    /// A piece of a large message has come: in a cell that was never read before it says nothing about the way.
    pub(crate) fn met(&mut self, m: &Message) {
        let Place::Pool(at, _) = m.place else { return };
        let (word, bit) = (at / CELL / 64, 1 << (at / CELL % 64));
        let Some(seen) = self.warm.get_mut(word) else { return };
        if *seen & bit == 0 {
            *seen |= bit;
            self.timed = None;
        }
    }

    /// A large message has come as a whole, through cells or copied here. The next one had to wait for it.
    pub(crate) fn came(&mut self, op: OpId, total: u64) {
        let Some((timed, since)) = self.timed.take() else { return };
        if timed == op {
            let bytes = usize::try_from(total).unwrap_or(usize::MAX);
            self.rates.cells(bytes, bytes, nanoseconds(since));
        } else {
            self.timed = Some((timed, Instant::now()));
        }
    }
}

fn nanoseconds(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

impl Core {
    /// Whether a message of `len` bytes may be copied once. Cells were ahead between two ranks at every size and
    /// distance that was measured, so that only long ones pay for trials.
    fn considers(&self, len: usize) -> bool {
        len / LONGER >= self.config.thresholds.single_copy
    }

    /// Offers a message to be copied by its receiver, if it is long enough for that.
    pub(crate) fn offer(&mut self, buf: RawBuf) -> Option<Offer> {
        self.considers(buf.len()).then_some(())?;
        let rail = self.rail.as_mut().filter(|r| r.segment.single().offer())?;
        rail.offers.make(buf.address())
    }

    /// Ends the permission to read an operation's memory.
    pub(crate) fn withdraw_offer(&mut self, id: OpId) {
        let Some(op) = self.ops.get_mut(id) else { return };
        if let (State::SendWaiting { offer }, Some(rail)) = (&mut op.state, self.rail.as_mut()) {
            offer.take().into_iter().for_each(|o| rail.offers.withdraw(o));
        }
    }

    /// Whether this rank will copy a message of the peer by itself, which is noted then; else it is to be cleared.
    pub(crate) fn copies_itself(
        &mut self,
        conn: &mut Conn,
        op: OpId,
        sender: u64,
        offer: Option<Offer>,
    ) -> bool {
        let (Some(local), Some(offer)) = (conn.local.as_deref_mut(), offer) else { return false };
        let Some(State::RecvData { total, .. }) = self.ops.get(op).map(|o| &o.state) else { return false };
        let total = usize::try_from(*total).unwrap_or(usize::MAX);
        if !self.considers(total) {
            return false;
        }
        if local.rates.choose(total) == Way::Cells {
            if local.timed.is_none() && !local.rates.is_refused() {
                local.timed = Some((op, Instant::now()));
            }
            return false;
        }
        local.fetches.push_back(Fetch { op, sender, offer, at: 0, ns: 0 });
        true
    }

    /// Copies a piece of the first such message; whether there was one.
    pub(crate) fn local_fetch(&mut self, conn: &mut Conn) -> Result<bool, Cause> {
        let peer = conn.peer;
        let Some(local) = conn.local.as_deref_mut() else { return Ok(false) };
        let Some(Fetch { op, sender, offer, at, ns }) = local.fetches.pop_front() else { return Ok(false) };
        let total = match self.ops.get(op).map(|o| (&o.state, o.peer)) {
            Some((State::RecvData { total, eager: false, .. }, Some(p))) if p == peer => *total,
            // Given up here meanwhile: the sender need not wait.
            _ => 0,
        };
        // As much as there is room for, and nothing of what is not wanted.
        let window = self.landing(op, at).map(|w| w.part(0, PIECE));
        let left = usize::try_from(total.saturating_sub(at)).unwrap_or(usize::MAX);
        let window = window.map(|w| w.part(0, left)).filter(|w| w.len() > 0);
        let Some(window) = window else {
            let bytes = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
            if at > 0 {
                local.rates.single(bytes(total), bytes(at), ns);
            }
            local.came(op, total);
            local.messages.push_back(Waiting::Fetched(sender));
            if let Some(o) = self.ops.get(op).filter(|_| total > 0) {
                let status = Status { peer, tag: o.tag, length: total };
                self.complete(op, Ok(status));
            }
            return self.local_pump(conn);
        };
        let since = Instant::now();
        let from = local.peer.local();
        let Some(single) = self.rail.as_ref().map(|r| r.segment.single()) else { return Ok(false) };
        let read = single.read(from, offer.address.wrapping_add(at), window.bytes_mut());
        let stands = single.stands(from, offer.ticket);
        if read.is_err() || !stands {
            // What has been withdrawn may be gone; what stands is to be readable.
            if stands {
                local.rates.refuse();
            }
            grant(conn, op, sender);
            return self.local_pump(conn);
        }
        let (at, ns) = (at + window.len() as u64, ns + nanoseconds(since));
        local.fetches.push_front(Fetch { op, sender, offer, at, ns });
        Ok(true)
    }

    /// The receiver has copied this rank's announced message.
    pub(crate) fn on_fetched(&mut self, conn: &mut Conn, id: OpId) -> Result<(), Cause> {
        // An unknown operation was given up here meanwhile.
        let Some(o) = self.ops.get(id) else { return Ok(()) };
        match o.state {
            State::SendWaiting { .. } if o.peer == Some(conn.peer) => {
                self.sent(id);
                Ok(())
            }
            State::Done => Ok(()),
            _ => Err("a message is said to be copied that was not announced".into()),
        }
    }
}
