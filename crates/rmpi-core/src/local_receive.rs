//! Receiving from ranks of the same node: slots are read in order, payloads copied out of the segment straight
//! into the posted buffer, or into memory of an unexpected message. Everything a peer wrote is checked first.

use crate::conn::{Conn, Incoming, Target, WINDOW, cost};
use crate::core::Core;
use crate::header::{Header, Kind};
use crate::local::{FETCHED, Local, MORE, impossible};
use crate::matching::{Body, Envelope, Unexpected};
use crate::memory::RawBuf;
use crate::ops::{OpId, State, Status};
use crate::submit::{From, RecvSpec};
use crate::transmit::Cause;
use rmpi_shm::{Message, Peer, Place};

/// Slots taken in one round from one peer.
const TAKES: usize = 64;

/// What a look for a message that a blocking receive waits for gives.
pub(crate) enum Quick {
    /// It was there and is received.
    Done(Status),
    /// Nothing is there.
    Nothing,
    /// It has begun to come: the operation that was made of the receive.
    Begun(OpId),
    /// Something else is: the long way is needed.
    Other,
}

impl Core {
    /// Takes in what a peer of the node has sent; whether anything was there.
    pub(crate) fn local_receive(&mut self, conn: &mut Conn) -> Result<bool, Cause> {
        let mut moved = false;
        for _ in 0..TAKES {
            if self.take_small(conn) {
                moved = true;
                continue;
            }
            let Some(message) = conn.local.as_deref().and_then(|l| l.peer.peek()) else { break };
            moved = true;
            let outcome = message.map_err(impossible).and_then(|m| self.on_message(conn, &m));
            if let Some(local) = conn.local.as_deref_mut() {
                local.heard = true;
                let _ = local.peer.advance();
            }
            outcome?;
        }
        if moved {
            self.local_tell(conn);
            self.local_pump(conn)?;
        }
        Ok(moved)
    }

    /// The short way for a message in one slot whose receive is posted: whether there was one, and it is received.
    /// Anything else, and anything wrong, is left for the long way.
    #[inline]
    fn take_small(&mut self, conn: &mut Conn) -> bool {
        let Conn { local: Some(local), rx, peer, .. } = conn else { return false };
        let Some((label, len)) = local.peer.peek_inline() else { return false };
        let price = cost(len as u64);
        let plain = label.kind == Kind::Eager.code() && rx.incoming.is_none();
        if !plain || rx.outstanding + price > WINDOW || rx.owed + price >= WINDOW / 2 {
            return false;
        }
        let (ops, source) = (&mut self.ops, *peer);
        let takes = |op: OpId| {
            ops.get_mut(op).filter(|o| o.check == label.check && len <= o.buf.len() && !o.orphan).is_some_and(
                |o| {
                    local.peer.read_inline(&mut o.buf.bytes_mut()[..len]);
                    o.end(Ok(Status { peer: source, tag: label.tag, length: len as u64 }));
                    true
                },
            )
        };
        if !self.matcher.arrive_if(label.context, source, label.tag, takes) {
            return false;
        }
        rx.owed += price;
        self.ops.ended();
        self.completions += 1;
        local.heard = true;
        let _ = local.peer.advance();
        true
    }

    /// Tells the sender what has been taken, and wakes it if it waits for that.
    pub(crate) fn local_tell(&mut self, conn: &mut Conn) {
        let (Some(local), Some(rail)) = (conn.local.as_deref_mut(), self.rail.as_mut()) else { return };
        // It may have been told on the way already, so whether this is news says nothing.
        let _ = local.peer.tell();
        rail.bells.fence();
        if local.peer.is_wanted() {
            rail.bells.ring(local.peer.local());
        }
    }

    fn on_message(&mut self, conn: &mut Conn, m: &Message) -> Result<(), Cause> {
        match m.label.kind {
            MORE => return self.on_more(conn, m),
            FETCHED => return self.on_fetched(conn, OpId::from_raw(m.id)),
            _ => {}
        }
        let kind = Kind::from_code(m.label.kind).ok_or("a message of no known kind")?;
        let whole = kind != Kind::Data;
        if whole && conn.rx.incoming.is_some() {
            return Err("a message inside another".into());
        }
        match kind {
            Kind::Eager => self.on_local_eager(conn, m),
            Kind::Data => self.on_piece(conn, m),
            Kind::Credit => Err("window returned where none is counted in messages".into()),
            Kind::Bye => {
                conn.bye = true;
                Err("it has finished".into())
            }
            Kind::Rts => {
                let rmpi_shm::Label { check, context, tag, .. } = m.label;
                let header = Header { kind, check, context, tag, sequence: 0, length: m.length, id: m.id };
                self.on_announced(conn, &header, m.offer)
            }
            Kind::Cts | Kind::Revoke => {
                let sequence = conn.rx.sequence;
                let rmpi_shm::Label { check, context, tag, .. } = m.label;
                let header = Header { kind, check, context, tag, sequence, length: m.length, id: m.id };
                self.on_header(conn, &header)
            }
        }
    }

