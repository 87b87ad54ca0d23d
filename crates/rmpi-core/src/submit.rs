//! Submitting, testing, cancelling and releasing operations.

use crate::conn::{FRAMES_MAX, Item, WINDOW, cost};
use crate::core::{Core, Task};
use crate::error::Fault;
use crate::header::{HEADER_LEN, Header, Kind};
use crate::matching::{Body, Envelope, Unexpected};
use crate::memory::{Memory, RawBuf, window};
use crate::ops::{Finished, Op, OpId, State, Status};
use std::sync::Arc;

/// Messages up to here are gathered while a burst is going out.
const GATHER_MAX: usize = 16 << 10;

/// Where a message goes.
#[derive(Clone, Copy, Debug)]
pub struct SendSpec {
    /// The receiver, a rank of the world.
    pub to: u32,
    /// Communication context.
    pub context: u32,
    /// Tag.
    pub tag: i32,
    /// Check word.
    pub check: u16,
    /// Whether the receiver waits for the message, or will in a moment: then a longer one goes without asking.
    pub awaited: bool,
}

/// Which sources a receive takes.
#[derive(Clone, Debug)]
pub enum From {
    /// This rank of the world.
    Rank(u32),
    /// Any of these ranks of the world.
    Any(Arc<[u32]>),
}

/// Which messages a receive takes.
#[derive(Clone, Debug)]
pub struct RecvSpec {
    /// From whom.
    pub from: From,
    /// Communication context.
    pub context: u32,
    /// Tag; `None` takes any.
    pub tag: Option<i32>,
    /// Check word that the message must carry.
    pub check: u16,
    /// Whether bytes of the buffer beyond the message may be changed, which saves a system call.
    pub scribble: bool,
}

impl RecvSpec {
    fn source(&self) -> Option<u32> {
        match self.from {
            From::Rank(r) => Some(r),
            From::Any(_) => None,
        }
    }

    fn group(&self) -> Option<&Arc<[u32]>> {
        match &self.from {
            From::Rank(_) => None,
            From::Any(g) => Some(g),
        }
    }
}

impl Core {
    /// Sends owned memory; [`Core::take`] gives it back.
    pub fn send_owned(&mut self, spec: SendSpec, mut memory: Box<dyn Memory>) -> OpId {
        let buf = window(&mut memory);
        self.submit_send(spec, buf, Some(memory))
    }

    /// Receives into owned memory; [`Core::take`] gives it back.
    pub fn recv_owned(&mut self, spec: &RecvSpec, mut memory: Box<dyn Memory>) -> OpId {
        let buf = window(&mut memory);
        self.submit_recv(spec, buf, Some(memory))
    }

    /// Starts a task; its id is waited for like any other.
    pub fn spawn(&mut self, task: Box<dyn Task>) -> OpId {
        let mut op = Self::blank(State::Running, 0, 0, 0, RawBuf::EMPTY);
        op.peer = Some(self.config.rank);
        let id = self.ops.insert(op);
        self.tasks.push((id, Some(task)));
        self.completions += 1;
        id
    }

    #[inline]
    fn blank(state: State, context: u32, tag: i32, check: u16, buf: RawBuf) -> Op {
        Op {
            state,
            peer: None,
            group: None,
            context,
            tag,
            check,
            buf,
            keep: None,
            hold: None,
            length: 0,
            fault: None,
            scribble: false,
            orphan: false,
        }
    }

    pub(crate) fn submit_send(&mut self, s: SendSpec, buf: RawBuf, keep: Option<Box<dyn Memory>>) -> OpId {
        let mut op = Self::blank(State::SendQueued, s.context, s.tag, s.check, buf);
        (op.peer, op.keep) = (Some(s.to), keep);
        let id = self.ops.insert(op);
        let status = Status { peer: s.to, tag: s.tag, length: buf.len() as u64 };
        if s.to >= self.config.size {
            self.complete(id, Err(Fault::NoSuchRank { rank: s.to, size: self.config.size }));
        } else if let Some(fault) = self.revocation(s.context, Some(s.tag)) {
            self.complete(id, Err(fault));
        } else if s.to == self.config.rank {
            self.send_to_self(id, s, buf);
        } else {
            self.send_to_peer(id, s, buf, status);
        }
        id
    }

