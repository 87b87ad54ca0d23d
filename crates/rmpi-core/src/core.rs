//! The engine's state and its progress function. Everything here happens under the engine's lock.
//!
//! A link is *hot* (polled directly, in no epoll set: registration costs the sender time at every message) or
//! *cold* (in the epoll set, looked at now and then). Traffic makes a link hot; the least used of too many hot
//! ones becomes cold. Nothing here blocks.

use crate::conn::{Conn, STAGING};
use crate::error::Fault;
use crate::helper::Helping;
use crate::local::Rail;
use crate::matching::Matcher;
use crate::ops::{OpId, Ops, State, Status};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use rmpi_net::{Acceptor, Dial, JobKey, Route};
use rmpi_shm::Segment;
use rmpi_types::Thresholds;
use std::any::Any;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

/// Links polled directly.
const MAX_HOT: usize = 8;
/// Rounds between looks at cold links.
const COLD_EVERY: u64 = 4;
/// Rounds between looks at the clock and at too many hot links.
const SLOW_EVERY: u64 = 32;
/// Rounds between looks whether somebody knocks at a listener: asking the epoll set, since accepting in vain makes
/// and destroys a socket each time.
const KNOCK_EVERY: u64 = 128;
/// Epoll token of the listening sockets and of handshakes.
pub(crate) const TOKEN_LINKUP: u64 = u64::MAX;
/// Epoll token of the waking descriptor.
pub(crate) const TOKEN_WAKE: u64 = u64::MAX - 1;

/// How to reach a rank and how to name its host.
#[derive(Clone, Debug, Default)]
pub struct Endpoint {
    /// Addresses in the order to try.
    pub addresses: Vec<SocketAddr>,
    /// Host name for messages.
    pub host: String,
}

/// The endpoint table: looked at when a peer is first needed.
pub trait Directory: Send {
    /// Where `rank` (below the world's size) listens.
    fn endpoint(&self, rank: u32) -> Endpoint;
    /// The number of `rank` among the ranks of this rank's node, if it is one of them.
    fn local(&self, _rank: u32) -> Option<u32> {
        None
    }
}

/// Who this engine is.
#[derive(Clone, Debug)]
pub struct Config {
    /// This rank.
    pub rank: u32,
    /// Ranks of the world.
    pub size: u32,
    /// Namespace id, bound into handshakes.
    pub namespace: u32,
    /// Epoch, bound into handshakes.
    pub epoch: u32,
    /// The job's data key.
    pub key: JobKey,
    /// Connections to each peer, up to [`rmpi_types::transport::MAX_STREAMS`]; 0 and 1 are one. Pieces of large messages are spread over
    /// them, and over the peer's addresses.
    pub streams: u32,
    /// More ranks than cores here: yield and park instead of spinning.
    pub oversubscribed: bool,
    /// The memory that the ranks of this node share.
    pub segment: Option<Arc<Segment>>,
    /// From which sizes on messages go another way; the same for all ranks.
    pub thresholds: Thresholds,
}

/// Work that advances with the engine's progress: a non-blocking collective.
pub trait Task: Send + 'static {
    /// Goes on as far as it can; the result once it is over. Called with the engine's lock held, after every
    /// completion and at least once.
    fn poll(&mut self, core: &mut Core) -> Option<Result<(), Fault>>;
    /// Whether it must be polled in every round of progress, not only after completions: it looks at memory that
    /// others write.
    fn polled_each_round(&self) -> bool {
        false
    }
    /// For getting the task's results out.
    fn into_any(self: Box<Self>) -> Box<dyn Any + Send>;
}

