//! The launcher's machine under arbitrary frames of its daemons, with a driver that keeps to its contract.
//! Rules held: nothing after `Done`; frames sent are well-formed; output is never more than was sent; and when
//! every host goes away the machine always comes to its `Done`.

use crate::node::{check_sent, endpoints, entries, exit, frame, launch, proc, raw_frames, stream};
use crate::{Input, service};
use bytes::Bytes;
use rmpi_control::{
    HostEntry, JobAction, JobEvent, JobMachine, JobPolicy, LinkId, LinkKind, PlanFault, Time,
};
use rmpi_types::spec::{OnFailure, Stdin};
use rmpi_types::{LaunchFault, NodeIdx, NodeLaunch, NodeReport, ProcId, Rank, Stage, Topology};
use rmpi_wire::frame::UNNAMED;
use rmpi_wire::msg::Stream;
use rmpi_wire::{Dest, LinkMsg, Message, Origin, Up};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::time::Duration;

/// Events of one run, at most.
const STEPS: usize = 400;
/// Events in which a machine without hosts must come to its end.
const ENDING: usize = 2000;
/// Ranks on each node of a plan.
const RANKS: u32 = 2;

struct Driver {
    machine: JobMachine,
    now: Time,
    hosts: u32,
    /// By link id, which is the host's number: what carries it, and the last number received on it.
    links: BTreeMap<u32, (LinkKind, u64)>,
    planning: Option<Vec<NodeIdx>>,
    launches: BTreeMap<u32, NodeLaunch>,
    unwritten: Vec<(ProcId, Stream, u32)>,
    reading: Option<u32>,
    /// The user asked to stop: asked again, the launcher waits for nothing, not even for output.
    pressed: bool,
    done: bool,
}

/// A script of frames and local events for the launcher's machine.
pub fn job_machine(data: &[u8]) {
    let mut input = Input::new(data);
    let flags = input.u8();
    let hosts = u32::from(flags % 4) + 1;
    let policy = JobPolicy {
        on_failure: if flags & 16 == 0 { OnFailure::Stop } else { OnFailure::Continue },
        min_hosts: (flags & 32 != 0).then_some(1),
        stdin: match flags >> 6 {
            0 | 1 => Stdin::Rank(Rank(0)),
            2 => Stdin::All,
            _ => Stdin::None,
        },
        ..JobPolicy::default()
    };
    let tree = flags & 8 != 0;
    let entry =
        |i: u32| HostEntry { name: format!("n{i}"), parent: (tree && i > 0).then(|| NodeIdx((i - 1) / 2)) };
    let mut driver = Driver {
        machine: JobMachine::new(policy, (0..hosts).map(entry).collect(), Time::ZERO),
        now: Time::ZERO,
        hosts,
        links: BTreeMap::new(),
        planning: None,
        launches: BTreeMap::new(),
        unwritten: Vec::new(),
        reading: None,
        pressed: false,
        done: false,
    };
    for _ in 0..STEPS {
        if input.is_empty() {
            break;
        }
        driver.step(&mut input);
    }
    driver.end();
}

impl Driver {
    fn on(&mut self, event: JobEvent) {
        self.pressed |= matches!(event, JobEvent::Signal(_) | JobEvent::Cancel);
        let mut out = Vec::new();
        let mut spawns = false;
        self.machine.on(self.now, event, &mut out);
        for action in out {
            assert!(!self.done, "{action:?} after Done");
            match action {
                JobAction::Send { frame, .. } => check_sent(&frame),
                JobAction::Close { link } => drop(self.links.remove(&link.0)),
                JobAction::Plan(reports) => {
                    assert!(self.planning.is_none());
                    self.planning = Some(reports.into_iter().map(|(node, _)| node).collect());
                }
                JobAction::Output { proc, stream, bytes, .. } => {
                    if let Ok(n @ 1..) = u32::try_from(bytes.len()) {
                        self.unwritten.push((proc, stream, n));
                    }
                }
                JobAction::ReadStdin { up_to } => {
                    assert!(up_to > 0 && self.reading.is_none(), "a second request for input");
                    self.reading = Some(up_to);
                }
                JobAction::PlanSpawn { .. } => spawns = true,
                JobAction::Event(_) | JobAction::StdinRead { .. } | JobAction::SuspendSelf => {}
                JobAction::Done(outcome) => {
                    assert!(self.unwritten.is_empty() || self.pressed, "done with output not written");
                    let _ = outcome.code();
                    self.done = true;
                }
            }
        }
        assert!(!self.done || self.machine.next_timer().is_none());
        if spawns {
            self.on(JobEvent::SpawnPlanned(Err("there is no room".into())));
        }
    }

