//! The bytes of every kind of message, so that a change of the wire is seen and the protocol's version raised
//! with it. To accept a change on purpose: `RMPI_BLESS=1 cargo test -p rmpi-wire --test golden` prints the new
//! table, and `hello::PROTOCOL` goes up.

#![allow(clippy::unwrap_used, reason = "a test panics where it fails")]

use bytes::Bytes;
use rmpi_types::cpus::{Cpu, CpuSet, Topology};
use rmpi_types::launch::{
    AppLaunch, EnvMerge, Extras, NodeEndpoints, NodeFiles, StagedFile, StdioKind, Window,
};
use rmpi_types::outcome::Abort;
use rmpi_types::spec::{FileLayout, Piece};
use rmpi_types::{
    DataPlane, EndpointTable, Epoch, JobId, LaunchFault, Namespace, NodeId, NodeIdx, NodeLaunch, NodeReport,
    ProcId, Rank, RankEnd, RankEndpoint, RankExit, RankLaunch, RankSet, Stage, Transport,
};
use rmpi_wire::hello::Role;
use rmpi_wire::msg::{Pulse, Stream};
use rmpi_wire::rank::{self, RankReply, RankRequest, Reply, Request};
use rmpi_wire::service::{
    self, Answer, Domain, GatherKey, Group, OnLoss, Part, Scope, Space, SpaceApp, SpaceNode, Spawn, SpawnApp,
    Until,
};
use rmpi_wire::{Dest, Down, Hello, LinkMsg, Message, Origin, Up};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn proc() -> ProcId {
    ProcId::first(3)
}

fn launch() -> NodeLaunch {
    NodeLaunch {
        job: JobId([1; 16]),
        ns: ProcId::first(0),
        node: NodeIdx(1),
        nodes: 2,
        size: 4,
        universe: 8,
        host: "n1".into(),
        apps: vec![AppLaunch {
            program: "a.out".into(),
            args: vec!["-x".into()],
            wdir: "/w".into(),
            wdir_explicit: true,
            search: vec!["/p".into()],
            merge: EnvMerge::Overwrite,
            env: vec![("A".into(), "b".into())],
            set: vec![("C".into(), None)],
            edits: Vec::new(),
        }],
        ranks: vec![RankLaunch {
            rank: Rank(3),
            app: 0,
            local_rank: 1,
            cpus: Some([0, 65].into_iter().collect::<CpuSet>()),
            stdin: false,
        }],
        layout: vec![(2, 2)],
        mpi: rmpi_types::launch::Mpi::default(),
        reached_at: Some("127.0.0.2".parse().unwrap()),
        ifaces: vec!["eth0".into()],
        port_range: Some((1000, 2000)),
        key: [2; 32],
        data: DataPlane { transport: Transport::Quic, encrypt: true },
        oversubscribed: true,
        stdio: StdioKind::Pty,
        kill_grace_ms: 5000,
        drain_ms: 5001,
        extras: Extras {
            files: vec![StagedFile {
                name: "f".into(),
                app: Some(0),
                mode: 0o755,
                length: 3,
                sha256: [9; 32],
            }],
            output: Some(NodeFiles {
                layout: FileLayout::Patterns {
                    out: Some(vec![Piece::Text("o".into()), Piece::Rank]),
                    err: None,
                },
                merge: true,
                copy: true,
                namespace: "s".into(),
            }),
            ..Extras::default()
        },
        output_credit: 262_144,
    }
}

