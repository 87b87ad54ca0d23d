//! Connecting to one host: resolve, dial (directly, through jump hosts, or a proxy command), exchange keys,
//! judge the host's, log in. One attempt within one time limit; trying again is the launcher's business.

use super::handler::{self, HostCheck, Words};
use super::policy::HostPolicy;
use super::session::{Inner, Session};
use super::{algorithms, dial};
use crate::auth::{self, Ask, KeyRing, within};
use crate::config::{self, ConfigError, HostConfig, Proxy, Query, Sources};
use crate::known_hosts::{self, HostName, KnownHosts};
use crate::users;
use rmpi_types::spec::{HostKeys, Reach};
use rmpi_types::{LaunchFault, Stage};
use russh::client;
use russh::keys::PublicKey;
use std::collections::HashMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::process::Child;

/// Jump hosts in a row, over all configurations.
const MAX_HOPS: usize = 8;
/// Packets of a connection that wait for a slow reader before the connection is no longer read.
const BUFFERED_PACKETS: usize = 32;

/// A host to reach, as the hostfile has it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Target {
    /// Name or address.
    pub host: String,
    /// User, if given.
    pub user: Option<String>,
    /// Port, if given.
    pub port: Option<u16>,
}

impl Target {
    /// `[user@]host[:port]`, also with an address in brackets and as `ssh://...`.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub fn parse(text: &str) -> Result<Self, String> {
        let bad = || format!("{text:?} is not [user@]host[:port]");
        let rest = text.strip_prefix("ssh://").unwrap_or(text);
        let (user, rest) = rest.rsplit_once('@').map_or((None, rest), |(u, r)| (Some(u.to_owned()), r));
        let (host, port) = match rest.strip_prefix('[') {
            Some(bracketed) => {
                let (host, after) = bracketed.split_once(']').ok_or_else(bad)?;
                (host, if after.is_empty() { None } else { Some(after.strip_prefix(':').ok_or_else(bad)?) })
            }
            // More than one colon is a bare IPv6 address.
            None if rest.matches(':').count() == 1 => {
                rest.split_once(':').map_or((rest, None), |(h, p)| (h, Some(p)))
            }
            None => (rest, None),
        };
        let port = port.map(|p| p.parse::<u16>().ok().filter(|p| *p > 0).ok_or_else(bad)).transpose()?;
        // A name is never an option or a shell word of a proxy command.
        let odd = |c: char| c.is_whitespace() || c.is_control() || "'\"`$\\;&<>|(){}".contains(c);
        let strange = |s: &str| s.is_empty() || s.starts_with('-') || s.contains(odd);
        if strange(host) || user.as_deref().is_some_and(strange) {
            return Err(bad());
        }
        Ok(Self { host: host.to_owned(), user, port })
    }
}

/// Known hosts of one set of files, shared by all hosts that use it.
type KnownCache = HashMap<Vec<PathBuf>, Arc<Mutex<KnownHosts>>>;
/// One connection to each jump host, made by whoever comes first.
type JumpCache = HashMap<String, Arc<tokio::sync::Mutex<Weak<Inner>>>>;

/// Connects to hosts under one set of options. Cheap to share; every method may be called from many tasks.
pub struct Connector {
    reach: Reach,
    sources: Sources,
    me: Query,
    ring: KeyRing,
    known: Mutex<KnownCache>,
    jumps: Mutex<JumpCache>,
}

impl std::fmt::Debug for Connector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connector").field("sources", &self.sources).finish_non_exhaustive()
    }
}

/// How a connection reaches its host.
enum Way {
    Tcp(tokio::net::TcpStream, IpAddr),
    Through(Box<russh::ChannelStream<client::Msg>>, Arc<Inner>),
    Proxy(Box<dial::ProxyStream>, Box<Child>),
}

/// What happens to one attempt: told to the caller as stages begin.
type OnStage<'a> = &'a (dyn Fn(Stage) + Send + Sync);

