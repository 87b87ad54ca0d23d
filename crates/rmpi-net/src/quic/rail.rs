//! The QUIC rail of one rank: its thread, the connections it dials and those that come.
//!
//! The thread has a runtime of its own and owns the socket. A rank that computes is therefore reachable: packets are
//! acknowledged and handshakes answered; only the verdict on a new connection waits for the engine.

use super::carry::{FINISHED, carry, told};
use super::config;
use super::link::QuicLink;
use super::pipe::{End, Pipe, end_error};
use crate::auth::{JobKey, Route, VERDICT_DUPLICATE, VERDICT_TAKEN};
use crate::link::Link;
use crate::tls::{PublicKey, Security};
use nix::sys::eventfd::{EfdFlags, EventFd};
use quinn::{Connection, Endpoint, Incoming, RecvStream, SendStream, TokioRuntime};
use rustls::pki_types::CertificateDer;
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::timeout;

/// First bytes of a hello: protocol and version.
const MAGIC: [u8; 8] = *b"rmpiquc1";
/// Bytes of a hello: magic, namespace, epoch, from, to.
const HELLO: usize = 24;
/// Handshakes of strangers and friends at once.
const MAX_PENDING: usize = 128;
/// Time for a handshake and its hello.
const HELLO_DEADLINE: Duration = Duration::from_secs(5);
/// Time before the next address is tried beside one that does not answer.
const PATIENCE: Duration = Duration::from_millis(250);
/// Time for a peer that nobody answers for, as of the TCP rail.
const GIVE_UP: Duration = Duration::from_secs(8);
/// Time for the last packets when the rail ends and peers may not know it yet.
const LINGER: Duration = Duration::from_millis(100);
/// Socket buffers asked for: a burst of a window must not overrun the reader.
const SOCKET_BUFFER: usize = 8 << 20;

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What both threads see of the rail.
struct Shared {
    key: JobKey,
    /// `from` is not used.
    me: Route,
    security: Security,
    arrivals: Mutex<Vec<QuicArrival>>,
    /// Readable when something new is to be polled.
    bell: EventFd,
    stop: Notify,
}

impl Shared {
    fn ring(&self) {
        // Full means that it is readable already.
        let _ = self.bell.write(1);
    }
}

/// A connection whose dialler has proven who it is, waiting for the verdict.
pub(crate) struct QuicArrival {
    pub(crate) from: u32,
    verdict: oneshot::Sender<Option<Arc<Pipe>>>,
}

impl std::fmt::Debug for QuicArrival {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "QuicArrival({})", self.from)
    }
}

impl QuicArrival {
    /// Takes the connection.
    ///
    /// # Errors
    /// When the dialler has gone already.
    pub(crate) fn take(self) -> io::Result<Box<dyn Link>> {
        let pipe = Arc::new(Pipe::new()?);
        let gone = |_| io::Error::from(ErrorKind::ConnectionReset);
        self.verdict.send(Some(pipe.clone())).map_err(gone)?;
        Ok(Box::new(QuicLink::new(pipe)))
    }

    /// Tells the dialler that another connection serves the two ranks.
    pub(crate) fn refuse(self) {
        // It may have gone already; then it needs no verdict.
        let _ = self.verdict.send(None);
    }
}

/// Where a dialling attempt stands, between the two threads.
enum Progress {
    /// Nothing was said to the peer.
    Trying,
    /// The peer knows of us and will answer.
    Said,
    /// Not wanted any more.
    Abandoned,
    Up(Arc<Pipe>),
    Duplicate,
    Failed(io::Error, SocketAddr),
}

/// The effort to reach one peer over QUIC.
pub(crate) struct QuicDial {
    progress: Arc<Mutex<Progress>>,
    cancel: Arc<Notify>,
}

/// What a poll of a [`QuicDial`] found.
pub(crate) enum QuicStep {
    Pending,
    Up(Box<dyn Link>),
    Duplicate,
    Failed(io::Error, SocketAddr),
}

impl QuicDial {
    pub(crate) fn poll(&mut self) -> QuicStep {
        let mut progress = lock(&self.progress);
        match std::mem::replace(&mut *progress, Progress::Abandoned) {
            Progress::Up(pipe) => QuicStep::Up(Box::new(QuicLink::new(pipe))),
            Progress::Duplicate => QuicStep::Duplicate,
            Progress::Failed(error, address) => QuicStep::Failed(error, address),
            other => {
                *progress = other;
                QuicStep::Pending
            }
        }
    }

