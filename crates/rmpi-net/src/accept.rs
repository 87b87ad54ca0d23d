//! The accepting side: listening sockets and the connections that have not proven themselves yet.
//!
//! Unproven connections are bounded in number, time and bytes: a stranger costs one descriptor for a moment
//! and gets nothing back unless it sends a hello that knows the key. A full table drops its oldest stranger,
//! so nobody can keep ranks out by opening connections and stalling.

use crate::auth::{self, Answer, HELLO_LEN, Hello, JobKey, PROOF_LEN, Route};
use crate::dial::Dial;
use crate::link::{Buffers, Link, TcpLink};
use crate::quic::{QuicArrival, QuicRail};
use crate::tls::Security;
use socket2::SockRef;
use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

/// Connections in handshake at once.
const MAX_PENDING: usize = 128;
/// New connections taken in one [`Acceptor::poll`].
const MAX_ACCEPTS: usize = 64;
/// Time for a complete hello.
const HELLO_DEADLINE: Duration = Duration::from_secs(5);
/// Time for the proof after a good hello; long, because the dialling rank may be computing meanwhile.
const PROOF_DEADLINE: Duration = Duration::from_secs(60);

enum Stage {
    Hello { got: usize, buf: Hello },
    Proof { got: usize, buf: [u8; PROOF_LEN], hello: Hello, answer: Answer, from: u32, number: u32 },
}

struct Pending {
    stream: TcpStream,
    deadline: Instant,
    stage: Stage,
}

enum Step {
    Wait,
    Drop,
    /// The dialler and the number of its connection.
    Proven(u32, u32),
}

/// The listening sockets of one rank and who knocks at them.
pub struct Acceptor {
    listeners: Vec<TcpListener>,
    pending: VecDeque<Pending>,
    key: JobKey,
    /// `from` is not used.
    me: Route,
    turned_away: u64,
    security: Option<Security>,
    quic: Option<QuicRail>,
    buffers: Buffers,
}

/// A connection whose dialler has proven who it is, waiting for the verdict.
#[derive(Debug)]
pub struct Arrival {
    /// The dialling rank.
    pub from: u32,
    /// Which of the two ranks' connections this is: 0 for the first, which carries all but pieces of large messages.
    pub number: u32,
    way: Way,
}

#[derive(Debug)]
enum Way {
    Tcp(TcpStream, Option<Security>),
    Quic(QuicArrival),
}

impl Arrival {
    /// Takes the connection.
    ///
    /// # Errors
    /// When the dialler has gone already.
    pub fn take(self) -> io::Result<Box<dyn Link>> {
        match self.way {
            Way::Quic(arrival) => arrival.take(),
            Way::Tcp(mut stream, security) => {
                stream.write_all(&[auth::VERDICT_TAKEN])?;
                let tcp = TcpLink::new(stream)?;
                match &security {
                    Some(security) => security.server(tcp, self.from),
                    None => Ok(Box::new(tcp)),
                }
            }
        }
    }

    /// Tells the dialler that another connection serves the two ranks.
    pub fn refuse(self) {
        match self.way {
            Way::Quic(arrival) => arrival.refuse(),
            // It may have gone already; then it needs no verdict.
            Way::Tcp(mut stream, _) => drop(stream.write_all(&[auth::VERDICT_DUPLICATE])),
        }
    }
}

impl Acceptor {
    /// Accepts connections to rank `rank` of (`namespace`, `epoch`) on bound, listening sockets.
    ///
    /// # Errors
    /// When a socket cannot be made non-blocking.
    pub fn new(
        listeners: Vec<TcpListener>,
        key: JobKey,
        namespace: u32,
        epoch: u32,
        rank: u32,
    ) -> io::Result<Self> {
        listeners.iter().try_for_each(|l| l.set_nonblocking(true))?;
        let me = Route { namespace, epoch, from: rank, to: rank };
        Ok(Self {
            listeners,
            pending: VecDeque::new(),
            key,
            me,
            turned_away: 0,
            security: None,
            quic: None,
            buffers: Buffers::default(),
        })
    }

    /// Gives TCP connections buffers of these sizes.
    #[must_use]
    pub fn buffers(mut self, buffers: Buffers) -> Self {
        self.buffers = buffers;
        self
    }

    /// Encrypts every connection: the dialler must hold the key that the table gives for its rank.
    #[must_use]
    pub fn secured(mut self, security: Option<Security>) -> Self {
        self.security = security;
        self
    }

    /// Takes QUIC connections too, and dials over QUIC only.
    #[must_use]
    pub fn over_quic(mut self, rail: Option<QuicRail>) -> Self {
        self.quic = rail;
        self
    }