impl Connector {
    /// Uses these options, and the configuration and keys of the user running this process. `ask` gets
    /// passphrases ([`auth::ask_on_terminal`]), `None` never asks.
    #[must_use]
    pub fn new(reach: &Reach, ask: Option<Ask>) -> Self {
        let me = local_identity();
        let home = PathBuf::from(&me.home);
        let (user_file, user_required, system_file) = match &reach.ssh_config {
            Some(path) if path == Path::new("none") => (None, false, None),
            Some(path) => (Some(path.clone()), true, None),
            None => (Some(home.join(".ssh/config")), false, Some("/etc/ssh/ssh_config".into())),
        };
        let options = reach.ssh_options.clone();
        Self {
            reach: reach.clone(),
            sources: Sources { options, user_file, user_required, system_file },
            ring: KeyRing::new(&home, ask, reach.patient),
            me,
            known: Mutex::default(),
            jumps: Mutex::default(),
        }
    }

    /// What options and configuration say about a host.
    ///
    /// # Errors
    /// Configuration files that cannot be read or make no sense.
    pub fn resolve(&self, target: &Target) -> Result<HostConfig, ConfigError> {
        let mut query = self.me.clone();
        query.host.clone_from(&target.host);
        query.user = target.user.clone().or_else(|| self.reach.ssh_user.clone());
        query.port = target.port.or(self.reach.ssh_port);
        let mut config = config::resolve_on_disk(&self.sources, &query)?;
        let named = std::mem::take(&mut config.identities);
        config.identities.clone_from(&self.reach.identities);
        config.identities.extend(named.into_iter().filter(|p| !self.reach.identities.contains(p)));
        Ok(config)
    }

    /// Makes one attempt to connect and log in. `on_stage` is told when a stage begins.
    ///
    /// # Errors
    /// The stage that failed and why; `retry` says whether another attempt may help.
    pub async fn connect(&self, target: &Target, on_stage: OnStage<'_>) -> Result<Session, LaunchFault> {
        self.connect_over(target, None, on_stage).await
    }

    async fn connect_over(
        &self,
        target: &Target,
        through: Option<Arc<Inner>>,
        on_stage: OnStage<'_>,
    ) -> Result<Session, LaunchFault> {
        let config = self.resolve(target).map_err(|e| LaunchFault::fatal(Stage::Name, e.to_string()))?;
        let limit = config.connect_timeout.unwrap_or(self.reach.connect_timeout);
        let deadline = Instant::now() + limit;
        let way = match through {
            Some(inner) => {
                on_stage(Stage::Tcp);
                Way::Through(Box::new(inner.forward(&config.hostname, config.port, deadline).await?), inner)
            }
            None => self.way(&config, limit, deadline, on_stage).await?,
        };
        // A jump host has had its own time.
        let deadline = if matches!(way, Way::Through(..)) { Instant::now() + limit } else { deadline };
        on_stage(Stage::Ssh);
        let host = match &config.host_key_alias {
            Some(alias) => HostName::new(alias, known_hosts::DEFAULT_PORT),
            None => HostName::new(&config.hostname, config.port),
        };
        let known = self.known_hosts(&config)?;
        let preferred = {
            let known = known.lock().unwrap_or_else(PoisonError::into_inner);
            algorithms::preferred(&config, &known, &host).map_err(|e| LaunchFault::fatal(Stage::Ssh, e))?
        };
        let words = Words::default();
        let policy = HostPolicy {
            host,
            known,
            host_keys: self.policy(&config),
            own: self.own_keys(&config),
            file: config.user_known_hosts.first().cloned(),
            hashed: config.hash_known_hosts,
        };
        let check = HostCheck { policy, words: words.clone() };
        let settings = Arc::new(settings(&config, preferred));
        let (peer, through, proxy, handle) = match way {
            Way::Tcp(stream, ip) => {
                (Some(ip), None, None, exchange(settings, stream, check, &words, deadline, limit).await?)
            }
            Way::Through(stream, inner) => {
                (None, Some(inner), None, exchange(settings, *stream, check, &words, deadline, limit).await?)
            }
            Way::Proxy(stream, child) => {
                (None, None, Some(*child), exchange(settings, *stream, check, &words, deadline, limit).await?)
            }
        };
        let mut handle = handle;
        on_stage(Stage::Auth);
        auth::log_in(&mut handle, &config, &self.ring, &words, deadline, limit).await?;
        let inner = Arc::new(Inner { handle, words, _through: through, _proxy: proxy });
        Ok(Session { inner, peer, limit })
    }

