//! Daemons that dial in: for agents that pass no standard input on (Kubernetes' `kubexec.sh`). The agent only starts
//! the daemon, which prints its fresh public key and dials our addresses; both sides of the TLS stream are pinned to
//! the other's key. Ours travels as an argument, it is no secret. The agent's session may then be cut.

use super::agent::Agent;
use super::process::Process;
use super::{Target, greet};
use crate::driver::{Carrier, Channel, Input};
use crate::job::Config;
use rmpi_control::LinkKind;
use rmpi_daemon::secure::{self, PREAMBLE, Secure};
use rmpi_daemon::{DIAL_WORD, FAIL_MARK, HIDDEN_WORD, KEY_MARK};
use rmpi_net::{Identity, PublicKey};
use rmpi_types::{LaunchFault, NodeIdx, Stage};
use std::collections::HashMap;
use std::ffi::OsString;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};

/// A stranger has this long to say who it is; a daemon to prove it.
const PROVE: Duration = Duration::from_secs(5);
/// How long a daemon's connection waits for the agent to tell of its key.
const ANNOUNCED: Duration = Duration::from_secs(15);
/// How long a daemon whose key is known may take to dial in.
const DIAL: Duration = Duration::from_secs(30);
/// Connections that have not proved anything yet.
const STRANGERS: usize = 1024;
/// Longest line of an agent that is looked at.
const LINE: usize = 4096;
/// Where the program is looked for beside its path here and the search path.
const PLACES: &str = "rmpirun /usr/local/bin/rmpirun /opt/rmpirun/rmpirun /opt/rmpirun/bin/rmpirun";

/// A daemon whose key is known.
struct Expected {
    node: NodeIdx,
    control: mpsc::UnboundedSender<Input>,
    /// Who waits for its first stream.
    first: Option<oneshot::Sender<Channel>>,
}

/// Where daemons dial in.
pub(super) struct Desk {
    identity: Identity,
    /// `ADDRESS:PORT,...` as daemons are given it.
    addresses: String,
    program: String,
    expected: Mutex<HashMap<[u8; 32], Expected>>,
    /// Counts announcements: connections that wait for theirs look again.
    announced: watch::Sender<u64>,
    strangers: Semaphore,
}

impl Desk {
    /// Opens the listening socket on all addresses, in the job's range of ports if it has one.
    ///
    /// # Errors
    /// A fault of stage `back`: no port, no usable address, no random bytes.
    pub(super) fn open(config: &Config) -> Result<(Arc<Self>, TcpListener), LaunchFault> {
        let fault = |what: String| LaunchFault::fatal(Stage::Back, what);
        let spec = &config.spec;
        let listener =
            listen(spec.port_range).map_err(|e| fault(format!("cannot listen for daemons: {e}")))?;
        let port = listener.local_addr().map_err(|e| fault(e.to_string()))?.port();
        let own = rmpi_daemon::own_addresses(&spec.ifaces, spec.ip)?;
        let advertised = spec.advertise.as_deref().and_then(crate::hosts::resolve);
        let addresses: Vec<String> =
            advertised.into_iter().chain(own).map(|ip| SocketAddr::new(ip, port).to_string()).collect();
        let identity = secure::fresh_identity().map_err(|e| fault(format!("no key can be made: {e}")))?;
        let program = config.image.installed_at().map_err(|e| fault(e.to_string()))?;
        let desk = Self {
            identity,
            addresses: addresses.join(","),
            program,
            expected: Mutex::default(),
            announced: watch::Sender::new(0),
            strangers: Semaphore::new(STRANGERS),
        };
        Ok((Arc::new(desk), listener))
    }

