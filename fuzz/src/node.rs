//! A daemon's machine under arbitrary frames, with a driver that keeps to its contract (it answers only what
//! was asked, tells every rank's end before `Empty`). Rules held: nothing after `Exit`; `KillAll` not repeated
//! while unanswered; every frame sent is well-formed and numbered without gaps; and when the launcher goes
//! away the machine always comes to its `Exit`.

use crate::{Input, service};
use bytes::Bytes;
use rmpi_control::{DaemonAction, DaemonEvent, DaemonMachine, DaemonPolicy, LinkId, LinkKind, Time};
use rmpi_types::launch::{AppLaunch, EnvMerge, NodeEndpoints};
use rmpi_types::{
    EndpointTable, JobId, LaunchFault, NodeIdx, NodeLaunch, ProcId, Rank, RankEnd, RankEndpoint, RankExit,
    RankLaunch, RankSet, Stage,
};
use rmpi_wire::frame::Kind;
use rmpi_wire::msg::{Pulse, Stream};
use rmpi_wire::rank::RankRequest;
use rmpi_wire::{Dest, Down, Frame, FrameDecoder, LinkMsg, Message, Origin, Up};
use std::time::Duration;

/// Events of one run, at most.
const STEPS: usize = 400;
/// Events in which a machine without a launcher must come to its end.
const ENDING: usize = 2000;

/// What one node is told to start: ranks `first..first + count` of `size`.
pub(crate) fn launch(node: u32, nodes: u32, first: u32, count: u32, size: u32) -> NodeLaunch {
    let app = AppLaunch {
        program: "p".into(),
        args: Vec::new(),
        wdir: "/".into(),
        wdir_explicit: false,
        search: Vec::new(),
        merge: EnvMerge::default(),
        env: Vec::new(),
        set: Vec::new(),
        edits: Vec::new(),
    };
    let rank =
        |i| RankLaunch { rank: Rank(first + i), app: 0, local_rank: i, cpus: None, stdin: first + i == 0 };
    NodeLaunch {
        job: JobId::default(),
        ns: ProcId::first(0),
        node: NodeIdx(node),
        nodes,
        size,
        universe: size,
        host: format!("n{node}"),
        apps: vec![app],
        ranks: (0..count).map(rank).collect(),
        layout: vec![(count, nodes)],
        mpi: rmpi_types::launch::Mpi::default(),
        reached_at: None,
        ifaces: Vec::new(),
        port_range: None,
        key: [7; 32],
        data: rmpi_types::DataPlane::default(),
        oversubscribed: false,
        stdio: rmpi_types::launch::StdioKind::Pipe,
        kill_grace_ms: 5000,
        drain_ms: 5000,
        extras: Default::default(),
        output_credit: 65536,
    }
}

/// Where the ranks of a launch listen.
pub(crate) fn endpoints(launch: &NodeLaunch) -> NodeEndpoints {
    NodeEndpoints {
        node: launch.node,
        host: launch.host.clone(),
        addresses: vec![std::net::Ipv4Addr::LOCALHOST.into()],
        ranks: launch.ranks.iter().map(|r| RankEndpoint::plain(r.rank, 9)).collect(),
        spare_port: None,
    }
}

/// How a rank ended.
pub(crate) fn exit(proc: ProcId, code: u8) -> RankExit {
    RankExit {
        proc,
        pid: 1,
        end: RankEnd::Exited(code),
        abort: None,
        stopped: false,
        oom: false,
        last_stderr: Vec::new(),
        wall_us: 0,
    }
}

/// Output or error stream.
pub(crate) fn stream(input: &mut Input<'_>) -> Stream {
    if input.u8() & 1 == 0 { Stream::Stdout } else { Stream::Stderr }
}

/// A process id that is mostly one of the first ranks.
pub(crate) fn proc(input: &mut Input<'_>) -> ProcId {
    match input.u8() {
        255 => ProcId { ns: rmpi_types::Namespace(input.u32()), ..ProcId::first(input.number32()) },
        rank => ProcId::first(u32::from(rank % 8)),
    }
}

/// A key of a few.
fn key(input: &mut Input<'_>) -> String {
    match input.below(4) {
        0 => input.text(),
        n => format!("k{n}"),
    }
}

/// What a rank's library asks.
pub(crate) fn request(input: &mut Input<'_>) -> RankRequest {
    match input.below(6) {
        0 => RankRequest::Hello,
        1 => RankRequest::Put { key: key(input) },
        2 => RankRequest::Get { rank: Rank(input.number32()), key: key(input), wait_ms: input.number32() },
        3 => RankRequest::Fence,
        4 => RankRequest::Abort { code: input.number32().cast_signed(), message: input.text() },
        _ => RankRequest::Finalize,
    }
}

