//! The machine of one node's daemon: this file holds its state, its links and its timers; `down` what the
//! launcher says, `local` what ranks and driver say, `more` further ranks beside those that run, `service` what servers ask and gather, `ending` how it all stops. Invariants: after
//! [`DaemonAction::Exit`] nothing comes out any more; [`DaemonAction::KillAll`] is not repeated while one is
//! unanswered; `Ended` is sent when every rank was reported and nothing is left on the node.

mod down;
mod ending;
mod events;
mod gather;
pub(crate) mod kvs;
mod local;
mod more;
pub(crate) mod ranks;
mod relay;
mod service;
mod stop;

pub use events::{DaemonAction, DaemonEvent, DaemonPolicy, Member};

use crate::link::{Incoming, Link, LinkId, clip, deserted, silence};
use crate::time::{Time, earlier};
use bytes::Bytes;
use gather::{Gathers, Owner};
use kvs::Kvs;
use more::More;
use ranks::Ranks;
use relay::{Child, MAX_CHILDREN, Relay};
use rmpi_types::{NodeIdx, NodeReport, ProcId};
use rmpi_wire::frame::{Kind, UNNAMED};
use rmpi_wire::msg::Pulse;
use rmpi_wire::{Dest, Frame, LinkMsg, Message, Origin, Up};
use service::Asks;
use std::time::Duration;
use stop::Stop;
use tracing::{debug, info, warn};

/// Where a daemon is in the life of its ranks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Nothing was asked of it.
    Idle,
    /// The driver prepares.
    Preparing,
    /// Prepared and reported so.
    Prepared,
    /// The driver spawns.
    Spawning,
    /// Ranks were started.
    Running,
    /// Nothing of the job is left here; waits to be told to finish.
    Ended,
    /// Left.
    Gone,
}

/// The killing of everything on the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sweep {
    /// Not asked for.
    No,
    /// The driver is at it.
    Asked,
    /// Nothing is left.
    Empty,
}

/// A signal or stop that came while the driver was spawning.
#[derive(Debug)]
enum Early {
    Signal(i32, Option<ProcId>),
    Stop(i32, Duration),
    Kill,
}

/// The machine of one node's daemon. See the crate's page for how it is driven.
#[derive(Debug)]
pub struct DaemonMachine {
    policy: DaemonPolicy,
    node: Option<NodeIdx>,
    up: Link,
    /// The launcher is lost, or has told us to finish: clean up and leave.
    leaving: bool,
    /// The launcher has stopped itself: its silence means nothing.
    paused: bool,
    relay: Relay,
    phase: Phase,
    ranks: Ranks,
    /// Ranks on their way beside those that run.
    more: Option<More>,
    early: Vec<Early>,
    /// What quick ranks did before the driver had told of their start.
    held: Vec<DaemonEvent>,
    kvs: Kvs,
    gathers: Gathers,
    asks: Asks,
    stop: Option<Stop>,
    /// Ranks have had SIGTERM as the host is being shut down: a stop need not say it again.
    warned: bool,
    sweep: Sweep,
    next_beat: Time,
    span: tracing::Span,
}

/// Bytes of a text that is sent on, at most.
const MAX_TEXT: usize = 1000;

impl DaemonMachine {
    /// A daemon whose control stream is open and has exchanged hellos.
    #[must_use]
    pub fn new(policy: DaemonPolicy, now: Time) -> Self {
        let origin = Origin::Node(policy.node.unwrap_or(UNNAMED));
        Self {
            node: policy.node,
            up: Link::new(policy.up, origin, now),
            leaving: false,
            paused: false,
            relay: Relay::default(),
            phase: Phase::Idle,
            ranks: Ranks::default(),
            more: None,
            early: Vec::new(),
            held: Vec::new(),
            kvs: Kvs::default(),
            gathers: Gathers::default(),
            asks: Asks::default(),
            stop: None,
            warned: false,
            sweep: Sweep::No,
            next_beat: now + policy.heartbeat,
            span: tracing::info_span!("node", node = policy.node.map(|n| n.0)),
            policy,
        }
    }

