//! The engine as a value that threads share: one lock, waiting by spinning, yielding and parking.
//!
//! A thread that waits makes progress itself. When spinning no longer pays, one thread parks in the epoll set
//! without the lock; others wait for it on a condition variable; whoever changes something meanwhile wakes
//! them through the eventfd.

use crate::conn::Conn;
use crate::core::{Config, Core, Directory, TOKEN_LINKUP, TOKEN_WAKE, register, unregister};
use crate::error::Fault;
use crate::helper::Bed;
use crate::local::TOKEN_BELL;
use crate::local_receive::{Quick, one_source};
use crate::memory::RawBuf;
use crate::ops::{Finished, OpId, Status};
use crate::submit::RecvSpec;
use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};
use rmpi_net::Acceptor;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Spinning before parking: what waking up costs (20-50 us measured), so waiting costs at most twice the best.
const SPIN: Duration = Duration::from_micros(50);
/// Yielding before parking on an oversubscribed node.
const YIELD: Duration = Duration::from_millis(1);
/// Longest park: ticks must happen.
const PARK: Duration = Duration::from_secs(1);
/// Longest park while handshakes have timers running.
const PARK_LINKUP: Duration = Duration::from_millis(10);
/// Rounds between looks at the clock.
const CLOCK_EVERY: u32 = 16;
/// Rounds of progress of a blocking receive before it takes the long way, and looks at its peer's slot in each.
const QUICK_LOOKS: u32 = 16;
const QUICK_ROUND: u32 = 32;
/// Who waits for many messages of neighbours looks less often: a slot that is looked at all the time has to be
/// fetched twice for each message. Operations waited for a pause (25 ns), and most pauses.
const PAUSE_FOR: usize = 4;
const MOST_PAUSES: usize = 8;
/// Who waits for this many bytes over a link, and sends nothing there, looks less often: each look takes the socket's
/// lock, and pages that are read at once come back to the sender while the reader's cache still has them. Streams of
/// 64 and 256 KiB took 45 and 81 us a message without pauses, 27 and 65 with them.
const BULK: usize = 64 << 10;
/// Pauses between two such looks, 6 us here; half and twice as many are 4 and 1 us slower at 64 KiB.
const BULK_PAUSES: u32 = 256;
/// Receives that are counted for it.
const BULK_RECEIVES: usize = 4;
/// Longest park of a rank that cannot be woken by the others of its node.
const PARK_DEAF: Duration = Duration::from_millis(2);

struct Shared {
    core: Mutex<Core>,
    changed: Condvar,
    /// Threads that want the lock: a spinning holder lets them in.
    contenders: AtomicUsize,
    epoll: Arc<Epoll>,
    wake: EventFd,
    bed: Bed,
}

/// One rank's engine. Clones share it.
#[derive(Clone)]
pub struct Engine {
    shared: Arc<Shared>,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Engine(..)")
    }
}

