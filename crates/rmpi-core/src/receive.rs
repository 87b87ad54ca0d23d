//! The receiving half of a link: header and payload in one system call where the next message can be guessed,
//! straight into the posted buffer; staged otherwise. Everything a peer says is checked before it is used.

use crate::conn::{AWAITED_MAX, Conn, GUESS_MAX, Incoming, STAGING, Target, WINDOW, cost};
use crate::core::Core;
use crate::error::Fault;
use crate::header::{HEADER_LEN, Header, Kind};
use crate::matching::{Age, Body, Envelope, Unexpected};
use crate::memory::RawBuf;
use crate::ops::{OpId, State, Status};
use crate::transmit::Cause;
use std::io::{ErrorKind, IoSliceMut};

/// Receive calls on one link in one round.
pub(crate) const READS: usize = 4;

pub(crate) enum Read {
    Nothing,
    /// Less than asked for: probably all there was.
    Some,
    /// As much as asked for.
    Full,
}

impl Core {
    /// Takes in what has arrived; whether anything had.
    pub(crate) fn receive(&mut self, conn: &mut Conn) -> Result<bool, Cause> {
        self.lend_staging(conn);
        let moved = self.receive_staged(conn);
        self.return_staging(conn);
        if conn.lanes.is_used() { self.receive_lanes(conn, moved) } else { moved }
    }

    /// All links share one staging buffer: between reads a link keeps at most a part of a header.
    fn lend_staging(&mut self, conn: &mut Conn) {
        let rx = &mut conn.rx;
        rx.staging = std::mem::take(&mut self.staging);
        rx.staging[..rx.part_len].copy_from_slice(&rx.part.0[..rx.part_len]);
        (rx.start, rx.end) = (0, rx.part_len);
    }

    fn return_staging(&mut self, conn: &mut Conn) {
        let rx = &mut conn.rx;
        // Longer only after an error, which ends the link.
        rx.part_len = (rx.end - rx.start).min(HEADER_LEN);
        rx.part.0[..rx.part_len].copy_from_slice(&rx.staging[rx.start..rx.start + rx.part_len]);
        self.staging = std::mem::take(&mut rx.staging);
    }

    fn receive_staged(&mut self, conn: &mut Conn) -> Result<bool, Cause> {
        let mut moved = false;
        let before = self.completions;
        for _ in 0..READS {
            let read = self.read_some(conn)?;
            if matches!(read, Read::Nothing) {
                conn.rx.streak = 0;
                break;
            }
            conn.rx.streak = conn.rx.streak.saturating_add(1);
            moved = true;
            self.consume(conn)?;
            // Who waited goes on first: what comes next is perhaps the message that it will wait for then.
            if matches!(read, Read::Some) || (self.completions != before && self.guess(conn).is_none()) {
                break;
            }
        }
        if moved && !conn.tx.queue.is_empty() {
            self.pump(conn)?;
        }
        Ok(moved)
    }

    fn read_some(&mut self, conn: &mut Conn) -> Result<Read, Cause> {
        if conn.rx.start == conn.rx.end {
            (conn.rx.start, conn.rx.end) = (0, 0);
            if let Some(incoming) = &conn.rx.incoming {
                let (target, got, left) = (incoming.target, incoming.got, incoming.len - incoming.got);
                return self.read_payload(conn, target, got, usize::try_from(left).unwrap_or(usize::MAX));
            }
            if let Some((op, offset, window)) = self.guess(conn) {
                return self.read_guessed(conn, op, offset, window);
            }
        } else if conn.rx.start > 0 {
            // A part of a header, or of a payload for nobody: move it to the front.
            conn.rx.staging.copy_within(conn.rx.start..conn.rx.end, 0);
            (conn.rx.start, conn.rx.end) = (0, conn.rx.end - conn.rx.start);
        }
        let end = conn.rx.end;
        let Conn { link: Some(link), rx, .. } = conn else { return Ok(Read::Nothing) };
        let room = rx.staging.len() - end;
        let n = checked(link.recv(&mut [IoSliceMut::new(&mut rx.staging[end..])]), conn.bye)?;
        rx.end += n;
        Ok(read_of(n, room))
    }

    /// The window of a receive in whose place bytes of its message may be read.
    pub(crate) fn landing(&self, op: OpId, offset: u64) -> Option<RawBuf> {
        let o = self.ops.get(op)?;
        let good = matches!(o.state, State::RecvData { .. })
            && !matches!(o.fault.as_deref(), Some(Fault::Mismatch { .. }));
        let offset = usize::try_from(offset).ok()?;
        good.then(|| o.buf.part(offset, usize::MAX)).filter(|w| w.len() > 0)
    }

