//! The world: this rank's engine, where everybody is, the key-value space, beginning and end.

use crate::boot::{Alone, Secret, Table, Wiring};
use crate::coll::node::Retired;
use crate::comm::Communicator;
use crate::error::{Error, InitError};
use crate::kvs::Kvs;
use crate::options::Options;
use crate::shown;
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use rmpi_coll::select::{Layout, Overrides, Selector};
use rmpi_core::{Config, Engine, Helper};
use rmpi_net::{Acceptor, Buffers, Identity, JobKey, Peers as _, QuicRail, Route, Security};
use rmpi_shm::Segment;
use rmpi_types::transport::{MAX_STREAMS, STREAMS_VARIABLE};
use rmpi_types::{BadTuning, DataPlane, NodeIdx, Rank, Transport, Tuning};
use rmpi_wire::boot::BootBlock;
use std::collections::HashMap;
use std::env::VarError;
use std::net::UdpSocket;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Time for messages under way when the world ends.
const FINISH: Duration = Duration::from_secs(30);

pub(crate) struct Inner {
    pub(crate) engine: Engine,
    pub(crate) rank: u32,
    pub(crate) size: u32,
    table: Option<Table>,
    data: DataPlane,
    kvs: Mutex<Kvs>,
    /// First context number that no communicator of this rank uses; communicators use pairs.
    pub(crate) next_context: Mutex<u32>,
    /// The memory of this node's ranks.
    pub(crate) segment: Option<Arc<Segment>>,
    /// The ranks of every node share memory, unless they are alone there.
    pub(crate) shares: bool,
    /// More ranks than cores here.
    pub(crate) crowded: bool,
    /// Blocks of communicators that are gone, which others may still read.
    pub(crate) retired: Mutex<Vec<Retired>>,
    /// `RMPI_COLL_EXPLAIN`: say what was chosen.
    pub(crate) explains: bool,
    /// Scratch memory of past collectives, for the next.
    pub(crate) scratch: Mutex<Vec<Vec<u64>>>,
    pub(crate) overrides: Overrides,
    /// What messages cost here, and how they are cut, as all ranks were told.
    pub(crate) tuning: Tuning,
    over: AtomicBool,
    /// The thread that makes progress, until the end.
    helper: Mutex<Option<Helper>>,
}

impl Inner {
    /// The nodes of ranks of the world.
    pub(crate) fn nodes_of(&self, group: &[u32]) -> Option<Vec<u32>> {
        let block = self.table.as_ref()?.block()?;
        group.iter().map(|&r| Some(block.rank(Rank(r))?.node.0)).collect()
    }

    /// Chooses algorithms for a communicator of these ranks of the world.
    pub(crate) fn selector(&self, group: &[u32]) -> Selector {
        let block = self.table.as_ref().and_then(Table::block);
        let nodes = block.map_or(1, |b| {
            let mut nodes: Vec<u32> = group.iter().filter_map(|&r| Some(b.rank(Rank(r))?.node.0)).collect();
            nodes.sort_unstable();
            nodes.dedup();
            nodes.len()
        });
        let ranks = u32::try_from(group.len()).unwrap_or(u32::MAX);
        let nodes = u32::try_from(nodes).unwrap_or(ranks);
        let mut selector = Selector::new(Layout { ranks, nodes });
        selector.costs = self.tuning.costs;
        if !self.shares {
            // Ranks of one node talk over sockets, too.
            selector.costs.inside = selector.costs.between;
        }
        selector.overrides = self.overrides;
        selector
    }
}

/// What a world needs to know of its surroundings.
struct Memory {
    segment: Option<Arc<Segment>>,
    shares: bool,
    crowded: bool,
    data: DataPlane,
    tuning: Tuning,
}

/// Whether every node's ranks share memory, as far as the table says: where a node could not make it, its ranks
/// go another way than the others and notice.
fn shares(block: &BootBlock<'_>, inside: Transport) -> bool {
    let few = |n: u32| block.node(NodeIdx(n)).is_some_and(|n| n.ranks <= rmpi_shm::MAX_RANKS);
    inside == Transport::Shm && (0..block.nodes()).all(few)
}

