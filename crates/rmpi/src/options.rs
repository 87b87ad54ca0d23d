//! What a program may choose at its start: the transport between ranks.

use std::fmt;
use std::str::FromStr;

/// How ranks talk to each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Transport {
    /// What the launcher was told (`rmpirun --transport`), else the fastest that reaches each peer.
    #[default]
    Auto,
    /// TCP, inside a node too.
    Tcp,
}

impl Transport {
    /// All, in the order of documentation.
    pub const ALL: [Self; 2] = [Self::Auto, Self::Tcp];

    /// Its name: `auto`, `tcp`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Tcp => "tcp",
        }
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The name of no transport.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown transport {given:?}: there are {}", Transport::ALL.map(Transport::name).join(", "))]
pub struct UnknownTransport {
    given: String,
}

impl FromStr for Transport {
    type Err = UnknownTransport;

    fn from_str(name: &str) -> Result<Self, UnknownTransport> {
        let found = Self::ALL.into_iter().find(|t| t.name() == name);
        found.ok_or_else(|| UnknownTransport { given: name.to_owned() })
    }
}

/// Choices of a program for [`crate::World::init_with`]. All ranks must choose alike.
#[derive(Clone, Debug, Default)]
pub struct Options {
    pub(crate) transport: Transport,
}

impl Options {
    /// Everything as the launcher and the library choose.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// How ranks talk to each other; what is asked for here wins over what the launcher was told.
    #[must_use]
    pub fn transport(mut self, transport: Transport) -> Self {
        self.transport = transport;
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back_and_others_refused() {
        for t in Transport::ALL {
            assert_eq!(t.to_string().parse(), Ok(t));
        }
        let error = "ib".parse::<Transport>().unwrap_err();
        assert_eq!(error.to_string(), "unknown transport \"ib\": there are auto, tcp");
    }
}