    fn read_payload(
        &mut self,
        conn: &mut Conn,
        target: Target,
        got: u64,
        left: usize,
    ) -> Result<Read, Cause> {
        let more = self.guess(conn).is_some();
        let Conn { link: Some(link), rx, bye, .. } = conn else { return Ok(Read::Nothing) };
        let direct: Option<&mut [u8]> = match target {
            Target::Op(op, base) => self.landing(op, base + got).map(|w| w.part(0, left).bytes_mut()),
            Target::Message(age) => match self.matcher.get_mut(age).map(|m| &mut m.body) {
                Some(Body::Eager { bytes, .. }) => bytes.get_mut(usize::try_from(got).unwrap_or(0)..),
                _ => None,
            },
            Target::Sink => None,
        };
        let Some(direct) = direct else {
            let n = checked(link.recv(&mut [IoSliceMut::new(&mut rx.staging)]), *bye)?;
            rx.end = n;
            return Ok(read_of(n, STAGING));
        };
        let (room, direct_from) = (direct.len(), self.config.thresholds.direct_from);
        let n = if room < left {
            checked(link.recv(&mut [IoSliceMut::new(direct)]), *bye)?
        } else {
            // Behind a large message the next header only, so that what it announces is read in place, too; if it has a
            // place.
            let large = rx.incoming.as_ref().is_some_and(|i| i.len >= direct_from as u64);
            let behind = match (large, more) {
                (true, true) => HEADER_LEN,
                (true, false) => 0,
                _ => rx.staging.len(),
            };
            let staging = IoSliceMut::new(&mut rx.staging[..behind]);
            checked(link.recv(&mut [IoSliceMut::new(direct), staging]), *bye)?
        };
        let landed = n.min(room);
        rx.end = n - landed;
        if let Some(incoming) = &mut rx.incoming {
            incoming.got += landed as u64;
        }
        Ok(read_of(n, room))
    }

    /// The receive whose message probably comes next, where in it, and its window.
    pub(crate) fn guess(&self, conn: &mut Conn) -> Option<(OpId, u64, RawBuf)> {
        while let Some(&op) = conn.rx.guesses.front() {
            let offset = self.ops.get(op).and_then(|o| match o.state {
                State::RecvPosted if o.scribble => Some(0),
                State::RecvData { got, eager: false, .. } if conn.lanes.up.is_empty() => Some(got),
                _ => None,
            });
            let window = offset.and_then(|at| {
                let window = self.ops.get(op)?.buf.part(usize::try_from(at).ok()?, GUESS_MAX);
                (window.len() > 0).then_some((op, at, window))
            });
            if window.is_some() {
                return window;
            }
            conn.rx.guesses.pop_front();
        }
        None
    }

    fn read_guessed(
        &mut self,
        conn: &mut Conn,
        op: OpId,
        offset: u64,
        window: RawBuf,
    ) -> Result<Read, Cause> {
        let Conn { link: Some(link), rx, bye, .. } = conn else { return Ok(Read::Nothing) };
        let mut head = [0; HEADER_LEN];
        let (head_part, window_part) = (IoSliceMut::new(&mut head), IoSliceMut::new(window.bytes_mut()));
        let exact = HEADER_LEN + window.len();
        // Where messages come one by one, a place for what follows would be looked at in vain each time.
        let (received, asked) = if rx.streak > 1 && window.len() < self.config.thresholds.direct_from {
            let staging = IoSliceMut::new(&mut rx.staging[GUESS_MAX..]);
            (link.recv(&mut [head_part, window_part, staging]), exact + STAGING - GUESS_MAX)
        } else {
            // A message that fills its receive is rarely followed by another at once.
            (link.recv(&mut [head_part, window_part]), exact + 1)
        };
        let n = checked(received, *bye)?;
        if n == 0 {
            return Ok(Read::Nothing);
        }
        self.landed(conn, (op, offset, window), &head, n)?;
        Ok(read_of(n, asked))
    }

