//! Bytes of the control protocol: hello, frames, messages, rank requests, fence data, boot block.

use crate::Input;
use bytes::Bytes;
use rmpi_types::{NodeIdx, NodeLaunch, NodeReport, Rank};
use rmpi_wire::boot::BootBlock;
use rmpi_wire::rank::{self, Reply, Request};
use rmpi_wire::{Down, Frame, FrameDecoder, Hello, LinkMsg, Message, Up, codec};

/// 64 bytes as a control stream's first words.
pub fn hello(data: &[u8]) {
    let mut bytes = [0; rmpi_wire::hello::LEN];
    let n = data.len().min(bytes.len());
    bytes[..n].copy_from_slice(&data[..n]);
    match Hello::decode(&bytes) {
        Ok(hello) => assert_eq!(Hello::decode(&hello.encode()), Ok(hello)),
        Err(e) => assert!(e.to_string().is_ascii()),
    }
}

/// First byte: size of the reads. The rest: a stream of frames, which must come out the same however it was cut.
pub fn frames(data: &[u8]) {
    let mut input = Input::new(data);
    let chunk = usize::from(input.u8()) + 1;
    let stream = input.rest();
    let (mut whole, mut cut) = (FrameDecoder::default(), FrameDecoder::default());
    whole.push(stream);
    let mut chunks = stream.chunks(chunk);
    loop {
        let expected = whole.next_frame();
        let got = loop {
            match cut.next_frame() {
                Ok(None) => match chunks.next() {
                    Some(more) => cut.push(more),
                    None => break Ok(None),
                },
                other => break other,
            }
        };
        assert_eq!(got, expected);
        match expected {
            Ok(Some(frame)) => one_frame(&frame),
            Ok(None) | Err(_) => return,
        }
    }
}

fn one_frame(frame: &Frame) {
    let mut bytes = Vec::new();
    if let Err(e) = frame.encode(&mut bytes) {
        panic!("a decoded frame does not encode: {e}");
    }
    assert_eq!(bytes.len(), frame.wire_len());
    let mut again = FrameDecoder::default();
    again.push(&bytes);
    assert_eq!(again.next_frame().as_ref().map(Option::as_ref), Ok(Some(frame)));
    if let Ok(message) = Message::of(frame) {
        let coded = message.frame(frame.origin, frame.dest.clone(), Bytes::new());
        let coded = coded.unwrap_or_else(|e| panic!("a decoded message does not encode: {e}"));
        assert_eq!(Message::of(&coded), Ok(message));
    }
}

/// First byte: which type. The rest: its coded form.
pub fn messages(data: &[u8]) {
    let mut input = Input::new(data);
    let (which, body) = (input.below(6), input.rest());
    match which {
        0 => coded::<Down>(body),
        1 => coded::<Up>(body),
        2 => coded::<LinkMsg>(body),
        3 => coded::<NodeLaunch>(body),
        4 => coded::<NodeReport>(body),
        _ => coded::<Vec<String>>(body),
    }
}

fn coded<T>(body: &[u8])
where
    T: serde::Serialize + serde::de::DeserializeOwned + PartialEq + std::fmt::Debug,
{
    let Ok(value) = codec::decode::<T>(body) else { return };
    let mut again = Vec::new();
    if let Err(e) = codec::encode(&value, &mut again) {
        panic!("{value:?} does not encode: {e}");
    }
    assert_eq!(codec::decode::<T>(&again).as_ref(), Ok(&value));
}

/// A rank's stream of requests, and the same bytes as a daemon's stream of replies.
pub fn rank_requests(data: &[u8]) {
    stream::<Request>(data);
    stream::<Reply>(data);
}

fn stream<T>(data: &[u8])
where
    T: serde::Serialize + serde::de::DeserializeOwned + PartialEq + std::fmt::Debug,
{
    let mut buffer = data.to_vec();
    while let Ok(Some((message, payload))) = rank::decode::<T>(&mut buffer) {
        let mut again = Vec::new();
        if let Err(e) = rank::encode(&message, &payload, &mut again) {
            panic!("{message:?} does not encode: {e}");
        }
        assert_eq!(rank::decode(&mut again), Ok(Some((message, payload))));
    }
}

/// The key-value data of a fence.
pub fn fence(data: &[u8]) {
    let Ok(entries) = rank::decode_entries(data) else { return };
    let mut again = Vec::new();
    entries.iter().for_each(|(rank, key, value)| rank::encode_entry(*rank, key, value, &mut again));
    assert_eq!(again, data);
}

/// A boot block: everything a rank reads of it.
pub fn boot(data: &[u8]) {
    let Ok(block) = BootBlock::parse(data) else { return };
    let _ = (block.job(), block.key(), block.namespace(), block.node_index(), block.universe());
    let _ = (block.oversubscribed(), block.data_plane());
    assert!(block.rank(Rank(block.size())).is_none() && block.node(NodeIdx(block.nodes())).is_none());
    for rank in 0..block.size().min(64) {
        assert!(block.rank(Rank(rank)).is_some());
        let _ = block.public_key(Rank(rank));
    }
    for node in 0..block.nodes().min(64) {
        if let Some(node) = block.node(NodeIdx(node)) {
            assert!(node.addresses.len() <= rmpi_wire::boot::MAX_ADDRESSES);
        }
    }
}
