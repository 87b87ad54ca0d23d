//! Machines against anything: random events, proper and improper messages in any order, late, repeated and
//! for processes that do not exist. No panic, nothing after the end, numbered frames without gaps, one killing
//! at a time.
#![allow(clippy::unwrap_used, reason = "a test panics where it fails")]

use bytes::Bytes;
use proptest::prelude::*;
use rmpi_control::{
    DaemonAction, DaemonEvent, DaemonMachine, DaemonPolicy, HostEntry, JobAction, JobEvent, JobMachine,
    JobPolicy, LinkId, LinkKind, PlanFault, Time,
};
use rmpi_types::launch::{AppLaunch, EnvMerge, NodeEndpoints, StdioKind};
use rmpi_types::outcome::Abort;
use rmpi_types::spec::{OnFailure, Stdin};
use rmpi_types::{
    EndpointTable, JobId, LaunchFault, NodeId, NodeIdx, NodeLaunch, NodeReport, ProcId, Rank, RankEnd,
    RankEndpoint, RankExit, RankLaunch, RankSet, Stage, Topology,
};
use rmpi_wire::frame::{Kind, UNNAMED};
use rmpi_wire::msg::{Pulse, Stream};
use rmpi_wire::rank::RankRequest;
use rmpi_wire::service::{Answer, Domain, GatherKey, Group, OnLoss, Request as Service, Scope, Until};
use rmpi_wire::{Dest, Down, Frame, LinkMsg, Message, Origin, Up};
use std::collections::HashMap;
use std::time::Duration;

/// Numbers that decide what an event is.
type Dice = (u8, u8, u8, u16);

fn dice(most: usize) -> impl Strategy<Value = Vec<Dice>> {
    proptest::collection::vec(any::<Dice>(), 0..most)
}

fn proc(n: u8) -> ProcId {
    // Six ranks, and some processes that are not.
    let ns = rmpi_types::Namespace(u32::from(n > 250));
    ProcId { ns, ..ProcId::first(u32::from(n % 8)) }
}

fn stream(n: u8) -> Stream {
    if n.is_multiple_of(2) { Stream::Stdout } else { Stream::Stderr }
}

fn exit(n: u8, kind: u8) -> RankExit {
    RankExit {
        proc: proc(n),
        pid: 7,
        end: match kind % 3 {
            0 => RankEnd::Exited(0),
            1 => RankEnd::Exited(kind),
            _ => RankEnd::Signaled { signal: 9, core: false },
        },
        abort: (kind == 255).then(|| Abort::called(0, String::new())),
        stopped: kind.is_multiple_of(5),
        oom: false,
        last_stderr: vec!["x".repeat(usize::from(kind) * 4); usize::from(kind % 7)],
        wall_us: u64::from(kind) << (kind % 57),
    }
}

fn report() -> NodeReport {
    NodeReport {
        id: NodeId("x".into()),
        hostname: "h".into(),
        pid: 1,
        topology: Topology::flat(1),
        home: "/".into(),
        nofile: 1,
        wall_us: u64::MAX,
    }
}

fn launch(node: u32) -> NodeLaunch {
    let app = AppLaunch {
        program: "x".into(),
        args: Vec::new(),
        wdir: "/".into(),
        wdir_explicit: false,
        search: Vec::new(),
        merge: EnvMerge::Fill,
        env: Vec::new(),
        set: Vec::new(),
        edits: Vec::new(),
    };
    let rank = |r| RankLaunch { rank: Rank(r), app: 0, local_rank: r % 2, cpus: None, stdin: true };
    NodeLaunch {
        job: JobId([0; 16]),
        ns: ProcId::first(0),
        node: NodeIdx(node),
        nodes: 3,
        size: 6,
        universe: 6,
        host: "h".into(),
        apps: vec![app],
        ranks: vec![rank(node * 2), rank(node * 2 + 1)],
        layout: vec![(2, 3)],
        mpi: rmpi_types::launch::Mpi::default(),
        reached_at: None,
        ifaces: Vec::new(),
        port_range: None,
        key: [0; 32],
        data: rmpi_types::DataPlane::default(),
        oversubscribed: false,
        stdio: StdioKind::Pipe,
        kill_grace_ms: 500,
        drain_ms: 500,
        extras: Default::default(),
        output_credit: 0,
    }
}

