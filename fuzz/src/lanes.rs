//! Several connections of a pair: an engine and a peer that is made by hand, who holds the key, dials further
//! connections and spreads pieces of messages over them. An honest peer's messages come whole whatever the order and
//! the cuts; a hostile one says anything at all. Real sockets on loopback, since a link is a socket.

use crate::Input;
use crate::data::{SOON, dial, listening};
use rmpi_core::{Engine, Fault, From, HEADER_LEN, Header, Kind, OpId, RecvSpec, SendSpec};
use rmpi_net::Link;
use std::io::{ErrorKind, IoSlice, IoSliceMut};
use std::net::SocketAddr;
use std::time::Instant;

/// Events of one run, messages each way, connections, bytes that wait to be sent: at most.
const STEPS: usize = 150;
const MESSAGES: usize = 6;
const WIRES: usize = 5;
const UNSENT: usize = 4 << 20;
/// Ids of the peer's receives begin here.
const OURS: u64 = 1 << 20;

/// Byte `at` of message `number`.
fn byte(number: u64, at: u64) -> u8 {
    (at ^ (at >> 8) ^ (at >> 16)).wrapping_mul(29).wrapping_add(number * 67 + 1) as u8
}

fn bytes(number: u64, at: u64, len: u64) -> Vec<u8> {
    (at..at + len).map(|i| byte(number, i)).collect()
}

/// One connection, what is still to be sent on it, and what has been read and not understood.
struct Wire {
    number: u32,
    link: Option<Box<dyn Link>>,
    out: Vec<u8>,
    unread: Vec<u8>,
}

impl Wire {
    fn say(&mut self, header: &Header, payload: &[u8]) {
        if self.out.len() < UNSENT {
            self.out.extend_from_slice(&header.encode());
            self.out.extend_from_slice(payload);
        }
    }

    /// Sends at most `n` bytes, as the socket takes them; whether it took any.
    fn pump(&mut self, n: usize) -> bool {
        let n = n.min(self.out.len());
        let Some(link) = self.link.as_mut().filter(|_| n > 0) else { return false };
        match link.send(&[IoSlice::new(&self.out[..n])]) {
            Ok(sent) => {
                self.out.drain(..sent);
                sent > 0
            }
            Err(e) if e.kind() == ErrorKind::WouldBlock => false,
            Err(_) => {
                self.link = None;
                false
            }
        }
    }

    /// Reads what is there; a whole header and its payload, if there is one.
    fn hear(&mut self) -> Option<(Header, Vec<u8>)> {
        let mut buf = [0; 64 << 10];
        if let Some(link) = &mut self.link {
            match link.recv(&mut [IoSliceMut::new(&mut buf)]) {
                Ok(0) => self.link = None,
                Ok(n) => self.unread.extend_from_slice(&buf[..n]),
                Err(e) if e.kind() == ErrorKind::WouldBlock => {}
                Err(_) => self.link = None,
            }
        }
        let (head, rest) = self.unread.split_first_chunk::<HEADER_LEN>()?;
        let header = Header::decode(head).unwrap_or_else(|e| panic!("the engine sent {e}"));
        let carries = matches!(header.kind, Kind::Eager | Kind::Data);
        let len = if carries { usize::try_from(header.length).unwrap_or(usize::MAX) } else { 0 };
        let payload = rest.get(..len)?.to_vec();
        self.unread.drain(..HEADER_LEN + len);
        Some((header, payload))
    }
}

/// A message to the engine.
struct Told {
    len: u64,
    op: OpId,
    capacity: u64,
    /// The engine's operation, once it has cleared the message.
    cleared: Option<u64>,
    /// What no piece has been said of.
    left: Vec<(u64, u64)>,
}

/// A message of the engine.
struct Heard {
    op: OpId,
    seen: Vec<bool>,
}

