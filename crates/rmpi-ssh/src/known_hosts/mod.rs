//! Host keys we know, as OpenSSH's `known_hosts` files hold them (`sshd(8)`, "SSH_KNOWN_HOSTS FILE FORMAT").
//! Parsing and deciding are pure; `store` touches files. Any matching line accepts a key; a revocation always
//! refuses it; a key of a known type that no line has is a changed key, not an unknown one.

mod cert;
mod line;
mod store;
#[cfg(test)]
mod tests;

pub use cert::{CertProblem, HostCertificate, check_host_certificate};
pub use line::{Hosts, Line, Marker, parse};
pub use store::{KnownHostsError, append, load};

use std::path::PathBuf;
use std::sync::Arc;

/// The port that is left out of names.
pub const DEFAULT_PORT: u16 = 22;

/// A host as it is looked up: its name (or alias) and port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostName {
    name: String,
    port: u16,
}

impl HostName {
    /// The name dialled (or `HostKeyAlias`, with [`DEFAULT_PORT`]) and the port.
    #[must_use]
    pub fn new(name: &str, port: u16) -> Self {
        Self { name: name.to_ascii_lowercase(), port }
    }

    /// `host`, or `[host]:port` for a port of its own.
    #[must_use]
    pub fn text(&self) -> String {
        match self.port {
            DEFAULT_PORT => self.name.clone(),
            port => format!("[{}]:{port}", self.name),
        }
    }

    /// The name without the port: what host certificates name.
    #[must_use]
    pub fn principal(&self) -> &str {
        &self.name
    }
}

/// A line of a file, for messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file.
    pub file: Arc<PathBuf>,
    /// Its line, from 1.
    pub line: usize,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.file.display(), self.line)
    }
}

/// What the files say about a key of a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// A line has this key.
    Known,
    /// No line has this host with a key of this type.
    Unknown,
    /// This line has another key of the same type for this host.
    Changed(Place),
    /// This line revokes the key.
    Revoked(Place),
}

/// All lines of some files, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KnownHosts {
    lines: Vec<Line>,
}

impl KnownHosts {
    /// Adds the lines of one file.
    pub fn extend(&mut self, lines: Vec<Line>) {
        self.lines.extend(lines);
    }

    fn of<'a>(&'a self, host: &HostName, marker: Marker) -> impl Iterator<Item = &'a Line> + use<'a> {
        let text = host.text();
        self.lines.iter().filter(move |l| l.marker == marker && l.hosts.matches(&text))
    }

    /// The line that revokes this key (or certificate authority) for this host.
    #[must_use]
    pub fn revoked(&self, host: &HostName, blob: &[u8]) -> Option<Place> {
        self.of(host, Marker::Revoked)
            .chain(self.of(&HostName { port: DEFAULT_PORT, ..host.clone() }, Marker::Revoked))
            .find(|l| l.blob == blob)
            .map(|l| l.place.clone())
    }

    /// What is known of a plain key: its type name and its blob in SSH wire format.
    #[must_use]
    pub fn check(&self, host: &HostName, key_type: &str, blob: &[u8]) -> Verdict {
        if let Some(place) = self.revoked(host, blob) {
            return Verdict::Revoked(place);
        }
        let mut changed = None;
        for line in self.of(host, Marker::Key).filter(|l| l.key_type == key_type) {
            if line.blob == blob {
                return Verdict::Known;
            }
            changed.get_or_insert(&line.place);
        }
        if let Some(place) = changed {
            return Verdict::Changed(place.clone());
        }
        // A host known without its port is the same host, as OpenSSH has it; a different key there says nothing.
        let bare = HostName { port: DEFAULT_PORT, ..host.clone() };
        let known = host.port != DEFAULT_PORT && self.of(&bare, Marker::Key).any(|l| l.blob == blob);
        if known { Verdict::Known } else { Verdict::Unknown }
    }

    /// Key types known for a host, in the order of the files: these are asked for first, or a host known by
    /// one type would show another and pass for unknown.
    #[must_use]
    pub fn known_types(&self, host: &HostName) -> Vec<&str> {
        let mut types: Vec<&str> = Vec::new();
        let bare = HostName { port: DEFAULT_PORT, ..host.clone() };
        for line in self.of(host, Marker::Key).chain(self.of(&bare, Marker::Key)) {
            if !types.contains(&line.key_type.as_str()) {
                types.push(&line.key_type);
            }
        }
        types
    }

    /// Whether certificates of this host would be accepted from some authority.
    #[must_use]
    pub fn has_authority(&self, host: &HostName) -> bool {
        self.authorities(host).next().is_some()
    }

    /// Whether this key is an authority for this host.
    #[must_use]
    pub fn is_authority(&self, host: &HostName, blob: &[u8]) -> bool {
        self.authorities(host).any(|l| l.blob == blob)
    }

    fn authorities<'a>(&'a self, host: &HostName) -> impl Iterator<Item = &'a Line> + use<'a> {
        let bare = HostName { port: DEFAULT_PORT, ..host.clone() };
        self.of(host, Marker::CertAuthority).chain(self.of(&bare, Marker::CertAuthority))
    }
}