    /// Takes one event; appends what is to be done.
    pub fn on(&mut self, now: Time, event: DaemonEvent, out: &mut Vec<DaemonAction>) {
        if self.phase == Phase::Gone {
            return;
        }
        let span = self.span.clone();
        let _entered = span.enter();
        if self.phase == Phase::Spawning && of_a_rank(&event).is_some() {
            self.held.push(event);
            return;
        }
        if let Some(event) = self.hold_more(event) {
            self.take(now, event, out);
        }
    }

    fn take(&mut self, now: Time, event: DaemonEvent, out: &mut Vec<DaemonAction>) {
        match event {
            DaemonEvent::Report(report) => self.report(*report, out),
            DaemonEvent::FromUp(frame) => self.up_frame(now, frame, out),
            DaemonEvent::UpEof => self.up_eof(now, out),
            DaemonEvent::UpResumed => out.extend(self.up.resumed(now).map(DaemonAction::SendUp)),
            DaemonEvent::FromChild { link, frame } => self.child_frame(now, link, frame, out),
            DaemonEvent::HostEnds => self.host_ends(out),
            DaemonEvent::ChildUp { link, node } => self.child_up(now, link, node, out),
            DaemonEvent::ChildEof { link } => self.child_eof(link, out),
            DaemonEvent::Tick => self.tick(now, out),
            DaemonEvent::Prepared(result) => self.prepared(result, out),
            DaemonEvent::Spawned(result) => self.spawned(now, result, out),
            DaemonEvent::Output { proc, stream, bytes, last } => {
                self.output(now, proc, stream, bytes, last, out);
            }
            DaemonEvent::StdinTaken { proc, bytes } => self.stdin_taken(proc, bytes, out),
            DaemonEvent::StdinClosed { proc } => self.stdin_closed(proc, out),
            DaemonEvent::Stacks { proc, text } => self.stacks(proc, text, out),
            DaemonEvent::RankExited(exit) => self.rank_exited(now, exit, out),
            DaemonEvent::RankRequest { proc, id, request, payload } => {
                self.request(now, proc, id, request, &payload, out);
            }
            DaemonEvent::Member { proc, what } => self.member(proc, what, out),
            DaemonEvent::Join { token, by, key, data } => {
                self.join(Owner::Server(token), by, key, &data, out);
            }
            DaemonEvent::Request { token, by, request, payload } => {
                self.server_asks(now, token, by, request, payload, out);
            }
            DaemonEvent::Answer { asker, id, answer, payload } => {
                self.server_answers(asker, id, answer, payload, out);
            }
            DaemonEvent::RankGone { proc } => self.rank_gone(proc),
            DaemonEvent::Note(text) => self.send_up(Up::Note(clip(text, MAX_TEXT)), Bytes::new(), out),
            DaemonEvent::Empty => self.empty(out),
        }
    }

    /// When the next [`DaemonEvent::Tick`] is due.
    #[must_use]
    pub fn next_timer(&self) -> Option<Time> {
        if self.phase == Phase::Gone {
            return None;
        }
        let mut next = Some(self.next_beat);
        next = earlier(next, self.stop.as_ref().map(Stop::due));
        if !self.leaving {
            next = earlier(next, (!self.paused).then(|| self.up.heard() + self.policy.lost));
            next = earlier(next, self.ranks.next_idle());
            next = earlier(next, self.kvs.next_timer());
        }
        next
    }

    fn report(&mut self, report: NodeReport, out: &mut Vec<DaemonAction>) {
        if self.phase == Phase::Idle {
            self.send_up(Up::Report(Box::new(report)), Bytes::new(), out);
        }
    }

    /// Sends a message to the launcher; nowhere once it is lost.
    fn send_up(&mut self, msg: Up, payload: Bytes, out: &mut Vec<DaemonAction>) {
        let origin = Origin::Node(self.node.unwrap_or(UNNAMED));
        match Message::Up(msg).frame(origin, Dest::Launcher, payload) {
            Ok(frame) => self.frame_up(frame, out),
            // Only a report of absurd size could be above the codec's limit; the launcher's limit then names
            // this node.
            Err(error) => warn!(%error, "message dropped"),
        }
    }

