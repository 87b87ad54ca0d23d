//! The data plane: headers, an engine whose authenticated peer says anything at all, and the handshake with
//! strangers. The last two use real sockets on loopback, since a link is a socket.

use crate::Input;
use rmpi_core::{
    Config, Directory, Endpoint, Engine, Fault, From, HEADER_LEN, Header, Kind, OpId, RecvSpec, SendSpec,
};
use rmpi_net::{ANSWER_LEN, Acceptor, Dial, DialStep, JobKey, Link, Route};
use rmpi_types::Thresholds;
use std::io::{ErrorKind, IoSlice, IoSliceMut, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

/// Events of one run, at most.
const STEPS: usize = 200;
/// Time for anything over loopback.
pub(crate) const SOON: Duration = Duration::from_secs(60);
/// Capacity of a posted receive, at most.
const MAX_RECV: u32 = 128 << 10;

/// A 64-byte header.
pub fn data_header(data: &[u8]) {
    let mut bytes = [0; HEADER_LEN];
    let n = data.len().min(HEADER_LEN);
    bytes[..n].copy_from_slice(&data[..n]);
    if let Ok(header) = Header::decode(&bytes) {
        assert_eq!(header.encode(), bytes);
    }
}

fn listener() -> TcpListener {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap_or_else(|e| panic!("no loopback: {e}"))
}

fn key() -> JobKey {
    JobKey::new(&[3; 32])
}

/// Closing sends a reset: thousands of runs must not leave sockets behind in TIME_WAIT.
fn no_linger(stream: &impl std::os::fd::AsFd) {
    let _ = socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

struct Nowhere;

impl Directory for Nowhere {
    fn endpoint(&self, _rank: u32) -> Endpoint {
        Endpoint { addresses: Vec::new(), host: "node1".into() }
    }
}

/// An engine (rank 0 of two), and where it listens.
pub(crate) fn listening() -> (Engine, SocketAddr) {
    let listener = listener();
    let address = listener.local_addr().unwrap_or_else(|e| panic!("no address: {e}"));
    let acceptor = Acceptor::new(vec![listener], key(), 0, 0, 0).unwrap_or_else(|e| panic!("{e}"));
    let (rank, size, oversubscribed) = (0, 2, true);
    let (streams, thresholds) = (1, Thresholds::default());
    let config = Config {
        rank,
        size,
        namespace: 0,
        epoch: 0,
        key: key(),
        streams,
        oversubscribed,
        segment: None,
        thresholds,
    };
    let engine = Engine::new(config, Box::new(Nowhere), Some(acceptor)).unwrap_or_else(|e| panic!("{e}"));
    (engine, address)
}

/// Rank 1's connection of this number to the engine; `None` when it is refused.
pub(crate) fn dial(engine: &Engine, address: SocketAddr, number: u32) -> Option<Box<dyn Link>> {
    let start = Instant::now();
    let route = Route { namespace: 0, epoch: 0, from: 1, to: 0 };
    let mut dial = Dial::new(key(), route, vec![address], start).numbered(number);
    loop {
        match dial.poll(Instant::now()) {
            DialStep::Up(link) => {
                no_linger(&link.fd());
                return Some(link);
            }
            DialStep::Pending => {}
            DialStep::Duplicate => return None,
            DialStep::Failed(e) => panic!("own handshake failed: {e}"),
        }
        // A round looks at listeners only now and then.
        for _ in 0..4 {
            engine.with(|core| core.progress());
        }
        assert!(start.elapsed() < SOON, "own handshake does not end");
    }
}

/// An engine (rank 0) and the other end of its link to rank 1.
fn connected() -> (Engine, Box<dyn Link>) {
    let (engine, address) = listening();
    let link = dial(&engine, address, 0).unwrap_or_else(|| panic!("own handshake was refused"));
    (engine, link)
}

struct Peer {
    link: Option<Box<dyn Link>>,
    sequence: u32,
    unread: Vec<u8>,
    /// Operation ids that the engine has named.
    ids: Vec<u64>,
}

impl Peer {
    /// Sends what the socket takes; the engine makes room. The link ends when it takes no more.
    fn send(&mut self, engine: &Engine, mut bytes: &[u8]) {
        for _ in 0..1000 {
            let Some(link) = &mut self.link else { return };
            if bytes.is_empty() {
                return;
            }
            match link.send(&[IoSlice::new(bytes)]) {
                Ok(n) => bytes = &bytes[n..],
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    engine.with(|core| core.progress());
                }
                Err(_) => self.link = None,
            }
        }
        self.link = None;
    }

    /// Learns the ids in what the engine has sent.
    fn listen(&mut self) {
        let mut buf = [0; 4096];
        let Some(link) = &mut self.link else { return };
        if let Ok(n) = link.recv(&mut [IoSliceMut::new(&mut buf)]) {
            self.unread.extend_from_slice(&buf[..n]);
        }
        while let Some((head, rest)) = self.unread.split_first_chunk::<HEADER_LEN>() {
            let header = Header::decode(head).unwrap_or_else(|e| panic!("the engine sent {e}"));
            let payload = matches!(header.kind, Kind::Eager | Kind::Data);
            let skip = if payload { usize::try_from(header.length).unwrap_or(usize::MAX) } else { 0 };
            if rest.len() < skip {
                return;
            }
            match header.kind {
                Kind::Rts => self.ids.push(header.id),
                Kind::Cts => self.ids.push(header.length),
                Kind::Eager | Kind::Data | Kind::Credit | Kind::Bye | Kind::Revoke => {}
            }
            self.unread.drain(..HEADER_LEN + skip);
        }
    }

    fn id(&self, input: &mut Input<'_>) -> u64 {
        match (input.u8(), &self.ids[..]) {
            (0..=31, _) | (_, []) => input.number(),
            (n, ids) => ids[usize::from(n) % ids.len()],
        }
    }

    fn header(&mut self, input: &mut Input<'_>) -> (Header, Vec<u8>) {
        let kinds = [
            Kind::Eager,
            Kind::Eager,
            Kind::Rts,
            Kind::Cts,
            Kind::Data,
            Kind::Credit,
            Kind::Bye,
            Kind::Revoke,
        ];
        let kind = kinds[usize::from(input.below(8))];
        let mut header = Header::bare(kind);
        header.context = u32::from(input.below(3));
        header.tag = i32::from(input.below(4));
        header.check = u16::from(input.u8() == 255);
        header.id = self.id(input);
        if kind == Kind::Eager && header.id > 100 {
            // Window given back: the peer has not used much.
            header.id = 0;
        }
        let mut payload = Vec::new();
        if kind == Kind::Data && header.tag < 3 {
            // Mostly inside its message.
            header.tag = 0;
        }
        match kind {
            Kind::Eager | Kind::Data => {
                // Mostly true to its length; a lie shifts everything that follows.
                let length = if input.one_in(8) { u32::from(input.u16()) * 2 } else { u32::from(input.u8()) };
                payload = vec![7; length as usize];
                header.length = if input.u8() == 255 { input.u64() } else { u64::from(length) };
            }
            Kind::Cts => header.length = self.id(input),
            Kind::Rts | Kind::Credit | Kind::Bye | Kind::Revoke => {
                header.length = if input.u8() & 1 == 0 { u64::from(input.u32()) } else { input.number() };
            }
        }
        if matches!(kind, Kind::Eager | Kind::Rts) {
            header.sequence = if input.u8() == 255 { input.u32() } else { self.sequence };
            self.sequence = self.sequence.wrapping_add(1);
        }
        (header, payload)
    }
}

/// A script: receives and sends of the engine, and whatever its peer says. When the peer has gone, every
/// operation must end, and received lengths must fit their buffers.
pub fn data_peer(data: &[u8]) {
    let mut input = Input::new(data);
    let (engine, link) = connected();
    let mut peer = Peer { link: Some(link), sequence: 0, unread: Vec::new(), ids: Vec::new() };
    let mut ops: Vec<(OpId, u64)> = Vec::new();
    for _ in 0..STEPS {
        if input.is_empty() {
            break;
        }
        match input.below(10) {
            0 => ops.push(receive(&engine, &mut input)),
            1 => {
                let tag = i32::from(input.below(4));
                let length = input.u32() % (MAX_RECV * 2);
                let spec = SendSpec { to: 1, context: 0, tag, check: 0, awaited: length & 1 == 1 };
                let bytes = vec![1u8; length as usize];
                ops.push((engine.with(|core| core.send_owned(spec, Box::new(bytes))), u64::from(length)));
            }
            2 => peer.send(&engine, input.piece()),
            3 => {
                engine.with(|core| core.progress());
                peer.listen();
            }
            4 => {
                if let Some((op, _)) = ops.get(usize::from(input.u8())) {
                    engine.with(|core| core.cancel(*op));
                }
            }
            5 => {
                let op = usize::from(input.u8());
                if op < ops.len() {
                    let (op, _) = ops.swap_remove(op);
                    engine.with(|core| core.release(op));
                }
            }
            _ => {
                let (header, payload) = peer.header(&mut input);
                peer.send(&engine, &header.encode());
                peer.send(&engine, &payload);
            }
        }
    }
    engine.with(|core| core.progress());
    peer.link = None;
    let deadline = Instant::now() + SOON;
    for (op, capacity) in ops {
        // A receive from anybody may go on: this rank could still send to itself. Matched, it must end.
        engine.with(|core| core.cancel(op));
        let Some((result, _)) = engine.block_until(deadline, |core| core.take(op)) else {
            panic!("operation {op:?} of {capacity} bytes outlives its peer");
        };
        match result {
            Ok(status) => assert!(status.length <= capacity, "{status:?} in {capacity} bytes"),
            Err(Fault::Truncated { sent, capacity, .. }) => assert!(sent > capacity),
            Err(fault) => assert!(!fault.to_string().is_empty()),
        }
    }
}

fn receive(engine: &Engine, input: &mut Input<'_>) -> (OpId, u64) {
    let from = if input.u8() & 1 == 0 { From::Rank(1) } else { From::Any(vec![0, 1].into()) };
    let tag = (input.u8() & 1 == 0).then(|| i32::from(input.below(4)));
    let flags = input.u8();
    let capacity = if flags & 2 == 0 { u32::from(input.u8()) } else { input.u32() % MAX_RECV };
    let spec = RecvSpec { from, context: u32::from(input.below(3)), tag, check: 0, scribble: flags & 1 == 0 };
    let memory = vec![0u8; capacity as usize];
    (engine.with(|core| core.recv_owned(&spec, Box::new(memory))), u64::from(capacity))
}

/// First byte: who is the stranger. The rest: what it says, without the key. It must not get in.
pub fn link_hello(data: &[u8]) {
    let mut input = Input::new(data);
    let dials = input.u8() & 1 == 0;
    let listener = listener();
    let address = listener.local_addr().unwrap_or_else(|e| panic!("no address: {e}"));
    if dials {
        stranger_dials(listener, address, input.rest())
    } else {
        stranger_listens(&listener, address, input.rest())
    }
}

fn stranger_dials(listener: TcpListener, address: SocketAddr, words: &[u8]) {
    let mut acceptor = Acceptor::new(vec![listener], key(), 0, 0, 0).unwrap_or_else(|e| panic!("{e}"));
    let mut stranger = TcpStream::connect(address).unwrap_or_else(|e| panic!("loopback: {e}"));
    no_linger(&stranger);
    // It may have been turned away already.
    let _ = stranger.write_all(words);
    for _ in 0..3 {
        assert!(acceptor.poll(Instant::now()).is_empty(), "a stranger was let in");
    }
    let _ = stranger.set_nonblocking(true);
    let mut answer = [0; 1];
    assert!(!matches!(stranger.read(&mut answer), Ok(1..)), "a stranger got an answer");
}

fn stranger_listens(listener: &TcpListener, address: SocketAddr, words: &[u8]) {
    let route = Route { namespace: 0, epoch: 0, from: 1, to: 0 };
    let mut dial = Dial::new(key(), route, vec![address], Instant::now());
    let mut steps = vec![dial.poll(Instant::now())];
    if let Ok((mut stranger, _)) = listener.accept() {
        no_linger(&stranger);
        let _ = stranger.write_all(words);
        steps.extend((0..3).map(|_| dial.poll(Instant::now())));
    }
    assert!(words.len() < ANSWER_LEN || !steps.iter().any(|s| matches!(s, DialStep::Up(_))));
    let taken = steps.iter().any(|s| matches!(s, DialStep::Up(_) | DialStep::Duplicate));
    assert!(!taken, "a stranger passed for a rank");
}
