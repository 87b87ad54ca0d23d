//! A small SSH server for loopback hosts, containers without sshd, and tests: public keys only, `exec`
//! through `/bin/sh -c`, forwarding of TCP connections for jump-host tests. One process may serve many
//! addresses and hundreds of connections. It can be told to misbehave ([`Faults`]).

mod exec;
mod faults;
mod handler;
#[cfg(test)]
pub(crate) mod tests;

pub use faults::Faults;

use crate::keys::KeyPair;
use russh::keys::PublicKey;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, JoinSet};

/// What a server is made of.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// The host's key.
    pub host_key: KeyPair,
    /// `TYPE BASE64` lines of the keys that may log in, as any user.
    pub authorized: Vec<String>,
    /// `RMPI_NODE_ID` of every command: makes several servers of one machine several nodes.
    pub node_id: Option<String>,
    /// Further variables of every command.
    pub env: Vec<(String, String)>,
    /// Commands inherit the whole environment and working directory of the server, as a container's do.
    pub inherit: bool,
    /// A launcher that asks for its daemon gets this program with these words, without a shell and without anything
    /// being written: for images that have neither a shell nor a place to write to.
    pub daemon: Option<(PathBuf, Vec<String>)>,
    /// Whether clients may open TCP connections through us.
    pub forward: bool,
    /// Misbehaviour.
    pub faults: Faults,
}

impl ServerOptions {
    /// A well-behaved server with this host key and no one allowed in yet.
    #[must_use]
    pub fn new(host_key: KeyPair) -> Self {
        let (authorized, env) = (Vec::new(), Vec::new());
        Self {
            host_key,
            authorized,
            node_id: None,
            env,
            inherit: false,
            daemon: None,
            forward: false,
            faults: Faults::default(),
        }
    }

    /// The same, with this key allowed in.
    #[must_use]
    pub fn authorize(mut self, key: &KeyPair) -> Self {
        self.authorized.push(key.public_line());
        self
    }
}

/// A name that no other host has made or will make: the beginning of node ids.
///
/// # Errors
/// When the system gives no random numbers.
pub fn unique_prefix() -> io::Result<String> {
    let mut bytes = [0u8; 8];
    let random = ring::rand::SystemRandom::new();
    ring::rand::SecureRandom::fill(&random, &mut bytes).map_err(|_| io::Error::other("no random numbers"))?;
    Ok(format!("serve-{:016x}", u64::from_be_bytes(bytes)))
}

/// A listening server; it stops, and its connections close, when the value is dropped.
#[derive(Debug)]
pub struct Server {
    addr: SocketAddr,
    task: JoinHandle<()>,
    close: Option<oneshot::Sender<()>>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What all connections of a server share.
pub(crate) struct Shared {
    pub(crate) options: ServerOptions,
    pub(crate) authorized: Vec<PublicKey>,
    config: Arc<russh::server::Config>,
}

impl Server {
    /// Binds `addr` (port 0 for any) and serves it.
    ///
    /// # Errors
    /// When the address cannot be bound or an authorized key is not one.
    pub async fn bind(addr: SocketAddr, options: ServerOptions) -> io::Result<Self> {
        let authorized = options
            .authorized
            .iter()
            .map(|line| PublicKey::from_openssh(line).map_err(io::Error::other))
            .collect::<io::Result<Vec<_>>>()?;
        let listener = TcpListener::bind(addr).await?;
        let config = Arc::new(russh::server::Config {
            keys: vec![(*options.host_key.0).clone()],
            // Nothing here is worth guessing at: only public keys are accepted, so no delay hides anything.
            auth_rejection_time: Duration::from_millis(2),
            auth_rejection_time_initial: Some(Duration::ZERO),
            inactivity_timeout: None,
            keepalive_interval: Some(Duration::from_secs(15)),
            keepalive_max: 4,
            // Must exceed what a client has in flight to a command that writes before it reads.
            channel_buffer_size: 1024,
            nodelay: true,
            ..Default::default()
        });
        let addr = listener.local_addr()?;
        let shared = Arc::new(Shared { options, authorized, config });
        let (close, closing) = oneshot::channel();
        Ok(Self { addr, task: tokio::spawn(accept(listener, shared, closing)), close: Some(close) })
    }

    /// Takes no new connections and waits for the end of those that are there. May be given up and called again.
    pub async fn close(&mut self) {
        drop(self.close.take());
        let _ = (&mut self.task).await;
    }

    /// The address bound.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>, mut closing: oneshot::Receiver<()>) {
    let mut connections = JoinSet::new();
    let mut count = 0u32;
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    count = count.saturating_add(1);
                    connections.spawn(serve(stream, peer, count, shared.clone()));
                }
                Err(e) => {
                    // Out of descriptors or memory: give connections time to end rather than spin.
                    tracing::warn!(error = %e, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            },
            Some(_) = connections.join_next() => {}
            _ = &mut closing => break,
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

/// Shuts the socket down when dropped, so that a stopped server's connections end at once.
pub(crate) struct Cut(std::net::TcpStream);

impl Drop for Cut {
    fn drop(&mut self) {
        let _ = self.0.shutdown(std::net::Shutdown::Both);
    }
}

async fn serve(stream: TcpStream, peer: SocketAddr, number: u32, shared: Arc<Shared>) {
    if let Err(e) = serve_inner(stream, number, shared).await {
        tracing::debug!(%peer, error = %e, "connection ended");
    }
}

async fn serve_inner(stream: TcpStream, number: u32, shared: Arc<Shared>) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let stream = stream.into_std()?;
    let cut = Arc::new(Cut(stream.try_clone()?));
    let stream = TcpStream::from_std(stream)?;
    let Some(stream) = shared.options.faults.before_banner(stream, number).await else { return Ok(()) };
    let config = shared.config.clone();
    let handler = handler::Connection::new(shared, Arc::downgrade(&cut));
    let session = russh::server::run_stream(config, stream, handler).await.map_err(io::Error::other)?;
    let ended = session.await.map_err(io::Error::other);
    drop(cut);
    ended
}

/// The socket of a connection, for faults that cut it.
pub(crate) type Socket = std::sync::Weak<Cut>;