    fn frame_up(&mut self, frame: Frame, out: &mut Vec<DaemonAction>) {
        if !self.leaving {
            out.extend(self.up.send(frame).map(DaemonAction::SendUp));
        }
    }

    fn up_frame(&mut self, now: Time, frame: Frame, out: &mut Vec<DaemonAction>) {
        if self.leaving {
            return;
        }
        self.paused = false;
        let mut answers = Vec::new();
        let received = self.up.receive(now, &frame, &mut answers);
        out.extend(answers.into_iter().map(DaemonAction::SendUp));
        let handled = received.and_then(|incoming| match incoming {
            Incoming::Handled => Ok(()),
            Incoming::Local(LinkMsg::YouAre { node, pulse }) => self.named(now, node, pulse),
            Incoming::Local(LinkMsg::GivenUp { why }) => {
                self.lose_up(now, &format!("given up from above: {why}"), out);
                Ok(())
            }
            Incoming::Local(other) => Err(format!("unexpected {other:?} from above")),
            Incoming::Numbered => self.numbered(now, frame, out),
        });
        if let Err(what) = handled {
            self.desert(now, format!("protocol violation of rmpirun: {what}"), out);
        }
    }

    fn named(&mut self, now: Time, node: NodeIdx, pulse: Pulse) -> Result<(), String> {
        if pulse.period_ms == 0 || pulse.lost_ms <= pulse.period_ms {
            return Err(format!("{pulse:?} makes every silence a loss"));
        }
        self.policy.heartbeat = Duration::from_millis(pulse.period_ms.into());
        self.policy.lost = Duration::from_millis(pulse.lost_ms.into());
        self.next_beat = self.next_beat.min(now + self.policy.heartbeat);
        if self.node.is_some_and(|known| known != node) {
            return Err(format!("named node {node} but this is another"));
        }
        self.node = Some(node);
        self.span = tracing::info_span!("node", node = node.0);
        Ok(())
    }

    fn numbered(&mut self, now: Time, frame: Frame, out: &mut Vec<DaemonAction>) -> Result<(), String> {
        if frame.kind != Kind::Down {
            return Err("message of a daemon from above".into());
        }
        let mine = match &frame.dest {
            Dest::Neighbour => true,
            Dest::Launcher => return Err("message for the launcher from above".into()),
            Dest::Nodes(nodes) => {
                for (link, part) in self.relay.split(nodes) {
                    let copy = Frame { dest: Dest::Nodes(part), ..frame.clone() };
                    self.frame_child(link, copy, out);
                }
                let node = self.node.ok_or("addressed before it was named")?;
                nodes.contains(rmpi_types::Rank(node.0))
            }
        };
        if !mine {
            return Ok(());
        }
        match Message::of(&frame).map_err(|e| e.to_string())? {
            Message::Down(msg) => self.down(now, msg, frame.payload, out),
            Message::Up(_) | Message::Link(_) => Err("message of another kind than its frame".into()),
        }
    }

    fn up_eof(&mut self, now: Time, out: &mut Vec<DaemonAction>) {
        if self.up.eof() {
            return self.lose_up(now, "control stream closed", out);
        }
        // A launcher that has stopped itself keeps its stream: this one is gone, or will dial again.
        if std::mem::take(&mut self.paused) {
            self.up.forgive(now);
        }
    }

    fn frame_child(&mut self, link: LinkId, frame: Frame, out: &mut Vec<DaemonAction>) {
        if let Some(child) = self.relay.children.get_mut(&link) {
            out.extend(child.link.send(frame).map(|frame| DaemonAction::SendChild { link, frame }));
        }
    }

    /// The job's pulse, for children.
    fn pulse(&self) -> Pulse {
        let ms = |d: Duration| u32::try_from(d.as_millis()).unwrap_or(u32::MAX);
        Pulse { period_ms: ms(self.policy.heartbeat), lost_ms: ms(self.policy.lost) }
    }

