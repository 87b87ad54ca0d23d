//! The dialling side: a peer's addresses *tried* in order until one leads to the peer itself.
//!
//! An address proves itself by the handshake, never by its looks: on two hosts the same bridge address may
//! lead home. An address that connects but does not answer at once may belong to a busy peer, so it is kept
//! while the next is tried; the first that answers gets the only proof. A connected attempt has no deadline of
//! its own: a rank that computes does not answer, and its host's death shows in the socket.

use crate::accept::fill;
use crate::auth::{self, ANSWER_LEN, Answer, Hello, JobKey, Route};
use crate::link::{Buffers, Link, TcpLink};
use crate::quic::{QuicDial, QuicRail, QuicStep};
use crate::tls::Security;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use std::io::{self, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

/// Time for a TCP connection before the next address is tried beside it.
const PATIENCE: Duration = Duration::from_millis(250);
/// Time for a TCP connection before an attempt is given up.
const CONNECT_DEADLINE: Duration = Duration::from_secs(4);
/// First pause before the addresses are tried again; doubled each round.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
/// Longest such pause.
const LONGEST_PAUSE: Duration = Duration::from_millis(500);
/// Time after which a peer that nobody answers for is given up.
const GIVE_UP: Duration = Duration::from_secs(8);
/// The same when every address refuses: listeners exist before ranks do, so refusal means the rank is gone.
const GIVE_UP_REFUSED: Duration = Duration::from_secs(1);
/// Rounds that are made at least, however late the caller polls.
const MIN_ROUNDS: u32 = 3;
/// Addresses of one peer that are tried; more is a hostile or broken table.
const MAX_ADDRESSES: usize = 64;

/// Why a peer could not be reached.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The peer has no address in the endpoint table.
    #[error("no address known")]
    NoAddress,
    /// Every address failed until the limit.
    #[error("no address answered within {seconds} s; last tried {address}: {source}")]
    Unreachable {
        /// How long it was tried.
        seconds: u64,
        /// The address tried last.
        address: SocketAddr,
        /// Its error.
        #[source]
        source: io::Error,
    },
}

/// What a poll of a [`Dial`] found.
#[derive(Debug)]
pub enum DialStep {
    /// Not yet.
    Pending,
    /// Connected and proven both ways.
    Up(Box<dyn Link>),
    /// The peer has, or makes, another connection with us; wait for that.
    Duplicate,
    /// Given up.
    Failed(DialError),
}

enum Stage {
    Connecting,
    Answer { hello: Hello, got: usize, buf: Answer },
    Verdict,
}

struct Attempt {
    stream: TcpStream,
    address: SocketAddr,
    since: Instant,
    stage: Stage,
}

enum Outcome {
    Wait,
    Up,
    Duplicate,
}

/// The effort to connect to one peer.
pub struct Dial(Effort);

enum Effort {
    Tcp(Box<TcpDial>),
    Quic(QuicDial, Instant),
    Nowhere,
}

struct TcpDial {
    key: JobKey,
    route: Route,
    number: u32,
    addresses: Vec<SocketAddr>,
    next: usize,
    round: u32,
    started: Instant,
    next_at: Instant,
    attempts: Vec<Attempt>,
    last: Option<(SocketAddr, io::Error)>,
    security: Option<Security>,
    buffers: Buffers,
}

impl Dial {
    /// Starts trying `addresses` in order, over TCP.
    #[must_use]
    pub fn new(key: JobKey, route: Route, mut addresses: Vec<SocketAddr>, now: Instant) -> Self {
        addresses.truncate(MAX_ADDRESSES);
        Self(Effort::Tcp(Box::new(TcpDial {
            key,
            route,
            number: 0,
            addresses,
            next: 0,
            round: 0,
            started: now,
            next_at: now,
            attempts: Vec::new(),
            last: None,
            security: None,
            buffers: Buffers::default(),
        })))
    }