/// The state of one rank's engine.
pub struct Core {
    pub(crate) config: Config,
    pub(crate) directory: Box<dyn Directory>,
    pub(crate) acceptor: Option<Acceptor>,
    /// Shared memory with the ranks of this node.
    pub(crate) rail: Option<Box<Rail>>,
    pub(crate) conns: Vec<Option<Box<Conn>>>,
    pub(crate) hot: Vec<u32>,
    pub(crate) dialling: Vec<u32>,
    pub(crate) ops: Ops,
    pub(crate) matcher: Matcher,
    pub(crate) tasks: Vec<(OpId, Option<Box<dyn Task>>)>,
    pub(crate) finished_tasks: HashMap<OpId, Box<dyn Task>>,
    /// Contexts given up: from which tag on, and why.
    pub(crate) revoked: HashMap<u32, (i32, Fault)>,
    /// Contexts whose members this rank has told so: from which tag on, whom it blames, the members.
    pub(crate) announced: HashMap<u32, (i32, u32, Arc<[u32]>)>,
    pub(crate) self_bytes: u64,
    /// A peer is being lost, and the others are listened to before.
    hearing: bool,
    /// Where links are read to when no receive is guessed.
    pub(crate) staging: Vec<u8>,
    /// Counts completions; waiters and tasks compare it.
    pub(crate) completions: u64,
    pub(crate) polled_at: u64,
    pub(crate) round: u64,
    pub(crate) cold: usize,
    pub(crate) epoll: Arc<Epoll>,
    /// The thread that makes progress while the program computes.
    pub(crate) helping: Helping,
    /// A thread is parked in the epoll set.
    pub(crate) parked: bool,
    pub(crate) ticked: Instant,
    events: Vec<EpollEvent>,
}

