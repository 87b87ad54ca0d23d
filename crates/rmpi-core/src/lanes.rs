//! Further connections of two ranks: pieces of large messages go over whichever has room, so that several network
//! interfaces carry one message. All else keeps its order on the first connection.
//!
//! A piece names its receive and its place in it, so pieces may come in any order. Who dialled the first connection
//! dials the others, each to another of the peer's addresses as long as there are some. Which address leads where is
//! the handshake's to say, and one that leads nowhere is replaced by the next.

use crate::conn::{Conn, Incoming, Item, Piece, Target};
use crate::core::Core;
use crate::header::{HEADER_LEN, Header, Kind};
use crate::ops::{OpId, State, Status};
use crate::receive::{READS, Read, checked, read_of};
use crate::transmit::{Cause, send_part, take_piece};
use rmpi_net::{Arrival, Dial, DialStep, Link};
use rmpi_types::transport::MAX_STREAMS;
use std::io::{self, ErrorKind, IoSliceMut};
use std::net::SocketAddr;
use std::time::Instant;

/// Least bytes of a piece where there are several connections; messages of less than two go over the first.
const STRIPE_MIN: usize = 64 << 10;

/// One of the further connections.
pub(crate) struct Lane {
    number: u32,
    pub(crate) link: Box<dyn Link>,
    /// The peer's end; a broken connection does not know it any more.
    address: Option<SocketAddr>,
    /// The piece being sent.
    out: Option<(OpId, Piece)>,
    /// The header being received.
    head: [u8; HEADER_LEN],
    head_len: usize,
    /// The piece being received.
    incoming: Option<Incoming>,
    /// Bytes of whole pieces, both ways.
    pub(crate) carried: u64,
}

impl Lane {
    fn new(number: u32, link: Box<dyn Link>) -> Self {
        let address = link.peer();
        Self {
            number,
            link,
            address,
            out: None,
            head: [0; HEADER_LEN],
            head_len: 0,
            incoming: None,
            carried: 0,
        }
    }

    /// Whether a piece waits for room.
    pub(crate) fn is_sending(&self) -> bool {
        self.out.is_some()
    }
}

/// The further connections to one peer.
#[derive(Default)]
pub(crate) struct Lanes {
    pub(crate) up: Vec<Lane>,
    pub(crate) dials: Vec<(u32, Dial)>,
    /// Why one of them broke. What the peer said before on the first connection is heard before that counts.
    broken: Option<Cause>,
}

impl Lanes {
    /// Whether there are, or were, any.
    pub(crate) fn is_used(&self) -> bool {
        !self.up.is_empty() || self.broken.is_some()
    }
}

/// The length of the next piece of a message of `total` bytes of which `taken` are taken, over `streams` connections:
/// at least two pieces for each, so that the faster ones carry more, and of about `most` bytes at most.
pub(crate) fn stripe_len(total: usize, taken: usize, streams: usize, most: usize) -> usize {
    let stripe = (total / (2 * streams)) & !0xFFF;
    let stripe = stripe.clamp(STRIPE_MIN, most.max(STRIPE_MIN));
    let left = total - taken;
    if left < stripe + stripe / 2 { left } else { stripe }
}

/// Whether a message of `total` bytes is cut for several connections.
pub(crate) fn is_striped(total: usize) -> bool {
    total >= 2 * STRIPE_MIN
}

/// The peer's addresses for its connection `number`, the best first: those of one family, beginning so many after the
/// one that the first connection has found.
fn rotated(addresses: &[SocketAddr], first: SocketAddr, number: u32) -> Vec<SocketAddr> {
    let family = addresses.iter().filter(|a| a.is_ipv4() == first.is_ipv4());
    let mut found: Vec<SocketAddr> = family.copied().collect();
    if found.is_empty() {
        return vec![first];
    }
    let at = found.iter().position(|a| *a == first).unwrap_or(0);
    let turns = (at + number as usize) % found.len();
    found.rotate_left(turns);
    found
}

impl Conn {
    /// Whether a connection has a piece of this message under way.
    fn is_sending(&self, id: OpId) -> bool {
        let first = |i: &Item| matches!(i, Item::Pieces { op, piece: Some(_), .. } if *op == id);
        self.lanes.up.iter().any(|l| l.out.is_some_and(|(op, _)| op == id)) || self.tx.queue.iter().any(first)
    }