    /// Takes in `n` bytes of which the first are in `head`, the next in the window of `guess`, the rest in the
    /// second half of the staging buffer.
    fn landed(
        &mut self,
        conn: &mut Conn,
        guess: (OpId, u64, RawBuf),
        head: &[u8; HEADER_LEN],
        n: usize,
    ) -> Result<(), Cause> {
        let (op, offset, window) = guess;
        let rx = &mut conn.rx;
        if n < HEADER_LEN {
            rx.staging[..n].copy_from_slice(&head[..n]);
            rx.end = n;
            return Ok(());
        }
        let landed = (n - HEADER_LEN).min(window.len());
        let behind = n - HEADER_LEN - landed;
        let header = Header::decode(head).map_err(|e| Cause::from(e.to_string()))?;
        let carries = matches!(header.kind, Kind::Eager | Kind::Data);
        let stage = |conn: &mut Conn| {
            let rx = &mut conn.rx;
            rx.staging[GUESS_MAX - landed..GUESS_MAX].copy_from_slice(&window.bytes()[..landed]);
            (rx.start, rx.end) = (GUESS_MAX - landed, GUESS_MAX + behind);
        };
        if !carries || header.length < landed as u64 {
            // Bytes of a later message landed in the window: the wrong guess is undone before anything can
            // complete the receive and give its memory back.
            stage(conn);
            return self.on_header(conn, &header);
        }
        self.on_header(conn, &header)?;
        match &mut conn.rx.incoming {
            Some(incoming) if incoming.target == Target::Op(op, offset) => {
                incoming.got = landed as u64;
                (conn.rx.start, conn.rx.end) = (GUESS_MAX, GUESS_MAX + behind);
            }
            // The message was another's; this receive is still posted and its memory still lent.
            _ => stage(conn),
        }
        Ok(())
    }

    /// Goes on with a receive for which `n` bytes of `rank` have been read already, into `head` and its window.
    pub(crate) fn begin_with(
        &mut self,
        rank: u32,
        op: OpId,
        window: RawBuf,
        head: &[u8; HEADER_LEN],
        n: usize,
    ) {
        let Some(mut conn) = self.conns.get_mut(rank as usize).and_then(Option::take) else { return };
        self.lend_staging(&mut conn);
        let mut outcome = self.landed(&mut conn, (op, 0, window), head, n);
        if outcome.is_ok() {
            outcome = self.consume(&mut conn);
        }
        self.return_staging(&mut conn);
        if outcome.is_ok() {
            outcome = self.pump(&mut conn).map(drop);
        }
        self.conns[rank as usize] = Some(conn);
        if let Err(cause) = outcome {
            self.lose(rank, &cause);
        }
    }

    /// Counts an eager message of `rank` that was received without having waited.
    pub(crate) fn took(&mut self, rank: u32, price: u64) {
        let Some(conn) = self.conns[rank as usize].as_deref_mut() else { return };
        conn.rx.outstanding += price;
        give_back(conn, price);
        if !conn.tx.queue.is_empty() {
            self.service(rank);
        }
    }

    /// Works through the staged bytes and whatever payload is complete.
    fn consume(&mut self, conn: &mut Conn) -> Result<(), Cause> {
        loop {
            let staged = conn.rx.end - conn.rx.start;
            if let Some(incoming) = &mut conn.rx.incoming {
                let left = usize::try_from(incoming.len - incoming.got).unwrap_or(usize::MAX);
                let n = left.min(staged);
                let (target, got) = (incoming.target, incoming.got);
                incoming.got += n as u64;
                let start = conn.rx.start;
                conn.rx.start += n;
                self.deliver(target, got, &conn.rx.staging[start..start + n]);
                if n < left {
                    return Ok(());
                }
                self.finish_incoming(conn);
            } else if let Some(head) = conn.rx.staging[conn.rx.start..conn.rx.end].first_chunk::<HEADER_LEN>()
            {
                let header = Header::decode(head).map_err(|e| Cause::from(e.to_string()))?;
                conn.rx.start += HEADER_LEN;
                self.on_header(conn, &header)?;
            } else {
                return Ok(());
            }
        }
    }

    fn deliver(&mut self, target: Target, got: u64, bytes: &[u8]) {
        match target {
            Target::Op(op, base) => self.put(op, base + got, bytes),
            Target::Message(age) => {
                if let Some(Body::Eager { bytes: body, .. }) = self.matcher.get_mut(age).map(|m| &mut m.body)
                {
                    let at = usize::try_from(got).unwrap_or(usize::MAX);
                    if let Some(place) = body.get_mut(at..at + bytes.len()) {
                        place.copy_from_slice(bytes);
                    }
                }
            }
            Target::Sink => {}
        }
    }

    /// Copies into a receive's buffer; what does not fit, or is of the wrong kind, goes nowhere.
    pub(crate) fn put(&mut self, op: OpId, offset: u64, bytes: &[u8]) {
        if let Some(window) = self.landing(op, offset) {
            let n = bytes.len().min(window.len());
            window.part(0, n).bytes_mut().copy_from_slice(&bytes[..n]);
        }
    }