    fn on_local_eager(&mut self, conn: &mut Conn, m: &Message) -> Result<(), Cause> {
        let rmpi_shm::Label { check, context, tag, .. } = m.label;
        let envelope = Envelope { source: conn.peer, tag, check, length: m.length };
        let price = cost(m.length.min(WINDOW));
        conn.rx.outstanding += price;
        if conn.rx.outstanding > WINDOW {
            return Err("an eager message larger than its window".into());
        }
        let target = if let Some(op) = self.matcher.arrive(context, conn.peer, tag) {
            if self.receive_whole(conn, op, envelope, m) {
                return Ok(());
            }
            self.matched(op, envelope);
            if let Some(State::RecvData { eager, .. }) = self.ops.get_mut(op).map(|o| &mut o.state) {
                *eager = true;
            }
            Target::Op(op, 0)
        } else if self.revocation(context, Some(tag)).is_some() {
            Target::Sink
        } else {
            let bytes = vec![0; usize::try_from(m.length).unwrap_or(0)];
            let body = Body::Eager { bytes, got: 0, claimed: None };
            Target::Message(self.matcher.store(Unexpected { context, envelope, body }))
        };
        let price = if matches!(target, Target::Message(_)) { 0 } else { price };
        conn.rx.incoming = Some(Incoming { target, got: 0, len: m.length, cost: price });
        self.take_in(conn, m)
    }

    /// Ends a receive with a message that is here as a whole and what it wants; else nothing is done.
    #[inline]
    fn receive_whole(&mut self, conn: &mut Conn, op: OpId, e: Envelope, m: &Message) -> bool {
        let Some(o) = self.ops.get_mut(op) else { return false };
        if bytes_of(m) != e.length || o.check != e.check || e.length > o.buf.len() as u64 || o.orphan {
            return false;
        }
        let Some(local) = conn.local.as_deref_mut() else { return false };
        local.peer.read(m.place, o.buf.bytes_mut());
        o.end(Ok(Status { peer: e.source, tag: e.tag, length: e.length }));
        self.ops.ended();
        self.completions += 1;
        crate::receive::give_back(conn, cost(e.length));
        true
    }

    fn on_more(&mut self, conn: &mut Conn, m: &Message) -> Result<(), Cause> {
        match &conn.rx.incoming {
            Some(i) if i.len == m.length => self.take_in(conn, m),
            _ => Err("a piece of a message that was not begun".into()),
        }
    }

    /// Copies a part of the incoming message to its place.
    fn take_in(&mut self, conn: &mut Conn, m: &Message) -> Result<(), Cause> {
        let Conn { local: Some(local), rx, .. } = conn else { return Ok(()) };
        let Some(incoming) = &mut rx.incoming else { return Ok(()) };
        let (target, got) = (incoming.target, incoming.got);
        let n = bytes_of(m);
        if n > incoming.len - got || (n == 0 && incoming.len > 0) {
            return Err("a message piece does not fit its message".into());
        }
        incoming.got += n;
        let done = incoming.got == incoming.len;
        self.fetch(local, target, got, m);
        if done {
            self.finish_incoming(conn);
        }
        Ok(())
    }

    /// A piece of a cleared message.
    fn on_piece(&mut self, conn: &mut Conn, m: &Message) -> Result<(), Cause> {
        let (op, n) = (OpId::from_raw(m.id), bytes_of(m));
        let Some((State::RecvData { got, total, eager: false }, peer)) =
            self.ops.get(op).map(|o| (&o.state, o.peer))
        else {
            // Given up here meanwhile.
            return Ok(());
        };
        let (got, total) = (*got, *total);
        if peer != Some(conn.peer) || n > total - got || n == 0 {
            return Err("a message piece does not fit its message".into());
        }
        if let Some(local) = conn.local.as_deref_mut() {
            local.met(m);
            self.fetch(local, Target::Op(op, got), 0, m);
            if got + n == total {
                local.came(op, total);
            }
        }
        let Some(o) = self.ops.get_mut(op) else { return Ok(()) };
        o.state = State::RecvData { got: got + n, total, eager: false };
        if got + n == total {
            let status = Status { peer: conn.peer, tag: o.tag, length: total };
            self.complete(op, Ok(status));
        }
        Ok(())
    }

    /// Copies the payload of `m` to `got` in its target.
    fn fetch(&mut self, local: &mut Local, target: Target, got: u64, m: &Message) {
        let into: Option<&mut [u8]> = match target {
            Target::Op(op, base) => self.landing(op, base + got).map(RawBuf::bytes_mut),
            Target::Message(age) => match self.matcher.get_mut(age).map(|u| &mut u.body) {
                Some(Body::Eager { bytes, .. }) => {
                    bytes.get_mut(usize::try_from(got).unwrap_or(usize::MAX)..)
                }
                _ => None,
            },
            Target::Sink => None,
        };
        let Some(into) = into else { return };
        local.peer.read(m.place, into);
    }