    /// Gives up unless the peer has been told of this connection already; whether it gave up.
    pub(crate) fn give_way(&mut self) -> bool {
        let mut progress = lock(&self.progress);
        if matches!(*progress, Progress::Trying | Progress::Abandoned) {
            *progress = Progress::Abandoned;
            return true;
        }
        false
    }
}

impl Drop for QuicDial {
    fn drop(&mut self) {
        // Taken means that the link is in use or the effort over; anything else ends with this.
        let mut progress = lock(&self.progress);
        if let Progress::Up(pipe) = std::mem::replace(&mut *progress, Progress::Abandoned) {
            pipe.drop_link();
        }
        drop(progress);
        self.cancel.notify_one();
    }
}

struct Order {
    route: Route,
    addresses: Vec<SocketAddr>,
    progress: Arc<Mutex<Progress>>,
    cancel: Arc<Notify>,
}

/// One rank's QUIC endpoint and its thread.
pub struct QuicRail {
    shared: Arc<Shared>,
    orders: mpsc::UnboundedSender<Order>,
    thread: Option<JoinHandle<()>>,
}

impl std::fmt::Debug for QuicRail {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("QuicRail(..)")
    }
}

impl QuicRail {
    /// Serves rank `me.to` of a world of `size` on a bound socket, from a thread of its own.
    ///
    /// # Errors
    /// When the socket, the thread or the runtime cannot be had.
    pub fn start(
        socket: UdpSocket,
        key: JobKey,
        me: Route,
        size: u32,
        security: Security,
    ) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        let buffers = socket2::SockRef::from(&socket);
        // The kernel gives what its limits allow.
        let _ = buffers.set_recv_buffer_size(SOCKET_BUFFER);
        let _ = buffers.set_send_buffer_size(SOCKET_BUFFER);
        let server = config::server(&security, size)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let shared = Arc::new(Shared {
            key,
            me,
            security,
            arrivals: Mutex::default(),
            bell: EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?,
            stop: Notify::new(),
        });
        let endpoint = {
            let _inside = runtime.enter();
            Endpoint::new(config::endpoint()?, Some(server), socket, Arc::new(TokioRuntime))?
        };
        let (orders, queue) = mpsc::unbounded_channel();
        let theirs = shared.clone();
        let thread = std::thread::Builder::new()
            .name("rmpi-quic".into())
            .spawn(move || runtime.block_on(serve(endpoint, theirs, queue)))?;
        Ok(Self { shared, orders, thread: Some(thread) })
    }

    /// What to wait on for reading: arrivals and the progress of diallers.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.shared.bell.as_fd()
    }

    /// The proven that have come.
    pub(crate) fn poll(&self) -> Vec<QuicArrival> {
        let mut arrivals = lock(&self.shared.arrivals);
        // Stilled under the lock; diallers are polled by their owners after this.
        let _ = self.shared.bell.read();
        std::mem::take(&mut *arrivals)
    }

    /// Starts trying `addresses`.
    pub(crate) fn dial(&self, route: Route, addresses: Vec<SocketAddr>) -> QuicDial {
        let progress = Arc::new(Mutex::new(Progress::Trying));
        let cancel = Arc::new(Notify::new());
        let order = Order { route, addresses, progress: progress.clone(), cancel: cancel.clone() };
        if self.orders.send(order).is_err() {
            let error = io::Error::other("the QUIC thread has ended");
            *lock(&progress) = Progress::Failed(error, SocketAddr::from(([0; 4], 0)));
        }
        QuicDial { progress, cancel }
    }
}

impl Drop for QuicRail {
    fn drop(&mut self) {
        self.shared.stop.notify_one();
        if let Some(thread) = self.thread.take() {
            // It has panicked or ended; both are over.
            let _ = thread.join();
        }
    }
}

