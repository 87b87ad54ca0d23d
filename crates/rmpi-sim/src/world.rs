//! The simulation itself: the queue of events, links and faults, and the drivers of the nodes' daemons.

use crate::config::{Config, Fault};
use crate::net::{Queue, Rng, Wire};
use crate::node::{SimNode, SimRank, Step};
use crate::report::{Counts, Report};
use rmpi_control::{
    DaemonAction, DaemonEvent, DaemonMachine, DaemonPolicy, HostEntry, JobEvent, JobMachine, JobPolicy,
    LinkId, LinkKind, Time,
};
use rmpi_types::launch::NodeEndpoints;
use rmpi_types::{
    JobOutcome, LaunchFault, NodeId, NodeIdx, NodeLaunch, NodeReport, ProcId, RankEndpoint, RankLaunch,
    Stage, Topology,
};
use rmpi_wire::Frame;
use rmpi_wire::frame::Kind;
use std::time::Duration;

/// Wall clock of the launcher at the start, microseconds since 1970.
const WALL_US: u64 = 1_700_000_000_000_000;
/// Clocks of nodes differ from it by up to this.
const CLOCKS_US: u64 = 10_000_000;
/// How soon a broken dialled stream is dialled again.
const REDIAL: Duration = Duration::from_millis(200);
/// How long a launcher sleeps that has stopped itself.
pub(crate) const ASLEEP: Duration = Duration::from_secs(20);
/// Nothing of a job may be left this long after its launcher is gone.
const QUIET: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(crate) enum Event {
    Daemon(NodeIdx, Box<DaemonEvent>),
    Job(Box<JobEvent>),
    /// A rank goes on, from the sleep of this number or from whatever it is at (0).
    Rank(NodeIdx, ProcId, u64),
    /// A frame on a node's wire: down or up, and on which stream it was sent.
    Deliver(NodeIdx, bool, u32, Box<Frame>),
    /// The end of a stream, seen by one side.
    Eof(NodeIdx, bool, u32),
    Dial(NodeIdx),
    DaemonTimer(NodeIdx),
    JobTimer,
    /// The launcher goes on after it had stopped itself.
    Wake,
    Fault(Fault),
}

/// A simulation that runs to its end.
#[derive(Debug)]
pub struct Sim {
    pub(crate) seed: u64,
    pub(crate) cfg: Config,
    pub(crate) rng: Rng,
    pub(crate) now: Time,
    pub(crate) queue: Queue<Event>,
    pub(crate) job: Option<JobMachine>,
    pub(crate) job_timer: Option<Time>,
    pub(crate) nodes: Vec<SimNode>,
    pub(crate) wires: Vec<Wire>,
    pub(crate) unreachable: Vec<NodeIdx>,
    pub(crate) stdin_left: u64,
    pub(crate) outcome: Option<JobOutcome>,
    pub(crate) ended_at: Option<Time>,
    pub(crate) launcher_killed: bool,
    /// The launcher has stopped itself until then.
    pub(crate) asleep: Option<Time>,
    pub(crate) output: Vec<u64>,
    pub(crate) stdin_unread: u64,
    pub(crate) counts: Counts,
    pub(crate) wrong: Vec<String>,
    pub(crate) lost: Vec<NodeIdx>,
    pub(crate) started: usize,
}

impl Sim {
    /// A cluster whose every chance comes from `seed`.
    #[must_use]
    pub fn new(seed: u64, cfg: Config) -> Self {
        let mut rng = Rng::new(seed);
        let hosts = (0..cfg.daemons)
            .map(|i| HostEntry { name: format!("n{i}"), parent: cfg.parent(NodeIdx(i)) })
            .collect();
        let policy = JobPolicy {
            limits: cfg.limits,
            on_failure: cfg.on_failure,
            min_hosts: cfg.min_hosts,
            stdin: cfg.stdin_to.clone(),
            ignore_broken_pipe: false,
            stacks_on_timeout: None,
            children_apart: false,
            wall_at_zero_us: WALL_US,
            files: Vec::new(),
        };
        let node = |_| SimNode {
            machine: None,
            ranks: Vec::new(),
            prepared: Vec::new(),
            wall_at_zero_us: WALL_US - CLOCKS_US + rng.below(2 * CLOCKS_US),
            dead: false,
            left_at: None,
            timer_at: None,
            cannot_prepare: false,
        };
        let nodes: Vec<SimNode> = (0..cfg.daemons).map(node).collect();
        let mut sim = Self {
            seed,
            rng,
            now: Time::ZERO,
            queue: Queue::new(),
            job: Some(JobMachine::new(policy, hosts, Time::ZERO)),
            job_timer: None,
            wires: nodes.iter().map(|_| Wire::new()).collect(),
            nodes,
            unreachable: Vec::new(),
            stdin_left: cfg.stdin,
            outcome: None,
            ended_at: None,
            launcher_killed: false,
            asleep: None,
            output: vec![0; cfg.size() as usize],
            stdin_unread: 0,
            counts: Counts::default(),
            wrong: Vec::new(),
            lost: Vec::new(),
            started: 0,
            cfg,
        };
        sim.begin();
        sim
    }

