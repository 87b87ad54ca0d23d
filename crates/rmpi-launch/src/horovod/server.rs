//! The HTTP side of the store that Horovod's workers meet in: one task a connection, one request each. What concerns
//! an elastic job's membership is passed on and answered when its machine says so.

use bytes::Bytes;
use rmpi_horovod::elastic::Event;
use rmpi_horovod::http::{self, BadRequest, Reader, Request, Verb};
use rmpi_horovod::store::{Got, Store, Waiter};
use rmpi_horovod::{Member, pickle};
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{mpsc, oneshot};

/// How long a request may take to arrive.
const ARRIVE: Duration = Duration::from_secs(30);
/// How long an address that is not there is waited for before the client is told to ask again.
const HOLD: Duration = Duration::from_secs(300);
/// How long a connection stays open after its answer, for the client to close it.
const LINGER: Duration = Duration::from_secs(2);
/// Connections that may wait to be accepted: every rank opens several at once.
const BACKLOG: u32 = 4096;

type Reply = oneshot::Sender<Option<Bytes>>;

/// A store and who waits for it.
#[derive(Debug, Default)]
struct State {
    store: Store,
    last: u64,
    replies: HashMap<Waiter, Reply>,
}

/// The store of one job, shared by its connections.
#[derive(Debug)]
pub(crate) struct Rendezvous {
    state: Mutex<State>,
    address: SocketAddr,
    /// Where membership of an elastic job is decided.
    elastic: Option<mpsc::UnboundedSender<Event>>,
}

