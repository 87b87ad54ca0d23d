//! One link between neighbours: sequence numbers, heartbeats, up / suspect / lost, and resuming.
//!
//! Every frame but link-local ones carries a number, from 1, without gaps. On a dialled link frames are kept
//! until the other side has confirmed them, so that a replaced stream goes on where the old one broke; the
//! credits of the machines bound what can be unconfirmed. A link decides nothing: its machine asks whether the
//! other end has been silent too long, and acts.

use crate::time::Time;
use bytes::Bytes;
use rmpi_wire::frame::Kind;
use rmpi_wire::{Dest, Frame, LinkMsg, Message, Origin};
use std::collections::VecDeque;
use std::time::Duration;

/// A link of one machine, as its driver numbers them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LinkId(pub u32);

/// What carries a link, and so what its end of file means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkKind {
    /// A pipe, socket pair, agent or SSH channel: end of file is loss.
    Pipe,
    /// A stream that the daemon dialled: end of file is only suspect, it dials again and both sides resume.
    Dialled,
}

/// Bytes received on a dialled link after which they are confirmed without waiting for the heartbeat.
const CONFIRM_AFTER: usize = 1 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Frames flow.
    Up,
    /// The stream broke; frames wait.
    Suspect,
    /// A new stream is there; frames wait for the other side's `Resume`.
    Resuming,
}

/// What a received frame is to the machine.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Incoming {
    /// A numbered frame, to be looked at.
    Numbered,
    /// A link-local message for the machine.
    Local(LinkMsg),
    /// Done with.
    Handled,
}

/// One end of a link.
#[derive(Debug)]
pub(crate) struct Link {
    kind: LinkKind,
    origin: Origin,
    state: State,
    /// The last number given, and the highest that was put on a stream.
    sent: u64,
    transmitted: u64,
    received: u64,
    kept: VecDeque<Frame>,
    unconfirmed: usize,
    heard: Time,
}

impl Link {
    pub(crate) fn new(kind: LinkKind, origin: Origin, now: Time) -> Self {
        Self {
            kind,
            origin,
            state: State::Up,
            sent: 0,
            transmitted: 0,
            received: 0,
            kept: VecDeque::new(),
            unconfirmed: 0,
            heard: now,
        }
    }

    /// Numbers a frame. `None` when it must wait for a resumed stream.
    pub(crate) fn send(&mut self, mut frame: Frame) -> Option<Frame> {
        self.sent += 1;
        frame.seq = self.sent;
        if self.kind == LinkKind::Dialled {
            self.kept.push_back(frame.clone());
            if self.state != State::Up {
                return None;
            }
        }
        self.transmitted = self.sent;
        Some(frame)
    }

    /// A link-local frame.
    pub(crate) fn local(&self, msg: LinkMsg) -> Frame {
        local(self.origin, msg)
    }

    /// Takes a frame; `out` gets the frames to send in answer.
    ///
    /// # Errors
    /// A text saying how the other side broke the protocol.
    pub(crate) fn receive(
        &mut self,
        now: Time,
        frame: &Frame,
        out: &mut Vec<Frame>,
    ) -> Result<Incoming, String> {
        self.heard = now;
        if frame.kind == Kind::Link {
            let Message::Link(msg) = Message::of(frame).map_err(|e| e.to_string())? else {
                return Err("link frame without a link message".into());
            };
            return self.receive_local(msg, out);
        }
        if frame.seq <= self.received && self.kind == LinkKind::Dialled {
            return Ok(Incoming::Handled);
        }
        if frame.seq != self.received + 1 {
            return Err(format!("frame {} where {} was due", frame.seq, self.received + 1));
        }
        self.received = frame.seq;
        if self.kind == LinkKind::Dialled {
            self.unconfirmed += frame.wire_len();
            if self.unconfirmed >= CONFIRM_AFTER {
                out.push(self.heartbeat());
            }
        }
        Ok(Incoming::Numbered)
    }

    fn receive_local(&mut self, msg: LinkMsg, out: &mut Vec<Frame>) -> Result<Incoming, String> {
        match msg {
            LinkMsg::Heartbeat { received } => self.confirm(received).map(|()| Incoming::Handled),
            LinkMsg::Resume { received } => {
                if self.kind == LinkKind::Pipe {
                    return Err("resume on a stream that cannot be resumed".into());
                }
                self.confirm(received)?;
                out.extend(self.kept.iter().cloned());
                self.transmitted = self.sent;
                self.state = State::Up;
                Ok(Incoming::Handled)
            }
            LinkMsg::YouAre { .. } | LinkMsg::GivenUp { .. } => Ok(Incoming::Local(msg)),
        }
    }

    fn confirm(&mut self, received: u64) -> Result<(), String> {
        if received > self.transmitted {
            return Err(format!("confirmed frame {received} of {}", self.transmitted));
        }
        while self.kept.front().is_some_and(|f| f.seq <= received) {
            self.kept.pop_front();
        }
        Ok(())
    }

    /// The heartbeat to send now.
    pub(crate) fn heartbeat(&mut self) -> Frame {
        self.unconfirmed = 0;
        self.local(LinkMsg::Heartbeat { received: self.received })
    }

    /// Whether a stream is there to send heartbeats on.
    pub(crate) fn open(&self) -> bool {
        self.state != State::Suspect
    }

    /// The stream ended. Whether the link is lost with it.
    pub(crate) fn eof(&mut self) -> bool {
        self.state = State::Suspect;
        self.kind == LinkKind::Pipe
    }

