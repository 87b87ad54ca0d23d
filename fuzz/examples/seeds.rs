//! Writes the binary seeds of `corpus/` anew, for when a format has changed: `cargo run --example seeds`.
//! The text seeds are written by hand.

use bytes::Bytes;
use rmpi_core::{Header, Kind};
use rmpi_fuzz::TARGETS;
use rmpi_pmi::pmix::codec::{Codec, DataType, Info, Kval, Proc, Value, Writer};
use rmpi_pmi::pmix::frame;
use rmpi_types::launch::{AppLaunch, EnvMerge, NodeEndpoints, StdioKind};
use rmpi_types::{
    DataPlane, EndpointTable, JobId, NodeId, NodeIdx, NodeLaunch, NodeReport, ProcId, Rank, RankEndpoint,
    RankLaunch, Topology, Transport,
};
use rmpi_wire::hello::Role;
use rmpi_wire::msg::{Pulse, Stream};
use rmpi_wire::rank::{RankReply, RankRequest, Reply, Request};
use rmpi_wire::service::{Domain, GatherKey, Group, OnLoss};
use rmpi_wire::{Dest, Down, Hello, LinkMsg, Message, Origin, Up};
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn write(target: &str, name: &str, bytes: &[u8]) -> Result<()> {
    assert!(TARGETS.iter().any(|(t, _)| *t == target));
    let dir: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    fs::create_dir_all(&dir)?;
    Ok(fs::write(dir.join(name), bytes)?)
}

fn launch() -> NodeLaunch {
    let app = AppLaunch {
        program: "./train".into(),
        args: vec!["--epochs".into(), "3".into()],
        wdir: "/home/me".into(),
        wdir_explicit: true,
        search: Vec::new(),
        merge: EnvMerge::Fill,
        env: vec![("A".into(), "1".into())],
        set: vec![("B".into(), None)],
        edits: Vec::new(),
    };
    let rank = |i| RankLaunch {
        rank: Rank(i),
        app: 0,
        local_rank: i,
        cpus: Some([i].into_iter().collect()),
        stdin: i == 0,
    };
    NodeLaunch {
        job: JobId([1; 16]),
        ns: ProcId::first(0),
        node: NodeIdx(0),
        nodes: 2,
        size: 4,
        universe: 4,
        host: "n1".into(),
        apps: vec![app],
        ranks: (0..2).map(rank).collect(),
        layout: vec![(2, 2)],
        mpi: rmpi_types::launch::Mpi::default(),
        reached_at: Some([127, 0, 0, 2].into()),
        ifaces: vec!["eth0".into()],
        port_range: Some((2000, 3000)),
        key: [9; 32],
        data: DataPlane { transport: Transport::Quic, encrypt: true },
        oversubscribed: true,
        stdio: StdioKind::Pty,
        kill_grace_ms: 5000,
        drain_ms: 5000,
        extras: Default::default(),
        output_credit: 65536,
    }
}

fn node(index: u32) -> NodeEndpoints {
    let ranks = (2 * index..2 * index + 2).map(|r| RankEndpoint {
        rank: Rank(r),
        port: 4000,
        udp_port: Some(4001),
        public_key: Some([3; 32]),
    });
    NodeEndpoints {
        node: NodeIdx(index),
        host: format!("n{index}"),
        addresses: vec![[10, 0, 0, 1].into(), std::net::Ipv6Addr::LOCALHOST.into()],
        ranks: ranks.collect(),
        spare_port: Some(4100),
    }
}

fn report() -> NodeReport {
    NodeReport {
        id: NodeId("boot-1".into()),
        hostname: "n1".into(),
        pid: 77,
        topology: Topology::flat(2),
        home: "/home/me".into(),
        nofile: 1024,
        wall_us: 1,
    }
}

fn table() -> EndpointTable {
    EndpointTable { nodes: vec![node(0), node(1)] }
}

fn key() -> GatherKey {
    let group = Group::all(ProcId::first(0));
    GatherKey { domain: Domain::Native, name: Vec::new(), group, loss: OnLoss::Fail }
}

