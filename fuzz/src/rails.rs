//! The data plane's rails below messages: TLS sessions whose wire somebody changes, streams of QUIC units, and the
//! segment that a hostile neighbour writes.

use crate::Input;
use rmpi_core::{Config, Directory, Endpoint, Engine, From, OpId, RecvSpec, SendSpec};
use rmpi_net::session::{Session, Stop, room_for};
use rmpi_net::units::Units;
use rmpi_net::{Identity, JobKey, KEY_LEN};
use rmpi_shm::{Layout, Segment};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Events of one run, at most.
const STEPS: usize = 200;
/// Ciphertext that a session may want to see before it goes on: a record, and room.
const RECORD: usize = 20 << 10;
/// Time for what happens in memory.
const SOON: Duration = Duration::from_secs(60);

/// One side of a TLS connection, and what is on its way to it.
struct Side {
    session: Session,
    wire: Vec<u8>,
    incoming: Vec<u8>,
    said: Vec<u8>,
    heard: Vec<u8>,
    over: bool,
}

impl Side {
    fn new(session: std::io::Result<Session>) -> Self {
        let session = session.unwrap_or_else(|e| panic!("no session: {e}"));
        let (wire, incoming, said, heard) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Self { session, wire, incoming, said, heard, over: false }
    }

    /// Takes in at most `n` bytes of its wire; what it has to say to the other.
    fn advance(&mut self, n: usize) -> Vec<u8> {
        let n = n.min(self.wire.len());
        self.incoming.extend(self.wire.drain(..n));
        let mut words = Vec::new();
        let heard = &mut self.heard;
        let (used, stop) = self.session.advance(&mut self.incoming, &mut words, &mut |plain| {
            heard.extend_from_slice(plain);
            true
        });
        self.incoming.drain(..used);
        self.over |= matches!(stop, Err(_) | Ok(Stop::Closed));
        if self.over {
            self.incoming.clear();
        }
        assert!(self.incoming.len() <= RECORD + 255, "{} bytes and no record", self.incoming.len());
        words
    }

    fn encrypt(&mut self, plain: &[u8]) -> Vec<u8> {
        if self.over || self.session.handshaking() {
            return Vec::new();
        }
        let mut out = vec![0; room_for(plain.len())];
        match self.session.encrypt(plain, &mut out) {
            Ok(n) => {
                self.said.extend_from_slice(plain);
                out.truncate(n);
                out
            }
            Err(_) => Vec::new(),
        }
    }

    fn goodbye(&mut self) -> Vec<u8> {
        let mut out = vec![0; room_for(0)];
        let n = self.session.goodbye(&mut out);
        out.truncate(n);
        out
    }
}

/// A script for two ends of a TLS session and for somebody on the wire between them, who changes, adds and takes away
/// bytes: what one end hears is always the beginning of what the other has said.
pub fn tls_session(data: &[u8]) {
    let mut input = Input::new(data);
    let identity = |n| Identity::new(&[n; KEY_LEN]).unwrap_or_else(|e| panic!("no identity: {e}"));
    let (a, b) = (identity(1), identity(2));
    let mut sides = [Side::new(Session::client(&a, b.public())), Side::new(Session::server(&b, a.public()))];
    let greeting = sides[0].advance(0);
    sides[1].wire = greeting;
    for _ in 0..STEPS {
        if input.is_empty() {
            break;
        }
        let what = input.u8();
        let me = usize::from(what >> 7);
        let words = match what % 8 {
            0 => sides[me].advance(usize::from(input.u16())),
            1 | 2 => sides[me].advance(usize::MAX),
            3 => {
                let plain = vec![input.u8(); usize::from(input.u16())];
                sides[me].encrypt(&plain)
            }
            4 => {
                let at = usize::from(input.u16());
                let bit = 1 << input.below(8);
                sides[me].wire.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= bit);
                Vec::new()
            }
            5 => {
                let at = usize::from(input.u16()).min(sides[me].wire.len());
                let piece = input.piece();
                sides[me].wire.splice(at..at, piece.iter().copied());
                Vec::new()
            }
            6 => {
                let n = usize::from(input.u8()).min(sides[me].wire.len());
                sides[me].wire.drain(..n);
                Vec::new()
            }
            _ => sides[me].goodbye(),
        };
        sides[1 - me].wire.extend(words);
    }
    for _ in 0..4 {
        for me in 0..2 {
            let words = sides[me].advance(usize::MAX);
            sides[1 - me].wire.extend(words);
        }
    }
    for me in 0..2 {
        assert!(sides[1 - me].said.starts_with(&sides[me].heard), "heard what was not said");
    }
}

/// Units in a stream, as one reads it: the bytes of whole units, and whether something is wrong after them.
fn units_of(mut stream: &[u8]) -> (Vec<u8>, bool) {
    let mut whole = Vec::new();
    while let Some((prefix, rest)) = stream.split_first_chunk::<4>() {
        let length = u32::from_le_bytes(*prefix) as usize;
        if length == 0 || length > Units::LONGEST {
            return (whole, true);
        }
        let Some((unit, rest)) = rest.split_at_checked(length) else { break };
        whole.extend_from_slice(unit);
        stream = rest;
    }
    (whole, false)
}

/// First byte: how the stream is cut. The rest: the stream. However it comes, the same units come out of it.
pub fn quic_units(data: &[u8]) {
    let mut input = Input::new(data);
    let cut = usize::from(input.u8()) + 1;
    let stream = input.rest();
    let mut units = Units::new().unwrap_or_else(|e| panic!("no descriptors: {e}"));
    let (mut got, mut wrong) = (Vec::new(), false);
    for piece in stream.chunks(cut) {
        match units.feed(piece) {
            Some(bytes) => got.extend(bytes),
            None => {
                wrong = true;
                break;
            }
        }
    }
    let (whole, bad) = units_of(stream);
    assert_eq!(wrong, bad);
    // What ends in the piece in which something is wrong need not be handed over.
    assert!(if wrong { whole.starts_with(&got) } else { whole == got }, "other units than in the stream");
}