    fn child_up(&mut self, now: Time, link: LinkId, node: NodeIdx, out: &mut Vec<DaemonAction>) {
        let pulse = self.pulse();
        if let Some(child) = self.relay.children.get_mut(&link) {
            if child.node == node {
                // Its name may have been lost with the stream: link-local words are not kept.
                let named = child.link.local(LinkMsg::YouAre { node, pulse });
                let again = child.link.resumed(now).into_iter().flat_map(|resume| [named.clone(), resume]);
                out.extend(again.map(|frame| DaemonAction::SendChild { link, frame }));
            }
            return;
        }
        let full = self.relay.children.len() >= MAX_CHILDREN;
        if self.leaving || full || !self.relay.learn(node, link) {
            warn!(child = node.0, "child turned away");
            Self::give_up(link, &self.child_link(now), "turned away by the host above", out);
            return;
        }
        let state = self.child_link(now);
        let frame = state.local(LinkMsg::YouAre { node, pulse });
        self.relay.add(link, Child { node, link: state });
        out.push(DaemonAction::SendChild { link, frame });
    }

    fn child_link(&self, now: Time) -> Link {
        Link::new(crate::LinkKind::Dialled, Origin::Node(self.node.unwrap_or(UNNAMED)), now)
    }

    fn child_frame(&mut self, now: Time, id: LinkId, frame: Frame, out: &mut Vec<DaemonAction>) {
        let Some(child) = self.relay.children.get_mut(&id) else { return };
        let node = child.node;
        let mut answers = Vec::new();
        let received = child.link.receive(now, &frame, &mut answers);
        out.extend(answers.into_iter().map(|frame| DaemonAction::SendChild { link: id, frame }));
        let handled = received.and_then(|incoming| match incoming {
            Incoming::Handled => Ok(()),
            Incoming::Local(LinkMsg::GivenUp { why }) => {
                self.lose_child(id, &deserted(&why), out);
                Ok(())
            }
            Incoming::Local(LinkMsg::YouAre { .. }) => Err("commands its parent".to_owned()),
            Incoming::Local(LinkMsg::Heartbeat { .. } | LinkMsg::Resume { .. }) => Ok(()),
            Incoming::Numbered => self.pass_up(id, node, frame, out),
        });
        if let Err(what) = handled {
            self.lose_child(id, &format!("protocol violation: {what}"), out);
        }
    }

    /// Passes a frame from below on, under the name of the node it came from.
    fn pass_up(
        &mut self,
        id: LinkId,
        child: NodeIdx,
        frame: Frame,
        out: &mut Vec<DaemonAction>,
    ) -> Result<(), String> {
        let origin = match frame.origin {
            Origin::Node(UNNAMED) => child,
            Origin::Node(node) => node,
            Origin::Launcher => return Err("speaks as the launcher".into()),
        };
        if frame.kind != Kind::Up || frame.dest != Dest::Launcher {
            return Err("message from below that is not for the launcher".into());
        }
        if Some(origin) == self.node || !self.relay.learn(origin, id) {
            return Err(format!("speaks as node {origin}, which is elsewhere"));
        }
        self.frame_up(Frame { origin: Origin::Node(origin), ..frame }, out);
        Ok(())
    }

    fn child_eof(&mut self, id: LinkId, out: &mut Vec<DaemonAction>) {
        if self.relay.children.get_mut(&id).is_some_and(|c| c.link.eof()) {
            self.lose_child(id, "control stream closed", out);
        }
    }

    fn lose_child(&mut self, id: LinkId, what: &str, out: &mut Vec<DaemonAction>) {
        if let Some(child) = self.relay.remove(id) {
            info!(child = child.node.0, what, "child lost");
            let what = clip(what.to_owned(), MAX_TEXT);
            Self::give_up(id, &child.link, &what, out);
            self.send_up(Up::Lost { node: child.node, what }, Bytes::new(), out);
        }
    }