fn endpoints(node: u32) -> NodeEndpoints {
    NodeEndpoints {
        node: NodeIdx(node),
        host: String::new(),
        addresses: Vec::new(),
        ranks: (0..2).map(|r| RankEndpoint::plain(Rank(node * 2 + r), 1)).collect(),
        spare_port: None,
    }
}

fn request(n: u8, m: u8) -> RankRequest {
    match n % 7 {
        0 => RankRequest::Put { key: format!("k{}", m % 4) },
        1 | 2 => RankRequest::Get {
            rank: Rank(u32::from(m % 8)),
            key: format!("k{}", m % 4),
            wait_ms: u32::from(m),
        },
        3 => RankRequest::Fence,
        4 => RankRequest::Hello,
        5 => RankRequest::Finalize,
        _ => RankRequest::Abort { code: i32::from(m), message: "m".into() },
    }
}

fn domain(n: u8) -> Domain {
    [Domain::Native, Domain::Pmi, Domain::Pmix][usize::from(n % 3)]
}

fn key(n: u8) -> GatherKey {
    let group = match n % 4 {
        0 | 1 => Group::all(proc(0)),
        2 => Group::ranks(proc(0), RankSet::range(0, u32::from(n % 6))).unwrap(),
        _ => Group::ranks(proc(0), [0, 5, 70].map(Rank).into_iter().collect()).unwrap(),
    };
    let loss = if n % 8 < 6 { OnLoss::Fail } else { OnLoss::Skip };
    GatherKey { domain: domain(n), name: vec![n % 2], group, loss }
}

fn service(n: u8, m: u8) -> Service {
    let name = vec![m % 3];
    match n % 8 {
        0 | 1 => Service::Ask { of: proc(m), domain: domain(n), wait_ms: u32::from(m) },
        2 => Service::Publish { domain: domain(n), name, scope: Scope::Namespace, until: Until::Process },
        3 => Service::Publish { domain: domain(n), name, scope: Scope::All, until: Until::FirstRead },
        4 => Service::Lookup { domain: domain(n), name, wait_ms: u32::from(m) },
        5 => Service::Unpublish { domain: domain(n), name, owner_only: m > 100 },
        6 => Service::Notify { domain: domain(n), scope: Scope::All },
        _ => Service::Watch,
    }
}

fn answer(n: u8) -> Answer {
    match n % 6 {
        0 => Answer::Done,
        1 => Answer::Value,
        2 => Answer::Missing,
        3 => Answer::Taken,
        4 => Answer::Lost(proc(n)),
        _ => Answer::Refused("no".into()),
    }
}

fn up_message(step: &mut u32, node: u32, (kind, a, b, n): Dice) -> Up {
    if kind < 120 {
        // What a good daemon says next.
        *step += 1;
        let last = u8::try_from(node * 2).unwrap();
        return match *step {
            1 => Up::Report(Box::new(report())),
            2 => Up::Prepared(endpoints(node)),
            3 => Up::Started(vec![(proc(last), 1), (proc(last + 1), 2)]),
            k if kind < 100 || k < 8 => match a % 5 {
                0 | 1 => {
                    Up::Output { proc: proc(last + b % 2), stream: stream(b), last: n.is_multiple_of(50) }
                }
                2 => Up::StdinCredit { proc: proc(last), bytes: u32::from(n) },
                3 => Up::Request { by: proc(last), id: u64::from(n), request: service(b, b) },
                _ => Up::Gather { key: key(b), last: n % 2 == 0 },
            },
            k if k % 3 < 2 => Up::Exited { exit: exit(last + u8::try_from(k % 3).unwrap(), a) },
            _ => Up::Ended,
        };
    }
    match kind % 18 {
        0 => Up::Report(Box::new(report())),
        1 => Up::Prepared(endpoints(u32::from(a % 4))),
        2 => Up::Failed(LaunchFault::fatal(Stage::Exec, "no")),
        3 => Up::Started(vec![(proc(a), 1)]),
        4 => Up::Output { proc: proc(a), stream: stream(b), last: b > 200 },
        5 => Up::StdinCredit { proc: proc(a), bytes: u32::from(n) },
        6 => Up::Gone { exit: exit(a, b) },
        7 => Up::Exited { exit: exit(a, b) },
        8 => Up::Abort { proc: proc(a), code: i32::from(b), message: "m".repeat(usize::from(n)) },
        9 => Up::Request { by: proc(a), id: u64::from(n), request: service(b, a) },
        10 => Up::Answer { asker: NodeIdx(u32::from(a % 4)), id: u64::from(n), answer: answer(b) },
        11 => Up::Gather { key: key(a), last: b % 2 == 0 },
        12 => Up::GatherWaits { key: key(a) },
        13 => Up::Lost { node: NodeIdx(u32::from(a % 4)), what: "w".into() },
        14 => Up::Note("n".repeat(usize::from(n))),
        15 | 16 => Up::Stacks { proc: proc(a) },
        _ => Up::Ended,
    }
}