    async fn way(
        &self,
        config: &HostConfig,
        limit: Duration,
        deadline: Instant,
        on_stage: OnStage<'_>,
    ) -> Result<Way, LaunchFault> {
        match &config.proxy {
            Proxy::None => {
                on_stage(Stage::Name);
                let addresses = dial::resolve(config, deadline).await?;
                on_stage(Stage::Tcp);
                let (stream, ip) = dial::tcp(&addresses, config, deadline, limit).await?;
                Ok(Way::Tcp(stream, ip))
            }
            Proxy::Command(command) => {
                on_stage(Stage::Tcp);
                let (stream, child) = dial::proxy(command)?;
                Ok(Way::Proxy(Box::new(stream), Box::new(child)))
            }
            Proxy::Jump(hops) => {
                self.check_hops(hops)?;
                let last = self.jump(hops, on_stage).await?;
                // The time of jump hosts is not this host's.
                let deadline = Instant::now() + limit;
                on_stage(Stage::Tcp);
                let stream = last.forward(&config.hostname, config.port, deadline).await?;
                Ok(Way::Through(Box::new(stream), last))
            }
        }
    }

    /// Refuses chains of jump hosts without end: only a first hop may have jump hosts of its own. Without this,
    /// hosts that lead through one another would wait for one another's connection.
    fn check_hops(&self, hops: &[String]) -> Result<(), LaunchFault> {
        let fatal = |what: String| LaunchFault::fatal(Stage::Tcp, what);
        let (mut hops, mut count) = (hops.to_vec(), 0);
        loop {
            count += hops.len();
            if count > MAX_HOPS {
                return Err(fatal(format!(
                    "ProxyJump leads through more than {MAX_HOPS} hosts, or in a circle"
                )));
            }
            let Some(first) = hops.first() else { return Ok(()) };
            let target = Target::parse(first).map_err(|e| fatal(format!("ProxyJump: {e}")))?;
            let config = self.resolve(&target).map_err(|e| fatal(e.to_string()))?;
            match config.proxy {
                Proxy::Jump(more) => hops = more,
                Proxy::None | Proxy::Command(_) => return Ok(()),
            }
        }
    }

