//! The sending half of a link: header and payload in one system call, frames gathered while a burst lasts,
//! large messages in pieces that let other messages pass between them.

use crate::conn::{Conn, FRAMES_MAX, Item, Piece};
use crate::core::Core;
use crate::header::{HEADER_LEN, Header};
use crate::lanes::{is_striped, stripe_len};
use crate::memory::RawBuf;
use crate::ops::{Op, OpId, State, Status};
use std::io::{self, ErrorKind, IoSlice};
use std::sync::Arc;

/// Header and payload up to this size are copied together: cheaper than a second vector.
const COPY_MAX: usize = 2 << 10;
/// From this size on a message does not end with its large piece...
const HOLD_BACK_FROM: usize = 512 << 10;
/// ...but with one of this size (1 MiB: 103 us against 130-175 us without).
const HOLD_BACK: usize = 4 << 10;
/// Pieces of a large message before another one has its turn. Small messages pass after each piece; that large ones
/// come whole lets their receiver read them in place.
const TURN: u32 = 16;
/// Bytes handed over in one call of `pump`, so that one peer does not starve the others.
const PUMP_BUDGET: usize = 4 << 20;

/// Why a link ended.
pub(crate) type Cause = Arc<str>;

/// What a failed send means. What a peer that has closed said before is read first; the end of the stream then ends the
/// link.
fn failed(conn: &mut Conn, e: &io::Error) -> Result<(), Cause> {
    if rmpi_net::has_closed(e) {
        conn.tx.closed = true;
        return Ok(());
    }
    Err(format!("sending failed: {e}").into())
}

/// Takes the next piece of a cleared message, of the length that `len` says for its total and what has been taken;
/// `None` once all of it is taken.
pub(crate) fn take_piece(o: &mut Op, len: impl FnOnce(usize, usize) -> usize) -> Option<Piece> {
    let total = o.buf.len();
    let State::SendStreaming { sent, peer_op } = &mut o.state else { return None };
    // An empty message is one empty piece.
    if *sent == total && total > 0 {
        return None;
    }
    let (start, len) = (*sent, len(total, *sent));
    *sent += len;
    let header = Header::piece(*peer_op, start as u64, len as u64).encode();
    Some(Piece { header, start, len, at: 0 })
}

/// The length of the next piece of a message of `total` bytes of which `sent` are sent, at most `most`. Measured for that:
/// 4 MiB in pieces of 1,016-1,020 KiB took 470 us, 992 KiB 517, 1,024 KiB 709.
fn piece_len(total: usize, sent: usize, most: usize) -> usize {
    let left = total - sent;
    if total < HOLD_BACK_FROM || left <= HOLD_BACK { left.min(most) } else { most.min(left - HOLD_BACK) }
}

impl Core {
    /// Sends an eager message on an idle link; what the kernel does not take is queued.
    pub(crate) fn send_now(
        &mut self,
        conn: &mut Conn,
        id: OpId,
        header: &[u8; HEADER_LEN],
        buf: RawBuf,
        status: Status,
    ) -> Result<bool, Cause> {
        let Some(link) = conn.link.as_mut() else { return Ok(false) };
        let len = buf.len();
        let sent = match send_whole(link.as_mut(), &mut conn.tx.spare, header, buf.bytes()) {
            Ok(n) => n,
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => 0,
            Err(e) => {
                failed(conn, &e)?;
                0
            }
        };
        if sent == HEADER_LEN + len {
            self.complete(id, Ok(status));
        } else {
            conn.tx.queue.push_back(Item::Eager { header: *header, op: id, at: sent });
        }
        self.warm_after_send(conn);
        Ok(true)
    }

    fn warm_after_send(&mut self, conn: &mut Conn) {
        conn.last_used = self.round;
        if !conn.hot {
            // An answer is likely; poll for it directly. The connection is out of the table while it is
            // worked on, so the list is kept right by hand.
            if conn.registered {
                crate::core::unregister(&self.epoll, conn);
                self.cold -= 1;
            }
            conn.hot = true;
            self.hot.push(conn.peer);
        }
    }

    /// Sends what is queued until the kernel takes no more; whether anything was sent.
    pub(crate) fn pump(&mut self, conn: &mut Conn) -> Result<bool, Cause> {
        if conn.local.is_some() {
            return self.local_pump(conn);
        }
        let mut moved = 0;
        while moved < PUMP_BUDGET && !conn.tx.closed {
            if conn.link.is_none() {
                return Ok(false);
            }
            let fed = if conn.lanes.up.is_empty() { 0 } else { self.feed(conn) };
            moved += fed;
            if conn.tx.queue.is_empty() {
                if fed == 0 {
                    break;
                }
                continue;
            }
            match self.send_front(conn) {
                Ok(0) => break,
                Ok(n) => moved += n,
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    if fed == 0 && !overtake(conn) {
                        break;
                    }
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => failed(conn, &e)?,
            }
        }
        if moved > 0 || !conn.tx.queue.is_empty() {
            self.warm_after_send(conn);
        }
        Ok(moved > 0)
    }