    fn host(&self, input: &mut Input<'_>) -> u32 {
        u32::from(input.u8()) % self.hosts
    }

    fn step(&mut self, input: &mut Input<'_>) {
        match input.below(20) {
            0 | 1 => {
                let (node, dialled) = (self.host(input), input.u8() & 1 != 0);
                let kind = if dialled { LinkKind::Dialled } else { LinkKind::Pipe };
                let kind = self.links.entry(node).or_insert((kind, 0)).0;
                self.on(JobEvent::LinkUp { link: LinkId(node), node: NodeIdx(node), kind });
            }
            2..=9 => self.node_says(input),
            10 => {
                let (link, numbered) = (self.host(input), input.u8() & 1 == 0);
                let mut unused = 0;
                let seq = self.links.get_mut(&link).map_or(&mut unused, |l| &mut l.1);
                for frame in raw_frames(input.piece(), numbered, seq) {
                    self.on(JobEvent::Frame { link: LinkId(link), frame });
                }
            }
            11 => {
                let link = LinkId(self.host(input));
                self.on(JobEvent::LinkEof { link, what: "control stream closed".into() });
            }
            12 => {
                let node = NodeIdx(self.host(input));
                let fault = LaunchFault::fatal(Stage::Tcp, "refused");
                self.on(JobEvent::LaunchFailed { node, fault });
            }
            13 => {
                self.now = self.now + Duration::from_millis(u64::from(input.u16()));
                self.on(JobEvent::Tick);
            }
            14 => self.planned(!input.one_in(8)),
            15 => self.written(usize::from(input.u8())),
            16 => self.read(input.piece()),
            17 => self.on(JobEvent::Signal(i32::from(input.u8() % 32))),
            18 if input.u8() & 1 == 0 => self.on(JobEvent::Cancel),
            18 => self.on(JobEvent::BrokenPipe),
            _ => self.well_behaved(),
        }
    }

    fn node_says(&mut self, input: &mut Input<'_>) {
        let (link, node) = (self.host(input), self.host(input));
        let known = self.launches.get(&node).cloned();
        let (message, payload) = up(input, node, known.as_ref());
        let seq = match (&message, self.links.get_mut(&link)) {
            (Message::Up(_), Some((_, seq))) => {
                *seq += 1;
                *seq
            }
            _ => 0,
        };
        let origin = match input.below(8) {
            0 => Origin::Node(NodeIdx(input.number32())),
            1 => Origin::Launcher,
            2 => Origin::Node(UNNAMED),
            _ => Origin::Node(NodeIdx(node)),
        };
        let dest = if matches!(message, Message::Up(_)) { Dest::Launcher } else { Dest::Neighbour };
        let frame = frame(&message, origin, dest, payload, seq);
        self.on(JobEvent::Frame { link: LinkId(link), frame });
    }

    /// All hosts do the next thing that is expected of them.
    fn well_behaved(&mut self) {
        for node in 0..self.hosts {
            let kind = LinkKind::Pipe;
            if let Entry::Vacant(new) = self.links.entry(node) {
                new.insert((kind, 0));
                self.on(JobEvent::LinkUp { link: LinkId(node), node: NodeIdx(node), kind });
            }
            let Some((_, seq)) = self.links.get_mut(&node) else { continue };
            *seq += 1;
            let seq = *seq;
            let message = match (self.launches.get(&node), seq) {
                (None, _) => Up::Report(Box::new(report())),
                (Some(launch), 2) => Up::Prepared(endpoints(launch)),
                (Some(launch), _) => {
                    Up::Started(launch.ranks.iter().map(|r| (ProcId::first(r.rank.0), 1)).collect())
                }
            };
            let origin = Origin::Node(NodeIdx(node));
            let frame = frame(&Message::Up(message), origin, Dest::Launcher, Bytes::new(), seq);
            self.on(JobEvent::Frame { link: LinkId(node), frame });
        }
        self.planned(true);
    }

    fn planned(&mut self, good: bool) {
        let Some(nodes) = self.planning.take() else { return };
        let count = u32::try_from(nodes.len()).unwrap_or(0);
        let plan = if good && count > 0 {
            let of = |(i, node): (u32, NodeIdx)| (node, launch(i, count, i * RANKS, RANKS, count * RANKS));
            Ok((0u32..).zip(nodes).map(of).collect::<Vec<_>>())
        } else {
            Err(PlanFault { code: 2, message: "not enough slots".into() })
        };
        if let Ok(plan) = &plan {
            self.launches = plan.iter().map(|(node, launch)| (node.0, launch.clone())).collect();
        }
        self.on(JobEvent::Planned(plan));
    }