impl Engine {
    /// An engine for `config`, reachable through `acceptor` (a world of one needs none).
    ///
    /// # Errors
    /// When the kernel gives no epoll set or eventfd (descriptor limit).
    pub fn new(
        config: Config,
        directory: Box<dyn Directory>,
        acceptor: Option<Acceptor>,
    ) -> std::io::Result<Self> {
        let core = Core::new(config, directory, acceptor)?;
        let epoll = core.epoll.clone();
        let wake = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        epoll.add(&wake, EpollEvent::new(EpollFlags::EPOLLIN, TOKEN_WAKE))?;
        for listener in core.acceptor.iter().flat_map(Acceptor::listeners) {
            epoll.add(listener, EpollEvent::new(EpollFlags::EPOLLIN, TOKEN_LINKUP))?;
        }
        let shared = Shared {
            core: Mutex::new(core),
            changed: Condvar::new(),
            contenders: AtomicUsize::new(0),
            epoll,
            wake,
            bed: Bed::default(),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Core> {
        let s = &self.shared;
        if let Ok(guard) = s.core.try_lock() {
            return guard;
        }
        s.contenders.fetch_add(1, Ordering::Relaxed);
        let guard = s.core.lock().unwrap_or_else(PoisonError::into_inner);
        s.contenders.fetch_sub(1, Ordering::Relaxed);
        guard
    }

    /// What tells this engine from others.
    pub(crate) fn home(&self) -> Arc<Epoll> {
        self.shared.epoll.clone()
    }

    /// Does something with the engine's state.
    pub fn with<R>(&self, f: impl FnOnce(&mut Core) -> R) -> R {
        let mut core = self.lock();
        let result = f(&mut core);
        self.tell(&core);
        self.shared.bed.wake(&core);
        result
    }

    /// Where the helping thread sleeps.
    pub(crate) fn bed(&self) -> &Bed {
        &self.shared.bed
    }

    /// Whether another thread wants the lock.
    pub(crate) fn is_wanted(&self) -> bool {
        self.shared.contenders.load(Ordering::Relaxed) > 0
    }

    /// Wakes whoever is parked or waits for the parked one.
    pub(crate) fn tell(&self, core: &Core) {
        if core.parked {
            // Full means that a wake is pending already.
            let _ = self.shared.wake.write(1);
            self.shared.changed.notify_all();
        }
    }

    /// Makes progress until `check` gives a value.
    pub fn block<R>(&self, check: impl FnMut(&mut Core) -> Option<R>) -> R {
        match self.block_while(None, check) {
            Some(r) => r,
            None => unreachable!("without a deadline only a value ends the wait"),
        }
    }

    /// Makes progress until `check` gives a value or `deadline` has passed.
    pub fn block_until<R>(&self, deadline: Instant, check: impl FnMut(&mut Core) -> Option<R>) -> Option<R> {
        self.block_while(Some(deadline), check)
    }

    fn block_while<R>(
        &self,
        deadline: Option<Instant>,
        mut check: impl FnMut(&mut Core) -> Option<R>,
    ) -> Option<R> {
        let mut core = self.lock();
        let mut idle: Option<Instant> = None;
        let mut spins = 0u32;
        loop {
            // First: what is there already costs no system call.
            if let Some(r) = check(&mut core) {
                self.tell(&core);
                return Some(r);
            }
            if core.progress() {
                self.tell(&core);
                idle = None;
                continue;
            }
            spins = spins.wrapping_add(1);
            let oversubscribed = core.config.oversubscribed;
            if !oversubscribed && core.awaits_bulk() {
                (0..BULK_PAUSES).for_each(|_| std::hint::spin_loop());
            }
            if self.shared.contenders.load(Ordering::Relaxed) > 0 || oversubscribed {
                drop(core);
                std::thread::yield_now();
                core = self.lock();
            } else if !spins.is_multiple_of(CLOCK_EVERY) {
                std::hint::spin_loop();
                continue;
            }
            let now = Instant::now();
            if deadline.is_some_and(|d| now >= d) {
                return None;
            }
            let since = *idle.get_or_insert(now);
            if now - since >= if oversubscribed { YIELD } else { SPIN } {
                let limit = deadline.map_or(PARK, |d| d.saturating_duration_since(now).min(PARK));
                let found = &mut None;
                core = self.park(core, limit, &mut |core| {
                    *found = check(core);
                    found.is_some()
                });
                if found.is_some() {
                    self.tell(&core);
                    return found.take();
                }
            }
        }
    }

    /// Receives without an operation when the message is the next one of a peer on this node, waiting a little
    /// for it; `None` sends the caller the long way.
    pub(crate) fn recv_soon(&self, spec: &RecvSpec, buf: RawBuf) -> Option<Result<Status, OpId>> {
        let rank = one_source(spec)?;
        let mut core = self.lock();
        let looks = if core.config.oversubscribed { 1 } else { QUICK_LOOKS };
        for look in 1..=looks {
            match core.recv_at_once(spec, rank, buf) {
                Quick::Done(status) => return Some(Ok(status)),
                Quick::Begun(op) => return Some(Err(op)),
                Quick::Other => return None,
                Quick::Nothing => {}
            }
            if look == 1 {
                core.tell_before_waiting(rank);
            }
            if look == looks || self.shared.contenders.load(Ordering::Relaxed) > 0 {
                break;
            }
            let mut spins = QUICK_ROUND;
            while spins > 0 && !core.is_ready(rank) {
                std::hint::spin_loop();
                spins -= 1;
            }
            if spins == 0 && core.progress() {
                self.tell(&core);
            }
        }
        None
    }

    /// Parks for at most `limit` or until something arrives.
    pub(crate) fn park_for(&self, limit: Duration) {
        drop(self.park(self.lock(), limit, &mut |_| false));
    }

    /// `look` is asked once more whether there is anything, after the ranks of the node can see that this one
    /// is going to sleep.
    fn park<'a>(
        &'a self,
        mut core: MutexGuard<'a, Core>,
        limit: Duration,
        look: &mut dyn FnMut(&mut Core) -> bool,
    ) -> MutexGuard<'a, Core> {
        let s = &self.shared;
        if core.parked {
            let waited = s.changed.wait_timeout(core, limit);
            return waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        // A last look; afterwards the level-triggered set cannot miss anything, and the ranks of the node see
        // that they must ring.
        let sure = core.lie_down();
        if core.progress_all() | look(&mut core) {
            core.get_up();
            return core;
        }
        let limit = if sure { limit } else { limit.min(PARK_DEAF) };
        let limit = if core.dialling.is_empty() && !core.acceptor.as_ref().is_some_and(Acceptor::busy) {
            limit
        } else {
            limit.min(PARK_LINKUP)
        };
        core.enter_epoll();
        core.parked = true;
        drop(core);
        let mut events = [EpollEvent::empty(); 64];
        let millis = u16::try_from(limit.as_micros().div_ceil(1000)).unwrap_or(u16::MAX);
        // An interrupted or failed wait is a short one.
        let n = s.epoll.wait(&mut events, EpollTimeout::from(millis)).unwrap_or(0);
        let mut core = self.lock();
        core.parked = false;
        core.get_up();
        core.leave_epoll();
        for event in &events[..n] {
            match event.data() {
                TOKEN_WAKE => drop(s.wake.read()),
                TOKEN_BELL => {}
                TOKEN_LINKUP => drop(core.link_up()),
                peer => {
                    if let Ok(peer) = u32::try_from(peer) {
                        core.heat(peer);
                        core.service(peer);
                    }
                }
            }
        }
        core.link_up();
        core.tick();
        s.changed.notify_all();
        core
    }

    /// Submits an operation that nobody else waits for: its result if it was over at once, else its id.
    pub(crate) fn start(&self, submit: impl FnOnce(&mut Core) -> OpId) -> Result<Finished, OpId> {
        let mut core = self.lock();
        let op = submit(&mut core);
        let started = core.take(op).ok_or(op);
        self.tell(&core);
        started
    }

    /// Waits for the operation: its result and its memory, if it owns any.
    pub fn wait(&self, op: OpId) -> Finished {
        self.block(|core| core.take(op))
    }

    /// Waits for all of these operations: many at once cost less than one after the other.
    ///
    /// # Errors
    /// The first fault in their order; all are over then.
    pub fn wait_all(&self, ops: &[OpId]) -> Result<(), Fault> {
        let (mut at, mut outcome) = (0, Ok(()));
        self.block(|core| {
            while let Some(&op) = ops.get(at) {
                let Some(ended) = core.ops.settle(op) else {
                    let pauses = (ops.len() - at) / PAUSE_FOR;
                    if core.waits_for_neighbours() {
                        (0..pauses.min(MOST_PAUSES)).for_each(|_| std::hint::spin_loop());
                    }
                    return None;
                };
                at += 1;
                if outcome.is_ok() {
                    outcome = ended;
                }
            }
            Some(())
        });
        outcome
    }

    /// One round of progress, then the result if the operation is over.
    pub fn test(&self, op: OpId) -> Option<Finished> {
        self.with(|core| {
            core.progress();
            core.take(op)
        })
    }
}

impl Core {
    /// Before sleeping: announces it to the ranks of the node; whether they will certainly wake this one.
    fn lie_down(&mut self) -> bool {
        let Some(rail) = self.rail.as_mut() else { return true };
        for &peer in &rail.peers {
            let Some(local) = self.conns[peer as usize].as_mut().and_then(|c| c.local.as_deref_mut()) else {
                continue;
            };
            if !local.nothing_queued() {
                local.peer.want();
            }
            if local.peer.tell() {
                rail.bells.fence();
                if local.peer.is_wanted() {
                    rail.bells.ring(local.peer.local());
                }
            }
        }
        rail.lie_down(&self.epoll)
    }