async fn serve(endpoint: Endpoint, shared: Arc<Shared>, mut orders: mpsc::UnboundedReceiver<Order>) {
    let mut tasks = JoinSet::new();
    let pending = Arc::new(tokio::sync::Semaphore::new(MAX_PENDING));
    loop {
        tokio::select! {
            () = shared.stop.notified() => break,
            incoming = endpoint.accept() => match incoming {
                Some(incoming) => {
                    // A stranger is not even told that it is one, nor is anybody above the limit.
                    let friend = config::knows_key(&shared.key, shared.me, &incoming.orig_dst_cid());
                    match pending.clone().try_acquire_owned() {
                        Ok(permit) if friend => {
                            tasks.spawn(welcome(incoming, shared.clone(), permit));
                        }
                        _ => incoming.ignore(),
                    }
                }
                None => break,
            },
            order = orders.recv() => match order {
                Some(order) => {
                    tasks.spawn(reach(endpoint.clone(), shared.clone(), order));
                }
                None => break,
            },
            Some(_) = tasks.join_next(), if !tasks.is_empty() => {}
        }
    }
    let open = endpoint.open_connections() > 0;
    endpoint.close(FINISHED, b"");
    if open {
        let _ = timeout(LINGER, endpoint.wait_idle()).await;
    }
}

