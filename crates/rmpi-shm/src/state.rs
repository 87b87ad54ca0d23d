//! What a rank says of itself in the segment, and waking it when it sleeps.
//!
//! A rank that is about to sleep raises its flag. Who sends to it, or makes room for it, looks at the flag and
//! sends an empty datagram to the socket whose name stands beside it: an abstract name, which lives in the
//! node's network namespace and needs no file, no inherited descriptor and no permission. A stranger who knows
//! the name can wake a rank and nothing else.

use crate::area::SlotWords;
use crate::fence;
use crate::park;
use crate::ring::Words as _;
use crate::segment::Segment;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, bind, socket};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::atomic::{AtomicU64, Ordering};

/// Words of a rank's state.
pub(crate) const PARKED: usize = 0;
const BELL: usize = 1;
const PID: usize = 2;
const LEFT: usize = 3;
const DEAF: usize = 4;
/// Values of `LEFT`.
const FINISHED: u64 = 1;
const DROPPED: u64 = 2;
/// A bit for each rank that has sent here for the first time.
const NEWS: usize = 16;

/// Bytes of a socket's name that fit beside its length.
const NAME: usize = 7;

#[inline]
fn word(state: &SlotWords, index: usize) -> &AtomicU64 {
    state.word(index)
}

/// The states of a node's ranks, and this rank's socket.
#[derive(Debug)]
pub struct Bells {
    states: Vec<SlotWords>,
    me: usize,
    socket: Option<UnixDatagram>,
    tried: bool,
    asymmetric: bool,
}

impl Bells {
    /// Announces this rank.
    #[must_use]
    pub fn new(segment: &Segment) -> Self {
        let layout = segment.layout();
        let state = |r| SlotWords::new(segment.area(layout.state(r)));
        let states: Vec<SlotWords> = (0..layout.ranks()).map(state).collect();
        let me = segment.me() as usize;
        word(&states[me], PID).store(u64::from(std::process::id()), Ordering::Release);
        Self { states, me, socket: None, tried: false, asymmetric: fence::asymmetric() }
    }

    /// The socket that others ring, made at the first call; `None` where there can be none.
    pub fn socket(&mut self) -> Option<BorrowedFd<'_>> {
        if !self.tried {
            self.tried = true;
            if let Ok((socket, name)) = named_socket() {
                word(&self.states[self.me], BELL).store(name, Ordering::Release);
                self.socket = Some(socket);
            }
        }
        self.socket.as_ref().map(AsFd::as_fd)
    }

    /// Raises the flag. Afterwards everything must be looked at once more before sleeping. Whether others will
    /// certainly ring; if not, the sleep must be short.
    #[must_use]
    pub fn lie_down(&mut self) -> bool {
        let able = self.socket().is_some();
        let mine = &self.states[self.me];
        park::raise(word(mine, PARKED)) && able && word(mine, DEAF).load(Ordering::Relaxed) == 0
    }

    /// Takes the flag down and empties the socket.
    pub fn get_up(&mut self) {
        park::lower(word(&self.states[self.me], PARKED));
        if let Some(socket) = &self.socket {
            while socket.recv(&mut [0; 8]).is_ok() {}
        }
    }

    /// Wakes a rank if it sleeps. Call it after what it shall see has been stored.
    #[inline]
    pub fn ring(&mut self, local: u32) {
        if park::is_raised(word(&self.states[local as usize], PARKED), self.asymmetric) {
            self.ring_now(local as usize);
        }
    }

    #[cold]
    fn ring_now(&mut self, local: usize) {
        let state = &self.states[local];
        if !park::claim(word(state, PARKED)) {
            return;
        }
        let name = address(word(state, BELL).load(Ordering::Acquire));
        let own = self.socket().is_some();
        let sent = match (&self.socket, name) {
            (Some(socket), Some(name)) if own => socket.send_to_addr(&[1], &name),
            _ => Err(io::ErrorKind::NotFound.into()),
        };
        // A full queue is as good; anything else means that it cannot be rung from here.
        if sent.is_err_and(|e| e.kind() != io::ErrorKind::WouldBlock) {
            word(&self.states[local], DEAF).store(1, Ordering::Relaxed);
        }
    }

    /// Tells a rank that there is news from this one for the first time.
    pub fn introduce(&self, local: u32) {
        let bit = 1 << (self.me % 64);
        word(&self.states[local as usize], NEWS + self.me / 64).fetch_or(bit, Ordering::Release);
    }

    /// Local ranks that have introduced themselves since the last call.
    #[inline]
    pub fn introduced(&self) -> Option<Vec<u32>> {
        let mine = &self.states[self.me];
        let words = self.states.len().div_ceil(64);
        if (0..words).all(|w| word(mine, NEWS + w).load(Ordering::Relaxed) == 0) {
            return None;
        }
        let mut found = Vec::new();
        for w in 0..words {
            let bits = word(mine, NEWS + w).swap(0, Ordering::Acquire);
            let set = (0..64).filter(|b| bits >> b & 1 == 1).map(|b| 64 * w + b);
            found.extend(set.filter(|&l| l < self.states.len() && l != self.me));
        }
        Some(found.into_iter().filter_map(|l| u32::try_from(l).ok()).collect())
    }

    /// The fence between storing something and looking whether somebody waits for it.
    #[inline]
    pub fn fence(&self) {
        fence::light(self.asymmetric);
    }

    /// Says that this rank has finished: all it had to say is in the segment.
    pub fn finish(&self) {
        word(&self.states[self.me], LEFT).store(FINISHED, Ordering::Release);
    }

    /// How a rank has left, if it has: by its own word, or, if `thorough`, because its process does not exist.
    #[must_use]
    pub fn has_left(&self, local: u32, thorough: bool) -> Option<&'static str> {
        let state = &self.states[local as usize];
        match word(state, LEFT).load(Ordering::Acquire) {
            0 => {}
            FINISHED => return Some("it has finished"),
            _ => return Some("it ended without finishing"),
        }
        let pid = i32::try_from(word(state, PID).load(Ordering::Acquire)).unwrap_or(0);
        let gone = || nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), None) == Err(nix::Error::ESRCH);
        (thorough && pid > 0 && gone()).then_some("its process has ended")
    }
}