fn local(n: u8, a: u8) -> LinkMsg {
    match n % 4 {
        0 => LinkMsg::Heartbeat { received: u64::from(a % 8) },
        1 => LinkMsg::Resume { received: u64::from(a % 8) },
        2 => LinkMsg::YouAre { node: NodeIdx(u32::from(a % 4)), pulse: Pulse::default() },
        _ => LinkMsg::GivenUp { why: "w".repeat(usize::from(a)) },
    }
}

fn frame(message: Message, origin: Origin, dest: Dest, seq: u64) -> Frame {
    let mut frame = message.frame(origin, dest, Bytes::from_static(b"payload")).unwrap();
    frame.seq = if frame.kind == Kind::Link { 0 } else { seq };
    frame
}

/// Numbered frames leave in order, each once.
fn in_order(seen: &mut HashMap<LinkId, u64>, link: LinkId, frame: &Frame) {
    if frame.kind != Kind::Link {
        let last = seen.entry(link).or_insert(0);
        assert!(frame.seq <= *last + 1, "a gap on {link:?}: {} after {last}", frame.seq);
        *last = frame.seq.max(*last);
    }
}

fn job_event(dice: Dice, steps: &mut [u32; 3], seqs: &mut [u64; 3], links: &mut [LinkId; 3]) -> JobEvent {
    let (kind, a, b, n) = dice;
    let node = usize::from(a % 3);
    let link = links[if node == 2 { 0 } else { node }];
    match kind {
        0..=150 => {
            let origin = if b == 9 { UNNAMED } else { NodeIdx(u32::try_from(node).unwrap()) };
            let message =
                up_message(&mut steps[node], u32::try_from(node).unwrap(), (b, n as u8, (n >> 8) as u8, n));
            let wire = if node == 2 { 0 } else { node };
            seqs[wire] += u64::from(kind != 1);
            let dest = if kind == 2 { Dest::node(NodeIdx(1)) } else { Dest::Launcher };
            JobEvent::Frame {
                link,
                frame: frame(Message::Up(message), Origin::Node(origin), dest, seqs[wire]),
            }
        }
        151..=158 => JobEvent::Frame {
            link,
            frame: frame(Message::Link(local(b, a)), Origin::Launcher, Dest::Neighbour, 0),
        },
        159..=190 => {
            let kind = if node == 1 { LinkKind::Pipe } else { LinkKind::Dialled };
            JobEvent::LinkUp { link, node: NodeIdx(u32::from(a % 4)), kind }
        }
        191 => JobEvent::LinkEof { link, what: "gone".into() },
        192 => JobEvent::LaunchFailed {
            node: NodeIdx(u32::from(b % 4)),
            fault: LaunchFault::fatal(Stage::Tcp, "no"),
        },
        193..=194 => JobEvent::Reaching { node: NodeIdx(u32::from(b % 5)), stage: Stage::Auth, last: None },
        195..=204 => JobEvent::Tick,
        205..=225 => JobEvent::Planned(Ok((0..3).map(|i| (NodeIdx(i), launch(i))).collect())),
        226 => JobEvent::Planned(Ok(vec![(NodeIdx(u32::from(b)), launch(u32::from(a % 3)))])),
        227 => JobEvent::Planned(Err(PlanFault { code: 2, message: "no".into() })),
        228..=235 => JobEvent::Stdin(Bytes::from(vec![0; usize::from(n)])),
        236..=238 => JobEvent::StdinEof,
        239..=250 => JobEvent::Written { proc: proc(a), stream: stream(b), bytes: u32::from(n) * 4 },
        251..=253 => JobEvent::Signal([1, 2, 15, 20, 18, 10][usize::from(b % 6)]),
        254 if b % 2 == 0 => JobEvent::Cancel,
        254 => JobEvent::PodGrace(std::time::Duration::from_millis(n.into())),
        255 => JobEvent::BrokenPipe,
    }
}

