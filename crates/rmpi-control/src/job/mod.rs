//! The machine of one job in the launcher: this file holds its state, what it sends, and its timers. `launch`
//! goes from hosts to started ranks, `links` keeps links and decides who is lost, `up` takes what daemons say, `service` what their servers ask, `spawn` starts more ranks,
//! `stdio` carries input and output, `ending` stops the job and concludes. Invariants: nothing starts before
//! every used node is prepared; `running_left` counts the nodes that were told to start and have neither ended
//! nor been lost; nothing comes out after [`JobAction::Done`].

mod children;
mod ending;
mod events;
mod failure;
mod gather;
mod launch;
mod links;
mod names;
mod nodes;
mod service;
mod spawn;
mod stdin;
mod stdio;
mod up;

pub use events::{HostEntry, JobAction, JobEvent, JobEventOut, JobPolicy, PlanFault, StopReason};

use crate::link::LinkId;
use crate::time::{Time, earlier};
use bytes::Bytes;
use children::Children;
use ending::Ending;
use failure::Failures;
use gather::Gathers;
use names::Names;
use nodes::{Links, Node, RankTable};
use rmpi_types::outcome::Cause;
use rmpi_types::{JobOutcome, NodeIdx, ProcId, RankSet};
use rmpi_wire::{Dest, Down, Message, Origin};
use spawn::Spawns;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use stdin::Input;
use tracing::info;

/// Where a job is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Hosts are being reached.
    Reaching,
    /// The driver plans.
    Planning,
    /// Nodes prepare.
    Preparing,
    /// Ranks were started.
    Running,
    /// Over.
    Done,
}

/// The machine of one job. See the crate's page for how it is driven.
#[derive(Debug)]
pub struct JobMachine {
    policy: JobPolicy,
    phase: Phase,
    names: Vec<String>,
    nodes: Vec<Node>,
    links: Links,
    ranks: RankTable,
    /// Hosts that have neither reported nor failed.
    reaching_left: usize,
    /// Used nodes that have neither prepared nor failed.
    preparing_left: usize,
    /// Used nodes.
    used: usize,
    running_left: usize,
    /// Output bytes given to the sinks and not accounted for.
    unwritten: u64,
    gathers: Gathers,
    published: Names,
    spawns: Spawns,
    children: Children,
    /// Questions on their way: which node asked with which number, and the process whose node is to answer.
    asks: BTreeMap<(NodeIdx, u64), ProcId>,
    /// Nodes that want to hear of failed ranks.
    watchers: RankSet,
    notes: BTreeSet<String>,
    input: Input,
    failures: Failures,
    ending: Ending,
    started_at: Time,
    launch_limit: Duration,
    /// When the launch is given up.
    launch_at: Option<Time>,
    next_beat: Time,
    /// No link is lost before this.
    next_silence: Time,
    span: tracing::Span,
}

impl JobMachine {
    /// A job on these hosts, none of which is reached yet. The launch limit runs from `now`.
    #[must_use]
    pub fn new(policy: JobPolicy, hosts: Vec<HostEntry>, now: Time) -> Self {
        let default_limit = || {
            let hosts = u32::try_from(hosts.len()).unwrap_or(u32::MAX);
            Duration::from_secs(60) + Duration::from_millis(100).saturating_mul(hosts)
        };
        let launch_limit = policy.limits.launch.unwrap_or_else(default_limit);
        let launch_at = if hosts.is_empty() { now } else { now + launch_limit };
        Self {
            phase: Phase::Reaching,
            reaching_left: hosts.len(),
            nodes: hosts.iter().map(|h| Node::new(h.parent)).collect(),
            names: hosts.into_iter().map(|h| h.name).collect(),
            links: Links::new(),
            ranks: RankTable::default(),
            preparing_left: 0,
            used: 0,
            running_left: 0,
            unwritten: 0,
            gathers: Gathers::default(),
            published: Names::default(),
            spawns: Spawns::default(),
            children: Children::default(),
            asks: BTreeMap::new(),
            watchers: RankSet::default(),
            notes: BTreeSet::new(),
            input: Input::default(),
            failures: Failures::default(),
            ending: Ending::default(),
            started_at: now,
            launch_limit,
            launch_at: Some(launch_at),
            next_beat: now + policy.limits.heartbeat,
            next_silence: now + policy.limits.lost,
            span: tracing::info_span!("job"),
            policy,
        }
    }