fn endpoints() -> NodeEndpoints {
    NodeEndpoints {
        node: NodeIdx(1),
        host: "n1".into(),
        addresses: vec!["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()],
        ranks: vec![RankEndpoint {
            rank: Rank(3),
            port: 4000,
            udp_port: Some(4002),
            public_key: Some([3; 32]),
        }],
        spare_port: Some(4001),
    }
}

fn report() -> NodeReport {
    NodeReport {
        id: NodeId("boot".into()),
        hostname: "n1".into(),
        pid: 42,
        topology: Topology {
            cpus: vec![Cpu { os: 1, core: 2, package: 3, numa: 4, cache: [5, 6, 7] }],
            quota_milli: Some(1500),
            gpus: vec![],
        },
        home: "/root".into(),
        nofile: 1024,
        wall_us: 1_700_000_000_000_000,
    }
}

fn exit() -> RankExit {
    RankExit {
        proc: proc(),
        pid: 42,
        end: RankEnd::Signaled { signal: 11, core: true },
        abort: Some(Abort::called(-1, "m".into())),
        stopped: false,
        oom: true,
        last_stderr: vec!["l".into()],
        wall_us: 7,
    }
}

fn downs() -> Vec<Down> {
    vec![
        Down::Prepare(Box::new(launch())),
        Down::Start(EndpointTable { nodes: vec![endpoints()] }),
        Down::Stdin { proc: proc() },
        Down::Credit { proc: proc(), stream: Stream::Stderr, bytes: 65_536 },
        Down::Signal { signal: 10, of: Some(proc()) },
        Down::Stop { signal: 15, grace_ms: 5000, name_absent: true },
        Down::Kill,
        Down::Answer { id: 9, answer: Answer::Value },
        Down::Answer { id: 10, answer: Answer::Spawned { ns: Namespace(1), size: 3 } },
        Down::Gathered { key: key(OnLoss::Fail), serial: 7, last: true },
        Down::GatherLost { key: key(OnLoss::Skip), lost: proc() },
        Down::Asked { asker: NodeIdx(2), id: 9, of: proc(), domain: Domain::Pmix, wait_ms: 300 },
        Down::Notified { domain: Domain::Pmix, scope: Scope::Namespace, by: proc() },
        Down::RankEnded { proc: proc(), end: RankEnd::Exited(3) },
        Down::Space(Box::new(space())),
        Down::Pause,
        Down::Finish,
        Down::File { number: 1, last: true },
        Down::Resize(Window { rows: 25, columns: 80 }),
    ]
}

fn ups() -> Vec<Up> {
    vec![
        Up::Report(Box::new(report())),
        Up::Prepared(endpoints()),
        Up::Failed(LaunchFault::passing(Stage::Exec, "w").hint("h").code(127)),
        Up::Started(vec![(proc(), 42)]),
        Up::Output { proc: proc(), stream: Stream::Stdout, last: true },
        Up::StdinCredit { proc: proc(), bytes: 1 },
        Up::Gone { exit: exit() },
        Up::Exited { exit: exit() },
        Up::Abort { proc: proc(), code: -7, message: "m".into() },
        Up::Answer { asker: NodeIdx(2), id: 9, answer: Answer::Missing },
        Up::Gather { key: key(OnLoss::Fail), last: false },
        Up::GatherWaits { key: key(OnLoss::Fail) },
        Up::Lost { node: NodeIdx(4), what: "w".into() },
        Up::Note("n".into()),
        Up::Ended,
        Up::Stacks { proc: proc() },
    ]
    .into_iter()
    .chain(services().into_iter().map(|request| Up::Request { id: 9, by: proc(), request }))
    .collect()
}

fn space() -> Space {
    let ranks = RankSet::range(0, 1);
    Space {
        job: JobId([1; 16]),
        id: ProcId { ns: Namespace(1), ..ProcId::first(0) },
        size: 2,
        universe: 8,
        parent: Some(proc()),
        nodes: vec![SpaceNode { node: 0, host: "n1".into(), ranks: ranks.clone() }],
        apps: vec![SpaceApp { ranks, program: "a".into(), args: vec!["-x".into()], wdir: "/w".into() }],
        preputs: vec![(b"k".to_vec(), b"v".to_vec())],
    }
}

fn key(loss: OnLoss) -> GatherKey {
    let ranks: RankSet = [0, 2, 3].map(Rank).into_iter().collect();
    let spawned = Part { ns: Namespace(1), epoch: Epoch(0), ranks: Some(ranks) };
    let group = Group::try_from(vec![Group::all(proc()).parts()[0].clone(), spawned]).unwrap();
    GatherKey { domain: Domain::Pmi, name: b"b".to_vec(), group, loss }
}

fn services() -> Vec<service::Request> {
    use service::Request as R;
    let (domain, name) = (Domain::Pmi, b"svc".to_vec());
    let app = SpawnApp {
        program: "a".into(),
        args: vec!["-x".into()],
        ranks: 2,
        wdir: Some("/w".into()),
        path: None,
        hosts: vec!["n1".into()],
        env: vec![("A".into(), None)],
    };
    vec![
        R::Ask { of: proc(), domain, wait_ms: 300 },
        R::Publish { domain, name: name.clone(), scope: Scope::All, until: Until::Job },
        R::Lookup { domain, name: name.clone(), wait_ms: u32::MAX },
        R::Unpublish { domain, name, owner_only: true },
        R::Spawn(Box::new(Spawn { apps: vec![app], preputs: vec![(b"k".to_vec(), b"v".to_vec())] })),
        R::Notify { domain, scope: Scope::Node },
        R::Watch,
    ]
}

fn links() -> Vec<LinkMsg> {
    vec![
        LinkMsg::Heartbeat { received: 300 },
        LinkMsg::Resume { received: 70_000 },
        LinkMsg::YouAre { node: NodeIdx(4), pulse: Pulse::default() },
        LinkMsg::GivenUp { why: "no sign of life for 6.0 s".into() },
    ]
}

fn requests() -> Vec<RankRequest> {
    vec![
        RankRequest::Put { key: "k".into() },
        RankRequest::Get { rank: Rank(1), key: "k".into(), wait_ms: 5 },
        RankRequest::Fence,
        RankRequest::Abort { code: 3, message: "m".into() },
        RankRequest::Finalize,
        RankRequest::Hello,
    ]
}

fn replies() -> Vec<RankReply> {
    vec![
        RankReply::Done,
        RankReply::Value,
        RankReply::Missing,
        RankReply::Lost(Rank(2)),
        RankReply::Refused("r".into()),
    ]
}

/// `name hex`, a line each: bodies of messages, whole rank messages, whole frames, a hello.
fn table() -> Vec<String> {
    let body = |m: Message| hex(&m.frame(Origin::Launcher, Dest::Neighbour, Bytes::new()).unwrap().body);
    let name = |debug: String| debug.chars().take_while(|c| c.is_alphanumeric()).collect::<String>();
    let mut lines = Vec::new();
    lines.extend(
        downs().into_iter().map(|m| format!("down {} {}", name(format!("{m:?}")), body(Message::Down(m)))),
    );
    lines
        .extend(ups().into_iter().map(|m| format!("up {} {}", name(format!("{m:?}")), body(Message::Up(m)))));
    lines.extend(
        links().into_iter().map(|m| format!("link {} {}", name(format!("{m:?}")), body(Message::Link(m)))),
    );
    let coded = |line: String, bytes: Vec<u8>| format!("{line} {}", hex(&bytes));
    for request in requests() {
        let mut out = Vec::new();
        let line = format!("request {}", name(format!("{request:?}")));
        rank::encode(&Request { id: 300, request }, b"v", &mut out).unwrap();
        lines.push(coded(line, out));
    }
    for reply in replies() {
        let mut out = Vec::new();
        let line = format!("reply {}", name(format!("{reply:?}")));
        rank::encode(&Reply { id: 300, reply }, b"v", &mut out).unwrap();
        lines.push(coded(line, out));
    }
    let nodes: RankSet = [1, 2, 3, 9].map(Rank).into_iter().collect();
    for (i, dest) in [Dest::Neighbour, Dest::Launcher, Dest::Nodes(nodes)].into_iter().enumerate() {
        let origin = if i == 1 { Origin::Node(NodeIdx(5)) } else { Origin::Launcher };
        let mut frame =
            Message::Down(Down::Kill).frame(origin, dest, Bytes::from_static(b"payload")).unwrap();
        frame.seq = 0x0102_0304;
        let mut out = Vec::new();
        frame.encode(&mut out).unwrap();
        lines.push(coded(format!("frame {i}"), out));
    }
    let mut entry = Vec::new();
    rank::encode_entry(Rank(7), "key", b"value", &mut entry);
    lines.push(coded("entry 0".into(), entry));
    let hello = Hello { build: *b"0123456789abcdef0123456789abcdef", ..Hello::ours(Role::Daemon, [9; 16]) };
    lines.push(coded("hello 0".into(), hello.encode().to_vec()));
    lines
}

#[test]
fn the_wire_is_as_it_was() {
    let now = table();
    if std::env::var_os("RMPI_BLESS").is_some() {
        print(&now.join("\n"));
    }
    let golden: Vec<&str> = include_str!("golden.txt").lines().collect();
    for (now, then) in now.iter().zip(&golden) {
        assert_eq!(now, then, "the wire has changed");
    }
    assert_eq!(now.len(), golden.len());
}

#[expect(clippy::print_stdout, reason = "asked for, to be put into golden.txt")]
fn print(text: &str) {
    println!("{text}");
}

#[test]
fn every_message_comes_back_as_it_went() {
    let messages = downs().into_iter().map(Message::Down).chain(ups().into_iter().map(Message::Up));
    for message in messages.chain(links().into_iter().map(Message::Link)) {
        let frame = message.frame(Origin::Launcher, Dest::Neighbour, Bytes::new()).unwrap();
        assert_eq!(Message::of(&frame).unwrap(), message);
    }
}
