//! What the engine's thread and the QUIC thread share of one connection: units of whole frames, bounded both ways,
//! and a bell.
//!
//! A unit is what one call of the sender handed over. Units of one stream come in order; those of different streams
//! overtake each other, but never mix: a receiver sees whole units. The bell (an eventfd) is readable while there is
//! something to take, room after there was none, or an end.

use bytes::Bytes;
use nix::sys::eventfd::{EfdFlags, EventFd};
use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// Streams out of one end: one for all but pieces, and those for pieces.
pub(super) const LANES: usize = 1 + super::config::BULK_STREAMS as usize;
/// Bytes of one unit, at most; a longer one is no rank of ours.
pub(super) const MAX_UNIT: usize = (1 << 20) + (64 << 10);
/// Bytes queued in one lane before the engine is told to wait.
const OUT_MAX: usize = 1 << 20;
/// Bytes the engine has not taken before the streams are read no further.
const INBOX_MAX: usize = 4 << 20;

/// How a connection ended.
#[derive(Clone, Debug)]
pub(super) enum End {
    /// In good order.
    Finished,
    /// Why not.
    Lost(String),
}

#[derive(Default)]
struct Lane {
    units: VecDeque<Bytes>,
    bytes: usize,
}

#[derive(Default)]
struct State {
    inbox: Vec<Bytes>,
    inbox_bytes: usize,
    lanes: [Lane; LANES],
    /// The engine met a full lane and waits for room.
    starved: bool,
    /// The bell has been rung and not been heard.
    rung: bool,
    end: Option<End>,
    /// The engine will send nothing more.
    finished: bool,
    /// Lanes whose last byte the peer's host has.
    acknowledged: usize,
    /// Lanes in use.
    opened: usize,
    /// The engine has no use for the connection any more.
    dropped: bool,
}

/// One connection between the two threads.
pub(super) struct Pipe {
    state: Mutex<State>,
    /// Something is there for the engine: looked at without the lock.
    ready: AtomicBool,
    bell: EventFd,
    /// Rings for the writers: a lane has units, or the end has come.
    pub(super) work: [Notify; LANES],
    /// Rings for the readers: the inbox has room.
    pub(super) room: Notify,
    /// Rings when the engine drops the link.
    pub(super) gone: Notify,
    /// Seconds without a packet, as the QUIC thread has counted them.
    pub(super) silent: AtomicU32,
}

impl Pipe {
    /// A new connection.
    ///
    /// # Errors
    /// Descriptors exhausted.
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            state: Mutex::default(),
            ready: AtomicBool::new(false),
            bell: EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?,
            work: std::array::from_fn(|_| Notify::new()),
            room: Notify::new(),
            gone: Notify::new(),
            silent: AtomicU32::new(0),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Under the lock to the end: a bell rung for nothing would never be stilled.
    fn ring(&self, mut state: MutexGuard<'_, State>) {
        self.ready.store(true, Ordering::Release);
        if !std::mem::replace(&mut state.rung, true) {
            // Full means that it is readable already.
            let _ = self.bell.write(1);
        }
    }

    /// The bell, to wait on for reading.
    pub(super) fn bell(&self) -> &EventFd {
        &self.bell
    }

    // The engine's side.