struct Peer {
    engine: Engine,
    address: SocketAddr,
    wires: Vec<Wire>,
    told: Vec<Told>,
    heard: Vec<Heard>,
}

impl Peer {
    fn wire(&mut self, input: &mut Input<'_>) -> &mut Wire {
        let at = usize::from(input.u8()) % self.wires.len();
        &mut self.wires[at]
    }

    fn dial(&mut self, number: u32) {
        if self.wires.len() < WIRES {
            let Some(link) = dial(&self.engine, self.address, number) else { return };
            let taken = self.wires.iter().any(|w| w.number == number && w.link.is_some());
            assert!(!taken, "connection {number} was taken twice");
            self.wires.push(Wire { number, link: Some(link), out: Vec::new(), unread: Vec::new() });
        }
    }

    /// Posts a receive and announces a message for it, which may be longer or shorter.
    fn announce(&mut self, input: &mut Input<'_>) {
        let number = self.told.len();
        if number == MESSAGES {
            return;
        }
        let len = u64::from(input.u16()) * 8 + 1;
        let capacity = match input.below(4) {
            0 => len / 2,
            1 => len + 1000,
            _ => len,
        };
        let tag = i32::try_from(number).unwrap_or(0);
        let scribble = input.u8() & 1 == 0;
        let spec = RecvSpec { from: From::Rank(1), context: 0, tag: Some(tag), check: 0, scribble };
        let memory = vec![0u8; usize::try_from(capacity).unwrap_or(0)];
        let op = self.engine.with(|core| core.recv_owned(&spec, Box::new(memory)));
        let sequence = u32::try_from(number).unwrap_or(0);
        let rts = Header { tag, sequence, length: len, id: number as u64, ..Header::bare(Kind::Rts) };
        self.wires[0].say(&rts, &[]);
        self.told.push(Told { len, op, capacity, cleared: None, left: vec![(0, len)] });
    }

    fn send(&mut self, input: &mut Input<'_>) {
        let number = self.heard.len();
        if number == MESSAGES {
            return;
        }
        let len = u64::from(input.u16()) * 12;
        let tag = i32::try_from(number).unwrap_or(0);
        let spec = SendSpec { to: 1, context: 0, tag, check: 0, awaited: input.one_in(4) };
        let data = bytes(number as u64, 0, len);
        let op = self.engine.with(|core| core.send_owned(spec, Box::new(data)));
        self.heard.push(Heard { op, seen: vec![false; usize::try_from(len).unwrap_or(0)] });
    }

    /// Says a piece of what is left of a message: its beginning, its end, or from within.
    fn piece(&mut self, input: &mut Input<'_>) {
        let at = usize::from(input.u8()) % self.told.len().max(1);
        let Some((message, id)) = self.told.get_mut(at).and_then(|m| m.cleared.map(|id| (m, id))) else {
            return;
        };
        if message.left.is_empty() {
            return;
        }
        let (from, to) = message.left.swap_remove(usize::from(input.u8()) % message.left.len());
        let len = (to - from).min(u64::from(input.u16()) * 5);
        let start = match input.below(3) {
            0 => from,
            1 => to - len,
            _ => from + (to - from - len) / 2,
        };
        let around = [(from, start), (start + len, to)];
        message.left.extend(around.into_iter().filter(|(a, b)| a < b));
        let payload = bytes(at as u64, start, len);
        self.wire(input).say(&Header::piece(id, start, len), &payload);
    }