/// Whether the other end has shown the key that the table has for `rank`.
fn is_rank(connection: &Connection, security: &Security, rank: u32) -> bool {
    let shown =
        connection.peer_identity().and_then(|any| any.downcast::<Vec<CertificateDer<'static>>>().ok());
    let shown = shown.as_ref().and_then(|keys| PublicKey::from_spki(keys.first()?));
    shown.is_some() && shown == security.key(rank).ok()
}

fn hello(route: Route) -> [u8; HELLO] {
    let mut out = [0; HELLO];
    out[..8].copy_from_slice(&MAGIC);
    for (i, word) in [route.namespace, route.epoch, route.from, route.to].into_iter().enumerate() {
        out[8 + 4 * i..12 + 4 * i].copy_from_slice(&word.to_le_bytes());
    }
    out
}

/// Who dials, if the hello is for this rank of this job.
fn hello_from(bytes: &[u8; HELLO], me: Route) -> Option<u32> {
    let mut from = [0; 4];
    from.copy_from_slice(&bytes[16..20]);
    let from = u32::from_le_bytes(from);
    (hello(Route { from, ..me }) == *bytes).then_some(from)
}

/// The accepting side of one connection: handshake, hello, verdict, traffic.
async fn welcome(incoming: Incoming, shared: Arc<Shared>, permit: tokio::sync::OwnedSemaphorePermit) {
    let Ok(connecting) = incoming.accept() else { return };
    let Ok(Some((connection, from, mut send, recv))) =
        timeout(HELLO_DEADLINE, met(connecting, &shared)).await
    else {
        return;
    };
    drop(permit);
    let (verdict, decided) = oneshot::channel();
    lock(&shared.arrivals).push(QuicArrival { from, verdict });
    shared.ring();
    let decision = tokio::select! {
        decision = decided => decision.ok(),
        _ = connection.closed() => None,
    };
    match decision {
        Some(Some(pipe)) => {
            if send.write_all(&[VERDICT_TAKEN]).await.is_err() {
                pipe.ended(End::Lost("it closed the connection in the handshake".to_owned()));
                return;
            }
            carry(connection, pipe, send, recv).await;
        }
        Some(None) => {
            // The dialler closes once it has read this.
            let told = send.write_all(&[VERDICT_DUPLICATE]).await;
            let _ = (told, send.finish());
            let _ = timeout(HELLO_DEADLINE, connection.closed()).await;
        }
        None => {}
    }
}

async fn met(
    connecting: quinn::Connecting,
    shared: &Shared,
) -> Option<(Connection, u32, SendStream, RecvStream)> {
    let connection = connecting.await.ok()?;
    let (send, mut recv) = connection.accept_bi().await.ok()?;
    let mut bytes = [0; HELLO];
    recv.read_exact(&mut bytes).await.ok()?;
    let from = hello_from(&bytes, shared.me).filter(|&r| is_rank(&connection, &shared.security, r))?;
    Some((connection, from, send, recv))
}

/// The dialling side: addresses beside each other until one is up, then hello, verdict, traffic.
async fn reach(endpoint: Endpoint, shared: Arc<Shared>, order: Order) {
    let Order { route, addresses, progress, cancel } = order;
    let outcome = tokio::select! {
        outcome = connect(&endpoint, &shared, route, &addresses, &progress) => outcome,
        () = cancel.notified() => return,
    };
    let told = |new: Progress| {
        let mut progress = lock(&progress);
        let wanted = !matches!(*progress, Progress::Abandoned);
        if wanted {
            *progress = new;
        }
        drop(progress);
        shared.ring();
        wanted
    };
    match outcome {
        Ok(Some((connection, send, recv))) => match Pipe::new() {
            Ok(pipe) => {
                let pipe = Arc::new(pipe);
                if told(Progress::Up(pipe.clone())) {
                    carry(connection, pipe, send, recv).await;
                }
            }
            Err(e) => {
                told(Progress::Failed(e, connection.remote_address()));
            }
        },
        Ok(None) => {
            told(Progress::Duplicate);
        }
        Err((error, address)) => {
            told(Progress::Failed(error, address));
        }
    }
}

type Met = (Connection, SendStream, RecvStream);

/// Tries until somebody answers who is the peer, or the limit; `None` when the peer has another connection.
async fn connect(
    endpoint: &Endpoint,
    shared: &Shared,
    route: Route,
    addresses: &[SocketAddr],
    progress: &Mutex<Progress>,
) -> Result<Option<Met>, (io::Error, SocketAddr)> {
    let nowhere = SocketAddr::from(([0; 4], 0));
    let silent = || io::Error::new(ErrorKind::TimedOut, "nobody answered over UDP");
    let mut last = (silent(), *addresses.last().unwrap_or(&nowhere));
    let config = config::client(&shared.security, &shared.key, route).map_err(|e| (e, nowhere))?;
    let deadline = tokio::time::Instant::now() + GIVE_UP;
    let mut attempts = JoinSet::new();
    let mut waiting = addresses.iter();
    let connection = loop {
        if let Some(&address) = waiting.next() {
            match endpoint.connect_with(config.clone(), mapped(endpoint, address), "rmpi") {
                Ok(connecting) => {
                    attempts.spawn(async move { (connecting.await, address) });
                }
                Err(e) => last = (io::Error::other(e), address),
            }
        } else if attempts.is_empty() {
            return Err(last);
        }
        let patience = if waiting.len() > 0 { PATIENCE } else { GIVE_UP };
        tokio::select! {
            Some(done) = attempts.join_next(), if !attempts.is_empty() => match done {
                Ok((Ok(connection), _)) => break connection,
                Ok((Err(e), address)) => last = (end_error(&told(&e)), address),
                Err(_) => {}
            },
            () = tokio::time::sleep(patience) => {}
            () = tokio::time::sleep_until(deadline) => return Err(last),
        }
    };
    attempts.abort_all();
    let address = connection.remote_address();
    {
        let mut progress = lock(progress);
        if matches!(*progress, Progress::Abandoned) {
            return Ok(None);
        }
        *progress = Progress::Said;
    }
    match verdict(&connection, route).await {
        Ok((VERDICT_TAKEN, send, recv)) => Ok(Some((connection, send, recv))),
        Ok((VERDICT_DUPLICATE, ..)) => Ok(None),
        Ok(_) => Err((ErrorKind::InvalidData.into(), address)),
        Err(_) => {
            let why = connection.close_reason().map_or_else(silent, |e| end_error(&told(&e)));
            Err((why, address))
        }
    }
}

/// Says who we are and waits for the peer's engine, however long it computes.
async fn verdict(connection: &Connection, route: Route) -> io::Result<(u8, SendStream, RecvStream)> {
    let (mut send, mut recv) = connection.open_bi().await?;
    send.write_all(&hello(route)).await?;
    let mut verdict = [0];
    recv.read_exact(&mut verdict).await.map_err(io::Error::other)?;
    Ok((verdict[0], send, recv))
}

/// An address as the socket's family writes it.
fn mapped(endpoint: &Endpoint, address: SocketAddr) -> SocketAddr {
    match (endpoint.local_addr(), address) {
        (Ok(SocketAddr::V6(_)), SocketAddr::V4(v4)) => {
            SocketAddr::from((v4.ip().to_ipv6_mapped(), v4.port()))
        }
        _ => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hellos_name_their_dialler_and_fit_one_rank() {
        let me = Route { namespace: 1, epoch: 2, from: 4, to: 4 };
        let bytes = hello(Route { from: 9, ..me });
        assert_eq!(hello_from(&bytes, me), Some(9));
        assert_eq!(hello_from(&bytes, Route { to: 5, ..me }), None);
        assert_eq!(hello_from(&bytes, Route { epoch: 0, ..me }), None);
        let mut other = bytes;
        other[0] ^= 1;
        assert_eq!(hello_from(&other, me), None);
    }
}
