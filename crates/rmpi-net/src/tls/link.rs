//! A TLS connection as a [`Link`]: the session, the socket, and as few bytes between them as can be.
//!
//! Buffers are borrowed from a pool of the rank while something is on its way, so an idle connection holds none.
//! The handshake goes on inside `send` and `recv`, which say `WouldBlock` until it is over.

use super::keys::{Identity, PublicKey};
use super::session::{RECORD, Session, Stop, room_for};
use crate::link::{Link, TcpLink, has_closed};
use std::io::{self, ErrorKind, IoSlice, IoSliceMut};
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Plaintext encrypted before the socket is asked to take it.
const BATCH: usize = 8 * RECORD;
/// Bytes of a pooled buffer.
const BUFFER: usize = room_for(BATCH);
/// Idle buffers kept.
const MAX_SPARE: usize = 8;

/// Buffers of one rank's TLS connections.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pool(Arc<Mutex<Vec<Vec<u8>>>>);

impl Pool {
    fn take(&self) -> Vec<u8> {
        let spare = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        spare.unwrap_or_else(|| vec![0; BUFFER])
    }

    fn give(&self, buffer: Vec<u8>) {
        let mut spare = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if buffer.len() == BUFFER && spare.len() < MAX_SPARE {
            spare.push(buffer);
        }
    }
}

/// A buffer with bytes at `start..end`; empty ones hold no memory.
#[derive(Debug, Default)]
struct Window {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

impl Window {
    fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Gives the memory back once nothing is left.
    fn settle(&mut self, pool: &Pool) {
        if self.is_empty() && !self.bytes.is_empty() {
            pool.give(std::mem::take(&mut self.bytes));
            (self.start, self.end) = (0, 0);
        }
    }
}

/// A TLS 1.3 connection to a rank whose key is pinned.
pub(crate) struct TlsLink {
    tcp: TcpLink,
    session: Session,
    pool: Pool,
    /// Ciphertext for the socket.
    out: Window,
    /// Plaintext bytes that `out` stands for and that the caller has not been told of.
    claimed: usize,
    /// Ciphertext from the socket.
    incoming: Window,
    /// Plaintext that did not fit the caller's buffers: less than a record.
    plain: Vec<u8>,
    plain_at: usize,
    /// The socket, or the peer's goodbye, has ended the stream.
    ended: bool,
}

impl std::fmt::Debug for TlsLink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TlsLink({:?})", self.tcp)
    }
}

/// The caller's buffers as one.
struct Scatter<'a, 'b> {
    parts: &'a mut [IoSliceMut<'b>],
    index: usize,
    at: usize,
    put: usize,
}

impl Scatter<'_, '_> {
    /// Copies what fits; how much, and whether there is room for more.
    fn put(&mut self, mut bytes: &[u8]) -> (usize, bool) {
        let before = self.put;
        while let Some(part) = self.parts.get_mut(self.index) {
            let room = &mut part[self.at..];
            let n = room.len().min(bytes.len());
            room[..n].copy_from_slice(&bytes[..n]);
            bytes = &bytes[n..];
            (self.at, self.put) = (self.at + n, self.put + n);
            if self.at < part.len() {
                break;
            }
            (self.index, self.at) = (self.index + 1, 0);
        }
        (self.put - before, !self.full())
    }

    fn full(&self) -> bool {
        self.parts[self.index.min(self.parts.len())..].iter().all(|p| p.is_empty())
    }
}

impl TlsLink {
    /// The dialling side over a connected socket, to a peer with this key.
    ///
    /// # Errors
    /// When the session cannot be set up or the socket is gone.
    pub(crate) fn client(tcp: TcpLink, me: &Identity, peer: PublicKey, pool: Pool) -> io::Result<Self> {
        let mut link = Self::over(tcp, Session::client(me, peer)?, pool);
        link.greet()?;
        Ok(link)
    }

    /// The accepting side, of a peer with this key.
    ///
    /// # Errors
    /// When the session cannot be set up.
    pub(crate) fn server(tcp: TcpLink, me: &Identity, peer: PublicKey, pool: Pool) -> io::Result<Self> {
        Ok(Self::over(tcp, Session::server(me, peer)?, pool))
    }

    fn over(tcp: TcpLink, session: Session, pool: Pool) -> Self {
        Self {
            tcp,
            session,
            pool,
            out: Window::default(),
            claimed: 0,
            incoming: Window::default(),
            plain: Vec::new(),
            plain_at: 0,
            ended: false,
        }
    }