/// Whether `rank` has other ranks on its node.
fn has_company(block: &BootBlock<'_>, rank: u32) -> bool {
    block.rank(Rank(rank)).and_then(|r| block.node(r.node)).is_some_and(|n| n.ranks > 1)
}

/// The algorithms named in the environment.
fn overrides() -> Result<Overrides, InitError> {
    let mut overrides = Overrides::default();
    for variable in Overrides::VARIABLES {
        if let Ok(value) = std::env::var(variable) {
            overrides.set(variable, &value)?;
        }
    }
    Ok(overrides)
}

/// Whether the environment says that others wait for the cores of ranks that wait, all ranks alike.
fn yields() -> bool {
    std::env::var("RMPI_YIELD_WHEN_IDLE").is_ok_and(|v| !matches!(v.trim(), "" | "0"))
}

/// The tuning table in the environment, where the launcher was told of one.
fn tuning() -> Result<Tuning, InitError> {
    match std::env::var(Tuning::VARIABLE) {
        Ok(text) => text.parse().map_err(|e: BadTuning| e.to_string()),
        Err(VarError::NotPresent) => Ok(Tuning::default()),
        Err(e @ VarError::NotUnicode(_)) => Err(e.to_string()),
    }
    .map_err(|what| InitError::Environment { name: Tuning::VARIABLE, what })
}

/// The sizes of sockets' buffers in the environment; 0 is the kernel's own, as in Open MPI.
fn buffers() -> Result<Buffers, InitError> {
    let size = |name| match std::env::var(name) {
        Ok(text) => match text.trim().parse::<usize>() {
            Ok(bytes) => Ok((bytes > 0).then_some(bytes)),
            Err(_) => {
                Err(InitError::Environment { name, what: format!("{text:?}, which is no number of bytes") })
            }
        },
        Err(_) => Ok(None),
    };
    Ok(Buffers { send: size("RMPI_TCP_SNDBUF")?, receive: size("RMPI_TCP_RCVBUF")? })
}

/// Connections to each peer, as the environment says.
fn streams() -> Result<u32, InitError> {
    let Ok(text) = std::env::var(STREAMS_VARIABLE) else { return Ok(1) };
    let count = text.trim().parse().ok().filter(|n| (1..=MAX_STREAMS).contains(n));
    count.ok_or_else(|| InitError::Environment {
        name: STREAMS_VARIABLE,
        what: format!("{text:?}, which is no number of connections from 1 to {MAX_STREAMS}"),
    })
}

/// What the launcher was told of the data plane, under what the program chooses.
fn data_plane(block: &BootBlock<'_>, options: &Options) -> Result<DataPlane, InitError> {
    let mut data = block.data_plane();
    if options.transport != Transport::Auto {
        data.transport = options.transport;
    }
    let transport = data.between();
    data.check(block.nodes() as usize).map_err(|what| InitError::Transport { transport, what })?;
    Ok(data)
}

/// Keys for encrypted links, when the data plane asks for them.
fn security(
    data: DataPlane,
    rank: u32,
    secret: Option<&Secret>,
    table: &Table,
) -> Result<Option<Security>, InitError> {
    let transport = data.between();
    if !matches!(transport, Transport::Tls | Transport::Quic) {
        return Ok(None);
    }
    let fail = |what: &str| InitError::Transport { transport, what: what.to_owned() };
    let secret = secret.ok_or_else(|| {
        fail(
            "the ranks of this job have no keys; start it with rmpirun --encrypt, or --transport tls or quic",
        )
    })?;
    let identity = Identity::new(secret.bytes()).map_err(InitError::System)?;
    if table.key(rank) != Some(identity.public()) {
        return Err(fail("the private key this rank was given does not belong to the job's table"));
    }
    Ok(Some(Security::new(identity, Arc::new(table.clone()))))
}

