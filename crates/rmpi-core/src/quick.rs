//! Blocking messages over a link without an operation: sent in one call while nothing else waits to be sent,
//! received in one call while nothing else is received. All else goes the long way, and nothing is done twice.

use crate::conn::{Conn, GUESS_MAX, WINDOW, cost};
use crate::core::Core;
use crate::engine::Engine;
use crate::error::Fault;
use crate::header::{HEADER_LEN, Header, Kind};
use crate::local_receive::one_source;
use crate::memory::RawBuf;
use crate::ops::{Finished, OpId, Status};
use crate::submit::{RecvSpec, SendSpec};
use crate::transmit::send_whole;
use std::io::IoSliceMut;

/// Looks at the socket before the long way, which can park: each costs about half a microsecond.
const LOOKS: u32 = 64;
/// Looks between two rounds of progress: with no other peer in touch, and with some.
const ROUND: (u32, u32) = (16, 3);

/// What a look for a message gave.
enum Look {
    /// It was there.
    Done(Status),
    /// Something was there: the operation that was made of the receive, which may be over.
    Begun(OpId),
    /// Nothing is there.
    Nothing,
    /// The long way is needed.
    Other,
}

impl Core {
    /// Sends an eager message, if its link is in use and idle and takes all of it now; whether it did.
    pub(crate) fn send_quickly(&mut self, s: &SendSpec, payload: &[u8]) -> bool {
        let len = payload.len();
        if len > self.config.thresholds.eager || !self.revoked.is_empty() {
            return false;
        }
        let Some(conn) = self.conns.get_mut(s.to as usize).and_then(Option::as_deref_mut) else {
            return false;
        };
        let price = cost(len as u64);
        if !conn.hot || !conn.tx.queue.is_empty() || conn.credit < price || conn.dead.is_some() {
            return false;
        }
        let header = Header {
            kind: Kind::Eager,
            check: s.check,
            context: s.context,
            tag: s.tag,
            sequence: conn.tx.sequence,
            length: len as u64,
            id: conn.rx.owed,
        };
        let header = header.encode();
        let Conn { link: Some(link), tx, rx, .. } = conn else { return false };
        // An error shows again on the long way.
        let Ok(n @ 1..) = send_whole(link.as_mut(), &mut tx.spare, &header, payload) else { return false };
        tx.sequence = tx.sequence.wrapping_add(1);
        rx.owed = 0;
        conn.credit -= price;
        conn.last_used = self.round;
        if n < HEADER_LEN + len {
            // The rest is copied: the caller's memory is free, as after every eager send.
            let (bytes, _) = conn.frames(HEADER_LEN + len - n);
            if n < HEADER_LEN {
                bytes.extend_from_slice(&header[n..]);
            }
            bytes.extend_from_slice(&payload[n.saturating_sub(HEADER_LEN)..]);
        }
        true
    }

    /// Whether a message from `rank` can be received without an operation: nothing else is under way.
    fn is_calm(&mut self, rank: u32) -> bool {
        if !self.matcher.is_empty() || !self.revoked.is_empty() || !self.tasks.is_empty() {
            return false;
        }
        let Some(mut conn) = self.conns.get_mut(rank as usize).and_then(Option::take) else { return false };
        let rx = &conn.rx;
        let calm = conn.hot
            && conn.link.is_some()
            && conn.tx.queue.is_empty()
            && rx.incoming.is_none()
            && rx.part_len == 0
            && rx.streak < 2
            && self.guess(&mut conn).is_none();
        self.conns[rank as usize] = Some(conn);
        calm
    }

    fn look(&mut self, spec: &RecvSpec, rank: u32, buf: RawBuf) -> Look {
        if !spec.scribble || !self.is_calm(rank) {
            return Look::Other;
        }
        let Some(conn) = self.conns[rank as usize].as_deref_mut() else { return Look::Other };
        let Conn { link: Some(link), rx, credit, .. } = conn else { return Look::Other };
        let mut head = [0; HEADER_LEN];
        let window = buf.part(0, GUESS_MAX);
        let parts = &mut [IoSliceMut::new(&mut head), IoSliceMut::new(window.bytes_mut())];
        // An error, or the end of the stream, shows again on the long way.
        let n = match link.recv(parts) {
            Ok(n @ 1..) => n,
            Ok(_) => return Look::Other,
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {
                rx.streak = 0;
                return Look::Nothing;
            }
            Err(_) => return Look::Other,
        };
        rx.streak += 1;
        if let Ok(h) = Header::decode(&head)
            && n == HEADER_LEN + usize::try_from(h.length).unwrap_or(usize::MAX)
            && (h.kind, h.context, h.check, h.sequence)
                == (Kind::Eager, spec.context, spec.check, rx.sequence)
            && spec.tag.is_none_or(|t| t == h.tag)
            && h.id <= WINDOW - *credit
        {
            *credit += h.id;
            rx.sequence = rx.sequence.wrapping_add(1);
            conn.last_used = self.round;
            self.took(rank, cost(h.length));
            return Look::Done(Status { peer: rank, tag: h.tag, length: h.length });
        }
        let op = self.submit_recv(spec, buf, None);
        self.begin_with(rank, op, window, &head, n);
        Look::Begun(op)
    }
}

impl Engine {
    /// Receives from one rank, waiting a little; `None` sends the caller the long way.
    pub(crate) fn recv_quickly(&self, spec: &RecvSpec, buf: RawBuf) -> Option<Result<Finished, OpId>> {
        let rank = one_source(spec)?;
        let mut core = self.lock();
        let looks = if core.config.oversubscribed { 1 } else { LOOKS };
        let alone = core.rail.is_none() && core.hot.len() == 1;
        let round = if alone { ROUND.0 } else { ROUND.1 };
        for look in 1..=looks {
            match core.look(spec, rank, buf) {
                Look::Done(status) => return Some(Ok((Ok(status), None))),
                Look::Begun(op) => {
                    self.tell(&core);
                    return Some(core.take(op).ok_or(op));
                }
                Look::Other => return None,
                Look::Nothing => {}
            }
            if look % round == 0 {
                if core.progress() {
                    self.tell(&core);
                }
                if self.is_wanted() {
                    return None;
                }
            }
        }
        None
    }
}

/// The status of a send that is over.
pub(crate) fn sent(s: &SendSpec, bytes: &[u8]) -> Result<Status, Fault> {
    Ok(Status { peer: s.to, tag: s.tag, length: bytes.len() as u64 })
}