    /// Whether something has come from a peer of the node.
    #[inline]
    pub(crate) fn is_ready(&self, rank: u32) -> bool {
        let conn = self.conns.get(rank as usize).and_then(Option::as_deref);
        conn.and_then(|c| c.local.as_deref()).is_some_and(|l| l.peer.ready())
    }

    /// Looks whether the next message of `rank` is the one that a blocking receive waits for, and receives it
    /// without an operation. Only while nothing is posted and nothing unexpected is there.
    #[inline]
    pub(crate) fn recv_at_once(&mut self, s: &RecvSpec, rank: u32, into: RawBuf) -> Quick {
        if !self.matcher.is_empty() || !self.revoked.is_empty() {
            return Quick::Other;
        }
        let Some(conn) = self.conns.get_mut(rank as usize).and_then(Option::as_deref_mut) else {
            return Quick::Other;
        };
        let Conn { local: Some(local), rx, peer, .. } = conn else { return Quick::Other };
        let Some(message) = local.peer.peek() else { return Quick::Nothing };
        let Ok(m) = message else { return Quick::Other };
        let fits = m.label.kind == Kind::Eager.code()
            && m.label.context == s.context
            && s.tag.is_none_or(|t| t == m.label.tag)
            && m.label.check == s.check
            && m.length <= into.len() as u64
            && m.length <= Peer::QUICK as u64
            && rx.incoming.is_none();
        if !fits {
            return Quick::Other;
        }
        let status = Status { peer: *peer, tag: m.label.tag, length: m.length };
        let mut got = bytes_of(&m);
        if got > m.length {
            return Quick::Other;
        }
        local.peer.read(m.place, into.bytes_mut());
        let mut told = local.peer.advance();
        local.heard = true;
        while got < m.length {
            // The next pieces come while the sender copies.
            match next_piece(local, m.length, got, into) {
                Some(n) => {
                    got += n;
                    told |= local.peer.advance();
                }
                None => return Quick::Begun(self.go_on(s, rank, into, status, got)),
            }
        }
        rx.outstanding += cost(m.length);
        crate::receive::give_back(conn, cost(m.length));
        if told {
            self.wake_waiting(rank);
        }
        Quick::Done(status)
    }

    /// Makes an operation of a message of which `got` bytes are received.
    #[cold]
    fn go_on(&mut self, s: &RecvSpec, rank: u32, into: RawBuf, status: Status, got: u64) -> OpId {
        let op = self.begun_recv(s, into, status);
        if let Some(conn) = self.conns[rank as usize].as_deref_mut() {
            let price = cost(status.length);
            conn.rx.outstanding += price;
            let (target, len) = (Target::Op(op, 0), status.length);
            conn.rx.incoming = Some(Incoming { target, got, len, cost: price });
        }
        op
    }

    /// Wakes a peer of the node that waits for room, after it was told of some.
    #[cold]
    fn wake_waiting(&mut self, rank: u32) {
        let local = self.conns[rank as usize].as_deref_mut().and_then(|c| c.local.as_deref_mut());
        if let (Some(local), Some(rail)) = (local, self.rail.as_mut()) {
            rail.bells.fence();
            if local.peer.is_wanted() {
                rail.bells.ring(local.peer.local());
            }
        }
    }

    /// Tells a peer of the node how far this rank has come, when it is going to wait for it.
    #[inline]
    pub(crate) fn tell_before_waiting(&mut self, rank: u32) {
        let local = self.conns.get_mut(rank as usize).and_then(|c| c.as_deref_mut()?.local.as_deref_mut());
        if local.is_some_and(|l| l.peer.tell()) {
            self.wake_waiting(rank);
        }
    }
}

/// Looks at the slot before a piece of a message is waited for in another way.
const PIECE_LOOKS: u32 = 200;

/// Copies the next piece of a message of `length` bytes to `got` in `into`; its bytes, `None` when it is something
/// else or does not come soon.
fn next_piece(local: &Local, length: u64, got: u64, into: RawBuf) -> Option<u64> {
    let mut looks = PIECE_LOOKS;
    while !local.peer.ready() {
        looks = looks.checked_sub(1)?;
        std::hint::spin_loop();
    }
    // What is wrong is found wrong again on the long way.
    let m = local.peer.peek()?.ok()?;
    let n = bytes_of(&m);
    let fits = m.label.kind == MORE && m.length == length && n > 0 && n <= length - got;
    let window = into.part(usize::try_from(got).ok()?, usize::try_from(n).ok()?);
    fits.then(|| local.peer.read(m.place, window.bytes_mut()))?;
    Some(n)
}

/// The rank that a receive waits for, if it is one.
pub(crate) fn one_source(s: &RecvSpec) -> Option<u32> {
    match s.from {
        From::Rank(r) => Some(r),
        From::Any(_) => None,
    }
}

fn bytes_of(m: &Message) -> u64 {
    match m.place {
        Place::None => 0,
        Place::Inline(n) | Place::Lane(_, n) | Place::Pool(_, n) => n as u64,
    }
}