impl Rendezvous {
    /// Listens at `ip`, in the range of ports if there is one. Serving is [`Rendezvous::serve`]'s.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn open(
        ip: IpAddr,
        ports: Option<(u16, u16)>,
        elastic: Option<mpsc::UnboundedSender<Event>>,
    ) -> io::Result<(Arc<Self>, TcpListener)> {
        let (low, high) = ports.unwrap_or((0, 0));
        let mut last = io::Error::from(io::ErrorKind::AddrInUse);
        for port in low..=high {
            let socket = if ip.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
            match socket.bind(SocketAddr::new(ip, port)).and_then(|()| socket.listen(BACKLOG)) {
                Ok(listener) => {
                    let address = listener.local_addr()?;
                    return Ok((Arc::new(Self { state: Mutex::default(), address, elastic }), listener));
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Where workers find it.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Begins an assignment: nothing of an earlier one is left, and who waits for it is told so.
    pub(crate) fn begin(&self, sizes: Vec<(String, usize)>) {
        let mut state = self.lock();
        let waiters = state.store.reset(sizes);
        for waiter in waiters {
            if let Some(reply) = state.replies.remove(&waiter) {
                let _ = reply.send(None);
            }
        }
    }

    /// Answers a member that asked for its rank.
    pub(crate) fn answer(&self, waiter: Waiter, text: String) {
        if let Some(reply) = self.lock().replies.remove(&waiter) {
            let _ = reply.send(Some(text.into()));
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Serves connections for as long as it is polled.
    pub(crate) async fn serve(self: Arc<Self>, listener: TcpListener) {
        loop {
            match listener.accept().await {
                Ok((tcp, _)) => {
                    let this = Arc::clone(&self);
                    tokio::spawn(async move {
                        if let Err(error) = this.connection(tcp).await {
                            tracing::debug!(%error, "a connection to the store ended");
                        }
                    });
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    }

    async fn connection(&self, mut tcp: TcpStream) -> io::Result<()> {
        let _ = tcp.set_nodelay(true);
        let mut reader = Reader::default();
        let arrived = tokio::time::timeout(ARRIVE, request(&mut tcp, &mut reader)).await;
        let answer = match arrived {
            Err(_) => http::head("408 Request Timeout", 0).into_bytes(),
            Ok(Err(error)) => return Err(error),
            Ok(Ok(None)) => return Ok(()),
            Ok(Ok(Some(Err(bad)))) => http::head(&bad.to_string(), 0).into_bytes(),
            Ok(Ok(Some(Ok(request)))) => match self.handle(&mut tcp, request).await {
                Some(answer) => answer,
                None => return Ok(()),
            },
        };
        tcp.write_all(&answer).await?;
        tcp.shutdown().await?;
        // The client may still be sending: a reset would take the answer from it.
        let _ = tokio::time::timeout(LINGER, tokio::io::copy(&mut tcp, &mut tokio::io::sink())).await;
        Ok(())
    }

    /// The bytes to answer with; `None` when the client has gone.
    async fn handle(&self, tcp: &mut TcpStream, request: Request) -> Option<Vec<u8>> {
        let Request { verb, scope, key } = request;
        let ok = || http::found(b"");
        match verb {
            Verb::Get if scope == "rank_and_size" => {
                let (Some(elastic), Some(member)) = (&self.elastic, Member::parse(&key)) else {
                    return Some(http::missing());
                };
                let (waiter, reply) = self.wait();
                let _ = elastic.send(Event::Asked(member, waiter));
                let got = until_gone(tcp, reply, None).await;
                if got.is_none() {
                    self.lock().replies.remove(&waiter);
                    let _ = elastic.send(Event::HungUp(waiter));
                }
                got.map(|body| body.map_or_else(http::missing, |body| http::found(&body)))
            }
            Verb::Get => {
                let (waiter, reply) = self.wait();
                let got = self.lock().store.get(&scope, &key, waiter);
                let got = match got {
                    Got::Value(value) => Some(Some(value)),
                    Got::Missing => Some(None),
                    Got::Held => until_gone(tcp, reply, Some(HOLD)).await,
                };
                let mut state = self.lock();
                state.replies.remove(&waiter);
                state.store.forget(waiter);
                drop(state);
                got.map(|body| body.map_or_else(http::missing, |body| http::found(&body)))
            }
            Verb::Put(body) if scope == "worker_addresses" => {
                let (Some(elastic), Some(member)) = (&self.elastic, Member::parse(&key)) else {
                    return Some(ok());
                };
                match pickle::registration(&body) {
                    Ok(service) => {
                        let _ = elastic.send(Event::Registered(member, service));
                        Some(ok())
                    }
                    Err(error) => {
                        tracing::warn!(%member, %error, "a worker cannot be told of changes");
                        Some(http::head("400 Bad Request", 0).into_bytes())
                    }
                }
            }
            Verb::Put(body) => {
                let mut state = self.lock();
                let Some(waiters) = state.store.put(&scope, &key, body.clone()) else {
                    return Some(http::head("507 Insufficient Storage", 0).into_bytes());
                };
                for waiter in waiters {
                    if let Some(reply) = state.replies.remove(&waiter) {
                        let _ = reply.send(Some(body.clone()));
                    }
                }
                drop(state);
                let rank = key.strip_prefix("rank_").unwrap_or(&key).parse();
                if let (Some(elastic), "global", Ok(rank)) = (&self.elastic, scope.as_str(), rank) {
                    let _ = elastic.send(Event::Joining(rank));
                }
                Some(ok())
            }
            Verb::Delete => {
                self.lock().store.delete(&scope, &key);
                Some(ok())
            }
        }
    }

    fn wait(&self) -> (Waiter, oneshot::Receiver<Option<Bytes>>) {
        let (send, receive) = oneshot::channel();
        let mut state = self.lock();
        state.last += 1;
        let waiter = Waiter(state.last);
        state.replies.insert(waiter, send);
        (waiter, receive)
    }
}

/// One request; `None` when the client closed without any.
async fn request(
    tcp: &mut TcpStream,
    reader: &mut Reader,
) -> io::Result<Option<Result<Request, BadRequest>>> {
    loop {
        match reader.request() {
            Ok(Some(request)) => return Ok(Some(Ok(request))),
            Err(bad) => return Ok(Some(Err(bad))),
            Ok(None) => {}
        }
        if tcp.read_buf(reader.buffer()).await? == 0 {
            return Ok(None);
        }
    }
}

/// The reply, `Some(None)` when there is none within `limit`; `None` when the client has gone.
async fn until_gone(
    tcp: &mut TcpStream,
    reply: oneshot::Receiver<Option<Bytes>>,
    limit: Option<Duration>,
) -> Option<Option<Bytes>> {
    let mut byte = [0];
    let late = async {
        match limit {
            Some(limit) => tokio::time::sleep(limit).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        biased;
        reply = reply => Some(reply.unwrap_or(None)),
        read = tcp.read(&mut byte) => match read {
            Ok(0) | Err(_) => None,
            Ok(_) => Some(None),
        },
        () = late => Some(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read as _, Write as _};

    /// What Horovod's C++ client does with a request: one connection, everything in one go, header names compared
    /// by their bytes; gives the status and the body as that client would have it.
    fn ask(address: SocketAddr, verb: &str, path: &str, body: &[u8]) -> (u16, Vec<u8>) {
        let mut tcp = std::net::TcpStream::connect(address).unwrap();
        tcp.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let head =
            format!("{verb} {path} HTTP/1.1\r\nHost: {address}\r\nContent-Length: {}\r\n\r\n", body.len());
        tcp.write_all(&[head.as_bytes(), body].concat()).unwrap();
        let mut bytes = Vec::new();
        tcp.read_to_end(&mut bytes).unwrap();
        let end = bytes.windows(4).position(|w| w == b"\r\n\r\n").unwrap();
        let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
        let length = head.lines().find_map(|l| l.strip_prefix("Content-Length: ")).unwrap().parse().unwrap();
        assert_eq!(bytes.len() - end - 4, length, "the length is told in the client's own spelling");
        (head[9..12].parse().unwrap(), bytes[end + 4..].to_vec())
    }

    fn serving(elastic: Option<mpsc::UnboundedSender<Event>>) -> (tokio::runtime::Runtime, Arc<Rendezvous>) {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let guard = runtime.enter();
        let (store, listener) = Rendezvous::open([127, 0, 0, 1].into(), None, elastic).unwrap();
        drop(guard);
        runtime.spawn(Arc::clone(&store).serve(listener));
        (runtime, store)
    }

    /// One context of `n` ranks as every rank's thread builds it (section 2.4 of the specification).
    fn build(address: SocketAddr, scope: &str, rank: usize, n: usize) {
        let path = |key: String| format!("/{scope}/{key}");
        assert_eq!(ask(address, "PUT", &path(format!("rank_{rank}")), b"host").0, 200);
        for i in 0..rank {
            assert!(matches!(ask(address, "GET", &path(format!("rank_{i}")), b"").0, 200 | 404));
        }
        let mine = vec![u8::try_from(rank).unwrap(); 136 * (n - 1)];
        assert_eq!(ask(address, "PUT", &path(rank.to_string()), &mine).0, 200);
        for i in (0..n).filter(|i| *i != rank) {
            for _ in 0..2 {
                let (status, body) = ask(address, "GET", &path(i.to_string()), b"");
                assert_eq!((status, body), (200, vec![u8::try_from(i).unwrap(); 136 * (n - 1)]));
            }
        }
        assert_eq!(ask(address, "DELETE", &path(rank.to_string()), b"").0, 200);
    }

    #[test]
    fn sixteen_ranks_build_their_world_three_times() {
        const N: usize = 16;
        let (runtime, store) = serving(None);
        store.begin(vec![("global".into(), N)]);
        let address = store.address();
        for _round in 0..3 {
            let all: Vec<_> =
                (0..N).map(|rank| std::thread::spawn(move || build(address, "global", rank, N))).collect();
            all.into_iter().for_each(|t| t.join().unwrap());
            assert_eq!(ask(address, "GET", "/global/rank_0", b"").0, 404, "cleared for the next round");
        }
        runtime.shutdown_background();
    }

    #[test]
    fn an_early_rank_waits_for_a_late_one_and_a_reset_lets_it_go() {
        let (runtime, store) = serving(None);
        let address = store.address();
        let early = std::thread::spawn(move || ask(address, "GET", "/global/1", b""));
        let other = std::thread::spawn(move || ask(address, "GET", "/global/7", b""));
        while store.lock().replies.len() < 2 {
            std::thread::yield_now();
        }
        assert_eq!(ask(address, "PUT", "/global/1", b"here").0, 200);
        assert_eq!(early.join().unwrap(), (200, b"here".to_vec()));
        store.begin(Vec::new());
        assert_eq!(other.join().unwrap().0, 404);
        assert!(store.lock().replies.is_empty());
        runtime.shutdown_background();
    }

    #[test]
    fn strangers_are_answered_and_nothing_of_theirs_is_run() {
        let (tell, mut told) = mpsc::unbounded_channel();
        let (runtime, store) = serving(Some(tell));
        let address = store.address();
        for (verb, path, body, want) in [
            ("POST", "/a/b", &b""[..], 405),
            ("GET", "/a", b"", 400),
            ("PUT", "/worker_addresses/h:0", b"Y29zCnN5c3RlbQooUyd0cnVlJwp0Ui4=", 400),
            ("GET", "/rank_and_size/nobody", b"", 404),
            ("DELETE", "/nothing/here", b"", 200),
        ] {
            assert_eq!(ask(address, verb, path, body).0, want, "{verb} {path}");
        }
        assert!(told.try_recv().is_err(), "the machine is not bothered");
        assert_eq!(ask(address, "PUT", "/global/rank_3", b"h").0, 200);
        assert!(matches!(told.try_recv(), Ok(Event::Joining(3))));
        runtime.shutdown_background();
    }
}