    /// Takes one event; appends what is to be done.
    pub fn on(&mut self, now: Time, event: JobEvent, out: &mut Vec<JobAction>) {
        if self.phase == Phase::Done {
            return;
        }
        let span = self.span.clone();
        let _entered = span.enter();
        match event {
            JobEvent::LinkUp { link, node, kind } => self.link_up(now, link, node, kind, out),
            JobEvent::Frame { link, frame } => self.frame(now, link, frame, out),
            JobEvent::LinkEof { link, what } => self.link_eof(now, link, &what, out),
            JobEvent::Reaching { node, stage, last } => self.reaching(node, stage, last),
            JobEvent::LaunchFailed { node, fault } => self.host_failed(now, node, fault, out),
            JobEvent::Tick => self.tick(now, out),
            JobEvent::Planned(plan) => self.planned(now, plan, out),
            JobEvent::SpawnPlanned(plan) => self.spawn_planned(plan, out),
            JobEvent::Stdin(bytes) => self.stdin(&bytes, out),
            JobEvent::StdinEof => self.stdin_eof(out),
            JobEvent::Written { proc, stream, bytes } => self.written(proc, stream, bytes, out),
            JobEvent::Signal(signal) => self.user_signal(now, signal, out),
            JobEvent::Resized(window) if self.phase == Phase::Running => {
                self.tell_all(Down::Resize(window), out);
            }
            JobEvent::Resized(_) => {}
            JobEvent::Cancel => self.cancel(now, out),
            JobEvent::PodGrace(grace) => self.pod_has(grace),
            JobEvent::BrokenPipe => self.broken_pipe(now, out),
        }
        self.check_end(now, out);
    }

    /// When the next [`JobEvent::Tick`] is due.
    #[must_use]
    pub fn next_timer(&self) -> Option<Time> {
        if self.phase == Phase::Done {
            return None;
        }
        let links = (!self.links.is_empty()).then(|| self.next_beat.min(self.next_silence));
        let others = earlier(self.published.next_timer(), self.children.next_timer());
        earlier(earlier(earlier(links, self.launch_at), self.ending.next_timer()), others)
    }

    /// Bytes of our standard input that came here and that no rank has read: a driver may seek a file back by as
    /// many, so that the next command of a script finds its input.
    #[must_use]
    pub fn stdin_unread(&self) -> u64 {
        self.input.unread()
    }

    fn tick(&mut self, now: Time, out: &mut Vec<JobAction>) {
        self.watch_links(now, out);
        if self.launch_at.is_some_and(|at| now >= at) {
            self.launch_over(now, out);
        }
        let found = self.published.expired(now);
        self.found(found, out);
        self.kill_children(now, out);
        self.ending_steps(now, out);
    }

    fn node(&mut self, node: NodeIdx) -> Option<&mut Node> {
        self.nodes.get_mut(node.0 as usize)
    }

    fn name(&self, node: NodeIdx) -> &str {
        self.names.get(node.0 as usize).map_or("?", String::as_str)
    }

    /// Our wall clock, microseconds.
    fn wall_us(&self, now: Time) -> u64 {
        self.policy.wall_at_zero_us.saturating_add(now.as_micros())
    }

    /// Sends a message to one node.
    ///
    /// # Errors
    /// The codec's text for a message above its limit.
    fn send(
        &mut self,
        node: NodeIdx,
        msg: Down,
        payload: Bytes,
        out: &mut Vec<JobAction>,
    ) -> Result<(), String> {
        let Some(link) = self.node(node).filter(|n| !n.is_out()).and_then(|n| n.link) else { return Ok(()) };
        let frame = Message::Down(msg).frame(Origin::Launcher, Dest::node(node), payload);
        let frame = frame.map_err(|e| e.to_string())?;
        if let Some(entry) = self.links.get_mut(&link) {
            out.extend(entry.link.send(frame).map(|frame| JobAction::Send { link, frame }));
        }
        Ok(())
    }

