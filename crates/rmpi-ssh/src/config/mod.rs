//! The user's OpenSSH client configuration, understood for one host: `-o` settings, then the user's file, then
//! the system's. Follows `ssh_config(5)`; a test compares it with `ssh -G`. Pure but for the closures that
//! read files; runs no command.

mod file;
mod lex;
#[cfg(test)]
mod tests;
mod tokens;

use file::{Raw, Walk};
use rmpi_types::spec::HostKeys;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokens::Tokens;

/// What is asked of the configuration: one host, and who asks.
#[derive(Clone, Debug, Default)]
pub struct Query {
    /// The host as given.
    pub host: String,
    /// The user, if given beside the configuration.
    pub user: Option<String>,
    /// The port, if given beside the configuration.
    pub port: Option<u16>,
    /// The local user's name.
    pub local_user: String,
    /// The local user's number.
    pub uid: u32,
    /// The local home directory.
    pub home: String,
    /// This machine's name.
    pub local_host: String,
}

/// Where configurations come from.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// `-o KEY=VALUE` settings; they come first.
    pub options: Vec<(String, String)>,
    /// The user's file; must exist when `user_required`.
    pub user_file: Option<PathBuf>,
    /// Whether a missing user's file is an error: it was named by the user.
    pub user_required: bool,
    /// The system's file.
    pub system_file: Option<PathBuf>,
}

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file cannot be read.
    #[error("cannot read ssh configuration {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A line makes no sense.
    #[error("{}:{line}: {what}", path.display())]
    Bad {
        /// The file.
        path: PathBuf,
        /// Its line, from 1.
        line: usize,
        /// What is wrong.
        what: String,
    },
    /// A value makes no sense for this host.
    #[error("ssh configuration for {host}: {what}")]
    Value {
        /// The host.
        host: String,
        /// What is wrong.
        what: String,
    },
}

/// The way to a host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Proxy {
    /// Directly.
    #[default]
    None,
    /// Through these hosts, in order, as written: `[user@]host[:port]`.
    Jump(Vec<String>),
    /// Through a command's standard input and output.
    Command(String),
}

/// Where the agent listens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum AgentSocket {
    /// `SSH_AUTH_SOCK`.
    #[default]
    Environment,
    /// No agent.
    None,
    /// This socket.
    Path(PathBuf),
}

/// Which addresses may be dialled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Family {
    /// Any.
    #[default]
    Any,
    /// IPv4.
    Inet,
    /// IPv6.
    Inet6,
}

/// Everything the configuration says about one host. Paths are expanded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostConfig {
    /// Name to dial.
    pub hostname: String,
    /// Port.
    pub port: u16,
    /// Remote user.
    pub user: String,
    /// Key files, in order; empty for the default ones.
    pub identities: Vec<PathBuf>,
    /// Never ask for a passphrase.
    pub batch: bool,
    /// Offer only the configured keys.
    pub identities_only: bool,
    /// The agent.
    pub agent: AgentSocket,
    /// Certificate files.
    pub certificates: Vec<PathBuf>,
    /// The way there.
    pub proxy: Proxy,
    /// The user's files of known hosts; new keys go to the first.
    pub user_known_hosts: Vec<PathBuf>,
    /// The system's.
    pub global_known_hosts: Vec<PathBuf>,
    /// Name to look up instead.
    pub host_key_alias: Option<String>,
    /// Lists of algorithms as written (with `+`, `-`, `^`).
    pub host_key_algorithms: Option<String>,
    /// Key exchange.
    pub kex: Option<String>,
    /// Ciphers.
    pub ciphers: Option<String>,
    /// Message authentication.
    pub macs: Option<String>,
    /// What to do with unknown keys; `None` when the configuration says nothing or `ask`.
    pub host_keys: Option<HostKeys>,
    /// `HashKnownHosts`.
    pub hash_known_hosts: bool,
    /// Limit of one attempt.
    pub connect_timeout: Option<Duration>,
    /// Attempts.
    pub connect_attempts: Option<u32>,
    /// Silence after which we ask whether the server lives.
    pub alive_interval: Option<Duration>,
    /// Unanswered questions that end the connection.
    pub alive_count_max: usize,
    /// Address family.
    pub family: Family,
    /// Local address.
    pub bind_address: Option<String>,
    /// Options without effect here, and conditions taken as false: for `-v`.
    pub notes: Vec<String>,
}