    fn send_to_peer(&mut self, id: OpId, s: SendSpec, buf: RawBuf, status: Status) {
        self.ensure(s.to);
        let Some(mut conn) = self.conns[s.to as usize].take() else { return };
        if let Some(fault) = conn.dead.clone() {
            self.conns[s.to as usize] = Some(conn);
            self.complete(id, Err(fault));
            return;
        }
        if conn.local.is_some() {
            let outcome = self.local_send(&mut conn, id, s, buf);
            self.conns[s.to as usize] = Some(conn);
            if let Err(cause) = outcome {
                self.lose(s.to, &cause);
            }
            return;
        }
        let (len, sequence) = (buf.len(), conn.next_sequence());
        let mut header = Header {
            kind: Kind::Eager,
            check: s.check,
            context: s.context,
            tag: s.tag,
            sequence,
            length: len as u64,
            id: 0,
        };
        let price = cost(len as u64);
        let mut outcome = Ok(false);
        if len > conn.unasked_max(self.config.thresholds.eager, s.awaited) || conn.credit < price {
            (header.kind, header.id) = (Kind::Rts, id.raw());
            if let Some(op) = self.ops.get_mut(id) {
                op.state = State::SendWaiting { offer: None };
            }
            conn.control(&header);
            // The first announcement goes at once; those after it, and their answers, travel together.
            if !std::mem::replace(&mut conn.tx.burst, true) {
                outcome = self.pump(&mut conn);
            }
        } else {
            conn.credit -= price;
            header.id = std::mem::take(&mut conn.rx.owed);
            let idle = conn.tx.queue.is_empty() && conn.link.is_some();
            if idle && !conn.tx.burst {
                outcome = self.send_now(&mut conn, id, &header.encode(), buf, status);
                conn.tx.burst = len <= GATHER_MAX;
            } else if len <= GATHER_MAX {
                let (bytes, ops) = conn.frames(HEADER_LEN + len);
                bytes.extend_from_slice(&header.encode());
                bytes.extend_from_slice(buf.bytes());
                ops.push(id);
                if bytes.len() + GATHER_MAX > FRAMES_MAX {
                    outcome = self.pump(&mut conn);
                }
            } else {
                conn.tx.queue.push_back(Item::Eager { header: header.encode(), op: id, at: 0 });
                outcome = self.pump(&mut conn);
            }
        }
        self.conns[s.to as usize] = Some(conn);
        if let Err(cause) = outcome {
            self.lose(s.to, &cause);
        }
    }

    fn send_to_self(&mut self, id: OpId, s: SendSpec, buf: RawBuf) {
        let (me, len) = (self.config.rank, buf.len() as u64);
        let status = Status { peer: me, tag: s.tag, length: len };
        if let Some(recv) = self.matcher.arrive(s.context, me, s.tag) {
            self.matched(recv, Envelope { source: me, tag: s.tag, check: s.check, length: len });
            self.put(recv, 0, buf.bytes());
            self.complete(recv, Ok(status));
            self.complete(id, Ok(status));
            return;
        }
        let copied = buf.len() <= self.config.thresholds.eager && self.self_bytes + cost(len) <= WINDOW;
        let body = if copied {
            self.self_bytes += cost(len);
            Body::Eager { bytes: buf.bytes().to_vec(), got: buf.len(), claimed: None }
        } else {
            Body::Local(id)
        };
        let envelope = Envelope { source: me, tag: s.tag, check: s.check, length: len };
        self.matcher.store(Unexpected { context: s.context, envelope, body });
        if copied {
            self.complete(id, Ok(status));
        }
    }

    pub(crate) fn submit_recv(&mut self, s: &RecvSpec, buf: RawBuf, keep: Option<Box<dyn Memory>>) -> OpId {
        let source = s.source();
        let mut op = Self::blank(State::RecvPosted, s.context, s.tag.unwrap_or(0), s.check, buf);
        (op.peer, op.keep, op.scribble, op.group) = (source, keep, s.scribble, s.group().cloned());
        let id = self.ops.insert(op);
        if let Some(rank) = source.filter(|&r| r >= self.config.size) {
            self.complete(id, Err(Fault::NoSuchRank { rank, size: self.config.size }));
            return id;
        }
        if let Some(fault) = self.revocation(s.context, s.tag) {
            self.complete(id, Err(fault));
            return id;
        }
        if let Some(age) = self.matcher.find(s.context, source, s.group(), s.tag) {
            self.take_unexpected(id, age);
            return id;
        }
        if let Some(fault) = self.hopeless(source, s.group()) {
            self.complete(id, Err(fault));
            return id;
        }
        self.matcher.post(id, s.context, source, s.group().cloned(), s.tag);
        if let Some(conn) = source.and_then(|r| self.conns[r as usize].as_mut())
            && s.scribble
            && conn.local.is_none()
        {
            conn.expect(id);
        }
        id
    }