    /// Sends a message that is always small to one node.
    fn tell(&mut self, node: NodeIdx, msg: Down, payload: Bytes, out: &mut Vec<JobAction>) {
        if let Err(error) = self.send(node, msg, payload, out) {
            tracing::warn!(error, "message dropped");
        }
    }

    /// Sends a message to all used nodes, or to all hosts: one frame a link.
    ///
    /// # Errors
    /// The codec's text for a message above its limit; nothing was sent then.
    fn send_all(
        &mut self,
        msg: Down,
        payload: &Bytes,
        unused: bool,
        out: &mut Vec<JobAction>,
    ) -> Result<(), String> {
        let frame = Message::Down(msg).frame(Origin::Launcher, Dest::Neighbour, payload.clone());
        let frame = frame.map_err(|e| e.to_string())?;
        for (link, entry) in &mut self.links {
            let nodes = if unused { &entry.nodes } else { &entry.used };
            if !nodes.is_empty() {
                let frame = rmpi_wire::Frame { dest: Dest::Nodes(nodes.clone()), ..frame.clone() };
                out.extend(entry.link.send(frame).map(|frame| JobAction::Send { link: *link, frame }));
            }
        }
        Ok(())
    }

    /// Sends a message that is always small to all used nodes.
    fn tell_all(&mut self, msg: Down, out: &mut Vec<JobAction>) {
        if let Err(error) = self.send_all(msg, &Bytes::new(), false, out) {
            tracing::warn!(error, "message dropped");
        }
    }

    /// Sends a message that is within the limits to some nodes: one frame a link.
    fn tell_set(&mut self, msg: &Down, payload: &Bytes, nodes: &RankSet, out: &mut Vec<JobAction>) {
        let frame = Message::Down(msg.clone()).frame(Origin::Launcher, Dest::Neighbour, payload.clone());
        let frame = match frame {
            Ok(frame) => frame,
            Err(error) => return tracing::warn!(%error, "message dropped"),
        };
        let mut links: BTreeMap<LinkId, RankSet> = BTreeMap::new();
        for node in nodes.iter() {
            let entry = self.nodes.get(node.0 as usize).filter(|n| !n.is_out());
            if let Some(link) = entry.and_then(|n| n.link) {
                links.entry(link).or_default().insert(node);
            }
        }
        for (link, part) in links {
            if let Some(entry) = self.links.get_mut(&link) {
                let frame = rmpi_wire::Frame { dest: Dest::Nodes(part), ..frame.clone() };
                out.extend(entry.link.send(frame).map(|frame| JobAction::Send { link, frame }));
            }
        }
    }

    /// Tells every daemon to leave.
    fn finish_all(&mut self, out: &mut Vec<JobAction>) {
        if let Err(error) = self.send_all(Down::Finish, &Bytes::new(), true, out) {
            tracing::warn!(error, "message dropped");
        }
    }

    /// Ends a job of which nothing was started, or whose end is settled.
    fn conclude(&mut self, cause: Cause, out: &mut Vec<JobAction>) {
        let outcome = JobOutcome {
            cause,
            also: Vec::new(),
            failed_after_us: None,
            stopped: self.failures.stopped(),
            unknown: self.failures.unknown(),
        };
        self.done(outcome, out);
    }

    fn done(&mut self, outcome: JobOutcome, out: &mut Vec<JobAction>) {
        info!(code = outcome.code(), "job over");
        self.phase = Phase::Done;
        out.push(JobAction::Done(Box::new(outcome)));
    }

    fn event(event: JobEventOut, out: &mut Vec<JobAction>) {
        out.push(JobAction::Event(event));
    }
}

/// A set of one node.
fn just(node: NodeIdx) -> RankSet {
    RankSet::range(node.0, node.0)
}