    /// Bytes of buffers in use.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.out.bytes.len() + self.incoming.bytes.len() + self.plain.capacity()
    }

    /// The dialler speaks first.
    fn greet(&mut self) -> io::Result<()> {
        let mut words = Vec::new();
        self.session.advance(&mut [], &mut words, &mut |_| true).1?;
        self.say(words)
    }

    /// Sends what the handshake has to say, or keeps it for the next call.
    fn say(&mut self, words: Vec<u8>) -> io::Result<()> {
        if words.is_empty() {
            return Ok(());
        }
        // Records are in order: what is encrypted already goes first.
        let mut bytes = self.out.bytes[self.out.start..self.out.end].to_vec();
        bytes.extend_from_slice(&words);
        self.out = Window { start: 0, end: bytes.len(), bytes };
        self.flush().map(|_| ())
    }

    /// Writes ciphertext; whether all of it is with the kernel.
    fn flush(&mut self) -> io::Result<bool> {
        while !self.out.is_empty() {
            match self.tcp.send(&[IoSlice::new(&self.out.bytes[self.out.start..self.out.end])]) {
                Ok(n) => self.out.start += n,
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        self.out.settle(&self.pool);
        Ok(true)
    }

    /// Reads ciphertext once; whether more may be there.
    fn fetch(&mut self) -> io::Result<bool> {
        let w = &mut self.incoming;
        if w.bytes.is_empty() {
            w.bytes = self.pool.take();
        }
        if w.start > 0 {
            w.bytes.copy_within(w.start..w.end, 0);
            (w.start, w.end) = (0, w.end - w.start);
        }
        let room = w.bytes.len() - w.end;
        match self.tcp.recv(&mut [IoSliceMut::new(&mut w.bytes[w.end..])]) {
            Ok(0) => {
                self.ended = true;
                Ok(false)
            }
            Ok(n) => {
                w.end += n;
                Ok(n == room)
            }
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// Decrypts what is there until `sink` is full or no whole record is left.
    fn open(&mut self, sink: &mut dyn FnMut(&[u8]) -> (usize, bool)) -> io::Result<Stop> {
        let mut words = Vec::new();
        let w = &mut self.incoming;
        let (plain, plain_at) = (&mut self.plain, &mut self.plain_at);
        let mut keep = |record: &[u8]| {
            let (n, more) = sink(record);
            if n < record.len() {
                plain.clear();
                plain.extend_from_slice(&record[n..]);
                *plain_at = 0;
            }
            more && n == record.len()
        };
        let (used, stop) = self.session.advance(&mut w.bytes[w.start..w.end], &mut words, &mut keep);
        w.start += used;
        w.settle(&self.pool);
        let said = self.say(words);
        let stop = stop?;
        said?;
        if stop == Stop::Closed {
            self.ended = true;
        }
        Ok(stop)
    }

    /// Goes on with the handshake; whether it is over.
    fn shake(&mut self) -> io::Result<bool> {
        while self.session.handshaking() {
            let more = self.fetch()?;
            // A peer's first message may come with its last word of the handshake: it is kept for `recv`.
            self.open(&mut |_| (0, false))?;
            if self.ended && self.session.handshaking() {
                return Err(io::Error::new(
                    ErrorKind::UnexpectedEof,
                    "it closed the connection in the TLS handshake",
                ));
            }
            if self.session.handshaking() && !more {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

impl Link for TlsLink {
    fn fd(&self) -> BorrowedFd<'_> {
        self.tcp.fd()
    }

    /// After `WouldBlock` the next call must begin with the same bytes: they may be encrypted already.
    fn send(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        if !self.flush()? {
            return Err(ErrorKind::WouldBlock.into());
        }
        if self.claimed > 0 {
            return Ok(std::mem::take(&mut self.claimed));
        }
        if !self.shake()? {
            return Err(ErrorKind::WouldBlock.into());
        }
        if !self.flush()? {
            return Err(ErrorKind::WouldBlock.into());
        }
        self.out.bytes = self.pool.take();
        let (mut first, mut plain) = (Vec::new(), 0);
        for (i, part) in parts.iter().enumerate() {
            let mut part = &part[..part.len().min(BATCH - plain)];
            if i + 1 < parts.len() || !first.is_empty() {
                // Short parts share a record with the beginning of what follows.
                let n = part.len().min(RECORD - first.len());
                first.extend_from_slice(&part[..n]);
                part = &part[n..];
                plain += n;
                if first.len() < RECORD && i + 1 < parts.len() {
                    continue;
                }
                self.out.end += self.session.encrypt(&first, &mut self.out.bytes[self.out.end..])?;
                first.clear();
            }
            if !part.is_empty() {
                self.out.end += self.session.encrypt(part, &mut self.out.bytes[self.out.end..])?;
                plain += part.len();
            }
        }
        self.claimed = plain;
        if self.flush()? { Ok(std::mem::take(&mut self.claimed)) } else { Err(ErrorKind::WouldBlock.into()) }
    }

    fn recv(&mut self, parts: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        let mut into = Scatter { parts, index: 0, at: 0, put: 0 };
        match self.flush() {
            Err(e) if has_closed(&e) => {}
            flushed => drop(flushed?),
        }
        let (n, _) = into.put(&self.plain[self.plain_at..]);
        self.plain_at += n;
        if self.plain_at == self.plain.len() {
            (self.plain, self.plain_at) = (Vec::new(), 0);
            let mut more = true;
            loop {
                let opened = self.open(&mut |record| into.put(record));
                let stop = match opened {
                    Ok(Stop::Hungry) if more && !into.full() && !self.ended => self.fetch().map(Some),
                    other => other.map(|_| None),
                };
                match stop {
                    Ok(Some(again)) => more = again,
                    Ok(None) => break,
                    // What came whole before is still good; session and socket say the same again next time.
                    Err(_) if into.put > 0 => break,
                    Err(e) => return Err(e),
                }
                if !more && self.incoming.is_empty() {
                    break;
                }
            }
        }
        match into.put {
            0 if self.ended && self.session.handshaking() => {
                Err(io::Error::new(ErrorKind::UnexpectedEof, "it closed the connection in the TLS handshake"))
            }
            0 if self.ended => Ok(0),
            0 => Err(ErrorKind::WouldBlock.into()),
            n => Ok(n),
        }
    }

    fn finish(&mut self) {
        // The goodbye is a courtesy: the engine's own one has been sent and is what counts.
        if self.out.is_empty() {
            self.out.bytes = self.pool.take();
            self.out.end = self.session.goodbye(&mut self.out.bytes);
            let _ = self.flush();
        }
        self.tcp.finish();
    }

    fn unacknowledged(&self) -> usize {
        self.tcp.unacknowledged() + (self.out.end - self.out.start)
    }

    fn silence(&self) -> Option<Duration> {
        self.tcp.silence()
    }

    fn rail(&self) -> &'static str {
        "tls"
    }

    fn peer(&self) -> Option<SocketAddr> {
        self.tcp.peer()
    }
}
