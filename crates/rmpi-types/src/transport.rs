//! Which rail carries the data of native ranks: what the user asked for (`--transport`, `--encrypt`), and what
//! that means for two ranks on one node and on two.

use serde::{Deserialize, Serialize};

/// Connections between two ranks, at most.
pub const MAX_STREAMS: u32 = 16;
/// The variable that tells ranks how many to make.
pub const STREAMS_VARIABLE: &str = "RMPI_STREAMS";

/// The rail asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Transport {
    /// The fastest that fits each pair: shared memory inside a node; between nodes TCP, or TLS when encrypted.
    #[default]
    Auto,
    /// Shared memory for all pairs: ranks of other nodes cannot be reached.
    Shm,
    /// TCP for all pairs, not encrypted.
    Tcp,
    /// TLS 1.3 over TCP for all pairs.
    Tls,
    /// QUIC for all pairs: encrypted, one UDP port a rank.
    Quic,
}

impl Transport {
    /// All, in the order of the help.
    pub const ALL: [Self; 5] = [Self::Auto, Self::Shm, Self::Tcp, Self::Tls, Self::Quic];

    /// Its name: what `--transport` takes and reports show.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Shm => "shm",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
            Self::Quic => "quic",
        }
    }
}

/// The name of no transport.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown transport '{given}': there are {}", Transport::ALL.map(Transport::name).join(", "))]
pub struct UnknownTransport {
    given: String,
}

impl std::str::FromStr for Transport {
    type Err = UnknownTransport;

    fn from_str(name: &str) -> Result<Self, UnknownTransport> {
        let found = Self::ALL.into_iter().find(|t| t.name() == name);
        found.ok_or_else(|| UnknownTransport { given: name.to_owned() })
    }
}

impl std::fmt::Display for Transport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// What a job's data plane is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataPlane {
    /// The rail.
    pub transport: Transport,
    /// No byte of a message crosses from node to node in clear.
    pub encrypt: bool,
}

impl DataPlane {
    /// Whether ranks need key pairs.
    #[must_use]
    pub const fn keyed(self) -> bool {
        self.encrypt || matches!(self.transport, Transport::Tls | Transport::Quic)
    }

    /// The rail for two ranks on one node; shared memory never leaves it, so it may stay in clear.
    #[must_use]
    pub const fn inside(self) -> Transport {
        match self.transport {
            Transport::Auto => Transport::Shm,
            other => other,
        }
    }

    /// The rail for two ranks on two nodes.
    #[must_use]
    pub const fn between(self) -> Transport {
        match self.transport {
            Transport::Auto if self.encrypt => Transport::Tls,
            Transport::Auto => Transport::Tcp,
            other => other,
        }
    }

    /// Whether it can be had on this many nodes.
    ///
    /// # Errors
    /// What contradicts what, and what to write instead.
    pub fn check(self, nodes: usize) -> Result<(), String> {
        if self.transport == Transport::Tcp && self.encrypt {
            let what = "--encrypt: --transport tcp sends in clear; use tls or quic, or leave --transport out";
            return Err(what.into());
        }
        if self.transport == Transport::Shm && nodes > 1 {
            return Err(format!(
                "--transport shm: the job is on {nodes} nodes, which share no memory; use auto, tcp, tls or quic"
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_rails() {
        for t in Transport::ALL {
            assert_eq!(t.to_string().parse(), Ok(t));
        }
        let error = "ib".parse::<Transport>().unwrap_err();
        assert_eq!(error.to_string(), "unknown transport 'ib': there are auto, shm, tcp, tls, quic");
        use Transport::{Auto, Quic, Shm, Tcp, Tls};
        let table = [
            // transport, encrypt: inside, between, keyed, on 1 node, on 2
            (Auto, false, Shm, Tcp, false, true, true),
            (Auto, true, Shm, Tls, true, true, true),
            (Shm, false, Shm, Shm, false, true, false),
            (Shm, true, Shm, Shm, true, true, false),
            (Tcp, false, Tcp, Tcp, false, true, true),
            (Tcp, true, Tcp, Tcp, true, false, false),
            (Tls, false, Tls, Tls, true, true, true),
            (Quic, true, Quic, Quic, true, true, true),
        ];
        for (transport, encrypt, inside, between, keyed, one, two) in table {
            let d = DataPlane { transport, encrypt };
            assert_eq!((d.inside(), d.between(), d.keyed()), (inside, between, keyed), "{d:?}");
            assert_eq!((d.check(1).is_ok(), d.check(2).is_ok()), (one, two), "{d:?}");
        }
    }
}
