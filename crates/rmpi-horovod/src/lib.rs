//! What Horovod's workers speak with their launcher when they use Gloo: a small HTTP key-value store in which
//! communicators are built, and in elastic jobs the membership of the world. No IO, no clock, no processes here: bytes
//! and events in, bytes and actions out. Sources: Horovod 0.28.1's `gloo/http_store.cc`, `runner/http`,
//! `runner/elastic`, and runs of the real software.
//!
//! A *job* is what the user started; a *generation* is one assignment of ranks in it; a *member* is a process, known
//! by its host's label and its number there, whatever rank it has in a generation.

#![forbid(unsafe_code)]

pub mod assign;
pub mod discovery;
pub mod elastic;
pub mod http;
pub mod notice;
pub mod pickle;
pub mod store;

pub use assign::{Slot, assign};
pub use store::Store;

/// A member of a job: its host's label, and its number there, from 0. It keeps this name for life.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Member {
    /// The host's label (`HOROVOD_HOSTNAME`).
    pub host: String,
    /// Number on the host.
    pub local: u32,
}

impl std::fmt::Display for Member {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.host, self.local)
    }
}

impl Member {
    /// From `LABEL:NUMBER`, as elastic keys are written.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (host, local) = text.rsplit_once(':')?;
        let local = local.parse().ok()?;
        (!host.is_empty()).then(|| Self { host: host.to_owned(), local })
    }
}