    /// The command that starts a daemon which dials here. It needs no standard input, and `/bin/sh` for the search.
    fn command(&self) -> Result<String, LaunchFault> {
        let fine = |c: char| c.is_alphanumeric() || "_./+,:@%=~ -".contains(c);
        if !self.program.chars().all(fine) {
            let what = format!("{:?} cannot be given to a remote shell", self.program);
            return Err(LaunchFault::fatal(Stage::Daemon, what));
        }
        let key = secure::key_text(self.identity.public());
        let (program, addresses) = (&self.program, &self.addresses);
        Ok(format!(
            "exec /bin/sh -c 'for p in \"{program}\" {PLACES}; do if command -v \"$p\" >/dev/null 2>&1; then \
             exec \"$p\" {HIDDEN_WORD} {DIAL_WORD} {key} \"{addresses}\"; fi; done; \
             echo; echo \"{FAIL_MARK}no rmpirun on this host ({program}, PATH, /usr/local/bin, /opt/rmpirun)\"; exit 127'"
        ))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<[u8; 32], Expected>> {
        self.expected.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Accepts for as long as it is polled.
    pub(super) async fn serve(self: Arc<Self>, listener: TcpListener) {
        let ready = listener.set_nonblocking(true).and_then(|()| tokio::net::TcpListener::from_std(listener));
        let listener = match ready {
            Ok(listener) => listener,
            Err(error) => return tracing::warn!(%error, "daemons cannot dial in"),
        };
        loop {
            match listener.accept().await {
                Ok((tcp, from)) => {
                    let desk = Arc::clone(&self);
                    tokio::spawn(async move {
                        let Ok(_permit) = desk.strangers.try_acquire() else { return };
                        if let Err(error) = desk.welcome(tcp, from).await {
                            tracing::info!(%from, %error, "not a daemon of this job");
                        }
                    });
                }
                // Out of descriptors: the caller dials again, and some will have been closed by then.
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }

    async fn welcome(&self, mut tcp: TcpStream, from: SocketAddr) -> io::Result<()> {
        let late = || io::Error::from(io::ErrorKind::TimedOut);
        let mut bytes = [0; PREAMBLE];
        tokio::time::timeout(PROVE, tcp.read_exact(&mut bytes)).await.map_err(|_| late())??;
        let key = secure::read_preamble(&bytes).ok_or(io::ErrorKind::InvalidData)?;
        tokio::time::timeout(ANNOUNCED, self.announced(key)).await.map_err(|_| late())?;
        let accept = Secure::accept(tcp, &self.identity, key);
        let mut stream = tokio::time::timeout(PROVE, accept).await.map_err(|_| late())??;
        let (mut reader, mut writer) = {
            let stream = &mut stream;
            tokio::io::split(stream)
        };
        greet(&mut reader, &mut writer).await.map_err(|fault| io::Error::other(fault.to_string()))?;
        drop((reader, writer));
        self.deliver(key, stream, from.ip().to_canonical());
        Ok(())
    }

    async fn announced(&self, key: PublicKey) {
        let mut news = self.announced.subscribe();
        while !self.lock().contains_key(&key.0) {
            if news.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }

    fn deliver(&self, key: PublicKey, stream: Secure, from: IpAddr) {
        let (reader, writer) = tokio::io::split(stream);
        let channel = Channel {
            carrier: Carrier::Stream(Box::new(reader), Box::new(writer)),
            kind: LinkKind::Dialled,
            reached_at: Some(from),
            durable: false,
            epitaph: None,
            keep: Arc::new(()),
        };
        let mut expected = self.lock();
        let Some(daemon) = expected.get_mut(&key.0) else { return };
        match daemon.first.take() {
            Some(first) => drop(first.send(channel)),
            None => {
                let up = Input::Up { node: daemon.node, channel: Box::new(channel) };
                let _ = daemon.control.send(up);
            }
        }
    }
}

/// A socket on all addresses of both families where there are both.
fn listen(range: Option<(u16, u16)>) -> io::Result<TcpListener> {
    let (low, high) = range.unwrap_or((0, 0));
    let mut last = io::Error::from(io::ErrorKind::AddrInUse);
    for port in low..=high {
        for ip in [IpAddr::V6(Ipv6Addr::UNSPECIFIED), IpAddr::V4(Ipv4Addr::UNSPECIFIED)] {
            match TcpListener::bind((ip, port)) {
                Ok(listener) => return Ok(listener),
                Err(error) => last = error,
            }
        }
    }
    Err(last)
}

/// One attempt: runs the agent, waits for the daemon's key, then for the daemon.
pub(super) async fn attempt(
    desk: &Desk,
    words: &[OsString],
    target: &Target,
    control: &mpsc::UnboundedSender<Input>,
    limit: Instant,
    on_stage: &(impl Fn(Stage) + Sync),
) -> Result<Channel, LaunchFault> {
    on_stage(Stage::Shell);
    let command = desk.command()?;
    let mut process = Process::of_agent(Agent::start(words, &target.host, &command, false)?);
    let told = tokio::time::timeout_at(limit.into(), key(&mut process.stdout)).await;
    let key = match told {
        Ok(Ok(key)) => key,
        Ok(Err(Told::Failed(what))) => return Err(refused(&what)),
        Ok(Err(Told::Ended)) => {
            let what = process.words.settled().await.unwrap_or_else(|| "the agent closed its output".into());
            return Err(LaunchFault::passing(Stage::Shell, what));
        }
        Err(_) => {
            return Err(LaunchFault::passing(Stage::Shell, "the agent did not start the daemon in time"));
        }
    };
    on_stage(Stage::Back);
    let (tell, mut first) = oneshot::channel();
    let expected = Expected { node: target.node, control: control.clone(), first: Some(tell) };
    desk.lock().insert(key.0, expected);
    desk.announced.send_modify(|n| *n += 1);
    let failed = async {
        loop {
            match line(&mut process.stdout).await {
                Some(text) => {
                    if let Some(what) = text.strip_prefix(FAIL_MARK) {
                        break what.to_owned();
                    }
                }
                // The session may be cut once the daemon runs.
                None => std::future::pending().await,
            }
        }
    };
    let fault = tokio::select! {
        biased;
        Ok(channel) = &mut first => return Ok(channel),
        what = failed => LaunchFault::passing(Stage::Back, what),
        () = tokio::time::sleep(DIAL) => {
            LaunchFault::passing(Stage::Back, format!("the daemon started but did not dial {}", desk.addresses))
        }
    };
    desk.lock().remove(&key.0);
    let hint = "pods must be able to open connections to this one: network policies and sidecars may forbid it; \
                --iface and --port-range say where";
    Err(fault.hint(hint))
}

/// What came instead of a key.
enum Told {
    Failed(String),
    Ended,
}

/// The daemon's key, from its standard output.
async fn key(stdout: &mut (impl AsyncRead + Unpin)) -> Result<PublicKey, Told> {
    loop {
        let text = line(stdout).await.ok_or(Told::Ended)?;
        if let Some(what) = text.strip_prefix(FAIL_MARK) {
            return Err(Told::Failed(what.to_owned()));
        }
        if let Some(key) = text.strip_prefix(KEY_MARK).and_then(secure::key_of) {
            return Ok(key);
        }
    }
}

/// The next line, cut to a sane length; `None` at the end.
async fn line(stdout: &mut (impl AsyncRead + Unpin)) -> Option<String> {
    let mut bytes = Vec::new();
    let mut byte = [0];
    loop {
        match stdout.read(&mut byte).await {
            Ok(1..) if byte[0] == b'\n' => break,
            Ok(1..) if bytes.len() < LINE => bytes.push(byte[0]),
            Ok(1..) => {}
            Ok(0) | Err(_) if bytes.is_empty() => return None,
            Ok(0) | Err(_) => break,
        }
    }
    Some(String::from_utf8_lossy(&bytes).trim_end().to_owned())
}

/// The daemon said why it cannot run; a missing program never comes by itself.
fn refused(what: &str) -> LaunchFault {
    if what.starts_with("no rmpirun") {
        let hint = "put rmpirun into the worker's image, or mount it from a shared volume";
        return LaunchFault::fatal(Stage::Daemon, what).hint(hint);
    }
    LaunchFault::passing(Stage::Back, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn keys_are_found_among_other_lines() {
        let text = format!("Welcome\n\nRMPI-KEY x\n{KEY_MARK}{}\n", "0f".repeat(32));
        assert_eq!(key(&mut text.as_bytes()).await.ok(), Some(PublicKey([0x0f; 32])));
        let text = format!("{}\n{FAIL_MARK}no rmpirun on this host\n", "x".repeat(9000));
        assert!(matches!(key(&mut text.as_bytes()).await, Err(Told::Failed(what)) if !refused(&what).retry));
        assert!(matches!(key(&mut &b"nothing"[..]).await, Err(Told::Ended)));
    }
}