    /// Bytes of pieces for this receive that are coming in.
    fn under_way(&self, id: OpId) -> u64 {
        let incoming =
            self.rx.incoming.iter().chain(self.lanes.up.iter().filter_map(|l| l.incoming.as_ref()));
        incoming.filter(|i| matches!(i.target, Target::Op(op, _) if op == id)).map(|i| i.len).sum()
    }

    /// All efforts to reach the peer.
    pub(crate) fn dials(&self) -> impl Iterator<Item = &Dial> {
        self.dial.iter().chain(self.lanes.dials.iter().map(|(_, dial)| dial))
    }

    /// All connections to the peer.
    pub(crate) fn links(&self) -> impl Iterator<Item = &dyn Link> {
        let first = self.link.iter().map(|l| &**l);
        first.chain(self.lanes.up.iter().map(|l| &*l.link))
    }
}

impl Core {
    /// Begins to make the further connections to a peer whose first one this rank has dialled.
    pub(crate) fn widen(&mut self, peer: u32) {
        let streams = self.config.streams.min(MAX_STREAMS);
        let Some(conn) = self.conns[peer as usize].as_ref().filter(|_| streams > 1) else { return };
        let single = conn.link.as_ref().filter(|l| l.max_piece().is_none());
        let Some(first) = single.and_then(|l| l.peer()) else { return };
        let addresses = self.directory.endpoint(peer).addresses;
        let now = Instant::now();
        let dials: Vec<(u32, Dial)> = (1..streams)
            .map(|n| (n, self.dial(peer, rotated(&addresses, first, n), now).numbered(n)))
            .collect();
        if let Some(conn) = self.conns[peer as usize].as_mut() {
            conn.lanes.dials = dials;
            self.dialling.push(peer);
        }
    }

    /// Moves the efforts for further connections on; whether one came up or ended. The pair does without those that
    /// cannot be had.
    pub(crate) fn poll_lanes(&mut self, peer: u32, now: Instant) -> bool {
        let Some(conn) = self.conns[peer as usize].as_mut() else { return false };
        let (mut up, mut busy) = (Vec::new(), false);
        conn.lanes.dials.retain_mut(|(number, dial)| {
            let step = dial.poll(now);
            let pending = matches!(step, DialStep::Pending);
            if let DialStep::Up(link) = step {
                up.push(Lane::new(*number, link));
            }
            busy |= !pending;
            pending
        });
        if conn.lanes.dials.is_empty() && conn.dial.is_none() && conn.redial_at.is_none() {
            self.dialling.retain(|&p| p != peer);
        }
        for lane in up {
            self.lane_up(peer, lane);
        }
        busy
    }

    /// Takes a further connection that the peer has dialled, if it is one.
    pub(crate) fn lane_arrived(&mut self, arrival: Arrival) {
        let (peer, number) = (arrival.from, arrival.number);
        let fresh = |c: &Conn| {
            c.link.as_ref().is_some_and(|l| l.max_piece().is_none())
                && c.lanes.up.iter().all(|l| l.number != number)
        };
        let known = self.conns[peer as usize].as_deref().is_some_and(fresh);
        if number >= MAX_STREAMS || !known {
            arrival.refuse();
        } else if let Ok(link) = arrival.take() {
            self.lane_up(peer, Lane::new(number, link));
        }
    }

    fn lane_up(&mut self, peer: u32, lane: Lane) {
        // Not in the epoll set while it changes.
        self.heat(peer);
        if let Some(conn) = self.conns[peer as usize].as_mut().filter(|c| c.link.is_some()) {
            conn.lanes.up.push(lane);
        }
        self.service(peer);
    }

    /// Gives each further connection something to send, a piece at most; how many bytes they took.
    pub(crate) fn feed(&mut self, conn: &mut Conn) -> usize {
        let (mut moved, mut i) = (0, 0);
        while i < conn.lanes.up.len() {
            match self.feed_one(conn, i) {
                Ok(n) => moved += n,
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                Err(e) => {
                    broke(conn, i, &format!("sending failed: {e}"));
                    continue;
                }
            }
            i += 1;
        }
        moved
    }