    /// Notes that a receive has found its message.
    pub(crate) fn matched(&mut self, op: OpId, e: Envelope) {
        let Some(o) = self.ops.get_mut(op) else { return };
        (o.peer, o.tag) = (Some(e.source), e.tag);
        o.state = State::RecvData { got: 0, total: e.length, eager: false };
        if o.check != e.check {
            let fault = Fault::Mismatch { rank: e.source, tag: e.tag, expected: o.check, got: e.check };
            o.fault = Some(Box::new(fault));
        } else if e.length > o.buf.len() as u64 && !o.orphan {
            let capacity = o.buf.len() as u64;
            let fault = Fault::Truncated { rank: e.source, tag: e.tag, sent: e.length, capacity };
            o.fault = Some(Box::new(fault));
        }
    }

    pub(crate) fn on_header(&mut self, conn: &mut Conn, h: &Header) -> Result<(), Cause> {
        let envelope = Envelope { source: conn.peer, tag: h.tag, check: h.check, length: h.length };
        match h.kind {
            Kind::Eager => return self.on_eager(conn, h, envelope),
            Kind::Rts => {
                in_sequence(conn, h)?;
                self.on_announced(conn, h, None)?;
            }
            Kind::Cts => self.on_cts(conn, OpId::from_raw(h.id), h.length)?,
            Kind::Data => {
                let target = self.piece_target(conn, h)?;
                self.begin(conn, target, h.length, 0);
            }
            Kind::Credit => conn.freed(h.length)?,
            Kind::Bye => conn.bye = true,
            Kind::Revoke => {
                let culprit = u32::try_from(h.id).unwrap_or(conn.peer);
                self.fail_context(h.context, h.tag, &Fault::Revoked { by: conn.peer, culprit });
            }
        }
        Ok(())
    }

    fn on_eager(&mut self, conn: &mut Conn, h: &Header, envelope: Envelope) -> Result<(), Cause> {
        in_sequence(conn, h)?;
        conn.freed(h.id)?;
        conn.rx.outstanding += cost(h.length.min(WINDOW));
        if h.length > AWAITED_MAX as u64 || conn.rx.outstanding > WINDOW {
            return Err("an eager message larger than its window".into());
        }
        let (target, price) = if let Some(op) = self.matcher.arrive(h.context, conn.peer, h.tag) {
            self.matched(op, envelope);
            if let Some(State::RecvData { eager, .. }) = self.ops.get_mut(op).map(|o| &mut o.state) {
                *eager = true;
            }
            (Target::Op(op, 0), cost(h.length))
        } else if self.revocation(h.context, Some(h.tag)).is_some() {
            (Target::Sink, cost(h.length))
        } else {
            let len = usize::try_from(h.length).unwrap_or(AWAITED_MAX);
            let body = Body::Eager { bytes: vec![0; len], got: 0, claimed: None };
            (Target::Message(self.matcher.store(Unexpected { context: h.context, envelope, body })), 0)
        };
        self.begin(conn, target, h.length, price);
        Ok(())
    }

    fn begin(&mut self, conn: &mut Conn, target: Target, len: u64, price: u64) {
        conn.rx.incoming = Some(Incoming { target, got: 0, len, cost: price });
        if len == 0 {
            self.finish_incoming(conn);
        }
    }

    fn on_cts(&mut self, conn: &mut Conn, op: OpId, peer_op: u64) -> Result<(), Cause> {
        // An unknown operation was given up here meanwhile.
        let Some(o) = self.ops.get_mut(op) else { return Ok(()) };
        match o.state {
            State::SendWaiting { .. } if o.peer == Some(conn.peer) => {
                self.withdraw_offer(op);
                if let Some(o) = self.ops.get_mut(op) {
                    o.state = State::SendStreaming { sent: 0, peer_op };
                }
                match conn.local.as_deref_mut() {
                    Some(local) => local.streams.push_back(op),
                    None => conn.tx.queue.push_back(crate::conn::Item::Pieces { op, piece: None, turn: 0 }),
                }
                Ok(())
            }
            State::Done => Ok(()),
            _ => Err("clearance for a message that was not announced".into()),
        }
    }

    pub(crate) fn finish_incoming(&mut self, conn: &mut Conn) {
        let Some(incoming) = conn.rx.incoming.take() else { return };
        give_back(conn, incoming.cost);
        match incoming.target {
            Target::Op(op, _) => self.piece_came(conn.peer, op, incoming.len),
            Target::Message(age) => {
                let Some(m) = self.matcher.get_mut(age) else { return };
                let Body::Eager { bytes, got, claimed } = &mut m.body else { return };
                *got = bytes.len();
                if let Some(op) = *claimed {
                    self.hand_over(op, age);
                    give_back(conn, cost(incoming.len));
                }
            }
            Target::Sink => {}
        }
    }

