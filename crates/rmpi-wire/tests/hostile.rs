//! Bytes from anybody: every decoder answers with a value or an error, never a panic, and never takes more
//! memory than it was given bytes (up to its limit).

#![allow(clippy::unwrap_used, reason = "a test panics where it fails")]

use bytes::Bytes;
use proptest::prelude::*;
use rmpi_types::launch::{NodeEndpoints, StdioKind};
use rmpi_types::{
    DataPlane, EndpointTable, JobId, NodeIdx, NodeLaunch, ProcId, Rank, RankEndpoint, RankSet, Transport,
};
use rmpi_wire::boot::{self, BootBlock};
use rmpi_wire::frame::{Kind, MAX_FRAME};
use rmpi_wire::rank::{self, Reply, Request};
use rmpi_wire::{Dest, Frame, FrameDecoder, Hello, Message, Origin, WireError, hello};

fn dests() -> impl Strategy<Value = Dest> {
    let nodes = proptest::collection::vec(any::<u32>(), 0..20);
    prop_oneof![
        Just(Dest::Neighbour),
        Just(Dest::Launcher),
        nodes.prop_map(|n| Dest::Nodes(n.into_iter().map(Rank).collect::<RankSet>())),
    ]
}

fn frames() -> impl Strategy<Value = Frame> {
    let kind = prop_oneof![Just(Kind::Down), Just(Kind::Up), Just(Kind::Link)];
    let origin = prop_oneof![Just(Origin::Launcher), (0..u32::MAX).prop_map(|n| Origin::Node(NodeIdx(n)))];
    let bytes = || proptest::collection::vec(any::<u8>(), 0..200).prop_map(Bytes::from);
    (kind, origin, dests(), any::<u64>(), bytes(), bytes())
        .prop_map(|(kind, origin, dest, seq, body, payload)| Frame { kind, origin, dest, seq, body, payload })
}

const QUIC: DataPlane = DataPlane { transport: Transport::Quic, encrypt: true };

fn boot_block() -> Vec<u8> {
    boot_of(DataPlane::default())
}