/// Key-value data as a fence carries it, or anything else.
pub(crate) fn entries(input: &mut Input<'_>) -> Bytes {
    if input.u8() & 1 == 0 {
        return Bytes::copy_from_slice(input.piece());
    }
    let mut out = Vec::new();
    for _ in 0..input.below(4) {
        let (rank, key) = (Rank(input.number32()), key(input));
        rmpi_wire::rank::encode_entry(rank, &key, input.piece(), &mut out);
    }
    out.into()
}

/// A frame around a message, as a hostile neighbour might make it.
pub(crate) fn frame(message: &Message, origin: Origin, dest: Dest, payload: Bytes, seq: u64) -> Frame {
    match message.frame(origin, dest, payload) {
        Ok(frame) => Frame { seq, ..frame },
        Err(e) => panic!("{message:?} does not encode: {e}"),
    }
}

/// What comes out of arbitrary bytes; with `numbered` they get the sequence numbers that are due.
pub(crate) fn raw_frames(bytes: &[u8], numbered: bool, seq: &mut u64) -> Vec<Frame> {
    let mut decoder = FrameDecoder::default();
    decoder.push(bytes);
    let mut frames = Vec::new();
    while let Ok(Some(mut frame)) = decoder.next_frame() {
        if numbered && frame.kind != Kind::Link {
            *seq += 1;
            frame.seq = *seq;
        }
        frames.push(frame);
    }
    frames
}

/// A frame that was sent is well-formed.
pub(crate) fn check_sent(frame: &Frame) {
    let mut bytes = Vec::new();
    if let Err(e) = frame.encode(&mut bytes) {
        panic!("{frame:?} does not encode: {e}");
    }
}

struct Driver {
    machine: DaemonMachine,
    kind: LinkKind,
    now: Time,
    down_seq: u64,
    child_seq: [u64; 4],
    sent: u64,
    preparing: Option<Box<NodeLaunch>>,
    spawning: bool,
    killing: bool,
    /// Ranks told to run: their process, and whether it runs.
    ranks: Vec<(ProcId, bool)>,
    exited: bool,
}