    /// Copies a complete unexpected message into a receive and ends both.
    fn hand_over(&mut self, op: OpId, age: Age) {
        let Some(Unexpected { envelope: e, body: Body::Eager { bytes, .. }, .. }) = self.matcher.forget(age)
        else {
            return;
        };
        self.matched(op, e);
        self.put(op, 0, &bytes);
        self.complete(op, Ok(Status { peer: e.source, tag: e.tag, length: e.length }));
    }

    /// Gives a fresh receive the unexpected message `age`.
    pub(crate) fn take_unexpected(&mut self, op: OpId, age: Age) {
        self.matcher.unfile(age);
        let me = self.config.rank;
        let Some(m) = self.matcher.get_mut(age) else { return };
        let e = m.envelope;
        match &mut m.body {
            Body::Eager { bytes, got, .. } if *got == bytes.len() => {
                self.hand_over(op, age);
                if e.source == me {
                    self.self_bytes -= cost(e.length);
                } else {
                    self.with_conn(e.source, |_, conn| give_back(conn, cost(e.length)));
                }
            }
            Body::Eager { claimed, .. } => {
                *claimed = Some(op);
                if let Some(o) = self.ops.get_mut(op) {
                    (o.peer, o.tag, o.state) = (Some(e.source), e.tag, State::RecvClaimed);
                }
            }
            Body::Rts { sender, offer } => {
                let (sender, offer) = (*sender, *offer);
                self.matcher.forget(age);
                self.matched(op, e);
                self.with_conn(e.source, |core, conn| {
                    conn.rx.unexpected_rts = conn.rx.unexpected_rts.saturating_sub(1);
                    core.accept(conn, op, sender, offer);
                });
            }
            Body::Local(send) => {
                let send = *send;
                self.matcher.forget(age);
                self.matched(op, e);
                let Some(buf) = self.ops.get(send).map(|o| o.buf) else { return };
                self.put(op, 0, buf.bytes());
                let status = Status { peer: me, tag: e.tag, length: e.length };
                self.complete(op, Ok(status));
                self.complete(send, Ok(status));
            }
        }
    }

    /// Does something with a live connection and sends what it queued.
    fn with_conn(&mut self, peer: u32, f: impl FnOnce(&mut Self, &mut Conn)) {
        let Some(mut conn) = self.conns[peer as usize].take() else { return };
        let mut outcome = Ok(false);
        if conn.dead.is_none() {
            f(self, &mut conn);
            outcome = self.pump(&mut conn);
        }
        self.conns[peer as usize] = Some(conn);
        if let Err(cause) = outcome {
            self.lose(peer, &cause);
        }
    }
}

pub(crate) fn read_of(n: usize, asked: usize) -> Read {
    match n {
        0 => Read::Nothing,
        n if n < asked => Read::Some,
        _ => Read::Full,
    }
}

/// 0 for nothing there; the end of the stream is an error.
pub(crate) fn checked(result: std::io::Result<usize>, bye: bool) -> Result<usize, Cause> {
    match result {
        Ok(0) if bye => Err("it has finished".into()),
        Ok(0) => Err("it closed the connection without finishing".into()),
        Ok(n) => Ok(n),
        Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(0),
        Err(_) if bye => Err("it has finished".into()),
        Err(e) => Err(format!("receiving failed: {e}").into()),
    }
}

fn in_sequence(conn: &mut Conn, h: &Header) -> Result<(), Cause> {
    if h.sequence != conn.rx.sequence {
        return Err(format!("message {} came instead of {}", h.sequence, conn.rx.sequence).into());
    }
    conn.rx.sequence = conn.rx.sequence.wrapping_add(1);
    Ok(())
}

/// Frees eager window of the peer; it is told when half of it has come together.
pub(crate) fn give_back(conn: &mut Conn, bytes: u64) {
    conn.rx.outstanding -= bytes;
    conn.rx.owed += bytes;
    if conn.rx.owed >= WINDOW / 2 {
        if let Some(local) = conn.local.as_deref_mut() {
            local.returned += std::mem::take(&mut conn.rx.owed);
            local.peer.free_window(local.returned);
            return;
        }
        conn.control(&Header { length: conn.rx.owed, ..Header::bare(Kind::Credit) });
        conn.rx.owed = 0;
    }
}