    /// What no rank of ours says.
    fn lie(&mut self, input: &mut Input<'_>) {
        let at = usize::from(input.u8()) % self.told.len().max(1);
        let known = self.told.get(at).map(|m| (m.cleared.unwrap_or(0), m.len));
        let (id, len) = known.filter(|_| !input.one_in(8)).unwrap_or((input.number(), 1000));
        let near = |input: &mut Input<'_>| match input.below(5) {
            0 => 0,
            1 => len.saturating_sub(u64::from(input.u8())),
            2 => len + u64::from(input.u8()),
            3 => u64::MAX - u64::from(input.u8()),
            _ => u64::from(input.u16()),
        };
        let (offset, length) = (near(input), near(input));
        let said = if input.one_in(4) { u64::from(input.u16()) } else { length.min(300_000) };
        let mut header = Header::piece(id, offset, length);
        let kinds = [
            Kind::Eager,
            Kind::Rts,
            Kind::Cts,
            Kind::Credit,
            Kind::Bye,
            Kind::Revoke,
            Kind::Data,
            Kind::Data,
        ];
        if input.one_in(3) {
            header.kind = kinds[usize::from(input.below(8))];
        }
        let payload = vec![7; usize::try_from(said).unwrap_or(0)];
        self.wire(input).say(&header, &payload);
    }

    /// Understands what the engine has said.
    fn listen(&mut self) {
        for at in 0..self.wires.len() {
            while let Some((header, payload)) = self.wires[at].hear() {
                assert!(at == 0 || header.kind == Kind::Data, "{header:?} on a further connection");
                self.understand(&header, &payload);
            }
        }
    }

    fn understand(&mut self, h: &Header, payload: &[u8]) {
        let known = usize::try_from(h.tag).ok().filter(|&t| t < self.heard.len());
        match (h.kind, known) {
            (Kind::Rts, Some(number)) => {
                let cts = Header { id: h.id, length: OURS + number as u64, ..Header::bare(Kind::Cts) };
                self.wires[0].say(&cts, &[]);
            }
            (Kind::Cts, _) => {
                // A peer that lies may be answered for what it made up.
                let told = usize::try_from(h.id).ok().and_then(|n| self.told.get_mut(n));
                told.into_iter().for_each(|m| m.cleared = Some(h.length));
            }
            (Kind::Eager, Some(number)) => self.came(number, 0, payload),
            (Kind::Data, _) => {
                let number = h.id.checked_sub(OURS).and_then(|n| usize::try_from(n).ok());
                if let Some(number) = number.filter(|&n| n < self.heard.len()) {
                    self.came(number, h.offset(), payload);
                }
            }
            _ => {}
        }
    }

    /// Bytes of a message of the engine: the right ones, inside it, and for the first time.
    fn came(&mut self, number: usize, offset: u64, payload: &[u8]) {
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let place = self.heard[number].seen.get_mut(start..start.saturating_add(payload.len()));
        let place =
            place.unwrap_or_else(|| panic!("{} bytes at {offset} of message {number}", payload.len()));
        assert!(!place.contains(&true), "bytes of message {number} at {offset} came again");
        place.fill(true);
        assert!(payload == bytes(number as u64, offset, payload.len() as u64), "other bytes at {offset}");
    }

    /// One event of an honest peer.
    fn step(&mut self, event: u8, input: &mut Input<'_>) {
        match event {
            0 => self.announce(input),
            1 => self.send(input),
            2..=5 => self.piece(input),
            6 | 7 => {
                let n = usize::from(input.u16()) * 4;
                self.wire(input).pump(n);
            }
            8 => self.dial(u32::try_from(self.wires.len()).unwrap_or(0)),
            _ => self.exchange(),
        }
    }

    /// A round of the engine's, and what it said; whether anything is on its way still.
    fn exchange(&mut self) {
        self.engine.with(|core| core.progress());
        self.listen();
    }

    /// Says what is left and waits until all is over.
    fn end_well(&mut self) {
        let deadline = Instant::now() + SOON;
        loop {
            for (at, message) in self.told.iter_mut().enumerate() {
                let Some(id) = message.cleared else { continue };
                for (from, to) in message.left.drain(..) {
                    let wire = at % self.wires.len();
                    self.wires[wire].out.extend(Header::piece(id, from, to - from).encode());
                    self.wires[wire].out.extend(bytes(at as u64, from, to - from));
                }
            }
            for wire in &mut self.wires {
                while wire.pump(usize::MAX) {}
                assert!(wire.link.is_some(), "the engine has closed a connection of an honest peer");
            }
            self.exchange();
            let heard_all = self.heard.iter().all(|m| !m.seen.contains(&false));
            let over = |op: OpId| self.engine.with(|core| core.is_done(op));
            let ops = self.told.iter().map(|m| m.op).chain(self.heard.iter().map(|m| m.op));
            if heard_all && ops.into_iter().all(over) {
                return;
            }
            assert!(Instant::now() < deadline, "what an honest peer said does not come whole");
        }
    }

    /// Every operation ends; what an honest peer said is there, byte by byte.
    fn results(self, honest: bool) {
        let deadline = Instant::now() + SOON;
        let finish = |op: OpId| {
            let ended = self.engine.block_until(deadline, |core| core.take(op));
            ended.unwrap_or_else(|| panic!("operation {op:?} outlives its peer"))
        };
        for m in &self.heard {
            let sent = finish(m.op).0;
            assert!(!honest || sent.is_ok(), "{sent:?}");
        }
        for (number, m) in self.told.iter().enumerate() {
            let (result, memory) = finish(m.op);
            match &result {
                Ok(status) => assert!(status.length <= m.capacity, "{status:?} in {} bytes", m.capacity),
                Err(Fault::Truncated { sent, capacity, .. }) => assert!(sent > capacity),
                Err(fault) => assert!(!honest, "{fault}"),
            }
            assert!(!honest || result.is_ok() == (m.len <= m.capacity), "{result:?}");
            let memory = memory.and_then(|m| m.into_any().downcast::<Vec<u8>>().ok());
            if honest {
                let memory = memory.unwrap_or_else(|| panic!("the memory is lost"));
                let n = m.len.min(m.capacity);
                let got = &memory[..usize::try_from(n).unwrap_or(0)];
                assert!(got == bytes(number as u64, 0, n), "other bytes in message {number}");
            }
        }
    }
}

