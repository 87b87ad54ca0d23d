//! A QUIC connection as a [`Link`]: units go to the QUIC thread and come from it; nothing here waits.

use super::pipe::{End, LANES, Pipe, end_error};
use crate::link::Link;
use bytes::{Buf as _, Bytes};
use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice, IoSliceMut};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Payload of a piece of a large message, at most: a unit is delivered whole, and has a header.
const PIECE: usize = 1 << 20;

/// An authenticated, encrypted connection to one rank.
pub(crate) struct QuicLink {
    pipe: Arc<Pipe>,
    /// Taken from the QUIC thread and not yet by the engine.
    taken: VecDeque<Bytes>,
    /// The end has been seen.
    end: Option<End>,
}

impl std::fmt::Debug for QuicLink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "QuicLink(end: {:?})", self.end)
    }
}

impl QuicLink {
    pub(super) fn new(pipe: Arc<Pipe>) -> Self {
        Self { pipe, taken: VecDeque::new(), end: None }
    }
}

impl Link for QuicLink {
    fn fd(&self) -> BorrowedFd<'_> {
        self.pipe.bell().as_fd()
    }

    fn send(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        self.pipe.put(0, parts)
    }

    fn send_piece(&mut self, message: u64, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        let bulk = LANES as u64 - 1;
        let lane = 1 + usize::try_from(message % bulk).unwrap_or(0);
        self.pipe.put(lane, parts)
    }

    fn max_piece(&self) -> Option<usize> {
        Some(PIECE)
    }

    fn announces_room(&self) -> bool {
        false
    }

    fn recv(&mut self, parts: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        let mut got = 0;
        for part in parts.iter_mut() {
            let mut at = 0;
            while at < part.len() {
                let Some(chunk) = self.taken.front_mut() else {
                    match self.pipe.take() {
                        Ok(chunks) => {
                            self.taken.extend(chunks);
                            continue;
                        }
                        Err(end) => {
                            self.end = end;
                            return self.over(got + at);
                        }
                    }
                };
                let n = chunk.len().min(part.len() - at);
                part[at..at + n].copy_from_slice(&chunk[..n]);
                at += n;
                if n == chunk.len() {
                    self.taken.pop_front();
                } else {
                    chunk.advance(n);
                }
            }
            got += at;
        }
        Ok(got)
    }

    fn finish(&mut self) {
        self.pipe.finish();
    }

    fn unacknowledged(&self) -> usize {
        self.pipe.outstanding()
    }

    fn silence(&self) -> Option<Duration> {
        // Two packets of the other side may have been lost; three seconds of nothing mean something.
        let seconds = self.pipe.silent.load(Ordering::Relaxed);
        (seconds >= 3).then(|| Duration::from_secs(u64::from(seconds)))
    }

    fn rail(&self) -> &'static str {
        "quic"
    }
}

impl QuicLink {
    /// What a receive says that found nothing more.
    fn over(&self, got: usize) -> io::Result<usize> {
        match &self.end {
            _ if got > 0 => Ok(got),
            None => Err(ErrorKind::WouldBlock.into()),
            Some(End::Finished) => Ok(0),
            Some(lost) => Err(end_error(lost)),
        }
    }
}

impl Drop for QuicLink {
    fn drop(&mut self) {
        self.pipe.drop_link();
    }
}