/// A look at who of some ranks sleeps, for those who store something outside the engine: see [`Bells::ring`].
#[derive(Clone, Debug)]
pub struct Sleepers {
    states: Vec<SlotWords>,
    asymmetric: bool,
}

impl Sleepers {
    /// For these ranks of the segment; a number that no rank has is left out.
    #[must_use]
    pub fn new(segment: &Segment, locals: &[u32]) -> Self {
        let layout = segment.layout();
        let known = locals.iter().filter(|&&l| l < layout.ranks());
        let states = known.map(|&l| SlotWords::new(segment.area(layout.state(l)))).collect();
        Self { states, asymmetric: fence::asymmetric() }
    }

    /// Whether one of them sleeps, after something was stored for them.
    #[inline]
    #[must_use]
    pub fn any(&self) -> bool {
        fence::light(self.asymmetric);
        self.states.iter().any(|s| word(s, PARKED).load(Ordering::Relaxed) != 0)
    }
}

impl Drop for Bells {
    fn drop(&mut self) {
        let left = word(&self.states[self.me], LEFT);
        if left.load(Ordering::Relaxed) == 0 {
            left.store(DROPPED, Ordering::Release);
        }
    }
}

/// A datagram socket under a name that the kernel chose, and the name as a word.
fn named_socket() -> io::Result<(UnixDatagram, u64)> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = socket(AddressFamily::Unix, SockType::Datagram, flags, None)?;
    bind(fd.as_raw_fd(), &UnixAddr::new_unnamed())?;
    let socket = UnixDatagram::from(fd);
    let address = socket.local_addr()?;
    let name = address.as_abstract_name().filter(|n| n.len() <= NAME);
    let name = name.ok_or_else(|| io::Error::from(io::ErrorKind::AddrNotAvailable))?;
    let mut word = [0; 8];
    word[..name.len()].copy_from_slice(name);
    word[NAME] = u8::try_from(name.len()).unwrap_or(0);
    Ok((socket, u64::from_le_bytes(word)))
}

fn address(word: u64) -> Option<SocketAddr> {
    let bytes = word.to_le_bytes();
    let name = bytes.get(..usize::from(bytes[NAME])).filter(|n| !n.is_empty() && n.len() <= NAME)?;
    SocketAddr::from_abstract_name(name).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::segment::create;
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

    fn two() -> (Bells, Bells) {
        let file = create(&[0, 1]).unwrap();
        let attach = |me| Segment::attach(file.try_clone().unwrap(), me, 2).unwrap();
        (Bells::new(&attach(0)), Bells::new(&attach(1)))
    }

    fn rung(b: &mut Bells) -> bool {
        let fd = b.socket().unwrap();
        poll(&mut [PollFd::new(fd, PollFlags::POLLIN)], PollTimeout::ZERO).unwrap() == 1
    }

    #[test]
    fn only_who_lies_down_is_woken_and_once() {
        let (mut a, mut b) = two();
        a.ring(1);
        assert!(!rung(&mut b), "it does not sleep");
        assert!(b.lie_down() || !fence::asymmetric());
        a.ring(1);
        assert!(rung(&mut b));
        b.get_up();
        a.ring(1);
        assert!(!rung(&mut b));
    }

    #[test]
    fn who_cannot_be_rung_is_told() {
        let (mut a, b) = two();
        word(&b.states[1], PARKED).store(1, Ordering::Relaxed);
        word(&b.states[1], BELL).store(u64::from_le_bytes(*b"nobody!\x07"), Ordering::Relaxed);
        a.ring(1);
        assert_eq!(word(&b.states[1], DEAF).load(Ordering::Relaxed), 1);
        for bad in [0, u64::MAX, u64::from_le_bytes(*b"abcdefg\xff")] {
            assert!(address(bad).is_none());
        }
    }

    #[test]
    fn introductions_and_leaving() {
        let (a, b) = two();
        assert_eq!(b.introduced(), None);
        a.introduce(1);
        assert_eq!(b.introduced(), Some(vec![0]));
        assert_eq!(b.introduced(), None);
        // Nonsense in the words names nobody.
        word(&b.states[1], NEWS).store(u64::MAX, Ordering::Relaxed);
        assert_eq!(b.introduced(), Some(vec![0]));
        assert_eq!(b.has_left(0, true), None);
        drop(a);
        assert_eq!(b.has_left(0, false), Some("it ended without finishing"));
        word(&b.states[0], LEFT).store(0, Ordering::Relaxed);
        assert_eq!(b.has_left(0, true), None);
        word(&b.states[0], PID).store(0x7fff_fff0, Ordering::Relaxed);
        assert_eq!((b.has_left(0, false), b.has_left(0, true)), (None, Some("its process has ended")));
        b.finish();
        assert_eq!(b.has_left(1, false), Some("it has finished"));
    }
}