fn down_message(step: &mut u32, (kind, a, b, n): Dice) -> Down {
    if kind < 60 {
        *step += 1;
        match *step {
            1 => return Down::Prepare(Box::new(launch(0))),
            2 => return Down::Start(EndpointTable { nodes: vec![endpoints(0)] }),
            _ => {}
        }
    }
    match kind % 24 {
        0 => Down::Prepare(Box::new(launch(u32::from(a % 3)))),
        1 => Down::Start(EndpointTable::default()),
        2..=4 => Down::Stdin { proc: proc(a % 2) },
        5..=8 => Down::Credit { proc: proc(a), stream: stream(b), bytes: u32::from(n) << 16 },
        9..=10 => Down::Signal { signal: i32::from(b), of: (a > 1).then(|| ProcId::first(u32::from(a))) },
        11 => Down::Stop {
            signal: if b > 128 { 2 } else { 15 },
            grace_ms: u32::from(n % 600),
            name_absent: b.is_multiple_of(2),
        },
        12 if b % 4 == 0 => Down::File { number: u32::from(a % 3), last: n % 2 == 0 },
        12 => Down::Kill,
        13..=15 => Down::Answer { id: u64::from(n % 8), answer: answer(b) },
        16..=17 => Down::Gathered { key: key(a), serial: u64::from(n), last: n % 2 == 0 },
        18 => Down::GatherLost { key: key(a), lost: proc(b) },
        19..=20 => Down::Asked {
            asker: NodeIdx(u32::from(a % 4)),
            id: u64::from(n),
            of: proc(b),
            domain: domain(n as u8),
            wait_ms: u32::from(n % 300),
        },
        21 if b < 128 => Down::Notified { domain: domain(b), scope: Scope::All, by: proc(a) },
        21 => Down::RankEnded { proc: proc(a), end: exit(a, b).end },
        22 => Down::Pause,
        _ => Down::Finish,
    }
}

fn daemon_event(dice: Dice, step: &mut u32, seqs: &mut [u64; 3]) -> DaemonEvent {
    let (kind, a, b, n) = dice;
    let link = LinkId(u32::from(a % 2));
    match kind {
        0..=90 => {
            seqs[2] += u64::from(kind != 1);
            let nodes = RankSet::range(0, if kind == 2 { u32::MAX } else { u32::from(b % 3) });
            let message = Message::Down(down_message(step, (a, b, n as u8, n)));
            DaemonEvent::FromUp(frame(message, Origin::Launcher, Dest::Nodes(nodes), seqs[2]))
        }
        91..=93 => {
            DaemonEvent::FromUp(frame(Message::Link(local(b, 0)), Origin::Launcher, Dest::Neighbour, 0))
        }
        94 if b > 200 => DaemonEvent::HostEnds,
        94 => DaemonEvent::UpEof,
        95..=97 => DaemonEvent::UpResumed,
        98..=110 => {
            seqs[usize::from(a % 2)] += 1;
            let message = Message::Up(up_message(&mut 9, 1, (b, n as u8, a, n)));
            let origin = Origin::Node(NodeIdx(1 + u32::from(a % 2)));
            DaemonEvent::FromChild {
                link,
                frame: frame(message, origin, Dest::Launcher, seqs[usize::from(a % 2)]),
            }
        }
        111..=114 => DaemonEvent::FromChild {
            link,
            frame: frame(Message::Link(local(b, 0)), Origin::Launcher, Dest::Neighbour, 0),
        },
        115..=120 => DaemonEvent::ChildUp { link, node: NodeIdx(1 + u32::from(a % 2)) },
        121..=122 => DaemonEvent::ChildEof { link },
        123..=135 => DaemonEvent::Tick,
        136..=150 => DaemonEvent::Prepared(if b > 250 {
            Err(LaunchFault::fatal(Stage::Exec, "no"))
        } else {
            Ok(endpoints(0))
        }),
        151..=165 => DaemonEvent::Spawned(if b > 250 {
            Err(LaunchFault::fatal(Stage::Exec, "no"))
        } else {
            Ok(vec![(proc(0), 1), (proc(1), 2)])
        }),
        166..=185 => DaemonEvent::Output {
            proc: proc(a % 3),
            stream: stream(b),
            bytes: Bytes::from(vec![b'x'; usize::from(n) * 3]),
            last: n % 8 == 0,
        },
        186..=190 => DaemonEvent::StdinTaken { proc: proc(a), bytes: u32::from(n) },
        191 | 192 => DaemonEvent::StdinClosed { proc: proc(a) },
        193 => DaemonEvent::Stacks { proc: proc(a), text: Bytes::from_static(b"state\n") },
        194..=200 => DaemonEvent::RankExited(exit(a % 3, b)),
        201..=240 => DaemonEvent::RankRequest {
            proc: proc(a % 3),
            id: u64::from(n % 8),
            request: request(b, a),
            payload: Bytes::from(vec![1; usize::from(n)]),
        },
        241 => DaemonEvent::RankGone { proc: proc(a) },
        242 => DaemonEvent::Join {
            token: n.into(),
            by: proc(a % 3),
            key: key(b),
            data: Bytes::from_static(b"d"),
        },
        243 if b < 200 => DaemonEvent::Request {
            token: n.into(),
            by: proc(a % 3),
            request: service(b, a),
            payload: Bytes::new(),
        },
        243 => DaemonEvent::Answer {
            asker: NodeIdx(a.into()),
            id: n.into(),
            answer: answer(b),
            payload: Bytes::new(),
        },
        244..=250 => DaemonEvent::Empty,
        251..=255 => DaemonEvent::Report(Box::new(report())),
    }
}