    fn begin(&mut self) {
        for (at, fault) in self.cfg.faults.clone() {
            match fault {
                Fault::Unreachable(node) => {
                    self.unreachable.push(node);
                    let fault = LaunchFault::fatal(Stage::Tcp, "connection refused");
                    let event = JobEvent::LaunchFailed { node, fault };
                    self.queue.push(Time::ZERO + at, Event::Job(Box::new(event)));
                }
                Fault::CannotPrepare(node) => self.nodes[node.0 as usize].cannot_prepare = true,
                other => self.queue.push(Time::ZERO + at, Event::Fault(other)),
            }
        }
        for i in
            (0..self.cfg.daemons).map(NodeIdx).filter(|i| !self.unreachable.contains(i)).collect::<Vec<_>>()
        {
            // Relays first: nobody can dial one that is not there.
            let base = if self.cfg.parent(i).is_some() { Duration::from_millis(50) } else { Duration::ZERO };
            let at = Time::ZERO + base + self.delay();
            self.queue.push(at, Event::Dial(i));
        }
        self.arm_job();
    }

    fn delay(&mut self) -> Duration {
        let (lo, hi) = self.cfg.delay;
        self.rng.between(lo, hi)
    }

    /// Runs until the job is over and every daemon has left, and checks every promise.
    #[must_use]
    pub fn run(mut self) -> Report {
        let until = Time::ZERO + self.cfg.until;
        while let Some((at, event)) = self.queue.pop() {
            if at > until {
                self.wrong.push(format!("not over after {:?}", self.cfg.until));
                break;
            }
            self.now = self.now.max(at);
            self.counts.events += 1;
            self.handle(event);
            if self.job.is_none() && self.nodes.iter().all(|n| n.machine.is_none()) {
                break;
            }
        }
        self.report()
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Daemon(node, event) => self.daemon(node, *event),
            Event::Job(event) => self.job(*event),
            Event::Rank(node, proc, sleep) => {
                if let Some(rank) = self.nodes[node.0 as usize].rank(proc) {
                    rank.wake(sleep);
                    self.run_rank(node, proc);
                }
            }
            Event::Deliver(node, down, stream, frame) => {
                let wire = &self.wires[node.0 as usize];
                if !wire.cut && wire.stream == stream {
                    self.deliver(node, down, *frame);
                }
            }
            Event::Eof(node, down, stream) => {
                if self.wires[node.0 as usize].stream == stream {
                    self.eof(node, down);
                }
            }
            Event::Dial(node) => self.dial(node),
            Event::DaemonTimer(node) => {
                let due = self.nodes[node.0 as usize].timer_at.is_some_and(|at| at <= self.now);
                if due {
                    self.nodes[node.0 as usize].timer_at = None;
                    self.daemon(node, DaemonEvent::Tick);
                }
            }
            Event::JobTimer => {
                if self.job_timer.is_some_and(|at| at <= self.now) {
                    self.job_timer = None;
                    self.job(JobEvent::Tick);
                }
            }
            Event::Wake => {
                self.asleep = None;
                self.job(JobEvent::Signal(18));
            }
            Event::Fault(fault) => self.fault(fault),
        }
    }

    fn kind(&self, node: NodeIdx) -> LinkKind {
        if self.cfg.parent(node).is_some() { LinkKind::Dialled } else { LinkKind::Pipe }
    }

    /// A daemon comes up, or dials again.
    fn dial(&mut self, node: NodeIdx) {
        let kind = self.kind(node);
        let link = LinkId(node.0);
        let entry = &mut self.nodes[node.0 as usize];
        if entry.dead || self.wires[node.0 as usize].cut {
            return;
        }
        let first = entry.machine.is_none() && entry.left_at.is_none();
        if first {
            let policy = DaemonPolicy { up: kind, ..DaemonPolicy::default() };
            entry.machine = Some(DaemonMachine::new(policy, self.now));
        } else if entry.machine.is_none() {
            return;
        }
        match self.cfg.parent(node) {
            None => self.job(JobEvent::LinkUp { link, node, kind }),
            Some(parent) => self.daemon(parent, DaemonEvent::ChildUp { link, node }),
        }
        if first {
            let report = self.node_report(node);
            self.daemon(node, DaemonEvent::Report(Box::new(report)));
        } else {
            self.daemon(node, DaemonEvent::UpResumed);
        }
    }

    fn node_report(&self, node: NodeIdx) -> NodeReport {
        NodeReport {
            id: NodeId(format!("node-{node}")),
            hostname: format!("n{node}"),
            pid: 1,
            topology: Topology::flat(2),
            home: "/".into(),
            nofile: 1024,
            wall_us: self.nodes[node.0 as usize].wall_us(self.now),
        }
    }

    pub(crate) fn transmit(&mut self, node: NodeIdx, down: bool, frame: Frame) {
        match frame.kind {
            Kind::Link => self.counts.local += 1,
            Kind::Up | Kind::Down => {
                self.counts.frames += 1;
                self.counts.launcher += u64::from(self.cfg.parent(node).is_none());
            }
        }
        let delay = self.delay();
        let wire = &mut self.wires[node.0 as usize];
        if !wire.cut {
            let at = wire.arrival(self.now, down, delay);
            let stream = wire.stream;
            self.queue.push(at, Event::Deliver(node, down, stream, Box::new(frame)));
        }
    }

    fn deliver(&mut self, node: NodeIdx, down: bool, frame: Frame) {
        let link = LinkId(node.0);
        match (down, self.cfg.parent(node)) {
            (true, _) => self.daemon(node, DaemonEvent::FromUp(frame)),
            (false, None) => self.job(JobEvent::Frame { link, frame }),
            (false, Some(parent)) => self.daemon(parent, DaemonEvent::FromChild { link, frame }),
        }
    }

    /// One side closes a node's stream: the other sees it after everything sent before.
    pub(crate) fn close(&mut self, node: NodeIdx, down: bool) {
        let delay = self.delay();
        let wire = &mut self.wires[node.0 as usize];
        if !wire.cut {
            let at = wire.arrival(self.now, down, delay);
            let stream = wire.stream;
            self.queue.push(at, Event::Eof(node, down, stream));
        }
    }

    fn eof(&mut self, node: NodeIdx, down: bool) {
        let link = LinkId(node.0);
        match (down, self.cfg.parent(node)) {
            (true, _) => {
                self.daemon(node, DaemonEvent::UpEof);
                // A stream that was dialled is dialled again as long as there is somebody to answer.
                let answers =
                    self.cfg.parent(node).is_some_and(|p| self.nodes[p.0 as usize].machine.is_some());
                if self.kind(node) == LinkKind::Dialled && answers {
                    self.wires[node.0 as usize].stream += 1;
                    self.queue.push(self.now + REDIAL, Event::Dial(node));
                }
            }
            (false, None) => self.job(JobEvent::LinkEof { link, what: "control stream closed".into() }),
            (false, Some(parent)) => self.daemon(parent, DaemonEvent::ChildEof { link }),
        }
    }

    fn fault(&mut self, fault: Fault) {
        match fault {
            Fault::Unreachable(_) | Fault::CannotPrepare(_) => {}
            Fault::Kill(node) => self.kill(node, true),
            Fault::PowerOff(node) => self.kill(node, false),
            Fault::Cut(node) => self.wires[node.0 as usize].cut = true,
            Fault::Break(node) => {
                self.eof(node, false);
                self.eof(node, true);
            }
            Fault::Stall(node, time) => {
                let until = self.now + time;
                self.wires[node.0 as usize].stall(until);
            }
            Fault::KillLauncher => {
                self.launcher_killed = true;
                self.end_launcher();
            }
            Fault::Signal(signal) => self.job(JobEvent::Signal(signal)),
            Fault::HostEnds(node) => self.daemon(node, DaemonEvent::HostEnds),
            Fault::PodGrace(grace) => self.job(JobEvent::PodGrace(grace)),
            Fault::BrokenPipe => self.job(JobEvent::BrokenPipe),
        }
    }

    fn kill(&mut self, node: NodeIdx, eof: bool) {
        let entry = &mut self.nodes[node.0 as usize];
        entry.dead = true;
        entry.machine = None;
        entry.ranks.clear();
        let children: Vec<NodeIdx> =
            (0..self.cfg.daemons).map(NodeIdx).filter(|&c| self.cfg.parent(c) == Some(node)).collect();
        for child in children {
            if eof { self.close(child, true) } else { self.wires[child.0 as usize].cut = true }
        }
        if eof { self.close(node, false) } else { self.wires[node.0 as usize].cut = true }
    }

    pub(crate) fn end_launcher(&mut self) {
        if let Some(job) = self.job.take() {
            self.stdin_unread = job.stdin_unread();
        }
        self.ended_at = Some(self.now);
        for node in
            (0..self.cfg.daemons).map(NodeIdx).filter(|&n| self.cfg.parent(n).is_none()).collect::<Vec<_>>()
        {
            self.close(node, true);
        }
    }

    fn daemon(&mut self, node: NodeIdx, event: DaemonEvent) {
        let mut out = Vec::new();
        let Some(machine) = self.nodes[node.0 as usize].machine.as_mut() else { return };
        machine.on(self.now, event, &mut out);
        for action in out {
            self.daemon_action(node, action);
        }
        let entry = &mut self.nodes[node.0 as usize];
        let next = entry.machine.as_ref().and_then(DaemonMachine::next_timer);
        if let Some(at) = next.filter(|&at| entry.timer_at.is_none_or(|old| at < old)) {
            entry.timer_at = Some(at);
            self.queue.push(at.max(self.now), Event::DaemonTimer(node));
        }
    }

    pub(crate) fn soon(&mut self, node: NodeIdx, event: DaemonEvent) {
        self.queue.push(self.now, Event::Daemon(node, Box::new(event)));
    }

    fn daemon_action(&mut self, node: NodeIdx, action: DaemonAction) {
        let wall = self.nodes[node.0 as usize].wall_us(self.now);
        let mut steps = Vec::new();
        let entry = &mut self.nodes[node.0 as usize];
        match action {
            DaemonAction::SendUp(frame) => self.transmit(node, false, frame),
            DaemonAction::SendChild { link, frame } => self.transmit(NodeIdx(link.0), true, frame),
            DaemonAction::CloseChild { link } => self.close(NodeIdx(link.0), true),
            DaemonAction::Keep { .. } | DaemonAction::Resize(_) => {}
            DaemonAction::Prepare(launch) => self.prepare(node, &launch),
            DaemonAction::Spawn(_) => self.spawn(node),
            DaemonAction::WriteStdin { proc, bytes } => {
                if let Some(rank) = entry.rank(proc) {
                    rank.input(bytes.len());
                    self.run_rank(node, proc);
                }
            }
            DaemonAction::CloseStdin { proc } => {
                if let Some(rank) = entry.rank(proc) {
                    rank.input_end();
                    self.run_rank(node, proc);
                }
            }
            DaemonAction::Read { proc, stream, bytes } => {
                if let Some(rank) = entry.rank(proc) {
                    rank.credit(stream, bytes, &mut steps);
                    self.steps(node, proc, steps);
                    self.run_rank(node, proc);
                }
            }
            DaemonAction::Signal { signal, procs } => {
                for proc in procs {
                    let mut steps = Vec::new();
                    if let Some(rank) = self.nodes[node.0 as usize].rank(proc) {
                        rank.signal(signal, wall, &mut steps);
                    }
                    self.steps(node, proc, steps);
                }
            }
            DaemonAction::Describe { procs } => {
                let text = bytes::Bytes::from_static(b"simulated\n");
                for proc in procs {
                    let said = DaemonEvent::Stacks { proc, text: text.clone() };
                    self.steps(node, proc, vec![Step::Event(said)]);
                }
            }
            DaemonAction::KillAll => {
                for i in 0..entry.ranks.len() {
                    let mut steps = Vec::new();
                    let rank = &mut self.nodes[node.0 as usize].ranks[i];
                    let proc = rank.proc;
                    rank.signal(9, wall, &mut steps);
                    self.steps(node, proc, steps);
                }
                self.soon(node, DaemonEvent::Empty);
            }
            DaemonAction::ReplyRank { proc, reply, payload } => {
                if let Some(rank) = entry.rank(proc) {
                    rank.answer(reply.id, &reply.reply, &payload);
                    let wrong = rank.wrong.take();
                    self.wrong.extend(wrong);
                    self.queue.push(self.now, Event::Rank(node, proc, 0));
                }
            }
            action @ (DaemonAction::Answered { .. }
            | DaemonAction::Gathered { .. }
            | DaemonAction::Asked { .. }
            | DaemonAction::Space(_)
            | DaemonAction::Notified { .. }
            | DaemonAction::RankEnded { .. }) => self.served(node, action),
            DaemonAction::Exit => {
                if entry.ranks.iter().any(SimRank::alive) {
                    self.wrong.push(format!("daemon {node} left ranks behind"));
                }
                entry.machine = None;
                entry.left_at = Some(self.now);
                self.close(node, false);
            }
        }
    }

    fn prepare(&mut self, node: NodeIdx, launch: &NodeLaunch) {
        let ranks = launch.ranks.iter().map(|r| RankEndpoint::plain(r.rank, 1)).collect();
        let result = if self.nodes[node.0 as usize].cannot_prepare {
            Err(LaunchFault::fatal(Stage::Exec, "program not found: train").code(127))
        } else {
            Ok(NodeEndpoints {
                node: launch.node,
                host: String::new(),
                addresses: Vec::new(),
                ranks,
                spare_port: None,
            })
        };
        let (size, ns) = (launch.size, launch.ns);
        let program = if ns.ns.0 == 0 { self.cfg.program } else { self.cfg.spawned };
        let acts = |r: &RankLaunch| (ProcId { rank: r.rank, ..ns }, program(r.rank, size));
        let ranks =
            launch.ranks.iter().map(acts).map(|(proc, acts)| SimRank::new(proc, launch.size, acts)).collect();
        self.nodes[node.0 as usize].prepared = ranks;
        self.soon(node, DaemonEvent::Prepared(result));
    }

    fn spawn(&mut self, node: NodeIdx) {
        let entry = &mut self.nodes[node.0 as usize];
        let procs: Vec<ProcId> = entry.prepared.iter().map(|r| r.proc).collect();
        let prepared = std::mem::take(&mut entry.prepared);
        entry.ranks.extend(prepared);
        let pids = procs.iter().map(|p| (*p, p.rank.0 + 1000)).collect();
        // Quick ranks act before their driver has told of them.
        let at = self.now + self.rng.between(Duration::ZERO, Duration::from_micros(500));
        self.queue.push(at, Event::Daemon(node, Box::new(DaemonEvent::Spawned(Ok(pids)))));
        for proc in procs {
            self.queue.push(self.now, Event::Rank(node, proc, 0));
        }
    }

    fn run_rank(&mut self, node: NodeIdx, proc: ProcId) {
        let wall = self.nodes[node.0 as usize].wall_us(self.now);
        let mut steps = Vec::new();
        if let Some(rank) = self.nodes[node.0 as usize].rank(proc) {
            rank.run(wall, &mut steps);
        }
        self.steps(node, proc, steps);
    }

    fn steps(&mut self, node: NodeIdx, proc: ProcId, steps: Vec<Step>) {
        for step in steps {
            match step {
                Step::Event(event) => self.soon(node, event),
                Step::After(time, sleep) => self.queue.push(self.now + time, Event::Rank(node, proc, sleep)),
            }
        }
    }

    /// What was under way when a link stalled is heard that much later, and silence counts from then.
    fn longest_stall(&self) -> Duration {
        let stall = |(_, fault): &(Duration, Fault)| match fault {
            Fault::Stall(_, time) => Some(*time),
            _ => None,
        };
        self.cfg.faults.iter().filter_map(stall).max().unwrap_or_default()
    }

    fn report(mut self) -> Report {
        if self.outcome.is_none() && !self.launcher_killed {
            self.wrong.push("no outcome".into());
        }
        let mut input = vec![0; self.cfg.size() as usize];
        for (i, node) in self.nodes.iter().enumerate().filter(|(_, n)| !n.dead) {
            let alive = node.ranks.iter().filter(|r| r.alive()).count();
            if alive > 0 {
                self.wrong.push(format!("{alive} ranks are left on node {i}"));
            }
            if node.machine.is_some() {
                self.wrong.push(format!("the daemon of node {i} is left"));
            }
            for rank in &node.ranks {
                let r = rank.proc.rank.0 as usize;
                input[r] = rank.taken;
                let lost = self.lost.contains(&NodeIdx(u32::try_from(i).unwrap_or(u32::MAX)));
                if !lost && self.outcome.is_some() && self.output[r] != rank.printed {
                    self.wrong
                        .push(format!("rank {r} wrote {} bytes, {} came", rank.printed, self.output[r]));
                }
            }
        }
        if let Some(ended) = self.ended_at
            && self.now > ended + QUIET + self.longest_stall()
        {
            self.wrong.push(format!("daemons lived {:?} after the launcher", self.now.since(ended)));
        }
        Report {
            seed: self.seed,
            outcome: self.outcome,
            done_at: self.ended_at.map(|t| t.0),
            quiet_at: self.now.0,
            output: self.output,
            input,
            stdin_unread: self.stdin_unread,
            counts: self.counts,
            wrong: self.wrong,
            lost: self.lost,
            started: self.started,
        }
    }
}