/// The memory of `rank`'s node, if the data plane uses it.
fn segment(
    data: DataPlane,
    block: &BootBlock<'_>,
    rank: u32,
    fd: Option<OwnedFd>,
) -> Result<Option<Arc<Segment>>, InitError> {
    let record = block.rank(Rank(rank)).ok_or(InitError::Rank { rank, size: block.size() })?;
    let local = record.local_rank;
    if data.inside() != Transport::Shm {
        // Who expects this rank there gets an error; who does not hear of it waits until this one has ended.
        fd.iter().for_each(|fd| drop(rmpi_shm::refuse(fd, local)));
        return Ok(None);
    }
    let ranks = block.node(record.node).map_or(0, |n| n.ranks);
    if fd.is_none() && ranks > 1 && data.between() == Transport::Shm {
        let what = "the ranks of this node were given no memory to share".to_owned();
        return Err(InitError::Transport { transport: Transport::Shm, what });
    }
    Ok(fd.map(|fd| Segment::attach(fd, local, ranks)).transpose()?.map(Arc::new))
}

/// The QUIC rail's thread.
fn quic_rail(
    udp: Option<UdpSocket>,
    key: JobKey,
    me: Route,
    size: u32,
    security: Option<Security>,
) -> Result<QuicRail, InitError> {
    let (Some(udp), Some(security)) = (udp, security) else {
        let what = "this job has no UDP ports; start it with rmpirun --transport quic".to_owned();
        return Err(InitError::Transport { transport: Transport::Quic, what });
    };
    QuicRail::start(udp, key, me, size, security).map_err(InitError::System)
}

/// All ranks of the job, seen from this one. Dropping it finishes in good order unless the thread panics.
pub struct World {
    inner: Arc<Inner>,
    comm: Communicator,
}

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "World(rank {} of {})", self.rank(), self.size())
    }
}

impl World {
    /// Takes this process's place in the job. A local read of what the launcher left; connections are made on
    /// first use. Without a launcher: rank 0 of 1.
    ///
    /// # Errors
    /// [`InitError`], when called twice in a launched process or when what the launcher left is not usable.
    pub fn init() -> Result<Self, InitError> {
        Self::init_with(&Options::default())
    }

    /// The same with choices of the program's own. All ranks must choose alike.
    ///
    /// # Errors
    /// As [`World::init`].
    pub fn init_with(options: &Options) -> Result<Self, InitError> {
        let world = match Wiring::inherited()? {
            Some(wiring) => Self::with_wiring_and(wiring, options),
            None => Self::alone().and_then(|world| world.helped(options)),
        }?;
        shown::at(&world, "init");
        Ok(world)
    }

    /// A world of one.
    fn alone() -> Result<Self, InitError> {
        let tuning = tuning()?;
        let config = Config {
            rank: 0,
            size: 1,
            namespace: 0,
            epoch: 0,
            key: JobKey::new(&[0; 32]),
            streams: 1,
            oversubscribed: false,
            segment: None,
            thresholds: tuning.thresholds,
        };
        let engine = Engine::new(config, Box::new(Alone), None).map_err(InitError::System)?;
        let kvs = Kvs::Alone(HashMap::new());
        let data = DataPlane::default();
        let memory = Memory { segment: None, shares: false, crowded: false, data, tuning };
        Ok(Self::from_parts(engine, 0, 1, None, kvs, overrides()?, memory))
    }

    /// Takes a place described by hand; see [`Wiring`].
    ///
    /// # Errors
    /// [`InitError`] when the parts do not fit.
    pub fn with_wiring(wiring: Wiring) -> Result<Self, InitError> {
        Self::with_wiring_and(wiring, &Options::default())
    }