/// What brings a job of three nodes, the third behind the first, to running ranks.
fn launched_job(steps: &mut [u32; 3], seqs: &mut [u64; 3]) -> Vec<JobEvent> {
    let mut events = Vec::new();
    for step in 0..3 {
        for node in 0..3u32 {
            let wire = if node == 2 { 0 } else { node as usize };
            seqs[wire] += 1;
            let message = Message::Up(up_message(&mut steps[node as usize], node, (0, 0, 0, 0)));
            let frame = frame(message, Origin::Node(NodeIdx(node)), Dest::Launcher, seqs[wire]);
            events.push(JobEvent::Frame { link: LinkId(u32::try_from(wire).unwrap()), frame });
        }
        if step == 0 {
            events.push(JobEvent::Planned(Ok((0..3).map(|i| (NodeIdx(i), launch(i))).collect())));
        }
    }
    events
}

/// What brings a daemon to running ranks.
fn launched_daemon(step: &mut u32, seqs: &mut [u64; 3]) -> Vec<DaemonEvent> {
    let mut down = || {
        seqs[2] += 1;
        let message = Message::Down(down_message(step, (0, 0, 0, 0)));
        DaemonEvent::FromUp(frame(message, Origin::Launcher, Dest::node(NodeIdx(0)), seqs[2]))
    };
    let (prepare, start) = (down(), down());
    let pids = vec![(proc(0), 1), (proc(1), 2)];
    vec![prepare, DaemonEvent::Prepared(Ok(endpoints(0))), start, DaemonEvent::Spawned(Ok(pids))]
}