    fn feed_one(&mut self, conn: &mut Conn, i: usize) -> io::Result<usize> {
        if conn.lanes.up[i].out.is_none() {
            let next = self.next_stripe(conn);
            conn.lanes.up[i].out = next;
        }
        let Lane { out: Some((id, piece)), link, .. } = &mut conn.lanes.up[i] else { return Ok(0) };
        let id = *id;
        let Some(o) = self.ops.get(id) else {
            unreachable!("a cleared send stays in the table until it is sent");
        };
        let n = send_part(link.as_mut(), &piece.header, o.buf.part(piece.start, piece.len), piece.at)?;
        piece.at += n;
        if piece.at == HEADER_LEN + piece.len {
            let carried = piece.len as u64;
            conn.lanes.up[i].carried += carried;
            conn.lanes.up[i].out = None;
            self.piece_sent(conn, id);
        }
        Ok(n)
    }

    /// Takes a piece of the first large message that has one left.
    fn next_stripe(&mut self, conn: &mut Conn) -> Option<(OpId, Piece)> {
        let (streams, most) = (1 + conn.lanes.up.len(), self.config.thresholds.piece);
        for at in 0..conn.tx.queue.len() {
            let Item::Pieces { op, piece, .. } = &conn.tx.queue[at] else { continue };
            let (id, idle) = (*op, piece.is_none());
            let Some(o) = self.ops.get_mut(id).filter(|o| is_striped(o.buf.len())) else { continue };
            let Some(taken) = take_piece(o, |total, sent| stripe_len(total, sent, streams, most)) else {
                continue;
            };
            if idle && taken.start + taken.len == o.buf.len() {
                conn.tx.queue.remove(at);
            }
            return Some((id, taken));
        }
        None
    }

    /// A piece is with the kernel; the send is over with the last one.
    pub(crate) fn piece_sent(&mut self, conn: &Conn, id: OpId) {
        let whole = self
            .ops
            .get(id)
            .is_some_and(|o| matches!(o.state, State::SendStreaming { sent, .. } if sent == o.buf.len()));
        if whole && !conn.is_sending(id) {
            self.sent(id);
        }
    }

    /// Takes in what has arrived on the further connections, after the first one gave `main`.
    pub(crate) fn receive_lanes(
        &mut self,
        conn: &mut Conn,
        main: Result<bool, Cause>,
    ) -> Result<bool, Cause> {
        // Said before, so what the first connection had to tell has been heard.
        let broken = conn.lanes.broken.clone();
        // When the first connection ends, what came before on the others still counts.
        let all = main.is_err();
        let (mut moved, mut i) = (false, 0);
        while i < conn.lanes.up.len() {
            match self.receive_lane(conn, i, all) {
                Ok(got) => moved |= got,
                Err(cause) => {
                    broke(conn, i, &cause);
                    moved = true;
                    continue;
                }
            }
            i += 1;
        }
        let main = main?;
        match broken {
            // A peer that has finished closes all of them.
            Some(cause) if !main && !conn.bye => Err(cause),
            _ => Ok(main | moved),
        }
    }

    fn receive_lane(&mut self, conn: &mut Conn, i: usize, all: bool) -> Result<bool, Cause> {
        let mut reads = 0;
        loop {
            let read = self.read_lane(conn, i)?;
            if matches!(read, Read::Nothing) {
                return Ok(reads > 0);
            }
            reads += 1;
            self.advance_lane(conn, i)?;
            if !all && (reads == READS || matches!(read, Read::Some)) {
                return Ok(true);
            }
        }
    }

    fn read_lane(&mut self, conn: &mut Conn, i: usize) -> Result<Read, Cause> {
        let bye = conn.bye;
        let Lane { link, head, head_len, incoming, .. } = &mut conn.lanes.up[i];
        let Some(incoming) = incoming else {
            let room = &mut head[*head_len..];
            let asked = room.len();
            let n = checked(link.recv(&mut [IoSliceMut::new(room)]), bye)?;
            *head_len += n;
            return Ok(read_of(n, asked));
        };
        let left = usize::try_from(incoming.len - incoming.got).unwrap_or(usize::MAX);
        let place = match incoming.target {
            Target::Op(op, base) => self.landing(op, base + incoming.got).map(|w| w.part(0, left)),
            Target::Message(_) | Target::Sink => None,
        };
        let (received, asked) = match place {
            Some(w) if w.len() == left => {
                // The next header comes along.
                let parts = &mut [IoSliceMut::new(w.bytes_mut()), IoSliceMut::new(head)];
                (link.recv(parts), left + 1)
            }
            Some(w) => (link.recv(&mut [IoSliceMut::new(w.bytes_mut())]), w.len()),
            None => {
                let n = left.min(self.staging.len());
                (link.recv(&mut [IoSliceMut::new(&mut self.staging[..n])]), n)
            }
        };
        let n = checked(received, bye)?;
        let landed = n.min(left);
        incoming.got += landed as u64;
        *head_len = n - landed;
        Ok(read_of(n, asked))
    }