/// First byte: whether the peer is honest. The rest: a script of receives and sends of the engine, of further
/// connections, of pieces and how far each connection carries them; and of lies, if it is not.
pub fn data_lanes(data: &[u8]) {
    let mut input = Input::new(data);
    let honest = input.u8() & 1 == 0;
    let (engine, address) = listening();
    let mut peer = Peer { engine, address, wires: Vec::new(), told: Vec::new(), heard: Vec::new() };
    peer.dial(0);
    assert_eq!(peer.wires.len(), 1, "own handshake failed");
    for _ in 0..STEPS {
        if input.is_empty() {
            break;
        }
        let event = input.below(16);
        match event {
            _ if honest => peer.step(event, &mut input),
            0..=9 => peer.step(event, &mut input),
            10..=12 => peer.lie(&mut input),
            13 => {
                let noise = input.piece();
                peer.wire(&mut input).out.extend_from_slice(noise);
            }
            14 => {
                // Any number; when the pair is lost already, nobody is let in.
                let number = input.number32();
                peer.dial(number);
            }
            _ => {
                // As the script says: a connection ends, or an operation is given up.
                if input.u8() & 1 == 0 {
                    peer.wire(&mut input).link = None;
                } else if let Some(m) = peer.told.get(usize::from(input.u8())) {
                    let op = m.op;
                    peer.engine.with(|core| core.cancel(op));
                }
            }
        }
    }
    if honest {
        peer.end_well();
    } else {
        for wire in &mut peer.wires {
            wire.pump(usize::MAX);
        }
        peer.exchange();
        peer.wires.clear();
        // What was never announced can still come from a rank that is not there any more: it cannot.
        let ops: Vec<OpId> = peer.told.iter().map(|m| m.op).collect();
        for op in ops {
            peer.engine.with(|core| core.cancel(op));
        }
    }
    peer.results(honest);
}