fn messages() -> Vec<(Message, &'static [u8])> {
    let proc = ProcId::first(1);
    vec![
        (Message::Link(LinkMsg::YouAre { node: NodeIdx(0), pulse: Pulse::default() }), b""),
        (Message::Up(Up::Report(Box::new(report()))), b""),
        (Message::Down(Down::Prepare(Box::new(launch()))), b""),
        (Message::Up(Up::Prepared(node(0))), b""),
        (Message::Down(Down::Start(table())), b""),
        (Message::Up(Up::Started(vec![(ProcId::first(0), 5), (proc, 6)])), b""),
        (Message::Up(Up::Output { proc, stream: Stream::Stdout, last: false }), b"hello\n"),
        (Message::Down(Down::Credit { proc, stream: Stream::Stderr, bytes: 6 }), b""),
        (Message::Down(Down::Signal { signal: 10, of: None }), b""),
        (Message::Up(Up::Gather { key: key(), last: true }), b"\x01\0\0\0\x01\0\x01\0\0\0kv"),
        (Message::Down(Down::Stop { signal: 15, grace_ms: 2000, name_absent: false }), b""),
        (Message::Link(LinkMsg::Heartbeat { received: 3 }), b""),
        (Message::Up(Up::Ended), b""),
        (Message::Down(Down::Finish), b""),
    ]
}

fn wire() -> Result<()> {
    write("hello", "launcher", &Hello::ours(Role::Launcher, [7; 16]).encode())?;
    write("hello", "banner", b"Welcome to n1\nLast login: today\n")?;
    let (mut all, mut seq) = (vec![31], 0);
    for (i, (message, payload)) in messages().into_iter().enumerate() {
        seq += 1;
        let dest = if i % 3 == 0 { Dest::node(NodeIdx(0)) } else { Dest::Launcher };
        let origin = if i % 2 == 0 { Origin::Launcher } else { Origin::Node(NodeIdx(0)) };
        let mut frame = message.frame(origin, dest, Bytes::from_static(payload))?;
        frame.seq = seq;
        frame.encode(&mut all)?;
        let kind = match message {
            Message::Down(_) => 0,
            Message::Up(_) => 1,
            Message::Link(_) => 2,
        };
        write("messages", &format!("{i:02}"), &[&[kind], &frame.body[..]].concat())?;
    }
    write("frames", "life", &all)?;
    write("frames", "huge", b"\0\xff\xff\xff\xff\x01\0\0\0")?;
    let mut stream = Vec::new();
    let requests = [
        RankRequest::Hello,
        RankRequest::Put { key: "k".into() },
        RankRequest::Get { rank: Rank(1), key: "k".into(), wait_ms: 100 },
        RankRequest::Fence,
        RankRequest::Abort { code: 3, message: "why".into() },
    ];
    for (id, request) in (0..).zip(requests) {
        rmpi_wire::rank::encode(&Request { id, request }, b"value", &mut stream)?;
    }
    write("rank_requests", "requests", &stream)?;
    stream.clear();
    for (id, reply) in
        (0..).zip([RankReply::Value, RankReply::Lost(Rank(2)), RankReply::Refused("no".into())])
    {
        rmpi_wire::rank::encode(&Reply { id, reply }, b"value", &mut stream)?;
    }
    write("rank_requests", "replies", &stream)?;
    let mut entries = Vec::new();
    rmpi_wire::rank::encode_entry(Rank(0), "address", b"10.0.0.1", &mut entries);
    rmpi_wire::rank::encode_entry(Rank(3), "", b"", &mut entries);
    write("fence", "two", &entries)?;
    write("boot", "two-nodes", &rmpi_wire::boot::build(&launch(), &table())?)
}