/// Options that are honoured.
const HONOURED: [&str; 26] = [
    "addressfamily",
    "bindaddress",
    "certificatefile",
    "ciphers",
    "connectionattempts",
    "connecttimeout",
    "globalknownhostsfile",
    "hashknownhosts",
    "hostkeyalgorithms",
    "hostkeyalias",
    "hostname",
    "identitiesonly",
    "identityagent",
    "identityfile",
    "kexalgorithms",
    "macs",
    "port",
    "proxycommand",
    "proxyjump",
    "serveralivecountmax",
    "serveraliveinterval",
    "stricthostkeychecking",
    "user",
    "userknownhostsfile",
    "canonicalizehostname",
    "batchmode",
];

/// Bytes of a configuration file, at most.
const LARGEST_FILE: u64 = 1 << 20;

/// Reads the files from disk.
///
/// # Errors
/// Files that cannot be read, lines and values that make no sense.
pub fn resolve_on_disk(sources: &Sources, query: &Query) -> Result<HostConfig, ConfigError> {
    let read = |path: &Path| match read_file(path) {
        Ok(bytes) => Some(Ok(String::from_utf8_lossy(&bytes).into_owned())),
        Err(e) if e.kind() == io::ErrorKind::NotFound => None,
        Err(e) => Some(Err(e)),
    };
    resolve(sources, query, &read, &file::expand_on_disk, &|name| std::env::var(name).ok())
}

/// A whole file, or an error for what is no configuration by its size (`Include /dev/zero`).
fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(LARGEST_FILE + 1).read_to_end(&mut bytes)?;
    let too_large = io::Error::new(io::ErrorKind::FileTooLarge, "larger than 1 MiB");
    if bytes.len() as u64 > LARGEST_FILE { Err(too_large) } else { Ok(bytes) }
}