    /// With buffers of these sizes; of TCP connections only.
    pub(crate) fn buffers(mut self, buffers: Buffers) -> Self {
        if let Effort::Tcp(dial) = &mut self.0 {
            dial.buffers = buffers;
        }
        self
    }

    /// As another connection of the two ranks, of this number; over QUIC there is one only.
    #[must_use]
    pub fn numbered(mut self, number: u32) -> Self {
        if let Effort::Tcp(dial) = &mut self.0 {
            dial.number = number;
        }
        self
    }

    /// The same over QUIC.
    pub(crate) fn quic(rail: &QuicRail, route: Route, mut addresses: Vec<SocketAddr>, now: Instant) -> Self {
        addresses.truncate(MAX_ADDRESSES);
        Self(if addresses.is_empty() {
            Effort::Nowhere
        } else {
            Effort::Quic(rail.dial(route, addresses), now)
        })
    }

    /// Encrypts the connection: the peer must hold the key that the table gives for it.
    #[must_use]
    pub fn secured(mut self, security: Option<Security>) -> Self {
        if let Effort::Tcp(dial) = &mut self.0 {
            dial.security = security;
        }
        self
    }

    /// Descriptors to wait on, and whether for writing. They change with every poll.
    pub fn fds(&self) -> impl Iterator<Item = (BorrowedFd<'_>, bool)> {
        let attempts: &[Attempt] = match &self.0 {
            Effort::Tcp(dial) => &dial.attempts,
            // The rail's own descriptor tells.
            Effort::Quic(..) | Effort::Nowhere => &[],
        };
        attempts.iter().map(|a| (a.stream.as_fd(), matches!(a.stage, Stage::Connecting)))
    }

    /// Gives up unless a connection stands and the peer is expected to answer on it; whether it gave up: the tie
    /// break of two ranks that dial each other. After giving up it must be dropped.
    pub fn give_way(&mut self) -> bool {
        match &mut self.0 {
            Effort::Tcp(dial) => dial.attempts.iter().all(|a| matches!(a.stage, Stage::Connecting)),
            Effort::Quic(dial, _) => dial.give_way(),
            Effort::Nowhere => true,
        }
    }

    /// Moves the attempts on and starts the next one when it is time.
    pub fn poll(&mut self, now: Instant) -> DialStep {
        let (dial, started) = match &mut self.0 {
            Effort::Tcp(dial) => return dial.poll(now),
            Effort::Quic(dial, started) => (dial, *started),
            Effort::Nowhere => return DialStep::Failed(DialError::NoAddress),
        };
        match dial.poll() {
            QuicStep::Pending => DialStep::Pending,
            QuicStep::Up(link) => DialStep::Up(link),
            QuicStep::Duplicate => DialStep::Duplicate,
            QuicStep::Failed(source, address) => {
                let seconds = now.saturating_duration_since(started).as_secs();
                DialStep::Failed(DialError::Unreachable { seconds, address, source })
            }
        }
    }
}

impl TcpDial {
    fn poll(&mut self, now: Instant) -> DialStep {
        if self.addresses.is_empty() {
            return DialStep::Failed(DialError::NoAddress);
        }
        let mut i = 0;
        while i < self.attempts.len() {
            let proving = self.attempts.iter().any(|a| matches!(a.stage, Stage::Verdict));
            match self.attempts[i].step(&self.key, (self.route, self.number), proving, now) {
                Ok(Outcome::Wait) => i += 1,
                Ok(Outcome::Up) => {
                    let a = self.attempts.swap_remove(i);
                    match self.link(a.stream) {
                        Ok(link) => return DialStep::Up(link),
                        Err(e) => self.fail(a.address, e, now),
                    }
                }
                Ok(Outcome::Duplicate) => return DialStep::Duplicate,
                Err(e) => {
                    let a = self.attempts.remove(i);
                    self.fail(a.address, e, now);
                }
            }
        }
        self.start(now)
    }

    fn link(&self, stream: TcpStream) -> io::Result<Box<dyn Link>> {
        let tcp = TcpLink::new(stream)?;
        match &self.security {
            Some(security) => security.client(tcp, self.route.to),
            None => Ok(Box::new(tcp)),
        }
    }