    /// Works on what has been read: a whole header, a whole piece.
    fn advance_lane(&mut self, conn: &mut Conn, i: usize) -> Result<(), Cause> {
        loop {
            let lane = &mut conn.lanes.up[i];
            if lane.incoming.as_ref().is_some_and(|p| p.got < p.len) {
                return Ok(());
            }
            if let Some(piece) = lane.incoming.take() {
                lane.carried += piece.len;
                if let Target::Op(op, _) = piece.target {
                    self.piece_came(conn.peer, op, piece.len);
                }
            } else if lane.head_len == HEADER_LEN {
                lane.head_len = 0;
                let header = Header::decode(&lane.head).map_err(|e| Cause::from(e.to_string()))?;
                if header.kind != Kind::Data {
                    return Err("it carried more than pieces of messages".into());
                }
                let target = self.piece_target(conn, &header)?;
                conn.lanes.up[i].incoming = Some(Incoming { target, got: 0, len: header.length, cost: 0 });
            } else {
                return Ok(());
            }
        }
    }

    /// Where a piece goes.
    ///
    /// # Errors
    /// When it does not fit its message beside those that have come or are coming.
    pub(crate) fn piece_target(&self, conn: &Conn, h: &Header) -> Result<Target, Cause> {
        let op = OpId::from_raw(h.id);
        let Some((State::RecvData { got, total, eager: false }, peer)) =
            self.ops.get(op).map(|o| (&o.state, o.peer))
        else {
            // Given up here meanwhile.
            return Ok(Target::Sink);
        };
        let offset = h.offset();
        let left = total.saturating_sub(got.saturating_add(conn.under_way(op)));
        if peer != Some(conn.peer) || h.length > left || offset > *total || h.length > total - offset {
            return Err("a message piece does not fit its message".into());
        }
        Ok(Target::Op(op, offset))
    }

    /// Counts a piece, or a whole eager message, that has come.
    pub(crate) fn piece_came(&mut self, peer: u32, op: OpId, len: u64) {
        let Some(o) = self.ops.get_mut(op) else { return };
        let State::RecvData { got, total, .. } = &mut o.state else { return };
        *got += len;
        if got == total {
            let status = Status { peer, tag: o.tag, length: *total };
            self.complete(op, Ok(status));
        }
    }
}

/// Takes a connection that has failed out of use.
fn broke(conn: &mut Conn, i: usize, cause: &str) {
    let lane = conn.lanes.up.remove(i);
    let (number, carried) = (lane.number + 1, lane.carried);
    let at = lane.address.map(|a| format!(" at {a}")).unwrap_or_default();
    let what = format!("its connection {number}{at}, after {carried} bytes: {cause}");
    conn.lanes.broken.get_or_insert_with(|| what.into());
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn stripes_cover_the_message_and_give_every_connection_some(total in 1usize..64 << 20, streams in 2usize..17) {
            const MOST: usize = 1020 << 10;
            let (mut taken, mut pieces) = (0, 0);
            while taken < total {
                let len = stripe_len(total, taken, streams, MOST);
                prop_assert!(len > 0 && len <= MOST + MOST / 2, "{len}");
                taken += len;
                pieces += 1;
            }
            prop_assert_eq!(taken, total);
            prop_assert!(total < 2 * streams * STRIPE_MIN || pieces >= 2 * streams - 1, "{pieces}");
        }
    }

    #[test]
    fn connections_go_to_different_addresses_of_one_family() {
        let at = |text: &str| text.parse::<SocketAddr>().unwrap();
        let all = [at("10.0.0.1:5"), at("10.1.0.1:5"), at("10.2.0.1:5"), at("[2001:db8::1]:5")];
        let first = |from, n| rotated(&all, at(from), n)[0];
        assert_eq!(first("10.0.0.1:5", 1), all[1]);
        assert_eq!(first("10.1.0.1:5", 1), all[2]);
        assert_eq!(first("10.1.0.1:5", 2), all[0]);
        assert_eq!(first("10.1.0.1:5", 3), all[1]);
        assert_eq!(rotated(&all, all[0], 1).len(), 3);
        assert_eq!(rotated(&all, all[3], 1), [all[3]]);
        assert_eq!(rotated(&all[..1], at("[::1]:5"), 1), [at("[::1]:5")]);
    }
}