fn data() -> Result<()> {
    write("data_header", "eager", &Header { length: 5, tag: -1, ..Header::bare(Kind::Eager) }.encode())?;
    write("data_header", "revoke", &Header { id: 1, context: 2, ..Header::bare(Kind::Revoke) }.encode())?;
    write("link_hello", "short", b"\0rmpilnk2")?;
    write("link_hello", "whole", &[&b"\0rmpilnk2"[..], &[0; 12], &[1, 0, 0, 0], &[7; 72]].concat())?;
    write("link_hello", "answer", &[&[1][..], &[7; 96], b"A"].concat())?;
    // A receive, then an eager message for it; a large announcement matched later; a large send of ours,
    // heard of and cleared.
    let receive = [0, 0, 0, 0, 1, 64, 0];
    let eager = [6, 0, 0, 0, 0, 32, 0, 1, 0, 5, 0, 0];
    let announce = [6, 2, 0, 0, 0, 32, 9, 1, 20, 0];
    let (hear, clear) = ([3], [6, 3, 0, 0, 0, 32, 0, 32, 0]);
    let send = [1, 0, 0, 0, 2, 0];
    write("data_peer", "eager", &[&receive[..], &eager, &hear].concat())?;
    write("data_peer", "unexpected", &[&eager[..], &hear, &receive, &hear].concat())?;
    write("data_peer", "announced", &[&receive[..], &announce, &hear, &hear].concat())?;
    write("data_peer", "cleared", &[&send[..], &hear, &clear, &hear, &hear].concat())?;
    lanes()?;
    rails()
}

fn lanes() -> Result<()> {
    // Two further connections; a receive of 200 KB, announced and cleared; its pieces from both ends over all of them, in
    // parts; a large send of the engine.
    let (dial, hear) = ([8], [9]);
    let announce = [0, 0, 100, 2, 1, 6, 255, 255, 0];
    let meet = [&dial[..], &dial, &announce, &hear, &hear].concat();
    let piece = |left: u8, len: u8, place: u8, wire: u8| [2, 0, left, 0, len, place, wire];
    let part = |wire: u8, len: u8| [6, 0, len, wire];
    let pieces = [&piece(0, 80, 0, 1)[..], &piece(0, 90, 1, 2), &piece(0, 70, 2, 0)].concat();
    let parts = [&part(1, 90)[..], &part(2, 200), &hear, &part(0, 255), &part(2, 255), &hear].concat();
    let send = [&[1, 0, 200, 1][..], &hear, &hear, &part(0, 255), &hear, &hear, &hear].concat();
    write("data_lanes", "spread", &[&[0][..], &meet, &pieces, &parts, &send, &hear].concat())?;
    write("data_lanes", "sent", &[&[0][..], &dial, &send, &send, &announce, &hear].concat())?;
    write(
        "data_lanes",
        "cut",
        &[&[0][..], &dial, &[0, 0, 100, 0, 0, 6, 255, 255, 0], &hear, &hear, &pieces].concat(),
    )?;
    // Beyond the end; the same again; for nobody; a piece that is shorter than it says; another kind; noise.
    let lie = |offset: &[u8], length: &[u8]| [&[10, 0, 1][..], offset, length, &[1, 1, 1]].concat();
    let all = [&part(1, 255)[..], &hear].concat();
    let hostile =
        |lies: &[u8]| [&[1][..], &meet, &piece(0, 80, 0, 1), lies, &all, &hear, &pieces, &parts].concat();
    write("data_lanes", "beyond", &hostile(&lie(&[1, 9], &[4, 200, 0])))?;
    write("data_lanes", "far", &hostile(&lie(&[3, 3], &[4, 9, 0])))?;
    write("data_lanes", "again", &hostile(&[lie(&[0], &[4, 0, 200]), lie(&[0], &[4, 0, 200])].concat()))?;
    write("data_lanes", "nobody", &hostile(&[10, 0, 0, 77, 0, 4, 9, 0, 1, 1, 1]))?;
    write("data_lanes", "short", &hostile(&[10, 0, 1, 0, 4, 0, 200, 0, 9, 0, 1, 1]))?;
    write("data_lanes", "goodbye", &hostile(&[10, 0, 1, 0, 0, 1, 0, 4, 1]))?;
    write("data_lanes", "noise", &hostile(&[&[13, 70][..], &[9; 70], &[1]].concat()))?;
    write("data_lanes", "broken", &hostile(&[15, 0, 2]))?;
    write("data_lanes", "numbers", &hostile(&[14, 1, 14, 200, 14, 255, 1, 1, 1, 1]))
}