    /// Starts `count` receives alike.
    pub(crate) fn submit_recvs(&mut self, s: &RecvSpec, buf: RawBuf, count: usize) -> Vec<OpId> {
        let local =
            |r: u32| self.conns.get(r as usize).and_then(|c| c.as_deref()?.local.as_deref()).is_some();
        let plain = s.source().is_some_and(local)
            && self.revoked.is_empty()
            && self.hopeless(s.source(), None).is_none()
            && self.matcher.find(s.context, s.source(), None, s.tag).is_none();
        if !plain {
            return (0..count).map(|_| self.submit_recv(s, buf, None)).collect();
        }
        let ops: Vec<OpId> = (0..count)
            .map(|_| {
                let mut op = Self::blank(State::RecvPosted, s.context, s.tag.unwrap_or(0), s.check, buf);
                (op.peer, op.scribble) = (s.source(), s.scribble);
                self.ops.insert(op)
            })
            .collect();
        self.matcher.post_all(&ops, s.context, s.source().unwrap_or(u32::MAX), s.tag);
        ops
    }

    /// The operation of a receive whose eager message has begun to come.
    pub(crate) fn begun_recv(&mut self, s: &RecvSpec, buf: RawBuf, status: Status) -> OpId {
        let state = State::RecvData { got: 0, total: status.length, eager: true };
        let mut op = Self::blank(state, s.context, status.tag, s.check, buf);
        (op.peer, op.scribble) = (Some(status.peer), s.scribble);
        self.ops.insert(op)
    }

    /// Why nothing can ever match such a receive: its source, or all of its group, are lost.
    fn hopeless(&self, source: Option<u32>, group: Option<&Arc<[u32]>>) -> Option<Fault> {
        let dead = |r: u32| self.conns.get(r as usize)?.as_ref()?.dead.clone();
        match (source, group) {
            (Some(r), _) => dead(r),
            (None, Some(g)) => {
                let mut faults = g.iter().map(|&r| dead(r));
                let first = faults.next()??;
                faults.all(|f| f.is_some()).then_some(first)
            }
            (None, None) => None,
        }
    }

    /// The first message such a receive would take.
    #[must_use]
    pub fn probe(&self, s: &RecvSpec) -> Option<Envelope> {
        let age = self.matcher.find(s.context, s.source(), s.group(), s.tag)?;
        self.matcher.get(age).map(|m| m.envelope)
    }

    /// Why a probe of this kind can never succeed, if so.
    #[must_use]
    pub fn probe_fault(&self, s: &RecvSpec) -> Option<Fault> {
        self.revocation(s.context, s.tag).or_else(|| self.hopeless(s.source(), s.group()))
    }

    /// Whether the operation is over (also when it is unknown).
    #[must_use]
    pub fn is_done(&self, id: OpId) -> bool {
        self.ops.get(id).is_none_or(|o| matches!(o.state, State::Done))
    }

    /// Takes the result of an operation that is over, and its memory; `None` while it runs.
    pub fn take(&mut self, id: OpId) -> Option<Finished> {
        self.ops.finish(id)
    }

    /// Takes a finished task out.
    pub fn take_task(&mut self, id: OpId) -> Option<Box<dyn Task>> {
        self.finished_tasks.remove(&id)
    }

    /// Cancels a receive that nothing has matched; whether it was.
    pub fn cancel(&mut self, id: OpId) -> bool {
        let Some(op) = self.ops.get(id) else { return false };
        if !matches!(op.state, State::RecvPosted) {
            return false;
        }
        let (context, source) = (op.context, op.peer);
        let was = self.matcher.withdraw(id, context, source);
        if was {
            self.complete(id, Err(Fault::Cancelled));
        }
        was
    }

    /// Ends the engine's use of the operation's memory at once and forgets it: a receive is cancelled or goes
    /// nowhere, a send goes on from a copy.
    pub fn release(&mut self, id: OpId) {
        if self.ops.get(id).is_none() {
            return;
        }
        if self.cancel(id) || self.is_done(id) {
            self.ops.remove(id);
            return;
        }
        self.withdraw_offer(id);
        let Some(op) = self.ops.get_mut(id) else { return };
        op.orphan = true;
        if op.keep.is_some() {
            return;
        }
        match op.state {
            State::SendQueued | State::SendWaiting { .. } | State::SendStreaming { .. } => {
                let mut copy: Box<dyn Memory> = Box::new(op.buf.bytes().to_vec());
                op.buf = window(&mut copy);
                op.keep = Some(copy);
            }
            State::RecvPosted
            | State::RecvClaimed
            | State::RecvData { .. }
            | State::Running
            | State::Done => {
                op.buf = RawBuf::EMPTY;
            }
        }
    }
}
