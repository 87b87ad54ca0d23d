//! The per-node daemon: two processes, a guard and a worker, that start this node's ranks, carry their
//! output and input, and leave nothing behind. What to do when is decided by `rmpi-control`; here is the
//! doing. No name lookups, no command-line parser, no SSH: it must run as one small static binary anywhere.

mod entry;
mod env;
mod family;
mod guard;
mod here;
mod keys;
mod kvs;
mod lines;
mod lookup;
mod net;
mod node;
mod passwd;
mod peer;
mod prepare;
mod rank_vars;
mod spawn;
mod stacks;
mod status;
mod stdio;
mod sys;
mod topo;
mod uplink;
mod worker;

#[cfg(test)]
mod testing;

use entry::complain;
pub use entry::{Forked, HIDDEN_WORD, fork, main};
pub use here::{Here, guarded, leave};
pub use status::ignored_signals;

/// The CPUs this process may use, as a daemon here would report them.
#[must_use]
pub fn topology() -> rmpi_types::Topology {
    topo::read(
        std::path::Path::new("/"),
        &status::Status::get().cpus.clone().unwrap_or_default(),
        topo::Caches::Read,
    )
}