fn rails() -> Result<()> {
    // Handshake: server, client, server; then words both ways, and a goodbye.
    let meet = [0x81, 1, 0x81];
    let talk = [3, b'x', 200, 0, 0x81, 0x83, b'y', 0, 80, 1];
    write("tls_session", "talk", &[&meet[..], &talk, &[7, 0x81]].concat())?;
    write("tls_session", "bent", &[&meet[..], &talk, &[3, 1, 9, 0, 0x84, 7, 0, 3, 0x81]].concat())?;
    write("tls_session", "more", &[&meet[..], &[3, 1, 9, 0, 0x85, 0, 0, 5, 23, 3, 3, 0, 1, 0x81]].concat())?;
    write("tls_session", "less", &[&[0x86, 9, 0x81, 1, 0x81][..], &talk].concat())?;
    write("quic_units", "two", &[&[2, 3, 0, 0, 0][..], b"abc", &[1, 0, 0, 0], b"d"].concat())?;
    write("quic_units", "long", &[200, 255, 255, 255, 0, 1])?;
    write("quic_units", "none", &[0, 0, 0, 0, 0])?;
    // Not the header; a receive and a whole message in a slot; one in pieces; an announcement and its pieces.
    let receive = [0, 0, 1, 64, 0, 0, 0];
    let slot = |kind: u8, place: u8, length: u8, id: u8, bytes: u8| {
        [4, 1, kind, place, 0, 0, 1, length, id, 0, bytes]
    };
    let (eager, hear) = (slot(1, 8, 7, 7, 7), [2]);
    write("shm_peer", "inline", &[&[1][..], &receive, &eager, &hear].concat())?;
    let (part, rest) = (slot(1, 0xfe, 40, 0, 30), slot(8, 0xfe, 40, 0, 10));
    write("shm_peer", "pieces", &[&[1][..], &part, &rest, &hear, &receive].concat())?;
    let (announce, piece) = (slot(2, 0xff, 50, 3, 0), slot(4, 0xfd, 50, 0, 50));
    write("shm_peer", "announced", &[&[1][..], &receive, &announce, &hear, &piece, &hear].concat())?;
    write("shm_peer", "large", &[&[1][..], &[1, 1, 0, 200], &hear, &[4, 0, 0, 60], &hear].concat())?;
    write("shm_peer", "header", &[0, 8, 0, 9, 0, 0, 0])
}

