//! Announced messages at their receiver: matched or kept, then cleared, or copied by the receiver itself.

use crate::conn::{Conn, MAX_UNEXPECTED_RTS};
use crate::core::Core;
use crate::header::{Header, Kind};
use crate::matching::{Body, Envelope, Unexpected};
use crate::ops::OpId;
use crate::transmit::Cause;
use rmpi_shm::Offer;

impl Core {
    /// A message is ready at its sender, who may have said where.
    pub(crate) fn on_announced(
        &mut self,
        conn: &mut Conn,
        h: &Header,
        offer: Option<Offer>,
    ) -> Result<(), Cause> {
        let envelope = Envelope { source: conn.peer, tag: h.tag, check: h.check, length: h.length };
        if let Some(op) = self.matcher.arrive(h.context, conn.peer, h.tag) {
            self.matched(op, envelope);
            self.accept(conn, op, h.id, offer);
        } else if self.revocation(h.context, Some(h.tag)).is_none() {
            conn.rx.unexpected_rts += 1;
            if conn.rx.unexpected_rts > MAX_UNEXPECTED_RTS {
                return Err("too many unreceived messages".into());
            }
            let body = Body::Rts { sender: h.id, offer };
            self.matcher.store(Unexpected { context: h.context, envelope, body });
        }
        Ok(())
    }

    /// Lets an announced message come: it is copied from where it is, or its sender is cleared to send it.
    pub(crate) fn accept(&mut self, conn: &mut Conn, op: OpId, sender: u64, offer: Option<Offer>) {
        if !self.copies_itself(conn, op, sender, offer) {
            grant(conn, op, sender);
        }
    }
}

/// Clears the sender's operation `sender` to send into the receive `op`.
pub(crate) fn grant(conn: &mut Conn, op: OpId, sender: u64) {
    conn.control(&Header { id: sender, length: op.raw(), ..Header::bare(Kind::Cts) });
    // Usually it is the first.
    if !conn.rx.guesses.contains(&op) {
        conn.expect(op);
    }
}