    /// Tells a child that it is not to dial again, and why, and closes its stream.
    fn give_up(link: LinkId, state: &Link, why: &str, out: &mut Vec<DaemonAction>) {
        if state.open() {
            let frame = state.local(LinkMsg::GivenUp { why: why.to_owned() });
            out.push(DaemonAction::SendChild { link, frame });
        }
        out.push(DaemonAction::CloseChild { link });
    }

    fn tick(&mut self, now: Time, out: &mut Vec<DaemonAction>) {
        // A tick that comes this late means that this process, or the whole machine, was asleep: it cannot
        // tell who was silent.
        if now >= self.next_beat + 2 * self.policy.heartbeat {
            self.up.forgive(now);
            self.relay.children.values_mut().for_each(|c| c.link.forgive(now));
        }
        self.ending_steps(now, out);
        if self.phase == Phase::Gone {
            return;
        }
        if !self.leaving {
            if !self.paused && self.up.silent(now, self.policy.lost) {
                return self.desert(now, format!("rmpirun gave {}", silence(self.policy.lost)), out);
            }
            self.drain_idle(now, out);
            for (asker, reply, payload) in self.kvs.expired(now) {
                self.answer(asker, reply, payload, out);
            }
        }
        if now >= self.next_beat {
            self.beat(now, out);
        }
    }

    fn beat(&mut self, now: Time, out: &mut Vec<DaemonAction>) {
        self.next_beat = now + self.policy.heartbeat;
        if self.leaving {
            return;
        }
        if self.up.open() {
            out.push(DaemonAction::SendUp(self.up.heartbeat()));
        }
        let limit = self.policy.lost;
        let silent = |(id, c): (&LinkId, &Child)| c.link.silent(now, limit).then_some(*id);
        let lost: Vec<LinkId> = self.relay.children.iter().filter_map(silent).collect();
        for id in lost {
            self.lose_child(id, &silence(limit), out);
        }
        for (link, child) in self.relay.children.iter_mut().filter(|(_, c)| c.link.open()) {
            out.push(DaemonAction::SendChild { link: *link, frame: child.link.heartbeat() });
        }
        self.tell_gone(out);
        for key in self.gathers.stuck() {
            self.send_up(Up::GatherWaits { key }, Bytes::new(), out);
        }
    }

    fn leave(&mut self, out: &mut Vec<DaemonAction>) {
        debug!("daemon leaves");
        self.phase = Phase::Gone;
        out.push(DaemonAction::Exit);
    }

    /// Whether this process is one of our ranks and runs.
    fn runs(&mut self, proc: ProcId) -> bool {
        self.phase == Phase::Running && self.ranks.get(proc).is_some_and(|s| s.alive())
    }
}

/// The rank that did this, which means that it was started.
fn of_a_rank(event: &DaemonEvent) -> Option<ProcId> {
    match event {
        DaemonEvent::Output { proc, .. }
        | DaemonEvent::StdinTaken { proc, .. }
        | DaemonEvent::StdinClosed { proc }
        | DaemonEvent::RankRequest { proc, .. }
        | DaemonEvent::Member { proc, .. }
        | DaemonEvent::Join { by: proc, .. }
        | DaemonEvent::Request { by: proc, .. }
        | DaemonEvent::RankGone { proc } => Some(*proc),
        DaemonEvent::RankExited(exit) => Some(exit.proc),
        DaemonEvent::Report(_)
        | DaemonEvent::FromUp(_)
        | DaemonEvent::UpEof
        | DaemonEvent::UpResumed
        | DaemonEvent::HostEnds
        | DaemonEvent::FromChild { .. }
        | DaemonEvent::ChildUp { .. }
        | DaemonEvent::ChildEof { .. }
        | DaemonEvent::Tick
        | DaemonEvent::Prepared(_)
        | DaemonEvent::Spawned(_)
        | DaemonEvent::Answer { .. }
        | DaemonEvent::Stacks { .. }
        | DaemonEvent::Note(_)
        | DaemonEvent::Empty => None,
    }
}