fn pmix() -> Result<()> {
    let mut hello = vec![0xff; 8];
    let body = b"native\0\0\0\0\x08\xe8\x03\0\0\xe8\x03\0\0\0ns\0\0\0\0\x01".to_vec();
    let body = [&body[..], b"4.2.2rc2\0v3\0\x01hash\0\0"].concat();
    hello.extend_from_slice(&u32::try_from(body.len())?.to_ne_bytes());
    hello.extend_from_slice(&[0; 4]);
    write("pmix_hello", "client", &[&hello[..], &body].concat())?;
    for form in 0..4u8 {
        let codec = Codec { flex: form & 1 != 0, described: form & 2 != 0 };
        let values = [
            ("size", Value::size(70000)),
            ("text", Value::text("v")),
            ("blob", Value::blob(vec![1, 2, 3])),
            ("proc", Value::Proc(Proc { ns: "ns".into(), rank: 1 })),
            ("infos", Value::infos(vec![Info::new("pmix.hname", Value::text("n1"))])),
            ("int", Value::Number(DataType::INT, u64::MAX)),
            ("time", Value::Timeval(1, 2)),
        ];
        let values: Vec<Kval> =
            values.into_iter().map(|(key, value)| Kval { key: key.into(), value }).collect();
        let mut kvals = Writer::new(codec);
        kvals.items(&values);
        write("pmix_values", &format!("form-{form}"), &[&[form], kvals.bytes()].concat())?;

        let command = |n| {
            let mut w = Writer::new(codec);
            w.one_number(DataType::COMMAND, n);
            w
        };
        let infos = [Info::new("pmix.collect", Value::bool(true))];
        let procs = [Proc { ns: "ns".into(), rank: 0xffff_fffe }];
        let mut requests = vec![command(0), command(5)];
        let mut w = command(2);
        w.one_number(DataType::SCOPE, 2).buffer(kvals.bytes());
        requests.push(w);
        for n in [3, 10, 18] {
            let mut w = command(n);
            w.counted(&procs).counted(&infos);
            requests.push(w);
        }
        let mut w = command(4);
        w.text(Some(&"ns".into())).rank(1).counted(&infos).text(Some(&"key".into()));
        requests.push(w);
        let mut w = command(7);
        w.one_number(DataType::UINT32, 0).size(1).text(Some(&"name".into())).counted(&infos);
        requests.push(w);
        let mut w = command(24);
        w.text(Some(&"group".into())).counted(&procs).counted(&infos);
        requests.push(w);
        let mut w = command(13);
        w.size(2).statuses(&[-200, -402]).counted(&infos);
        requests.push(w);
        let mut stream = vec![form, 0];
        for (tag, w) in (100..).zip(&requests) {
            stream.extend_from_slice(&frame::encode(tag, w.bytes()));
        }
        write("pmix_request", &format!("form-{form}"), &stream)?;
    }
    Ok(())
}

fn main() -> Result<()> {
    wire()?;
    data()?;
    pmix()?;
    // Scripts of the machines: launch and run; then what may follow.
    let prepare = [0, 0, 0, 2, 0, 200, 10, 5];
    let (prepared, start, spawned) = ([12, 1], [0, 1, 5], [13, 1]);
    let run = [&prepare[..], &prepared, &start, &spawned].concat();
    write("daemon_machine", "run", &[&[0], &run[..]].concat())?;
    let put = [18, 0, 1, 1, 1, 3, b'a', b'b', b'c'];
    let fence = |who| [18, who, 2, 3, 0];
    write("daemon_machine", "fence", &[&[0][..], &run, &put, &fence(0), &fence(1)].concat())?;
    let output = [14, 0, 0, 6, b'h', b'e', b'l', b'l', b'o', b'\n', 0];
    write("daemon_machine", "output", &[&[0][..], &run, &output, &[17, 0, 0, 17, 1, 3]].concat())?;
    write("daemon_machine", "dialled", &[&[1][..], &run, &[9, 11, 0, 4, 10], &output].concat())?;
    write("daemon_machine", "children", &[&[0][..], &[7, 1, 3, 6, 1, 2, 0, 3, 8, 1], &run].concat())?;
    write("daemon_machine", "stopped", &[&[0][..], &run, &[0, 5, 15, 10, 5, 11, 255, 255, 19]].concat())?;
    let behave = [19, 19, 19];
    write("job_machine", "run", &[&[1][..], &behave].concat())?;
    write("job_machine", "tree", &[&[11][..], &behave].concat())?;
    let output = [2, 0, 0, 4, 3, b'o', b'u', b't', 40, 0, 1, 3];
    write("job_machine", "output", &[&[1][..], &behave, &output, &[15, 0]].concat())?;
    write("job_machine", "exits", &[&[1][..], &behave, &[2, 0, 0, 8, 40, 0, 1, 0, 0, 0, 3]].concat())?;
    write("job_machine", "fails", &[&[17][..], &behave, &[2, 1, 1, 8, 40, 9, 1, 0, 0, 0, 3]].concat())?;
    write("job_machine", "signal", &[&[1][..], &behave, &[17, 2, 13, 255, 255, 17, 2]].concat())?;
    write("job_machine", "lost", &[&[3][..], &behave, &[11, 1, 18, 1]].concat())
}
