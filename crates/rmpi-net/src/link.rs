//! One authenticated, ordered byte stream to a peer, and how a TCP socket becomes one.
//!
//! A link is non-blocking: a call that cannot go on returns `WouldBlock`. It never buffers; the engine above
//! owns framing, queues and memory.

use crate::sys;
use socket2::{SockRef, TcpKeepalive};
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

/// Ordered, reliable bytes to and from one peer.
pub trait Link: Send + std::fmt::Debug {
    /// The descriptor to wait on.
    fn fd(&self) -> BorrowedFd<'_>;
    /// Sends a prefix of the concatenated `parts`; how many bytes. After `WouldBlock` the next call must begin with
    /// the same bytes: an encrypting link may have worked on them already.
    ///
    /// # Errors
    /// `WouldBlock` when nothing can be sent now; anything else means the link is dead.
    fn send(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize>;
    /// Sends a piece of the large message `message`: header and payload of at most [`Link::max_piece`]. Pieces of
    /// one message stay in order; a link with several streams lets them and other messages pass each other.
    ///
    /// # Errors
    /// As of [`Link::send`].
    fn send_piece(&mut self, message: u64, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        let _ = message;
        self.send(parts)
    }
    /// Largest payload of a piece; such a link takes header and payload whole or not at all. `None` for a plain
    /// stream of bytes.
    fn max_piece(&self) -> Option<usize> {
        None
    }
    /// Whether the descriptor becomes writable when there is room; else it becomes readable.
    fn announces_room(&self) -> bool {
        true
    }
    /// Receives into the concatenated `parts`; 0 is the end of the stream. Less than there is room for means that
    /// nothing more is at hand, so that it is right to wait for the descriptor.
    ///
    /// # Errors
    /// `WouldBlock` when nothing has arrived; anything else means the link is dead.
    fn recv(&mut self, parts: &mut [IoSliceMut<'_>]) -> io::Result<usize>;
    /// Ends the sending direction; what was sent is still delivered.
    fn finish(&mut self);
    /// Bytes sent that the peer's host has not acknowledged.
    fn unacknowledged(&self) -> usize;
    /// How long the peer's host has ignored retransmissions; `None` when it has not.
    fn silence(&self) -> Option<Duration>;
    /// The rail's name in reports: `tcp`, `tls`, `quic`.
    fn rail(&self) -> &'static str;
    /// The peer's address, where a link is one connection of several that are possible.
    fn peer(&self) -> Option<SocketAddr> {
        None
    }
}

/// Whether a failed send means that the peer has closed: it takes nothing more, but what it said before may be unread.
#[must_use]
pub fn has_closed(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
}

/// The kernel's number of an error that ends a link.
fn fatal(error: &io::Error) -> Option<i32> {
    let passing = matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted);
    error.raw_os_error().filter(|_| !passing)
}

/// Sizes of a TCP connection's buffers in the kernel, bytes; `None` leaves them to its tuning, which is right unless
/// much is under way on a path of long delay. It gives twice what is asked for (`socket(7)`), up to its limits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Buffers {
    /// For what was sent and is not acknowledged.
    pub send: Option<usize>,
    /// For what has arrived and was not read.
    pub receive: Option<usize>,
}

impl Buffers {
    /// Gives a socket these sizes; best before it is connected.
    ///
    /// # Errors
    /// What the kernel says to the options.
    pub(crate) fn apply(self, socket: SockRef<'_>) -> io::Result<()> {
        self.send.map_or(Ok(()), |bytes| socket.set_send_buffer_size(bytes))?;
        self.receive.map_or(Ok(()), |bytes| socket.set_recv_buffer_size(bytes))
    }
}

/// A link over a connected TCP socket.
#[derive(Debug)]
pub struct TcpLink {
    stream: TcpStream,
    /// The error that ended it: the kernel says it once, and the end of the stream from then on.
    failed: Option<i32>,
}

impl TcpLink {
    /// Seconds of an idle connection before the kernel asks whether the other host is there.
    const KEEPALIVE_IDLE: Duration = Duration::from_secs(3);
    /// Time between such questions.
    const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(1);
    /// Unanswered questions after which the connection is dead.
    const KEEPALIVE_PROBES: u32 = 5;

    /// Takes a connected socket: non-blocking, no Nagle delay, keep-alive that names a vanished host in 8 s,
    /// acknowledgements with what goes back or for every second message. The kernel begins with one for each, which costs
    /// the sender of small messages to a peer that has nothing to say half a microsecond.
    ///
    /// `TCP_USER_TIMEOUT` is deliberately left alone: it also kills connections whose receiver keeps its
    /// window closed, as a rank does that computes for a minute while a message to it is under way. The
    /// engine asks [`Link::silence`] instead, which tells a dead host from a busy one.
    ///
    /// # Errors
    /// When the socket refuses an option, which means it is not connected any more.
    pub fn new(stream: TcpStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        let keepalive = TcpKeepalive::new()
            .with_time(Self::KEEPALIVE_IDLE)
            .with_interval(Self::KEEPALIVE_INTERVAL)
            .with_retries(Self::KEEPALIVE_PROBES);
        let socket = SockRef::from(&stream);
        socket.set_tcp_keepalive(&keepalive)?;
        socket.set_tcp_quickack(false)?;
        Ok(Self { stream, failed: None })
    }
}

impl Link for TcpLink {
    fn fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }

    fn send(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        let sent = match parts {
            [one] => self.stream.write(one),
            // Not `write_vectored`: `writev` raises SIGPIPE in programs that did not disable it.
            _ => SockRef::from(&self.stream).send_vectored_with_flags(parts, nix::libc::MSG_NOSIGNAL),
        };
        // What a peer that has closed said before is still to be read, to its end.
        sent.inspect_err(|e| {
            if !has_closed(e) {
                self.failed = fatal(e).or(self.failed)
            }
        })
    }

    fn recv(&mut self, parts: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        let received = match parts {
            [one] => self.stream.read(one),
            _ => self.stream.read_vectored(parts),
        };
        match (received, self.failed) {
            (Ok(0), Some(code)) => Err(io::Error::from_raw_os_error(code)),
            (received, _) => received.inspect_err(|e| self.failed = fatal(e).or(self.failed)),
        }
    }

    fn finish(&mut self) {
        // An error means the connection is gone already, which the next receive reports.
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    fn unacknowledged(&self) -> usize {
        sys::unacknowledged(self.fd()).unwrap_or(0)
    }

    fn silence(&self) -> Option<Duration> {
        sys::silence(self.fd()).unwrap_or(None)
    }

    fn rail(&self) -> &'static str {
        "tcp"
    }

    fn peer(&self) -> Option<SocketAddr> {
        // A closed socket has none.
        let address = self.stream.peer_addr().ok()?;
        // A listener of both families gives addresses of the fourth version in the clothes of the sixth.
        Some(SocketAddr::new(address.ip().to_canonical(), address.port()))
    }
}