    /// Starts trying to reach rank `to` in the way its links are made.
    #[must_use]
    pub fn dial(&self, to: u32, addresses: Vec<SocketAddr>, now: Instant) -> Dial {
        let route = Route { to, ..self.me };
        match &self.quic {
            Some(rail) => Dial::quic(rail, route, addresses, now),
            None => Dial::new(self.key.clone(), route, addresses, now)
                .secured(self.security.clone())
                .buffers(self.buffers),
        }
    }

    /// The listening sockets, and what tells of the QUIC rail.
    pub fn listeners(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.listeners.iter().map(AsFd::as_fd).chain(self.quic.iter().map(QuicRail::fd))
    }

    /// Connections in handshake, to wait on for reading. They change with every poll.
    pub fn handshakes(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.pending.iter().map(|p| p.stream.as_fd())
    }

    /// Whether connections are in handshake.
    #[must_use]
    pub fn busy(&self) -> bool {
        !self.pending.is_empty()
    }

    /// How many connections were dropped because they were not of this job, too slow, or too many.
    #[must_use]
    pub fn turned_away(&self) -> u64 {
        self.turned_away
    }

    /// Accepts what has come, moves handshakes on, drops what is wrong or late, and returns the proven.
    pub fn poll(&mut self, now: Instant) -> Vec<Arrival> {
        self.accept(now);
        let quic = self.quic.iter().flat_map(QuicRail::poll);
        let mut arrivals: Vec<Arrival> =
            quic.map(|a| Arrival { from: a.from, number: 0, way: Way::Quic(a) }).collect();
        for _ in 0..self.pending.len() {
            let Some(mut p) = self.pending.pop_front() else { break };
            match step(&mut p, &self.key, self.me, now) {
                Step::Wait => self.pending.push_back(p),
                Step::Drop => self.turned_away += 1,
                Step::Proven(from, number) => {
                    arrivals.push(Arrival { from, number, way: Way::Tcp(p.stream, self.security.clone()) });
                }
            }
        }
        arrivals
    }

    fn accept(&mut self, now: Instant) {
        for listener in &self.listeners {
            for _ in 0..MAX_ACCEPTS {
                // Any error, also a full descriptor table: nothing to take now, the next poll tries again.
                let Ok((stream, _)) = listener.accept() else { break };
                let sized = self.buffers.apply(SockRef::from(&stream));
                if sized.and(stream.set_nonblocking(true)).and(stream.set_nodelay(true)).is_err() {
                    continue;
                }
                if self.pending.len() >= MAX_PENDING {
                    let stranger = |p: &Pending| matches!(p.stage, Stage::Hello { .. });
                    let at = self.pending.iter().position(stranger).unwrap_or(0);
                    self.pending.remove(at);
                    self.turned_away += 1;
                }
                let stage = Stage::Hello { got: 0, buf: [0; HELLO_LEN] };
                self.pending.push_back(Pending { stream, deadline: now + HELLO_DEADLINE, stage });
            }
        }
    }
}

/// Reads what is there; `Ok(true)` when `buf` is full.
pub(crate) fn fill(stream: &mut TcpStream, buf: &mut [u8], got: &mut usize) -> io::Result<bool> {
    while *got < buf.len() {
        match stream.read(&mut buf[*got..]) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(n) => *got += n,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(true)
}

fn step(p: &mut Pending, key: &JobKey, me: Route, now: Instant) -> Step {
    if let Stage::Hello { got, buf } = &mut p.stage {
        match fill(&mut p.stream, buf, got) {
            Ok(true) => {}
            Ok(false) => return if now < p.deadline { Step::Wait } else { Step::Drop },
            Err(_) => return Step::Drop,
        }
        let hello = *buf;
        let ours = |r: &Route| r.namespace == me.namespace && r.epoch == me.epoch && r.to == me.to;
        let claim = auth::check_hello(key, &hello);
        let Some((route, number)) = claim.filter(|(route, _)| ours(route)) else { return Step::Drop };
        let Ok(answer) = auth::answer(key, &hello) else { return Step::Drop };
        // A fresh connection takes 64 bytes whole; one that does not is no rank of ours.
        if p.stream.write_all(&answer).is_err() {
            return Step::Drop;
        }
        p.deadline = now + PROOF_DEADLINE;
        p.stage = Stage::Proof { got: 0, buf: [0; PROOF_LEN], hello, answer, from: route.from, number };
    }
    let Stage::Proof { got, buf, hello, answer, from, number } = &mut p.stage else { return Step::Wait };
    match fill(&mut p.stream, buf, got) {
        Ok(true) if auth::check_proof(key, hello, answer, buf) => Step::Proven(*from, *number),
        Ok(true) | Err(_) => Step::Drop,
        Ok(false) if now < p.deadline => Step::Wait,
        Ok(false) => Step::Drop,
    }
}