    /// The connection to the last of some jump hosts, shared by all hosts behind it.
    fn jump<'a>(
        &'a self,
        hops: &'a [String],
        on_stage: OnStage<'a>,
    ) -> std::pin::Pin<Box<dyn Future<Output = Result<Arc<Inner>, LaunchFault>> + Send + 'a>> {
        Box::pin(async move {
            let mut at: Option<Arc<Inner>> = None;
            for (n, hop) in hops.iter().enumerate() {
                let place = {
                    let mut jumps = self.jumps.lock().unwrap_or_else(PoisonError::into_inner);
                    jumps.entry(hops[..=n].join(",")).or_default().clone()
                };
                // Held while connecting: the others wait for this connection instead of making their own.
                let mut slot = place.lock().await;
                if let Some(open) = slot.upgrade().filter(|i| !i.handle.is_closed()) {
                    at = Some(open);
                    continue;
                }
                let target = Target::parse(hop)
                    .map_err(|e| LaunchFault::fatal(Stage::Tcp, format!("ProxyJump: {e}")))?;
                let session = self.connect_over(&target, at.take(), on_stage).await.map_err(|fault| {
                    let what = format!("jump host {}: {}", target.host, fault.what);
                    LaunchFault { what, ..fault }
                })?;
                *slot = Arc::downgrade(&session.inner);
                at = Some(session.inner);
            }
            at.ok_or_else(|| LaunchFault::fatal(Stage::Tcp, "ProxyJump names no host"))
        })
    }

    /// Keys that a host may show although nobody has seen it before: our own. Pods that run sshd as an ordinary user
    /// share one key pair; who can show it holds what lets us in. Not where the user wants only known keys.
    fn own_keys(&self, config: &HostConfig) -> Vec<PublicKey> {
        if self.reach.host_keys.or(config.host_keys) == Some(HostKeys::Strict) {
            return Vec::new();
        }
        let named = config.identities.iter().cloned();
        let files = if self.reach.patient { self.ring.default_files() } else { Vec::new() };
        named.chain(files).filter_map(|path| self.ring.load(&path).private_public()).collect()
    }

    fn policy(&self, config: &HostConfig) -> HostKeys {
        self.reach.host_keys.or(config.host_keys).unwrap_or(HostKeys::Strict)
    }

    fn known_hosts(&self, config: &HostConfig) -> Result<Arc<Mutex<KnownHosts>>, LaunchFault> {
        let files: Vec<PathBuf> =
            config.user_known_hosts.iter().chain(&config.global_known_hosts).cloned().collect();
        let mut cache = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = cache.get(&files) {
            return Ok(known.clone());
        }
        let loaded = match known_hosts::load(&files) {
            Ok(loaded) => loaded,
            Err(e) if self.policy(config) == HostKeys::Off => {
                tracing::warn!(error = %e, "host keys are not checked");
                KnownHosts::default()
            }
            Err(e) => return Err(LaunchFault::fatal(Stage::Ssh, e.to_string())),
        };
        let known = Arc::new(Mutex::new(loaded));
        cache.insert(files, known.clone());
        Ok(known)
    }
}

fn settings(config: &HostConfig, preferred: russh::Preferred) -> client::Config {
    client::Config {
        client_id: russh::SshId::Standard(concat!("SSH-2.0-rmpirun_", env!("CARGO_PKG_VERSION")).into()),
        preferred,
        nodelay: true,
        channel_buffer_size: BUFFERED_PACKETS,
        keepalive_interval: Some(config.alive_interval.unwrap_or(Duration::from_secs(15))),
        keepalive_max: config.alive_count_max,
        ..client::Config::default()
    }
}

async fn exchange<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    settings: Arc<client::Config>,
    stream: S,
    check: HostCheck,
    words: &Words,
    deadline: Instant,
    limit: Duration,
) -> Result<client::Handle<HostCheck>, LaunchFault> {
    match within(deadline, client::connect_stream(settings, stream, check)).await {
        Some(Ok(handle)) => Ok(handle),
        Some(Err(e)) => Err(handler::exchange_fault(&e, words)),
        None => Err(LaunchFault::passing(
            Stage::Ssh,
            format!("connected, but no key exchange within {} s", limit.as_secs_f32()),
        )),
    }
}

/// The user of this process.
fn local_identity() -> Query {
    let uid = nix::unistd::getuid();
    let known = users::by_number(uid.as_raw());
    let variable = |name: &str| std::env::var(name).ok().filter(|v| !v.is_empty());
    let home = variable("HOME").or_else(|| known.as_ref().map(|u| u.home.display().to_string()));
    // A pod's user may have no account; the images of mpi-operator call theirs `mpiuser`.
    let in_pod = || variable("KUBERNETES_SERVICE_HOST").map(|_| "mpiuser".to_owned());
    let named = known.map(|u| u.name).or_else(|| variable("USER")).or_else(|| variable("LOGNAME"));
    let local_user = named.or_else(in_pod).unwrap_or_else(|| uid.to_string());
    let local_host = nix::unistd::gethostname().ok().and_then(|n| n.into_string().ok()).unwrap_or_default();
    Query {
        local_user,
        uid: uid.as_raw(),
        home: home.unwrap_or_else(|| "/".into()),
        local_host,
        ..Query::default()
    }
}