    /// The same with choices of the program's own.
    ///
    /// # Errors
    /// As [`World::with_wiring`].
    pub fn with_wiring_and(wiring: Wiring, options: &Options) -> Result<Self, InitError> {
        let Wiring { rank, boot, listener, daemon, udp, secret, segment: shared } = wiring;
        let block = BootBlock::parse(&boot).map_err(InitError::Boot)?;
        let size = block.size();
        if block.rank(Rank(rank)).is_none() {
            return Err(InitError::Rank { rank, size });
        }
        let data = data_plane(&block, options)?;
        let quic = data.between() == Transport::Quic;
        let table = Table::new(boot.clone(), rank, quic);
        let security = security(data, rank, secret.as_ref(), &table)?;
        let segment = segment(data, &block, rank, shared)?;
        let (namespace, epoch) = block.namespace();
        let key = JobKey::new(&block.key());
        let crowded = block.oversubscribed() || yields();
        let tuning = tuning()?;
        let config = Config {
            rank,
            size,
            namespace: namespace.0,
            epoch: epoch.0,
            key: key.clone(),
            streams: streams()?,
            // The QUIC thread needs the core that a spinning rank would burn.
            oversubscribed: crowded || quic,
            segment: segment.clone(),
            thresholds: tuning.thresholds,
        };
        let me = Route { namespace: namespace.0, epoch: epoch.0, from: rank, to: rank };
        let rail = if quic { Some(quic_rail(udp, key.clone(), me, size, security.clone())?) } else { None };
        let shares = shares(&block, data.inside());
        if let (Some(segment), Some(daemon)) = (&segment, &daemon)
            && let Ok(maker) = getsockopt(daemon, PeerCredentials)
        {
            segment.single().descends_from(u32::try_from(maker.pid()).unwrap_or(0));
        }
        let shares = shares && (segment.is_some() || !has_company(&block, rank));
        let memory = Memory { segment, shares, crowded, data, tuning };
        let acceptor = Acceptor::new(vec![listener], key, namespace.0, epoch.0, rank)
            .map_err(|source| InitError::Descriptor { name: "listen", source })?
            .secured(security)
            .over_quic(rail)
            .buffers(buffers()?);
        let engine =
            Engine::new(config, Box::new(table.clone()), Some(acceptor)).map_err(InitError::System)?;
        let kvs = Kvs::new(daemon).map_err(|e| InitError::System(std::io::Error::other(e)))?;
        Self::from_parts(engine, rank, size, Some(table), kvs, overrides()?, memory).helped(options)
    }

    /// Starts the thread that makes progress, if it is wanted.
    fn helped(self, options: &Options) -> Result<Self, InitError> {
        let asked = std::env::var_os("RMPI_PROGRESS_THREAD").is_some_and(|v| v != "0" && !v.is_empty());
        if options.progress_thread || asked {
            let helper = self.inner.engine.help().map_err(InitError::System)?;
            *self.inner.helper.lock().unwrap_or_else(PoisonError::into_inner) = Some(helper);
        }
        Ok(self)
    }

    fn from_parts(
        engine: Engine,
        rank: u32,
        size: u32,
        table: Option<Table>,
        kvs: Kvs,
        overrides: Overrides,
        memory: Memory,
    ) -> Self {
        let Memory { segment, shares, crowded, data, tuning } = memory;
        let explains = std::env::var_os("RMPI_COLL_EXPLAIN").is_some_and(|v| v != "0" && !v.is_empty());
        let inner = Arc::new(Inner {
            engine,
            rank,
            size,
            table,
            data,
            kvs: Mutex::new(kvs),
            next_context: Mutex::new(2),
            segment,
            shares,
            crowded,
            retired: Mutex::new(Vec::new()),
            explains,
            scratch: Mutex::new(Vec::new()),
            overrides,
            tuning,
            over: AtomicBool::new(false),
            helper: Mutex::new(None),
        });
        Self { comm: Communicator::world(inner.clone()), inner }
    }

    /// This rank, `0..size`.
    #[must_use]
    pub fn rank(&self) -> u32 {
        self.inner.rank
    }

    /// Ranks of the job.
    #[must_use]
    pub fn size(&self) -> u32 {
        self.inner.size
    }

    /// The communicator of all ranks.
    #[must_use]
    pub fn comm(&self) -> &Communicator {
        &self.comm
    }

    /// Nodes of the job: places whose ranks could share memory.
    #[must_use]
    pub fn nodes(&self) -> u32 {
        self.inner.table.as_ref().and_then(Table::block).map_or(1, |b| b.nodes())
    }

    /// The node of `rank`, `0..nodes`; `None` outside the world.
    #[must_use]
    pub fn node_of(&self, rank: u32) -> Option<u32> {
        match &self.inner.table {
            Some(t) => t.place(rank).map(|(node, _, _)| node.0),
            None => (rank == 0).then_some(0),
        }
    }