    /// Sends once from the first item; its bytes.
    fn send_front(&mut self, conn: &mut Conn) -> io::Result<usize> {
        let (Some(link), Some(front)) = (conn.link.as_mut(), conn.tx.queue.front_mut()) else { return Ok(0) };
        let thresholds = &self.config.thresholds;
        match front {
            Item::Frames { bytes, at, .. } => {
                let n = link.send(&[IoSlice::new(&bytes[*at..])])?;
                *at += n;
                if *at == bytes.len()
                    && let Some(Item::Frames { bytes, ops, .. }) = conn.tx.queue.pop_front()
                {
                    if bytes.capacity() <= FRAMES_MAX {
                        conn.tx.spare = bytes;
                    }
                    ops.into_iter().for_each(|op| self.sent(op));
                }
                Ok(n)
            }
            Item::Eager { header, op, at } => {
                let Some(o) = self.ops.get(*op) else {
                    unreachable!("a queued send stays in the table until it is sent");
                };
                let n = send_part(link.as_mut(), header, o.buf, *at)?;
                *at += n;
                if *at == HEADER_LEN + o.buf.len() {
                    let op = *op;
                    conn.tx.queue.pop_front();
                    self.sent(op);
                }
                Ok(n)
            }
            Item::Pieces { op, piece, turn } => {
                let id = *op;
                let Some(o) = self.ops.get_mut(id) else {
                    unreachable!("a cleared send stays in the table until it is sent");
                };
                if piece.is_none() {
                    let streams = 1 + conn.lanes.up.len();
                    *piece = take_piece(o, |total, sent| match link.max_piece() {
                        Some(max) => max.min(thresholds.quic_piece).min(total - sent),
                        None if streams > 1 && is_striped(total) => {
                            stripe_len(total, sent, streams, thresholds.piece)
                        }
                        None => piece_len(total, sent, thresholds.piece),
                    });
                }
                let Some(p) = piece else {
                    unreachable!("a message leaves the queue when all of it is taken");
                };
                let payload = o.buf.part(p.start, p.len);
                let n = match link.max_piece() {
                    Some(_) => {
                        link.send_piece(id.raw(), &[IoSlice::new(&p.header), IoSlice::new(payload.bytes())])?
                    }
                    None => send_part(link.as_mut(), &p.header, payload, p.at)?,
                };
                p.at += n;
                if p.at == HEADER_LEN + p.len {
                    let all = matches!(o.state, State::SendStreaming { sent, .. } if sent == o.buf.len());
                    *piece = None;
                    *turn = (*turn + 1) % TURN;
                    let stays = *turn > 0;
                    if let Some(item) = conn.tx.queue.pop_front()
                        && !all
                    {
                        let large = |i: &Item| matches!(i, Item::Pieces { .. });
                        let at = if stays { conn.tx.queue.iter().position(large) } else { None };
                        conn.tx.queue.insert(at.unwrap_or(conn.tx.queue.len()), item);
                    }
                    self.piece_sent(conn, id);
                }
                Ok(n)
            }
        }
    }

    pub(crate) fn sent(&mut self, id: OpId) {
        let Some(op) = self.ops.get(id) else { return };
        let status = Status { peer: op.peer.unwrap_or(0), tag: op.tag, length: op.buf.len() as u64 };
        self.complete(id, Ok(status));
    }
}

/// On a link with several streams a piece that finds its stream full, and goes whole or not at all, lets the first
/// other message pass; whether there is one.
fn overtake(conn: &mut Conn) -> bool {
    let streams = conn.link.as_ref().is_some_and(|l| l.max_piece().is_some());
    let large = |i: &Item| matches!(i, Item::Pieces { .. });
    if !streams || !conn.tx.queue.front().is_some_and(large) {
        return false;
    }
    let Some(at) = conn.tx.queue.iter().position(|i| !large(i)) else { return false };
    if let Some(item) = conn.tx.queue.remove(at) {
        conn.tx.queue.push_front(item);
    }
    true
}

/// Sends a header and its payload in one call; small ones gathered in `spare`.
pub(crate) fn send_whole(
    link: &mut dyn rmpi_net::Link,
    spare: &mut Vec<u8>,
    header: &[u8; HEADER_LEN],
    payload: &[u8],
) -> io::Result<usize> {
    if payload.len() > COPY_MAX {
        return link.send(&[IoSlice::new(header), IoSlice::new(payload)]);
    }
    spare.clear();
    spare.extend_from_slice(header);
    spare.extend_from_slice(payload);
    link.send(&[IoSlice::new(spare)])
}

/// Sends from position `at` of header and payload.
pub(crate) fn send_part(
    link: &mut dyn rmpi_net::Link,
    header: &[u8; HEADER_LEN],
    payload: RawBuf,
    at: usize,
) -> io::Result<usize> {
    if at < HEADER_LEN {
        link.send(&[IoSlice::new(&header[at..]), IoSlice::new(payload.bytes())])
    } else {
        let rest = payload.part(at - HEADER_LEN, payload.len());
        link.send(&[IoSlice::new(rest.bytes())])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rmpi_types::Thresholds;

    #[test]
    fn pieces_cover_the_message_and_large_ones_end_small() {
        let piece = Thresholds::default().piece;
        for most in [64 << 10, piece, 64 << 20] {
            for total in [65_537, HOLD_BACK_FROM - 1, HOLD_BACK_FROM, 1 << 20, piece, piece + 1, 100 << 20] {
                let (mut sent, mut last) = (0, 0);
                while sent < total {
                    last = piece_len(total, sent, most);
                    assert!(last > 0 && last <= most);
                    sent += last;
                }
                assert_eq!(sent, total);
                assert!(total < HOLD_BACK_FROM || last <= HOLD_BACK, "{total} in pieces of {most}");
            }
        }
    }
}