    /// Queues a unit made of `parts`, or says that there is no room.
    pub(super) fn put(&self, lane: usize, parts: &[io::IoSlice<'_>]) -> io::Result<usize> {
        let len: usize = parts.iter().map(|p| p.len()).sum();
        if len > MAX_UNIT {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "more than a unit at once"));
        }
        {
            let mut state = self.lock();
            if let Some(end) = &state.end {
                return Err(end_error(end));
            }
            let queued = state.lanes[lane].bytes;
            if queued > 0 && queued + len > OUT_MAX {
                state.starved = true;
                return Err(io::ErrorKind::WouldBlock.into());
            }
        }
        let prefix = u32::try_from(len).unwrap_or(u32::MAX).to_le_bytes();
        let mut unit = Vec::with_capacity(prefix.len() + len);
        unit.extend_from_slice(&prefix);
        parts.iter().for_each(|p| unit.extend_from_slice(p));
        let mut state = self.lock();
        let lane_state = &mut state.lanes[lane];
        lane_state.bytes += unit.len();
        lane_state.units.push_back(unit.into());
        drop(state);
        self.work[lane].notify_one();
        Ok(len)
    }

    /// Takes everything that has arrived; or the end, once nothing is left.
    pub(super) fn take(&self) -> Result<Vec<Bytes>, Option<End>> {
        if !self.ready.load(Ordering::Acquire) {
            return Err(None);
        }
        let mut state = self.lock();
        if state.inbox.is_empty()
            && let Some(end) = &state.end
        {
            // The bell stays rung: an end does not go away.
            return Err(Some(end.clone()));
        }
        let taken = std::mem::take(&mut state.inbox);
        let full = state.inbox_bytes >= INBOX_MAX;
        state.inbox_bytes = 0;
        if state.end.is_none() {
            self.ready.store(false, Ordering::Release);
            if std::mem::replace(&mut state.rung, false) {
                // It was rung under the lock, so it can be read.
                let _ = self.bell.read();
            }
        }
        drop(state);
        if full {
            self.room.notify_waiters();
        }
        if taken.is_empty() { Err(None) } else { Ok(taken) }
    }

    /// The engine will send nothing more.
    pub(super) fn finish(&self) {
        self.lock().finished = true;
        self.work.iter().for_each(Notify::notify_one);
    }

    /// Whether everything sent is with the peer's host; asked after [`Pipe::finish`].
    pub(super) fn outstanding(&self) -> usize {
        let state = self.lock();
        let queued: usize = state.lanes.iter().map(|l| l.bytes).sum();
        let open = state.finished && state.end.is_none() && state.acknowledged < state.opened;
        queued + usize::from(open)
    }

    /// The engine has no use for the connection any more.
    pub(super) fn drop_link(&self) {
        self.lock().dropped = true;
        self.gone.notify_one();
        self.room.notify_waiters();
    }

    // The QUIC thread's side.

    /// A lane is in use from now on.
    pub(super) fn opened(&self) {
        self.lock().opened += 1;
    }

    /// The lane's last byte is with the peer's host.
    pub(super) fn acknowledged(&self) {
        let mut state = self.lock();
        state.acknowledged += 1;
        self.ring(state);
    }

    /// The next units of a lane; `None` when there are none, and whether there will be none.
    pub(super) fn next(&self, lane: usize) -> (Vec<Bytes>, bool) {
        let mut state = self.lock();
        let over = state.finished;
        let lane = &mut state.lanes[lane];
        lane.bytes = 0;
        let units = std::mem::take(&mut lane.units).into();
        if std::mem::replace(&mut state.starved, false) {
            self.ring(state);
        }
        (units, over)
    }

    /// Whether the engine has taken enough for more to be read, or will take nothing any more.
    pub(super) fn has_room(&self) -> bool {
        let state = self.lock();
        state.dropped || state.inbox_bytes < INBOX_MAX
    }

    /// Whether a lane has nothing to send.
    pub(super) fn is_idle(&self, lane: usize) -> bool {
        self.lock().lanes[lane].units.is_empty()
    }

    /// A whole unit, without its length.
    pub(super) fn deliver(&self, unit: &mut Vec<Bytes>, bytes: usize) {
        let mut state = self.lock();
        state.inbox.append(unit);
        state.inbox_bytes += bytes;
        self.ring(state);
    }

    /// The connection is over.
    pub(super) fn ended(&self, end: End) {
        let mut state = self.lock();
        state.end.get_or_insert(end);
        self.ring(state);
    }

    /// Whether the engine has dropped the link, and after finishing.
    pub(super) fn is_dropped(&self) -> (bool, bool) {
        let state = self.lock();
        (state.dropped, state.finished)
    }
}

/// An end as an error of a call.
pub(super) fn end_error(end: &End) -> io::Error {
    match end {
        End::Finished => io::Error::new(io::ErrorKind::BrokenPipe, "it has closed the connection"),
        End::Lost(why) => io::Error::new(io::ErrorKind::ConnectionReset, why.clone()),
    }
}