fn boot_of(data: DataPlane) -> Vec<u8> {
    let endpoint = |r: u32| RankEndpoint {
        rank: Rank(r),
        port: 5000,
        udp_port: data.keyed().then_some(6000),
        public_key: data.keyed().then_some([r as u8; 32]),
    };
    let node = |n: u32| NodeEndpoints {
        node: NodeIdx(n),
        host: format!("host{n}"),
        addresses: vec!["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()],
        ranks: (0..2).map(|r| endpoint(n * 2 + r)).collect(),
        spare_port: None,
    };
    let launch = NodeLaunch {
        job: JobId([1; 16]),
        ns: ProcId::first(0),
        node: NodeIdx(0),
        nodes: 2,
        size: 4,
        universe: 4,
        host: "host0".into(),
        apps: Vec::new(),
        ranks: Vec::new(),
        layout: vec![(2, 2)],
        mpi: rmpi_types::launch::Mpi::default(),
        reached_at: None,
        ifaces: Vec::new(),
        port_range: None,
        key: [3; 32],
        data,
        oversubscribed: true,
        stdio: StdioKind::Pipe,
        kill_grace_ms: 1,
        drain_ms: 1,
        extras: Default::default(),
        output_credit: 1,
    };
    boot::build(&launch, &EndpointTable { nodes: vec![node(0), node(1)] }).unwrap()
}

/// Every accessor of a block, in range and out of it.
fn read_all(block: &BootBlock<'_>) {
    let _ = (block.job(), block.key(), block.namespace(), block.oversubscribed(), block.universe());
    let _ = (block.node_index(), block.data_plane());
    for i in (0..5).chain([block.size().wrapping_sub(1), block.size(), block.nodes(), u32::MAX]) {
        let _ = (block.rank(Rank(i)), block.public_key(Rank(i)));
        let _ = block.node(NodeIdx(i));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn frames_survive_any_cutting_of_the_stream(
        sent in proptest::collection::vec(frames(), 1..8),
        cuts in proptest::collection::vec(1usize..300, 1..40),
    ) {
        let mut bytes = Vec::new();
        for frame in &sent {
            let start = bytes.len();
            frame.encode(&mut bytes).unwrap();
            prop_assert_eq!(bytes.len() - start, frame.wire_len());
        }
        let mut decoder = FrameDecoder::default();
        let mut got = Vec::new();
        let mut rest = &bytes[..];
        for cut in cuts.iter().cycle() {
            let (piece, tail) = rest.split_at((*cut).min(rest.len()));
            decoder.push(piece);
            while let Some(frame) = decoder.next_frame().unwrap() {
                got.push(frame);
            }
            rest = tail;
            if rest.is_empty() {
                break;
            }
        }
        prop_assert_eq!(got, sent);
    }

    #[test]
    fn any_bytes_as_a_stream(bytes in proptest::collection::vec(any::<u8>(), 0..400), length in 0u8..80) {
        // A small length first, or most streams would wait for gigabytes.
        let mut decoder = FrameDecoder::default();
        decoder.push(&[length, 0, 0, 0]);
        decoder.push(&bytes);
        while let Ok(Some(frame)) = decoder.next_frame() {
            let _ = Message::of(&frame);
        }
    }

    #[test]
    fn any_bytes_as_a_message(frame in frames()) {
        let _ = Message::of(&frame);
    }

    #[test]
    fn any_bytes_as_a_rank_message(mut bytes in proptest::collection::vec(any::<u8>(), 0..200), length in 0u8..60) {
        bytes.splice(0..0, [length, 0, 0, 0]);
        while let Ok(Some(_)) = rank::decode::<Request>(&mut bytes) {}
        while let Ok(Some(_)) = rank::decode::<Reply>(&mut bytes) {}
    }

    #[test]
    fn entries_come_back_and_any_bytes_do_no_harm(
        entries in proptest::collection::vec((any::<u32>(), "[a-z]{0,20}", proptest::collection::vec(any::<u8>(), 0..50)), 0..10),
        any in proptest::collection::vec(any::<u8>(), 0..100),
    ) {
        let mut bytes = Vec::new();
        for (r, key, value) in &entries {
            rank::encode_entry(Rank(*r), key, value, &mut bytes);
        }
        let want: Vec<_> = entries.into_iter().map(|(r, k, v)| (Rank(r), k, v)).collect();
        prop_assert_eq!(rank::decode_entries(&bytes).unwrap(), want);
        let _ = rank::decode_entries(&any);
    }

    #[test]
    fn any_bytes_as_a_hello(bytes in proptest::collection::vec(any::<u8>(), hello::LEN), ours in any::<bool>()) {
        let mut bytes: [u8; hello::LEN] = bytes.try_into().unwrap();
        if ours {
            bytes[..8].copy_from_slice(b"RMPICTRL");
        }
        prop_assert!(ours || Hello::decode(&bytes).is_err());
        let _ = Hello::decode(&bytes);
    }

    #[test]
    fn a_damaged_boot_block_is_refused_or_read_without_harm(
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..12),
        cut in any::<prop::sample::Index>(),
        keyed in any::<bool>(),
    ) {
        let mut bytes = if keyed { boot_of(QUIC) } else { boot_block() };
        for (at, value) in &damage {
            let at = at.index(bytes.len());
            bytes[at] = *value;
        }
        if let Ok(block) = BootBlock::parse(&bytes) {
            read_all(&block);
        }
        let end = cut.index(bytes.len());
        if let Ok(block) = BootBlock::parse(&bytes[..end]) {
            read_all(&block);
        }
    }
}

#[test]
fn a_hostile_length_is_refused_before_anything_is_read() {
    for length in [0, 5, (MAX_FRAME + 1) as u32, u32::MAX] {
        let mut decoder = FrameDecoder::default();
        decoder.push(&length.to_le_bytes());
        assert!(matches!(decoder.next_frame(), Err(WireError::Length(_))), "{length}");
    }
    // A message that claims to hold four thousand million entries.
    let body = Bytes::from_static(&[3, 0xfd, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
    let frame = Frame {
        kind: Kind::Up,
        origin: Origin::Launcher,
        dest: Dest::Launcher,
        seq: 1,
        body,
        payload: Bytes::new(),
    };
    assert!(Message::of(&frame).is_err());
}

#[test]
fn a_boot_block_says_what_went_in() {
    let bytes = boot_block();
    let block = BootBlock::parse(&bytes).unwrap();
    assert_eq!((block.size(), block.nodes(), block.key(), block.oversubscribed()), (4, 2, [3; 32], true));
    let rank = block.rank(Rank(3)).unwrap();
    assert_eq!((rank.node, rank.local_rank, rank.port), (NodeIdx(1), 1, 5000));
    let node = block.node(NodeIdx(1)).unwrap();
    assert_eq!((node.host, node.addresses.len(), node.ranks), ("host1", 2, 2));
    assert!(block.rank(Rank(4)).is_none() && block.node(NodeIdx(2)).is_none());
}

#[test]
fn keys_and_the_data_plane_come_with_the_boot_block() {
    for transport in Transport::ALL {
        for encrypt in [false, true] {
            let data = DataPlane { transport, encrypt };
            let bytes = boot_of(data);
            let block = BootBlock::parse(&bytes).unwrap();
            assert_eq!(block.data_plane(), data);
            let keys: Vec<_> = (0..5).map(|r| block.public_key(Rank(r))).collect();
            let udp = block.rank(Rank(1)).unwrap().udp_port;
            if data.keyed() {
                assert_eq!(keys, [Some([0; 32]), Some([1; 32]), Some([2; 32]), Some([3; 32]), None]);
                assert_eq!(udp, Some(6000));
            } else {
                assert_eq!((keys, udp), (vec![None; 5], None));
            }
            assert_eq!(block.node(NodeIdx(1)).unwrap().host, "host1");
        }
    }
}