    /// Whether only ranks of this node are in touch, each with a core of its own.
    /// Whether much is to come over a link that carries nothing the other way.
    fn awaits_bulk(&self) -> bool {
        self.hot.iter().filter_map(|&peer| self.conns[peer as usize].as_deref()).any(|conn| {
            let under_way = conn.rx.incoming.as_ref().map_or(0, |i| i.len - i.got);
            let posted = conn.rx.guesses.iter().take(BULK_RECEIVES).filter_map(|&op| self.ops.get(op));
            let bytes = posted.map(|o| o.buf.len() as u64).sum::<u64>().saturating_add(under_way);
            conn.tx.queue.is_empty() && bytes >= BULK as u64
        })
    }

    fn waits_for_neighbours(&self) -> bool {
        self.rail.is_some() && self.hot.is_empty() && !self.config.oversubscribed
    }

    fn get_up(&mut self) {
        if let Some(rail) = self.rail.as_mut() {
            rail.bells.get_up();
        }
    }

    fn enter_epoll(&mut self) {
        for &peer in &self.hot {
            if let Some(conn) = self.conns[peer as usize].as_mut() {
                register(&self.epoll, conn);
            }
        }
        let event = EpollEvent::new(EpollFlags::EPOLLIN, TOKEN_LINKUP);
        for fd in self.acceptor.iter().flat_map(Acceptor::handshakes) {
            // Parks with handshakes under way are short anyway.
            let _ = self.epoll.add(fd, event);
        }
        for dial in
            self.dialling.iter().filter_map(|&p| self.conns[p as usize].as_deref()).flat_map(Conn::dials)
        {
            for (fd, writing) in dial.fds() {
                let flags = if writing { EpollFlags::EPOLLOUT } else { EpollFlags::EPOLLIN };
                let _ = self.epoll.add(fd, EpollEvent::new(flags, TOKEN_LINKUP));
            }
        }
    }

    fn leave_epoll(&mut self) {
        for &peer in &self.hot {
            if let Some(conn) = self.conns[peer as usize].as_mut() {
                unregister(&self.epoll, conn);
            }
        }
        // Those that closed meanwhile have left by themselves.
        for fd in self.acceptor.iter().flat_map(Acceptor::handshakes) {
            let _ = self.epoll.delete(fd);
        }
        for dial in
            self.dialling.iter().filter_map(|&p| self.conns[p as usize].as_deref()).flat_map(Conn::dials)
        {
            for (fd, _) in dial.fds() {
                let _ = self.epoll.delete(fd);
            }
        }
    }
}