#[test]
fn the_prefixes_launch() {
    let host = |i: u32, parent| HostEntry { name: format!("n{i}"), parent };
    let hosts = vec![host(0, None), host(1, None), host(2, Some(NodeIdx(0)))];
    let mut machine = JobMachine::new(JobPolicy::default(), hosts, Time::ZERO);
    let mut out = Vec::new();
    for i in 0..2 {
        let up = JobEvent::LinkUp { link: LinkId(i), node: NodeIdx(i), kind: LinkKind::Dialled };
        machine.on(Time::ZERO, up, &mut out);
    }
    for event in launched_job(&mut [0; 3], &mut [0; 3]) {
        machine.on(Time::ZERO, event, &mut out);
    }
    let started =
        |a: &&JobAction| matches!(a, JobAction::Event(rmpi_control::JobEventOut::RankStarted { .. }));
    assert_eq!(out.iter().filter(started).count(), 6);
    let mut daemon =
        DaemonMachine::new(DaemonPolicy { node: Some(NodeIdx(0)), ..DaemonPolicy::default() }, Time::ZERO);
    let mut out = Vec::new();
    for event in launched_daemon(&mut 0, &mut [0; 3]) {
        daemon.on(Time::ZERO, event, &mut out);
    }
    assert_eq!(out.iter().filter(|a| matches!(a, DaemonAction::Read { .. })).count(), 4);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_job_takes_anything(dice in dice(250), launched in any::<bool>(), goes_on in any::<bool>(), all in any::<bool>()) {
        let host = |i: u32, parent| HostEntry { name: format!("n{i}"), parent };
        let hosts = vec![host(0, None), host(1, None), host(2, Some(NodeIdx(0)))];
        let policy = JobPolicy {
            on_failure: if goes_on { OnFailure::Continue } else { OnFailure::Stop },
            stdin: if all { Stdin::All } else { Stdin::Rank(Rank(1)) },
            wall_at_zero_us: u64::from(goes_on) * u64::MAX,
            ..JobPolicy::default()
        };
        let mut machine = JobMachine::new(policy, hosts, Time::ZERO);
        let (mut steps, mut seqs, mut links) = ([0; 3], [0; 3], [LinkId(0), LinkId(1), LinkId(2)]);
        let (mut now, mut sent, mut over) = (Time::ZERO, HashMap::new(), false);
        // Begin as a good driver does, so that deep states are reached.
        let ups = [0, 1].map(|i| JobEvent::LinkUp { link: LinkId(i), node: NodeIdx(i), kind: LinkKind::Dialled });
        let prefix = if launched { launched_job(&mut steps, &mut seqs) } else { Vec::new() };
        let prefix = ups.into_iter().chain(prefix).map(|e| (0, e));
        let events = dice.iter().map(|d| (u64::from(d.3 % 300), job_event(*d, &mut steps, &mut seqs, &mut links)));
        for (pause, event) in prefix.chain(events) {
            now = now + Duration::from_millis(pause);
            let mut out = Vec::new();
            machine.on(now, event, &mut out);
            prop_assert!(!over || out.is_empty(), "spoke after its end: {out:?}");
            for action in &out {
                match action {
                    JobAction::Send { link, frame } => in_order(&mut sent, *link, frame),
                    JobAction::Done(_) => over = true,
                    _ => {}
                }
            }
            prop_assert!(!over || matches!(out.last(), Some(JobAction::Done(_)) | None));
            prop_assert!(!over || machine.next_timer().is_none());
            prop_assert!(machine.stdin_unread() < 1 << 40);
        }
    }

    #[test]
    fn a_daemon_takes_anything(dice in dice(250), launched in any::<bool>(), dialled in any::<bool>()) {
        let up = if dialled { LinkKind::Dialled } else { LinkKind::Pipe };
        let policy = DaemonPolicy { node: Some(NodeIdx(0)), up, ..DaemonPolicy::default() };
        let mut machine = DaemonMachine::new(policy, Time::ZERO);
        let (mut step, mut seqs) = (0, [0; 3]);
        let (mut now, mut sent, mut over, mut killing) = (Time::ZERO, HashMap::new(), false, false);
        let prefix = if launched { launched_daemon(&mut step, &mut seqs) } else { Vec::new() };
        let events = dice.iter().map(|d| (u64::from(d.3 % 200), daemon_event(*d, &mut step, &mut seqs)));
        for (pause, event) in prefix.into_iter().map(|e| (0, e)).chain(events) {
            now = now + Duration::from_millis(pause);
            killing &= !matches!(event, DaemonEvent::Empty);
            let mut out = Vec::new();
            machine.on(now, event, &mut out);
            prop_assert!(!over || out.is_empty(), "spoke after it left: {out:?}");
            for action in &out {
                match action {
                    DaemonAction::SendUp(frame) => in_order(&mut sent, LinkId(u32::MAX), frame),
                    DaemonAction::SendChild { link, frame } if frame.kind != Kind::Link => in_order(&mut sent, *link, frame),
                    DaemonAction::CloseChild { link } => {
                        sent.remove(link);
                    }
                    DaemonAction::KillAll => prop_assert!(!std::mem::replace(&mut killing, true)),
                    DaemonAction::Exit => over = true,
                    _ => {}
                }
            }
            prop_assert_eq!(machine.next_timer().is_none(), over);
        }
    }
}