    /// The host of `rank` as the user named it (`localhost` in a world of one); `None` outside the world.
    #[must_use]
    pub fn host_of(&self, rank: u32) -> Option<String> {
        match &self.inner.table {
            Some(t) => t.place(rank).map(|(_, _, host)| host),
            None => (rank == 0).then(|| "localhost".into()),
        }
    }

    /// This rank's number among those of its node.
    #[must_use]
    pub fn local_rank(&self) -> u32 {
        self.inner.table.as_ref().and_then(|t| t.place(self.rank())).map_or(0, |(_, local, _)| local)
    }

    /// Ranks on this rank's node.
    #[must_use]
    pub fn local_size(&self) -> u32 {
        let ranks = self.inner.table.as_ref().and_then(Table::block).and_then(|b| {
            let node = b.rank(Rank(self.rank()))?.node;
            Some(b.node(node)?.ranks)
        });
        ranks.unwrap_or(1)
    }

    /// The transport to `peer`: `shm` (a rank of the same node), `tcp`, `tls`, `quic`, or `self`. `None` outside
    /// the world.
    #[must_use]
    pub fn rail(&self, peer: u32) -> Option<&'static str> {
        match peer {
            p if p >= self.size() => None,
            p if p == self.rank() => Some("self"),
            p if self.inner.engine.with(|c| c.local_rank_of(p)).is_some() => Some("shm"),
            _ => Some(self.inner.data.between().name()),
        }
    }

    fn kvs<R>(&self, f: impl FnOnce(&mut Kvs, &Engine) -> R) -> R {
        f(&mut self.inner.kvs.lock().unwrap_or_else(PoisonError::into_inner), &self.inner.engine)
    }

    /// Puts a value under this rank's name: visible to its node at once, to all after the next fence, and to
    /// a waiting [`World::get`] as soon as it arrives there.
    ///
    /// # Errors
    /// [`Error::Kvs`] when key or value are too large (512 bytes, 4 MiB) or the daemon is gone.
    pub fn put(&self, key: &str, value: &[u8]) -> Result<(), Error> {
        self.kvs(|k, e| k.put(key, value, e))
    }

    /// The value that `rank` put, waiting for it up to `limit`; `None` when it did not come.
    ///
    /// # Errors
    /// [`Error::Kvs`] when the daemon or that rank is gone, [`Error::NoSuchRank`].
    pub fn get(&self, rank: u32, key: &str, limit: Duration) -> Result<Option<Vec<u8>>, Error> {
        if rank >= self.size() {
            return Err(Error::NoSuchRank { rank, size: self.size() });
        }
        self.kvs(|k, e| k.get(rank, key, limit, e))
    }

    /// Waits until every rank has called it as often as this one; all they have put is visible then.
    ///
    /// # Errors
    /// [`Error::Kvs`] when a rank or the daemon is lost.
    pub fn fence(&self) -> Result<(), Error> {
        self.kvs(Kvs::fence)
    }

    /// Stops the whole job with this exit code and ends this process.
    pub fn abort(&self, code: i32, message: &str) -> ! {
        // Without a daemon to tell, ending with the code is all there is.
        let _ = self.kvs(|k, _| k.abort(code, message));
        std::process::exit(code)
    }

    /// Ends in good order: what was sent is delivered, peers and daemon are told. Dropping does the same but
    /// cannot report.
    ///
    /// # Errors
    /// [`Error::Undelivered`] when a peer did not take its messages within 30 s, [`Error::Kvs`].
    pub fn finalize(self) -> Result<(), Error> {
        self.end()
    }

    fn end(&self) -> Result<(), Error> {
        if self.inner.over.swap(true, Ordering::SeqCst) {
            return Ok(());
        }
        shown::at(self, "finalize");
        let helper = self.inner.helper.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(helper);
        let delivered = self.inner.engine.finish(FINISH);
        self.kvs(Kvs::finalize)?;
        if delivered { Ok(()) } else { Err(Error::Undelivered) }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // Nobody is left to tell; who wants to know calls `finalize`.
            let _ = self.end();
        }
    }
}