/// Reads the files through `read` (`None`: does not exist), finds those of an `Include` pattern through `expand`
/// and variables through `env`: nothing else is looked at.
///
/// # Errors
/// Files that cannot be read, lines and values that make no sense.
pub fn resolve(
    sources: &Sources,
    query: &Query,
    read: &dyn Fn(&Path) -> Option<std::io::Result<String>>,
    expand: &dyn Fn(&str) -> Vec<PathBuf>,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<HostConfig, ConfigError> {
    finish(&walk(sources, query, read, expand)?, query, env)
}

/// Both passes over all files.
pub(crate) fn walk(
    sources: &Sources,
    query: &Query,
    read: &file::Read<'_>,
    expand: &file::Expand<'_>,
) -> Result<Raw, ConfigError> {
    let mut walk = Walk { query, read, expand, raw: Raw::default(), last_pass: false };
    for (key, value) in &sources.options {
        let bad =
            |what: &str| ConfigError::Value { host: query.host.clone(), what: format!("-o {key}: {what}") };
        let line = format!("{key} {value}");
        let d = lex::directive(&line).map_err(bad)?.ok_or_else(|| bad("is empty"))?;
        if d.args.is_empty() {
            return Err(bad("has no value"));
        }
        walk.raw.set(&d);
    }
    loop {
        if let Some(path) = &sources.user_file {
            walk.top(path, &format!("{}/.ssh", query.home), sources.user_required)?;
        }
        if let Some(path) = &sources.system_file {
            walk.top(path, "/etc/ssh", false)?;
        }
        if walk.last_pass || !walk.wants_final() {
            return Ok(walk.raw);
        }
        walk.last_pass = true;
        // The name to dial is settled before the final pass, as OpenSSH has it.
        let name = walk.dialled();
        walk.raw.values.insert("hostname".into(), vec![vec![name.replace('%', "%%")]]);
    }
}

/// Turns values as written into a [`HostConfig`].
pub(crate) fn finish(
    raw: &Raw,
    query: &Query,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<HostConfig, ConfigError> {
    let bad = |what: String| ConfigError::Value { host: query.host.clone(), what };
    let mut tokens = Tokens {
        host: query.host.clone(),
        original: query.host.clone(),
        local_user: query.local_user.clone(),
        home: query.home.clone(),
        uid: query.uid,
        local_host: query.local_host.clone(),
        ..Tokens::default()
    };
    let mut config = HostConfig { alive_count_max: 3, port: 22, ..HostConfig::default() };
    config.hostname = match raw.first("hostname") {
        Some(name) => tokens.percent(name).map_err(bad)?,
        None => query.host.clone(),
    };
    config.port = match (query.port, raw.first("port")) {
        (Some(port), _) => port,
        (None, Some(text)) => number(text, "Port")
            .ok()
            .filter(|p| *p > 0)
            .ok_or_else(|| bad(format!("Port {text:?} is not a port")))?,
        (None, None) => 22,
    };
    config.user = query.user.as_deref().or(raw.first("user")).unwrap_or(&query.local_user).to_owned();
    config.host_key_alias = raw.first("hostkeyalias").map(str::to_owned);
    tokens.host.clone_from(&config.hostname);
    tokens.port = config.port;
    tokens.user.clone_from(&config.user);
    tokens.alias = config.host_key_alias.clone().unwrap_or_else(|| query.host.clone());
    paths(&mut config, raw, &tokens, env).map_err(bad)?;
    config.proxy = proxy(raw, &tokens).map_err(bad)?;
    scalars(&mut config, raw).map_err(bad)?;
    config.notes = raw.notes.iter().cloned().collect();
    let unknown = raw.values.keys().filter(|k| !HONOURED.contains(&k.as_str()));
    config.notes.extend(unknown.map(|k| format!("option {k} has no effect")));
    Ok(config)
}

type Env<'a> = dyn Fn(&str) -> Option<String> + 'a;

fn paths(config: &mut HostConfig, raw: &Raw, tokens: &Tokens, env: &Env<'_>) -> Result<(), String> {
    let every = |key: &str| raw.values.get(key).into_iter().flatten().flatten();
    let list = |key: &str| {
        every(key)
            .filter(|p| *p != "none")
            .map(|p| tokens.path(p, env).map(PathBuf::from))
            .collect::<Result<Vec<_>, _>>()
    };
    config.identities = list("identityfile")?;
    config.certificates = list("certificatefile")?;
    config.user_known_hosts = list("userknownhostsfile")?;
    if !raw.values.contains_key("userknownhostsfile") {
        let ssh = Path::new(&tokens.home).join(".ssh");
        config.user_known_hosts = vec![ssh.join("known_hosts"), ssh.join("known_hosts2")];
    }
    config.global_known_hosts = list("globalknownhostsfile")?;
    if !raw.values.contains_key("globalknownhostsfile") {
        config.global_known_hosts =
            vec!["/etc/ssh/ssh_known_hosts".into(), "/etc/ssh/ssh_known_hosts2".into()];
    }
    config.agent = match raw.first("identityagent") {
        None | Some("SSH_AUTH_SOCK") => AgentSocket::Environment,
        Some(none) if none.eq_ignore_ascii_case("none") => AgentSocket::None,
        Some(name) if name.starts_with('$') && !name.starts_with("${") => {
            env(&name[1..]).map_or(AgentSocket::None, |p| AgentSocket::Path(p.into()))
        }
        Some(path) => AgentSocket::Path(tokens.path(path, env)?.into()),
    };
    Ok(())
}

fn proxy(raw: &Raw, tokens: &Tokens) -> Result<Proxy, String> {
    if let Some(jump) = raw.first("proxyjump") {
        if jump.eq_ignore_ascii_case("none") {
            return Ok(Proxy::None);
        }
        let hops = jump.split(',').map(|h| tokens.percent(h.trim())).collect::<Result<Vec<_>, _>>()?;
        return Ok(Proxy::Jump(hops));
    }
    match raw.first("proxycommand") {
        None => Ok(Proxy::None),
        Some(none) if none.eq_ignore_ascii_case("none") => Ok(Proxy::None),
        Some(command) => Ok(Proxy::Command(tokens.percent(command)?)),
    }
}

fn scalars(config: &mut HostConfig, raw: &Raw) -> Result<(), String> {
    let text = |key: &str| raw.first(key).map(str::to_owned);
    config.host_key_algorithms = text("hostkeyalgorithms");
    config.kex = text("kexalgorithms");
    config.ciphers = text("ciphers");
    config.macs = text("macs");
    config.bind_address = text("bindaddress");
    config.identities_only =
        raw.first("identitiesonly").map_or(Ok(false), |v| yes_no(v, "IdentitiesOnly"))?;
    config.batch = raw.first("batchmode").map_or(Ok(false), |v| yes_no(v, "BatchMode"))?;
    config.hash_known_hosts =
        raw.first("hashknownhosts").map_or(Ok(false), |v| yes_no(v, "HashKnownHosts"))?;
    config.host_keys = match raw.first("stricthostkeychecking").map(str::to_ascii_lowercase).as_deref() {
        None | Some("ask") => None,
        Some("yes" | "true") => Some(HostKeys::Strict),
        Some("accept-new") => Some(HostKeys::AcceptNew),
        Some("no" | "off" | "false") => Some(HostKeys::Off),
        Some(other) => {
            return Err(format!("StrictHostKeyChecking {other:?} is not yes, no, ask or accept-new"));
        }
    };
    config.connect_timeout = raw
        .first("connecttimeout")
        .filter(|v| *v != "none")
        .map(|v| seconds(v, "ConnectTimeout"))
        .transpose()?;
    config.connect_attempts =
        raw.first("connectionattempts").map(|v| number(v, "ConnectionAttempts")).transpose()?;
    config.alive_interval = raw
        .first("serveraliveinterval")
        .map(|v| seconds(v, "ServerAliveInterval"))
        .transpose()?
        .filter(|d| !d.is_zero());
    if let Some(v) = raw.first("serveralivecountmax") {
        config.alive_count_max = number(v, "ServerAliveCountMax")?;
    }
    config.family = match raw.first("addressfamily").map(str::to_ascii_lowercase).as_deref() {
        None | Some("any") => Family::Any,
        Some("inet") => Family::Inet,
        Some("inet6") => Family::Inet6,
        Some(other) => return Err(format!("AddressFamily {other:?} is not any, inet or inet6")),
    };
    Ok(())
}

fn number<T: std::str::FromStr>(text: &str, key: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("{key} {text:?} is not a number"))
}

fn yes_no(text: &str, key: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "yes" | "true" => Ok(true),
        "no" | "false" => Ok(false),
        _ => Err(format!("{key} {text:?} is not yes or no")),
    }
}

/// OpenSSH's time format: `90`, `1m30s`, `2h`.
fn seconds(text: &str, key: &str) -> Result<Duration, String> {
    let wrong = || format!("{key} {text:?} is not a time");
    let (mut total, mut digits) = (0u64, String::new());
    for c in text.chars() {
        if c.is_ascii_digit() {
            digits.push(c);
            continue;
        }
        let unit = match c.to_ascii_lowercase() {
            's' => 1,
            'm' => 60,
            'h' => 3600,
            'd' => 86_400,
            'w' => 604_800,
            _ => return Err(wrong()),
        };
        let n: u64 = digits.parse().map_err(|_| wrong())?;
        total = n.checked_mul(unit).and_then(|n| total.checked_add(n)).ok_or_else(wrong)?;
        digits.clear();
    }
    if !digits.is_empty() {
        total = digits.parse::<u64>().ok().and_then(|n| total.checked_add(n)).ok_or_else(wrong)?;
    } else if text.is_empty() {
        return Err(wrong());
    }
    Ok(Duration::from_secs(total))
}