    fn fail(&mut self, address: SocketAddr, error: io::Error, now: Instant) {
        self.last = Some((address, error));
        if self.next < self.addresses.len() {
            self.next_at = now;
        }
    }

    fn start(&mut self, now: Instant) -> DialStep {
        while now >= self.next_at {
            if self.next == self.addresses.len() {
                if !self.attempts.is_empty() {
                    return DialStep::Pending;
                }
                let refused =
                    self.last.as_ref().is_some_and(|l| l.1.kind() == io::ErrorKind::ConnectionRefused);
                let limit = if refused { GIVE_UP_REFUSED } else { GIVE_UP };
                let waited = now - self.started;
                if waited >= limit && self.round + 1 >= MIN_ROUNDS {
                    let Some((address, source)) = self.last.take() else {
                        return DialStep::Failed(DialError::NoAddress);
                    };
                    return DialStep::Failed(DialError::Unreachable {
                        seconds: waited.as_secs(),
                        address,
                        source,
                    });
                }
                self.next = 0;
                self.next_at = now + (FIRST_PAUSE * (1 << self.round.min(6))).min(LONGEST_PAUSE);
                self.round += 1;
                return DialStep::Pending;
            }
            let address = self.addresses[self.next];
            self.next += 1;
            match connect(address, self.buffers) {
                Ok(stream) => {
                    self.attempts.push(Attempt { stream, address, since: now, stage: Stage::Connecting });
                    self.next_at = now + PATIENCE;
                }
                Err(e) => self.last = Some((address, e)),
            }
        }
        DialStep::Pending
    }
}

fn connect(address: SocketAddr, buffers: Buffers) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    buffers.apply(SockRef::from(&socket))?;
    match socket.connect(&address.into()) {
        Ok(()) => {}
        Err(e) if e.raw_os_error() == Some(nix::libc::EINPROGRESS) => {}
        Err(e) => return Err(e),
    }
    Ok(socket.into())
}

impl Attempt {
    fn step(
        &mut self,
        key: &JobKey,
        (route, number): (Route, u32),
        proving: bool,
        now: Instant,
    ) -> io::Result<Outcome> {
        if matches!(self.stage, Stage::Connecting) {
            if let Some(e) = self.stream.take_error()? {
                return Err(e);
            }
            if self.stream.peer_addr().is_err() {
                let late = now - self.since >= CONNECT_DEADLINE;
                return if late { Err(io::ErrorKind::TimedOut.into()) } else { Ok(Outcome::Wait) };
            }
            if self.stream.peer_addr().ok() == self.stream.local_addr().ok() {
                // TCP lets a socket connect to itself when its ephemeral port is the one dialled.
                return Err(io::ErrorKind::ConnectionRefused.into());
            }
            let hello = auth::hello(key, route, number)?;
            self.stream.write_all(&hello)?;
            self.stage = Stage::Answer { hello, got: 0, buf: [0; ANSWER_LEN] };
        }
        if let Stage::Answer { hello, got, buf } = &mut self.stage {
            // Only one attempt may prove itself at a time, or two ranks could settle on two connections.
            if proving || !fill(&mut self.stream, buf, got)? {
                return Ok(Outcome::Wait);
            }
            if !auth::check_answer(key, hello, buf) {
                return Err(io::Error::new(
                    io::ErrorKind::PermissionDenied,
                    "who answers there does not know this job's key",
                ));
            }
            self.stream.write_all(&auth::proof(key, hello, buf))?;
            self.stage = Stage::Verdict;
        }
        let mut verdict = [0];
        if !fill(&mut self.stream, &mut verdict, &mut 0)? {
            return Ok(Outcome::Wait);
        }
        match verdict[0] {
            auth::VERDICT_TAKEN => Ok(Outcome::Up),
            auth::VERDICT_DUPLICATE => Ok(Outcome::Duplicate),
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }
}