/// A script of frames and local events for a daemon's machine.
pub fn daemon_machine(data: &[u8]) {
    let mut input = Input::new(data);
    let flags = input.u8();
    let kind = if flags & 1 == 0 { LinkKind::Pipe } else { LinkKind::Dialled };
    let node = (flags & 2 == 0).then_some(NodeIdx(0));
    let policy = DaemonPolicy { node, up: kind, ..DaemonPolicy::default() };
    let mut driver = Driver {
        machine: DaemonMachine::new(policy, Time::ZERO),
        kind,
        now: Time::ZERO,
        down_seq: 0,
        child_seq: [0; 4],
        sent: 0,
        preparing: None,
        spawning: false,
        killing: false,
        ranks: Vec::new(),
        exited: false,
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
    fn on(&mut self, event: DaemonEvent) {
        let mut out = Vec::new();
        self.machine.on(self.now, event, &mut out);
        assert!(out.is_empty() || !self.exited, "actions after the end: {out:?}");
        for action in out {
            assert!(!self.exited, "{action:?} after Exit");
            match action {
                DaemonAction::SendUp(frame) => {
                    check_sent(&frame);
                    if self.kind == LinkKind::Pipe && frame.kind != Kind::Link {
                        self.sent += 1;
                        assert_eq!(frame.seq, self.sent);
                    }
                }
                DaemonAction::SendChild { frame, .. } => check_sent(&frame),
                DaemonAction::Prepare(launch) => self.preparing = Some(launch),
                DaemonAction::Spawn(_) => self.spawning = true,
                DaemonAction::KillAll => {
                    assert!(!self.killing, "KillAll while one is unanswered");
                    self.killing = true;
                }
                DaemonAction::Exit => self.exited = true,
                DaemonAction::WriteStdin { bytes, .. } => assert!(!bytes.is_empty()),
                DaemonAction::CloseChild { .. }
                | DaemonAction::Keep { .. }
                | DaemonAction::Resize(_)
                | DaemonAction::CloseStdin { .. }
                | DaemonAction::Read { .. }
                | DaemonAction::Signal { .. }
                | DaemonAction::Describe { .. }
                | DaemonAction::ReplyRank { .. }
                | DaemonAction::Answered { .. }
                | DaemonAction::Gathered { .. }
                | DaemonAction::Asked { .. }
                | DaemonAction::Space(_)
                | DaemonAction::Notified { .. }
                | DaemonAction::RankEnded { .. } => {}
            }
        }
        assert!(!self.exited || self.machine.next_timer().is_none());
    }

    fn step(&mut self, input: &mut Input<'_>) {
        match input.below(21) {
            0..=4 => self.launcher_says(input),
            5 => {
                let numbered = input.u8() & 1 == 0;
                for frame in raw_frames(input.piece(), numbered, &mut self.down_seq) {
                    self.on(DaemonEvent::FromUp(frame));
                }
            }
            6 => self.child_says(input),
            7 => self.on(DaemonEvent::ChildUp {
                link: LinkId(u32::from(input.below(4))),
                node: NodeIdx(input.number32()),
            }),
            8 => self.on(DaemonEvent::ChildEof { link: LinkId(u32::from(input.below(4))) }),
            9 => self.on(DaemonEvent::UpEof),
            10 if self.kind == LinkKind::Dialled => self.on(DaemonEvent::UpResumed),
            11 => {
                let wait = Duration::from_millis(u64::from(input.u16()));
                self.now = self.now + wait;
                self.on(DaemonEvent::Tick);
            }
            12 => self.prepared(!input.one_in(8)),
            13 => self.spawned(!input.one_in(8)),
            14 => {
                let (proc, stream, bytes) = (proc(input), stream(input), input.piece());
                let last = input.one_in(4);
                self.on(DaemonEvent::Output { proc, stream, bytes: Bytes::copy_from_slice(bytes), last });
            }
            15 => {
                let (proc, bytes) = (proc(input), input.number32());
                self.on(DaemonEvent::StdinTaken { proc, bytes });
            }
            16 => self.on(DaemonEvent::StdinClosed { proc: proc(input) }),
            17 => self.rank_ends(usize::from(input.u8()), input.u8()),
            18 => {
                let (proc, id, request) = (proc(input), input.number(), request(input));
                let payload = Bytes::copy_from_slice(input.piece());
                self.on(DaemonEvent::RankRequest { proc, id, request, payload });
            }
            19 => self.server_says(input),
            _ => self.killed(),
        }
    }

    fn server_says(&mut self, input: &mut Input<'_>) {
        let (token, by) = (input.number(), proc(input));
        let event = match input.below(4) {
            0 | 1 => {
                let data = entries(input);
                DaemonEvent::Join { token, by, key: service::gather(input), data }
            }
            2 => {
                let request = service::request(input);
                DaemonEvent::Request { token, by, request, payload: Bytes::copy_from_slice(input.piece()) }
            }
            _ => {
                let (asker, answer) = (service::node(input), service::answer(input));
                DaemonEvent::Answer { asker, id: token, answer, payload: Bytes::new() }
            }
        };
        self.on(event);
    }

    fn launcher_says(&mut self, input: &mut Input<'_>) {
        let (message, payload) = down(input);
        let mut seq = 0;
        if matches!(message, Message::Down(_)) {
            self.down_seq += 1;
            seq = self.down_seq;
        }
        let dest = match input.below(8) {
            0 => Dest::Nodes(RankSet::range(input.number32(), input.number32())),
            1 => Dest::Launcher,
            2..=4 => Dest::Neighbour,
            _ => Dest::node(NodeIdx(0)),
        };
        self.on(DaemonEvent::FromUp(frame(&message, Origin::Launcher, dest, payload, seq)));
    }

    fn child_says(&mut self, input: &mut Input<'_>) {
        let link = input.below(4);
        let seq = &mut self.child_seq[usize::from(link)];
        let link = LinkId(u32::from(link));
        let frames = match input.below(3) {
            0 => raw_frames(input.piece(), true, seq),
            1 => {
                let message = Message::Link(link_msg(input));
                vec![frame(&message, Origin::Launcher, Dest::Neighbour, Bytes::new(), 0)]
            }
            _ => {
                *seq += 1;
                let origin = Origin::Node(NodeIdx(input.number32()));
                let message = match input.below(3) {
                    0 => Up::Lost { node: NodeIdx(input.number32()), what: input.text() },
                    _ => Up::Ended,
                };
                vec![frame(&Message::Up(message), origin, Dest::Launcher, Bytes::new(), *seq)]
            }
        };
        for frame in frames {
            self.on(DaemonEvent::FromChild { link, frame });
        }
    }

    fn prepared(&mut self, good: bool) {
        let Some(launch) = self.preparing.take() else { return };
        let result = if good {
            self.ranks = launch.ranks.iter().map(|r| (ProcId { rank: r.rank, ..launch.ns }, false)).collect();
            Ok(endpoints(&launch))
        } else {
            Err(LaunchFault::fatal(Stage::Exec, "no such program"))
        };
        self.on(DaemonEvent::Prepared(result));
    }

    fn spawned(&mut self, good: bool) {
        if !std::mem::take(&mut self.spawning) {
            return;
        }
        let result = if good {
            self.ranks.iter_mut().for_each(|r| r.1 = true);
            Ok(self.ranks.iter().map(|r| (r.0, 1)).collect())
        } else {
            Err(LaunchFault::fatal(Stage::Exec, "fork failed"))
        };
        self.on(DaemonEvent::Spawned(result));
    }

    fn rank_ends(&mut self, index: usize, code: u8) {
        let count = self.ranks.len().max(1);
        if let Some((proc, runs)) = self.ranks.get_mut(index % count)
            && std::mem::take(runs)
        {
            let proc = *proc;
            self.on(DaemonEvent::RankExited(exit(proc, code)));
        }
    }

    fn killed(&mut self) {
        if !self.killing {
            return;
        }
        for i in 0..self.ranks.len() {
            self.rank_ends(i, 1);
        }
        self.killing = false;
        self.on(DaemonEvent::Empty);
    }

    /// The launcher goes away and stays away; the driver does what it is asked.
    fn end(&mut self) {
        self.on(DaemonEvent::UpEof);
        for _ in 0..ENDING {
            if self.exited {
                return;
            }
            if self.preparing.is_some() {
                self.prepared(true);
            } else if self.spawning {
                self.spawned(true);
            } else if self.killing {
                self.killed();
            } else {
                let Some(at) = self.machine.next_timer() else { break };
                self.now = self.now.max(at);
                self.on(DaemonEvent::Tick);
            }
        }
        assert!(self.exited, "without its launcher the daemon stays: {:?}", self.machine);
    }
}

fn link_msg(input: &mut Input<'_>) -> LinkMsg {
    match input.below(4) {
        0 => LinkMsg::Heartbeat { received: input.number() },
        1 => LinkMsg::Resume { received: input.number() },
        2 => LinkMsg::YouAre {
            node: NodeIdx(input.number32()),
            pulse: Pulse {
                period_ms: 500 + input.number32() % 20_000,
                lost_ms: 1_000 + input.number32() % 60_000,
            },
        },
        _ => LinkMsg::GivenUp { why: input.text() },
    }
}

/// A message from above and its payload.
fn down(input: &mut Input<'_>) -> (Message, Bytes) {
    let mut payload = Bytes::new();
    let message = match input.below(14) {
        0 => {
            let (first, count) = (u32::from(input.below(3)), u32::from(input.below(5)));
            let mut launch = launch(0, 2, first, count, first + count + u32::from(input.below(3)));
            launch.output_credit = input.number32();
            launch.drain_ms = input.number32();
            Down::Prepare(Box::new(launch))
        }
        1 => Down::Start(EndpointTable::default()),
        2 => {
            payload = Bytes::copy_from_slice(input.piece());
            Down::Stdin { proc: proc(input) }
        }
        3 => Down::Credit { proc: proc(input), stream: stream(input), bytes: input.number32() },
        4 => Down::Signal { signal: i32::from(input.u8()), of: (input.u8() > 128).then(|| ProcId::first(0)) },
        5 => Down::Stop {
            signal: i32::from(input.u8()),
            grace_ms: input.number32(),
            name_absent: input.u8() & 1 == 1,
        },
        6 if input.one_in(4) => {
            payload = Bytes::copy_from_slice(input.piece());
            Down::File { number: u32::from(input.u8()), last: input.u8() & 1 == 0 }
        }
        6 => Down::Kill,
        7 => {
            payload = Bytes::copy_from_slice(input.piece());
            Down::Answer { id: input.number(), answer: service::answer(input) }
        }
        8 => {
            payload = entries(input);
            let key = service::gather(input);
            match input.one_in(4) {
                true => Down::GatherLost { key, lost: proc(input) },
                false => Down::Gathered { key, serial: input.number(), last: input.u8() & 1 == 0 },
            }
        }
        9 => match service::request(input) {
            service::Request::Ask { of, domain, wait_ms } => {
                payload = Bytes::copy_from_slice(input.piece());
                Down::Asked { asker: service::node(input), id: input.number(), of, domain, wait_ms }
            }
            service::Request::Notify { domain, scope } => Down::Notified { domain, scope, by: proc(input) },
            _ => Down::RankEnded { proc: proc(input), end: RankEnd::Exited(input.u8()) },
        },
        10 => Down::Pause,
        11 => Down::Finish,
        _ => return (Message::Link(link_msg(input)), payload),
    };
    (Message::Down(message), payload)
}