struct Node;

impl Directory for Node {
    fn endpoint(&self, _rank: u32) -> Endpoint {
        Endpoint { addresses: Vec::new(), host: "node0".into() }
    }

    fn local(&self, rank: u32) -> Option<u32> {
        Some(rank)
    }
}

/// Words of the segment that a neighbour writes: a slot of its ring, or how far it has read this rank's.
fn scribble(hostile: &Segment, layout: Layout, input: &mut Input<'_>, next: &mut u64) {
    if input.one_in(8) {
        let line = hostile.area(layout.taken(0, 1));
        let at = [0, 8][usize::from(input.u8() & 1)];
        let value = input.number();
        line.word64(at).into_iter().for_each(|w| w.store(value, Ordering::Release));
        return;
    }
    let slots = hostile.area(layout.slots(1, 0));
    let base = usize::try_from(*next % u64::from(Layout::SLOTS)).unwrap_or(0) * 64;
    let (kind, place) = (u64::from(input.u8() % 12), u64::from(input.u8()));
    let check = u64::from(input.u8() == 255);
    let mut words = [0; 8];
    words[0] = kind << 32 | place << 40 | check << 48 | (*next + 1) & 0xffff_ffff;
    words[1] = u64::from(input.below(3)) | u64::from(input.below(4)) << 32;
    (words[2], words[3]) = (input.number(), input.number());
    words[4] = input.number() & 0xffff_ffff | input.number() << 32;
    for (i, word) in words.iter().enumerate().rev() {
        slots.word64(base + 8 * i).into_iter().for_each(|w| w.store(*word, Ordering::Release));
    }
    *next += 1;
}

/// A script: receives and sends of the engine, and whatever a neighbour on its node writes into their memory. When the
/// neighbour is gone, every operation must end. Every eighth input is about the segment's header.
pub fn shm_peer(data: &[u8]) {
    let mut input = Input::new(data);
    let file = rmpi_shm::create(&[0, 1]).unwrap_or_else(|e| panic!("no memory file: {e}"));
    let attach = |me| {
        let fd = file.try_clone().unwrap_or_else(|e| panic!("no descriptors: {e}"));
        Segment::attach(fd, me, 2)
    };
    if input.one_in(8) {
        let file = std::fs::File::from(file.try_clone().unwrap_or_else(|e| panic!("no descriptors: {e}")));
        let at = u64::from(input.u16() % 8192);
        file.write_all_at(input.rest(), at).unwrap_or_else(|e| panic!("{e}"));
        for me in 0..3 {
            if let Ok(segment) = attach(me) {
                assert!(segment.me() < 2 && segment.ranks() == 2);
            }
        }
        return;
    }
    let whole = |me| attach(me).unwrap_or_else(|e| panic!("own segment: {e}"));
    let (segment, hostile) = (Some(Arc::new(whole(0))), whole(1));
    let layout = hostile.layout();
    let (rank, size, oversubscribed, key) = (0, 2, true, JobKey::new(&[3; 32]));
    let (streams, single_copy) = (1, 8 << 10);
    let thresholds = rmpi_types::Thresholds { single_copy, ..rmpi_types::Thresholds::default() };
    let config =
        Config { rank, size, namespace: 0, epoch: 0, key, streams, oversubscribed, segment, thresholds };
    let engine = Engine::new(config, Box::new(Node), None).unwrap_or_else(|e| panic!("{e}"));
    let (mut ops, mut next): (Vec<(OpId, u64)>, u64) = (Vec::new(), 0);
    for _ in 0..STEPS {
        if input.is_empty() {
            break;
        }
        match input.below(8) {
            0 => {
                let tag = (input.u8() & 1 == 0).then(|| i32::from(input.below(4)));
                let capacity = u64::from(input.u16());
                let spec = RecvSpec {
                    from: From::Rank(1),
                    context: u32::from(input.below(3)),
                    tag,
                    check: 0,
                    scribble: input.u8() & 1 == 0,
                };
                let memory = vec![0u8; usize::from(u16::try_from(capacity).unwrap_or(0))];
                ops.push((engine.with(|core| core.recv_owned(&spec, Box::new(memory))), capacity));
            }
            1 => {
                let spec =
                    SendSpec { to: 1, context: 0, tag: i32::from(input.below(4)), check: 0, awaited: false };
                let length = u64::from(input.u16()) * 2;
                let bytes = vec![1u8; usize::try_from(length).unwrap_or(0)];
                ops.push((engine.with(|core| core.send_owned(spec, Box::new(bytes))), length));
            }
            2 => drop(engine.with(|core| core.progress())),
            3 => {
                if let Some((op, _)) = ops.get(usize::from(input.u8())) {
                    engine.with(|core| core.cancel(*op));
                }
            }
            _ => scribble(&hostile, layout, &mut input, &mut next),
        }
    }
    engine.with(|core| core.progress());
    rmpi_shm::mark_gone(&file, 1).unwrap_or_else(|e| panic!("{e}"));
    let deadline = Instant::now() + SOON;
    for (op, capacity) in ops {
        let Some((result, _)) = engine.block_until(deadline, |core| core.take(op)) else {
            panic!("operation {op:?} of {capacity} bytes outlives its peer");
        };
        if let Ok(status) = result {
            assert!(status.length <= capacity, "{status:?} in {capacity} bytes");
        }
    }
}