impl Core {
    pub(crate) fn new(
        config: Config,
        directory: Box<dyn Directory>,
        acceptor: Option<Acceptor>,
    ) -> std::io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let rail = config.segment.clone().map(|s| Box::new(Rail::new(s)));
        let conns = std::iter::repeat_with(|| None).take(config.size as usize).collect();
        Ok(Self {
            config,
            directory,
            acceptor,
            rail,
            conns,
            hot: Vec::new(),
            dialling: Vec::new(),
            ops: Ops::default(),
            matcher: Matcher::default(),
            tasks: Vec::new(),
            finished_tasks: HashMap::new(),
            revoked: HashMap::new(),
            announced: HashMap::new(),
            self_bytes: 0,
            hearing: false,
            staging: vec![0; STAGING],
            completions: 0,
            polled_at: 0,
            round: 0,
            cold: 0,
            epoll: Arc::new(epoll),
            helping: Helping::No,
            parked: false,
            ticked: Instant::now(),
            events: vec![EpollEvent::empty(); 64],
        })
    }

    /// This rank.
    #[must_use]
    pub fn rank(&self) -> u32 {
        self.config.rank
    }

    /// Ranks of the world.
    #[must_use]
    pub fn size(&self) -> u32 {
        self.config.size
    }

    /// The memory that the ranks of this node share, if they do.
    #[must_use]
    pub fn segment(&self) -> Option<&Arc<Segment>> {
        self.config.segment.as_ref()
    }

    /// The number in the segment of a rank of the world, if it shares memory with this one.
    #[must_use]
    pub fn local_rank_of(&self, world: u32) -> Option<u32> {
        let segment = self.config.segment.as_ref()?;
        self.directory.local(world).filter(|&l| segment.world_rank(l) == Some(world))
    }

    pub(crate) fn route(&self, to: u32) -> Route {
        let Config { namespace, epoch, rank, .. } = self.config;
        Route { namespace, epoch, from: rank, to }
    }

    /// A new effort to reach `to`.
    pub(crate) fn dial(&self, to: u32, addresses: Vec<SocketAddr>, now: Instant) -> Dial {
        match &self.acceptor {
            Some(acceptor) => acceptor.dial(to, addresses, now),
            None => Dial::new(self.config.key.clone(), self.route(to), addresses, now),
        }
    }

    /// One round of progress; whether anything happened.
    pub fn progress(&mut self) -> bool {
        self.round += 1;
        let mut busy = self.rail.is_some() && self.progress_local();
        let mut i = 0;
        while i < self.hot.len() {
            let peer = self.hot[i];
            busy |= self.service(peer);
            // A lost link has left the list, and another has its place.
            i += usize::from(self.hot.get(i) == Some(&peer));
        }
        if self.hot.len() > MAX_HOT && self.round.is_multiple_of(SLOW_EVERY) {
            self.cool();
        }
        if (self.cold > 0 && self.round.is_multiple_of(COLD_EVERY)) || self.round.is_multiple_of(KNOCK_EVERY)
        {
            busy |= self.look_at_cold();
        }
        let shaking = !self.dialling.is_empty() || self.acceptor.as_ref().is_some_and(Acceptor::busy);
        if shaking && self.round.is_multiple_of(4) {
            busy |= self.link_up();
        }
        if self.round.is_multiple_of(SLOW_EVERY) {
            self.tick();
        }
        busy | self.run_tasks()
    }

    /// Looks at everything at once: after a park, and before one.
    pub(crate) fn progress_all(&mut self) -> bool {
        // Who has died rings nobody.
        let mut busy = self.progress() | self.bury(false);
        busy |= self.link_up();
        if self.cold > 0 {
            busy |= self.look_at_cold();
        }
        busy
    }

    /// Looks at the peers of this node that are in touch.
    fn progress_local(&mut self) -> bool {
        let mut busy = false;
        if let Some(new) = self.rail.as_ref().and_then(|r| r.bells.introduced()) {
            self.meet(&new);
            busy = true;
        }
        let mut i = 0;
        while let Some(&peer) = self.rail.as_ref().and_then(|r| r.peers.get(i)) {
            let local = self.conns[peer as usize].as_ref().and_then(|c| c.local.as_deref());
            if local.is_some_and(|l| l.peer.ready() || !l.nothing_queued()) {
                busy |= self.service(peer);
            }
            // One that was lost has left the list.
            i += usize::from(self.rail.as_ref().and_then(|r| r.peers.get(i)) == Some(&peer));
        }
        busy
    }

    fn look_at_cold(&mut self) -> bool {
        let mut events = std::mem::take(&mut self.events);
        let n = self.epoll.wait(&mut events, EpollTimeout::ZERO).unwrap_or(0);
        for event in &events[..n] {
            if let Ok(peer) = u32::try_from(event.data()) {
                self.heat(peer);
                self.service(peer);
            } else if event.data() == TOKEN_LINKUP {
                self.link_up();
            }
        }
        self.events = events;
        n > 0
    }

    /// Sends and receives on one link; whether anything moved.
    pub(crate) fn service(&mut self, peer: u32) -> bool {
        let Some(mut conn) = self.conns.get_mut(peer as usize).and_then(Option::take) else { return false };
        let outcome = if conn.link.is_some() {
            conn.tx.burst = false;
            let sent = self.pump(&mut conn);
            sent.and_then(|sent| self.receive(&mut conn).map(|got| sent | got))
        } else {
            let sent = self.local_pump(&mut conn);
            let got = sent.and_then(|sent| self.local_receive(&mut conn).map(|got| sent | got));
            got.and_then(|got| self.local_fetch(&mut conn).map(|fetched| got | fetched))
        };
        if matches!(outcome, Ok(true)) {
            conn.last_used = self.round;
        }
        self.conns[peer as usize] = Some(conn);
        match outcome {
            Ok(moved) => moved,
            Err(cause) => {
                self.hear_others();
                self.lose(peer, &cause);
                true
            }
        }
    }

    /// Takes in what the other peers have said already: perhaps why this one left.
    fn hear_others(&mut self) {
        if std::mem::replace(&mut self.hearing, true) {
            return;
        }
        let local = self.rail.iter().flat_map(|r| r.peers.iter().copied());
        let others: Vec<u32> = self.hot.iter().copied().chain(local).collect();
        for peer in others {
            self.service(peer);
        }
        self.hearing = false;
    }

    /// Makes a link hot.
    pub(crate) fn heat(&mut self, peer: u32) {
        let round = self.round;
        let Some(conn) = self.conns[peer as usize].as_mut() else { return };
        if conn.hot || conn.link.is_none() {
            return;
        }
        conn.hot = true;
        conn.last_used = round;
        if conn.registered {
            unregister(&self.epoll, conn);
            self.cold -= 1;
        }
        self.hot.push(peer);
    }

    /// Makes the least used of too many hot links cold again.
    fn cool(&mut self) {
        while self.hot.len() > MAX_HOT {
            let conns = &self.conns;
            let used = |p: u32| conns[p as usize].as_ref().map_or(0, |c| c.last_used);
            let idle = |p: u32| conns[p as usize].as_ref().is_none_or(|c| c.tx.queue.is_empty());
            let coldest =
                (0..self.hot.len()).filter(|&i| idle(self.hot[i])).min_by_key(|&i| used(self.hot[i]));
            let Some(i) = coldest else { return };
            let peer = self.hot.swap_remove(i);
            if let Some(c) = self.conns[peer as usize].as_mut() {
                c.hot = false;
                register(&self.epoll, c);
                self.cold += 1;
            }
        }
    }

    /// Records the end of an operation.
    pub(crate) fn complete(&mut self, op: OpId, result: Result<Status, Fault>) {
        self.completions += 1;
        let Some(o) = self.ops.get_mut(op) else { return };
        if let (State::SendWaiting { offer: Some(offer) }, Some(rail)) = (&o.state, self.rail.as_mut()) {
            // Its memory is the caller's again.
            rail.offers.withdraw(*offer);
        }
        let (ran, orphan) = (!matches!(o.state, State::Done), o.orphan);
        o.end(result);
        if ran {
            self.ops.ended();
        }
        if orphan {
            self.ops.remove(op);
        }
    }

    fn run_tasks(&mut self) -> bool {
        if self.tasks.is_empty() {
            return false;
        }
        let news = self.polled_at != self.completions;
        self.polled_at = self.completions;
        let mut i = 0;
        while i < self.tasks.len() {
            let Some(mut task) = self.tasks[i].1.take_if(|t| news || t.polled_each_round()) else {
                i += 1;
                continue;
            };
            let id = self.tasks[i].0;
            match task.poll(self) {
                None => {
                    self.tasks[i].1 = Some(task);
                    i += 1;
                }
                Some(result) => {
                    self.tasks.remove(i);
                    if self.ops.get(id).is_some_and(|o| !o.orphan) {
                        self.finished_tasks.insert(id, task);
                    }
                    let status = Status { peer: self.config.rank, tag: 0, length: 0 };
                    self.complete(id, result.map(|()| status));
                }
            }
        }
        news || self.polled_at != self.completions
    }
}

/// Puts a link into the epoll set, under its peer's number.
pub(crate) fn register(epoll: &Epoll, conn: &mut Conn) {
    let Some(link) = &conn.link else { return };
    let mut flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLRDHUP;
    if !conn.tx.queue.is_empty() && link.announces_room() {
        flags |= EpollFlags::EPOLLOUT;
    }
    // Failing here means no memory or no descriptors in the kernel; parking is bounded in time, so the link is
    // still looked at.
    conn.registered = epoll.add(link.fd(), EpollEvent::new(flags, u64::from(conn.peer))).is_ok();
    for lane in &conn.lanes.up {
        let mut flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLRDHUP;
        flags.set(EpollFlags::EPOLLOUT, lane.is_sending());
        let _ = epoll.add(lane.link.fd(), EpollEvent::new(flags, u64::from(conn.peer)));
    }
}

/// Takes it out.
pub(crate) fn unregister(epoll: &Epoll, conn: &mut Conn) {
    for link in conn.links() {
        // It may have left by being closed.
        let _ = epoll.delete(link.fd());
    }
    conn.registered = false;
}