    /// The stream was replaced: what to say first. `None` for kinds that cannot be.
    pub(crate) fn resumed(&mut self, now: Time) -> Option<Frame> {
        if self.kind == LinkKind::Pipe {
            return None;
        }
        self.heard = now;
        self.state = State::Resuming;
        self.unconfirmed = 0;
        Some(self.local(LinkMsg::Resume { received: self.received }))
    }

    /// When the other end was last heard of.
    pub(crate) fn heard(&self) -> Time {
        self.heard
    }

    /// Starts the time of silence anew: this side was itself asleep and cannot judge.
    pub(crate) fn forgive(&mut self, now: Time) {
        self.heard = self.heard.max(now);
    }

    /// Whether the other end has been silent for `limit`.
    pub(crate) fn silent(&self, now: Time, limit: Duration) -> bool {
        now >= self.heard + limit
    }
}

fn local(origin: Origin, msg: LinkMsg) -> Frame {
    // Link messages are a few bytes (texts are cut by their makers), far below the codec's limit.
    Message::Link(msg).frame(origin, Dest::Neighbour, Bytes::new()).unwrap_or(Frame {
        kind: Kind::Link,
        origin,
        dest: Dest::Neighbour,
        seq: 0,
        body: Bytes::new(),
        payload: Bytes::new(),
    })
}

/// The text of a loss by silence.
pub(crate) fn silence(limit: Duration) -> String {
    format!("no sign of life for {:.1} s", limit.as_secs_f64())
}

/// The text of a daemon that gave its link up.
pub(crate) fn deserted(why: &str) -> String {
    format!("its daemon gave up: {why}")
}

/// Cuts a text from elsewhere to `max` bytes, at a character.
pub(crate) fn clip(mut text: String, max: usize) -> String {
    if text.len() > max {
        let end = (0..=max).rev().find(|&i| text.is_char_boundary(i)).unwrap_or(0);
        text.truncate(end);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use rmpi_wire::Down;

    fn frame() -> Frame {
        Message::Down(Down::Kill).frame(Origin::Launcher, Dest::Neighbour, Bytes::new()).unwrap()
    }

    fn pair(kind: LinkKind) -> (Link, Link) {
        let new = |origin| Link::new(kind, origin, Time::ZERO);
        (new(Origin::Launcher), new(Origin::Node(rmpi_types::NodeIdx(0))))
    }

    #[test]
    fn a_gap_or_repeat_on_a_pipe_is_an_error() {
        let (mut a, mut b) = pair(LinkKind::Pipe);
        let first = a.send(frame()).unwrap();
        let second = a.send(frame()).unwrap();
        assert!(b.receive(Time::ZERO, &second, &mut Vec::new()).is_err());
        assert_eq!(b.receive(Time::ZERO, &first, &mut Vec::new()), Ok(Incoming::Numbered));
        assert!(b.receive(Time::ZERO, &first, &mut Vec::new()).is_err());
    }

    #[test]
    fn a_dialled_link_resumes_without_loss_or_repeat() {
        let (mut a, mut b) = pair(LinkKind::Dialled);
        let now = Time::ZERO;
        let mut seen = Vec::new();
        let frames: Vec<Frame> = (0..3).map(|_| a.send(frame()).unwrap()).collect();
        b.receive(now, &frames[0], &mut Vec::new()).unwrap();
        seen.push(frames[0].seq);
        // Frames 2 and 3 are lost with the stream, 4 is made while it is down.
        assert!(!a.eof() && !b.eof());
        assert!(a.send(frame()).is_none());
        let (from_a, from_b) = (a.resumed(now).unwrap(), b.resumed(now).unwrap());
        assert!(a.send(frame()).is_none(), "waits for the other side's resume");
        let mut again = Vec::new();
        a.receive(now, &from_b, &mut again).unwrap();
        b.receive(now, &from_a, &mut Vec::new()).unwrap();
        again.extend(a.send(frame()));
        // The other side repeats one that was received: it is dropped.
        again.insert(0, frames[0].clone());
        for f in again {
            if b.receive(now, &f, &mut Vec::new()).unwrap() == Incoming::Numbered {
                seen.push(f.seq);
            }
        }
        assert_eq!(seen, [1, 2, 3, 4, 5, 6]);
    }

    #[test]
    fn confirmed_frames_are_forgotten() {
        let (mut a, mut b) = pair(LinkKind::Dialled);
        for _ in 0..5 {
            let f = a.send(frame()).unwrap();
            b.receive(Time::ZERO, &f, &mut Vec::new()).unwrap();
        }
        assert_eq!(a.kept.len(), 5);
        a.receive(Time::ZERO, &b.heartbeat(), &mut Vec::new()).unwrap();
        assert!(a.kept.is_empty());
        let wrong = local(Origin::Launcher, LinkMsg::Heartbeat { received: 6 });
        assert!(a.receive(Time::ZERO, &wrong, &mut Vec::new()).is_err());
    }

    #[test]
    fn silence_counts_from_the_last_frame() {
        let (mut a, mut b) = pair(LinkKind::Pipe);
        let limit = Duration::from_secs(6);
        assert!(a.silent(Time::from_millis(6000), limit));
        a.receive(Time::from_millis(10), &b.heartbeat(), &mut Vec::new()).unwrap();
        assert!(!a.silent(Time::from_millis(6009), limit) && a.silent(Time::from_millis(6010), limit));
    }
}