    fn written(&mut self, index: usize) {
        if !self.unwritten.is_empty() {
            let (proc, stream, bytes) = self.unwritten.swap_remove(index % self.unwritten.len());
            self.on(JobEvent::Written { proc, stream, bytes });
        }
    }

    fn read(&mut self, bytes: &[u8]) {
        let Some(up_to) = self.reading.take() else { return };
        let bytes = &bytes[..bytes.len().min(up_to as usize)];
        self.on(if bytes.is_empty() {
            JobEvent::StdinEof
        } else {
            JobEvent::Stdin(Bytes::copy_from_slice(bytes))
        });
    }

    /// All hosts go away for good; the driver does what it is asked.
    fn end(&mut self) {
        for node in 0..self.hosts {
            self.on(JobEvent::LinkEof { link: LinkId(node), what: "control stream closed".into() });
            let fault = LaunchFault::fatal(Stage::Tcp, "refused");
            self.on(JobEvent::LaunchFailed { node: NodeIdx(node), fault });
        }
        for _ in 0..ENDING {
            if self.done {
                return;
            }
            if self.planning.is_some() {
                self.planned(true);
            } else if !self.unwritten.is_empty() {
                self.written(0);
            } else {
                let Some(at) = self.machine.next_timer() else { break };
                self.now = self.now.max(at);
                self.on(JobEvent::Tick);
            }
        }
        assert!(self.done, "without its hosts the job stays: {:?}", self.machine);
    }
}

/// A plain node's report.
pub(crate) fn report() -> NodeReport {
    NodeReport {
        id: rmpi_types::NodeId("id".into()),
        hostname: "n".into(),
        pid: 1,
        topology: Topology::flat(2),
        home: "/".into(),
        nofile: 1024,
        wall_us: 0,
    }
}

/// A message from below and its payload.
fn up(input: &mut Input<'_>, node: u32, launch: Option<&NodeLaunch>) -> (Message, Bytes) {
    let mut payload = Bytes::new();
    let ranks = launch.map(|l| &l.ranks[..]).unwrap_or_default();
    // Mostly a rank of the speaker, or little would get past the first check.
    let who = |input: &mut Input<'_>| match (input.u8(), ranks) {
        (0..=31, _) | (_, []) => proc(input),
        (n, ranks) => ProcId::first(ranks[usize::from(n) % ranks.len()].rank.0),
    };
    let message = match input.below(19) {
        0 => Up::Report(Box::new(NodeReport { wall_us: input.number(), ..report() })),
        1 => match launch {
            Some(launch) if !input.one_in(4) => Up::Prepared(endpoints(launch)),
            _ => Up::Prepared(endpoints(&self::launch(node, 1, 0, input.u8().into(), 9))),
        },
        2 => Up::Failed(LaunchFault::fatal(Stage::Exec, input.text())),
        3 if !input.one_in(4) => Up::Started(ranks.iter().map(|r| (ProcId::first(r.rank.0), 1)).collect()),
        3 => Up::Started((0..input.below(4)).map(|_| (proc(input), input.u32())).collect()),
        4 | 5 => {
            payload = Bytes::copy_from_slice(input.piece());
            Up::Output { proc: who(input), stream: stream(input), last: input.one_in(4) }
        }
        6 => Up::StdinCredit { proc: who(input), bytes: input.number32() },
        7 => Up::Gone { exit: exit(who(input), input.u8()) },
        8 | 9 => {
            let mut exit = exit(who(input), input.u8());
            exit.wall_us = input.number();
            exit.last_stderr = (0..input.below(8)).map(|_| input.text()).collect();
            Up::Exited { exit }
        }
        10 => Up::Abort { proc: who(input), code: input.number32().cast_signed(), message: input.text() },
        11 => {
            payload = Bytes::copy_from_slice(input.piece());
            Up::Request { by: who(input), id: input.number(), request: service::request(input) }
        }
        12 => {
            payload = Bytes::copy_from_slice(input.piece());
            let (asker, id) = (service::node(input), input.number());
            Up::Answer { asker, id, answer: service::answer(input) }
        }
        13 => {
            payload = entries(input);
            Up::Gather { key: service::gather(input), last: input.u8() & 1 == 0 }
        }
        14 => Up::GatherWaits { key: service::gather(input) },
        15 => Up::Note(input.text()),
        16 => Up::Ended,
        17 => Up::Lost { node: NodeIdx(input.number32()), what: input.text() },
        _ => {
            let message = match input.below(3) {
                0 => LinkMsg::Heartbeat { received: input.number() },
                1 => LinkMsg::Resume { received: input.number() },
                _ => LinkMsg::GivenUp { why: input.text() },
            };
            return (Message::Link(message), payload);
        }
    };
    (Message::Up(message), payload)
}
